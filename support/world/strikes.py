"""What a sentence breaks: at once, at a moment of an answer, or when a trigger says so."""

from support import clock
from support.clock import now
from support.errors import Mistake
from support.faults.fault import LEASE_SECONDS
from support.faults.gpu import Strain
from support.faults.registry import KINDS
from support.faults.victims import VICTIMS, Serving
from support.scenarios import Failure
from support.world.answers import Answers
from support.world.clients import Clients
from support.world.faults import Faults
from support.world.stage import Stage
from support.world.workload import Workload


class Strikes:
    """Has the failure of a sentence strike when the sentence says so."""

    def __init__(self, stage: Stage, clients: Clients, answers: Answers, faults: Faults, workload: Workload) -> None:
        self._stage, self._clients, self._answers = stage, clients, answers
        self._faults, self._workload = faults, workload

    def strike(self, failure: Failure, moment: str = "") -> None:
        """Break something: with a trigger under a load, which is then played to its end, or once the single requests
        have come that far; without a trigger at once.

        Args:
            moment: what has to hold first: the victim is ``mid-answer``, or ``before the first token``.

        Raises:
            Mistake: it can never strike here, or nobody has asked for anything.
            Inconclusive: its moment was missed, or it was not proven.
        """
        if not failure.at_once and self._workload.has_load:
            self._workload.play_failure(failure)
            return
        failure.check_place(self._stage.deployment.shape)
        victim = VICTIMS[failure.target].victim
        if not failure.at_once:
            self._await(failure)
        elif moment == "before the first token":
            self._answers.see_waiting()
        elif moment or (issubclass(KINDS[failure.type], Strain) and isinstance(victim, Serving)):
            self._answers.see_under_way()  # the tokens of its answers show how slow a GPU is
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
            begun = min((each.entry.intended_at for each in list(self._clients.watched)), default=now())
            clock.sleep(max(0.0, begun + amount - now()))
        else:
            begin = "'Given 4 clients keep asking for ...'"
            raise Mistake(f"only a load has the phase {amount}, and there is none; begin with {begin}")
