"""All kinds of faults. Every module of this package is looked through, so a new kind is one class and no entry here."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_type_hints

from support.faults.fault import Fault

FAMILIES = ("process", "network", "gpu", "pod")
"""Those of the fault service, in the order in which lists have them, and pods, which only a cluster has."""


def _kinds(of: type[Fault]) -> Iterator[type[Fault]]:
    for each in of.__subclasses__():
        if each.failure:
            yield each
        yield from _kinds(each)


for _each in pkgutil.iter_modules([str(Path(__file__).parent)]):
    importlib.import_module(f"support.faults.{_each.name}")

KINDS: dict[str, type[Fault]] = {
    kind.failure: kind for kind in sorted(_kinds(Fault), key=lambda kind: FAMILIES.index(kind.family))
}
"""Type of a failure in YAML and tables -> the kind."""


def named(name: str) -> type[Fault]:
    """The kind that events and Python programs call ``name``.

    Raises:
        ValueError: there is none.
    """
    found = {kind.name: kind for kind in KINDS.values()}
    if name not in found:
        raise ValueError(f"unknown fault {name!r}; expected one of: {', '.join(found)}")
    return found[name]


def ordered_as(family: str, type_: str) -> type[Fault] | None:
    """The kind of a fault that the service calls so; None: we have none for it."""
    return next((kind for kind in KINDS.values() if kind.family == family and type_ in kind.types), None)


def words(family: str) -> Mapping[str, type[Fault]]:
    """What sentences say of a victim of a fault of this family -> the kind."""
    return {kind.word: kind for kind in KINDS.values() if kind.family == family and kind.word}


def drawn() -> Mapping[str, str]:
    """What random faults of a kind are called -> the type of the failure."""
    return {kind.drawn: name for name, kind in KINDS.items() if kind.drawn}


def strengths(kind: type[Fault]) -> list[Field[Any]]:
    """The fields of a kind that say how badly it breaks."""
    return [each for each in fields(kind) if "column" in each.metadata]


def all_strengths() -> dict[str, tuple[Any, Field[Any]]]:
    """Name of a strength that some kind has -> its type, with what it may hold, and its field.

    Raises:
        TypeError: two kinds mean two things by one name, or one has no default: a failure in YAML has it once.
    """
    found: dict[str, tuple[Any, Field[Any]]] = {}
    for kind in KINDS.values():
        types = get_type_hints(kind, include_extras=True)
        for each in strengths(kind):
            type_, known = found.setdefault(each.name, (types[each.name], each))
            same = (type_, known.default, known.metadata) == (types[each.name], each.default, each.metadata)
            if not same or each.default is MISSING:
                raise TypeError(f"{kind.__name__}.{each.name}: a strength has a default, and is the same in all kinds")
    return found
