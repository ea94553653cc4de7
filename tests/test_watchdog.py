"""The watchdog outside cells: agents that die or freeze leave no fault behind, and no watchdog either."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from agents import cell
from agents.faults import FaultBook, JournalInUse, read_journal
from agents.watchdog import JOURNAL, LOCK, Guard, Leases, Watchdog, ensure
from support.observe.waiting import until
from support.settings import ROOT
from tests.marker_agent import MarkerDriver

Start = Callable[[float], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the marker agent with a fault of so many seconds; returns once the fault is there."""
    agents: list[subprocess.Popen[bytes]] = []

    def run(seconds: float) -> "subprocess.Popen[bytes]":
        argv = [sys.executable, "-m", "tests.marker_agent", "--state-dir", str(tmp_path), "--seconds", str(seconds)]
        agents.append(subprocess.Popen(argv, cwd=ROOT))
        until(lambda: None if states(tmp_path) == ["active"] else str(states(tmp_path)), 20, "the fault is active")
        assert (tmp_path / "marker").exists()
        return agents[-1]

    yield run
    for agent in agents:
        agent.kill()
        agent.wait()
    until(lambda: None if not watchdogs(tmp_path) else str(watchdogs(tmp_path)), 20, "the watchdog has ended")


def states(folder: Path) -> list[str]:
    return [fault.state for fault in read_journal(folder / JOURNAL).values()]


def watchdogs(folder: Path) -> list[int]:
    """Pids of the watchdogs of this very folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "agents.watchdog" in words and str(folder) in words:
            found.append(process.pid)
    return found


def gone(folder: Path) -> str | None:
    return "the marker is there" if (folder / "marker").exists() else None


def test_fault_of_a_killed_agent_is_undone_at_once(start: Start, tmp_path: Path) -> None:
    agent = start(600)
    agent.kill()
    agent.wait()
    until(lambda: gone(tmp_path), 20, "the fault has ended")
    until(lambda: None if states(tmp_path) == ["recovered"] else str(states(tmp_path)), 10, "the journal says so")


def test_frozen_agent_is_killed_at_the_deadline_and_its_fault_undone(start: Start, tmp_path: Path) -> None:
    agent = start(2)
    agent.send_signal(signal.SIGSTOP)
    until(lambda: gone(tmp_path), 20, "the fault has ended")
    assert agent.wait(20) == -signal.SIGKILL
    until(lambda: None if states(tmp_path) == ["recovered"] else str(states(tmp_path)), 10, "the journal says so")


def test_agent_that_does_its_work_is_left_alone(start: Start, tmp_path: Path) -> None:
    agent = start(1)
    until(lambda: gone(tmp_path), 20, "the fault has ended")
    until(lambda: None if states(tmp_path) == ["recovered"] else str(states(tmp_path)), 10, "the journal says so")
    assert agent.poll() is None
    assert len(watchdogs(tmp_path)) == 1


def test_killed_watchdog_is_replaced_by_one(start: Start, tmp_path: Path) -> None:
    start(600)
    [first] = watchdogs(tmp_path)
    os.kill(first, signal.SIGKILL)
    until(lambda: None if first not in watchdogs(tmp_path) else "alive", 10, "the first watchdog is gone")
    for _ in range(3):
        ensure(tmp_path)

    def one() -> str | None:
        with (tmp_path / LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None if len(watchdogs(tmp_path)) == 1 else str(watchdogs(tmp_path))
        return "nobody holds the lock"

    until(one, 20, "one watchdog looks after the folder")


def test_another_process_with_the_agents_pid_is_spared(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        guard = Guard(bystander.pid, 1, "another boot", str(tmp_path / JOURNAL), [])
        assert not guard.alive()
        guard.kill()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_journal_has_one_writer(tmp_path: Path) -> None:
    asyncio.run(_two_writers(tmp_path))


async def _two_writers(tmp_path: Path) -> None:
    book = FaultBook(tmp_path / JOURNAL, {"marker": MarkerDriver(tmp_path)})
    await book.inject({"kind": "marker", "duration_seconds": 60})
    with pytest.raises(JournalInUse, match=JOURNAL):
        FaultBook(tmp_path / JOURNAL, {"marker": MarkerDriver(tmp_path)}).replay()
    await book.recover_all()


def test_leases_follow_the_journal_line_by_line(tmp_path: Path) -> None:
    asyncio.run(_follow(tmp_path))


async def _follow(tmp_path: Path) -> None:
    leases = Leases(tmp_path / JOURNAL)
    assert leases.owed() == []
    book = FaultBook(tmp_path / JOURNAL, {"marker": MarkerDriver(tmp_path)})
    fault = await book.inject({"kind": "marker", "duration_seconds": 60})
    assert leases.owed() == [fault.id]
    assert leases.overdue() == []
    fault.deadline = time.monotonic() - 60
    book._write(fault)
    assert leases.overdue() == [fault.id]
    with (tmp_path / JOURNAL).open("a") as stream:
        stream.write('{"id": "half a li')
    assert leases.overdue() == [fault.id]
    book.hold().close()  # as the kernel does at the end of its process
    heir = FaultBook(tmp_path / JOURNAL, {"marker": MarkerDriver(tmp_path)})
    heir.replay()
    await heir.recover_all()
    assert leases.owed() == []
    assert read_journal(tmp_path / JOURNAL)[fault.id].state == "recovered"


def gone_agent(folder: Path, name: str, undo: list[str]) -> Path:
    """The guard of an agent that is gone and has left a live fault; returns its path."""
    journal = folder / f"{name}.jsonl"
    fault = {"id": f"f-{name}", "state": "active", "deadline": 0.0, "evidence": {}, "history": []}
    journal.write_text(json.dumps(fault) + "\n")
    path = folder / f"{name}.guard.json"
    Guard(os.getpid(), 1, "another boot", str(journal), undo).write(path)
    return path


def undo_of(folder: Path, name: str) -> list[str]:
    over = json.dumps({"id": f"f-{name}", "state": "recovered", "deadline": 0.0, "evidence": {}, "history": []})
    return ["sh", "-c", f"echo '{over}' >> {folder / name}.jsonl"]


def test_an_undo_that_hangs_delays_no_other(tmp_path: Path) -> None:
    gone_agent(tmp_path, "a", ["sleep", "600"])
    gone_agent(tmp_path, "b", undo_of(tmp_path, "b"))
    watchdog, began = Watchdog(tmp_path), time.monotonic()

    def undone() -> str | None:
        watchdog.look()
        return "the guard is there" if (tmp_path / "b.guard.json").exists() else None

    try:
        until(undone, 20, "the other fault is undone")
        assert (tmp_path / "a.guard.json").exists()
        assert time.monotonic() - began < 20
    finally:
        for undo, _ in watchdog._undos.values():
            undo.kill()
            undo.wait()


def test_a_guard_that_cannot_be_read_is_put_aside_and_the_others_are_seen_to(tmp_path: Path) -> None:
    (tmp_path / "a.guard.json").write_text('{"pid": 1}')
    newer = gone_agent(tmp_path, "b", undo_of(tmp_path, "b"))
    newer.write_text(json.dumps(json.loads(newer.read_text()) | {"of_a_newer_version": True}))
    watchdog = Watchdog(tmp_path)
    until(lambda: "guards are left" if watchdog.look() else None, 20, "all guards are seen to")
    assert [path.name for path in tmp_path.glob("a.guard*")] == ["a.guard.unreadable"]


def test_a_journal_of_a_newer_version_is_taken_up(tmp_path: Path) -> None:
    asyncio.run(_newer(tmp_path))


async def _newer(tmp_path: Path) -> None:
    book = FaultBook(tmp_path / JOURNAL, {"marker": MarkerDriver(tmp_path)})
    fault = await book.inject({"kind": "marker", "duration_seconds": 60})
    book.hold().close()
    lines = [json.loads(line) | {"of_a_newer_version": 1} for line in (tmp_path / JOURNAL).read_text().splitlines()]
    (tmp_path / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
    heir = FaultBook(tmp_path / JOURNAL, {"marker": MarkerDriver(tmp_path)})
    await heir.end_journal()
    assert (heir.get(fault.id).state, (tmp_path / "marker").exists()) == ("recovered", False)


def test_an_agent_that_is_stopped_while_it_makes_a_fault_is_overdue_at_the_deadline(tmp_path: Path) -> None:
    moment = time.monotonic()
    fault = {"id": "f-1", "state": "pending", "deadline": moment - 3, "history": [{"at": moment - 5}]}
    (tmp_path / JOURNAL).write_text(json.dumps(fault) + "\n")
    leases = Leases(tmp_path / JOURNAL)
    assert (leases.overdue(), leases.overdue(stopped=True)) == ([], ["f-1"])


def test_the_death_of_an_agent_is_not_hidden_from_the_first_process_of_its_cell() -> None:
    agent = subprocess.Popen(["true"])
    os.waitid(os.P_PID, agent.pid, os.WEXITED | os.WNOWAIT)
    cell._kill(agent)
    assert os.waitpid(agent.pid, 0)[0] == agent.pid
    agent.returncode = 0
