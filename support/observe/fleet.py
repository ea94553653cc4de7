"""The fleet: workers and frontend of a deployment as their own metrics and lists show them. Looks and never touches."""

from collections.abc import Callable, Collection
from pathlib import Path

from support.clock import now
from support.contract.deployment import Deployment, Node
from support.errors import Inconclusive
from support.events import EventLog
from support.observe.health import instances, models, serves
from support.observe.metrics import Exposition
from support.observe.waiting import prove, throughout, until
from support.observe.workers import ENDPOINT, in_flight, produced_bytes, try_scrape, worker_id
from support.releases import Release

# How long a request may take to reach a worker, and gauges to settle after the last request: both take milliseconds on
# an idle machine; the bounds leave room for a machine with every core busy. The second is Dynamo's to keep, and does
# not grow: a prefill slot that is leaked is freed after 30 s.
ARRIVAL_SECONDS, SETTLE_SECONDS = 10.0, 5.0
# Standing still can only be seen over a while: at 170 tokens per second a worker that goes on would write 80 in it.
QUIET_SECONDS = 0.5
NO_ANSWER = "the frontend does not answer"


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
            counts = [(in_flight(node, self.release.metrics) or 0.0, node) for node in candidates]
            busiest[:] = sorted(counts, key=lambda each: -each[0])[:1]
            return None if busiest and busiest[0][0] else f"{self.in_flight()} requests in flight"

        what = f"a {role} worker has a request in flight" if role else "a worker has a request in flight"
        prove(idle, ARRIVAL_SECONDS, what, "nothing was in flight")
        return busiest[0][1]

    def produced_bytes(self) -> dict[str, float]:
        """Node name -> bytes of answers sent so far, for every worker that answers."""
        counts = {node.name: produced_bytes(node, self.release.metrics) for node in self.deployment.workers}
        return {name: count for name, count in counts.items() if count is not None}

    def grown_bytes(self) -> dict[str, float]:
        """Node name -> bytes of answers that each worker that answers has sent since the deployment was ready."""
        metric = self.release.metrics["worker_response_bytes"]
        return {
            name: count
            - ((self.before[name].value(metric, dynamo_endpoint=ENDPOINT) if name in self.before else None) or 0.0)
            for name, count in self.produced_bytes().items()
        }

    def see_production(self, worker: Node, held: Callable[[Node], int] = lambda _: 0) -> None:
        """Make sure that ``worker`` is in the middle of an answer: its bytes rise, or its gate holds one.

        Args:
            held: how many answers the gate of a worker holds right now.

        Raises:
            Inconclusive: it is not within :data:`ARRIVAL_SECONDS`.
        """
        start = produced_bytes(worker, self.release.metrics) or 0.0

        def still() -> str | None:
            current = produced_bytes(worker, self.release.metrics) or 0.0
            return None if current > start or held(worker) else f"{current:g} bytes"

        what = f"{worker.name} produces more than {start:g} bytes, or holds an answer"
        prove(still, ARRIVAL_SECONDS, what, "the worker was not producing")
        how = f"holds {count} in their middle" if (count := held(worker)) else "is producing an answer"
        self.events.add("proof", worker.name, f"{worker.name} {how}")

    def expect_idle(self, timeout: float) -> None:
        """No worker has anything in flight within ``timeout`` seconds, and none produces anything from then on.

        Workers that do not answer (dead, hung) are left out, but one at least has to.

        Raises:
            AssertionError: says which worker goes on.
        """

        def busy() -> str | None:
            counts = {name: count for name, count in self.in_flight().items() if count is not None}
            working = [f"{name} has {count:g}" for name, count in counts.items() if count]
            return ", ".join(working) or (None if counts else "no worker answers")

        until(busy, timeout, "no worker has a request in flight")
        before = self.produced_bytes()
        rising: list[str] = []

        def risen() -> str | None:
            current = self.produced_bytes()
            rising[:] = [
                f"{name} by {current[name] - count:g}"
                for name, count in before.items()
                if current.get(name, count) > count
            ]
            return None if rising else "nothing"

        try:
            until(risen, QUIET_SECONDS, "a worker produces more bytes")
        except AssertionError:
            return
        raise AssertionError(f"with nothing in flight, bytes produced rose at {', '.join(rising)}")

    def expect_takeover(self, victims: Collection[str]) -> None:
        """A worker other than ``victims`` has produced something since the deployment was ready.

        Raises:
            AssertionError: none has.
        """
        if not victims:
            raise RuntimeError("no worker was hit; there is nothing to take over")
        produced = {name: count for name, count in self.grown_bytes().items() if name not in victims}
        if not any(produced.values()):
            raise AssertionError(f"no worker took over; bytes produced by the others: {produced}")

    def expect_no_takeover(self, victims: Collection[str]) -> None:
        """At most one worker has produced anything since the deployment was ready; where one was hit, no other.

        Raises:
            AssertionError: more have.
        """
        producing = [name for name, count in self.grown_bytes().items() if count]
        others = [name for name in producing if name not in victims] if victims else producing[1:]
        if others:
            raise AssertionError(f"{', '.join(others)} went on with the request")

    def listed_workers(self) -> int | None:
        """How many workers the frontend lists right now; None when it does not answer."""
        listed = instances(self.deployment.frontend_url)
        return None if listed is None else len(listed)

    def expect_listed(self, count: int, timeout: float) -> None:
        """The frontend lists exactly ``count`` workers within ``timeout`` seconds.

        Raises:
            AssertionError: it does not.
        """

        def others() -> str | None:
            listed = self.listed_workers()
            return None if listed == count else _told(listed)

        until(others, timeout, f"the frontend lists {count} workers")

    def expect_listed_throughout(self, count: int, seconds: float) -> None:
        """The frontend lists exactly ``count`` workers at every look for ``seconds`` from now.

        Raises:
            AssertionError: says how many it listed instead, and when.
        """
        since = now()

        def look() -> None:
            listed, after = self.listed_workers(), now() - since
            if listed is None:
                raise AssertionError(f"the frontend does not answer after {after:.1f} s; expected {count} workers")
            if listed != count:
                raise AssertionError(f"the frontend lists {listed} workers after {after:.1f} s; expected {count}")

        throughout(look, seconds, f"the frontend lists {count} workers")

    def expect_no_model(self, timeout: float) -> None:
        """The frontend lists no model within ``timeout`` seconds.

        Raises:
            AssertionError: it does.
        """

        def offered() -> str | None:
            listed = models(self.deployment.frontend_url)
            return NO_ANSWER if listed is None else ", ".join(listed) or None

        until(offered, timeout, "the frontend lists no model")

    def expect_serving(self, timeout: float, since: float) -> None:
        """Within ``timeout`` seconds of ``since`` the frontend lists as many workers as the deployment is to have,
        none of them dead, and serves the model.

        Raises:
            AssertionError: it does not.
        """
        url, model = self.deployment.frontend_url, self.deployment.model
        wanted = self.deployment.shape.workers + self.deployment.shape.prefill_workers

        def others() -> str | None:
            listed = instances(self.deployment.frontend_url)
            if listed is None or len(listed) != wanted:
                return _told(None if listed is None else len(listed))
            alive = {worker_id(node) for node in self.deployment.workers}
            dead = [f"{each.number:x}" for each in listed if f"{each.number:x}" not in alive]
            return f"{wanted} listed, but of those {', '.join(dead)} no longer there" if dead else None

        def unserved() -> str | None:
            return None if serves(self.deployment.frontend_url, model) else f"models {models(url)}"

        until(others, timeout, f"the frontend lists {wanted} workers", since)
        until(unserved, timeout, f"the frontend lists {model}", since)

    def expect_dead_listed(self, victims: Collection[str]) -> None:
        """The frontend lists more workers than are alive without ``victims``.

        Raises:
            Inconclusive: it does not, so requests cannot run into a dead one.
        """
        alive = len(self.deployment.workers) - len(victims)
        listed = self.listed_workers()
        if listed is None or listed <= alive:
            raise Inconclusive(f"{_told(listed)}, with {alive} alive: no dead worker is listed")
        self.events.add("proof", "frontend-0", f"the frontend lists {listed} workers, {alive} are alive")

    def frontend_count(self, name: str, **labels: str) -> float:
        """How much the counter of all frontends that answer has grown since the deployment was ready.

        Args:
            name: a key of the release's metrics, such as ``frontend_migrations``.
        """
        answers = {node.name: metrics for node in self._frontends if (metrics := try_scrape(node)) is not None}
        if not answers:
            raise AssertionError("no frontend answers on its metrics page")
        metric = self.release.metrics[name]
        before = (self.before[name].value(metric, **labels) or 0.0 for name in answers if name in self.before)
        return sum(metrics.value(metric, **labels) or 0.0 for metrics in answers.values()) - sum(before)

    def expect_count(self, name: str, count: int, **labels: str) -> None:
        """The frontend's counter has grown by exactly ``count``; it may take :data:`SETTLE_SECONDS` to get there.

        Raises:
            AssertionError: it has not.
        """

        def off() -> str | None:
            grown = self.frontend_count(name, **labels)
            return None if grown == count else f"{grown:g}"

        until(off, SETTLE_SECONDS, f"{self.release.metrics[name]} has grown by {count}")

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
            until(busy, SETTLE_SECONDS, "nothing is in flight")
        except (AssertionError, ValueError) as error:  # ValueError: a page that is not in Prometheus' format
            self.events.add("note", "", str(error))
        return self._scrape("after")


def _told(listed: int | None) -> str:
    return NO_ANSWER if listed is None else f"{listed} listed"
