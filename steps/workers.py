"""Sentences about workers, as their own metrics and journals show them."""

from behave import given, then, when

from support.marks import marks
from support.run.runtime import Context


@given("a worker has been processing the prompt for {time:Time}")
@marks(needs="answer")
def given_reading(context: Context, time):
    """A worker has had the request for this long, and the client has no token.

    Time: from this sentence on.
    Waits: for all of this time.
    Proof: the worker's own count of requests in flight.
    """
    context.world.answers.see_reading(time)


@given("the {role:Role} worker has been processing the prompt for {time:Time}")
@marks(needs="answer roles")
def given_role_reading(context: Context, role, time):
    """The prefill or decode worker has had the request for this long, and the client has no token.

    Time: from this sentence on.
    Waits: for all of this time.
    Proof: the worker's own count of requests in flight.
    """
    context.world.answers.see_reading(time, role)


@then("within {timeout:Time} no worker has a request in flight")
def then_idle(context: Context, timeout):
    """No worker has a request in flight, and none sends anything afterwards.

    Time: from this sentence on.
    Waits: until no worker has a request, and half a second more.
    Proof: the workers' own counts of requests in flight and of bytes sent.
    Also: leak, stuck request, cancelled.
    """
    context.world.fleet.expect_idle(timeout, context.world.faults.victims)


@then("another worker served the rest")
@marks(needs="answer fault", whole=True)
def then_other_worker(context: Context):
    """Another worker with the victim's role has taken each request over and has written of its answer.

    Waits: up to 5 seconds.
    Proof: the journals and logs of the workers, which name the request.
    Also: migration, failover, takeover.
    """
    context.world.takeovers.expect_takeover(context.world.faults.made)


@when("the new worker has noticed that etcd is down")
@marks(needs="newcomer")
def when_repelled(context: Context):
    """The new worker has asked etcd for a lease and got none.

    Waits: until the worker has said so.
    Proof: the worker's own log.
    """
    context.world.lifetimes.see_repelled()


@then("within {timeout:Time} each new worker serves requests")
@marks(needs="newcomer")
def then_newcomers_serve(context: Context, timeout):
    """Each new worker serves a request, and no request fails meanwhile.

    Time: from this sentence on.
    Waits: until each new worker has served one.
    Proof: the bytes that each new worker has sent.
    Also: ready, replacement.
    """
    context.world.lifetimes.expect_newcomers_serve(timeout)


@then("the request was not moved to another worker")
@marks(needs="answer")
def then_not_moved(context: Context):
    """One worker has had the request, and no other has sent anything.

    Waits: no.
    Proof: the journals and logs of the workers, which name the request.
    Also: migration, failover.
    """
    context.world.takeovers.expect_no_takeover(context.world.faults.victims)


@then("within {timeout:Time} the worker finishes the answer itself and exits")
@marks(needs="answer fault")
def then_finishes(context: Context, timeout):
    """The worker that was shut down finishes its answers itself and ends with exit status 0.

    Time: from the end of the last answer.
    Waits: until its process has ended.
    Proof: its exit status, the frontend's count of moved requests, and the workers' journals and logs.
    Also: graceful shutdown, drain.
    """
    context.world.lifetimes.expect_finished(timeout)


@then("within {timeout:Time} the worker hands the answer over and exits")
@marks(needs="fault")
def then_hands_over(context: Context, timeout):
    """The worker that was shut down gives its requests to another worker and ends with exit status 0.

    Time: from the fault.
    Waits: until its process has ended.
    Proof: its exit status, the frontend's count of moved requests, and the workers' journals and logs.
    Also: graceful shutdown, migration.
    """
    context.world.lifetimes.shutdowns.expect_handed_over(context.world.faults.last, timeout)


@then("each worker that was shut down finished its requests and exited within {timeout:Time}")
@marks(needs="fault")
def then_drained(context: Context, timeout):
    """Each worker that was shut down has finished its answers itself and ended with exit status 0.

    Time: for each worker, from its own shutdown.
    Waits: until each process has ended.
    Proof: the exit statuses, and the frontend's count of moved requests.
    Also: graceful shutdown, drain, rolling update.
    """
    context.world.lifetimes.shutdowns.expect_drained(context.world.faults.made, timeout)


@then("the engine was told to stop before the answer ended")
@marks(needs="answer", engine="ruler")
def then_engine_stopped(context: Context):
    """The engine stopped before it had written the whole answer; of several answers, each.

    Waits: no.
    Proof: the ruler's own journal.
    Also: cancel, abort.
    """
    context.world.answers.expect_engine_stopped()


@then("the worker that was hit gets less than {share:Share} percent of the new requests")
@marks(needs="fault request")
def then_less(context: Context, share):
    """Of the requests that were sent while the last fault was on, its victim was given less than this share. With the
    router `least-loaded` a slow worker gets few.

    Waits: until the requests in flight have ended.
    Proof: the journals and logs of the workers, which name each request.
    Also: routing, load balancing, share of the traffic.
    """
    context.world.bystanders.expect_less_than(share)


@then("within {timeout:Time} the worker that was hit serves requests again")
@marks(needs="fault")
def then_serves_again(context: Context, timeout):
    """The worker that was hit serves a request, and no request fails meanwhile.

    Time: from this sentence on.
    Waits: until the worker has served one.
    Proof: the bytes that the worker has sent.
    """
    context.world.lifetimes.expect_victim_serves(timeout)
