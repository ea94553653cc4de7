"""Faults of the network, asked of the fault service and proven by packets between the victims."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from support.clock import now
from support.contract.deployment import Deployment, Node
from support.contract.target import Line, Target, Witness
from support.errors import Inconclusive
from support.events import EventLog
from support.faults.proven import LEASE_SECONDS, ProvenFault, on_clock
from support.judge.chance import RISK, bounds, draws_to_see
from support.observe.waiting import at_once, prove

# A cut acts at once; a loaded machine adds scheduling delays.
PROOF_SECONDS = 2.0
# Enough for bounds of about 12 percentage points on a loss.
LEAST_PROBES = 400
# For how long a narrow cable is to be busy with the transfer that measures it, and when that one is given up: the
# answers under way have their share of it, and TCP slows down at each packet that finds the queue full.
TRANSFER_SECONDS, LONGEST_TRANSFER_SECONDS = 0.3, 5.0
BYTES_PER_KBIT = 125
SIDES = {
    "FRONTEND_WORKER": ("frontend",),
    "WORKER_NATS": ("nats",),
    "WORKER_WORKER": ("worker", "decode", "prefill"),
    "WORKER_ETCD": ("etcd",),
}
"""Partition -> roles of those whom the victim, a worker, is cut off from."""
Pair = tuple[Node, Node]
"""One node on the other side, and the victim."""


class NetworkFaults:
    """Breaks the network between nodes; every injection and proof goes to ``events``."""

    def __init__(self, target: Target, deployment: Deployment, events: EventLog) -> None:
        self._service, self._witness = target.service, target.witness
        self._deployment, self._events = deployment, events

    # -- cuts

    def cut(
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
            Refused: the fault service refused.
        """
        order = {"partition_type": partition, "target_pod": victim.name}
        peers = [node for node in self._deployment.nodes if node.role in SIDES[partition] and node.name != victim.name]
        return self._cut(order, [(peer, victim) for peer in peers], mode, direction, lease_seconds)

    def between(
        self,
        sources: Sequence[Node],
        targets: Sequence[Node],
        mode: str = "drop",
        direction: str = "both",
        lease_seconds: float = LEASE_SECONDS,
    ) -> ProvenFault:
        """Cut every one of ``sources`` off from every one of ``targets``; else as :meth:`cut`."""
        order = {"source": [node.name for node in sources], "target": [node.name for node in targets]}
        pairs = [(source, target) for target in targets for source in sources]
        return self._cut({"partition_type": "CUSTOM"} | order, pairs, mode, direction, lease_seconds)

    def _cut(
        self, order: dict[str, Any], pairs: Sequence[Pair], mode: str, direction: str, lease_seconds: float
    ) -> ProvenFault:
        sides = [", ".join(dict.fromkeys(pair[side].name for pair in pairs)) for side in (0, 1)]
        what = f"{mode} between {sides[0]} and {sides[1]}, {direction}"
        times, fault = self._inject(what, pairs[0][1], lease_seconds, **order, mode=mode, direction=direction)
        lost = {"to": direction in ("both", "to"), "from": direction in ("both", "from")}
        manner = "silent" if mode == "drop" else "refused"

        def unproven(pair: Pair) -> str | None:
            peer, victim = pair
            # All at once, for each that meets silence waits for as long as a packet may take.
            to, back, *ways = at_once(
                lambda: self._witness.arriving(peer, victim),
                lambda: self._witness.arriving(victim, peer),
                lambda: self._witness.connects(victim, peer),
                lambda: self._witness.connects(peer, victim),
            )
            seen, met = {"to": not to, "from": not back}, set(ways)
            if seen != lost:
                return f"packets lost: {seen}"
            # Of a one-way cut the other side only sees that no answer comes.
            return None if manner in met and "open" not in met else f"new connections are {' and '.join(met)}"

        proven_at = prove(lambda: _of_all(unproven, pairs), PROOF_SECONDS, what, "the fault was not proven")
        hit = sum(chain["packets"] for chain in self._counters(fault["id"]))
        if not hit:
            raise Inconclusive("the fault was not proven: its rules have hit no packet")
        ways = " and ".join(side for side, gone in lost.items() if gone)
        words = f"{what}: packets {ways} the victim are lost, new connections {manner}, rules have hit {hit} packets"
        return self._proven(fault, pairs, times, proven_at, words)

    # -- loss

    def lose(self, partition: str, victim: Node, percent: int, lease_seconds: float = LEASE_SECONDS) -> ProvenFault:
        """Lose a share of the packets between a worker and the other side, both ways.

        Proven by probes in each direction, and by what the rules have drawn: both counts are binomial and have to lie
        within the bounds of :mod:`support.judge.chance` for that share.

        Raises:
            Inconclusive: more or fewer packets are lost than chance allows.
            Refused: the fault service refused.
        """
        peer, share = self._peer(partition, victim), percent / 100
        what = f"{percent} % of the packets between {peer.name} and {victim.name} are lost"
        order = {"partition_type": partition, "target_pod": victim.name, "parameters": {"percent": percent}}
        times, fault = self._inject(what, victim, lease_seconds, **order, mode="loss")
        counts = see_losses(self._witness, peer, victim, share)
        probes = counts["probes to it"][0]
        for number, chain in enumerate(self._counters(fault["id"])):
            counts[f"packets of rule {number + 1}"] = (chain["drawn"], chain["packets"])
        words = f"{what}: {check_losses(counts, share)}"
        return self._proven(fault, [(peer, victim)], times, now(), words, probes=probes)

    # -- bandwidth

    def narrow(
        self, victim: Node, rate_kbit: int, peer: Node | None = None, lease_seconds: float = LEASE_SECONDS
    ) -> ProvenFault:
        """Have a node's cable carry no more than ``rate_kbit`` kilobits per second, each way.

        Proven by a transfer in each direction that takes as long as its bytes take at that rate, but for the burst
        that the fault names, and that was faster before.

        Args:
            peer: with whom the transfer is; the frontend if None, and the victim then has to be a worker.

        Raises:
            Inconclusive: it is not slower, or does not end within :data:`LONGEST_TRANSFER_SECONDS`.
            Refused: the fault service refused.
        """
        order: dict[str, Any] = {"partition_type": "FRONTEND_WORKER", "target_pod": victim.name}
        if peer:
            order = {"partition_type": "CUSTOM", "source": peer.name, "target": victim.name}
        peer = peer or self._peer("FRONTEND_WORKER", victim)
        what = f"the cable of {victim.name} carries {rate_kbit} kilobits per second"
        size = int(rate_kbit * BYTES_PER_KBIT * TRANSFER_SECONDS)
        with self._lines(peer, victim) as lines:
            before = _transfers(lines, size)
            order |= {"parameters": {"rate_kbit": rate_kbit}, "mode": "bandwidth"}
            times, fault = self._inject(what, victim, lease_seconds, **order)
            size += fault["parameters"]["burst_bytes"]
            during = _transfers(lines, size)
        seen = ", ".join(f"{side} it {took:.2f} s" for side, took in during.items())
        words = f"{what}: {size} bytes take {seen}; {TRANSFER_SECONDS:g} s at least"
        if max(before.values()) >= TRANSFER_SECONDS:
            raise Inconclusive(f"the fault was not proven: the cable was as slow before ({before})")
        if not all(TRANSFER_SECONDS <= took < LONGEST_TRANSFER_SECONDS for took in during.values()):
            raise Inconclusive(f"the fault was not proven: {words}")
        return self._proven(fault, [(peer, victim)], times, now(), words, size=size)

    # -- the end

    def recover(self, fault: ProvenFault) -> None:
        """Undo the fault, and see packets arrive again both ways.

        Raises:
            Inconclusive: the service says recovered, the packets do not.
        """
        self._service.recover(fault.id)
        self.see_healed(fault, PROOF_SECONDS)

    def see_healed(self, fault: ProvenFault, timeout: float) -> None:
        """Wait until all packets arrive again both ways, and as fast as before, whoever has ended the fault.

        Raises:
            Inconclusive: they do not within ``timeout`` seconds.
        """
        pairs: Sequence[Pair] = fault.details["pairs"]

        def broken(pair: Pair) -> str | None:
            if fault.kind == "bandwidth":
                with self._lines(*pair) as lines:
                    took = _transfers(lines, fault.details["size"])
                return f"transfers take {took} s" if max(took.values()) >= TRANSFER_SECONDS else None
            lost = self._witness.lost_between(*pair, fault.details.get("probes", 1))
            return f"packets lost: {lost}" if any(lost.values()) else None

        names = " and ".join(dict.fromkeys(node.name for pair in pairs for node in pair))
        at = prove(
            lambda: _of_all(broken, pairs), timeout, f"packets between {names} arrive", "the recovery was not proven"
        )
        words = f"packets between {names} arrive again, both ways"
        self._events.add("proof", fault.node.name, words, at=at, fault=fault.id)

    # -- what they have in common

    def _peer(self, partition: str, victim: Node) -> Node:
        return next(
            node for node in self._deployment.nodes if node.role in SIDES[partition] and node.name != victim.name
        )

    @contextmanager
    def _lines(self, peer: Node, victim: Node) -> Iterator[dict[str, Line]]:
        with (
            self._witness.line(peer, victim, LONGEST_TRANSFER_SECONDS) as to,
            self._witness.line(victim, peer, LONGEST_TRANSFER_SECONDS) as back,
        ):
            yield {"to": to, "from": back}

    def _inject(
        self, what: str, victim: Node, lease_seconds: float, **order: Any
    ) -> tuple[tuple[float, float], dict[str, Any]]:
        injected_at = now()
        fault = self._service.inject("network", duration_seconds=lease_seconds, **order)
        times = injected_at, now()
        self._events.add("fault", victim.name, what, at=injected_at, **on_clock(fault))
        return times, fault

    def _counters(self, fault_id: str) -> list[dict[str, int]]:
        counters = self._service.get(fault_id)["evidence"]["counters"]
        return [chain for node in counters.values() for chain in node.values()]

    def _proven(
        self,
        fault: dict[str, Any],
        pairs: Sequence[Pair],
        times: tuple[float, float],
        at: float,
        words: str,
        **details: Any,
    ) -> ProvenFault:
        victim = pairs[0][1]
        self._events.add("proof", victim.name, words, at=at, fault=fault["id"])
        details |= {"pairs": pairs}
        return ProvenFault(fault["id"], "network", fault["type"], victim, *times, at, times[0], details=details)


def _of_all(look: Callable[[Pair], str | None], pairs: Sequence[Pair]) -> str | None:
    """What ``look`` has to object to at the first pair where it does, all pairs looked at side by side; else None."""
    for (peer, victim), seen in zip(pairs, at_once(*(partial(look, pair) for pair in pairs)), strict=True):
        if seen is not None:
            return f"{peer.name} and {victim.name}: {seen}" if len(pairs) > 1 else seen
    return None


def see_losses(witness: Witness, peer: Node, victim: Node, share: float) -> dict[str, tuple[int, int]]:
    """Probe both directions; ``probes to it`` and ``probes from it`` with how many were sent and lost, within bounds.

    Raises:
        Inconclusive: more or fewer were lost than chance allows for ``share``.
    """
    probes = max(LEAST_PROBES, draws_to_see(share))
    counts = {f"probes {side} it": (probes, lost) for side, lost in witness.lost_between(peer, victim, probes).items()}
    check_losses(counts, share)
    return counts


def check_losses(counts: dict[str, tuple[int, int]], share: float) -> str:
    """What was drawn and what was lost, in words, with the bounds.

    Raises:
        Inconclusive: more or fewer were lost than chance allows for ``share``.
    """
    seen = [f"{lost} of {draws} {of}, allowed {bounds(draws, share)}" for of, (draws, lost) in counts.items()]
    for of, (draws, lost) in counts.items():
        least, greatest = bounds(draws, share)
        if not least <= lost <= greatest:
            what = f"{100 * share:g} % of the packets were to be lost, but {lost} of {draws} {of}"
            raise Inconclusive(f"the fault was not proven: {what}: {'; '.join(seen)}")
    return f"{'; '.join(seen)} (risk {RISK:g} each)"


def _transfers(lines: dict[str, Line], size: int) -> dict[str, float]:
    took = {side: line.seconds(size, LONGEST_TRANSFER_SECONDS) for side, line in lines.items()}
    return {side: LONGEST_TRANSFER_SECONDS if each is None else each for side, each in took.items()}
