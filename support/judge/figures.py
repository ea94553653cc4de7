"""Figures of a load, for a phase of it or second by second.

No figure gets better when a request fails, is not answered, or is answered late, empty or in bundles
(tests/test_flattery.py). Every rate and every percentile is over the requests that were *intended* and not given up by
ourselves: those that a dead client never sent count, or its death would look like success. A request without a whole
answer has waited for ever: its times are infinite, and so is a percentile that it reaches. Times are from the intended
time, for the same reason. Percentiles are exact and pooled over all requests, never a mean of percentiles.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from support.judge.samples import NO_OBJECTIVES, Objectives, Sample, milliseconds, percent, percentile

WINDOW_SECONDS = 1.0


def figures(samples: Sequence[Sample], begin: float, end: float, objectives: Objectives) -> dict[str, Any]:
    """Figures of some requests over the time from ``begin`` to ``end``. Tokens count where the answer is whole."""
    counts = Counter(each.kind for each in samples)
    seconds = max(0.0, end - begin)
    judged = [each for each in samples if each.judged]
    answered = [each for each in judged if each.answered]
    good = sum(each.meets(objectives) for each in judged)
    tokens = sum(len(each.token_times) for each in answered)
    found: dict[str, Any] = {
        "planned": len(samples),
        "succeeded": len(answered),
        "refused": counts["error"],
        "broken": counts["broken"] + counts["complete"] - len(answered),
        "missing_ends": counts["missing"],
        "cancelled": counts["cancelled"],
        "withdrawn": counts["withdrawn"],
        "attempts": sum(each.attempts for each in samples),
        "statuses": dict(sorted(Counter(str(each.status) for each in samples if each.status is not None).items())),
        "success_rate": percent(len(answered), len(judged)),
        "goodput_rate": percent(good, len(judged)),
        "seconds": seconds,
        "requests_per_second": len(answered) / seconds if seconds else None,
        "goodput_per_second": good / seconds if seconds else None,
        "tokens_per_second": tokens / seconds if seconds else None,
    }
    measures: dict[str, list[float | None]] = {
        "latency": [each.latency for each in judged],
        "ttft": [each.ttft for each in judged],
        "itl": [each.itl for each in judged],
        "pause": [each.pause for each in judged],
        "lag": [each.lag for each in samples if each.kind not in ("missing", "withdrawn")],
    }
    for name, measured in measures.items():
        values = sorted(value for value in measured if value is not None)
        for share in (50, 90, 99):
            found[f"p{share}_{name}_ms"] = milliseconds(percentile(values, share / 100))
        found[f"max_{name}_ms"] = milliseconds(values[-1] if values else None)
    return found


@dataclass(frozen=True)
class Window:
    """A slice of the run.

    Attributes:
        begin: when it begins.
        due: requests that were due in it; ``failed``: those that got no whole answer.
        asking: those and the ones that were due before it and had nothing until after it; ``lost``: those of them that
            got no whole answer; ``good``: those of them that kept the objectives.
        p50_first, p90_first, p99_first: how long those that were asking had nothing, in seconds; None where nobody was.
        firsts: how long each of those that were due had nothing.
        p99_latency: of those that were due.
        tokens: that came in it.
    """

    begin: float
    due: int
    failed: int
    asking: int
    lost: int
    good: int
    firsts: Sequence[float]
    p50_first: float | None
    p90_first: float | None
    p99_first: float | None
    p99_latency: float | None
    tokens: int


def windows(
    samples: Iterable[Sample],
    begin: float,
    end: float,
    objectives: Objectives = NO_OBJECTIVES,
    *,
    rest: bool = False,
) -> list[Window]:
    """Windows from ``begin`` on; what is left over at the end makes none; with ``rest`` it lengthens the last one."""
    number = max(0, int((end - begin) / WINDOW_SECONDS + 1e-9))
    due: list[list[Sample]] = [[] for _ in range(number)]
    waiting: list[list[Sample]] = [[] for _ in range(number)]
    tokens = [0] * number

    def index_of(at: float) -> int:
        index = math.floor((at - begin) / WINDOW_SECONDS)
        return number - 1 if rest and index == number else index

    for each in samples:
        first = index_of(each.intended_at)
        if each.judged:
            if 0 <= first < number:
                due[first].append(each)
            had_nothing_until = each.token_times[0] if each.answered else each.ended_at
            last = number - 1
            if had_nothing_until is not None:
                last = min(last, index_of(had_nothing_until) - 1)
            for index in range(max(0, first + 1), last + 1):
                waiting[index].append(each)
        for at in each.token_times:
            if 0 <= (index := index_of(at)) < number:
                tokens[index] += 1
    found = []
    for index, slot in enumerate(due):
        asking = slot + waiting[index]
        firsts = sorted(each.first for each in asking)
        found.append(
            Window(
                begin=begin + index * WINDOW_SECONDS,
                due=len(slot),
                failed=sum(not each.answered for each in slot),
                asking=len(asking),
                lost=sum(not each.answered for each in asking),
                good=sum(each.meets(objectives) for each in asking),
                firsts=[each.first for each in slot],
                p50_first=percentile(firsts, 0.5),
                p90_first=percentile(firsts, 0.9),
                p99_first=percentile(firsts, 0.99),
                p99_latency=percentile(sorted(each.latency for each in slot), 0.99),
                tokens=tokens[index],
            )
        )
    return found
