"""The network between nodes as a process on them finds it; looks by sending a packet or two and changes nothing."""

import contextlib
import ctypes
import ipaddress
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from support.contract.deployment import Node
from support.observe.waiting import at_once

FOLDER = Path("/run/netns")
# A packet between two nodes takes 0.1 ms; one that has not come after this is lost.
LOST_SECONDS = 0.06
CHUNK_BYTES = 65536
CABLE = "eth0"
# linux/ipv6.h and if_addr.h: a link's own address; one that is still looked whether it is free (DAD), or is not.
_LINK_SCOPE, _UNUSABLE = 0x20, 0x40 | 0x08
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
        family, kind, _, _, there = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as client:
            client.settimeout(LOST_SECONDS)
            try:
                client.connect(there)
            except TimeoutError:
                return "silent"
            except OSError:
                return "refused"
            return "open"

    return on_node(name, look)


def arriving(source: str, destination: str, address: str, packets: int = 1) -> int:
    """How many of ``packets`` UDP packets from one node arrive at ``address`` on another.

    Each is looked for before the next one is sent, so that none is lost for lack of room at the receiver.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def listen() -> socket.socket:
        listener = socket.socket(family, socket.SOCK_DGRAM)
        listener.bind(_at(address, 0))
        return listener

    receiver = on_node(destination, listen)
    port = receiver.getsockname()[1]
    sender, there = on_node(source, lambda: (socket.socket(family, socket.SOCK_DGRAM), _at(address, port)))
    with receiver, sender:
        receiver.setblocking(False)
        count = 0
        for _ in range(packets):
            # An ICMP answer to the packet before, or this one was rejected on its way out.
            with contextlib.suppress(OSError):
                sender.sendto(b"probe", there)
            with contextlib.suppress(BlockingIOError):
                receiver.recv(16)
                count += 1
        receiver.settimeout(LOST_SECONDS)
        with contextlib.suppress(TimeoutError):
            while count < packets:
                receiver.recv(16)
                count += 1
        return count


def _at(address: str, port: int) -> Any:
    """As sockets want it; ``ADDRESS%LINK`` of IPv6 means a link of the node of the thread that asks."""
    return socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4]


def own_ipv6(name: str) -> str | None:
    """The address ``ADDRESS%LINK`` of IPv6 that a node's cable has by itself; None where it has none that may be used.

    By the kernel's list, as nobody gives it out: the fault service knows nodes by IPv4 alone.
    """

    def look() -> str | None:
        for line in Path("/proc/thread-self/net/if_inet6").read_text().splitlines():
            digits, _, _, scope, flags, link = line.split()
            if link == CABLE and int(scope, 16) == _LINK_SCOPE and not int(flags, 16) & _UNUSABLE:
                return f"{ipaddress.IPv6Address(int(digits, 16))}%{link}"
        return None

    try:
        return on_node(name, look)
    except FileNotFoundError:  # a kernel without IPv6
        return None


def lost_between(peer: Node, victim: Node, packets: int = 1) -> dict[str, int]:
    """How many of ``packets`` UDP packets ``to`` the victim, and as many ``from`` it, are lost; where both have IPv6,
    as many again over that: ``to over IPv6``, ``from over IPv6``.
    """
    ways = {"to": (peer, victim, victim.address), "from": (victim, peer, peer.address)}
    theirs = own_ipv6(peer.name), own_ipv6(victim.name)
    if None not in theirs:
        ways |= {"to over IPv6": (peer, victim, str(theirs[1])), "from over IPv6": (victim, peer, str(theirs[0]))}
    looks = [partial(arriving, source.name, target.name, address, packets) for source, target, address in ways.values()]
    return {way: packets - count for way, count in zip(ways, at_once(*looks), strict=True)}


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
