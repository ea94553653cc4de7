"""The network between nodes as a process on them finds it; looks by sending a packet or two and changes nothing."""

import contextlib
import ctypes
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from support.contract.deployment import Node
from support.observe.waiting import at_once

FOLDER = Path("/run/netns")
# A packet between two nodes takes 0.1 ms; one that has not come after this is lost.
LOST_SECONDS = 0.06
CHUNK_BYTES = 65536
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


def arriving(source: str, destination: str, address: str, packets: int = 1) -> int:
    """How many of ``packets`` UDP packets from one node arrive at ``address`` on another.

    Each is looked for before the next one is sent, so that none is lost for want of room at the receiver.
    """
    receiver = on_node(destination, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender = on_node(source, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with receiver, sender:
        receiver.bind((address, 0))
        receiver.setblocking(False)
        count = 0
        for _ in range(packets):
            # An ICMP answer to the packet before, or this one was rejected on its way out.
            with contextlib.suppress(OSError):
                sender.sendto(b"probe", receiver.getsockname())
            with contextlib.suppress(BlockingIOError):
                receiver.recv(16)
                count += 1
        receiver.settimeout(LOST_SECONDS)
        with contextlib.suppress(TimeoutError):
            while count < packets:
                receiver.recv(16)
                count += 1
        return count


def lost_between(peer: Node, victim: Node, packets: int = 1) -> dict[str, int]:
    """How many of ``packets`` UDP packets ``to`` the victim, and as many ``from`` it, are lost."""
    to, back = at_once(
        lambda: arriving(peer.name, victim.name, victim.address, packets),
        lambda: arriving(victim.name, peer.name, peer.address, packets),
    )
    return {"to": packets - to, "from": packets - back}


class LocalLine:
    """A TCP connection from one node to ``address`` on another, to measure with; it is there before it is measured, for
    an attempt to connect that is lost is tried again after a second only.

    Raises:
        OSError: no connection within ``timeout`` seconds.
    """

    def __init__(self, source: str, destination: str, address: str, timeout: float) -> None:
        self._sender = on_node(source, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        with on_node(destination, lambda: socket.create_server((address, 0))) as listener:
            try:
                self._sender.settimeout(timeout)
                self._sender.connect(listener.getsockname())
                self._receiver = listener.accept()[0]
            except OSError:
                self._sender.close()
                raise
        self._sender.setblocking(False)
        self._receiver.setblocking(False)

    def __enter__(self) -> "LocalLine":
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.close()
        self._receiver.close()

    def seconds(self, size: int, timeout: float) -> float | None:
        """How long ``size`` bytes take; None when they are not all there within ``timeout`` seconds."""
        began, left, got = time.monotonic(), size, 0
        while got < size:
            rest = began + timeout - time.monotonic()
            if rest <= 0:
                return None
            readable, writable, _ = select.select([self._receiver], [self._sender] if left else [], [], rest)
            if writable:
                left -= self._sender.send(bytes(min(left, CHUNK_BYTES)))
            if readable:
                got += len(self._receiver.recv(CHUNK_BYTES))
        return time.monotonic() - began
