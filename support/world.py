"""One scenario's world: its deployment, requests, faults and records, and how all of it ends.

Feature files reach it through the steps; Python programs use it through :mod:`support.api`.
"""

import json
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support import releases
from support.clock import now
from support.events import EventLog
from support.faults.gpu import GpuFaults
from support.faults.network import NetworkFaults
from support.faults.processes import ProcessFaults
from support.faults.proven import ProvenFault
from support.faults.service import FaultService
from support.judge.history import History
from support.judge.outcomes import describe
from support.judge.verdict import Inconclusive
from support.observe import journal
from support.observe.fleet import ARRIVAL_SECONDS, Fleet
from support.observe.logs import find_panics
from support.observe.metrics import Metrics
from support.observe.waiting import until
from support.observe.workers import in_flight, try_scrape
from support.requests.client import Message, Pending, start_request
from support.requests.ledger import Ledger, LedgerEntry
from support.settings import Settings
from support.targets.agent import Agent
from support.targets.base import Deployment, Node, Shape
from support.targets.local import LocalTarget

# A request that neither ends nor is given up by Dynamo is given up by the client, well after every deadline in a
# sentence.
REQUEST_SECONDS = 60.0
# With these a stream is under way beyond doubt, and still far from its end.
FIRST_TOKENS = 10
PROMPT = "how tall is the tower in the middle of the town"


class World:
    """Everything of one scenario.

    Args:
        settings: of the run.
        folder: of the scenario; made if missing.
        agent: the node agent of this cell.
    """

    def __init__(self, settings: Settings, folder: Path, agent: Agent) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.settings, self.folder = settings, folder
        self.release = releases.get(settings.dynamo)
        self.events = EventLog(folder / "events.jsonl")
        self.ledger = Ledger()
        self.requests: list[Pending] = []
        self.watched: list[Pending] = []
        self._client: threading.Thread | None = None
        self._closing = False
        self.faults: list[ProvenFault] = []
        self._agent = agent
        self._deployment: Deployment | None = None
        self._fleet: Fleet | None = None
        self._faults = FaultService.of_this_cell()

    # -- the deployment

    @property
    def deployment(self) -> Deployment:
        """The deployment of this scenario.

        Raises:
            RuntimeError: there is none yet.
        """
        if self._deployment is None:
            message = "there is no deployment yet; begin with a sentence such as "
            raise RuntimeError(message + "'Given a Dynamo deployment with 2 vllm workers'")
        return self._deployment

    @property
    def fleet(self) -> Fleet:
        """The deployment as its own metrics and lists show it; there is one as soon as there is a deployment."""
        if self._fleet is None:
            raise RuntimeError("there is no deployment yet to look at")
        return self._fleet

    @property
    def victims(self) -> set[str]:
        """Names of the nodes that a fault has hit."""
        return {fault.node.name for fault in self.faults}

    @property
    def engine(self) -> str:
        """Engine of the deployment, empty while there is none."""
        return self._deployment.shape.engine if self._deployment else ""

    def start_deployment(self, **shape: Any) -> Deployment:
        """Make the scenario's deployment; the arguments are those of :class:`support.targets.base.Shape`.

        Raises:
            ValueError, Unsupported, DeploymentFailed: see there.
            RuntimeError: there is one already.
        """
        if self._deployment is not None:
            raise RuntimeError("there is a deployment already; a scenario has one")
        shape.setdefault("request_plane", self.settings.request_plane)
        target = LocalTarget(self.settings, self.release, self.folder, self.events, self._agent)
        self._deployment = target.deploy(Shape(**shape))
        self._fleet = Fleet(self._deployment, self.release, self.events, self.folder / "metrics")
        return self._deployment

    # -- requests

    @property
    def request(self) -> Pending:
        """The request that the scenario is about.

        Raises:
            RuntimeError: there is none, or more than one.
        """
        if len(self.watched) != 1:
            raise RuntimeError(f"the scenario has {len(self.watched)} requests where its sentence speaks of one")
        return self.watched[0]

    def send(
        self,
        api: str = "completions",
        *,
        stream: bool = True,
        max_tokens: int = 100,
        prompt_words: int | None = None,
        watch: bool = True,
        **options: Any,
    ) -> Pending:
        """Send a request to the deployment and come back at once.

        Args:
            prompt_words: length of the prompt; a short sentence if None.
            watch: whether the scenario is about this request, see :attr:`watched`.
            options: those of :func:`support.requests.client.start_request`.
        """
        words = PROMPT if prompt_words is None else " ".join(["word"] * prompt_words)
        prompt: str | Sequence[Message] = words if api == "completions" else [{"role": "user", "content": words}]
        options.setdefault("timeout", REQUEST_SECONDS)
        pending = start_request(
            self.deployment.frontend_url,
            self.deployment.model,
            prompt,
            max_tokens,
            stream=stream,
            ledger=self.ledger,
            **options,
        )
        self.requests.append(pending)
        if watch:
            self.watched.append(pending)
        return pending

    def send_in_turn(self, count: int, **request: Any) -> None:
        """Have one client send ``count`` requests, each as soon as the one before has ended; returns at once.

        Args:
            request: as for :meth:`send`.
        """

        def client() -> None:
            for _ in range(count):
                if self._closing:
                    return
                self.send(**request).join()

        self._client = threading.Thread(target=client, daemon=True)
        self._client.start()

    def await_answers(self, count: int) -> None:
        """Wait until ``count`` of the watched requests have ended.

        Raises:
            Inconclusive: they have not within :data:`REQUEST_SECONDS`, or the client has nothing left to send.
        """

        def ended() -> int:
            return sum(each.entry.end is not None for each in list(self.watched))

        if not self.ledger.wait_for(lambda: ended() >= count, REQUEST_SECONDS):
            raise Inconclusive(f"{count} requests were to end first; {ended()} have")

    def see_under_way(self) -> None:
        """Make sure that every watched answer is coming in: its first tokens are there, or a worker produces them.

        Raises:
            Inconclusive: one is not.
        """
        for pending in self.watched:
            if pending.entry.stream:
                self.await_tokens(pending, FIRST_TOKENS)
        self.fleet.see_production(self.fleet.serving_worker())

    def see_waiting(self) -> None:
        """Make sure that a worker has the watched request and the client has nothing of its answer yet.

        Raises:
            Inconclusive: tokens have come already, or no worker has it.
        """
        self.fleet.serving_worker()
        if self.request.entry.tokens or self.request.ended:
            raise Inconclusive(
                f"request {self.request.entry.number} was to wait for its first token, but has it already"
            )

    def see_reading(self, seconds: float, role: str = "") -> None:
        """Make sure that a worker has had the watched request for ``seconds`` on end, and the client nothing yet.

        A request that is cancelled the moment it arrives may never reach the engine, which is another case.

        Raises:
            Inconclusive: tokens have come already, or the worker let go of it.
        """
        worker = self.fleet.serving_worker(role)
        since = now()

        def reading() -> str | None:
            self.see_waiting()
            if not in_flight(worker, self.release.metrics):
                raise Inconclusive(f"{worker.name} let go of the request after {now() - since:.2f} s")
            return None if now() - since >= seconds else f"for {now() - since:.2f} s"

        until(reading, seconds + ARRIVAL_SECONDS, f"{worker.name} has been reading for {seconds:g} s")
        self.events.add("proof", worker.name, f"{worker.name} has been reading the prompt for {seconds:g} s")

    def await_tokens(self, pending: Pending, count: int) -> None:
        """Wait until the client has ``count`` tokens of an answer that is still under way.

        Raises:
            Inconclusive: the answer ended before, or they did not come within :data:`REQUEST_SECONDS`.
        """
        if not pending.wait_tokens(count, REQUEST_SECONDS) or pending.ended:
            seen = describe(pending.entry)
            raise Inconclusive(f"request {pending.entry.number} was to get {count} tokens first, but got {seen}")

    def cancel(self, pending: Pending, how: str = "close") -> None:
        """Cancel a request that is under way.

        Raises:
            Inconclusive: it had ended already, so nothing was cancelled.
        """
        self.events.add("fault", "client", f"client cancels request {pending.entry.number} by {how}")
        if not pending.cancel(how):
            raise Inconclusive(f"request {pending.entry.number} had ended before it could be cancelled")

    def cancel_ended(self, pending: Pending, how: str) -> None:
        """Cancel a request whose answer is complete, as a client does that closes a connection it needs no more.

        Raises:
            Inconclusive: it was still under way.
        """
        if pending.cancel(how):
            raise Inconclusive(f"request {pending.entry.number} was to be over, but was still under way")

    def see_moving(self) -> None:
        """Make sure that a second worker has been given the watched request and the client has none of its tokens.

        Raises:
            Inconclusive: that is not so within :data:`ARRIVAL_SECONDS`.
        """
        logs = self.folder / "logs"
        before = len(self.request.entry.tokens)

        def one_worker() -> str | None:
            given = [entry["worker"] for entry in journal.read(logs)]
            return None if len(given) > 1 else f"given to {given}"

        try:
            until(one_worker, ARRIVAL_SECONDS, "a second worker has been given the request")
        except AssertionError as error:
            raise Inconclusive(f"the request was not being moved: {error}") from None
        if len(self.request.entry.tokens) > before:
            raise Inconclusive("the second worker was already writing when the client was to give up")
        self.events.add("proof", "client", "a second worker has the request, the client has none of its tokens")

    def expect_engine_stopped(self) -> None:
        """Every living worker that was given a request was told to stop before it had written the whole answer.

        Raises:
            AssertionError: one finished the answer all the same, or still writes.
            Inconclusive: no journal knows of the request.
        """
        victims = self.victims
        notes = [note for note in journal.read(self.folder / "logs") if note["worker"] not in victims]
        if not notes:
            raise Inconclusive("no living worker has been given a request")
        for note in notes:
            if note["outcome"] not in ("stopped", "abandoned"):
                ended = "still writes" if note["outcome"] is None else f"{note['outcome']} it"
                raise AssertionError(f"{note['worker']} was not told to stop: it {ended} ({note['produced']} tokens)")

    # -- faults

    def break_process(self, kind: str, node: Node, lease_seconds: float | None = None) -> ProvenFault:
        """Inject a fault into a node's process and see it proven; see
        :class:`support.faults.processes.ProcessFaults`.
        """
        lease = {} if lease_seconds is None else {"lease_seconds": lease_seconds}
        return self._keep(ProcessFaults(self._faults, self.deployment, self.events).inject(kind, node, **lease))

    def _keep(self, fault: ProvenFault) -> ProvenFault:
        self.faults.append(fault)
        return fault

    @property
    def _network(self) -> NetworkFaults:
        return NetworkFaults(self._faults, self.deployment, self.events)

    @property
    def _gpu(self) -> GpuFaults:
        return GpuFaults(self._faults, self._agent, self.deployment, self.events, self.rate)

    def rate(self, seconds: float) -> float:
        """Tokens per second that the watched requests have received over the last ``seconds``; 0 when the first token
        is younger than that.
        """
        since = now() - seconds
        chunks = [chunk for pending in self.watched for chunk in list(pending.entry.chunks)]
        recent = sum(len(chunk.tokens) for chunk in chunks if chunk.at >= since)
        return recent / seconds if any(chunk.at < since for chunk in chunks) else 0.0

    def cut(self, partition: str, mode: str = "drop", direction: str = "both", **lease: float) -> ProvenFault:
        """Cut the worker that serves the watched request off; see :class:`support.faults.network.NetworkFaults`."""
        return self._keep(self._network.inject(partition, self.fleet.serving_worker(), mode, direction, **lease))

    def see_healed(self, timeout: float) -> None:
        """Wait until the cuts are healed with nobody undoing them, within ``timeout`` seconds from now."""
        for fault in self.faults:
            self._network.see_healed(fault, timeout)

    def break_gpu(self, xid: int, **options: Any) -> ProvenFault:
        """Report an XID error of the GPU of the worker that serves the watched request, and see it proven."""
        return self._keep(self._gpu.xid(xid, self.fleet.serving_worker(), **options))

    def strain_gpu(self, kind: str, share: float, **lease: float) -> ProvenFault:
        """Strain the GPU of the worker that serves the watched request, and see it proven."""
        return self._keep(self._gpu.strain(kind, self.fleet.serving_worker(), share, **lease))

    def kill_injectors(self) -> None:
        """SIGKILL the fault service and the node agent; PID 1 of the cell starts them again."""
        pids = {"fault service": self._faults.health()["pid"], "node agent": self._agent.topology()["agent_pid"]}
        for name, pid in pids.items():
            os.kill(pid, signal.SIGKILL)
            self.events.add("fault", "", f"the {name} (pid {pid}) is killed")
        live = [fault["id"] for fault in self._faults.faults(active=True)]
        if set(live) != {fault.id for fault in self.faults}:
            raise Inconclusive(f"after their death the injectors know of the faults {live}")
        self.events.add("proof", "", "both run again and list the faults that are active")

    def expect_out(self, node: Node) -> None:
        """The worker does not run, although its restart policy would have it run.

        Raises:
            AssertionError: it runs.
        """
        state = self.deployment.process(node)["state"]
        if state != "fenced":
            raise AssertionError(f"{node.name} is {state}; it was to be kept from starting")

    def break_serving_worker(self, kind: str, role: str = "") -> ProvenFault:
        """Break the worker that has most of the watched requests in flight, and see it proven.

        Raises:
            Inconclusive: no watched request was under way when the fault struck, so nobody could notice it.
        """
        fault = self.break_process(kind, self.fleet.serving_worker(role))
        ends = [pending.entry.ended_at for pending in self.watched]
        if all(end is not None and end < fault.injected_at for end in ends):
            raise Inconclusive(f"no request was under way when {fault.node.name} was hit")
        return fault

    def recover(self, fault: ProvenFault) -> None:
        """Undo a fault and see it gone."""
        if fault.family == "process":
            ProcessFaults(self._faults, self.deployment, self.events).recover(fault)
        elif fault.family == "network":
            self._network.recover(fault)
        else:
            self._gpu.recover(fault)

    def answers(self) -> list[LedgerEntry]:
        """The watched requests that nobody cancelled, once they have ended.

        Raises:
            RuntimeError: there is none, so a sentence about all of them would say nothing.
        """
        if self._client:
            self._client.join()
        entries = [pending.join().entry for pending in self.watched if pending.entry.cancelled_at is None]
        if not entries:
            raise RuntimeError("no request was left to judge; the sentence would hold for nothing")
        return entries

    def ended_within(self, timeout: float) -> LedgerEntry:
        """The watched request, which has to end within ``timeout`` seconds of the last fault.

        Raises:
            AssertionError: it did not.
        """
        start = self.faults[-1].injected_at if self.faults else self.request.entry.intended_at
        entry = self.request.join().entry
        took = (entry.ended_at or now()) - start
        if took > timeout:
            raise AssertionError(f"request {entry.number} ended after {took:.1f} s; {timeout:g} s are allowed")
        return entry

    def expect_restarted(self, timeout: float) -> None:
        """The last victim has been started again and answers within ``timeout`` seconds.

        Raises:
            AssertionError: it has not, or does not.
        """
        node = self.faults[-1].node

        def down() -> str | None:
            process = self.deployment.process(node)
            if not process["restarts"] or try_scrape(node) is None:
                return f"{process['state']}, {process['restarts']} restarts"
            return None

        until(down, timeout, f"{node.name} runs again")

    # -- the end

    def close(self, give_up: bool) -> History:
        """See all requests end, read everything once more, take the deployment down and write the records.

        Safe to call in every state, also after a failure half-way.

        Args:
            give_up: whether to cancel what is still under way, as after a failure; else each request has until its own
                deadline, and the judge will speak of one that needed it.
        """
        self.events.add("note", "", "the steps are over")
        self._closing = True
        for pending in self.requests:
            if give_up and not pending.ended:
                self.events.add(
                    "note", "client", f"request {pending.entry.number} was still under way; client gives up"
                )
                pending.cancel()
        if self._client:
            self._client.join()
        for pending in self.requests:
            pending.join()
        left: list[str] = []
        after: dict[str, Metrics] = {}
        topology: dict[str, Any] = {}
        if self._deployment is not None:
            topology = self._deployment.topology()
            for fault in self._faults.faults(active=True):
                if fault["type"] not in ("crash", "terminate"):  # those would only be started again to be ended
                    self._faults.recover(fault["id"])
            after = self.fleet.last_look()
            left = self._deployment.remove()
            self._add_states()
        self.ledger.write(self.folder / "ledger.jsonl")
        (self.folder / "topology.json").write_text(json.dumps(topology, indent=1))
        logs = self.folder / "logs"
        return History(
            entries=self.ledger.entries(),
            events=self.events.all(),
            topology=topology,
            metrics_before=self._fleet.before if self._fleet else {},
            metrics_after=after,
            panics={log.stem: found for log in sorted(logs.glob("*.log")) if (found := find_panics(log))},
            worker_journal=journal.read(logs),
            leftovers=left,
            migration_limit=self._deployment.shape.migration_limit if self._deployment else None,
            metric_names=self.release.metrics,
        )

    def _add_states(self) -> None:
        for change in self._agent.history():
            if change["state"] in ("starting", "running", "stopped", "hung", "dead"):
                text = f"{change['state']}: {change['detail']}"
                self.events.add("state", change["node"], text, at=change["at"])
