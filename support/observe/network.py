"""The network between nodes as a process on them finds it; looks by sending a packet or two and changes nothing."""

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

FOLDER = Path("/run/netns")
# A packet between two nodes takes 0.1 ms; one that has not come after this is lost.
LOST_SECONDS = 0.06
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


def on_node(name: str, look: Callable[[], T]) -> T:
    """Call ``look`` in the network namespace of a node, in a thread of its own.

    Raises:
        OSError: there is no such node, or ``look`` raised it.
    """
    found: list[T] = []
    failed: list[OSError] = []

    def work() -> None:
        try:
            file = os.open(FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _LIBC.setns(file, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"the network namespace of {name} cannot be entered")
            finally:
                os.close(file)
            found.append(look())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def connects(name: str, address: str, port: int) -> str:
    """What a new TCP connection from a node meets: ``open``, ``refused`` or ``silent``."""

    def look() -> str:
        try:
            socket.create_connection((address, port), LOST_SECONDS).close()
        except TimeoutError:
            return "silent"
        except OSError:
            return "refused"
        return "open"

    return on_node(name, look)


def arriving(source: str, target: str, address: str, packets: int = 1) -> int:
    """How many of ``packets`` UDP packets from one node arrive at ``address`` on another."""
    receiver = on_node(target, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender = on_node(source, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with receiver, sender:
        receiver.bind((address, 0))
        receiver.settimeout(LOST_SECONDS)
        count = 0
        for _ in range(packets):
            try:
                sender.sendto(b"probe", receiver.getsockname())
            except OSError:  # an ICMP answer to the packet before, or this one was rejected on its way out
                continue
        try:
            while count < packets:
                receiver.recv(16)
                count += 1
        except TimeoutError:
            pass
        return count
