"""Known defects of Dynamo releases: one committed data file, strictly checked.

A scenario that shows a real defect stays in the suite; a record here says which way of failing is the known one, field
by field. Any other way of failing in that scenario is red, and so is a defect that should always show and did not.
"""

import fnmatch
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from support.data import Releases, read_list
from support.judge.chance import bounds
from support.judge.invariants import RULES
from support.judge.verdict import Finding
from support.schema import Expected, Invalid, OneOf, PositiveInt, inside
from support.seen import KINDS, Fact, comparable

FILE = Path(__file__).with_name("known_defects.yaml")
FREQUENCIES = ("always", "sometimes")
LEAST_RUNS = 5
"""Runs that a record has to rest on."""
RISK = 1e-3
"""How often the runs of a window may stray from a rate by chance."""

Text = Annotated[str, Expected("a text in quotes", pattern=r"\S")]
Share = Annotated[float, Expected("a share of runs, more than 0 and at most 1", gt=0, le=1)]
BOUNDS = {"least", "most"}
ALLOWED = "a value (texts may have * and ?), {least: N, most: N}, or a list of such"
"""What a record may say of a field."""


@dataclass(frozen=True)
class Rate:
    """How often a defect shows that shows sometimes.

    Attributes:
        least, most: share of the runs in which one of its scenarios was judged.
        window: how many of the last runs are looked at.
    """

    least: Share
    most: Share
    window: PositiveInt

    def strays(self, shown: Sequence[bool]) -> str:
        """In words, what runs (the last ones last) say against the rate; empty where it is no more than chance, or
        where there are fewer of them than :attr:`window`.
        """
        last = shown[-self.window :]
        if len(last) < self.window:
            return ""
        count = sum(last)
        if count < bounds(self.window, self.least, RISK)[0]:
            return f"showed in {count} of the last {self.window} runs; expected {self.least:.0%} of them at least"
        if count > bounds(self.window, self.most, RISK)[1]:
            return f"showed in {count} of the last {self.window} runs; expected {self.most:.0%} of them at most"
        return ""


@dataclass(frozen=True)
class Way:
    """One way in which a defect shows.

    Attributes:
        rule: the invariant that breaks (a name in :data:`support.judge.invariants.RULES`) or ``sentence``.
        seen: the kind of what is seen, one of :data:`support.seen.KINDS`.
        where: what each comparable field of that kind may be (:data:`ALLOWED`); none may be left out.
        most: how many such findings one scenario may have.
    """

    rule: Annotated[str, OneOf((*RULES, "sentence"))]
    seen: Annotated[str, OneOf([kind for kind in KINDS if comparable(kind)])]
    where: dict[str, Any]
    most: PositiveInt = 1

    def check(self) -> None:
        """Refuse one that leaves a field open, or names one that there is not.

        Raises:
            Invalid: names the field and what is allowed.
        """
        check_where(self.seen, self.where)
        if missing := [name for name in comparable(self.seen) if name not in self.where]:
            raise Invalid(f"where lacks {', '.join(missing)}; a record says of each field what it may be", "where")

    def fits(self, finding: Finding) -> bool:
        """Whether ``finding`` is one of these."""
        return (
            finding.blame == "dynamo"
            and (finding.rule, finding.kind) == (self.rule, self.seen)
            and all(name in finding.facts and may_be(finding.facts[name], self.where[name]) for name in self.where)
        )


@dataclass(frozen=True)
class KnownDefect:
    """One known defect.

    Attributes:
        id: short stable name, shown in reports.
        scenario: exact name of the scenario, or a glob (``*``, ``?``); several, with `` | `` between them, where the
            same defect shows in the same way.
        releases: the Dynamo releases that show it, e.g. ``>=1.4,<1.7``.
        ways: how it shows; one of them has to.
        frequency: ``always`` or ``sometimes``; ``rate``: how often that is.
        reproductions: ``k/n``: seen in k of n runs.
        evidence: what was seen, in words, with the place of the ledgers.
        upstream: address of the thread, or ``none found``.
        feature: exact name of the feature or a glob; empty means any.
    """

    id: Text
    scenario: Text
    releases: Releases
    ways: list[Way]
    frequency: Annotated[str, OneOf(FREQUENCIES)]
    reproductions: Annotated[str, Expected("k/n, e.g. '5/5'", pattern=r"^\d+/\d+$")]
    evidence: Text
    upstream: Annotated[str, Expected("an https address or 'none found'", pattern=r"^(none found$|https://)")]
    feature: Text = ""
    rate: Rate | None = None

    def check(self) -> None:
        """Refuse a record that rests on too little, or says too little.

        Raises:
            Invalid: says what is wrong, where, and what is allowed.
        """
        if not self.ways:
            raise Invalid("ways is []; expected how the defect shows, at least one", "ways")
        for number, way in enumerate(self.ways):
            with inside("ways", number):
                way.check()
        shown, runs = map(int, self.reproductions.split("/"))
        if not 1 <= shown <= runs or runs < LEAST_RUNS:
            wanted = f"k/n with n at least {LEAST_RUNS}, e.g. '5/5'"
            raise Invalid(f"reproductions is {self.reproductions!r}; expected {wanted}", "reproductions")
        if self.frequency == "always":
            if shown < runs:
                wanted = f"{runs}/{runs} or 'sometimes'"
                seen = f"frequency 'always' with {self.reproductions} reproductions"
                raise Invalid(f"{seen}; expected {wanted}", "frequency")
            if self.rate:
                raise Invalid("a rate with frequency 'always'; expected none, or frequency 'sometimes'", "rate")
            return
        if not self.rate:
            raise Invalid("frequency 'sometimes' without a rate; expected {least: S, most: S, window: N}", "frequency")
        if not self.rate.least <= shown / runs <= self.rate.most:
            wanted = f"least and most with {self.reproductions} between them"
            raise Invalid(f"rate is {self.rate.least:g} to {self.rate.most:g}; expected {wanted}", "rate")
        if bounds(self.rate.window, self.rate.least, RISK)[0] < 1:
            wanted = f"enough runs that none at all is not chance (risk {RISK:g})"
            raise Invalid(f"window is {self.rate.window}; expected {wanted}", "rate", "window")

    def applies(self, release: str, scenario: str, feature: str = "") -> bool:
        """Whether the defect is expected in ``scenario`` (its name) of ``feature`` on ``release`` (``1.6.1``)."""
        return (
            self.releases.contains(release, prereleases=True)
            and _matches(self.scenario, scenario)
            and (not self.feature or _matches(self.feature, feature))
        )

    def can_show(self, not_judged: Container[str]) -> bool:
        """Whether one of its ways is of a rule that is judged."""
        return any(way.rule not in not_judged for way in self.ways)

    def must_show(self, not_judged: Container[str]) -> bool:
        """Whether it is wrong if it does not show: it always does, and each of its ways is of a rule that is judged."""
        return self.frequency == "always" and not any(way.rule in not_judged for way in self.ways)

    def explained(self, findings: Iterable[Finding]) -> list[Finding]:
        """Those of ``findings`` that are the known way of failing; none of a way of which there are too many."""
        found: list[Finding] = []
        rest = list(findings)
        for way in self.ways:
            fitting = [finding for finding in rest if way.fits(finding)]
            if len(fitting) <= way.most:
                found += fitting
        return found


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


def strayed(records: Iterable[KnownDefect], shown: Mapping[str, Sequence[bool]]) -> list[str]:
    """What is wrong with the rates of records by what runs have shown, one phrase each.

    Args:
        shown: id of a record -> for each run in which one of its scenarios was judged, oldest first, whether it showed.
    """
    said = [(record.id, record.rate.strays(shown.get(record.id, ()))) for record in records if record.rate]
    return [f"known defect {name} {words}: correct its rate or its releases" for name, words in said if words]


def _matches(pattern: str, name: str) -> bool:
    return any(name == each or fnmatch.fnmatchcase(name, each) for each in pattern.split(" | "))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_where(kind: str, where: Mapping[str, Any]) -> None:
    """Refuse fields that ``kind`` has not, and what no field may be.

    Raises:
        Invalid: names the field and what is allowed.
    """
    names = comparable(kind)
    for name, allowed in where.items():
        if name not in names:
            raise Invalid(f"{kind!r} has no field {name!r}; its fields are {', '.join(names)}", "where", name)
        if not _is_allowed(allowed):
            raise Invalid(f"{name} is {allowed!r}; expected {ALLOWED}", "where", name)


def _is_allowed(allowed: Any) -> bool:
    """Whether it has the form of :data:`ALLOWED`."""
    if isinstance(allowed, list):
        return bool(allowed) and not any(isinstance(each, list) or not _is_allowed(each) for each in allowed)
    if isinstance(allowed, dict):
        return allowed.keys() == BOUNDS and all(map(_is_number, allowed.values()))
    return allowed is None or isinstance(allowed, str | int | float)


def may_be(value: Fact, allowed: Any) -> bool:
    """Whether a field may be that, by what is :data:`ALLOWED`."""
    if isinstance(allowed, list):
        return any(may_be(value, each) for each in allowed)
    if isinstance(allowed, dict):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and bool(allowed["least"] <= value <= allowed["most"])
    if isinstance(allowed, str) and isinstance(value, str):
        return fnmatch.fnmatchcase(value, allowed)
    return isinstance(value, bool) == isinstance(allowed, bool) and bool(value == allowed)
