"""What breaks in a scenario: every fault is proven on its victim, and felt by somebody."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from functools import partial

from support.clock import now
from support.contract.deployment import Node
from support.errors import Inconclusive, Mistake, Since
from support.faults.fault import LEASE_SECONDS, Fault, Ground, Ordered, ProvenFault, on_clock
from support.faults.victims import Serving, Victim
from support.observe.waiting import at_once, prove, this_sentence
from support.priority import right_of_way
from support.requests.outcomes import outcome
from support.world.clients import Clients
from support.world.stage import Stage
from support.world.victims import Victims

# A look takes milliseconds; on a busy machine a packet may come too late for it.
SOUND_SECONDS = 2.0
# A cut ends in the kernel, which counts its lease in whole milliseconds.
EARLY_SECONDS = 0.1


class Faults:
    """All faults of a scenario.

    Attributes:
        made: every fault that was proven, in the order of time.
        undone: id of each that was undone by a call -> when it was.
    """

    def __init__(self, stage: Stage, clients: Clients, finder: Victims) -> None:
        self._stage, self._clients, self._finder = stage, clients, finder
        self.made: list[ProvenFault] = []
        self.undone: dict[str, float] = {}

    @property
    def last(self) -> ProvenFault:
        """The fault that was made last.

        Raises:
            Mistake: there is none.
        """
        if not self.made:
            raise Mistake("nothing was broken yet; this sentence comes after one that makes a fault")
        return self.made[-1]

    @property
    def victims(self) -> set[str]:
        """Names of the nodes that a fault has hit."""
        return {node.name for fault in self.made for node in (fault.node, *fault.others)}

    @property
    def worker_numbers(self) -> dict[str, str | None]:
        """Name of each node whose process ended by a fault -> what Dynamo called it then, where it is a worker."""
        ended = [fault for fault in self.made if fault.fault.ends_process]
        return {fault.node.name: fault.details.get("number") for fault in ended}

    def find(self, victim: Victim, but: Collection[Node] = ()) -> list[Node]:
        """The nodes that a victim stands for right now, none of ``but``; see :class:`support.world.victims.Victims`."""
        return self._finder.find(victim, but=but)

    def _ground(self) -> Ground:
        target = self._stage.target
        parts = target.service, target.witness, self._stage.deployment, self._stage.events
        return Ground(*parts, rate=self._clients.rate)

    def strike(self, fault: Fault) -> list[ProvenFault]:
        """Order a fault, see it bite on its victims, and note it.

        Returns:
            One for each order to the fault service: of several victims mostly one each.

        Raises:
            Inconclusive: the victim is not to be found, shows the fault before it is ordered, does not show it then, or
                nobody could notice it.
            Mistake: it is to hit who serves a request, and nobody has asked for anything.
            Refused: the fault service refused.
        """
        if isinstance(fault.victim, Serving):
            self._clients.see_asked()
        if fault.holds_answers and isinstance(fault.victim, Serving):
            proven = self._hit_serving(fault)
        else:
            proven = self._hit_all(fault, self._finder.find(fault.victim))
        if fault.victim.felt:
            self._see_felt(proven)
        return proven

    def _hit_serving(self, fault: Fault) -> list[ProvenFault]:
        """Answers are held before their end meanwhile; those of the victim that are held before their first token stay
        so until the fault is proven.
        """
        gate = self._stage.gate
        if not gate.closed:
            gate.hold_end({pending.entry.max_tokens for pending in list(self._clients.watched)})
        nodes = self._finder.find(fault.victim)
        gate.move_to_end([node for node in self._stage.deployment.workers if node not in nodes])
        proven = self._hit_all(fault, nodes)
        gate.move_to_end()
        return proven

    def _hit_all(self, fault: Fault, nodes: Sequence[Node]) -> list[ProvenFault]:
        ground, groups = self._ground(), fault.groups(nodes)
        if fault.side_by_side and len(groups) > 1:
            proven = at_once(*(partial(self._hit, fault, group, ground) for group in groups))
            self.made += proven
            return proven
        proven = []
        for group in groups:
            proven.append(self._hit(fault, group, ground))
            self.made.append(proven[-1])
        return proven

    def _hit(self, fault: Fault, nodes: Sequence[Node], ground: Ground) -> ProvenFault:
        name = nodes[0].name
        with ExitStack() as until_proven:
            if fault.urgent:
                until_proven.enter_context(right_of_way())
            before = fault.look(ground, nodes, until_proven)
            unsound = partial(fault.unsound, ground, nodes, before)
            prove(unsound, SOUND_SECONDS, f"{name} is sound", "the fault was not proven, because before it")
            order, ordered_at = fault.order(nodes, before), now()
            made = ground.service.inject(fault.family, **order, duration_seconds=fault.lease_seconds)
            loaded = any(not load.ended for load in self._clients.loads)
            ordered = Ordered(nodes, before, made, ordered_at, now(), loaded)
            ground.events.add("fault", name, fault.describe(ordered), at=ordered_at, order=fault.name, **on_clock(made))
            proof = fault.prove(ground, ordered)
        ground.events.add("proof", name, proof.words, at=proof.at, fault=made["id"])
        return ProvenFault.of(fault, ordered, proof)

    def _see_felt(self, proven: Sequence[ProvenFault]) -> None:
        """Make sure that somebody could notice a fault: when it was done a load was still asking, a watched answer was
        still coming. Where nothing was asked for yet, what is asked for later is to tell.

        Raises:
            Inconclusive: every load had ended, and every watched answer was complete or given up, before.
        """
        done_at = max(fault.done_at for fault in proven)
        entries = [pending.entry for pending in list(self._clients.watched)]
        over = [each for each in entries if each.ended_at is not None and each.ended_at < done_at]
        # One that was broken before is for the judge, and does not end the scenario.
        unfelt = [each for each in over if outcome(each).kind in ("complete", "cancelled")]
        loaded, asked = any(fault.loaded for fault in proven), entries or self._clients.loads
        # Nor does a load that ended with a request that failed.
        gave_up = any(load.gave_up for load in self._clients.loads)
        if asked and not (loaded or gave_up) and len(unfelt) == len(entries):
            raise Inconclusive(f"no request was in flight any more when {proven[-1].node.name} was hit")

    def recover(self, *faults: ProvenFault) -> None:
        """Undo faults, several at once, and return once the victims show that they are gone.

        Raises:
            Inconclusive: a fault was over before, or the service says recovered, a victim does not.
        """
        if len(faults) == 1:
            self._recover(faults[0])
            return
        at_once(*(partial(self._recover, fault) for fault in faults))

    def _recover(self, fault: ProvenFault) -> None:
        if lapsed := self._lapsed(fault):
            raise Inconclusive(lapsed)
        # What it does to its victim, as SIGKILL to one that takes long to leave, is its own doing, not the victim's.
        undone_at = now()
        self._stage.target.service.recover(fault.id)
        self.undone[fault.id] = now()
        if fault.fault.tells_undone:
            text = f"{fault.kind} of {fault.node.name} undone"
            self._stage.events.add("fault", fault.node.name, text, at=undone_at, fault=fault.id, undo=fault.fault.name)
        self._see_healed(fault, fault.fault.healing_seconds)

    def see_healed(self, timeout: float) -> None:
        """Wait until no victim suffers any more, with nobody asked to undo its fault, ``timeout`` seconds from now.

        Raises:
            Inconclusive: one does, or had ceased to before its fault was due to end.
        """
        since = this_sentence()
        for fault in self.made:
            at = self._see_healed(fault, timeout, since)
            if fault.id not in self.undone and at < fault.until - EARLY_SECONDS:
                raise Inconclusive(f"{_called(fault)} was over {fault.until - at:.1f} s too early")

    def over_at(self, fault: ProvenFault) -> float:
        """When a fault is over: undone, or due to end; of one that nobody is to undo, when it was proven."""
        if (undone_at := self.undone.get(fault.id)) is not None:
            return undone_at
        limited = fault.fault.lease_seconds < LEASE_SECONDS
        return fault.until if limited or fault.until <= now() else fault.proven_at

    def lapsed(self) -> list[str]:
        """In words, the faults that are over although nobody has undone them and their time is not up."""
        return [lapsed for fault in self.made if fault.id not in self.undone and (lapsed := self._lapsed(fault))]

    def _lapsed(self, fault: ProvenFault) -> str | None:
        if now() >= fault.until - EARLY_SECONDS:
            return None
        seen = fault.fault.lapsed(self._ground(), fault)
        early = seen is not None and now() < fault.until - EARLY_SECONDS
        return f"{_called(fault)} was over too early: {seen}" if early else None

    def _see_healed(self, fault: ProvenFault, timeout: float, since: Since | None = None) -> float:
        healing = fault.fault.healing(self._ground(), fault)
        at = prove(healing.broken, timeout, healing.what, "the recovery was not proven", since)
        self._stage.events.add("proof", fault.node.name, healing.words, at=at, fault=fault.id)
        return at

    def last_of(self, family: str) -> ProvenFault:
        """The last fault of a family of the fault service; Mistake: there is none."""
        found = [fault for fault in self.made if fault.fault.family == family]
        if not found:
            raise Mistake(f"no fault of kind {family} has been made yet")
        return found[-1]


def _called(fault: ProvenFault) -> str:
    return f"the fault {fault.kind} of {fault.node.name}"
