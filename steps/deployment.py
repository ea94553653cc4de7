"""Sentences about the deployment: what it is made of, and what joins it later."""

from behave import given, then, when

from support.errors import Unsupported
from support.marks import marks
from support.run.runtime import Context
from support.words import SHAPE_OPTIONS, options


def deploy(context: Context, **shape):
    """Make the deployment; what the chosen Dynamo release cannot do skips the scenario."""
    try:
        context.world.deploy(**shape, **options(context.table, SHAPE_OPTIONS))
    except Unsupported as reason:
        context.run.skip(context.scenario, reason)


@given("a Dynamo deployment with {count:Count} {engine:Engine} {noun:Noun}")
@marks(table="deployment", brings="deployment", workers="count")
def given_aggregated(context: Context, count, engine, noun):
    """Each worker answers requests from first to last token. The table below may set the SHAPE_OPTIONS of
    support/words.py.
    """
    deploy(context, engine=engine, workers=count)


@given(
    "a Dynamo deployment with {count:Count} {engine:Engine} {noun:Noun} backed by a {members:Count}-member etcd cluster"
)
@marks(table="deployment", brings="deployment", workers="count")
def given_cluster(context: Context, count, engine, noun, members):
    """Each member of the etcd cluster runs on a node of its own."""
    deploy(context, engine=engine, workers=count, etcd_members=members)


@given(
    "a Dynamo deployment with {count:Count} {engine:Engine} {noun:Noun} whose etcd comes up {time:Time} after the rest"
)
@marks(table="deployment", brings="deployment", workers="count")
def given_late_etcd(context: Context, count, engine, noun, time):
    """Dynamo is started first and has to wait for etcd."""
    deploy(context, engine=engine, workers=count, etcd_delay_seconds=time)


@given("a Dynamo deployment with {count:Count} {engine:Engine} {noun:Noun} over {plane:Plane}")
@marks(table="deployment", brings="deployment", workers="count")
def given_over_plane(context: Context, count, engine, noun, plane):
    """The same over a request plane that the sentence names."""
    deploy(context, engine=engine, workers=count, request_plane=plane)


@given(
    "a disaggregated Dynamo deployment with {prefill:Count} prefill and {decode:Count} decode {engine:Engine} workers"
)
@marks(table="deployment", brings="deployment roles", workers="decode")
def given_disaggregated(context: Context, prefill, decode, engine):
    """Prefill workers read the prompt, decode workers write the answer."""
    deploy(context, engine=engine, prefill_workers=prefill, workers=decode)


@when("a new worker joins the deployment")
@marks(workers=1)
def when_worker_joins(context: Context):
    """Returns once the frontend lists it."""
    context.world.deployment.add_worker()


@when("a new worker starts")
@marks(brings="newcomer", workers=1)
def when_worker_starts(context: Context):
    """Returns at once; it may take its time to register."""
    context.world.lifetimes.start_workers(1)


@when("{count:Count} new workers start")
@marks(brings="newcomer", workers="count")
def when_workers_start(context: Context, count):
    """The same for several at once."""
    context.world.lifetimes.start_workers(count)


@then("within {timeout:Time} every Dynamo process has left")
@marks(needs="fault")
def then_all_left(context: Context, timeout):
    """By itself and with exit status 0, whatever is started in its place; those that a fault has hit are left out.
    Counted from the last fault.
    """
    context.world.lifetimes.expect_all_left(timeout)


@then("within {timeout:Time} {server:Server} has left")
@marks(needs="fault")
def then_victim_left(context: Context, timeout, server):
    """The last victim, with exit status 0; counted from its fault."""
    context.world.lifetimes.shutdowns.expect_left(context.world.faults.last, timeout)


@then("no Dynamo process has left")
def then_none_left(context: Context):
    """All of them, but for those that a fault has hit, are the ones that were there at first."""
    context.world.lifetimes.expect_none_left()


@then("for {time:Time} no Dynamo process leaves")
def then_none_leaves(context: Context, time):
    """The same, at every look from now on."""
    context.world.lifetimes.expect_none_leaves(time)


@then("within {timeout:Time} the deployment serves")
@then("within {timeout:Time} the deployment serves again")
def then_serves_again(context: Context, timeout):
    """All of its workers are listed and no dead one, so is the model, and a request succeeds."""
    context.world.clients.expect_serving(timeout)


@then("for {time:Time} the frontend lists {count:Tally} {noun:Noun}")
def then_lists_throughout(context: Context, time, count, noun):
    """At every look from now on, some fifty a second."""
    context.world.fleet.expect_listed_throughout(count, time)


@then("within {timeout:Time} the frontend lists {count:Tally} {noun:Noun}")
def then_lists(context: Context, timeout, count, noun):
    """Workers as the frontend's health page lists them."""
    context.world.fleet.expect_listed(count, timeout)
