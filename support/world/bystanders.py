"""Who is not the victim: what others suffer of a fault, what they get to do, and orders that are for nobody."""

from collections.abc import Iterator

from support.amounts import amount
from support.clock import now
from support.contract.deployment import Node
from support.errors import Inconclusive, Mistake, NotKept, Refused
from support.observe.routes import all_given
from support.requests.ledger import LedgerEntry
from support.requests.outcomes import outcome, seen_of
from support.seen import Seen, ShareSeen, Touched
from support.world.answers import Answers
from support.world.clients import Clients
from support.world.faults import Faults
from support.world.stage import Stage
from support.world.workload import Workload

NOBODY = "no-such-worker"
# With fewer requests than these a share says more about the router's next turn than about its choice.
LEAST_REQUESTS = 10
UNNAMED = "no worker of this release names the requests that it was given, so nobody knows who got them"


class Bystanders:
    """Looks at those whom no fault was for."""

    def __init__(self, stage: Stage, clients: Clients, answers: Answers, faults: Faults, workload: Workload) -> None:
        self._stage, self._clients, self._answers = stage, clients, answers
        self._faults, self._workload = faults, workload
        self._answer: Refused | None = None
        self._before: list[str] = []

    # -- an order for nobody

    def order_on_nobody(self) -> None:
        """Order a crash of a worker that does not exist, and keep the answer of the fault service."""
        service = self._stage.target.service
        self._before = [fault["id"] for fault in service.faults()]
        self._stage.events.add("note", "", f"a crash of {NOBODY}, which does not exist, is ordered")
        try:
            service.inject("process", target_pod=NOBODY, type="crash")
        except Refused as refusal:
            self._answer = refusal

    def expect_refused(self) -> None:
        """The fault service has refused the last order because there is no such node, has named all workers, and has
        made no fault. It is no part of Dynamo, so a broken promise is no finding about Dynamo.

        Raises:
            Inconclusive: it has not.
        """
        if self._answer is None:
            raise Inconclusive(f"the fault service took an order to crash {NOBODY}, which does not exist")
        said, names = str(self._answer), [node.name for node in self._stage.deployment.workers]
        if self._answer.status != 404 or NOBODY not in said:
            raise Inconclusive(
                f"the order to crash {NOBODY} was not refused as such: HTTP {self._answer.status}, {said}"
            )
        if missing := [name for name in names if name not in said]:
            raise Inconclusive(f"the refusal does not name {', '.join(missing)}: {said}")
        if made := [fault["id"] for fault in self._stage.target.service.faults() if fault["id"] not in self._before]:
            raise Inconclusive(f"the order was refused and has made a fault all the same: {', '.join(made)}")

    # -- who is not touched

    def expect_untouched(self) -> None:
        """No worker that no fault was for has suffered any harm, nor has a request that such workers alone had.

        Raises:
            NotKept: one has.
            Mistake: every worker was hit, so no other one is left.
        """
        victims = self._faults.victims
        others = [node for node in self._stage.deployment.workers if node.name not in victims]
        others = [node for node in others if node.name in self._stage.first]
        if not others:
            raise Mistake("each worker was hit by a fault, so no other one is left to look at")
        harmed: list[Seen] = [each for node in others for each in self._harm(node)]
        requests = self._requests()
        given = all_given(requests, self._stage.deployment.workers, self._stage.logs)
        for entry, names in zip(requests, given, strict=True):
            if names and not victims & {*names} and outcome(entry).kind != "complete":
                harmed.append(seen_of(entry, "complete", entry.max_tokens))
        if harmed:
            raise NotKept(*harmed)
        what = f"{amount(len(others), 'other worker')} and {amount(len(requests), 'request')} looked at"
        self._stage.events.add("proof", "", f"no other worker is touched: {what}")

    def _harm(self, node: Node) -> Iterator[Touched]:
        """What the witness sees of a node that does not belong there."""
        witness = self._stage.target.witness
        first, life = self._stage.first[node.name], self._stage.deployment.life(node)
        state = witness.state(first)
        if state != "alive" or life != first:
            said = f"is {state}" if state != "alive" else f"was started again as {life.words}"
            yield Touched(node.name, node.role, "process", said)
            return
        broken = any(fault.fault.family == "gpu" for fault in self._faults.made)
        if broken and (gpu := witness.telemetry(node)["state"]) != "ok":
            yield Touched(node.name, node.role, "gpu", f"has a GPU that is {gpu}")
        for frontend in self._whole_frontends():
            lost = witness.lost_between(frontend, node)
            if any(lost.values()):
                yield Touched(node.name, node.role, "packets", f"loses packets to {frontend.name}: {lost}")

    def _whole_frontends(self) -> list[Node]:
        return [node for node in self._stage.nodes("frontend") if node.name not in self._faults.victims]

    def _requests(self) -> list[LedgerEntry]:
        """All requests that the scenario is about, once they have ended; those of a load that has been played too."""
        single = self._answers.all() if self._clients.watched else []
        loaded = self._workload.played.ledger if self._clients.loads else []
        return [*single, *(entry for entry in loaded if entry.cancelled_at is None)]

    # -- who gets the work

    def expect_less_than(self, percent: float) -> None:
        """Of the requests that were sent while the last fault was on, its victim was given less than ``percent``.

        Raises:
            NotKept: it was given more.
            Inconclusive: there were too few of them to tell, or nobody knows who was given them.
        """
        fault = self._faults.last
        until = self._faults.undone.get(fault.id, min(fault.until, now()))
        new = [entry for entry in self._requests() if fault.proven_at <= (entry.sent_at or 0.0) <= until]
        given = [names for names in all_given(new, self._stage.deployment.workers, self._stage.logs) if names]
        if new and not given:
            raise Inconclusive(UNNAMED)
        if len(given) < LEAST_REQUESTS:
            seen = f"{amount(len(given), 'request')} reached a worker while the fault was on"
            raise Inconclusive(f"{seen}; expected {LEAST_REQUESTS} or more")
        got = sum(fault.node.name in names for names in given)
        if 100 * got >= percent * len(given):
            raise NotKept(ShareSeen(fault.node.name, got, len(given), percent))
        self._stage.events.add("proof", fault.node.name, f"it got {got} of {amount(len(given), 'new request')}")
