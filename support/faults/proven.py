"""What every family of faults has in common: a fault that was seen to bite."""

from dataclasses import dataclass, field
from typing import Any

from support.deployment import Node

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
            the victim was seen to suffer it; ``struck_at``: when the agent sent its signal, where it says so, else
            when it was asked.
        details: what its recovery has to be compared with; of a process fault ``pid`` and ``start_time`` (clock ticks
            since boot) of the process that it hit.
    """

    id: str
    family: str
    kind: str
    node: Node
    injected_at: float
    done_at: float
    proven_at: float
    struck_at: float
    details: dict[str, Any] = field(default_factory=dict)
