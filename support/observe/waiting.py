"""Waiting for a condition, never for a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from support import activity, clock, slowness
from support.amounts import amount
from support.clock import now
from support.errors import Inconclusive, NotKept, Since, TooLate
from support.seen import Seen, told

PERIOD_SECONDS, LONGEST_PERIOD_SECONDS = 0.02, 0.25
# Who has waited for long can be told a little later: looks cost the processor of the one who is looked at, too.
LATER = 0.04
"""How much later, as a share of the time waited, one may see that a condition holds."""


def pause(waited: float, period: float = PERIOD_SECONDS) -> float:
    """Seconds to the next look for who has waited ``waited`` seconds: a share of that, ``period`` at least."""
    return max(period, min(LATER * waited, LONGEST_PERIOD_SECONDS))


def this_sentence() -> Since:
    """For a time that counts from now, which is when the sentence begins that names it."""
    return Since(now(), "this sentence")


Look = Callable[[], str | Sequence[Seen] | None]
"""A look at a condition: None when it holds, else what is seen instead, in words or as :class:`support.seen.Seen`."""


def until(
    probe: Look,
    timeout: float,
    what: str,
    since: Since | None = None,
    period: float = PERIOD_SECONDS,
) -> float:
    """Ask ``probe`` until it is content.

    Args:
        probe: looks for it.
        timeout: seconds; the deadline that the sentence names.
        what: the condition in words, for the message.
        since: from when on ``timeout`` counts; None: from now, in a wait that no sentence names.
        period: seconds from the end of one look to the next at first; :func:`pause` has them grow.

    Returns:
        The time at which it was seen to hold, on :mod:`support.clock`.

    Raises:
        TooLate: it did not hold in time; the message says from when the time counts, and has the last thing seen.
    """
    began = now()
    since = since or Since(began)
    deadline = since.at + timeout
    if began > deadline:
        raise TooLate(f"{what}; the suite looked {now() - deadline:.1f} s too late", timeout, since, now())
    if (seen := probe()) is None:
        return now()
    with activity.waiting(what, deadline):
        while seen is not None:
            # A look that begins after the deadline proves nothing, be it content or not.
            left = deadline - now()
            if left < period:
                words, facts = (seen, ()) if isinstance(seen, str) else (told(seen), seen)
                raise TooLate(f"{what}; last seen: {words}", timeout, since, now(), facts)
            # The last look comes before the deadline.
            clock.sleep(max(period, min(pause(now() - began, period), left - period)))
            seen = probe()
    return now()


def throughout(look: Callable[[], None], seconds: float, what: str, period: float = PERIOD_SECONDS) -> None:
    """Look for ``seconds`` from now, every ``period`` seconds; ``look`` raises when ``what`` it looks for is not so."""
    with lasting(seconds, what) as deadline:
        while now() < deadline:
            look()
            clock.sleep(period)
        look()


@contextmanager
def lasting(seconds: float, what: str) -> Iterator[float]:
    """While something is to hold for ``seconds`` from now; gives the time at which they are over.

    Raises:
        NotKept: as in it, with a message that says from when the time counts, and when it did not hold.
    """
    began = now()
    try:
        with activity.waiting(f"{what}, all the time", began + seconds):
            yield began + seconds
    except NotKept as error:
        text = (
            f"not for {amount(seconds, 'second')} from this sentence on: {what}; after {now() - began:.1f} s: {error}"
        )
        raise NotKept(*error.seen, message=text) from None


def prove(probe: Look, timeout: float, what: str, otherwise: str, since: Since | None = None) -> float:
    """The same for a condition without which a scenario proves nothing.

    Args:
        timeout: seconds that it may take on an idle machine; a slow one is given more (:mod:`support.slowness`).
        otherwise: what it means when the condition does not hold; begins the message.
        since: from when on ``timeout`` counts, where a sentence names it.

    Raises:
        Inconclusive: it did not hold in time.
    """
    try:
        return until(probe, timeout * slowness.factor(), what, since)
    except AssertionError as error:
        raise Inconclusive(f"{otherwise}: {error}") from None


def at_once(*looks: Callable[[], Any]) -> list[Any]:
    """What several looks find that are taken at the same time, in their order.

    Raises:
        BaseException: what the first of them raises that does. All are over then, also where the wait is broken off:
            one that orders a fault has to be known before faults are undone.
    """
    found: list[Any] = [None] * len(looks)
    failed: dict[int, BaseException] = {}

    def take(number: int, look: Callable[[], Any]) -> None:
        try:
            found[number] = look()
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            failed[number] = error

    threads = [clock.thread(take, each, daemon=False) for each in enumerate(looks)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        for thread in threads:
            thread.join()
    if failed:
        raise failed[min(failed)]
    return found
