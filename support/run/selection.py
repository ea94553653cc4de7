"""Which scenarios a run is made of, by behave's own reading of features and tags."""

import configparser
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from support.report import allure
from support.settings import ROOT

LIMIT, SLOW_LIMIT = 300.0, 3600.0
"""Seconds that a scenario may take; the second one with the tag ``@slow`` or ``@soak``."""
MISTAKES = 2
"""Exit status of behave where environment.py has found mistakes in the feature files."""
LISTING = "steps.listing_formatter:ListingFormatter"


def limit(tags: Iterable[str]) -> float:
    """Seconds after which a scenario with these tags is ended by force."""
    return LIMIT if {"slow", "soak"}.isdisjoint(tags) else SLOW_LIMIT


@dataclass(frozen=True)
class Selected:
    """One scenario that was selected; ``tags`` are those of its feature as well, ``seconds`` the longest time that its
    name and sentences speak of.
    """

    feature: str
    name: str
    location: str
    tags: tuple[str, ...]
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """What it is called in the file of costs; lines move, names seldom."""
        return f"{self.feature}: {self.name}"

    @property
    def limit(self) -> float:
        """Seconds after which it is ended by force."""
        return limit(self.tags)


def left_out(root: Path) -> list[str]:
    """The tags of what runs only when it is asked for, as behave.ini has them."""
    ini = configparser.ConfigParser()
    ini.read(root / "behave.ini", encoding="utf-8")
    return re.findall(r"not @([\w.-]+)", ini.get("behave", "default_tags", fallback=""))


def with_defaults(root: Path, tags: Sequence[str]) -> list[str]:
    """``tags`` and what behave.ini leaves out by default, as far as they do not name it themselves.

    behave forgets its ``default_tags`` once it is given tags: ``@deployment`` would run its ``@soak`` as well.
    """
    if not tags:
        return []
    named = {word for expression in tags for word in re.findall(r"[\w.-]+", expression)}
    return [*tags, *(f"not @{tag}" for tag in left_out(root) if tag not in named)]


def enumerate_scenarios(root: Path, features: Sequence[str], tags: Sequence[str]) -> list[Selected]:
    """The scenarios that ``behave`` would run with these features and tag expressions, in its order.

    Raises:
        RuntimeError: behave cannot parse them, or there are mistakes in them; the message is what was said.
    """
    with os.fdopen(os.memfd_create("scenarios"), encoding="utf-8") as listing:  # in memory: there is nothing to remove
        fd = listing.fileno()
        options = ["--dry-run", "--no-summary", "--color=off", "-f", LISTING, "-o", f"/proc/self/fd/{fd}"]
        selection = [f"--tags={tag}" for tag in tags]
        command = [sys.executable, "-m", "behave", *options, *selection, *features]
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
        environ = {name: value for name, value in os.environ.items() if name != "FT_RUN_DIR"} | {"PYTHONPATH": path}
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "pass_fds": [fd]}
        done = subprocess.run(command, cwd=root, env=environ, check=False, **pipes)
        text = listing.read()
    if done.returncode == MISTAKES:
        raise RuntimeError(f"behave cannot start:\n\n{done.stderr.strip()}")
    if done.returncode:
        raise RuntimeError(f"behave cannot list the scenarios:\n{done.stdout}{done.stderr}".rstrip())
    return [Selected(**each | {"tags": tuple(each["tags"])}) for each in json.loads(text or "[]")]


class Listing:
    """A formatter for behave that writes the selected scenarios down, as :func:`enumerate_scenarios` reads them.

    Args:
        file: gets them.
        config: behave's, by which scenarios are selected.
    """

    def __init__(self, file: Path, config: Any) -> None:
        self._file, self._config = file, config
        self._found: list[Selected] = []

    def scenario(self, scenario: Any) -> None:
        """A scenario begins, selected or not."""
        if scenario.should_run(self._config):
            told = [scenario.name, *(step.name for step in scenario.all_steps)]
            seconds = max((float(n) for text in told for n in re.findall(r"(\d+) seconds", text)), default=0.0)
            named = (scenario.feature.name, scenario.name, allure.location_of(scenario))
            self._found.append(Selected(*named, tuple(allure.tags_of(scenario)), seconds))

    def finish(self) -> None:
        """All have been there."""
        self._file.write_text(json.dumps([asdict(each) for each in self._found]), encoding="utf-8")
