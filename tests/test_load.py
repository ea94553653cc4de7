"""Load generation against a small server, and the files that it leaves."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from support.events import read_events
from support.observe.waiting import until
from support.report.results import process_overflow_recovery_test
from support.requests.ledger import Chunk, LedgerEntry, pack
from support.requests.load import client, run_load, start_load
from support.requests.load_log import create, read_load
from support.requests.outcomes import outcome
from support.requests.plan import LoadPlan
from support.requests.second_opinion import opinions
from support.settings import ROOT
from tests.bench.bench_load import compare
from tests.fake_frontend import FakeFrontend
from tests.patience import PATIENCE

PLAN = LoadPlan(base_url="http://127.0.0.1:1", model="m", clients=4, requests_per_client=3, max_tokens=5)


@pytest.fixture
def frontend() -> Iterator[FakeFrontend]:
    server = FakeFrontend()
    yield server
    server.close()


def plan(frontend: FakeFrontend, **change: Any) -> LoadPlan:
    return replace(PLAN, base_url=frontend.url, **change)


@pytest.mark.parametrize(
    ("endpoint", "path"), [("completions", "completions"), ("chat/completions", "chat/completions")]
)
def test_each_client_sends_its_requests_one_after_the_other(
    frontend: FakeFrontend, tmp_path: Path, endpoint: str, path: str
) -> None:
    log = client(frontend.url, 4, 3, "m", 5, tmp_path / "logs", endpoint)
    assert {body["path"] for body in frontend.bodies} == {f"/v1/{path}"}
    assert log.problems == []
    assert [record.planned.number for record in log.records] == list(range(1, 13))
    assert Counter(record.planned.client for record in log.records) == dict.fromkeys(range(4), 3)
    assert all(len(entry.tokens) == 5 and outcome(entry).kind == "complete" for entry in log.entries())
    assert frontend.most_at_once <= 4
    for number in range(4):
        mine = [record.attempts[0] for record in log.records if record.planned.client == number]
        assert all(after.intended_at >= (before.ended_at or 0) for before, after in pairwise(mine))


def test_clients_are_shared_by_processes(frontend: FakeFrontend, tmp_path: Path) -> None:
    log = run_load(plan(frontend, processes=2), tmp_path)
    assert log.problems == []
    assert {record.planned.process for record in log.records} == {0, 1}
    assert len(log.entries()) == 12


def test_the_bytes_of_one_answer_of_each_shape_are_kept(frontend: FakeFrontend, tmp_path: Path) -> None:
    frontend.refuse, frontend.refusals = 503, 3
    log = run_load(plan(frontend, clients=1, requests_per_client=8), tmp_path)
    kept = [entry for entry in log.entries() if entry.received]
    assert [(entry.status_code, entry.received_size > 0) for entry in kept] == [(503, True), (200, True)]
    found = opinions(log.entries(), each=())
    assert Counter(each.kind for each in found.values()) == {"error": 3, "whole": 5}


@pytest.mark.parametrize(
    ("text", "reason", "good"),
    [("a b c d e", "length", 12), ("", "stop", 0), ("a b", "length", 0), ("a b c d e", "error", 0)],
)
def test_only_whole_answers_are_goodput(
    frontend: FakeFrontend, tmp_path: Path, text: str, reason: str, good: int
) -> None:
    answer = {"id": "c", "created": 1, "model": "m", "choices": [{"index": 0, "text": text, "finish_reason": reason}]}
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    frontend.raw = f"{head}data: {json.dumps(answer)}\n\ndata: [DONE]\n\n".encode()
    run_load(plan(frontend), tmp_path)
    found = process_overflow_recovery_test(tmp_path)
    assert (found["succeeded"], found["broken"], found["goodput_rate"]) == (good, 12 - good, 100.0 * good / 12)


def test_an_open_loop_waits_for_nobody(frontend: FakeFrontend, tmp_path: Path) -> None:
    frontend.pause = 0.2
    log = run_load(plan(frontend, clients=1, requests_per_client=20, arrival="constant", rate=50), tmp_path)
    assert frontend.most_at_once == 20
    due = [entry.intended_at - log.began_at for entry in log.entries()]
    assert due == pytest.approx([index / 50 for index in range(20)])


def test_a_closed_loop_ends_with_its_duration(frontend: FakeFrontend, tmp_path: Path) -> None:
    frontend.pause = 0.01
    log = run_load(plan(frontend, requests_per_client=None, duration_seconds=0.5), tmp_path)
    assert log.problems == []
    assert len(log.records) == len(log.entries()) >= 8
    assert max(entry.intended_at for entry in log.entries()) < log.began_at + 0.5


def test_a_share_is_given_up_in_mid_answer(frontend: FakeFrontend, tmp_path: Path) -> None:
    frontend.pause = 0.005
    log = run_load(plan(frontend, max_tokens=40, cancel_share=0.5, seed=3), tmp_path)
    planned = {record.planned.number: record.planned.cancel_after for record in log.records}
    cancelled = {entry.number for entry in log.entries() if entry.end == "cancelled"}
    assert cancelled == {number for number, after in planned.items() if after is not None}
    assert 0 < len(cancelled) < 12
    assert all(len(entry.tokens) >= (planned[entry.number] or 0) for entry in log.entries())


def test_a_share_of_answers_in_one_piece_is_given_up(frontend: FakeFrontend, tmp_path: Path) -> None:
    frontend.pause = 0.5
    log = run_load(plan(frontend, stream=False, cancel_share=1.0, cancel_seconds=0.05), tmp_path)
    assert Counter(entry.end for entry in log.entries()) == {"cancelled": 12}


def test_an_open_loop_is_shared_by_processes() -> None:
    several = replace(PLAN, clients=1, requests_per_client=10, arrival="constant", rate=50, processes=3)
    assert Counter(each.process for each in several.requests()) == {0: 4, 1: 3, 2: 3}


def test_a_client_that_is_refused_waits_before_it_asks_again(frontend: FakeFrontend, tmp_path: Path) -> None:
    frontend.refuse, frontend.refusals = 503, 2
    log = run_load(plan(frontend, clients=1, requests_per_client=4, retry_seconds=2.0), tmp_path)
    entries = log.entries()
    gaps = [after.intended_at - (before.ended_at or 0.0) for before, after in pairwise(entries)]
    assert [entry.status_code for entry in entries] == [503, 503, 200, 200]
    assert all(gap >= 2.0 for gap in gaps[:2])
    assert gaps[2] < 2.0


def test_lengths_are_mixed_and_the_same_for_the_same_seed() -> None:
    mixed = replace(PLAN, prompt_words=[3, 30], max_tokens={"from": 5, "to": 9}, requests_per_client=50)
    requests = list(mixed.requests())
    assert {each.prompt_words for each in requests} == {3, 30}
    assert {each.max_tokens for each in requests} == {5, 6, 7, 8, 9}
    assert requests == list(mixed.requests())
    assert requests != list(replace(mixed, seed=1).requests())


def test_arrivals() -> None:
    def offsets(**change: Any) -> list[float]:
        made = replace(PLAN, clients=1, requests_per_client=None, duration_seconds=100.0, **change)
        return [each.offset or 0.0 for each in made.requests()]

    assert len(offsets(arrival="constant", rate=10)) == 1000
    poisson = offsets(arrival="poisson", rate=10)
    assert 900 < len(poisson) < 1100
    assert len({round(after - before, 6) for before, after in pairwise(poisson)}) > 800
    ramp = offsets(arrival="ramp", rate=1, rate_end=19)
    assert sum(at >= 50 for at in ramp) > 2 * sum(at < 50 for at in ramp)
    assert 900 < len(ramp) < 1100


def test_retries_are_recorded_and_off_by_default(frontend: FakeFrontend, tmp_path: Path) -> None:
    frontend.refuse, frontend.refusals = 503, 12
    log = run_load(plan(frontend), tmp_path / "off")
    assert Counter(entry.status_code for entry in log.entries()) == {503: 12}
    frontend.refusals = 2
    log = run_load(plan(frontend, clients=1, requests_per_client=2, retries=2, retry_seconds=0.01), tmp_path / "on")
    assert [[entry.status_code for entry in record.attempts] for record in log.records] == [[503, 503, 200], [200]]


def test_the_log_can_be_read_while_the_load_runs(frontend: FakeFrontend, tmp_path: Path) -> None:
    frontend.pause = 0.02
    run = start_load(plan(frontend, requests_per_client=500), tmp_path)  # far more than end before it is stopped
    assert run.wait_for(lambda seen: seen.ended >= 8, PATIENCE)
    live = read_load(tmp_path)
    assert len(live.records) == 2000
    assert 0 < len(live.entries()) < 2000
    assert "the load has no end" in live.problems
    run.stop()
    log = run.join()
    assert log.problems == []
    assert len(log.entries()) + sum(record.withdrawn for record in log.records) == 2000
    assert any(record.withdrawn for record in log.records)


def test_a_client_that_is_killed_does_not_shrink_the_denominator(frontend: FakeFrontend, tmp_path: Path) -> None:
    frontend.pause = 0.02
    run = start_load(plan(frontend, requests_per_client=10, processes=2), tmp_path)
    assert run.wait_for(lambda seen: seen.ended >= 4, 20)
    os.kill(run.pids[1], signal.SIGKILL)
    log = run.join()
    assert len(log.records) == 40
    assert "client process 1 died (exit status -9)" in log.problems
    lost = [record for record in log.records if not record.closed]
    assert lost
    assert {record.planned.process for record in lost} == {1}
    assert f"{len(lost)} of 40 planned requests have no recorded end" in log.problems


def test_clients_end_with_whoever_wanted_them(frontend: FakeFrontend, tmp_path: Path) -> None:
    frontend.pause = 0.05
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        run = start_load(plan(frontend, requests_per_client=1000), tmp_path)
        os.write(writing, b"%d" % run.pids[0])
        signal.pause()
    pid = int(os.read(reading, 20))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    os.close(reading)
    os.close(writing)

    def alive() -> str | None:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):  # it may end while it is read
            return None
        return None if state == "Z" else state

    until(alive, PATIENCE, "the client process is gone")


@pytest.mark.parametrize("body", ["", "busy"])
def test_a_refusal_of_any_kind_is_no_answer(frontend: FakeFrontend, tmp_path: Path, body: str) -> None:
    frontend.refuse, frontend.refusals, frontend.says = 503, 1, body
    log = run_load(plan(frontend, clients=1, requests_per_client=1, retries=2, retry_seconds=0.01), tmp_path)
    assert [entry.status_code for entry in log.entries()] == [503, 200]


def test_a_client_that_gives_up_asks_no_more_once_a_request_fails(frontend: FakeFrontend, tmp_path: Path) -> None:
    frontend.refuse, frontend.refusals = 503, 1
    change = {"clients": 1, "requests_per_client": None, "duration_seconds": 30.0, "gives_up": True}
    run = start_load(plan(frontend, **change), tmp_path)
    log = run.join()
    assert [entry.status_code for entry in log.entries()] == [503]
    assert (log.problems, run.gave_up) == ([], True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gives_up": True}, "gives_up is true; only a closed loop with duration_seconds may have it"),
        ({"clients": 0}, "clients is 0; expected a whole number, 1 or more"),
        ({"requests_per_client": 0}, "requests_per_client is 0"),
        ({"requests_per_client": None}, "expected one of requests_per_client and duration_seconds"),
        ({"duration_seconds": 5.0}, "expected one of requests_per_client and duration_seconds"),
        ({"endpoint": "embeddings"}, "endpoint is 'embeddings'; expected one of completions, chat/completions"),
        ({"arrival": "bursts"}, "arrival is 'bursts'; expected one of closed"),
        ({"arrival": "poisson"}, "an open loop has a rate"),
        ({"rate": 5.0}, "a closed one has none"),
        ({"arrival": "ramp", "rate": 5.0}, "a ramp has one"),
        ({"processes": 5}, "5 processes for 4 clients"),
        ({"cancel_share": 2.0}, "cancel_share is 2.0; expected 0 to 1"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": []}, r"max_tokens is \[\]"),
        ({"prompt_words": {"from": 5}}, "expected such as {from: 50, to: 400}"),
        ({"prompt_words": {"from": 5, "to": 4}}, "no larger than to"),
        ({"deadline_seconds": 0.0}, "deadline_seconds is 0.0; expected a number, more than 0"),
        ({"requests_per_client": None, "duration_seconds": "5"}, "duration_seconds is '5'; expected a number"),
        ({"requests_per_client": None, "duration_seconds": float("inf")}, "duration_seconds is inf; expected a number"),
        ({"cancel_share": 0.5, "stream": False}, "cancel_share 0.5 with stream False and cancel_seconds None"),
        ({"cancel_share": 0.5, "cancel_seconds": 1.0}, "requests given up before their one body have it alone"),
        ({"model": ""}, "model is empty"),
        ({"model": "other"}, "unknown model 'other'; .* serves m"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    frontend: FakeFrontend, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        start_load(plan(frontend, **change), tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
    assert frontend.bodies == []


def test_a_frontend_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lists no models at /v1/models"):
        start_load(PLAN, tmp_path)


def test_a_folder_that_holds_another_run(frontend: FakeFrontend, tmp_path: Path) -> None:
    run_load(plan(frontend), tmp_path)
    with pytest.raises(ValueError, match=r"holds another run \(plan.json\)"):
        start_load(plan(frontend), tmp_path)


def test_a_folder_within_which_another_run_is_or_that_is_a_file(frontend: FakeFrontend, tmp_path: Path) -> None:
    run_load(plan(frontend), tmp_path / "inner")
    with pytest.raises(ValueError, match=r"holds another run \(inner/plan.json\)"):
        start_load(plan(frontend), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file; expected a new or empty folder"):
        start_load(plan(frontend), tmp_path / "file")


def test_a_long_load_is_read_and_judged_in_little_memory(tmp_path: Path) -> None:
    count, tokens = 2000, 50
    create(tmp_path, LoadPlan(base_url="http://h:1", model="m", requests_per_client=count, max_tokens=tokens))
    shared: dict[str, Any] = {"index": 0, "completion_id": "c", "created": 1, "model": "m"}
    chunks = [Chunk(1.0 + n / 100, "token", tokens=["word"], **shared) for n in range(tokens)]
    entry = pack(LedgerEntry(1, "completions", True, "m", "a", tokens, intended_at=1.0, chunks=chunks))
    with (tmp_path / "requests-0.jsonl").open("w") as stream:
        for number in range(1, count + 1):
            line = {"number": number, "attempt": 0, "last": True, "withdrawn": False, "entry": entry}
            stream.write(json.dumps(line) + "\n")
    peaks = []
    for work in ("", "log = read_load(folder)", "process_overflow_recovery_test(folder)"):
        argv = [sys.executable, "-c", MEASURE.format(folder=str(tmp_path), work=work)]
        peaks.append(int(subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout))
    # 10,000 requests have to fit into 200 MiB with all that Python itself takes, a fifth of them into a fifth of it.
    assert max(peaks[1:]) - peaks[0] < 30 * 1024, peaks


MEASURE = """
from pathlib import Path
from support.report.results import process_overflow_recovery_test
from support.requests.load_log import read_load
folder = Path({folder!r})
{work}
# Not ru_maxrss, which begins with what the parent had.
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def test_an_end_that_was_not_written_to_its_end_is_none(tmp_path: Path) -> None:
    create(tmp_path, PLAN)
    (tmp_path / "end.json").touch()
    (tmp_path / "events.jsonl").write_text('{"at": 1, "kind": "note", "subject": "", "text": "x"}\n{"at": 2, "ki')
    assert "the load has no end" in read_load(tmp_path).problems
    assert [event.text for event in read_events(tmp_path / "events.jsonl")] == ["x"]


def test_a_line_that_a_kill_has_cut_short_is_left_out(tmp_path: Path) -> None:
    create(tmp_path, PLAN)
    (tmp_path / "requests-0.jsonl").write_text('{"number": 1, "last": tr')
    log = read_load(tmp_path)
    assert len(log.records) == 12
    assert log.entries() == []
    assert json.loads((tmp_path / "plan.json").read_text())["plan"]["clients"] == 4


def test_the_bench_counts_the_median_of_all_turns() -> None:
    assert compare("times another", [0.7, 0.9, 2.0], 0.8)
    assert not compare("times another", [0.7, 0.75, 2.0], 0.8)
