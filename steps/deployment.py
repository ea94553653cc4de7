"""Sentences about the deployment: what it is made of, and what joins it later."""

from behave import given, then, when

from support import words
from support.errors import Unsupported
from support.marks import marks
from support.run.runtime import Context


def deploy(context: Context, **shape):
    """Make the deployment; what the chosen Dynamo release cannot do skips the scenario."""
    try:
        context.world.deploy(**words.shape(shape, context.table))
    except Unsupported as reason:
        context.run.skip(context.scenario, reason)


@given("a Dynamo deployment with {count:Count} {engine:Engine} {noun:Noun}")
@marks(table="deployment", brings="deployment", workers="count")
def given_aggregated(context: Context, count, engine, noun):
    """Starts a frontend, etcd and workers; each worker serves a request from its first token to its last.

    Waits: until the frontend lists every worker and the model.
    Proof: the frontend's own lists.
    Also: aggregated, start, set up, replicas.
    """
    deploy(context, engine=engine, workers=count)


@given(
    "a Dynamo deployment with {count:Count} {engine:Engine} {noun:Noun} backed by a {members:Count}-member etcd cluster"
)
@marks(table="deployment", brings="deployment", workers="count")
def given_cluster(context: Context, count, engine, noun, members):
    """Starts a deployment with an etcd cluster; each member runs on a node of its own.

    Waits: until every member is healthy, they follow one leader, and the frontend lists every worker.
    Proof: what each member says of itself, and the frontend's own lists.
    Also: etcd quorum, members.
    """
    deploy(context, engine=engine, workers=count, etcd_members=members)


@given(
    "a Dynamo deployment with {count:Count} {engine:Engine} {noun:Noun} whose etcd comes up {time:Time} after the rest"
)
@marks(table="deployment", brings="deployment", workers="count")
def given_late_etcd(context: Context, count, engine, noun, time):
    """Starts Dynamo first; it has to wait for etcd.

    Time: from the start of the deployment to the start of etcd.
    Waits: until etcd has started; it does not wait for Dynamo.
    Proof: what "Then" says of the deployment.
    Also: start order, etcd is late.
    """
    deploy(context, engine=engine, workers=count, etcd_delay_seconds=time)


@given("a Dynamo deployment with {count:Count} {engine:Engine} {noun:Noun} over {plane:Plane}")
@marks(table="deployment", brings="deployment", workers="count")
def given_over_plane(context: Context, count, engine, noun, plane):
    """Starts a deployment whose frontend and workers talk over the request plane that you name.

    Waits: until the frontend lists every worker and the model.
    Proof: the frontend's own lists.
    """
    deploy(context, engine=engine, workers=count, request_plane=plane)


@given(
    "a disaggregated Dynamo deployment with {prefill:Count} prefill and {decode:Count} decode {engine:Engine} workers"
)
@marks(table="deployment", brings="deployment roles", workers="decode")
def given_disaggregated(context: Context, prefill, decode, engine):
    """Starts prefill workers, which read the prompt, and decode workers, which write the answer. The ruler has neither.

    Waits: until the frontend lists every worker and uses the prefill workers.
    Proof: the frontend's own lists, and a request that a prefill worker has read.
    Also: disagg, prefill and decode.
    """
    deploy(context, engine=engine, prefill_workers=prefill, workers=decode)


@when("a new worker joins the deployment")
@marks(workers=1)
def when_worker_joins(context: Context):
    """One more worker joins and is ready for requests.

    Waits: until the frontend lists the new worker.
    Proof: the frontend's own list of workers.
    Also: replace, replacement, scale up, scale out, add a worker, new pod.
    """
    context.world.deployment.add_worker()


@when("a new worker starts")
@marks(brings="newcomer", workers=1)
def when_worker_starts(context: Context):
    """One more worker starts; it registers when it is ready.

    Waits: no.
    Proof: what "Then" says of the new worker.
    Also: replace, replacement, scale up, scale out, add a worker, new pod.
    """
    context.world.lifetimes.start_workers(1)


@when("{count:Count} new workers start")
@marks(brings="newcomer", workers="count")
def when_workers_start(context: Context, count):
    """Several more workers start; each registers when it is ready.

    Waits: no.
    Proof: what "Then" says of the new workers.
    Also: replace, replacement, scale up, scale out, add workers, new pods.
    """
    context.world.lifetimes.start_workers(count)


@then("within {timeout:Time} every Dynamo process has exited")
@marks(needs="fault")
def then_all_left(context: Context, timeout):
    """Every frontend and worker of the original deployment exits by itself with status 0, except the victims of
    process faults.

    Time: from the last fault.
    Waits: until all have exited.
    Proof: the kernel's view of each process, and its exit status.
    Also: exits, terminates, dies.
    """
    context.world.lifetimes.expect_all_left(timeout)


@then("within {timeout:Time} {server:Server} has exited")
@marks(needs="fault")
def then_victim_left(context: Context, timeout, server):
    """The server that was shut down exits with status 0.

    Time: from its fault.
    Waits: until it has exited.
    Proof: the kernel's view of its process, and its exit status.
    """
    context.world.lifetimes.shutdowns.expect_left(context.world.faults.last, timeout)


@then("no Dynamo process has exited")
def then_none_left(context: Context):
    """Every frontend and worker of the original deployment still runs, except the victims of process faults.

    Waits: no.
    Proof: the kernel's view of each process.
    Also: stays alive, survives, keeps running.
    """
    context.world.lifetimes.expect_none_left()


@then("for {time:Time} no Dynamo process exits")
def then_none_leaves(context: Context, time):
    """No frontend and no worker exits, except the victims of process faults.

    Time: from this sentence on.
    Waits: for all of this time.
    Proof: the kernel's view of each process, ten times a second or more.
    Also: stays alive, survives, keeps running.
    """
    context.world.lifetimes.expect_none_leaves(time)


@then("within {timeout:Time} the deployment serves")
def then_deployment_serves(context: Context, timeout):
    """The frontend lists every expected worker, no dead one, and the model; then a request succeeds. How that differs
    from "requests succeed again", say [Words](#words).

    Time: from this sentence on.
    Waits: until all of that holds.
    Proof: the frontend's own lists, and the answer to a short request.
    Also: recovered, healthy, back, up again, serves again.
    """
    context.world.clients.expect_serving(timeout)


@then("for {time:Time} the frontend lists {count:Tally} {noun:Noun}")
def then_lists_throughout(context: Context, time, count, noun):
    """The list of workers has this length all the time.

    Time: from this sentence on.
    Waits: for all of this time.
    Proof: the frontend's own list of workers, some fifty times a second.
    Also: registered, discovery, instances, flapping.
    """
    context.world.fleet.expect_listed_throughout(count, time)


@then("within {timeout:Time} the frontend lists {count:Tally} {noun:Noun}")
def then_lists(context: Context, timeout, count, noun):
    """The list of workers gets this length.

    Time: from this sentence on.
    Waits: until the list has this length.
    Proof: the frontend's own list of workers.
    Also: registered, discovery, instances, healthy.
    """
    context.world.fleet.expect_listed(count, timeout)
