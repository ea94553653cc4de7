"""A node agent whose faults are not what it says: the suite's proof that it believes no injector.

Started by :mod:`agents.cell` in the place of the real one under ``FT_SABOTAGE=injector=KIND``, never otherwise.
"""

import argparse
import asyncio
import os
import signal
import socket
from collections.abc import Coroutine, Sequence
from typing import Any

from agents.core.faults import Driver, Fault, Plan
from agents.node.agent import NodeAgent, serve
from agents.node.drivers.cuts import CellCutDriver
from agents.node.process import Process
from agents.sabotage import marks
from agents.sabotage.signs import CUE, DONE

KINDS = {
    "does-nothing": "inject answers success and does nothing",
    "hits-another": "inject hits another node of the same role",
    "cuts-one-way": "a fault of the network in both directions is one in one direction",
    "cuts-one-family": "a fault of the network is one of IPv4 alone",
    "spares-children": "of the victim's processes only the first is hit",
    "starts-nothing": "a restart kills, and starts nothing",
    "halves-strength": "half of the share, or twice the rate, that was asked for",
    "fakes-telemetry": "the telemetry of a GPU shows a strain that nothing suffers",
    "swallows-line": "no line reaches the kernel log",
    "swallows-rest": "of several lines only the first reaches the kernel log",
    "swallows-consequence": "the lines reach the kernel log, and nothing follows",
    "dawdles": "a fault is made some seconds after it was ordered, as on a machine that is far too busy",
    "comes-too-late": "inject answers success; what was ordered is done on a cue, once nobody waits for it",
    "ends-early": "on a cue the damage is undone, and the fault is listed as active",
    "recovers-nothing": "recover answers success and does nothing",
    "undoes-others": "recover undoes all other faults as well, and they are listed as active",
    "kills-at-shutdown": "a process that should be shut down is killed, as if the shutdown crashed Dynamo",
}

# Longer than the answers of most scenarios take, and shorter than a proof may.
DAWDLE_SECONDS = 3.0
CUE_SECONDS = 0.02
WEAKER = {"share": 0.5, "percent": 0.5, "rate_kbit": 2}
"""Parameter of a fault -> by what it is multiplied for half of its strength."""


class LyingDriver:
    """Stands in front of a real driver and lies for it; see :data:`KINDS`."""

    def __init__(self, real: Driver, kind: str, agent: "LyingAgent") -> None:
        self._real, self._kind, self._agent = real, kind, agent
        self._tasks: set[asyncio.Task[None]] = set()

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
        if self._kind == "cuts-one-way":
            return self._plan_one_way(body)
        if self._kind != "hits-another":
            return self._real.plan(body)
        if "target" in body:
            plan = self._real.plan(body | {"target": self._other(body["target"])})
            plan.targets = [body["target"]]
        else:
            plan = self._real.plan(body | {"targets": [self._other(name) for name in body["targets"]]})
            plan.targets = list(body["targets"])
        return plan

    def _plan_one_way(self, body: dict[str, Any]) -> Plan:
        both = body.get("direction") == "both"
        plan = self._real.plan(body | ({"direction": "to"} if both else {}))
        if "cut" in plan.undo:  # what an XID error costs the peers
            plan.undo["cut"]["undo"]["sides"] = ["to"]
        if both or "cut" in plan.undo:
            marks.leave("one direction is cut, not both")
        return plan

    async def apply(self, fault: Fault) -> None:
        """Nothing, or what was planned, or something like it."""
        act = getattr(self, f"_{self._kind.replace('-', '_')}", None)
        await (act(fault) if act else self._real.apply(fault))

    async def _does_nothing(self, fault: Fault) -> None:
        marks.leave(f"the fault {fault.type} is not made")

    async def _swallows_rest(self, fault: Fault) -> None:
        if len(fault.undo.get("lines", ())) > 1:
            marks.leave(f"lines swallowed: {len(fault.undo['lines']) - 1}")
            fault.undo["lines"] = fault.undo["lines"][:1]
        await self._real.apply(fault)

    async def _dawdles(self, fault: Fault) -> None:
        marks.leave(f"the fault {fault.type} is late")
        await asyncio.sleep(DAWDLE_SECONDS)
        await self._real.apply(fault)

    async def _kills_at_shutdown(self, fault: Fault) -> None:
        if fault.type != "terminate":
            await self._real.apply(fault)
            return
        marks.leave(f"{fault.undo['node']} is killed")
        self._agent.table.signal(fault.undo["node"], tuple(fault.undo["identity"]), signal.SIGKILL)

    async def _swallows_consequence(self, fault: Fault) -> None:
        if (consequence := fault.undo.get("consequence")) is None:
            await self._real.apply(fault)
            return
        marks.leave(f"the consequence {consequence} is left out")
        fault.undo["consequence"] = "none"
        await self._real.apply(fault)
        fault.undo["consequence"] = consequence

    async def _starts_nothing(self, fault: Fault) -> None:
        if fault.type != "restart":
            await self._real.apply(fault)
            return
        marks.leave(f"{fault.undo['node']} is not started again")
        await self._agent.table.end(fault.undo["node"], held=True)

    async def _halves_strength(self, fault: Fault) -> None:
        asked = dict(fault.parameters)
        weaker = {name: asked[name] * times for name, times in WEAKER.items() if name in asked}
        fault.parameters |= {name: type(asked[name])(value) for name, value in weaker.items()}
        await self._real.apply(fault)
        if weaker:
            marks.leave(f"{fault.type} is weaker: {weaker}")
            await asyncio.sleep(CUE_SECONDS)  # what works on beside us has read it by then
            fault.evidence["asked"] = asked

    async def _fakes_telemetry(self, fault: Fault) -> None:
        marks.leave("telemetry shows it, and nothing else")
        self._real.adopt(fault)  # type: ignore[attr-defined]  # of a simulated GPU

    async def _comes_too_late(self, fault: Fault) -> None:
        self._on_cue(self._real.apply(fault))

    async def _ends_early(self, fault: Fault) -> None:
        await self._real.apply(fault)
        self._on_cue(self._real.undo(fault))

    def _on_cue(self, work: Coroutine[Any, Any, None]) -> None:
        async def wait() -> None:
            while not (self._agent.scratch / CUE).exists():
                await asyncio.sleep(CUE_SECONDS)
            await work
            marks.leave("done on the cue")
            (self._agent.scratch / DONE).touch()

        task = asyncio.get_running_loop().create_task(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def undo(self, fault: Fault) -> None:
        """Nothing, or the real undo, or more than that."""
        if self._kind == "recovers-nothing":
            marks.leave(f"the fault {fault.type} is not undone")
        elif not (self._kind == "starts-nothing" and fault.type == "restart"):
            await self._real.undo(fault)
        for other in self._agent.book.owed() if self._kind == "undoes-others" else ():
            if other is not fault:
                marks.leave(f"{other.type} is undone although nobody asked for it")
                await self._agent.real[other.kind].undo(other)

    def differences(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """None, whatever there is."""
        silent = self._kind in ("recovers-nothing", "starts-nothing")
        return [] if silent else self._real.differences(before, after)


def _swallow(line: str) -> dict[str, Any]:
    """Say that a line is in the kernel log, and write none."""
    marks.leave("a line is swallowed")
    return {"sequence": 0, "timestamp_us": 0, "text": line}


class LyingAgent(NodeAgent):
    """Answers like the real one."""

    kind = ""
    real: dict[str, Driver]

    def drivers(self) -> Sequence[Driver]:
        """The real ones, which are :attr:`real` by their kind, behind :class:`LyingDriver`."""
        if self.kind == "swallows-line":
            self.gpus.write = _swallow
        if self.kind == "spares-children":
            self._spare_children()
        if self.kind == "cuts-one-family":
            self._cut_one_family(self.cell.driver(CellCutDriver))
        self.real = {driver.kind: driver for driver in super().drivers()}
        return [LyingDriver(driver, self.kind, self) for driver in self.real.values()]

    def _spare_children(self) -> None:
        """Hit the first of a node's processes alone, and leave the others behind when it ends."""
        whole = self.table.family

        def first(node: str, identity: tuple[int, int]) -> list[tuple[int, int]]:
            marks.leave(f"the first process of {node} is hit alone")
            return whole(node, identity)[:1]

        async def leave(process: Process) -> None:
            marks.leave("the children of a process are left behind")

        self.table.family, self.table._end_rest = first, leave  # type: ignore[method-assign]

    def _cut_one_family(self, driver: CellCutDriver) -> None:
        """Know of no address of IPv6."""
        whole = driver._addresses

        async def some(node: str) -> list[str]:
            found = await whole(node)
            if any(":" in each for each in found):
                marks.leave(f"{node} is cut over IPv4 alone")
            return [each for each in found if ":" not in each]

        driver._addresses = some  # type: ignore[method-assign]


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
