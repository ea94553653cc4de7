"""The load of a scenario: it begins with its sentence and goes on, whatever breaks, until somebody asks of it."""

from collections.abc import Sequence

from support import activity, slowness
from support.clock import now
from support.errors import Inconclusive
from support.faults.fault import ProvenFault
from support.judge.checker import ValidationContext
from support.observe.footprint import FootprintRecorder
from support.requests.load import Progress
from support.requests.load_log import mark_phase
from support.requests.plan import Load
from support.scenarios import Scenario
from support.scenarios.record import FOOTPRINT, keep
from support.world.clients import REQUEST_SECONDS, Clients
from support.world.faults import Faults
from support.world.stage import Stage

# Longer than any load; what ends a wait is the end of the load.
NEVER = 86400.0
COUNTERS = {
    "requests_total": "frontend_requests",
    "migrations_total": "frontend_migrations",
    "cancellations_total": "frontend_cancellations",
}
"""Name in the context's metrics -> key of the release's metric names."""


class Background:
    """A load from its begin to its end; the phase STANDARD begins with it.

    Args:
        recovery_seconds: how long it goes on once the last failure is over; None: until ``load`` says.

    Attributes:
        run: its clients.
    """

    def __init__(self, stage: Stage, clients: Clients, load: Load, recovery_seconds: float | None) -> None:
        self._stage, self._clients, self._load, self._recovery_seconds = stage, clients, load, recovery_seconds
        self.run = clients.start_load(load, "load")
        self._footprint = FootprintRecorder(self._suite_pids, stage.folder / FOOTPRINT, lambda: self.run.ended)
        mark_phase(stage.folder, "STANDARD", self.run.began_at)

    def _suite_pids(self) -> dict[str, int]:
        """The suite's own processes: those that live as long as the scenario, and the clients of its load."""
        pids = {f"{self.run.folder.name} client {i}": pid for i, pid in enumerate(self.run.pids)}
        return self._stage.target.injectors.pids() | pids

    def see_begun(self) -> None:
        """Wait for its first token; where answers come in one body, until a request is sent.

        Raises:
            Inconclusive: none comes within :data:`support.world.clients.REQUEST_SECONDS`.
        """
        timeout = REQUEST_SECONDS * slowness.factor()
        with activity.waiting("the load has begun", now() + timeout):
            begun = self.run.wait_for(self._begun, timeout)
        if not begun:
            why = "its clients have ended" if self.run.ended else f"waited {timeout:.0f} s"
            raise Inconclusive(f"the load has not begun, for no client has got a token ({why}); see {self.run.folder}")

    def _begun(self, seen: Progress) -> bool:
        return seen.tokens > 0 or seen.ended > 0 or (seen.sent > 0 and not self._load.stream)

    def disturbed(self, faults: Sequence[ProvenFault]) -> float | None:
        """When the first of these faults struck since the load began; None: none has."""
        return min((each.injected_at for each in faults if each.injected_at >= self.run.began_at), default=None)

    def end(self, over_at: float) -> None:
        """End the load, and see all loads end.

        Args:
            over_at: when the last failure is over, which may not be yet.
        """
        if self._recovery_seconds is not None:
            with activity.waiting("RECOVERY has been long enough"):
                self.run.wait_for(lambda _: False, over_at + self._recovery_seconds - now())
            self.run.stop()
        with activity.waiting("the load ends"):
            self.run.wait_for(lambda _: False, NEVER)
        self.let_go()  # before the ledgers are read, which takes memory for a moment
        for load in self._clients.loads:
            load.wait()

    def let_go(self) -> None:
        """Look at the suite's own processes no more."""
        self._footprint.close()


def context_of(stage: Stage, faults: Faults, scenario: Scenario, struck_at: float | None) -> ValidationContext:
    """What came of a load that has ended, for checkers to judge it.

    Args:
        struck_at: when something struck that is no fault; None: nothing did.
    """
    counted = {name: key for name, key in COUNTERS.items() if key in stage.release.metrics}
    metrics = {name: stage.fleet.frontend_count(key) for name, key in counted.items()}
    metrics["ongoing_migrations_total"] = stage.fleet.frontend_count(
        "frontend_migrations", migration_type="ongoing_request"
    )
    return keep(
        stage.folder,
        scenario,
        metrics=metrics,
        deployment=stage.deployment.topology(),
        affected_workers=sorted(faults.victims),
        struck_at=min((fault.injected_at for fault in faults.made), default=struck_at),
        overload_status=stage.release.overload_status,
    )
