"""A deployment in memory; implements :class:`support.contract.deployment.Deployment`."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import clock
from support.amounts import amount
from support.contract.deployment import Change, Deployment, Facts, Life, Node
from support.contract.shape import Shape
from support.errors import DeploymentFailed
from support.events import EventLog
from support.observe.health import numbers
from support.observe.waiting import until
from support.observe.workers import worker_id
from support.releases import Release
from support.targets.fake.etcd import PEER_PORT, TICK_SECONDS, Cluster, Member
from support.targets.fake.frontend import Frontend
from support.targets.fake.hosts import FakeProgram, Host
from support.targets.fake.network import FakeNetwork
from support.targets.fake.worker import Worker

MODEL = "in/memory"
FRONTEND_PORT, SYSTEM_PORT, GATE_PORT, ETCD_PORT, NATS_PORT = 8000, 9090, 9091, 2379, 4222
BOOT_SECONDS = {"frontend": 0.5, "etcd": 0.2, "nats": 0.1}
WORKER_SECONDS = 1.0
READY_SECONDS = 60.0


class Nats(FakeProgram):
    """A NATS server; only whether it is there matters."""

    is_nats = True


class _Door:
    """A port of a host, whichever life its program is in."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host.program, name)


class FakeDeployment:
    """Hosts with their programs.

    Args:
        hosts: gets its hosts by name.
        watch: called as soon as the members of its etcd cluster start.
    """

    facts = Facts()

    def __init__(
        self,
        shape: Shape,
        release: Release,
        logs: Path,
        events: EventLog,
        network: FakeNetwork,
        hosts: dict[str, Host],
        watch: Callable[[Deployment], None],
    ) -> None:
        self.shape, self.model, self.nodes = shape, MODEL, list[Node]()
        self._release, self._logs, self._events, self._network = release, logs, events, network
        self._hosts, self._watch = hosts, watch
        self._cluster = Cluster(network)
        self._ticking = False

    # -- its parts

    def _all(self, *roles: str) -> list[Node]:
        return [node for node in self.nodes if node.role in roles]

    @property
    def frontend_url(self) -> str:
        """That of the first frontend that runs."""
        fronts = self._all("frontend")
        running = [node for node in fronts if self._hosts[node.name].state == "running"]
        return f"http://{(running or fronts)[0].endpoint}"

    @property
    def dynamo(self) -> list[Node]:
        """See :class:`support.contract.deployment.Deployment`."""
        return self._all("frontend") + self.workers

    @property
    def workers(self) -> list[Node]:
        """See :class:`support.contract.deployment.Deployment`."""
        return self._all("worker", "decode") + self._all("prefill")

    def _add(self, name: str, role: str, port: int, make: Callable[[Host], FakeProgram]) -> Host:
        address = f"10.0.0.{len(self.nodes) + 1}"
        metrics = None if role == "nats" else f"http://{address}:{port}/metrics"
        gate = f"http://{address}:{GATE_PORT}" if role == "worker" and self.shape.engine == "ruler" else None
        node = Node(name, role, address, port, metrics, gate)
        host = Host(node, self._network, self._logs, make, BOOT_SECONDS.get(role, WORKER_SECONDS))
        if role not in ("etcd", "nats"):
            host.policy = self.shape.restart_policy
        self.nodes.append(node)
        self._hosts[name] = host
        for each in (port, PEER_PORT, GATE_PORT):
            self._network.servers[address, each] = _Door(host)
        return host

    def _add_member(self) -> Host:
        name = f"etcd-{len(self._all('etcd'))}"
        host = self._add(name, "etcd", ETCD_PORT, lambda host: Member(host, self._cluster))
        self._cluster.add(host)
        return host

    def _add_worker(self, role: str) -> Node:
        kind = self.shape.engine if role == "worker" else f"{self.shape.engine}-{role}"
        host = self._add(f"{kind}-worker-{len(self._all(role))}", role, SYSTEM_PORT, self._worker)
        host.start()
        return host.node

    def _of_all(self) -> tuple[Any, ...]:
        asked = self.shape.lease_seconds if self._release.lease_setting else None
        return self.shape, self._cluster, asked or self._release.lease_seconds, self._release.metrics

    def _worker(self, host: Host) -> FakeProgram:
        return Worker(host, *self._of_all())

    def _frontend(self, host: Host) -> FakeProgram:
        return Frontend(host, *self._of_all(), release=self._release, model=self.model)

    # -- start

    def start(self) -> None:
        """Start everything and wait until it serves."""
        self._ticking = True
        members = [self._add_member() for _ in range(self.shape.etcd_members)]
        if not self.shape.etcd_delay_seconds:
            self._start_etcd(members)
        if self.shape.request_plane == "nats" or self._release.nats_always:
            self._add("nats-0", "nats", NATS_PORT, Nats).start()
        for number in range(self.shape.frontends):
            self._add(f"frontend-{number}", "frontend", FRONTEND_PORT, self._frontend).start()
        for _ in range(self.shape.workers):
            self.start_worker()
        for _ in range(self.shape.prefill_workers):
            self._add_worker("prefill")
        self._tick()
        if self.shape.etcd_delay_seconds:
            clock.sleep(self.shape.etcd_delay_seconds)
            self._start_etcd(members)
            return
        self._wait_for(len(self.workers), [f"http://{node.endpoint}" for node in self._all("frontend")])
        self._events.add("note", "", f"{self.shape.describe()}: serving, in memory")

    def _start_etcd(self, members: list[Host]) -> None:
        for host in members:
            host.start()
        self._watch(self)

    def _tick(self) -> None:
        if self._ticking:
            self._cluster.tick()
            self._network.loop.call_later(TICK_SECONDS, self._tick)
            self._network.loop.wake()

    def _wait_for(self, count: int, urls: list[str]) -> None:
        def missing() -> str | None:
            seen = [numbers(url) for url in urls]
            return None if all(each is not None and len(each) == count for each in seen) else f"{seen}"

        _see(missing, f"the frontends list {amount(count, 'worker')}")

    # -- while it runs

    def life(self, node: Node) -> Life:
        """See :class:`support.contract.deployment.Deployment`."""
        return self._hosts[node.name].life

    def changes(self) -> list[Change]:
        """See :class:`support.contract.deployment.Deployment`."""
        return sorted((each for host in self._hosts.values() for each in host.changes), key=lambda each: each.at)

    def start_worker(self) -> Node:
        """See :class:`support.contract.deployment.Deployment`."""
        return self._add_worker("decode" if self.shape.disaggregated else "worker")

    def add_worker(self) -> Node:
        """See :class:`support.contract.deployment.Deployment`."""
        node = self.start_worker()

        def unlisted() -> str | None:
            listed = numbers(self.frontend_url)
            return None if listed is not None and worker_id(node) in listed else "it is not"

        _see(unlisted, f"{node.name} is listed")
        return node

    def replace_etcd_member(self, lost: Node) -> Node:
        """See :class:`support.contract.deployment.Deployment`."""
        if self._cluster.leader in (None, lost.name):
            raise DeploymentFailed(f"without {lost.name} the etcd cluster has no leader that could remove it")
        self._cluster.remove(lost.name)
        new = self._add_member()
        new.start()
        _see(lambda: None if self._cluster.serves(new) else "it does not", f"{new.node.name} serves")
        return new.node

    def topology(self) -> dict[str, Any]:
        """See :class:`support.contract.deployment.Deployment`."""
        nodes = []
        for node in self.nodes:
            life = self.life(node)
            about = {"life": life.words, "state": life.state, "restarts": life.restarts}
            nodes.append({"name": node.name, "role": node.role, "address": node.address} | about)
        return {"deployment": "fake", "shape": self.shape.describe(), "nodes": nodes}

    def remove(self) -> list[str]:
        """See :class:`support.contract.deployment.Deployment`; what is left are the mistakes of the programs."""
        self._ticking = False
        for node in self.nodes:
            host = self._hosts[node.name]
            host.policy, host.fences = "Never", set()
            host.over(-signal.SIGKILL)
        self._network.watchers.clear()
        self._network.rules.clear()
        return [line for host in self._hosts.values() for line in host.trouble]


def _see(probe: Callable[[], str | None], what: str) -> None:
    try:
        until(probe, READY_SECONDS, what)
    except AssertionError as late:
        raise DeploymentFailed(str(late)) from None
