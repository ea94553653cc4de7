"""What an administrator has put on the nodes of a cluster: agents that break the networks of pods, and observers that
see them broken (``agents/manifests/``). Both are asked through forwarded ports, with tokens from their Secrets.
"""

import base64
from collections.abc import Callable, Sequence
from typing import Any, cast

from agents.service.agents import PARTITIONS
from support.clock import now
from support.contract.deployment import Life, Node
from support.contract.fault_service import FaultService
from support.errors import Inconclusive, Refused
from support.json_api import JsonApi
from support.observe.waiting import at_once
from support.targets.kubernetes.api import ApiServer, ClusterError, Object
from support.targets.kubernetes.lives import is_ready
from support.targets.kubernetes.names import Names
from support.targets.kubernetes.tunnels import Tunnel
from support.targets.kubernetes.witness import PodWitness

NAMESPACE = "fault-injection"
SERVICE, AGENT, OBSERVER = "fault-service", "pod-fault-injector", "pod-observer"
SERVICE_PORT, OBSERVER_PORT = 8080, 8083
APP = "app.kubernetes.io/name"
SECONDS = 300.0
JOINT = "+"
"""Between the ids of faults that are one to the suite: one for each machine with a victim."""


class Observer(JsonApi):
    """The observer of one machine."""

    WHO = "observer"


class NodeAgents:
    """The way to the agents and observers of a cluster."""

    def __init__(self, cluster: ApiServer) -> None:
        self._cluster = cluster
        self._tunnels: list[Tunnel] = []
        self._observers: dict[str, Observer] = {}
        self._service: FaultService | None = None

    def missing(self) -> str:
        """Why they cannot be used, in words; empty: they can."""
        try:
            for app in (SERVICE, AGENT, OBSERVER):
                ready = {pod["spec"].get("nodeName") for pod in self._pods(app) if is_ready(pod)}
                if not ready:
                    manifest = f"agents/manifests/{app}.yaml"
                    return f"no {app} is ready in the namespace {NAMESPACE}: ask an administrator to apply {manifest}"
                if app != SERVICE and (bare := sorted(self._machines() - ready)):
                    return f"no {app} is ready on {', '.join(bare)}"
            self._token(SERVICE)
            self._token(OBSERVER)
        except ClusterError as error:
            return str(error)
        return ""

    def _pods(self, app: str) -> list[Object]:
        return self._cluster.list("Pod", NAMESPACE, f"{APP}={app}")

    def _machines(self) -> set[str]:
        nodes = self._cluster.list("Node")
        return {each["metadata"]["name"] for each in nodes if not each["spec"].get("unschedulable")}

    def _token(self, app: str) -> str:
        secret = self._cluster.get("Secret", NAMESPACE, app)
        if secret is None or "token" not in secret.get("data", {}):
            raise ClusterError(404, f"there is no Secret {app} with a token in the namespace {NAMESPACE}")
        return base64.b64decode(secret["data"]["token"]).decode()

    def open(self) -> None:
        """Make the ways to them; they end with the thread that calls this.

        Raises:
            ClusterError, DeploymentFailed: there is none.
        """
        self._service = FaultService(self._forward(self._pods(SERVICE), SERVICE_PORT), self._token(SERVICE))
        token = self._token(OBSERVER)
        for pod in self._pods(OBSERVER):
            if is_ready(pod):
                self._observers[pod["spec"]["nodeName"]] = Observer(self._forward([pod], OBSERVER_PORT), token)

    def _forward(self, pods: Sequence[Object], port: int) -> str:
        names = [pod["metadata"]["name"] for pod in pods if is_ready(pod)]
        self._tunnels.append(Tunnel(self._cluster, NAMESPACE, names, port))
        return self._tunnels[-1].url

    @property
    def service(self) -> FaultService:
        """The fault service of the cluster; to be asked between :meth:`open` and :meth:`close`."""
        assert self._service is not None
        return self._service

    def observer(self, machine: str) -> Observer:
        """The observer of a machine of the cluster.

        Raises:
            Inconclusive: none was ready there when the scenario began.
        """
        if machine not in self._observers:
            raise Inconclusive(f"no {OBSERVER} was ready on {machine} when the scenario began")
        return self._observers[machine]

    def close(self) -> None:
        """End the ways to them."""
        for tunnel in self._tunnels:
            tunnel.close()
        self._tunnels.clear()


class NetworkFaults(FaultService):
    """Breaks the networks of the pods of one scenario, by the fault service of the cluster.

    It answers as the service does: a fault on pods of several machines is one for each of them there, and one here;
    its deadline is on our clock.

    Args:
        nodes: those of the deployment right now; ``names``: which pods they are.
    """

    WHO = "fault service of the cluster"

    def __init__(
        self,
        agents: NodeAgents,
        cluster: ApiServer,
        namespace: str,
        nodes: Callable[[], Sequence[Node]],
        names: Names,
    ) -> None:
        self._agents, self._cluster, self._namespace, self._nodes = agents, cluster, namespace, nodes
        self._names = names
        self._ends: dict[str, float] = {}

    def _sides(self, order: dict[str, Any]) -> tuple[list[str], list[str]]:
        """Names of the nodes on the one side, and of those on which the rules are made."""
        if "target" in order:
            given = (order["source"], order["target"])
            sources, targets = ([each] if isinstance(each, str) else list(each) for each in given)
            return sources, targets
        roles = PARTITIONS[str(order["partition_type"])]
        sources, targets = ([node.name for node in self._nodes() if node.role in side] for side in roles)
        return sources, [order["target_pod"]] if order.get("target_pod") else targets

    def inject(self, family: str, **order: Any) -> dict[str, Any]:
        """See :class:`support.contract.fault_service.FaultService`."""
        sources, targets = self._sides(order)
        pods = {self._names.node(pod): pod for pod in self._cluster.list("Pod", self._namespace)}
        if lost := [name for name in (*sources, *targets) if name not in pods]:
            raise Refused(404, f"the {self.WHO} cannot cut off {lost[0]}: it has no pod")
        machines: dict[str, list[str]] = {}
        for name in targets:
            machines.setdefault(pods[name]["spec"]["nodeName"], []).append(f"{self._namespace}/{self._names.pod(name)}")
        kept = {name: value for name, value in order.items() if name in ("mode", "direction", "parameters")}
        seconds = float(order.get("duration_seconds") or SECONDS)
        body = kept | {
            "partition_type": "CUSTOM",
            "source": [f"{self._namespace}/{self._names.pod(name)}" for name in sources],
        }
        began, made = now(), list[dict[str, Any]]()
        try:
            for group in machines.values():
                whole = body | {"target": group, "duration_seconds": seconds}
                made.append(self._agents.service.inject(family, **whole))
        except Refused:
            for each in made:
                self._agents.service.recover(each["id"])
            raise
        joint = JOINT.join(each["id"] for each in made)
        self._ends[joint] = began + seconds
        return self._view(joint, made)

    def _view(self, fault_id: str, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        states = {each["state"] for each in parts}
        state = next(each for each in ("failed", "active", "recovered", *states) if each in states)
        targets = [name.rpartition("/")[2] for each in parts for name in each["targets"]]
        return parts[0] | {"id": fault_id, "state": state, "targets": targets, "deadline": self._ends[fault_id]}

    def get(self, fault_id: str) -> dict[str, Any]:
        """See :class:`support.contract.fault_service.FaultService`."""
        return self._view(fault_id, [self._agents.service.get(each) for each in fault_id.split(JOINT)])

    def faults(self, active: bool = False) -> list[dict[str, Any]]:
        """See :class:`support.contract.fault_service.FaultService`; those of this scenario."""
        found = [self.get(each) for each in self._ends]
        return [each for each in found if each["state"] == "active" or not active]

    def recover(self, fault_id: str) -> dict[str, Any]:
        """See :class:`support.contract.fault_service.FaultService`."""
        return self._view(fault_id, [self._agents.service.recover(each) for each in fault_id.split(JOINT)])

    def knows(self, fault_id: str) -> bool:
        """Whether it has made that fault."""
        return fault_id in self._ends

    def close(self) -> None:
        """Undo what is still there: its pods may go, the rules of an agent must not stay."""
        for fault in self.faults(active=True):
            self.recover(fault["id"])


class ClusterFaults(FaultService):
    """All that can be broken on a cluster: networks by the agents, processes by :class:`PodFaults`."""

    WHO = "fault service of the target kubernetes"

    def __init__(self, pods: FaultService, network: NetworkFaults) -> None:
        self._pods, self._network = pods, network

    def _of(self, fault_id: str) -> FaultService:
        return self._network if self._network.knows(fault_id) else self._pods

    def inject(self, family: str, **order: Any) -> dict[str, Any]:
        """See :class:`support.contract.fault_service.FaultService`."""
        return (self._network if family == "network" else self._pods).inject(family, **order)

    def get(self, fault_id: str) -> dict[str, Any]:
        """See :class:`support.contract.fault_service.FaultService`."""
        return self._of(fault_id).get(fault_id)

    def faults(self, active: bool = False) -> list[dict[str, Any]]:
        """See :class:`support.contract.fault_service.FaultService`."""
        return [*self._pods.faults(active), *self._network.faults(active)]

    def recover(self, fault_id: str) -> dict[str, Any]:
        """See :class:`support.contract.fault_service.FaultService`."""
        return self._of(fault_id).recover(fault_id)

    def health(self) -> dict[str, Any]:
        """See :class:`support.contract.fault_service.FaultService`."""
        return self._pods.health()


class ObservedWitness(PodWitness):
    """Sees pods through the observers of their machines; none of them breaks anything."""

    def __init__(self, cluster: ApiServer, namespace: str, names: Names, agents: NodeAgents) -> None:
        super().__init__(cluster, namespace, names)
        self._agents = agents

    def _may_run(self, life: Life, pod: Object) -> str:
        """The kernel of its machine says it."""
        container = str(cast(tuple[str, str], life.identity)[1]).rpartition("://")[2]
        seen = self._agents.observer(pod["spec"]["nodeName"]).call("GET", f"/v1/containers/{container}")
        return str(seen["state"])

    def _place(self, node: Node) -> tuple[Observer, str, list[str]]:
        """The observer of a node's machine, the UID of its pod, and its addresses."""
        pod = self._cluster.get("Pod", self._namespace, self._names.pod(node.name))
        if pod is None or not pod["status"].get("podIPs"):
            raise Inconclusive(f"{node.name} has no pod with an address, so its packets cannot be seen")
        addresses = [str(each["ip"]) for each in pod["status"]["podIPs"]]
        return self._agents.observer(pod["spec"]["nodeName"]), str(pod["metadata"]["uid"]), addresses

    def lost_between(self, peer: Node, victim: Node, packets: int = 1) -> dict[str, int]:
        """UDP packets between their network namespaces, all ways at once."""
        ends = {"to": (self._place(peer), self._place(victim))}
        ends["from"] = (ends["to"][1], ends["to"][0])
        ways = {}
        for way, (source, target) in ends.items():
            for address in target[2]:
                six = ":" in address
                if any((":" in each) == six for each in source[2]):
                    ways[f"{way} over IPv6" if six else way] = source, target, address

        def lost(source: Any, target: Any, address: str) -> int:
            receiver = target[0].call("POST", "/v1/receivers", {"uid": target[1], "address": address})
            told = {"uid": source[1], "address": address, "port": receiver["port"], "packets": packets}
            source[0].call("POST", "/v1/send", told)
            arrived = target[0].call("POST", f"/v1/receivers/{receiver['name']}", {"packets": packets})["count"]
            return packets - int(arrived)

        looks = [lambda each=each: lost(*each) for each in ways.values()]
        return dict(zip(ways, at_once(*looks), strict=True))

    def connects(self, source: Node, destination: Node) -> dict[str, str]:
        """From the network namespace of a pod."""
        observer, uid, _ = self._place(source)
        met = {}
        for address in self._place(destination)[2]:
            told = {"uid": uid, "address": address, "port": destination.port}
            met["IPv6" if ":" in address else "IPv4"] = str(observer.call("POST", "/v1/connect", told)["met"])
        return met
