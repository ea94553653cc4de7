"""What a checker is: it says whether one promise held in a run under load. Pure: a context in, yes or no and a message
out.

::

    class NoTimeouts(BaseChecker):
        name = "no_timeouts"

        def check(self, context):
            return self.every(context.ledger, lambda entry: entry.end != "timeout", "request")

A subclass is known by its ``name`` (that of its class, without one) from then on. A checker that has nothing to check
fails: it would prove nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from support.amounts import amount
from support.contract.target import Wait
from support.judge.lag import see_keen
from support.judge.recovery import Band
from support.requests.ledger import LedgerEntry
from support.requests.outcomes import describe, outcome, seen_of
from support.seen import LoadSeen

CHECKERS: dict[str, type["BaseChecker"]] = {}
"""Name -> checker."""


@dataclass
class ValidationContext:
    """What a checker may look at.

    Attributes:
        scenario: the :class:`support.scenarios.Scenario` that was run, or None.
        log_dir: folder of the run.
        metrics: what the frontend's counters have grown by: ``requests_total``, ``migrations_total`` (attempts),
            ``ongoing_migrations_total`` (those of answers in flight), ``cancellations_total``; a plain mapping, without
            what the release does not count.
        ledger: every attempt of every request.
        answers: the last attempt of every request; empty where nothing was tried twice, see :attr:`asked`.
        deployment: the published topology.
        recovery_time: seconds from the end of the disturbance to stable; infinite: not reached; None: not disturbed.
        affected_workers: names of the nodes that were hit.
        results: :func:`support.report.results.process_overflow_recovery_test`.
        struck_at: when the first failure struck; None: none did.
        footprint: looks at the suite's own processes, see :mod:`support.observe.footprint`.
        waits: spells in which processes of Dynamo and of the suite waited for a processor.
        overload_status: HTTP status with which this release rejects an overload.
    """

    scenario: Any = None
    log_dir: Path = Path()
    metrics: Mapping[str, float] = field(default_factory=dict)
    ledger: Sequence[LedgerEntry] = ()
    deployment: Mapping[str, Any] = field(default_factory=dict)
    recovery_time: float | None = None
    affected_workers: Sequence[str] = ()
    results: Mapping[str, Any] = field(default_factory=dict)
    struck_at: float | None = None
    footprint: Sequence[Mapping[str, Any]] = ()
    answers: Sequence[LedgerEntry] = ()
    overload_status: int | None = None
    waits: Sequence[Wait] = ()

    @property
    def asked(self) -> list[LedgerEntry]:
        """What became of each request that we did not give up, whatever became of its attempts before."""
        return [entry for entry in self.answers or self.ledger if entry.end != "cancelled"]

    def phase(self, name: str) -> Mapping[str, Any]:
        """Figures of a phase.

        Raises:
            NothingToCheck: the run has no request in it.
        """
        found: Mapping[str, Any] = self.results.get("phases", {}).get(name, {})
        if not found.get("planned"):
            raise NothingToCheck(f"no request in phase {name}")
        return found

    def band(self, phase: str) -> Band:
        """The STANDARD band, for a claim about ``phase``.

        Raises:
            NothingToCheck: STANDARD shows none.
            AssertionError: because it failed itself, with nothing broken yet.
            Inconclusive: the client lagged too much in one of the two phases, and its times mean nothing.
        """
        found = self.results.get("recovery", {})
        if found.get("standard_failed"):
            raise AssertionError(found["no_band"])
        if not found.get("band"):
            raise NothingToCheck(found.get("no_band") or "there are no times")
        band = Band(**found["band"])
        for name in ("STANDARD", phase):
            lag = self.phase(name)
            see_keen(lag["p50_lag_ms"] / 1000, band.p50_ms / 1000, f"median of {name}, {band.describe()}")
            see_keen(lag["p99_lag_ms"] / 1000, band.p99_ms / 1000, f"p99 of {name}, {band.describe()}")
        return band


class NothingToCheck(Exception):
    """The run has nothing that the checker is about."""


@dataclass
class BaseChecker:
    """One promise; after :meth:`check` ``message`` says what was seen, and ``silence`` how many seconds, where it has
    measured that, nobody got a token. Parameters are fields of a dataclass.
    """

    name: ClassVar[str] = ""
    bounds: ClassVar[Sequence[str]] = ()
    """Parameters that a sentence has to name, for they say what is promised."""
    options: ClassVar[Sequence[str]] = ()
    """Those that it may name."""

    def __init_subclass__(cls) -> None:
        cls.name = cls.__dict__.get("name") or cls.__name__
        if cls.name in CHECKERS:
            raise TypeError(f"{cls.__name__} has the name {cls.name!r}, as another checker has; give it its own")
        CHECKERS[cls.name] = cls

    def __post_init__(self) -> None:
        self.message = ""
        self.silence: float | None = None

    def check(self, context: ValidationContext) -> bool:
        """Whether the promise held; an exception means that it did not."""
        raise NotImplementedError

    def say(self, holds: bool, message: str) -> bool:
        """Keep the message and pass ``holds`` on."""
        self.message = message
        return holds

    def whole(self, context: ValidationContext, holds: bool) -> bool:
        """``holds``, unless requests or clients of the run are lost: whoever cannot tell has not succeeded."""
        lost = context.results.get("missing", [])
        return self.say(holds and not lost, "; ".join([self.message, *lost]))

    def every(self, entries: Sequence[LedgerEntry], holds: Callable[[LedgerEntry], bool], what: str) -> bool:
        """Whether each of ``entries`` holds and there is one at all; the message says what the others got."""
        if not entries:
            raise NothingToCheck(f"there is no {what}")
        wrong = [each for each in entries if not holds(each)]
        seen = f"{len(wrong)} of {amount(len(entries), what)} do not"
        if wrong:
            first = min(each.intended_at for each in entries)
            times = [each.intended_at - first for each in wrong]
            seen += (
                f", due {min(times):.1f} to {max(times):.1f} s after the first {what}{counted(map(describe, wrong))}"
            )
        return self.say(not wrong, seen)


def seen_of_load(check: str, said: str, silence: float | None, context: ValidationContext) -> LoadSeen:
    """What a checker saw of a load, beside how the load's requests ended."""
    due = sorted(context.asked, key=lambda entry: entry.intended_at)
    failed = [(entry, end) for entry in due if (end := outcome(entry)).kind != "complete"]
    times = [entry.intended_at for entry, _ in failed]
    seen = [seen_of(entry) for entry, _ in failed]
    return LoadSeen(
        check=check,
        requests=len(due),
        failed=len(failed),
        broken=sum(end.kind == "broken" for _, end in failed),
        statuses=_each(answer.status for answer in seen),
        error_codes=_each(answer.error_code for answer in seen),
        flaws=", ".join(sorted({end.flaw for _, end in failed if end.flaw})),
        failing_seconds=max(times) - min(times) if times else 0.0,
        silence=silence,
        recovered=context.results.get("phases", {}).get("RECOVERY", {}).get("success_rate"),
        last_succeeded=bool(due) and outcome(due[-1]).kind == "complete",
        said=said,
    )


def _each(values: Iterable[int | None]) -> str:
    return ", ".join(sorted({"none" if value is None else str(value) for value in values}))


def counted(findings: Iterable[str]) -> str:
    """The three commonest of these findings with how often each was made, to be added to a message."""
    return "".join(f"; {count} times {what}" for what, count in Counter(findings).most_common(3))
