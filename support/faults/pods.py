"""Faults of pods, which only a cluster has: proven by its kubelets and controllers, never by who gave the order."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from support.clock import now
from support.contract.deployment import Life, Node
from support.contract.target import PodSeen, SetsSeen
from support.faults.fault import Fault, Ground, Healing, Ordered, Proof, ProvenFault
from support.faults.processes import ProcessFault, Terminate, tell_leaving
from support.observe.waiting import prove

NOT_PROVEN = "the fault was not proven"
# The controller that keeps the endpoints of Services follows within a second or so.
UNROUTED_SECONDS = 15.0
# A probe that fails three times in a row; the kubelets and the controller follow.
UNREADY_SECONDS = 30.0
# Pods come up and go one after the other, and each may finish what it has.
ROLLOUT_SECONDS = 120.0


CONTROLLER = ("controller", "Deployment")


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
    dynamo_only = True

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
    def _is_over(pod: PodSeen) -> bool:
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
    def _is_over(pod: PodSeen) -> bool:
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
class OfWorkers(Fault):
    """Something that is done to the pods of workers in another way than by deleting one."""

    family = "pod"
    needs: ClassVar[tuple[str, ...]] = ("pods",)
    workers_only = True

    def order(self, nodes: Sequence[Node], before: Any) -> dict[str, Any]:
        """See :class:`support.faults.fault.Fault`."""
        return {"target_pod": nodes[0].name, "type": self.name}


@dataclass(frozen=True)
class Unready(OfWorkers):
    """The readiness probe of the pod fails, and its process lives; the deployment has to have a readiness switch."""

    name = "unready"
    failure = "pod_unready"
    word, did = "becomes unready", "became unready"
    setting = ("readiness switch", "yes")
    holds_answers = True
    healing_seconds: ClassVar[float] = UNREADY_SECONDS

    def look(self, ground: Ground, nodes: Sequence[Node], until_proven: ExitStack) -> Life:
        """The life that has to go on."""
        return ground.deployment.life(nodes[0])

    def unsound(self, ground: Ground, nodes: Sequence[Node], before: Any) -> str | None:
        """Its process does not run, its pod is not ready, or no Service leads to it."""
        return _unsound(ground, nodes[0])

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


@dataclass(frozen=True)
class OfAllPods(OfWorkers):
    """Something is done to what keeps the pods of the workers; the deployment has to have a controller."""

    setting = CONTROLLER
    ends_process = True
    healing_seconds: ClassVar[float] = ROLLOUT_SECONDS

    def groups(self, nodes: Sequence[Node]) -> list[list[Node]]:
        """All of them by one order."""
        return [list(nodes)]

    def look(self, ground: Ground, nodes: Sequence[Node], until_proven: ExitStack) -> tuple[SetsSeen, list[Life]]:
        """What keeps them, and the lives that have to end."""
        return ground.witness.replica_sets(), [ground.deployment.life(node) for node in nodes]

    def unsound(self, ground: Ground, nodes: Sequence[Node], before: tuple[SetsSeen, list[Life]]) -> str | None:
        """A worker does not run or serves nobody."""
        return next((f"{node.name}: {seen}" for node in nodes if (seen := _unsound(ground, node))), None)

    def describe(self, ordered: Ordered) -> str:
        """See :class:`support.faults.fault.Fault`."""
        return f"the workers {self.did}"

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """The controllers of the cluster show it of the ReplicaSets; every worker that was there has ended.

        Raises:
            Inconclusive: they do not, or one has not.
        """
        sets, lives = ordered.before
        waiting = list(lives)

        def unproven() -> str | None:
            _see_leaving(ground, waiting)
            seen = ground.witness.replica_sets()
            if lack := self._lacks(sets, seen, ground):
                return lack
            return _still_there(ground, lives)

        at = prove(unproven, ROLLOUT_SECONDS, f"the workers {self.did}", NOT_PROVEN)
        words = f"{', '.join(life.words for life in lives)} ended; {ground.witness.replica_sets()}"
        return Proof(at, words)

    def _lacks(self, before: SetsSeen, seen: SetsSeen, ground: Ground) -> str | None:
        """What the controllers do not show yet, in words."""
        raise NotImplementedError

    def lapsed(self, ground: Ground, proven: ProvenFault) -> str | None:
        """There are pods again."""
        seen = ground.witness.replica_sets()
        return str(seen) if any(seen.pods.values()) else None

    def healing(self, ground: Ground, proven: ProvenFault) -> Healing:
        """As many pods as are wanted can serve."""
        return Healing(lambda: _whole(ground), "the workers are all there", "the workers are all there")


@dataclass(frozen=True)
class Rollout(OfAllPods):
    """The workers are rolled out again: their Deployment makes new pods and lets go of the old ones, step by step."""

    name = "rollout"
    failure = "rollout"
    did = "were rolled out again"

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """A new ReplicaSet has all the pods that are wanted and they can serve, the old one has none; every worker that
        was there has ended.
        """
        return super().prove(ground, ordered)

    def _lacks(self, before: SetsSeen, seen: SetsSeen, ground: Ground) -> str | None:
        if seen.current in ("", before.current):
            return f"there is no new ReplicaSet: {seen}"
        return _whole(ground)


@dataclass(frozen=True)
class ScaleToZero(OfAllPods):
    """The workers are scaled to zero; the fault ends with as many as there were."""

    name = "scale_to_zero"
    failure = "scale_to_zero"
    did = "were scaled to zero"

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """No ReplicaSet has a pod, and every worker that was there has ended."""
        return super().prove(ground, ordered)

    def _lacks(self, before: SetsSeen, seen: SetsSeen, ground: Ground) -> str | None:
        return str(seen) if any(seen.pods.values()) or not seen.current else None


@dataclass(frozen=True)
class Drain(OfWorkers):
    """The machine of a worker is cordoned and its workers are evicted; it takes pods again once the fault is over. The
    deployment has to have a controller.
    """

    needs = ("pods", "drains")
    name = "drain"
    failure = "drain"
    did = "was cordoned and drained"
    setting = CONTROLLER

    def look(self, ground: Ground, nodes: Sequence[Node], until_proven: ExitStack) -> tuple[str, list[Life]]:
        """The machine, and the lives of all workers on it."""
        machine = ground.witness.pod(ground.deployment.life(nodes[0])).machine
        on_it = ground.witness.machine(machine).workers
        return machine, [ground.deployment.life(node) for node in ground.deployment.workers if node.name in on_it]

    def unsound(self, ground: Ground, nodes: Sequence[Node], before: tuple[str, list[Life]]) -> str | None:
        """The worker serves nobody, or its machine is cordoned."""
        seen = ground.witness.machine(before[0])
        return f"{before[0]}: {seen}" if seen.cordoned else _unsound(ground, nodes[0])

    def describe(self, ordered: Ordered) -> str:
        """See :class:`support.faults.fault.Fault`."""
        return f"{ordered.before[0]}, the machine of {ordered.nodes[0].name}, {self.did}"

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """The machine is cordoned and has no worker, those that it had have ended, and others serve elsewhere.

        Raises:
            Inconclusive: one of these is not so.
        """
        machine, lives = ordered.before
        waiting = list(lives)

        def unproven() -> str | None:
            _see_leaving(ground, waiting)
            seen = ground.witness.machine(machine)
            if seen.workers or not seen.cordoned:
                return f"{machine}: {seen}"
            return _still_there(ground, lives) or _whole(ground)

        at = prove(unproven, ROLLOUT_SECONDS, f"{machine} is drained", NOT_PROVEN)
        words = f"{', '.join(life.words for life in lives)} ended; {machine}: {ground.witness.machine(machine)}"
        return Proof(at, words, details={"machine": machine})

    def lapsed(self, ground: Ground, proven: ProvenFault) -> str | None:
        """It takes pods again."""
        machine = proven.details["machine"]
        seen = ground.witness.machine(machine)
        return None if seen.cordoned else f"{machine}: {seen}"

    def healing(self, ground: Ground, proven: ProvenFault) -> Healing:
        """It takes pods again."""
        machine = proven.details["machine"]

        def broken() -> str | None:
            seen = ground.witness.machine(machine)
            return f"{machine}: {seen}" if seen.cordoned else None

        return Healing(broken, f"{machine} takes pods again", f"{machine} takes pods again")


def _see_leaving(ground: Ground, waiting: list[Life]) -> None:
    """Note of each of these that is told to leave now; they are told one after the other."""
    for life in list(waiting):
        if ground.witness.pod(life).leaving:
            tell_leaving(ground, now(), life.node)
            waiting.remove(life)


def _still_there(ground: Ground, lives: Sequence[Life]) -> str | None:
    there = [life.words for life in lives if ground.witness.state(life) != "gone"]
    return f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} there" if there else None


def _whole(ground: Ground) -> str | None:
    """What of the pods that are wanted is missing, or too much, in words."""
    seen, wanted = ground.witness.replica_sets(), ground.deployment.shape.workers
    others = [count for name, count in seen.pods.items() if name != seen.current]
    whole = seen.pods.get(seen.current) == seen.ready.get(seen.current) == wanted and not any(others)
    return None if whole else str(seen) or "there are no ReplicaSets"


def _still_ready(ground: Ground, life: Life) -> str | None:
    """Why a pod is not one that is unready with its process alive, in words."""
    if (seen := ground.witness.state(life)) != "alive":
        return f"its process is {seen}"
    pod = ground.witness.pod(life)
    return str(pod) if pod.ready or pod.routed or not pod.there else None
