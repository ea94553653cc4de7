"""One scenario's world: its deployment, requests, faults and records, and how all of it ends.

Feature files reach it through the steps; Python programs use it through :mod:`support.api`.
"""

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from support import releases, slowness
from support.clock import now
from support.closing import Closing
from support.cluster import Cluster
from support.events import EventLog
from support.faults.gpu import GpuFaults
from support.faults.network import NetworkFaults
from support.faults.processes import ProcessFaults
from support.faults.proven import ProvenFault
from support.faults.service import FaultService
from support.gate import Gate
from support.judge.checkers import ValidationContext, run_check
from support.judge.expectations import expect_complete
from support.judge.history import WAITS, History, Wait
from support.judge.invariants import is_answer_to
from support.judge.lag import own_lag, see_keen
from support.judge.outcomes import describe, outcome
from support.judge.second_opinion import opinions
from support.judge.verdict import Inconclusive, TooLate
from support.observe import journal, process
from support.observe.etcd_recorder import EtcdRecorder
from support.observe.fleet import ARRIVAL_SECONDS, Fleet
from support.observe.footprint import of_suite
from support.observe.logs import find_panics
from support.observe.metrics import Metrics
from support.observe.starvation import StarvationRecorder
from support.observe.waiting import PERIOD_SECONDS, prove, throughout, until
from support.observe.workers import in_flight, try_scrape, worker_id
from support.report.runs import write_json
from support.requests.client import Message, Pending, start_request
from support.requests.ledger import Ledger, LedgerEntry
from support.requests.load import LoadRun, start_load
from support.requests.plan import Load, LoadPlan
from support.scenarios import Failure, Scenario, runner
from support.settings import Settings
from support.shutdowns import Shutdowns
from support.signals import send_while
from support.targets.agent import Agent
from support.targets.base import Deployment, Node, Shape, Unsupported
from support.targets.sabotage import local_target

# A request that neither ends nor is given up by Dynamo is given up by the client, well after every deadline in a
# sentence.
REQUEST_SECONDS = 60.0
# With these a stream is under way beyond doubt, and still far from its end.
FIRST_TOKENS = 10
# The restart policy's first restart comes at once.
OUT_SECONDS = 2.0
# A worker of 1.2.1 on a busy machine takes 10 s to come as far as etcd.
BOOT_SECONDS = 30.0
NO_LEASE = "Unable to create lease"
"""What a worker of any release tried (1.2.1 to 1.6.1) logs when etcd is away as it starts."""
# One success may be luck: a frontend that comes to itself after an outage may give its workers up a moment later.
LASTING = 4
# As a client that is refused and does not give up.
RETRY_SECONDS = 0.2
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
        self.load: Load | None = None
        self.recovery_seconds: float | None = None
        self.loads: list[LoadRun] = []
        self._played: ValidationContext | None = None
        self._client: threading.Thread | None = None
        self._closing = False
        self._asking = False
        self._enough = threading.Event()
        self.faults: list[ProvenFault] = []
        self._agent = agent
        self._deployment: Deployment | None = None
        self._fleet: Fleet | None = None
        self._gate: Gate | None = None
        self._recorder: EtcdRecorder | None = None
        self._etcd: Cluster | None = None
        self._lease_asked: float | None = None
        self._first: dict[str, dict[str, Any]] = {}
        self._newcomers: list[Node] = []
        self._faults = FaultService.of_this_cell()
        slowness.begin()
        # All of the cell is below its first process, the parent of this one.
        self._starvation = StarvationRecorder(os.getppid(), folder / WAITS)

    # -- the deployment

    @property
    def deployed(self) -> bool:
        """Whether there is a deployment."""
        return self._deployment is not None

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
    def etcd(self) -> Cluster:
        """The etcd cluster behind the deployment; there is one as soon as there is a deployment."""
        if self._etcd is None:
            raise RuntimeError("there is no deployment yet, hence no etcd")
        return self._etcd

    @property
    def shutdowns(self) -> Shutdowns:
        """What becomes of processes that leave, and of what they were doing."""
        return Shutdowns(self._agent, self.fleet)

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
        target = local_target()(self.settings, self.release, self.folder, self.events, self._agent, self._watch_etcd)
        self._lease_asked = Shape(**shape).lease_seconds
        try:
            self._deployment = target.deploy(Shape(**shape))
        finally:
            if self._recorder and self._deployment is None:
                self._recorder.stop()
        deployment = self._deployment
        if self._recorder is None:
            raise RuntimeError("the target has made a deployment without a cluster of etcd to watch")
        self._etcd = Cluster(
            deployment, self.events, self._recorder, self.process_faults, self.network_faults, self._keep
        )
        # It starts beside the deployment; a fault that is ordered later may not have to wait for that.
        self._faults.health()
        self._first = {node.name: deployment.process(node) for node in deployment.dynamo}
        self._fleet = Fleet(deployment, self.release, self.events, self.folder / "metrics")
        self._gate = Gate(deployment, self.events)
        return self._deployment

    def _watch_etcd(self, deployment: Deployment) -> None:
        def holders() -> dict[str, str]:
            ids = {worker_id(node): node.name for node in deployment.workers}
            return {number: name for number, name in ids.items() if number}

        members = [node for node in deployment.nodes if node.role == "etcd"]
        self._recorder = EtcdRecorder(members, self.events, holders)

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
        hold: str = "",
        **options: Any,
    ) -> Pending:
        """Send a request to the deployment and come back at once.

        Args:
            prompt_words: length of the prompt; a short sentence if None.
            watch: whether the scenario is about this request, see :attr:`watched`.
            hold: where the ruler engine is to hold its answer until :meth:`let_go`: before its ``start`` or its
                ``end``; not at all if empty.
            options: those of :func:`support.requests.client.start_request`.
        """
        words = PROMPT if prompt_words is None else " ".join(["word"] * prompt_words)
        prompt: str | Sequence[Message] = words if api == "completions" else [{"role": "user", "content": words}]
        options.setdefault("timeout", REQUEST_SECONDS * slowness.factor())
        if hold == "start":
            self.gate.hold_start(max_tokens)
        elif hold:
            self.gate.hold_end({max_tokens})
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

    def tokens_for(self, seconds: float) -> int:
        """Tokens of an answer that takes ``seconds`` on an idle machine, and as much longer as this one is slower."""
        return round(slowness.lengthened(seconds) * self.deployment.shape.pace)

    def expect_no_later(self, seconds: float) -> None:
        """The watched answer is complete, and has taken no more than ``seconds`` longer than it does undisturbed.

        Raises:
            AssertionError: it is not, or has.
        """
        entry = self.answer()
        expect_complete(entry, entry.max_tokens)
        see_keen(own_lag(entry), seconds, f"request {entry.number}")
        since, end = entry.sent_at or entry.intended_at, entry.ended_at or now()
        alone = entry.max_tokens / self.deployment.shape.pace
        late = end - since - entry.held_between(since, end) - alone
        if late > seconds:
            message = f"request {entry.number} ended {late:.1f} s late: {alone:.1f} s is what it takes undisturbed"
            raise TooLate(f"{message}, and {seconds:g} s more are allowed", seconds, since, end)

    @property
    def gate(self) -> Gate:
        """What holds answers of the ruler engine in their middle; there is one as soon as there is a deployment."""
        if self._gate is None:
            raise RuntimeError("there is no deployment yet whose answers could be held")
        return self._gate

    def let_go(self) -> None:
        """Let answers that are held go on to their end: from now on the scenario is about what becomes of them."""
        if self._gate is not None:
            self._gate.open()

    def _held(self, worker: Node) -> int:
        """How many answers the gate of a worker holds right now."""
        notes = [note for note in journal.read(self.folder / "logs") if note["worker"] == worker.name]
        return sum(note["outcome"] is None and any(hold["until"] is None for hold in note["holds"]) for note in notes)

    def answer(self, pending: Pending | None = None) -> LedgerEntry:
        """The request that the scenario is about, or another one, once it has ended.

        Raises:
            RuntimeError: there is none, or more than one.
        """
        self.let_go()
        entry = (pending or self.request).join().entry
        entry.holds = self._holds_of(entry)
        return entry

    def _holds_of(self, entry: LedgerEntry) -> list[list[float]]:
        """Spells in which workers held an answer back; one that died holding it did so until it was struck."""
        notes = [note for note in journal.read(self.folder / "logs") if is_answer_to(entry, note["request_id"])]
        struck = {fault.node.name: fault.struck_at for fault in self.faults}
        ends = [(hold["from"], hold["until"] or struck.get(note["worker"])) for note in notes for hold in note["holds"]]
        return [[since, until] for since, until in ends if until is not None and until > since]

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

    def keep_asking(self, **request: Any) -> None:
        """Have one client send one request after the other until :meth:`answers`, the scenario's end or one that
        fails; returns at once.

        Args:
            request: as for :meth:`send`.
        """

        self._asking = True

        def client() -> None:
            while not (self._enough.is_set() or self._closing):
                if outcome(self.send(**request).join().entry).kind != "complete":
                    break
            self._asking = False

        self._client = threading.Thread(target=client, daemon=True)
        self._client.start()

    def await_answers(self, count: int) -> None:
        """Wait until ``count`` of the watched requests have ended.

        Raises:
            Inconclusive: they have not within :data:`REQUEST_SECONDS`, or the client has nothing left to send.
        """

        def ended() -> int:
            return sum(each.entry.end is not None for each in list(self.watched))

        if not self.ledger.wait_for(lambda: ended() >= count, REQUEST_SECONDS * slowness.factor()):
            raise Inconclusive(f"{count} requests were to end first; {ended()} have")

    def see_under_way(self) -> None:
        """Make sure that every watched answer is coming in: its first tokens are there, or a worker produces them.

        Raises:
            Inconclusive: one is not.
        """
        for pending in self.watched:
            if pending.entry.stream:
                self.await_tokens(pending, FIRST_TOKENS)
        self.fleet.see_production(self.fleet.serving_worker(), self._held)

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

        what = f"{worker.name} has been reading for {seconds:g} s"
        prove(reading, seconds + ARRIVAL_SECONDS, what, "the worker was not reading")
        self.events.add("proof", worker.name, f"{worker.name} has been reading the prompt for {seconds:g} s")

    def await_tokens(self, pending: Pending, count: int) -> None:
        """Wait until the client has ``count`` tokens of an answer that is still under way.

        Raises:
            Inconclusive: the answer ended before, or they did not come within :data:`REQUEST_SECONDS`.
        """
        if not pending.wait_tokens(count, REQUEST_SECONDS * slowness.factor()) or pending.ended:
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

        what = "a second worker has been given the request"
        prove(one_worker, ARRIVAL_SECONDS, what, "the request was not being moved")
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

    # -- load

    def start_load(self, load: Load, name: str, phase: str = "") -> LoadRun:
        """Start a load on the deployment; its folder is ``name`` below that of the scenario.

        Raises:
            ValueError: the load cannot be.
        """
        plan = LoadPlan.of(load, self.deployment.frontend_url, self.deployment.model, phase)
        run = start_load(plan, self.folder / name)
        self.loads.append(run)
        return run

    def play(self, scenario: Scenario) -> ValidationContext:
        """Play a scenario to its end; see :func:`support.scenarios.runner.play`."""
        self._played = runner.play(self, scenario)
        return self._played

    def play_failure(self, *failures: Failure) -> ValidationContext:
        """Play :attr:`load` on the deployment that there is, with these failures.

        Raises:
            RuntimeError: no load was named.
        """
        if self.load is None:
            raise RuntimeError("no load was named; begin with 'Given 4 clients keep asking for ...'")
        shape = self.deployment.shape
        size = {name: getattr(shape, name) for name in ("workers", "prefill_workers", "max_model_len")}
        return self.play(
            Scenario("sentences", shape.engine, self.load, failures, size, recovery_seconds=self.recovery_seconds)
        )

    def set_busy_threshold(self, percent: float) -> None:
        """Tell the frontend from which share of its memory on a worker is busy; with all busy it refuses requests.

        Raises:
            Unsupported: the release does not do that.
            RuntimeError: the frontend does not take the order.
        """
        if not self.release.refuses_when_busy:
            raise Unsupported(f"Dynamo {self.release.version} refuses nothing when its workers are busy")
        frontend = next(node for node in self.deployment.nodes if node.role == "frontend")
        wanted = {"model": self.deployment.model, "active_decode_blocks_threshold": percent / 100}
        connection = http.client.HTTPConnection(frontend.endpoint, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", "/busy_threshold", json.dumps(wanted), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read().decode("utf-8", "replace")
        if answer.status != 200 or json.loads(said).get("active_decode_blocks_threshold") != percent / 100:
            raise RuntimeError(f"the frontend did not take the busy threshold {wanted}: HTTP {answer.status}, {said}")
        self.events.add("note", frontend.name, f"a worker is busy from {percent:g} % of its memory on")

    @property
    def played(self) -> ValidationContext:
        """What came of the scenario that was played.

        Raises:
            RuntimeError: none was.
        """
        if self._played is None:
            raise RuntimeError("no load has run to its end yet, so there is nothing to judge")
        return self._played

    def expect_check(self, name: str, **parameters: Any) -> None:
        """A checker holds for what was played.

        Raises:
            AssertionError: it does not.
            Inconclusive: the run has nothing that it could hold for, or the client lagged.
        """
        result = run_check(name, self.played, parameters)
        if result.nothing:
            raise Inconclusive(f"{name.replace('_', ' ')}: {result.message}")
        if not result.passed:
            raise AssertionError(f"{name.replace('_', ' ')}: {result.message}")

    # -- faults

    def break_process(self, kind: str, node: Node, lease_seconds: float | None = None) -> ProvenFault:
        """Inject a fault into a node's process and see it proven; see
        :class:`support.faults.processes.ProcessFaults`.
        """
        lease = {} if lease_seconds is None else {"lease_seconds": lease_seconds}
        return self._keep(self.process_faults.inject(kind, node, **lease))

    def see_felt(self) -> ProvenFault:
        """Make sure that somebody could notice the last fault: it was done while a watched answer was still coming or a
        client was about to send its next request.

        Raises:
            Inconclusive: every watched answer was complete before.
        """
        fault, entries = self.faults[-1], [pending.entry for pending in list(self.watched)]
        before = [entry.ended_at is not None and entry.ended_at < fault.done_at for entry in entries]
        complete = all(before) and all(outcome(entry).kind == "complete" for entry in entries)
        if entries and complete and not self._asking:
            raise Inconclusive(f"no request was under way any more when {fault.node.name} was hit")
        return fault

    def _keep(self, fault: ProvenFault) -> ProvenFault:
        self.faults.append(fault)
        return fault

    @property
    def process_faults(self) -> ProcessFaults:
        """Faults of processes in this deployment, for victims that the caller chooses."""
        return ProcessFaults(self._faults, self.deployment, self.events)

    @property
    def network_faults(self) -> NetworkFaults:
        """Faults of the network in this deployment, for victims that the caller chooses."""
        return NetworkFaults(self._faults, self.deployment, self.events)

    @property
    def gpu_faults(self) -> GpuFaults:
        """Faults of GPUs in this deployment, for victims that the caller chooses."""
        return GpuFaults(self._faults, self._agent, self.deployment, self.events, self.rate)

    def _faults_of(self, family: str) -> ProcessFaults | NetworkFaults | GpuFaults:
        if family == "process":
            return self.process_faults
        return self.network_faults if family == "network" else self.gpu_faults

    def rate(self, seconds: float) -> float:
        """Tokens per second that the load, or without one the watched requests, has received over the last
        ``seconds``; 0 when the first token is younger than that.
        """
        if self.loads:
            return self.loads[0].rate(seconds)
        since = now() - seconds
        chunks = [chunk for pending in self.watched for chunk in list(pending.entry.chunks)]
        recent = sum(len(chunk.tokens) for chunk in chunks if chunk.at >= since)
        return recent / seconds if any(chunk.at < since for chunk in chunks) else 0.0

    def cut(
        self,
        partition: str,
        mode: str = "drop",
        direction: str = "both",
        worker: Node | None = None,
        **lease: float,
    ) -> ProvenFault:
        """Cut a worker off, the one that serves most requests if None; see
        :class:`support.faults.network.NetworkFaults`.
        """
        victim = worker or self.fleet.serving_worker()
        self._keep(self.network_faults.cut(partition, victim, mode, direction, **lease))
        return self.see_felt()

    def lose_packets(self, partition: str, percent: int, worker: Node | None = None, **lease: float) -> ProvenFault:
        """Lose packets of a worker, of the one that serves most requests if None, and see that share of them lost."""
        victim = worker or self.fleet.serving_worker()
        self._keep(self.network_faults.lose(partition, victim, percent, **lease))
        return self.see_felt()

    def narrow_cable(self, rate_kbit: int, lease_seconds: float, worker: Node | None = None) -> ProvenFault:
        """Narrow the cable of a worker, of the one that serves most requests if None, and see it slow."""
        victim = worker or self.fleet.serving_worker()
        self._keep(self.network_faults.narrow(victim, rate_kbit, lease_seconds=lease_seconds))
        return self.see_felt()

    def see_healed(self, timeout: float) -> None:
        """Wait until no victim suffers any more, with nobody asked to undo its fault, ``timeout`` seconds from now."""
        for fault in self.faults:
            self._faults_of(fault.family).see_healed(fault, timeout)

    def break_gpu(self, xid: int, worker: Node | None = None, **options: Any) -> ProvenFault:
        """Report an XID error of a worker's GPU, of the one that serves most requests if None, and see it proven."""
        self._keep(self.gpu_faults.xid(xid, worker or self.fleet.serving_worker(), **options))
        return self.see_felt()

    def strain_gpu(self, kind: str, share: float, worker: Node | None = None, **lease: float) -> ProvenFault:
        """Strain a worker's GPU, that of the one that serves most requests if None, and see it proven."""
        self._keep(self.gpu_faults.strain(kind, worker or self.fleet.serving_worker(), share, **lease))
        return self.see_felt()

    def suite_pids(self) -> dict[str, int]:
        """The suite's own processes: those that live as long as the scenario, and the clients of its loads."""
        clients = {f"{load.folder.name} client {i}": pid for load in self.loads for i, pid in enumerate(load.pids)}
        return of_suite(self._agent.topology()["agent_pid"], self._faults.health()["pid"]) | clients

    def kill_injectors(self) -> None:
        """SIGKILL the fault service and the node agent; PID 1 of the cell starts them again."""
        asked: dict[str, Callable[[], int]] = {
            "fault service": lambda: self._faults.health()["pid"],
            "node agent": lambda: self._agent.topology()["agent_pid"],
        }
        for name, ask in asked.items():
            pid = self._signal(ask, signal.SIGKILL)
            self.events.add("fault", "", f"the {name} (pid {pid}) is killed")
        known = {fault["id"]: fault for fault in self._faults.faults()}
        for fault in self.faults:
            seen = known.get(fault.id, {"state": "unknown", "deadline": 0.0})
            # On a busy machine they may come back after the fault's end.
            if seen["state"] != "active" and not 0 < seen["deadline"] <= now():
                raise Inconclusive(f"after their death the injectors have fault {fault.id} as {seen['state']}")
        self.events.add("proof", "", "both run again and know of the faults")

    @staticmethod
    def _signal(ask: Callable[[], int], number: signal.Signals) -> int:
        """Signal the program that tells its pid when asked; returns it.

        Raises:
            Inconclusive: it has ended, or another has taken its place, meanwhile.
        """
        pid = ask()
        if not send_while(pid, lambda: ask() == pid, number):
            raise Inconclusive(f"pid {pid} was to get {number.name} but has ended")
        return pid

    def freeze_agent(self) -> None:
        """SIGSTOP the node agent, which then ends no fault; that is left to the watchdog of the cell.

        Raises:
            Inconclusive: it goes on.
        """
        pid = self._signal(lambda: self._agent.topology()["agent_pid"], signal.SIGSTOP)
        self.events.add("fault", "", f"the node agent (pid {pid}) freezes")

        def awake() -> str | None:
            seen = process.state(pid, None)
            return None if seen == "stopped" else seen

        prove(awake, ARRIVAL_SECONDS, f"pid {pid} is stopped", "the node agent did not freeze")
        self.events.add("proof", "", f"the kernel shows pid {pid} of the node agent as stopped")

    def repair_gpu(self) -> None:
        """Undo the last fault of a GPU and see it gone."""
        self.recover(next(fault for fault in reversed(self.faults) if fault.family == "gpu"))

    def expect_out(self, node: Node) -> None:
        """The worker does not run for :data:`OUT_SECONDS`, although its restart policy would have it run.

        Raises:
            AssertionError: it runs.
        """
        until = now() + OUT_SECONDS
        while now() < until:
            state = self.deployment.process(node)["state"]
            if state != "fenced":
                raise AssertionError(f"{node.name} is {state}; it was to be kept from starting")
            time.sleep(PERIOD_SECONDS)

    def break_serving_worker(self, kind: str, role: str = "") -> ProvenFault:
        """Break the worker that has most of the watched requests in flight, and see it proven; answers of the ruler
        engine are held before their end meanwhile.

        Raises:
            Inconclusive: no watched request was under way when the fault struck, so nobody could notice it.
        """
        if not self.gate.closed:
            self.gate.hold_end({pending.entry.max_tokens for pending in list(self.watched)})
        victim = self.fleet.serving_worker(role)
        self.gate.move_to_end([node for node in self.deployment.workers if node != victim])
        self.break_process(kind, victim)
        self.gate.move_to_end()
        return self.see_felt()

    def start_workers(self, count: int) -> None:
        """Start new workers and come back at once."""
        self._newcomers += [self.deployment.start_worker() for _ in range(count)]

    def see_repelled(self) -> None:
        """Make sure that the last new worker has asked etcd for a lease in vain.

        Raises:
            Inconclusive: it has not within :data:`BOOT_SECONDS`, so etcd was not away when it came.
        """
        node = self._newcomers[-1]

        def silent() -> str | None:
            said = node.log.read_text(errors="replace") if node.log.exists() else ""
            return None if NO_LEASE in said else f"{len(said)} bytes in its log"

        prove(silent, BOOT_SECONDS, f"{node.name} says that it gets no lease", "the new worker has not missed etcd")
        self.events.add("proof", node.name, f"{node.name} finds etcd away")

    def expect_newcomers_serve(self, timeout: float) -> None:
        """One request after the other succeeds, and within ``timeout`` seconds each new worker has had one.

        Raises:
            AssertionError: a request fails, or a worker has none.
        """

        def idle() -> str | None:
            expect_complete(self.send(max_tokens=FIRST_TOKENS, watch=False).join().entry, FIRST_TOKENS)
            grown = self.fleet.grown_bytes()
            return ", ".join(node.name for node in self._newcomers if not grown.get(node.name)) or None

        until(idle, timeout, "each new worker has served a request")

    def break_idle_frontend(self, kind: str) -> ProvenFault:
        """Break the last frontend, which clients are not sent to while an earlier one runs, and see it proven.

        Raises:
            Inconclusive: there is one frontend alone, or it has requests under way.
        """
        nodes = [node for node in self.deployment.nodes if node.role == "frontend"]
        page = try_scrape(nodes[-1])
        busy = page.value(self.release.metrics["frontend_inflight"]) if page else None
        if len(nodes) < 2 or page is None or busy:
            raise Inconclusive(f"of {len(nodes)} frontends none is idle")
        return self.break_process(kind, nodes[-1])

    def break_server(self, kind: str, role: str) -> ProvenFault:
        """Break the process of the first node of a role, ``nats`` or ``frontend``, that runs, and see it proven.

        Raises:
            Inconclusive: none runs.
        """
        nodes = [node for node in self.deployment.nodes if node.role == role]
        running = [node for node in nodes if self.deployment.process(node)["state"] == "running"]
        if not running:
            raise Inconclusive(f"no {role} runs, so none can break")
        return self.break_process(kind, running[0])

    def cut_from_dynamo(self, role: str, mode: str, lease_seconds: float) -> ProvenFault:
        """Cut all nodes of a role off from frontends and workers."""
        nodes = [node for node in self.deployment.nodes if node.role == role]
        return self._keep(self.network_faults.between(self.deployment.dynamo, nodes, mode, lease_seconds=lease_seconds))

    def recover(self, fault: ProvenFault) -> None:
        """Undo a fault and see it gone."""
        self._faults_of(fault.family).recover(fault)

    def answers(self) -> list[LedgerEntry]:
        """The watched requests that nobody cancelled, once they have ended.

        Raises:
            RuntimeError: there is none, so a sentence about all of them would say nothing.
        """
        self._enough.set()
        if self._client:
            self._client.join()
        entries = [self.answer(pending) for pending in self.watched if pending.entry.cancelled_at is None]
        if not entries:
            raise RuntimeError("no request was left to judge; the sentence would hold for nothing")
        return entries

    def ended_within(self, timeout: float) -> LedgerEntry:
        """The watched request, which has to end within ``timeout`` seconds of the last fault.

        Raises:
            TooLate: it did not.
            Inconclusive: the client lagged itself.
        """
        start = self.faults[-1].injected_at if self.faults else self.request.entry.intended_at
        entry = self.answer()
        see_keen(own_lag(entry), timeout, f"request {entry.number}")
        end = entry.ended_at or now()
        took = end - start - entry.held_between(start, end)
        if took > timeout:
            message = f"request {entry.number} ended after {took:.1f} s; {timeout:g} s are allowed"
            raise TooLate(message, timeout, start, end)
        return entry

    def expect_restarted(self, timeout: float) -> None:
        """The last victim has been started again and answers within ``timeout`` seconds.

        Raises:
            AssertionError: it has not, or does not.
        """
        node = self.faults[-1].node

        def down() -> str | None:
            seen = self.deployment.process(node)
            if not seen["restarts"] or try_scrape(node) is None:
                return f"{seen['state']}, {seen['restarts']} restarts"
            return None

        until(down, timeout, f"{node.name} runs again")

    def expect_unregistered(self, timeout: float) -> None:
        """The last victim, a dead worker, is registered no more ``timeout`` seconds after its lease has run out.

        Raises:
            AssertionError: it still is.
        """
        fault = self.faults[-1]
        self.etcd.expect_unregistered(fault.node, fault.injected_at, self.lease_seconds + timeout)

    def expect_finished(self, timeout: float) -> None:
        """The last victim, told to shut down, has finished the watched answers itself and left, ``timeout`` seconds
        after the last of them ended at the latest.

        Raises:
            AssertionError: it has not.
        """
        finished_at = max(entry.ended_at or now() for entry in self.answers())
        self.shutdowns.expect_finished(self.faults[-1], finished_at, timeout)

    @property
    def lease_seconds(self) -> float:
        """How long the registration of a dead worker is to live in the deployment that the scenario asked for."""
        return (self._lease_asked if self.release.lease_setting else None) or self.release.lease_seconds

    def _left(self) -> list[str]:
        """Names of the nodes of Dynamo whose first process is there no more, without the victims of process faults."""
        hit = {fault.node.name for fault in self.faults if fault.family == "process"}
        nodes = [node for node in self.deployment.dynamo if node.name in self._first and node.name not in hit]
        state = {node.name: process.state(*self._identity(node.name)) for node in nodes}
        return [name for name, seen in state.items() if seen == "gone"]

    def _identity(self, name: str) -> tuple[int, int]:
        return self._first[name]["pid"], self._first[name]["start_time"]

    def expect_all_left(self, timeout: float) -> None:
        """Every process of Dynamo that was there at first has ended by itself, with exit status 0, ``timeout`` seconds
        after the last fault at the latest.

        Raises:
            AssertionError: one has not: it neither serves nor makes room for one that does; or it did not end cleanly.
        """

        def staying() -> str | None:
            hit = {fault.node.name for fault in self.faults if fault.family == "process"}
            stay = sorted(set(self._first) - set(self._left()) - hit)
            return f"{', '.join(stay)} still there" if stay else None

        until(staying, timeout, "every Dynamo process has left", self.faults[-1].injected_at)
        self.shutdowns.expect_clean_exits({name: self._identity(name) for name in self._left()})

    def expect_none_left(self) -> None:
        """Every process of Dynamo that no fault has hit is the one that was there at first.

        Raises:
            AssertionError: one has ended.
        """
        if left := self._left():
            raise AssertionError(f"{', '.join(left)} ended although nothing was done to it")

    def expect_none_leaves(self, seconds: float) -> None:
        """The same at every look for ``seconds`` from now.

        Raises:
            AssertionError: one has ended.
        """
        throughout(self.expect_none_left, seconds)

    def expect_serving(self, timeout: float) -> None:
        """The frontend lists the workers that run and no other, serves the model, and answers a request correctly, all
        within ``timeout`` seconds.

        Raises:
            AssertionError: it does not.
        """
        since = now()

        def failing() -> str | None:
            self.fleet.expect_serving(timeout, since)
            return self._failing_request(since + timeout)

        until(failing, timeout, "a new request succeeds", since, RETRY_SECONDS)

    def _failing_request(self, deadline: float) -> str | None:
        """Send a request and say what is wrong with its answer, None when nothing is."""
        entry = self.send(max_tokens=FIRST_TOKENS, watch=False, timeout=max(0.1, deadline - now())).join().entry
        try:
            expect_complete(entry, FIRST_TOKENS)
        except AssertionError as error:
            return str(error)
        return None

    def expect_success_for(self, seconds: float) -> None:
        """One request after the other succeeds, those that are sent within ``seconds`` of now.

        Raises:
            AssertionError: one fails.
        """
        deadline = now() + seconds
        while now() < deadline:
            entry = self.send(max_tokens=FIRST_TOKENS, watch=False).join().entry
            expect_complete(entry, FIRST_TOKENS)

    def expect_success_again(self, timeout: float) -> None:
        """Within ``timeout`` seconds of now :data:`LASTING` requests in a row succeed.

        Raises:
            AssertionError: they do not.
        """
        since, successes = now(), 0

        def failing() -> str | None:
            nonlocal successes
            wrong = self._failing_request(since + timeout)
            successes = 0 if wrong else successes + 1
            return wrong or (None if successes == LASTING else f"{successes} did")

        until(failing, timeout, f"{LASTING} new requests in a row succeed", since, RETRY_SECONDS)

    # -- the end

    def close(self, give_up: bool) -> History:
        """See all requests end, write the records, read everything once more and take the deployment down.

        Safe to call in every state, also after a failure half-way. Records are on disk before anybody is called who may
        refuse, every step is taken whatever became of those before, and what went wrong is in the history.

        Args:
            give_up: whether to cancel what is still under way, as after a failure; else each request has until its own
                deadline, and the judge will speak of one that needed it.
        """
        self._closing = True
        end = Closing()
        topology = self._plain_topology()
        self._write_records(topology, end)  # as far as they go: who is waited for below may never come
        with end.recording("timeline"):
            self.events.add("note", "", "the steps are over")
        self.let_go()
        self._end_requests(give_up, end)
        if self._fleet is not None:
            with end.recording("shutdowns"):
                self.shutdowns.see_gone(self.faults, self.events)
        after: dict[str, Metrics] = {}
        records: list[dict[str, Any]] = []
        left: list[str] = []
        if self._deployment is not None:
            with end.recording("topology"):
                topology = self._deployment.topology()
        self._write_records(topology, end)
        if self._deployment is not None:
            self._undo_faults(end)
        if self._recorder:
            with end.recording("etcd"):
                records = self._recorder.close(self.folder / "etcd.jsonl", look=self._deployment is not None)
            end.records_lost += self._recorder.problems
        if self._fleet is not None:
            with end.recording("metrics"):
                after = self._fleet.last_look()
        if self._deployment is not None:
            with end.recording("states of processes"):
                self._add_states()
            with end.undoing("deployment"):
                left = self._deployment.remove()
        worker_journal: list[dict[str, Any]] = []
        panics: dict[str, list[str]] = {}
        waits = self._machine(end)
        with end.recording("second opinions"):
            self._ask_for_second_opinions()
        self._write_records(topology, end)
        logs = self.folder / "logs"
        with end.recording("journals of the workers"):
            worker_journal = journal.read(logs)
        for log in sorted(logs.glob("*.log")):
            with end.recording(f"log of {log.stem}"):
                panics[log.stem] = find_panics(log)
        return History(
            entries=self.ledger.entries(),
            events=self.events.all(),
            topology=topology,
            metrics_before=self._fleet.before if self._fleet else {},
            metrics_after=after,
            panics=panics,
            worker_journal=worker_journal,
            etcd=records,
            waits=waits,
            leftovers=left,
            not_undone=end.not_undone,
            records_lost=end.records_lost,
            migration_limit=self._deployment.shape.migration_limit if self._deployment else None,
            metric_names=self.release.metrics,
        )

    def _ask_for_second_opinions(self) -> None:
        """Of each watched answer, and of one of each shape of the others. Not before all requests are over and the
        deployment is gone: it takes a second of CPU.
        """
        found = opinions(self.ledger.entries(), {pending.entry.number for pending in self.watched})
        for entry in self.ledger.entries():
            entry.opinion = found.get(entry.number)
        if found:
            counts = Counter(each.kind for each in found.values())
            told = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
            client = next(iter(found.values())).client
            played = len({each.played for each in found.values()})
            text = f"{client} was given {played} answers, which stand for {len(found)}: {told}"
            self.events.add("note", "client", text)

    def _machine(self, end: Closing) -> list[Wait]:
        """How busy the machine was: spells in which somebody waited for a processor."""
        waits: list[Wait] = []
        with end.recording("waits for a processor"):
            waits = self._starvation.close()
        factor = slowness.factor()
        with end.recording("timeline"):
            self.events.add("note", "", f"the suite ran {factor:.1f} times slower than alone", slowness=factor)
        return waits

    def _plain_topology(self) -> dict[str, Any]:
        """The deployment without what only its agent knows."""
        if self._deployment is None:
            return {}
        nodes = [{"name": node.name, "role": node.role, "address": node.address} for node in self._deployment.nodes]
        return {"shape": self._deployment.shape.describe(), "nodes": nodes}

    def _write_records(self, topology: dict[str, Any], end: Closing) -> None:
        with end.recording("ledger"):
            self.ledger.write(self.folder / "ledger.jsonl")
        with end.recording("topology"):
            write_json(self.folder / "topology.json", topology)

    def _end_requests(self, give_up: bool, end: Closing) -> None:
        for pending in self.requests:
            if give_up and not pending.ended:
                with end.recording(f"request {pending.entry.number}"):
                    text = f"request {pending.entry.number} was still under way; client gives up"
                    self.events.add("note", "client", text)
                with end.recording(f"request {pending.entry.number}"):
                    pending.cancel()
        if self._client:
            self._client.join()
        for pending in self.requests:
            with end.recording(f"request {pending.entry.number}"):
                pending.join()
        for load in self.loads:
            with end.recording(f"load in {load.folder.name}"):
                if give_up:
                    load.kill()
            with end.recording(f"load in {load.folder.name}"):
                log = load.join()
                self.ledger.adopt(log.entries())
                if not give_up:  # one that we have killed lacks its end
                    end.records_lost += [f"load in {load.folder.name}: {each}" for each in log.problems]

    def _undo_faults(self, end: Closing) -> None:
        live: list[dict[str, Any]] = []
        with end.undoing("faults"):
            live = self._faults.faults(active=True)
        for fault in live:
            if fault["type"] not in ("crash", "terminate"):  # those would only be started again to be ended
                with end.undoing(f"fault {fault['id']} ({fault['type']})"):
                    self._faults.recover(fault["id"])

    def _add_states(self) -> None:
        for change in self._agent.history():
            if change["state"] in ("starting", "running", "stopped", "hung", "dead"):
                text = f"{change['state']}: {change['detail']}"
                self.events.add("state", change["node"], text, at=change["at"])
