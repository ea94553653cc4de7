"""Requests to an OpenAI-compatible frontend, with cancellation at the level of the TCP connection.

Whatever happens to a request (refused, lost, timed out, cancelled, answered with an error) is written into its ledger
entry and is never an exception; exceptions mean that this module was called wrongly.
"""

import base64
import json
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack, cast

from support.clock import now
from support.requests.ledger import Ledger, LedgerEntry
from support.requests.reader import Exchange, Wire, shared_reader

WAYS_TO_CANCEL = ("close", "reset")

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What became of a request.

    Attributes:
        status_code: HTTP status, None if no answer came.
        tokens: tokens of choice 0.
        text: text of choice 0 as the server wrote it.
        entry: all that the client saw; ``entry.end`` says how it ended.
    """

    status_code: int | None
    tokens: list[str]
    text: str
    entry: LedgerEntry


class CancellableRequest:
    """A handle to cancel one request from any thread, before or while it is in flight."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._exchange: Exchange | None = None
        self._cancelled_early: tuple[str, float] | None = None
        self._cancelled = False
        self._claimed = False

    @property
    def cancelled(self) -> bool:
        """Whether a cancel took effect; stays False where the answer had already ended."""
        return self._cancelled

    def cancel(self, how: str = "close") -> bool:
        """Close the TCP connection of the request, or never open it if it has not been sent yet.

        When this returns, the socket is closed. Cancelling again, or after the end of the answer, does nothing.

        Args:
            how: ``close`` sends FIN as a client that goes away does, ``reset`` sends RST as one that crashes may.

        Returns:
            Whether this call took effect.

        Raises:
            ValueError: ``how`` is something else.
        """
        if how not in WAYS_TO_CANCEL:
            raise ValueError(f"cannot cancel by {how!r}; expected one of {', '.join(WAYS_TO_CANCEL)}")
        with self._lock:
            if self._exchange is None:
                took_effect = self._cancelled_early is None
                if took_effect:
                    self._cancelled_early = (how, now())
                    self._cancelled = True
                return took_effect
            exchange = self._exchange
        took_effect = exchange.cancel(how)
        self._cancelled = self._cancelled or took_effect
        return took_effect

    def _claim(self) -> None:
        with self._lock:
            if self._claimed:
                raise ValueError("this CancellableRequest belongs to another request; use a new one for each request")
            self._claimed = True

    def _attach(self, exchange: Exchange) -> None:
        with self._lock:
            self._exchange = exchange
            if self._cancelled_early is not None:
                shared_reader().call(exchange.end_unsent, *self._cancelled_early)


class Pending:
    """A request in flight."""

    def __init__(self, exchange: Exchange, ledger: Ledger, cancellable_request: CancellableRequest) -> None:
        self._exchange = exchange
        self._ledger = ledger
        self._cancellable_request = cancellable_request

    @property
    def entry(self) -> LedgerEntry:
        """The ledger entry; it fills while the answer comes in."""
        return self._exchange.entry

    @property
    def ended(self) -> bool:
        """Whether the request has ended in one way or other."""
        return self._exchange.finished.is_set()

    def cancel(self, how: str = "close") -> bool:
        """As :meth:`CancellableRequest.cancel`."""
        return self._cancellable_request.cancel(how)

    @property
    def token_count(self) -> int:
        """Tokens of choice 0 so far."""
        return self._exchange.token_count

    def when_finished(self, call: Callable[[], None]) -> None:
        """Have ``call`` run on the reader's thread at the end of the request; for programs that run there."""
        self._exchange.when_finished(call)

    def when_tokens(self, count: int, call: Callable[[], Any]) -> None:
        """Have ``call`` run on the reader's thread when ``count`` tokens have come; for programs that run there."""
        self._exchange.when_tokens(count, call)

    def wait_tokens(self, count: int, timeout: float) -> bool:
        """Wait for at least ``count`` tokens of choice 0.

        False as soon as the answer has ended with fewer, or after ``timeout`` seconds.
        """
        exchange = self._exchange
        self._ledger.wait_for(lambda: exchange.token_count >= count or exchange.entry.end is not None, timeout)
        return exchange.token_count >= count

    def join(self, timeout: float | None = None) -> Answer:
        """Wait for the end of the request, which its own deadline bounds, and for its socket to be closed.

        Raises:
            TimeoutError: it has not ended after ``timeout`` seconds; it goes on and can be joined again.
        """
        if not self._exchange.finished.wait(timeout):
            raise TimeoutError(f"request {self.entry.number} has not ended after {timeout:g} s")
        return Answer(self.entry.status_code, self.entry.tokens, "".join(self._exchange.text), self.entry)


def start_request(
    base_url: str,
    model: str,
    prompt: str | Sequence[Message],
    max_tokens: int,
    *,
    stream: bool = False,
    n: int = 1,
    usage: bool = False,
    timeout: float = 120.0,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    cancellable_request: CancellableRequest | None = None,
    ledger: Ledger | None = None,
    intended_at: float | None = None,
    exact_tokens: bool = True,
) -> Pending:
    """Send a request and come back at once.

    Args:
        base_url: ``http://HOST:PORT`` of the frontend; ``/v1/completions`` or ``/v1/chat/completions`` is appended.
        prompt: a string is sent to the completions API, a list of messages to the chat API.
        max_tokens: how many tokens to ask for, at least 1.
        stream: ask for server-sent events instead of one body.
        n: number of choices, at least 1.
        usage: in a stream, ask for the usage at its end (``stream_options.include_usage``); a body always has it.
        timeout: the request's own deadline in seconds, from the start of the connection to the end of the answer; an
            answer that has not ended by then is given up (``entry.end == "timeout"``).
        headers: further HTTP headers; the ledger does not keep the value of ``authorization``.
        extra: further fields of the JSON body.
        cancellable_request: handle to cancel the request from elsewhere.
        ledger: where the entry goes; one of its own if None.
        intended_at: when the request should have been sent, on :mod:`support.clock`; now if None.
        exact_tokens: whether the tokens of its answer can be counted as they come.

    Raises:
        ValueError: an argument is out of its range; says which and what was expected.
    """
    chat = not isinstance(prompt, str)
    _check(model, max_tokens, n, timeout)
    content: dict[str, Any] = {"model": model}
    content |= {"prompt": prompt} if isinstance(prompt, str) else {"messages": [dict(each) for each in prompt]}
    content |= {"max_tokens": max_tokens, "stream": stream}
    if n > 1:
        content["n"] = n
    if stream and usage:
        content["stream_options"] = {"include_usage": True}
    for key in extra or {}:
        if key in content or key in ("n", "prompt", "messages", "stream_options"):
            raise ValueError(f"extra names the field {key!r}, which has an argument of its own; use that")
    content |= extra or {}

    url, wire, headers_sent = _encode(base_url, f"/v1/{'chat/' if chat else ''}completions", headers, content)
    handle = cancellable_request or CancellableRequest()
    handle._claim()
    ledger = ledger or Ledger()
    entry = ledger.open(
        api="chat" if chat else "completions",
        stream=stream,
        model=model,
        prompt=prompt if isinstance(prompt, str) else "\n".join(str(message.get("content", "")) for message in prompt),
        max_tokens=max_tokens,
        n=n,
        usage_asked=usage,
        url=url,
        body=content,
        headers_sent=headers_sent,
        intended_at=now() if intended_at is None else intended_at,
        exact_tokens=exact_tokens,
    )
    reader = shared_reader()
    exchange = Exchange(reader, entry, ledger, wire, timeout)
    handle._attach(exchange)
    reader.loop.call_soon_threadsafe(exchange.start)
    return Pending(exchange, ledger, handle)


class Options(TypedDict, total=False):
    """What :func:`start_request` takes by name, with the defaults that it has there."""

    stream: bool
    n: int
    usage: bool
    timeout: float
    headers: Mapping[str, str] | None
    extra: Mapping[str, Any] | None
    cancellable_request: CancellableRequest | None
    ledger: Ledger | None
    intended_at: float | None


def send_completion_request(
    base_url: str, model: str, prompt: str, max_tokens: int, **options: Unpack[Options]
) -> Answer:
    """Send a request to the completions API and wait for its end.

    Arguments and errors as in :func:`start_request`, and TypeError for messages where a prompt belongs.
    """
    if not isinstance(cast(object, prompt), str):
        raise TypeError(f"prompt is {prompt!r}; expected a string (messages go to send_chat_completion_request)")
    return start_request(base_url, model, prompt, max_tokens, **options).join()


def send_chat_completion_request(
    base_url: str, model: str, messages: Sequence[Message], max_tokens: int, **options: Unpack[Options]
) -> Answer:
    """Send a request to the chat API and wait for its end.

    Arguments and errors as in :func:`start_request`, and TypeError for a prompt where messages belong.
    """
    if isinstance(cast(object, messages), str):
        raise TypeError(f"messages is {messages!r}; expected a list of messages with role and content")
    return start_request(base_url, model, messages, max_tokens, **options).join()


def _check(model: str, max_tokens: int, n: int, timeout: float) -> None:
    if not model:
        raise ValueError("model is empty; expected the name that the frontend's /v1/models lists")
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}; expected at least 1")
    if n < 1:
        raise ValueError(f"n is {n}; expected at least 1")
    if not timeout > 0:
        raise ValueError(f"timeout is {timeout}; expected a number of seconds above 0")


def _encode(
    base_url: str, path: str, headers: Mapping[str, str] | None, content: Mapping[str, Any]
) -> tuple[str, Wire, dict[str, str]]:
    """URL and headers as the ledger keeps them (no secrets), and the bytes to send."""
    url = urllib.parse.urlsplit(base_url)
    try:
        port = url.port
    except ValueError as error:
        raise ValueError(f"base_url {base_url!r} has a bad port; expected http://HOST:PORT") from error
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ValueError(f"base_url is {base_url!r}; expected http://HOST:PORT or https://HOST:PORT")
    authority = url.netloc.rpartition("@")[2]
    path = url.path.rstrip("/") + path
    body = json.dumps(content).encode()
    sent = {
        "host": authority,
        "accept": "text/event-stream" if content["stream"] else "application/json",
        "content-type": "application/json",
        "content-length": str(len(body)),
    }
    if url.username is not None:
        credentials = f"{urllib.parse.unquote(url.username)}:{urllib.parse.unquote(url.password or '')}"
        sent["authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()
    sent |= {name.lower(): value for name, value in (headers or {}).items()}
    for name, value in sent.items():
        if {"\r", "\n"} & set(name + value):
            raise ValueError(f"header {name!r} holds a line break; expected one line")
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in sent.items()) + "\r\n"
    if "authorization" in sent:
        sent["authorization"] = "(not kept)"
    tls = url.scheme == "https"
    wire = Wire(url.hostname, port or (443 if tls else 80), tls, head.encode("latin-1") + body)
    return f"{url.scheme}://{authority}{path}", wire, sent
