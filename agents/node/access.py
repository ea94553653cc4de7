"""What the drivers of a cell work with, and what they have in common."""

from typing import ClassVar, TypeVar

from agents.core.faults import Driver, Fault, Type
from agents.node.network import Network
from agents.node.processes import ProcessTable

D = TypeVar("D", bound="NodeDriver")


class CellAccess:
    """The cell that drivers break.

    Args:
        network: its nodes; ``table``: the processes on them.
        token: hex digits of this run, for names that no other run has.
    """

    def __init__(self, network: Network, table: ProcessTable, token: str) -> None:
        self.network, self.table, self.token = network, table, token
        self.drivers: dict[type[NodeDriver], NodeDriver] = {}

    def driver(self, kind: type[D]) -> D:
        """The driver of this cell of that class; made when it is asked for first."""
        if kind not in self.drivers:
            self.drivers[kind] = kind(self)
        found = self.drivers[kind]
        assert isinstance(found, kind)
        return found


class NodeDriver(Driver):
    """A driver of the node agent.

    Attributes:
        kind: of fault; ``types``: those that it makes.
    """

    kind: ClassVar[str]
    types: ClassVar[tuple[Type, ...]]

    def __init__(self, cell: CellAccess) -> None:
        self.cell = cell

    def adopt(self, fault: Fault) -> None:
        """Know of a fault that another agent has made; before processes are started, for it may keep one from that."""

    async def look(self, fault: Fault) -> None:
        """Put what is seen right now into the evidence of an active fault."""

    def close(self) -> None:
        """Let go of everything; for an agent whose deployment ends."""
