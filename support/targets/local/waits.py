"""Who could have run and did not: times in which processes of a cell waited for a processor.

A deadline that is missed while Dynamo or the suite itself was kept waiting for a processor says something about the
machine, not about Dynamo. Looks and never touches.
"""

import contextlib
import json
import os
import threading
from dataclasses import asdict
from pathlib import Path

import psutil

from support import slowness
from support.clock import now
from support.contract.target import Wait
from support.judge.history import LEAST_SECONDS

PERIOD_SECONDS = 0.25


class StarvationRecorder:
    """Looks at every thread below a process every :data:`PERIOD_SECONDS`, from its making until :meth:`close`.

    Args:
        root: pid of a process; its descendants are looked at.
        path: file that gets each wait as a JSON line.
    """

    def __init__(self, root: int, path: Path) -> None:
        self._root, self._path = root, path
        self._waits: list[Wait] = []
        self._before: dict[tuple[int, str], float] = {}
        self._looked_at = now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="starvation", daemon=True)
        self._thread.start()

    def close(self) -> list[Wait]:
        """Look once more; returns all waits, oldest first."""
        self._over.set()
        self._thread.join()
        self._look()
        return self._waits

    def _run(self) -> None:
        while not self._over.wait(PERIOD_SECONDS):
            self._look()

    def _look(self) -> None:
        since, self._looked_at = self._looked_at, now()
        known = len(self._waits)
        seen: dict[tuple[int, str], float] = {}
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self._root).children(recursive=True):
                longest = 0.0
                for thread, waited in _waited(process.pid).items():
                    key = process.pid, thread
                    seen[key] = waited
                    # What a thread waited before it was first seen may be long ago.
                    longest = max(longest, waited - self._before.get(key, waited))
                if longest >= LEAST_SECONDS:
                    with contextlib.suppress(psutil.Error):
                        self._waits.append(Wait(since, self._looked_at, _name(process), longest))
        self._before = seen
        with self._path.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(asdict(wait)) + "\n" for wait in self._waits[known:])


def _name(process: psutil.Process) -> str:
    """Its node; of the suite's own its module: ``behave (pid 4)``."""
    words = process.cmdline()
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else process.name()
    return f"{process.environ().get('FT_NODE', '').rpartition(':')[2] or module} (pid {process.pid})"


def _waited(pid: int) -> dict[str, float]:
    """Thread -> seconds that it has waited for a processor since its start; of a process that is gone nothing."""
    found = {}
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # many, four times a second: pathlib takes twice as long
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/schedstat", "rb", buffering=0) as file:
                found[thread] = slowness.parse(file.read().decode("ascii"))[1]
    return found
