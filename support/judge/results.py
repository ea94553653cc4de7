"""What a load run came to, from its folder alone: per phase and as a whole, finished or broken off, now or years later.

``python -m support.judge.results DIR`` prints a table and leaves ``results.json`` and ``results.svg`` in the folder.

Every rate is over the requests that were *intended*: those that a dead client never sent count, or its death would
look like success. Latency is from the intended time, for the same reason. Percentiles are exact and pooled over all
requests, never a mean of percentiles.
"""

import argparse
import json
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from support.events import Event, read_events
from support.judge.invariants import LAG_BOUND
from support.judge.outcomes import outcome
from support.requests.load_log import PHASE_NAMES, LoadLog, Record, find_loads, read_load, read_phases

WINDOW_SECONDS = 1.0
STABLE_WINDOWS = 3
BAND_PERCENT, BAND_RESOLUTION_MS = 20.0, 100.0
"""How much longer than in the slowest window of STANDARD the 99th percentile of TTFT may be in a window of the band,
unless a sentence says otherwise: a share of it, or so many milliseconds if that is more. A machine that shares its
cores with the deployment measures no finer.
"""


@dataclass(frozen=True)
class Objectives:
    """What a request has to keep to count for goodput, in milliseconds; None: no matter."""

    ttft_ms: float | None = None
    itl_ms: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class Sample:
    """One intended request as its user saw it.

    Attributes:
        phase: one of STANDARD, OVERFLOW, RECOVERY; empty where nothing tells.
        load: name of the load that it belongs to.
        intended_at: seconds on :mod:`support.clock`; ``ended_at`` is None when nothing came back.
        kind: as :class:`support.judge.outcomes.Outcome` has it; or ``missing`` (planned, and no trace of an end), or
            ``withdrawn`` (its load was stopped in good order before it was sent).
        latency, ttft: seconds from the intended time; None where there is none.
        token_times: arrival of each token.
        send_lag: seconds from the time at which its last attempt was to be sent to that at which it was; ``loop_lag``
            the longest that the client's event loop stood still meanwhile.
    """

    phase: str
    load: str
    intended_at: float
    ended_at: float | None
    kind: str
    status: int | None
    attempts: int
    latency: float | None
    ttft: float | None
    token_times: Sequence[float]
    send_lag: float | None
    loop_lag: float

    @property
    def gaps(self) -> list[float]:
        """Seconds between one token and the next."""
        return [after - before for before, after in pairwise(self.token_times)]

    def meets(self, objectives: Objectives) -> bool:
        """Whether it succeeded and kept every objective; the inter-token latency is its mean in this answer."""
        gaps = self.gaps
        seen = (
            (objectives.ttft_ms, self.ttft),
            (objectives.itl_ms, sum(gaps) / len(gaps) if gaps else None),
            (objectives.latency_ms, self.latency),
        )
        kept = all(bound is None or (value is not None and value * 1000 <= bound) for bound, value in seen)
        return self.kind == "complete" and kept


@dataclass(frozen=True)
class Run:
    """All that a folder holds of a run: its loads, phases and faults."""

    folder: Path
    loads: list[LoadLog]
    phases: list[tuple[str, float]]
    events: list[Event]
    samples: list[Sample]

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
    return Run(folder, loads, phases, read_events(folder / "events.jsonl"), samples)


def process_overflow_recovery_test(log_dir: str | Path, objectives: Objectives = Objectives()) -> dict[str, Any]:
    """Figures of a run, as a whole and under ``phases`` for STANDARD, OVERFLOW and RECOVERY.

    ``success_rate`` is in percent, names with ``_ms`` are milliseconds, None where there is nothing to measure.
    ``missing`` says what was lost of the run ([] for one that is whole), ``notes`` what it was not meant to have,
    ``latency_valid`` whether the clients kept up, ``recovery`` how long it took to the first success and to stable.

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
    found["recovery"] = recovery(run)
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
    """Figures of some requests over the time from ``begin`` to ``end``."""
    counts = Counter(each.kind for each in samples)
    seconds = max(0.0, end - begin)
    judged = len(samples) - counts["cancelled"] - counts["withdrawn"]
    good = sum(each.meets(objectives) for each in samples)
    tokens = sum(len(each.token_times) for each in samples)
    found: dict[str, Any] = {
        "planned": len(samples),
        "succeeded": counts["complete"],
        "refused": counts["error"],
        "broken": counts["broken"],
        "missing_ends": counts["missing"],
        "cancelled": counts["cancelled"],
        "withdrawn": counts["withdrawn"],
        "attempts": sum(each.attempts for each in samples),
        "statuses": dict(sorted(Counter(str(each.status) for each in samples if each.status is not None).items())),
        "success_rate": _percent(counts["complete"], judged),
        "goodput_rate": _percent(good, judged),
        "seconds": seconds,
        "requests_per_second": counts["complete"] / seconds if seconds else None,
        "goodput_per_second": good / seconds if seconds else None,
        "tokens_per_second": tokens / seconds if seconds else None,
    }
    complete = [each for each in samples if each.kind == "complete"]
    measures: dict[str, list[float]] = {
        "latency": [each.latency for each in complete if each.latency is not None],
        "ttft": [each.ttft for each in complete if each.ttft is not None],
        "itl": [gap for each in complete for gap in each.gaps],
    }
    for name, values in measures.items():
        values.sort()
        for share in (50, 90, 99):
            found[f"p{share}_{name}_ms"] = _milliseconds(percentile(values, share / 100))
        found[f"max_{name}_ms"] = _milliseconds(values[-1] if values else None)
    return found


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least ``share`` of the ascending values do not exceed; None of none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


@dataclass(frozen=True)
class Window:
    """A slice of the run: requests that were due in it, and tokens that came in it."""

    begin: float
    due: int
    failed: int
    p99_ttft: float | None
    p99_latency: float | None
    tokens: int


def windows(samples: Iterable[Sample], begin: float, end: float, seconds: float = WINDOW_SECONDS) -> list[Window]:
    """Whole windows from ``begin`` on; what is left over at the end makes none."""
    number = max(0, int((end - begin) / seconds + 1e-9))
    due: list[list[Sample]] = [[] for _ in range(number)]
    tokens = [0] * number
    for each in samples:
        if begin <= each.intended_at < begin + number * seconds and each.kind not in ("withdrawn", "cancelled"):
            due[min(number - 1, int((each.intended_at - begin) / seconds))].append(each)
        for at in each.token_times:
            if begin <= at < begin + number * seconds:
                tokens[min(number - 1, int((at - begin) / seconds))] += 1
    return [
        Window(
            begin=begin + index * seconds,
            due=len(slot),
            failed=sum(each.kind != "complete" for each in slot),
            p99_ttft=percentile(sorted(each.ttft for each in slot if each.ttft is not None), 0.99),
            p99_latency=percentile(sorted(each.latency for each in slot if each.latency is not None), 0.99),
            tokens=tokens[index],
        )
        for index, slot in enumerate(due)
    ]


def recovery(run: Run) -> dict[str, Any]:
    """How the run came back from its disturbance.

    Returns:
        ``since`` (begin of RECOVERY, else the first fault; None: there was neither), ``to_first_success_seconds``,
        ``standard`` and ``after`` (per window of STANDARD, and of the time since: how many requests were ``due``, how
        many of them ``failed``, and ``slow_ms``, the 99th percentile of their TTFT, of unary answers of their latency),
        ``to_stable_seconds`` and ``relapses`` of :func:`stable`.
    """
    spans = run.spans()
    faults = [event.at for event in run.events if event.kind == "fault"]
    since = spans["RECOVERY"][0] if "RECOVERY" in spans else min(faults, default=None)
    found: dict[str, Any] = {
        "since": since,
        "to_first_success_seconds": None,
        "to_stable_seconds": None,
        "relapses": None,
        "standard": [],
        "after": [],
    }
    if since is None:
        return found
    firsts = [
        each.ended_at
        for each in run.samples
        if each.kind == "complete" and each.intended_at >= since and each.ended_at is not None
    ]
    if firsts:
        found["to_first_success_seconds"] = min(firsts) - since
    if "STANDARD" not in spans:
        return found
    begin, end = spans["STANDARD"]
    standard = windows((each for each in run.samples if each.phase == "STANDARD"), begin, end)
    last_due = max((each.intended_at for each in run.samples if each.kind != "withdrawn"), default=since)
    found["standard"] = [_plain(each) for each in standard]
    found["after"] = [_plain(each) for each in windows(run.samples, since, last_due)]
    found["to_stable_seconds"], found["relapses"] = stable(found)
    return found


def stable(
    found: Mapping[str, Any], percent: float = BAND_PERCENT, resolution_ms: float = BAND_RESOLUTION_MS
) -> tuple[float | None, int | None]:
    """Seconds from the begin of RECOVERY to the first :data:`STABLE_WINDOWS` windows in a row in the STANDARD band, and
    how many windows are out of it after that; None: that never came.

    A window is in the band when requests were due in it, no larger share of them failed than in the worst window of
    STANDARD, and it is at most ``percent`` slower than STANDARD's slowest window, or ``resolution_ms`` if that is more.

    Args:
        found: what :func:`recovery` found.
    """
    busy = [each for each in found["standard"] if each["due"]]
    worst = max((each["failed"] / each["due"] for each in busy), default=1.0)
    slowest = max((each["slow_ms"] for each in busy), default=0.0)
    bound = max((1 + percent / 100) * slowest, slowest + resolution_ms)
    # Where STANDARD itself failed there is no band to come back to.
    good = [
        bool(each["due"]) and worst < 1 and each["failed"] / each["due"] <= worst and each["slow_ms"] <= bound
        for each in found["after"]
    ]
    for index in range(len(good) - STABLE_WINDOWS + 1):
        if all(good[index : index + STABLE_WINDOWS]):
            return index * WINDOW_SECONDS, good[index:].count(False)
    return None, None


def _plain(window: Window) -> dict[str, Any]:
    slow = window.p99_ttft if window.p99_ttft is not None else window.p99_latency or 0.0
    return {"due": window.due, "failed": window.failed, "slow_ms": slow * 1000}


def _sample(load: LoadLog, record: Record, phases: Sequence[tuple[str, float]]) -> Sample:
    attempts = record.attempts
    intended_at = attempts[0].intended_at if attempts else load.due(record)
    marks = [phase for phase, at in phases if at <= intended_at]
    last = attempts[-1] if attempts else None
    if record.withdrawn:
        kind = "withdrawn"
    elif not record.closed or last is None:
        kind = "missing"
    else:
        kind = outcome(last).kind
    times = array("d", last.token_times if last and last.stream else [])
    complete = kind == "complete" and last is not None and last.ended_at is not None
    return Sample(
        phase=load.plan.phase or (marks[-1] if marks else phases[0][0] if phases else ""),
        load=load.folder.name,
        intended_at=intended_at,
        ended_at=last.ended_at if last else None,
        kind=kind,
        status=last.status_code if last else None,
        attempts=len(attempts),
        latency=last.ended_at - intended_at if complete and last and last.ended_at else None,
        ttft=times[0] - intended_at if times else None,
        token_times=times,
        send_lag=last.sent_at - last.intended_at if last and last.sent_at is not None else None,
        loop_lag=last.lag_seconds if last else 0.0,
    )


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
    *("p50_latency_ms", "p99_latency_ms", "p50_ttft_ms", "p99_ttft_ms", "p50_itl_ms", "p99_itl_ms"),
)


def table(results: dict[str, Any]) -> str:
    """The results for a reader."""
    columns = {**results["phases"], "whole": results}
    lines = ["".join([" " * 22, *(f"{name:>12}" for name in columns)])]
    for row in ROWS:
        void = row.endswith("_ms") and not results["latency_valid"]
        cells = ["void" if void else _cell(column[row]) for column in columns.values()]
        lines.append(f"{row:<22}" + "".join(f"{cell:>12}" for cell in cells))
    back = results["recovery"]
    if back["since"] is not None:
        lines.append(f"first success after {_cell(back['to_first_success_seconds'])} s")
        relapses = f", then out of it in {back['relapses']} windows" if back["relapses"] else ""
        lines.append(f"stable after {_cell(back['to_stable_seconds'])} s{relapses}")
    if not results["latency_valid"]:
        lines.append(f"times are void: the clients lagged ({results['lag']})")
    lines += [f"{word}: {each}" for word in ("missing", "notes") for each in results[word]]
    return "\n".join(lines)


def _cell(value: float | int | None) -> str:
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


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
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    picture = draw(folder, "results.svg")
    print(table(results))
    print(f"{folder / 'results.json'}  {picture}")


if __name__ == "__main__":
    main()
