"""Sentences about the etcd cluster behind a deployment. Its members go by what they are, not by name."""

from behave import then, when

from support.faults.network import Bandwidth, Cut
from support.faults.victims import Others
from support.marks import marks
from support.run.runtime import Context


@when("{members:Members} {kind:Fate} for {time:Time}")
@marks(brings="fault")
def when_members_break_for(context: Context, members, kind, time):
    """It ends by itself at its deadline."""
    context.world.faults.strike(kind(members, lease_seconds=time))


@when("{members:Members} {kind:Fate}")
@marks(brings="fault")
def when_members_break(context: Context, members, kind):
    """Until they return; a majority has the leader among it, a minority has not."""
    context.world.faults.strike(kind(members))


@when("each etcd member {kind:Fate} and returns, one after the other")
@marks(brings="fault")
def when_each_breaks(context: Context, kind):
    """The members agree again before the next one's turn."""
    context.world.etcd.break_each_in_turn(kind)


@when("etcd returns")
@marks(needs="fault")
def when_etcd_returns(context: Context):
    """All members that broke, at once, with the data that they had."""
    context.world.etcd.bring_back()


@when("the lost etcd member is replaced by a new one")
@marks(needs="fault")
def when_replaced(context: Context):
    """Its data are lost: it is taken out of the cluster, and a member with no data joins."""
    context.world.etcd.replace_lost()


@when("packets between {members:Members} and {others:Others} are {manner:Cut} for {time:Time}")
@marks(brings="fault")
def when_members_cut_off(context: Context, members, others, manner, time):
    """Both directions; the kernel heals the cut."""
    context.world.faults.strike(Cut(members, others=others, mode=manner, lease_seconds=time))


@when("packets {flow:Flow} {members:Members} are lost for {time:Time}")
@marks(brings="fault")
def when_members_cut_one_way(context: Context, flow, members, time):
    """One direction between them and all other members."""
    cut = Cut(members, others=Others("peers"), direction=flow, lease_seconds=time)
    context.world.faults.strike(cut)


@when("the cable of {members:Members} carries no more than {rate:Count} kilobits per second for {time:Time}")
@marks(brings="fault")
def when_members_narrow(context: Context, members, rate, time):
    """All that they send and receive, each way."""
    narrow = Bandwidth(members, rate, others=Others("peers"), lease_seconds=time)
    context.world.faults.strike(narrow)


@then("within {timeout:Time} etcd has a new leader")
@marks(needs="fault")
def then_new_leader(context: Context, timeout):
    """A majority follows another member than before; counted from the last fault."""
    context.world.etcd.expect_new_leader(context.world.faults.last.injected_at, timeout)


@then("within {timeout:Time} the etcd members agree")
def then_agree(context: Context, timeout):
    """One leader, and the same hash of the store at the same revision."""
    context.world.etcd.expect_agreement(timeout)


@then("within the lease and {timeout:Time} the dead worker is registered no more")
@marks(needs="fault")
def then_unregistered(context: Context, timeout):
    """In etcd itself; counted from its death."""
    context.world.lifetimes.expect_unregistered(timeout)
