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
    """Each client sends its next request when its last one has ended; begins with the first "When"."""
    endpoint = "chat/completions" if api == "chat" else api
    context.world.workload.load = Load(clients, None, time, endpoint=endpoint, stream=stream, max_tokens=tokens)


@given("{clients:Count} clients keep asking for {stream:Mode} {api:Api} answers of {tokens:Count} tokens")
@marks(brings="load")
def given_endless_load(context: Context, clients, stream, api, tokens):
    """The same until 8 seconds after the failure is over: 5 to be stable again (no sentence allows more), and 3 windows
    of a second to see it.
    """
    given_load(context, clients, stream, api, tokens, LONGEST_SECONDS)
    context.world.workload.recovery_seconds = 8.0


@given("the frontend takes a worker for busy from {share:Share} percent of its memory on")
def given_busy(context: Context, share):
    """Set through Dynamo's own API; with all workers busy it refuses further requests."""
    try:
        context.world.stage.set_busy_threshold(share)
    except Unsupported as reason:
        context.run.skip(context.scenario, reason)


@when("{trigger:Trigger} the busiest worker {kind:Fate} for {duration:Time}")
@marks(needs="load", brings="run fault")
def when_worker_for(context: Context, trigger, kind, duration):
    """Undone after that time."""
    context.world.workload.play_failure(Failure(kind.failure, "worker", **trigger, duration_seconds=duration))


@when("{trigger:Trigger} the busiest worker {kind:Fate}")
@marks(needs="load", brings="run fault")
def when_worker(context: Context, trigger, kind):
    """Proven on its victim, which has most requests in flight."""
    context.world.workload.play_failure(Failure(kind.failure, "worker", **trigger))


@when("{trigger:Trigger} the busiest {role:Role} worker {kind:Fate}")
@marks(needs="load roles", brings="run fault")
def when_role(context: Context, trigger, role, kind):
    """The same in a disaggregated deployment."""
    context.world.workload.play_failure(Failure(kind.failure, f"{role}_worker", **trigger))


@when("{trigger:Trigger} the frontend {kind:Fate} for {duration:Time}")
@marks(needs="load", brings="run fault")
def when_frontend_for(context: Context, trigger, kind, duration):
    """Undone after that time."""
    context.world.workload.play_failure(Failure(kind.failure, "frontend", **trigger, duration_seconds=duration))


@when("{trigger:Trigger} the frontend {kind:Fate}")
@marks(needs="load", brings="run fault")
def when_frontend(context: Context, trigger, kind):
    """There is one; its clients find a closed port until it is back."""
    context.world.workload.play_failure(Failure(kind.failure, "frontend", **trigger))


@when("{trigger:Trigger} etcd {kind:Fate} for {duration:Time}")
@when("{trigger:Trigger} an etcd member {kind:Fate} for {duration:Time}")
@marks(needs="load", brings="run fault")
def when_etcd(context: Context, trigger, kind, duration):
    """The only member, or the first of several."""
    context.world.workload.play_failure(Failure(kind.failure, "etcd", **trigger, duration_seconds=duration))


@when("{trigger:Trigger} the GPU of the busiest worker reports XID {xid:Xid} for {duration:Time}")
@marks(needs="load", brings="run fault")
def when_gpu(context: Context, trigger, xid, duration):
    """Repaired after that time; a worker that it ended is started again then."""
    context.world.workload.play_failure(Failure("xid", xid=xid, **trigger, duration_seconds=duration))


@when("{trigger:Trigger} packets between the busiest worker and {side:Side} are {manner:Cut} for {duration:Time}")
@marks(needs="load", brings="run fault")
def when_network(context: Context, trigger, side, manner, duration):
    """Both directions, open connections and new ones."""
    cut = Failure("network_partition", partition=side, mode=manner, **trigger, duration_seconds=duration)
    context.world.workload.play_failure(cut)


@when("{trigger:Trigger} the workers are restarted one after the other")
@marks(needs="load", brings="run fault")
def when_rolling(context: Context, trigger):
    """Told to shut down, started again once it has; the next one has its turn when the frontend lists this one."""
    context.world.workload.play_failure(Failure("rolling_restart", **trigger))


@when("{trigger:Trigger} random faults strike for {duration:Time} under seed {seed:Tally}")
@marks(needs="load", brings="run fault")
def when_random(context: Context, trigger, duration, seed):
    """Crashes, hangs, cuts and XIDs of workers, one after the other, each proven and undone; see chaos.py."""
    context.world.workload.play_failure(Failure("random", **trigger, duration_seconds=duration, seed=seed))


@when("{trigger:Trigger} {clients:Count} more clients each ask for {count:Count} answers of {tokens:Count} tokens")
@marks(needs="load", brings="run")
def when_overload(context: Context, trigger, clients, count, tokens):
    """On top of the load that there is."""
    extra = Load(clients, count, max_tokens=tokens, prompt_words=400)
    context.world.workload.play_failure(Failure("overload", **trigger, load=extra))


@when("{trigger:Trigger} {clients:Count} more clients each send a prompt of {words:Count} words")
@marks(needs="load", brings="run")
def when_overlong(context: Context, trigger, clients, words):
    """On top of the load that there is."""
    extra = Load(clients, 1, max_tokens=10, prompt_words=words)
    context.world.workload.play_failure(Failure("token_overflow", **trigger, load=extra))


@when("these failures strike")
@marks(table="failures", needs="load", brings="run fault")
def when_several(context: Context):
    """One per row of the table, whose columns are the FAILURE_OPTIONS of support/words.py; at once or in a row, as each
    says. One victim has one failure at a time.
    """
    context.world.workload.play_failure(*failures(context.table))


@when("nothing breaks")
@marks(needs="load", brings="run")
def when_nothing(context: Context):
    """The load alone, to its end."""
    context.world.workload.play_failure()


@when('the ready scenario "{name}" is played')
@marks(brings="deployment roles run fault", check=ready)
def when_ready(context: Context, name):
    """Of support/scenarios/library.yaml, with deployment, load and failure; what a release cannot do skips it."""
    play(context, ready(name))


@when('the scenario "{name}" of {file:File} is played')
@marks(brings="deployment roles run fault", check=lambda name, file: scenario_of(file, name))
def when_of_file(context: Context, name, file):
    """Of a YAML file of your own, in the same form; a path from the root of the checkout."""
    play(context, scenario_of(file, name))


@then("all of its checks hold")
@marks(needs="run")
def then_its_checks(context: Context):
    """Those that it names itself."""
    for name, parameters in context.world.workload.played.scenario.checks.items():
        context.world.workload.expect_check(name, **(parameters or {}))


@then("every overlong request is refused and every other one succeeds")
@marks(needs="run")
def then_overlong(context: Context):
    """Overlong: the prompt alone fills the longest sequence of the deployment."""
    context.world.workload.expect_check("overlong_refused")


@then("every overlong request is refused as a mistake of its client")
@marks(needs="run")
def then_overlong_told(context: Context):
    """With a status that tells it from a failure of the server."""
    context.world.workload.expect_check("overlong_refused", statuses=(400, 413, 422))


@then("every request succeeds")
@marks(needs="run")
def then_all_succeed(context: Context):
    """In every phase, all that were intended."""
    context.world.workload.expect_check("no_failures")


@then("at least {share:Share} percent of the requests succeed in {phase:Phase}")
@marks(needs="run")
def then_rate(context: Context, share, phase):
    """Of all that were intended in that phase."""
    context.world.workload.expect_check("success_rate", at_least=share, phase=phase)


@then("in RECOVERY the time to first token is back in the STANDARD band within {timeout:Time} and stays there")
@marks(needs="run")
def then_stable(context: Context, timeout):
    """Counted from the begin of RECOVERY: three windows of a second in a row in the band that STANDARD showed, with no
    request lost, and none out of it after them.
    """
    context.world.workload.expect_check("recovery_time", within_seconds=timeout)


@then("in RECOVERY the time to first token is in the STANDARD band")
@marks(needs="run")
def then_band(context: Context):
    """Over all of RECOVERY: median and p99 in the band that STANDARD showed, and goodput as in its worst window."""
    context.world.workload.expect_check("standard_band")


@then("at least {count:Count} {noun:Noun} moved to another worker and completed there")
@marks(needs="run")
def then_moved(context: Context, count, noun):
    """Successes, not attempts."""
    context.world.workload.expect_check("migration", at_least=count)


@then("the checks for {name:Check} hold")
@marks(table="bounds", needs="run")
def then_check(context: Context, name):
    """A checker of support/judge/checkers.py; the table below names its bounds, where it has any."""
    context.world.workload.expect_check(name, **bounds(name, context.table))
