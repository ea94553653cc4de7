"""What happened in a scenario besides requests: faults, proofs, states of nodes, notes; on the ledger's clock."""

import json
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from support.clock import now

ENDED = ("stopped", "dead")
"""States of a node whose process has ended: it exited with a status, or a signal ended it, or nobody knows what."""
KINDS = ("fault", "proof", "state", "note", "gate", "leader", "lease")


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        at: seconds on the clock of :mod:`support.clock`.
        kind: ``fault`` (an injection or its end), ``proof`` (evidence taken from the victim's side), ``state`` (a
            node changed state), ``note``, ``gate`` (answers are held in their middle or let go on,
            :mod:`support.world.gate`), ``leader`` (another etcd member leads, or none) or ``lease`` (a lease or a
            registration in etcd came or went).
        subject: the logical node name or fault id that the event is about; may be empty for a note.
        text: one line for a human reader, and for nobody else.
        data: whatever is known, JSON-serialisable. Of a ``fault``: ``fault``, its id, and ``order`` of an injection or
            ``undo`` of its end, each the kind of fault. Of a ``state``: ``state`` (``starting``, ``running``,
            ``leaving``: shut down, with ``seconds`` for which it has been there with nothing to do; ``hung``;
            and :data:`ENDED`), and of an end ``exit_code``, negative for a signal, None where nobody knows.
    """

    at: float
    kind: str
    subject: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """What a node has become; empty for an event that is not about that."""
        return str(self.data.get("state", "")) if self.kind == "state" else ""


class EventLog:
    """Append-only list of events, mirrored line by line to a JSONL file so that nothing is lost on a crash."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._events: list[Event] = []

    def add(self, kind: str, subject: str, text: str, at: float | None = None, **data: Any) -> Event:
        """Record one event, now unless ``at`` says otherwise.

        Raises:
            ValueError: ``kind`` is not one of :data:`KINDS`.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown event kind {kind!r}; expected one of {', '.join(KINDS)}")
        event = Event(now() if at is None else at, kind, subject, text, data)
        with self._lock:
            self._events.append(event)
            if self._path:
                with self._path.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(asdict(event)) + "\n")
        return event

    def all(self) -> list[Event]:
        """The events so far, oldest first."""
        with self._lock:
            return sorted(self._events, key=lambda event: event.at)


def read_events(path: Path) -> list[Event]:
    """The events of an earlier run, oldest first; a file that is not there is an empty history, and a last line that a
    kill has cut short is left out.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    return sorted((Event(**json.loads(line)) for line in lines if line.strip()), key=lambda event: event.at)
