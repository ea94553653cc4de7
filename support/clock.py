"""The one clock of a scenario, and all waiting on it.

Linux's CLOCK_MONOTONIC is the same for every process of a machine, inside and outside of namespaces, so times
written by the client, the node agent and the ruler engine can be compared without any offset. A target in memory has a
clock of its own, on which a wait of a minute costs nothing (:mod:`support.targets.fake`): so everybody who sleeps,
waits for another thread or runs an event loop uses this module.
"""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """What tells the time, and makes what waits for it.

    Attributes:
        of_the_machine: whether it goes on by itself, and other processes read the same.
    """

    of_the_machine: bool

    def now(self) -> float:
        """Seconds; only differences and comparisons mean anything."""

    def sleep(self, seconds: float) -> None:
        """Have the calling thread wait."""

    def result(self, future: "concurrent.futures.Future[T]") -> T:
        """Wait for a future of another thread."""

    def lock(self) -> Any:
        """As ``threading.Lock()``, for one that is held while its holder waits."""

    def event(self) -> threading.Event:
        """As ``threading.Event()``."""

    def condition(self) -> threading.Condition:
        """As ``threading.Condition()``."""

    def thread(
        self, target: Callable[..., None], args: Iterable[Any], name: str | None, daemon: bool
    ) -> threading.Thread:
        """As ``threading.Thread()``."""

    def loop(self) -> asyncio.AbstractEventLoop:
        """As ``asyncio.new_event_loop()``."""


class MachineClock:
    """CLOCK_MONOTONIC."""

    of_the_machine = True
    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    lock = staticmethod(threading.Lock)
    event = staticmethod(threading.Event)
    condition = staticmethod(threading.Condition)
    loop = staticmethod(asyncio.new_event_loop)

    def result(self, future: "concurrent.futures.Future[T]") -> T:
        """See :class:`Clock`."""
        return future.result()

    def thread(
        self, target: Callable[..., None], args: Iterable[Any], name: str | None, daemon: bool
    ) -> threading.Thread:
        """See :class:`Clock`."""
        return threading.Thread(target=target, args=tuple(args), name=name, daemon=daemon)


_clock: Clock = MachineClock()


def use(clock: Clock) -> None:
    """Have this process live on another clock from now on; before anything waits on the one that it had."""
    global _clock
    _clock = clock


def of_the_machine() -> bool:
    """Whether the clock goes on by itself, also for other processes: what takes long then makes everybody late."""
    return _clock.of_the_machine


def now() -> float:
    """Seconds on CLOCK_MONOTONIC; only differences and comparisons on the same machine mean anything."""
    return _clock.now()


def sleep(seconds: float) -> None:
    """Have the calling thread wait."""
    _clock.sleep(seconds)


def result(future: "concurrent.futures.Future[T]") -> T:
    """What a future of another thread has come to, as soon as it has."""
    return _clock.result(future)


def lock() -> Any:
    """A lock that may be held while its holder waits."""
    return _clock.lock()


def event() -> threading.Event:
    """Something to wait for."""
    return _clock.event()


def condition() -> threading.Condition:
    """Something that changes, to wait for."""
    return _clock.condition()


def thread(
    target: Callable[..., None], args: Iterable[Any] = (), name: str | None = None, daemon: bool = True
) -> threading.Thread:
    """A thread, to be started; a daemon ends with its process."""
    return _clock.thread(target, args, name, daemon)


def loop() -> asyncio.AbstractEventLoop:
    """A new event loop."""
    return _clock.loop()
