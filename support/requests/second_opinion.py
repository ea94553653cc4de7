"""Which answers the second judge is given, and how few of them stand for a load."""

import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import groupby
from typing import Any

from support.requests.ledger import Chunk, LedgerEntry, Opinion
from support.requests.outcomes import outcome


def opinions(entries: Iterable[LedgerEntry], each: Collection[int]) -> dict[int, Opinion]:
    """Number of a request -> what the client library that users have makes of its answer.

    Answers that we cancelled, and those of which nothing was kept, have none.

    Args:
        entries: requests that have ended.
        each: numbers of those that are asked about one by one; of the others one of each shape is.
    """
    asked: dict[str, Opinion] = {}
    found: dict[int, Opinion] = {}
    left: list[tuple[int, str]] = []
    for entry in entries:
        if entry.end in (None, "cancelled"):
            continue
        kind = shape(entry)
        if _kept(entry) and (entry.number in each or kind not in asked):
            from support.requests.user_client import opinion  # not at the top: it costs a second of CPU

            found[entry.number] = asked[kind] = opinion(entry)
        else:
            left.append((entry.number, kind))
    return found | {number: asked[kind] for number, kind in left if kind in asked}


def shape(entry: LedgerEntry) -> str:
    """What two answers have in common if no client can take one for whole and the other not: API and mode, status, end,
    what it is by our rules, and its events with those of a kind in a row as one. Tokens count for one kind, whatever
    they say; of all other events the form is told, names of fields included, their content not.
    """
    seen = outcome(replace(entry, opinion=None)) if entry.opinion else outcome(entry)
    events = [form for form, _ in groupby(map(_form, entry.chunks))]
    content_type = entry.headers.get("content-type", "")
    head = (entry.api, entry.stream, entry.n, entry.status_code, content_type, entry.end, seen.kind)
    return json.dumps([*head, *events])


def _kept(entry: LedgerEntry) -> bool:
    return len(entry.received) == entry.received_size


def _form(chunk: Chunk) -> str:
    if chunk.kind == "token" and chunk.finish_reason is None:
        return f"token {chunk.index}"
    try:
        form = json.dumps(_skeleton(json.loads(chunk.raw)))
    except (ValueError, RecursionError):
        form = chunk.raw.partition(" ")[0]
    return f"{chunk.kind} {chunk.index} {chunk.finish_reason} {form}"


def _skeleton(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _skeleton(value) for name, value in sorted(content.items())}
    if isinstance(content, list):
        return [_skeleton(each) for each in content[:1]]
    return type(content).__name__ if content else str(content)
