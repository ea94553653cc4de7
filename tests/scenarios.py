"""Runs scenarios against real Dynamo for the suite's own tests, without touching the user's last report."""

import subprocess
import sys
from pathlib import Path

from agents.sabotage import marks
from support import targets
from support.judge.verdict import Verdict
from support.report.reading import read_verdict
from support.run import cells
from support.settings import ROOT, Settings

# A boot may take a minute on a loaded machine and the longest scenario takes three.
LIMIT_SECONDS = 300
MARKS = "marks.jsonl"
"""In the folder of a run: what its sabotage has left."""


def run(
    folder: Path, *selection: str, sabotage: str = "", limit: float = LIMIT_SECONDS, target: str = "local"
) -> list[Verdict]:
    """Run behave, in a cell of its own where the target wants one.

    Args:
        folder: of the run; gets what a run leaves behind.
        selection: behave's arguments, such as ``--tags=@smoke`` or ``features/x.feature:12``.
        sabotage: what is broken on purpose, see ``FT_SABOTAGE`` in docs/sabotage.md; its marks are in :data:`MARKS`.
        limit: seconds after which it is ended.
        target: where Dynamo is to run.

    Returns:
        The verdicts in the order of their scenarios.

    Raises:
        subprocess.TimeoutExpired: it took longer than ``limit``.
    """
    (folder / "scenarios").mkdir(parents=True)
    env = cells.environment() | {"FT_RUN_DIR": str(folder), "FT_SABOTAGE": sabotage}
    env[marks.VARIABLE] = str(folder.resolve() / MARKS)
    argv = [sys.executable, "-m", "behave", "-f", "plain", "-D", f"target={target}", *selection]
    if targets.kind(Settings(target=target)).in_cells:
        argv = cells.command(argv, environ=env)
    with (folder / "console.txt").open("w") as console:
        subprocess.run(argv, cwd=ROOT, env=env, stdout=console, stderr=subprocess.STDOUT, timeout=limit, check=False)
    return [read_verdict(file) for file in sorted(folder.glob("scenarios/*/verdict.json"))]
