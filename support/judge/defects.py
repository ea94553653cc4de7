"""Known defects of Dynamo releases: one committed data file, strictly checked.

A scenario that shows a real defect stays in the suite; a record here says which way of failing is the known one. Any
other way of failing in that scenario is red, and so is a defect that should always show and did not.
"""

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from support.data import Releases, read_list
from support.judge.invariants import RULES
from support.judge.verdict import Finding
from support.schema import Expected, Invalid, OneOf

FILE = Path(__file__).with_name("known_defects.yaml")
FREQUENCIES = ("always", "sometimes")
LEAST_RUNS = 5
"""Runs that a record has to rest on."""

Text = Annotated[str, Expected("a text in quotes", pattern=r"\S")]


@dataclass(frozen=True)
class KnownDefect:
    """One known defect.

    Attributes:
        id: short stable name, shown in reports.
        scenario: exact name of the scenario, or a glob (``*``, ``?``); several, with `` | `` between them, where the
            same defect shows in the same way.
        releases: the Dynamo releases that show it, e.g. ``>=1.4,<1.7``.
        rule: the invariant that breaks (a name in :data:`support.judge.invariants.RULES`) or ``sentence``.
        seen: regular expression searched in the finding's message.
        frequency: ``always`` or ``sometimes``.
        reproductions: ``k/n``: seen in k of n runs.
        evidence: what was seen, in words, with the place of the ledgers.
        upstream: address of the thread, or ``none found``.
        feature: exact name of the feature or a glob; empty means any.
    """

    id: Text
    scenario: Text
    releases: Releases
    rule: Annotated[str, OneOf((*RULES, "sentence"))]
    seen: re.Pattern[str]
    frequency: Annotated[str, OneOf(FREQUENCIES)]
    reproductions: Annotated[str, Expected("k/n, e.g. '5/5'", pattern=r"^\d+/\d+$")]
    evidence: Text
    upstream: Annotated[str, Expected("an https address or 'none found'", pattern=r"^(none found$|https://)")]
    feature: Text = ""

    def check(self) -> None:
        """Refuse a record that rests on too little.

        Raises:
            Invalid: says what is wrong with the reproductions.
        """
        shown, runs = map(int, self.reproductions.split("/"))
        if not 1 <= shown <= runs or runs < LEAST_RUNS:
            wanted = f"k/n with n at least {LEAST_RUNS}, e.g. '5/5'"
            raise Invalid(f"reproductions is {self.reproductions!r}; expected {wanted}", "reproductions")
        if self.frequency == "always" and shown < runs:
            raise Invalid(
                f"frequency 'always' with {shown}/{runs} reproductions; expected {runs}/{runs} or 'sometimes'",
                "frequency",
            )

    def applies(self, release: str, scenario: str, feature: str = "") -> bool:
        """Whether the defect is expected in ``scenario`` (its name) of ``feature`` on ``release`` (``1.6.1``)."""
        return (
            self.releases.contains(release, prereleases=True)
            and _matches(self.scenario, scenario)
            and (not self.feature or _matches(self.feature, feature))
        )

    def explains(self, finding: Finding) -> bool:
        """Whether ``finding`` is the known way of failing."""
        return finding.blame == "dynamo" and finding.rule == self.rule and bool(self.seen.search(finding.message))


def load(path: Path = FILE) -> list[KnownDefect]:
    """The records of a file.

    Raises:
        ValueError: the file is not a list of records, or a record is wrong; the message names the line and the field.
    """
    return read_list(path, KnownDefect, key="id", check=KnownDefect.check)


def unmatched(records: Iterable[KnownDefect], scenarios: Iterable[tuple[str, str]]) -> list[str]:
    """Ids of stale records: their scenario is not among ``scenarios`` (pairs of feature name and scenario name)."""
    names = list(scenarios)
    return [
        record.id
        for record in records
        if not any(
            _matches(record.scenario, scenario) and (not record.feature or _matches(record.feature, feature))
            for feature, scenario in names
        )
    ]


def _matches(pattern: str, name: str) -> bool:
    return any(name == each or fnmatch.fnmatchcase(name, each) for each in pattern.split(" | "))
