"""Memory and file descriptors of the suite's own processes while a load goes on."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from support import clock
from support.clock import now

PERIOD_SECONDS = 1.0
_MIB = 1024 * 1024


class FootprintRecorder:
    """Looks at some processes once a second, from its making until :meth:`close`.

    Args:
        pids: returns name -> pid of the processes there are now, asked once.
        ended: whether the load has ended, and its clients with it: nobody is looked at any more.
        file: gets a JSON line per look at a process.
    """

    def __init__(self, pids: Callable[[], Mapping[str, int]], file: Path, ended: Callable[[], bool]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids().items()}
        self._file, self._ended, self._over = file, ended, clock.event()
        self.samples: list[dict[str, Any]] = []
        self._thread = clock.thread(self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(PERIOD_SECONDS):
            seen = [{"at": now(), "process": name} | _look(process) for name, process in self._processes.items()]
            if self._ended():
                return
            self.samples += seen

    def close(self) -> list[dict[str, Any]]:
        """The looks: ``at``, ``process``, ``rss_mib`` and ``fds``, both None for a process that is gone."""
        self._over.set()
        self._thread.join()
        self._file.write_text("".join(f"{json.dumps(each)}\n" for each in self.samples), encoding="utf-8")
        return self.samples


def _look(process: psutil.Process) -> dict[str, Any]:
    try:
        return {"rss_mib": round(process.memory_info().rss / _MIB, 2), "fds": process.num_fds()}
    except psutil.NoSuchProcess:
        return {"rss_mib": None, "fds": None}
