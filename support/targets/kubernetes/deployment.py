"""Real Dynamo, etcd and NATS in pods of a cluster."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from support import activity, slowness
from support.amounts import amount
from support.clock import now
from support.contract.deployment import Change, Facts, Life, Node
from support.errors import DeploymentFailed
from support.events import EventLog
from support.observe import etcd
from support.observe.health import numbers, serves
from support.observe.logs import tail
from support.observe.waiting import pause
from support.observe.workers import requests_served, worker_id
from support.requests.client import send_completion_request
from support.targets.kubernetes import happenings, manifests, troubles
from support.targets.kubernetes.api import ApiServer, ClusterError, Object
from support.targets.kubernetes.faults import Scaled
from support.targets.kubernetes.lives import Watcher, is_ready, is_up
from support.targets.kubernetes.manifests import Blueprint
from support.targets.kubernetes.names import Names
from support.targets.kubernetes.routes import Routes
from support.targets.kubernetes.scope import Scope
from support.targets.local.tokenizer import MODEL

# Images are there or come within this time; a boot costs up to 4 CPU-seconds for each process of Dynamo.
BOOT_SECONDS = 180.0
ETCD_SECONDS = 120.0
GONE_SECONDS = 90.0


@dataclass(frozen=True)
class Premises:
    """What a deployment is made with.

    Attributes:
        cluster: where; ``scope``: its place there, open.
        plan: what it is built from.
        logs: folder for what its containers write.
        events: gets a note per step of a boot.
        frontend_url: what the user says clients find the frontend by.
        one_clock: whether all nodes have the clock of this machine.
        names: which pod is which node.
        let_go: called before anything is taken down.
    """

    cluster: ApiServer
    scope: Scope
    plan: Blueprint
    logs: Path
    events: EventLog
    frontend_url: str | None
    one_clock: bool
    names: Names
    let_go: Callable[[], None] = lambda: None


class KubernetesDeployment:
    """One running Dynamo; implements :class:`support.contract.deployment.Deployment`.

    Args:
        watch: called as soon as the members of its etcd cluster start.
    """

    def __init__(self, site: Premises, watch: Callable[["KubernetesDeployment"], None]) -> None:
        self.site, self.shape, self.model, self._watch = site, site.plan.shape, MODEL, watch
        self.facts = Facts(one_clock=site.one_clock)
        self.nodes: list[Node] = []
        self.namespace = site.scope.namespace
        self.restart_policy = self.shape.restart_policy
        self.readiness_switch = self.shape.readiness_switch
        self.controller: Scaled | None = None
        self._made: dict[str, Object] = {}
        self._held: dict[str, Life] = {}
        self.names = site.names
        self.names.appeared = self._appear
        self._watcher = Watcher(site.cluster, self.namespace, site.scope.selector, site.logs, site.names)
        self._routes = Routes(site.cluster, self.namespace, self._address, site.names)

    # -- what it is made of

    def _address(self, name: str) -> str | None:
        pod = self._watcher.pod(name)
        return pod["status"].get("podIP") if pod and pod["status"].get("phase") == "Running" else None

    def _node(self, name: str, role: str, port: int, metrics: bool = True, gate: bool = False) -> Node:
        url = f"http://{name}:{port}/metrics" if metrics else None
        gate_url = f"http://{name}:{manifests.GATE_PORT}" if gate else None
        node = Node(name, role, name, port, url, gate_url)
        self.nodes.append(node)
        return node

    def _all(self, *roles: str) -> list[Node]:
        return [node for node in self.nodes if node.role in roles]

    @property
    def frontend_url(self) -> str:
        """Where its users send requests."""
        return self._routes.url

    @property
    def dynamo(self) -> list[Node]:
        """Frontends, then workers."""
        return self._all("frontend") + self.workers

    @property
    def workers(self) -> list[Node]:
        """Nodes that answer requests, then prefill workers."""
        return self._all("worker", "decode") + self._all("prefill")

    # -- start

    def start(self) -> None:
        """Start everything and wait until it serves."""
        for warning in self.shape.warnings():
            self.site.events.add("note", "", f"warning: {warning}")
        plan, place, began = self.site.plan, self.site.scope.place, now()
        place([manifests.files(plan), *manifests.services(plan)])
        if plan.discovery == "kubernetes":
            self._define()
            place(manifests.account(self.namespace))
        else:
            self._start_etcd()
        if plan.nats:
            place(manifests.nats(plan))
            self._node("nats-0", "nats", manifests.NATS_PORT, metrics=False)
            self._wait(lambda: self._ready("nats-0"), ETCD_SECONDS, self._all("nats"), "the NATS server is ready")
        for number in range(self.shape.frontends):
            self._place(manifests.frontend(plan, number), "frontend", manifests.FRONTEND_PORT)
        if self.shape.controller:
            manifest = manifests.controller(plan)
            place([manifests.budget(plan), manifest])
            self.controller = Scaled(manifest["kind"], manifest["metadata"]["name"], self.shape.workers)
        for role, _ in [] if self.shape.controller else manifests.workers(plan):
            self._start_worker(role)
        fronts = self._all("frontend")
        ready = lambda: all(self._ready(node.name) for node in fronts)  # noqa: E731
        self._wait(ready, BOOT_SECONDS, self.dynamo, "every frontend is ready")
        self._routes.open(self.site.frontend_url, [node.name for node in fronts])
        ready_at = self._wait_until_serving()
        if self.shape.disaggregated:
            ready_at = self._wait_until_prefill_is_used()
        self._tell(ready_at - began)

    def _tell(self, seconds: float) -> None:
        """What the report is to say of the place."""
        text = f"{self.shape.describe()}: serving after {seconds:.2f} s"
        self.site.events.add("note", "", text, boot_seconds=seconds)
        placed = {node.name: self._on(node) for node in self.nodes}
        way_seconds = self._routes.cost()
        about: dict[str, Any] = {
            "cluster": self.site.cluster.version(),
            "namespace": self.namespace,
            "discovery": self.site.plan.discovery,
            "way": self._routes.way,
            "way_seconds": round(way_seconds, 4),
            "looks": "straight" if self._routes.direct else "by way of the API server",
            "nodes": placed,
        }
        text = (
            f"Kubernetes {about['cluster']}, nodes {', '.join(sorted(set(placed.values())))}, discovery "
            f"{about['discovery']}; requests travel by {about['way']} ({way_seconds * 1000:.1f} ms for a "
            f"look), looks go {about['looks']}"
        )
        self.site.events.add("note", "", text, **about)

    def _on(self, node: Node) -> str:
        pod = self._watcher.pod(node.name)
        return str(pod["spec"].get("nodeName", "?")) if pod else "?"

    def _define(self) -> None:
        cluster = self.site.cluster
        if cluster.get("CustomResourceDefinition", "", manifests.CRD) is None:
            cluster.apply(manifests.definition(), "")

    def _start_etcd(self) -> None:
        began, plan = now(), self.site.plan
        members = [self._node(name, "etcd", manifests.ETCD_PORT) for name in manifests.members(plan)]
        self.site.scope.place(manifests.etcd(plan))

        def formed() -> bool:
            return all(self._address(node.name) and etcd.healthy(node) for node in members) and (
                etcd.leader(members) is not None
            )

        at = self._wait(formed, ETCD_SECONDS, members, "all etcd members are healthy and have a leader")
        self._watch(self)
        leader = etcd.leader(members)
        text = f"etcd with {len(members)} members has a leader, {leader.name if leader else 'none'}, after "
        self.site.events.add("note", "", f"{text}{at - began:.2f} s", seconds=at - began)

    def _place(self, manifest: Object, role: str, port: int, gate: bool = False) -> Node:
        name = str(manifest["metadata"]["name"])
        node = self._node(name, role, port, gate=gate)
        self._made[name] = manifest
        self.site.scope.place([manifest])
        return node

    def _start_worker(self, role: str) -> Node:
        manifest = manifests.worker(self.site.plan, role, len(self._all(role)))
        return self._place(manifest, role, manifests.SYSTEM_PORT, gate=self.shape.engine == "ruler")

    def _appear(self, name: str) -> None:
        """A pod that the workers' Deployment has made is a worker from now on."""
        self._node(name, "worker", manifests.SYSTEM_PORT, gate=self.shape.engine == "ruler")

    def _ready(self, name: str) -> bool:
        pod = self._watcher.pod(name)
        return pod is not None and is_ready(pod)

    def _wait_until_serving(self) -> float:
        """Until the frontends list exactly the workers and serve the model; returns when that was."""
        wanted = self.shape.workers + self.shape.prefill_workers

        def serving() -> bool:
            urls = [self.frontend_url, *(f"http://{node.endpoint}" for node in self._all("frontend"))]
            listed = [numbers(url) for url in urls]
            whole = all(each is not None and len(each) == wanted for each in listed)
            return whole and all(serves(url, self.model) for url in urls)

        return self._wait(
            serving, BOOT_SECONDS, self.nodes, f"the frontend lists {amount(wanted, 'worker')} and serves {self.model}"
        )

    def _wait_until_prefill_is_used(self) -> float:
        """Up to 1.4 the frontend serves a disaggregated model with decode workers alone at first."""

        def used() -> bool:
            answer = send_completion_request(self.frontend_url, self.model, "ready", 1, timeout=BOOT_SECONDS)
            metrics = self.site.plan.release.metrics
            return answer.status_code == 200 and any(requests_served(each, metrics) for each in self._all("prefill"))

        return self._wait(used, BOOT_SECONDS, self.dynamo, "a prefill worker gets a request")

    def _wait(self, condition: Callable[[], bool], timeout: float, needed: list[Node], what: str) -> float:
        began = now()
        with activity.waiting(what, began + timeout):
            while not condition():
                pods = {node.name: self._watcher.pod(node.name) for node in needed}
                if hopeless := troubles.hopeless(pods):
                    raise DeploymentFailed(f"{hopeless}{self._last_words(needed)}")
                if now() > began + timeout * slowness.factor():
                    seen = troubles.seen(self.site.cluster, self.namespace, pods)
                    text = f"not within {now() - began:.0f} s: {what}; {seen}"
                    raise DeploymentFailed(f"{text}{self._last_words(needed)}")
                time.sleep(pause(now() - began))
        return now()

    def _last_words(self, nodes: list[Node]) -> str:
        names = [node.name for node in nodes if not self._ready(node.name)]
        told = [(name, tail(self.site.logs / f"{name}.log", 5)) for name in names]
        return "".join(f"\n--- last lines of {name}\n{text}" for name, text in told if text)

    # -- while it runs

    def life(self, node: Node) -> Life:
        """See :class:`support.contract.deployment.Deployment`; a life is a container of a pod."""
        if node.name in self._held:
            return replace(self._held[node.name], state="ended")
        return self._watcher.life(node.name)

    def changes(self) -> list[Change]:
        """See :class:`support.contract.deployment.Deployment`; as the kubelets tell of them."""
        return self._watcher.changes()

    def note(self, node: Node, life: Life, state: str, detail: str) -> None:
        """See :class:`support.targets.kubernetes.faults.Pods`."""
        self._watcher.note(node.name, life.identity, state, detail)

    def hold(self, node: Node, life: Life) -> None:
        """See :class:`support.targets.kubernetes.faults.Pods`."""
        self._held[node.name] = life

    def release(self, node: Node) -> None:
        """See :class:`support.targets.kubernetes.faults.Pods`."""
        self._held.pop(node.name, None)

    def renew(self, node: Node) -> None:
        """See :class:`support.targets.kubernetes.faults.Pods`."""
        cluster = self.site.cluster
        if node.name not in self._made:
            return  # its Deployment does that
        before = cluster.get("Pod", self.namespace, node.name)
        if before is not None and is_up(before):
            return
        if before is not None:
            cluster.delete("Pod", self.namespace, node.name, grace=0, uid=before["metadata"]["uid"])
        until = time.monotonic() + GONE_SECONDS
        while cluster.get("Pod", self.namespace, node.name) is not None:
            if time.monotonic() > until:
                raise ClusterError(0, f"the pod {node.name} is still there {GONE_SECONDS:g} s after its deletion")
            time.sleep(0.1)
        self.site.scope.place([self._made[node.name]])

    def start_worker(self) -> Node:
        """Start one more worker and come back at once.

        Raises:
            DeploymentFailed: a Deployment has them, which makes as many as it is told to.
        """
        if self.controller is not None:
            raise DeploymentFailed(f"a {self.controller.kind} has the workers, and no other one can be added")
        return self._start_worker("decode" if self.shape.disaggregated else "worker")

    def add_worker(self) -> Node:
        """Start one more worker and wait until the frontend lists it."""
        node = self.start_worker()

        def listed() -> bool:
            known = numbers(self.frontend_url)
            return known is not None and worker_id(node) in known and serves(self.frontend_url, self.model)

        self._wait(listed, BOOT_SECONDS, [node], f"the frontend lists {node.name}")
        return node

    def replace_etcd_member(self, lost: Node) -> Node:
        """See :class:`support.contract.deployment.Deployment`.

        Raises:
            DeploymentFailed: always: the members of a StatefulSet keep their names.
        """
        raise DeploymentFailed(f"{lost.name} cannot be replaced: on the target kubernetes members keep their names")

    def topology(self) -> dict[str, Any]:
        """The published document; ``host`` is the cluster's node that a pod is on."""
        nodes = []
        for node in self.nodes:
            life = self.life(node)
            about = {"life": life.words, "state": life.state, "restarts": life.restarts, "host": self._on(node)}
            where = {"name": node.name, "role": node.role, "address": self._address(node.name) or node.address}
            nodes.append(where | {"metrics_url": node.metrics_url} | about)
        return {"deployment": self.namespace, "shape": self.shape.describe(), "nodes": nodes}

    def remove(self) -> list[str]:
        """Take everything down; returns what is still there of it."""
        self.site.let_go()
        self._routes.close()
        with contextlib.suppress(ClusterError):  # what is taken down is taken down without them
            happenings.tell(self.site.cluster, self.namespace, self.site.events)
        try:
            left = self.site.scope.close()
        except ClusterError as error:
            left = [f"the namespace {self.namespace}: {error}"]
        self._watcher.close()
        return left
