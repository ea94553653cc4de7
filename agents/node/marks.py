"""The mark of a node in the environment of every process on it, by which the kernel's list tells whose it is.

Children inherit it, those too that nobody knows of: ``FT_NODE=MARK:NODE``, where the mark is the cell's own, and
``FT_LIFE=MARK:NODE:N`` with how often the node's program had been started again.
"""

import contextlib
import os
import signal
from pathlib import Path


def mark(own: str, node: str, restarts: int) -> dict[str, str]:
    """The environment variables for a process on ``node``; ``own`` is the cell's mark."""
    return {"FT_NODE": f"{own}:{node}", "FT_LIFE": f"{own}:{node}:{restarts}"}


def marked(own: str) -> dict[int, str]:
    """Pid -> node of every process that carries the cell's mark, children included."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                node = _mark_of(int(entry.name), own)
                if node is not None:
                    found[int(entry.name)] = node
    return found


def _mark_of(pid: int, own: str) -> str | None:
    wanted = os.fsencode(f"FT_NODE={own}:")
    for each in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if each.startswith(wanted):
            return os.fsdecode(each.removeprefix(wanted))
    return None


def kill_marked(pid: int, own: str) -> None:
    """SIGKILL a process that carries the cell's mark, and no other that may have its pid."""
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            if _mark_of(pid, own) is not None:  # still, now that whoever has the pid is held
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
