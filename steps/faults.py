"""Sentences about faults. A step returns once the fault is proven on its victim, else the scenario is inconclusive."""

from behave import then, when

from support.faults.network import Cut
from support.faults.processes import Crash
from support.faults.victims import All, Exactly, FirstRunning, IdleFrontend, Others, Serving
from support.marks import marks
from support.run.runtime import Context


@when("the worker serving the request {kind:Fate} in mid-answer")
@marks(needs="request", brings="fault", loses="kind")
def when_worker_breaks(context: Context, kind):
    """The worker is seen to produce the answer when it is hit."""
    context.world.answers.see_under_way()
    context.world.faults.strike(kind(Serving()))


@when("the worker serving the request {kind:Fate} after {tokens:Count} tokens")
@marks(needs="request", brings="fault", loses="kind")
def when_worker_breaks_after(context: Context, kind, tokens):
    """Hit once the client has that many tokens."""
    context.world.answers.await_tokens(context.world.clients.request, tokens)
    context.world.faults.strike(kind(Serving()))


@when("the worker serving the next request {kind:Fate} after {count:Count} {noun:Noun}")
@marks(needs="request", brings="fault", loses="kind")
def when_worker_breaks_after_requests(context: Context, kind, count, noun):
    """Hit while it serves a request, once that many have ended."""
    context.world.answers.await_answers(count)
    context.world.faults.strike(kind(Serving()))


@when("the worker serving the request {kind:Fate} before the first token")
@marks(needs="request", brings="fault", loses="kind")
def when_worker_breaks_early(context: Context, kind):
    """Hit while the client has nothing yet."""
    context.world.answers.see_waiting()
    context.world.faults.strike(kind(Serving()))


@when("the {role:Role} worker serving the request {kind:Fate} in mid-answer")
@marks(needs="request roles", brings="fault", loses="kind")
def when_role_breaks(context: Context, role, kind):
    """The same in a disaggregated deployment."""
    context.world.answers.see_under_way()
    context.world.faults.strike(kind(Serving(role)))


@when("the worker serving most of the requests {kind:Fate}")
@marks(needs="request", brings="fault", loses="kind")
def when_busiest_breaks(context: Context, kind):
    """All requests are under way."""
    context.world.faults.strike(kind(Serving()))


@when("{server:Server} returns")
@marks(needs="fault")
def when_server_returns(context: Context, server):
    """The last fault is undone and the victim is seen to run."""
    context.world.faults.recover(context.world.faults.last)


@when("{server:Server} {kind:Fate}")
@marks(brings="fault")
def when_server_breaks(context: Context, server, kind):
    """Of several the first that runs."""
    context.world.faults.strike(kind(FirstRunning(server)))


@when("packets between {server:Server} and Dynamo are {manner:Cut} for {time:Time}")
@marks(brings="fault")
def when_server_cut_off(context: Context, server, manner, time):
    """From all frontends and workers; the kernel heals the cut."""
    cut = Cut(All(server), others=Others("dynamo"), mode=manner, lease_seconds=time)
    context.world.faults.strike(cut)


@when("the idle frontend {kind:Fate}")
@marks(brings="fault")
def when_idle_frontend_breaks(context: Context, kind):
    """Of several the last, which has no request under way."""
    context.world.faults.strike(kind(IdleFrontend()))


@when("all workers {kind:Fates}")
@marks(brings="fault")
def when_all_break(context: Context, kind):
    """One after the other, each proven."""
    for worker in context.world.deployment.workers:
        context.world.faults.strike(kind(Exactly(worker)))


@when("a worker crashes")
@marks(brings="fault")
def when_any_worker_crashes(context: Context):
    """The first; its registration stays behind until its lease runs out."""
    context.world.faults.strike(Crash(Exactly(context.world.deployment.workers[0])))


@when("a worker crashes while nothing is under way")
@marks(brings="fault")
def when_idle_worker_crashes(context: Context):
    """The same, with nobody there to notice."""
    context.world.faults.strike(Crash(Exactly(context.world.deployment.workers[0], felt=False)))


@then("the frontend still lists the dead worker")
@marks(needs="fault")
def then_still_listed(context: Context):
    """Else the scenario could not show what becomes of requests meanwhile."""
    context.world.fleet.expect_dead_listed(context.world.faults.worker_numbers)


@then("within {timeout:Time} the crashed worker runs again")
@marks(needs="fault")
def then_runs_again(context: Context, timeout):
    """Started by the restart policy, and answering."""
    context.world.lifetimes.expect_restarted(timeout)


@when("the hung worker goes on")
@marks(needs="fault")
def when_recovers(context: Context):
    """The fault is undone and the victim is seen to run."""
    context.world.faults.recover(context.world.faults.last)


@then("within {timeout:Time} the fault has ended by itself")
@then("within {timeout:Time} the network has healed by itself")
@marks(needs="fault")
def then_ended(context: Context, timeout):
    """At its deadline, with no call; the victims show it."""
    context.world.faults.see_healed(timeout)


@when("the fault service and the node agent are killed")
@marks(needs="fault")
def when_injectors_die(context: Context):
    """Both by SIGKILL; they are started again and know of the faults, active until their deadlines."""
    context.world.injectors.kill()


@when("the node agent freezes")
@marks(needs="fault")
def when_agent_freezes(context: Context):
    """By SIGSTOP: it ends no fault any more, and does not die either."""
    context.world.injectors.freeze()
