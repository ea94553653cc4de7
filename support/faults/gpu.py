"""Faults of GPUs, proven in the kernel log, on the process and by the client's tokens."""

import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

from support.clock import now
from support.contract.deployment import Node
from support.data import read_yaml
from support.faults.fault import Fault, Ground, Healing, Ordered, Proof, ProvenFault, strength
from support.faults.network import check_losses, lossless, see_losses
from support.faults.processes import started_again
from support.judge.chance import draws_to_see
from support.observe.waiting import prove
from support.schema import Expected, OneOf
from support.settings import ROOT

PROOF_SECONDS = 5.0
CONSEQUENCES = {43: "gone", 48: "gone", 79: "gone", 94: "gone", 95: "gone", 119: "stopped", 120: "stopped"}
"""XID -> what the kernel shows of the victim's process afterwards; for all others it lives on."""
OFF_THE_BUS = 79
"""The one that keeps a worker from being started, whatever its restart policy."""
SEQUENCES = {48: [63, 95, 154], 95: [154], 119: [154]}
"""XID -> those that follow it in real logs."""
# The duty cycle is corrected every 0.4 s, and settles in a few of those.
SETTLE_SECONDS, WINDOW_SECONDS, TOLERANCE = 15.0, 1.0, 0.2


@functools.cache
def _xids() -> Mapping[int, Mapping[str, Any]]:
    found: Mapping[int, Mapping[str, Any]] = read_yaml(ROOT / "agents" / "xid" / "xids.yaml")["xids"]
    return found


def known_xids() -> list[int]:
    """The XID errors that the GPU agents can report."""
    return list(_xids())


def xid(number: int) -> Mapping[str, Any]:
    """What the GPU agents know of an XID error: its ``meaning``, NVIDIA's ``action``, what the ``workload`` suffers."""
    return _xids()[number]


@dataclass(frozen=True)
class GpuFault(Fault):
    """Something is done to the GPU of a worker."""

    family = "gpu"
    workers_only = True

    def unsound(self, ground: Ground, nodes: Sequence[Node], before: Any) -> str | None:
        """It does not run, or its GPU is not as it was made."""
        return _trouble(ground, nodes[0])

    def healing(self, ground: Ground, proven: ProvenFault) -> Healing:
        """The victim is alive and its GPU as it was; one that was slowed down has to be as fast again as it was, for
        clients that still get tokens.
        """
        base, since, name = proven.details.get("rate", 0.0), now(), proven.node.name

        def broken() -> str | None:
            if trouble := _trouble(ground, proven.node):
                return trouble
            rate = ground.rate(WINDOW_SECONDS) if base and now() > since + WINDOW_SECONDS else 0.0
            if base and (now() <= since + WINDOW_SECONDS or 0 < rate < (1 - TOLERANCE) * base):
                return f"{rate:.0f} tokens per second of {base:.0f}"
            return None

        return Healing(broken, f"{name} is free of {self.kind}", f"{name} runs, its GPU is sound")


def _trouble(ground: Ground, node: Node) -> str | None:
    seen, reading = ground.witness.state(ground.deployment.life(node)), ground.witness.telemetry(node)
    if seen != "alive" or reading["state"] != "ok":
        return f"its process is {seen}, its GPU {reading['state']}"
    strained = any(kind.shows(reading) for kind in Strain.__subclasses__())
    return f"its telemetry is {reading}" if strained else None


@dataclass(frozen=True)
class XidError(GpuFault):
    """The driver reports an XID error in the kernel log, and the worker suffers the consequences.

    Attributes:
        sequence: with those that follow it in real logs; the log has to show them all.
    """

    name = "xid"
    failure = "xid"
    types = ("XID_ERROR",)
    needs = ("kmsg",)
    drawn = "GPU errors"
    urgent = True
    xid: Annotated[int, OneOf(known_xids)] = field(default=79, metadata=strength("xid", "Xid"))
    sequence: bool = field(default=False, metadata=strength("follow-up errors", "YesNo"))

    @property
    def kind(self) -> str:
        """With its number."""
        return f"XID {self.xid}"

    @property
    def hits_process(self) -> bool:
        """Some XIDs end it."""
        return CONSEQUENCES.get(self.xid) == "gone"

    def look(self, ground: Ground, nodes: Sequence[Node], until_proven: ExitStack) -> Any:
        """The victim's life, its GPU by its place on the bus, and the kernel log from now on."""
        life, pci = ground.deployment.life(nodes[0]), ground.witness.telemetry(nodes[0])["pci"]
        return life, pci, until_proven.enter_context(ground.witness.kernel_log(nodes[0]))

    def order(self, nodes: Sequence[Node], before: Any) -> dict[str, Any]:
        """See :class:`support.faults.fault.Fault`."""
        order = {"target_pod": nodes[0].name, "fault_type": self.types[0], "xid": self.xid}
        return order | {"parameters": {"sequence": self.sequence}}

    def describe(self, ordered: Ordered) -> str:
        """See :class:`support.faults.fault.Fault`."""
        return f"the GPU of {ordered.nodes[0].name} reported XID {self.xid} ({ordered.made['parameters']['meaning']})"

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """The kernel log shows it of the victim's own GPU, and the kernel what has become of the worker's process.

        Raises:
            Inconclusive: the log or the worker does not show it.
        """
        life, pci, log = ordered.before
        what, parameters = self.describe(ordered), ordered.made["parameters"]
        wanted = CONSEQUENCES.get(self.xid, "alive")
        numbers = [self.xid, *(SEQUENCES.get(self.xid, []) if self.sequence else [])]

        def unproven() -> str | None:
            if missing := [each for each in numbers if each not in log.xids(pci)]:
                return f"the kernel log does not show XID {', '.join(map(str, missing))} of the GPU at {pci}"
            seen = ground.witness.state(life)
            return None if seen == wanted else f"its process is {seen}"

        at = prove(unproven, PROOF_SECONDS, f"{self.kind} is seen", "the fault was not proven")
        percent = parameters.get("link_loss_percent", 0)
        rest = f" and then {', '.join(str(each) for each in numbers[1:])}" if numbers[1:] else ""
        words = f"the kernel log shows that {what}{rest}; its process is {wanted} ({ordered.made['fidelity']})"
        for peer in _peers(ground, node := ordered.nodes[0]) if percent else ():
            losses = check_losses(see_losses(ground.witness, peer, node, percent / 100), percent / 100)
            words += f"; between it and {peer.name} are lost {losses}"
        return Proof(at, words, life, {"link_loss": percent / 100})

    def lapsed(self, ground: Ground, proven: ProvenFault) -> str | None:
        """The worker goes on, or another in its place, or nothing is lost between it and its peers."""
        assert proven.life is not None
        wanted, share = CONSEQUENCES.get(self.xid, "alive"), proven.details["link_loss"]
        if wanted == "gone":
            return started_again(ground, proven.node, proven.life, kept_from_it=self.xid == OFF_THE_BUS)
        if wanted == "stopped" and (seen := ground.witness.state(proven.life)) != wanted:
            return f"its process is {seen}"
        whole = (lossless(ground.witness, peer, proven.node, share) for peer in _peers(ground, proven.node))
        return next(filter(None, whole), None) if share else None

    def healing(self, ground: Ground, proven: ProvenFault) -> Healing:
        """The same, and packets between it and its peers arrive again."""
        healing, share = super().healing(ground, proven), proven.details["link_loss"]

        def broken() -> str | None:
            for peer in _peers(ground, proven.node) if share else ():
                lost = ground.witness.lost_between(peer, proven.node, draws_to_see(share))
                if any(lost.values()):
                    return f"packets lost between it and {peer.name}: {lost}"
            return healing.broken()

        return replace(healing, broken=broken)


def _peers(ground: Ground, node: Node) -> list[Node]:
    return [peer for peer in ground.deployment.workers if peer != node]


@dataclass(frozen=True)
class Strain(GpuFault):
    """A worker's GPU is slower by ``share``, or that share of its memory is taken.

    Attributes:
        slows: whether the worker gets slower, so that its clients have to see it.
    """

    needs = ("strain",)
    slows: ClassVar[bool] = True
    share: Annotated[float, Expected("more than 0 and up to 1", gt=0, le=1)] = field(
        default=0.5, metadata=strength("share", "Fraction")
    )

    @staticmethod
    def shows(reading: dict[str, Any]) -> bool:
        """Whether the victim's telemetry shows it."""
        raise NotImplementedError

    def _shows_all(self, reading: dict[str, Any], before: float) -> bool:
        """Whether telemetry shows it as strong as it was ordered; ``before``: what :meth:`look` saw."""
        return self.shows(reading)

    def look(self, ground: Ground, nodes: Sequence[Node], until_proven: ExitStack) -> float:
        """How many tokens per second clients get, once that is the same for a while: in a window alone it may be what
        a busy machine has held back before.
        """

        def unsteady() -> str | None:
            rate, longer = ground.rate(WINDOW_SECONDS), ground.rate(2 * WINDOW_SECONDS)
            steady = longer and abs(rate - longer) <= TOLERANCE * longer
            return None if steady else f"{rate:.0f} tokens per second, {longer:.0f} over twice the time"

        if self.slows:
            nothing = "tokens came at no steady rate before the fault, so no slowdown could show"
            prove(unsteady, SETTLE_SECONDS, "tokens come at a steady rate", nothing)
        return ground.rate(2 * WINDOW_SECONDS)

    def order(self, nodes: Sequence[Node], before: Any) -> dict[str, Any]:
        """See :class:`support.faults.fault.Fault`."""
        return {"target_pod": nodes[0].name, "fault_type": self.types[0], "parameters": {"share": self.share}}

    def describe(self, ordered: Ordered) -> str:
        """See :class:`support.faults.fault.Fault`."""
        return f"the GPU of {ordered.nodes[0].name} {self.did} {self.share:.0%}"

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """The GPU's telemetry shows it; where it slows the worker down, clients get fewer tokens by that share.

        Raises:
            Inconclusive: telemetry does not show it, or clients do not get the fewer tokens that they should.
        """
        base, what = ordered.before, self.describe(ordered)
        wanted = (1 - self.share) * base

        def unproven() -> str | None:
            reading = ground.witness.telemetry(ordered.nodes[0])
            if not self._shows_all(reading, base):
                return f"its telemetry is {reading}"
            rate = ground.rate(WINDOW_SECONDS) if self.slows and now() > ordered.at + WINDOW_SECONDS else base
            close = not self.slows or abs(rate - wanted) <= TOLERANCE * self.share * base
            return None if close else f"{rate:.0f} tokens per second of {base:.0f}; {wanted:.0f} are wanted"

        at = prove(unproven, SETTLE_SECONDS, f"{self.kind} is seen", "the fault was not proven")
        rate = f"clients get {ground.rate(WINDOW_SECONDS):.0f} of {base:.0f} tokens per second"
        effect = rate if self.slows else "only its telemetry says so: nothing else can see into its GPU"
        return Proof(at, f"{what}: {effect}", details={"rate": base} if self.slows else {})

    def lapsed(self, ground: Ground, proven: ProvenFault) -> str | None:
        """Telemetry no longer shows it; how fast tokens come is a matter of the load as well."""
        reading = ground.witness.telemetry(proven.node)
        return None if self.shows(reading) else f"its telemetry is {reading}"


@dataclass(frozen=True)
class Throttle(Strain):
    """The GPU's clock is lowered for lack of power."""

    name, failure, word, did = "THROTTLE", "throttle", "is throttled", "was throttled by"
    types = ("THROTTLE",)

    @staticmethod
    def shows(reading: dict[str, Any]) -> bool:
        """See :class:`Strain`."""
        return bool(reading["throttle_reasons"] == ["sw_power_cap"])


@dataclass(frozen=True)
class Overheat(Strain):
    """The GPU's clock is lowered because it is hot."""

    name, failure, word, did = "OVERHEAT", "overheat", "overheats", "overheated and slowed down by"
    types = ("OVERHEAT",)

    @staticmethod
    def shows(reading: dict[str, Any]) -> bool:
        """See :class:`Strain`."""
        return bool(reading["throttle_reasons"] == ["hw_thermal_slowdown"] and reading["temperature_c"] > 90)


@dataclass(frozen=True)
class ComputeOverload(Strain):
    """Another load shares the GPU."""

    name, failure, word = "COMPUTE_OVERLOAD", "compute_overload", "is shared with another load"
    did = "was shared with another load that took"
    types = ("COMPUTE_OVERLOAD",)

    @staticmethod
    def shows(reading: dict[str, Any]) -> bool:
        """See :class:`Strain`."""
        return bool(reading["utilization_percent"] == 100)


@dataclass(frozen=True)
class MemoryPressure(Strain):
    """The GPU's memory is taken: a running worker does not notice; one that has to start does not come up.

    Only the GPU's own telemetry shows it, and for a simulated GPU that is the injector's word. Its effect can be
    seen: a worker that has to start does not (:meth:`support.world.lifetimes.Lifetimes.expect_out`).
    """

    name, failure, word, did = "MEMORY_PRESSURE", "memory_pressure", "loses memory", "lost this share of its memory:"
    types = ("MEMORY_PRESSURE",)
    slows = False

    @staticmethod
    def shows(reading: dict[str, Any]) -> bool:
        """See :class:`Strain`."""
        return bool(reading["memory_used_mib"] > 0.65 * reading["memory_total_mib"])

    def look(self, ground: Ground, nodes: Sequence[Node], until_proven: ExitStack) -> float:
        """How much of its memory is in use, in MiB."""
        return float(ground.witness.telemetry(nodes[0])["memory_used_mib"])

    def _shows_all(self, reading: dict[str, Any], before: float) -> bool:
        """The share of it was taken, or all that was free."""
        wanted = min(self.share * reading["memory_total_mib"], reading["memory_total_mib"] - before)
        return self.shows(reading) and bool(reading["memory_used_mib"] - before >= (1 - TOLERANCE) * wanted)

    def lapsed(self, ground: Ground, proven: ProvenFault) -> str | None:
        """None of it is taken but what the worker has, if that still runs."""
        if ground.witness.state(ground.deployment.life(proven.node)) != "gone":
            return super().lapsed(ground, proven)
        return None if ground.witness.telemetry(proven.node)["memory_used_mib"] else "all of its memory is free"
