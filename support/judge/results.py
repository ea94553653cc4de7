"""What a load run came to, from its folder alone: per phase and as a whole, finished or broken off, now or years later.

``python -m support.judge.results DIR`` prints a table and leaves ``results.json`` and ``results.svg`` in the folder.

No figure gets better when a request fails, is not answered, or is answered late, empty or in bundles
(tests/test_flattery.py). Every rate and every percentile is over the requests that were *intended* and not given up by
ourselves: those that a dead client never sent count, or its death would look like success. A request without a whole
answer has waited for ever: its times are infinite, and so is a percentile that it reaches. Times are from the intended
time, for the same reason. Percentiles are exact and pooled over all requests, never a mean of percentiles.
"""

import argparse
import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from support.events import Event, read_events
from support.judge.history import LEAST_SECONDS, STARVED_SHARE, WAITS, Wait, read_waits
from support.judge.invariants import LAG_BOUND
from support.judge.outcomes import outcome
from support.requests.ledger import LedgerEntry
from support.requests.load_log import PHASE_NAMES, LoadLog, Record, find_loads, read_load, read_phases
from support.requests.pace import inter_token, pause

WINDOW_SECONDS = 1.0
STABLE_WINDOWS = 3
LEAST_REQUESTS, LEAST_WINDOWS = 30, 3
"""Of STANDARD, with fewer of which its spread is not known well enough for a band."""
RESOLUTION_MS = 1000 * LEAST_SECONDS
"""What a wait for a processor may take without being noticed: a band is no narrower than what could be excused."""
STEPS = 4
"""Between the median of STANDARD and the bound of its slowest requests, see :class:`Band`."""
NEVER = math.inf


@dataclass(frozen=True)
class Objectives:
    """What a request has to keep to count for goodput, in milliseconds; None: no matter."""

    ttft_ms: float | None = None
    itl_ms: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class Sample:
    """One intended request as its user saw it; its times are seconds from the time at which it was due.

    Attributes:
        phase: one of STANDARD, OVERFLOW, RECOVERY; empty where nothing tells.
        load: name of the load that it belongs to.
        intended_at: seconds on :mod:`support.clock`; ``ended_at`` is None when nothing came back.
        kind: as :class:`support.judge.outcomes.Outcome` has it, of which ``complete`` is a whole answer with tokens and
            ``cancelled`` one that was given up as planned, or was to be and came to its end first; or ``missing``
            (planned, and no trace of an end), or ``withdrawn`` (its load was stopped in good order before it was sent).
        stream: whether it asked for a stream; ``asked``: for how many tokens.
        token_times: arrival of each token; of an answer in one body that of the body.
        send_lag: seconds from the time at which its last attempt was to be sent to that at which it was; ``loop_lag``
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
        """Mean time per token after the first one; None where no second token was to come, or all in one body."""
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
class Run:
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


def read_run(log_dir: str | Path) -> Run:
    """The loads below ``log_dir`` with the phases and events that lie there.

    Raises:
        ValueError: there is no load in it.
    """
    folder = Path(log_dir)
    loads = [read_load(each) for each in find_loads(folder)]
    if not loads:
        raise ValueError(f"log_dir {folder} holds no load; expected what client() or run_load() has written there")
    phases = read_phases(folder)
    samples = [_sample(load, record, phases) for load in loads for record in load.records]
    return Run(folder, loads, phases, read_events(folder / "events.jsonl"), samples, read_waits(folder / WAITS))


def process_overflow_recovery_test(log_dir: str | Path, objectives: Objectives = Objectives()) -> dict[str, Any]:
    """Figures of a run, as a whole and under ``phases`` for STANDARD, OVERFLOW and RECOVERY.

    ``success_rate`` is in percent, names with ``_ms`` are milliseconds: None where there is nothing to measure,
    ``math.inf`` where so many requests had no whole answer that the percentile is one of them. ``missing`` says what
    was lost of the run ([] for one that is whole), ``notes`` what it was not meant to have, ``latency_valid`` whether
    the clients kept up, ``recovery`` how long it took to the first success and to stable.

    Args:
        log_dir: folder of a load, or of several with ``phases.jsonl`` and ``events.jsonl`` beside them.
        objectives: what a request has to keep for goodput.

    Raises:
        ValueError: there is no load in ``log_dir``.
    """
    run = read_run(log_dir)
    spans = run.spans()
    phases = {
        name: figures([each for each in run.samples if each.phase == name], *spans[name], objectives)
        for name in PHASE_NAMES
        if name in spans
    }
    found = figures(run.samples, run.begin, run.end, objectives)
    found["phases"] = phases
    found["loads"] = {
        name: figures([each for each in run.samples if each.load == name], run.begin, run.end, objectives)
        for name in dict.fromkeys(each.load for each in run.samples)
    }
    found["recovery"] = recovery(run, objectives)
    found["lag"] = _lag(run.samples)
    found["latency_valid"] = max(found["lag"]["p99_send_ms"] or 0.0, found["lag"]["loop_ms"]) <= LAG_BOUND * 1000
    found["missing"] = missing(run)
    found["notes"] = notes(run)
    return found


def missing(run: Run) -> list[str]:
    """What was to be there and is not, in words: clients that died, requests without an end, an end after OVERFLOW."""
    several = len(run.loads) > 1
    found = [f"{load.folder.name}: {each}" if several else each for load in run.loads for each in load.problems]
    marks = {phase for phase, _ in run.phases}
    if "OVERFLOW" in marks and "RECOVERY" not in marks:
        found.append("no phase RECOVERY: the run ended in OVERFLOW")
    if not run.samples:
        found.append("no request")
    return found


def notes(run: Run) -> list[str]:
    """Phases that the run does not have, or in which no request was due; a run in which nothing breaks has one."""
    spans = run.spans()
    empty = [name for name in spans if not any(each.phase == name for each in run.samples)]
    lacking = [f"no phase {name}" for name in PHASE_NAMES if name not in spans]
    return lacking + [f"no request in phase {name}" for name in empty]


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
        "success_rate": _percent(len(answered), len(judged)),
        "goodput_rate": _percent(good, len(judged)),
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
            found[f"p{share}_{name}_ms"] = _milliseconds(percentile(values, share / 100))
        found[f"max_{name}_ms"] = _milliseconds(values[-1] if values else None)
    return found


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least ``share`` of the ascending values do not exceed; None of none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


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
    objectives: Objectives = Objectives(),
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


@dataclass(frozen=True)
class Band:
    """How long users have nothing in a window of STANDARD, and hence in one that is as good, in milliseconds.

    STANDARD shows the median of its requests and, of its windows, the slowest 90th percentile: a window has some 15
    requests, so its 99th is but the slowest one, a matter of chance. The step from the one to the other is its spread;
    what the client's own clock cannot tell (its lag in STANDARD) is the least that it may be. A window is in the band
    when its median is no more than one step above that of STANDARD and its 90th percentile no more than
    :data:`STEPS`; of all requests one in a hundred, and always one, may be slower than that.

    Of ``n`` times with an exponential tail the upper tenth begins ln(5) of its scales above the median, and the slowest
    of six such windows a third higher, so the step has two scales and the bound eight: one of 110 later requests of the
    same kind is beyond it with a chance of 2 in 100, two of them with one in 5000.

    Attributes:
        requests: of STANDARD; ``goodput_rate``: percent of them that kept the objectives in its worst window.
        middle_ms, slowest_ms, lag_ms: what it showed.
        p50_ms, p99_ms: the bounds that follow.
    """

    requests: int
    goodput_rate: float
    middle_ms: float
    slowest_ms: float
    lag_ms: float
    p50_ms: float
    p99_ms: float

    def describe(self) -> str:
        """One line with the bounds and where they come from."""
        seen = f"median {self.middle_ms:.0f} ms, p90 {self.slowest_ms:.0f} ms at worst, of {self.requests} requests"
        bounds = f"STANDARD band: p50 up to {self.p50_ms:.0f} ms, p99 up to {self.p99_ms:.0f} ms"
        return f"{bounds} ({seen}, client lag {self.lag_ms:.0f} ms)"

    def slow(self, firsts: Iterable[float]) -> int:
        """How many of these times in seconds are beyond the bound for p99."""
        return sum(each * 1000 > self.p99_ms for each in firsts)


def few(slow: int, every: int) -> bool:
    """Whether so many slow requests are no more than one in a hundred, or one alone."""
    return slow <= max(1, every // 100)


class StandardFailed(ValueError):
    """STANDARD itself is not sound, with nothing broken yet."""


def band(samples: Sequence[Sample], slices: Sequence[Window]) -> Band:
    """The band that these requests of STANDARD show, and their windows.

    Raises:
        ValueError: they show none; says why. :class:`StandardFailed`: because some have no whole answer.
    """
    judged = [each for each in samples if each.judged]
    busy = [each for each in slices if each.due]
    if lost := sum(not each.answered for each in judged):
        raise StandardFailed(f"STANDARD itself failed {lost} of {len(judged)} requests, so it shows no band")
    if len(judged) < LEAST_REQUESTS or len(busy) < LEAST_WINDOWS:
        seen = f"{len(judged)} requests in {len(busy)} windows of {WINDOW_SECONDS:g} s"
        wanted = f"{LEAST_REQUESTS} in {LEAST_WINDOWS} windows"
        raise ValueError(f"STANDARD had {seen}; a band takes {wanted}, so let the failure strike later")
    middle = 1000 * (percentile(sorted(each.first for each in judged), 0.5) or 0.0)
    slowest = 1000 * max(each.p90_first or 0.0 for each in busy)
    lag = 1000 * (percentile(sorted(each.lag for each in judged), 0.99) or 0.0)
    step = max(slowest - middle, lag, RESOLUTION_MS)
    goodput = min(100 * each.good / each.asking for each in busy)
    return Band(len(judged), goodput, middle, slowest, lag, p50_ms=middle + step, p99_ms=middle + STEPS * step)


def recovery(run: Run, objectives: Objectives = Objectives()) -> dict[str, Any]:
    """How the run came back from its disturbance.

    Returns:
        ``since`` (begin of RECOVERY, else the first fault; None: there was neither), ``to_first_success_seconds``
        (``math.inf``: none came), ``band`` (the fields of :class:`Band`; None: STANDARD shows none, ``no_band`` says
        why, and ``standard_failed`` whether because it failed itself), ``slow`` (per phase: how many requests are
        beyond its bound for p99), ``after`` (per window since then: how many requests were ``due``, how many of them
        ``slow``, how many ``asking``, how many of those ``lost``, and ``p50_ms`` and ``p90_ms`` of the time for which
        they had nothing), ``to_stable_seconds`` and ``relapses`` of :func:`stable`. None where there was no
        disturbance. ``unstarved`` has what would be said without the slow requests of :func:`_starved`: how many those
        are (``starved``), ``to_stable_seconds``, ``relapses``, and per phase ``slow`` and ``p50_ms``.
    """
    spans = run.spans()
    faults = [event.at for event in run.events if event.kind == "fault"]
    since = spans["RECOVERY"][0] if "RECOVERY" in spans else min(faults, default=None)
    found: dict[str, Any] = {
        "since": since,
        "to_first_success_seconds": None,
        "to_stable_seconds": None,
        "relapses": None,
        "band": None,
        "no_band": "no phase STANDARD",
        "standard_failed": False,
        "slow": {},
        "after": [],
        "unstarved": {"starved": 0},
    }
    if "STANDARD" in spans:
        try:
            found["band"] = asdict(_standard_band(run, *spans["STANDARD"], objectives))
            found["no_band"] = ""
        except ValueError as error:
            found["no_band"], found["standard_failed"] = str(error), isinstance(error, StandardFailed)
    bounds = Band(**found["band"]) if found["band"] else None
    if bounds:
        found["slow"] = {name: bounds.slow(each) for name, each in _firsts(run.samples, spans).items()}
    starved = _starved(run, bounds) if bounds else set()
    rest = [each for index, each in enumerate(run.samples) if index not in starved]
    found["unstarved"] = {"starved": len(starved)}
    if bounds:
        firsts = _firsts(rest, spans)
        found["unstarved"]["slow"] = {name: bounds.slow(each) for name, each in firsts.items()}
        middle = {name: percentile(sorted(each), 0.5) for name, each in firsts.items()}
        found["unstarved"]["p50_ms"] = {name: _milliseconds(each) for name, each in middle.items()}
    if since is None:
        return found
    ends = [each.intended_at + each.latency for each in run.samples if each.judged and each.intended_at >= since]
    found["to_first_success_seconds"] = min(ends, default=NEVER) - since
    found["after"] = _after(run, run.samples, since, bounds)
    found["to_stable_seconds"], found["relapses"] = stable(found)
    without = found | {"after": _after(run, rest, since, bounds)}
    found["unstarved"]["to_stable_seconds"], found["unstarved"]["relapses"] = stable(without)
    return found


def _firsts(samples: Iterable[Sample], phases: Iterable[str]) -> dict[str, list[float]]:
    """Phase -> how long each of its requests had nothing."""
    judged = [each for each in samples if each.judged]
    return {name: [each.first for each in judged if each.phase == name] for name in phases}


def _after(run: Run, samples: Sequence[Sample], since: float, bounds: Band | None) -> list[dict[str, Any]]:
    """Windows of some of the run's samples from ``since`` on."""
    # Not until the last request was due: who leaves all clients without an answer has none that are due.
    dues = [each.intended_at for each in run.samples if each.kind != "withdrawn"]
    offered = [load.offered_until or 0.0 for load in run.loads if load.plan.phase in ("", "RECOVERY")]
    slices = windows(samples, since, max([since, *dues, *offered]), rest=True)
    return [_plain(each, bounds) for each in slices]


def _starved(run: Run, bounds: Band) -> set[int]:
    """Which samples have a whole answer whose first token came late while somebody could have run for a fifth of the
    bound and got no processor (:mod:`support.observe.starvation`): they show how busy the machine was.
    """
    waits = [each for each in run.waits if 1000 * each.seconds > STARVED_SHARE * bounds.p99_ms]
    return {
        index
        for index, each in enumerate(run.samples)
        if each.judged
        and each.answered
        and 1000 * each.first > bounds.p50_ms
        and any(wait.since < each.intended_at + each.first and wait.until > each.intended_at for wait in waits)
    }


def _standard_band(run: Run, begin: float, end: float, objectives: Objectives) -> Band:
    """The band of STANDARD without the requests that the failure may have hit: they would make it as bad as itself."""
    every = [each for each in run.samples if each.phase == "STANDARD"]
    hit = [each.intended_at for each in every if each.judged and (each.ended_at is None or each.ended_at > end)]
    end = min([end, *hit])
    whole = [each for each in every if each.intended_at < end]
    return band(whole, windows(whole, begin, end, objectives, rest=True))


def stable(found: Mapping[str, Any]) -> tuple[float, int]:
    """Seconds from the begin of RECOVERY to the first :data:`STABLE_WINDOWS` windows in a row in the STANDARD band, and
    how many windows are out of it after that; ``math.inf`` and 0: that never came.

    A window is in the band (:class:`Band`) when requests were asking in it, none of them was lost, and both percentiles
    are within its bounds; one in which nobody was asking is neither in it nor out of it. If more than a :func:`few` of
    all requests since then are slow, the windows with slow ones are out of it as well.

    Args:
        found: what :func:`recovery` found.
    """
    after = found["after"]
    inside = [found["band"] is not None and bool(each["asking"]) and _fits(each, found["band"]) for each in after]
    for index in range(len(inside) - STABLE_WINDOWS + 1):
        if all(inside[index : index + STABLE_WINDOWS]):
            later = after[index:]
            patient = few(sum(each["slow"] for each in later), sum(each["due"] for each in later))
            kept = [good and (patient or not each["slow"]) for good, each in zip(inside[index:], later, strict=True)]
            relapses = sum(bool(each["asking"]) and not good for good, each in zip(kept, later, strict=True))
            return index * WINDOW_SECONDS, relapses
    return NEVER, 0


def _fits(window: Mapping[str, Any], bounds: Mapping[str, Any]) -> bool:
    return not window["lost"] and window["p50_ms"] <= bounds["p50_ms"] and window["p90_ms"] <= bounds["p99_ms"]


def _plain(window: Window, bounds: Band | None) -> dict[str, Any]:
    return {
        "due": window.due,
        "slow": bounds.slow(window.firsts) if bounds else 0,
        "asking": window.asking,
        "lost": window.lost,
        "p50_ms": _milliseconds(window.p50_first),
        "p90_ms": _milliseconds(window.p90_first),
    }


def _sample(load: LoadLog, record: Record, phases: Sequence[tuple[str, float]]) -> Sample:
    attempts = record.attempts
    intended_at = attempts[0].intended_at if attempts else load.due(record)
    marks = [phase for phase, at in phases if at <= intended_at]
    last = attempts[-1] if attempts else None
    return Sample(
        phase=load.plan.phase or (marks[-1] if marks else phases[0][0] if phases else ""),
        load=load.folder.name,
        intended_at=intended_at,
        ended_at=last.ended_at if last else None,
        kind=_kind(record, last),
        status=last.status_code if last else None,
        attempts=len(attempts),
        stream=load.plan.stream,
        asked=record.planned.max_tokens,
        token_times=array("d", last.token_times if last else []),
        send_lag=last.sent_at - last.intended_at if last and last.sent_at is not None else None,
        loop_lag=last.lag_seconds if last else 0.0,
    )


def _kind(record: Record, last: LedgerEntry | None) -> str:
    if record.withdrawn:
        return "withdrawn"
    if not record.closed or last is None:
        return "missing"
    kind = outcome(last).kind
    # Who is slow must not gain by it that a request can still be given up before its end.
    if kind == "complete" and record.planned.cancel_after is not None:
        return "cancelled"
    return kind


def _marks_of_plans(loads: Iterable[LoadLog]) -> list[tuple[str, float]]:
    begins: dict[str, float] = {}
    for load in loads:
        if load.plan.phase:
            begins[load.plan.phase] = min(load.began_at, begins.get(load.plan.phase, load.began_at))
    return sorted(begins.items(), key=lambda each: each[1])


def _lag(samples: Iterable[Sample]) -> dict[str, float | None]:
    seen = list(samples)
    sends = sorted(each.send_lag for each in seen if each.send_lag is not None)
    loop = max((each.loop_lag for each in seen), default=0.0)
    return {"p99_send_ms": _milliseconds(percentile(sends, 0.99)), "loop_ms": loop * 1000}


def _percent(part: int, whole: int) -> float | None:
    return 100.0 * part / whole if whole else None


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


ROWS = (
    *("planned", "succeeded", "refused", "broken", "missing_ends", "cancelled", "withdrawn"),
    *("success_rate", "goodput_rate", "requests_per_second", "tokens_per_second"),
    *(f"p{share}_{name}_ms" for name in ("latency", "ttft", "itl", "pause", "lag") for share in (50, 99)),
)


def table(results: dict[str, Any]) -> str:
    """The results for a reader."""
    columns = {**results["phases"], "whole": results}
    lines = ["".join([" " * 22, *(f"{name:>12}" for name in columns)])]
    for row in ROWS:
        void = row.endswith("_ms") and not row.endswith("lag_ms") and not results["latency_valid"]
        cells = ["void" if void else _cell(column[row]) for column in columns.values()]
        lines.append(f"{row:<22}" + "".join(f"{cell:>12}" for cell in cells))
    back = results["recovery"]
    lines.append(Band(**back["band"]).describe() if back["band"] else f"no band: {back['no_band']}")
    if back["since"] is not None:
        lines.append(f"first success after {_cell(back['to_first_success_seconds'])} s")
        relapses = f", then out of it in {back['relapses']} windows" if back["relapses"] else ""
        lines.append(f"stable after {_cell(back['to_stable_seconds'])} s{relapses}")
    if not results["latency_valid"]:
        lines.append(f"times are void: the clients lagged ({results['lag']})")
    lines += [f"{word}: {each}" for word in ("missing", "notes") for each in results[word]]
    return "\n".join(lines)


def _cell(value: float | int | None) -> str:
    if value == NEVER:
        return "never"
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def _for_json(value: Any) -> Any:
    """``value`` with ``never`` for what is infinite, which JSON cannot say."""
    if isinstance(value, dict):
        return {key: _for_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_for_json(each) for each in value]
    return "never" if value == NEVER else value


def main() -> None:
    """The command line."""
    from support.report.timeline import draw  # not at the top: judging needs no picture

    parser = argparse.ArgumentParser(description="What a load run came to: a table, results.json and results.svg.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    for each in fields(Objectives):
        flag = f"--{each.name.replace('_', '-')}"
        parser.add_argument(flag, type=float, metavar="N", help="what a request has to keep to count for goodput")
    options = vars(parser.parse_args())
    folder = options.pop("folder")
    try:
        results = process_overflow_recovery_test(folder, Objectives(**options))
    except ValueError as error:
        raise SystemExit(str(error)) from None
    (folder / "results.json").write_text(json.dumps(_for_json(results), indent=1) + "\n", encoding="utf-8")
    picture = draw(folder, "results.svg")
    print(table(results))
    print(f"{folder / 'results.json'}  {picture}")


if __name__ == "__main__":
    main()
