"""What is kept of a scenario that was played, beside its loads, events and phases: enough to judge it again."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from support.judge.checker import ValidationContext
from support.judge.history import WAITS
from support.report.reading import read_waits
from support.report.results import process_overflow_recovery_test
from support.requests.load_log import find_loads, read_load
from support.scenarios.model import Scenario
from support.schema import read

CONTEXT, FOOTPRINT = "context.json", "footprint.jsonl"


def keep(folder: Path, scenario: Scenario, **seen: Any) -> ValidationContext:
    """Write down what was played and seen, as far as no other file has it, and read it all back.

    Args:
        folder: of the run.
        scenario: as it was played.
        seen: fields of :class:`ValidationContext` that cannot be had from the other files.
    """
    document = {"scenario": asdict(scenario), **seen}
    (folder / CONTEXT).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return read_context(folder)


def read_context(log_dir: str | Path) -> ValidationContext:
    """The context of a run that was played, now or years ago, for checkers to judge it.

    Raises:
        ValueError: the folder holds none, or it cannot be read.
    """
    folder = Path(log_dir)
    try:
        seen = json.loads((folder / CONTEXT).read_text(encoding="utf-8"))
        scenario = read(Scenario, seen.pop("scenario"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds no scenario that was played to its end ({CONTEXT}): {error}") from None
    results = process_overflow_recovery_test(folder, scenario.objectives)
    loads = [read_load(each) for each in find_loads(folder)]
    attempts = [record.attempts for load in loads for record in load.records]
    looks = folder / FOOTPRINT
    lines = looks.read_text(encoding="utf-8").splitlines() if looks.exists() else []
    return ValidationContext(
        scenario=scenario,
        log_dir=folder,
        ledger=[entry for each in attempts for entry in each],
        answers=[each[-1] for each in attempts if each],
        recovery_time=results["recovery"]["to_stable_seconds"],
        results=results,
        waits=read_waits(folder / WAITS),
        footprint=[json.loads(line) for line in lines],
        **seen,
    )
