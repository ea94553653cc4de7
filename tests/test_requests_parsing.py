import json

import pytest

from support.requests.ledger import Chunk, LedgerEntry, pack, unpack
from support.requests.payloads import StreamParser, parse_body, parse_event
from support.requests.sse import EventParser, ServerEvent

STREAM = (
    "\ufeff: welcome\n"
    'data: {"text": "Grüße 🚀"}\n'
    "\n"
    "event: error\r\n"
    ": worker is gone\r\n"
    "\r\n"
    ": keep-alive\n"
    "\n"
    "data: one\r"
    "data:two\r"
    "\r"
    "id: 7\n"
    "retry: 10\n"
    "data\n"
    "\n"
    "data: [DONE]\n"
    "\n"
).encode()
EVENTS = [
    ServerEvent("", '{"text": "Grüße 🚀"}', ("welcome",)),
    ServerEvent("error", None, ("worker is gone",)),
    ServerEvent("", "one\ntwo", ()),
    ServerEvent("", "", ()),
    ServerEvent("", "[DONE]", ()),
]


def parse(*pieces: bytes) -> list[ServerEvent]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)] + parser.flush()


def test_events_of_a_whole_stream() -> None:
    assert parse(STREAM) == EVENTS


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_pair_of_cuts_gives_the_same_events(line_end: str) -> None:
    stream = STREAM.decode().replace("\r\n", "\n").replace("\r", "\n").replace("\n", line_end).encode()
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1, 3):
            assert parse(stream[:first], stream[first:second], stream[second:]) == EVENTS, (first, second)


def test_one_byte_at_a_time() -> None:
    assert parse(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == EVENTS


def test_events_come_out_as_soon_as_their_blank_line_is_there() -> None:
    parser = EventParser()
    assert parser.feed(b"data: a\n") == []
    assert parser.feed(b"\ndata: b") == [ServerEvent("", "a", ())]
    assert parser.feed(b"\r\n\r") == [ServerEvent("", "b", ())]
    assert parser.feed(b"\n") == []


def test_what_is_cut_off_comes_out_at_the_end() -> None:
    parser = EventParser()
    assert parser.feed(b'data: {"id": "cm') == []
    assert parser.flush() == [ServerEvent("", '{"id": "cm', ())]
    assert parser.flush() == []


def event_chunks(data: str) -> list[Chunk]:
    return parse_event(ServerEvent("", data, ()), 5.0).chunks


def completion(**choice: object) -> str:
    return json.dumps({"id": "cmpl-1", "created": 3, "model": "m", "choices": [{"index": 0, **choice}]})


def chat(delta: object, finish_reason: str | None = None) -> str:
    return completion(delta=delta, finish_reason=finish_reason)


@pytest.mark.parametrize(
    ("data", "kind", "tokens"),
    [
        (completion(text=" w17 w18"), "token", ["w17", "w18"]),
        (completion(text=" w17", finish_reason="length"), "token", ["w17"]),
        (completion(text="", finish_reason="length"), "finish", []),
        (completion(text=""), "other", []),
        (completion(text=None), "other", []),
        (chat({"role": "assistant", "content": "w1"}), "token", ["w1"]),
        (chat({"role": "assistant", "content": ""}), "role", []),
        (chat({"role": "assistant", "reasoning_content": "w1 w2"}), "token", ["w1", "w2"]),
        (chat({"reasoning": "w1", "content": "w2"}), "token", ["w1", "w2"]),
        (chat({"refusal": "w1"}), "token", ["w1"]),
        (
            chat({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"a": 1}'}}]}),
            "token",
            ["f", '{"a":', "1}"],
        ),
        (chat({"function_call": {"name": "f"}}), "token", ["f"]),
        (chat({"tool_calls": [7], "content": 7}), "other", []),
        (chat({"tool_calls": 7, "reasoning": ["w"]}), "other", []),
        (completion(text=" "), "token", [" "]),
        (chat({"content": "\n\n"}), "token", ["\n\n"]),
        (completion(text="", logprobs={"tokens": ["p7"]}), "token", ["p7"]),
        (
            chat({"content": ""}).replace('"delta"', '"logprobs": {"content": [{"token": "x"}]}, "delta"'),
            "token",
            ["x"],
        ),
        (completion(text="", logprobs={"tokens": []}), "other", []),
        (chat({}, "stop"), "finish", []),
        (chat(None, "stop"), "finish", []),
    ],
)
def test_kind_of_a_choice(data: str, kind: str, tokens: list[str]) -> None:
    (chunk,) = event_chunks(data)
    assert (chunk.kind, chunk.tokens, chunk.index, chunk.at) == (kind, tokens, 0, 5.0)
    assert (chunk.completion_id, chunk.created, chunk.model) == ("cmpl-1", 3, "m")
    assert chunk.raw == ("" if kind == "token" and not chunk.finish_reason else data)


def test_positions_are_read_from_whole_words_only() -> None:
    (chunk,) = event_chunks(completion(text="p3 p40 w5 p p6x xp7"))
    assert chunk.positions == [3, 40]


def test_choices_of_one_event_become_chunks_of_their_own() -> None:
    data = json.dumps({"choices": [{"index": 1, "text": "b"}, {"index": 0, "text": "a"}]})
    parsed = parse_event(ServerEvent("", data, ()), 0.0)
    assert [(chunk.index, chunk.tokens) for chunk in parsed.chunks] == [(1, ["b"]), (0, ["a"])]
    assert parsed.text == "a"


def test_usage_alone_and_beside_a_token() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    alone = parse_event(ServerEvent("", json.dumps({"choices": [], "usage": usage}), ()), 0.0)
    assert ([chunk.kind for chunk in alone.chunks], alone.usage) == (["usage"], usage)
    beside = parse_event(ServerEvent("", json.dumps({"choices": [{"text": "a"}], "usage": usage}), ()), 0.0)
    assert ([chunk.kind for chunk in beside.chunks], beside.usage) == (["token"], usage)


@pytest.mark.parametrize(
    "event",
    [
        ServerEvent("", '{"error": {"message": "Service temporarily unavailable", "code": 503}}', ()),
        ServerEvent("error", None, ("Stream ended before generation completed",)),
        ServerEvent("error", '{"message": "gone"}', ()),
        ServerEvent("error", "gone", ()),
    ],
)
def test_errors_in_a_stream(event: ServerEvent) -> None:
    (chunk,) = parse_event(event, 0.0).chunks
    assert chunk.kind == "error"
    assert (event.data or event.comments[0]) in chunk.raw


@pytest.mark.parametrize("data", ['{"id": "cm', "[1]", "7", "{}", '{"choices": 3}', '{"choices": [4]}', ""])
def test_what_is_no_chunk_is_kept_as_it_came(data: str) -> None:
    (chunk,) = event_chunks(data)
    assert (chunk.kind, chunk.raw) == ("other", data)


def test_an_annotation_without_data_is_kept() -> None:
    (chunk,) = parse_event(ServerEvent("llm_metrics", None, ('{"osl": 3}',)), 0.0).chunks
    assert (chunk.kind, chunk.raw) == ("other", 'event: llm_metrics {"osl": 3}')


def test_body_of_a_unary_answer() -> None:
    choices = [
        {"index": 0, "text": "p3 p4", "finish_reason": "length"},
        {"index": 1, "message": {"role": "assistant", "content": "x y z"}, "finish_reason": "stop"},
    ]
    raw = json.dumps({"id": "cmpl-1", "choices": choices, "usage": {"completion_tokens": 2}})
    parsed = parse_body(raw, 1.0, 200)
    assert [(chunk.kind, chunk.index, chunk.tokens, chunk.finish_reason, chunk.raw) for chunk in parsed.chunks] == [
        ("body", 0, ["p3", "p4"], "length", raw),
        ("body", 1, ["x", "y", "z"], "stop", raw),
    ]
    assert (parsed.chunks[0].positions, parsed.usage, parsed.text) == ([3, 4], {"completion_tokens": 2}, "p3 p4")


@pytest.mark.parametrize(
    ("raw", "status", "kinds"),
    [
        ('{"message": "Model not found", "type": "Not Found", "code": 404}', 404, ["error"]),
        ('{"error": "Model not found"}', 404, ["error"]),
        ('{"error": {"message": "gone"}}', 200, ["error"]),
        ('{"message": "hello"}', 200, ["body"]),
        ("upstream is gone", 502, ["body"]),
        ("upstream is gone", 200, ["other"]),
        ("", 404, []),
    ],
)
def test_bodies_of_refusals(raw: str, status: int, kinds: list[str]) -> None:
    chunks = parse_body(raw, 0.0, status).chunks
    assert [chunk.kind for chunk in chunks] == kinds
    assert all(chunk.raw == raw for chunk in chunks)


def test_an_entry_is_the_same_after_packing() -> None:
    plain = [Chunk(1.0 + n, "token", 0, [f"p{n}"], [n], None, "cmpl-1", 7, "m") for n in range(5)]
    odd = [
        Chunk(7.0, "token", 0, ["a", "b"], [], None, "cmpl-1", 7, "m"),
        Chunk(8.0, "token", 1, ["c"], [], None, "cmpl-2", 7, "m"),
        Chunk(9.0, "finish", 0, finish_reason="length", raw="{}"),
        Chunk(9.5, "done", raw="[DONE]"),
    ]
    entry = LedgerEntry(3, "chat", True, "m", "a prompt", 9, chunks=plain + odd, usage={"total_tokens": 3})
    packed = pack(entry)
    assert len(packed["chunks"]) == 5
    assert "exception" not in packed
    assert unpack(json.loads(json.dumps(packed))) == entry


def token_event(text: str, more: str = "") -> ServerEvent:
    data = '{"id":"c","choices":[{"text":%s,"index":0,"finish_reason":null}],"created":1,"model":"m"%s}'
    return ServerEvent("", data % (text, more), ())


@pytest.mark.parametrize(
    "event",
    [
        token_event('" p7"'),
        token_event('" a b"'),
        token_event('""'),
        token_event('" "'),
        token_event('" say \\"hi\\""'),
        token_event('" \\u00e4"'),
        token_event('" ä"'),
        token_event('" x","text":"y"'),
        token_event('" x"', ',"usage":{"total_tokens":3}'),
        token_event("null"),
        ServerEvent("", "[DONE]", ()),
        ServerEvent("error", token_event('" p7"').data, ()),
        ServerEvent("", '{"error":{"message":"no"}}', ()),
        ServerEvent("", "no json", ()),
        ServerEvent("error", None, ("gone",)),
    ],
)
def test_the_fast_parser_sees_what_the_plain_one_sees(event: ServerEvent) -> None:
    parser = StreamParser()
    for first in (token_event('" w1"'), token_event('" w2"')):
        assert parser.parse(first, 1.0) == parse_event(first, 1.0)
    assert parser.parse(event, 2.0) == parse_event(event, 2.0)


def test_a_token_whose_text_stands_elsewhere_too_is_not_learned() -> None:
    parser = StreamParser()
    for text in ('"c"', '"m"', '"index"'):
        event = token_event(text)
        assert parser.parse(event, 1.0) == parse_event(event, 1.0)
        assert parser.parse(token_event('" w3"'), 1.0) == parse_event(token_event('" w3"'), 1.0)
