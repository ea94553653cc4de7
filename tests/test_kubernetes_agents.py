"""Faults of pods' networks by the agents on the nodes, and what observers see: no cluster, its API and the agents are
simulated.
"""

import base64
from typing import Any

import pytest

from support.clock import now
from support.contract.deployment import Life, Node
from support.errors import Inconclusive, Refused
from support.targets.kubernetes.agents import NetworkFaults, NodeAgents, ObservedWitness
from support.targets.kubernetes.names import Names

FRONTEND = Node("frontend-0", "frontend", "frontend-0", 8000, None)
WORKERS = [Node(f"vllm-worker-{number}", "worker", f"vllm-worker-{number}", 9090, None) for number in range(2)]
MACHINES = {"frontend-0": "node1", "vllm-worker-0": "node1", "vllm-worker-1": "node2"}
PROGRAMS = ("pod-fault-injector", "pod-observer")
READY = [{"type": "Ready", "status": "True"}]


def pod(name: str, machine: str, app: str = "", ready: bool = True) -> dict[str, Any]:
    container = {"name": "main", "containerID": f"containerd://id-{name}", "state": {"running": {}}}
    addresses = [{"ip": f"10.0.0.{len(name)}"}]
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": {"app.kubernetes.io/name": app}},
        "spec": {"nodeName": machine, "containers": [{}]},
        "status": {"conditions": READY if ready else [], "containerStatuses": [container], "podIPs": addresses},
    }


class Cluster:
    """The API server, as far as it is asked."""

    def __init__(self) -> None:
        self.pods = [pod(name, machine) for name, machine in MACHINES.items()]
        self.injected = [
            pod("s", "node1", "fault-service"),
            *(
                pod(f"{app}-{machine}", machine, app)
                for app in ("pod-fault-injector", "pod-observer")
                for machine in ("node1", "node2")
            ),
        ]
        self.secrets = {"fault-service", "pod-observer"}

    def list(self, kind: str, namespace: str = "", labels: str = "") -> list[dict[str, Any]]:
        if kind == "Node":
            return [{"metadata": {"name": name}, "spec": {}} for name in ("node1", "node2")]
        if namespace == "fault-injection":
            app = labels.partition("=")[2]
            return [each for each in self.injected if each["metadata"]["labels"]["app.kubernetes.io/name"] == app]
        return self.pods

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        if kind == "Secret":
            token = base64.b64encode(b"secret").decode()
            return {"data": {"token": token}} if name in self.secrets else None
        return next((each for each in self.pods if each["metadata"]["name"] == name), None)


class Service:
    """The fault service of the cluster."""

    def __init__(self) -> None:
        self.orders: list[dict[str, Any]] = []
        self.undone: list[str] = []
        self.refuse = ""

    def inject(self, family: str, **order: Any) -> dict[str, Any]:
        if self.refuse in order["target"]:
            raise Refused(409, "conflicting")
        self.orders.append(order)
        number = len(self.orders)
        return {"id": f"f-{number}", "state": "active", "targets": order["target"], "deadline": 1e12, "evidence": {}}

    def get(self, fault_id: str) -> dict[str, Any]:
        order = self.orders[int(fault_id[2:]) - 1]
        state = "recovered" if fault_id in self.undone else "active"
        return {"id": fault_id, "state": state, "targets": order["target"], "deadline": 1e12}

    def recover(self, fault_id: str) -> dict[str, Any]:
        self.undone.append(fault_id)
        return self.get(fault_id)


class Observer:
    """The observer of one machine; loses what comes to ``deaf``."""

    def __init__(self, asked: list[tuple[str, Any]], deaf: str = "") -> None:
        self.asked, self.deaf = asked, deaf

    def call(self, method: str, path: str, body: Any = None) -> Any:
        self.asked.append((path, body))
        if path == "/v1/receivers":
            return {"name": body["uid"], "port": 4000}
        if path == "/v1/send":
            return {"taken": body["packets"]}
        if path == "/v1/connect":
            return {"met": "silent"}
        if path.startswith("/v1/containers/"):
            return {"state": "stopped"}
        return {"count": 0 if path.endswith(self.deaf) else body["packets"]}


class Agents(NodeAgents):
    """Those of :class:`Cluster`, without ways to them."""

    def __init__(self, cluster: Cluster, service: Service, observer: Observer | None = None) -> None:
        super().__init__(cluster)  # type: ignore[arg-type]
        self._service = service  # type: ignore[assignment]
        if observer is not None:
            self._observers = {"node1": observer, "node2": observer}  # type: ignore[dict-item]


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def faults(cluster: Cluster, service: Service) -> NetworkFaults:
    nodes = [FRONTEND, *WORKERS]
    return NetworkFaults(Agents(cluster, service), cluster, "dynamo-ft-1", lambda: nodes, Names())  # type: ignore[arg-type]


def test_a_cut_by_roles_is_one_on_each_machine_and_one_here(faults: NetworkFaults, service: Service) -> None:
    began = now()
    made = faults.inject("network", partition_type="FRONTEND_WORKER", mode="drop", direction="to", duration_seconds=7)
    assert [each["target"] for each in service.orders] == [["dynamo-ft-1/vllm-worker-0"], ["dynamo-ft-1/vllm-worker-1"]]
    assert {(each["mode"], each["direction"], each["duration_seconds"]) for each in service.orders} == {
        ("drop", "to", 7)
    }
    assert {tuple(each["source"]) for each in service.orders} == {("dynamo-ft-1/frontend-0",)}
    assert (made["id"], made["targets"], made["state"]) == ("f-1+f-2", ["vllm-worker-0", "vllm-worker-1"], "active")
    assert began + 7 <= made["deadline"] <= now() + 7  # on our clock, not on the agents'
    assert faults.recover(made["id"])["state"] == "recovered"
    assert service.undone == ["f-1", "f-2"]


def test_a_victim_that_is_named_is_the_only_one(faults: NetworkFaults, service: Service) -> None:
    faults.inject("network", partition_type="FRONTEND_WORKER", target_pod="vllm-worker-1", mode="reject")
    faults.inject("network", partition_type="CUSTOM", source=["vllm-worker-0"], target="frontend-0", mode="reset")
    assert [each["target"] for each in service.orders] == [["dynamo-ft-1/vllm-worker-1"], ["dynamo-ft-1/frontend-0"]]


def test_what_one_agent_refuses_is_not_left_half_done(faults: NetworkFaults, service: Service) -> None:
    service.refuse = "dynamo-ft-1/vllm-worker-1"
    with pytest.raises(Refused, match="conflicting"):
        faults.inject("network", partition_type="FRONTEND_WORKER", mode="drop")
    assert (service.undone, faults.faults()) == (["f-1"], [])


def test_a_node_without_a_pod_cannot_be_cut_off(faults: NetworkFaults, cluster: Cluster) -> None:
    cluster.pods.pop()
    with pytest.raises(Refused, match="cannot cut off vllm-worker-1: it has no pod"):
        faults.inject("network", partition_type="FRONTEND_WORKER", mode="drop")


def test_what_is_left_is_undone_before_the_pods_go(faults: NetworkFaults, service: Service) -> None:
    over = faults.inject("network", partition_type="FRONTEND_WORKER", target_pod="vllm-worker-0", mode="drop")
    faults.inject("network", partition_type="FRONTEND_WORKER", target_pod="vllm-worker-1", mode="drop")
    faults.recover(over["id"])
    faults.close()
    assert service.undone == ["f-1", "f-2"]


# -- whether they are there


def test_agents_on_every_machine_can_be_used(cluster: Cluster, service: Service) -> None:
    assert Agents(cluster, service).missing() == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda cluster: cluster.injected.clear(),
            "no fault-service is ready in the namespace fault-injection",
        ),
        (lambda cluster: cluster.injected.pop(), "no pod-observer is ready on node2"),
        (
            lambda cluster: cluster.injected[1]["status"].update(conditions=[]),
            "no pod-fault-injector is ready on node1",
        ),
        (lambda cluster: cluster.secrets.clear(), "no Secret fault-service with a token"),
    ],
)
def test_what_is_missing_is_said(cluster: Cluster, service: Service, change: Any, said: str) -> None:
    change(cluster)
    assert said in Agents(cluster, service).missing()


# -- what observers see


def test_packets_are_counted_where_they_arrive(cluster: Cluster, service: Service) -> None:
    asked: list[tuple[str, Any]] = []
    agents = Agents(cluster, service, Observer(asked, deaf="uid-vllm-worker-0"))
    witness = ObservedWitness(cluster, "dynamo-ft-1", Names(), agents)  # type: ignore[arg-type]
    assert witness.lost_between(FRONTEND, WORKERS[0], 30) == {"to": 30, "from": 0}
    sent = {body["uid"]: body["packets"] for path, body in asked if path == "/v1/send"}
    assert sent == {"uid-frontend-0": 30, "uid-vllm-worker-0": 30}
    assert witness.connects(FRONTEND, WORKERS[0]) == {"IPv4": "silent"}


def test_whether_a_process_may_run_is_the_word_of_the_observer(cluster: Cluster, service: Service) -> None:
    asked: list[tuple[str, Any]] = []
    witness = ObservedWitness(cluster, "dynamo-ft-1", Names(), Agents(cluster, service, Observer(asked)))  # type: ignore[arg-type]
    uid, container = "uid-vllm-worker-0", "containerd://id-vllm-worker-0"
    life = Life("vllm-worker-0", (uid, container), "a container", "running")
    assert witness.state(life) == "stopped"
    assert asked == [("/v1/containers/id-vllm-worker-0", None)]
    other = Life("vllm-worker-0", ("uid-before", container), "a container", "running")
    assert witness.state(other) == "gone"


def test_a_machine_without_an_observer_is_not_guessed_at(cluster: Cluster, service: Service) -> None:
    witness = ObservedWitness(cluster, "dynamo-ft-1", Names(), Agents(cluster, service))  # type: ignore[arg-type]
    with pytest.raises(Inconclusive, match="no pod-observer was ready on node1"):
        witness.lost_between(FRONTEND, WORKERS[0])
