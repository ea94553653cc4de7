"""The folder of a load: what was planned, what came of it, line by line while it runs, and how it ended.

==========================  ============================================================================
``plan.json``               the plan, the time of its start, how many processes
``planned-PROCESS.jsonl``   a line per request, written before it is sent
``requests-PROCESS.jsonl``  a line per attempt that has ended: number, attempt, whether it was the last, ledger entry
``process-PROCESS.json``    that the process came to its end in good order
``end.json``                that the load did, and the exit status of each process
==========================  ============================================================================

``phases.jsonl`` and ``events.jsonl`` in the folder, or in one above it, tell phases and faults for the judge.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from support.amounts import amount
from support.clock import now
from support.requests.ledger import LedgerEntry, unpack
from support.requests.plan import LoadPlan, Planned

PLAN, END, PHASES = "plan.json", "end.json", "phases.jsonl"
PHASE_NAMES = ("STANDARD", "OVERFLOW", "RECOVERY")


@dataclass
class Record:
    """A planned request and what became of it.

    Attributes:
        lines: an attempt that has ended each, as it was written down.
        closed: whether the last attempt has ended, so that nothing more will come.
        withdrawn: the load was stopped in good order before it was sent.
    """

    planned: Planned
    lines: list[bytes] = field(default_factory=list)
    closed: bool = False
    withdrawn: bool = False

    @property
    def attempts(self) -> list[LedgerEntry]:
        """What the client saw, an entry per attempt that has ended; read again at each call, for all of them at once
        take more memory than the answers of a long load are worth.
        """
        return [unpack(json.loads(line)["entry"]) for line in self.lines]


@dataclass
class LoadLog:
    """All that a folder knows of a load.

    Attributes:
        began_at: start of the load on :mod:`support.clock`.
        ended_at: None while it goes on, or when it was broken off.
        stopped_at: when it was told to begin no further request; None: it was not.
        records: in the order of their numbers.
        problems: what is missing, in words; [] for a load that ended in good order.
    """

    folder: Path
    plan: LoadPlan
    began_at: float
    ended_at: float | None
    records: list[Record]
    problems: list[str]
    stopped_at: float | None = None

    def entries(self) -> list[LedgerEntry]:
        """All attempts, in the order of their sending."""
        found = [entry for record in self.records for entry in record.attempts]
        return sorted(found, key=lambda entry: entry.intended_at)

    def due(self, record: Record) -> float:
        """When a request was due that left no trace; in a closed loop that is the start of the load."""
        return self.began_at + (record.planned.offset or 0.0)

    @property
    def offered_until(self) -> float | None:
        """Until when there was a load to serve, whether it was served or not; None: until its last request was due."""
        lasts = self.plan.duration_seconds
        ends = [self.stopped_at, None if lasts is None else self.began_at + lasts]
        return min((at for at in ends if at is not None), default=None)


def create(folder: Path, plan: LoadPlan) -> None:
    """Make the folder of a new load and write down all that it is to send, as far as that is known.

    Raises:
        ValueError: the folder, or one in it, holds another run; or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"log_dir {folder} is a file; expected a new or empty folder")
    held = next((each.relative_to(folder) for each in _traces(folder)), None)
    if held:
        raise ValueError(f"log_dir {folder} holds another run ({held}); expected a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    streams = [(folder / f"planned-{process}.jsonl").open("w") for process in range(plan.processes)]
    for planned in plan.requests():
        streams[planned.process].write(json.dumps(asdict(planned)) + "\n")
    for stream in streams:
        stream.close()
    (folder / PLAN).write_text(json.dumps({"plan": asdict(plan)}, indent=1) + "\n")


def _traces(folder: Path) -> Iterator[Path]:
    for pattern in (PLAN, END, PHASES, "planned-*.jsonl", "requests-*.jsonl", "process-*.json"):
        yield from sorted(folder.glob(pattern))
    yield from sorted(folder.rglob(PLAN))


def mark_phase(folder: Path, phase: str, at: float | None = None) -> None:
    """Write down that a phase begins, now unless ``at`` says otherwise.

    Raises:
        ValueError: ``phase`` is not one of :data:`PHASE_NAMES`.
    """
    if phase not in PHASE_NAMES:
        raise ValueError(f"unknown phase {phase!r}; expected one of {', '.join(PHASE_NAMES)}")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / PHASES).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"phase": phase, "at": now() if at is None else at}) + "\n")


def read_phases(folder: Path) -> list[tuple[str, float]]:
    """Phases and their beginnings, oldest first."""
    marks = [json.loads(line) for line in _lines(folder / PHASES)]
    return sorted(((each["phase"], each["at"]) for each in marks), key=lambda each: float(each[1]))


def find_loads(folder: Path) -> list[Path]:
    """The folders of loads in ``folder``, itself included."""
    return sorted(each.parent for each in folder.rglob(PLAN))


def read_load(folder: Path) -> LoadLog:
    """A load that has ended, goes on or was broken off.

    Raises:
        ValueError: there is no load in ``folder``.
    """
    try:
        head = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        plan = LoadPlan(**head["plan"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds no load that can be read: {error}") from None
    end = _document(folder / END)
    records, problems = dict[int, Record](), list[str]()
    for process in range(plan.processes):
        for line in _lines(folder / f"planned-{process}.jsonl"):
            planned = Planned(**json.loads(line))
            records[planned.number] = Record(planned)
        for line in _lines(folder / f"requests-{process}.jsonl"):
            seen = json.loads(line)
            record = records[seen["number"]]
            record.closed, record.withdrawn = seen["last"], seen["withdrawn"]
            if "entry" in seen:
                record.lines.append(line)
        if not (folder / f"process-{process}.json").exists():
            died = "" if end is None else f" (exit status {end['exit_codes'][process]})"
            state = f"died{died}" if end is not None else "has not ended: it still runs, or was aborted"
            problems.append(f"client process {process} {state}")
    found = [records[number] for number in sorted(records)]
    lost = sum(not record.closed for record in found)
    if lost:
        problems.append(f"{lost} of {amount(len(found), 'planned request')} have no recorded end")
    if end is None:
        problems.append("the load has no end")
    began_at = head.get("began_at")
    if began_at is None:
        problems.append("the load has not begun")
    ended_at, stopped_at = (end["ended_at"], end.get("stopped_at")) if end else (None, None)
    return LoadLog(folder, plan, began_at or 0.0, ended_at, found, problems, stopped_at)


def _document(file: Path) -> dict[str, Any] | None:
    """None for a file that is not there, or was not written to its end."""
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        return dict(json.loads(file.read_text(encoding="utf-8")))
    return None


def _lines(file: Path) -> Iterator[bytes]:
    """The whole lines of a file; one that a kill has cut short is left out."""
    if file.exists():
        with file.open("rb") as stream:
            yield from (line for line in stream if line.endswith(b"\n"))
