"""Sentences about faults. A step returns once the fault is proven on its victim, else the scenario is inconclusive."""

from behave import then, when

from support.marks import marks
from support.run.runtime import Context
from support.scenarios import Failure
from support.words import one_time


@when("{server:Server} returns")
@marks(needs="fault")
def when_server_returns(context: Context, server):
    """Undoes the last fault. There are other ways back, see [Words](#words).

    Waits: until the victim runs again.
    Proof: the kernel's view of its process.
    Also: bring back, restore, recover, start again.
    """
    context.world.faults.recover(context.world.faults.last)


@then("the frontend still lists the dead worker")
@marks(needs="fault")
def then_still_listed(context: Context):
    """The dead worker is still registered, so new requests can meet it. If it is not, the scenario is inconclusive.

    Waits: no.
    Proof: the frontend's own list of workers.
    Also: stale, registered.
    """
    context.world.fleet.expect_dead_listed(context.world.faults.worker_numbers)


@then("within {timeout:Time} the crashed worker runs again")
@marks(needs="fault")
def then_runs_again(context: Context, timeout):
    """The restart policy has started the victim again, and it answers.

    Time: from this sentence on.
    Waits: until the worker answers.
    Proof: a new process in the place of the one that was hit, and its metrics page.
    Also: restart policy, respawn, back.
    """
    context.world.lifetimes.expect_restarted(timeout)


@when("the hung worker resumes")
@marks(needs="fault")
def when_recovers(context: Context):
    """Undoes the last fault, a hang. There are other ways back, see [Words](#words).

    Waits: until the worker runs again.
    Proof: the kernel's view of its process.
    Also: unfreeze, continue, go on, SIGCONT, recover.
    """
    context.world.faults.recover(context.world.faults.last)


@then("within {timeout:Time} the fault has ended on its own")
@marks(needs="fault")
def then_ended(context: Context, timeout):
    """Every fault has ended by itself. If one has not, the scenario is inconclusive.

    Time: from this sentence on.
    Waits: until every fault is over.
    Proof: the victims themselves: processes run, packets arrive.
    Also: recovered, healed, the network has recovered.
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


@when("a fault on a worker that does not exist is ordered")
@marks(brings="order")
def when_ordered_on_nobody(context: Context):
    """The fault service is told to crash a worker that no deployment has.

    Waits: until the fault service answers.
    Proof: its answer.
    """
    context.world.bystanders.order_on_nobody()


@then("the order is refused, and the answer names the workers that exist")
@marks(needs="order")
def then_refused(context: Context):
    """The fault service has refused the order, which is no fault then, and has named every worker of the deployment.

    Waits: no.
    Proof: the fault service's answer, and its own list of faults.
    """
    context.world.bystanders.expect_refused()


@then("no other worker is touched")
def then_none_touched(context: Context):
    """Every worker that no fault was for lives the life that it had when the deployment was ready, its GPU is sound,
    and packets between it and the frontend arrive. Every request that such workers alone were given has a whole answer.

    Waits: until the requests in flight have ended.
    Proof: the witness, who looks at processes, packets and GPUs and never asks who broke them; and the record of every
        request.
    Also: blast radius, isolated, unaffected.
    """
    context.world.bystanders.expect_untouched()


def breaking(trigger, victim, kind, time, **_):
    """The failure that the sentence below speaks of."""
    return Failure(kind.failure, victim, **trigger, duration_seconds=time)


# Last in this file: its words fit wherever a victim begins a sentence.
@when("{trigger:Begin}{victim:Victim} {kind:Fate}{moment:Moment}{time:Lasting}")
@marks(brings="fault", loses="kind", check=one_time, strikes=breaking)
def when_breaks(context: Context, moment, **words):
    """The victim crashes (SIGKILL), is shut down (SIGTERM), hangs (SIGSTOP) or is restarted: at once, or when the
    trigger says so. It stays so until a sentence undoes it, or for this time.

    Time: of the trigger, from the first request; of the fault, from when it is made, or under a load from its proof.
    Waits: until the fault is proven; with a trigger under a load, until the load has ended.
    Proof: the fault's own, see Failures; for "mid-answer" that the answer comes in, for "before the first token" that
        the client has none.
    Also: crash: kill, die, lose a pod, out of memory; shut down: stop, terminate, drain, delete a pod, scale
        down; hang: freeze, pause, stall, stuck, unresponsive; restart: bounce, reboot.
    """
    context.world.strikes.strike(breaking(**words), moment)
