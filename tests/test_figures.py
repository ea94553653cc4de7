"""Figures and windows of loads against a second, slow way to count them; bounds of recovery to the point."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.contract.target import Wait
from support.errors import Inconclusive
from support.events import Event
from support.judge.figures import figures, windows
from support.judge.lag import own_lag, see_keen
from support.judge.recovery import Band, StandardFailed, band, few, recovery, stable
from support.judge.samples import LoadHistory, Objectives, Sample, milliseconds, percent, percentile
from support.requests.ledger import LedgerEntry
from support.requests.load_log import LoadLog
from support.requests.plan import LoadPlan

TRIED = settings(max_examples=200, deadline=None, database=None, derandomize=True)
NEVER = math.inf
quarter = st.integers(0, 40).map(lambda number: number / 4)
"""Times on a grid, so that sums are exact."""


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Any request that is due from 10 to 20, whatever became of it."""
    due, kind = (
        10 + draw(quarter),
        draw(st.sampled_from(("complete", "error", "broken", "cancelled", "missing", "withdrawn"))),
    )
    gaps = draw(st.lists(quarter, max_size=4))
    times = [due + sum(gaps[: index + 1]) for index in range(len(gaps))]
    ended = None if kind in ("missing", "withdrawn") else max([due, *times]) + draw(quarter)
    return Sample(
        "STANDARD",
        "load",
        due,
        ended,
        kind,
        draw(st.sampled_from((None, 200, 503))),
        attempts=draw(st.integers(0, 3)),
        asked=draw(st.integers(1, 4)),
        token_times=times,
        send_lag=draw(st.sampled_from((None, 0.25, 0.5))),
        loop_lag=draw(st.sampled_from((0.0, 0.5))),
    )


def smallest_share(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least ``share`` of them do not exceed, by trying each."""
    return min((one for one in values if sum(each <= one for each in values) >= share * len(values)), default=None)


@TRIED
@given(values=st.lists(st.integers(0, 20).map(float), max_size=12), share=st.sampled_from((0.0, 0.5, 0.9, 0.99, 1.0)))
def test_percentiles(values: list[float], share: float) -> None:
    assert percentile(sorted(values), share) == smallest_share(values, share)


def test_shares_and_milliseconds() -> None:
    assert (percent(1, 4), percent(0, 4), percent(0, 0)) == (25.0, 0.0, None)
    assert (milliseconds(0.0123456), milliseconds(0.0), milliseconds(None)) == (12.346, 0.0, None)


OBJECTIVES = Objectives(ttft_ms=1000, latency_ms=3000)


@TRIED
@given(every=st.lists(samples(), max_size=8))
def test_figures_are_those_of_counting_one_by_one(every: list[Sample]) -> None:
    found = figures(every, 10.0, 14.0, OBJECTIVES)
    judged = [each for each in every if each.kind not in ("cancelled", "withdrawn")]
    whole = [each for each in judged if each.kind == "complete" and each.token_times]
    good = [
        each
        for each in whole
        if each.token_times[0] - each.intended_at <= 1 and (each.ended_at or NEVER) - each.intended_at <= 3
    ]
    told = {
        "planned": len(every),
        "succeeded": len(whole),
        "refused": sum(each.kind == "error" for each in every),
        "broken": sum(each.kind == "broken" or (each.kind == "complete" and not each.token_times) for each in every),
        "missing_ends": sum(each.kind == "missing" for each in every),
        "cancelled": sum(each.kind == "cancelled" for each in every),
        "withdrawn": sum(each.kind == "withdrawn" for each in every),
        "attempts": sum(each.attempts for each in every),
        "success_rate": 100 * len(whole) / len(judged) if judged else None,
        "goodput_rate": 100 * len(good) / len(judged) if judged else None,
        "seconds": 4.0,
        "requests_per_second": len(whole) / 4,
        "goodput_per_second": len(good) / 4,
        "tokens_per_second": sum(len(each.token_times) for each in whole) / 4,
    }
    assert {name: found[name] for name in told} == told
    for status in (200, 503):
        assert found["statuses"].get(str(status), 0) == sum(each.status == status for each in every)
    assert set(found["statuses"]) <= {"200", "503"}
    measured = {
        "latency": [each.ended_at - each.intended_at if each in whole else NEVER for each in judged],  # type: ignore[operator]
        "ttft": [each.token_times[0] - each.intended_at if each in whole else NEVER for each in judged],
        "lag": [
            max(each.send_lag or 0.0, each.loop_lag) for each in every if each.kind not in ("missing", "withdrawn")
        ],
    }
    for name, values in measured.items():
        for share in (50, 90, 99):
            assert found[f"p{share}_{name}_ms"] == milliseconds(smallest_share(values, share / 100)), name
        assert found[f"max_{name}_ms"] == milliseconds(max(values, default=None)), name


def test_no_time_has_no_rates() -> None:
    found = figures([], 5.0, 5.0, OBJECTIVES)
    rates = ("requests_per_second", "goodput_per_second", "tokens_per_second")
    assert ([found[name] for name in rates], found["seconds"]) == ([None] * 3, 0.0)
    assert figures([], 5.0, 4.0, OBJECTIVES)["seconds"] == 0.0


@TRIED
@given(every=st.lists(samples(), max_size=8), length=st.sampled_from((0.0, 1.0, 2.75, 6.0)), rest=st.booleans())
def test_windows_are_those_of_counting_one_by_one(every: list[Sample], length: float, rest: bool) -> None:
    begin, end = 12.0, 12.0 + length
    found = windows(every, begin, end, OBJECTIVES, rest=rest)
    assert [each.begin for each in found] == [begin + index for index in range(int(length))]
    for number, window in enumerate(found):
        longer = 1.0 if rest and number == len(found) - 1 else 0.0
        since, until = window.begin, window.begin + 1.0 + longer
        judged = [each for each in every if each.judged]
        due = [each for each in judged if since <= each.intended_at < until]
        nothing = {
            id(each): (each.token_times[0] if each.answered else NEVER if each.ended_at is None else each.ended_at)
            for each in judged
        }
        asking = due + [each for each in judged if each.intended_at < since and nothing[id(each)] >= until]
        assert (window.due, window.asking) == (len(due), len(asking))
        assert window.failed == sum(not each.answered for each in due)
        assert window.lost == sum(not each.answered for each in asking)
        assert window.good == sum(each.meets(OBJECTIVES) for each in asking)
        assert list(window.firsts) == [each.first for each in due]
        for share, seen in ((0.5, window.p50_first), (0.9, window.p90_first), (0.99, window.p99_first)):
            assert seen == smallest_share([each.first for each in asking], share)
        assert window.p99_latency == smallest_share([each.latency for each in due], 0.99)
        assert window.tokens == sum(since <= at < until for each in every for at in each.token_times)


# -- the client's own lag


@pytest.mark.parametrize(
    ("sent_at", "lag_seconds", "seen"), [(None, 0.0, 0.0), (None, 0.3, 0.3), (5.5, 0.3, 0.5), (5.25, 0.3, 0.3)]
)
def test_a_client_is_late_in_sending_or_in_reading(sent_at: float | None, lag_seconds: float, seen: float) -> None:
    entry = LedgerEntry(1, "completions", True, "m", "a", 5, intended_at=5.0, sent_at=sent_at, lag_seconds=lag_seconds)
    assert own_lag(entry) == seen


def test_a_lag_of_a_fifth_is_allowed_and_no_more() -> None:
    see_keen(0.4, 2.0, "the pause")
    with pytest.raises(Inconclusive) as seen:
        see_keen(0.401, 2.0, "the pause")
    assert str(seen.value).startswith(
        "the pause: the client itself lagged 401 ms; at most 400 ms, a fifth of the 2000 ms"
    )


# -- the band of STANDARD


def sample(due: float, first: float = 0.1, phase: str = "STANDARD", **fields: Any) -> Sample:
    times = [due + first, due + first + 0.1]
    return replace(Sample(phase, "load", due, due + first + 0.1, "complete", 200, asked=2, token_times=times), **fields)


@pytest.mark.parametrize(("slow", "every", "is_few"), [(0, 0, True), (1, 1, True), (2, 199, False), (2, 200, True)])
def test_one_in_a_hundred_is_few_and_one_always(slow: int, every: int, is_few: bool) -> None:
    assert few(slow, every) is is_few


def test_a_band_says_what_it_is_made_of() -> None:
    made = Band(60, 100.0, 20.4, 45.4, 3.4, p50_ms=45.2, p99_ms=120.2)
    assert made.describe() == (
        "STANDARD band: p50 up to 45 ms, p99 up to 120 ms "
        "(median 20 ms, p90 45 ms at worst, of 60 requests, client lag 3 ms)"
    )
    assert made.slow([0.1201, 0.1202, 0.1203, 0.121]) == 2


def banded(every: Sequence[Sample], end: float = 3.0) -> Band:
    return band(every, windows(every, 0.0, end, Objectives(ttft_ms=150), rest=True))


def test_thirty_requests_in_three_windows_show_a_band_and_one_less_does_not() -> None:
    just = [sample(number / 10) for number in range(30)]
    assert banded(just).requests == 30
    with pytest.raises(
        ValueError, match=r"^STANDARD had 29 requests in 3 windows of 1 s; a band needs 30 in 3 windows"
    ):
        banded(just[:29])
    with pytest.raises(ValueError, match="30 requests in 2 windows"):
        banded([sample(number / 15) for number in range(30)], 2.0)


def test_the_step_of_a_band_is_its_spread_the_clients_lag_or_what_cannot_be_excused() -> None:
    even = [sample(number / 10) for number in range(30)]
    for every, step in (
        (even, 20),
        ([replace(each, send_lag=0.03) for each in even], 30),
        ([sample(number / 10, 0.15 if number % 5 == 0 else 0.1) for number in range(30)], 50),
    ):
        found = banded(every)
        assert (found.middle_ms, found.p50_ms, found.p99_ms) == pytest.approx((100, 100 + step, 100 + 4 * step))
    assert found.slowest_ms == pytest.approx(150)
    assert banded([replace(each, send_lag=0.03) for each in even]).lag_ms == pytest.approx(30)


def test_the_goodput_of_a_band_is_that_of_its_worst_window() -> None:
    every = [sample(number / 10, 0.2 if number in (10, 11) else 0.1) for number in range(30)]
    assert banded(every).goodput_rate == 80


def test_a_standard_that_failed_is_told_from_one_that_is_too_short() -> None:
    every = [sample(number / 10) for number in range(28)] + [sample(2.8, kind="error"), sample(2.9, kind="cancelled")]
    with pytest.raises(StandardFailed, match="failed 1 of 29 requests"):
        banded(every)


# -- the way back


BOUNDS = {"p50_ms": 100.0, "p99_ms": 400.0}


def after(**fields: Any) -> dict[str, Any]:
    return {"due": 10, "slow": 0, "asking": 10, "lost": 0, "p50_ms": 100.0, "p90_ms": 400.0} | fields


@pytest.mark.parametrize(
    ("out", "why"),
    [
        ({"lost": 1}, "an answer that did not come"),
        ({"p50_ms": 100.001}, "the median"),
        ({"p90_ms": 400.001}, "the slow ones"),
        ({"asking": 0}, "nobody was there"),
    ],
)
def test_three_windows_in_a_row_are_stable(out: dict[str, Any], why: str) -> None:
    good, bad = after(), after(**out)
    assert stable({"band": BOUNDS, "after": [good] * 3}) == (0.0, 0)
    assert stable({"band": BOUNDS, "after": [good] * 2}) == (NEVER, 0)
    assert stable({"band": None, "after": [good] * 3}) == (NEVER, 0)
    assert stable({"band": BOUNDS, "after": [good, good, bad, good, good, good]}) == (3.0, 0), why
    # One in which nobody was asking is neither in the band nor out of it.
    relapses = 0 if "asking" in out else 1
    assert stable({"band": BOUNDS, "after": [good, good, good, bad, good]}) == (0.0, relapses)


def test_windows_with_slow_requests_are_out_of_the_band_if_there_are_more_than_a_few() -> None:
    slow, good = after(slow=1), after()
    assert stable({"band": BOUNDS, "after": [good, good, good, slow]}) == (0.0, 0)
    assert stable({"band": BOUNDS, "after": [good, good, good, slow, slow]}) == (0.0, 2)
    assert stable({"band": BOUNDS, "after": [slow, good, good, slow]}) == (0.0, 2)
    # Those before it was stable do not count.
    assert stable({"band": BOUNDS, "after": [after(slow=5, lost=1), good, good, good, slow]}) == (1.0, 0)


def run(later: Sequence[Sample], waits: Sequence[Wait] = (), events: Sequence[Event] = ()) -> LoadHistory:
    """STANDARD from 0 to 10, RECOVERY from 20 to 30 with these requests."""
    standard = [sample(number / 5) for number in range(50)]
    log = LoadLog(Path(), LoadPlan(base_url="http://h:1", model="m", duration_seconds=30.0), 0.0, 30.0, [], [])
    phases = [("STANDARD", 0.0), ("RECOVERY", 20.0)]
    return LoadHistory(Path(), [log], phases, list(events), [*standard, *later], list(waits))


def back(**fields: Any) -> list[Sample]:
    return [sample(20 + number / 5, phase="RECOVERY", **fields) for number in range(50)]


def test_a_run_that_comes_back_at_once() -> None:
    found = recovery(run(back()))
    assert found["since"] == 20.0
    assert found["to_first_success_seconds"] == pytest.approx(0.2)
    assert (found["to_stable_seconds"], found["relapses"], found["no_band"]) == (0.0, 0, "")
    assert found["slow"] == {"STANDARD": 0, "RECOVERY": 0}
    assert found["unstarved"] == {
        "starved": 0,
        "slow": {"STANDARD": 0, "RECOVERY": 0},
        "p50_ms": {"STANDARD": pytest.approx(100), "RECOVERY": pytest.approx(100)},
        "to_stable_seconds": 0.0,
        "relapses": 0,
    }
    assert len(found["after"]) == 10
    assert found["after"][0] == {
        "due": 5,
        "slow": 0,
        "asking": 5,
        "lost": 0,
        "p50_ms": pytest.approx(100),
        "p90_ms": pytest.approx(100),
    }


def test_without_a_phase_of_its_own_recovery_begins_at_the_first_fault() -> None:
    faults = [Event(25.0, "proof", "w-0", "gone"), *(Event(at, "fault", "w-0", "crash w-0") for at in (24.0, 22.0))]
    told = replace(run([replace(each, phase="") for each in back()], events=faults), phases=[])
    assert recovery(told)["since"] == 22.0
    assert recovery(replace(told, events=[]))["since"] is None
    assert recovery(replace(told, events=[]))["to_stable_seconds"] is None
    assert recovery(told)["no_band"] == "no phase STANDARD"


def test_what_recovery_says_where_no_answer_came() -> None:
    found = recovery(run(back(kind="error")))
    assert (found["to_first_success_seconds"], found["to_stable_seconds"]) == (NEVER, NEVER)


@pytest.mark.parametrize(
    ("wait", "starved"),
    [
        (Wait(24.0, 24.2, "frontend-0", 0.1), 1),
        # For no more than a fifth of the bound, which is 180 ms.
        (Wait(24.0, 24.2, "frontend-0", 0.035), 0),
        (Wait(24.0, 24.2, "frontend-0", 0.037), 1),
        # Before the request was due, or after its first token.
        (Wait(23.0, 24.0, "frontend-0", 0.1), 0),
        (Wait(24.4, 25.0, "frontend-0", 0.1), 0),
        (Wait(23.0, 24.01, "frontend-0", 0.1), 1),
        (Wait(24.39, 25.0, "frontend-0", 0.1), 1),
    ],
)
def test_a_late_request_is_starved_by_whoever_waited_meanwhile(wait: Wait, starved: int) -> None:
    late = [*back(), sample(24.0, 0.4, "RECOVERY")]
    found = recovery(run(late, [wait]))
    assert found["band"]["p99_ms"] == pytest.approx(180)
    assert found["unstarved"]["starved"] == starved
    assert (found["slow"]["RECOVERY"], found["unstarved"]["slow"]["RECOVERY"]) == (1, 1 - starved)


def test_only_a_whole_answer_that_is_late_is_starved() -> None:
    wait = [Wait(24.0, 24.2, "frontend-0", 0.1)]
    for odd in (
        sample(24.0, 0.119, "RECOVERY"),  # within the bound for the median, 120 ms
        sample(24.0, 0.4, "RECOVERY", kind="error"),
        sample(24.0, 0.4, "RECOVERY", kind="cancelled"),
    ):
        rest = [each for each in back() if not 23.9 < each.intended_at < 24.3]
        assert recovery(run([*rest, odd], wait))["unstarved"]["starved"] == 0, odd
