"""Settings for editors: completion of the sentences in VS Code.

Its extension for Cucumber reads the step functions, and takes ``{count:Count}`` for a parameter of a type that is
called just so; what such a parameter looks like has to be in its settings.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from steps.writing.sentences import Sentence
from support.settings import ROOT
from support.words import TYPES

ANY_TEXT = '[^"]+'


def texts(sentences: Sequence[Sentence]) -> dict[Path, str]:
    """Each file for editors, and what it has to hold."""
    names = {f"{name}:{kind}" if kind else name: kind for each in sentences for name, kind in each.placeholders}
    settings = {
        "cucumber.features": ["features/**/*.feature"],
        "cucumber.glue": ["steps/*.py"],
        "cucumber.parameterTypes": [{"name": name, "regexp": _regexp(kind)} for name, kind in sorted(names.items())],
    }
    return {ROOT / ".vscode" / "settings.json": json.dumps(settings, indent=2) + "\n"}


def _regexp(kind: str) -> str:
    """The words of a type, or what they look like; no type: any text."""
    words = getattr(TYPES[kind], "words", ()) if kind else ()
    pattern: str = TYPES[kind].pattern if kind else ANY_TEXT  # type: ignore[attr-defined]
    return "|".join(map(re.escape, words)) or pattern
