"""Sentences about faults. A step returns once the fault is proven on its victim, else the scenario is inconclusive."""

from behave import then, when

from support.faults.network import Cut
from support.faults.processes import Crash
from support.faults.victims import All, Exactly, FirstRunning, IdleFrontend, Others, Serving
from support.marks import marks
from support.run.runtime import Context


@when("the worker serving the request {kind:Fate} mid-answer")
@marks(needs="request", brings="fault", loses="kind")
def when_worker_breaks(context: Context, kind):
    """Hits the worker with the most requests in flight while the client receives its answer.

    Waits: until the fault is proven.
    Proof: the answer comes in, then the fault's own, see Failures.
    """
    context.world.answers.see_under_way()
    context.world.faults.strike(kind(Serving()))


@when("the worker serving the request {kind:Fate} after {tokens:Count} tokens")
@marks(needs="answer", brings="fault", loses="kind")
def when_worker_breaks_after(context: Context, kind, tokens):
    """Hits the worker with the most requests in flight once the client has that many tokens.

    Waits: until the client has them and the fault is proven.
    Proof: the fault's own, see Failures.
    """
    context.world.answers.await_tokens(context.world.clients.request, tokens)
    context.world.faults.strike(kind(Serving()))


@when("the worker serving the next request {kind:Fate} after {count:Count} {noun:Noun}")
@marks(needs="request", brings="fault", loses="kind")
def when_worker_breaks_after_requests(context: Context, kind, count, noun):
    """Hits the worker with the most requests in flight once that many requests have ended.

    Waits: until they have ended and the fault is proven.
    Proof: the fault's own, see Failures.
    """
    context.world.answers.await_answers(count)
    context.world.faults.strike(kind(Serving()))


@when("the worker serving the request {kind:Fate} before the first token")
@marks(needs="answer", brings="fault", loses="kind")
def when_worker_breaks_early(context: Context, kind):
    """Hits the worker that has the request while the client still waits for its first token.

    Waits: until the fault is proven.
    Proof: the client has no token, then the fault's own, see Failures.
    """
    context.world.answers.see_waiting()
    context.world.faults.strike(kind(Serving()))


@when("the {role:Role} worker serving the request {kind:Fate} mid-answer")
@marks(needs="request roles", brings="fault", loses="kind")
def when_role_breaks(context: Context, role, kind):
    """Hits the prefill or the decode worker with the most requests in flight while the client receives its answer.

    Waits: until the fault is proven.
    Proof: the answer comes in, then the fault's own, see Failures.
    """
    context.world.answers.see_under_way()
    context.world.faults.strike(kind(Serving(role)))


@when("the worker serving most of the requests {kind:Fate}")
@marks(needs="request", brings="fault", loses="kind")
def when_busiest_breaks(context: Context, kind):
    """Hits the worker with the most requests in flight.

    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    """
    context.world.faults.strike(kind(Serving()))


@when("{server:Server} returns")
@marks(needs="fault")
def when_server_returns(context: Context, server):
    """Undoes the last fault.

    Waits: until the victim runs again.
    Proof: the kernel's view of its process.
    """
    context.world.faults.recover(context.world.faults.last)


@when("{server:Server} {kind:Fate}")
@marks(brings="fault")
def when_server_breaks(context: Context, server, kind):
    """Hits the NATS server, or the first frontend that runs.

    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    """
    context.world.faults.strike(kind(FirstRunning(server)))


@when("packets between {server:Server} and Dynamo are {manner:Cut} for {time:Time}")
@marks(brings="fault")
def when_server_cut_off(context: Context, server, manner, time):
    """Packets between this server and every frontend and worker are dropped, rejected or reset, in both directions.

    Time: from the moment the fault is made; it ends by itself.
    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    Needs: namespaces, nftables
    """
    cut = Cut(All(server), others=Others("dynamo"), mode=manner, lease_seconds=time)
    context.world.faults.strike(cut)


@when("the idle frontend {kind:Fate}")
@marks(brings="fault")
def when_idle_frontend_breaks(context: Context, kind):
    """Hits the last of several frontends; no client is connected to it.

    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    """
    context.world.faults.strike(kind(IdleFrontend()))


@when("all workers {kind:Fates}")
@marks(brings="fault")
def when_all_break(context: Context, kind):
    """Hits one worker after the other.

    Waits: until every fault is proven.
    Proof: the fault's own, see Failures.
    """
    for worker in context.world.deployment.workers:
        context.world.faults.strike(kind(Exactly(worker)))


@when("a worker crashes")
@marks(brings="fault")
def when_any_worker_crashes(context: Context):
    """Kills the first worker; its registration stays until its lease runs out.

    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    """
    context.world.faults.strike(Crash(Exactly(context.world.deployment.workers[0])))


@when("a worker crashes while no request is in flight")
@marks(brings="fault")
def when_idle_worker_crashes(context: Context):
    """Kills the first worker while no request is in flight, so nobody can notice.

    Waits: until the fault is proven.
    Proof: the fault's own, see Failures.
    """
    context.world.faults.strike(Crash(Exactly(context.world.deployment.workers[0], felt=False)))


@then("the frontend still lists the dead worker")
@marks(needs="fault")
def then_still_listed(context: Context):
    """The dead worker is still registered, so new requests can meet it. If it is not, the scenario is inconclusive.

    Waits: no.
    Proof: the frontend's own list of workers.
    """
    context.world.fleet.expect_dead_listed(context.world.faults.worker_numbers)


@then("within {timeout:Time} the crashed worker runs again")
@marks(needs="fault")
def then_runs_again(context: Context, timeout):
    """The restart policy has started the victim again, and it answers.

    Time: from this sentence on.
    Waits: until the worker answers.
    Proof: a new process in the place of the one that was hit, and its metrics page.
    """
    context.world.lifetimes.expect_restarted(timeout)


@when("the hung worker resumes")
@marks(needs="fault")
def when_recovers(context: Context):
    """Undoes the last fault.

    Waits: until the worker runs again.
    Proof: the kernel's view of its process.
    """
    context.world.faults.recover(context.world.faults.last)


@then("within {timeout:Time} the fault has ended on its own")
@then("within {timeout:Time} the network has recovered on its own")
@marks(needs="fault")
def then_ended(context: Context, timeout):
    """Every fault has ended by itself. If one has not, the scenario is inconclusive.

    Time: from this sentence on.
    Waits: until every fault is over.
    Proof: the victims themselves: processes run, packets arrive.
    """
    context.world.faults.see_healed(timeout)


@when("the fault service and the node agent are killed")
@marks(needs="fault")
def when_injectors_die(context: Context):
    """Kills the programs that make the faults; the faults must still end.

    Waits: until both run again and know of the faults.
    Proof: the kernel's view of both, and their own list of faults.
    """
    context.world.injectors.kill()


@when("the node agent freezes")
@marks(needs="fault")
def when_agent_freezes(context: Context):
    """Stops the program that ends faults (SIGSTOP); the faults must still end.

    Waits: until the program is stopped.
    Proof: the kernel's view of its process.
    """
    context.world.injectors.freeze()
