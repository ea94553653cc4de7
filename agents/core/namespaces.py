"""A PID, a mount and a network namespace for one process, which end with it (unshare(1) makes the same).

``python -m agents.core.namespaces`` tries whether this user may have them; it ends with status 1 and the reason if not.
"""

import os
import signal
import sys
from collections.abc import Callable

from agents.core.forks import fork
from agents.core.kernel import die_with_parent, enter_new_namespaces, mount_proc, mount_tmpfs


def run(first: Callable[[], int]) -> int:
    """Run ``first`` as the first process of fresh namespaces and wait for it; users other than root get a user
    namespace in which they are root. Every process in them ends with the first one, and that one with this process.

    Returns:
        its exit status, 128 + N when signal N ended it.

    Raises:
        OSError: not permitted; names what was refused.
    """
    enter_new_namespaces("pid", "mount", "net", *(["user"] if os.geteuid() else []))

    def process() -> int:
        die_with_parent()
        try:
            mount_proc()
        except OSError as refused:
            raise SystemExit(str(refused)) from None
        return first()

    pid = fork(process)
    # Whoever ends the run signals the whole process group, the first process included.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if status >= 0 else 128 - status


def _try() -> int:
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
