"""What breaks in a scenario: every fault is proven on its victim, and felt by somebody."""

from typing import Any

from support.contract.deployment import Node
from support.errors import Inconclusive
from support.faults.gpu import GpuFaults
from support.faults.network import NetworkFaults
from support.faults.processes import ProcessFaults
from support.faults.proven import ProvenFault
from support.observe.workers import try_scrape
from support.requests.outcomes import outcome
from support.world.clients import Clients
from support.world.stage import Stage


class Faults:
    """All faults of a scenario.

    Attributes:
        made: every fault that was proven, in the order of time.
    """

    def __init__(self, stage: Stage, clients: Clients) -> None:
        self._stage, self._clients = stage, clients
        self.made: list[ProvenFault] = []

    @property
    def last(self) -> ProvenFault:
        """The fault that was made last.

        Raises:
            RuntimeError: there is none.
        """
        if not self.made:
            raise RuntimeError("nothing was broken yet; a sentence about the fault comes after one that makes it")
        return self.made[-1]

    @property
    def victims(self) -> set[str]:
        """Names of the nodes that a fault has hit."""
        return {fault.node.name for fault in self.made}

    def keep(self, fault: ProvenFault) -> ProvenFault:
        """Note a fault that was made and proven; returns it."""
        self.made.append(fault)
        return fault

    @property
    def process_faults(self) -> ProcessFaults:
        """Faults of processes in this deployment, for victims that the caller chooses."""
        return ProcessFaults(self._stage.target, self._stage.deployment, self._stage.events)

    @property
    def network_faults(self) -> NetworkFaults:
        """Faults of the network in this deployment, for victims that the caller chooses."""
        return NetworkFaults(self._stage.target, self._stage.deployment, self._stage.events)

    @property
    def gpu_faults(self) -> GpuFaults:
        """Faults of GPUs in this deployment, for victims that the caller chooses."""
        return GpuFaults(self._stage.target, self._stage.deployment, self._stage.events, self._clients.rate)

    def _faults_of(self, family: str) -> ProcessFaults | NetworkFaults | GpuFaults:
        if family == "process":
            return self.process_faults
        return self.network_faults if family == "network" else self.gpu_faults

    def break_process(self, kind: str, node: Node, lease_seconds: float | None = None) -> ProvenFault:
        """Inject a fault into a node's process and see it proven; see
        :class:`support.faults.processes.ProcessFaults`.
        """
        lease = {} if lease_seconds is None else {"lease_seconds": lease_seconds}
        return self.keep(self.process_faults.inject(kind, node, **lease))

    def see_felt(self) -> ProvenFault:
        """Make sure that somebody could notice the last fault: it was done while a watched answer was still coming or a
        client was about to send its next request.

        Raises:
            Inconclusive: every watched answer was complete before.
        """
        fault, entries = self.last, [pending.entry for pending in list(self._clients.watched)]
        before = [entry.ended_at is not None and entry.ended_at < fault.done_at for entry in entries]
        complete = all(before) and all(outcome(entry).kind == "complete" for entry in entries)
        if entries and complete and not self._clients.asking:
            raise Inconclusive(f"no request was under way any more when {fault.node.name} was hit")
        return fault

    def break_serving_worker(self, kind: str, role: str = "") -> ProvenFault:
        """Break the worker that has most of the watched requests in flight, and see it proven; answers of the ruler
        engine are held before their end meanwhile.

        Raises:
            Inconclusive: no watched request was under way when the fault struck, so nobody could notice it.
        """
        if not self._stage.gate.closed:
            self._stage.gate.hold_end({pending.entry.max_tokens for pending in list(self._clients.watched)})
        victim = self._stage.fleet.serving_worker(role)
        self._stage.gate.move_to_end([node for node in self._stage.deployment.workers if node != victim])
        self.break_process(kind, victim)
        self._stage.gate.move_to_end()
        return self.see_felt()

    def break_idle_frontend(self, kind: str) -> ProvenFault:
        """Break the last frontend, which clients are not sent to while an earlier one runs, and see it proven.

        Raises:
            Inconclusive: there is one frontend alone, or it has requests under way.
        """
        nodes = self._stage.nodes("frontend")
        page = try_scrape(nodes[-1])
        busy = page.value(self._stage.release.metrics["frontend_inflight"]) if page else None
        if len(nodes) < 2 or page is None or busy:
            raise Inconclusive(f"of {len(nodes)} frontends none is idle")
        return self.break_process(kind, nodes[-1])

    def break_server(self, kind: str, role: str) -> ProvenFault:
        """Break the process of the first node of a role, ``nats`` or ``frontend``, that runs, and see it proven.

        Raises:
            Inconclusive: none runs.
        """
        nodes = self._stage.nodes(role)
        running = [node for node in nodes if self._stage.deployment.life(node).state == "running"]
        if not running:
            raise Inconclusive(f"no {role} runs, so none can break")
        return self.break_process(kind, running[0])

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
        victim = worker or self._stage.fleet.serving_worker()
        self.keep(self.network_faults.cut(partition, victim, mode, direction, **lease))
        return self.see_felt()

    def lose_packets(self, partition: str, percent: int, worker: Node | None = None, **lease: float) -> ProvenFault:
        """Lose packets of a worker, of the one that serves most requests if None, and see that share of them lost."""
        victim = worker or self._stage.fleet.serving_worker()
        self.keep(self.network_faults.lose(partition, victim, percent, **lease))
        return self.see_felt()

    def narrow_cable(self, rate_kbit: int, lease_seconds: float, worker: Node | None = None) -> ProvenFault:
        """Narrow the cable of a worker, of the one that serves most requests if None, and see it slow."""
        victim = worker or self._stage.fleet.serving_worker()
        self.keep(self.network_faults.narrow(victim, rate_kbit, lease_seconds=lease_seconds))
        return self.see_felt()

    def cut_from_dynamo(self, role: str, mode: str, lease_seconds: float) -> ProvenFault:
        """Cut all nodes of a role off from frontends and workers."""
        nodes = self._stage.nodes(role)
        return self.keep(
            self.network_faults.between(self._stage.deployment.dynamo, nodes, mode, lease_seconds=lease_seconds)
        )

    def break_gpu(self, xid: int, worker: Node | None = None, **options: Any) -> ProvenFault:
        """Report an XID error of a worker's GPU, of the one that serves most requests if None, and see it proven."""
        self.keep(self.gpu_faults.xid(xid, worker or self._stage.fleet.serving_worker(), **options))
        return self.see_felt()

    def strain_gpu(self, kind: str, share: float, worker: Node | None = None, **lease: float) -> ProvenFault:
        """Strain a worker's GPU, that of the one that serves most requests if None, and see it proven."""
        self.keep(self.gpu_faults.strain(kind, worker or self._stage.fleet.serving_worker(), share, **lease))
        return self.see_felt()

    def repair_gpu(self) -> None:
        """Undo the last fault of a GPU and see it gone."""
        self.recover(next(fault for fault in reversed(self.made) if fault.family == "gpu"))

    def recover(self, fault: ProvenFault) -> None:
        """Undo a fault and see it gone."""
        self._faults_of(fault.family).recover(fault)

    def see_healed(self, timeout: float) -> None:
        """Wait until no victim suffers any more, with nobody asked to undo its fault, ``timeout`` seconds from now."""
        for fault in self.made:
            self._faults_of(fault.family).see_healed(fault, timeout)
