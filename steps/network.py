"""Sentences about the network between the nodes. A step returns once packets between the victims show the cut."""

from behave import when

from support.faults.network import Bandwidth, Cut, Loss
from support.faults.victims import Serving
from support.marks import marks
from support.run.runtime import Context


@when("packets between the worker serving the request and {side:Side} are {manner:Cut}")
@marks(needs="request", brings="fault")
def when_cut_off(context: Context, side, manner):
    """Both directions, open connections and new ones; until it is healed."""
    context.world.faults.strike(Cut(Serving(), side, manner))


@when("packets between the worker serving the request and {side:Side} are {manner:Cut} for {time:Time}")
@marks(needs="request", brings="fault")
def when_cut_off_for(context: Context, side, manner, time):
    """The kernel heals the cut; nobody has to."""
    context.world.faults.strike(Cut(Serving(), side, manner, lease_seconds=time))


@when("packets {flow:Flow} the worker serving the request are {manner:Cut} for {time:Time}")
@marks(needs="request", brings="fault")
def when_one_way(context: Context, flow, manner, time):
    """One direction between frontend and worker."""
    context.world.faults.strike(Cut(Serving(), mode=manner, direction=flow, lease_seconds=time))


@when(
    "{percent:Percent} % of the packets between the worker serving the request and {side:Side} are lost for {time:Time}"
)
@marks(needs="request", brings="fault")
def when_lossy(context: Context, percent, side, time):
    """At random, both directions."""
    context.world.faults.strike(Loss(Serving(), side, percent, lease_seconds=time))


@when(
    "the cable of the worker serving the request carries no more than {rate:Count} kilobits per second for {time:Time}"
)
@marks(needs="request", brings="fault")
def when_narrow(context: Context, rate, time):
    """All that it sends and receives, each way."""
    context.world.faults.strike(Bandwidth(Serving(), rate, lease_seconds=time))


@when("the network is healed")
@marks(needs="fault")
def when_healed(context: Context):
    """By a call; packets are seen to arrive again."""
    context.world.faults.recover(context.world.faults.last)
