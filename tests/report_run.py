"""A run as it lies on disk, made up: what reports are tried with, and what the pictures in docs/ show."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from support.events import EventLog
from support.judge.verdict import Finding, Verdict
from support.report import publish, runs
from support.requests.ledger import Chunk, Ledger, LedgerEntry
from support.requests.load_log import read_load
from support.settings import ROOT
from tests.test_results import Case, steady, three_phases

MIGRATION = "A worker dies and its answers continue"
LOAD = "Part of a deployment fails under load and its users hardly notice"
CANCEL = "A client gives up and its request is cancelled"
NETWORK = "The network between nodes fails and users get an answer or a clear error"
DEFECT = "prefill-ignores-cancel"
CRASH = "The worker crashes in the middle of a stream (vllm, chat, tcp)"
CUT = "A short silence between frontend and worker only delays an answer"
GIVEN_UP = "The client gives up while the prefill worker is processing the prompt (vllm)"
BROKEN = "A worker is lost under load (vllm, crashes)"


def _answer(ledger: Ledger, tokens: int, times: Iterable[float], asked: int | None = None) -> LedgerEntry:
    """A request of the time 100.0 that got its tokens at these times."""
    entry = ledger.open(
        api="chat", stream=True, model="m", prompt="how tall is the tower", max_tokens=asked or tokens, sent_at=100.0
    )
    for number, at in enumerate(times):
        entry.chunks.append(Chunk(at, "token", 0, [f"w{number}"], completion_id="cmpl-1"))
    entry.status_code = 200
    return entry


def _whole(entry: LedgerEntry) -> None:
    at = entry.chunks[-1].at
    entry.chunks += [Chunk(at, "finish", 0, finish_reason="length"), Chunk(at, "done")]
    entry.end, entry.ended_at = "complete", at + 0.01


def _surroundings(folder: Path, nodes: Sequence[str], moved: int = 0) -> EventLog:
    """What every scenario leaves: states, logs that tell where they were written, metrics."""
    (folder / "logs").mkdir(parents=True)
    events = EventLog(folder / "events.jsonl")
    for node in nodes:
        events.add("state", node, "starting: pid 7", at=97.0, state="starting")
        events.add("state", node, "running: pid 7 is ready", at=98.0, state="running")
        lines = [f"File {ROOT}/.envs/dynamo/lib/x.py line {n}, in {Path.home()}/.cache/y" for n in range(60)]
        (folder / "logs" / f"{node}.log").write_text("\n".join([*lines, f"python {sys.executable}", ""]))
    for when, count in (("before", 0), ("after", moved)):
        (folder / "metrics" / when).mkdir(parents=True)
        (folder / "metrics" / when / "frontend-0.txt").write_text(f"dynamo_frontend_model_migration_total {count}\n")
    (folder / "topology.json").write_text(json.dumps({"nodes": [{"name": name} for name in nodes]}))
    (folder / "console.txt").write_text(f"features in {ROOT}\n")
    return events


def _crash(folder: Path) -> None:
    nodes = ("frontend-0", "vllm-worker-0", "vllm-worker-1")
    events = _surroundings(folder, nodes, moved=1)
    events.add("fault", nodes[1], f"{nodes[1]} crashed", at=101.5, fault="f-1", order="crash", until=400.0)
    events.add("state", nodes[1], "dead: ended by signal SIGKILL", at=101.52, state="dead", exit_code=-9)
    events.add("proof", nodes[1], f"pid 28 of {nodes[1]} is gone", at=101.58, fault="f-1")
    events.add("fault", nodes[1], f"crash of {nodes[1]} undone", at=104.0, fault="f-1", undo="crash")
    events.add("state", nodes[1], "running: pid 70 is ready", at=104.3, state="running")
    events.add("proof", nodes[1], f"{nodes[1]} runs", at=104.4, fault="f-1")
    ledger = Ledger()
    _whole(_answer(ledger, 200, [100.2 + n / 50 + (0.8 if n > 64 else 0) for n in range(200)]))
    entry = _answer(ledger, 20, [104.8 + n / 50 for n in range(20)])
    entry.sent_at = 104.6
    _whole(entry)
    ledger.write(folder / "ledger.jsonl")


def _give_up(folder: Path) -> None:
    nodes = ("frontend-0", "vllm-prefill-worker-0", "vllm-decode-worker-0")
    events = _surroundings(folder, nodes)
    events.add("fault", "client", "the client gave up request 1 (close)", at=100.6)
    ledger = Ledger()
    entry = _answer(ledger, 0, [], asked=300)
    entry.cancelled_at, entry.ended_at, entry.end, entry.cancelled_by = 100.6, 100.6, "cancelled", "close"
    ledger.write(folder / "ledger.jsonl")


def _cut(folder: Path) -> None:
    nodes = ("frontend-0", "ruler-worker-0", "ruler-worker-1")
    events, words = _surroundings(folder, nodes), "packets were dropped between frontend-0 and ruler-worker-0"
    events.add("fault", nodes[1], words, at=100.8, fault="f-2", order="cut", until=102.8)
    events.add("proof", nodes[1], f"{words}: rules have hit 38 packets", at=101.2, fault="f-2")
    events.add("proof", nodes[1], "packets arrive again, both ways", at=102.9, fault="f-2")
    ledger = Ledger()
    _whole(_answer(ledger, 400, [100.1 + n / 200 + (2.1 if n > 140 else 0) for n in range(400)]))
    ledger.write(folder / "ledger.jsonl")


def _under_load(folder: Path, broken: bool) -> None:
    nodes = ("frontend-0", "vllm-worker-0", "vllm-worker-1")
    events = _surroundings(folder, nodes)
    lost = [Case(10 + n / 8, status=500) for n in range(12)] if broken else steady(10, 11.5, latency=1.4)
    three_phases(folder / "load", [*steady(0, 10), *lost, *steady(11.5, 30)])
    phases = [("STANDARD", 100.0), ("OVERFLOW", 110.0), ("RECOVERY", 114.0)]
    lines = [json.dumps({"phase": phase, "at": at}) for phase, at in phases]
    (folder / "load" / "phases.jsonl").unlink()
    (folder / "phases.jsonl").write_text("\n".join([*lines, ""]))
    ledger = Ledger()
    ledger.adopt(read_load(folder / "load").entries())
    ledger.write(folder / "ledger.jsonl")
    events.add("fault", nodes[1], f"{nodes[1]} crashed", at=110.0, fault="f-3", order="crash", until=3700.0)
    events.add("state", nodes[1], "dead: ended by signal SIGKILL", at=110.02, state="dead", exit_code=-9)
    events.add("proof", nodes[1], f"pid 28 of {nodes[1]} is gone", at=110.06, fault="f-3")
    events.add("state", nodes[1], "starting: pid 91", at=111.0, state="starting")
    events.add("state", nodes[1], "running: pid 91 is ready", at=113.1, state="running")


def make_run(reports: Path, name: str, *, red: bool) -> tuple[Path, list[Verdict]]:
    """Write a run of four scenarios: one shows a known defect, and where the run is ``red`` one breaks a promise."""
    run = reports / "runs" / name
    (run / "allure-results").mkdir(parents=True)
    started = datetime.strptime(name.rpartition("-")[0], "%Y%m%d-%H%M%S").replace(tzinfo=UTC).isoformat()
    about = {"dynamo": "1.6.1", "target": "local", "started": started, "argv": [str(ROOT)]}
    runs.write_json(run / "run.json", about | {"versions": {"etcd": "3.5.1", "NATS": "2.15.1"}})
    lost = Finding("sentence", "Then every request succeeds", "12 of 126 requests ended in HTTP 500")
    busy = Finding(
        *("sentence", "Then within 2 seconds no worker has a request in flight"),
        "not within 2 seconds of this sentence; last seen: vllm-prefill-worker-0 has 1",
        since=100.7,
        until=102.7,
    )
    verdicts = [
        Verdict(MIGRATION, CRASH, "features/m.feature:20", ["vllm", "smoke"], "passed", 6.0),
        Verdict(NETWORK, CUT, "features/n.feature:8", ["ruler"], "passed", 5.0),
        Verdict(CANCEL, GIVEN_UP, "features/c.feature:84", ["vllm"], "known_defect", 4.0),
        Verdict(LOAD, BROKEN, "features/d.feature:19", ["vllm"], "failed" if red else "passed", 32.0),
    ]
    verdicts[2].reason, verdicts[2].findings = f"{DEFECT}: {busy.about}: {busy.message}", [busy]
    verdicts[2].known_defects = [DEFECT]
    if red:
        verdicts[3].reason, verdicts[3].findings = f"{lost.about}: {lost.message}", [lost]
    folders = [runs.scenario_folder(run, each.location) for each in verdicts]
    _crash(folders[0])
    _cut(folders[1])
    _give_up(folders[2])
    _under_load(folders[3], broken=red)
    for verdict in verdicts:
        verdict.evidence = {"one-outcome": 1, "usage": 1, "replay": 0}
        publish.write_verdict(run, verdict)
    return run, verdicts
