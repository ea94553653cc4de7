"""How one request ended for the user who sent it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from support.amounts import amount
from support.requests.ledger import Chunk, LedgerEntry
from support.seen import AnswerSeen

KINDS = ("complete", "error", "cancelled", "broken")

PROPER_ENDS = frozenset({"length", "stop"})
"""Finish reasons of a whole answer. ``content_filter`` says that something was left out, ``error``, ``cancelled`` and
``abort`` that something went wrong, in a place where no client looks for an error."""
TOOL_ENDS = frozenset({"tool_calls", "function_call"})
"""The same, for requests that offer tools."""
_END_EARLY = frozenset({"stop", "tools", "functions", "response_format"})
"""Fields of a request that allow an answer to have fewer tokens than it asks for."""


@dataclass(frozen=True)
class Outcome:
    """The end of a request as its user saw it.

    Attributes:
        kind: ``complete`` (a whole answer), ``error`` (a clean refusal or failure that says so and cannot be taken for
            an answer), ``cancelled`` (by us) or ``broken`` (anything else: always a finding).
        why: what makes it broken, or what the error says; empty for ``complete`` and ``cancelled``.
        flaw: what makes it broken in one word, such as ``no-finish`` or ``timeout``; empty for a sound one.
    """

    kind: str
    why: str = ""
    flaw: str = ""


def outcome(entry: LedgerEntry) -> Outcome:
    """The one outcome of a request, by our rules and, where it was asked, by the client library that users have: an
    answer that is whole for us alone, or an error that only we take for one, is ``broken``. So is a request that has
    not ended.
    """
    seen = _by_rules(entry)
    opinion = entry.opinion
    if opinion is None or seen.kind not in ("complete", "error"):
        return seen
    if seen.kind == "complete" and opinion.kind != "whole":
        return Outcome(
            "broken",
            f"the answer is whole, but {opinion.client} says otherwise: {shorten(opinion.says)}",
            "not-whole-for-client",
        )
    if seen.kind == "error" and opinion.kind != "error":
        said = f"{opinion.client} does not raise it as an API error: {shorten(opinion.says)}"
        return Outcome("broken", f"not a clean error ({shorten(seen.why)}): {said}", "no-error-for-client")
    return seen


def passes_for_answer(entry: LedgerEntry) -> bool:
    """Whether an answer that is broken by our rules is a whole one for the client library that users have."""
    return entry.opinion is not None and entry.opinion.kind == "whole" and _by_rules(entry).kind == "broken"


def _by_rules(entry: LedgerEntry) -> Outcome:
    if entry.end is None:
        return Outcome("broken", "had not ended when the scenario was over", "not-ended")
    if entry.end == "cancelled":
        return Outcome("cancelled")
    if entry.end == "refused":
        return Outcome("error", "the connection was refused", "refused")
    if entry.end in ("lost", "timeout"):
        what = "the connection was lost" if entry.end == "lost" else "the client's deadline passed"
        return Outcome("broken", f"{what} {_progress(entry)}", entry.end)
    status = entry.status_code
    if status is None:
        return Outcome("broken", "ended without an HTTP status", "no-status")
    if status >= 400:
        return _refusal(entry, status)
    if not 200 <= status < 300:
        return Outcome("broken", f"HTTP {status} is neither an answer nor an error", "odd-status")
    return _stream(entry) if entry.stream else _unary(entry)


def choices(entry: LedgerEntry) -> range:
    """Indexes of the choices that were asked for."""
    return range(entry.n)


def of_choice(chunks: Iterable[Chunk], index: int) -> list[Chunk]:
    """The chunks of one choice; a chunk that names no choice and carries tokens or an end belongs to choice 0."""
    return [
        chunk
        for chunk in chunks
        if chunk.index == index or (index == 0 and chunk.index is None and (chunk.tokens or chunk.finish_reason))
    ]


def seen_of(entry: LedgerEntry, wanted: str = "", asked: int | None = None) -> AnswerSeen:
    """What a request got.

    Args:
        wanted, asked: what it should have got; None: as many tokens as it asked for.
    """
    end = outcome(entry)
    error = entry.errors[0] if entry.errors else ""
    code, says = _error_fields(error)
    return AnswerSeen(
        request=entry.number,
        wanted=wanted,
        outcome=end.kind,
        flaw=end.flaw,
        status=entry.status_code,
        choices=entry.n,
        tokens=len(entry.tokens),
        asked=entry.max_tokens if asked is None else asked,
        finish_reason=", ".join(chunk.finish_reason for chunk in entry.chunks if chunk.finish_reason),
        error_code=code,
        error_says=says,
        end=entry.end or "",
        opinion=entry.opinion.kind if entry.opinion else "",
        why=end.why,
        error=shorten(error),
    )


def describe(entry: LedgerEntry) -> str:
    """One line on what a request got, for messages: status, tokens, finish reason, error, end."""
    return seen_of(entry).described


def _error_fields(error: str) -> tuple[int | None, str]:
    """Code and message of an error object, in a field ``error`` or by itself; None and empty where it has none."""
    content = _object(error)
    inner = content.get("error", content)
    inner = inner if isinstance(inner, dict) else {"message": inner}
    code, says = inner.get("code"), inner.get("message")
    return code if isinstance(code, int) else None, shorten(says) if isinstance(says, str) else ""


def shorten(text: str, limit: int = 160) -> str:
    """``text`` on one line, cut to ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _progress(entry: LedgerEntry) -> str:
    return f"after {len(entry.tokens)} of {amount(entry.max_tokens, 'token')}"


def _refusal(entry: LedgerEntry, status: int) -> Outcome:
    if any(chunk.tokens for chunk in entry.chunks if chunk.kind != "error"):
        return Outcome("broken", f"HTTP {status} came with tokens", "refusal-with-tokens")
    said = next((chunk.raw for chunk in entry.chunks if chunk.raw.strip()), "")
    if not said:
        return Outcome("broken", f"HTTP {status} came without saying what is wrong", "refusal-without-words")
    return Outcome("error", f"HTTP {status}: {shorten(said)}")


def _unary(entry: LedgerEntry) -> Outcome:
    if entry.errors:
        return Outcome(
            "broken",
            f"an error inside an HTTP {entry.status_code} answer: {shorten(entry.errors[0])}",
            "error-in-answer",
        )
    if not entry.chunks:
        return Outcome("broken", f"HTTP {entry.status_code} with an empty body", "empty-body")
    return _finished(entry)


def _stream(entry: LedgerEntry) -> Outcome:
    if entry.errors:
        return _stream_error(entry)
    finished = _finished(entry)
    if finished.kind == "broken":
        return finished
    if entry.done_count != 1:
        said = "no [DONE]" if entry.done_count == 0 else f"[DONE] {entry.done_count} times"
        return Outcome("broken", f"the stream ended with {said}", "done-count")
    return finished


def _stream_error(entry: LedgerEntry) -> Outcome:
    said = shorten(entry.errors[0])
    if not _is_error_object(entry.errors[0]):
        return Outcome(
            "broken", f"the stream's error is not a JSON object with a field `error`: {said}", "error-no-object"
        )
    if any(chunk.finish_reason for chunk in entry.chunks):
        return Outcome("broken", f"a finish_reason and an error in one stream: {said}", "finish-and-error")
    if len(entry.errors) > 1:
        return Outcome(
            "broken", f"{amount(len(entry.errors), 'error')} in one stream, the first: {said}", "several-errors"
        )
    first = next(number for number, chunk in enumerate(entry.chunks) if chunk.kind == "error")
    after = [chunk.kind for chunk in entry.chunks[first + 1 :]]
    if after not in ([], ["done"]):
        return Outcome(
            "broken", f"the stream went on after its error ({', '.join(after[:5])}): {said}", "goes-on-after-error"
        )
    return Outcome("error", said)


def _is_error_object(raw: str) -> bool:
    """Whether clients take it for an error: to them an event is one by nothing but a field ``error`` with content."""
    return bool(_object(raw).get("error"))


def _object(raw: str) -> dict[str, Any]:
    """The JSON object that a text is; empty where it is none."""
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _finished(entry: LedgerEntry) -> Outcome:
    for index in choices(entry):
        chunks = of_choice(entry.chunks, index)
        reasons = [chunk.finish_reason for chunk in chunks if chunk.finish_reason]
        which = f"choice {index} " if entry.n > 1 else ""
        if not reasons:
            return Outcome("broken", f"{which}ended {_progress(entry)} with no finish_reason", "no-finish")
        if len(reasons) > 1:
            return Outcome(
                "broken",
                f"{which}had {amount(len(reasons), 'finish reason')}: {', '.join(reasons)}",
                "several-finishes",
            )
        if reasons[0] not in proper_ends(entry):
            return Outcome(
                "broken",
                f"{which}ended with finish_reason {reasons[0]}, which does not end a whole answer",
                "odd-finish",
            )
        count = sum(len(chunk.tokens) for chunk in chunks)
        if count != entry.max_tokens and not may_end_early(entry):
            seen = f"{which}ended with finish_reason {reasons[0]} and {amount(count, 'token')}"
            return Outcome("broken", f"{seen}; {entry.max_tokens} were asked for", "short")
    return Outcome("complete")


def proper_ends(entry: LedgerEntry) -> frozenset[str]:
    """The finish reasons with which a whole answer to this request can end."""
    return PROPER_ENDS | TOOL_ENDS if entry.body.keys() & {"tools", "functions"} else PROPER_ENDS


def may_end_early(entry: LedgerEntry) -> bool:
    """Whether a whole answer to this request can have fewer tokens than it asks for. The suite's engines never end an
    answer before that, so without one of these fields a shorter answer has lost something, where tokens can be counted.
    """
    return bool(entry.body.keys() & _END_EARLY) or not entry.exact_tokens
