"""Requests of a load as their users saw them, which is all that figures are made of."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.contract.target import Wait
from support.events import Event
from support.requests.load_log import LoadLog
from support.requests.pace import inter_token, pause
from support.schema import PositiveFloat

NEVER = math.inf


@dataclass(frozen=True)
class Objectives:
    """What a request has to keep to count for goodput, in milliseconds; None: any."""

    ttft_ms: PositiveFloat | None = None
    itl_ms: PositiveFloat | None = None
    latency_ms: PositiveFloat | None = None


NO_OBJECTIVES = Objectives()
"""Every whole answer counts for goodput."""


@dataclass(frozen=True)
class Sample:
    """One intended request as its user saw it; its times are seconds from the time at which it was due.

    Attributes:
        phase: one of STANDARD, OVERFLOW, RECOVERY; empty where nothing tells.
        load: name of the load that it belongs to.
        intended_at: seconds on :mod:`support.clock`; ``ended_at`` is None when nothing came back.
        kind: as :class:`support.requests.outcomes.Outcome` has it, of which ``complete`` is a whole answer with tokens
            and ``cancelled`` one that was given up as planned, or should have been and ended first; or ``missing``
            (planned, and no trace of an end), or ``withdrawn`` (its load was stopped in good order before it was sent).
        stream: whether it asked for a stream; ``asked``: for how many tokens.
        token_times: arrival of each token; of an answer in one body that of the body.
        send_lag: seconds from the time at which its last attempt was due to that at which it was sent; ``loop_lag``
            the longest that the client's event loop stood still meanwhile.
    """

    phase: str
    load: str
    intended_at: float
    ended_at: float | None
    kind: str
    status: int | None = None
    attempts: int = 1
    stream: bool = True
    asked: int = 1
    token_times: Sequence[float] = ()
    send_lag: float | None = None
    loop_lag: float = 0.0

    @property
    def judged(self) -> bool:
        """Whether Dynamo owes it an answer: we neither gave it up as planned nor withdrew it. Our deadline is no such
        plan.
        """
        return self.kind not in ("cancelled", "withdrawn")

    @property
    def answered(self) -> bool:
        """Whether it has a whole answer."""
        return self.kind == "complete" and bool(self.token_times)

    @property
    def latency(self) -> float:
        """To the end of a whole answer; without one it never came."""
        return self.ended_at - self.intended_at if self.answered and self.ended_at is not None else NEVER

    @property
    def ttft(self) -> float | None:
        """To the first token of a whole answer; None for a body, whose first token is no sooner there than its last."""
        return self.first if self.stream else None

    @property
    def first(self) -> float:
        """How long its user had nothing."""
        return self.token_times[0] - self.intended_at if self.answered else NEVER

    @property
    def itl(self) -> float | None:
        """Mean time per token after the first one; None where no second token was due, or all in one body."""
        return self._pace(inter_token)

    @property
    def pause(self) -> float | None:
        """Longest time without a token once they had begun to come; None as for :attr:`itl`."""
        return self._pace(lambda due, times: pause(due, times)[1] - pause(due, times)[0])

    def _pace(self, measure: Callable[[float, Sequence[float]], float]) -> float | None:
        if not self.stream or self.asked < 2:
            return None
        return measure(self.intended_at, self.token_times) if self.answered else NEVER

    @property
    def lag(self) -> float:
        """By how much the client was late, in sending or in reading."""
        return max(self.send_lag or 0.0, self.loop_lag)

    def meets(self, objectives: Objectives) -> bool:
        """Whether it was answered and kept every objective. An objective that says nothing of it (the time to first
        token of an answer in one body) is not kept; only where one token was asked for, none can be late after it.
        """
        seen = (
            (objectives.ttft_ms, self.ttft),
            (objectives.itl_ms, self.itl if self.asked > 1 else 0.0),
            (objectives.latency_ms, self.latency),
        )
        kept = all(bound is None or (value is not None and value * 1000 <= bound) for bound, value in seen)
        return self.answered and kept


@dataclass(frozen=True)
class LoadHistory:
    """All that a folder holds of a run: its loads, phases, faults, and who waited for a processor."""

    folder: Path
    loads: list[LoadLog]
    phases: list[tuple[str, float]]
    events: list[Event]
    samples: list[Sample]
    waits: list[Wait] = field(default_factory=list)

    @property
    def end(self) -> float:
        """The last thing seen."""
        ends = [load.ended_at for load in self.loads] + [sample.ended_at for sample in self.samples]
        return max((at for at in ends if at is not None), default=0.0)

    @property
    def begin(self) -> float:
        """When the first request was due."""
        return min((sample.intended_at for sample in self.samples), default=0.0)

    def spans(self) -> dict[str, tuple[float, float]]:
        """Phase -> its begin and end."""
        marks = self.phases or _marks_of_plans(self.loads)
        ends = [at for _, at in marks[1:]] + [max(self.end, marks[-1][1])] if marks else []
        return {phase: (begin, end) for (phase, begin), end in zip(marks, ends, strict=True)}


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least ``share`` of the ascending values do not exceed; None of none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _marks_of_plans(loads: Iterable[LoadLog]) -> list[tuple[str, float]]:
    begins: dict[str, float] = {}
    for load in loads:
        if load.plan.phase:
            begins[load.plan.phase] = min(load.began_at, begins.get(load.plan.phase, load.began_at))
    return sorted(begins.items(), key=lambda each: each[1])


def percent(part: int, whole: int) -> float | None:
    """``part`` of ``whole`` in percent; None of nothing."""
    return 100.0 * part / whole if whole else None


def milliseconds(seconds: float | None) -> float | None:
    """Seconds in milliseconds, to a microsecond; None stays."""
    return None if seconds is None else round(seconds * 1000, 3)
