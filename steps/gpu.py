"""Sentences about GPUs. A step returns once the kernel log, the process or the client's tokens show the fault."""

from behave import then, when

from support.faults.gpu import XidError
from support.faults.victims import Serving
from support.marks import marks
from support.run.runtime import Context


@when("the GPU of the worker serving the request reports XID {xid:Xid}")
@marks(needs="request", brings="fault", loses="xid")
def when_xid(context: Context, xid):
    """A line in the kernel log, and what such an error brings to the worker."""
    context.world.answers.see_under_way()
    context.world.faults.strike(XidError(Serving(), xid))


@when("the GPU of the worker serving the request reports XID {xid:Xid} for {time:Time}")
@marks(needs="request", brings="fault", loses="xid")
def when_xid_for(context: Context, xid, time):
    """Undone after that time; nobody has to ask."""
    context.world.answers.see_under_way()
    context.world.faults.strike(XidError(Serving(), xid, lease_seconds=time))


@when("the GPU of the worker serving the request reports XID {xid:Xid} with all that follows it")
@marks(needs="request", brings="fault", loses="xid")
def when_xid_sequence(context: Context, xid):
    """The lines that follow such an error in real logs come too."""
    context.world.answers.see_under_way()
    context.world.faults.strike(XidError(Serving(), xid, sequence=True))


@when("the GPU of the worker serving the request {strain:Strain} by {share:Percent} percent")
@marks(needs="request", brings="fault")
def when_strained(context: Context, strain, share):
    """Seen in its telemetry and, where it makes the worker slower, in the client's tokens per second."""
    context.world.answers.see_under_way()
    context.world.faults.strike(strain(Serving(), share / 100))


@when("the GPU is repaired")
@marks(needs="fault")
def when_repaired(context: Context):
    """The fault is undone, the worker runs and its GPU shows nothing of it."""
    context.world.faults.recover(context.world.faults.last_of("gpu"))


@then("the worker stays out")
@marks(needs="fault")
def then_out(context: Context):
    """It may not start for two seconds, although its restart policy would have it start."""
    context.world.lifetimes.expect_out(context.world.faults.last.node)
