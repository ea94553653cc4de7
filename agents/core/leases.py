"""The leases of an agent as its journal shows them to its guards: what is not over, and what is overdue."""

import contextlib
import io
import json
import math
import os
import time
from pathlib import Path
from typing import Any

JOURNAL = "journal.jsonl"
"""Name of an agent's journal in its state folder."""
# A timer of a loaded agent may be late by the first; making a fault or undoing it may have to wait for a process that
# ends (10 s) and one that starts (60 s), unless the kernel shows it as stopped.
GRACE_SECONDS, CHANGE_SECONDS = 2.0, 90.0
LOOK_SECONDS = 0.25


class Leases:
    """The faults of a journal that are not over, and when they have to be; each look reads only what has been added.

    Args:
        journal: as :class:`agents.core.journal.Journal` writes it; need not exist yet.
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
