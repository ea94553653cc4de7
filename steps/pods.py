"""Sentences about pods, which only a cluster has. Its kubelets and its controller of endpoints are the proof."""

from behave import then, when

from support.marks import marks
from support.run.runtime import Context
from support.scenarios import Failure
from support.words import one_time


def breaking(trigger, victim, kind, time, **_):
    """The failure of the sentence about a pod."""
    return Failure(kind.failure, victim, **trigger, duration_seconds=time)


def rolling_out(trigger):
    """The failure of the sentence about a rollout."""
    return Failure("rollout", "every_worker", **trigger)


def draining(trigger, victim, time):
    """The failure of the sentence about a machine."""
    return Failure("drain", victim, **trigger, duration_seconds=time)


def scaling():
    """The failure of the sentence about scaling."""
    return Failure("scale_to_zero", "every_worker")


@when("{trigger:Begin}the pod of {victim:Victim} {kind:PodFate}{moment:Moment}{time:Lasting}")
@marks(brings="fault", loses="kind", check=one_time, strikes=breaking)
def when_pod_breaks(context: Context, moment, **words):
    """The pod is deleted, with its grace period or by force, or becomes unready: its readiness probe fails, and its
    process lives on. It stays so until a sentence undoes it, or for this time.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures; for "mid-answer" that the answer comes in, for "before the first token" that
        the client has none.
    Needs: pods
    """
    context.world.strikes.strike(breaking(**words), moment)


@when("{trigger:Begin}the workers are rolled out again")
@marks(brings="fault", strikes=rolling_out)
def when_rolled_out(context: Context, **words):
    """The Deployment of the workers makes new pods and lets go of the old ones, step by step, as for a new image. There
    has to be a controller.

    Time: of the trigger, from the first request.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: a new ReplicaSet with all the pods that are wanted, and an old one with none.
    Needs: pods
    """
    context.world.strikes.strike(rolling_out(**words))


@when("{trigger:Begin}the machine of {victim:Victim} is drained{time:Lasting}")
@marks(brings="fault", strikes=draining)
def when_drained(context: Context, **words):
    """The cluster's node that the worker is on takes no new pods, and the workers on it are evicted, one at a time, as
    their budget allows. It takes pods again when the scenario is over, or after this time. There has to be a
    controller, which makes others elsewhere.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures.
    Needs: pods, drains
    """
    context.world.strikes.strike(draining(**words))


@when("the workers are scaled to zero")
@marks(brings="fault", strikes=scaling)
def when_scaled_to_zero(context: Context):
    """The Deployment of the workers lets go of all of them. There has to be a controller.

    Waits: until the last worker has ended.
    Proof: the cluster has no pod of a worker, and each that was there has ended.
    Needs: pods
    """
    context.world.strikes.strike(scaling())


@when("the workers are scaled back")
@marks(needs="fault")
def when_scaled_back(context: Context):
    """The Deployment of the workers makes as many as there were.

    Waits: until all of them can serve.
    Proof: the kubelets' conditions of the pods, as their ReplicaSet counts them.
    Needs: pods
    """
    context.world.faults.recover(context.world.faults.last_of("pod"))


@when("the pod is ready again")
@marks(needs="fault")
def when_pod_ready(context: Context):
    """Undoes the last fault of a pod, so that its readiness probe succeeds.

    Waits: until the pod is ready and a Service leads to it.
    Proof: the kubelet's condition of the pod, and the endpoints of the Services.
    Needs: pods
    """
    context.world.faults.recover(context.world.faults.last_of("pod"))


@then("within {timeout:Time} the pod is gone")
@marks(needs="fault")
def then_pod_gone(context: Context, timeout):
    """The process of the pod that was deleted has ended, the cluster has forgotten the pod, and no Service leads to it.

    Time: from the deletion.
    Waits: until the process has ended, and up to 15 seconds more for the cluster.
    Proof: another UID in the pod's place, or none; nobody answers at its address; the endpoints of the Services.
    Needs: pods
    """
    context.world.pods.expect_gone(timeout)


@then("a new container runs in the same pod")
@marks(needs="fault")
def then_same_pod(context: Context):
    """What runs in the place of the container that was hit is another container of the same pod. If it is not, the
    scenario is inconclusive.

    Waits: no.
    Proof: the UID of the pod and the ID of the container, as the kubelet has them.
    Needs: pods
    """
    context.world.pods.see_same()
