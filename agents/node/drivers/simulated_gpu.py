"""Faults of kind ``gpu`` on the local target: workers have simulated GPUs and suffer what a real fault would bring.

An XID error is a real line in the kernel log (fidelity *reported*) and, where it is fatal to the workload, its
emulated consequence (*emulated*): the process ends, ends and cannot start again, hangs, or its traffic with other
workers suffers.

THROTTLE, OVERHEAT and COMPUTE_OVERLOAD slow the worker down: its process is stopped and continued in a duty cycle that
is steered by the measured rate of its work, which is the bytes that it answers with: nearly all of them are tokens. A
CPU quota would do nothing, for a simulated engine mostly sleeps. What the rate would be without the fault is measured
before it, and again under it in a window without the brake: at the first work, and then from time to time, for the load
may have changed.

MEMORY_PRESSURE takes a share of the GPU's memory as far as free. A running worker has taken its own in advance
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

from agents.core.faults import Fault, Plan, Problem
from agents.core.kernel import signal_process
from agents.gpu import requests
from agents.node.access import CellAccess, NodeDriver
from agents.node.drivers.cuts import CellCutDriver
from agents.node.drivers.processes import conflict, standing, stopping
from agents.xid import kmsg, xids

SLOWING = ("THROTTLE", "OVERHEAT", "COMPUTE_OVERLOAD")
ENDING = ("end", "lose", "hang")
"""Consequences of an XID error that the worker's process suffers."""
WORKER_ROLES = ("worker", "decode", "prefill")
# An H100 80 GB as it reports itself under load.
MEMORY_MIB, CLOCK_MHZ, TEMPERATURE_C, UTILIZATION = 81920, 1980, 62, 70
HOT_C = 95
WORKER_MEMORY_SHARE = 0.6
# Few enough that TCP gets over it in seconds: with more, one connection in some hundred needs longer than a minute.
LINK_LOSS_PERCENT = 5
# Short enough that a stream looks slow rather than broken, long enough for a worker to get something done.
PERIOD_SECONDS = 0.06
WINDOW_SECONDS = 0.4
# A look at all processes of the cell takes milliseconds, too long for each cycle.
FAMILY_SECONDS = 1.0
GAIN, MOST_STOPPED = 0.4, 0.97
# Free for one window of this many seconds, a worker is faster than it should be by at most 3 % of its rate.
BASE_SECONDS = 15.0
# A slow stream may bring nothing in one window because of the brake.
IDLE_WINDOWS = 3


class SimulatedGpuDriver(NodeDriver):
    """The simulated GPUs of a cell; the driver of cuts breaks the network for XID 74.

    Attributes:
        write: puts a line into the kernel log, as :func:`agents.xid.kmsg.write` does.
    """

    kind = "gpu"
    types = requests.TYPES

    def __init__(self, cell: CellAccess) -> None:
        super().__init__(cell)
        self._table, self._network, self._cuts = cell.table, cell.network, cell.driver(CellCutDriver)
        self._live: dict[str, Fault] = {}
        self._brakes: dict[str, asyncio.Task[None]] = {}
        self._pci: dict[tuple[str, int], str] = {}
        self.write = kmsg.write
        self._table.before_start.append(self._starve)

    # -- what is asked for

    def plan(self, body: dict[str, Any]) -> Plan:
        """See :class:`agents.core.faults.Driver`; ``parameters``: ``share`` (0 to 1), ``sequence`` for an XID error."""
        asked, node = requests.parse(body), str(body.get("target", ""))
        process, index = self._table.running(node), asked.index or 0
        if not process.spec.gpus:
            raise Problem(422, "No GPU", f"{node!r} has no GPU; only workers have")
        if not 0 <= index < process.spec.gpus:
            raise Problem(422, "No such GPU", f"gpu_index {index!r}; {node!r} has 0 to {process.spec.gpus - 1}")
        undo = {"node": node, "index": index, "identity": [process.pid, process.start_time]}
        keys = [f"gpu {node}/{index}"]
        if asked.type == "XID_ERROR":
            return self._plan_xid(asked, undo, keys)
        touches = [f"simulated GPU {index} of {node}: {asked.share:.0%} of its memory as far as free"]
        if asked.type in SLOWING:
            whom = f"pid {process.pid} on {node} and everything it has started"
            touches = [f"{whom}: SIGSTOP and SIGCONT in a duty cycle, {asked.share:.0%} slower"]
            keys += [conflict(process), stopping(node)]
        parameters = {"share": asked.share, "gpu_index": index}
        return Plan("gpu", asked.type, [node], touches, undo, parameters, asked.severity, "emulated", keys)

    def _plan_xid(self, asked: requests.GpuRequest, undo: dict[str, Any], keys: list[str]) -> Plan:
        node, entry = undo["node"], xids.CATALOGUE[asked.xid]
        process = self._table.get(node)
        pci = self.pci(node, undo["index"])
        written = xids.lines(asked.xid, pci, process.pid or 0, "python3", secrets.token_hex(3), asked.sequence)
        undo |= {"consequence": entry.consequence, "lines": written}
        touches = [f"/dev/kmsg: {line}" for line in written]
        deeds = {"end": "SIGKILL", "lose": "SIGKILL, and kept from starting", "hang": "SIGSTOP"}
        if entry.consequence in deeds:
            touches.append(f"pid {process.pid} on {node}: {deeds[entry.consequence]}")
            keys += [conflict(process), *([stopping(node)] if entry.consequence == "hang" else [])]
        if entry.consequence == "slow-peers":
            cut = self._plan_peers(node)
            undo["cut"] = {each.name: getattr(cut, each.name) for each in fields(cut)}
            touches += cut.touches
            keys += cut.conflicts
        parameters = {"xid": asked.xid, "pci": pci, "gpu_index": undo["index"], "meaning": entry.meaning}
        if "cut" in undo:
            parameters["link_loss_percent"] = LINK_LOSS_PERCENT
        only_reported = entry.consequence == "none"
        repair, fidelity = (requests.LINE_STAYS, "reported") if only_reported else ("", "emulated")
        return Plan("gpu", "XID_ERROR", [node], touches, undo, parameters, asked.severity, fidelity, keys, repair)

    def _plan_peers(self, node: str) -> Plan:
        peers = [name for name, role in self._network.roles().items() if role in WORKER_ROLES and name != node]
        if not peers:
            raise Problem(422, "No peers", f"{node!r} is the only worker; an NVLink error needs two")
        return self._cuts.plan(
            {"type": "loss", "sources": peers, "targets": [node], "parameters": {"percent": LINK_LOSS_PERCENT}}
        )

    # -- doing and undoing

    async def snapshot(self, fault: Fault) -> dict[str, Any]:
        """What is wrong with the GPU, this fault's fences and, where the fault touches it, the process."""
        node, index = fault.undo["node"], fault.undo["index"]
        process = self._table.get(node)
        found = {"gpu": self._strain(node, index), "fences": [each for each in process.fences if fault.id in each]}
        if _touches_process(fault):
            found["process"] = standing(process, fault.undo["identity"])
        return found

    async def apply(self, fault: Fault) -> None:
        """See :class:`agents.core.faults.Driver`."""
        node = fault.undo["node"]
        if fault.type == "XID_ERROR":
            await requests.report(fault, self.write)
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
        if consequence == "hang" and await self._table.stop(node, identity):
            self._table.note(node, "hung", f"XID {fault.parameters['xid']}")
        if consequence == "slow-peers":
            cut = self._cut_of(fault)
            await self._cuts.apply(cut)
            fault.evidence |= cut.evidence

    def _cut_of(self, fault: Fault) -> Fault:
        return Fault(**fault.undo["cut"], id=fault.id, deadline=fault.deadline, evidence={}, state=fault.state)

    async def undo(self, fault: Fault) -> None:
        """See :class:`agents.core.faults.Driver`."""
        node, identity = fault.undo["node"], tuple(fault.undo["identity"])
        self._live.pop(fault.id, None)
        if brake := self._brakes.pop(fault.id, None):
            brake.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await brake
        process = self._table.get(node)
        # After a restart of the agent, too, whatever phase the cycle was in.
        present = (process.pid or 0, process.start_time or 0)
        if fault.type in SLOWING:
            await self._table.go_on(node, present)
        kept = any(fault.id in reason for reason in process.fences)
        if fault.type == "MEMORY_PRESSURE":
            self._table.unfence(node, f"CUDA out of memory ({fault.id})")
        consequence = fault.undo.get("consequence")
        if consequence == "hang" and await self._table.go_on(node, identity):
            self._table.note(node, "running", "SIGCONT")
        if consequence == "slow-peers":
            cut = self._cut_of(fault)
            await self._cuts.undo(cut)
            fault.evidence |= cut.evidence
        if consequence == "lose":
            self._table.unfence(node, f"GPU has fallen off the bus ({fault.id})")
        if kept or _touches_process(fault):
            await self._table.start_if_stopped(node)

    async def look(self, fault: Fault) -> None:
        """Put the GPU's present telemetry, and what the peers have lost, into the evidence of an active fault."""
        fault.evidence["now"] = {"gpu": self.telemetry(fault.undo["node"])[fault.undo["index"]]}
        if fault.undo.get("consequence") == "slow-peers":
            cut = self._cut_of(fault)
            await self._cuts.look(cut)
            fault.evidence |= cut.evidence

    def adopt(self, fault: Fault) -> None:
        """Know of a fault that another agent has made; before processes are started, for it may keep one from that."""
        self._live[fault.id] = fault

    async def resume(self, fault: Fault) -> None:
        """Take up a fault that another agent has made."""
        self.adopt(fault)
        if fault.type in SLOWING:
            fault.evidence["base_rate"] = None
            self._brake(fault)

    def differences(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """See :class:`agents.core.faults.Driver`."""
        return [f"{key} was {before[key]} and is {after.get(key)}" for key in before if before[key] != after.get(key)]

    def capabilities(self) -> dict[str, dict[str, Any]]:
        """See :class:`agents.core.faults.Driver`."""
        found: dict[str, Any] = {
            f"gpu.{each.name}": {"available": True, "detail": "on simulated GPUs"} for each in self.types
        }
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
        members, known, looked_at = list[tuple[int, int]](), (0, 0), 0.0
        try:
            while True:
                process = self._table.get(node)
                identity = (process.pid or 0, process.start_time or 0)
                if identity != known or time.monotonic() > looked_at + FAMILY_SECONDS:
                    members, known, looked_at = self._table.family(node, identity), identity, time.monotonic()
                stopped = duty["stopped"] * PERIOD_SECONDS
                for each in members:
                    signal_process(*each, signal.SIGSTOP)
                try:
                    await asyncio.sleep(stopped)
                finally:
                    for each in members:
                        signal_process(*each, signal.SIGCONT)
                await asyncio.sleep(PERIOD_SECONDS - stopped)
        finally:
            steering.cancel()

    async def _steer(self, fault: Fault, duty: dict[str, float]) -> None:
        node, share = fault.undo["node"], float(fault.parameters["share"])
        base, based_at, idle = fault.evidence.get("base_rate"), time.monotonic(), 0
        while True:
            rate = await self._rate(node)
            if rate is None:
                idle += 1
                if idle >= IDLE_WINDOWS:  # the next work may be of another load
                    base, duty["stopped"] = None, share
                fault.evidence |= {"steered": False, "base_rate": base, "rate": None}
                await asyncio.sleep(PERIOD_SECONDS)  # where nothing can be read the window takes no time
                continue
            idle = 0
            if base is None or time.monotonic() > based_at + BASE_SECONDS:
                braked, duty["stopped"] = duty["stopped"], 0.0
                await asyncio.sleep(PERIOD_SECONDS)  # what has begun of a cycle is still braked
                base, based_at = await self._rate(node), time.monotonic()
                duty["stopped"] = braked
            else:
                duty["stopped"] = min(MOST_STOPPED, max(0.0, duty["stopped"] + GAIN * (rate / base - (1 - share))))
                fault.evidence |= {"steered": True, "rate": round(rate, 1), "duty": round(duty["stopped"], 3)}
            fault.evidence["base_rate"] = base

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
            self._pci[node, index] = kmsg.reserve_pci(self.cell.token, place)
        return self._pci[node, index]

    def telemetry(self, node: str) -> list[dict[str, Any]]:
        """The node's simulated GPUs, by the names that NVML has for these readings."""
        process = self._table.processes.get(node)
        return [self._reading(node, index) for index in range(process.spec.gpus)] if process else []

    def _strain(self, node: str, index: int) -> dict[str, Any]:
        """What the live faults make of a GPU, whoever uses it."""
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
        return {
            "memory_taken_mib": round(MEMORY_MIB * used),
            "sm_clock_mhz": clock,
            "temperature_c": hot,
            "utilization_percent": busy,
            "throttle_reasons": reasons,
            "state": state,
        }

    def _reading(self, node: str, index: int) -> dict[str, Any]:
        strain = self._strain(node, index)
        own = round(MEMORY_MIB * WORKER_MEMORY_SHARE) if self._table.get(node).alive() else 0
        return {
            "index": index,
            "uuid": f"GPU-simulated-{node}-{index}",
            "pci": self.pci(node, index),
            "memory_total_mib": MEMORY_MIB,
            "memory_used_mib": min(MEMORY_MIB, own + strain.pop("memory_taken_mib")),
            **strain,
        }


def _touches_process(fault: Fault) -> bool:
    return fault.type in SLOWING or fault.undo.get("consequence") in ENDING


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
