"""The etcd cluster of a scenario: what breaks of it and comes back, and what has to become true again."""

from support.clock import now
from support.contract.deployment import Node
from support.errors import Inconclusive, NotKept, Since, TooLate
from support.faults.fault import Fault, ProvenFault
from support.faults.victims import Exactly
from support.judge.history import History
from support.judge.rules.etcd import etcd_agreement
from support.observe import etcd
from support.observe.etcd_recorder import PERIOD_SECONDS
from support.observe.waiting import until
from support.seen import EtcdSeen
from support.world.faults import Faults
from support.world.members import LEADER_SECONDS, EtcdMembers
from support.world.stage import Stage


class EtcdCluster:
    """The etcd cluster behind a deployment."""

    def __init__(self, stage: Stage, members: EtcdMembers, faults: Faults) -> None:
        self._stage, self._members, self._faults = stage, members, faults

    # -- what breaks of it, and what comes back

    def break_each_in_turn(self, kind: type[Fault]) -> None:
        """Break one member after the other and undo it once the others have a leader; each time all members agree again
        before the next.
        """
        for node in list(self._members.all):
            [fault] = self._faults.strike(kind(Exactly(node)))
            self._members.leader()
            self._faults.recover(fault)
            self.expect_agreement(LEADER_SECONDS)

    @property
    def _broken(self) -> list[ProvenFault]:
        """Faults of processes of members that nobody has undone."""
        hit = [fault for fault in self._faults.made if fault.fault.family == "process"]
        return [fault for fault in hit if fault.node in self._members.all and fault.id not in self._faults.undone]

    def bring_back(self) -> None:
        """Undo all faults of members' processes at once, for one member alone may have to wait for the others.

        Raises:
            Inconclusive: none is broken.
        """
        if not self._broken:
            raise Inconclusive("no etcd member is broken, so none can return")
        self._faults.recover(*self._broken)

    def replace_lost(self) -> None:
        """Put a new, empty member in the place of the one that broke last.

        Raises:
            Inconclusive: none is broken.
            DeploymentFailed: the cluster refuses, or the new member does not join.
        """
        if not self._broken:
            raise Inconclusive("no etcd member was lost, so none can be replaced")
        lost = self._broken[-1].node
        new = self._members.replace(lost)
        self._stage.events.add("proof", new.name, f"{new.name} has joined with no data in the place of {lost.name}")

    # -- what has to become true

    def expect_new_leader(self, since: float, timeout: float) -> None:
        """A member other than the one that led leads, ``timeout`` seconds from ``since`` at the latest.

        When it became leader is for the recorder to say; this may be asked later, after the proof of a cut.

        Raises:
            AssertionError: none does, or came to it later.
            Inconclusive: nobody has asked for the leader before.
        """
        led = self._members.led
        if led is None:
            raise Inconclusive("the leader before the fault is not known, so none can be new")

        def same() -> str | None:
            leader = etcd.leader(self._members.all)
            in_time = [name for at, name in self._stage.etcd_recorder.leaders(since) if at <= since + timeout]
            return None if leader and leader != led and leader.name in in_time else "not yet"

        try:
            until(same, max(since + timeout - now(), 2 * PERIOD_SECONDS), "", Since(now()))
        except TooLate as late:
            seen = [
                f"{name} leads {at - since:.1f} s after the fault"
                for at, name in self._stage.etcd_recorder.leaders(since)
            ]
            said = f"etcd has a leader other than {led.name}; seen: {', '.join(seen) or 'no new leader'}"
            none = EtcdSeen(led.name, "no-leader", len(seen), said)
            raise TooLate(said, timeout, Since(since, "the fault"), late.until, [none]) from None

    def expect_agreement(self, timeout: float) -> None:
        """All members follow one leader and have the same hash at the same revision, within ``timeout`` seconds.

        Raises:
            AssertionError: they do not.
            Inconclusive: their hashes differ, which is a known defect of this very etcd.
        """
        try:
            at = etcd.await_agreement(self._members.all, timeout)
        except TooLate as error:
            findings = etcd_agreement(History(etcd=[etcd.comparison(self._members.all)]))
            if own := next((finding for finding in findings if finding.blame == "suite"), None):
                raise Inconclusive(own.message) from None
            said = f"{error.what}; {self._members.last_words()}"
            seen = EtcdSeen("", "disagreement", timeout, said)
            raise TooLate(said, error.bound, error.origin, error.until, [seen]) from None
        self._stage.events.add("note", "", f"etcd members that agree: {len(self._members.all)}", at=at)

    def registered(self, node: Node) -> bool:
        """Whether anything is registered with a lease of the worker on ``node``, as any living member has it.

        Raises:
            AssertionError: no member answers.
            Inconclusive: the worker was never seen registered.
        """
        leases = self._stage.etcd_recorder.leases_of(node.name)
        if not leases:
            raise Inconclusive(f"{node.name} was never seen registered, so nothing can show that it is deregistered")
        for member in self._members.all:
            try:
                return any(each.lease in leases for each in etcd.registrations(member))
            except etcd.EtcdError:
                continue
        raise NotKept(EtcdSeen("", "no-answer", len(self._members.all), "no etcd member answers"))

    def expect_unregistered(self, node: Node, since: float, timeout: float) -> None:
        """The worker on ``node`` is registered no more, ``timeout`` seconds from ``since`` at the latest.

        Raises:
            AssertionError: it still is.
        """

        def registered() -> list[EtcdSeen] | None:
            return [EtcdSeen(node.name, "registered", now() - since, "it is")] if self.registered(node) else None

        until(registered, timeout, f"{node.name} is no longer registered in etcd", Since(since, "its fault"))
