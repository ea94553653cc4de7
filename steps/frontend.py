"""Sentences about the frontend: what it counts, and whether it still serves."""

from behave import then

from support.run.runtime import Context


@then("the frontend counts {count:Tally} {noun:Noun}")
def then_migrations(context: Context, count, noun):
    """The frontend has moved requests this many times since the deployment was ready.

    Waits: up to 5 seconds, for the counter to settle.
    Proof: the frontend's own counter.
    Also: migration, failover, moved.
    """
    context.world.fleet.expect_count("frontend_migrations", count)


@then("the frontend counts {count:Tally} cancelled {stream:Mode} {api:Api} {noun:Noun}")
def then_cancellations(context: Context, count, stream, api, noun):
    """The frontend has counted this many cancelled requests of this kind and none of any other, since the deployment
    was ready.

    Waits: up to 5 seconds, for the counter to settle.
    Proof: the frontend's own counter.
    Needs: cancel count
    Also: aborted, disconnected.
    """
    context.world.fleet.expect_cancellations(count, stream, api)


@then("the frontend counts no cancelled requests")
def then_no_cancellation(context: Context):
    """The frontend has counted no cancelled request of any kind.

    Waits: up to 5 seconds, for the counter to settle.
    Proof: the frontend's own counter.
    Needs: cancel count
    """
    context.world.fleet.expect_count("frontend_cancellations", 0)


@then("within {timeout:Time} the frontend lists no model")
def then_no_model(context: Context, timeout):
    """A model without a worker is no longer offered.

    Time: from this sentence on.
    Waits: until no model is listed.
    Proof: the frontend's own list of models.
    Also: 404, models endpoint.
    """
    context.world.fleet.expect_no_model(timeout)


@then("within {timeout:Time} requests succeed again")
def then_succeed_again(context: Context, timeout):
    """Four new requests in a row succeed; those before them may fail. How that differs from "the deployment serves",
    say [Words](#words).

    Time: from this sentence on.
    Waits: until four in a row have succeeded.
    Proof: the answers to short requests, one after the other.
    Also: recovered, back, available.
    """
    context.world.clients.expect_success_again(timeout)


@then("for {time:Time} new requests succeed")
def then_succeed_for(context: Context, time):
    """Each new request succeeds.

    Time: from this sentence on.
    Waits: for all of this time.
    Proof: the answers to short requests, one after the other.
    Also: available, uptime, no downtime.
    """
    context.world.clients.expect_success_for(time)


@then("a new request succeeds within {timeout:Time}")
def then_serves(context: Context, timeout):
    """A short request succeeds.

    Time: from the sending of the request.
    Waits: until the answer has ended.
    Proof: the client's own record of every token.
    Also: available, recovered, works again.
    """
    context.world.clients.expect_success(timeout)


@then("{count:Count} new requests succeed within {timeout:Time} each")
def then_serves_many(context: Context, count, timeout):
    """Short requests succeed, one after the other; send a few for each worker.

    Time: from the sending of each request.
    Waits: until every answer has ended.
    Proof: the client's own record of every token.
    """
    for _ in range(count):
        context.world.clients.expect_success(timeout)
