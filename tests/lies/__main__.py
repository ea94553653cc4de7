"""``python -m tests.lies [--kind GLOB] [--lie GLOB] [--jobs N] [--out FILE]``: play the table; exit 1 when a lie
passes, is blamed on Dynamo, is not told, or is caught for another reason than its own; or when honesty does not pass.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from agents.core import scratch
from agents.core.forks import use_files
from agents.core.kernel import die_with_parent
from agents.sabotage import marks
from support.report.runs import write_json
from support.run import cells
from support.settings import ROOT
from tests.lies import HONEST, LIES, Row, Way, impossible, rows, ways
from tests.scenarios import MARKS

# Proofs are waited for up to 15 s, ten times as long on a machine that is far too busy.
LONGEST_SECONDS = 400.0
POLL_SECONDS = 0.05
ENDING = {signal.SIGINT, signal.SIGTERM}
"""Blocked, and asked for: what a handler raises while this process forks Python ignores."""
CAUGHT, HONEST_PASSED, IMPOSSIBLE = "caught", "passed", "not possible"


@dataclass
class Square:
    """One cell of the table, and what came of it."""

    row: Row
    lie: str
    number: int
    way: Way
    outcome: dict[str, Any]
    folder: Path = Path()
    running: cells.Cell | None = None
    since: float = 0.0

    @property
    def name(self) -> str:
        """In words, for the table."""
        unnoticed = "" if self.way.noticed else ", unnoticed"
        return f"{self.row.name:<34} {self.lie:<22} {self.way.sabotage}{unnoticed}"

    @property
    def result(self) -> str:
        """:data:`CAUGHT`, or how the lie got through."""
        verdict, reason = str(self.outcome.get("verdict", "no verdict")), str(self.outcome.get("reason", ""))
        if self.lie == HONEST:
            return HONEST_PASSED if verdict == "passed" else f"HONESTY IS {verdict}"
        if verdict != "inconclusive":
            return {"passed": "PASSED", "failed": "BLAMED ON DYNAMO"}.get(verdict, verdict.upper())
        if not self.outcome["lied"]:
            return "NOT TOLD"
        return CAUGHT if re.search(self.way.seen, reason) else "CAUGHT FOR ANOTHER REASON"

    @property
    def good(self) -> bool:
        """Whether it came out as it has to."""
        return self.result in (CAUGHT, HONEST_PASSED)

    def start(self, folder: Path) -> None:
        """Begin to play it, in a cell."""
        self.folder, self.since = folder, time.monotonic()
        folder.mkdir()
        arguments = [self.row.name, self.lie, str(self.number), str(folder)]
        self.running = cells.Cell("tests.lies.trial", arguments, "on", self._prepare)

    def _prepare(self) -> None:
        die_with_parent()
        os.setpgid(0, 0)
        os.environ["FT_SABOTAGE"] = "" if self.way.sabotage.startswith("list=") else self.way.sabotage
        os.environ[marks.VARIABLE] = str(self.folder / MARKS)
        console = os.open(self.folder / "console.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        use_files(os.open(os.devnull, os.O_RDONLY), console)

    def over(self) -> bool:
        """Whether it has ended; one that takes too long is ended."""
        assert self.running is not None
        if self.running.poll() is None:
            if time.monotonic() > self.since + LONGEST_SECONDS:
                self.end()
            return False
        file = self.folder / "outcome.json"
        console = self.folder / "console.txt"
        said = console.read_text(errors="replace")[-2000:] if console.exists() else ""
        self.outcome = json.loads(file.read_text()) if file.exists() else {"reason": said, "lied": False}
        return True

    def end(self) -> None:
        """End it at once."""
        assert self.running is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.running.pid, signal.SIGKILL)


def select(kind: str, *lies: str) -> tuple[list[Square], list[tuple[Row, str, str]]]:
    """The cells whose row matches the one glob and whose lie one of the others; and those that cannot be, with why."""
    chosen = [row for row in rows() if fnmatchcase(row.name, kind)]
    told = [each for each in (HONEST, *LIES) if any(fnmatchcase(each, lie) for lie in lies)]
    pairs = [(row, each) for row in chosen for each in told]
    squares = [Square(row, each, number, way, {}) for row, each in pairs for number, way in enumerate(ways(row, each))]
    return squares, [(row, each, why) for row, each in pairs if (why := impossible(row, each)) and each != HONEST]


def play(squares: list[Square], jobs: int, folder: Path) -> None:
    """Play them all, ``jobs`` at once, and tell of each as it ends."""
    waiting, running = list(enumerate(squares)), list[Square]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, square = waiting.pop(0)
                square.start(folder / str(number))
                running.append(square)
            for square in [each for each in running if each.over()]:
                running.remove(square)
                tell(square)
            if received := signal.sigtimedwait(ENDING, POLL_SECONDS):
                raise SystemExit(128 + received.si_signo)
    finally:
        for square in running:  # somebody has broken it off
            square.end()
        while not all(square.over() for square in running):
            time.sleep(POLL_SECONDS)


def tell(square: Square) -> None:
    """What came of it."""
    print(f"{square.result:<26} {square.outcome.get('seconds', 0.0):6.1f} s  {square.name}", flush=True)
    if not square.good:
        print(f"    expected {square.way.seen!r}, got: {square.outcome['reason']}", flush=True)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.lies")
    parser.add_argument("--kind", default="*", help="only rows whose name matches this glob: 'network *'")
    parser.add_argument("--lie", action="append", help="only lies that match this glob: 'ends early'")
    parser.add_argument("--jobs", type=int, default=6, help="cells at once; they wait most of the time")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "lies.json")
    options = parser.parse_args()
    squares, cannot = select(options.kind, *(options.lie or "*"))
    if not squares and not cannot:
        parser.error(f"no kind and lie match {options.kind!r} and {options.lie!r}")
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    began = time.monotonic()
    with scratch.folder(ROOT / "reports", "lies-") as folder:
        play(squares, options.jobs, folder)
    for row, lie, why in cannot:
        print(f"{IMPOSSIBLE:<26}           {row.name:<34} {lie:<22} {why}")
    counts = Counter(square.result for square in squares)
    score = ", ".join(f"{count} {result}" for result, count in counts.most_common())
    took = time.monotonic() - began
    print(f"{score}; {len(cannot)} {IMPOSSIBLE}; {took:.0f} s")
    document = {
        "counts": counts | {IMPOSSIBLE: len(cannot)},
        "seconds": round(took, 1),
        "cells": [
            {"kind": each.row.name, "lie": each.lie, "way": each.way.sabotage, "noticed": each.way.noticed}
            | {"result": each.result}
            | each.outcome
            for each in squares
        ],
        "not_possible": [{"kind": row.name, "lie": lie, "why": why} for row, lie, why in cannot],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, document)
    return 0 if all(square.good for square in squares) else 1


if __name__ == "__main__":
    sys.exit(main())
