"""Faults of kind ``network`` between the nodes of a cell."""

from agents.network.cuts import CutDriver
from agents.node.access import CellAccess, NodeDriver


class CellCutDriver(CutDriver, NodeDriver):
    """Cuts between nodes of a cell."""

    def __init__(self, cell: CellAccess) -> None:
        NodeDriver.__init__(self, cell)
        CutDriver.__init__(self, cell.network)
