"""The answers that a scenario is about: how far they have come, and what became of them."""

from collections.abc import Callable

from support import activity, slowness
from support.amounts import amount
from support.clock import now
from support.contract.deployment import Node
from support.errors import Inconclusive, Mistake, NotKept, Since, TooLate
from support.faults.fault import ProvenFault
from support.judge.checkers import WORKER_ROLES
from support.judge.expectations import expect_clean_error, expect_complete
from support.judge.lag import own_lag, see_keen
from support.judge.rules.lookup import is_answer_to
from support.observe import journal
from support.observe.fleet import ARRIVAL_SECONDS
from support.observe.routes import given_to
from support.observe.waiting import prove
from support.observe.workers import in_flight
from support.requests.client import Pending
from support.requests.ledger import LedgerEntry
from support.requests.load_log import read_load
from support.requests.outcomes import describe, outcome
from support.seen import Handed, TooSlow
from support.world.clients import FIRST_TOKENS, REQUEST_SECONDS, Clients
from support.world.faults import Faults
from support.world.stage import Stage
from support.world.workload import Workload

AS_FAST, AS_FAST_SECONDS = 2.0, 0.1
"""A request is as fast as others that took no less than half as long, or a tenth of a second less."""
TIMES: dict[str, Callable[[LedgerEntry], float]] = {
    "first-token": lambda entry: entry.token_times[0] - entry.intended_at,
    "end": lambda entry: (entry.ended_at or now()) - entry.intended_at,
}
"""Part of a whole answer -> how long its client waited for it."""


class Answers:
    """The answers to the watched requests of a scenario.

    ``see_...`` makes sure that a scenario is where its sentence says, and raises :class:`Inconclusive` where it is not;
    ``expect_...`` is what Dynamo has promised, and raises an ``AssertionError``.
    """

    def __init__(self, stage: Stage, clients: Clients, faults: Faults, workload: Workload) -> None:
        self._stage, self._clients, self._faults, self._workload = stage, clients, faults, workload

    def one(self, pending: Pending | None = None) -> LedgerEntry:
        """The request that the scenario is about, or another one, once it has ended.

        Raises:
            Mistake: there is none, or more than one.
        """
        self._stage.let_go()
        pending = pending or self._clients.request
        with activity.waiting(f"request {pending.entry.number} ends"):  # it has a deadline of its own
            entry = pending.join().entry
        entry.holds = self._holds_of(entry)
        return entry

    def _holds_of(self, entry: LedgerEntry) -> list[list[float]]:
        """Spells in which workers held an answer back; one that died holding it did so until it was struck."""
        notes = [note for note in journal.read(self._stage.logs) if is_answer_to(entry, note["request_id"])]
        struck = {fault.node.name: fault.struck_at for fault in self._faults.made}
        ends = [(hold["from"], hold["until"] or struck.get(note["worker"])) for note in notes for hold in note["holds"]]
        return [[since, until] for since, until in ends if until is not None and until > since]

    def all(self) -> list[LedgerEntry]:
        """The watched requests and those of the load that nobody cancelled, once they have ended.

        Raises:
            Mistake: there is none, so a sentence about all of them would say nothing.
        """
        self._clients.see_sent()
        entries = [self.one(pending) for pending in self._clients.watched if pending.entry.cancelled_at is None]
        entries += self._workload.answers
        if not entries:
            raise Mistake("no request was left to judge, so the sentence would prove nothing")
        return entries

    def _had(self, fault: ProvenFault, entry: LedgerEntry) -> bool:
        """Whether the victim of a fault had a request when it was hit. A frontend has them all; one that failed before
        any worker named it is taken for the victim's.
        """
        if fault.node.role not in ("frontend", *WORKER_ROLES):
            return False
        done = entry.token_times[-1:] if outcome(entry).kind == "complete" else []
        over_at = done[0] if done else entry.ended_at or now()
        if not (entry.sent_at or entry.intended_at) <= fault.struck_at <= over_at:
            return False
        names = given_to(entry, self._stage.deployment.workers, self._stage.logs)
        return fault.node.role == "frontend" or fault.node.name in names or not (names or done)

    def _parted(self) -> tuple[list[LedgerEntry], list[LedgerEntry]]:
        """:meth:`all`, those first that the victim of a fault had when it was hit, then the others."""
        parts: tuple[list[LedgerEntry], list[LedgerEntry]] = [], []
        for entry in self.all():
            parts[not any(self._had(fault, entry) for fault in self._faults.made)].append(entry)
        return parts

    def others(self) -> list[LedgerEntry]:
        """The requests that no client gave up and that no victim of a fault had when it was hit, once they have ended.

        Raises:
            Inconclusive: there is none, or no request is any other than these.
            Mistake: as for :meth:`all`.
        """
        hit, others = self._parted()
        if not hit and all(pending.entry.cancelled_at is None for pending in self._clients.watched):
            raise Inconclusive("no client gave up and no victim had a request, so there is none to be other than")
        if not others:
            raise Inconclusive(f"there is no other request: all {len(hit)} were with the victim")
        return others

    def expect_only_hit_fail(self) -> None:
        """The requests that a victim of a fault had when it was hit end in a clean error each, all others are whole.

        Raises:
            AssertionError: they do not.
            Inconclusive: no victim had one.
        """
        hit, others = self._parted()
        if not hit:
            raise Inconclusive("no victim had a request when it was hit, so none has to fail")
        for entry in hit:
            expect_clean_error(entry)
        for entry in others:
            expect_complete(entry, entry.max_tokens)

    def expect_as_fast(self) -> None:
        """A new request, as those before the first fault, takes no more than :data:`AS_FAST` times as long as the
        slowest of them, and may take :data:`AS_FAST_SECONDS` longer than that one in any case: to its first token, and
        to its end.

        Raises:
            AssertionError: it takes longer, or is not whole.
            Inconclusive: no request had a whole answer before, or the client lagged.
            Mistake: nothing was broken, or the load is over, so that a new request has the deployment to itself.
        """
        struck_at = min(fault.injected_at for fault in (self._faults.made or [self._faults.last]))
        before = [each for each in self._entries_so_far() if (each.ended_at or struck_at) < struck_at]
        before = [each for each in before if outcome(each).kind == "complete"]
        if not before:
            raise Inconclusive("no request had its whole answer before the fault, so nobody knows how fast they were")
        like = before[-1]
        words = len(like.prompt.split())
        new = self._clients.send(
            like.api, stream=like.stream, max_tokens=like.max_tokens, prompt_words=words, watch=False
        )
        entry = self.one(new)
        expect_complete(entry, like.max_tokens)
        for part, took in TIMES.items():
            slowest = max(map(took, before))
            bound = round(max(AS_FAST * slowest, slowest + AS_FAST_SECONDS), 3)
            see_keen(own_lag(entry), bound, f"request {entry.number}")
            told = f"request {entry.number}, {took(entry):.2f} s to the {part.replace('-', ' ')}"
            told += f" and {slowest:.2f} s at most before the fault (of {amount(len(before), 'request')})"
            self._stage.events.add("note", "client", told)
            if took(entry) > bound:
                what = f"a new request has to be as fast as before the fault; {part.replace('-', ' ')} after"
                seen = TooSlow(entry.number, part, took(entry), bound, what)
                sent = Since(entry.intended_at, "the sending of the request")
                raise TooLate(seen.words, bound, sent, entry.intended_at + took(entry), [seen])

    def _entries_so_far(self) -> list[LedgerEntry]:
        loads = self._clients.loads
        if not loads:
            return [pending.entry for pending in self._clients.watched]
        if loads[0].ended:
            instead = "'Then in RECOVERY the time to first token is in the STANDARD band'"
            raise Mistake("the load is over, so that a new request has the deployment to itself", write=instead)
        return read_load(loads[0].folder).entries()

    def await_answers(self, count: int) -> None:
        """Wait until ``count`` of the watched requests and of those of the load have ended.

        Raises:
            Inconclusive: they have not within :data:`REQUEST_SECONDS`, or the client has nothing left to send.
            Mistake: nothing was asked for.
        """

        self._clients.see_asked()
        loads = self._clients.loads

        def ended() -> int:
            watched = sum(each.entry.end is not None for each in list(self._clients.watched))
            return watched + sum(load.progress.ended for load in loads)

        timeout = REQUEST_SECONDS * slowness.factor()
        with activity.waiting(f"{amount(count, 'request')} ended", now() + timeout):
            if loads:
                loads[0].wait_for(lambda _: ended() >= count, timeout)
            else:
                self._stage.ledger.wait_for(lambda: ended() >= count, timeout)
        if ended() < count:
            raise Inconclusive(f"{amount(count, 'request')} had to end first; {ended()} did")

    def await_tokens(self, pending: Pending, count: int) -> None:
        """Wait until the client has ``count`` tokens of an answer that is still in flight.

        Raises:
            Inconclusive: the answer ended before, or they did not come within :data:`REQUEST_SECONDS`.
        """
        timeout = REQUEST_SECONDS * slowness.factor()
        with activity.waiting(f"request {pending.entry.number} gets {amount(count, 'token')}", now() + timeout):
            came = pending.wait_tokens(count, timeout)
        if not came or pending.ended:
            seen = describe(pending.entry)
            raise Inconclusive(
                f"request {pending.entry.number} should have had {amount(count, 'token')} first, but had {seen}"
            )

    def see_under_way(self) -> None:
        """Make sure that every watched answer is coming in: its first tokens are there, or a worker produces them.

        Raises:
            Inconclusive: one is not.
            Mistake: nothing was asked for.
        """
        self._clients.see_asked()
        for pending in self._clients.watched:
            if pending.entry.stream:
                self.await_tokens(pending, FIRST_TOKENS)
        self._stage.fleet.see_production(self._stage.fleet.serving_worker(), self._held)

    def _held(self, worker: Node) -> int:
        """How many answers the gate of a worker holds right now."""
        notes = [note for note in journal.read(self._stage.logs) if note["worker"] == worker.name]
        return sum(note["outcome"] is None and any(hold["until"] is None for hold in note["holds"]) for note in notes)

    def see_written(self) -> None:
        """Make sure that the worker has written all of the watched answer and holds its end back, and the client of a
        stream has every token.

        Raises:
            Inconclusive: the answer has ended, or is not held there.
            Mistake: nothing was asked for.
        """
        self._clients.see_asked()
        worker, pending = self._stage.fleet.serving_worker(), self._clients.request
        if pending.entry.stream:
            self.await_tokens(pending, pending.entry.max_tokens)

        def held() -> str | None:
            return None if self._held(worker) else f"{worker.name} holds no answer back"

        what = f"{worker.name} has written all of request {pending.entry.number} and holds its end back"
        prove(held, ARRIVAL_SECONDS, what, "the answer had no held end")
        self._stage.events.add("proof", worker.name, what)

    def see_waiting(self) -> None:
        """Make sure that a worker has the watched request and the client has nothing of its answer yet.

        Raises:
            Inconclusive: tokens have come already, or no worker has it.
            Mistake: nothing was asked for.
        """
        self._clients.see_asked()
        self._stage.fleet.serving_worker()
        if self._clients.request.entry.tokens or self._clients.request.ended:
            raise Inconclusive(
                f"request {self._clients.request.entry.number} should still wait for its first token, but has it"
            )

    def see_reading(self, seconds: float, role: str = "") -> None:
        """Make sure that a worker has had the watched request for ``seconds`` on end, and the client nothing yet.

        A request that is cancelled the moment it arrives may never reach the engine, which is another case.

        Raises:
            Inconclusive: tokens have come already, or the worker let go of it.
            Mistake: nothing was asked for.
        """
        self._clients.see_asked()
        worker = self._stage.fleet.serving_worker(role)
        since = now()

        def reading() -> str | None:
            self.see_waiting()
            if not in_flight(worker, self._stage.release.metrics):
                raise Inconclusive(f"{worker.name} dropped the request after {now() - since:.2f} s")
            return None if now() - since >= seconds else f"for {now() - since:.2f} s"

        what = f"{worker.name} has been reading for {seconds:g} s"
        prove(reading, seconds + ARRIVAL_SECONDS, what, "the worker was not reading")
        self._stage.events.add("proof", worker.name, f"{worker.name} has been reading the prompt for {seconds:g} s")

    def see_moving(self) -> None:
        """Make sure that a second worker has been given the request, as journals name it, and the client has none of
        its tokens.

        Raises:
            Inconclusive: that is not so within :data:`ARRIVAL_SECONDS`.
        """
        logs = self._stage.logs
        before = len(self._clients.request.entry.tokens)

        def one_worker() -> str | None:
            given: dict[str, set[str]] = {}
            for note in journal.read(logs):
                given.setdefault(note["request_id"], set()).add(note["worker"])
            return None if any(len(workers) > 1 for workers in given.values()) else f"given to {given}"

        what = "a second worker has been given the request"
        prove(one_worker, ARRIVAL_SECONDS, what, "the request was not being moved")
        if len(self._clients.request.entry.tokens) > before:
            raise Inconclusive("the second worker was already writing before the client gave up")
        self._stage.events.add("proof", "client", "a second worker has the request, the client has none of its tokens")

    def ended_within(self, timeout: float) -> LedgerEntry:
        """The watched request, which has to end within ``timeout`` seconds of the last fault.

        Raises:
            TooLate: it did not.
            Inconclusive: the client lagged itself.
        """
        since = Since(self._clients.request.entry.intended_at, "the sending of the request")
        if self._faults.made:
            since = Since(self._faults.made[-1].injected_at, "the last fault")
        entry = self.one()
        see_keen(own_lag(entry), timeout, f"request {entry.number}")
        end = entry.ended_at or now()
        took = end - since.at - entry.held_between(since.at, end)
        if took > timeout:
            seen = TooSlow(entry.number, "end", took, timeout, f"request {entry.number} ended after")
            raise TooLate(seen.words, timeout, since, end, [seen])
        return entry

    def expect_no_later(self, seconds: float) -> None:
        """The watched answer is complete, and has taken no more than ``seconds`` longer than it does undisturbed.

        Raises:
            AssertionError: it is not, or has.
        """
        entry = self.one()
        expect_complete(entry, entry.max_tokens)
        see_keen(own_lag(entry), seconds, f"request {entry.number}")
        since, end = entry.sent_at or entry.intended_at, entry.ended_at or now()
        alone = entry.max_tokens / self._stage.deployment.shape.pace
        late = end - since - entry.held_between(since, end) - alone
        if late > seconds:
            what = f"request {entry.number} takes {alone:.1f} s undisturbed, and was late by"
            seen = TooSlow(entry.number, "end", late, seconds, what)
            due = Since(since, "its end on an undisturbed worker")
            raise TooLate(seen.words, seconds, due, end, [seen])

    def expect_engine_stopped(self) -> None:
        """Every living worker that was given a watched request was told to stop before it had written the whole answer.

        Raises:
            AssertionError: one finished the answer all the same, or still writes.
            Inconclusive: no journal knows of the request.
        """
        entries, victims = [pending.entry for pending in self._clients.watched], self._faults.victims
        living = [note for note in journal.read(self._stage.logs) if note["worker"] not in victims]
        notes = [note for note in living if any(is_answer_to(entry, note["request_id"]) for entry in entries)]
        if not notes:
            raise Inconclusive("no living worker has been given a watched request")
        for note in notes:
            if note["outcome"] not in ("stopped", "abandoned"):
                ended = "still writes" if note["outcome"] is None else f"{note['outcome']} it"
                said = f"{note['worker']} was not told to stop: it {ended} ({note['produced']} tokens)"
                raise NotKept(Handed(note["request_id"], note["worker"], "not-stopped", 1, None, said))
