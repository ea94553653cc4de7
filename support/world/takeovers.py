"""Who has gone on with the watched requests once a fault had hit the worker that served them."""

from collections.abc import Collection, Sequence
from functools import partial

from support.clock import now
from support.errors import Inconclusive, Mistake, NotKept
from support.faults.fault import ProvenFault
from support.observe.fleet import SETTLE_SECONDS
from support.observe.routes import given_to, name_of, written_by
from support.observe.waiting import this_sentence, until
from support.requests.ledger import LedgerEntry
from support.seen import Handed
from support.world.clients import Clients
from support.world.stage import Stage

UNNAMED = "no worker of this release names the request, so bytes of any request were counted"


class Takeovers:
    """Looks at who has had which request, by the name that workers have for it.

    Where no worker names any, bytes have to do, and an event says so.
    """

    def __init__(self, stage: Stage, clients: Clients) -> None:
        self._stage, self._clients = stage, clients

    def _given(self) -> list[tuple[LedgerEntry, list[str]]]:
        """The watched requests that a worker names, each with the names of those that do."""
        workers, logs = self._stage.deployment.workers, self._stage.logs
        entries = [pending.entry for pending in self._clients.watched]
        return [(entry, names) for entry in entries if (names := given_to(entry, workers, logs))]

    def _peers(self, victims: Collection[str]) -> list[str]:
        """Names of the workers that can take over from one of ``victims``: those that do the same work."""
        workers = self._stage.deployment.workers
        roles = {node.role for node in workers if node.name in victims}
        return [node.name for node in workers if node.role in roles and node.name not in victims]

    def expect_takeover(self, faults: Sequence[ProvenFault]) -> None:
        """Of each watched request that a victim had when it was hit another worker with the same role, which was not
        hit, has had and written the rest.

        Raises:
            AssertionError: of one nobody has.
            Inconclusive: none of the victims had a watched request then.
        """
        if not faults:
            raise Mistake("no worker was hit; there is nothing to take over")
        victims = {fault.node.name for fault in faults}
        peers, given = self._peers(victims), self._given()
        if not given:
            self._stage.events.add("note", "", UNNAMED)
            self._stage.fleet.expect_production(peers)
            return
        hit = [
            entry
            for entry, names in given
            if any(each.node.name in names and (entry.ended_at or now()) > each.struck_at for each in faults)
        ]
        if not hit:
            raise Inconclusive(f"{', '.join(sorted(victims))} had none of the requests that were watched")
        for entry in hit:
            what = f"another worker has written the rest of request {entry.number}"
            until(partial(self._missing, entry, peers), SETTLE_SECONDS, what, this_sentence())

    def _missing(self, entry: LedgerEntry, peers: Collection[str]) -> str | None:
        """Why none of ``peers`` has written anything of an answer."""
        logs = self._stage.logs
        named = given_to(entry, self._stage.deployment.workers, logs)
        took = [name for name in named if name in peers]
        wrote = written_by(entry, logs) if self._stage.engine == "ruler" else self._stage.fleet.producing(took)
        return None if set(took) & set(wrote) else f"it was given to {', '.join(named)}"

    def expect_no_takeover(self, victims: Collection[str]) -> None:
        """No watched request was given to two workers with the same role; where one was hit, to no other. And at most
        one worker has written anything.

        Raises:
            NotKept: one was.
            AssertionError: more have.
        """
        role = {node.name: node.role for node in self._stage.deployment.workers}
        for entry, names in self._given():
            others = [name for name in names if name in self._peers(victims)]
            twice = [name for name in names if [role[each] for each in names].count(role[name]) > 1]
            if moved := others or twice:
                said = f"request {entry.number} was given to {', '.join(moved)}"
                raise NotKept(Handed(name_of(entry), moved[0], "moved", len(names), None, said))
        self._stage.fleet.expect_lone_production(victims)
