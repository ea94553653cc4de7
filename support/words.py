"""Words of the sentences with a closed meaning, and the tables that may stand below them.

A wrong word fails at its step with the list of the right ones. environment.py registers :data:`TYPES` with behave.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from support.targets.base import ENGINES, REQUEST_PLANES, RESTART_POLICIES

FATES = {"crashes": "crash", "is told to shut down": "terminate", "hangs": "hang", "is restarted": "restart"}
WAYS = {"closes": "close", "resets": "reset"}
MODES = {"streamed": True, "unary": False}
APIS = {"completions": "completions", "chat": "chat"}
ROLES = {"prefill": "prefill", "decode": "decode"}
CUTS = {"dropped": "drop", "rejected": "reject", "reset": "reset"}
SIDES = {"the frontend": "FRONTEND_WORKER", "NATS": "WORKER_NATS", "etcd": "WORKER_ETCD", "its peers": "WORKER_WORKER"}
FLOWS = {"to": "to", "from": "from"}
STRAINS = {
    "is throttled": "THROTTLE",
    "overheats": "OVERHEAT",
    "is shared with another load": "COMPUTE_OVERLOAD",
    "loses memory": "MEMORY_PRESSURE",
}


def _one_of(what: str, words: Mapping[str, Any]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        if text not in words:
            raise ValueError(f"unknown {what} {text!r}; expected one of: {', '.join(words)}")
        return words[text]

    # Any run of words reaches the conversion, which then says what is wrong; a pattern of the right ones alone would
    # make the whole step undefined.
    convert.pattern = r"[\w-]+" if all(" " not in word for word in words) else r"[\w-]+(?: [\w-]+){0,4}?"  # type: ignore[attr-defined]
    return convert


def count(text: str) -> int:
    """A number of things, 0 or more."""
    if not text.isdigit():
        raise ValueError(f"{text!r} is no count; expected a whole number, 0 or more")
    return int(text)


def seconds(text: str) -> float:
    """``2 seconds``, ``500 milliseconds`` in seconds."""
    if not re.fullmatch(seconds.pattern, text):  # type: ignore[attr-defined]
        raise ValueError(f"{text!r} is no time; expected such as 2 seconds or 500 milliseconds")
    number, _, unit = text.partition(" ")
    return float(number) / (1000 if unit.startswith("milli") else 1)


def yes_or_no(text: str) -> bool:
    """``yes`` or ``no``."""
    return bool(_one_of("answer", {"yes": True, "no": False})(text))


def plural(text: str) -> str:
    """A noun that may stand in the singular; says nothing itself."""
    return text


count.pattern = r"-?\d+"  # type: ignore[attr-defined]
seconds.pattern = r"\d+(?:\.\d+)? (?:milli)?seconds?"  # type: ignore[attr-defined]
plural.pattern = r"workers?|clients?|requests?|migrations?|tokens?|words?"  # type: ignore[attr-defined]

TYPES: dict[str, Callable[[str], Any]] = {
    "Count": count,
    "Time": seconds,
    "Noun": plural,
    "Engine": _one_of("engine", {engine: engine for engine in ENGINES}),
    "Plane": _one_of("request plane", {plane: plane for plane in REQUEST_PLANES}),
    "Api": _one_of("API", APIS),
    "Mode": _one_of("mode", MODES),
    "Way": _one_of("way to end a connection", WAYS),
    "Fate": _one_of("fate", FATES),
    "Role": _one_of("role", ROLES),
    "Cut": _one_of("manner of a cut", CUTS),
    "Side": _one_of("side", SIDES),
    "Flow": _one_of("direction", FLOWS),
    "Strain": _one_of("strain on a GPU", STRAINS),
}

SHAPE_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "request plane": ("request_plane", TYPES["Plane"]),
    "migration limit": ("migration_limit", count),
    "sequence cap": ("sequence_cap", count),
    "health checks": ("health_checks", yes_or_no),
    "restart policy": ("restart_policy", _one_of("restart policy", {each: each for each in RESTART_POLICIES})),
    "speed": ("speed", float),
    "time to first token": ("prefill_seconds", seconds),
    "lease": ("lease_seconds", seconds),
    "drain deadline": ("drain_seconds", seconds),
    "stream timeout": ("stream_timeout_seconds", seconds),
}
"""What a table below "a Dynamo deployment with ..." may say -> field of the shape, how it is read."""

REQUEST_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "prompt words": ("prompt_words", count),
    "choices": ("n", count),
    "usage": ("usage", yes_or_no),
}
"""What a table below "a client ..." may say -> argument of the request, how it is read."""


def options(rows: Iterable[Any] | None, allowed: Mapping[str, tuple[str, Callable[[str], Any]]]) -> dict[str, Any]:
    """A two-column table as keyword arguments.

    Args:
        rows: rows of two cells, name and value; None for no table.

    Raises:
        ValueError: an unknown name, with the allowed ones, or a value that cannot be read.
    """
    found = {}
    for name, value in rows or ():
        if name not in allowed:
            raise ValueError(f"unknown setting {name!r} in the table; expected one of: {', '.join(allowed)}")
        field, read = allowed[name]
        try:
            found[field] = read(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found
