"""Words of the sentences with a closed meaning, and the tables that may stand below them.

A wrong word fails at its step with the list of the right ones. environment.py registers :data:`TYPES` with behave.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from support.contract.shape import DISCOVERIES, ENGINES, LEAVINGS, REQUEST_PLANES, RESTART_POLICIES, ROUTER_MODES
from support.faults import registry
from support.faults.network import MODE_WORDS, SIDE_WORDS
from support.faults.victims import Members, Others
from support.judge.checker import CHECKERS
from support.requests.load_log import PHASE_NAMES
from support.scenarios.model import TYPES as FAILURE_TYPES
from support.scenarios.model import VICTIMS, Failure
from support.settings import ROOT

WAYS = {"closes": "close", "resets": "reset"}
MODES = {"streamed": True, "unary": False}
APIS = {"completions": "completions", "chat": "chat"}
ROLES = {"prefill": "prefill", "decode": "decode"}
MEMBERS = {
    "the etcd leader": Members("leader"),
    "an etcd follower": Members("follower"),
    "a minority of etcd": Members("minority"),
    "a majority of etcd": Members("majority"),
    "all of etcd": Members("all"),
    "the busiest etcd member": Members("busiest"),
}
OTHERS = {"the other members": Others("peers"), "Dynamo": Others("dynamo"), "everybody else": Others("everybody")}
SERVERS = {"the NATS server": "nats", "the frontend": "frontend"}
FLOWS = {"to": "to", "from": "from"}


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


def share(text: str) -> float:
    """A number of percent."""
    if not re.fullmatch(share.pattern, text):  # type: ignore[attr-defined]
        raise ValueError(f"{text!r} is no share; expected such as 20 or 99.5")
    return float(text)


def trigger(text: str) -> dict[str, Any]:
    """``after 3 seconds``, ``after 20 requests``, ``after 300 tokens`` or ``once OVERFLOW begins``, as a field of a
    failure.
    """
    begin, _, rest = text.partition(" ")
    if begin == "once" and (phase := rest.removesuffix(" begins")) in PHASE_NAMES:
        return {"trigger_in_phase": phase}
    if begin == "after" and (found := re.fullmatch(r"(\d+) (request|token)s?", rest)):
        return {f"trigger_after_{found[2]}s": int(found[1])}
    if begin == "after" and re.fullmatch(seconds.pattern, rest):  # type: ignore[attr-defined]
        return {"trigger_after_seconds": seconds(rest)}
    what = f"after 3 seconds, after 20 requests, after 300 tokens, once {' or '.join(PHASE_NAMES)} begins"
    raise ValueError(f"{text!r} is no trigger; expected such as {what}")


def file(text: str) -> Path:
    """A file that there is, from the root of the checkout."""
    if not (ROOT / text).is_file():
        raise ValueError(f"there is no file {text!r} in {ROOT}; expected a path from there")
    return ROOT / text


file.pattern = r"\S+\.ya?ml"  # type: ignore[attr-defined]
trigger.pattern = r"(?:after|once) [\w.]+ \w+"  # type: ignore[attr-defined]
share.pattern = r"\d+(?:\.\d+)?"  # type: ignore[attr-defined]
count.pattern = r"-?\d+"  # type: ignore[attr-defined]
seconds.pattern = r"\d+(?:\.\d+)? (?:milli)?seconds?"  # type: ignore[attr-defined]
plural.pattern = r"frontends?|workers?|clients?|requests?|migrations?|tokens?|words?"  # type: ignore[attr-defined]

TYPES: dict[str, Callable[[str], Any]] = {
    "Count": count,
    "Time": seconds,
    "Noun": plural,
    "Trigger": trigger,
    "File": file,
    "Engine": _one_of("engine", {engine: engine for engine in ENGINES}),
    "Plane": _one_of("request plane", {plane: plane for plane in REQUEST_PLANES}),
    "Api": _one_of("API", APIS),
    "Mode": _one_of("mode", MODES),
    "Way": _one_of("way to end a connection", WAYS),
    "Fate": _one_of("fate", registry.words("process")),
    "Fates": _one_of("fate", registry.words("process", many=True)),
    "Role": _one_of("role", ROLES),
    "Cut": _one_of("manner of a cut", MODE_WORDS),
    "Side": _one_of("side", SIDE_WORDS),
    "Flow": _one_of("direction", FLOWS),
    "Share": share,
    "Phase": _one_of("phase", {phase: phase for phase in PHASE_NAMES}),
    "Check": _one_of("check", {name.replace("_", " "): name for name in CHECKERS}),
    "Strain": _one_of("strain on a GPU", registry.words("gpu")),
    "Members": _one_of("part of an etcd cluster", MEMBERS),
    "Others": _one_of("side", OTHERS),
    "Server": _one_of("server", SERVERS),
}
# Not any run of words: these begin their sentences, where others begin as well.
TYPES["Members"].pattern = r"(?:the|an?|all)(?: \w+){0,2} etcd(?: (?:leader|follower|member))?"  # type: ignore[attr-defined]
TYPES["Server"].pattern = "|".join(SERVERS)  # type: ignore[attr-defined]

SHAPE_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "request plane": ("request_plane", TYPES["Plane"]),
    "discovery": ("discovery", _one_of("discovery", {each: each for each in DISCOVERIES})),
    "migration limit": ("migration_limit", count),
    "sequence cap": ("sequence_cap", count),
    "longest sequence": ("max_model_len", count),
    "health checks": ("health_checks", yes_or_no),
    "frontends": ("frontends", count),
    "router": ("router_mode", _one_of("router", {each: each for each in ROUTER_MODES})),
    "restart policy": ("restart_policy", _one_of("restart policy", {each: each for each in RESTART_POLICIES})),
    "speed": ("speed", float),
    "time to first token": ("prefill_seconds", seconds),
    "lease": ("lease_seconds", seconds),
    "leaves by": ("leaving", _one_of("way to leave", {each: each for each in LEAVINGS})),
    "drain deadline": ("drain_seconds", seconds),
    "grace period": ("grace_seconds", seconds),
    "stream timeout": ("stream_timeout_seconds", seconds),
}
"""What a table below "a Dynamo deployment with ..." may say -> field of the shape, how it is read."""

REQUEST_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "prompt words": ("prompt_words", count),
    "choices": ("n", count),
    "usage": ("usage", yes_or_no),
}
"""What a table below "a client ..." may say -> argument of the request, how it is read."""


def _spaced(names: Iterable[str]) -> dict[str, str]:
    return {name.replace("_", " "): name for name in names}


FAILURE_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "failure": ("type", _one_of("failure", _spaced(FAILURE_TYPES))),
    "target": ("target", _one_of("target", _spaced(VICTIMS))),
    "when": ("", trigger),
    "for": ("duration_seconds", seconds),
    **{
        each.metadata["column"]: (name, TYPES.get(each.metadata["read"], each.metadata["read"]))
        for name, (_, each) in registry.all_strengths().items()
        if each.metadata["column"]
    },
}
"""Columns of a table below "these failures strike" -> field of the failure, how it is read; an empty cell says none."""


def failures(table: Any) -> list[Failure]:
    """A table with a failure per row.

    Raises:
        ValueError: there is none, it lacks a column, has an unknown one, or a cell cannot be read.
    """
    found = []
    for row in table or ():
        fields: dict[str, Any] = {}
        for name, cell in zip(row.headings, row.cells, strict=True):
            if cell:
                fields |= options([(name, cell)], FAILURE_OPTIONS)
        if "type" not in fields or "" not in fields:
            raise ValueError(
                "a row of the table has no failure, or not when it strikes; expected columns failure and when"
            )
        found.append(Failure(**{**fields.pop(""), **fields}))
    if not found:
        raise ValueError("the sentence has no table; expected a failure per row, with columns failure and when")
    return found


def bounds(name: str, table: Any) -> dict[str, float]:
    """The bounds of a checker from a table of two columns; each has to be there, for it says what is promised.

    Raises:
        ValueError: one is missing or unknown, or no number.
    """
    wanted = _spaced(CHECKERS[name].bounds)
    found = options(table, {words: (field, float) for words, field in wanted.items()})
    if lacking := [words for words, field in wanted.items() if field not in found]:
        raise ValueError(f"the checks for {name.replace('_', ' ')} need a table below with {', '.join(lacking)}")
    return found


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
