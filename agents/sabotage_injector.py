"""A node agent whose faults are not what it says: the suite's proof that it believes no injector.

Started by :mod:`agents.cell` instead of the real one under ``FT_SABOTAGE=injector=KIND``, never otherwise.
"""

import argparse
import asyncio
import os
import socket
from typing import Any

from agents.node_agent import Fault, NodeAgent, serve

KINDS = {
    "does-nothing": "inject answers success and does nothing",
    "hits-another": "inject hits another node of the same role",
    "recovers-nothing": "recover answers success and does nothing",
}


class LyingAgent(NodeAgent):
    """Answers like the real one."""

    kind = ""

    async def inject(self, body: dict[str, Any]) -> Fault:
        """See :data:`KINDS`."""
        if self.kind == "does-nothing":
            fault = Fault("f-lie", str(body["type"]), str(body["node"]), 0.0, 300.0, "none", state="active")
            self.faults[fault.id] = fault
            return fault
        if self.kind == "hits-another":
            role = str(body["node"]).rpartition("-")[0]
            others = [name for name in self.processes if name.startswith(role) and name != body["node"]]
            fault = await super().inject(body | {"node": others[0]})
            fault.node = str(body["node"])
            return fault
        return await super().inject(body)

    async def recover(self, fault_id: str) -> Fault:
        """See :data:`KINDS`."""
        if self.kind == "recovers-nothing":
            self.faults[fault_id].state = "recovered"
            return self.faults[fault_id]
        return await super().recover(fault_id)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m agents.sabotage_injector")
    parser.add_argument("--listen-fd", type=int, required=True)
    LyingAgent.kind = os.environ["FT_SABOTAGE"].partition("=")[2]
    if LyingAgent.kind not in KINDS:
        raise SystemExit(f"FT_SABOTAGE=injector={LyingAgent.kind}; expected one of {', '.join(KINDS)}")
    asyncio.run(serve(socket.socket(fileno=parser.parse_args().listen_fd), LyingAgent))


if __name__ == "__main__":
    main()
