"""No figure and no check gets better when a request fares worse: a property, tried on made-up runs."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.judge.checker import ValidationContext
from support.judge.checkers import run_check
from support.judge.figures import figures, windows
from support.judge.recovery import StandardFailed, band, recovery
from support.judge.samples import LoadHistory, Objectives, Sample
from support.requests.ledger import Chunk, LedgerEntry
from support.requests.load_log import LoadLog
from support.requests.pace import inter_token, pause
from support.requests.plan import LoadPlan

END, DEADLINE = 100.0, 60.0
# The same examples each time, and no deadline on a machine that others use.
TRIED = settings(max_examples=300, deadline=None, database=None, derandomize=True)
OBJECTIVES = Objectives(ttft_ms=300, itl_ms=60, latency_ms=2000)
MORE_IS_BETTER = (
    *("succeeded", "success_rate", "goodput_rate"),
    *("requests_per_second", "goodput_per_second", "tokens_per_second"),
)
TIMES = [f"{name}_{what}_ms" for name in ("p50", "p90", "p99", "max") for what in ("latency", "ttft", "itl", "pause")]
LESS_IS_BETTER = ("refused", "broken", "missing_ends", *TIMES)
KINDS = ("complete", "complete", "complete", "error", "broken", "missing")

gap = st.floats(0.001, 0.5)
"""Seconds between two tokens."""


@st.composite
def requests(draw: st.DrawFn, stream: bool = True) -> Sample:
    """A request that is due in the first ten seconds; as it might be answered, or not."""
    due, kind = draw(st.floats(0, 10)), draw(st.sampled_from(KINDS))
    times, at = [], due
    for step in draw(st.lists(gap, min_size=2, max_size=6)):
        at += step
        times.append(at)
    asked = len(times)
    if not stream:
        times = [at] * asked
    if kind == "missing":
        return Sample("RECOVERY", "load", due, None, kind, None, stream=stream, asked=asked)
    status = 503 if kind == "error" else 200
    return Sample("RECOVERY", "load", due, at, kind, status, stream=stream, asked=asked, token_times=times)


def failed(kind: str) -> Callable[[st.DataObject, Sample], Sample]:
    """The request fails where its answer was to end, having got what it got."""
    return lambda data, one: replace(one, kind=kind, status=503 if kind == "error" else 200)


def refused_at_once(data: st.DataObject, one: Sample) -> Sample:
    return replace(one, kind="error", status=503, ended_at=one.intended_at + 0.001, token_times=())


def emptied(data: st.DataObject, one: Sample) -> Sample:
    """Whole in form, with not a token in it, and at once."""
    return replace(one, ended_at=one.intended_at + 0.001, token_times=())


def timed_out(data: st.DataObject, one: Sample) -> Sample:
    kept = one.token_times[: data.draw(st.integers(0, len(one.token_times)))]
    return replace(one, kind="broken", ended_at=one.intended_at + DEADLINE, token_times=kept)


def dropped(data: st.DataObject, one: Sample) -> Sample:
    return replace(one, kind="missing", status=None, ended_at=None, token_times=())


def delayed(data: st.DataObject, one: Sample) -> Sample:
    """All that comes from some token on comes later."""
    late, since = data.draw(st.floats(0, 20)), data.draw(st.integers(0, max(0, len(one.token_times) - 1)))
    if not one.stream:
        since = 0
    times = [at + late * (index >= since) for index, at in enumerate(one.token_times)]
    return replace(one, ended_at=(one.ended_at or one.intended_at) + late, token_times=times)


def bundled(data: st.DataObject, one: Sample) -> Sample:
    """Tokens are held back and come together with a later one."""
    times = list(one.token_times)
    for index in range(len(times) - 2, -1, -1):
        if data.draw(st.booleans()):
            times[index] = times[index + 1]
    return replace(one, token_times=times)


WORSE = {
    "fails cleanly": failed("error"),
    "is cut off": failed("broken"),
    "is refused at once": refused_at_once,
    "is answered with nothing": emptied,
    "runs into our deadline": timed_out,
    "leaves no trace": dropped,
    "is late": delayed,
    "comes in bundles": bundled,
}


def worsen(data: st.DataObject, samples: Sequence[Sample]) -> list[Sample]:
    """One of the requests that had an answer, in one way worse; there may be none."""
    had = [index for index, each in enumerate(samples) if each.kind == "complete"]
    changed = list(samples)
    if had:
        index = data.draw(st.sampled_from(had))
        changed[index] = WORSE[data.draw(st.sampled_from(sorted(WORSE)))](data, samples[index])
    return changed


@pytest.mark.parametrize("stream", [True, False])
@TRIED
@given(data=st.data())
def test_no_figure_gets_better(stream: bool, data: st.DataObject) -> None:
    samples = data.draw(st.lists(requests(stream), min_size=1, max_size=12))
    before = figures(samples, 0, END, OBJECTIVES)
    after = figures(worsen(data, samples), 0, END, OBJECTIVES)
    for name in MORE_IS_BETTER:
        assert after[name] <= before[name], name
    for name in LESS_IS_BETTER:
        if before[name] is None:
            assert after[name] is None, name
        else:
            assert after[name] >= before[name] - 0.001, name
    assert after["planned"] == before["planned"]


@pytest.mark.parametrize("how", sorted(WORSE))
def test_each_way_to_be_worse_is_seen(how: str) -> None:
    """The property would hold for nothing if what it does were no worse."""
    times = [1.1, 1.2, 1.3, 1.4]
    whole = Sample("RECOVERY", "load", 1.0, 1.4, "complete", 200, asked=4, token_times=times)

    class First:
        """Draws the largest of what there is."""

        def draw(self, strategy: Any) -> Any:
            return {"booleans()": True}.get(repr(strategy), 2)

    worse = WORSE[how](First(), whole)  # type: ignore[arg-type]
    before, after = (figures([each], 0, END, OBJECTIVES) for each in (whole, worse))
    assert before != after


@TRIED
@given(due=st.floats(0, 5), steps=st.lists(gap, min_size=2, max_size=8), data=st.data())
def test_pace_gets_no_better_by_bundles(due: float, steps: list[float], data: st.DataObject) -> None:
    times = [due + sum(steps[: index + 1]) for index in range(len(steps))]
    one = bundled(data, Sample("", "load", due, times[-1], "complete", token_times=times))
    assert inter_token(due, one.token_times) >= inter_token(due, times) - 1e-9
    before, after = pause(due, times), pause(due, one.token_times)
    assert after[1] - after[0] >= before[1] - before[0] - 1e-9


@TRIED
@given(due=st.floats(0, 5), steps=st.lists(gap, min_size=2, max_size=8))
def test_pace_without_bundles_is_that_of_the_field(due: float, steps: list[float]) -> None:
    times = [due + sum(steps[: index + 1]) for index in range(len(steps))]
    gaps = [after - before for before, after in pairwise(times)]
    assert inter_token(due, times) == pytest.approx(sum(gaps) / len(gaps))
    begin, end = pause(due, times)
    assert end - begin == max(gaps)


STANDARD = [
    Sample("STANDARD", "load", n / 6, n / 6 + 0.2, "complete", 200, asked=2, token_times=[n / 6 + 0.03, n / 6 + 0.2])
    for n in range(58)
]


def a_run(samples: Sequence[Sample]) -> LoadHistory:
    """STANDARD from 0 to 10, RECOVERY from 20 to 30 with these requests, whose load was stopped then."""
    later = [
        replace(each, intended_at=each.intended_at + 20, token_times=[at + 20 for at in each.token_times])
        for each in samples
    ]
    later = [replace(each, ended_at=each.ended_at + 20 if each.ended_at is not None else None) for each in later]
    plan = LoadPlan(base_url="http://h:1", model="m", duration_seconds=30.0)
    log = LoadLog(Path(), plan, 0.0, END + 20, [], [])
    return LoadHistory(Path(), [log], [("STANDARD", 0.0), ("RECOVERY", 20.0)], [], [*STANDARD, *later])


def results_of(run: LoadHistory) -> dict[str, Any]:
    """What the checkers look at."""
    phases = {
        name: figures([each for each in run.samples if each.phase == name], *span, OBJECTIVES)
        for name, span in run.spans().items()
    }
    whole = figures(run.samples, run.begin, run.end, OBJECTIVES)
    return whole | {"phases": phases, "recovery": recovery(run, OBJECTIVES), "missing": [], "latency_valid": True}


@TRIED
@given(data=st.data())
def test_recovery_gets_no_better_and_no_check_of_times_passes_that_failed(data: st.DataObject) -> None:
    good = [
        Sample(
            "RECOVERY", "load", n / 6, n / 6 + 0.3, "complete", 200, asked=2, token_times=[n / 6 + 0.03, n / 6 + 0.3]
        )
        for n in range(60)
    ]
    samples = [*good, *data.draw(st.lists(requests(), max_size=3))]
    changed = worsen(data, samples)
    for _ in range(data.draw(st.integers(0, 4))):
        changed = worsen(data, changed)
    before, after = results_of(a_run(samples)), results_of(a_run(changed))
    first, later = before["recovery"], after["recovery"]
    assert first["band"] == later["band"] != None  # noqa: E711 - there is one, and the same
    for name in ("to_first_success_seconds", "to_stable_seconds"):
        assert later[name] >= first[name] - 1e-6, name
    if later["to_stable_seconds"] == first["to_stable_seconds"] != inf:
        assert later["relapses"] >= first["relapses"]
    for name, parameters in (
        ("recovery_time", {"within_seconds": 3}),
        ("standard_band", {}),
        ("success_rate", {"at_least": 95, "phase": "RECOVERY"}),
        ("all_accounted", {}),
    ):
        was, is_now = (run_check(name, ValidationContext(results=each), parameters) for each in (before, after))
        assert was.passed or not is_now.passed, f"{name}: {was.message} / {is_now.message}"


@pytest.mark.parametrize("kind", ["error", "broken", "missing"])
def test_a_standard_that_fails_shows_no_band(kind: str) -> None:
    spoiled = [replace(STANDARD[0], kind=kind), *STANDARD[1:]]
    with pytest.raises(StandardFailed, match="STANDARD itself failed 1 of 58"):
        band(spoiled, windows(spoiled, 0, 10, OBJECTIVES, rest=True))


def entries(ends: Sequence[str]) -> list[LedgerEntry]:
    """A request every half second, each for 0.4 s; the failure strikes at 5."""
    found = []
    for number, kind in enumerate(ends, 1):
        due = number / 2
        chunks = [Chunk(due + 0.4, "token", 0, ["w"], finish_reason="length"), Chunk(due + 0.4, "done")]
        if kind != "complete":
            chunks = [Chunk(due + 0.4, "error", raw='{"error": "busy"}')] if kind == "error" else []
        status, end = (529, "complete") if kind == "error" else (200, "complete" if kind == "complete" else kind)
        found.append(
            LedgerEntry(
                number, "completions", True, "m", "a", 1, intended_at=due, sent_at=due, connected_at=due, chunks=chunks,
                status_code=status, ended_at=due + 0.4, end=end,
            )
        )  # fmt: skip
    return found


@TRIED
@given(
    ends=st.lists(st.sampled_from(["complete", "complete", "complete", "error", "lost"]), min_size=12, max_size=24),
    data=st.data(),
)
def test_no_check_of_single_answers_passes_that_failed(ends: list[str], data: st.DataObject) -> None:
    worse = copy.copy(ends)
    had = [index for index, each in enumerate(ends) if each == "complete"]
    if had:
        worse[data.draw(st.sampled_from(had))] = data.draw(st.sampled_from(["error", "lost", "timeout"]))
    metrics = {"ongoing_migrations_total": 1.0, "requests_total": float(len(ends))}
    nodes = {"nodes": [{"name": "w-0", "role": "worker"}, {"name": "w-1", "role": "worker"}]}
    shared: dict[str, Any] = {"struck_at": 5.2, "affected_workers": ["w-0"], "metrics": metrics, "deployment": nodes}
    for name, parameters in (
        ("no_failures", {}),
        ("high_availability", {"at_least": 90, "longest_outage_seconds": 2}),
        ("migration", {"at_least": 1}),
    ):
        was, is_now = (
            run_check(name, ValidationContext(ledger=entries(each), **shared), parameters) for each in (ends, worse)
        )
        assert was.passed or not is_now.passed, f"{name}: {was.message} / {is_now.message}"
