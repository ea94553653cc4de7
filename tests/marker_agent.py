"""An agent outside a cell that is as small as can be: its only fault is a file that exists. For tests of the watchdog.

Usage: ``python -m tests.marker_agent --state-dir DIR --seconds N`` makes the fault and stays; ``--recover`` undoes it.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from agents.core.book import FaultBook
from agents.core.faults import Fault, Plan, Type
from agents.core.journal import JournalInUse
from agents.core.leases import JOURNAL
from agents.watchdog.guard import Guard
from agents.watchdog.watchdog import ensure


class MarkerDriver:
    """The file ``marker`` in the state folder."""

    kind, types = "marker", (Type("file"),)

    def __init__(self, state_dir: Path) -> None:
        self._marker = state_dir / "marker"

    def plan(self, body: dict[str, Any]) -> Plan:
        return Plan("marker", "file", ["here"], [str(self._marker)], {})

    async def snapshot(self, fault: Fault) -> dict[str, Any]:
        return {"marked": self._marker.exists()}

    async def apply(self, fault: Fault) -> None:
        self._marker.touch()

    async def undo(self, fault: Fault) -> None:
        self._marker.unlink(missing_ok=True)

    def differences(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        return [] if before == after else [f"{before} became {after}"]

    def capabilities(self) -> dict[str, dict[str, Any]]:
        return {"marker.file": {"available": True, "detail": "a file"}}


async def work(state_dir: Path, seconds: float | None) -> None:
    book = FaultBook(state_dir / JOURNAL, [MarkerDriver(state_dir)])
    book.replay()
    if seconds is None:
        await book.recover_all()
        return
    Guard.of_this_process().write(state_dir / "marker.guard.json")
    ensure(state_dir, ["tests.marker_agent"])
    await book.inject({"kind": "marker", "type": "file", "duration_seconds": seconds})
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--recover", action="store_true")
    options = parser.parse_args()
    try:
        asyncio.run(work(options.state_dir, None if options.recover else options.seconds))
    except JournalInUse as error:
        sys.exit(str(error))
