"""Faults of pods, which only a cluster has: proven by its kubelets and controllers, never by who gave the order."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from support.contract.deployment import Life, Node
from support.faults.fault import Fault, Ground, Healing, Ordered, Proof, ProvenFault
from support.faults.processes import ProcessFault, Terminate
from support.observe.waiting import prove

NOT_PROVEN = "the fault was not proven"
# The controller that keeps the endpoints of Services follows within a second or so.
UNROUTED_SECONDS = 15.0
# A probe that fails three times in a row; the kubelets and the controller follow.
UNREADY_SECONDS = 30.0


def _unsound(ground: Ground, node: Node) -> str | None:
    life = ground.deployment.life(node)
    if (seen := ground.witness.state(life)) != "alive":
        return f"its process is {seen}"
    pod = ground.witness.pod(life)
    return None if pod.serves else str(pod)


@dataclass(frozen=True)
class DeletedPod(ProcessFault):
    """The pod is deleted, in one way or the other; its fault ends with a new one in its place."""

    family = "pod"
    needs = ("pods",)
    ends_process = True

    def unsound(self, ground: Ground, nodes: Sequence[Node], before: Any) -> str | None:
        """Its process does not run, its pod is not ready, or no Service leads to it."""
        return _unsound(ground, nodes[0])

    def describe(self, ordered: Ordered) -> str:
        """See :class:`support.faults.fault.Fault`."""
        return f"the pod of {ordered.nodes[0].name} {self.did}"

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """The process shows it; and the cluster that its pod is told to leave or gone, with no Service leading to it.

        Raises:
            Inconclusive: one of them does not.
        """
        proof, life = super().prove(ground, ordered), ordered.before[0]

        def routed() -> str | None:
            pod = ground.witness.pod(life)
            return str(pod) if pod.routed or not self._is_over(pod) else None

        what = f"no Service leads to the pod of {ordered.nodes[0].name}"
        at = prove(routed, UNROUTED_SECONDS, what, NOT_PROVEN)
        return replace(proof, at=at, words=f"{proof.words}; {ground.witness.pod(life)}")

    @staticmethod
    def _is_over(pod: Any) -> bool:
        return not pod.there


@dataclass(frozen=True)
class DeletePod(DeletedPod, Terminate):
    """The pod is deleted with its grace period: its process is told to end (SIGTERM) and may finish what it has."""

    name = "delete_pod"
    failure = "pod_delete"
    word, did = "is deleted", "was deleted"

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """The process is gone or has left the frontend's list; the pod is told to leave, and no Service leads to it."""
        return super().prove(ground, ordered)

    @staticmethod
    def _is_over(pod: Any) -> bool:
        return pod.leaving or not pod.there


@dataclass(frozen=True)
class ForceDeletePod(DeletedPod):
    """The pod is deleted with no grace period: the cluster forgets it at once, its process has a second."""

    name = "force_delete_pod"
    failure = "pod_force_delete"
    word, did = "is deleted by force", "was deleted by force"
    shown_seconds = 15.0

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """Nothing answers at the pod's address any more; the pod is gone, and no Service leads to it."""
        return super().prove(ground, ordered)


@dataclass(frozen=True)
class Unready(Fault):
    """The readiness probe of the pod fails, and its process lives; the deployment has to have a readiness switch."""

    family = "pod"
    needs = ("pods",)
    name = "unready"
    failure = "pod_unready"
    word, did = "becomes unready", "became unready"
    workers_only = True
    holds_answers = True
    healing_seconds: ClassVar[float] = UNREADY_SECONDS

    def look(self, ground: Ground, nodes: Sequence[Node], until_proven: ExitStack) -> Life:
        """The life that has to go on."""
        return ground.deployment.life(nodes[0])

    def unsound(self, ground: Ground, nodes: Sequence[Node], before: Any) -> str | None:
        """Its process does not run, its pod is not ready, or no Service leads to it."""
        return _unsound(ground, nodes[0])

    def order(self, nodes: Sequence[Node], before: Any) -> dict[str, Any]:
        """See :class:`support.faults.fault.Fault`."""
        return {"target_pod": nodes[0].name, "type": self.name}

    def describe(self, ordered: Ordered) -> str:
        """See :class:`support.faults.fault.Fault`."""
        return f"the pod of {ordered.nodes[0].name} {self.did}"

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """The kubelet says that the pod is not ready, no Service leads to it, and the very same process runs.

        Raises:
            Inconclusive: one of these is not so.
        """
        node, life = ordered.nodes[0], ordered.before
        at = prove(lambda: _still_ready(ground, life), UNREADY_SECONDS, f"{node.name} is unready", NOT_PROVEN)
        words = f"{life.words} of {node.name} runs; {ground.witness.pod(life)}"
        return Proof(at, words, life)

    def lapsed(self, ground: Ground, proven: ProvenFault) -> str | None:
        """It is ready again, or another process runs."""
        assert proven.life is not None
        return _still_ready(ground, proven.life)

    def healing(self, ground: Ground, proven: ProvenFault) -> Healing:
        """It is ready, and a Service leads to it."""
        name = proven.node.name
        return Healing(lambda: _unsound(ground, proven.node), f"{name} is ready again", f"{name} is ready again")


def _still_ready(ground: Ground, life: Life) -> str | None:
    """Why a pod is not one that is unready with its process alive, in words."""
    if (seen := ground.witness.state(life)) != "alive":
        return f"its process is {seen}"
    pod = ground.witness.pod(life)
    return str(pod) if pod.ready or pod.routed or not pod.there else None
