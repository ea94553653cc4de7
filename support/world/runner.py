"""Plays a scenario in a world: load, failures when their triggers say so, phases on one clock, then what came of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from support import activity, clock
from support.amounts import amount
from support.clock import now
from support.contract.deployment import Node
from support.errors import Inconclusive, Mistake, Since
from support.faults.fault import ProvenFault
from support.faults.processes import Terminate
from support.faults.victims import VICTIMS, Exactly
from support.judge.checker import ValidationContext
from support.judge.figures import WINDOW_SECONDS
from support.observe.health import numbers
from support.observe.waiting import until
from support.observe.workers import requests_served, worker_id
from support.requests.load import LoadRun, Progress
from support.requests.load_log import mark_phase
from support.scenarios import chaos
from support.scenarios.model import LOAD_TYPES, LONGEST_SECONDS, Failure, Scenario
from support.seen import ProcessThere
from support.world.background import NEVER, Background, context_of
from support.world.clients import Clients
from support.world.faults import Faults
from support.world.stage import Stage

# A worker that is shut down may finish what it has; then it has to start again and be listed.
DRAIN_SECONDS, BACK_SECONDS = 40.0, 60.0
# Given requests for that long, with no pause that a load which keeps asking would not explain, a worker serves again.
SERVING_SECONDS, PAUSE_SECONDS = 3.0, 2.0
# The runner ends a fault itself; its lease is for the case that it cannot.
LEASE_MARGIN_SECONDS = 60.0


class Steady:
    """For how long a count has kept growing."""

    def __init__(self) -> None:
        self._count: float | None = None
        self._since = self._last = 0.0

    def look(self, count: float | None, at: float) -> float:
        """Seconds from the first growth to the last one, with no pause of :data:`PAUSE_SECONDS` between them or since;
        0 without. Pass what is counted at ``at``, None when nothing could be counted.
        """
        grown = count is not None and self._count is not None and count > self._count
        if at - self._last > PAUSE_SECONDS:
            self._since = at
        if grown:
            self._last = at
        self._count = count
        return max(0.0, self._last - self._since)


def play(stage: Stage, clients: Clients, faults: Faults, scenario: Scenario) -> ValidationContext:
    """Play ``scenario``; makes the deployment unless there is one already.

    Raises:
        Mistake: the scenario cannot be; nothing was started.
        Unsupported: the release cannot do it.
        Inconclusive: a failure did not strike, or was not proven.
    """
    wanted = {"request_plane": stage.settings.request_plane} | dict(scenario.deployment)
    replace(scenario, deployment=wanted).check()
    if not stage.deployed:
        stage.deploy(engine=scenario.backend, **wanted)
    shape = stage.deployment.shape
    for name, value in {"engine": scenario.backend, **scenario.deployment}.items():
        if getattr(shape, name) != value:
            raise Mistake(
                f"scenario {scenario.name!r} needs {name} {value!r}, but the deployment has "
                f"{getattr(shape, name)!r}; choose a scenario for this deployment, or start none before it"
            )
    if scenario.busy_percent is not None:
        stage.set_busy_threshold(scenario.busy_percent)
    background = Background(stage, clients, scenario.load, scenario.recovery_seconds)
    return play_on(background, stage, clients, faults, scenario)


def play_on(
    background: Background, stage: Stage, clients: Clients, faults: Faults, scenario: Scenario
) -> ValidationContext:
    """Play the failures of ``scenario`` on its load, which goes on already, to its end.

    Raises:
        Mistake, Inconclusive: as for :func:`play`.
    """
    try:
        scenario.check()
        return _Play(stage, clients, faults, scenario).run(background)
    finally:
        background.let_go()


class _Play:
    def __init__(self, stage: Stage, clients: Clients, faults: Faults, scenario: Scenario) -> None:
        self._stage, self._clients, self._faults, self._scenario = stage, clients, faults, scenario
        self._changed = clock.condition()
        self._phase = "STANDARD"
        self._struck_at: float | None = None
        self._over: set[int] = set()
        self._choosing = clock.lock()
        self._taken: list[Node] = []
        self._problems: list[BaseException] = []
        self._main: LoadRun

    def run(self, background: Background) -> ValidationContext:
        failures = self._scenario.failures
        self._main = background.run
        if earlier := background.disturbed(self._faults.made):
            self._enter("OVERFLOW", earlier)
        threads = [clock.thread(self._fail, (index, each), daemon=False) for index, each in enumerate(failures)]
        for thread in threads:
            thread.start()
        with activity.waiting("the failures are over"):
            for thread in threads:
                thread.join()
        if self._problems:
            first, *others = self._problems
            for each in others:
                self._stage.events.add("note", "", f"another failure did not strike as it should: {each}")
            raise first
        background.end(now())
        return context_of(self._stage, self._faults, self._scenario, self._struck_at)

    def _fail(self, index: int, failure: Failure) -> None:
        try:
            if not self._await_trigger(failure):
                raise Inconclusive(f"the failure never struck: {failure.describe()}; the load had ended by then")
            self._enter("OVERFLOW")
            self._strike(failure)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the scenario is played
            self._problems.append(error)
        with self._changed:
            self._over.add(index)
        late = [i for i, each in enumerate(self._scenario.failures) if each.trigger_in_phase == "RECOVERY"]
        if self._over >= set(range(len(self._scenario.failures))) - set(late):
            try:
                self._enter("RECOVERY")
            except OSError as error:  # the mark of the phase; a thread that ends in silence would hide it
                self._problems.append(error)

    def _enter(self, phase: str, at: float | None = None) -> None:
        with self._changed:
            order = ("STANDARD", "OVERFLOW", "RECOVERY")
            if order.index(phase) > order.index(self._phase):
                self._phase, at = phase, now() if at is None else at
                mark_phase(self._stage.folder, phase, at)
                if self._struck_at is None:
                    self._struck_at = at
            self._changed.notify_all()

    def _await_trigger(self, failure: Failure) -> bool:
        name, amount = failure.trigger
        if name == "trigger_in_phase":
            with self._changed:
                while self._phase != amount and not self._main.ended and not self._problems:
                    self._changed.wait(0.1)
                return bool(self._phase == amount)
        if name == "trigger_after_seconds":
            self._main.wait_for(lambda _: False, self._main.began_at + amount - now())
            return not self._main.ended
        conditions: dict[str, Callable[[Progress], bool]] = {
            "trigger_after_requests": lambda seen: seen.ended >= amount,
            "trigger_after_tokens": lambda seen: seen.tokens >= amount,
        }
        return self._main.wait_for(conditions[name], NEVER)

    def _strike(self, failure: Failure) -> None:
        if failure.type in LOAD_TYPES:
            self._stage.events.add("fault", "client", f"{failure.type.replace('_', ' ')}: a second load begins")
            wanted = failure.extra(self._scenario.load)
            extra = self._clients.start_load(wanted, f"{failure.type}-{len(self._clients.loads)}", phase="OVERFLOW")
            seen = extra.wait_for(lambda progress: progress.sent > 0, NEVER)
            if not seen:
                raise Inconclusive("the second load sent nothing")
            self._stage.events.add("proof", "client", f"{failure.type.replace('_', ' ')}: its requests are in flight")
            extra.wait()
            return
        if failure.type == "rolling_restart":
            for worker in self._stage.deployment.workers:
                self._restart(worker)
            return
        if failure.type == "random":
            self._strike_at_random(failure)
            return
        with self._victims(failure) as victims:
            faults = self._inject(failure, *victims)
            if failure.duration_seconds is None:
                # It is over once it is done; OVERFLOW lasts until requests were due in it, or nobody could judge it.
                self._main.wait_for(lambda _: False, WINDOW_SECONDS)
            else:
                self._main.wait_for(lambda _: False, failure.duration_seconds)
                self._faults.recover(*faults)

    def _strike_at_random(self, failure: Failure) -> None:
        """One fault after the other, each proven, undone, and the deployment whole again before the next one."""
        assert failure.seed is not None
        assert failure.duration_seconds is not None
        deadline = now() + failure.duration_seconds
        self._stage.events.add("note", "", f"random faults under seed {failure.seed}")
        for drawn in chaos.faults(failure.seed, failure.kinds):
            if now() >= deadline or self._main.ended:
                return
            victim = self._stage.deployment.workers[drawn.victim % len(self._stage.deployment.workers)]
            number, before = worker_id(victim), self._stage.deployment.life(victim)
            faults, struck_at = self._inject(drawn.failure, victim), now()
            assert drawn.failure.duration_seconds is not None
            self._main.wait_for(lambda _: False, drawn.failure.duration_seconds)
            self._faults.recover(*faults)
            if self._stage.deployment.life(victim) != before:
                self._await_new_worker(victim, number)
            self._await_service(victim)
            every = failure.every_seconds
            pause = drawn.pause_seconds if every is None else max(0.0, struck_at + every - now())
            self._main.wait_for(lambda _: False, pause)

    def _await_service(self, worker: Node) -> None:
        """A worker that is listed and sound may still be passed over: the frontend avoids for 5 s whom it could not
        reach, and once more when it then tries a connection that has died meanwhile. With the other one lost meanwhile
        there would be nobody to serve.
        """
        steady = Steady()

        def passed_over() -> str | None:
            count = requests_served(worker, self._stage.release.metrics)
            seconds = steady.look(count, now())
            if self._main.ended or seconds >= SERVING_SECONDS:
                return None
            if count is None:
                return "it does not answer"
            return f"{amount(count, 'request')}, new ones for {seconds:.1f} s only"

        what = f"{worker.name} is given requests for {SERVING_SECONDS:g} s without a pause"
        until(passed_over, BACK_SECONDS, what, Since(now(), "the end of its fault"))

    def _inject(self, failure: Failure, *victims: Node) -> list[ProvenFault]:
        duration = failure.duration_seconds
        lease = LONGEST_SECONDS if duration is None else min(LONGEST_SECONDS, duration + LEASE_MARGIN_SECONDS)
        felt = VICTIMS[failure.target].victim.felt
        return self._faults.strike(failure.fault(Exactly(victims[0], victims[1:], felt=felt), lease))

    @contextmanager
    def _victims(self, failure: Failure) -> Iterator[list[Node]]:
        """Whom a failure hits; no other one hits them until this one is over."""
        with self._choosing:
            nodes = self._choose(failure)
            self._taken += nodes
        try:
            yield nodes
        finally:
            with self._choosing:
                self._taken = [each for each in self._taken if each not in nodes]

    def _choose(self, failure: Failure) -> list[Node]:
        try:
            return self._faults.find(VICTIMS[failure.target].victim, but=self._taken)
        except Inconclusive as error:
            raise Inconclusive(f"{failure.describe()}: {error}") from None

    def _restart(self, worker: Node) -> None:
        """Shut a worker down in good order, start it again, and see it listed again."""
        number, before = worker_id(worker), self._stage.deployment.life(worker)
        [fault] = self._faults.strike(Terminate(Exactly(worker)))

        def alive() -> list[ProcessThere] | None:
            seen = self._stage.target.witness.state(before)
            # The target has to have noticed, too: it starts nothing that it believes to run.
            believed = self._stage.deployment.life(worker)
            running = believed.state == "running" and believed == before
            if seen == "gone" and not running:
                return None
            state = believed.state if seen == "gone" else seen
            return [ProcessThere(worker.name, worker.role, state, now() - fault.injected_at)]

        until(alive, DRAIN_SECONDS, f"{worker.name} has shut down", Since(now(), "its shutdown"))
        if not self._stage.deployment.life(worker).restarts > before.restarts:
            self._faults.recover(fault)

        self._await_new_worker(worker, number)

    def _await_new_worker(self, worker: Node, before: str | None) -> None:
        """Wait until the frontend lists the worker by what Dynamo calls it now, which is not what it was called
        ``before``: its old registration may outlive it.
        """

        def unlisted() -> str | None:
            number, listed = worker_id(worker), numbers(self._stage.deployment.frontend_url)
            if number is None or number == before:
                return f"{worker.name} is {number}"
            return None if number in (listed or ()) else f"{number} is not in {listed}"

        until(unlisted, BACK_SECONDS, f"the frontend lists the new {worker.name}", Since(now(), "its start"))
