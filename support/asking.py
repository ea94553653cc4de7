"""HTTP calls that are not a user's requests: control calls, and looks at metrics and lists.

One connection for each, so that each look meets a fault afresh; no proxy, whatever the environment says. The
standard library's client: conditions are looked at up to 50 times a second by several scenarios at once, and one GET
costs 0.3 ms of CPU with it and 1.0 ms with httpx2, which ``openai`` brings along (2.16, a shared client).
"""

import contextlib
import http.client
import json
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from support.errors import SuiteError

Order = tuple[str, str, str | None, Mapping[str, str]]
"""Method, path, body and headers."""
CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


class NoAnswer(SuiteError):
    """No connection, no answer in time, or an answer that is not HTTP."""


@dataclass(frozen=True)
class Response:
    """What was answered, whatever its status says."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        """The body; bytes that are not UTF-8 become U+FFFD."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.body)


def ask(
    url: str, timeout: float, method: str = "GET", body: Any = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Ask once.

    Args:
        url: ``http://ADDRESS:PORT/path``, or one with ``https``.
        timeout: seconds for connecting, and for each read.
        body: sent as JSON unless None.

    Raises:
        ValueError: ``url`` is not such a URL.
        NoAnswer: says why.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in CONNECTIONS or not parts.netloc:
        raise ValueError(f"cannot ask {url!r}; expected an http:// or https:// URL")
    path = parts._replace(scheme="", netloc="").geturl() or "/"
    content = None if body is None else json.dumps(body)
    typed = {} if body is None else {"Content-Type": "application/json"}
    try:
        return _carry(parts.scheme, parts.netloc, timeout, (method, path, content, typed | dict(headers or {})))
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error


def over_tcp(scheme: str, netloc: str, timeout: float, order: Order) -> Response:
    """By the network of this machine; the :data:`Carry` that a process begins with."""
    with contextlib.closing(CONNECTIONS[scheme](netloc, timeout=timeout)) as connection:
        connection.request(*order)
        answer = connection.getresponse()
        return Response(answer.status, answer.read())


Carry = Callable[[str, str, float, Order], Response]
"""Brings an order to ``ADDRESS:PORT`` under a scheme, and an answer back within a time; OSError: it cannot."""
_carry: Carry = over_tcp


def carry_by(carry: Carry) -> None:
    """Have this process ask over another network from now on, such as that of a target in memory."""
    global _carry
    _carry = carry
