"""Sentences about the etcd cluster behind a deployment. They name its members by role, not by name."""

from behave import then, when

from support.marks import marks
from support.run.runtime import Context


@when("each etcd member {kind:Fate} and returns, one after the other")
@marks(brings="fault")
def when_each_breaks(context: Context, kind):
    """Each member breaks and returns; the next one follows once all members agree again.

    Waits: until the last member has returned and all members agree.
    Proof: each fault's own, and every member's own report of its leader and its data.
    Also: rolling restart of etcd, upgrade of etcd.
    """
    context.world.etcd.break_each_in_turn(kind)


@when("etcd returns")
@marks(needs="fault")
def when_etcd_returns(context: Context):
    """All members that broke return at once, with the data that they had.

    Waits: until they run again.
    Proof: the kernel's view of each process.
    Also: bring back, restore, recover, start again.
    """
    context.world.etcd.bring_back()


@when("the lost etcd member is replaced by a new one")
@marks(needs="fault")
def when_replaced(context: Context):
    """The member that broke last has lost its data: it is taken out of the cluster, and an empty one joins.

    Waits: until the new member is healthy.
    Proof: the new member's own report.
    Also: replace, lost disk, lost data, new member.
    """
    context.world.etcd.replace_lost()


@then("within {timeout:Time} etcd has a new leader")
@marks(needs="fault")
def then_new_leader(context: Context, timeout):
    """A majority of the members follows another leader than before.

    Time: from the last fault.
    Waits: until there is a new leader.
    Proof: each member's own report of its leader, five times a second.
    Also: election, failover of etcd.
    """
    context.world.etcd.expect_new_leader(context.world.faults.last.injected_at, timeout)


@then("within {timeout:Time} the etcd members agree")
def then_agree(context: Context, timeout):
    """All members follow one leader and hold the same data.

    Time: from this sentence on.
    Waits: until the members agree.
    Proof: each member's own report of its leader, its revision and the hash of its store.
    Also: consistent, in sync, split brain.
    """
    context.world.etcd.expect_agreement(timeout)


@then("the dead worker is deregistered within its lease plus {timeout:Time}")
@marks(needs="fault")
def then_unregistered(context: Context, timeout):
    """The registration of the worker that broke last is gone from etcd.

    Time: from its death plus the lease of the deployment.
    Waits: until the registration is gone.
    Proof: what etcd itself holds under the worker's lease.
    Also: stale, TTL, expires, lease runs out.
    """
    context.world.lifetimes.expect_unregistered(timeout)
