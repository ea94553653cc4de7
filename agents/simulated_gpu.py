"""Faults of kind ``gpu`` on the local target: workers have simulated GPUs and suffer what a real fault would bring.

An XID error is a real line in the kernel log (fidelity *reported*) and, where it is fatal to the workload, its
emulated consequence (*emulated*): the process ends, ends and cannot start again, hangs, or its traffic with other
workers suffers.

THROTTLE, OVERHEAT and COMPUTE_OVERLOAD slow the worker down: its process is stopped and continued in a duty cycle that
is steered by the measured rate of its work. A CPU quota would do nothing, for a simulated engine mostly sleeps.

MEMORY_PRESSURE takes a share of the GPU's memory as far as it is free. A running worker has taken its own in advance
and does not notice; one that has to start meanwhile finds too little and may not start until recovery.
"""

import asyncio
import contextlib
import secrets
import signal
import time
from dataclasses import fields
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from agents import kmsg, xids
from agents.cuts import CutDriver
from agents.faults import SEVERITIES, Fault, Plan, Problem
from agents.network import Network
from agents.processes import ProcessTable, conflict

TYPES = ("XID_ERROR", "THROTTLE", "MEMORY_PRESSURE", "OVERHEAT", "COMPUTE_OVERLOAD")
SLOWING = ("THROTTLE", "OVERHEAT", "COMPUTE_OVERLOAD")
WORKER_ROLES = ("worker", "decode", "prefill")
USUAL_XID, USUAL_SHARE = 79, 0.5
# An H100 80 GB as it reports itself under load.
MEMORY_MIB, CLOCK_MHZ, TEMPERATURE_C, UTILIZATION = 81920, 1980, 62, 70
HOT_C = 95
WORKER_MEMORY_SHARE = 0.6
LINK_LOSS_PERCENT = 30
# Short enough that a stream looks slow rather than broken, long enough for a worker to get something done.
PERIOD_SECONDS = 0.06
WINDOW_SECONDS = 0.4
GAIN, MOST_STOPPED = 0.4, 0.97


class SimulatedGpuDriver:
    """The simulated GPUs of a cell.

    Args:
        table: processes of the nodes.
        network: their network; ``cuts`` breaks it for XID 74.
        token: hex digits of this run, for PCI addresses that no other run has.
    """

    def __init__(self, table: ProcessTable, network: Network, cuts: CutDriver, token: str) -> None:
        self._table, self._network, self._cuts, self._token = table, network, cuts, token
        self._live: dict[str, Fault] = {}
        self._brakes: dict[str, asyncio.Task[None]] = {}
        self._pci: dict[tuple[str, int], str] = {}
        self._write = kmsg.write
        table.before_start.append(self._starve)

    def swallow_lines(self) -> None:
        """Sabotage: from now on no line reaches the kernel log."""
        self._write = lambda line: {"sequence": 0, "timestamp_us": 0, "text": line}

    # -- what is asked for

    def plan(self, body: dict[str, Any]) -> Plan:
        """See :class:`agents.faults.Driver`; ``parameters``: ``share`` (0 to 1), ``sequence`` for an XID error."""
        kind, node, index = body.get("type"), str(body.get("target", "")), body.get("gpu_index") or 0
        if kind not in TYPES:
            raise Problem(422, "Unknown fault type", f"type {kind!r}; allowed: {', '.join(TYPES)}")
        process = self._table.running(node)
        if not process.spec.gpus:
            raise Problem(422, "No GPU", f"{node!r} has no GPU; workers have")
        if not isinstance(index, int) or not 0 <= index < process.spec.gpus:
            raise Problem(422, "No such GPU", f"gpu_index {index!r}; {node!r} has 0 to {process.spec.gpus - 1}")
        severity, given = body.get("severity"), body.get("parameters") or {}
        if severity is not None and severity not in SEVERITIES:
            raise Problem(422, "Unknown severity", f"severity {severity!r}; allowed: {', '.join(SEVERITIES)}")
        allowed = ("sequence",) if kind == "XID_ERROR" else ("share",)
        if unknown := sorted(set(given) - set(allowed)):
            raise Problem(422, "Unknown parameter", f"parameter {unknown[0]!r} of {kind}; allowed: {allowed[0]}")
        undo = {"node": node, "index": index, "identity": [process.pid, process.start_time]}
        keys = [f"gpu {node}/{index}"]
        if kind == "XID_ERROR":
            return self._plan_xid(body, undo, keys, given)
        share = given.get("share", SEVERITIES.get(severity or "", USUAL_SHARE))
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise Problem(422, "Bad share", f"share {share!r}; expected a number between 0 and 1")
        touches = [f"simulated GPU {index} of {node}: {share:.0%} of its memory as far as it is free"]
        if kind in SLOWING:
            touches = [f"pid {process.pid} on {node}: SIGSTOP and SIGCONT in a duty cycle, {share:.0%} slower"]
            keys.append(conflict(process))
        parameters = {"share": share, "gpu_index": index}
        return Plan("gpu", kind, [node], touches, undo, parameters, severity, "emulated", keys)

    def _plan_xid(self, body: dict[str, Any], undo: dict[str, Any], keys: list[str], given: dict[str, Any]) -> Plan:
        number = body.get("xid") or USUAL_XID
        if number not in xids.CATALOGUE:
            known = ", ".join(str(each) for each in xids.CATALOGUE)
            raise Problem(422, "Unknown XID", f"xid {number!r}; allowed: {known}")
        if not isinstance(given.get("sequence", False), bool):
            raise Problem(422, "Bad parameter", f"sequence is {given['sequence']!r}; expected true or false")
        if reason := kmsg.missing():
            raise Problem(501, "Not here", f"no line can be written to the kernel log: {reason}")
        node, entry = undo["node"], xids.CATALOGUE[number]
        process = self._table.get(node)
        pci = self.pci(node, undo["index"])
        written = xids.lines(
            number, pci, process.pid or 0, "python3", secrets.token_hex(3), bool(given.get("sequence"))
        )
        undo |= {"consequence": entry.consequence, "lines": written}
        touches = [f"/dev/kmsg: {line}" for line in written]
        deeds = {"end": "SIGKILL", "lose": "SIGKILL, and kept from starting", "hang": "SIGSTOP"}
        if entry.consequence in deeds:
            touches.append(f"pid {process.pid} on {node}: {deeds[entry.consequence]}")
            keys.append(conflict(process))
        if entry.consequence == "slow-peers":
            cut = self._plan_peers(node)
            undo["cut"] = {each.name: getattr(cut, each.name) for each in fields(cut)}
            touches += cut.touches
            keys += cut.conflicts
        parameters = {"xid": number, "pci": pci, "gpu_index": undo["index"], "meaning": entry.meaning}
        repair = ""
        if entry.consequence == "none":
            repair = "a line in the kernel log stays; a monitor that acted on it (cordon, drain) has to be reversed"
        fidelity = "reported" if entry.consequence == "none" else "emulated"
        severity = body.get("severity")
        return Plan("gpu", "XID_ERROR", [node], touches, undo, parameters, severity, fidelity, keys, repair)

    def _plan_peers(self, node: str) -> Plan:
        peers = [name for name, role in self._network.roles().items() if role in WORKER_ROLES and name != node]
        if not peers:
            raise Problem(422, "No peers", f"{node!r} is the only worker; an NVLink error needs two")
        return self._cuts.plan(
            {"type": "loss", "sources": peers, "targets": [node], "parameters": {"percent": LINK_LOSS_PERCENT}}
        )

    # -- doing and undoing

    async def snapshot(self, fault: Fault) -> dict[str, Any]:
        """Process, fences and telemetry of the node."""
        process = self._table.get(fault.undo["node"])
        found = {"process": process.kernel_state(), "fences": list(process.fences)}
        return found | {"gpu": self.telemetry(fault.undo["node"])[fault.undo["index"]]}

    async def apply(self, fault: Fault) -> None:
        """See :class:`agents.faults.Driver`."""
        node = fault.undo["node"]
        if fault.type == "XID_ERROR":
            try:
                fault.evidence["kernel_log"] = [
                    await asyncio.to_thread(self._write, each) for each in fault.undo["lines"]
                ]
            except kmsg.KernelLogError as error:
                raise Problem(500, "Kernel log", str(error)) from None
            await self._suffer(fault, node)
        elif fault.type in SLOWING:
            fault.evidence["base_rate"] = await self._rate(node)
            self._brake(fault)
        self._live[fault.id] = fault

    async def _suffer(self, fault: Fault, node: str) -> None:
        consequence, identity = fault.undo["consequence"], tuple(fault.undo["identity"])
        if consequence == "lose":
            self._table.fence(node, f"GPU has fallen off the bus ({fault.id})")
        if consequence in ("end", "lose"):
            await self._table.end(node)
        if consequence == "hang" and self._table.signal(node, identity, signal.SIGSTOP):
            await self._table.await_kernel_state(node, "stopped")
            self._table.note(node, "hung", f"XID {fault.parameters['xid']}")
        if consequence == "slow-peers":
            await self._cuts.apply(self._cut_of(fault))

    def _cut_of(self, fault: Fault) -> Fault:
        return Fault(**fault.undo["cut"], id=fault.id, deadline=fault.deadline, evidence={}, state=fault.state)

    async def undo(self, fault: Fault) -> None:
        """See :class:`agents.faults.Driver`."""
        node, identity = fault.undo["node"], tuple(fault.undo["identity"])
        self._live.pop(fault.id, None)
        if brake := self._brakes.pop(fault.id, None):
            brake.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await brake
        process = self._table.get(node)
        # After a restart of the agent, too, whatever phase the cycle was in.
        present = (process.pid or 0, process.start_time or 0)
        if fault.type in SLOWING and self._table.signal(node, present, signal.SIGCONT):
            await self._table.await_kernel_state(node, "running")
        if fault.type == "MEMORY_PRESSURE":
            self._table.unfence(node, f"CUDA out of memory ({fault.id})")
        consequence = fault.undo.get("consequence")
        if consequence == "hang" and self._table.signal(node, identity, signal.SIGCONT):
            await self._table.await_kernel_state(node, "running")
            self._table.note(node, "running", "SIGCONT")
        if consequence == "slow-peers":
            await self._cuts.undo(self._cut_of(fault))
        if consequence == "lose":
            self._table.unfence(node, f"GPU has fallen off the bus ({fault.id})")
        await self._table.start_if_stopped(node)

    async def resume(self, fault: Fault) -> None:
        """Take up a fault that another agent has made."""
        self._live[fault.id] = fault
        if fault.type in SLOWING:
            self._brake(fault)

    def differences(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """See :class:`agents.faults.Driver`."""
        return [f"{key} was {before[key]} and is {after.get(key)}" for key in before if before[key] != after.get(key)]

    def capabilities(self) -> dict[str, dict[str, Any]]:
        """See :class:`agents.faults.Driver`."""
        found: dict[str, Any] = {f"gpu.{kind}": {"available": True, "detail": "on simulated GPUs"} for kind in TYPES}
        if reason := kmsg.missing():
            found["gpu.XID_ERROR"] = {"available": False, "detail": reason}
        return found

    def close(self) -> None:
        """Let go of everything; for an agent whose deployment ends."""
        for brake in self._brakes.values():
            brake.cancel()
        self._brakes.clear()
        self._live.clear()

    # -- slowing down

    def _brake(self, fault: Fault) -> None:
        self._brakes[fault.id] = asyncio.get_running_loop().create_task(self._slow_down(fault))

    async def _slow_down(self, fault: Fault) -> None:
        node, share = fault.undo["node"], float(fault.parameters["share"])
        duty = {"stopped": share}
        steering = asyncio.get_running_loop().create_task(self._steer(fault, duty))
        try:
            while True:
                process = self._table.get(node)
                identity = (process.pid or 0, process.start_time or 0)
                stopped = duty["stopped"] * PERIOD_SECONDS
                self._table.signal(node, identity, signal.SIGSTOP)
                try:
                    await asyncio.sleep(stopped)
                finally:
                    self._table.signal(node, identity, signal.SIGCONT)
                await asyncio.sleep(PERIOD_SECONDS - stopped)
        finally:
            steering.cancel()

    async def _steer(self, fault: Fault, duty: dict[str, float]) -> None:
        base = fault.evidence.get("base_rate")
        fault.evidence["steered"] = bool(base)
        while base:
            rate = await self._rate(fault.undo["node"])
            if rate is None:
                return
            wanted = 1 - float(fault.parameters["share"])
            duty["stopped"] = min(MOST_STOPPED, max(0.0, duty["stopped"] + GAIN * (rate / base - wanted)))
            fault.evidence |= {"rate": round(rate, 1), "duty": round(duty["stopped"], 3)}

    async def _rate(self, node: str) -> float | None:
        """Work per second over one window; None where there is no work, or it cannot be read."""
        progress = self._table.get(node).spec.progress
        if not progress:
            return None
        began, first = time.monotonic(), await _read_counter(progress)
        await asyncio.sleep(WINDOW_SECONDS)
        ended, last = time.monotonic(), await _read_counter(progress)
        return (last - first) / (ended - began) if first is not None and last is not None and last > first else None

    # -- memory

    def _starve(self, node: str) -> None:
        """Before a process starts: is there memory enough for it?"""
        for fault in self._live.values():
            taken = float(fault.parameters.get("share", 0)) if fault.type == "MEMORY_PRESSURE" else 0.0
            if fault.undo["node"] == node and 1 - taken < WORKER_MEMORY_SHARE:
                self._table.fence(node, f"CUDA out of memory ({fault.id})")

    # -- telemetry

    def pci(self, node: str, index: int) -> str:
        """``dddd:bb:dd`` of a simulated GPU, reserved for this run."""
        if (node, index) not in self._pci:
            place = sorted(self._network.nodes).index(node) * 8 + index
            self._pci[node, index] = kmsg.reserve_pci(self._token, place)
        return self._pci[node, index]

    def telemetry(self, node: str) -> list[dict[str, Any]]:
        """The node's simulated GPUs, by the names that NVML has for these readings."""
        process = self._table.processes.get(node)
        return [self._reading(node, index) for index in range(process.spec.gpus)] if process else []

    def _reading(self, node: str, index: int) -> dict[str, Any]:
        alive = self._table.get(node).alive()
        used, clock, hot, busy, reasons, state = 0.0, CLOCK_MHZ, TEMPERATURE_C, UTILIZATION, [], "ok"
        for fault in self._live.values():
            if (fault.undo["node"], fault.undo["index"]) != (node, index):
                continue
            share = float(fault.parameters.get("share", 0))
            if fault.type == "THROTTLE":
                clock, reasons = round(CLOCK_MHZ * (1 - share)), ["sw_power_cap"]
            if fault.type == "OVERHEAT":
                clock, hot, reasons = round(CLOCK_MHZ * (1 - share)), HOT_C, ["hw_thermal_slowdown"]
            if fault.type == "COMPUTE_OVERLOAD":
                busy = 100
            if fault.type == "MEMORY_PRESSURE":
                used += share
            if fault.undo.get("consequence") == "lose":
                state = "lost"
        own = WORKER_MEMORY_SHARE if alive else 0.0
        return {
            "index": index,
            "uuid": f"GPU-simulated-{node}-{index}",
            "pci": self.pci(node, index),
            "memory_total_mib": MEMORY_MIB,
            "memory_used_mib": round(MEMORY_MIB * min(1.0, own + used)),
            "sm_clock_mhz": clock,
            "temperature_c": hot,
            "utilization_percent": busy,
            "throttle_reasons": reasons,
            "state": state,
        }


async def _read_counter(progress: dict[str, str]) -> float | None:
    try:
        timeout = aiohttp.ClientTimeout(total=2)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(progress["url"]) as answer:
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError):
        return None
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == progress["metric"]
    ]
    return sum(found) if found else None
