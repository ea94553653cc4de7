"""Which scenarios a run is made of, by behave's own reading of features and tags."""

import configparser
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT, SLOW_LIMIT = 300.0, 3600.0
"""Seconds that a scenario may take; the second one with the tag ``@slow`` or ``@soak``."""


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
        return LIMIT if {"slow", "soak"}.isdisjoint(self.tags) else SLOW_LIMIT


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
        RuntimeError: behave cannot parse them, or steps are undefined; the message is what behave said.
    """
    with tempfile.TemporaryDirectory() as scratch:
        listing = Path(scratch, "scenarios.json")
        options = ["--dry-run", "--no-snippets", "--color=off", "-f", "json", "-o", str(listing)]
        selection = [f"--tags={tag}" for tag in tags]
        command = [sys.executable, "-m", "behave", *options, *selection, *features]
        done = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        text = listing.read_text(encoding="utf-8").strip() if listing.exists() else ""
    features_found = json.loads(text) if text else []
    elements = [(feature, element) for feature in features_found for element in feature.get("elements", [])]
    steps = [step for _, element in elements for step in element["steps"]]
    if undefined := [f"{step['location']} {step['name']}" for step in steps if "match" not in step]:
        raise RuntimeError("\n  ".join(["behave knows no step for these sentences:", *undefined]))
    if done.returncode:
        raise RuntimeError(f"behave cannot list the scenarios:\n{done.stdout}{done.stderr}".rstrip())
    return [
        Selected(
            feature["name"],
            element["name"],
            element["location"],
            (*feature["tags"], *element["tags"]),
            max(
                (
                    float(n)
                    for text in (element["name"], *(step["name"] for step in element["steps"]))
                    for n in re.findall(r"(\d+) seconds", text)
                ),
                default=0.0,
            ),
        )
        for feature, element in elements
        if element["type"] == "scenario"
    ]
