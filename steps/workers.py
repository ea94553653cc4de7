"""Sentences about workers, as their own metrics and journals show them."""

from behave import then


@then("within {timeout:Time} no worker has a request in flight")
def then_idle(context, timeout):
    """And none of them produces anything from then on."""
    context.world.expect_idle(timeout)


@then("another worker has served the rest")
def then_other_worker(context):
    """A worker that was not hit has received a request and produced bytes."""
    context.world.expect_takeover()


@then("no other worker has served the request")
def then_no_other_worker(context):
    """Nobody but the first worker has produced anything."""
    context.world.expect_no_takeover()
