"""The few kernel calls that the agents need and Python does not offer before 3.12."""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Collection
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_CLONE_NEW = {"mount": 0x00020000, "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000}
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x40000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def die_with_parent() -> None:
    """Have the kernel SIGKILL this process when the thread that forked it ends (PR_SET_PDEATHSIG, prctl(2))."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def outlive_parent() -> None:
    """Take :func:`die_with_parent` back."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def take_right_of_way() -> bool:
    """Have this thread scheduled before all that is not as urgent (SCHED_RR, sched(7)); what it starts is not.

    For those who make faults: a fault is due when it is ordered, however busy the machine is. A nice value would not
    do: with autogroups, which are the default, it ranks the processes of one session alone.

    Returns:
        False where it is not permitted, as to an unprivileged user.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        return False
    return True


def enter_network_namespace(fd: int) -> None:
    """Move the calling thread into the network namespace behind the open file descriptor ``fd`` (setns(2))."""
    _check(_libc.setns(fd, _CLONE_NEW["net"]), "setns")


def enter_new_namespaces(*kinds: str) -> None:
    """Move the calling thread, or for ``pid`` the processes that it makes, into new namespaces of these kinds, which
    end with the last thread in them (unshare(2)). In one of kind ``user`` it is root, and nobody else is there.

    Args:
        kinds: ``mount``, ``user``, ``pid``, ``net``.

    Raises:
        OSError: not permitted.
    """
    user, group = os.geteuid(), os.getegid()
    _check(_libc.unshare(sum(_CLONE_NEW[kind] for kind in kinds)), f"unshare ({', '.join(kinds)})")
    if "user" in kinds:
        # else the kernel refuses gid_map (user_namespaces(7))
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1", encoding="ascii")


def mount_proc() -> None:
    """Mount a /proc that shows the PID namespace of this process; whatever is mounted from now on in this mount
    namespace is seen in it alone.

    Raises:
        OSError: not permitted.
    """
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "make mounts private")
    _check(_libc.mount(b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None), "mount /proc")


def mount_tmpfs(path: str) -> None:
    """Mount a fresh tmpfs at ``path`` in this mount namespace (mount(2)).

    Raises:
        OSError: not permitted, or no such folder.
    """
    _check(_libc.mount(b"tmpfs", path.encode(), b"tmpfs", 0, b"mode=0755"), f"mount tmpfs on {path}")


def bring_loopback_up() -> None:
    """Set the interface lo of this network namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(handle, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def stat_of(pid: int) -> tuple[str, int] | None:
    """State letter and start time (clock ticks since boot) of a process, from /proc/PID/stat; None when it is gone.

    The pair of pid and start time names a process for good, which a pid alone does not.
    """
    try:
        fields = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[19])


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; the name before them may have any byte in it, parentheses too."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode("ascii").split()


def signal_process(pid: int, start_time: int | None, number: signal.Signals) -> bool:
    """Signal the very process with this pid and start time, through a pidfd: what takes over its pid is never meant.

    Returns:
        whether it was there, and no zombie.
    """
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            # Whoever has the pid now is held; if that is the one that is meant, the signal reaches it or nobody.
            stat = stat_of(pid)
            if stat and stat[0] not in "ZX" and stat[1] == start_time:
                signal.pidfd_send_signal(handle, number)
                return True
        finally:
            os.close(handle)
    return False


def is_stopped(pid: int) -> bool:
    """Whether the kernel shows the process as stopped (SIGSTOP, a debugger)."""
    return (stat_of(pid) or ("X", 0))[0] in "Tt"


def boot_id() -> str:
    """Names this run of the kernel; pids and CLOCK_MONOTONIC mean nothing in another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _processes() -> dict[int, tuple[str, int, int, int]]:
    """Pid -> state, parent, session and start time of every process in /proc."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = _stat(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(entry.name)] = fields[0], int(fields[1]), int(fields[3]), int(fields[19])
    return found


def _descendants(roots: set[int], parents: dict[int, int]) -> set[int]:
    found, queue = set[int](), list(roots)
    while queue:
        parent = queue.pop()
        below = {pid for pid, its_parent in parents.items() if its_parent == parent} - found
        found |= below
        queue += below
    return found


def children_of(pid: int) -> list[tuple[int, int]]:
    """Pid and start time of all descendants of ``pid``, from /proc."""
    seen = _processes()
    below = _descendants({pid}, {each: parent for each, (_, parent, _, _) in seen.items()})
    return [(each, seen[each][3]) for each in below]


def family_of(pid: int, start_time: int | None, strays: Collection[int] = ()) -> list[tuple[int, int, str]]:
    """Pid, start time and state letter of all that runs of a process that leads a session, or has led one: itself, what
    is in its session, ``strays``, and the descendants of all of those. No zombies; itself first.
    """
    seen = _processes()
    leader = seen.get(pid)
    # A session outlives its leader, whose pid nobody gets as long as there is one; 0 is one outside this PID namespace.
    ours = pid > 0 and (leader is None or leader[3] == start_time)
    roots = {each for each, (_, _, session, _) in seen.items() if ours and session == pid} | set(strays)
    roots |= {pid} if leader and ours else set()
    found = (roots & set(seen)) | _descendants(roots, {each: parent for each, (_, parent, _, _) in seen.items()})
    order = sorted(found, key=lambda each: (each != pid, each))
    return [(each, seen[each][3], seen[each][0]) for each in order if seen[each][0] not in "ZX"]
