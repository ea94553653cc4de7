"""The table below a sentence: is it allowed, does it have its heading row, can each cell be read."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from support.contract.shape import Shape
from support.errors import Mistake, nearest
from support.rows import COLUMNS, NEEDED, failure
from support.run.lint.sentences import Understood
from support.scenarios import Failure
from support.words import (
    HEADINGS,
    REQUEST_OPTIONS,
    SHAPE_OPTIONS,
    check_bounds,
    check_options,
    check_settings,
    options,
    shape,
)

SHAPE_WORDS = {
    "engine": "engine",
    "count": "workers",
    "decode": "workers",
    "prefill": "prefill_workers",
    "members": "etcd_members",
    "time": "etcd_delay_seconds",
    "plane": "request_plane",
}
"""Placeholder of a sentence about a deployment -> field of the shape."""
Located = tuple[int, Mistake]
"""A mistake and its line."""
Options = Mapping[str, tuple[str, Callable[[str], Any]]]


def mistakes(step: Any, sentence: Understood) -> Iterator[Located]:
    """What is wrong with the table or the text below a sentence.

    Args:
        step: behave's.
        sentence: what it was read as.
    """
    if step.text is not None:
        yield step.text.line, Mistake("a sentence takes no text in quotes", write="a table, or nothing")
    kind, table = sentence.marks.table, step.table
    if table is None:
        yield from _lacking(step.line, kind, sentence)
    elif not kind:
        yield table.line, Mistake("this sentence takes no table", write="the sentence alone")
    elif kind == "failures":
        yield from _failures(table)
    else:
        yield from _settings(table, _allowed(kind, sentence), _needed(kind, sentence))


def _allowed(kind: str, sentence: Understood) -> Options:
    if kind == "check":
        return check_options(sentence.arguments["name"])
    return {"deployment": SHAPE_OPTIONS, "request": REQUEST_OPTIONS}[kind]


def _needed(kind: str, sentence: Understood) -> Sequence[str]:
    return check_bounds(sentence.arguments["name"]) if kind == "check" else ()


def impossible(step: Any, sentence: Understood) -> Iterator[Located]:
    """That there can be no deployment as a sentence and its table would have it; both can be read."""
    if sentence.marks.table != "deployment":
        return
    try:
        shape_of(step, sentence).check_alone()
    except Mistake as mistake:
        yield step.line, mistake


def shape_of(step: Any, sentence: Understood) -> Shape:
    """The deployment that a sentence and the table below it ask for.

    Raises:
        Mistake: the table cannot be read, or repeats the sentence.
    """
    said = {SHAPE_WORDS[name]: value for name, value in sentence.arguments.items() if name in SHAPE_WORDS}
    return Shape(**shape(said, step.table))


def failures_of(step: Any, sentence: Understood) -> Iterator[tuple[int, Failure]]:
    """Each failure that a sentence or a row below it has strike, and its line; of rows, those that can be read."""
    if sentence.marks.strikes:
        yield step.line, sentence.marks.strikes(**sentence.arguments)
    for row in step.table or () if sentence.marks.table == "failures" else ():
        with contextlib.suppress(Mistake, ValueError):
            yield row.line, failure(row.headings, row.cells)


def _lacking(line: int, kind: str, sentence: Understood) -> Iterator[Located]:
    if kind == "failures":
        yield line, Mistake("the sentence needs a table with a failure per row", COLUMNS, "| failure | when |")
    elif kind == "check":
        try:
            check_settings(sentence.arguments["name"], None)
        except Mistake as mistake:
            yield line, mistake


def _columns(line: int, headings: list[str], allowed: Iterable[str], needed: Iterable[str]) -> Iterator[Located]:
    allowed = list(allowed)
    for name, times in Counter(headings).items():
        if name not in allowed:
            yield line, Mistake(f"unknown column {name!r}", allowed, nearest(name, allowed))
        elif times > 1:
            yield line, Mistake(f"the column {name!r} appears {times} times", write="it once")
    if missing := [name for name in needed if name not in headings]:
        yield line, Mistake(f"the column {', '.join(map(repr, missing))} is missing", allowed)


def _failures(table: Any) -> Iterator[Located]:
    if not set(table.headings) & set(COLUMNS):
        yield table.line, Mistake("the table has no heading row", COLUMNS, "| failure | when | above it")
        return
    found = list(_columns(table.line, table.headings, COLUMNS, NEEDED))
    yield from found
    if not list(table):
        yield table.line, Mistake("the table has no row below its headings", write="a failure per row")
    for row in table:
        filled = [each for each in zip(row.headings, row.cells, strict=True) if each[1] and each[0] in COLUMNS]
        wrong = list(_cells(row.line, filled, COLUMNS))
        yield from wrong
        if not found and not wrong:
            try:
                failure(row.headings, row.cells)
            except ValueError as mistake:
                yield row.line, mistake if isinstance(mistake, Mistake) else Mistake(str(mistake))


def _settings(table: Any, allowed: Options, needed: Sequence[str]) -> Iterator[Located]:
    rows = [(row.line, row.cells) for row in table]
    if tuple(table.headings) != HEADINGS:
        wanted = f"| {' | '.join(HEADINGS)} |"
        if len(table.headings) == 2 and table.headings[0] in allowed:
            yield table.line, Mistake("the table has no heading row", write=f"{wanted} above it")
            rows.insert(0, (table.line, table.headings))
        else:
            yield from _columns(table.line, table.headings, HEADINGS, HEADINGS)
        if len(table.headings) != 2:
            return
    for name, times in Counter(cells[0] for _, cells in rows).items():
        if times > 1:
            line = [line for line, cells in rows if cells[0] == name][1]
            yield line, Mistake(f"{name!r} appears {times} times in the table", write="it once")
    missing = [name for name in needed if name not in {cells[0] for _, cells in rows}]
    if missing:
        yield table.line, Mistake(f"the setting {', '.join(map(repr, missing))} is missing", allowed)
    for line, cells in rows:
        yield from _cells(line, [(cells[0], cells[1])], allowed)


def _cells(line: int, cells: Iterable[tuple[str, str]], allowed: Options) -> Iterator[Located]:
    for cell in cells:
        try:
            options([cell], allowed)
        except Mistake as mistake:
            yield line, mistake
