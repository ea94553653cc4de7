"""The etcd cluster of a scenario: its members by role, what breaks of it, and what has to become true again."""

import contextlib
import json
from functools import partial

from support.clock import now
from support.contract.deployment import Node
from support.errors import Inconclusive, TooLate
from support.faults.proven import LEASE_SECONDS, ProvenFault
from support.judge.history import History
from support.judge.rules.etcd import etcd_agreement
from support.observe import etcd
from support.observe.etcd_recorder import PERIOD_SECONDS
from support.observe.waiting import at_once, prove, until
from support.requests.outcomes import shorten
from support.world.faults import Faults
from support.world.stage import Stage

# A cluster that has just been made or mended elects within 2 s; a loaded machine adds scheduling delays.
LEADER_SECONDS = 10.0


class EtcdCluster:
    """The members of a deployment's etcd cluster, asked for by what they are rather than by name."""

    def __init__(self, stage: Stage, faults: Faults) -> None:
        self._stage, self._faults = stage, faults
        self._members: list[Node] | None = None
        self._led: Node | None = None
        self._broken: list[ProvenFault] = []

    @property
    def members(self) -> list[Node]:
        """Those that belong to it; RuntimeError: there is no deployment yet."""
        if self._members is None:
            self._members = self._stage.nodes("etcd")
        return self._members

    def leader(self) -> Node:
        """The member that leads.

        Raises:
            Inconclusive: a majority agrees on none within :data:`LEADER_SECONDS`.
        """

        def none() -> str | None:
            return None if etcd.leader(self.members) else f"{etcd.statuses(self.members)}"

        try:
            prove(none, LEADER_SECONDS, "the etcd cluster has a leader", "there was no etcd leader to speak of")
        except Inconclusive as error:
            raise Inconclusive(f"{error}; {self._last_words()}") from None
        return etcd.leader(self.members) or self.leader()

    def _last_words(self) -> str:
        told = [f"{node.name}: {_message(self._stage.tail(node, 1))}" for node in self.members]
        return f"last words in the logs: {'; '.join(told)}"

    def pick(self, role: str) -> list[Node]:
        """Members by role: ``leader``, ``follower`` (one of them), ``minority`` (as many as may be lost, all of them
        followers), ``majority`` (more than half of them, the leader among them), ``busiest`` (through which most leases
        are kept alive) or ``all``.

        Raises:
            Inconclusive: there are none in that role.
        """
        if role == "all":
            return self.members
        if role == "busiest":
            return [self._busiest()]
        leader = self._led = self.leader()
        followers = [node for node in self.members if node.name != leader.name]
        half = len(self.members) // 2
        may_be_lost = (len(self.members) - 1) // 2
        found = {
            "leader": [leader],
            "follower": followers[:1],
            "minority": followers[:may_be_lost],
            "majority": [leader, *followers[:half]],
        }[role]
        if not found:
            raise Inconclusive(f"a cluster with {len(self.members)} members has no {role}")
        return found

    def _busiest(self) -> Node:
        try:
            streams = {node.name: etcd.keep_alives(node) for node in self.members}
        except etcd.EtcdError as error:
            raise Inconclusive(f"the busiest etcd member is not to be found: {error}") from None
        busiest = max(self.members, key=lambda node: streams[node.name])
        if not streams[busiest.name]:
            raise Inconclusive(f"no etcd member has leases kept alive through it: {streams} streams")
        self._stage.events.add("proof", busiest.name, f"open streams that keep leases alive: {streams}")
        return busiest

    # -- faults

    def break_processes(self, kind: str, role: str, lease_seconds: float = LEASE_SECONDS) -> list[ProvenFault]:
        """Break the processes of the members in a role, see :class:`support.faults.processes.ProcessFaults`."""
        nodes = self.pick(role)
        inject = self._faults.process_faults.inject
        faults = at_once(*(partial(inject, kind, node, lease_seconds) for node in nodes))
        self._broken += [self._faults.keep(fault) for fault in faults]
        return faults

    def break_each_in_turn(self, kind: str) -> None:
        """Break one member after the other and undo it once the others have a leader; each time all members agree again
        before the next.
        """
        for node in list(self.members):
            fault = self._faults.keep(self._faults.process_faults.inject(kind, node))
            self.leader()
            self._faults.process_faults.recover(fault)
            self.expect_agreement(LEADER_SECONDS)

    def bring_back(self) -> None:
        """Undo all faults of members' processes at once, for one member alone may have to wait for the others.

        Raises:
            Inconclusive: none is broken.
        """
        if not self._broken:
            raise Inconclusive("no etcd member is broken, so none can return")
        at_once(*(partial(self._faults.process_faults.recover, fault) for fault in self._broken))
        self._broken.clear()

    def cut(
        self, role: str, others: str, mode: str = "drop", direction: str = "both", lease_seconds: float = LEASE_SECONDS
    ) -> ProvenFault:
        """Cut the members in a role off.

        Args:
            others: from whom: ``peers`` (the members that are not in that role), ``dynamo`` or ``everybody``.
            direction: ``both``, ``from`` the members or ``to`` them.
        """
        nodes = self.pick(role)
        names = {node.name for node in nodes}
        peers = [node for node in self.members if node.name not in names]
        sides = {
            "peers": peers,
            "dynamo": self._stage.deployment.dynamo,
            "everybody": [*peers, *self._stage.deployment.dynamo],
        }
        if not sides[others]:
            raise Inconclusive(f"there is nobody to cut {', '.join(sorted(names))} off from")
        return self._faults.keep(
            self._faults.network_faults.between(sides[others], nodes, mode, direction, lease_seconds)
        )

    def narrow(self, role: str, rate_kbit: int, lease_seconds: float = LEASE_SECONDS) -> list[ProvenFault]:
        """Have the cables of the members in a role carry no more than ``rate_kbit`` kilobits per second, each way.

        Raises:
            Inconclusive: it is not proven, or there is no other member to prove it with.
        """
        nodes = self.pick(role)
        peers = [node for node in self.members if node not in nodes]
        if not peers:
            raise Inconclusive("no etcd member is left whose cable is as wide as before")
        return [
            self._faults.keep(self._faults.network_faults.narrow(node, rate_kbit, peers[0], lease_seconds))
            for node in nodes
        ]

    def replace_lost(self) -> None:
        """Put a new, empty member in the place of the one that broke last.

        Raises:
            Inconclusive: none is broken.
            DeploymentFailed: the cluster refuses, or the new member does not join.
        """
        if not self._broken:
            raise Inconclusive("no etcd member was lost, so none can be replaced")
        lost = self._broken.pop().node
        new = self._stage.deployment.replace_etcd_member(lost)
        self._members = [node for node in self.members if node.name != lost.name] + [new]
        self._stage.etcd_recorder.add(new)
        self._stage.events.add("proof", new.name, f"{new.name} has joined with no data in the place of {lost.name}")

    # -- what has to become true

    def expect_new_leader(self, since: float, timeout: float) -> None:
        """A member other than the one that led leads, ``timeout`` seconds from ``since`` at the latest.

        When it became leader is for the recorder to say; this may be asked later, after the proof of a cut.

        Raises:
            AssertionError: none does, or came to it later.
            Inconclusive: nobody has asked for the leader before.
        """
        led = self._led
        if led is None:
            raise Inconclusive("no etcd member was known as the leader, so none can be a new one")

        def same() -> str | None:
            leader = etcd.leader(self.members)
            in_time = [name for at, name in self._stage.etcd_recorder.leaders(since) if at <= since + timeout]
            return None if leader and leader != led and leader.name in in_time else "not yet"

        try:
            until(same, max(since + timeout - now(), 2 * PERIOD_SECONDS), "")
        except TooLate as late:
            seen = [
                f"{name} leads {at - since:.1f} s after the fault"
                for at, name in self._stage.etcd_recorder.leaders(since)
            ]
            what = f"not within {timeout:g} seconds: etcd has a leader other than {led.name}"
            message = f"{what}; seen: {', '.join(seen) or 'no new leader'}"
            raise TooLate(message, timeout, since, late.until) from None

    def expect_agreement(self, timeout: float) -> None:
        """All members follow one leader and have the same hash at the same revision, within ``timeout`` seconds.

        Raises:
            AssertionError: they do not.
            Inconclusive: their hashes differ, which is a known defect of this very etcd.
        """
        try:
            at = etcd.await_agreement(self.members, timeout)
        except TooLate as error:
            findings = etcd_agreement(History(etcd=[etcd.comparison(self.members)]))
            if own := next((finding for finding in findings if finding.blame == "suite"), None):
                raise Inconclusive(own.message) from None
            raise TooLate(f"{error}; {self._last_words()}", error.bound, error.since, error.until) from None
        self._stage.events.add("note", "", f"{len(self.members)} etcd members agree", at=at)

    def registered(self, node: Node) -> bool:
        """Whether anything is registered with a lease of the worker on ``node``, as any living member has it.

        Raises:
            AssertionError: no member answers.
            Inconclusive: the worker was never seen registered.
        """
        leases = self._stage.etcd_recorder.leases_of(node.name)
        if not leases:
            raise Inconclusive(f"{node.name} was never seen registered, so it cannot be registered no more")
        for member in self.members:
            try:
                return any(each.lease in leases for each in etcd.registrations(member))
            except etcd.EtcdError:
                continue
        raise AssertionError("no etcd member answers")

    def expect_unregistered(self, node: Node, since: float, timeout: float) -> None:
        """The worker on ``node`` is registered no more, ``timeout`` seconds from ``since`` at the latest.

        Raises:
            AssertionError: it still is.
        """
        until(
            lambda: "it is" if self.registered(node) else None,
            timeout,
            f"{node.name} is no longer registered in etcd",
            since,
        )


def _message(line: str) -> str:
    """What a line of etcd's log says; etcd writes JSON."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        line = json.loads(line)["msg"]
    return shorten(line)
