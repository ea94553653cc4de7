"""The rows of a table of failures: its columns, how each is read, and the failure that a row makes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from support.errors import Mistake
from support.faults import registry
from support.faults.victims import VICTIMS
from support.requests.plan import Load
from support.scenarios.model import LOAD_TYPES, Failure
from support.scenarios.model import TYPES as FAILURE_TYPES
from support.words import TYPES, count, drawn, duration, one_of, options, tally, times, trigger

FAILURES = {
    (registry.KINDS[name].word if name in registry.KINDS else "") or name.replace("_", " "): name
    for name in FAILURE_TYPES
}
"""What a table calls a failure: as sentences do, where they have a word for it -> its type in YAML."""


def crowd(text: str) -> dict[str, int]:
    """How many more clients ask, such as ``40``; or how many times as many as in STANDARD, such as ``five times``."""
    return {"times": times(text)} if text.endswith(" times") or text == "twice" else {"clients": count(text)}


COLUMNS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "failure": ("type", one_of("failure", FAILURES)),
    "target": ("target", one_of("target", {each.words: key for key, each in VICTIMS.items()})),
    "when": ("", trigger),
    "for": ("duration_seconds", duration),
    "clients": ("crowd", crowd),
    "answers each": ("answers", count),
    "tokens": ("tokens", count),
    "prompt words": ("prompt_words", count),
    "seed": ("seed", tally),
    "kinds": ("kinds", drawn),
    "every": ("every_seconds", duration),
    **{
        each.metadata["column"]: (name, TYPES.get(each.metadata["read"], each.metadata["read"]))
        for name, (_, each) in registry.all_strengths().items()
        if each.metadata["column"]
    },
}
"""Columns of a table below "these failures strike" -> field of the failure, how it is read; an empty cell says none."""
NEEDED = ("failure", "when")
OTHERS = {
    "rolling_restart": ((), ()),
    "random": (("for", "seed"), ("kinds", "every")),
    "overload": (("clients",), ("answers each", "tokens", "for")),
    "token_overflow": (("clients", "prompt words"), ()),
}
"""Type of a failure that is no kind of fault -> columns that it needs besides, and those that it takes as well."""


def columns(type_: str) -> tuple[Sequence[str], Sequence[str]]:
    """The columns that a failure of this type needs, and those that it takes as well."""
    if type_ in OTHERS:
        needed, taken = OTHERS[type_]
        return (*NEEDED, *needed), taken
    strengths = [each.metadata["column"] for each in registry.strengths(registry.KINDS[type_])]
    return NEEDED, ("target", "for", *filter(None, strengths))


def failures(table: Any) -> list[Failure]:
    """A table with a failure per row.

    Raises:
        Mistake: there is none, it lacks a column, has an unknown one, or a row makes no sense.
    """
    if not table or not list(table):
        raise Mistake("the sentence has no table; expected a failure per row, with columns failure and when")
    return [failure(row.headings, row.cells) for row in table]


def failure(headings: Iterable[str], cells: Iterable[str]) -> Failure:
    """One row of a table of failures; Mistake: it cannot be read, or makes no sense."""
    filled = {name: cell for name, cell in zip(headings, cells, strict=True) if cell}
    fields = {name: value for each in filled.items() for name, value in options([each], COLUMNS).items()}
    if "type" not in fields or "" not in fields:
        raise Mistake("a row of the table has no failure, or not when it strikes; expected columns failure and when")
    needed, taken = columns(fields["type"])
    if strange := [name for name in filled if name not in (*needed, *taken)]:
        raise Mistake(f"{filled['failure']!r} takes nothing in the column {strange[0]!r}", [*needed, *taken])
    if missing := [name for name in needed if name not in filled]:
        raise Mistake(f"{filled['failure']!r} needs something in the column {', '.join(map(repr, missing))}")
    if fields["type"] in LOAD_TYPES:
        crowd, answers, tokens, words = (
            fields.pop(name, None) for name in ("crowd", "answers", "tokens", "prompt_words")
        )
        fields |= _crowd(crowd, answers, tokens, words, lasting="duration_seconds" in fields)
    return Failure(**fields.pop(""), **fields)


def more_requests(clients: int, answers: int, tokens: int) -> Load:
    """More clients, each of which asks for this many answers."""
    return Load(clients, answers, max_tokens=tokens, prompt_words=400)


def long_prompts(clients: int, words: int) -> Load:
    """More clients, each of which sends one prompt of this many words."""
    return Load(clients, 1, max_tokens=10, prompt_words=words)


def _crowd(
    clients: Mapping[str, int], answers: int | None, tokens: int | None, words: int | None, lasting: bool
) -> dict[str, Any]:
    """What a row says of the clients that it brings: how many times as many as there are, or a load of their own."""
    if words is not None:
        if "times" in clients:
            raise Mistake("with prompt words the column 'clients' has a number, such as 2")
        return {"load": long_prompts(clients["clients"], words)}
    if "times" in clients:
        if answers is not None or tokens is not None:
            raise Mistake("clients that are so many times as many ask for the same answers", write="those cells empty")
        if not lasting:
            raise Mistake("clients that are so many times as many need something in the column 'for'")
        return {"times": clients["times"]}
    if lasting:
        raise Mistake("'overload' of a number of clients takes nothing in the column 'for'")
    if answers is None or tokens is None:
        raise Mistake("a number of clients needs something in the columns 'answers each' and 'tokens'")
    return {"load": more_requests(clients["clients"], answers, tokens)}
