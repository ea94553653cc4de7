"""Failures, at once or in mid-load: when each strikes, what is played, and what it is held to."""

from typing import Any

from support import clock
from support.clock import now
from support.errors import Inconclusive, Mistake, NotKept
from support.faults.fault import LEASE_SECONDS
from support.faults.registry import KINDS
from support.faults.victims import VICTIMS, Serving
from support.judge.checker import ValidationContext
from support.judge.checkers import run_check
from support.requests.plan import Load
from support.scenarios import Failure, Scenario
from support.world import runner
from support.world.answers import Answers
from support.world.clients import Clients
from support.world.faults import Faults
from support.world.stage import Stage

BEGIN = "'Given 4 clients keep asking for ...'"
SIZE = ("workers", "prefill_workers", "frontends", "etcd_members", "request_plane", "max_model_len")
"""What of the deployment says whether a failure can strike."""


class Workload:
    """The load of a scenario, what breaks under it or without one, and what came of it.

    Attributes:
        load: what the clients of :meth:`play_failure` ask for.
        recovery_seconds: how long that load goes on after the last failure; None: to its end.
    """

    def __init__(self, stage: Stage, clients: Clients, answers: Answers, faults: Faults) -> None:
        self._stage, self._clients, self._answers, self._faults = stage, clients, answers, faults
        self.load: Load | None = None
        self.recovery_seconds: float | None = None
        self._played: ValidationContext | None = None

    def play(self, scenario: Scenario) -> ValidationContext:
        """Play a scenario to its end; see :func:`support.world.runner.play`."""
        self._played = runner.play(self._stage, self._clients, self._faults, scenario)
        return self._played

    def play_failure(self, *failures: Failure) -> ValidationContext:
        """Play :attr:`load` on the deployment that there is, with these failures.

        Raises:
            Mistake: no load was named.
        """
        if self.load is None:
            raise Mistake(f"no load was named; begin with {BEGIN}")
        shape = self._stage.deployment.shape
        size = {name: getattr(shape, name) for name in SIZE}
        return self.play(
            Scenario("sentences", shape.engine, self.load, failures, size, recovery_seconds=self.recovery_seconds)
        )

    def strike(self, failure: Failure, moment: str = "") -> None:
        """Break something: with a trigger under :attr:`load`, which is played to its end, or once the single requests
        have come as far; without one at once.

        Args:
            moment: what has to be so first: the victim is in ``mid-answer``, or ``before the first token``.

        Raises:
            Mistake: it can never strike here, or nobody has asked for anything.
            Inconclusive: its moment was missed, or it was not proven.
        """
        if not failure.at_once and self.load is not None:
            self.play_failure(failure)
            return
        failure.check_place(self._stage.deployment.shape)
        victim = VICTIMS[failure.target].victim
        if not failure.at_once:
            self._await(failure)
        elif moment == "before the first token":
            self._answers.see_waiting()
        elif moment or (KINDS[failure.type].family == "gpu" and isinstance(victim, Serving)):
            self._answers.see_under_way()  # the tokens of its answers show what a GPU suffers
        self._faults.strike(failure.fault(victim, failure.duration_seconds or LEASE_SECONDS))

    def _await(self, failure: Failure) -> None:
        """Wait until the single requests of the scenario have come as far as the trigger says."""
        name, amount = failure.trigger
        self._clients.see_asked()
        if name == "trigger_after_tokens":
            self._answers.await_tokens(self._clients.request, amount)
        elif name == "trigger_after_requests":
            self._answers.await_answers(amount)
        elif name == "trigger_after_seconds":
            clock.sleep(max(0.0, self._clients.watched[0].entry.intended_at + amount - now()))
        else:
            raise Mistake(f"only a load has the phase {amount}, and none was named; begin with {BEGIN}")

    @property
    def played(self) -> ValidationContext:
        """What came of the scenario that was played.

        Raises:
            Mistake: none was.
        """
        if self._played is None:
            raise Mistake("no load has run to its end yet, so there is nothing to judge")
        return self._played

    def expect_check(self, name: str, **parameters: Any) -> None:
        """A checker holds for what was played.

        Raises:
            AssertionError: it does not.
            Inconclusive: the run has nothing that it could hold for, or the client lagged.
        """
        result = run_check(name, self.played, parameters)
        if result.nothing:
            raise Inconclusive(f"{name.replace('_', ' ')}: {result.message}")
        if result.seen:
            raise NotKept(result.seen)
