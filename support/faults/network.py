"""Faults of the network, proven by packets between the victims."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from support.clock import now
from support.contract.deployment import Node
from support.contract.target import Line, Witness
from support.errors import Inconclusive
from support.faults.fault import Fault, Ground, Healing, Ordered, Proof, ProvenFault, strength
from support.faults.victims import WORKER_ROLES
from support.judge.chance import RISK, bounds, draws_to_see
from support.observe.waiting import at_once, prove
from support.schema import Expected, OneOf, PositiveInt

# A cut acts at once; a loaded machine adds scheduling delays.
PROOF_SECONDS = 2.0
# Enough for bounds of about 12 percentage points on a loss.
LEAST_PROBES = 400
# For how long the transfer that measures a low bandwidth keeps the link busy, and when it is given up: the
# answers in flight have their share of it, and TCP slows down at each packet that finds the queue full.
TRANSFER_SECONDS, LONGEST_TRANSFER_SECONDS = 0.3, 5.0
BYTES_PER_KBIT = 125
OWN_SIDES = {
    "FRONTEND_WORKER": ("frontend",),
    "WORKER_NATS": ("nats",),
    "WORKER_WORKER": WORKER_ROLES,
    "WORKER_ETCD": ("etcd",),
}
"""Partition that the fault service has for a worker -> roles of those whom the worker is parted from."""
SIDES = OWN_SIDES | {
    "DYNAMO": ("frontend", *WORKER_ROLES),
    "EVERYBODY": ("frontend", *WORKER_ROLES, "etcd", "nats"),
}
"""Partition -> roles of those whom the victims are parted from; the victims themselves are never among them."""
SIDE_WORDS = {
    "the frontend": "FRONTEND_WORKER",
    "NATS": "WORKER_NATS",
    "etcd": "WORKER_ETCD",
    "the other members": "WORKER_ETCD",
    "its peers": "WORKER_WORKER",
    "the workers": "WORKER_WORKER",
    "Dynamo": "DYNAMO",
    "everybody else": "EVERYBODY",
}
MODE_WORDS = {"dropped": "drop", "rejected": "reject", "reset": "reset"}
FLOW_WORDS = {"to it": "to", "from it": "from"}
MODES, DIRECTIONS = tuple(MODE_WORDS.values()), ("both", *FLOW_WORDS.values())
DONE = {"drop": "packets were dropped", "reject": "connections were refused", "reset": "connections were reset"}
"""Mode of a cut -> what it did."""
Pair = tuple[Node, Node]
"""One node on the other side, and a victim."""
Partition = Annotated[str, OneOf(SIDES)]


@dataclass(frozen=True)
class NetworkFault(Fault):
    """Something is done to packets between nodes."""

    family = "network"
    healing_seconds = PROOF_SECONDS
    tells_undone = False

    def _across(self, ground: Ground, nodes: Sequence[Node], partition: str) -> list[Node]:
        """Who is on the other side of a partition."""
        names = sorted(node.name for node in nodes)
        found = [node for node in ground.deployment.nodes if node.role in SIDES[partition] and node.name not in names]
        if not found:
            raise Inconclusive(f"nobody is left on the other side of {', '.join(names)}; choose fewer victims")
        return found

    @staticmethod
    def _sides(pairs: Sequence[Pair], partition: str) -> dict[str, Any]:
        """Who is parted from whom, as the fault service is told."""
        others, victims = (list(dict.fromkeys(side)) for side in zip(*pairs, strict=True))
        if len(victims) == 1 and victims[0].role in WORKER_ROLES and partition in OWN_SIDES:
            return {"partition_type": partition, "target_pod": victims[0].name}
        sides = {"source": [node.name for node in others], "target": [node.name for node in victims]}
        return {"partition_type": "CUSTOM", **sides}

    def healing(self, ground: Ground, proven: ProvenFault) -> Healing:
        """Packets arrive both ways, all of as many as had been sent to see the fault."""

        def broken(pair: Pair) -> str | None:
            lost = ground.witness.lost_between(*pair, proven.details.get("probes", 1))
            return f"packets lost: {lost}" if any(lost.values()) else None

        return self._healing(broken, proven)

    def _healing(self, broken: Callable[[Pair], str | None], proven: ProvenFault) -> Healing:
        pairs: Sequence[Pair] = proven.details["pairs"]
        names = " and ".join(dict.fromkeys(node.name for pair in pairs for node in pair))
        what = f"packets between {names} arrive"
        return Healing(lambda: _of_all(broken, pairs), what, f"{what} again, both ways")


@dataclass(frozen=True)
class Cut(NetworkFault):
    """Packets are dropped, rejected (ICMP) or reset (TCP), on open connections and on new ones.

    Attributes:
        partition: key of :data:`SIDES`: whom the victims are parted from, all of them from all of those.
        direction: ``both``, ``to`` the victims or ``from`` them.
    """

    name = "cut"
    failure = "network_partition"
    types = MODES
    needs = ("nftables",)
    drawn = "cuts"
    partition: Partition = field(default="FRONTEND_WORKER", metadata=strength("between it and", "Side"))
    mode: Annotated[str, OneOf(MODES)] = field(default="drop", metadata=strength("packets are", "Cut"))
    direction: Annotated[str, OneOf(DIRECTIONS)] = field(default="both", metadata=strength("only", "Flow"))

    @property
    def kind(self) -> str:
        """What becomes of a packet."""
        return self.mode

    def groups(self, nodes: Sequence[Node]) -> list[list[Node]]:
        """One cut parts all of them from others."""
        return [list(nodes)]

    def look(self, ground: Ground, nodes: Sequence[Node], until_proven: ExitStack) -> list[Pair]:
        """Who is parted from whom."""
        return [(other, node) for node in nodes for other in self._across(ground, nodes, self.partition)]

    def unsound(self, ground: Ground, nodes: Sequence[Node], before: list[Pair]) -> str | None:
        """Packets are lost where they are to be."""

        def broken(pair: Pair) -> str | None:
            lost = ground.witness.lost_between(*pair)
            return f"packets lost: {lost}" if any(lost[way] for way in lost if self._loses(way)) else None

        return _of_all(broken, before)

    def _loses(self, way: str) -> bool:
        """Whether packets are to be lost on a way, as the witness calls it."""
        return self.direction in ("both", way.partition(" ")[0])

    def order(self, nodes: Sequence[Node], before: list[Pair]) -> dict[str, Any]:
        """See :class:`support.faults.fault.Fault`."""
        sides = self._sides(before, self.partition)
        return sides | {"mode": self.mode, "direction": self.direction}

    def describe(self, ordered: Ordered) -> str:
        """See :class:`support.faults.fault.Fault`."""
        return self._words(ordered.before)

    def _words(self, pairs: Sequence[Pair]) -> str:
        others, victims = (", ".join(dict.fromkeys(pair[side].name for pair in pairs)) for side in (0, 1))
        way = "" if self.direction == "both" else f", only {self.direction} {victims}"
        return f"{DONE[self.mode]} between {others} and {victims}{way}"

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """Probes and new connections between all victims fare as they should, each way, and the rules have hit packets.

        Raises:
            Inconclusive: a packet gets through that should not, or one does not that should.
        """
        witness, pairs, what = ground.witness, ordered.before, self._words(ordered.before)
        manner, families = "silent" if self.mode == "drop" else "refused", set[str]()

        def unproven(pair: Pair) -> str | None:
            peer, victim = pair
            # All at once, for each that meets silence waits for as long as a packet may take.
            gone, *ways = at_once(
                lambda: witness.lost_between(peer, victim),
                lambda: witness.connects(victim, peer),
                lambda: witness.connects(peer, victim),
            )
            seen = {way: bool(count) for way, count in gone.items()}
            if seen != {way: self._loses(way) for way in seen}:
                return f"packets lost: {seen}"
            for family in sorted(ways[0].keys() & ways[1].keys()):
                # Of a one-way cut the other side only sees that no answer comes; over IPv6 nobody may listen anyway.
                met = {each[family] for each in ways}
                if "open" in met or (manner not in met and family == "IPv4"):
                    return f"new connections over {family} are {' and '.join(sorted(met))}"
            families.update(ways[0])
            return None

        at = prove(lambda: _of_all(unproven, pairs), PROOF_SECONDS, what, "the fault was not proven")
        hit = sum(chain["packets"] for chain in _counters(ground, ordered))
        if not hit:
            raise Inconclusive("the fault was not proven: its rules have hit no packet")
        ways = " and ".join(side for side in ("to", "from") if self._loses(side))
        over = " and ".join(sorted(families))
        words = f"{what}: packets {ways} the victim are lost over {over}, new connections {manner}"
        words += f", rules have hit {hit} packets"
        return Proof(at, words, details={"pairs": pairs})

    def lapsed(self, ground: Ground, proven: ProvenFault) -> str | None:
        """A packet arrives that should not."""

        def whole(pair: Pair) -> str | None:
            lost = ground.witness.lost_between(*pair)
            return None if all(lost[way] for way in lost if self._loses(way)) else f"packets lost: {lost}"

        return _of_all(whole, proven.details["pairs"])


@dataclass(frozen=True)
class Loss(NetworkFault):
    """A share of the packets between the victims and the other side is lost, both ways.

    Proven by probes in each direction, and by what the rules have drawn: both counts are binomial and have to lie
    within the bounds of :mod:`support.judge.chance` for that share.
    """

    name = "loss"
    failure = "network_loss"
    needs = ("nftables",)
    partition: Partition = field(default="FRONTEND_WORKER", metadata=strength("between it and", "Side"))
    percent: Annotated[int, Expected("a whole number, 1 to 100", ge=1, le=100)] = field(
        default=20, metadata=strength("percent", "Percent")
    )

    def groups(self, nodes: Sequence[Node]) -> list[list[Node]]:
        """One loss is between all of them and others."""
        return [list(nodes)]

    def look(self, ground: Ground, nodes: Sequence[Node], until_proven: ExitStack) -> list[Pair]:
        """Between whom probes go: the victims and everybody on the other side."""
        return [(peer, node) for node in nodes for peer in self._across(ground, nodes, self.partition)]

    def unsound(self, ground: Ground, nodes: Sequence[Node], before: list[Pair]) -> str | None:
        """A packet is lost, of as many as would show the share."""

        def broken(pair: Pair) -> str | None:
            lost = ground.witness.lost_between(*pair, draws_to_see(self.percent / 100))
            return f"packets lost: {lost}" if any(lost.values()) else None

        return _of_all(broken, before)

    def order(self, nodes: Sequence[Node], before: list[Pair]) -> dict[str, Any]:
        """See :class:`support.faults.fault.Fault`."""
        sides = self._sides(before, self.partition)
        return sides | {"parameters": {"percent": self.percent}, "mode": self.name}

    def describe(self, ordered: Ordered) -> str:
        """See :class:`support.faults.fault.Fault`."""
        peers, victims = (", ".join(dict.fromkeys(pair[side].name for pair in ordered.before)) for side in (0, 1))
        return f"{self.percent} % of the packets between {peers} and {victims} were lost"

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """Of hundreds of probes each way as many are lost as chance allows.

        Raises:
            Inconclusive: more, or fewer.
        """
        share, counts = self.percent / 100, dict[str, tuple[int, int]]()
        for peer, victim in ordered.before:
            counts |= see_losses(ground.witness, peer, victim, share)
        probes = max(sent for sent, _ in counts.values())
        for number, chain in enumerate(_counters(ground, ordered)):
            counts[f"packets of chain {number + 1}"] = (chain["drawn"], chain["packets"])
        words = f"{self.describe(ordered)}: {check_losses(counts, share)}"
        return Proof(now(), words, details={"probes": probes, "pairs": ordered.before})

    def lapsed(self, ground: Ground, proven: ProvenFault) -> str | None:
        """None is lost, of as many as would show the share."""
        return _of_all(lambda pair: lossless(ground.witness, *pair, self.percent / 100), proven.details["pairs"])


@dataclass(frozen=True)
class Bandwidth(NetworkFault):
    """The network link of a node carries no more than ``rate_kbit`` kilobits per second, each way.

    Proven by a transfer in each direction that takes as long as its bytes take at that rate, except for the burst
    that the fault names, and that was faster before.
    """

    name = "bandwidth"
    failure = "network_bandwidth"
    needs = ("tbf",)
    rate_kbit: PositiveInt = field(default=1000, metadata=strength("rate kbit", "Count"))

    def groups(self, nodes: Sequence[Node]) -> list[list[Node]]:
        """Each cable has an order of its own; with the other victims, for none is measured against another."""
        return [[node, *(other for other in nodes if other != node)] for node in nodes]

    def look(self, ground: Ground, nodes: Sequence[Node], until_proven: ExitStack) -> Any:
        """How long a transfer takes, and over what it went: to a member of etcd from another one where there is one, to
        all others from a frontend.
        """
        nearest = "etcd" if nodes[0].role == "etcd" else "frontend"
        others = self._across(ground, nodes, "EVERYBODY")
        pair = min(others, key=lambda node: node.role != nearest), nodes[0]
        lines = until_proven.enter_context(_lines(ground.witness, *pair))
        return pair, lines

    def unsound(self, ground: Ground, nodes: Sequence[Node], before: Any) -> str | None:
        """Transfers take as long as they are to."""
        took = _transfers(before[1], self._size)
        return f"the link is already that slow: {took}" if max(took.values()) >= TRANSFER_SECONDS else None

    @property
    def _size(self) -> int:
        return int(self.rate_kbit * BYTES_PER_KBIT * TRANSFER_SECONDS)

    def order(self, nodes: Sequence[Node], before: Any) -> dict[str, Any]:
        """See :class:`support.faults.fault.Fault`."""
        sides = self._sides([before[0]], "FRONTEND_WORKER")
        return sides | {"parameters": {"rate_kbit": self.rate_kbit}, "mode": self.name}

    def describe(self, ordered: Ordered) -> str:
        """See :class:`support.faults.fault.Fault`."""
        return f"the link of {ordered.nodes[0].name} was limited to {self.rate_kbit} kilobits per second"

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """A transfer each way takes as long as its bytes take at that rate, and was faster before.

        Raises:
            Inconclusive: they do not, or do not end within :data:`LONGEST_TRANSFER_SECONDS`.
        """
        pair, lines = ordered.before
        size = self._size + ordered.made["parameters"]["burst_bytes"]
        during = _transfers(lines, size)
        seen = ", ".join(f"{side} it {took:.2f} s" for side, took in during.items())
        words = f"{self.describe(ordered)}: {size} bytes take {seen}; {TRANSFER_SECONDS:g} s at least"
        if not all(TRANSFER_SECONDS <= took < LONGEST_TRANSFER_SECONDS for took in during.values()):
            raise Inconclusive(f"the fault was not proven: {words}")
        return Proof(now(), words, details={"size": size, "pairs": [pair]})

    def lapsed(self, ground: Ground, proven: ProvenFault) -> str | None:
        """A transfer is faster than the link may be."""
        [pair] = proven.details["pairs"]
        took = self._take(ground, pair, proven.details["size"])
        return f"transfers take {took} s" if min(took.values()) < TRANSFER_SECONDS else None

    def healing(self, ground: Ground, proven: ProvenFault) -> Healing:
        """Transfers are as fast as before."""

        def broken(pair: Pair) -> str | None:
            took = self._take(ground, pair, proven.details["size"])
            return f"transfers take {took} s" if max(took.values()) >= TRANSFER_SECONDS else None

        return self._healing(broken, proven)

    @staticmethod
    def _take(ground: Ground, pair: Pair, size: int) -> dict[str, float]:
        with _lines(ground.witness, *pair) as lines:
            return _transfers(lines, size)


@contextmanager
def _lines(witness: Witness, peer: Node, victim: Node) -> Iterator[dict[str, Line]]:
    with (
        witness.line(peer, victim, LONGEST_TRANSFER_SECONDS) as to,
        witness.line(victim, peer, LONGEST_TRANSFER_SECONDS) as back,
    ):
        yield {"to": to, "from": back}


def _counters(ground: Ground, ordered: Ordered) -> list[dict[str, int]]:
    counters = ground.service.get(ordered.made["id"])["evidence"]["counters"]
    return [chain for node in counters.values() for chain in node.values()]


def _of_all(look: Callable[[Pair], str | None], pairs: Sequence[Pair]) -> str | None:
    """What ``look`` has to object to at the first pair where it does, all pairs looked at side by side; else None."""
    for (peer, victim), seen in zip(pairs, at_once(*(partial(look, pair) for pair in pairs)), strict=True):
        if seen is not None:
            return f"{peer.name} and {victim.name}: {seen}" if len(pairs) > 1 else seen
    return None


def see_losses(witness: Witness, peer: Node, victim: Node, share: float) -> dict[str, tuple[int, int]]:
    """Probe all ways; what was sent, in words, with how many were sent and lost, within bounds.

    Raises:
        Inconclusive: more or fewer were lost than chance allows for ``share``.
    """
    probes = max(LEAST_PROBES, draws_to_see(share))
    sent = {"to": f"probes to {victim.name} from {peer.name}", "from": f"probes from {victim.name} to {peer.name}"}
    lost = witness.lost_between(peer, victim, probes)
    counts = {way.replace(way.split()[0], sent[way.split()[0]], 1): (probes, lost[way]) for way in lost}
    check_losses(counts, share)
    return counts


def lossless(witness: Witness, peer: Node, victim: Node, share: float) -> str | None:
    """In words, that on one way no packet is lost of as many as would show a loss of ``share``; else None."""
    lost = witness.lost_between(peer, victim, draws_to_see(share))
    return None if all(lost.values()) else f"packets lost between {peer.name} and {victim.name}: {lost}"


def check_losses(counts: dict[str, tuple[int, int]], share: float) -> str:
    """What was drawn and what was lost, in words, with the bounds.

    Raises:
        Inconclusive: more or fewer were lost than chance allows for ``share``.
    """
    seen = [f"{lost} of {draws} {of}, allowed {bounds(draws, share)}" for of, (draws, lost) in counts.items()]
    for of, (draws, lost) in counts.items():
        least, greatest = bounds(draws, share)
        if not least <= lost <= greatest:
            what = f"{100 * share:g} % of the packets should be lost, but {lost} of {draws} {of}"
            raise Inconclusive(f"the fault was not proven: {what}: {'; '.join(seen)}")
    return f"{'; '.join(seen)} (risk {RISK:g} each)"


def _transfers(lines: dict[str, Line], size: int) -> dict[str, float]:
    took = {side: line.seconds(size, LONGEST_TRANSFER_SECONDS) for side, line in lines.items()}
    return {side: LONGEST_TRANSFER_SECONDS if each is None else each for side, each in took.items()}
