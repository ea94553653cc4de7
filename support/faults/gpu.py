"""Faults of GPUs, asked of the fault service, proven in the kernel log, on the process and by the client's tokens."""

from collections.abc import Callable
from typing import Any

from support.clock import now
from support.contract.deployment import Deployment, Node
from support.contract.target import Target
from support.events import EventLog
from support.faults.network import check_losses, see_losses
from support.faults.proven import LEASE_SECONDS, ProvenFault, on_clock, struck_at
from support.observe.waiting import prove
from support.priority import right_of_way

PROOF_SECONDS = 5.0
CONSEQUENCES = {43: "gone", 48: "gone", 79: "gone", 94: "gone", 95: "gone", 119: "stopped", 120: "stopped"}
"""XID -> what the kernel shows of the victim's process afterwards; for all others it lives on."""
SEQUENCES = {48: [63, 95, 154], 95: [154], 119: [154]}
"""XID -> those that follow it in real logs."""
# The duty cycle is corrected every 0.4 s, and settles in a few of those.
SETTLE_SECONDS, WINDOW_SECONDS, TOLERANCE = 15.0, 1.0, 0.2
READINGS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "THROTTLE": lambda seen: seen["throttle_reasons"] == ["sw_power_cap"],
    "OVERHEAT": lambda seen: seen["throttle_reasons"] == ["hw_thermal_slowdown"] and seen["temperature_c"] > 90,
    "COMPUTE_OVERLOAD": lambda seen: seen["utilization_percent"] == 100,
    "MEMORY_PRESSURE": lambda seen: seen["memory_used_mib"] > 0.65 * seen["memory_total_mib"],
}
"""Fault -> whether the victim's telemetry shows it."""


class GpuFaults:
    """Breaks GPUs; every injection and proof goes to ``events``.

    Args:
        rate: tokens per second that clients have received over the given number of seconds up to now.
    """

    def __init__(
        self,
        target: Target,
        deployment: Deployment,
        events: EventLog,
        rate: Callable[[float], float],
    ) -> None:
        self._service, self._witness = target.service, target.witness
        self._deployment, self._events, self._rate = deployment, events, rate

    @right_of_way()
    def xid(self, number: int, node: Node, sequence: bool = False, lease_seconds: float = LEASE_SECONDS) -> ProvenFault:
        """Report an XID error of a worker's GPU; returns once the kernel log shows it and the worker suffers it.

        Args:
            sequence: with those that follow it in real logs; the log has to show them all.

        Raises:
            Inconclusive: the log or the worker does not show it.
            Refused: the fault service refused.
        """
        before = self._deployment.life(node)
        with self._witness.kernel_log(node) as log:
            injected_at = now()
            order: dict[str, Any] = {"target_pod": node.name, "fault_type": "XID_ERROR", "xid": number}
            order |= {"parameters": {"sequence": sequence}, "duration_seconds": lease_seconds}
            fault = self._service.inject("gpu", **order)
            done_at = now()
            what = f"XID {number} ({fault['parameters']['meaning']}) on the GPU of {node.name}"
            self._events.add("fault", node.name, what, at=injected_at, **on_clock(fault))
            wanted = CONSEQUENCES.get(number, "alive")
            numbers = [number, *(SEQUENCES.get(number, []) if sequence else [])]

            def unproven() -> str | None:
                if missing := [each for each in numbers if each not in log.xids(fault["parameters"]["pci"])]:
                    return f"the kernel log does not show XID {', '.join(str(each) for each in missing)}"
                seen = self._witness.state(before)
                return None if seen == wanted else f"its process is {seen}"

            proven_at = prove(unproven, PROOF_SECONDS, f"{what} is seen", "the fault was not proven")
        rest = f" and then {', '.join(str(each) for each in numbers[1:])}" if numbers[1:] else ""
        words = f"the kernel log shows {what}{rest}; its process is {wanted} ({fault['fidelity']})"
        if percent := fault["parameters"].get("link_loss_percent"):
            for peer in self._deployment.workers:
                if peer != node:
                    losses = check_losses(see_losses(self._witness, peer, node, percent / 100), percent / 100)
                    words += f"; between it and {peer.name} are lost {losses}"
        self._events.add("proof", node.name, words, at=proven_at, fault=fault["id"])
        struck = struck_at(fault, injected_at)
        return ProvenFault(fault["id"], "gpu", f"XID {number}", node, injected_at, done_at, proven_at, struck, before)

    def strain(self, kind: str, node: Node, share: float, lease_seconds: float = LEASE_SECONDS) -> ProvenFault:
        """Slow a worker's GPU down by ``share`` or take that share of its memory; returns once that is seen.

        Args:
            kind: key of :data:`READINGS`.

        Raises:
            Inconclusive: telemetry does not show it, or clients do not get the fewer tokens that they should.
            Refused: the fault service refused.
        """
        slows = kind != "MEMORY_PRESSURE"
        if slows:
            self._see_work()
        base, injected_at = self._rate(WINDOW_SECONDS), now()
        order: dict[str, Any] = {"target_pod": node.name, "fault_type": kind, "parameters": {"share": share}}
        fault = self._service.inject("gpu", **order, duration_seconds=lease_seconds)
        done_at = now()
        what = f"{kind} of the GPU of {node.name} by {share:.0%}"
        self._events.add("fault", node.name, what, at=injected_at, **on_clock(fault))
        wanted = (1 - share) * base

        def unproven() -> str | None:
            reading = self._witness.telemetry(node)
            if not READINGS[kind](reading):
                return f"its telemetry is {reading}"
            rate = self._rate(WINDOW_SECONDS) if slows and now() > injected_at + WINDOW_SECONDS else base
            close = not slows or abs(rate - wanted) <= TOLERANCE * share * base
            return None if close else f"{rate:.0f} tokens per second of {base:.0f}; {wanted:.0f} are wanted"

        proven_at = prove(unproven, SETTLE_SECONDS, f"{what} is seen", "the fault was not proven")
        effect = (
            f"clients get {self._rate(WINDOW_SECONDS):.0f} of {base:.0f} tokens per second"
            if slows
            else "its memory is taken"
        )
        self._events.add("proof", node.name, f"{what}: {effect}", at=proven_at, fault=fault["id"])
        details = {"rate": base} if slows else {}
        return ProvenFault(
            fault["id"], "gpu", kind, node, injected_at, done_at, proven_at, injected_at, details=details
        )

    def _see_work(self) -> None:
        nothing = "no tokens came before the fault, so none could come slower"
        prove(lambda: None if self._rate(WINDOW_SECONDS) else "none", SETTLE_SECONDS, "tokens come", nothing)

    def recover(self, fault: ProvenFault) -> None:
        """Undo the fault and see the victim alive and its GPU as it was.

        Raises:
            Inconclusive: the service says recovered, the victim does not.
        """
        self._service.recover(fault.id)
        self._events.add("fault", fault.node.name, f"{fault.kind} of {fault.node.name} undone", fault=fault.id)
        self.see_healed(fault, PROOF_SECONDS)

    def see_healed(self, fault: ProvenFault, timeout: float) -> None:
        """Wait until the victim is alive and its GPU as it was, whoever has ended the fault; one that was slowed down
        has to be as fast again as it was, for clients that still get tokens.

        Raises:
            Inconclusive: that is not so within ``timeout`` seconds.
        """
        base, since = fault.details.get("rate", 0.0), now()

        def broken() -> str | None:
            seen = self._witness.state(self._deployment.life(fault.node))
            reading = self._witness.telemetry(fault.node)
            if seen != "alive" or reading["state"] != "ok":
                return f"its process is {seen}, its GPU {reading['state']}"
            if any(shows(reading) for shows in READINGS.values()):
                return f"its telemetry is {reading}"
            rate = self._rate(WINDOW_SECONDS) if base and now() > since + WINDOW_SECONDS else 0.0
            if base and (now() <= since + WINDOW_SECONDS or 0 < rate < (1 - TOLERANCE) * base):
                return f"{rate:.0f} tokens per second of {base:.0f}"
            return None

        at = prove(broken, timeout, f"{fault.node.name} is free of {fault.kind}", "the recovery was not proven")
        self._events.add("proof", fault.node.name, f"{fault.node.name} runs, its GPU is sound", at=at, fault=fault.id)
