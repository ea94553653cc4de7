"""Faults of kind ``gpu`` on NVIDIA GPUs.

================  ========  ==========================================================================================
XID_ERROR         reported  the driver's line with the PCI address of the GPU; nothing happens to the GPU itself
MEMORY_PRESSURE   real      :mod:`agents.gpu.load` takes a share of the memory, as far as free
COMPUTE_OVERLOAD  real      :mod:`agents.gpu.load` keeps the GPU busy for a share of the time
THROTTLE          real      the SM clocks are locked to a share of their maximum
OVERHEAT          emulated  the power limit is lowered: what the driver does to a GPU that is too hot
================  ========  ==========================================================================================

Clocks and power limit are settings that outlive every process, so the operator has to allow such changes.
"""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.core import kernel
from agents.core.faults import Fault, Plan, Problem
from agents.gpu import requests
from agents.gpu.nvml import MIB, Card, Cards
from agents.xid import kmsg, xids

LOADS = {"MEMORY_PRESSURE": "memory", "COMPUTE_OVERLOAD": "compute"}
SETTINGS = ("THROTTLE", "OVERHEAT")
FIDELITY = {
    "XID_ERROR": "reported",
    "MEMORY_PRESSURE": "real",
    "COMPUTE_OVERLOAD": "real",
    "THROTTLE": "real",
    "OVERHEAT": "emulated",
}
LOAD = (sys.executable, "-m", "agents.gpu.load")
# A first CUDA context on a machine with eight GPUs and no persistence daemon takes many seconds.
START_SECONDS, SHOWN_SECONDS, GONE_SECONDS, LOOK_SECONDS = 60.0, 3.0, 10.0, 0.05
MOST_OF_IT = 0.9
CLOCK_STEP_MHZ = 15
"""The SM clock goes in steps of this."""
NOT_ALLOWED = "clock and power settings are not allowed by this agent's operator (--allow-clock-control)"


class RealGpuDriver:
    """See :class:`agents.core.faults.Driver`.

    Args:
        cards: the GPUs.
        places: target -> indices of its GPUs; raises :class:`Problem` 404 for an unknown one.
        clock_control: whether THROTTLE and OVERHEAT may touch settings of the GPU.
        load: the command of :mod:`agents.gpu.load`.
    """

    kind = "gpu"
    types = requests.TYPES

    def __init__(
        self,
        cards: Cards,
        places: Callable[[str], list[int]],
        clock_control: bool = False,
        load: tuple[str, ...] = LOAD,
    ) -> None:
        self._cards, self._places, self._clock_control, self._load = cards, places, clock_control, load
        self._children: dict[str, asyncio.subprocess.Process] = {}

    # -- what is asked for

    def plan(self, body: dict[str, Any]) -> Plan:
        """See :class:`agents.core.faults.Driver`; what can be asked for is in :mod:`agents.gpu.requests`."""
        if reason := self._cards.missing():
            raise Problem(501, "No GPU", reason)
        asked, node = requests.parse(body), str(body.get("target", ""))
        if asked.type in SETTINGS and not self._clock_control:
            raise Problem(501, "Not allowed here", f"{asked.type}: {NOT_ALLOWED}")
        card = self._card(node, asked.index)
        undo: dict[str, Any] = {"node": node, "uuid": card.uuid, "boot": kernel.boot_id()}
        parameters: dict[str, Any] = {"gpu_index": card.index, "pci": card.pci, "share": asked.share}
        about, repair = f"GPU {card.index} ({card.uuid})", ""
        if asked.type == "XID_ERROR":
            pid, name = self._victim(card)
            undo["lines"] = xids.lines(asked.xid, card.pci, pid, name, secrets.token_hex(3), asked.sequence)
            touches = [f"/dev/kmsg: {line}" for line in undo["lines"]]
            parameters = {"xid": asked.xid, "pci": card.pci, "gpu_index": card.index}
            parameters["meaning"], repair = xids.CATALOGUE[asked.xid].meaning, requests.LINE_STAYS
        elif asked.type == "THROTTLE":
            undo["clock_mhz"] = parameters["clock_mhz"] = round(self._cards.max_clock(card) * (1 - asked.share))
            touches = [f"{about}: SM clocks locked to {undo['clock_mhz']} MHz"]
        elif asked.type == "OVERHEAT":
            undo |= self._plan_power(card, asked.share)
            before, lowered = undo["power_limit_before_mw"], undo["power_limit_mw"]
            parameters |= {"power_limit_mw": lowered, "share": round(1 - lowered / before, 3)}
            touches = [f"{about}: power limit {before} mW lowered to {lowered} mW"]
        else:
            what = "its memory, as far as free" if asked.type == "MEMORY_PRESSURE" else "its time"
            touches = [f"{about}: {asked.share:.0%} of {what}, by a process of its own"]
        fidelity, keys = FIDELITY[asked.type], [f"gpu {card.uuid}"]
        return Plan("gpu", asked.type, [node], touches, undo, parameters, asked.severity, fidelity, keys, repair)

    def _card(self, node: str, index: int | None) -> Card:
        cards, own = {card.index: card for card in self._cards.all()}, self._places(node)
        if not own:
            raise Problem(422, "No GPU", f"{node!r} has no GPU: it asks for none and none of its processes uses one")
        known = ", ".join(str(each) for each in own)
        if index is None and len(own) > 1:
            raise Problem(422, "Which GPU", f"{node!r} has several GPUs; choose one with gpu_index: {known}")
        if index is not None and index not in own:
            raise Problem(422, "No such GPU", f"gpu_index {index}; {node!r} has {known}")
        return cards[own[0] if index is None else index]

    def _victim(self, card: Card) -> tuple[int | str, str]:
        for pid in self._cards.processes(card):
            with contextlib.suppress(OSError):
                return pid, kmsg.escape(Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n"))
        return "'<unknown>'", "<unknown>"

    def _plan_power(self, card: Card, share: float) -> dict[str, int]:
        before = int(self._cards.call(card, "nvmlDeviceGetPowerManagementLimit"))
        lowest, _ = self._cards.call(card, "nvmlDeviceGetPowerManagementLimitConstraints")
        lowered = max(int(lowest), round(before * (1 - share)))
        if lowered >= before:
            raise Problem(409, "No room", f"GPU {card.index}: its power limit, {before} mW, is already its lowest")
        return {"power_limit_before_mw": before, "power_limit_mw": lowered}

    # -- doing and undoing

    async def snapshot(self, fault: Fault) -> dict[str, Any]:
        """Readings, and what this fault may have left: its load and the setting that it has changed."""
        return await asyncio.to_thread(self._snapshot, fault)

    def _snapshot(self, fault: Fault) -> dict[str, Any]:
        card = self._cards.by_uuid(fault.undo["uuid"])
        found: dict[str, Any] = {"gpu": self._cards.reading(card), "load": self._held(fault, card)}
        if fault.type == "THROTTLE":
            found["lock"] = self._locked(fault, card)
        if fault.type == "OVERHEAT":
            found["power_limit_mw"] = self._cards.call(card, "nvmlDeviceGetPowerManagementLimit")
        return found

    def _locked(self, fault: Fault, card: Card) -> str:
        """In words, that the SM clock is where the fault locks it; empty when it is not.

        NVML has no reading of the lock, but a clock that is locked is there whether the GPU works or not.
        """
        if fault.undo["boot"] != kernel.boot_id():
            return ""
        clock = self._cards.reading(card)["sm_clock_mhz"]
        near = clock is not None and abs(clock - fault.undo["clock_mhz"]) <= CLOCK_STEP_MHZ
        return f"the SM clock is {clock} MHz, still locked" if near else ""

    def _held(self, fault: Fault, card: Card) -> str:
        """In words, what is left of the load; empty when nothing is."""
        load = fault.evidence.get("load")
        if load is None or load["boot"] != kernel.boot_id():
            return ""
        pid = load["pid"]
        if _runs(load):
            return f"pid {pid} runs"
        another = kernel.stat_of(pid)  # what has the pid now, unless it is our own process that nobody has reaped
        ours = another is None or another[1] == load["start_time"]
        if ours and pid in (processes := self._cards.processes(card)):
            return f"NVML still shows pid {pid} with {processes[pid]} MiB"
        if "card_used_mib" in load:
            used = self._cards.reading(card)["memory_used_mib"]
            if used is not None and used > load["card_used_mib"] - MOST_OF_IT * load["bytes"] / MIB:
                return f"{used} MiB of the card are still in use; {load['card_used_mib']} were under the load"
        return ""

    async def apply(self, fault: Fault) -> None:
        """See :class:`agents.core.faults.Driver`."""
        card = self._cards.by_uuid(fault.undo["uuid"])
        if fault.type == "XID_ERROR":
            await requests.report(fault, kmsg.write)
        elif fault.type == "THROTTLE":
            clock = fault.undo["clock_mhz"]
            await asyncio.to_thread(self._cards.call, card, "nvmlDeviceSetGpuLockedClocks", clock, clock)
            fault.evidence["not_readable"] = "NVML cannot read a clock lock, so one set by the operator would be lost"
        elif fault.type == "OVERHEAT":
            limit = fault.undo["power_limit_mw"]
            await asyncio.to_thread(self._cards.call, card, "nvmlDeviceSetPowerManagementLimit", limit)
            fault.evidence["emulates"] = "the GPU gets no hotter; it is slowed as the driver slows one that is too hot"
        else:
            await self._hold(fault, card)
        fault.evidence["during"] = await asyncio.to_thread(self._cards.reading, card)

    async def _hold(self, fault: Fault, card: Card) -> None:
        before = await asyncio.to_thread(self._cards.reading, card)
        options = ["--share", str(fault.parameters["share"]), "--until", repr(fault.deadline), "--parent"]
        # The token of the agent is not the load's business.
        env = {name: value for name, value in os.environ.items() if name != "FT_AGENT_TOKEN"}
        child = await asyncio.create_subprocess_exec(
            *(*self._load, LOADS[fault.type], *options, str(os.getpid())),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=env | {"CUDA_VISIBLE_DEVICES": card.uuid},
            cwd=Path(__file__).parents[2],
        )
        self._children[fault.id] = child
        started = kernel.stat_of(child.pid)
        load: dict[str, Any] = {"pid": child.pid, "start_time": started and started[1], "boot": kernel.boot_id()}
        fault.evidence["load"] = load
        load |= await self._word_of(child)
        if load["bytes"]:
            fault.parameters["share_in_force"] = round(fault.parameters["share"] * load["bytes"] / load["wanted"], 3)
        deadline = time.monotonic() + SHOWN_SECONDS
        while child.pid not in await asyncio.to_thread(self._cards.processes, card) and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
        # In a container without the machine's pids NVML does not tell which process is ours: then the card counts.
        load["named"] = child.pid in await asyncio.to_thread(self._cards.processes, card)
        reading = await asyncio.to_thread(self._cards.reading, card)
        used, used_before = reading["memory_used_mib"], before["memory_used_mib"]
        if load["named"] or not load["bytes"] or None in (used, used_before):
            return
        if used - used_before < MOST_OF_IT * load["bytes"] / MIB:
            detail = f"NVML shows neither pid {child.pid} nor its {load['bytes'] // MIB} MiB on GPU {card.index}"
            raise Problem(500, "Not seen", detail)
        load["card_used_mib"] = used

    async def _word_of(self, child: asyncio.subprocess.Process) -> dict[str, Any]:
        assert child.stdout is not None
        try:
            line = await asyncio.wait_for(child.stdout.readline(), START_SECONDS)
            word: dict[str, Any] = json.loads(line or b'{"error": "it ended without a word"}')
        except TimeoutError:
            word = {"error": f"it held nothing after {START_SECONDS:g} seconds"}
        if "missing" in word:
            raise Problem(501, "No CUDA", str(word["missing"]))
        if "error" in word:
            raise Problem(500, "The load failed", str(word["error"]))
        return word

    async def undo(self, fault: Fault) -> None:
        """See :class:`agents.core.faults.Driver`."""
        if fault.type in LOADS:
            await self._end_load(fault)
        if fault.type in SETTINGS and fault.undo["boot"] == kernel.boot_id():  # a reboot has undone it
            card = self._cards.by_uuid(fault.undo["uuid"])
            call, arguments = "nvmlDeviceResetGpuLockedClocks", []
            if fault.type == "OVERHEAT":
                call, arguments = "nvmlDeviceSetPowerManagementLimit", [fault.undo["power_limit_before_mw"]]
            await asyncio.to_thread(self._cards.call, card, call, *arguments)
            if fault.type == "THROTTLE":
                await self._await_unlocked(fault, card)

    async def _await_unlocked(self, fault: Fault, card: Card) -> None:
        """Give the clock time to leave what it was locked to; one that was there before may well stay."""
        deadline = time.monotonic() + GONE_SECONDS
        before = fault.evidence.get("before", {}).get("lock", "")
        while await asyncio.to_thread(self._locked, fault, card) != before and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)

    async def _end_load(self, fault: Fault) -> None:
        load = fault.evidence.get("load")
        if load and load["boot"] == kernel.boot_id():
            kernel.signal_process(load["pid"], load["start_time"], signal.SIGKILL)
        if child := self._children.pop(fault.id, None):
            # One that the driver does not let go of is found below, where NVML still shows it.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), GONE_SECONDS)
        card, deadline = self._cards.by_uuid(fault.undo["uuid"]), time.monotonic() + GONE_SECONDS
        while await asyncio.to_thread(self._held, fault, card) and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)

    async def resume(self, fault: Fault) -> None:
        """Take up a fault of an agent before this one: its load has ended with it, settings have stayed."""
        if fault.type in LOADS:
            await self._hold(fault, self._cards.by_uuid(fault.undo["uuid"]))

    async def look(self, fault: Fault) -> None:
        """Put the present readings into the evidence of an active fault."""
        card = self._cards.by_uuid(fault.undo["uuid"])
        now: dict[str, Any] = {"gpu": await asyncio.to_thread(self._cards.reading, card)}
        if fault.type in LOADS:
            now["load"] = await asyncio.to_thread(self._held, fault, card) or "gone"
        fault.evidence["now"] = now

    def differences(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """See :class:`agents.core.faults.Driver`; clocks, temperature and the use by others change by themselves."""
        return [
            f"{key} was {before[key]!r} and is {after.get(key)!r}"
            for key in before
            if key != "gpu" and before[key] != after.get(key)
        ]

    def capabilities(self) -> dict[str, dict[str, Any]]:
        """See :class:`agents.core.faults.Driver`."""
        reason, number = self._cards.missing(), len(self._cards.all())
        why = dict.fromkeys([each.name for each in self.types], reason)
        why["XID_ERROR"] = reason or kmsg.missing()
        for kind in SETTINGS:
            why[kind] = reason or ("" if self._clock_control else NOT_ALLOWED)
        words = f"on {number} NVIDIA GPU" + "s" * (number != 1)
        return {f"gpu.{kind}": {"available": not why[kind], "detail": why[kind] or words} for kind in why}


def _runs(load: dict[str, Any]) -> bool:
    found = kernel.stat_of(load["pid"])
    return found is not None and found[1] == load["start_time"] and found[0] not in "ZX"
