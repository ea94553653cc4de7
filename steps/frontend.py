"""Sentences about the frontend: what it counts, and whether it still serves."""

from behave import then

from support.run.runtime import Context


@then("the frontend counts {count:Tally} {noun:Noun}")
def then_migrations(context: Context, count, noun):
    """Since the deployment was ready."""
    context.world.fleet.expect_count("frontend_migrations", count)


@then("the frontend counts {count:Tally} cancelled {stream:Mode} {api:Api} {noun:Noun}")
def then_cancellations(context: Context, count, stream, api, noun):
    """Since the deployment was ready, for this endpoint and type of request."""
    context.world.fleet.expect_cancellations(count, stream, api)


@then("the frontend counts no cancelled request")
def then_no_cancellation(context: Context):
    """Of any kind."""
    context.world.fleet.expect_count("frontend_cancellations", 0)


@then("within {timeout:Time} the frontend lists no model")
def then_no_model(context: Context, timeout):
    """A model with no worker is not offered."""
    context.world.fleet.expect_no_model(timeout)


@then("within {timeout:Time} requests succeed again")
def then_succeed_again(context: Context, timeout):
    """One request after the other until four in a row have succeeded."""
    context.world.clients.expect_success_again(timeout)


@then("for {time:Time} new requests succeed")
def then_succeed_for(context: Context, time):
    """One short request after the other, each of them."""
    context.world.clients.expect_success_for(time)


@then("a new request succeeds within {timeout:Time}")
def then_serves(context: Context, timeout):
    """A short request that is sent now."""
    context.world.clients.expect_success(timeout)


@then("{count:Count} new requests succeed within {timeout:Time} each")
def then_serves_many(context: Context, count, timeout):
    """Short requests, one after the other, so that each worker has its turn."""
    for _ in range(count):
        context.world.clients.expect_success(timeout)
