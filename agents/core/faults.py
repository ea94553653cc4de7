"""Faults: what one is, what it would do, and what a :class:`Driver` has to offer that makes and undoes them."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

STATES = ("pending", "active", "recovering", "recovered", "failed", "latched")
KINDS = ("process", "network", "gpu")
LIVE = ("pending", "active", "recovering")
DEFAULT_SECONDS, LONGEST_SECONDS = 300.0, 3600.0
FIRST_KEPT, LAST_KEPT = 8, 24
"""Entries of a fault's history that are kept of a longer one: an undo that cannot succeed is tried for ever."""
DIRECTIONS = ("both", "to", "from")
"""Of packets, seen from a target."""
SEVERITIES = {"LOW": 0.25, "MEDIUM": 0.5, "HIGH": 0.75}
"""Severity -> share of speed, memory or load that is taken."""


class Problem(Exception):
    """A request that cannot be served; becomes an RFC 9457 problem+json answer."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail


@dataclass(frozen=True)
class Type:
    """One type of fault, as the driver says it that makes it.

    Attributes:
        how: what is done, in words; ``{}`` stands for whom it is done to.
        options: names of the ``parameters`` that it takes.
        nowhere: why it cannot be had anywhere although it may be asked for; empty: it can.
    """

    name: str
    how: str = ""
    options: tuple[str, ...] = ()
    nowhere: str = ""


@dataclass
class Plan:
    """What a fault would do, before anything is changed.

    Attributes:
        kind: ``process``, ``network`` or ``gpu``.
        type: which of its kind.
        targets: names of the nodes that suffer.
        touches: every object, rule and process that would be touched, one line each.
        undo: all that the undo needs, also after a restart of the agent; on disk before the first change.
        parameters: the strength and whatever else was asked for, with defaults filled in.
        severity: key of :data:`SEVERITIES` where one was given.
        fidelity: of a GPU fault: ``reported``, ``emulated`` or ``real``.
        conflicts: keys; a fault that has one in common with a live fault is refused.
        repair: what has to be repaired by other means; with it the fault ends as ``latched``.
        momentary: whether it is over as soon as it is done.
    """

    kind: str
    type: str
    targets: list[str]
    touches: list[str]
    undo: dict[str, Any]
    parameters: dict[str, Any] = field(default_factory=dict)
    severity: str | None = None
    fidelity: str | None = None
    conflicts: list[str] = field(default_factory=list)
    repair: str = ""
    momentary: bool = False


@dataclass
class Fault(Plan):
    """One deliberate damage; all of its plan and what has become of it.

    Attributes:
        deadline: when it ends, on CLOCK_MONOTONIC; ``created_at`` and ``expires_at`` are for readers (ISO 8601, UTC).
        evidence: what the agent did and saw. It proves nothing by itself; observers look at the victim.
        history: every state it has been in, with time and what was seen then; of a long one the first
            :data:`FIRST_KEPT` and the last :data:`LAST_KEPT`, with ``left_out``, a number, at the gap.
        attempts: undos of it that have failed.
    """

    id: str = ""
    deployment: str = ""
    state: str = "pending"
    duration_seconds: float = DEFAULT_SECONDS
    deadline: float = 0.0
    created_at: str = ""
    expires_at: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    attempts: int = 0

    def add_history(self, entries: list[dict[str, Any]]) -> None:
        """Note new states; what is too old to matter is left out."""
        self.history += entries
        gap = len(self.history) - FIRST_KEPT - LAST_KEPT
        if gap > 0:
            out = self.history[FIRST_KEPT : FIRST_KEPT + gap]
            del self.history[FIRST_KEPT : FIRST_KEPT + gap]
            self.history[FIRST_KEPT]["left_out"] = sum(1 + entry.get("left_out", 0) for entry in out)

    @property
    def owed(self) -> bool:
        """Whether its undo is still to be done: it is live, or an undo has failed."""
        return self.state in LIVE or (self.state == "failed" and "after" in self.evidence)

    def view(self) -> dict[str, Any]:
        """JSON form, whole."""
        return asdict(self) | {"owed": self.owed}

    def summary(self) -> dict[str, Any]:
        """JSON form for lists: no evidence, history, undo or touched objects."""
        left_out = ("evidence", "history", "undo", "touches", "conflicts")
        shown = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in left_out}
        return shown | {"owed": self.owed}


class Driver(Protocol):
    """How some types of fault are made and undone. An agent may die at any moment: all methods but ``plan`` work from
    the fault alone. Two more methods are called where they exist: ``async resume(fault)`` after a restart of the agent,
    and ``async look(fault)``, which puts what is seen right now into the evidence of an active fault.
    """

    @property
    def kind(self) -> str:
        """Of fault, one of :data:`KINDS`."""

    @property
    def types(self) -> Sequence[Type]:
        """Those that it makes."""

    @abstractmethod
    def plan(self, body: dict[str, Any]) -> Plan:
        """Check a request and say what it would do; changes nothing. The type is one of its own, and there are no
        parameters that this does not take.

        Raises:
            Problem: 404, 409, 422 or 501.
        """

    @abstractmethod
    async def snapshot(self, fault: Fault) -> dict[str, Any]:
        """The state of what the fault touches, as the kernel has it."""

    @abstractmethod
    async def apply(self, fault: Fault) -> None:
        """Do the damage; raw evidence goes to ``fault.evidence``."""

    @abstractmethod
    async def undo(self, fault: Fault) -> None:
        """Undo it; a second call changes nothing."""

    @abstractmethod
    def differences(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """In words, what is not as it was; [] when all is."""

    @abstractmethod
    def capabilities(self) -> dict[str, dict[str, Any]]:
        """``KIND.TYPE`` -> ``available`` and ``detail``."""
