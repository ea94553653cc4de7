"""Processes as the kernel shows them, looked at independently of the node agent that started and signals them."""

import os
from collections.abc import Hashable
from typing import cast

import psutil

from support.contract.deployment import Life

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# psutil rounds the boot time to a second's fraction of its own; two processes with one pid are never this close.
_SAME_START_SECONDS = 1.0


def identity(pid: int | None, start_time: int | None) -> Hashable:
    """What tells one process from all others on this machine, as :class:`support.contract.deployment.Life` has it."""
    return pid, start_time


def state_of(life: Life) -> str:
    """What has become of the process that a life of the local target is."""
    pid, start_time = cast(tuple[int | None, int | None], life.identity)
    return "gone" if pid is None else state(pid, start_time)


def state(pid: int, start_time: int | None) -> str:
    """What has become of one very process.

    Args:
        pid: its pid as seen from here.
        start_time: its start in clock ticks since boot (field 22 of proc(5) stat), which tells it from a later
            process with the same pid; None for whichever has it.

    Returns:
        ``gone`` (there is no such process, or only its zombie), ``stopped`` (SIGSTOP holds it) or ``alive``.
    """
    try:
        process = psutil.Process(pid)
        status, created = process.status(), process.create_time()
    except psutil.NoSuchProcess:
        return "gone"
    began = created - psutil.boot_time()
    another = start_time is not None and abs(began - start_time / _TICKS_PER_SECOND) > _SAME_START_SECONDS
    if another or status == psutil.STATUS_ZOMBIE:
        return "gone"
    return "stopped" if status == psutil.STATUS_STOPPED else "alive"
