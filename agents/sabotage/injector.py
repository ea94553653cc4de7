"""A node agent whose faults are not what it says: the suite's proof that it believes no injector.

Started by :mod:`agents.cell` in the place of the real one under ``FT_SABOTAGE=injector=KIND``, never otherwise.
"""

import argparse
import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any

from agents.core.faults import Driver, Fault, Plan
from agents.node.agent import NodeAgent, serve
from agents.sabotage import marks

KINDS = {
    "does-nothing": "inject answers success and does nothing",
    "hits-another": "inject hits another node of the same role",
    "cuts-one-way": "a cut of both directions cuts one",
    "swallows-line": "no line reaches the kernel log",
    "swallows-rest": "of several lines only the first reaches the kernel log",
    "dawdles": "a fault is made some seconds after it was ordered, as on a machine that is far too busy",
    "recovers-nothing": "recover answers success and does nothing",
    "kills-at-shutdown": "a process that is to be told to shut down is killed, as if Dynamo died of being told",
}

# Longer than the answers of most scenarios take, and shorter than a proof may.
DAWDLE_SECONDS = 3.0


class LyingDriver:
    """Stands in front of a real driver and lies for it; see :data:`KINDS`."""

    def __init__(self, real: Driver, kind: str, agent: NodeAgent) -> None:
        self._real, self._kind, self._agent = real, kind, agent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def _other(self, name: str) -> str:
        role = self._agent.network.roles().get(name)
        others = [each for each, its in self._agent.network.roles().items() if its == role and each != name]
        if others:
            marks.leave(f"{others[0]} is hit, not {name}")
        return others[0] if others else name

    def plan(self, body: dict[str, Any]) -> Plan:
        """The real plan, of something else."""
        if self._kind == "cuts-one-way" and body.get("direction") == "both":
            marks.leave("one direction is cut, not both")
            return self._real.plan(body | {"direction": "to"})
        if self._kind != "hits-another":
            return self._real.plan(body)
        if "target" in body:
            plan = self._real.plan(body | {"target": self._other(body["target"])})
            plan.targets = [body["target"]]
        else:
            plan = self._real.plan(body | {"targets": [self._other(name) for name in body["targets"]]})
            plan.targets = list(body["targets"])
        return plan

    async def apply(self, fault: Fault) -> None:
        """Nothing, or what was planned."""
        if self._kind == "swallows-rest" and len(fault.undo.get("lines", ())) > 1:
            marks.leave(f"{len(fault.undo['lines']) - 1} lines are swallowed")
            fault.undo["lines"] = fault.undo["lines"][:1]
        if self._kind == "dawdles":
            marks.leave(f"the fault {fault.type} is late")
            await asyncio.sleep(DAWDLE_SECONDS)
        if self._kind == "kills-at-shutdown" and fault.type == "terminate":
            node, identity = fault.undo["node"], tuple(fault.undo["identity"])
            marks.leave(f"{node} is killed")
            self._agent.table.signal(node, identity, signal.SIGKILL)
        elif self._kind == "does-nothing":
            marks.leave(f"the fault {fault.type} is not made")
        else:
            await self._real.apply(fault)

    async def undo(self, fault: Fault) -> None:
        """Nothing, or the real undo."""
        if self._kind == "recovers-nothing":
            marks.leave(f"the fault {fault.type} is not undone")
        else:
            await self._real.undo(fault)

    def differences(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """None, whatever there is."""
        return [] if self._kind == "recovers-nothing" else self._real.differences(before, after)


def _swallow(line: str) -> dict[str, Any]:
    """Say that a line is in the kernel log, and write none."""
    marks.leave("a line is swallowed")
    return {"sequence": 0, "timestamp_us": 0, "text": line}


class LyingAgent(NodeAgent):
    """Answers like the real one."""

    kind = ""

    def drivers(self) -> Sequence[Driver]:
        """The real ones behind :class:`LyingDriver`."""
        if self.kind == "swallows-line":
            self.gpus.write = _swallow
        return [LyingDriver(driver, self.kind, self) for driver in super().drivers()]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m agents.sabotage.injector")
    parser.add_argument("--listen-fd", type=int, required=True)
    LyingAgent.kind = os.environ["FT_SABOTAGE"].partition("=")[2]
    if LyingAgent.kind not in KINDS:
        raise SystemExit(f"FT_SABOTAGE=injector={LyingAgent.kind}; expected one of {', '.join(KINDS)}")
    asyncio.run(serve(socket.socket(fileno=parser.parse_args().listen_fd), LyingAgent))


if __name__ == "__main__":
    main()
