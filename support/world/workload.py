"""The load of a scenario: what its clients ask for, what breaks meanwhile, and what all of it is held to."""

from collections.abc import Sequence
from typing import Any

from support.clock import now
from support.errors import Inconclusive, Mistake, NotKept, Since
from support.judge.checker import ValidationContext
from support.judge.checkers import run_check
from support.judge.figures import WINDOW_SECONDS
from support.requests.ledger import LedgerEntry
from support.requests.load_log import mark_phase, read_load
from support.requests.plan import Load
from support.scenarios import Failure, Scenario
from support.scenarios.model import SHAPE_KEYS
from support.world import runner
from support.world.background import Background, context_of
from support.world.clients import Clients
from support.world.faults import Faults
from support.world.stage import Stage

# A load that nobody ends is ended well within the time that a scenario has.
LONGEST_SECONDS = 240.0
# Windows enough to see users served again, and whether it stays so.
RECOVERY_SECONDS = 8.0
# A look that is late is taken at once.
LOOK_SECONDS = 0.5


class Workload:
    """The load of a scenario, and what came of it.

    Attributes:
        recovery_seconds: a load whose end no sentence names goes on for this long once the last failure is over.
    """

    def __init__(self, stage: Stage, clients: Clients, faults: Faults) -> None:
        self._stage, self._clients, self._faults = stage, clients, faults
        self.recovery_seconds = RECOVERY_SECONDS
        self._load = Load(requests_per_client=1)
        self._background: Background | None = None
        self._played: ValidationContext | None = None
        self._ends: float | None = None

    def begin(self, clients: int, duration: float | None, **load: Any) -> None:
        """Have clients ask from now on; returns once the first one is being answered.

        Args:
            duration: for how many seconds; None: for :attr:`recovery_seconds` after the last failure is over.
            load: further fields of :class:`support.requests.plan.Load`.

        Raises:
            Mistake: there is a load already.
            ValueError: the load cannot be.
            Inconclusive: nobody is answered.
        """
        if self._clients.loads:
            raise Mistake("a scenario has one load, and this is a second one; write as many clients as there are to be")
        self._load = Load(clients, None, duration or LONGEST_SECONDS, **load)
        self._ends = None if duration else self.recovery_seconds
        self._background = Background(self._stage, self._clients, self._load, self._ends)
        self._background.see_begun()

    @property
    def has_load(self) -> bool:
        """Whether clients keep asking, or have until their load was played to its end."""
        return self._background is not None

    def _running(self) -> Background:
        if self._background is None:
            raise Mistake("nobody asks for anything; begin with such as 'Given 4 clients keep asking for ...'")
        if self._played is not None:
            raise Mistake(
                "the load is over already; name all that strikes it in one table: 'When these failures strike'"
            )
        return self._background

    def _scenario(self, *failures: Failure) -> Scenario:
        shape = self._stage.deployment.shape
        rest = {name: getattr(shape, name) for name in SHAPE_KEYS}
        return Scenario("sentences", shape.engine, self._load, failures, rest, recovery_seconds=self._ends)

    def play(self, scenario: Scenario) -> ValidationContext:
        """Play a scenario to its end; see :func:`support.world.runner.play`.

        Raises:
            Mistake: there is a load already.
        """
        if self._clients.loads:
            raise Mistake(f"there is a load already; scenario {scenario.name!r} brings its own")
        self._played = runner.play(self._stage, self._clients, self._faults, scenario)
        return self._played

    def play_failure(self, *failures: Failure) -> ValidationContext:
        """Let these failures strike the running load, and play it to its end.

        Raises:
            Mistake: there is none, or it is over.
        """
        on = self._running(), self._stage, self._clients, self._faults
        self._played = runner.play_on(*on, self._scenario(*failures))
        return self._played

    @property
    def played(self) -> ValidationContext:
        """What came of the load; one that goes on is played to its end first.

        OVERFLOW is from the first fault on, RECOVERY from when the last one is over: one that nobody is to undo, a
        window after its proof, so that requests are due in OVERFLOW.

        Raises:
            Mistake: there is none.
        """
        if self._played is None:
            background, over_at = self._running(), None
            struck_at = background.disturbed(self._faults.made)
            if struck_at is not None:
                faults = [each for each in self._faults.made if each.injected_at >= struck_at]
                over_at = max(max(self._faults.over_at(each), each.proven_at + WINDOW_SECONDS) for each in faults)
                for phase, at in (("OVERFLOW", struck_at), ("RECOVERY", over_at)):
                    mark_phase(self._stage.folder, phase, at)
            background.end(background.run.began_at if over_at is None else over_at)
            self._played = context_of(self._stage, self._faults, self._scenario(), struck_at)
        return self._played

    @property
    def answers(self) -> Sequence[LedgerEntry]:
        """What became of each request of the load that no client gave up, once it has ended; none without a load."""
        return self.played.asked if self._clients.loads else []

    def after_end(self, seconds: float) -> Since:
        """From when ``seconds`` after the end of the load count; for a look that is late, from so long before now."""
        assert self.played
        ends = [read_load(each.folder).ended_at or now() for each in self._clients.loads]
        return Since(max(*ends, now() - seconds + LOOK_SECONDS), "the end of the load")

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

    def expect_in_recovery(self, seconds: float, name: str, **parameters: Any) -> None:
        """A checker holds for a RECOVERY that was played for ``seconds`` at least.

        Raises:
            AssertionError, Inconclusive: as for :meth:`expect_check`.
            Mistake: it was not, as the load was told to end before.
        """
        lasted = self.played.phase("RECOVERY")["seconds"] if "RECOVERY" in self.played.results["phases"] else 0.0
        if lasted < seconds:
            said = f"RECOVERY was over after {lasted:.1f} of {seconds:g} seconds, with the load"
            raise Mistake(said, write="the load without 'for', so that it goes on as long as RECOVERY has to")
        self.expect_check(name, phase="RECOVERY", **parameters)
