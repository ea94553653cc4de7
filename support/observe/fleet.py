"""The fleet: workers and frontend of a deployment as their own metrics and lists show them. Looks and never touches."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from support.amounts import amount
from support.clock import now
from support.contract.deployment import Deployment, Node
from support.errors import Inconclusive, NotKept, Since
from support.events import EventLog
from support.observe.health import models, numbers, serves
from support.observe.metrics import Exposition
from support.observe.waiting import prove, this_sentence, throughout, until
from support.observe.workers import ENDPOINT, in_flight, produced_bytes, try_scrape, worker_id
from support.releases import Release
from support.seen import Busy, CounterSeen, ModelsListed, Seen, Silent, Told, Took, WorkersListed, told

# How long a request may take to reach a worker, and gauges to settle after the last request: both take milliseconds on
# an idle machine; the bounds leave room for a machine with every core busy. The second is Dynamo's to keep, and does
# not grow: a prefill slot that is leaked is freed after 30 s.
ARRIVAL_SECONDS, SETTLE_SECONDS = 10.0, 5.0
# Standing still can only be seen over a while: at 170 tokens per second a worker that goes on would write 80 in it.
QUIET_SECONDS = 0.5


class Fleet:
    """What can be seen of a deployment, now and since it was ready.

    Args:
        deployment: the deployment, just ready.
        release: names of its metrics.
        events: gets a proof for whatever was made sure of.
        folder: gets the metrics pages, ``before/`` now and ``after/`` by :meth:`last_look`.
    """

    def __init__(self, deployment: Deployment, release: Release, events: EventLog, folder: Path) -> None:
        self.deployment, self.release, self.events, self.folder = deployment, release, events, folder
        self._first = {node.name for node in deployment.nodes}
        self.before = self._scrape("before")

    @property
    def _frontends(self) -> list[Node]:
        return [node for node in self.deployment.nodes if node.role == "frontend"]

    def _scrape(self, when: str) -> dict[str, Exposition]:
        folder = self.folder / when
        folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for node in self.deployment.nodes:
            if (metrics := try_scrape(node)) is not None:
                (folder / f"{node.name}.txt").write_text(metrics.text)
                found[node.name] = metrics
        return found

    def in_flight(self) -> dict[str, float | None]:
        """Node name -> requests that each worker is working on; None where it does not answer."""
        return {node.name: in_flight(node, self.release.metrics) for node in self.deployment.workers}

    def serving_worker(self, role: str = "", but: Collection[Node] = ()) -> Node:
        """The worker with most requests in flight.

        Args:
            role: only workers of this role (``prefill``, ``decode``); any if empty.
            but: none of these.

        Raises:
            Inconclusive: no worker has any within :data:`ARRIVAL_SECONDS`: there is nothing to break.
        """
        candidates = [node for node in self.deployment.workers if node not in but and role in ("", node.role)]
        busiest: list[tuple[float, Node]] = []

        def idle() -> str | None:
            counts = [(in_flight(node, self.release.metrics), node) for node in candidates]
            told = [(count, node) for count, node in counts if count]
            busiest[:] = sorted(told, key=lambda each: -each[0])[:1]
            return None if busiest else f"{self.in_flight()} requests in flight"

        what = f"a {role} worker has a request in flight" if role else "a worker has a request in flight"
        prove(idle, ARRIVAL_SECONDS, what, "nothing was in flight")
        return busiest[0][1]

    def produced_bytes(self) -> dict[str, float]:
        """Node name -> bytes of answers sent so far, for every worker that answers."""
        counts = {node.name: produced_bytes(node, self.release.metrics) for node in self.deployment.workers}
        return {name: count for name, count in counts.items() if count is not None}

    def grown_bytes(self, names: Collection[str]) -> dict[str, float]:
        """Name -> bytes of answers that each of these workers that answers has sent since the deployment was ready; one
        that was started later, or again, since then.

        Raises:
            Inconclusive: one did not answer when the deployment was ready, so nobody knows.
        """
        return {name: self._since_ready(name, count) for name, count in self.produced_bytes().items() if name in names}

    def _since_ready(self, name: str, count: float) -> float:
        if name not in self._first:
            return count
        page = self.before.get(name)
        start = page.value(self.release.metrics["worker_response_bytes"], dynamo_endpoint=ENDPOINT) if page else None
        if start is None:
            raise Inconclusive(f"{name} did not report what it had sent when the deployment was ready")
        return count - start if count >= start else count

    def _silent(self, told: Collection[str], but: Collection[str] = ()) -> list[str]:
        """Names of the workers that run, have not ``told`` anything, and are none of ``but``."""
        asked = [node for node in self.deployment.workers if node.name not in told and node.name not in but]
        return [node.name for node in asked if self.deployment.life(node).state == "running"]

    def see_production(self, worker: Node, held: Callable[[Node], int] = lambda _: 0) -> None:
        """Make sure that ``worker`` is in the middle of an answer: its bytes rise, or its gate holds one.

        Args:
            held: how many answers the gate of a worker holds right now.

        Raises:
            Inconclusive: it is not within :data:`ARRIVAL_SECONDS`.
        """
        first: list[float] = []

        def still() -> str | None:
            current = produced_bytes(worker, self.release.metrics)
            if current is None:
                return "it does not answer"
            first.append(current)
            return None if current > first[0] or held(worker) else f"{current:g} bytes"

        what = f"{worker.name} keeps sending bytes, or holds an answer"
        prove(still, ARRIVAL_SECONDS, what, "the worker was not producing")
        how = f"holds {count} in their middle" if (count := held(worker)) else "is producing an answer"
        self.events.add("proof", worker.name, f"{worker.name} {how}")

    def expect_idle(self, timeout: float, victims: Collection[str], since: Since | None = None) -> None:
        """No worker has anything in flight within ``timeout`` seconds of ``since`` (None: of now), and none produces
        anything from then on.

        Those that do not run, and ``victims``, may give no answer, but one at least has to.

        Raises:
            AssertionError: says which worker goes on, or does not answer.
        """

        roles = {node.name: node.role for node in self.deployment.workers}

        def busy() -> Sequence[Seen] | None:
            counts = {name: count for name, count in self.in_flight().items() if count is not None}
            working: list[Seen] = [Busy(name, roles[name], count) for name, count in counts.items() if count]
            working += [Silent(name, roles[name]) for name in self._silent(counts, victims)]
            return working or (None if counts else [Told("no worker answers")])

        until(busy, timeout, "no worker has a request in flight", since or this_sentence())
        before = self.produced_bytes()
        rising: list[Took] = []

        def risen() -> str | None:
            current = self.produced_bytes()
            rising[:] = [
                Took(name, roles[name], current[name] - count)
                for name, count in before.items()
                if current.get(name, count) > count
            ]
            return None if rising else "nothing"

        try:
            until(risen, QUIET_SECONDS, "a worker produces more bytes", Since(now()))
        except AssertionError:
            if silent := self._silent(self.produced_bytes(), victims):
                seen = [Silent(name, roles[name]) for name in silent]
                raise NotKept(*seen, message=f"with nothing in flight, {told(seen)} any more") from None
            return
        raise NotKept(*rising, message=f"with nothing in flight, bytes were produced: {told(rising)}")

    def producing(self, names: Collection[str]) -> list[str]:
        """Those of the workers with these names that have sent bytes of answers since the deployment was ready."""
        return [name for name, count in self.grown_bytes(names).items() if count]

    def expect_production(self, names: Collection[str]) -> None:
        """One of the workers with these names has sent bytes since the deployment was ready, of whatever request.

        Raises:
            AssertionError: none has.
        """
        if not self.producing(names):
            roles = {node.name: node.role for node in self.deployment.workers}
            seen = [Took(name, roles[name], count) for name, count in self.grown_bytes(names).items()]
            raise NotKept(*seen, message=f"no worker took over: {told(seen)}")

    def expect_lone_production(self, victims: Collection[str]) -> None:
        """At most one worker has sent bytes since the deployment was ready; where one was hit, no other.

        Raises:
            AssertionError: more have.
            Inconclusive: one that runs, and was not hit, does not answer.
        """

        def silent() -> str | None:
            return ", ".join(self._silent(self.produced_bytes(), victims)) or None

        prove(silent, SETTLE_SECONDS, "every running worker reports its bytes", "it is not known which worker went on")
        roles = {node.name: node.role for node in self.deployment.workers}
        producing = [Took(name, roles[name], count) for name, count in self.grown_bytes(roles).items() if count]
        others = [each for each in producing if each.node not in victims] if victims else producing[1:]
        if others:
            raise NotKept(*others, message=f"another worker went on with the request: {told(others)}")

    def listed_workers(self) -> int | None:
        """How many workers the frontend lists right now; None when it does not answer."""
        listed = numbers(self.deployment.frontend_url)
        return None if listed is None else len(listed)

    def expect_listed(self, count: int, timeout: float, since: Since | None = None) -> None:
        """The frontend lists exactly ``count`` workers within ``timeout`` seconds of ``since`` (None: of now).

        Raises:
            AssertionError: it does not.
        """

        def others() -> list[WorkersListed] | None:
            listed = self.listed_workers()
            return None if listed == count else [WorkersListed(count, listed)]

        until(others, timeout, f"the frontend lists {amount(count, 'worker')}", since or this_sentence())

    def expect_listed_throughout(self, count: int, seconds: float) -> None:
        """The frontend lists exactly ``count`` workers at every look for ``seconds`` from now.

        Raises:
            AssertionError: says how many it listed instead, and when.
        """
        since = now()

        def look() -> None:
            listed, after = self.listed_workers(), now() - since
            if listed != count:
                raise NotKept(WorkersListed(count, listed, after=after))

        throughout(look, seconds, f"the frontend lists {amount(count, 'worker')}")

    def expect_no_model(self, timeout: float) -> None:
        """The frontend lists no model within ``timeout`` seconds.

        Raises:
            AssertionError: it does.
        """

        def offered() -> list[ModelsListed] | None:
            listed = models(self.deployment.frontend_url)
            return None if listed == [] else [ModelsListed(None if listed is None else len(listed))]

        until(offered, timeout, "the frontend lists no model", this_sentence())

    def expect_serving(self, timeout: float, since: Since) -> None:
        """Within ``timeout`` seconds of ``since`` the frontend lists as many workers as the deployment is to have,
        none of them dead, and serves the model.

        Raises:
            AssertionError: it does not.
        """
        url, model = self.deployment.frontend_url, self.deployment.model
        wanted = self.deployment.shape.workers + self.deployment.shape.prefill_workers

        def others() -> list[WorkersListed] | None:
            listed = numbers(self.deployment.frontend_url)
            if listed is None or len(listed) != wanted:
                return [WorkersListed(wanted, None if listed is None else len(listed))]
            dead = len(listed - {str(worker_id(node)) for node in self.deployment.workers})
            return [WorkersListed(wanted, wanted, dead)] if dead else None

        def unserved() -> list[ModelsListed] | None:
            listed = models(url)
            return None if serves(url, model) else [ModelsListed(None if listed is None else len(listed))]

        until(others, timeout, f"the frontend lists {amount(wanted, 'worker')}", since)
        until(unserved, timeout, f"the frontend lists {model}", since)

    def expect_dead_listed(self, dead: Mapping[str, str | None]) -> None:
        """The frontend lists a dead worker.

        Args:
            dead: name of each -> what Dynamo called it, see :func:`support.observe.workers.worker_id`.

        Raises:
            Inconclusive: it lists none of them, so requests cannot run into one.
        """
        listed = numbers(self.deployment.frontend_url)
        found = [f"{name} ({number})" for name, number in dead.items() if listed is not None and number in listed]
        if not found:
            count = WorkersListed(len(dead), None if listed is None else len(listed)).words
            raise Inconclusive(f"{count}, none of them {', '.join(dead) or 'a victim'}: no dead worker is listed")
        self.events.add("proof", "frontend-0", f"the frontend lists {', '.join(found)}, which is dead")

    def _frontend_pages(self) -> dict[str, Exposition]:
        """Name -> metrics of every frontend that runs.

        Raises:
            AssertionError: none runs.
            Inconclusive: one does not answer.
        """
        pages = dict[str, Exposition]()

        def silent() -> str | None:
            running = [node for node in self._frontends if self.deployment.life(node).state == "running"]
            pages.clear()
            pages.update({node.name: page for node in running if (page := try_scrape(node)) is not None})
            return ", ".join(node.name for node in running if node.name not in pages) or None

        prove(silent, SETTLE_SECONDS, "every frontend that runs answers", "what frontends have counted is unknown")
        if not pages:
            raise NotKept(Told("no frontend runs, so there is no count"))
        return pages

    def frontend_count(self, name: str, **labels: str) -> float:
        """How much the counter of all frontends that run has grown since the deployment was ready.

        Args:
            name: a key of the release's metrics, such as ``frontend_migrations``.

        Raises:
            AssertionError: no frontend runs.
            Inconclusive: one does not answer.
        """
        metric = self.release.metrics[name]
        grown = 0.0
        for frontend, page in self._frontend_pages().items():
            # A counter with labels is not there before it has counted once.
            count = page.value(metric, **labels) or 0.0
            start = (self.before[frontend].value(metric, **labels) or 0.0) if frontend in self.before else 0.0
            grown += count - start if count >= start else count
        return grown

    def expect_count(self, name: str, count: int, **labels: str) -> None:
        """The frontend's counter has grown by exactly ``count``; it may take :data:`SETTLE_SECONDS` to get there.

        Raises:
            AssertionError: it has not.
        """

        metric = self.release.metrics[name]

        def off() -> list[CounterSeen] | None:
            grown = self.frontend_count(name, **labels)
            return None if grown == count else [CounterSeen(metric, grown, count, count)]

        until(off, SETTLE_SECONDS, f"{metric} has grown by {count}", this_sentence())

    def expect_cancellations(self, count: int, stream: bool, api: str) -> None:
        """The frontend has counted ``count`` cancelled requests of this kind and none of another.

        Raises:
            AssertionError: it has not.
        """
        kind = {
            "endpoint": "chat_completions" if api == "chat" else "completions",
            "request_type": "stream" if stream else "unary",
        }
        self.expect_count("frontend_cancellations", count, **kind)
        self.expect_count("frontend_cancellations", count)

    def last_look(self) -> dict[str, Exposition]:
        """Node name -> its metrics once the gauges have come to rest; what has not by then is for the judge."""

        def busy() -> str | None:
            pages = [metrics for node in self._frontends if (metrics := try_scrape(node)) is not None]
            open_requests = sum(page.value(self.release.metrics["frontend_inflight"]) or 0.0 for page in pages)
            working = [count for count in self.in_flight().values() if count]
            return f"{open_requests:g} at the frontend, {working} at workers" if open_requests or working else None

        try:
            until(busy, SETTLE_SECONDS, "nothing is in flight", Since(now()))
        except (AssertionError, ValueError) as error:  # ValueError: a page that is not in Prometheus' format
            self.events.add("note", "", str(error))
        return self._scrape("after")
