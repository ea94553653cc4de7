"""Sentences about a deployment under load. A load begins with its sentence and runs through the phases STANDARD,
OVERFLOW and RECOVERY, see [Words](#words). A failure that strikes "after 3 seconds" plays the load to its end. Beside
any other sentence the load goes on; the first sentence about its requests then plays it to its end.
"""

from behave import given, then, when

from support.errors import Unsupported
from support.marks import marks
from support.rows import failures, long_prompts, more_requests
from support.run.runtime import Context
from support.scenarios import Failure
from support.scenarios.model import ready, scenario_of
from support.words import check_settings


def play(context: Context, scenario):
    """Play a whole scenario; what the chosen Dynamo release cannot do skips it."""
    try:
        context.world.workload.play(scenario)
    except Unsupported as reason:
        context.run.skip(context.scenario, reason)


@given("a client keeps asking for {stream:Mode} {api:Api} answers of {tokens:Count} tokens for {time:Time}")
@given(
    "{clients:Count} clients keep asking for {stream:Mode} {api:Api} answers of {tokens:Count} tokens for {time:Time}"
)
@marks(brings="load request run")
def given_load(context: Context, stream, api, tokens, time=None, clients=1):
    """Clients in processes of their own ask for this time, whatever breaks; each sends its next request when its last
    one has ended.

    Time: from the first request of the load.
    Waits: until the first token has come; of unary answers, until a request is sent.
    Proof: the record of every request.
    Also: traffic, users, constant load.
    """
    endpoint = "chat/completions" if api == "chat" else api
    context.world.workload.begin(clients, time, endpoint=endpoint, stream=stream, max_tokens=tokens)


@given("a client keeps asking for {stream:Mode} {api:Api} answers of {tokens:Count} tokens")
@given("{clients:Count} clients keep asking for {stream:Mode} {api:Api} answers of {tokens:Count} tokens")
@marks(brings="load request run")
def given_endless_load(context: Context, stream, api, tokens, clients=1):
    """Clients in processes of their own ask, whatever breaks, until 8 seconds after the last failure is over, or longer
    where a sentence about RECOVERY says so. Each sends its next request when its last one has ended.

    Waits: until the first token has come; of unary answers, until a request is sent.
    Proof: the record of every request.
    Also: traffic, users, constant load.
    """
    given_load(context, stream, api, tokens, clients=clients)


@given("a client keeps asking for {stream:Mode} {api:Api} answers of {tokens:Count} tokens until one fails")
@given(
    "{clients:Count} clients keep asking for {stream:Mode} {api:Api} answers of {tokens:Count} tokens, each until one "
    "fails"
)
@marks(brings="load request run")
def given_load_until_failure(context: Context, stream, api, tokens, clients=1):
    """A load as without these words, but a client whose answer is not whole asks no more. One that goes on would meet
    the same failure again and again.

    Waits: until the first token has come; of unary answers, until a request is sent.
    Proof: the record of every request.
    Also: traffic, users, constant load.
    """
    endpoint = "chat/completions" if api == "chat" else api
    context.world.workload.begin(clients, None, endpoint=endpoint, stream=stream, max_tokens=tokens, gives_up=True)


@given("the frontend treats a worker as busy once {share:Share} percent of its memory is in use")
def given_busy(context: Context, share):
    """Once every worker is fuller than this, the frontend rejects requests. The memory is that of a simulated worker,
    see [Engines](#engines); the ruler counts none.

    Waits: no.
    Proof: the frontend's own answer.
    Needs: busy threshold
    Also: admission control, load shedding, back pressure, capacity, 503, 529.
    """
    try:
        context.world.stage.set_busy_threshold(share)
    except Unsupported as reason:
        context.run.skip(context.scenario, reason)


@when("{trigger:Trigger} the workers are restarted one after the other")
@marks(needs="load", brings="run fault")
def when_rolling(context: Context, trigger):
    """Each worker is shut down and started again; the next one follows once the frontend lists it again.

    Time: from the first request of the load.
    Waits: until the load has ended.
    Proof: each fault's own, and the frontend's own list of workers.
    Also: rolling update, rollout, upgrade, new version, restart all workers.
    """
    context.world.workload.play_failure(Failure("rolling_restart", **trigger))


@when("{trigger:Trigger} random {kinds:Drawn} strike{every:Every} for {duration:Time} under seed {seed:Tally}")
@marks(needs="load", brings="run fault")
def when_random(context: Context, trigger, kinds, every, duration, seed):
    """Workers crash, hang, are cut off and lose their GPUs, or some of that, one after the other, as the seed draws it.
    The same seed draws the same faults. Each victim comes back and serves before the next fault. Cuts need
    `@needs.nftables`, GPU errors `@needs.kmsg`.

    Time: for the trigger from the first request of the load; "every" from one fault to the next, or longer where a
        victim takes longer to serve again; no new fault begins after the last time.
    Waits: until the load has ended.
    Proof: the fault's own, see Failures.
    Also: chaos, fuzz, monkey.
    """
    drawn = Failure("random", **trigger, duration_seconds=duration, seed=seed, kinds=kinds, every_seconds=every)
    context.world.workload.play_failure(drawn)


@when("{trigger:Trigger} {clients:Count} more clients each ask for {count:Count} answers of {tokens:Count} tokens")
@marks(needs="load", brings="run")
def when_overload(context: Context, trigger, clients, count, tokens):
    """More clients ask, on top of the load.

    Time: from the first request of the load.
    Waits: until the load has ended.
    Proof: the record of every request.
    Also: OVERFLOW, overload, peak, burst, spike, surge, rush, more traffic.
    """
    extra = more_requests(clients, count, tokens)
    context.world.workload.play_failure(Failure("overload", **trigger, load=extra))


@when("{trigger:Trigger} {clients:Count} more clients each send a prompt of {words:Count} words")
@marks(needs="load", brings="run")
def when_overlong(context: Context, trigger, clients, words):
    """More clients ask with prompts of this length, on top of the load.

    Time: from the first request of the load.
    Waits: until the load has ended.
    Proof: the record of every request.
    Also: context length, too long prompt.
    """
    extra = long_prompts(clients, words)
    context.world.workload.play_failure(Failure("token_overflow", **trigger, load=extra))


@when("{trigger:Trigger} {times:Times} the clients of STANDARD ask for {duration:Time}")
@marks(needs="load", brings="run")
def when_growing(context: Context, trigger, times, duration):
    """More clients join until there are this many times as many as in STANDARD. They ask for the same answers.

    Time: for the trigger from the first request of the load, for the clients from their own first request.
    Waits: until the load has ended.
    Proof: the record of every request.
    Also: OVERFLOW, overload, peak, burst, spike, surge, rush, traffic doubles.
    """
    context.world.workload.play_failure(Failure("overload", **trigger, times=times, duration_seconds=duration))


@when("the load ends")
@marks(needs="load", brings="run")
def when_ends(context: Context):
    """The clients send nothing more, and each answer comes to its end. A load for a certain time goes on that long, any
    other one until 8 seconds after the last failure is over; without a failure, until it has gone on for 8 seconds.

    Waits: until the load has ended.
    Proof: the record of every request.
    """
    assert context.world.workload.played


@when("these failures strike")
@marks(table="failures", needs="load", brings="run fault")
def when_several(context: Context):
    """One failure for each row of the table below it, at once or in a row, as each row says. One victim has one failure
    at a time.

    Time: for each trigger from the first request of the load, for each failure from its proof.
    Waits: until the load has ended.
    Proof: the fault's own, see Failures.
    Also: at the same time, combination, double fault.
    """
    context.world.workload.play_failure(*failures(context.table))


@when("nothing breaks")
@marks(needs="load", brings="run")
def when_nothing(context: Context):
    """The load runs alone.

    Waits: until the load has ended.
    Proof: the record of every request.
    Also: baseline, control.
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

    Waits: until the load has ended.
    Proof: the record of every request.
    """
    for name, parameters in context.world.workload.played.scenario.checks.items():
        context.world.workload.expect_check(name, **(parameters or {}))


@then("every overlong request is rejected and every other request succeeds")
@marks(needs="run")
def then_overlong(context: Context):
    """A request whose prompt alone fills the longest sequence ends in a clean error, every other one in a whole answer.

    Waits: until the load has ended.
    Proof: the record of every request.
    Needs: sequence limit
    Also: context length, too long prompt.
    """
    context.world.workload.expect_check("overlong_refused")


@then("every overlong request is rejected as a client error")
@marks(needs="run")
def then_overlong_told(context: Context):
    """A request whose prompt alone fills the longest sequence ends with HTTP status 400, 413 or 422: the client's own
    mistake.

    Waits: until the load has ended.
    Proof: the record of every request.
    Needs: sequence limit
    Also: context length, too long prompt, 400.
    """
    context.world.workload.expect_check("overlong_refused", statuses=(400, 413, 422))


@then("every request succeeds")
@marks(needs="run")
def then_all_succeed(context: Context):
    """Every request that was due has a whole answer, in every phase.

    Waits: until the load has ended.
    Proof: the record of every request.
    Also: no failed request, zero errors, no downtime, nobody notices, no request rejected, refused, turned away, 503.
    """
    context.world.workload.expect_check("no_failures")


@then("at least {share:Share} percent of the requests succeed in {phase:Phase}")
@marks(needs="run")
def then_rate(context: Context, share, phase):
    """At least this percentage of the requests that were due in this phase have a whole answer. Of the whole run
    `the checks for success rate hold` says that.

    Waits: until the load has ended.
    Proof: the record of every request.
    Also: availability, error rate, at most a few requests fail, SLO, SLA.
    """
    context.world.workload.expect_check("success_rate", at_least=share, phase=phase)


@then("at least {share:Share} percent of the requests succeed in RECOVERY for {time:Time}")
@marks(needs="run", recovery="time")
def then_rate_for(context: Context, share, time):
    """RECOVERY is played for this long. At least this share of the requests that were due in it have a whole answer.

    Time: from the beginning of RECOVERY.
    Waits: until the load has ended.
    Proof: the record of every request.
    Also: availability, error rate, at most a few requests fail, SLO, SLA.
    """
    context.world.workload.expect_in_recovery(time, "success_rate", at_least=share)


@then("in RECOVERY the time to first token is back in the STANDARD band within {timeout:Time} and stays there")
@marks(needs="run")
def then_stable(context: Context, timeout):
    """Three seconds in a row are in the STANDARD band, and each later one is, see [Words](#words).

    Time: from the beginning of RECOVERY to the first of the three seconds.
    Waits: until the load has ended.
    Proof: the record of every request.
    Also: recovery time, latency, SLO, TTFT.
    """
    context.world.workload.expect_check("recovery_time", within_seconds=timeout)


@then("in {phase:LaterPhase} the time to first token is in the STANDARD band")
@marks(needs="run")
def then_band(context: Context, phase):
    """The phase as a whole is in the STANDARD band, see [Words](#words): OVERFLOW is while the failures last, RECOVERY
    after them.

    Waits: until the load has ended.
    Proof: the record of every request.
    Also: latency, SLO, TTFT, slow down during an outage.
    """
    context.world.workload.expect_check("standard_band", phase=phase)


@then("in RECOVERY the time to first token is in the STANDARD band for {time:Time}")
@marks(needs="run", recovery="time")
def then_band_for(context: Context, time):
    """RECOVERY is played for this long, and as a whole it is in the STANDARD band, see [Words](#words).

    Time: from the beginning of RECOVERY.
    Waits: until the load has ended.
    Proof: the record of every request.
    Also: latency, SLO, TTFT.
    """
    context.world.workload.expect_in_recovery(time, "standard_band")


@then("{time:Time} after the load ends no worker has a request in flight")
@marks(needs="load")
def then_idle_after(context: Context, time):
    """No worker has a request in flight any more, and none sends anything afterwards.

    Time: from the end of the last answer of the load.
    Waits: until the load has ended and no worker has a request, and half a second more.
    Proof: the workers' own counts of requests in flight and of bytes sent.
    Also: leak, stuck request.
    """
    since = context.world.workload.after_end(time)
    context.world.fleet.expect_idle(time, context.world.faults.victims, since)


@then("{time:Time} after the load ends the frontend lists {count:Tally} {noun:Noun}")
@marks(needs="load")
def then_lists_after(context: Context, time, count, noun):
    """The list of workers has this length by then.

    Time: from the end of the last answer of the load.
    Waits: until the load has ended and the list has this length.
    Proof: the frontend's own list of workers.
    """
    context.world.fleet.expect_listed(count, time, context.world.workload.after_end(time))


@then("at least {count:Count} {noun:Noun} moved to another worker and completed there")
@marks(needs="run")
def then_moved(context: Context, count, noun):
    """At least this many requests moved to another worker and have a whole answer; attempts alone do not count.

    Waits: until the load has ended.
    Proof: the frontend's own counter, and the record of every request.
    Also: migration, failover.
    """
    context.world.workload.expect_check("migration", at_least=count)


@then("the checks for {name:Check} hold")
@marks(table="check", needs="run")
def then_check(context: Context, name):
    """The check holds. The table below has its settings, where it has any; see Checks.

    Waits: until the load has ended.
    Proof: see Checks.
    """
    context.world.workload.expect_check(name, **check_settings(name, context.table))
