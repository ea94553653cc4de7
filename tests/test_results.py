"""Figures of load runs, from files alone."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from support.contract.target import Wait
from support.events import EventLog
from support.judge.checker import ValidationContext
from support.judge.checkers import run_check
from support.judge.history import WAITS
from support.judge.recovery import recovery
from support.judge.samples import Objectives, percentile
from support.report.reading import read_load_history
from support.report.results import process_overflow_recovery_test
from support.requests.ledger import Chunk, LedgerEntry, pack
from support.requests.load_log import create, mark_phase
from support.requests.plan import LoadPlan
from support.settings import ROOT

ZERO = 100.0


@dataclass
class Case:
    """One request of a made-up run: due ``at`` seconds after the start, first token and end that much later."""

    at: float
    ttft: float = 0.1
    latency: float = 0.5
    status: int = 200
    closed: bool = True
    lag: float = 0.0
    sent_late: float = 0.0
    fields: dict[str, Any] = field(default_factory=dict)

    def entry(self, number: int) -> LedgerEntry:
        """What the client saw."""
        due = ZERO + self.at
        shared: dict[str, Any] = {"index": 0, "completion_id": "c", "created": 1, "model": "m"}
        chunks = [Chunk(due + 0.01, "error", raw='{"error": "busy"}')]
        if self.status == 200:
            step = (self.latency - self.ttft) / 4
            chunks = [Chunk(due + self.ttft + step * n, "token", tokens=["w"], **shared) for n in range(5)]
            chunks[-1].finish_reason = "length"
            chunks.append(Chunk(due + self.latency, "done", raw="[DONE]"))
        entry = LedgerEntry(number, "completions", True, "m", "a", 5, intended_at=due, chunks=chunks)
        seen: dict[str, Any] = {"sent_at": due + self.sent_late, "connected_at": due, "status_code": self.status}
        seen |= {"ended_at": due + self.latency, "end": "complete", "lag_seconds": self.lag}
        return replace(entry, **(seen | self.fields))


def write(folder: Path, cases: Sequence[Case], ended: bool = True, phase: str = "", **more: Any) -> None:
    plan = LoadPlan(base_url="http://h:1", model="m", requests_per_client=len(cases), phase=phase, **more)
    create(folder, plan)
    (folder / "plan.json").write_text(json.dumps({"plan": asdict(plan), "began_at": ZERO}))
    with (folder / "requests-0.jsonl").open("w") as stream:
        for number, case in enumerate(cases, 1):
            if case.closed:
                line: dict[str, Any] = {"number": number, "attempt": 0, "last": True, "withdrawn": False}
                line["entry"] = pack(case.entry(number))
                stream.write(json.dumps(line) + "\n")
    if ended:
        (folder / "process-0.json").write_text("{}")
        last = max(case.at + case.latency for case in cases)
        (folder / "end.json").write_text(json.dumps({"ended_at": ZERO + last, "exit_codes": [0]}))


def three_phases(folder: Path, cases: Sequence[Case], **more: Any) -> None:
    write(folder, cases, **more)
    for phase, at in (("STANDARD", 0), ("OVERFLOW", 10), ("RECOVERY", 20)):
        mark_phase(folder, phase, ZERO + at)


def steady(begin: float, end: float, **more: Any) -> list[Case]:
    return [Case(begin + n / 4, **more) for n in range(int((end - begin) * 4))]


def test_figures_of_each_phase_and_of_the_whole(tmp_path: Path) -> None:
    three_phases(tmp_path, [*steady(0, 10), *steady(10, 20, status=529), *steady(20, 40, latency=1.0)])
    found = process_overflow_recovery_test(log_dir=tmp_path)
    assert found["missing"] == []
    assert found["success_rate"] == pytest.approx(75)
    assert {name: phase["success_rate"] for name, phase in found["phases"].items()} == {
        "STANDARD": 100,
        "OVERFLOW": 0,
        "RECOVERY": 100,
    }
    assert found["phases"]["STANDARD"]["p99_latency_ms"] == pytest.approx(500, abs=0.01)
    assert found["phases"]["OVERFLOW"]["p99_latency_ms"] == math.inf
    assert found["phases"]["OVERFLOW"]["statuses"] == {"529": 40}
    assert found["phases"]["OVERFLOW"]["refused"] == 40
    # A quarter has no whole answer, and so the 75th percentile is the last one that there is.
    assert (found["p50_latency_ms"], found["p90_latency_ms"]) == (pytest.approx(1000, abs=0.01), math.inf)
    assert found["phases"]["STANDARD"]["p50_itl_ms"] == pytest.approx(100, abs=0.01)
    assert found["phases"]["STANDARD"]["requests_per_second"] == pytest.approx(4)


def test_a_run_without_a_failure_is_whole_and_one_that_ends_in_overflow_is_not(tmp_path: Path) -> None:
    write(tmp_path / "a", steady(0, 10))
    mark_phase(tmp_path / "a", "STANDARD", ZERO)
    found = process_overflow_recovery_test(log_dir=tmp_path / "a")
    assert (found["missing"], found["notes"]) == ([], ["no phase OVERFLOW", "no phase RECOVERY"])
    mark_phase(tmp_path / "a", "OVERFLOW", ZERO + 20)
    found = process_overflow_recovery_test(log_dir=tmp_path / "a")
    assert found["missing"] == ["no phase RECOVERY: the run ended in OVERFLOW"]
    assert "no request in phase OVERFLOW" in found["notes"]


def test_what_a_dead_client_never_sent_counts(tmp_path: Path) -> None:
    write(tmp_path, [*steady(0, 5), *[Case(5, closed=False)] * 20], ended=False)
    found = process_overflow_recovery_test(log_dir=tmp_path)
    assert found["planned"] == 40
    assert found["success_rate"] == 50
    assert found["missing_ends"] == 20
    assert "client process 0 has not ended: it still runs, or was aborted" in found["missing"]
    assert "20 of 40 planned requests have no recorded end" in found["missing"]
    assert found["missing"][-1] == "the load has no end"


def test_latency_counts_from_the_intended_time(tmp_path: Path) -> None:
    write(tmp_path, [Case(n, latency=3.0, sent_late=2.5) for n in range(10)])
    found = process_overflow_recovery_test(log_dir=tmp_path)
    assert found["p50_latency_ms"] == pytest.approx(3000, abs=0.01)
    assert found["latency_valid"] is False


def test_a_loop_that_lagged_voids_the_times(tmp_path: Path) -> None:
    write(tmp_path, [*steady(0, 5), Case(5, lag=0.6)])
    assert process_overflow_recovery_test(log_dir=tmp_path)["latency_valid"] is False


def test_goodput_is_over_intended_requests(tmp_path: Path) -> None:
    lost = steady(15, 20, closed=False)
    write(tmp_path, [*steady(0, 5), *steady(5, 10, ttft=0.4), *steady(10, 15, status=529), *lost])
    goodput = process_overflow_recovery_test(tmp_path, Objectives(ttft_ms=200))
    assert goodput["goodput_rate"] == 25
    assert process_overflow_recovery_test(tmp_path, Objectives(itl_ms=50))["goodput_rate"] == 25
    assert process_overflow_recovery_test(tmp_path)["goodput_rate"] == 50


def test_our_own_cancels_are_no_failures(tmp_path: Path) -> None:
    write(tmp_path, [*steady(0, 5), *steady(5, 10, fields={"end": "cancelled", "cancelled_at": ZERO})])
    found = process_overflow_recovery_test(log_dir=tmp_path)
    assert (found["cancelled"], found["success_rate"]) == (20, 100)


def test_percentiles_are_exact() -> None:
    values = [float(each) for each in range(1, 201)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [100, 198, 200]
    assert percentile([], 0.99) is None


def test_recovery_to_the_first_success_and_to_stable(tmp_path: Path) -> None:
    back = [*steady(20, 22, status=503), *steady(22, 24, ttft=0.3), *steady(24, 40)]
    three_phases(tmp_path, [*steady(0, 10), *steady(10, 20, status=529), *back])
    found = recovery(read_load_history(tmp_path))
    assert found["to_first_success_seconds"] == pytest.approx(2.5)
    assert found["to_stable_seconds"] == 4
    assert found["relapses"] == 0
    assert (found["band"]["p50_ms"], found["band"]["p99_ms"]) == (pytest.approx(120), pytest.approx(180))


def test_a_relapse_is_told(tmp_path: Path) -> None:
    three_phases(tmp_path, [*steady(0, 10), *steady(10, 25), *steady(25, 27, ttft=0.4), *steady(27, 40)])
    found = recovery(read_load_history(tmp_path))
    assert (found["to_stable_seconds"], found["relapses"]) == (0, 2)


def test_two_good_windows_are_not_stable(tmp_path: Path) -> None:
    back = [*steady(20, 22), *steady(22, 24, status=503), *steady(24, 26), *steady(26, 29, status=503)]
    three_phases(tmp_path, [*steady(0, 20), *back])
    assert recovery(read_load_history(tmp_path))["to_stable_seconds"] == math.inf


def test_whoever_leaves_all_clients_without_an_answer_is_not_stable(tmp_path: Path) -> None:
    """Three good seconds, then each client waits for its deadline, so that nothing is due any more."""
    hangs = {"end": "timeout", "chunks": []}
    waiting = [Case(23.3 + n / 10, latency=60, fields=hangs) for n in range(4)]
    three_phases(tmp_path, [*steady(0, 10), *steady(20, 23), *waiting])
    end = json.loads((tmp_path / "end.json").read_text())
    (tmp_path / "end.json").write_text(json.dumps(end | {"stopped_at": ZERO + 28}))
    found = recovery(read_load_history(tmp_path))
    assert [each["lost"] for each in found["after"]] == [0, 0, 0, 4, 4, 4, 4, 4]
    assert (found["to_stable_seconds"], found["relapses"]) == (0, 5)


def test_a_band_is_as_wide_as_standard_was_apart(tmp_path: Path) -> None:
    """Median 20 ms, a tenth and more of each window 45 ms: bounds of 45 and 120 ms; a fourfold regression is seen."""

    def load(begin: int, end: int, **more: Any) -> list[Case]:
        return [
            Case(begin + n / 10, **({"ttft": 0.045 if n % 5 == 0 else 0.02} | more)) for n in range((end - begin) * 10)
        ]

    three_phases(tmp_path, [*load(0, 10), *load(20, 24), *load(24, 26, ttft=0.08), *load(26, 30)])
    found = recovery(read_load_history(tmp_path))
    assert (found["band"]["p50_ms"], found["band"]["p99_ms"]) == (pytest.approx(45), pytest.approx(120))
    assert (found["to_stable_seconds"], found["relapses"]) == (0, 2)


def test_one_lost_request_of_many_puts_a_window_out_of_the_band(tmp_path: Path) -> None:
    many = [Case(20 + n / 20) for n in range(160)]
    three_phases(tmp_path, [*steady(0, 10), *many, Case(25.5, status=503)])
    found = recovery(read_load_history(tmp_path))
    assert (found["to_stable_seconds"], found["relapses"]) == (0, 1)


def test_what_the_failure_hit_is_no_part_of_the_standard(tmp_path: Path) -> None:
    hit = [Case(9.6, ttft=3, latency=4), Case(9.7, status=500, latency=3)]
    three_phases(tmp_path, [*steady(0, 9.5), *hit, *steady(20, 30)])
    found = recovery(read_load_history(tmp_path))
    assert (found["no_band"], found["band"]["slowest_ms"]) == ("", pytest.approx(100))


@pytest.mark.parametrize(
    ("cases", "why"),
    [
        ([*steady(0, 10), Case(5, status=500)], "STANDARD itself failed 1 of 40 requests"),
        (steady(0, 7), "STANDARD had 28 requests in 7 windows"),
        ([Case(n / 20) for n in range(40)], "STANDARD had 40 requests in 2 windows"),
    ],
)
def test_a_standard_that_shows_no_band(tmp_path: Path, cases: list[Case], why: str) -> None:
    three_phases(tmp_path, [*cases, *steady(20, 30)])
    found = recovery(read_load_history(tmp_path))
    assert found["no_band"].startswith(why)
    assert found["to_stable_seconds"] == math.inf


def test_tokens_that_come_in_bundles_come_no_faster(tmp_path: Path) -> None:
    """Four tokens every 80 ms: 20 ms per token, and pauses of 80."""
    chunks = [
        Chunk(ZERO + 0.08 * n, "token", 0, ["w"] * 4, finish_reason="length" if n == 10 else None, completion_id="c")
        for n in range(1, 11)
    ]
    bundled = Case(0, latency=0.8, fields={"chunks": [*chunks, Chunk(ZERO + 0.8, "done")], "max_tokens": 40})
    write(tmp_path, [bundled])
    found = process_overflow_recovery_test(tmp_path, Objectives(itl_ms=19))
    assert found["p50_itl_ms"] == pytest.approx(800 / 39, abs=0.01)
    assert (found["p50_pause_ms"], found["max_pause_ms"]) == (pytest.approx(80), pytest.approx(80))
    assert (found["goodput_rate"], process_overflow_recovery_test(tmp_path)["goodput_rate"]) == (0, 100)


def test_tokens_of_answers_in_one_piece_count(tmp_path: Path) -> None:
    body = [Chunk(ZERO + 0.5, "body", 0, ["w"] * 5, finish_reason="length")]
    write(tmp_path, [Case(0, fields={"stream": False, "chunks": body})], stream=False)
    found = process_overflow_recovery_test(tmp_path)
    assert found["tokens_per_second"] == pytest.approx(10)
    assert (found["p50_latency_ms"], found["p50_ttft_ms"], found["p50_itl_ms"]) == (pytest.approx(500), None, None)


def test_an_answer_without_tokens_or_cut_short_is_none(tmp_path: Path) -> None:
    done = Chunk(ZERO + 0.01, "done")
    empty = [Chunk(ZERO + 0.01, "finish", 0, finish_reason="stop"), done]
    short = [Chunk(ZERO + 0.01, "token", 0, ["w"] * 2, finish_reason="length"), done]
    write(tmp_path, [Case(0, latency=0.01, fields={"chunks": each}) for each in (empty, short)])
    found = process_overflow_recovery_test(tmp_path)
    assert (found["success_rate"], found["tokens_per_second"], found["p50_latency_ms"]) == (0, 0, math.inf)


def test_phases_may_be_loads_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "a", steady(0, 10), phase="STANDARD")
    write(tmp_path / "b", steady(10, 20, status=529), phase="OVERFLOW")
    found = process_overflow_recovery_test(log_dir=tmp_path)
    assert {name: phase["success_rate"] for name, phase in found["phases"].items()} == {"STANDARD": 100, "OVERFLOW": 0}
    assert {name: load["success_rate"] for name, load in found["loads"].items()} == {"a": 100, "b": 0}


def test_a_folder_without_a_load(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no load"):
        process_overflow_recovery_test(log_dir=tmp_path)


def test_the_program_leaves_a_table_figures_and_a_picture(tmp_path: Path) -> None:
    three_phases(tmp_path, [*steady(0, 10), *steady(10, 20, status=529), *steady(20, 30, closed=False)], ended=False)
    EventLog(tmp_path / "events.jsonl").add("fault", "w-0", "crash w-0", at=ZERO + 10)
    argv = [sys.executable, "-m", "support.report.results", str(tmp_path)]
    answer = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "success_rate" in answer.stdout
    assert "missing: 40 of 120 planned requests have no recorded end" in answer.stdout
    assert json.loads((tmp_path / "results.json").read_text())["phases"]["OVERFLOW"]["refused"] == 40
    picture = (tmp_path / "results.svg").read_text()
    for words in ("STANDARD", "OVERFLOW", "RECOVERY", "crash w-0", "requests without an answer"):
        assert words in picture
    empty = subprocess.run([*argv[:-1], str(tmp_path / "none")], cwd=ROOT, capture_output=True, text=True)
    assert empty.returncode == 1
    assert "holds no load" in empty.stderr


@pytest.mark.parametrize(
    ("wait", "verdict"),
    [
        (None, "failed"),
        (0.5, "inconclusive"),
        (0.001, "failed"),  # less than a fifth of the bound
    ],
)
@pytest.mark.parametrize(("name", "parameters"), [("standard_band", {}), ("recovery_time", {"within_seconds": 4.0})])
def test_late_answers_of_a_machine_that_had_no_processor_for_them_prove_nothing(
    tmp_path: Path, name: str, parameters: dict[str, float], wait: float | None, verdict: str
) -> None:
    late = [Case(30 + n / 4, ttft=0.4) for n in range(8)]
    three_phases(tmp_path, [*steady(0, 10), *steady(10, 20, status=529), *steady(20, 30), *late, *steady(32, 40)])
    if wait:
        spells = [Wait(ZERO + 30 + n / 4, ZERO + 30.25 + n / 4, "frontend-0 (pid 7)", wait) for n in range(9)]
        (tmp_path / WAITS).write_text("".join(json.dumps(asdict(spell)) + "\n" for spell in spells))
    results = process_overflow_recovery_test(tmp_path)
    found = run_check(name, ValidationContext(results=results), parameters)
    assert (found.passed, found.nothing) == (False, verdict == "inconclusive")
    assert ("8 late requests came while a process was ready to run" in found.message) == found.nothing


def test_a_late_answer_that_nobody_was_kept_from_is_not_excused_by_waits_at_other_times(tmp_path: Path) -> None:
    late = [Case(30 + n / 4, ttft=0.4) for n in range(8)]
    three_phases(tmp_path, [*steady(0, 10), *steady(10, 20, status=529), *steady(20, 30), *late, *steady(32, 40)])
    (tmp_path / WAITS).write_text(json.dumps(asdict(Wait(ZERO + 25, ZERO + 26, "a", 1.0))) + "\n")
    found = run_check("standard_band", ValidationContext(results=process_overflow_recovery_test(tmp_path)))
    assert (found.passed, found.nothing) == (False, False)
