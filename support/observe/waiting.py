"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable

from support.clock import now

PERIOD_SECONDS = 0.02


def until(probe: Callable[[], str | None], timeout: float, what: str) -> float:
    """Ask ``probe`` until it is content.

    Args:
        probe: returns None when the condition holds, else what it saw instead, in words.
        timeout: seconds; the deadline that the sentence names.
        what: the condition in words, for the message.

    Returns:
        The time at which it held, on :mod:`support.clock`.

    Raises:
        AssertionError: it did not hold in time; the message has the last thing seen.
    """
    deadline = now() + timeout
    while (seen := probe()) is not None:
        if now() >= deadline:
            raise AssertionError(f"not within {timeout:g} seconds: {what}; last seen: {seen}")
        time.sleep(PERIOD_SECONDS)
    return now()
