"""The faults that need the API server alone: pods are deleted, and processes signalled by a shell in their container.

It answers as the fault service does, and undoes each fault at its deadline. Should this process die, all that it has
broken lies in the scenario's namespace, which goes once its lease is over. The proof is not its own: it comes from the
kubelet and the kernel (:mod:`support.targets.kubernetes.witness`).
"""

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from support.clock import now
from support.contract.deployment import Life, Node
from support.contract.fault_service import FaultService
from support.errors import Refused
from support.targets.kubernetes import shell
from support.targets.kubernetes.api import ApiServer, ClusterError
from support.targets.kubernetes.lives import LEAVING
from support.targets.kubernetes.manifests import GRACE_SECONDS, MAIN, ROLE, UNREADY
from support.targets.kubernetes.names import Names
from support.targets.kubernetes.scope import cordon, stamp, uncordon

SECONDS = 300.0
TYPES = {
    "process": ("crash", "terminate", "hang", "restart"),
    "pod": ("delete_pod", "force_delete_pod", "unready", "rollout", "scale_to_zero", "drain"),
}
"""Family of faults -> those that are made here."""
HELD_ROLES = ("etcd", "nats")
"""What breaks of these stays broken until its fault ends; a restart policy has the others started again."""
# A kubelet looks at its containers every second; one that has failed before waits 10 s and more for its restart.
ENDED_SECONDS, STARTED_SECONDS = 20.0, 120.0
# A budget may have one wait until another one has come up.
EVICTED_SECONDS = 120.0


@dataclass(frozen=True)
class Scaled:
    """What keeps the pods of workers: the ``kind`` and ``name`` of an object, with how many pods it is to have."""

    kind: str
    name: str
    pods: int


class Pods(Protocol):
    """What is broken: the pods of a deployment, by the names of their nodes."""

    nodes: list[Node]
    namespace: str
    restart_policy: str
    readiness_switch: bool
    controller: Scaled | None
    names: Names

    def life(self, node: Node) -> Life:
        """The life of a node right now."""

    def note(self, node: Node, life: Life, state: str, detail: str) -> None:
        """Add a change of a life that no kubelet tells of."""

    def hold(self, node: Node, life: Life) -> None:
        """That life is over, and what runs in its place only waits until :meth:`release`."""

    def release(self, node: Node) -> None:
        """It may start again."""

    def renew(self, node: Node) -> None:
        """Have another pod in the place of one that has ended or is gone, and wait until it is there."""


@dataclass(eq=False)
class PodFault:
    """A fault as the API shows it, and how it is undone."""

    view: dict[str, Any]
    undo: Callable[[], None] = lambda: None
    timer: threading.Timer | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class PodFaults(FaultService):
    """Breaks the pods of one deployment; its methods are those of the fault service."""

    WHO = "fault service of the target kubernetes"

    def __init__(self, cluster: ApiServer) -> None:
        self._cluster = cluster
        self._pods: Pods | None = None
        self._faults: dict[str, PodFault] = {}
        self._numbers = itertools.count(1)

    def take(self, pods: Pods) -> None:
        """Break these pods from now on."""
        self._pods = pods

    # -- as the API has it

    def health(self) -> dict[str, Any]:
        """See :class:`support.contract.fault_service.FaultService`."""
        return {"status": "ok", "agents": {"api server": "ok"}}

    def faults(self, active: bool = False) -> list[dict[str, Any]]:
        """See :class:`support.contract.fault_service.FaultService`."""
        return [each.view for each in self._faults.values() if each.view["state"] == "active" or not active]

    def get(self, fault_id: str) -> dict[str, Any]:
        """See :class:`support.contract.fault_service.FaultService`."""
        return self._find(fault_id).view

    def _find(self, fault_id: str) -> PodFault:
        if fault_id not in self._faults:
            raise Refused(404, f"the {self.WHO} refuses: there is no fault {fault_id}")
        return self._faults[fault_id]

    def inject(self, family: str, **order: Any) -> dict[str, Any]:
        """See :class:`support.contract.fault_service.FaultService`."""
        kind, name = str(order.get("type")), str(order.get("target_pod"))
        if kind not in TYPES.get(family, ()):
            known = ", ".join(each for types in TYPES.values() for each in types)
            raise Refused(501, f"the {self.WHO} refuses: {family} {kind} needs an agent on the node; it can {known}")
        pods = self._pods
        node = next((each for each in pods.nodes if each.name == name), None) if pods else None
        if pods is None or node is None:
            raise Refused(404, f"the {self.WHO} refuses: there is no node {name}")
        seconds = float(order.get("duration_seconds") or SECONDS)
        began = now()
        view: dict[str, Any] = {
            "id": f"fault-{next(self._numbers)}",
            "kind": family,
            "type": kind,
            "targets": [name],
            "state": "active",
            "deadline": began + seconds,
            "parameters": {},
            "fidelity": "real",
            "evidence": {"sent_at": began},
        }
        fault = PodFault(view)
        self._faults[view["id"]] = fault
        try:
            self._make(kind, fault, pods, node)
        except ClusterError as error:
            view["state"] = "failed"
            raise Refused(error.status or 502, f"the {self.WHO} could not {kind} {name}: {error}") from None
        if view["state"] == "active":
            fault.timer = threading.Timer(seconds, self._end, (fault,))
            fault.timer.daemon = True
            fault.timer.start()
        return view

    def recover(self, fault_id: str) -> dict[str, Any]:
        """See :class:`support.contract.fault_service.FaultService`."""
        fault = self._find(fault_id)
        try:
            self._end(fault)
        except ClusterError as error:
            raise Refused(error.status or 502, f"the {self.WHO} could not undo {fault_id}: {error}") from None
        return fault.view

    def _end(self, fault: PodFault) -> None:
        with fault.lock:
            if fault.view["state"] != "active":
                return
            if fault.timer is not None:
                fault.timer.cancel()
            fault.undo()
            fault.view["state"] = "recovered"

    def close(self) -> None:
        """Undo nothing more: what is broken goes with its deployment."""
        for fault in self._faults.values():
            if fault.timer is not None:
                fault.timer.cancel()

    # -- what is done

    def _make(self, kind: str, fault: PodFault, pods: Pods, node: Node) -> None:
        getattr(self, f"_{kind}")(fault, pods, node)

    def _run(self, pods: Pods, node: Node, script: str) -> str:
        return self._cluster.run_in(pods.namespace, pods.names.pod(node.name), MAIN, script)

    def _kill(self, fault: PodFault, pods: Pods, node: Node, signal: str, hold: bool, alone: bool = False) -> None:
        try:
            self._run(pods, node, shell.send(signal, alone=alone, hold=hold))
        except ClusterError as error:
            if error.status:  # the shell was never there; else it has ended with the container that it was in
                raise
            fault.view["evidence"]["shell"] = str(error)

    def _hold(self, fault: PodFault, pods: Pods, node: Node) -> bool:
        """Whether it is to stay broken until the fault ends; notes how that is undone."""
        held = node.role in HELD_ROLES
        fault.undo = lambda: self._start_again(pods, node, held)
        if held:
            pods.hold(node, pods.life(node))
        return held

    def _crash(self, fault: PodFault, pods: Pods, node: Node) -> None:
        held = self._hold(fault, pods, node)
        self._kill(fault, pods, node, "KILL", held)

    def _terminate(self, fault: PodFault, pods: Pods, node: Node) -> None:
        held = self._hold(fault, pods, node)
        if held or pods.restart_policy != "Never":  # a pod that was deleted is started again by nobody
            self._kill(fault, pods, node, "TERM", held, alone=True)
        else:
            self._cluster.delete("Pod", pods.namespace, pods.names.pod(node.name), grace=GRACE_SECONDS)

    def _hang(self, fault: PodFault, pods: Pods, node: Node) -> None:
        life = pods.life(node)

        def go_on() -> None:
            if pods.life(node) == life and life.state == "running":
                self._run(pods, node, shell.send("CONT"))
                pods.note(node, life, "running", "goes on")

        fault.undo = go_on
        self._run(pods, node, shell.send("STOP"))
        pods.note(node, life, "hung", "stopped by a signal")

    def _restart(self, fault: PodFault, pods: Pods, node: Node) -> None:
        before = pods.life(node)
        self._kill(fault, pods, node, "KILL", False)
        fault.view["state"] = "recovered"
        if node.role in HELD_ROLES or pods.restart_policy != "Never":
            return  # its kubelet does it
        until = time.monotonic() + ENDED_SECONDS
        while pods.life(node) == before and pods.life(node).state == "running":
            if time.monotonic() > until:
                raise ClusterError(0, f"{before.words} of {node.name} is still running after SIGKILL")
            time.sleep(0.1)
        pods.renew(node)

    def _delete_pod(self, fault: PodFault, pods: Pods, node: Node, grace: int = GRACE_SECONDS) -> None:
        if node.role in HELD_ROLES:
            raise ClusterError(501, "only pods of Dynamo are deleted")
        fault.undo = lambda: pods.renew(node)
        if not self._cluster.delete("Pod", pods.namespace, pods.names.pod(node.name), grace=grace):
            raise ClusterError(404, "there is no such pod")

    def _force_delete_pod(self, fault: PodFault, pods: Pods, node: Node) -> None:
        self._delete_pod(fault, pods, node, grace=0)

    def _unready(self, fault: PodFault, pods: Pods, node: Node) -> None:
        if not pods.readiness_switch:
            raise ClusterError(409, "the deployment has no readiness switch; its table can set it")

        def ready() -> None:
            self._run(pods, node, f"rm -f {UNREADY}")

        fault.undo = ready
        self._run(pods, node, f": > {UNREADY}")

    def _controller(self, pods: Pods) -> Scaled:
        if pods.controller is None:
            raise ClusterError(409, "the workers are bare pods; the table of the deployment can give them a controller")
        return pods.controller

    def _rollout(self, fault: PodFault, pods: Pods, node: Node) -> None:
        keeper, at = self._controller(pods), {"kubectl.kubernetes.io/restartedAt": stamp(time.time())}
        change = {"spec": {"template": {"metadata": {"annotations": at}}}}
        self._cluster.patch(keeper.kind, pods.namespace, keeper.name, change)
        fault.view["state"] = "recovered"

    def _scale_to_zero(self, fault: PodFault, pods: Pods, node: Node) -> None:
        keeper = self._controller(pods)

        def scale(count: int) -> None:
            self._cluster.patch(keeper.kind, pods.namespace, keeper.name, {"spec": {"replicas": count}})

        fault.undo = lambda: scale(keeper.pods)
        scale(0)

    def _drain(self, fault: PodFault, pods: Pods, node: Node) -> None:
        """Cordon the machine of a node under a lease, and evict the workers' pods on it, as often as their budget says
        no.
        """
        self._controller(pods)
        pod = self._cluster.get("Pod", pods.namespace, pods.names.pod(node.name))
        if pod is None:
            raise ClusterError(404, "there is no such pod")
        machine, seconds = str(pod["spec"]["nodeName"]), fault.view["deadline"] - now()
        cordon(self._cluster, machine, seconds)
        fault.undo = lambda: uncordon(self._cluster, machine)
        try:
            self._evict_all(pods, machine)
        except ClusterError:
            fault.undo()
            raise

    def _evict_all(self, pods: Pods, machine: str) -> None:
        until = time.monotonic() + EVICTED_SECONDS
        while True:
            there = self._cluster.list("Pod", pods.namespace, f"{ROLE}=worker", f"spec.nodeName={machine}")
            left = [each["metadata"]["name"] for each in there if not each["metadata"].get(LEAVING)]
            for name in left:
                self._cluster.evict(pods.namespace, name)
            if not left:
                return
            if time.monotonic() > until:
                raise ClusterError(504, f"{', '.join(left)} of {machine} could not be evicted")
            time.sleep(0.2)

    def _start_again(self, pods: Pods, node: Node, held: bool) -> None:
        if not held:
            if pods.restart_policy == "Never":
                pods.renew(node)
            return
        until = time.monotonic() + STARTED_SECONDS
        while True:
            try:
                self._run(pods, node, shell.RELEASE)
                pods.release(node)
                return
            except ClusterError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.2)
