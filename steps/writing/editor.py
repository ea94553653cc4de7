"""Settings for editors: completion of the sentences in VS Code."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from steps.writing.sentences import Sentence
from support.settings import ROOT
from support.words import TYPES

FOLDER = ROOT / ".vscode"


def texts(sentences: Sequence[Sentence]) -> dict[Path, str]:
    """Each file for editors, and what it has to hold."""
    settings = {
        "cucumber.features": ["features/**/*.feature"],
        "cucumber.glue": ["steps/*.py"],
        "cucumber.parameterTypes": [{"name": name, "regexp": _regexp(name)} for name in TYPES],
    }
    return {FOLDER / "settings.json": json.dumps(settings, indent=2) + "\n"}


def _regexp(name: str) -> str:
    """The words of a type, or what they look like."""
    words = getattr(TYPES[name], "words", ())
    pattern: str = "|".join(map(re.escape, words)) or TYPES[name].pattern  # type: ignore[attr-defined]
    return pattern
