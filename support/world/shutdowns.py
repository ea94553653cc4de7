"""What becomes of a worker that is shut down: it finishes its requests, or hands them over, and exits."""

from collections.abc import Sequence

from support import clock
from support.clock import now
from support.contract.deployment import Deployment, Life
from support.contract.target import Witness
from support.errors import Inconclusive, Mistake, NotKept, Since, TooLate
from support.events import ENDED, EventLog
from support.faults.fault import ProvenFault
from support.faults.processes import Terminate
from support.observe.fleet import ARRIVAL_SECONDS, Fleet
from support.observe.waiting import PERIOD_SECONDS, prove, until
from support.seen import Moved, NotHandedOver, ProcessEnd, ProcessLeft, ProcessThere, told
from support.world.takeovers import Takeovers

# With nothing to finish a worker leaves within 0.1 s, a frontend that waits for its clients within 5 s, and a worker
# that hands over once its grace period is over, which is 5 s where nobody says otherwise.
LEAVE_SECONDS = 10.0


class Shutdowns:
    """Looks at the ends of a deployment's processes, and at who has worked for whom.

    Args:
        deployment: knows how its processes ended; ``witness`` sees whether they are there.
        fleet: counts migrations; ``takeovers``: who has had which request.
    """

    def __init__(self, deployment: Deployment, witness: Witness, fleet: Fleet, takeovers: Takeovers) -> None:
        self._deployment, self._witness, self._fleet, self._takeovers = deployment, witness, fleet, takeovers

    def expect_clean_exits(self, lives: Sequence[Life]) -> None:
        """These lives, which are over, have ended with exit status 0: neither with another one nor by a signal.

        Raises:
            AssertionError: one has not.
            Inconclusive: nobody knows how one has ended.
        """

        def unknown() -> str | None:
            missing = sorted({life.node for life in lives} - set(self._ends(lives)))
            return f"it is not known how these ended: {', '.join(missing)}" if missing else None

        prove(unknown, ARRIVAL_SECONDS, "all of them were seen to end", "how processes ended is unknown")
        ends = self._ends(lives)
        roles = {node.name: node.role for node in self._deployment.nodes}
        unclean = [ProcessEnd.of(name, roles.get(name, ""), code) for name, (_, code) in ends.items() if code]
        if unclean:
            raise NotKept(*unclean, message=f"{told(unclean)}; expected a clean end with status 0")

    def _ends(self, lives: Sequence[Life]) -> dict[str, tuple[float, int]]:
        """Name of the node -> when that life of it ended, and its exit code, where somebody knows it."""
        wanted = {(life.node, life.identity) for life in lives}
        return {
            each.node: (each.at, each.exit_code)
            for each in self._deployment.changes()
            if each.state in ENDED and each.exit_code is not None and (each.node, each.identity) in wanted
        }

    def expect_left(self, fault: ProvenFault, timeout: float, since: Since | None = None) -> None:
        """The victim's process has ended with exit status 0, ``timeout`` seconds after ``since`` (its fault, if None)
        at the latest.

        Raises:
            AssertionError: it has not, or not cleanly.
        """
        name, victim, since = fault.node.name, _victim(fault), since or Since(fault.injected_at, "its fault")

        def there() -> list[ProcessThere] | None:
            state = self._witness.state(victim)
            return None if state == "gone" else [ProcessThere(name, fault.node.role, state, now() - since.at)]

        # Who looks late, because the answer took its time, still sees when it left.
        if now() < since.at + timeout:
            until(there, timeout, f"{name} has exited", since)
        elif still := there():
            raise TooLate(f"{name} has exited; last seen: {told(still)}", timeout, since, now(), still)
        self.expect_clean_exits([victim])
        ended_at = self._ends([victim])[name][0]
        if ended_at > since.at + timeout:
            left = ProcessLeft(name, fault.node.role, ended_at - since.at, timeout)
            raise TooLate(left.words, timeout, since, ended_at, [left])

    def expect_finished(self, fault: ProvenFault, finished_at: float, timeout: float) -> None:
        """The victim, which was shut down, has finished its requests and exited within ``timeout`` seconds of
        that: nothing was moved, no other worker has had a watched request or produced anything, and its process ended
        with exit status 0.

        Args:
            finished_at: when the last answer that was in flight ended.

        Raises:
            AssertionError: it has not.
        """
        since = Since(fault.injected_at, "its fault")
        if finished_at > since.at:
            since = Since(finished_at, "the end of the last answer")
        self.expect_left(_told(fault), timeout, since)
        self._expect_nothing_moved()
        self._takeovers.expect_no_takeover([fault.node.name])

    def expect_handed_over(self, fault: ProvenFault, timeout: float) -> None:
        """The victim, which was shut down, has handed over its requests and exited within ``timeout`` seconds: what was
        in flight was moved, another worker has had the very request and written of it, and its process ended with exit
        status 0.

        Raises:
            AssertionError: it has not.
        """
        self.expect_left(_told(fault), timeout)
        if not self._moved():
            raise NotKept(NotHandedOver(fault.node.name, fault.node.role))
        self._takeovers.expect_takeover([fault])

    def expect_drained(self, faults: Sequence[ProvenFault], timeout: float) -> None:
        """Every worker that was shut down has finished its requests and exited within ``timeout`` seconds of that:
        its process ended with exit status 0, and no request that was in flight was moved.

        Raises:
            AssertionError: one has not, or something was moved.
            Inconclusive: none was shut down.
        """
        told = [fault for fault in faults if isinstance(fault.fault, Terminate)]
        if not told:
            raise Inconclusive("no worker was shut down")
        for fault in told:
            self.expect_left(fault, timeout)
        self._expect_nothing_moved()

    def see_gone(self, faults: Sequence[ProvenFault], events: EventLog) -> None:
        """With nothing in flight any more, give those that were shut down :data:`LEAVE_SECONDS` for it, and note
        who stays; that is for the judge.
        """
        since = now()
        for fault in faults:
            if not isinstance(fault.fault, Terminate):
                continue
            victim = _victim(fault)
            while self._witness.state(victim) == "alive" and now() - since < LEAVE_SECONDS:
                clock.sleep(PERIOD_SECONDS)
            if self._witness.state(victim) == "alive":
                seconds = now() - since
                text = f"shutting down: still there after {seconds:.1f} s with nothing in flight"
                events.add("state", fault.node.name, text, state="leaving", seconds=seconds)

    def _moved(self) -> float:
        return self._fleet.frontend_count("frontend_migrations", migration_type="ongoing_request")

    def _expect_nothing_moved(self) -> None:
        if moved := self._moved():
            raise NotKept(Moved(moved))


def _told(fault: ProvenFault) -> ProvenFault:
    if not isinstance(fault.fault, Terminate):
        raise Mistake(f"the last fault is {fault.kind} of {fault.node.name}; nobody was shut down")
    return fault


def _victim(fault: ProvenFault) -> Life:
    if fault.life is None:
        raise Mistake(f"{fault.kind} of {fault.node.name} has hit no process")
    return fault.life
