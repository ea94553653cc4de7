"""Sentences about the network between the nodes. A step returns once packets between the victims show the cut."""

from behave import then, when


@when("packets between the worker serving the request and {side:Side} are {manner:Cut}")
def when_cut_off(context, side, manner):
    """Both directions, open connections and new ones; until it is healed."""
    context.world.cut(side, manner)


@when("packets between the worker serving the request and {side:Side} are {manner:Cut} for {time:Time}")
def when_cut_off_for(context, side, manner, time):
    """The kernel heals the cut; nobody has to."""
    context.world.cut(side, manner, lease_seconds=time)


@when("packets {flow:Flow} the worker serving the request are lost for {time:Time}")
def when_one_way(context, flow, time):
    """One direction between frontend and worker."""
    context.world.cut("FRONTEND_WORKER", direction=flow, lease_seconds=time)


@when("the cut is healed")
def when_healed(context):
    """By a call; packets are seen to arrive again."""
    context.world.recover(context.world.faults[-1])


@then("within {timeout:Time} the cut has healed by itself")
def then_healed(context, timeout):
    """At its deadline, with no call."""
    context.world.see_healed(timeout)


@when("the fault service and the node agent are killed")
def when_injectors_die(context):
    """Both by SIGKILL; they are started again and know of the fault."""
    context.world.kill_injectors()
