"""What the kernel of this machine shows of containers and of the network of pods. Nothing here is the pod agent's."""

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from agents.core.faults import Problem
from agents.core.kernel import enter_network_namespace

T = TypeVar("T")
LOST_SECONDS = 0.3
"""A packet between two nodes takes a few milliseconds; one that has not come after this is lost."""
LONGEST_SECONDS = 30.0
"""How long a receiver is kept that nobody asks for."""
MOST_PACKETS = 5000
PAYLOAD = b"probe"


def _cgroups() -> dict[int, str]:
    """Pid -> control group of every process."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                found[int(name)] = os.fsdecode(Path(f"/proc/{name}/cgroup").read_bytes())
    return found


def container_state(container: str) -> dict[str, Any]:
    """What has become of a container: ``state`` is ``gone``, ``stopped`` (none of its processes may run) or ``alive``;
    ``pids`` are those that are there, as the machine numbers them.
    """
    letters = {}
    for pid, cgroup in _cgroups().items():
        if container in cgroup:
            with contextlib.suppress(OSError):
                # The name before the state may have any byte in it, parentheses too.
                letters[pid] = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    there = {pid: letter for pid, letter in letters.items() if letter not in "ZX"}
    stopped = all(letter in "Tt" for letter in there.values())
    return {"state": "gone" if not there else "stopped" if stopped else "alive", "pids": sorted(there)}


def in_pod(uid: str, look: Callable[[], T]) -> T:
    """Call ``look`` in the network namespace of the pod with this UID, in a thread of its own.

    Raises:
        Problem: 404, no process of such a pod is on this machine.
        OSError: ``look`` raised it.
    """
    marks = (uid, uid.replace("-", "_"))
    pids = [pid for pid, cgroup in _cgroups().items() if any(mark in cgroup for mark in marks)]
    found: list[T] = []
    failed: list[Exception] = []

    def work() -> None:
        try:
            enter_network_namespace(namespace)
            found.append(look())
        except Exception as error:  # noqa: BLE001 - handed over to the one who asked
            failed.append(error)

    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            break
    else:
        raise Problem(404, "Unknown pod", f"no process of pod {uid!r} runs on this machine")
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        os.close(namespace)
    if failed:
        raise failed[0]
    return found[0]


def _there(address: str, port: int, kind: int) -> tuple[int, Any]:
    """Family, and address as sockets want it."""
    family, _, _, _, there = socket.getaddrinfo(address, port, type=kind, flags=socket.AI_NUMERICHOST)[0]
    return family, there


def connects(uid: str, address: str, port: int) -> str:
    """What a new TCP connection from a pod meets: ``open``, ``refused`` or ``silent``."""

    def look() -> str:
        family, there = _there(address, port, socket.SOCK_STREAM)
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(LOST_SECONDS)
            try:
                client.connect(there)
            except TimeoutError:
                return "silent"
            except OSError:
                return "refused"
            return "open"

    return in_pod(uid, look)


def send(uid: str, address: str, port: int, packets: int) -> int:
    """Send UDP packets from a pod; how many the kernel took."""

    def look() -> int:
        family, there = _there(address, port, socket.SOCK_DGRAM)
        taken = 0
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            for _ in range(packets):
                # An ICMP answer to the packet before, or this one was rejected on its way out.
                with contextlib.suppress(OSError):
                    sender.sendto(PAYLOAD, there)
                    taken += 1
        return taken

    return in_pod(uid, look)


class Receivers:
    """Open UDP sockets in pods, each for one look."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[socket.socket, float]] = {}
        self._lock = threading.Lock()

    def open(self, uid: str, address: str) -> tuple[str, int]:
        """Listen at an address of a pod; returns the name of the receiver and its port."""

        def look() -> socket.socket:
            family, here = _there(address, 0, socket.SOCK_DGRAM)
            listener = socket.socket(family, socket.SOCK_DGRAM)
            listener.bind(here)
            return listener

        self._close_old()
        found, name = in_pod(uid, look), secrets.token_hex(8)
        with self._lock:
            self._open[name] = found, time.monotonic()
        return name, int(found.getsockname()[1])

    def count(self, name: str, packets: int) -> int:
        """How many packets have come, once all have or none comes for :data:`LOST_SECONDS`; the receiver is closed.

        Raises:
            Problem: 404, there is no such receiver.
        """
        with self._lock:
            receiver, _ = self._open.pop(name, (None, 0.0))
        if receiver is None:
            raise Problem(404, "Unknown receiver", f"no receiver {name!r}; each counts once")
        count = 0
        with receiver:
            receiver.settimeout(LOST_SECONDS)
            with contextlib.suppress(TimeoutError):
                while count < packets:
                    count += receiver.recv(16) == PAYLOAD
        return count

    def _close_old(self) -> None:
        with self._lock:
            for name, (receiver, opened_at) in list(self._open.items()):
                if time.monotonic() - opened_at > LONGEST_SECONDS:
                    receiver.close()
                    del self._open[name]
