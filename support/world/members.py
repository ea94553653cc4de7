"""The members of the etcd cluster behind a deployment, by what they are rather than by name."""

import contextlib
import json

from support.amounts import amount
from support.contract.deployment import Node
from support.errors import Inconclusive
from support.observe import etcd
from support.observe.waiting import prove
from support.requests.outcomes import shorten
from support.world.stage import Stage

# A cluster that has just been made or repaired elects within 2 s; a loaded machine adds scheduling delays.
LEADER_SECONDS = 10.0


class EtcdMembers:
    """Who belongs to the cluster, and who they are right now.

    Attributes:
        led: who led when members were last looked for by who leads; None: nobody has asked.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._all: list[Node] | None = None
        self.led: Node | None = None

    @property
    def all(self) -> list[Node]:
        """Those that belong to it; Mistake: there is no deployment yet."""
        if self._all is None:
            self._all = self._stage.nodes("etcd")
        return self._all

    def replace(self, lost: Node) -> Node:
        """Put a new, empty member in the place of one that is lost, and return it.

        Raises:
            DeploymentFailed: the cluster refuses, or the new member does not join.
        """
        new = self._stage.deployment.replace_etcd_member(lost)
        self._all = [node for node in self.all if node.name != lost.name] + [new]
        self._stage.etcd_recorder.add(new)
        return new

    def leader(self) -> Node:
        """The member that leads.

        Raises:
            Inconclusive: a majority agrees on none within :data:`LEADER_SECONDS`.
        """

        def none() -> str | None:
            return None if etcd.leader(self.all) else f"{etcd.statuses(self.all)}"

        try:
            prove(none, LEADER_SECONDS, "the etcd cluster has a leader", "there was no etcd leader")
        except Inconclusive as error:
            raise Inconclusive(f"{error}; {self.last_words()}") from None
        return etcd.leader(self.all) or self.leader()

    def last_words(self) -> str:
        """The last line in the log of each."""
        told = [f"{node.name}: {_message(self._stage.tail(node, 1))}" for node in self.all]
        return f"last lines of the logs: {'; '.join(told)}"

    def pick(self, part: str) -> list[Node]:
        """Members by what they are, see :class:`support.faults.victims.Members`.

        Raises:
            Inconclusive: there are none of that.
        """
        if part == "all":
            return self.all
        if part == "busiest":
            return [self._busiest()]
        leader = self.led = self.leader()
        followers = [node for node in self.all if node.name != leader.name]
        half = len(self.all) // 2
        may_be_lost = (len(self.all) - 1) // 2
        found = {
            "leader": [leader],
            "follower": followers[:1],
            "minority": followers[:may_be_lost],
            "majority": [leader, *followers[:half]],
        }[part]
        if not found:
            raise Inconclusive(f"a cluster with {amount(len(self.all), 'member')} has no {part}")
        return found

    def _busiest(self) -> Node:
        try:
            streams = {node.name: etcd.keep_alives(node) for node in self.all}
        except etcd.EtcdError as error:
            raise Inconclusive(f"the busiest etcd member cannot be found: {error}") from None
        busiest = max(self.all, key=lambda node: streams[node.name])
        if not streams[busiest.name]:
            raise Inconclusive(f"no etcd member has leases kept alive through it: {streams} streams")
        self._stage.events.add("proof", busiest.name, f"open streams that keep leases alive: {streams}")
        return busiest


def _message(line: str) -> str:
    """What a line of etcd's log says; etcd writes JSON."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        line = json.loads(line)["msg"]
    return shorten(line)
