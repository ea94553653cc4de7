"""How well the suite itself is tested: the kill matrix of ``make sabotage``, which breaks something on purpose in every
scenario, and the score of ``make mutation``.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from support.report import runs

FILE, MUTATION = "sabotage.json", "mutation.json"
"""In the checkout's ``reports`` folder."""
OUTCOMES = ("caught", "missed", "inconclusive", "not reached")


@dataclass(frozen=True)
class Trial:
    """One scenario under one sabotage.

    Attributes:
        feature, scenario: names; ``sabotage``: as in ``FT_SABOTAGE``, empty where Dynamo brings it itself.
        expected: the verdict that it has to get; ``wanted``: what has to be found with it, in short.
        outcome: one of :data:`OUTCOMES`: ``not reached`` where the sabotage left no mark before the verdict,
            ``inconclusive`` where it got that verdict, or none, and had to get another.
        verdict: the one that it got, empty for none; ``reason`` with it.
        marks: how many the sabotage has left before the verdict; ``proof``: the first of them.
        seconds: what it took; ``at``: when it was over.
        dynamo: the release; ``sources``: hash of features, steps, suite and agents, by which an old trial is told.
    """

    feature: str
    scenario: str
    sabotage: str
    expected: str
    wanted: str
    outcome: str
    verdict: str
    reason: str
    marks: int
    proof: str
    seconds: float
    at: str
    dynamo: str
    sources: str

    @property
    def row(self) -> tuple[str, str, str, str, str]:
        """What it is a trial of."""
        return self.feature, self.scenario, self.sabotage, self.expected, self.wanted

    @property
    def kills(self) -> bool:
        """Whether the scenario has turned red for the sabotage, as it had to."""
        return self.outcome == "caught" and self.expected != "passed"


def read_trials(reports: Path) -> list[Trial]:
    """All trials that are known; none where no file is, or one that cannot be read."""
    try:
        content = json.loads((reports / FILE).read_text(encoding="utf-8"))
        return [Trial(**each) for each in content["trials"]]
    except (OSError, ValueError, TypeError, LookupError):
        return []


def score(trials: Sequence[Trial], wanted: int) -> dict[str, Any]:
    """How many trials came out how, who has caught nobody, and whom nobody has caught.

    Args:
        trials: of rows that are in the table.
        wanted: how many trials the table asks for.
    """
    counts = Counter(each.outcome for each in trials)
    told = [each for each in trials if each.expected != "passed"]
    caught = {each.sabotage for each in told if each.kills}
    catchers = {(each.feature, each.scenario) for each in told if each.kills}
    idle = {(each.feature, each.scenario) for each in told} - catchers
    return {
        "wanted": wanted,
        **{name: counts[name] for name in OUTCOMES},
        "not run": wanted - len(trials),
        "sabotages that nobody caught": sorted({each.sabotage for each in told} - caught - {""}),
        "scenarios that caught nobody": sorted(": ".join(each) for each in idle),
    }


def write_trials(reports: Path, trials: Sequence[Trial], wanted: int) -> None:
    """Put the matrix and its score into the file."""
    reports.mkdir(exist_ok=True)
    runs.write_json(reports / FILE, {"score": score(trials, wanted), "trials": [asdict(each) for each in trials]})


def sabotage_line(reports: Path) -> str:
    """The score of ``make sabotage`` in a line; empty where there is none."""
    try:
        found = json.loads((reports / FILE).read_text(encoding="utf-8"))["score"]
        rest = [f"{found[name]} {name}" for name in (*OUTCOMES[1:], "not run") if found[name]]
        return ", ".join([f"{found['caught']} of {found['wanted']} caught", *rest])
    except (OSError, ValueError, TypeError, LookupError):
        return ""


def mutation_line(reports: Path) -> str:
    """The score of ``make mutation`` in a line; empty where there is none of all its modules."""
    try:
        found = json.loads((reports / MUTATION).read_text(encoding="utf-8"))
        return f"{found['percent']} % of {found['mutants']} mutants killed" if found["whole"] else ""
    except (OSError, ValueError, TypeError, LookupError):
        return ""


def self_tests(reports: Path) -> dict[str, str]:
    """What the first page of a report says of the suite's own tests: name -> a line."""
    lines = {"sabotage": sabotage_line(reports), "mutation": mutation_line(reports)}
    return {name: line for name, line in lines.items() if line}
