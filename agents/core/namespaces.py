"""A PID, a mount and a network namespace for one process, which end with it (unshare(1) makes the same).

``python -m agents.core.namespaces`` tries whether this user may have them; it ends with status 1 and the reason if not.
"""

import os
import sys
from collections.abc import Callable

from agents.core.forks import Leave, attend
from agents.core.kernel import enter_new_namespaces, mount_proc, mount_tmpfs


def run(first: Callable[[Leave], int]) -> int:
    """Run ``first`` as the first process of fresh namespaces and wait for it (:func:`agents.core.forks.attend`); users
    other than root get a user namespace in which they are root. Every process in them ends with the first one.

    Returns:
        its exit status, 128 + N when signal N ended it, or the one that it has left with.

    Raises:
        OSError: not permitted; names what was refused.
    """
    enter_new_namespaces("pid", "mount", "net", *(["user"] if os.geteuid() else []))

    def process(leave: Leave) -> int:
        try:
            mount_proc()
        except OSError as refused:
            raise SystemExit(str(refused)) from None
        return first(leave)

    return attend(process)


def _try(_: Leave) -> int:
    try:
        mount_tmpfs("/run")
    except OSError as refused:
        raise SystemExit(str(refused)) from None
    return 0


if __name__ == "__main__":
    try:
        sys.exit(run(_try))
    except OSError as refused:
        sys.exit(str(refused))
