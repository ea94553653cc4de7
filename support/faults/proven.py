"""What every family of faults has in common: a fault that was seen to bite."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from support.clock import now
from support.contract.deployment import Life, Node

LEASE_SECONDS = 300.0


@dataclass(frozen=True)
class ProvenFault:
    """A fault that was seen to bite.

    Attributes:
        id: the fault service's id of it.
        family: ``process``, ``network`` or ``gpu``.
        kind: which of its family, such as ``crash``, ``drop``, ``XID 79``.
        node: the victim.
        injected_at: when it was asked for; ``done_at``: when the service said that it is done; ``proven_at``: when
            the victim was seen to suffer it; ``struck_at``: when the injector sent its signal, where it says so,
            else when it was asked.
        life: the run of the victim's program that it hit; None for one that hits no process.
        details: what its recovery has to be compared with.
    """

    id: str
    family: str
    kind: str
    node: Node
    injected_at: float
    done_at: float
    proven_at: float
    struck_at: float
    life: Life | None = None
    details: dict[str, Any] = field(default_factory=dict)


def struck_at(fault: Mapping[str, Any], injected_at: float) -> float:
    """When the injector sent its signal; when it was asked where it says nothing of that."""
    return float(fault["evidence"].get("sent_at", injected_at))


def on_clock(fault: Mapping[str, Any]) -> dict[str, Any]:
    """What an event of the injection carries: ``fault``, its id, and ``until``, when it is over at the latest (one that
    is over as soon as it is done, now).
    """
    return {"fault": fault["id"], "until": now() if fault["state"] == "recovered" else fault["deadline"]}
