"""Verdicts: what is said of a scenario once its history has been judged."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from support.seen import Fact, Seen

VERDICTS = ("passed", "failed", "mistake", "inconclusive", "known_defect", "skipped")
BAD = ("failed", "mistake", "inconclusive")
"""Those that make a run red, the most urgent first."""


@dataclass(frozen=True)
class Finding:
    """One thing that the judge holds against a history.

    Attributes:
        rule: short stable name of the broken invariant (:data:`support.judge.invariants.RULES`), ``sentence`` for a
            step that did not hold, ``unproven`` or ``step-error`` for one that broke down, ``mistake`` for one that
            cannot be.
        about: what it is about: ``request 3``, ``vllm-worker-0``, or the sentence.
        message: one line that says what was seen and what was expected, for people alone: the words of ``facts``.
        blame: ``dynamo`` (the verdict is *failed*), ``author`` (*mistake*: who wrote the scenario) or ``suite``
            (*inconclusive*: us or the surroundings).
        kind: what was seen, one of :data:`support.seen.KINDS`; ``facts``: its fields.
        since, until: the time in which it should have come and did not, on :mod:`support.clock`; None: no time was set.
    """

    rule: str
    about: str
    message: str
    blame: str = "dynamo"
    kind: str = "told"
    facts: Mapping[str, Fact] = field(default_factory=dict)
    since: float | None = None
    until: float | None = None

    @classmethod
    def of(cls, rule: str, about: str, seen: Seen, blame: str = "dynamo", words: str = "") -> "Finding":
        """That of something seen; ``words``: more of them than it has itself."""
        return cls(rule, about, words or seen.words, blame, seen.kind, seen.facts)


@dataclass
class Verdict:
    """The verdict on one scenario as it is written to ``verdict.json`` and ``summary.json``.

    Attributes:
        feature: name of the feature; ``location`` is ``features/x.feature:12``.
        verdict: one of :data:`VERDICTS`.
        reason: one line, empty for a plain pass.
        known_defects: ids of the records that explain the findings; not empty only for ``known_defect``.
        evidence: invariant -> how many things it has looked at; with 0 it held because there was none.
        not_judged: invariant that was not judged -> why.
        lack: what release or target lack, of a skipped scenario: one of :data:`support.errors.LACKS`, or a tag.
        slowness: how many times longer than alone the suite's own process took for what it did
            (:mod:`support.slowness`).
        kept: how to look at what was left running of it, line by line; empty where nothing was.
    """

    feature: str
    name: str
    location: str
    tags: list[str]
    verdict: str
    seconds: float
    reason: str = ""
    findings: list[Finding] = field(default_factory=list)
    known_defects: list[str] = field(default_factory=list)
    evidence: dict[str, int] = field(default_factory=dict)
    not_judged: dict[str, str] = field(default_factory=dict)
    slowness: float = 1.0
    lack: str = ""
    kept: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tags = [str(tag) for tag in self.tags]  # behave's tags are strings with extras that JSON and asdict refuse

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return asdict(self)
