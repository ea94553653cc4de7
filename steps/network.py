"""Sentences about the network between the nodes. A step returns once packets between the victims show the cut."""

from behave import when

from support.marks import marks
from support.run.runtime import Context
from support.scenarios import Failure


@when("{trigger:Begin}packets between {victim:Victim} and {side:Side} are {manner:Cut}{time:Lasting}")
@marks(brings="fault")
def when_cut(context: Context, trigger, victim, side, manner, time, direction="both"):
    """Packets between the two sides are dropped, rejected or reset, in both directions, on open and new connections,
    until a sentence heals the network or for this time.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures.
    Needs: nftables
    """
    parted = {"partition": side, "mode": manner, "direction": direction}
    context.world.strikes.strike(Failure("network_partition", victim, **trigger, duration_seconds=time, **parted))


@when("{trigger:Begin}packets from {victim:Victim} to {side:Side} are {manner:Cut}{time:Lasting}")
@marks(brings="fault")
def when_cut_from(context: Context, **words):
    """The same in one direction: only packets that the victim sends; what it is sent arrives.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures.
    Needs: nftables
    """
    when_cut(context, **words, direction="from")


@when("{trigger:Begin}packets to {victim:Victim} from {side:Side} are {manner:Cut}{time:Lasting}")
@marks(brings="fault")
def when_cut_to(context: Context, **words):
    """The same in the other direction: only packets that the victim is sent; what it sends arrives.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures.
    Needs: nftables
    """
    when_cut(context, **words, direction="to")


@when(
    "{trigger:Begin}{percent:Percent} % of the packets between {victim:Victim} and {side:Side} are lost{time:Lasting}"
)
@marks(brings="fault")
def when_lossy(context: Context, trigger, percent, victim, side, time):
    """Each packet is lost with this probability, in both directions, until a sentence heals the network or for this
    time.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures.
    Needs: nftables
    """
    loss = Failure("network_loss", victim, **trigger, duration_seconds=time, partition=side, percent=percent)
    context.world.strikes.strike(loss)


@when("{trigger:Begin}the bandwidth of {victim:Victim} is limited to {rate:Count} kilobits per second{time:Lasting}")
@marks(brings="fault")
def when_narrow(context: Context, trigger, victim, rate, time):
    """Everything that the victim sends and receives is limited to this rate, each way, until a sentence heals the
    network or for this time.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures.
    Needs: tbf
    """
    narrow = Failure("network_bandwidth", victim, **trigger, duration_seconds=time, rate_kbit=rate)
    context.world.strikes.strike(narrow)


@when("the network is healed")
@marks(needs="fault")
def when_healed(context: Context):
    """Undoes the last fault.

    Waits: until packets arrive again.
    Proof: packets in both directions.
    """
    context.world.faults.recover(context.world.faults.last)
