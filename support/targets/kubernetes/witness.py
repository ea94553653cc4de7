"""What the kubelets and the kernels of the nodes show of pods, asked independently of whoever breaks them."""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn, cast

from support.contract.deployment import Life, Node
from support.contract.target import KernelLog, Line, MachineSeen, PodSeen, SetsSeen
from support.errors import Inconclusive
from support.targets.kubernetes import shell
from support.targets.kubernetes.api import ApiServer, ClusterError, Object
from support.targets.kubernetes.lives import LEAVING, is_ready, main_status
from support.targets.kubernetes.manifests import MAIN, ROLE
from support.targets.kubernetes.names import Names

DYNAMO = f"{ROLE} in (frontend,worker,decode,prefill)"


def over(life: Life, pod: Object | None) -> bool:
    """Whether a life is over, as the API server has it: its pod is gone or another, or its container has ended."""
    uid, container = cast(tuple[str, str | None], life.identity)
    if pod is None or pod["metadata"]["uid"] != uid or container is None:
        return True
    status = main_status(pod)
    return status.get("containerID") != container or "running" not in status.get("state", {})


def routed(uid: str, slices: Sequence[Object]) -> bool:
    """Whether one of these slices of endpoints leads new requests to the pod; it does unless it says that it does not.

    A pod that is told to leave, or is not ready, stays in its slice for a while as one that is not ready.
    """
    endpoints = [each for one in slices for each in one.get("endpoints") or []]
    own = [each for each in endpoints if (each.get("targetRef") or {}).get("uid") == uid]
    return any(each.get("conditions", {}).get("ready") is not False for each in own)


def _revision(replica_set: Object) -> int:
    return int(replica_set["metadata"].get("annotations", {}).get("deployment.kubernetes.io/revision", 0))


class PodWitness:
    """Sees the pods of a scenario; implements :class:`support.contract.target.Witness`."""

    def __init__(self, cluster: ApiServer, namespace: str, names: Names) -> None:
        self._cluster, self._namespace, self._names = cluster, namespace, names
        self._places: dict[str, tuple[str, int]] = {}

    def _look(self, life: Life) -> Object | None:
        """The pod that has a life's name now; notes where its program listens."""
        pod = self._cluster.get("Pod", self._namespace, self._names.pod(life.node))
        ports = pod["spec"]["containers"][0].get("ports") if pod else None
        if pod and ports and (address := pod.get("status", {}).get("podIP")):
            self._places[pod["metadata"]["uid"]] = address, int(ports[0]["containerPort"])
        return pod

    def state(self, life: Life) -> str:
        """The kubelet says whether that very container runs; whether its processes may run, the kernel of its node."""
        pod = self._look(life)
        if pod is None or over(life, pod):
            return "alive" if self._lingers(life, pod) else "gone"
        return self._may_run(life, pod)

    def _may_run(self, life: Life, pod: Object) -> str:
        """What has become of the processes of a container that runs."""
        try:
            said = self._cluster.run_in(self._namespace, self._names.pod(life.node), MAIN, shell.LOOK)
        except ClusterError:
            after = self._look(life)
            if after is None or over(life, after):
                return "alive" if self._lingers(life, after) else "gone"
            return "alive"  # of one that is on its way out nobody else can tell
        return "stopped" if shell.stopped(said) else "alive"

    def _lingers(self, life: Life, pod: Object | None) -> bool:
        """Whether a life that is over for the API server goes on. A pod that is deleted by force is forgotten at once,
        and nobody tells when its containers end. So another pod looks whether anybody takes connections at its address.
        """
        uid = cast(tuple[str, str | None], life.identity)[0]
        if (pod is not None and pod["metadata"]["uid"] == uid) or uid not in self._places:
            return False
        address, port = self._places[uid]
        others = self._cluster.list("Pod", self._namespace, DYNAMO)
        if any(each.get("status", {}).get("podIP") == address for each in others):
            return False
        for each in sorted(others, key=lambda pod: str(pod["metadata"]["name"])):  # frontends come first
            python = each["spec"]["containers"][0]["command"][0]
            with contextlib.suppress(ClusterError):  # that one may be on its way out as well
                name = each["metadata"]["name"]
                script = shell.connect(python, address, port)
                if self._cluster.run_in(self._namespace, name, MAIN, script).strip() == "open":
                    return True
                break
        del self._places[uid]
        return False

    def pod(self, life: Life) -> PodSeen:
        """The kubelet says whether it is ready; whether a Service leads to it, the controller of endpoints."""
        uid = cast(tuple[str, str | None], life.identity)[0]
        leads = routed(uid, self._cluster.list("EndpointSlice", self._namespace))
        pod = self._look(life)
        if pod is None or pod["metadata"]["uid"] != uid:
            return PodSeen(routed=leads)
        machine = str(pod["spec"].get("nodeName", ""))
        return PodSeen(True, bool(pod["metadata"].get(LEAVING)), is_ready(pod), leads, machine)

    def machine(self, name: str) -> MachineSeen:
        """As the API server has the node; pods that are bound to it are there until their kubelet has ended them."""
        node = self._cluster.get("Node", "", name) or {"spec": {}}
        pods = self._cluster.list("Pod", self._namespace, f"{ROLE}=worker", f"spec.nodeName={name}")
        return MachineSeen(bool(node["spec"].get("unschedulable")), tuple(sorted(map(self._names.node, pods))))

    def replica_sets(self) -> SetsSeen:
        """As the controllers of Deployments and of ReplicaSets have it."""
        keepers = self._cluster.list("Deployment", self._namespace, f"{ROLE}=worker")
        if not keepers:
            raise Inconclusive("the workers are bare pods, so there are no ReplicaSets")
        sets = self._cluster.list("ReplicaSet", self._namespace, f"{ROLE}=worker")
        pods = {each["metadata"]["name"]: int(each.get("status", {}).get("replicas", 0)) for each in sets}
        ready = {each["metadata"]["name"]: int(each.get("status", {}).get("readyReplicas", 0)) for each in sets}
        newest = max(sets, key=_revision, default=None)
        seen = keepers[0].get("status", {}).get("observedGeneration", 0) >= keepers[0]["metadata"]["generation"]
        return SetsSeen(newest["metadata"]["name"] if newest and seen else "", pods, ready)

    def _blind(self, what: str) -> NoReturn:
        raise Inconclusive(f"the target kubernetes cannot see {what} yet: that needs an agent on the node")

    def lost_between(self, peer: Node, victim: Node, packets: int = 1) -> dict[str, int]:
        """See :class:`support.contract.target.Witness`."""
        self._blind("packets between pods")

    def connects(self, source: Node, destination: Node) -> dict[str, str]:
        """See :class:`support.contract.target.Witness`."""
        self._blind("connections between pods")

    def line(self, source: Node, destination: Node, timeout: float) -> Line:
        """See :class:`support.contract.target.Witness`."""
        self._blind("connections between pods")

    def kernel_log(self, node: Node) -> AbstractContextManager[KernelLog]:
        """See :class:`support.contract.target.Witness`."""
        self._blind("the kernel log of a node")

    def telemetry(self, node: Node) -> dict[str, Any]:
        """See :class:`support.contract.target.Witness`."""
        self._blind("the GPU of a node")
