"""Faults of kind ``process``: signals to the process of a node."""

import asyncio
import signal
import time
from collections.abc import Sequence
from typing import Any

from agents.core.faults import Fault, Plan, Problem, Type
from agents.node.access import CellAccess, NodeDriver
from agents.node.process import Process
from agents.node.processes import SIGNAL_SECONDS

SLOW_DISK = (
    "the disk of a process cannot be slowed: the suite's processes write to memory (tmpfs), which the kernel's limits "
    "for block devices (blkio.throttle, io.max) do not reach, and nothing would end such a limit if its maker died"
)


class ProcessDriver(NodeDriver):
    """Signals to the process of a node."""

    kind = "process"
    types = (
        Type("crash", "SIGKILL to {} and everything it has started; started again at the end"),
        Type("terminate", "SIGTERM to {}; SIGKILL at the end to whatever is left of it, then started again"),
        Type("hang", "SIGSTOP to {} and everything it has started; SIGCONT at the end"),
        Type("restart", "SIGKILL to {} and everything it has started, then started again at once"),
        Type("slow_disk", nowhere=SLOW_DISK),
    )

    def __init__(self, cell: CellAccess) -> None:
        super().__init__(cell)
        self.table = cell.table

    def plan(self, body: dict[str, Any]) -> Plan:
        """See :class:`agents.core.faults.Driver`."""
        kind, node = str(body["type"]), str(body.get("target", ""))
        process = self.table.running(node)
        what = f"pid {process.pid} on {node}"
        undo = {"node": node, "identity": [process.pid, process.start_time]}
        touches = [each.how.format(what) for each in self.types if each.name == kind]
        keys = [conflict(process), *([stopping(node)] if kind == "hang" else [])]
        return Plan("process", kind, [node], touches, undo, conflicts=keys, momentary=kind == "restart")

    async def snapshot(self, fault: Fault) -> dict[str, Any]:
        """See :class:`agents.core.faults.Driver`."""
        return {"process": standing(self.table.get(fault.undo["node"]), fault.undo["identity"])}

    async def apply(self, fault: Fault) -> None:
        """See :class:`agents.core.faults.Driver`."""
        node, identity = fault.undo["node"], tuple(fault.undo["identity"])
        members = [pid for pid, _ in self.table.family(node, identity)]
        fault.evidence |= {"pid": identity[0], "start_time": identity[1], "pids": members, "sent_at": time.monotonic()}
        if fault.type in ("crash", "restart"):
            await self.table.end(node, held=fault.type == "restart")
            process = self.table.get(node)
            fault.evidence |= {"signal": "SIGKILL", "gone_at": time.monotonic(), "exit_code": process.exit_code}
            if fault.type == "restart":
                await self.table.start_if_stopped(node)
                fault.evidence["new_pid"] = process.pid
            return
        if fault.type == "hang":
            there, fault.evidence["signal"] = await self.table.stop(node, identity), "SIGSTOP"
        else:  # to it alone, as the kubelet does: it tells the others itself, or they end with it
            there, fault.evidence["signal"] = self.table.signal(node, identity, signal.SIGTERM), "SIGTERM"
        if not there:
            raise Problem(409, "Not running", f"the process on {node!r} is gone")
        if fault.type == "hang":
            self.table.note(node, "hung", "SIGSTOP")

    async def undo(self, fault: Fault) -> None:
        """See :class:`agents.core.faults.Driver`."""
        node, identity = fault.undo["node"], tuple(fault.undo["identity"])
        if fault.type == "hang" and await self.table.go_on(node, identity):
            self.table.note(node, "running", "SIGCONT")
        if fault.type == "terminate" and self.table.signal(node, identity, signal.SIGKILL):
            # as the kubelet does when the grace period is over
            await asyncio.wait_for(self.table.get(node).ended.wait(), SIGNAL_SECONDS)
        await self.table.start_if_stopped(node)

    def differences(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """See :class:`agents.core.faults.Driver`."""
        was, now = before.get("process"), after.get("process")
        return [] if was == now else [f"the process was {was} and is {now}"]

    def capabilities(self) -> dict[str, dict[str, Any]]:
        """See :class:`agents.core.faults.Driver`."""
        return {
            f"process.{each.name}": {
                "available": not each.nowhere,
                "detail": each.nowhere or each.how.format("the process"),
            }
            for each in self.types
        }


def conflict(process: Process) -> str:
    """Key of a fault that acts on this very process: the one that is started after it is another."""
    return f"process {process.spec.node} (pid {process.pid})"


def stopping(node: str) -> str:
    """Key of a fault that stops what runs on a node: two of them would continue each other's process."""
    return f"stopping of {node}"


def standing(process: Process, identity: Sequence[int]) -> str:
    """``running``, ``stopped`` or ``gone``: a node whose process ``identity`` (pid, start time) a fault was made for.

    Whatever has been started since is ``running``: what stops that one is another fault.
    """
    state = process.kernel_state()
    another = (process.pid, process.start_time) != tuple(identity)
    return "running" if another and state == "stopped" else state
