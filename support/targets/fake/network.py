"""The network of a deployment in memory: who reaches whom, connections of clients, and control calls.

Everything is done at once unless something is in its way: a cut keeps what is sent until it heals, a rule that resets
breaks connections, and a host that is dead refuses.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from support.asking import Order, Response
from support.targets.fake.clock import VirtualClock, VirtualLoop

_numbers = itertools.count(1)
WIRE_SECONDS = 0.001
"""That a packet takes, and what it brings about: causes come before effects."""


def respond(order: Order, answer: Callable[[str, str, Any], Any]) -> Response:
    """The response to a control call.

    Args:
        answer: returns what is said to method, path and body: content, or status and content.
    """
    method, path, body, _ = order
    found = answer(method, path, json.loads(body) if body else {})
    status, content = found if isinstance(found, tuple) else (200, found)
    text = content if isinstance(content, str) else json.dumps(content)
    return Response(status, text.encode())


class Server(Protocol):
    """A program that listens on a port."""

    @property
    def listening(self) -> bool:
        """Whether connections are taken; else they are refused."""

    @property
    def answering(self) -> bool:
        """Whether the program runs; else connections stand and nothing is said."""

    def call(self, order: Order) -> Response:
        """Answer a control call."""

    def accept(self, connection: "Connection") -> None:
        """Serve a client that has connected."""


@dataclass(eq=False)
class Rule:
    """What a fault does to packets between two sides.

    Attributes:
        mode: ``drop``, ``reject``, ``reset``, ``loss`` or ``bandwidth``.
        direction: ``to`` the targets, ``from`` them or ``both``.
        strength: percent that are lost, or kilobits per second.
    """

    sources: Collection[str]
    targets: Collection[str]
    mode: str
    direction: str = "both"
    strength: float = 0.0
    hits: int = 0
    number: int = field(default_factory=lambda: next(_numbers))

    def covers(self, sender: str, receiver: str) -> bool:
        """Whether a packet from one host to another meets it."""
        if self.mode == "bandwidth" and self.targets:
            to, back = receiver in self.targets, sender in self.targets
        else:
            to = sender in self.sources and receiver in self.targets
            back = sender in self.targets and receiver in self.sources
        return (to and self.direction in ("to", "both")) or (back and self.direction in ("from", "both"))


class FakeNetwork:
    """All hosts of a deployment.

    Args:
        loop: everything that takes time happens on it.
    """

    def __init__(self, clock: VirtualClock, loop: VirtualLoop) -> None:
        self.clock, self.loop = clock, loop
        self.servers: dict[tuple[str, int], Server] = {}
        self.rules: list[Rule] = []
        self.watchers: list[Callable[[], None]] = []
        self.struck_at: float | None = None
        """When the first fault was made."""
        self._changed: asyncio.Future[None] = loop.create_future()

    # -- packets

    def _met(self, sender: str, receiver: str) -> Iterator[Rule]:
        return (rule for rule in self.rules if rule.covers(sender, receiver))

    def blocked(self, sender: str, receiver: str) -> str:
        """The mode of the rule that keeps packets from arriving, else empty."""
        for rule in self._met(sender, receiver):
            if rule.mode in ("drop", "reject", "reset"):
                rule.hits += 1
                return rule.mode
        return ""

    def talk(self, one: str, other: str) -> bool:
        """Whether packets arrive both ways."""
        return not self.rules or not (self.blocked(one, other) or self.blocked(other, one))

    def strength(self, sender: str, receiver: str, mode: str) -> float:
        """Percent lost, or kilobits per second, of packets from one host to another; 0 where no such rule is."""
        return max((rule.strength for rule in self._met(sender, receiver) if rule.mode == mode), default=0.0)

    def add(self, rule: Rule) -> None:
        """From now on."""
        self.rules.append(rule)
        self.change()

    def remove(self, rule: Rule) -> None:
        """It is healed."""
        if rule in self.rules:
            self.rules.remove(rule)
            self.change()

    def change(self) -> None:
        """Somebody can be reached again, or no more: whoever waits for it looks again."""
        before, self._changed = self._changed, self.loop.create_future()
        before.set_result(None)
        for watcher in list(self.watchers):
            watcher()
        self.loop.wake()

    async def changes(self) -> None:
        """Until something has changed."""
        await asyncio.shield(self._changed)

    async def passes(self, sender: str, receiver: str) -> None:
        """Until packets arrive.

        Raises:
            ConnectionResetError: they are answered with a reset.
        """
        while self.rules and (mode := self.blocked(sender, receiver)):
            if mode == "reset":
                raise ConnectionResetError("Connection reset by peer")
            await self.changes()

    # -- connections of clients, which are cut off from nobody

    def connect(self, protocol_factory: Callable[[], Any], host: str, port: int) -> tuple[Any, Any]:
        """A client's connection to a server; what ``create_connection`` of an event loop comes to."""
        server = self.servers.get((host, port))
        if server is None or not server.listening:
            raise ConnectionRefusedError(111, f"Connect call failed ('{host}', {port})")
        protocol = protocol_factory()
        connection = Connection(self.loop, protocol)
        protocol.connection_made(connection)
        server.accept(connection)
        return connection, protocol

    # -- control calls

    def carry(self, scheme: str, netloc: str, timeout: float, order: Order) -> Response:
        """See :data:`support.asking.Carry`; called by threads that have the turn."""
        self.clock.sleep(WIRE_SECONDS)
        host, _, port = netloc.rpartition(":")
        server = self.servers.get((host, int(port)))
        if server is None or not server.listening:
            raise ConnectionRefusedError(f"{scheme}://{netloc}: Connection refused")
        if not self.clock.wait(lambda: server.answering or not server.listening, timeout):
            raise TimeoutError("timed out")
        if not server.listening:
            raise ConnectionResetError("Connection reset by peer")
        answer = server.call(order)
        self.loop.wake()
        return answer


class _NoSocket:
    def setsockopt(self, *_: Any) -> None:
        """Nothing lingers in memory."""

    def fileno(self) -> int:
        return -1


class Connection:
    """A client's connection, both as the transport that its protocol writes to and as the server has it.

    Attributes:
        on_data, on_lost: what the server does when the client has sent something or is gone.
    """

    def __init__(self, loop: VirtualLoop, protocol: Any) -> None:
        self._loop, self._protocol, self._open = loop, protocol, True
        self._unread: list[bytes] = []
        self.on_data: Callable[[bytes], None] | None = None
        self.on_lost: Callable[[], None] | None = None

    # as the client has it

    def get_extra_info(self, name: str) -> Any:
        """A socket that is none."""
        return _NoSocket()

    def write(self, data: bytes) -> None:
        """To the server."""
        if self.on_data is None:
            self._unread.append(data)
        else:
            self.on_data(data)

    def abort(self) -> None:
        """The client goes."""
        if self._open:
            self._open = False
            self._loop.call_soon(self._protocol.connection_lost, None)
            if self.on_lost is not None:
                self.on_lost()

    # as the server has it

    def read(self, on_data: Callable[[bytes], None], on_lost: Callable[[], None]) -> None:
        """Have these called, with what has come already first."""
        self.on_data, self.on_lost = on_data, on_lost
        for data in self._unread:
            on_data(data)
        self._unread.clear()

    def send(self, data: bytes) -> None:
        """To the client."""
        while data and self._open:
            room = self._protocol.get_buffer(len(data))
            size = min(len(data), len(room))
            room[:size] = data[:size]
            self._protocol.buffer_updated(size)
            data = data[size:]

    def lose(self, error: Exception | None = None) -> None:
        """The server goes: in good order, or by a reset."""
        if self._open:
            self._open = False
            self._protocol.connection_lost(error)
