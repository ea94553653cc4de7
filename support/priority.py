"""Who of the suite may not be kept waiting by those whom it watches and breaks."""

import contextlib
import os
import threading
from collections.abc import Iterator

READER_NICE = -10


def favour_thread() -> None:
    """Rank the calling thread before the other threads and processes of its session, where that is permitted."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), READER_NICE)


@contextlib.contextmanager
def right_of_way() -> Iterator[None]:
    """Have the calling thread scheduled before all that is not as urgent (SCHED_RR, sched(7)), where that is permitted;
    what it starts is not. For the short time from the order of a fault to its proof.
    """
    before = os.sched_getscheduler(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))
