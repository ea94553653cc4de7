"""Sentences about workers, as their own metrics and journals show them."""

from behave import given, then, when

from support.marks import marks
from support.run.runtime import Context


@given("a worker has been reading its prompt for {time:Time}")
@marks(needs="request")
def given_reading(context: Context, time):
    """As the worker's own count of requests in flight says; the client has nothing yet."""
    context.world.answers.see_reading(time)


@given("the {role:Role} worker has been reading its prompt for {time:Time}")
@marks(needs="request roles")
def given_role_reading(context: Context, role, time):
    """The same in a disaggregated deployment."""
    context.world.answers.see_reading(time, role)


@then("within {timeout:Time} no worker has a request in flight")
def then_idle(context: Context, timeout):
    """And none of them produces anything from then on."""
    context.world.fleet.expect_idle(timeout, context.world.faults.victims)


@then("another worker has served the rest")
@marks(needs="request fault", whole=True)
def then_other_worker(context: Context):
    """A worker that was not hit has had the very request, as its journal or log names it, and written of its answer."""
    context.world.takeovers.expect_takeover(context.world.faults.made)


@when("the new worker has found etcd away")
@marks(needs="newcomer")
def when_repelled(context: Context):
    """It has asked for a lease in vain, as its own log says."""
    context.world.lifetimes.see_repelled()


@then("within {timeout:Time} each new worker serves requests")
@marks(needs="newcomer")
def then_newcomers_serve(context: Context, timeout):
    """Requests are sent one after the other, and none may fail, until each has produced something."""
    context.world.lifetimes.expect_newcomers_serve(timeout)


@then("the request was not moved to another worker")
@marks(needs="request")
def then_not_moved(context: Context):
    """One worker has had it, as journals and logs name it, and at most one has produced anything."""
    context.world.takeovers.expect_no_takeover(context.world.faults.victims)


@then("within {timeout:Time} the worker finishes it itself and leaves")
@marks(needs="request fault")
def then_finishes(context: Context, timeout):
    """It was told to shut down: nothing was moved, and its process ended with exit status 0. Counted from the end of
    the last answer.
    """
    context.world.lifetimes.expect_finished(timeout)


@then("within {timeout:Time} the worker hands it over and leaves")
@marks(needs="fault")
def then_hands_over(context: Context, timeout):
    """It was told to shut down: what it had was moved, and its process ended with exit status 0. Counted from the
    fault.
    """
    context.world.lifetimes.shutdowns.expect_handed_over(context.world.faults.last, timeout)


@then("each worker that was told to shut down has finished what it had and left within {timeout:Time}")
@marks(needs="fault")
def then_drained(context: Context, timeout):
    """Its process ended with exit status 0, so long after it was told; no request that was under way was moved."""
    context.world.lifetimes.shutdowns.expect_drained(context.world.faults.made, timeout)


@then("the engine was told to stop before the end of the answer")
@marks(needs="request")
def then_engine_stopped(context: Context):
    """For the ruler engine, from its own journal."""
    context.world.answers.expect_engine_stopped()
