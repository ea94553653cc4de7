"""What breaks in a scenario: every fault is proven on its victim, and felt by somebody."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from functools import partial

from support.clock import now
from support.contract.deployment import Node
from support.errors import Inconclusive
from support.faults.fault import Fault, Ground, Ordered, ProvenFault, on_clock
from support.faults.victims import Serving, Victim
from support.observe.waiting import at_once, prove
from support.priority import right_of_way
from support.requests.outcomes import outcome
from support.world.clients import Clients
from support.world.stage import Stage
from support.world.victims import Victims


class Faults:
    """All faults of a scenario.

    Attributes:
        made: every fault that was proven, in the order of time.
        undone: the ids of those that were undone by a call.
    """

    def __init__(self, stage: Stage, clients: Clients, finder: Victims) -> None:
        self._stage, self._clients, self._finder = stage, clients, finder
        self.made: list[ProvenFault] = []
        self.undone: set[str] = set()

    @property
    def last(self) -> ProvenFault:
        """The fault that was made last.

        Raises:
            RuntimeError: there is none.
        """
        if not self.made:
            raise RuntimeError("nothing was broken yet; a sentence about the fault comes after one that makes it")
        return self.made[-1]

    @property
    def victims(self) -> set[str]:
        """Names of the nodes that a fault has hit."""
        return {fault.node.name for fault in self.made}

    def find(self, victim: Victim, but: Collection[Node] = ()) -> list[Node]:
        """The nodes that a victim stands for right now, none of ``but``; see :class:`support.world.victims.Victims`."""
        return self._finder.find(victim, but=but)

    def _ground(self, victims: Sequence[Node]) -> Ground:
        target, find = self._stage.target, partial(self._finder.find, of=victims)
        parts = target.service, target.witness, self._stage.deployment, self._stage.events
        return Ground(*parts, rate=self._clients.rate, find=find)

    def strike(self, fault: Fault) -> list[ProvenFault]:
        """Order a fault, see it bite on its victims, and note it.

        Returns:
            One for each order to the fault service: of several victims mostly one each.

        Raises:
            Inconclusive: the victim is not to be found, does not show the fault, or nobody could notice it.
            Refused: the fault service refused.
        """
        if fault.holds_answers and isinstance(fault.victim, Serving):
            proven = self._hit_serving(fault)
        else:
            proven = self._hit_all(fault, self._finder.find(fault.victim))
        if fault.victim.felt:
            self._see_felt()
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
        ground, groups = self._ground(nodes), fault.groups(nodes)
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
            order, ordered_at = fault.order(nodes, before), now()
            made = ground.service.inject(fault.family, **order, duration_seconds=fault.lease_seconds)
            ordered = Ordered(nodes, before, made, ordered_at, now())
            ground.events.add("fault", name, fault.describe(ordered), at=ordered_at, order=fault.name, **on_clock(made))
            proof = fault.prove(ground, ordered)
        ground.events.add("proof", name, proof.words, at=proof.at, fault=made["id"])
        return ProvenFault.of(fault, ordered, proof)

    def _see_felt(self) -> None:
        """Make sure that somebody could notice the last fault: it was done while a watched answer was still coming or a
        client was about to send its next request.

        Raises:
            Inconclusive: every watched answer was complete before.
        """
        fault, entries = self.last, [pending.entry for pending in list(self._clients.watched)]
        before = [entry.ended_at is not None and entry.ended_at < fault.done_at for entry in entries]
        complete = all(before) and all(outcome(entry).kind == "complete" for entry in entries)
        if entries and complete and not self._clients.asking:
            raise Inconclusive(f"no request was under way any more when {fault.node.name} was hit")

    def recover(self, *faults: ProvenFault) -> None:
        """Undo faults, several at once, and return once the victims show that they are gone.

        Raises:
            Inconclusive: the service says recovered, a victim does not.
        """
        if len(faults) == 1:
            self._recover(faults[0])
            return
        at_once(*(partial(self._recover, fault) for fault in faults))

    def _recover(self, fault: ProvenFault) -> None:
        self._stage.target.service.recover(fault.id)
        self.undone.add(fault.id)
        if fault.fault.tells_undone:
            text = f"{fault.kind} of {fault.node.name} undone"
            self._stage.events.add("fault", fault.node.name, text, fault=fault.id, undo=fault.fault.name)
        self._see_healed(fault, fault.fault.healing_seconds)

    def see_healed(self, timeout: float) -> None:
        """Wait until no victim suffers any more, with nobody asked to undo its fault, ``timeout`` seconds from now.

        Raises:
            Inconclusive: one does.
        """
        for fault in self.made:
            self._see_healed(fault, timeout)

    def _see_healed(self, fault: ProvenFault, timeout: float) -> None:
        healing = fault.fault.healing(self._ground([fault.node]), fault)
        at = prove(healing.broken, timeout, healing.what, "the recovery was not proven")
        self._stage.events.add("proof", fault.node.name, healing.words, at=at, fault=fault.id)

    def last_of(self, family: str) -> ProvenFault:
        """The last fault of a family of the fault service; RuntimeError: there is none."""
        found = [fault for fault in self.made if fault.fault.family == family]
        if not found:
            raise RuntimeError(f"no fault of kind {family} was made yet")
        return found[-1]
