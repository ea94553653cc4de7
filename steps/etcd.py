"""Sentences about the etcd cluster behind a deployment. They name its members by role, not by name."""

from behave import then, when

from support.faults.network import Bandwidth, Cut
from support.faults.victims import Others
from support.marks import marks
from support.run.runtime import Context


@when("{members:Members} {kind:Fate} for {time:Time}")
@marks(brings="fault")
def when_members_break_for(context: Context, members, kind, time):
    """These members of the etcd cluster break, and recover after this time.

    Time: from the moment the fault is made; it ends by itself.
    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    """
    context.world.faults.strike(kind(members, lease_seconds=time))


@when("{members:Members} {kind:Fate}")
@marks(brings="fault")
def when_members_break(context: Context, members, kind):
    """Members of the etcd cluster break until a sentence says that etcd returns. A majority includes the leader, a
    minority does not.

    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    """
    context.world.faults.strike(kind(members))


@when("each etcd member {kind:Fate} and returns, one after the other")
@marks(brings="fault")
def when_each_breaks(context: Context, kind):
    """Each member breaks and returns; the next one follows once all members agree again.

    Waits: until the last member has returned and all members agree.
    Proof: each fault's own, and every member's own report of its leader and its data.
    """
    context.world.etcd.break_each_in_turn(kind)


@when("etcd returns")
@marks(needs="fault")
def when_etcd_returns(context: Context):
    """All members that broke return at once, with the data that they had.

    Waits: until they run again.
    Proof: the kernel's view of each process.
    """
    context.world.etcd.bring_back()


@when("the lost etcd member is replaced by a new one")
@marks(needs="fault")
def when_replaced(context: Context):
    """The member that broke last has lost its data: it is taken out of the cluster, and an empty one joins.

    Waits: until the new member is healthy.
    Proof: the new member's own report.
    """
    context.world.etcd.replace_lost()


@when("packets between {members:Members} and {others:Others} are {manner:Cut} for {time:Time}")
@marks(brings="fault")
def when_members_cut_off(context: Context, members, others, manner, time):
    """Packets between the two sides are dropped, rejected or reset, in both directions.

    Time: from the moment the fault is made; it ends by itself.
    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    Needs: namespaces, nftables
    """
    context.world.faults.strike(Cut(members, others=others, mode=manner, lease_seconds=time))


@when("packets {flow:Flow} {members:Members} are lost for {time:Time}")
@marks(brings="fault")
def when_members_cut_one_way(context: Context, flow, members, time):
    """Packets between these members and all others are lost in one direction.

    Time: from the moment the fault is made; it ends by itself.
    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    Needs: namespaces, nftables
    """
    cut = Cut(members, others=Others("peers"), direction=flow, lease_seconds=time)
    context.world.faults.strike(cut)


@when("the bandwidth of {members:Members} is limited to {rate:Count} kilobits per second for {time:Time}")
@marks(brings="fault")
def when_members_narrow(context: Context, members, rate, time):
    """Everything that these members send and receive is limited to this rate, each way.

    Time: from the moment the fault is made; it ends by itself.
    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    Needs: namespaces, tbf
    """
    narrow = Bandwidth(members, rate, others=Others("peers"), lease_seconds=time)
    context.world.faults.strike(narrow)


@then("within {timeout:Time} etcd has a new leader")
@marks(needs="fault")
def then_new_leader(context: Context, timeout):
    """A majority of the members follows another leader than before.

    Time: from the last fault.
    Waits: until there is a new leader.
    Proof: each member's own report of its leader, five times a second.
    """
    context.world.etcd.expect_new_leader(context.world.faults.last.injected_at, timeout)


@then("within {timeout:Time} the etcd members agree")
def then_agree(context: Context, timeout):
    """All members follow one leader and hold the same data.

    Time: from this sentence on.
    Waits: until the members agree.
    Proof: each member's own report of its leader, its revision and the hash of its store.
    """
    context.world.etcd.expect_agreement(timeout)


@then("the dead worker is deregistered within its lease plus {timeout:Time}")
@marks(needs="fault")
def then_unregistered(context: Context, timeout):
    """The registration of the worker that broke last is gone from etcd.

    Time: from its death plus the lease of the deployment.
    Waits: until the registration is gone.
    Proof: what etcd itself holds under the worker's lease.
    """
    context.world.lifetimes.expect_unregistered(timeout)
