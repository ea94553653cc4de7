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
from agents.core import kernel
from agents.core.book import FaultBook
from agents.core.journal import JournalInUse, read_journal
from agents.core.leases import JOURNAL, Leases
from agents.watchdog import watchdog
from agents.watchdog.guard import Guard
from agents.watchdog.watchdog import LOCK, Watchdog, ensure
from support.observe.waiting import until
from support.settings import ROOT
from support.signals import send_while
from tests.marker_agent import MarkerDriver
from tests.patience import PATIENCE

Start = Callable[[float], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the marker agent with a fault of so many seconds; returns once the fault is there."""
    agents: list[subprocess.Popen[bytes]] = []

    def run(seconds: float) -> "subprocess.Popen[bytes]":
        argv = [sys.executable, "-m", "tests.marker_agent", "--state-dir", str(tmp_path), "--seconds", str(seconds)]
        agents.append(subprocess.Popen(argv, cwd=ROOT))
        # One that lasts for seconds may be over before we look.
        made = (["active"], ["recovering"], ["recovered"])
        until(lambda: None if states(tmp_path) in made else str(states(tmp_path)), PATIENCE, "the fault was made")
        return agents[-1]

    yield run
    for agent in agents:
        agent.kill()
        agent.wait()
    until(lambda: None if not watchdogs(tmp_path) else str(watchdogs(tmp_path)), PATIENCE, "the watchdog has ended")


def states(folder: Path) -> list[str]:
    return [fault.state for fault in read_journal(folder / JOURNAL).values()]


def watchdogs(folder: Path) -> list[int]:
    """Pids of the watchdogs of this very folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "agents.watchdog" in words and f"--state-dir={folder}" in words:
            found.append(process.pid)
    return found


def gone(folder: Path) -> str | None:
    return "the marker is there" if (folder / "marker").exists() else None


def test_fault_of_a_killed_agent_is_undone_at_once(start: Start, tmp_path: Path) -> None:
    agent = start(600)
    assert gone(tmp_path)
    agent.kill()
    agent.wait()
    until(lambda: gone(tmp_path), PATIENCE, "the fault has ended")
    until(lambda: None if states(tmp_path) == ["recovered"] else str(states(tmp_path)), PATIENCE, "the journal says so")


def test_frozen_agent_is_killed_at_the_deadline_and_its_fault_undone(start: Start, tmp_path: Path) -> None:
    agent = start(6)  # it has to be there still when the agent is frozen
    agent.send_signal(signal.SIGSTOP)
    until(lambda: gone(tmp_path), PATIENCE, "the fault has ended")
    assert agent.wait(PATIENCE) == -signal.SIGKILL
    until(lambda: None if states(tmp_path) == ["recovered"] else str(states(tmp_path)), PATIENCE, "the journal says so")


def test_agent_that_does_its_work_is_left_alone(start: Start, tmp_path: Path) -> None:
    agent = start(1)
    until(lambda: gone(tmp_path), PATIENCE, "the fault has ended")
    until(lambda: None if states(tmp_path) == ["recovered"] else str(states(tmp_path)), PATIENCE, "the journal says so")
    assert agent.poll() is None
    assert len(watchdogs(tmp_path)) == 1


def test_killed_watchdog_is_replaced_by_one(start: Start, tmp_path: Path) -> None:
    start(600)
    [first] = watchdogs(tmp_path)
    os.kill(first, signal.SIGKILL)
    until(lambda: None if first not in watchdogs(tmp_path) else "alive", PATIENCE, "the first watchdog is gone")
    for _ in range(3):
        ensure(tmp_path, ["tests.marker_agent"])

    def one() -> str | None:
        with (tmp_path / LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None if len(watchdogs(tmp_path)) == 1 else str(watchdogs(tmp_path))
        return "nobody holds the lock"

    until(one, PATIENCE, "one watchdog looks after the folder")


def test_another_process_with_the_agents_pid_is_spared(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        guard = Guard(bystander.pid, 1, kernel.boot_id())
        assert not guard.alive()
        guard.kill()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_journal_has_one_writer(tmp_path: Path) -> None:
    asyncio.run(_two_writers(tmp_path))


async def _two_writers(tmp_path: Path) -> None:
    book = FaultBook(tmp_path / JOURNAL, [MarkerDriver(tmp_path)])
    await book.inject({"kind": "marker", "type": "file", "duration_seconds": 60})
    with pytest.raises(JournalInUse, match=JOURNAL):
        FaultBook(tmp_path / JOURNAL, [MarkerDriver(tmp_path)]).replay()
    await book.recover_all()


def test_leases_follow_the_journal_line_by_line(tmp_path: Path) -> None:
    asyncio.run(_follow(tmp_path))


async def _follow(tmp_path: Path) -> None:
    leases = Leases(tmp_path / JOURNAL)
    assert leases.owed() == []
    book = FaultBook(tmp_path / JOURNAL, [MarkerDriver(tmp_path)])
    fault = await book.inject({"kind": "marker", "type": "file", "duration_seconds": 60})
    assert leases.owed() == [fault.id]
    assert leases.overdue() == []
    fault.deadline = time.monotonic() - 60
    book._write(fault)
    assert leases.overdue() == [fault.id]
    with (tmp_path / JOURNAL).open("a") as stream:
        stream.write('{"id": "half a li')
    assert leases.overdue() == [fault.id]
    book.journal.hold().close()  # as the kernel does at the end of its process
    heir = FaultBook(tmp_path / JOURNAL, [MarkerDriver(tmp_path)])
    heir.replay()
    await heir.recover_all()
    assert leases.owed() == []
    assert read_journal(tmp_path / JOURNAL)[fault.id].state == "recovered"


def gone_agent(folder: Path, name: str) -> Path:
    """The guard of an agent that is gone and has left a live fault; returns its path."""
    journal = folder / f"{name}.jsonl"
    fault = {"id": f"f-{name}", "state": "active", "deadline": 0.0, "evidence": {}, "history": []}
    journal.write_text(json.dumps(fault) + "\n")
    path = folder / f"{name}.guard.json"
    Guard(os.getpid(), 1, "another boot", journal.name).write(path)
    return path


def undo(guard: Path) -> list[str]:
    """A command that undoes what this agent has left; that of ``a`` hangs."""
    name = guard.name.partition(".")[0]
    over = json.dumps({"id": f"f-{name}", "state": "recovered", "deadline": 0.0, "evidence": {}, "history": []})
    return ["sleep", "600"] if name == "a" else ["sh", "-c", f"echo '{over}' >> {guard.parent / name}.jsonl"]


def test_an_undo_that_hangs_delays_no_other(tmp_path: Path) -> None:
    gone_agent(tmp_path, "a")
    gone_agent(tmp_path, "b")
    dog, began = Watchdog(tmp_path, undo), time.monotonic()

    def undone() -> str | None:
        dog.look()
        return "the guard is there" if (tmp_path / "b.guard.json").exists() else None

    try:
        until(undone, PATIENCE, "the other fault is undone")
        assert (tmp_path / "a.guard.json").exists()
        assert time.monotonic() - began < watchdog.UNDO_SECONDS
    finally:
        for command, _ in dog._undos.values():
            command.kill()
            command.wait()


def test_a_guard_that_cannot_be_read_is_put_aside_and_the_others_are_seen_to(tmp_path: Path) -> None:
    (tmp_path / "a.guard.json").write_text('{"pid": 1}')
    newer = gone_agent(tmp_path, "b")
    newer.write_text(json.dumps(json.loads(newer.read_text()) | {"of_a_newer_version": True}))
    dog = Watchdog(tmp_path, undo)
    until(lambda: "guards are left" if dog.look() else None, PATIENCE, "all guards are seen to")
    assert [path.name for path in tmp_path.glob("a.guard*")] == ["a.guard.unreadable"]


def test_a_journal_of_a_newer_version_is_taken_up(tmp_path: Path) -> None:
    asyncio.run(_newer(tmp_path))


async def _newer(tmp_path: Path) -> None:
    book = FaultBook(tmp_path / JOURNAL, [MarkerDriver(tmp_path)])
    fault = await book.inject({"kind": "marker", "type": "file", "duration_seconds": 60})
    book.journal.hold().close()
    lines = [json.loads(line) | {"of_a_newer_version": 1} for line in (tmp_path / JOURNAL).read_text().splitlines()]
    (tmp_path / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
    heir = FaultBook(tmp_path / JOURNAL, [MarkerDriver(tmp_path)])
    await heir.end_journal()
    assert (heir.get(fault.id).state, (tmp_path / "marker").exists()) == ("recovered", False)


def test_a_journal_written_anew_twice_between_two_looks_is_read_from_its_start(tmp_path: Path) -> None:
    """A file system gives the inode of a removed file to the next one, where nothing holds it."""

    def line(number: int, state: str) -> str:
        return json.dumps({"id": f"f-{number}", "state": state, "deadline": 0.0, "history": [], "evidence": {}}) + "\n"

    journal, draft = tmp_path / JOURNAL, tmp_path / "draft"

    def replace(text: str) -> int:
        draft.write_text(text)
        draft.replace(journal)
        return journal.stat().st_ino

    journal.write_text(line(1, "active"))
    leases = Leases(journal)
    assert leases.owed() == ["f-1"]
    inodes = [journal.stat().st_ino] + [replace(line(1, "active")) for _ in range(20)]
    replace(line(1, "recovered"))
    assert leases.owed() == []
    assert inodes[0] not in [*inodes[1:], journal.stat().st_ino]


def test_an_agent_that_is_stopped_while_it_makes_a_fault_is_overdue_at_the_deadline(tmp_path: Path) -> None:
    moment = time.monotonic()
    fault = {"id": "f-1", "state": "pending", "deadline": moment - 3, "history": [{"at": moment - 5}]}
    (tmp_path / JOURNAL).write_text(json.dumps(fault) + "\n")
    leases = Leases(tmp_path / JOURNAL)
    assert (leases.overdue(), leases.overdue(stopped=True)) == ([], ["f-1"])


def test_the_death_of_an_agent_is_not_hidden_from_the_first_process_of_its_cell() -> None:
    agent = subprocess.Popen(["true"])
    os.waitid(os.P_PID, agent.pid, os.WEXITED | os.WNOWAIT)
    handle = os.pidfd_open(agent.pid)
    cell._kill(handle)
    assert os.waitpid(agent.pid, 0)[0] == agent.pid
    agent.returncode = 0
    cell._kill(handle)  # its pid may be another's by now
    os.close(handle)


# -- whom it believes


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_is_open_to_others_is_not_guarded(tmp_path: Path, mode: int) -> None:
    marker, guard = tmp_path / "marker", gone_agent(tmp_path, "b")
    tmp_path.chmod(mode)
    dog = Watchdog(tmp_path, lambda _: ["touch", str(marker)])
    with pytest.raises(PermissionError, match=f"{mode:04o}; expected 0700"):
        dog.look()
    with pytest.raises(PermissionError):
        ensure(tmp_path)
    argv = [sys.executable, "-m", "agents.watchdog", f"--state-dir={tmp_path}"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "expected 0700" in done.stderr) == (2, True)
    assert (marker.exists(), guard.exists()) == (False, True)


def test_a_folder_that_is_opened_to_others_later_is_believed_no_more(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    dog = Watchdog(tmp_path, lambda _: ["touch", str(marker)])
    assert not dog.look()
    gone_agent(tmp_path, "b")
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError):
        dog.look()
    assert not marker.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a folder of somebody else's")
def test_a_folder_or_guard_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    marker, guard = tmp_path / "marker", gone_agent(tmp_path, "b")
    dog = Watchdog(tmp_path, lambda _: ["touch", str(marker)])
    os.chown(guard, 65534, 65534)
    assert not dog.look()
    assert [path.name for path in tmp_path.glob("b.guard*")] == ["b.guard.unreadable"]
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(PermissionError, match="belongs to user 65534"):
        dog.look()
    assert not marker.exists()


@pytest.mark.parametrize("how", ["link", "writable", "folder"])
def test_a_guard_that_is_no_file_of_our_own_is_put_aside(tmp_path: Path, how: str) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "state"
    for each in (elsewhere, folder):
        each.mkdir(mode=0o700)
    marker, path = tmp_path / "marker", folder / "b.guard.json"
    if how == "link":
        path.symlink_to(gone_agent(elsewhere, "b"))
    elif how == "writable":
        gone_agent(folder, "b").chmod(0o666)
    else:
        path.mkdir()
    live = {"id": "f-b", "state": "active", "deadline": 0.0, "evidence": {}, "history": []}
    (folder / "b.jsonl").write_text(json.dumps(live) + "\n")
    dog = Watchdog(folder, lambda _: ["touch", str(marker)])
    assert not dog.look()
    assert ([each.name for each in folder.glob("b.guard*")], marker.exists()) == (["b.guard.unreadable"], False)


def test_a_link_to_a_folder_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "state")
    with pytest.raises(PermissionError, match="is not a folder"):
        Watchdog(tmp_path / "link", undo).look()


def test_no_command_and_no_journal_elsewhere_is_taken_from_a_guard(tmp_path: Path) -> None:
    folder, elsewhere, marker = tmp_path / "state", tmp_path / "elsewhere", tmp_path / "marker"
    for each in (folder, elsewhere):
        each.mkdir(mode=0o700)
    gone_agent(elsewhere, "b")
    # As an older version wrote it.
    old = {"pid": os.getpid(), "start_time": 1, "boot": "another boot", "undo": ["touch", str(marker)]}
    (folder / "b.guard.json").write_text(json.dumps(old | {"journal": str(elsewhere / "b.jsonl")}))
    (folder / "c.guard.json").write_text(json.dumps(old | {"journal": str(gone_agent(folder, "c").parent / "c.jsonl")}))
    ran: list[Path] = []

    def command(guard: Path) -> list[str]:
        ran.append(guard)
        return undo(guard)

    dog = Watchdog(folder, command)
    until(lambda: "guards are left" if dog.look() else None, PATIENCE, "all guards are seen to")
    assert ([each.name for each in ran], marker.exists()) == (["c.guard.json"], False)


def test_attempts_that_go_on_for_ever_do_not_fill_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    gone_agent(tmp_path, "b")
    monkeypatch.setattr(watchdog, "LONGEST_PAUSE_SECONDS", 0.0)
    dog = Watchdog(tmp_path, lambda _: ["printf", r"\167\157\162\144"])

    def enough() -> str | None:
        dog._pauses.clear()
        dog.look()
        done = sum(dog._attempts.values())
        return None if done > 64 else f"{done} attempts"

    until(enough, 60, "64 attempts are made", period=0.001)
    said = capfd.readouterr().out
    assert said.count("undoing by") == said.count("not undone by attempt") == said.count("word") == 7


def test_the_agent_closes_its_folder_and_refuses_one_that_others_may_write_to(tmp_path: Path) -> None:
    state = tmp_path / "state"
    argv = [sys.executable, "-m", "tests.fake_gpu", "agent", "--recover", f"--state-dir={state}"]
    env = os.environ | {"FAKE_GPU": str(tmp_path)}
    state.mkdir(mode=0o755)
    assert subprocess.run(argv, cwd=ROOT, env=env, timeout=60).returncode == 0
    assert state.stat().st_mode & 0o777 == 0o700
    state.chmod(0o777)
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "expected 0700" in done.stderr) == (2, True)


# -- signals


def test_a_signal_goes_to_the_process_that_is_meant_or_to_nobody() -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        found = kernel.stat_of(bystander.pid)
        assert found
        assert not kernel.signal_process(bystander.pid, found[1] + 1, signal.SIGKILL)
        assert not send_while(bystander.pid, lambda: False, signal.SIGKILL)
        assert bystander.poll() is None
        assert kernel.signal_process(bystander.pid, found[1], signal.SIGKILL)
        assert bystander.wait(20) == -signal.SIGKILL
        assert not kernel.signal_process(bystander.pid, found[1], signal.SIGKILL)
        assert not send_while(bystander.pid, lambda: True, signal.SIGKILL)
    finally:
        bystander.kill()
        bystander.wait()


def test_whoever_takes_over_a_pid_while_it_is_looked_at_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (subprocess.Popen(["sleep", "600"]) for _ in range(2))
    try:
        found = kernel.stat_of(first.pid)
        assert found
        opened, sent = os.pidfd_open, []
        # The pid is opened when it is another's already; its start time is looked at as if it were the first one's.
        monkeypatch.setattr(os, "pidfd_open", lambda _: opened(second.pid))
        monkeypatch.setattr(signal, "pidfd_send_signal", lambda handle, number: sent.append(number))
        monkeypatch.setattr(kernel, "stat_of", lambda pid: ("S", found[1] + 1))
        assert not kernel.signal_process(first.pid, found[1], signal.SIGKILL)
        assert sent == []
    finally:
        for each in (first, second):
            each.kill()
            each.wait()


def test_nothing_of_the_suite_signals_by_a_mere_pid() -> None:
    """Popen's own methods and killpg of an own child that nobody else waits for are safe; os.kill is not."""
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for folder in ("agents", "support", "steps")
        for file in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if "os.kill(" in line
    ]
    assert found == []
