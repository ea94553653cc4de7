"""The one streaming reader: HTTP/1.1 exchanges on an event loop in a background thread.

Written on asyncio's protocols with httptools' parser (llhttp, as in uvicorn) and not on a client library, because the
ledger must know what a library hides: when the connection stood, every byte that came before a reset, and the transport
itself, so that a connection can be closed or reset at any stage. It is cheaper, too: CPU per token with 20 streams of
125 tokens/s each was 28 us, against 45 with aiohttp, 36 with aiohttp on uvloop and some 280 with httpx; uvloop under
httptools changed nothing once the reads went into one buffer.
"""

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar, cast

import httptools

from support import clock
from support.clock import now
from support.priority import take_right_of_way
from support.requests.ledger import Chunk, Ledger, LedgerEntry
from support.requests.payloads import Parsed, StreamParser, parse_body
from support.requests.sse import EventParser, ServerEvent

_Result = TypeVar("_Result")
_HEARTBEAT = 0.05
KEPT_BYTES = 4 * 1024 * 1024
"""Longest answer whose bytes are kept for the second judge; at 250 bytes a token that is 16,000 tokens."""
# Work that can wait is done in slices of this length, so that it delays nothing by more.
_WORK_SECONDS = 0.001


class Wire(NamedTuple):
    """Where a request goes and the bytes that are sent there."""

    host: str
    port: int
    tls: bool
    data: bytes


class Reader:
    """An event loop in a daemon thread, with a heart that measures how late it runs while requests are in flight."""

    def __init__(self) -> None:
        self.loop = clock.loop()
        # One buffer for all: the parser copies out of it before the loop reads again.
        self.buffer = memoryview(bytearray(64 * 1024))
        self._work: deque[Callable[[], None]] = deque()
        self._working = False
        self._active: set[Exchange] = set()
        self._beat_due = 0.0
        self._heart: asyncio.TimerHandle | None = None
        self._thread = clock.thread(self._run, name="streaming-reader")
        self._thread.start()

    def _run(self) -> None:
        # A clock that has to wait for those whom it measures is none. The thread alone, whose work is little: with the
        # whole process Dynamo waits for behave to start, and answers late. Allowed to root, as in a cell.
        # In real time: a nice value alone left it up to 250 ms late on two cores with 16 processes that could run.
        take_right_of_way()
        self.loop.run_forever()

    def call(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run ``function`` on the loop's thread and hand back its result; callable from any thread."""
        if self.on_own_thread():
            return function(*arguments)

        async def run() -> _Result:
            return function(*arguments)

        return clock.result(asyncio.run_coroutine_threadsafe(run(), self.loop))

    def when_idle(self, work: Callable[[], None]) -> None:
        """Have ``work`` done after what cannot wait: reading and sending, whose times are taken. Own thread only."""
        self._work.append(work)
        if not self._working:
            self._working = True
            self.loop.call_soon(self._do_work)

    def _do_work(self) -> None:
        until = now() + _WORK_SECONDS
        try:
            while self._work and now() < until:
                self._work.popleft()()
        finally:
            self._working = bool(self._work)
            if self._working:
                self.loop.call_soon(self._do_work)

    def on_own_thread(self) -> bool:
        """Whether the caller is the loop itself, which must not wait for what only the loop can do."""
        return threading.current_thread() is self._thread

    def add(self, exchange: "Exchange") -> None:
        """Let the heart watch over one more exchange."""
        self._active.add(exchange)
        if self._heart is None:
            self._schedule()

    def remove(self, exchange: "Exchange") -> None:
        """The exchange is over; the lateness of the beat that is due counts for it as well."""
        if exchange in self._active:
            self._note_lag()
            self._active.discard(exchange)

    def _schedule(self) -> None:
        self._beat_due = now() + _HEARTBEAT
        self._heart = self.loop.call_later(_HEARTBEAT, self._beat)

    def _beat(self) -> None:
        self._note_lag()
        self._heart = None
        if self._active:
            self._schedule()

    def _note_lag(self) -> None:
        lag = now() - self._beat_due
        for exchange in self._active:
            exchange.entry.lag_seconds = max(exchange.entry.lag_seconds, lag)


@cache
def shared_reader() -> Reader:
    """The reader of this process, started by the first request."""
    return Reader()


class Exchange(asyncio.BufferedProtocol):
    """One request and its answer on a connection of its own. Everything but :meth:`cancel` runs on the reader's thread.

    ``finished`` is set once the answer has ended *and* the socket is closed.
    """

    def __init__(self, reader: Reader, entry: LedgerEntry, ledger: Ledger, wire: Wire, timeout: float) -> None:
        self.entry = entry
        self.finished = clock.event()
        self.text: list[str] = []
        self.token_count = 0
        self._reader = reader
        self._ledger = ledger
        self._wire = wire
        self._timeout = timeout
        self._connecting: asyncio.Task[Any] | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._http: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._events: EventParser | None = None
        self._stream = StreamParser()
        self._body = bytearray()
        self._pieces: list[tuple[float, bytes]] = []
        self._received: list[bytes] = []
        self._received_size = 0
        self._parsed: list[Parsed] = []
        self._read_at = 0.0
        self._message_complete = False
        self._problem: str | None = None
        self._waiting = False
        self._when_finished: Callable[[], None] | None = None
        self._when_tokens: tuple[int, Callable[[], Any]] | None = None

    # From the outside

    def when_finished(self, call: Callable[[], None]) -> None:
        """Have ``call`` run on the reader's thread once ``finished`` is set; one call for each exchange."""
        self._when_finished = call

    def when_tokens(self, count: int, call: Callable[[], Any]) -> None:
        """Have ``call`` run on the reader's thread once ``count`` tokens have come; one call for each exchange."""
        self._when_tokens = (count, call)

    def cancel(self, how: str) -> bool:
        """Close (``close``) or reset (``reset``) the connection; back once the socket is closed.

        False if the answer had ended before, in which case nothing is changed.
        """
        took_effect = self._reader.call(self._cancel, how)
        if took_effect and not self._reader.on_own_thread():
            self.finished.wait()
        return took_effect

    def start(self) -> None:
        """Connect and send."""
        if self.entry.end is not None:
            return
        self.entry.sent_at = now()
        self._reader.add(self)
        self._timer = self._reader.loop.call_later(self._timeout, self._expire)
        self._connecting = self._reader.loop.create_task(
            self._reader.loop.create_connection(
                lambda: self, self._wire.host, self._wire.port, ssl=self._wire.tls or None
            )
        )
        self._connecting.add_done_callback(self._after_connect)

    def end_unsent(self, how: str, at: float) -> None:
        """The request was cancelled at ``at``, before anything was done for it."""
        self._end("cancelled", cancelled_by=how, cancelled_at=at)

    # Connection

    def _after_connect(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and self.entry.end is None:
            self._end("refused", _describe(error))
        if self._transport is None:
            self._finish()

    def _finish(self) -> None:
        self.finished.set()
        call, self._when_finished, self._when_tokens = self._when_finished, None, None
        # Without these circles an exchange is gone as soon as nobody wants it, with no need of a garbage collector.
        self._http = self._connecting = self._transport = None
        if call is not None:
            call()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self._transport = cast(asyncio.Transport, transport)
        if self.entry.end is not None:
            self._transport.abort()
            return
        at = now()

        def change() -> None:
            self.entry.connected_at = at

        self._ledger.update(change)
        self._transport.write(self._wire.data)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop is to put what it reads."""
        return self._reader.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take down what was read and when; what it says is found out as soon as nothing more urgent is due."""
        over = self.entry.end is not None or self._message_complete or self._problem is not None
        if over or self._http is None:
            return
        self._read_at = now()
        try:
            self._http.feed_data(self._reader.buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._problem = _describe(error)
        if self._events is not None and self._body:
            piece = bytes(self._body)
            self._pieces.append((self._read_at, piece))
            self._received_size += len(piece)
            if self._received_size <= KEPT_BYTES:
                self._received.append(piece)
            self._body.clear()
        if not self._waiting:
            self._waiting = True
            self._reader.when_idle(self._digest)

    def _digest(self) -> None:
        """Store what was read; the end of the message ends the exchange."""
        self._waiting = False
        if self.entry.end is not None:
            return
        self._parse_pieces()
        if self._message_complete:
            # Whatever follows an orderly end is nobody's answer.
            self._end("complete")
        elif self._problem is not None:
            self._end("lost", self._problem)
        elif self._parsed:
            self._ledger.update(self._store)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over: by us, in good order where nothing else marks the end of the body, or lost."""
        self._digest()
        if self.entry.end is None:
            self._read_at = now()
            delimited_by_close = (
                self.entry.status_code is not None
                and "content-length" not in self._headers
                and "chunked" not in self._headers.get("transfer-encoding", "")
            )
            if exc is None and delimited_by_close:
                self._end("complete")
            else:
                stage = "before the headers" if self.entry.status_code is None else "in the middle of the body"
                self._end("lost", _describe(exc) if exc else f"the server closed the connection {stage}")
        # asyncio closes the socket right after this call.
        self._reader.loop.call_soon(self._finish)

    # Callbacks of the parser, which would wrap what they raise: they only take down what it read

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take down one header; repeated ones are joined."""
        if not self._message_complete:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        """Store status and headers of the final answer."""
        assert self._http is not None
        status = self._http.get_status_code()
        if self._message_complete or status < 200:
            return
        if self._headers.get("content-type", "").startswith("text/event-stream"):
            self._events = EventParser()

        def change() -> None:
            self.entry.headers_at = self._read_at
            self.entry.status_code = status
            self.entry.headers = self._headers

        self._ledger.update(change)

    def on_body(self, data: bytes) -> None:
        """Take down a piece of the body."""
        if not self._message_complete:
            self._body += data

    def on_message_complete(self) -> None:
        """The body has ended in good order."""
        if self.entry.status_code is None:
            self._headers = {}  # of an interim answer (1xx)
        else:
            self._message_complete = True

    # Ends

    def _cancel(self, how: str) -> bool:
        self._digest()
        if self.entry.end is not None:
            return False
        if self._transport is not None:
            _prepare_close(self._transport, how)
        self._end("cancelled", cancelled_by=how, cancelled_at=now())
        return True

    def _expire(self) -> None:
        self._digest()
        if self.entry.end is None:
            self._end("timeout", f"the answer had not ended after {self._timeout:g} s")

    def _end(
        self, end: str, exception: str | None = None, cancelled_by: str | None = None, cancelled_at: float | None = None
    ) -> None:
        if end in ("complete", "lost"):
            self._parse_rest(end == "complete")
        self._reader.remove(self)

        def change() -> None:
            self._store()
            self.entry.cancelled_by = cancelled_by
            self.entry.cancelled_at = cancelled_at
            self.entry.exception = exception
            self.entry.ended_at = self._read_at if end in ("complete", "lost") else now()
            self.entry.end = end
            self.entry.received_size = self._received_size + len(self._body)
            if self.entry.received_size <= KEPT_BYTES:
                self.entry.received = b"".join((*self._received, self._body))

        self._ledger.update(change)
        self._received.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        elif self._connecting is not None:
            self._connecting.cancel()
        else:
            self._finish()

    def _parse_rest(self, whole: bool) -> None:
        raw = self._body.decode("utf-8", "replace")
        if self._events is not None:
            self._parse(self._events.flush(), self._read_at)
        elif whole:
            self._parsed.append(parse_body(raw, self._read_at, self.entry.status_code or 0))
        elif raw:
            self._parsed.append(Parsed([Chunk(self._read_at, "other", raw=raw)]))

    def _parse_pieces(self) -> None:
        for at, piece in self._pieces:
            assert self._events is not None
            self._parse(self._events.feed(piece), at)
        self._pieces.clear()

    def _parse(self, events: list[ServerEvent], at: float) -> None:
        self._parsed += [self._stream.parse(event, at) for event in events]

    def _store(self) -> None:
        for parsed in self._parsed:
            self.entry.chunks += parsed.chunks
            self.token_count += sum(len(chunk.tokens) for chunk in parsed.chunks if chunk.index in (0, None))
            if parsed.usage is not None:
                self.entry.usage = parsed.usage
            if parsed.text:
                self.text.append(parsed.text)
        self._parsed.clear()
        if self._when_tokens is not None and self.token_count >= self._when_tokens[0]:
            self._reader.loop.call_soon(self._when_tokens[1])
            self._when_tokens = None


def _prepare_close(transport: asyncio.Transport, how: str) -> None:
    """Make the close that follows look to the server as ``how`` says."""
    sock = transport.get_extra_info("socket")
    if how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return
    # The kernel answers with a reset where unread bytes are left at the close, so take them out first.
    with contextlib.suppress(OSError):
        while os.read(sock.fileno(), 64 * 1024):
            pass


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
