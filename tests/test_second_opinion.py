"""Answers as servers may write them, from a fake frontend: our own verdict and what the openai client makes of them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from support.judge.expectations import expect_clean_error
from support.judge.history import History
from support.judge.invariants import check
from support.requests.client import start_request
from support.requests.ledger import LedgerEntry, pack, unpack
from support.requests.outcomes import outcome
from support.requests.reader import KEPT_BYTES
from support.requests.second_opinion import opinions, shape
from support.requests.user_client import CLIENT, opinion, program
from tests.fake_frontend import FakeFrontend

TOKENS = 4
STREAM, CHAT_STREAM = "completions stream", "chat stream"
SSE = "text/event-stream"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeFrontend]:
    frontend = FakeFrontend()
    yield frontend
    frontend.close()


def head(status: str, content_type: str, framing: str) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\n{framing}\r\n\r\n".encode()


def chunked(*pieces: str, whole: bool = True, content_type: str = SSE) -> bytes:
    """A chunked answer; one that is not ``whole`` lacks the last chunk, as when a server dies."""
    data = b"".join(b"%x\r\n%s\r\n" % (len(piece.encode()), piece.encode()) for piece in pieces)
    return head("200 OK", content_type, "transfer-encoding: chunked") + data + (b"0\r\n\r\n" if whole else b"")


def body(content: Any, status: str = "200 OK", content_type: str = "application/json", more: int = 0) -> bytes:
    """A unary answer, whose length is said to be longer by ``more``."""
    text = content if isinstance(content, str) else json.dumps(content)
    return head(status, content_type, f"content-length: {len(text.encode()) + more}") + text.encode()


def event(content: Any) -> str:
    return f"data: {content if isinstance(content, str) else json.dumps(content)}\n\n"


def piece(**choice: Any) -> str:
    choice = {"index": 0, "finish_reason": None} | choice
    return event({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]})


def delta(finish_reason: str | None = None, index: int = 0, **content: Any) -> str:
    return piece(delta=content, finish_reason=finish_reason, index=index)


DONE = event("[DONE]")
ERROR = {"error": {"message": "worker gone", "type": "internal", "code": 500}}
BARE_ERROR = {"message": "worker gone", "type": "internal", "code": 500}
TEXT = [piece(text=f" w{number}") for number in range(TOKENS)]
CHAT = [delta(role="assistant", content=""), *(delta(content=f" w{number}") for number in range(TOKENS))]
USAGE = event({"id": "cmpl-1", "created": 1, "model": "m", "choices": [], "usage": {"completion_tokens": TOKENS}})


def end(reason: str | None) -> str:
    return piece(text="", finish_reason=reason)


def stream(*events: str) -> bytes:
    return chunked(*events)


def unary(reason: str | None = "length", text: str = " w0 w1 w2 w3", **more: Any) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": reason}
    return body({"id": "cmpl-1", "created": 1, "model": "m", "choices": [choice], **more})


def message(reason: str = "length", **content: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": None} | content, "finish_reason": reason}
    return body({"id": "chatcmpl-1", "created": 1, "model": "m", "choices": [choice]})


CALL = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "f", "arguments": ""}}
ARGUMENTS = {"index": 0, "function": {"arguments": '{"a": 1}'}}

# what comes, how it is asked for, our verdict and a part of its reason, the client's and a part of what it says
ANSWERS: dict[str, tuple[bytes, str, str, str, str, str]] = {
    # whole answers
    "stream": (stream(*TEXT, end("length"), DONE), STREAM, "complete", "", "whole", "4 words"),
    "stream, stop": (stream(*TEXT, end("stop"), DONE), STREAM, "complete", "", "whole", "reason stop"),
    "stream, usage": (stream(*TEXT, end("length"), USAGE, DONE), STREAM, "complete", "", "whole", ""),
    CHAT_STREAM: (stream(*CHAT, delta("length"), USAGE, DONE), CHAT_STREAM, "complete", "", "whole", "4 words"),
    "unary": (unary(), "completions", "complete", "", "whole", "finish_reason length"),
    "chat": (message(content="w0 w1 w2 w3"), "chat", "complete", "", "whole", "4 words"),
    "body that ends with the connection": (
        head("200 OK", SSE, "x: y") + "".join([*TEXT, end("length"), DONE]).encode(),
        *(STREAM, "complete", "", "whole", "4 words"),
    ),
    # tokens that are no text
    "reasoning": (
        stream(
            delta(reasoning_content="w0 "),
            delta(reasoning="w1"),
            delta(content=" w2"),
            delta(content="\n"),
            *(delta("length"), DONE),
        ),
        *(CHAT_STREAM, "complete", "", "whole", "1 word"),
    ),
    "white space": (
        stream(*[piece(text=" ")] * 3, piece(text="\n\n", finish_reason="length"), DONE),
        *(STREAM, "complete", "", "whole", ""),
    ),
    "refusal": (
        stream(*(delta(refusal=f" w{number}") for number in range(TOKENS)), delta("stop"), DONE),
        *(CHAT_STREAM, "complete", "", "whole", ""),
    ),
    "tokens that are half a character": (
        stream(
            *TEXT[:2],
            piece(text="", logprobs={"tokens": ["\ufffd"], "token_logprobs": [-1.0]}),
            piece(delta={}, logprobs={"content": [{"token": "\ufffd", "logprob": -1.0}]}),
            *(end("length"), DONE),
        ),
        *(STREAM, "complete", "", "whole", ""),
    ),
    "tool calls": (
        stream(delta(tool_calls=[CALL]), delta(tool_calls=[ARGUMENTS]), delta("tool_calls"), DONE),
        *("chat stream tools", "complete", "", "whole", "finish_reason tool_calls"),
    ),
    "reasoning, unary": (message(reasoning_content="w0 w1", content="w2 w3"), "chat", "complete", "", "whole", ""),
    "tool calls, unary": (
        message("tool_calls", tool_calls=[CALL]),
        *("chat tools", "complete", "", "whole", "finish_reason tool_calls"),
    ),
    # what passes for a whole answer
    "empty": (
        stream(end("stop"), DONE),
        *(STREAM, "broken", "reason stop and 0 tokens; 4 were", "whole", "0 words"),
    ),
    "short": (stream(*TEXT[:3], end("length"), DONE), STREAM, "broken", "3 tokens; 4", "whole", ""),
    "long": (stream(*TEXT, *TEXT, end("length"), DONE), STREAM, "broken", "8 tokens; 4", "whole", ""),
    "empty, unary": (unary("stop", ""), "completions", "broken", "0 tokens; 4", "whole", "0 words"),
    "empty chat": (
        stream(delta(role="assistant", content=""), delta("stop"), DONE),
        CHAT_STREAM,
        "broken",
        "0 tokens",
        "whole",
        "",
    ),
    "empty chat, unary": (message("stop", content=""), "chat", "broken", "0 tokens", "whole", ""),
    **{
        f"finish_reason {reason}": (
            stream(*TEXT, end(reason), DONE),
            *(STREAM, "broken", f"reason {reason}, which does not end", "whole", f"reason {reason}"),
        )
        for reason in ("error", "cancelled", "abort", "eos", "content_filter", "tool_calls")
    },
    "finish_reason error, unary": (unary("error"), "completions", "broken", "reason error", "whole", "reason error"),
    "no [DONE]": (stream(*TEXT, end("length")), STREAM, "broken", "no [DONE]", "whole", ""),
    "two finish reasons": (
        stream(*TEXT, end("length"), end("length"), DONE),
        STREAM,
        "broken",
        "2 finish",
        "whole",
        "",
    ),
    "lost after [DONE]": (
        chunked(*TEXT, end("length"), DONE, whole=False),
        *(STREAM, "broken", "connection was lost", "whole", ""),
    ),
    # errors that the client raises
    "error object": (
        stream(*TEXT[:2], event(ERROR)),
        STREAM,
        "error",
        "worker gone",
        "error",
        "APIError: worker gone",
    ),
    "error object, [DONE]": (stream(event(ERROR), DONE), CHAT_STREAM, "error", "worker gone", "error", "APIError"),
    "named error": (
        stream(*TEXT[:2], f"event: error\n{event(ERROR)}"),
        *(STREAM, "error", "worker gone", "error", "APIError"),
    ),
    "503": (body(BARE_ERROR, "503 Busy"), STREAM, "error", "HTTP 503", "error", "InternalServerError"),
    "529": (body(ERROR, "529 Busy"), "chat", "error", "HTTP 529", "error", "InternalServerError"),
    "400": (body("no such thing", "400 Bad", "text/plain"), CHAT_STREAM, "error", "no such", "error", "BadRequest"),
    "404 without a word": (
        body("", "404 Not Found"),
        "completions",
        "broken",
        "without saying what is wrong",
        "error",
        "NotFoundError",
    ),
    "lost in a chunk": (
        chunked(*TEXT[:2], whole=False),
        *(STREAM, "broken", "connection was lost after 2 of 4", "error", "APIConnectionError"),
    ),
    "lost in a body": (unary()[:-9], "completions", "broken", "connection was lost", "error", "APIConnectionError"),
    "no HTTP": (
        b"\x00\x01 what\r\n\r\n",
        "completions",
        "broken",
        "connection was lost",
        "error",
        "APIConnectionError",
    ),
    # errors that it does not raise
    "error in a comment": (
        stream(*TEXT[:2], "event: error\n: worker gone\n\n"),
        *(STREAM, "broken", "not a JSON object with a field `error`", "crash", "JSONDecodeError"),
    ),
    "error in a comment, [DONE]": (
        stream("event: error\n: worker gone\n\n", DONE),
        *(CHAT_STREAM, "broken", "not a JSON object", "crash", "JSONDecodeError"),
    ),
    "named error without an error object": (
        stream(*TEXT[:2], f"event: error\n{event(BARE_ERROR)}"),
        *(STREAM, "broken", "not a JSON object with a field `error`", "silent", "no finish_reason"),
    ),
    "error without an error object": (
        stream(*TEXT[:2], event(BARE_ERROR)),
        *(STREAM, "broken", "no finish_reason", "silent", "2 words of text, no finish_reason"),
    ),
    "error in plain words": (
        stream(*TEXT[:2], event("gone")),
        STREAM,
        "broken",
        "no finish",
        "crash",
        "JSONDecode",
    ),
    "empty error": (
        stream(*TEXT[:2], event({"error": {}})),
        STREAM,
        "broken",
        "not a JSON object",
        "silent",
        "",
    ),
    "error in a unary answer": (body(ERROR), "completions", "broken", "an error inside", "silent", "no choice"),
    "error in a unary chat answer": (body(BARE_ERROR), "chat", "broken", "no finish_reason", "silent", "no choice"),
    "no JSON": (body("<html>", content_type="application/json"), "chat", "broken", "", "crash", "JSONDecodeError"),
    "no JSON and not said to be": (body("<html>", content_type="text/html"), "chat", "broken", "", "silent", ""),
    # just cut off
    "cut off in good order": (
        stream(*TEXT[:2]),
        STREAM,
        "broken",
        "no finish_reason",
        "silent",
        "2 words",
    ),
    "cut off, [DONE]": (
        stream(*TEXT[:2], DONE),
        STREAM,
        "broken",
        "no finish_reason",
        "silent",
        "2 words",
    ),
    "cut off with the connection": (
        head("200 OK", SSE, "x: y") + "".join(TEXT[:2]).encode(),
        *(STREAM, "broken", "no finish_reason", "silent", "2 words"),
    ),
    "a stream of nothing": (stream(), CHAT_STREAM, "broken", "no finish_reason", "silent", "no choice"),
    "unary for a stream": (unary(), STREAM, "broken", "", "silent", "no choice"),
    # several choices
    "two choices": (
        stream(
            *(delta(content=f" w{number}", index=index) for number in range(TOKENS) for index in (0, 1)),
            delta("length"),
            delta("length", index=1),
            DONE,
        ),
        *("chat stream two", "complete", "", "whole", "choice 1: 4 words"),
    ),
    "one choice of two": (
        stream(*CHAT, delta("length"), DONE),
        *(CHAT_STREAM + " two", "broken", "choice 1 ended", "whole", "choice 0: 4 words"),
    ),
    "two choices, one has no end": (
        stream(
            *(delta(content=f" w{number}", index=index) for number in range(TOKENS) for index in (0, 1)),
            delta("length"),
            DONE,
        ),
        *("chat stream two", "broken", "choice 1 ended", "silent", "choice 1: 4 words of text, no finish_reason"),
    ),
    "two choices, one is short": (
        stream(
            *(delta(content=f" w{number}", index=0) for number in range(TOKENS)),
            delta(content=" w", index=1),
            delta("length"),
            delta("stop", index=1),
            DONE,
        ),
        *("chat stream two", "broken", "choice 1 ended with finish_reason stop and 1 token", "whole", ""),
    ),
    # an event for people who asked for it; whole for us, and the client falls over it
    "annotation": (
        stream(*TEXT, "event: llm_metrics\n: {}\n\n", end("length"), DONE),
        *(STREAM, "complete", "", "crash", "JSONDecodeError"),
    ),
}


def ask(server: FakeFrontend, how: str) -> LedgerEntry:
    words = how.split()
    prompt: Any = [{"role": "user", "content": "a b"}] if words[0] == "chat" else "a b"
    extra = {"tools": [{"type": "function", "function": {"name": "f"}}]} if "tools" in words else None
    n = 2 if "two" in words else 1
    return start_request(server.url, "m", prompt, TOKENS, stream="stream" in words, n=n, extra=extra).join().entry


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_gets_our_verdict_and_the_clients(server: FakeFrontend, name: str) -> None:
    server.raw, how, kind, why, client_kind, says = ANSWERS[name]
    entry = ask(server, how)
    seen = outcome(entry)
    assert (seen.kind, why in seen.why) == (kind, True), seen
    found = opinion(entry)
    assert (found.kind, says in found.says) == (client_kind, True), found
    # a client of flesh and blood, over a socket, sees the same
    with httpx2.Client(trust_env=False) as http:
        live = program(entry, http, f"{server.url}/v1")
    assert (live.kind, live.says.partition(":")[0]) == (found.kind, found.says.partition(":")[0])


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_lost_connection_is_the_same_recorded_and_live(server: FakeFrontend, reset: bool, stream: bool) -> None:
    """The recorded failure raises in the library what a real one does."""
    server.raw, server.reset = (chunked(*TEXT[:2], whole=False) if stream else unary()[:-9]), reset
    try:
        entry = ask(server, STREAM if stream else "completions")
        with httpx2.Client(trust_env=False) as http:
            live = program(entry, http, f"{server.url}/v1")
    finally:
        server.reset = False
    assert entry.end == "lost"
    assert ("ConnectionResetError" in (entry.exception or "")) == reset
    found = opinion(entry)
    assert (found.kind, found.says) == (live.kind, live.says)
    assert found.says.startswith("APIConnectionError")


def test_a_refused_connection_and_a_deadline_are_errors_for_the_client(server: FakeFrontend) -> None:
    refused = start_request("http://127.0.0.1:9", "m", "a b", TOKENS).join().entry
    assert (outcome(refused).kind, opinion(refused).says) == ("error", "APIConnectionError: Connection error.")
    server.raw = chunked(*TEXT[:2])[:-5]
    late = replace(ask(server, STREAM), end="timeout", exception="the answer had not ended after 1 s")
    assert opinion(late).says.startswith("APITimeoutError")


def judged(entry: LedgerEntry) -> LedgerEntry:
    return replace(entry, opinion=opinion(entry))


def broken_rules(entry: LedgerEntry) -> dict[str, str]:
    return {finding.rule: finding.message for finding in check(History(entries=[judged(entry)]))}


@pytest.mark.parametrize("name", ["empty", "short", "finish_reason error", "no [DONE]", "empty chat, unary"])
def test_what_is_broken_for_us_and_whole_for_the_client_passes_for_an_answer(server: FakeFrontend, name: str) -> None:
    server.raw, how, *_ = ANSWERS[name]
    found = broken_rules(ask(server, how))
    assert "one-outcome" not in found
    assert found["passes-for-an-answer"].startswith("looks like an answer (")
    assert CLIENT in found["passes-for-an-answer"]


@pytest.mark.parametrize("name", ["cut off, [DONE]", "error without an error object", "error in a comment"])
def test_what_stops_without_a_word_is_broken_and_does_not_pass(server: FakeFrontend, name: str) -> None:
    server.raw, how, *_ = ANSWERS[name]
    found = broken_rules(ask(server, how))
    assert "one-outcome" in found
    assert "passes-for-an-answer" not in found


@pytest.mark.parametrize(
    ("name", "opinion_kind", "said"),
    [("error object", "silent", "not a clean error"), ("stream", "crash", "the answer is whole, but")],
)
def test_a_client_that_disagrees_makes_an_outcome_broken(
    server: FakeFrontend, name: str, opinion_kind: str, said: str
) -> None:
    """Were the next release of the client to see it otherwise."""
    server.raw, how, *_ = ANSWERS[name]
    entry = ask(server, how)
    assert outcome(judged(entry)).kind == outcome(entry).kind
    entry.opinion = replace(opinion(entry), kind=opinion_kind, says="nothing")
    assert (outcome(entry).kind, outcome(entry).why.startswith(said)) == ("broken", True)
    assert f"{CLIENT} " in outcome(entry).why
    if name == "error object":
        with pytest.raises(AssertionError, match="should have ended in a clean error, but is broken"):
            expect_clean_error(entry)


def test_an_annotation_that_the_client_falls_over_is_broken(server: FakeFrontend) -> None:
    server.raw, how, *_ = ANSWERS["annotation"]
    assert "JSONDecodeError" in broken_rules(ask(server, how))["one-outcome"]


def test_an_event_that_is_neither_answer_nor_error_is_not_well_formed(server: FakeFrontend) -> None:
    server.raw = stream(*TEXT, event(BARE_ERROR), end("length"), DONE)
    assert "neither a piece of an answer nor an error" in broken_rules(ask(server, STREAM))["well-formed"]


def test_each_watched_answer_is_asked_about_and_one_of_each_shape_of_the_others(server: FakeFrontend) -> None:
    entries: list[LedgerEntry] = []
    for name in ["stream", "stream", "stream", "short", "error object", "error in a comment", "stream", "short"]:
        server.raw, how, *_ = ANSWERS[name]
        entries.append(replace(ask(server, how), number=len(entries) + 1))
    entries.append(replace(entries[0], number=9, end="cancelled"))
    found = opinions(entries, each={2})
    assert {number: each.played for number, each in found.items()} == {1: 1, 2: 2, 3: 2, 4: 4, 5: 5, 6: 6, 7: 2, 8: 4}
    assert [found[number].kind for number in (3, 6, 8)] == ["whole", "crash", "whole"]


def test_answers_of_one_shape_are_all_whole_or_all_not() -> None:
    """Over the whole table: where shapes agree, so do verdicts and opinions."""
    server = FakeFrontend()
    shapes: dict[str, set[tuple[str, str]]] = {}
    for raw, how, kind, _, client_kind, _ in ANSWERS.values():
        server.raw = raw
        shapes.setdefault(shape(ask(server, how)), set()).add((kind, client_kind))
    server.close()
    assert all(len(seen) == 1 for seen in shapes.values())
    assert len(shapes) > 30


def test_the_length_of_an_answer_is_no_matter_for_its_shape(server: FakeFrontend) -> None:
    server.raw = b""
    short, long = (
        start_request(server.url, "m", "a b", tokens, stream=True).join().entry for tokens in (TOKENS, 5 * TOKENS)
    )
    assert shape(short) == shape(long)


def test_the_bytes_of_an_answer_are_in_the_ledger(server: FakeFrontend) -> None:
    events = [*TEXT, end("length"), DONE]
    server.raw = stream(*events)
    entry = judged(ask(server, STREAM))
    assert entry.received == "".join(events).encode()
    again = unpack(json.loads(json.dumps(pack(entry))))
    assert again == entry
    assert opinion(again) == entry.opinion
    server.raw = unary()
    assert ask(server, "completions").received == unary().partition(b"\r\n\r\n")[2]


def test_of_an_endless_answer_nothing_is_kept(server: FakeFrontend) -> None:
    server.raw = stream(piece(text=" w" * (KEPT_BYTES // 2)), end("length"), DONE)
    entry = ask(server, STREAM)
    assert (entry.received, entry.received_size > KEPT_BYTES) == (b"", True)
    assert opinions([entry], each={entry.number}) == {}
