"""Faults of the network, asked of the fault service and proven by packets between the victims."""

from support.clock import now
from support.events import EventLog
from support.faults.proven import LEASE_SECONDS, ProvenFault
from support.faults.service import FaultService
from support.judge.verdict import Inconclusive
from support.observe.network import arriving, connects
from support.observe.waiting import until
from support.targets.base import Deployment, Node

# A cut acts at once; a loaded machine adds scheduling delays.
PROOF_SECONDS = 2.0
SIDES = {
    "FRONTEND_WORKER": ("frontend",),
    "WORKER_NATS": ("nats",),
    "WORKER_WORKER": ("worker", "decode", "prefill"),
    "WORKER_ETCD": ("etcd",),
}
"""Partition -> roles of those whom the victim, a worker, is cut off from."""


class NetworkFaults:
    """Cuts nodes off from each other; every injection and proof goes to ``events``."""

    def __init__(self, service: FaultService, deployment: Deployment, events: EventLog) -> None:
        self._service, self._deployment, self._events = service, deployment, events

    def inject(
        self,
        partition: str,
        victim: Node,
        mode: str = "drop",
        direction: str = "both",
        lease_seconds: float = LEASE_SECONDS,
    ) -> ProvenFault:
        """Cut a worker off and return once packets between it and the other side fare as they should.

        Args:
            partition: key of :data:`SIDES`.
            victim: the worker.
            mode: ``drop``, ``reject`` or ``reset``.
            direction: ``both``, ``to`` the worker or ``from`` it.
            lease_seconds: the kernel heals the cut by then.

        Raises:
            Inconclusive: a packet gets through that should not, or one does not that should.
            FaultRefused: the fault service refused.
        """
        peer = self._peer(partition, victim)
        injected_at = now()
        order = {"partition_type": partition, "target_pod": victim.name, "mode": mode, "direction": direction}
        fault = self._service.inject("network", duration_seconds=lease_seconds, **order)
        what = f"{mode} between {peer.name} and {victim.name}, {direction}"
        self._events.add("fault", victim.name, what, at=injected_at, fault=fault["id"])
        lost = {"to": direction in ("both", "to"), "from": direction in ("both", "from")}
        manner = "silent" if mode == "drop" else "refused"

        def unproven() -> str | None:
            seen = self._lost(peer, victim)
            if seen != lost:
                return f"packets lost: {seen}"
            met = {connects(victim.name, peer.address, peer.port), connects(peer.name, victim.address, victim.port)}
            # Of a one-way cut the other side only sees that no answer comes.
            return None if manner in met and "open" not in met else f"new connections are {' and '.join(met)}"

        try:
            proven_at = until(unproven, PROOF_SECONDS, what)
        except AssertionError as error:
            raise Inconclusive(f"the fault was not proven: {error}") from None
        counters = self._service.get(fault["id"])["evidence"]["counters"]
        hit = sum(chain["packets"] for node in counters.values() for chain in node.values())
        if not hit:
            raise Inconclusive("the fault was not proven: its rules have hit no packet")
        words = f"{what}: packets lost {lost}, connections {manner}, rules have hit {hit} packets"
        self._events.add("proof", victim.name, words, at=proven_at, fault=fault["id"])
        details = {"peer": peer}
        return ProvenFault(fault["id"], "network", mode, victim, injected_at, proven_at, details)

    def _peer(self, partition: str, victim: Node) -> Node:
        return next(
            node for node in self._deployment.nodes if node.role in SIDES[partition] and node.name != victim.name
        )

    @staticmethod
    def _lost(peer: Node, victim: Node) -> dict[str, bool]:
        return {
            "to": not arriving(peer.name, victim.name, victim.address),
            "from": not arriving(victim.name, peer.name, peer.address),
        }

    def recover(self, fault: ProvenFault) -> None:
        """Undo the fault, and see packets arrive again both ways.

        Raises:
            Inconclusive: the service says recovered, the packets do not.
        """
        self._service.recover(fault.id)
        self.see_healed(fault, PROOF_SECONDS)

    def see_healed(self, fault: ProvenFault, timeout: float) -> None:
        """Wait until packets arrive again both ways, whoever has ended the fault.

        Raises:
            Inconclusive: they do not within ``timeout`` seconds.
        """
        peer, victim = fault.details["peer"], fault.node

        def cut() -> str | None:
            seen = self._lost(peer, victim)
            return f"packets lost: {seen}" if any(seen.values()) else None

        try:
            at = until(cut, timeout, f"packets between {peer.name} and {victim.name} arrive")
        except AssertionError as error:
            raise Inconclusive(f"the recovery was not proven: {error}") from None
        words = f"packets between {peer.name} and {victim.name} arrive again, both ways"
        self._events.add("proof", victim.name, words, at=at, fault=fault.id)
