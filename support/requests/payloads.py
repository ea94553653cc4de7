"""From what an OpenAI-compatible server wrote to chunks of the ledger."""

import json
import re
from typing import Any, NamedTuple

from support.requests.ledger import Chunk
from support.requests.sse import ServerEvent

_POSITION = re.compile(r"p(\d+)")


class Parsed(NamedTuple):
    """What one payload held: its chunks (one per choice), its usage if it named one, and the text of choice 0."""

    chunks: list[Chunk]
    usage: dict[str, Any] | None = None
    text: str = ""


def parse_event(event: ServerEvent, at: float) -> Parsed:
    """One event of a stream that was read at ``at``."""
    if event.data is None:
        kind = "error" if event.name == "error" else "other"
        return Parsed(
            [
                Chunk(
                    at,
                    kind,
                    raw=f"event: {event.name} {' '.join(event.comments)}".rstrip(),
                )
            ]
        )
    if event.data.strip() == "[DONE]":
        return Parsed([Chunk(at, "done", raw=event.data)])
    content = _load(event.data)
    if event.name == "error" or (content is not None and content.get("error") is not None):
        return Parsed([_chunk(at, "error", content or {}, event.data)])
    if content is None:
        return Parsed([Chunk(at, "other", raw=event.data)])
    return _parse_choices(content, at, event.data, whole=False)


class StreamParser:
    """Parses the events of one stream as :func:`parse_event` does, faster.

    Events with a token differ in nothing but its text. Once one was parsed, those that begin and end as it does, with
    a plain string between, are read off without a JSON parser, which takes two thirds of the client's time.
    """

    def __init__(self) -> None:
        self._begin = self._end = ""
        self._like: Chunk | None = None

    def parse(self, event: ServerEvent, at: float) -> Parsed:
        """One event that was read at ``at``."""
        data, like = event.data, self._like
        if like is not None and data is not None and not event.name and data.startswith(self._begin):
            text = data[len(self._begin) : -len(self._end)]
            plain = data.endswith(self._end) and text.isprintable() and '"' not in text and "\\" not in text
            if plain and (tokens := text.split()) and len(data) > len(self._begin) + len(self._end):
                return Parsed([_token(at, like, tokens)], None, text)
        parsed = parse_event(event, at)
        if data is not None and not event.name:
            self._learn(data, parsed)
        return parsed

    def _learn(self, data: str, parsed: Parsed) -> None:
        chunk = parsed.chunks[0] if len(parsed.chunks) == 1 else None
        if chunk is None or chunk.kind != "token" or chunk.raw or parsed.usage is not None or not parsed.text:
            return
        begin, text, end = data.partition(parsed.text)
        if not text or not begin.endswith('"') or not end.startswith('"') or text in end:
            return
        # The text stood there as it is; make sure that it was the token's and nothing else's.
        other = parse_event(ServerEvent("", f"{begin}q{end}", ()), chunk.at)
        if other == Parsed([_token(chunk.at, chunk, ["q"])], None, "q"):
            self._begin, self._end, self._like = begin, end, chunk


def _token(at: float, like: Chunk, tokens: list[str]) -> Chunk:
    positions = [int(match[1]) for match in map(_POSITION.fullmatch, tokens) if match]
    return Chunk(at, "token", like.index, tokens, positions, None, like.completion_id, like.created, like.model)


def parse_body(raw: str, at: float, status: int) -> Parsed:
    """The whole body of a unary answer, or of an answer that refuses a request; an empty body holds no chunk."""
    if not raw:
        return Parsed([])
    content = _load(raw)
    if content is None:
        # A refusal in plain text is a body like any other; garbage with status 200 is not.
        return Parsed([Chunk(at, "body" if status >= 400 else "other", raw=raw)])
    # Dynamo's refusals are {"message", "type", "code"} or {"error": ...}, depending on release and route.
    if content.get("error") is not None or (status >= 400 and "message" in content):
        return Parsed([_chunk(at, "error", content, raw)])
    return _parse_choices(content, at, raw, whole=True)


def _parse_choices(content: dict[str, Any], at: float, raw: str, whole: bool) -> Parsed:
    usage = content.get("usage")
    usage = usage if isinstance(usage, dict) else None
    choices = content.get("choices")
    if not isinstance(choices, list) or not choices:
        kind = "body" if whole else "usage" if usage is not None else "other"
        return Parsed([_chunk(at, kind, content, raw)], usage)
    chunks = []
    first_text = ""
    for choice in choices:
        if not isinstance(choice, dict):
            chunks.append(_chunk(at, "other", content, raw))
            continue
        message = choice.get("message" if whole else "delta")
        message = message if isinstance(message, dict) else {}
        text = choice.get("text") or message.get("content")
        text = text if isinstance(text, str) else ""
        tokens = [token for part in _written(message, text) for token in part.split() or [part]]
        tokens = tokens or _of_logprobs(choice.get("logprobs"))
        finish_reason = choice.get("finish_reason")
        if whole:
            kind = "body"
        elif tokens:
            kind = "token"
        elif finish_reason:
            kind = "finish"
        else:
            kind = "role" if "role" in message else "other"
        chunk = _chunk(at, kind, content, "" if kind == "token" and not finish_reason else raw)
        index = choice.get("index")
        chunk.index = index if isinstance(index, int) else None
        chunk.tokens = tokens
        chunk.positions = [int(match[1]) for match in map(_POSITION.fullmatch, tokens) if match]
        chunk.finish_reason = finish_reason if isinstance(finish_reason, str) else None
        chunks.append(chunk)
        if chunk.index in (0, None):
            first_text += text
    return Parsed(chunks, usage, first_text)


def _written(message: dict[str, Any], text: str) -> list[str]:
    """All that the model wrote in a delta or a message, in the order in which models write it: its reasoning under both
    names that servers have for it, the text, a refusal, calls of tools.
    """
    listed = message.get("tool_calls")
    calls = [call.get("function") for call in listed if isinstance(call, dict)] if isinstance(listed, list) else []
    calls.append(message.get("function_call"))
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    parts = [reasoning, text, message.get("refusal")]
    parts += [call.get(name) for call in calls if isinstance(call, dict) for name in ("name", "arguments")]
    return [part for part in parts if isinstance(part, str) and part]


def _of_logprobs(logprobs: Any) -> list[str]:
    """Tokens that have a probability and no text, as the first bytes of a character have; completions list the tokens,
    chat lists objects.
    """
    listed = (logprobs.get("tokens") or logprobs.get("content")) if isinstance(logprobs, dict) else None
    if not isinstance(listed, list):
        return []
    return [str(each.get("token", "")) if isinstance(each, dict) else str(each) for each in listed]


def _chunk(at: float, kind: str, content: dict[str, Any], raw: str) -> Chunk:
    completion_id, created, model = (
        content.get("id"),
        content.get("created"),
        content.get("model"),
    )
    return Chunk(
        at,
        kind,
        completion_id=completion_id if isinstance(completion_id, str) else None,
        created=created if isinstance(created, int) else None,
        model=model if isinstance(model, str) else None,
        raw=raw,
    )


def _load(text: str) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
