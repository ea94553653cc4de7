"""Sentences about GPUs. A step returns once the kernel log, the process or the client's tokens show the fault."""

from behave import then, when

from support.faults.gpu import XidError
from support.faults.victims import Serving
from support.marks import marks
from support.run.runtime import Context


@when("the GPU of the worker serving the request reports XID {xid:Xid}")
@marks(needs="request", brings="fault", loses="xid")
def when_xid(context: Context, xid):
    """The driver reports the error in the kernel log, and the worker suffers the consequences.

    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    Needs: kmsg
    """
    context.world.answers.see_under_way()
    context.world.faults.strike(XidError(Serving(), xid))


@when("the GPU of the worker serving the request reports XID {xid:Xid} for {time:Time}")
@marks(needs="request", brings="fault", loses="xid")
def when_xid_for(context: Context, xid, time):
    """The driver reports the error, the worker suffers the consequences, and the GPU is repaired after this time.

    Time: from the moment the fault is made; it ends by itself.
    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    Needs: kmsg
    """
    context.world.answers.see_under_way()
    context.world.faults.strike(XidError(Serving(), xid, lease_seconds=time))


@when("the GPU of the worker serving the request reports XID {xid:Xid} with its usual follow-up errors")
@marks(needs="request", brings="fault", loses="xid")
def when_xid_sequence(context: Context, xid):
    """The driver reports the error and those that follow it in real logs, and the worker suffers the consequences.

    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    Needs: kmsg
    """
    context.world.answers.see_under_way()
    context.world.faults.strike(XidError(Serving(), xid, sequence=True))


@when("the GPU of the worker serving the request {strain:Strain} by {share:Percent} percent")
@marks(needs="request", brings="fault")
def when_strained(context: Context, strain, share):
    """The GPU of the worker loses this share of its speed or of its memory.

    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    """
    context.world.answers.see_under_way()
    context.world.faults.strike(strain(Serving(), share / 100))


@when("the GPU is repaired")
@marks(needs="fault")
def when_repaired(context: Context):
    """Undoes the last fault of a GPU.

    Waits: until the worker runs and its GPU is healthy.
    Proof: the kernel's view of its process, its telemetry and, after a slow-down, the client's tokens per second.
    """
    context.world.faults.recover(context.world.faults.last_of("gpu"))


@then("the worker stays down")
@marks(needs="fault")
def then_out(context: Context):
    """The worker does not run for 2 seconds, although its restart policy would start it.

    Waits: for 2 seconds.
    Proof: the kernel's view of its process, ten times a second.
    """
    context.world.lifetimes.expect_out(context.world.faults.last.node)
