"""Signals that reach the process that is meant, or nobody: a pid may be another's by the time it is used."""

import os
import signal
from collections.abc import Callable


def send_while(pid: int, still: Callable[[], bool], number: signal.Signals) -> bool:
    """Signal the process that has ``pid`` now, through a pidfd, if ``still`` says then that it is the one meant.

    Returns:
        whether it was signalled; False also when there is no such process.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not still():
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True
