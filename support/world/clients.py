"""What the clients of a scenario do: single requests, one after the other, loads."""

import threading
from collections.abc import Sequence
from typing import Any

from support import clock, slowness
from support.amounts import amount
from support.clock import now
from support.errors import Inconclusive, Mistake, NotKept
from support.judge.expectations import expect_complete
from support.observe.waiting import lasting, this_sentence, until
from support.requests.client import Message, Pending, start_request
from support.requests.load import LoadRun, start_load
from support.requests.plan import Load, LoadPlan
from support.seen import Seen
from support.world.closing import Closing
from support.world.stage import Stage

# A request that neither ends nor is given up by Dynamo is given up by the client, well after every deadline in a
# sentence.
REQUEST_SECONDS = 60.0
# With these a stream is in flight beyond doubt, and still far from its end.
FIRST_TOKENS = 10
# One success may be luck: a frontend that comes to itself after an outage may give its workers up a moment later.
LASTING = 4
# As a client that is refused and does not give up.
RETRY_SECONDS = 0.2
PROMPT = "how tall is the tower in the middle of the town"


class Clients:
    """All clients of a scenario.

    Attributes:
        requests: every single request that was sent; ``watched``: those that the scenario is about.
        loads: what was started by :meth:`start_load`.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.requests: list[Pending] = []
        self.watched: list[Pending] = []
        self.loads: list[LoadRun] = []
        self._client: threading.Thread | None = None
        self._closing = False

    @property
    def request(self) -> Pending:
        """The request that the scenario is about.

        Raises:
            Mistake: there is none, or more than one.
        """
        if len(self.watched) != 1:
            raise Mistake(f"the scenario has {amount(len(self.watched), 'request')}, but its sentence speaks of one")
        return self.watched[0]

    def see_asked(self) -> None:
        """Make sure that somebody has asked for something, so that there is a request to wait for.

        Raises:
            Mistake: nobody has.
        """
        if not (self.watched or self.loads or self._client):
            raise Mistake("no client has asked for anything yet; begin with such as 'Given a client keeps asking ...'")

    def send(
        self,
        api: str = "completions",
        *,
        stream: bool = True,
        max_tokens: int = 100,
        prompt_words: int | None = None,
        watch: bool = True,
        hold: str = "",
        **options: Any,
    ) -> Pending:
        """Send a request to the deployment and come back at once.

        Args:
            prompt_words: length of the prompt; without it, a short sentence.
            watch: whether the scenario is about this request, see :attr:`watched`.
            hold: where the ruler engine is to hold its answer until :meth:`support.world.stage.Stage.let_go`: before
                its ``start`` or its ``end``, or after its last token, before its ``finish``; not at all if empty.
            options: those of :func:`support.requests.client.start_request`.
        """
        words = PROMPT if prompt_words is None else " ".join(["word"] * prompt_words)
        prompt: str | Sequence[Message] = words if api == "completions" else [{"role": "user", "content": words}]
        options.setdefault("timeout", REQUEST_SECONDS * slowness.factor())
        if hold == "start":
            self._stage.gate.hold_start(max_tokens)
        elif hold == "finish":
            self._stage.gate.hold_finish(max_tokens)
        elif hold:
            self._stage.gate.hold_end({max_tokens})
        pending = start_request(
            self._stage.deployment.frontend_url,
            self._stage.deployment.model,
            prompt,
            max_tokens,
            stream=stream,
            ledger=self._stage.ledger,
            exact_tokens=self._stage.deployment.facts.exact_tokens,
            **options,
        )
        self.requests.append(pending)
        if watch:
            self.watched.append(pending)
        return pending

    def tokens_for(self, seconds: float) -> int:
        """Tokens of an answer that takes ``seconds`` on an idle machine, and as much longer as this one is slower."""
        return round(slowness.lengthened(seconds) * self._stage.deployment.shape.pace)

    def send_in_turn(self, count: int, **request: Any) -> None:
        """Have one client send ``count`` requests, each as soon as the one before has ended; returns at once.

        Args:
            request: as for :meth:`send`.
        """

        def client() -> None:
            for _ in range(count):
                if self._closing:
                    return
                self.send(**request).join()

        self._client = clock.thread(client)
        self._client.start()

    def see_sent(self) -> None:
        """Wait for the client that sends its requests one after the other, until its last one has ended."""
        if self._client:
            self._client.join()

    def cancel(self, pending: Pending, how: str = "close") -> None:
        """Cancel a request that is in flight.

        Raises:
            Inconclusive: it had ended already, so nothing was cancelled.
        """
        self._stage.events.add("fault", "client", f"client cancels request {pending.entry.number} by {how}")
        if not pending.cancel(how):
            raise Inconclusive(f"request {pending.entry.number} had ended before it could be cancelled")

    def cancel_ended(self, pending: Pending, how: str) -> None:
        """Cancel a request whose answer is complete, as a client does that closes a connection it needs no more.

        Raises:
            Inconclusive: it was still in flight.
        """
        if pending.cancel(how):
            raise Inconclusive(f"request {pending.entry.number} should have been over, but was still in flight")

    def start_load(self, load: Load, name: str, phase: str = "") -> LoadRun:
        """Start a load on the deployment; its folder is ``name`` below that of the scenario.

        Raises:
            ValueError: the load cannot be.
        """
        made = self._stage.deployment
        plan = LoadPlan.of(load, made.frontend_url, made.model, phase, made.facts.exact_tokens)
        run = start_load(plan, self._stage.folder / name)
        self.loads.append(run)
        return run

    def rate(self, seconds: float) -> float:
        """Tokens per second that the load, or without one the watched requests, has received over the last
        ``seconds``; 0 when the first token is younger than that.
        """
        if self.loads:
            return self.loads[0].rate(seconds)
        since = now() - seconds
        chunks = [chunk for pending in self.watched for chunk in list(pending.entry.chunks)]
        recent = sum(len(chunk.tokens) for chunk in chunks if chunk.at >= since)
        return recent / seconds if any(chunk.at < since for chunk in chunks) else 0.0

    def expect_serving(self, timeout: float) -> None:
        """The frontend lists the workers that run and no other, serves the model, and answers a request correctly, all
        within ``timeout`` seconds.

        Raises:
            AssertionError: it does not.
        """
        since = this_sentence()

        def failing() -> Sequence[Seen] | None:
            self._stage.fleet.expect_serving(timeout, since)
            return self._failing_request(since.at + timeout)

        until(failing, timeout, "a new request succeeds", since, RETRY_SECONDS)

    def _failing_request(self, deadline: float) -> Sequence[Seen] | None:
        """Send a request and say what is wrong with its answer, None when nothing is."""
        entry = self.send(max_tokens=FIRST_TOKENS, watch=False, timeout=max(0.1, deadline - now())).join().entry
        try:
            expect_complete(entry, FIRST_TOKENS)
        except NotKept as error:
            return error.seen
        return None

    def expect_success(self, timeout: float) -> None:
        """A short request that is sent now succeeds within ``timeout`` seconds.

        Raises:
            AssertionError: it does not.
        """
        entry = self.send(max_tokens=FIRST_TOKENS, watch=False, timeout=timeout).join().entry
        expect_complete(entry, FIRST_TOKENS)

    def expect_success_for(self, seconds: float) -> None:
        """One request after the other succeeds, those that are sent within ``seconds`` of now.

        Raises:
            AssertionError: one fails.
        """
        with lasting(seconds, "new requests succeed") as deadline:
            while now() < deadline:
                entry = self.send(max_tokens=FIRST_TOKENS, watch=False).join().entry
                expect_complete(entry, FIRST_TOKENS)

    def expect_success_again(self, timeout: float) -> None:
        """Within ``timeout`` seconds of now :data:`LASTING` requests in a row succeed.

        Raises:
            AssertionError: they do not.
        """
        since, successes = this_sentence(), 0

        def failing() -> str | Sequence[Seen] | None:
            nonlocal successes
            wrong = self._failing_request(since.at + timeout)
            successes = 0 if wrong else successes + 1
            return wrong or (None if successes == LASTING else f"{successes} did")

        until(failing, timeout, f"{LASTING} new requests in a row succeed", since, RETRY_SECONDS)

    def stop_sending(self, end: Closing) -> None:
        """Have the clients that go on by themselves send nothing more."""
        self._closing = True
        for load in self.loads:
            with end.recording(f"load in {load.folder.name}"):
                if not load.ended:
                    load.stop()

    def end(self, give_up: bool, end: Closing) -> None:
        """See all requests and loads end; with ``give_up``, cancel those still in flight."""
        for pending in self.requests:
            if give_up and not pending.ended:
                with end.recording(f"request {pending.entry.number}"):
                    text = f"request {pending.entry.number} was still in flight; the client gives up"
                    self._stage.events.add("note", "client", text)
                with end.recording(f"request {pending.entry.number}"):
                    pending.cancel()
        if self._client:
            self._client.join()
        for pending in self.requests:
            with end.recording(f"request {pending.entry.number}"):
                pending.join()
        for load in self.loads:
            with end.recording(f"load in {load.folder.name}"):
                if give_up:
                    load.kill()
            with end.recording(f"load in {load.folder.name}"):
                log = load.join()
                self._stage.ledger.adopt(log.entries())
                if not give_up:  # one that we have killed lacks its end
                    end.records_lost += [f"load in {load.folder.name}: {each}" for each in log.problems]
