"""Trials: a scenario is run under a sabotage, and what came of it is held against the row of the table."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime
from pathlib import Path

from support.judge.verdict import Verdict
from support.report import runs
from support.report.self_tests import Trial
from support.run.schedule import Cost, Schedule
from support.run.selection import Selected
from support.settings import ROOT, Settings
from tests.sabotage import Sabotage
from tests.scenarios import MARKS, run

Pair = tuple[Selected, Sabotage]
LOOK_SECONDS = 0.2
USUAL_SECONDS = 45.0
"""What a scenario takes that nobody has timed yet."""


def sources() -> str:
    """Hash of all that a trial depends on, but for its row of the table and the release."""
    files = [ROOT / "environment.py", ROOT / "behave.ini", ROOT / "requirements.txt"]
    for folder in ("features", "steps", "support", "agents"):
        files += (file for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    told = hashlib.sha256()
    for file in sorted(files):
        told.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return told.hexdigest()[:12]


def row_of(pair: Pair) -> tuple[str, str, str, str, str]:
    """As :attr:`support.report.self_tests.Trial.row` has it."""
    scenario, sabotage = pair
    return scenario.feature, scenario.name, sabotage.sabotage, sabotage.verdict, sabotage.wanted


def outcome(sabotage: Sabotage, verdict: Verdict | None, marks: int) -> str:
    """One of :data:`support.report.self_tests.OUTCOMES`."""
    if sabotage.sabotage and not marks:
        return "not reached"
    if verdict and sabotage.explains(verdict):
        return "caught"
    return "inconclusive" if verdict is None or verdict.verdict in ("inconclusive", "mistake", "skipped") else "missed"


def marks_before(folder: Path, verdict: Path | None) -> list[str]:
    """What the sabotage of a run has left as marks, before that file was written where there is one."""
    file = folder / MARKS
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    until = verdict.stat().st_mtime if verdict else float("inf")
    return [mark["what"] for mark in map(json.loads, lines) if mark["at"] <= until]


def play(pair: Pair, folder: Path, made_of: str) -> Trial:
    """Run one scenario under one sabotage; ``folder`` is kept unless that was caught."""
    scenario, sabotage = pair
    began, trouble, verdicts = time.monotonic(), "the scenario left no verdict", list[Verdict]()
    try:
        target, chosen = ("kubernetes", ["--tags=@k8s"]) if "k8s" in scenario.tags else ("local", [])
        selection = [scenario.location, *chosen]
        verdicts = run(folder, *selection, sabotage=sabotage.sabotage, limit=scenario.limit, target=target)
    except subprocess.TimeoutExpired:
        trouble = f"it did not end within {scenario.limit:.0f} seconds"
    verdict = verdicts[0] if verdicts else None
    marks = marks_before(folder, next(folder.glob("scenarios/*/verdict.json"), None))
    came_out = outcome(sabotage, verdict, len(marks))
    if came_out == "caught":
        shutil.rmtree(folder, ignore_errors=True)
    return Trial(
        *row_of(pair),
        outcome=came_out,
        verdict=verdict.verdict if verdict else "",
        reason=verdict.reason if verdict else trouble,
        marks=len(marks),
        proof=marks[0] if marks else "",
        seconds=round(time.monotonic() - began, 1),
        at=datetime.now().astimezone().isoformat(timespec="seconds"),
        dynamo=Settings.load().dynamo,
        sources=made_of,
    )


def play_all(
    pairs: Sequence[Pair], folder: Path, jobs: int, costs: Mapping[str, Cost], tell: Callable[[Trial], None]
) -> None:
    """Run pairs side by side as the scenarios of a run are, and tell of each when it is over.

    Args:
        folder: gets those of the runs.
        jobs: at most so many at a time.
        costs: as :class:`support.run.schedule.Schedule` wants them.
    """
    rows, made_of = defaultdict[Selected, list[Sabotage]](list), sources()
    for scenario, sabotage in pairs:
        rows[scenario].append(sabotage)
    schedule = Schedule([scenario for scenario, _ in pairs], costs, jobs, len(os.sched_getaffinity(0)))
    running: dict[Future[Trial], tuple[Selected, Path]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        while running or schedule.waiting:
            under_way = [
                (each, runs.serves(runs.scenario_folder(run, each.location))) for each, run in running.values()
            ]
            for scenario in schedule.due(under_way):
                sabotage = rows[scenario].pop(0)
                own = folder / f"{runs.slug(scenario.location)}-{sabotage.sabotage or 'none'}"
                shutil.rmtree(own, ignore_errors=True)
                running[pool.submit(play, (scenario, sabotage), own, made_of)] = scenario, own
            for ended in wait(running, LOOK_SECONDS, FIRST_COMPLETED).done:
                del running[ended]
                tell(ended.result())


class Estimate:
    """How long trials take: as long as the last time, or as the scenario took by itself.

    Args:
        trials: those that are known.
        costs: what scenarios took in runs.
    """

    def __init__(self, trials: Sequence[Trial], costs: Mapping[str, Cost], jobs: int) -> None:
        self._known = {each.row: each.seconds for each in trials}
        self._costs, self._jobs, self._began = costs, jobs, time.monotonic()

    def seconds(self, pair: Pair) -> float:
        """Of one pair."""
        alone = self._costs.get(pair[0].key)
        return self._known.get(row_of(pair), alone.seconds if alone else USUAL_SECONDS)

    def left(self, waiting: Sequence[Pair], done: Sequence[Pair]) -> float:
        """Seconds until all of ``waiting`` are over, by the pace of those that are ``done`` since this was made."""
        rest = sum(map(self.seconds, waiting))
        behind = sum(map(self.seconds, done))
        pace = (
            (time.monotonic() - self._began) / behind
            if len(done) >= self._jobs
            else 1 / max(1, min(self._jobs, len(waiting)))
        )
        return rest * pace
