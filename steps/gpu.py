"""Sentences about GPUs. A step returns once the kernel log, the process or the client's tokens show the fault."""

from behave import then, when

from support.marks import marks
from support.run.runtime import Context
from support.scenarios import Failure


def reporting(trigger, victim, time, **error):
    """The failure of the first sentence."""
    return Failure("xid", victim, **trigger, duration_seconds=time, **error)


def straining(trigger, victim, strain, share, time):
    """The failure of the second one."""
    return Failure(strain.failure, victim, **trigger, duration_seconds=time, share=share / 100)


@when("{trigger:Begin}the GPU of {victim:Victim} reports XID {xid:Xid}{sequence:FollowUps}{time:Lasting}")
@marks(brings="fault", loses="xid", strikes=reporting)
def when_xid(context: Context, **words):
    """The driver reports the error in the kernel log, alone or with those that follow it in real logs, and the worker
    suffers the consequences. The GPU is repaired by a sentence, or after this time.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures.
    Needs: kmsg
    Also: memory error, ECC, fell off the bus, NVLink, GSP, driver error, dead GPU, GPU lost.
    """
    context.world.strikes.strike(reporting(**words))


@when("{trigger:Begin}the GPU of {victim:Victim} {strain:Strain} by {share:Percent} percent{time:Lasting}")
@marks(brings="fault", strikes=straining)
def when_strained(context: Context, **words):
    """The GPU of the worker loses this share of its speed or of its memory, until a sentence repairs it or for this
    time. A slower GPU is proven by its clients' tokens, so all of them have to come from this worker.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures.
    Also: slow GPU, hot, thermal, power cap, clock, noisy neighbour, GPU memory is full.
    """
    context.world.strikes.strike(straining(**words))


@when("the GPU is repaired")
@marks(needs="fault")
def when_repaired(context: Context):
    """Undoes the last fault of a GPU.

    Waits: until the worker runs and its GPU is healthy.
    Proof: the kernel's view of its process, its telemetry and, after a slow-down, the client's tokens per second.
    Also: replace the GPU, reset the GPU, recover.
    """
    context.world.faults.recover(context.world.faults.last_of("gpu"))


@then("the worker stays down")
@marks(needs="fault")
def then_out(context: Context):
    """The worker does not run for 2 seconds, although its restart policy would start it.

    Waits: for 2 seconds.
    Proof: the kernel's view of its process, ten times a second.
    Also: does not come back, crash loop.
    """
    context.world.lifetimes.expect_out(context.world.faults.last.node)
