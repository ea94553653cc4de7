"""Which parts of the suite must not wait for the processes that they watch and break."""

import contextlib
import os
from collections.abc import Iterator

from support import clock

PRIORITY = 1
"""Real-time priority (SCHED_RR, sched(7)), the lowest: it goes before all that is not as urgent."""


def take_right_of_way() -> bool:
    """Have the calling thread scheduled before all that is not as urgent; what it starts is not.

    Returns:
        False where it is not permitted, as to an unprivileged user, and where time waits for everybody.
    """
    if not clock.of_the_machine():
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except PermissionError:
        return False
    return True


@contextlib.contextmanager
def right_of_way() -> Iterator[None]:
    """The same for the short time from the order of a fault to its proof."""
    before = os.sched_getscheduler(0)
    taken = take_right_of_way()
    try:
        yield
    finally:
        if taken:
            os.sched_setscheduler(0, before, os.sched_param(0))
