"""The second judge: the client library that users have, given a recorded answer byte by byte.

It is asked what a program would have had in its hands: a whole answer, an API error, another exception, or an answer
that just stops. Nothing goes over a network: the library's own transport is replaced by one that hands out what the
ledger has, and fails as a connection does where the recorded one failed. Everything above it, decoders included, is the
library's.

Importing it costs a second of CPU; :mod:`support.requests.second_opinion` does so when requests are over.
"""

from collections.abc import Iterator
from typing import Any

import httpx2
import openai

from support.amounts import amount
from support.requests.ledger import LedgerEntry, Opinion
from support.requests.outcomes import shorten

CLIENT = f"openai {openai.__version__}"


def opinion(entry: LedgerEntry) -> Opinion:
    """What the library makes of the answer of a request that has ended, not by our own cancel."""
    with httpx2.Client(transport=_Recorded(entry), trust_env=False) as http:
        return program(entry, http, "http://recorded/v1")


def program(entry: LedgerEntry, http: httpx2.Client, base_url: str) -> Opinion:
    """A user's program that asks for what ``entry`` asked for. It is a patient one: it takes events without choices for
    what they are, and tries nothing again.
    """
    client = openai.OpenAI(api_key="none", base_url=base_url, max_retries=0, http_client=http)
    seen: dict[int, _Choice] = {}
    try:
        _read(client, entry, seen)
    except openai.APIError as error:
        return Opinion(CLIENT, "error", _said(error), entry.number)
    except Exception as error:  # noqa: BLE001 - whatever the library lets out, the user's program has to deal with
        return Opinion(CLIENT, "crash", _said(error), entry.number)
    # Choices that were asked for and never came are missed by nobody but the user.
    whole = bool(seen) and all(choice.finish_reason is not None for choice in seen.values())
    told = "; ".join(f"choice {index}: {choice}" if entry.n > 1 else f"{choice}" for index, choice in seen.items())
    return Opinion(CLIENT, "whole" if whole else "silent", told or "no exception and no choice", entry.number)


class _Choice:
    """What a program has of one choice."""

    def __init__(self) -> None:
        self.text = ""
        self.finish_reason: object = None

    def __str__(self) -> str:
        words = f"{amount(len(self.text.split()), 'word')} of text"
        end = "no finish_reason" if self.finish_reason is None else f"finish_reason {self.finish_reason}"
        return f"{words}, {end}, no exception"


def _read(client: openai.OpenAI, entry: LedgerEntry, seen: dict[int, _Choice]) -> None:
    api: Any = client.chat.completions if entry.api == "chat" else client.completions
    prompt = {"messages": [{"role": "user", "content": "recorded"}]} if entry.api == "chat" else {"prompt": "recorded"}
    answer = api.create(model=entry.model, max_tokens=entry.max_tokens, stream=entry.stream, **prompt)
    for part in answer if entry.stream else [answer]:
        for choice in getattr(part, "choices", None) or ():
            mine = seen.setdefault(getattr(choice, "index", None) or 0, _Choice())
            said = getattr(choice, "delta", None) or getattr(choice, "message", None)
            text = getattr(choice, "text", None) or getattr(said, "content", None)
            mine.text += text if isinstance(text, str) else ""
            reason = getattr(choice, "finish_reason", None)
            mine.finish_reason = mine.finish_reason if reason is None else reason


def _said(error: Exception) -> str:
    return shorten(f"{type(error).__name__}: {error}", 300)


class _Body(httpx2.SyncByteStream):
    def __init__(self, content: bytes, failure: Exception | None) -> None:
        self._content, self._failure = content, failure

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        if self._failure is not None:
            raise self._failure


class _Recorded(httpx2.BaseTransport):
    def __init__(self, entry: LedgerEntry) -> None:
        self._entry = entry

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        entry, failure = self._entry, _failure(self._entry)
        if entry.status_code is None:
            raise failure or httpx2.RemoteProtocolError("the server sent no answer")
        return httpx2.Response(entry.status_code, headers=entry.headers, stream=_Body(entry.received, failure))


def _failure(entry: LedgerEntry) -> Exception | None:
    """What the library's transport raises where the recorded connection ended in this way."""
    said = entry.exception or ""
    if entry.end == "refused":
        return httpx2.ConnectError(said)
    if entry.end == "timeout":
        return httpx2.ReadTimeout(said)
    if entry.end == "lost":
        reset = said.startswith(("ConnectionResetError", "BrokenPipeError", "OSError", "TimeoutError"))
        return httpx2.ReadError(said) if reset else httpx2.RemoteProtocolError(said)
    return None
