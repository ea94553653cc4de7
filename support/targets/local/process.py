"""Processes as the kernel shows them, looked at independently of the node agent that started and signals them."""

import contextlib
import os
from collections.abc import Hashable
from pathlib import Path
from typing import cast

import psutil

from support.contract.deployment import Life

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# psutil rounds the boot time to a second's fraction of its own; two processes with one pid are never this close.
_SAME_START_SECONDS = 1.0


def identity(pid: int | None, start_time: int | None) -> Hashable:
    """What tells one process from all others on this machine, as :class:`support.contract.deployment.Life` has it."""
    return pid, start_time


def state_of(life: Life, own: str = "") -> str:
    """What has become of the process that a life of the local target is, and of all that it has started.

    Args:
        own: the cell's mark, by which those are known too that have left its session and lost their parent.

    Returns:
        ``gone`` (none of them is there), ``stopped`` (none may run) or ``alive``.
    """
    pid, start_time = cast(tuple[int | None, int | None], life.identity)
    if pid is None:
        return "gone"
    if state(pid, start_time) == "alive":  # that settles it, and is what most looks find
        return "alive"
    mark = f"{own}:{life.node}:{life.restarts}" if own else None
    seen = {state(member, None) for member in _started_by(pid, start_time, mark)} | {state(pid, start_time)}
    return "alive" if "alive" in seen else "stopped" if "stopped" in seen else "gone"


def _started_by(pid: int, start_time: int | None, mark: str | None) -> set[int]:
    """Pids of a process's session, of those with its mark in their environment, and of all their descendants."""
    parents, found = dict[int, int](), set[int]()
    ours = True  # as long as somebody is in the session that it has led nobody else gets its pid
    with contextlib.suppress(psutil.NoSuchProcess):
        ours = _is_that(psutil.Process(pid), start_time)
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            parents[each.pid] = each.ppid()
            if each.pid != pid and ((ours and os.getsid(each.pid) == pid) or _carries(each.pid, mark)):
                found.add(each.pid)
    grown, roots = set[int](), found | ({pid} if ours else set())
    while grown != found:
        grown = set(found)
        found |= {each for each, parent in parents.items() if parent in roots | found}
    return found - {pid}


def _carries(pid: int, mark: str | None) -> bool:
    return mark is not None and f"FT_LIFE={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


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
        status, that = process.status(), _is_that(process, start_time)
    except psutil.NoSuchProcess:
        return "gone"
    if not that or status == psutil.STATUS_ZOMBIE:
        return "gone"
    return "stopped" if status == psutil.STATUS_STOPPED else "alive"


def _is_that(process: psutil.Process, start_time: int | None) -> bool:
    began = process.create_time() - psutil.boot_time()
    return start_time is None or abs(began - start_time / _TICKS_PER_SECOND) <= _SAME_START_SECONDS
