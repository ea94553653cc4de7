"""What a cell tells its processes of: its fault service and its node agent, with the client for that one
(``agents/node/agent.py`` describes the API).
"""

import os
from typing import Any

from support.contract.fault_service import FaultService
from support.json_api import JsonApi


class Agent(JsonApi):
    """One node agent; its methods raise :class:`Refused`."""

    WHO = "node agent"

    @classmethod
    def of_this_cell(cls) -> "Agent":
        """The agent of the cell that this process runs in.

        Raises:
            RuntimeError: this process runs in no cell.
        """
        try:
            return cls(os.environ["FT_AGENT"], os.environ["FT_AGENT_TOKEN"])
        except KeyError:
            message = "this process is in no cell; start it with behave or `python -m support.run.cells FILE`"
            raise RuntimeError(message) from None

    def add_node(self, name: str, role: str) -> str:
        """Make a node; returns its address."""
        return str(self.call("POST", "/v1/nodes", {"name": name, "role": role})["address"])

    def run(self, **spec: Any) -> dict[str, Any]:
        """Start a process on a node; the arguments are those of the agent's ``Spec``."""
        return dict(self.call("POST", "/v1/processes", spec))

    def processes(self) -> dict[str, dict[str, Any]]:
        """Node name -> state of its process."""
        return {each["node"]: each for each in self.call("GET", "/v1/processes")}

    def gpus(self) -> dict[str, list[dict[str, Any]]]:
        """Node name -> telemetry of its simulated GPUs."""
        return dict(self.call("GET", "/v1/gpus"))

    def topology(self) -> dict[str, Any]:
        """Nodes with role, address and process, and the agent's own pid."""
        return dict(self.call("GET", "/v1/topology"))

    def history(self) -> list[dict[str, Any]]:
        """Every change of state since the cell began."""
        return list(self.call("GET", "/v1/history"))

    def world(self) -> dict[str, Any]:
        """Processes, network namespaces and links that the kernel shows in this cell."""
        return dict(self.call("GET", "/v1/world"))

    def remove_deployment(self) -> None:
        """End all processes and remove all nodes."""
        self.call("DELETE", "/v1/deployment")


def fault_service_of_this_cell() -> FaultService:
    """The fault service of the cell that this process runs in.

    Raises:
        RuntimeError: this process runs in no cell.
    """
    if "FT_FAULTS" not in os.environ:
        raise RuntimeError("this process is in no cell; start it with behave or `python -m support.run.cells FILE`")
    return FaultService(os.environ["FT_FAULTS"], os.environ["FT_AGENT_TOKEN"])
