"""The watchdog: ends faults whose agent cannot, because it is dead or frozen.

An agent outside a cell leaves a *guard* in its state folder: who it is, where its journal lies, and which command
undoes what stands there. One watchdog per folder, a process of its own that no death of an agent touches, looks at all
guards. Whoever is past a deadline and has not ended the fault is frozen: it is killed, and the undo run. In a cell the
first process does the same with the same :class:`Leases`; its undo is to start the agent again.

Usage: ``python -m agents.watchdog --state-dir DIR`` (agents start it by :func:`ensure`; it ends with the last guard).
"""

import argparse
import contextlib
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from agents.kernel import stat_of

# A timer of a loaded agent may be late by the first; making a fault or undoing it may have to wait for a process that
# ends (10 s) and one that starts (60 s), unless the kernel shows it as stopped.
GRACE_SECONDS, CHANGE_SECONDS = 2.0, 90.0
LOOK_SECONDS = 0.25
JOURNAL = "journal.jsonl"
"""Name of an agent's journal in its state folder."""
UNDO_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 30.0
LOCK, GUARDS = "watchdog.lock", "*.guard.json"
ROOT = Path(__file__).resolve().parents[1]


class Leases:
    """The faults of a journal that are not over, and when they have to be; each look reads only what has been added.

    Args:
        journal: as :class:`agents.faults.FaultBook` writes it; need not exist yet.
    """

    def __init__(self, journal: Path) -> None:
        self._journal, self._read = journal, 0
        self._owed: dict[str, tuple[float, float]] = {}

    def _look(self) -> None:
        if not self._journal.exists():
            return
        with self._journal.open("rb") as stream:
            stream.seek(self._read)
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # still being written, or cut short by a crash
                self._read += len(line)
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
        elif fault["state"] == "failed" and "after" in fault["evidence"]:
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
        journal: its journal.
        undo: command that undoes every live fault of the journal; it must refuse while the agent is alive.
    """

    pid: int
    start_time: int
    boot: str
    journal: str
    undo: list[str]

    @classmethod
    def of_this_process(cls, journal: Path, undo: list[str]) -> "Guard":
        """The guard of the process that calls."""
        pid = os.getpid()
        _, start_time = stat_of(pid) or ("", 0)
        return cls(pid, start_time, _boot(), str(journal.resolve()), undo)

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
        """Of another version's guard, what this one knows.

        Raises:
            ValueError: it is none.
        """
        content = json.loads(text)
        try:
            return cls(**{each.name: content[each.name] for each in fields(cls)})
        except (LookupError, TypeError) as error:
            raise ValueError(f"no guard: {error!r}") from None

    def kill(self) -> None:
        """SIGKILL the agent, and no other process that may have its pid."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if self.alive():
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


def is_stopped(pid: int) -> bool:
    """Whether the kernel shows the process as stopped (SIGSTOP, a debugger)."""
    return (stat_of(pid) or ("X", 0))[0] in "Tt"


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def ensure(state_dir: Path) -> None:
    """Start a watchdog for ``state_dir`` unless one is there; to be called before every fault, for it may be killed."""
    with _locked(state_dir) as free:
        if not free:
            return
    with (state_dir / "watchdog.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "agents.watchdog", "--state-dir", str(state_dir)],
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
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._leases: dict[str, Leases] = {}
        self._pauses: dict[Path, tuple[float, float]] = {}
        self._undos: dict[Path, tuple[subprocess.Popen[bytes], float]] = {}

    def look(self) -> bool:
        """Look once at every guard, and wait for none; returns whether there is any left to look at."""
        for path in sorted(self._state_dir.glob(GUARDS)):
            try:
                self._guard(path, path.read_text(encoding="utf-8"))
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
        leases = self._leases.setdefault(guard.journal, Leases(Path(guard.journal)))
        alive = guard.alive()
        if path in self._undos and not self._undone(path, leases):
            return
        if alive:
            if overdue := leases.overdue(is_stopped(guard.pid)):
                _say(f"agent {guard.pid} has not ended {', '.join(overdue)}: killed")
                guard.kill()
            return
        if not leases.owed():
            if path.read_text(encoding="utf-8") == text:  # else the next agent has just come
                path.unlink()
            return
        if time.monotonic() < self._pauses.get(path, (0.0, 1.0))[0]:
            return
        _say(f"agent {guard.pid} is gone, with {', '.join(leases.owed())}: undoing by {' '.join(guard.undo)}")
        undo = subprocess.Popen(guard.undo, cwd=ROOT, stdin=subprocess.DEVNULL)
        self._undos[path] = undo, time.monotonic() + UNDO_SECONDS

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
            _say(f"not undone: {', '.join(left)} (status {undo.returncode}); next attempt in {pause:g} s")
            self._pauses[path] = (time.monotonic() + pause, min(2 * pause, LONGEST_PAUSE_SECONDS))
        else:
            _say("undone")
            self._pauses.pop(path, None)
        return True


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}", flush=True)


def main() -> int:
    """Entry point; 0 when nothing is left to guard, or another watchdog is there."""
    parser = argparse.ArgumentParser(prog="python -m agents.watchdog")
    parser.add_argument("--state-dir", type=Path, required=True, help="folder where agents leave their guards")
    state_dir = parser.parse_args().state_dir.resolve()
    if not state_dir.is_dir():
        parser.error(f"--state-dir {state_dir} is no folder; expected the --state-dir of an agent")
    watchdog = Watchdog(state_dir)
    while True:
        with _locked(state_dir) as free:
            if not free:
                return 0
            while watchdog.look():
                time.sleep(LOOK_SECONDS)
        # An agent that came in this moment has seen the lock taken and relies on us.
        if not any(state_dir.glob(GUARDS)):
            return 0


if __name__ == "__main__":
    sys.exit(main())
