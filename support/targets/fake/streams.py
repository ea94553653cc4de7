"""Requests on their way between a frontend and a worker in memory."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from support.targets.fake.hosts import FakeProgram

TOKEN_BYTES = 250
"""Of a token on its way from worker to frontend, with all that is around it."""
LOSS_SECONDS = 0.05
"""By how much packets that are sent again come late."""


@dataclass(frozen=True)
class Work:
    """What a worker is asked for.

    Attributes:
        request_id: as workers know the request.
        prompt: tokens of the prompt, ``written``: of the answer so far, ``budget``: that may still come.
        choices: how many answers.
        prefill: whether it is only to read the prompt.
    """

    request_id: str
    prompt: int
    written: int
    budget: int
    choices: int = 1
    prefill: bool = False


class Call:
    """A request at a worker, as both sides have it.

    Attributes:
        cancelled: whether the worker has been told to give it up.
        over: how it has ended for the frontend: ``finished``, ``broken``, ``given up``.
        heard_at: when the frontend last heard of it.
    """

    def __init__(
        self, frontend: FakeProgram, worker: FakeProgram, work: Work, take: Callable[[int, str, bool], None]
    ) -> None:
        self.frontend, self.worker, self.work, self._take = frontend, worker, work, take
        self.network = frontend.network
        self.cancelled = False
        self.over: asyncio.Future[str] = self.network.loop.create_future()
        self.heard_at = frontend.now
        self._queue: deque[tuple[int, str, bool]] = deque()
        self._end = ""
        self._pumping = False

    # -- the worker's side

    def put(self, choice: int, token: str, last: bool) -> None:
        """A token, to the frontend."""
        if self._pumping or self.network.rules or not self.frontend.answering:
            self._queue.append((choice, token, last))
            self._pump()
        elif not self.over.done():
            self.heard_at = self.network.clock.now()
            self._take(choice, token, last)

    def end(self, how: str) -> None:
        """The worker has nothing more to say."""
        self._end = self._end or how
        self._pump()

    def _pump(self) -> None:
        if not self._pumping and not self.frontend.gone:
            self._pumping = True
            self.frontend.do(self._deliver())

    async def _deliver(self) -> None:
        sender, receiver = self.worker.name, self.frontend.name
        try:
            while (self._queue or self._end) and not self.over.done():
                await self.network.passes(sender, receiver)
                if rate := self.network.strength(sender, receiver, "bandwidth"):
                    await asyncio.sleep(TOKEN_BYTES * 8 / (rate * 1000))
                if self.network.strength(sender, receiver, "loss"):
                    await asyncio.sleep(LOSS_SECONDS)
                await self.frontend.awake.wait()
                if self.over.done():
                    return
                self.heard_at = self.network.clock.now()
                if not self._queue:
                    self.over.set_result(self._end)
                    return
                self._take(*self._queue.popleft())
        except ConnectionResetError:
            self.break_off()
        finally:
            self._pumping = False

    # -- the frontend's side

    def cancel(self) -> None:
        """Nobody wants it any more; the worker hears of that as soon as packets arrive."""
        if not self.over.done():
            self.over.set_result("cancelled")
        if self.network.talk(self.frontend.name, self.worker.name):
            self.cancelled = True
        else:
            self.network.loop.create_task(self._tell())

    async def _tell(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            await self.network.passes(self.frontend.name, self.worker.name)
        self.cancelled = True

    def break_off(self) -> None:
        """The connection is reset, for both."""
        self.cancelled = True
        if not self.over.done():
            self.over.set_result("broken")

    def look(self) -> None:
        """The network has changed: a rule that resets meets keep-alives, too."""
        modes = {self.network.blocked(self.worker.name, self.frontend.name)}
        if "reset" in modes | {self.network.blocked(self.frontend.name, self.worker.name)}:
            self.break_off()
