"""The watchdog: ends faults whose agent cannot, because it is dead or frozen.

An agent outside a cell leaves a *guard* in its state folder: who it is, and which file there is its journal. One
watchdog per folder, a process of its own that no death of an agent touches, looks at all guards. Whoever is past a
deadline and has not ended the fault is frozen: it is killed, and the undo run. In a cell the first process does the
same with the same :class:`Leases`; its undo is to start the agent again.

A watchdog may run as root. It kills and starts nothing for what somebody else could have put there: the folder has to
be its user's own and closed to all others (0700), a guard a plain file of that user, and what is run is a program of
this package with ``--recover``, which no file can change.

Usage: ``python -m agents.watchdog --state-dir DIR [--program MODULE]`` (agents start it by :func:`ensure`; it ends with
the last guard).
"""

import argparse
import contextlib
import fcntl
import io
import json
import math
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from agents.kernel import signal_process, stat_of

# A timer of a loaded agent may be late by the first; making a fault or undoing it may have to wait for a process that
# ends (10 s) and one that starts (60 s), unless the kernel shows it as stopped.
GRACE_SECONDS, CHANGE_SECONDS = 2.0, 90.0
LOOK_SECONDS = 0.25
JOURNAL = "journal.jsonl"
"""Name of an agent's journal in its state folder."""
UNDO_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 30.0
LOCK, GUARDS = "watchdog.lock", "*.guard.json"
ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ("agents.gpu_agent",)
"""The agent that a watchdog is for, as after ``python -m``."""


def private(folder: Path) -> None:
    """Make sure that nobody else can put anything into a folder, or put another one in its place.

    Raises:
        PermissionError: it is no folder (a link is none), belongs to another user, or is not closed to all others.
    """
    seen = folder.lstat()
    if not stat.S_ISDIR(seen.st_mode):
        why = "is no folder"
    elif seen.st_uid != os.geteuid():
        why = f"belongs to user {seen.st_uid}, not to {os.geteuid()}"
    elif seen.st_mode & 0o077:
        why = f"has mode {seen.st_mode & 0o777:04o}; expected 0700: chmod 0700 {folder}"
    else:
        return
    raise PermissionError(0, why, str(folder))


def _read_own(folder: Path, name: str) -> str:
    """The text of a plain file of this user in a private folder; never that of what a link leads to.

    Raises:
        FileNotFoundError: there is none any more.
        ValueError: it is no such file, or not in UTF-8.
    """
    try:
        handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"no file of its own: {error.strerror}") from None
    try:
        seen = os.fstat(handle)
        if not stat.S_ISREG(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
            raise ValueError(f"no file of its own: user {seen.st_uid}, mode {seen.st_mode & 0o777:04o}")
        with open(handle, encoding="utf-8", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(handle)


class Leases:
    """The faults of a journal that are not over, and when they have to be; each look reads only what has been added.

    Args:
        journal: as :class:`agents.faults.FaultBook` writes it; need not exist yet.
    """

    def __init__(self, journal: Path) -> None:
        self._journal, self._read = journal, 0
        self._stream: io.FileIO | None = None
        self._owed: dict[str, tuple[float, float]] = {}

    def _look(self) -> None:
        try:
            now = self._journal.stat()
            if self._stream is None or not os.path.samestat(os.fstat(self._stream.fileno()), now):
                # Kept open from then on: a closed file's inode may come back as that of the next journal but one,
                # which would pass for this one.
                self._stream, self._read = io.FileIO(self._journal), 0
                self._owed.clear()
        except FileNotFoundError:
            return
        self._stream.seek(self._read)
        # What follows the last end of a line is still being written, or cut short by a crash.
        *lines, _ = self._stream.readall().split(b"\n")
        for line in lines:
            self._read += len(line) + 1
            # What an agent of another version has written may be of another shape.
            with contextlib.suppress(ValueError, LookupError, TypeError):
                self._note(json.loads(line))

    def _note(self, fault: dict[str, Any]) -> None:
        latest = fault["deadline"] + GRACE_SECONDS
        if fault["state"] == "active":
            self._owed[fault["id"]] = latest, latest
        elif fault["state"] in ("pending", "recovering"):
            changed = fault["history"][-1]["at"] + CHANGE_SECONDS
            self._owed[fault["id"]] = changed, min(latest, changed)
        elif fault["state"] == "failed" and fault.get("owed", "after" in fault["evidence"]):
            self._owed[fault["id"]] = math.inf, math.inf  # a living agent tries again by itself
        else:
            self._owed.pop(fault["id"], None)

    def owed(self) -> list[str]:
        """Ids of the faults that are not over, or whose undo has failed."""
        self._look()
        return list(self._owed)

    def overdue(self, stopped: bool = False) -> list[str]:
        """Ids of the faults that a living agent would have ended by now.

        Args:
            stopped: the kernel shows the agent as stopped, so that it is not busy making or undoing a fault.
        """
        self._look()
        return [fault for fault, latest in self._owed.items() if time.monotonic() > latest[stopped]]


@dataclass(frozen=True)
class Guard:
    """One agent outside a cell, as it has left it in ``NAME.guard.json``.

    Attributes:
        pid: of the agent, with its ``start_time`` (clock ticks since boot) and the machine's ``boot`` id.
        journal: name of its journal, which lies beside the guard.
    """

    pid: int
    start_time: int
    boot: str
    journal: str = JOURNAL

    @classmethod
    def of_this_process(cls) -> "Guard":
        """The guard of the process that calls."""
        pid = os.getpid()
        _, start_time = stat_of(pid) or ("", 0)
        return cls(pid, start_time, _boot())

    def write(self, path: Path) -> None:
        """Put it in its place, whole or not at all."""
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(self)), encoding="utf-8")
        draft.replace(path)

    def alive(self) -> bool:
        """Whether the agent lives, frozen or not."""
        state, start_time = stat_of(self.pid) or ("X", 0)
        return state not in "ZX" and (self.boot, self.start_time) == (_boot(), start_time)

    @classmethod
    def parse(cls, text: str) -> "Guard":
        """Of another version's guard, what this one knows; of a journal's path, which older ones had, the name.

        Raises:
            ValueError: it is none.
        """
        content = json.loads(text)
        try:
            guard = cls(**{each.name: content[each.name] for each in fields(cls)})
        except (LookupError, TypeError) as error:
            raise ValueError(f"no guard: {error!r}") from None
        sound = all(isinstance(each, int) and each > 0 for each in (guard.pid, guard.start_time))
        if not sound or not isinstance(guard.boot, str) or not isinstance(guard.journal, str):
            raise ValueError(f"no guard: {guard!r}")
        return replace(guard, journal=Path(guard.journal).name)

    def kill(self) -> None:
        """SIGKILL the agent, and no other process that may have its pid."""
        if self.boot == _boot():
            signal_process(self.pid, self.start_time, signal.SIGKILL)


def is_stopped(pid: int) -> bool:
    """Whether the kernel shows the process as stopped (SIGSTOP, a debugger)."""
    return (stat_of(pid) or ("X", 0))[0] in "Tt"


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def ensure(state_dir: Path, program: Sequence[str] = PROGRAM) -> None:
    """Start a watchdog for ``state_dir`` unless one is there; to be called before every fault, for it may be killed.

    Args:
        program: what undoes, as after ``python -m``; it must refuse while the agent is alive.

    Raises:
        PermissionError: others could leave something in the folder.
    """
    private(state_dir)
    with _locked(state_dir) as free:
        if not free:
            return
    with (state_dir / "watchdog.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "agents.watchdog", f"--state-dir={state_dir}", f"--program={' '.join(program)}"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # whoever ends the agent's session does not mean the watchdog
        )


@contextlib.contextmanager
def _locked(state_dir: Path) -> Iterator[bool]:
    with (state_dir / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


class Watchdog:
    """Looks at the guards of one folder, and helps where an agent cannot.

    Args:
        state_dir: where agents leave their guards.
        undo: returns the command that undoes what stands in the journal of the agent with this guard.
    """

    def __init__(self, state_dir: Path, undo: Callable[[Path], list[str]]) -> None:
        self._state_dir, self._undo = state_dir, undo
        self._leases: dict[str, Leases] = {}
        self._pauses: dict[Path, tuple[float, float]] = {}
        self._undos: dict[Path, tuple[subprocess.Popen[bytes], float]] = {}
        self._attempts: dict[Path, int] = {}

    def look(self) -> bool:
        """Look once at every guard, and wait for none; returns whether there is any left to look at.

        Raises:
            PermissionError: the folder is not ours alone any more.
        """
        private(self._state_dir)
        for path in sorted(self._state_dir.glob(GUARDS)):
            try:
                self._guard(path, _read_own(self._state_dir, path.name))
            except FileNotFoundError:  # its agent has just ended as it should
                continue
            except ValueError as error:
                aside = path.with_suffix(".unreadable")
                _say(f"{path}: {error}; put aside as {aside.name}, its agent is not guarded until it leaves another")
                path.replace(aside)
            except OSError as error:
                _say(f"{path}: {error}")
        return any(self._state_dir.glob(GUARDS))

    def _guard(self, path: Path, text: str) -> None:
        guard = Guard.parse(text)
        leases = self._leases.setdefault(guard.journal, Leases(self._state_dir / guard.journal))
        alive = guard.alive()
        if path in self._undos and not self._undone(path, leases):
            return
        if alive:
            if overdue := leases.overdue(is_stopped(guard.pid)):
                _say(f"agent {guard.pid} has not ended {', '.join(overdue)}: killed")
                guard.kill()
            return
        if not leases.owed():
            if _read_own(self._state_dir, path.name) == text:  # else the next agent has just come
                path.unlink()
            return
        if time.monotonic() < self._pauses.get(path, (0.0, 1.0))[0]:
            return
        command = self._undo(path)
        self._attempts[path] = self._attempts.get(path, 0) + 1
        output = None
        if self._is_told(path):
            _say(f"agent {guard.pid} is gone, with {', '.join(leases.owed())}: undoing by {' '.join(command)}")
        else:
            output = subprocess.DEVNULL
        undo = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._undos[path] = undo, time.monotonic() + UNDO_SECONDS

    def _is_told(self, path: Path) -> bool:
        """Of attempts that go on for a year the log has the first, second, fourth, eighth and so on."""
        return self._attempts[path].bit_count() == 1

    def _undone(self, path: Path, leases: Leases) -> bool:
        """Whether the undo that was begun for a guard has ended, well or not."""
        undo, latest = self._undos[path]
        if undo.poll() is None:
            if time.monotonic() < latest:
                return False
            undo.kill()
            undo.wait()
        del self._undos[path]
        if left := leases.owed():
            pause = self._pauses.get(path, (0.0, 1.0))[1]
            if self._is_told(path):
                number = self._attempts[path]
                again = f"next attempt in {pause:g} s"
                _say(f"not undone by attempt {number}: {', '.join(left)} (status {undo.returncode}); {again}")
            self._pauses[path] = (time.monotonic() + pause, min(2 * pause, LONGEST_PAUSE_SECONDS))
        else:
            _say("undone")
            self._pauses.pop(path, None)
            self._attempts.pop(path, None)
        return True


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}", flush=True)


def main() -> int:
    """Entry point; 0 when nothing is left to guard, or another watchdog is there, 1 when the folder is not ours alone
    any more.
    """
    parser = argparse.ArgumentParser(prog="python -m agents.watchdog")
    parser.add_argument("--state-dir", type=Path, required=True, help="folder where agents leave their guards")
    parser.add_argument("--program", default=" ".join(PROGRAM), help="what undoes, as after `python -m`")
    options = parser.parse_args()
    state_dir = options.state_dir.resolve()
    command = [sys.executable, "-m", *options.program.split(), "--recover", f"--state-dir={state_dir}"]
    watchdog = Watchdog(state_dir, lambda _: command)
    try:
        private(state_dir)
    except OSError as error:
        parser.error(f"--state-dir {state_dir}: {error.strerror}; expected the --state-dir of an agent")
    while True:
        with _locked(state_dir) as free:
            if not free:
                return 0
            try:
                while watchdog.look():
                    time.sleep(LOOK_SECONDS)
            except PermissionError as error:
                _say(f"{error.filename} {error.strerror}: nothing there is to be believed, it is not guarded any more")
                return 1
        # An agent that came in this moment has seen the lock taken and relies on us.
        if not any(state_dir.glob(GUARDS)):
            return 0


if __name__ == "__main__":
    sys.exit(main())
