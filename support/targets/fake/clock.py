"""A clock on which time passes only when everybody waits.

One thread of those that live on it runs at a time. Whoever waits, for a time or for another, passes the turn on to one
that can go on; where nobody can, the time of the first deadline has come. So a run takes no longer than its work, and
comes out the same however busy the machine is.
"""

import concurrent.futures
import threading
import time
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


class _Waiting:
    """One thread that waits; ``came``: whether what it waits for has come, or only its deadline; ``stuck``: whether
    neither ever will.
    """

    def __init__(self, ready: Callable[[], bool], deadline: float | None) -> None:
        self.ready, self.deadline, self.came, self.stuck = ready, deadline, False, False
        self.thread = threading.current_thread()
        self.turn = threading.Lock()
        self.turn.acquire()


class VirtualClock:
    """Implements :class:`support.clock.Clock`; the thread that makes it has the first turn."""

    of_the_machine = False

    def __init__(self) -> None:
        self._now = time.monotonic()
        self._waiting: list[_Waiting] = []

    def now(self) -> float:
        """See :class:`support.clock.Clock`."""
        return self._now

    def wait(self, ready: Callable[[], bool], seconds: float | None = None) -> bool:
        """Have the calling thread wait until ``ready``, which others bring about, or for ``seconds``; whether it is.

        Raises:
            RuntimeError: all threads wait for each other, and none for a time.
        """
        if ready():
            return True
        mine = _Waiting(ready, None if seconds is None else self._now + max(0.0, seconds))
        self._waiting.append(mine)
        self.pass_on()
        mine.turn.acquire()
        if mine.stuck:
            raise RuntimeError("all threads wait for each other, and none for a time")
        return mine.came

    def enter(self) -> _Waiting:
        """A place for a thread that is about to begin; it has to wait for its ``turn``."""
        mine = _Waiting(lambda: True, None)
        self._waiting.append(mine)
        return mine

    def pass_on(self) -> None:
        """Give the turn to somebody else; where nobody will ever go on, the first thread of the process is told so."""
        following = next((each for each in self._waiting if each.ready()), None)
        timed = [each for each in self._waiting if each.deadline is not None]
        if following is not None:
            following.came = True
        elif timed:
            following = min(timed, key=lambda each: each.deadline or 0.0)
            self._now = max(self._now, following.deadline or 0.0)
        else:
            following = min(self._waiting, key=lambda each: each.thread is not threading.main_thread())
            following.stuck = True
        self._waiting.remove(following)
        following.turn.release()

    def sleep(self, seconds: float) -> None:
        """See :class:`support.clock.Clock`."""
        self.wait(lambda: False, seconds)

    def result(self, future: "concurrent.futures.Future[T]") -> T:
        """See :class:`support.clock.Clock`."""
        self.wait(future.done)
        return future.result()

    def lock(self) -> "_Lock":
        """See :class:`support.clock.Clock`."""
        return _Lock(self)

    def event(self) -> threading.Event:
        """See :class:`support.clock.Clock`."""
        return _Event(self)

    def condition(self) -> threading.Condition:
        """See :class:`support.clock.Clock`."""
        return _Condition(self)

    def thread(
        self, target: Callable[..., None], args: Iterable[Any], name: str | None, daemon: bool
    ) -> threading.Thread:
        """See :class:`support.clock.Clock`; all of them end with the process."""
        return _Thread(self, target, args, name)

    def loop(self) -> "VirtualLoop":
        """See :class:`support.clock.Clock`."""
        return VirtualLoop(self)


class _Lock:
    def __init__(self, clock: VirtualClock) -> None:
        self._clock, self._held = clock, False

    def __enter__(self) -> None:
        self._clock.wait(lambda: not self._held)
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False


class _Event(threading.Event):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        return self._clock.wait(self.is_set, timeout)


class _Condition(threading.Condition):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock, self._changes = clock, 0

    def notify_all(self) -> None:
        self._changes += 1

    def wait(self, timeout: float | None = None) -> bool:
        seen = self._changes
        self.release()
        try:
            return self._clock.wait(lambda: self._changes != seen, timeout)
        finally:
            self.acquire()

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        deadline = None if timeout is None else self._clock.now() + timeout
        while not (found := predicate()):
            left = None if deadline is None else deadline - self._clock.now()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return found


class _Thread(threading.Thread):
    def __init__(self, clock: VirtualClock, target: Callable[..., None], args: Iterable[Any], name: str | None) -> None:
        super().__init__(target=target, args=tuple(args), name=name, daemon=True)
        self._clock, self._over = clock, False
        self._place: _Waiting | None = None

    def start(self) -> None:
        self._place = self._clock.enter()
        super().start()

    def run(self) -> None:
        assert self._place is not None
        self._place.turn.acquire()
        try:
            super().run()
        finally:
            self._over = True
            self._clock.pass_on()

    def join(self, timeout: float | None = None) -> None:
        self._clock.wait(lambda: self._over, timeout)


class _Selector:
    """What an event loop asks for what has become readable; here it only waits."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.rest(timeout)
        return []


class VirtualLoop(BaseEventLoop):
    """An event loop with no files; its connections are those of a network in memory."""

    Connect = Callable[[Callable[[], Any], str, int], Any]

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock, self._awake = clock, False
        self._selector = _Selector(self)
        self.connect: VirtualLoop.Connect | None = None

    def rest(self, seconds: float | None) -> None:
        """Wait until there is something to do, or for this long."""
        if seconds is None or seconds > 0:
            self._clock.wait(lambda: self._awake, seconds)
        self._awake = False

    def time(self) -> float:
        """Of the clock."""
        return self._clock.now()

    def wake(self) -> None:
        """Somebody else has given it something to do."""
        self._awake = True

    def _write_to_self(self) -> None:
        self._awake = True

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """To a server of the network in memory."""
        if self.connect is None:
            raise ConnectionRefusedError(f"nothing listens on {host}:{port}")
        return self.connect(protocol_factory, host, port)
