"""Sentences about a deployment under load. A load runs through the phases STANDARD, OVERFLOW and RECOVERY: OVERFLOW
begins with the failure, RECOVERY when the failure is over; a failure that nobody undoes is over a window (1 second)
after it was proven, so that requests are due in OVERFLOW.
"""

from behave import given, then, when

from support.errors import Unsupported
from support.marks import marks
from support.run.runtime import Context
from support.scenarios import Failure, Load
from support.scenarios.model import ready, scenario_of
from support.words import bounds, failures

# Ends a load whose failure is never over; well within the time that a scenario has.
LONGEST_SECONDS = 120.0


def play(context: Context, scenario):
    """Play a whole scenario; what the chosen Dynamo release cannot do skips it."""
    try:
        context.world.workload.play(scenario)
    except Unsupported as reason:
        context.run.skip(context.scenario, reason)


@given(
    "{clients:Count} clients keep asking for {stream:Mode} {api:Api} answers of {tokens:Count} tokens for {time:Time}"
)
@marks(brings="load")
def given_load(context: Context, clients, stream, api, tokens, time):
    """Clients in processes of their own ask for this time; each sends its next request when its last one has ended.

    Time: from the first request of the load, which the first "When" sends.
    Waits: no: the load begins with the first "When".
    Proof: the record of every request.
    """
    endpoint = "chat/completions" if api == "chat" else api
    context.world.workload.load = Load(clients, None, time, endpoint=endpoint, stream=stream, max_tokens=tokens)


@given("{clients:Count} clients keep asking for {stream:Mode} {api:Api} answers of {tokens:Count} tokens")
@marks(brings="load")
def given_endless_load(context: Context, clients, stream, api, tokens):
    """Clients in processes of their own ask until 8 seconds after the failure is over; each sends its next request when
    its last one has ended.

    Waits: no: the load begins with the first "When".
    Proof: the record of every request.
    """
    given_load(context, clients, stream, api, tokens, LONGEST_SECONDS)
    context.world.workload.recovery_seconds = 8.0


@given("the frontend treats a worker as busy once {share:Share} percent of its memory is in use")
def given_busy(context: Context, share):
    """With every worker fuller than this, the frontend refuses requests.

    Waits: no.
    Proof: the frontend's own answer.
    Needs: busy threshold
    """
    try:
        context.world.stage.set_busy_threshold(share)
    except Unsupported as reason:
        context.run.skip(context.scenario, reason)


@when("{trigger:Trigger} the workers are restarted one after the other")
@marks(needs="load", brings="run fault")
def when_rolling(context: Context, trigger):
    """Each worker is shut down and started again; the next one has its turn when the frontend lists it.

    Time: from the first request of the load.
    Waits: until the load has ended.
    Proof: each fault's own, and the frontend's own list of workers.
    """
    context.world.workload.play_failure(Failure("rolling_restart", **trigger))


@when("{trigger:Trigger} random {kinds:Drawn} strike{every:Every} for {duration:Time} under seed {seed:Tally}")
@marks(needs="load", brings="run fault")
def when_random(context: Context, trigger, kinds, every, duration, seed):
    """Workers crash, hang, are cut off and lose their GPUs, or some of that, one after the other, as the seed draws it.
    The same seed draws the same faults. Each victim serves again before the next fault. Cuts need nftables, GPU errors
    the kernel log.

    Time: for the trigger from the first request of the load; "every" from one fault to the next, or longer where a
        victim takes longer to serve again; no new fault begins after the last time.
    Waits: until the load has ended.
    Proof: the fault's own, see Failures.
    """
    drawn = Failure("random", **trigger, duration_seconds=duration, seed=seed, kinds=kinds, every_seconds=every)
    context.world.workload.play_failure(drawn)


@when("{trigger:Trigger} {clients:Count} more clients each ask for {count:Count} answers of {tokens:Count} tokens")
@marks(needs="load", brings="run")
def when_overload(context: Context, trigger, clients, count, tokens):
    """More clients ask, on top of the load that there is.

    Time: from the first request of the load.
    Waits: until the load has ended.
    Proof: the record of every request.
    """
    extra = Load(clients, count, max_tokens=tokens, prompt_words=400)
    context.world.workload.play_failure(Failure("overload", **trigger, load=extra))


@when("{trigger:Trigger} {clients:Count} more clients each send a prompt of {words:Count} words")
@marks(needs="load", brings="run")
def when_overlong(context: Context, trigger, clients, words):
    """More clients ask with prompts of this length, on top of the load that there is.

    Time: from the first request of the load.
    Waits: until the load has ended.
    Proof: the record of every request.
    """
    extra = Load(clients, 1, max_tokens=10, prompt_words=words)
    context.world.workload.play_failure(Failure("token_overflow", **trigger, load=extra))


@when("these failures strike")
@marks(table="failures", needs="load", brings="run fault")
def when_several(context: Context):
    """One failure for each row of the table below it, at once or in a row, as each row says. One victim has one failure
    at a time.

    Time: for each trigger from the first request of the load, for each failure from its proof.
    Waits: until the load has ended.
    Proof: the fault's own, see Failures.
    """
    context.world.workload.play_failure(*failures(context.table))


@when("nothing breaks")
@marks(needs="load", brings="run")
def when_nothing(context: Context):
    """The load runs alone.

    Waits: until the load has ended.
    Proof: the record of every request.
    """
    context.world.workload.play_failure()


@when('the ready scenario "{name}" is played')
@marks(brings="deployment roles run fault", check=ready)
def when_ready(context: Context, name):
    """Plays one of the ready scenarios, with its own deployment, load and failure.

    Waits: until the load has ended.
    Proof: the fault's own, see Failures.
    """
    play(context, ready(name))


@when('the scenario "{name}" of {file:File} is played')
@marks(brings="deployment roles run fault", check=lambda name, file: scenario_of(file, name))
def when_of_file(context: Context, name, file):
    """Plays a scenario of your own YAML file, written as the ready ones are. The path begins at the root of the
    checkout.

    Waits: until the load has ended.
    Proof: the fault's own, see Failures.
    """
    play(context, scenario_of(file, name))


@then("all of its checks hold")
@marks(needs="run")
def then_its_checks(context: Context):
    """Every check that the played scenario names holds.

    Waits: no.
    Proof: the record of every request.
    """
    for name, parameters in context.world.workload.played.scenario.checks.items():
        context.world.workload.expect_check(name, **(parameters or {}))


@then("every overlong request is rejected and every other request succeeds")
@marks(needs="run")
def then_overlong(context: Context):
    """A request whose prompt alone fills the longest sequence ends in a clean error, every other one in a whole answer.

    Waits: no.
    Proof: the record of every request.
    Needs: sequence limit
    """
    context.world.workload.expect_check("overlong_refused")


@then("every overlong request is rejected as a client error")
@marks(needs="run")
def then_overlong_told(context: Context):
    """A request whose prompt alone fills the longest sequence ends with HTTP status 400, 413 or 422: the client's own
    mistake.

    Waits: no.
    Proof: the record of every request.
    Needs: sequence limit
    """
    context.world.workload.expect_check("overlong_refused", statuses=(400, 413, 422))


@then("every request succeeds")
@marks(needs="run")
def then_all_succeed(context: Context):
    """In every phase each request that was to be sent has a whole answer.

    Waits: no.
    Proof: the record of every request.
    """
    context.world.workload.expect_check("no_failures")


@then("at least {share:Share} percent of the requests succeed in {phase:Phase}")
@marks(needs="run")
def then_rate(context: Context, share, phase):
    """Of all requests that were to be sent in this phase, so many have a whole answer.

    Waits: no.
    Proof: the record of every request.
    """
    context.world.workload.expect_check("success_rate", at_least=share, phase=phase)


@then("in RECOVERY the time to first token is back in the STANDARD band within {timeout:Time} and stays there")
@marks(needs="run")
def then_stable(context: Context, timeout):
    """Three seconds in a row users wait no longer than STANDARD has shown, no request is lost in them, and no second
    after them is worse.

    Time: from the begin of RECOVERY to the first of the three seconds.
    Waits: no.
    Proof: the record of every request.
    """
    context.world.workload.expect_check("recovery_time", within_seconds=timeout)


@then("in RECOVERY the time to first token is in the STANDARD band")
@marks(needs="run")
def then_band(context: Context):
    """Over all of RECOVERY users wait no longer than STANDARD has shown, and as many requests are good.

    Waits: no.
    Proof: the record of every request.
    """
    context.world.workload.expect_check("standard_band")


@then("at least {count:Count} {noun:Noun} moved to another worker and completed there")
@marks(needs="run")
def then_moved(context: Context, count, noun):
    """So many requests have moved to another worker and have a whole answer; attempts alone do not count.

    Waits: no.
    Proof: the frontend's own counter, and the record of every request.
    """
    context.world.workload.expect_check("migration", at_least=count)


@then("the checks for {name:Check} hold")
@marks(table="bounds", needs="run")
def then_check(context: Context, name):
    """The check holds. The table below names its bounds, where it has any; see Checks.

    Waits: no.
    Proof: see Checks.
    """
    context.world.workload.expect_check(name, **bounds(name, context.table))
