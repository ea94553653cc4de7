"""Sentences about the network between the nodes. A step returns once packets between the victims show the cut."""

from functools import partial

from behave import when

from support.marks import marks
from support.run.runtime import Context
from support.scenarios import Failure


def cutting(trigger, victim, side, manner, time, direction="both"):
    """The failure of a sentence about a cut."""
    parted = {"partition": side, "mode": manner, "direction": direction}
    return Failure("network_partition", victim, **trigger, duration_seconds=time, **parted)


def losing(trigger, percent, victim, side, time):
    """The failure of the sentence about lost packets."""
    return Failure("network_loss", victim, **trigger, duration_seconds=time, partition=side, percent=percent)


def narrowing(trigger, victim, rate, time):
    """The failure of the sentence about bandwidth."""
    return Failure("network_bandwidth", victim, **trigger, duration_seconds=time, rate_kbit=rate)


@when("{trigger:Begin}packets between {victim:Victim} and {side:Side} are {manner:Cut}{time:Lasting}")
@marks(brings="fault", strikes=cutting)
def when_cut(context: Context, **words):
    """Packets between the two sides are dropped, rejected or reset, in both directions, on open and new connections,
    until a sentence heals the network or for this time.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures.
    Needs: nftables
    Also: network card, NIC, partition, unplug, cable, firewall, disconnect, unreachable, blackhole, split brain.
    """
    context.world.strikes.strike(cutting(**words))


@when("{trigger:Begin}packets from {victim:Victim} to {side:Side} are {manner:Cut}{time:Lasting}")
@marks(brings="fault", strikes=partial(cutting, direction="from"))
def when_cut_from(context: Context, **words):
    """The same in one direction: only packets that the victim sends; what it is sent arrives.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures.
    Needs: nftables
    Also: asymmetric, half open, one way.
    """
    context.world.strikes.strike(cutting(**words, direction="from"))


@when("{trigger:Begin}packets to {victim:Victim} from {side:Side} are {manner:Cut}{time:Lasting}")
@marks(brings="fault", strikes=partial(cutting, direction="to"))
def when_cut_to(context: Context, **words):
    """The same in the other direction: only packets that the victim is sent; what it sends arrives.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures.
    Needs: nftables
    Also: asymmetric, half open, one way.
    """
    context.world.strikes.strike(cutting(**words, direction="to"))


@when(
    "{trigger:Begin}{percent:Percent} % of the packets between {victim:Victim} and {side:Side} are lost{time:Lasting}"
)
@marks(brings="fault", strikes=losing)
def when_lossy(context: Context, **words):
    """Each packet is lost with this probability, in both directions, until a sentence heals the network or for this
    time.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures.
    Needs: nftables
    Also: packet loss, flaky network, bad cable, network card, NIC.
    """
    context.world.strikes.strike(losing(**words))


@when("{trigger:Begin}the bandwidth of {victim:Victim} is limited to {rate:Count} kilobits per second{time:Lasting}")
@marks(brings="fault", strikes=narrowing)
def when_narrow(context: Context, **words):
    """Everything that the victim sends and receives is limited to this rate, each way, until a sentence heals the
    network or for this time.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures.
    Needs: tbf
    Also: slow network, congestion, bandwidth, network card, NIC.
    """
    context.world.strikes.strike(narrowing(**words))


@when("the network is healed")
@marks(needs="fault")
def when_healed(context: Context):
    """Undoes the last fault.

    Waits: until packets arrive again.
    Proof: packets in both directions.
    Also: reconnect, plug in, recover.
    """
    context.world.faults.recover(context.world.faults.last)
