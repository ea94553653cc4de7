"""Sentences about the network between the nodes. A step returns once packets between the victims show the cut."""

from behave import when

from support.faults.network import Bandwidth, Cut, Loss
from support.faults.victims import Serving
from support.marks import marks
from support.run.runtime import Context


@when("packets between the worker serving the request and {side:Side} are {manner:Cut}")
@marks(needs="request", brings="fault")
def when_cut_off(context: Context, side, manner):
    """Packets between the two sides are dropped, rejected or reset, in both directions, on open and new connections,
    until the network is healed.

    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    Needs: namespaces, nftables
    """
    context.world.faults.strike(Cut(Serving(), side, manner))


@when("packets between the worker serving the request and {side:Side} are {manner:Cut} for {time:Time}")
@marks(needs="request", brings="fault")
def when_cut_off_for(context: Context, side, manner, time):
    """Packets between the two sides are dropped, rejected or reset for this time, in both directions, on open
    and new connections.

    Time: from the moment the fault is made; it ends by itself.
    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    Needs: namespaces, nftables
    """
    context.world.faults.strike(Cut(Serving(), side, manner, lease_seconds=time))


@when("packets {flow:Flow} the worker serving the request are {manner:Cut} for {time:Time}")
@marks(needs="request", brings="fault")
def when_one_way(context: Context, flow, manner, time):
    """Packets between the worker and the frontend are dropped, rejected or reset in one direction.

    Time: from the moment the fault is made; it ends by itself.
    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    Needs: namespaces, nftables
    """
    context.world.faults.strike(Cut(Serving(), mode=manner, direction=flow, lease_seconds=time))


@when(
    "{percent:Percent} % of the packets between the worker serving the request and {side:Side} are lost for {time:Time}"
)
@marks(needs="request", brings="fault")
def when_lossy(context: Context, percent, side, time):
    """Each packet is lost with this probability, in both directions.

    Time: from the moment the fault is made; it ends by itself.
    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    Needs: namespaces, nftables
    """
    context.world.faults.strike(Loss(Serving(), side, percent, lease_seconds=time))


@when("the bandwidth of the worker serving the request is limited to {rate:Count} kilobits per second for {time:Time}")
@marks(needs="request", brings="fault")
def when_narrow(context: Context, rate, time):
    """Everything that the worker sends and receives is limited to this rate, each way.

    Time: from the moment the fault is made; it ends by itself.
    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    Needs: namespaces, tbf
    """
    context.world.faults.strike(Bandwidth(Serving(), rate, lease_seconds=time))


@when("the network is healed")
@marks(needs="fault")
def when_healed(context: Context):
    """Undoes the last fault.

    Waits: until packets arrive again.
    Proof: packets in both directions.
    """
    context.world.faults.recover(context.world.faults.last)
