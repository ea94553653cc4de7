"""Which processes live and which have exited: those that are started again, stay, exit, or join."""

from collections.abc import Callable, Collection
from functools import partial

from support.clock import now
from support.contract.deployment import Node
from support.errors import Mistake, NotKept, Since
from support.judge.expectations import expect_complete
from support.observe.logs import poll_for_pattern
from support.observe.waiting import prove, this_sentence, throughout, until
from support.observe.workers import try_scrape
from support.seen import ProcessGone, ProcessThere
from support.world.answers import Answers
from support.world.clients import FIRST_TOKENS, Clients
from support.world.etcd import EtcdCluster
from support.world.faults import Faults
from support.world.shutdowns import Shutdowns
from support.world.stage import Stage
from support.world.takeovers import Takeovers

# The restart policy's first restart comes at once.
OUT_SECONDS = 2.0
# Each looks at all processes of the cell.
LOOK_SECONDS = 0.1
# A worker of 1.2.1 on a busy machine takes 10 s to come as far as etcd.
BOOT_SECONDS = 30.0
NO_LEASE = "Unable to create lease"
"""What a worker of any release tried (1.2.1 to 1.6.1) logs when etcd is down as it starts."""


class Lifetimes:
    """The lives of the processes of a deployment."""

    def __init__(
        self,
        stage: Stage,
        clients: Clients,
        answers: Answers,
        takeovers: Takeovers,
        faults: Faults,
        etcd: EtcdCluster,
    ) -> None:
        self._stage, self._clients, self._answers, self._takeovers = stage, clients, answers, takeovers
        self._faults, self._etcd = faults, etcd
        self._newcomers: list[Node] = []

    @property
    def shutdowns(self) -> Shutdowns:
        """What becomes of processes that exit, and of what they were doing."""
        return Shutdowns(self._stage.deployment, self._stage.target.witness, self._stage.fleet, self._takeovers)

    def expect_out(self, node: Node) -> None:
        """The worker does not run for :data:`OUT_SECONDS`, although its restart policy would have it run: its target
        says so, and the witness sees no process of it.

        Raises:
            AssertionError: it runs.
        """

        def look() -> None:
            life = self._stage.deployment.life(node)
            seen = self._stage.target.witness.state(life)
            if (life.state, seen) != ("fenced", "gone"):
                there = ProcessThere(node.name, node.role, seen, 0.0)
                message = f"{node.name} is {life.state}, its process {seen}; it should be kept out"
                raise NotKept(there, message=message)

        throughout(look, OUT_SECONDS, f"{node.name} is kept out", LOOK_SECONDS)

    def start_workers(self, count: int) -> None:
        """Start new workers and come back at once."""
        self._newcomers += [self._stage.deployment.start_worker() for _ in range(count)]

    def see_repelled(self) -> None:
        """Make sure that the last new worker has asked etcd for a lease and got none.

        Raises:
            Inconclusive: it has not within :data:`BOOT_SECONDS`, so etcd was not away when it came.
        """
        node = self._newcomers[-1]
        log = self._stage.logs / f"{node.name}.log"

        def silent() -> str | None:
            return None if poll_for_pattern(log, NO_LEASE, 0) else "not yet"

        unproven = "the new worker has not noticed that etcd is down"
        prove(silent, BOOT_SECONDS, f"{node.name} says that it gets no lease", unproven)
        self._stage.events.add("proof", node.name, f"{node.name} has noticed that etcd is down")

    def expect_newcomers_serve(self, timeout: float) -> None:
        """One request after the other succeeds, and within ``timeout`` seconds each new worker has had one.

        Raises:
            AssertionError: a request fails, or a worker has none.
            Mistake: there is no new worker.
        """

        if not self._newcomers:
            raise Mistake("no new worker was started, so none can serve; write 'When a new worker starts' before it")
        names = [node.name for node in self._newcomers]
        serving = partial(self._stage.fleet.producing, names)
        self._expect_serving(names, serving, timeout, "each new worker has served a request")

    def expect_victim_serves(self, timeout: float) -> None:
        """One request after the other succeeds, and within ``timeout`` seconds the last victim has had one.

        Raises:
            AssertionError: a request fails, or it has none.
        """
        name, fleet = self._faults.last.node.name, self._stage.fleet
        before = fleet.produced_bytes().get(name, 0.0)

        def serving() -> list[str]:
            return [name] if fleet.produced_bytes().get(name, 0.0) > before else []

        self._expect_serving([name], serving, timeout, f"{name} has served a request again")

    def _expect_serving(
        self, names: Collection[str], serving: Callable[[], Collection[str]], timeout: float, what: str
    ) -> None:
        def idle() -> str | None:
            expect_complete(self._clients.send(max_tokens=FIRST_TOKENS, watch=False).join().entry, FIRST_TOKENS)
            return ", ".join(sorted({*names} - {*serving()})) or None

        until(idle, timeout, what, this_sentence())

    def expect_restarted(self, timeout: float) -> None:
        """The last victim, in another life than the one that was hit, answers within ``timeout`` seconds.

        Raises:
            AssertionError: it has not, or does not.
        """
        fault, node = self._faults.last, self._faults.last.node

        def down() -> str | None:
            seen = self._stage.deployment.life(node)
            another = seen.state == "running" and seen != fault.life
            return None if another and try_scrape(node) is not None else f"{seen.words}, {seen.state}"

        until(down, timeout, f"{node.name} runs again", this_sentence())

    def expect_unregistered(self, timeout: float) -> None:
        """The last victim, a dead worker, is registered no more ``timeout`` seconds after its lease has run out.

        Raises:
            AssertionError: it still is.
        """
        fault = self._faults.last
        self._etcd.expect_unregistered(fault.node, fault.injected_at, self._stage.lease_seconds + timeout)

    def expect_finished(self, timeout: float) -> None:
        """The last victim, which was shut down, has finished the watched answers itself and exited, ``timeout`` seconds
        after the last of them ended at the latest.

        Raises:
            AssertionError: it has not.
        """
        finished_at = max(entry.ended_at or now() for entry in self._answers.all())
        self.shutdowns.expect_finished(self._faults.last, finished_at, timeout)

    def _first(self) -> dict[Node, str]:
        """Node of Dynamo -> what has become of its first process, without the victims of faults of processes, or of
        others that end theirs, as some errors of a GPU do.
        """
        hit = {fault.node.name for fault in self._faults.made if fault.fault.hits_process}
        nodes = [
            node for node in self._stage.deployment.dynamo if node.name in self._stage.first and node.name not in hit
        ]
        return {node: self._stage.target.witness.state(self._stage.first[node.name]) for node in nodes}

    def _left(self) -> list[Node]:
        """The nodes whose first process is there no more."""
        return [node for node, state in self._first().items() if state == "gone"]

    def expect_all_left(self, timeout: float) -> None:
        """Every process of Dynamo that was there at first has ended by itself, with exit status 0, ``timeout`` seconds
        after the last fault at the latest.

        Raises:
            AssertionError: one has not: it neither serves nor makes room for one that does; or it did not end cleanly.
        """

        since = Since(self._faults.last.injected_at, "the last fault")

        def staying() -> list[ProcessThere] | None:
            states = {node: state for node, state in self._first().items() if state != "gone"}
            seconds = now() - since.at
            return [ProcessThere(node.name, node.role, state, seconds) for node, state in states.items()] or None

        until(staying, timeout, "every Dynamo process has exited", since)
        self.shutdowns.expect_clean_exits([self._stage.first[node.name] for node in self._left()])

    def expect_none_left(self) -> None:
        """Every process of Dynamo that no fault has hit is the one that was there at first.

        Raises:
            AssertionError: one has ended.
            Mistake: a fault has hit them all.
        """
        if not self._first():
            raise Mistake("every Dynamo process was hit by a fault, so none is left that this could be said of")
        if left := self._left():
            raise NotKept(*(ProcessGone(node.name, node.role) for node in left))

    def expect_none_leaves(self, seconds: float) -> None:
        """The same at every look for ``seconds`` from now.

        Raises:
            AssertionError: one has ended.
        """
        throughout(self.expect_none_left, seconds, "no Dynamo process exits")
