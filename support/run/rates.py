"""What runs have shown of known defects, kept from run to run: one that shows sometimes is held to its rate."""

import contextlib
import fcntl
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from support.judge.defects import KnownDefect, strayed
from support.judge.verdict import Verdict
from support.report.runs import write_json

JUDGED = ("passed", "failed", "known_defect")
"""Verdicts that say whether a defect shows."""


def history_file(reports: Path) -> Path:
    """The file that keeps it: release -> id of a record -> a ``1`` for each run that showed it and a ``0`` for each
    that did not, the last one last.
    """
    return reports / "defects.json"


def keep(file: Path, records: Iterable[KnownDefect], release: str, verdicts: Sequence[Verdict]) -> list[str]:
    """Add a run of ``release`` to the history, and say which rates it strays from by now, one phrase each.

    A run counts for the records that were expected in a scenario of it and that it can tell something of.
    """
    judged = [each for each in verdicts if each.verdict in JUDGED]
    counted = []
    with_rate = [(each, each.rate) for each in records if each.rate]
    for record, rate in with_rate:
        if expected := [each for each in judged if record.applies(release, each.name, each.feature)]:
            counted.append((record, rate, any(record.explained(each.findings) for each in expected)))
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        past = _read(file)
        of_release = past.setdefault(release, {})
        for record, rate, shown in counted:
            of_release[record.id] = (of_release.get(record.id, "") + str(int(shown)))[-rate.window :]
        write_json(file, past)
    records = [record for record, _, _ in counted]
    return strayed(records, {name: [each == "1" for each in runs] for name, runs in of_release.items()})


def _read(file: Path) -> dict[str, dict[str, str]]:
    """What is there; empty where nothing was written down, or nothing that can be read."""
    with contextlib.suppress(OSError, ValueError):
        content: dict[str, dict[str, str]] = json.loads(file.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}
