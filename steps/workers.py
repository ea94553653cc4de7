"""Sentences about workers, as their own metrics and journals show them."""

from behave import given, then


@given("the {role:Role} worker has the request")
def given_role_has_it(context, role):
    """As that worker's own count of requests in flight says."""
    context.world.serving_worker(role)


@then("within {timeout:Time} no worker has a request in flight")
def then_idle(context, timeout):
    """And none of them produces anything from then on."""
    context.world.expect_idle(timeout)


@then("another worker has served the rest")
def then_other_worker(context):
    """A worker that was not hit has received a request and produced bytes."""
    context.world.expect_takeover()


@then("the request was not moved to another worker")
def then_not_moved(context):
    """At most one worker has produced anything."""
    context.world.expect_no_takeover()


@then("the engine was told to stop and wrote no further token")
def then_engine_stopped(context):
    """For the ruler engine, from its own journal."""
    context.world.expect_engine_stopped()
