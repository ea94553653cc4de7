"""Words of the sentences with a closed meaning, and the tables that may stand below them.

A wrong word fails at its step with the list of the right ones. environment.py registers :data:`TYPES` with behave.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import support.judge.checkers  # noqa: F401 - with it every checker is known by its name
from support.contract.shape import (
    CONTROLLERS,
    DISCOVERIES,
    ENGINES,
    LEAVINGS,
    REQUEST_PLANES,
    RESTART_POLICIES,
    ROUTER_MODES,
)
from support.errors import Mistake, nearest, unknown
from support.faults import registry
from support.faults.gpu import known_xids
from support.faults.network import FLOW_WORDS, MODE_WORDS, SIDE_WORDS
from support.faults.victims import VICTIMS
from support.judge.checker import CHECKERS
from support.requests.load_log import PHASE_NAMES
from support.settings import ROOT

WAYS = {"closes": "close", "resets": "reset"}
MODES = {"streamed": True, "unary": False}
APIS = {"completions": "completions", "chat": "chat"}
ROLES = {"prefill": "prefill", "decode": "decode"}
SERVERS = {"the NATS server": "nats", "the frontend": "frontend"}
MOMENTS = {"mid-answer": "request", "before the first token": "answer"}
"""Moment of an answer -> what has to be there for it, of :data:`support.marks.THINGS`."""


def one_of(what: str, words: Mapping[str, Any]) -> Callable[[str], Any]:
    """What reads one of these words as what it stands for."""

    def convert(text: str) -> Any:
        if text not in words:
            raise unknown(what, text, words)
        return words[text]

    # Any run of words reaches the conversion, which then says what is wrong; a pattern of the right ones alone would
    # make the whole step undefined.
    convert.pattern = r"[\w-]+" if all(" " not in word for word in words) else r"[\w-]+(?: [\w-]+){0,4}?"  # type: ignore[attr-defined]
    convert.words = tuple(words)  # type: ignore[attr-defined]
    return convert


def count(text: str) -> int:
    """A number of things, 1 or more."""
    return _whole(text, "count", 1)


def tally(text: str) -> int:
    """A number of things that may be none."""
    return _whole(text, "count", 0)


def percentage(text: str) -> int:
    """A whole number of percent, from 1 to 100."""
    return _whole(text, "percentage", 1, 100)


def _whole(text: str, what: str, least: int, most: float = float("inf")) -> int:
    if not (text.isdecimal() and least <= int(text) <= most):
        bounds = f"{least} or more" if most == float("inf") else f"{least} to {most:g}"
        raise Mistake(f"{text!r} is not a {what}; expected a whole number, {bounds}")
    return int(text)


UNITS = {"second": 1.0, "seconds": 1.0, "millisecond": 0.001, "milliseconds": 0.001, "minute": 60.0, "minutes": 60.0}
OTHER_UNITS = {"s": 1.0, "sec": 1.0, "secs": 1.0, "ms": 0.001, "msec": 0.001, "min": 60.0, "mins": 60.0} | {
    "h": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
}
"""Unit that people write as well -> how many seconds it has; they are told what to write instead."""


NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
AMOUNTS = {"half a": 0.5, "a full": 1.0, "a": 1.0} | {word: float(n) for n, word in enumerate(NUMBER_WORDS, 1)}
"""How many units people name in words -> the number."""
AMOUNT_WORDS = "|".join(AMOUNTS)


def seconds(text: str) -> float:
    """A time, such as ``2 seconds``, ``500 milliseconds``, ``a full minute`` or ``half a minute``."""
    found = re.fullmatch(rf"(\d+(?:\.\d+)?|(?:{AMOUNT_WORDS})(?= ))( ?)([a-z]*)", text)
    if not found:
        raise Mistake(f"{text!r} is not a time; expected such as 2 seconds or 500 milliseconds")
    number, space, unit = found.groups()
    if not unit:
        raise Mistake(f"{text!r} has no unit", UNITS, f"{number} seconds")
    value = AMOUNTS[number] if number in AMOUNTS else float(number)
    if unit in UNITS and space:
        return value * UNITS[unit]
    meant = nearest(unit, UNITS)
    instead = f"{number} {meant}" if meant else ""
    if unit in OTHER_UNITS:
        instead = f"{value * OTHER_UNITS[unit]:g} seconds"
    raise Mistake(f"{text!r} has no unit that is known", UNITS, instead)


def duration(text: str) -> float:
    """A time of more than 0, such as ``2 seconds``, ``500 milliseconds``, ``a full minute`` or ``half a minute``."""
    found = seconds(text.removeprefix("-"))
    if not found or text.startswith("-"):
        raise Mistake(f"{text!r} is not long enough; expected more than 0 seconds")
    return found


def times(text: str) -> int:
    """How many times as many: ``twice``, ``five times`` or ``5 times``."""
    words = {"twice": 2} | {f"{word} times": n for n, word in enumerate(NUMBER_WORDS, 1) if n > 1}
    number = text.removesuffix(" times")
    if text not in words and not (number.isdecimal() and int(number) > 1):
        meant = nearest(text, words)
        raise Mistake(
            f"{text!r} is not how many times as many; expected such as twice, five times or 12 times", write=meant
        )
    return words[text] if text in words else int(number)


yes_or_no = one_of("answer", {"yes": True, "no": False})


def plural(text: str) -> str:
    """A noun that may stand in the singular; says nothing itself."""
    return text


def number(text: str) -> float:
    """A number, 0 or more."""
    if not re.fullmatch(r"\d+(?:\.\d+)?", text):
        raise Mistake(f"{text!r} is not a number; expected such as 5 or 0.5")
    return float(text)


def status(text: str) -> int:
    """The status of an HTTP answer, such as ``503``."""
    if not re.fullmatch(r"[1-5]\d\d", text):
        raise Mistake(f"{text!r} is not an HTTP status; expected such as 503")
    return int(text)


def statuses(text: str) -> tuple[int, ...]:
    """One or more HTTP statuses, such as ``400, 413``."""
    return tuple(status(each.strip()) for each in text.split(","))


def fraction(text: str) -> float:
    """A part of a whole, more than 0 and up to 1."""
    if not 0 < number(text) <= 1:
        raise Mistake(f"{text!r} is not a fraction; expected a number, more than 0 and up to 1")
    return float(text)


def share(text: str) -> float:
    """A number of percent, more than 0 and no more than 100."""
    if not re.fullmatch(r"\d+(?:\.\d+)?", text) or not 0 < float(text) <= 100:
        raise Mistake(f"{text!r} is not a percentage; expected a number, more than 0 and up to 100, such as 99.5")
    return float(text)


def xid(text: str) -> int:
    """The number of an error that the GPU agents can report."""
    known = known_xids()
    if not text.isdecimal() or int(text) not in known:
        raise Mistake(f"unknown XID {text}", map(str, known))
    return int(text)


def trigger(text: str) -> dict[str, Any]:
    """``after 3 seconds``, ``after 20 requests``, ``after 300 tokens``, ``once OVERFLOW begins`` or ``once RECOVERY
    begins``.
    """
    begin, _, rest = text.partition(" ")
    if begin == "once":
        phase = rest.removesuffix(" begins")
        if phase not in PHASE_NAMES:
            raise unknown("phase", phase, PHASE_NAMES)
        return {"trigger_in_phase": phase}
    if begin == "after" and (found := re.fullmatch(r"(\d+) (request|token)s?", rest)):
        return {f"trigger_after_{found[2]}s": int(found[1])}
    if begin == "after" and rest.partition(" ")[0] in AMOUNTS:
        return {"trigger_after_seconds": seconds(rest)}
    if begin == "after" and (found := re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]*)", rest)):
        units = (*UNITS, "requests", "tokens")
        if found[2] and (found[2] in OTHER_UNITS or nearest(found[2], units) in UNITS):
            return {"trigger_after_seconds": seconds(rest)}
        meant = nearest(found[2], units) or "seconds"
        raise Mistake(f"{text!r} has no unit{' that is known' if found[2] else ''}", units, f"after {found[1]} {meant}")
    what = f"after 3 seconds, after 20 requests, after 300 tokens, once {' or '.join(PHASE_NAMES)} begins"
    raise Mistake(f"{text!r} is not a trigger; expected such as {what}")


def begin(text: str) -> dict[str, Any]:
    """May be left out. As :func:`trigger`."""
    return trigger(text.strip()) if text else {}


def lasting(text: str) -> float | None:
    """May be left out. For how long, such as ``for 2 seconds``."""
    return duration(text.strip().removeprefix("for ")) if text else None


def every(text: str) -> float | None:
    """May be left out. How often, such as ``every 5 seconds``."""
    return duration(text.strip().removeprefix("every ")) if text else None


def moment(text: str) -> str:
    """May be left out. ``mid-answer`` or ``before the first token``."""
    if text and text.strip() not in MOMENTS:
        write = f"{text.strip()} as the first words of the sentence" if text.startswith((" after ", " once ")) else ""
        raise Mistake(f"unknown moment {text.strip()!r}", MOMENTS, write or nearest(text.strip(), MOMENTS))
    return text.strip()


def one_time(trigger: dict[str, Any], moment: str, **_: Any) -> None:
    """Refuse a sentence that says twice when something breaks; Mistake: it does."""
    if trigger and moment:
        raise Mistake(f"the sentence says twice when it happens: {moment!r} and a trigger", write="one of the two")


def follow_ups(text: str) -> bool:
    """May be left out. ``with its usual follow-up errors``: those that follow an error in real logs."""
    return bool(text)


def drawn(text: str) -> tuple[str, ...]:
    """``faults`` of all kinds, or some of ``crashes``, ``hangs``, ``cuts`` and ``GPU errors``, with ``and`` between."""
    known = registry.drawn()
    if text == "faults":
        return ()
    found = text.split(" and ")
    for each in found:
        if each not in known:
            raise unknown("kind of random faults", each, ["faults", *known])
    return tuple(known[each] for each in found)


def file(text: str) -> Path:
    """A file that there is, from the root of the checkout."""
    if not (ROOT / text).is_file():
        beside = [str(each.relative_to(ROOT)) for each in (ROOT / text).parent.glob("*.y*ml")]
        raise Mistake(f"there is no file {text!r} in {ROOT}; expected a path from there", write=nearest(text, beside))
    return ROOT / text


file.pattern = r"\S+\.ya?ml"  # type: ignore[attr-defined]
# Without its unit, what follows is the victim.
trigger.pattern = r"(?:after|once) -?[\w.]+(?: (?!(?:the|an?|all|every|packets)\b)\w+)?"  # type: ignore[attr-defined]
drawn.pattern = r"\w+(?: (?!strike)\w+){0,8}?"  # type: ignore[attr-defined]
share.pattern = r"-?\d+(?:\.\d+)?"  # type: ignore[attr-defined]
fraction.pattern = r"\d+(?:\.\d+)?"  # type: ignore[attr-defined]
count.pattern = tally.pattern = percentage.pattern = xid.pattern = r"-?\d+"  # type: ignore[attr-defined]
# A unit that is missing or unknown reaches the conversion as well.
TIME = rf"(?:-?\d+(?:\.\d+)?(?: ?[a-z]+)?|(?:{AMOUNT_WORDS}) [a-z]+)"
seconds.pattern = duration.pattern = TIME  # type: ignore[attr-defined]
times.pattern = r"twice|[\w.-]+ times"  # type: ignore[attr-defined]
begin.pattern = rf"(?:{trigger.pattern} )?"  # type: ignore[attr-defined]
lasting.pattern = rf"(?: for {TIME})?"  # type: ignore[attr-defined]
every.pattern = rf"(?: every {TIME})?"  # type: ignore[attr-defined]
moment.pattern = rf"(?:(?: (?!for (?:-?\d|(?:{AMOUNT_WORDS}) ))[\w-]+){{1,5}}?)?"  # type: ignore[attr-defined]
follow_ups.pattern = r"(?: with its usual follow-up errors)?"  # type: ignore[attr-defined]
OPTIONAL = {
    "Begin": "[<after 3 seconds>] ",
    "Lasting": " [for <2 seconds>]",
    "Every": " [every <5 seconds>]",
    "Moment": " [mid-answer|before the first token]",
    "FollowUps": " [with its usual follow-up errors]",
}
"""Type of words that may be left out -> how the catalogue shows them, with the space that goes with them."""
TIMES = ("Time", "Trigger", "Begin", "Lasting", "Every")
"""Types of words that are a time, or begin with one."""
plural.pattern = r"frontends?|workers?|clients?|requests?|migrations?|tokens?|words?"  # type: ignore[attr-defined]
EXAMPLES = {
    "Count": "2",
    "Tally": "0",
    "Percent": "40",
    "Share": "99",
    "Fraction": "0.5",
    "Time": "2 seconds",
    "Noun": "workers",
    "Xid": "79",
    "Times": "five times",
    "Trigger": "after 3 seconds",
    "Begin": "after 3 seconds ",
    "Lasting": " for 2 seconds",
    "Every": " every 5 seconds",
    "Moment": " mid-answer",
    "FollowUps": " with its usual follow-up errors",
    "Drawn": "crashes and hangs",
    "File": "docs/scenarios.yaml",
}
"""Type whose words cannot be listed -> one of them; of the others ``TYPES[...].words`` has them all."""

TYPES: dict[str, Callable[[str], Any]] = {
    "Count": count,
    "Tally": tally,
    "Percent": percentage,
    "Xid": xid,
    "Fraction": fraction,
    "Time": duration,
    "Times": times,
    "Noun": plural,
    "Trigger": trigger,
    "Begin": begin,
    "Lasting": lasting,
    "Every": every,
    "Moment": moment,
    "FollowUps": follow_ups,
    "Drawn": drawn,
    "YesNo": yes_or_no,
    "File": file,
    "Engine": one_of("engine", {engine: engine for engine in ENGINES}),
    "Plane": one_of("request plane", {plane: plane for plane in REQUEST_PLANES}),
    "Api": one_of("API", APIS),
    "Mode": one_of("mode", MODES),
    "Way": one_of("way to end a connection", WAYS),
    "Victim": one_of("victim", {each.words: key for key, each in VICTIMS.items()}),
    "Fate": one_of("fate", registry.words("process")),
    "PodFate": one_of("fate of a pod", registry.words("pod")),
    "Role": one_of("role", ROLES),
    "Cut": one_of("manner of a cut", MODE_WORDS),
    "Side": one_of("side", SIDE_WORDS),
    "Flow": one_of("direction", FLOW_WORDS),
    "Share": share,
    "Phase": one_of("phase", {phase: phase for phase in PHASE_NAMES}),
    "LaterPhase": one_of("phase after STANDARD", {phase: phase for phase in PHASE_NAMES if phase != "STANDARD"}),
    "Check": one_of("check", {name.replace("_", " "): name for name in CHECKERS}),
    "Strain": one_of("strain on a GPU", registry.words("gpu")),
    "Server": one_of("server", SERVERS),
}


MEANT = ("between", "packets from", "packets to", "GPU of", "pod of", "machine of", "bandwidth of")
"""Words that a victim comes after."""


def _victim_pattern(victims: Iterable[str], fates: Iterable[str]) -> str:
    """These victims; and any other words where it is plain that a victim was meant: after the words of a sentence that
    has one, or before a fate. A sentence may begin with a victim, and would else take those of others for its own.
    """
    known, ends = ("|".join(sorted(each, key=len, reverse=True)) for each in (victims, fates))
    meant = "|".join(f"(?<={each} )" for each in MEANT)
    words = r"[\w-]+(?: [\w-]+){0,6}?"
    return rf"(?:(?:{known})(?![\w-])|(?:{meant}){words}|{words}(?= (?:{ends})(?![\w-])))"


for _name in ("Fate", "PodFate"):
    _fates = "|".join(sorted(TYPES[_name].words, key=len, reverse=True))  # type: ignore[attr-defined]
    # What follows a known one is another word of the sentence.
    TYPES[_name].pattern = rf"(?:(?:{_fates})(?![\w-])|(?!(?:{_fates}) ){TYPES[_name].pattern})"  # type: ignore[attr-defined]
TYPES["Victim"].pattern = _victim_pattern(TYPES["Victim"].words, TYPES["Fate"].words)  # type: ignore[attr-defined]
TYPES["Server"].pattern = "|".join(SERVERS)  # type: ignore[attr-defined]

SHAPE_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "request plane": ("request_plane", TYPES["Plane"]),
    "etcd members": ("etcd_members", count),
    "discovery": ("discovery", one_of("discovery", {each: each for each in DISCOVERIES})),
    "migration limit": ("migration_limit", tally),
    "sequence cap": ("sequence_cap", count),
    "longest sequence": ("max_model_len", count),
    "health checks": ("health_checks", yes_or_no),
    "frontends": ("frontends", count),
    "router": ("router_mode", one_of("router", {each: each for each in ROUTER_MODES})),
    "restart policy": ("restart_policy", one_of("restart policy", {each: each for each in RESTART_POLICIES})),
    "speed": ("speed", number),
    "time to first token": ("prefill_seconds", seconds),
    "lease": ("lease_seconds", seconds),
    "leaves by": ("leaving", one_of("way to leave", {each: each for each in LEAVINGS})),
    "drain deadline": ("drain_seconds", seconds),
    "grace period": ("grace_seconds", seconds),
    "stream timeout": ("stream_timeout_seconds", seconds),
    "readiness switch": ("readiness_switch", yes_or_no),
    "controller": ("controller", one_of("controller", {each: each for each in CONTROLLERS})),
}
"""What a table below "a Dynamo deployment with ..." may say -> field of the shape, how it is read."""

REQUEST_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "prompt words": ("prompt_words", count),
    "choices": ("n", count),
    "usage": ("usage", yes_or_no),
}
"""What a table below "a client ..." may say -> argument of the request, how it is read."""


CHECK_WORDS = {"phase": TYPES["Phase"], "relapses": tally, "status": status, "statuses": statuses}
"""Parameter of a check -> how it is read; every other one is a number."""


def _spaced(names: Iterable[str]) -> dict[str, str]:
    return {name.replace("_", " "): name for name in names}


HEADINGS = ("setting", "value")
"""Of a table of two columns."""


def shape(said: Mapping[str, Any], table: Any) -> dict[str, Any]:
    """The fields of a shape, from a sentence and the table below it.

    Raises:
        Mistake: both say the same, or the table cannot be read.
    """
    found = options(table, SHAPE_OPTIONS)
    if twice := [words for words, (field, _) in SHAPE_OPTIONS.items() if field in said and field in found]:
        raise Mistake(f"the sentence says {twice[0]!r}, and so does its table", write="it once")
    return {**said, **found}


def check_options(name: str) -> dict[str, tuple[str, Callable[[str], Any]]]:
    """What a table below the checks for ``name`` may say -> parameter of the checker, how it is read."""
    checker = CHECKERS[name]
    return {
        words: (field, CHECK_WORDS.get(field, number))
        for words, field in _spaced([*checker.bounds, *checker.options]).items()
    }


def check_bounds(name: str) -> list[str]:
    """What such a table has to say."""
    return [*_spaced(CHECKERS[name].bounds)]


def check_settings(name: str, table: Any) -> dict[str, Any]:
    """The parameters of a checker from a table of two columns; each bound has to be there: it says what is promised.

    Raises:
        Mistake: one is missing or unknown, or cannot be read.
    """
    found = options(table, check_options(name))
    if lacking := [words for words in check_bounds(name) if check_options(name)[words][0] not in found]:
        raise Mistake(f"the checks for {name.replace('_', ' ')} need a table below with {', '.join(lacking)}")
    return found


def options(rows: Iterable[Any] | None, allowed: Mapping[str, tuple[str, Callable[[str], Any]]]) -> dict[str, Any]:
    """A two-column table as keyword arguments.

    Args:
        rows: rows of two cells, name and value; None for no table.

    Raises:
        Mistake: an unknown name, with the allowed ones, or a value that cannot be read.
    """
    found = {}
    for name, value in rows or ():
        if name not in allowed:
            raise Mistake(f"unknown setting {name!r} in the table", allowed, nearest(name, allowed))
        field, read = allowed[name]
        try:
            found[field] = read(value)
        except Mistake as mistake:
            raise mistake.inside(name) from None
    return found
