"""A PID, a mount and a network namespace for one process, which end with it (unshare(1) makes the same).

``python -m agents.core.namespaces`` tries whether this user may have them; it ends with status 1 and the reason if not.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from agents.core.forks import fork
from agents.core.kernel import check, die_with_parent, mount_tmpfs

_NEW = {"mount": 0x00020000, "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000}
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x40000


def run(first: Callable[[], int]) -> int:
    """Run ``first`` as the first process of fresh namespaces and wait for it; users other than root get a user
    namespace in which they are root. Every process in them ends with the first one, and that one with this process.

    Returns:
        its exit status, 128 + N when signal N ended it.

    Raises:
        OSError: not permitted; names what was refused.
    """
    _leave()
    pid = fork(lambda: _first(first))
    # Whoever ends the run signals the whole process group, the first process included.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if status >= 0 else 128 - status


def _leave() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    own = 0 if user == 0 else _NEW["user"]
    check(libc.unshare(_NEW["pid"] | _NEW["mount"] | _NEW["net"] | own), "unshare")
    if own:
        Path("/proc/self/setgroups").write_text(
            "deny", encoding="ascii"
        )  # else gid_map is refused (user_namespaces(7))
        Path("/proc/self/uid_map").write_text(f"0 {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1", encoding="ascii")


def _first(first: Callable[[], int]) -> int:
    die_with_parent()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        # What is mounted here is to stay here, /proc above all, which has to show the new PID namespace.
        check(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "make mounts private")
        check(libc.mount(b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None), "mount /proc")
        return first()
    except OSError as refused:
        raise SystemExit(str(refused)) from None


def _try() -> int:
    mount_tmpfs("/run")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(run(_try))
    except OSError as refused:
        sys.exit(str(refused))
