"""What is left of a run: the scenarios that were not good or did not run, and the settings to run them again with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.report import publish, runs
from support.run.selection import Selected, enumerate_scenarios
from support.settings import Settings

GOOD = ("passed", "known_defect", "skipped")


def given(settings: Settings) -> dict[str, str]:
    """The settings that somebody gave, in words that give them again."""
    return {name: str(getattr(settings, name)) for name in settings.sources}


def kept(settings: Settings, tags: Sequence[str], scenarios: Sequence[Selected]) -> dict[str, Any]:
    """What a run has to write down of itself, so that :func:`last_run` can read it."""
    planned = [{"feature": each.feature, "name": each.name, "location": each.location} for each in scenarios]
    return {"settings": given(settings), "tags": list(tags), "planned": planned}


@dataclass(frozen=True)
class LastRun:
    """A run that is over.

    Attributes:
        folder: of the run.
        settings: name -> value of those that were given.
        tags: tag expressions that chose its scenarios.
        left: feature, name and file of each scenario that was not good or did not run.
    """

    folder: Path
    settings: dict[str, str]
    tags: list[str]
    left: list[tuple[str, str, str]]

    def to_repeat(self, root: Path) -> list[Selected]:
        """The scenarios that are left, as the feature files have them now.

        Raises:
            RuntimeError: behave cannot parse the files.
            ValueError: one is no longer there under its name.
        """
        if not self.left:
            return []
        there = enumerate_scenarios(root, sorted({file for _, _, file in self.left}), self.tags)
        wanted = {(feature, name) for feature, name, _ in self.left}
        if gone := wanted - {(each.feature, each.name) for each in there}:
            feature, name = min(gone)
            raise ValueError(f"{feature!r} no longer has a scenario {name!r}; choose others with make acceptance")
        return [each for each in there if (each.feature, each.name) in wanted]


def last_run(reports: Path) -> LastRun:
    """The last run of chosen scenarios.

    Raises:
        ValueError: there is none.
    """
    for folder in reversed(runs.history(reports)):
        try:
            about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            planned, settings, tags = about["planned"], about["settings"], about["tags"]
        except (OSError, ValueError, LookupError):
            continue
        if planned:
            good = {(each.feature, each.name) for each in publish.collect(folder) if each.verdict in GOOD}
            named = [(each["feature"], each["name"], each["location"].rpartition(":")[0]) for each in planned]
            return LastRun(folder, settings, tags, [each for each in named if each[:2] not in good])
    raise ValueError(f"there is no run in {reports / 'runs'} to go on with; start one with make acceptance")
