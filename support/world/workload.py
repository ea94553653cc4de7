"""Loads with failures in them: what is played, and what it is held to."""

from typing import Any

from support.errors import Inconclusive, Mistake, NotKept
from support.judge.checker import ValidationContext
from support.judge.checkers import run_check
from support.requests.plan import Load
from support.scenarios import Failure, Scenario
from support.world import runner
from support.world.clients import Clients
from support.world.faults import Faults
from support.world.stage import Stage


class Workload:
    """The load of a scenario, and what came of it.

    Attributes:
        load: what the clients of :meth:`play_failure` ask for.
        recovery_seconds: how long that load goes on after the last failure; None: to its end.
    """

    def __init__(self, stage: Stage, clients: Clients, faults: Faults) -> None:
        self._stage, self._clients, self._faults = stage, clients, faults
        self.load: Load | None = None
        self.recovery_seconds: float | None = None
        self._played: ValidationContext | None = None

    def play(self, scenario: Scenario) -> ValidationContext:
        """Play a scenario to its end; see :func:`support.world.runner.play`."""
        self._played = runner.play(self._stage, self._clients, self._faults, scenario)
        return self._played

    def play_failure(self, *failures: Failure) -> ValidationContext:
        """Play :attr:`load` on the scenario's deployment, with these failures.

        Raises:
            Mistake: no load was named.
        """
        if self.load is None:
            raise Mistake("no load was named; begin with 'Given 4 clients keep asking for ...'")
        shape = self._stage.deployment.shape
        size = {name: getattr(shape, name) for name in ("workers", "prefill_workers", "max_model_len")}
        return self.play(
            Scenario("sentences", shape.engine, self.load, failures, size, recovery_seconds=self.recovery_seconds)
        )

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
