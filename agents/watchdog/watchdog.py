"""The watchdog: ends faults whose agent cannot, because it is dead or frozen.

An agent outside a cell leaves a *guard* (:mod:`agents.watchdog.guard`) in its state folder: who it is, and which file
there is its journal. One watchdog per folder, a process of its own that no death of an agent touches, looks at all
guards. An agent that has missed a deadline counts as frozen: it is killed, and the undo runs. In a cell the
first process does the same with the same :class:`agents.core.leases.Leases`; its undo is to start the agent again.

What is run is a program of this package with ``--recover``, which no file can change. Agents start the watchdog by
:func:`ensure`; it ends with the last guard.
"""

import contextlib
import fcntl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from agents.core.kernel import is_stopped
from agents.core.leases import LOOK_SECONDS, Leases
from agents.watchdog.guard import GUARDS, Guard, private, read_own

UNDO_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 30.0
LOCK = "watchdog.lock"
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ("agents.gpu",)
"""The agent that a watchdog is for, as after ``python -m``."""


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

    def run(self) -> int:
        """Be the folder's watchdog; 0 when nothing is left to guard, or another one is there, 1 when the folder is not
        ours alone any more.
        """
        while True:
            with _locked(self._state_dir) as free:
                if not free:
                    return 0
                try:
                    while self.look():
                        time.sleep(LOOK_SECONDS)
                except PermissionError as error:
                    why = "nothing in it can be trusted; it is no longer guarded"
                    _say(f"{error.filename} {error.strerror}: {why}")
                    return 1
            # An agent that came in this moment has seen the lock taken and relies on us.
            if not any(self._state_dir.glob(GUARDS)):
                return 0

    def look(self) -> bool:
        """Look once at every guard, and wait for none; returns whether there is any left to look at.

        Raises:
            PermissionError: the folder is not ours alone any more.
        """
        private(self._state_dir)
        for path in sorted(self._state_dir.glob(GUARDS)):
            try:
                self._guard(path, read_own(self._state_dir, path.name))
            except FileNotFoundError:  # its agent has just ended as it should
                continue
            except ValueError as error:
                aside = path.with_suffix(".unreadable")
                _say(f"{path}: {error}; put aside as {aside.name}, its agent is not guarded until it writes another")
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
            if read_own(self._state_dir, path.name) == text:  # else the next agent has just come
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
