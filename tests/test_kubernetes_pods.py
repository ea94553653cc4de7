"""What happens to pods, without a cluster: who is asked for it, who sees it, and what is said of it."""

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from support import releases
from support.clock import now
from support.contract.deployment import Life, Node
from support.contract.shape import Shape
from support.contract.target import MachineSeen, PodSeen, SetsSeen
from support.errors import Inconclusive, Mistake, NotKept, Refused
from support.events import EventLog
from support.faults import pods as faults
from support.faults.fault import Fault, Ground, Ordered
from support.faults.processes import Crash
from support.faults.victims import Exactly
from support.scenarios import Failure, Scenario
from support.targets.kubernetes import faults as driver
from support.targets.kubernetes import manifests, sabotage, shell
from support.targets.kubernetes.api import ApiServer, ClusterError
from support.targets.kubernetes.faults import PodFaults, Scaled
from support.targets.kubernetes.manifests import Blueprint, Programs
from support.targets.kubernetes.names import Names
from support.targets.kubernetes.scope import LEASE, reap, stamp
from support.targets.kubernetes.target import DISCOVERIES
from support.targets.kubernetes.witness import PodWitness, routed
from support.world import pods as world
from support.world.workload import Workload

WORKER = Node("w-0", "worker", "w-0", 9090, None)
OTHER = Node("w-1", "worker", "w-1", 9090, None)
LIFE = Life("w-0", ("u1", "c://1"), "container 1 of pod u1", "running")
SERVES = PodSeen(there=True, ready=True, routed=True)


def pod(name: str = "w-0", uid: str = "u1", address: str = "10.0.0.1", ready: bool = True, **about: Any) -> Any:
    main = {"name": "main", "command": ["python3", "-m", "dynamo"], "ports": [{"containerPort": 9090}]}
    running = {"name": "main", "containerID": about.pop("container", "c://1"), "state": {"running": {}}}
    status = {
        "phase": "Running",
        "podIP": address,
        "containerStatuses": [running],
        "conditions": [{"type": "Ready", "status": str(ready)}],
    }
    return {
        "metadata": {"name": name, "uid": uid, **about},
        "spec": {"containers": [main], "nodeName": "node1"},
        "status": status,
    }


def slice_of(**ready: bool | None) -> dict[str, Any]:
    """UID of a pod -> what a slice of endpoints says of it."""
    ends = [{"targetRef": {"uid": uid}, "conditions": {"ready": each}} for uid, each in ready.items()]
    return {"endpoints": ends}


class Cluster(ApiServer):
    """One that has these pods and slices, keeps what is asked of it, and has shells say what they are told to."""

    def __init__(self, *pods: Any, slices: Sequence[Any] = (), said: Sequence[str | ClusterError] = ()) -> None:
        self.pods, self.slices, self.said = {each["metadata"]["name"]: each for each in pods}, slices, list(said)
        self.asked: list[Any] = []
        self.others: dict[str, Any] = {"Deployment": [], "ReplicaSet": []}
        self.machines: dict[str, Any] = {}
        self.budget, self.fields = 0, ""

    def server_time(self) -> float:
        return 1000.0

    def get(self, kind: str, namespace: str, name: str) -> Any:
        return (self.machines if kind == "Node" else self.pods).get(name)

    def list(self, kind: str, namespace: str = "", labels: str = "", fields: str = "") -> Any:
        self.fields = fields
        things = {"EndpointSlice": self.slices, "Pod": self.pods.values()} | self.others
        return list(things[kind])

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        self.asked.append((method, path, body))
        if path.endswith("/eviction"):
            self.budget -= 1
            if self.budget >= 2:
                raise ClusterError(429, "Cannot evict pod as it would violate the pod's disruption budget.")
            self.pods.pop(path.split("/")[-2])

    def delete(self, kind: str, namespace: str, name: str, grace: int | None = None, uid: str = "") -> bool:
        self.asked.append((kind, name, grace))
        return self.pods.pop(name, None) is not None

    def run_in(self, namespace: str, pod: str, container: str, script: str) -> str:
        self.asked.append((pod, script))
        said = self.said.pop(0) if self.said else "S"
        if isinstance(said, ClusterError):
            raise said
        return said


# -- who sees it


@pytest.mark.parametrize(
    ("slices", "leads"),
    [
        ([], False),
        ([{"endpoints": None}], False),
        ([slice_of(u1=True)], True),
        ([slice_of(u1=None)], True),  # it has to say that it is not ready
        ([slice_of(u1=False, u2=True)], False),
        ([slice_of(u1=False), slice_of(u1=True)], True),
        ([{"endpoints": [{"conditions": {"ready": True}}]}], False),
    ],
)
def test_a_service_leads_to_a_pod_unless_its_slice_says_that_it_does_not(slices: Any, leads: bool) -> None:
    assert routed("u1", slices) is leads


@pytest.mark.parametrize(
    ("there", "seen"),
    [
        (pod(), replace(SERVES, machine="node1")),
        (pod(ready=False), PodSeen(there=True, routed=True, machine="node1")),
        (pod(deletionTimestamp="2026-01-01T00:00:00Z"), PodSeen(True, True, True, True, "node1")),
        (pod(uid="u2"), PodSeen(routed=True)),
        (None, PodSeen(routed=True)),
    ],
)
def test_a_pod_is_what_its_kubelet_and_the_slices_say_of_that_very_one(there: Any, seen: PodSeen) -> None:
    cluster = Cluster(*[there] if there else [], slices=[slice_of(u1=True)])
    assert PodWitness(cluster, "here", Names()).pod(LIFE) == seen


def test_what_is_seen_of_a_pod_is_told_in_words() -> None:
    assert str(SERVES) == "its pod is there, ready, a Service leads to it"
    assert str(PodSeen(there=True, leaving=True)) == "its pod is leaving, not ready, no Service leads to it"
    assert str(PodSeen()) == "its pod is gone"
    assert [SERVES.serves, PodSeen(there=True, ready=True).serves, PodSeen(True, True, True, True).serves] == [
        *(True, False, False)
    ]


def test_who_is_deleted_by_force_lives_until_nobody_answers_at_its_address() -> None:
    front, peer = (pod(name, name, address) for name, address in (("frontend-0", "10.0.0.8"), ("w-1", "10.0.0.9")))
    cluster = Cluster(pod(), front, peer, said=["S", "open\n", "open\n", "[Errno 111] Connection refused\n"])
    witness = PodWitness(cluster, "here", Names())
    assert witness.state(LIFE) == "alive"
    del cluster.pods["w-0"]
    assert [witness.state(LIFE) for _ in range(4)] == ["alive", "alive", "gone", "gone"]
    asked = [name for name, script in cluster.asked if "10.0.0.1" in script]
    assert asked == ["frontend-0"] * 3, "once it is gone nobody is asked again"


def test_a_pod_that_can_look_at_nothing_lets_another_look() -> None:
    front, peer = (pod(name, name, address) for name, address in (("frontend-0", "10.0.0.8"), ("w-1", "10.0.0.9")))
    cluster = Cluster(pod(), front, peer, said=["S", ClusterError(0, "the shell has ended"), "open"])
    witness = PodWitness(cluster, "here", Names())
    witness.state(LIFE)
    del cluster.pods["w-0"]
    assert witness.state(LIFE) == "alive"
    assert [name for name, _ in cluster.asked[1:]] == ["frontend-0", "w-1"]


def test_an_address_that_another_pod_has_tells_nothing() -> None:
    cluster = Cluster(pod())
    witness = PodWitness(cluster, "here", Names())
    witness.state(LIFE)
    cluster.pods = {"w-1": pod("w-1", "u2")}
    assert (witness.state(LIFE), len(cluster.asked)) == ("gone", 1)


def test_a_container_whose_end_the_kubelet_tells_is_looked_for_by_nobody() -> None:
    cluster = Cluster(pod(), pod("frontend-0", "f"))
    witness = PodWitness(cluster, "here", Names())
    witness.state(LIFE)
    cluster.pods["w-0"] = pod(container="c://2")
    assert (witness.state(LIFE), len(cluster.asked)) == ("gone", 1)


def test_whether_anybody_takes_connections_is_seen_by_any_python() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        looks = [["sh", "-c", shell.connect(sys.executable, "127.0.0.1", port)]]
        assert subprocess.run(looks[0], capture_output=True, text=True, check=True).stdout == "open\n"
    said = subprocess.run(looks[0], capture_output=True, text=True, check=True).stdout
    assert "refused" in said


def keeper(generation: int = 2, observed: int = 2) -> dict[str, Any]:
    return {"metadata": {"generation": generation}, "status": {"observedGeneration": observed}}


def replicas(name: str, revision: int, pods: int, ready: int | None = None) -> dict[str, Any]:
    about = {"name": name, "annotations": {"deployment.kubernetes.io/revision": str(revision)}}
    return {"metadata": about, "status": {"replicas": pods, "readyReplicas": pods if ready is None else ready}}


def test_the_newest_replica_set_is_the_current_one_once_the_controller_has_seen_the_order() -> None:
    cluster = Cluster()
    cluster.others = {"Deployment": [keeper()], "ReplicaSet": [replicas("b", 10, 1, 0), replicas("a", 9, 2)]}
    witness = PodWitness(cluster, "here", Names())
    seen = witness.replica_sets()
    assert seen == SetsSeen("b", {"a": 2, "b": 1}, {"a": 2, "b": 0})
    assert str(seen) == "b has 1 pod, 0 ready, a has 2 pods, 2 ready"
    cluster.others["Deployment"] = [keeper(observed=1)]
    assert witness.replica_sets().current == ""
    cluster.others["Deployment"] = []
    with pytest.raises(Inconclusive, match="the workers are bare pods"):
        witness.replica_sets()


def test_pods_of_a_deployment_are_nodes_that_are_numbered_as_they_appear() -> None:
    def made(name: str) -> Any:
        return pod(name, ownerReferences=[{"kind": "ReplicaSet", "name": name.rpartition("-")[0]}])

    names, appeared = Names(), list[str]()
    names.appeared = appeared.append
    told = [names.node(made(f"ruler-worker-{end}")) for end in ("6f5-xk2lp", "6f5-ab3cd", "6f5-xk2lp", "77d-zz9qq")]
    assert told == ["ruler-worker-0", "ruler-worker-1", "ruler-worker-0", "ruler-worker-2"]
    assert appeared == ["ruler-worker-0", "ruler-worker-1", "ruler-worker-2"]
    assert names.pod("ruler-worker-2") == "ruler-worker-77d-zz9qq"
    assert names.node(pod("etcd-0", ownerReferences=[{"kind": "StatefulSet", "name": "etcd"}])) == "etcd-0"
    assert names.pod(names.node(pod("frontend-0"))) == "frontend-0"
    assert len(appeared) == 3


@pytest.mark.parametrize("cordoned", [True, None])
def test_a_machine_is_what_its_node_says_and_the_workers_that_are_bound_to_it(cordoned: bool | None) -> None:
    cluster = Cluster(pod("w-1", "u2"), pod())
    cluster.machines["node1"] = {"spec": {"unschedulable": cordoned} if cordoned else {}}
    seen = PodWitness(cluster, "here", Names()).machine("node1")
    assert seen == MachineSeen(bool(cordoned), ("w-0", "w-1"))
    assert str(seen) == f"it is {'' if cordoned else 'not '}cordoned, with w-0, w-1 on it"
    assert cluster.fields == "spec.nodeName=node1"


# -- who is asked for it


def test_a_machine_is_cordoned_under_a_lease_and_its_workers_leave_as_their_budget_allows() -> None:
    service, cluster, pods = breaking()
    pods.controller = Scaled("Deployment", "ruler-worker", 2)
    cluster.budget = 3  # of so many evictions it allows the last two
    made = service.inject("pod", type="drain", target_pod="w-0", duration_seconds=60)
    patched = [body for method, path, body in cluster.asked if path == "/api/v1/nodes/node1"]
    [until] = [body["metadata"]["annotations"].pop(LEASE) for body in patched]
    assert patched == [{"metadata": {"annotations": {}}, "spec": {"unschedulable": True}}]
    assert stamp(1058.0) <= until <= stamp(1060.0)
    assert [path.split("/")[-2] for _, path, _ in cluster.asked if path.endswith("/eviction")] == ["w-0", "w-1", "w-0"]
    service.recover(made["id"])
    undone = {"metadata": {"annotations": {LEASE: None}}, "spec": {"unschedulable": None}}
    assert cluster.asked[-1] == ("PATCH", "/api/v1/nodes/node1", undone)


def test_a_machine_whose_workers_stay_is_not_left_cordoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "EVICTED_SECONDS", 0.0)
    service, cluster, pods = breaking()
    pods.controller, cluster.budget = Scaled("Deployment", "ruler-worker", 2), 100
    with pytest.raises(Refused, match="could not drain w-0: w-0, w-1 of node1 could not be evicted"):
        service.inject("pod", type="drain", target_pod="w-0")
    assert cluster.asked[-1][2]["spec"] == {"unschedulable": None}
    assert service.faults(active=True) == []


def test_a_cordon_past_its_lease_is_taken_away_by_whoever_comes_next() -> None:
    cluster = Cluster()
    cluster.others["Node"] = [
        {"metadata": {"name": "ours", "annotations": {LEASE: stamp(999.0)}}},
        {"metadata": {"name": "still-ours", "annotations": {LEASE: stamp(2000.0)}}},
        {"metadata": {"name": "somebodys", "annotations": {}}},
    ]
    cluster.others["Namespace"] = []
    assert reap(cluster, None) == ["the cordon of ours"]
    assert [path for _, path, _ in cluster.asked] == ["/api/v1/nodes/ours"]


def test_all_workers_of_a_deployment_are_its_pods() -> None:
    plan = Blueprint(Shape(controller="Deployment", workers=3), releases.get("1.6.1"), Programs("d", "s"), "kubernetes")
    made = {f"{each['kind']}/{each['metadata']['name']}": each for each in manifests.everything(plan, "here")}
    assert [name for name in made if "worker-" in name or name.startswith("Pod/")] == ["Pod/frontend-0"]
    keeper = made["Deployment/ruler-worker"]["spec"]
    labels = keeper["template"]["metadata"]["labels"]
    assert (keeper["replicas"], keeper["template"]["spec"]["restartPolicy"]) == (3, "Always")
    assert keeper["selector"]["matchLabels"].items() <= labels.items()
    assert made["Service/workers"]["spec"]["selector"].items() <= labels.items()
    assert manifests.NODE not in labels, "its pods have no name of their own"


@pytest.mark.parametrize("shape", [{}, {"prefill_workers": 1, "engine": "vllm"}])
def test_a_controller_needs_pods_and_one_role(shape: dict[str, Any]) -> None:
    wanted, release = Shape(controller="Deployment", **shape), releases.get("1.6.1")
    with pytest.raises(Mistake, match=r"the controller Deployment (needs the target kubernetes|keeps workers of one)"):
        wanted.check(release)
    if not shape:
        wanted.check(release, DISCOVERIES)


def test_a_rollout_is_a_new_template_and_is_over_at_once() -> None:
    service, cluster, pods = breaking()
    pods.controller = Scaled("Deployment", "ruler-worker", 2)
    made = service.inject("pod", type="rollout", target_pod="w-0")
    [(method, path, body)] = cluster.asked
    assert (method, path) == ("PATCH", "/apis/apps/v1/namespaces/here/deployments/ruler-worker")
    assert "kubectl.kubernetes.io/restartedAt" in body["spec"]["template"]["metadata"]["annotations"]
    assert (made["state"], service.faults(active=True)) == ("recovered", [])


def test_workers_that_are_scaled_to_zero_are_scaled_back_at_the_end() -> None:
    service, cluster, pods = breaking()
    pods.controller = Scaled("Deployment", "ruler-worker", 2)
    service.recover(service.inject("pod", type="scale_to_zero", target_pod="w-0")["id"])
    assert [body for _, _, body in cluster.asked] == [{"spec": {"replicas": 0}}, {"spec": {"replicas": 2}}]


@pytest.mark.parametrize("kind", ["rollout", "scale_to_zero", "drain"])
def test_bare_pods_are_neither_rolled_out_nor_scaled(kind: str) -> None:
    service, cluster, _ = breaking()
    with pytest.raises(Refused, match="the workers are bare pods; the table of the deployment can give them a contr"):
        service.inject("pod", type=kind, target_pod="w-0")
    assert (cluster.asked, service.faults(active=True)) == ([], [])


class Broken:
    """The pods of a deployment; implements :class:`support.targets.kubernetes.faults.Pods`."""

    namespace, restart_policy = "here", "Never"

    def __init__(self, readiness_switch: bool = True) -> None:
        self.nodes = [WORKER, OTHER, Node("etcd-0", "etcd", "etcd-0", 2379, None)]
        self.readiness_switch = readiness_switch
        self.controller: Scaled | None = None
        self.names = Names()
        self.renewed: list[str] = []

    def life(self, node: Node) -> Life:
        return LIFE

    def note(self, node: Node, life: Life, state: str, detail: str) -> None:
        raise AssertionError("no kubelet misses it")

    def hold(self, node: Node, life: Life) -> None:
        raise AssertionError("only etcd and NATS are held")

    def release(self, node: Node) -> None:
        raise AssertionError("only etcd and NATS are held")

    def renew(self, node: Node) -> None:
        self.renewed.append(node.name)


def breaking(made: type[PodFaults] = PodFaults, switch: bool = True) -> tuple[PodFaults, Cluster, Broken]:
    cluster, pods = Cluster(pod(), pod("w-1", "u2")), Broken(switch)
    service = made(cluster)
    service.take(pods)
    return service, cluster, pods


@pytest.mark.parametrize(("kind", "grace"), [("delete_pod", 60), ("force_delete_pod", 0)])
def test_a_deleted_pod_has_its_grace_or_none_and_its_fault_ends_with_another_one(kind: str, grace: int) -> None:
    service, cluster, pods = breaking()
    made = service.inject("pod", type=kind, target_pod="w-0")
    assert (cluster.asked, made["kind"], made["state"]) == ([("Pod", "w-0", grace)], "pod", "active")
    assert service.recover(made["id"])["state"] == "recovered"
    assert pods.renewed == ["w-0"]


def test_a_pod_that_is_not_there_cannot_be_deleted() -> None:
    service, cluster, _ = breaking()
    cluster.pods.clear()
    with pytest.raises(Refused, match="could not delete_pod w-0: there is no such pod"):
        service.inject("pod", type="delete_pod", target_pod="w-0")
    assert service.faults(active=True) == []


def test_pods_of_others_than_dynamo_are_not_deleted() -> None:
    service, cluster, _ = breaking()
    with pytest.raises(Refused, match="could not force_delete_pod etcd-0: only pods of Dynamo are deleted"):
        service.inject("pod", type="force_delete_pod", target_pod="etcd-0")
    assert (cluster.asked, service.faults(active=True)) == ([], [])


def test_a_readiness_switch_is_off_while_its_fault_lasts() -> None:
    service, cluster, _ = breaking()
    made = service.inject("pod", type="unready", target_pod="w-0")
    service.recover(made["id"])
    assert cluster.asked == [("w-0", f": > {manifests.UNREADY}"), ("w-0", f"rm -f {manifests.UNREADY}")]


def test_without_a_readiness_switch_no_pod_becomes_unready() -> None:
    service, cluster, _ = breaking(switch=False)
    with pytest.raises(Refused, match="the deployment has no readiness switch; its table can set it"):
        service.inject("pod", type="unready", target_pod="w-0")
    assert (cluster.asked, service.faults(active=True)) == ([], [])


def test_a_readiness_switch_is_part_of_the_probe_and_of_no_other_deployment() -> None:
    def probe(**shape: Any) -> Any:
        plan = Blueprint(Shape(**shape), releases.get("1.6.1"), Programs("d:1", "s:1"), "kubernetes")
        return manifests.worker(plan, "worker", 0)["spec"]["containers"][0]["readinessProbe"]

    assert "httpGet" in probe()
    command = probe(readiness_switch=True)["exec"]["command"]
    assert subprocess.run(["sh", "-n", *command[1:]], capture_output=True, text=True).stderr == ""
    assert f"[ ! -e {manifests.UNREADY} ] && exec python3 " in command[2]
    assert "http://127.0.0.1:9090/health" in command[2]


def test_a_readiness_switch_needs_a_target_with_pods() -> None:
    shape, release = Shape(readiness_switch=True), releases.get("1.6.1")
    with pytest.raises(Mistake, match="a readiness switch needs the target kubernetes"):
        shape.check(release)
    shape.check(release, DISCOVERIES)


# -- what is believed


class Seeing:
    """A witness that says one thing after the other, the last one for ever."""

    def __init__(self, states: Sequence[str], pods: Sequence[PodSeen], sets: SetsSeen) -> None:
        self._states, self._pods, self.sets = list(states), list(pods), sets
        self.seen = MachineSeen()

    def state(self, life: Life) -> str:
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]

    def replica_sets(self) -> SetsSeen:
        return self.sets

    def machine(self, name: str) -> MachineSeen:
        return self.seen

    def pod(self, life: Life) -> PodSeen:
        return self._pods.pop(0) if len(self._pods) > 1 else self._pods[0]


def ground(
    states: Sequence[str] = ("alive",),
    pods: Sequence[PodSeen] = (SERVES,),
    now: Life = LIFE,
    sets: SetsSeen = SetsSeen(),  # noqa: B008 - it cannot be changed
) -> Any:
    deployment = SimpleNamespace(
        life=lambda node: now,
        workers=[],
        frontend_url="http://127.0.0.1:1",
        dynamo=[],
        shape=Shape(),
    )
    return Ground(Any, Seeing(states, pods, sets), deployment, EventLog(), lambda seconds: 0.0)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not shown at once is not shown."""
    for name in ("UNROUTED_SECONDS", "UNREADY_SECONDS", "ROLLOUT_SECONDS"):
        monkeypatch.setattr(faults, name, 0.1)
    for kind in (faults.DeletePod, faults.ForceDeletePod):
        monkeypatch.setattr(kind, "shown_seconds", 0.1)


def proven(fault: Fault, seen: Any, before: Any = (LIFE, None)) -> str:
    return fault.prove(seen, Ordered([WORKER], before, {}, 0.0, 0.0)).words


LEAVING = PodSeen(there=True, leaving=True)


@pytest.mark.parametrize(
    ("kind", "states", "pods", "words"),
    [
        (faults.DeletePod, ["gone"], [LEAVING], r"container 1 .* is gone.*; its pod is leaving"),
        (faults.DeletePod, ["gone"], [PodSeen()], "its pod is gone"),
        (faults.DeletePod, ["alive"], [LEAVING], ""),  # it was told to end and has done nothing
        (faults.DeletePod, ["gone"], [PodSeen(there=True)], ""),  # it has ended, and nobody has deleted it
        (faults.DeletePod, ["gone"], [PodSeen(True, True, routed=True)], ""),
        (faults.ForceDeletePod, ["alive", "gone"], [PodSeen(routed=True), PodSeen()], "; its pod is gone"),
        (faults.ForceDeletePod, ["alive"], [PodSeen()], ""),  # forgotten, and it goes on
        (faults.ForceDeletePod, ["gone"], [LEAVING], ""),
        (faults.ForceDeletePod, ["gone"], [PodSeen(routed=True)], ""),
    ],
)
def test_a_deleted_pod_is_one_that_has_ended_and_that_no_service_leads_to(
    kind: type[Fault], states: list[str], pods: list[PodSeen], words: str
) -> None:
    if words:
        assert re.search(words, proven(kind(Exactly(WORKER)), ground(states, pods)))
    else:
        with pytest.raises(Inconclusive, match="the fault was not proven"):
            proven(kind(Exactly(WORKER)), ground(states, pods))


UNREADY = PodSeen(there=True)


@pytest.mark.parametrize(
    ("states", "pods", "is_proven"),
    [
        (["alive"], [SERVES, UNREADY], True),
        (["alive"], [SERVES], False),
        (["alive"], [PodSeen(there=True, routed=True)], False),
        (["gone"], [UNREADY], False),  # it is no wonder then
        (["alive"], [PodSeen()], False),
    ],
)
def test_a_pod_is_unready_while_its_process_lives(states: list[str], pods: list[PodSeen], is_proven: bool) -> None:
    fault, seen = faults.Unready(Exactly(WORKER)), ground(states, pods)
    if not is_proven:
        with pytest.raises(Inconclusive, match="the fault was not proven"):
            proven(fault, seen, LIFE)
        return
    assert proven(fault, seen, LIFE) == f"{LIFE.words} of w-0 runs; {UNREADY}"
    hit: Any = SimpleNamespace(life=LIFE, node=WORKER)
    assert fault.lapsed(seen, hit) is None
    assert fault.lapsed(ground(), hit) == str(SERVES)
    assert fault.healing(seen, hit).broken() == str(UNREADY)
    assert fault.healing(ground(), hit).broken() is None


@pytest.mark.parametrize("kind", [faults.DeletePod, faults.ForceDeletePod, faults.Unready])
def test_a_pod_that_serves_nobody_is_not_hit(kind: type[Fault]) -> None:
    fault = kind(Exactly(WORKER))
    assert fault.unsound(ground(), [WORKER], None) is None
    assert fault.unsound(ground(pods=[UNREADY]), [WORKER], None) == str(UNREADY)
    assert fault.unsound(ground(["stopped"]), [WORKER], None) == "its process is stopped"
    told = Ordered([WORKER], None, {}, 0.0, 0.0)
    assert fault.describe(told) == f"the pod of w-0 {kind.did}"
    assert fault.order([WORKER], None) == {"target_pod": "w-0", "type": kind.name}


DRAINED, CORDONED = MachineSeen(True), MachineSeen(True, ("w-0",))


@pytest.mark.parametrize(
    ("machine", "sets", "states", "lack"),
    [
        (DRAINED, SetsSeen("a", {"a": 2}, {"a": 2}), ["gone"], ""),
        (CORDONED, SetsSeen("a", {"a": 2}, {"a": 2}), ["gone"], "it is cordoned, with w-0 on it"),
        (MachineSeen(), SetsSeen("a", {"a": 2}, {"a": 2}), ["gone"], "it is not cordoned"),
        (DRAINED, SetsSeen("a", {"a": 2}, {"a": 1}), ["gone"], "a has 2 pods, 1 ready"),
        (DRAINED, SetsSeen("a", {"a": 2}, {"a": 2}), ["alive"], "container 1 of pod u1 is there"),
    ],
)
def test_a_machine_is_drained_once_its_workers_have_ended_and_others_serve(
    machine: MachineSeen, sets: SetsSeen, states: list[str], lack: str
) -> None:
    fault, where = faults.Drain(Exactly(WORKER)), ground(states, [LEAVING], sets=sets)
    where.witness.seen = machine
    hit: Any = SimpleNamespace(details={"machine": "node1"})
    if lack:
        with pytest.raises(Inconclusive, match=f"the fault was not proven: .*{lack}"):
            proven(fault, where, ("node1", [LIFE]))
        return
    assert proven(fault, where, ("node1", [LIFE])) == f"{LIFE.words} ended; node1: {DRAINED}"
    assert [event.subject for event in where.events.all() if event.state == "leaving"] == ["w-0"]
    assert fault.lapsed(where, hit) is None
    assert fault.healing(where, hit).broken() == f"node1: {DRAINED}"
    where.witness.seen = MachineSeen()
    assert fault.lapsed(where, hit) == f"node1: {MachineSeen()}"
    assert fault.healing(where, hit).broken() is None
    assert fault.unsound(ground(), [WORKER], ("node1", [LIFE])) is None


BEFORE = SetsSeen("a", {"a": 2}, {"a": 2})
NEW = SetsSeen("b", {"a": 0, "b": 2}, {"a": 0, "b": 2})
NONE = SetsSeen("a", {"a": 0}, {"a": 0})


@pytest.mark.parametrize(
    ("kind", "seen", "states", "lack"),
    [
        (faults.Rollout, NEW, ["gone"], ""),
        (faults.Rollout, BEFORE, ["gone"], "there is no new ReplicaSet: a has 2 pods, 2 ready"),
        (faults.Rollout, SetsSeen("", {"a": 2}, {"a": 2}), ["gone"], "there is no new ReplicaSet"),
        (faults.Rollout, SetsSeen("b", {"a": 1, "b": 2}, {"a": 1, "b": 2}), ["gone"], "a has 1 pod"),
        (faults.Rollout, SetsSeen("b", {"a": 0, "b": 2}, {"a": 0, "b": 1}), ["gone"], "b has 2 pods, 1 ready"),
        (faults.Rollout, NEW, ["alive"], "container 1 of pod u1 is there"),
        (faults.ScaleToZero, NONE, ["gone"], ""),
        (faults.ScaleToZero, BEFORE, ["gone"], "a has 2 pods"),
        (faults.ScaleToZero, SetsSeen("", {"a": 0}, {"a": 0}), ["gone"], "a has 0 pods"),
        (faults.ScaleToZero, NONE, ["alive"], "container 1 of pod u1 is there"),
    ],
)
def test_what_is_done_to_all_pods_is_what_their_sets_show(
    kind: type[Fault], seen: SetsSeen, states: list[str], lack: str
) -> None:
    fault, where = kind(Exactly(WORKER)), ground(states, sets=seen)
    if lack:
        with pytest.raises(Inconclusive, match=f"the fault was not proven: .*{lack}"):
            proven(fault, where, (BEFORE, [LIFE]))
    else:
        assert proven(fault, where, (BEFORE, [LIFE])) == f"{LIFE.words} ended; {seen}"


def test_workers_are_all_there_again_when_as_many_as_are_wanted_can_serve() -> None:
    fault, hit = faults.ScaleToZero(Exactly(WORKER)), cast(Any, None)
    assert fault.lapsed(ground(sets=NONE), hit) is None
    assert fault.lapsed(ground(sets=BEFORE), hit) == "a has 2 pods, 2 ready"
    assert fault.healing(ground(sets=NONE), hit).broken() == "a has 0 pods, 0 ready"
    assert fault.healing(ground(sets=BEFORE), hit).broken() is None
    assert fault.groups([WORKER, OTHER]) == [[WORKER, OTHER]]
    assert fault.unsound(ground(pods=[UNREADY]), [WORKER, OTHER], cast(Any, None)) == f"w-0: {UNREADY}"


# -- what becomes of it


def looking(kind: type[Fault], seen: Any) -> world.PodLives:
    fault: Any = SimpleNamespace(fault=kind, kind=kind.name, node=WORKER, life=LIFE, injected_at=now())
    made: Any = SimpleNamespace(last=fault, last_of=lambda family: fault)
    stage: Any = SimpleNamespace(target=seen, deployment=seen.deployment, events=EventLog())
    stage.target = SimpleNamespace(witness=seen.witness)
    return world.PodLives(stage, made)


def test_a_pod_is_gone_once_its_process_has_ended_and_the_cluster_has_forgotten_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(world, "UNROUTED_SECONDS", 0.1)
    pods = looking(faults.DeletePod, ground(["alive", "gone"], [LEAVING, PodSeen()]))
    pods.expect_gone(5.0)
    assert [event.text for event in pods._stage.events.all()] == [f"{LIFE.words} has ended; its pod is gone"]
    with pytest.raises(NotKept):  # Dynamo's doing
        looking(faults.DeletePod, ground(["alive"], [LEAVING])).expect_gone(0.1)
    with pytest.raises(Inconclusive, match=r"the cluster kept a pod that has ended: .*its pod is leaving"):
        looking(faults.DeletePod, ground(["gone"], [LEAVING])).expect_gone(0.1)


@pytest.mark.parametrize(
    ("after", "seen", "is_same"),
    [
        (Life("w-0", ("u1", "c://2"), "container 2 of pod u1", "running"), SERVES, True),
        (LIFE, SERVES, False),
        (Life("w-0", ("u2", "c://3"), "container 3 of pod u2", "running"), PodSeen(), False),
    ],
)
def test_a_container_that_was_started_again_is_another_one_of_the_same_pod(
    after: Life, seen: PodSeen, is_same: bool
) -> None:
    pods = looking(Crash, ground(pods=[seen], now=after))
    if is_same:
        pods.see_same()
        [event] = pods._stage.events.all()
        assert event.text == f"container 2 of pod u1 runs in the place of {LIFE.words}; {SERVES}"
    else:
        with pytest.raises(Inconclusive, match="container 1 of pod u1 was hit and container"):
            pods.see_same()


# -- sabotage


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda kind: monkeypatch.setenv("FT_SABOTAGE", kind)


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("injector=does-nothing", []),
        ("injector=hits-another", [("Pod", "w-1", 0)]),
        (
            "cluster=leads-to-nobody",
            [
                ("Pod", "w-0", 0),
                ("PATCH", "/api/v1/namespaces/here/services/workers", {"spec": {"selector": sabotage.NOBODY}}),
            ],
        ),
    ],
)
def test_who_lies_says_that_all_was_done(lying: Callable[[str], None], kind: str, asked: list[Any]) -> None:
    lying(kind)
    sabotage.check()
    service, cluster, _ = breaking(sabotage.LyingFaults)
    made = service.inject("pod", type="force_delete_pod", target_pod="w-0")
    assert (made["targets"], made["state"], cluster.asked) == (["w-0"], "active", asked)


@pytest.mark.parametrize("kind", ["proxy=stalls", "injector=cuts-one-way", "shape=round", "cluster=melts"])
def test_what_is_not_broken_on_purpose_here_is_refused(lying: Callable[[str], None], kind: str) -> None:
    lying(kind)
    with pytest.raises(ValueError, match=f"FT_SABOTAGE is {kind}; the target kubernetes knows migration-limit=N, inj"):
        sabotage.check()


@pytest.mark.parametrize(
    ("failure", "setting"),
    [
        (Failure("rollout", "every_worker", trigger_after_seconds=3), {"controller": "Deployment"}),
        (Failure("pod_unready", "worker", trigger_after_seconds=3), {"readiness_switch": True}),
    ],
)
def test_under_a_load_a_failure_finds_the_settings_of_the_deployment(failure: Failure, setting: dict[str, Any]) -> None:
    def under_load(shape: Shape) -> Scenario:
        stage = SimpleNamespace(deployment=SimpleNamespace(shape=shape))
        return Workload(stage, None, None)._scenario(failure)  # type: ignore[arg-type]

    under_load(Shape(engine="ruler", workers=2, **setting)).check()
    with pytest.raises(ValueError, match=f"has no {next(iter(setting)).replace('_', ' ')}"):
        under_load(Shape(engine="ruler", workers=2)).check()
