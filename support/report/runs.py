"""Folders of runs: one per run under ``reports/runs``, so that runs side by side share nothing."""

import json
import os
import re
import shutil
import uuid
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

KEEP = 10
"""Runs that are kept; older ones are removed when a new one starts."""


def slug(location: str) -> str:
    """Folder name of a scenario: ``features/migration.feature:12`` is ``migration-12``. Where letters of it had to
    be replaced, a checksum of it keeps ``a b.feature`` and ``a-b.feature`` apart.
    """
    path, _, line = location.rpartition(":")
    stem = path.removesuffix(".feature").removeprefix("./").removeprefix("features/")
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.")
    told_apart = "" if plain == stem else f"-{zlib.crc32(stem.encode()):08x}"
    return f"{plain}{told_apart}-{line}"


def create(reports: Path, log_dir: Path | None = None) -> Path:
    """Make the folder of a new run and remove the oldest beyond :data:`KEEP`; one that still runs is never removed.

    The folder's name begins with the start time (UTC), so names sort by age.

    Args:
        reports: the checkout's ``reports`` folder.
        log_dir: keeps the run's ``scenarios`` under ``log_dir/RUN`` for good instead of with the run.
    """
    runs = reports / "runs"
    folder = runs / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    (folder / "allure-results").mkdir(parents=True)
    if log_dir:
        kept = log_dir.resolve() / folder.name
        kept.mkdir(parents=True)
        (folder / "scenarios").symlink_to(kept)
    else:
        (folder / "scenarios").mkdir()
    finished = [run for run in history(reports) if run != folder and not _under_way(run)]
    for run in finished[: max(0, len(finished) - KEEP + 1)]:
        shutil.rmtree(run, ignore_errors=True)
    return folder


def history(reports: Path) -> list[Path]:
    """Folders of all runs that are kept, oldest first."""
    runs = reports / "runs"
    return sorted(run for run in runs.iterdir() if run.is_dir()) if runs.is_dir() else []


def scenario_folder(run: Path, location: str) -> Path:
    """Where everything about the scenario at ``location`` lies."""
    return run / "scenarios" / slug(location)


def serves(folder: Path) -> bool:
    """Whether the deployment of the scenario with this folder is up: its metrics are read as soon as it is."""
    return (folder / "metrics").is_dir()


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file so that a reader sees either the old or the whole new one."""
    # Not by the pid: behave has the same one in every cell.
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def _under_way(run: Path) -> bool:
    pid = run.name.rpartition("-")[2]
    return pid.isdigit() and Path("/proc", pid).exists()
