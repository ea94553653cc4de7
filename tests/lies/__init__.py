"""Every kind of fault times every lie about it: none may pass, and none may be blamed on Dynamo (docs/sabotage.md).

Rows are read off the drivers of the agents, so that a new kind has rows by itself, and has to be lied about as well, or
to say why that cannot be.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from agents.core.faults import KINDS
from agents.registry import types
from agents.xid.xids import CATALOGUE
from support.faults import registry
from support.faults.fault import Fault
from support.faults.gpu import XidError
from support.faults.victims import Victim

HONEST = "nothing: it is honest"
LIES = (
    "does nothing",
    "hits another",
    "does half",
    "comes too late",
    "ends early",
    "never ends",
    "undoes another's",
    "witness: no answer",
    "witness: stale answer",
)
"""What may be wrong with an injector, and with who looks at the victim."""


@dataclass(frozen=True)
class Way:
    """One way to tell a lie.

    Attributes:
        sabotage: as ``FT_SABOTAGE`` has it (docs/sabotage.md), or ``list=KIND`` of the frontend's list of workers.
        seen: regular expression for the finding that has to catch it.
        noticed: whether a sentence about what users see is there to fall for it: the blame is then on Dynamo, unless
            the lie is caught.
    """

    sabotage: str
    seen: str
    noticed: bool = True


@dataclass(frozen=True)
class Row:
    """One kind of fault, or one of the forms that it has.

    Attributes:
        name: family and type as the fault service has them, and which form.
        make: the fault for a victim; None: there is none.
        lingers: whether workers that are shut down leave the list and stay.
    """

    name: str
    make: Callable[[Victim], Fault] | None
    lingers: bool = False


NOT_PROVEN, NOT_ENDED = "the fault was not proven", "the recovery was not proven"
ENDED = "was over too early"
NO_ANSWER = "the witness does not answer"
DOES_NOTHING, SPARES = Way("injector=does-nothing", NOT_PROVEN), Way("injector=spares-children", NOT_PROVEN)
WEAKLY = (SPARES, Way("injector=halves-strength", NOT_PROVEN), Way("injector=fakes-telemetry", NOT_PROVEN))
ONE_FAMILY = Way("injector=cuts-one-family", NOT_PROVEN)
HALVES: dict[str, tuple[Way, ...]] = {
    "process crash": (SPARES,),
    "process terminate": (SPARES,),
    "process terminate (lingers)": (SPARES,),
    "process hang": (SPARES,),
    # The child that is left has the port: the new process cannot start, or is not seen to have.
    "process restart": (
        Way("injector=spares-children", f"{NOT_PROVEN}|Cannot start"),
        Way("injector=starts-nothing", NOT_PROVEN),
    ),
    "network *": (Way("injector=cuts-one-way", NOT_PROVEN),),
    "network drop": (ONE_FAMILY,),
    "network reject": (ONE_FAMILY,),
    "network reset": (ONE_FAMILY,),
    "network loss": (ONE_FAMILY, Way("injector=halves-strength", NOT_PROVEN)),
    "network bandwidth": (Way("injector=halves-strength", NOT_PROVEN),),
    "gpu XID_ERROR (end)": (SPARES,),
    "gpu XID_ERROR (lose)": (SPARES,),
    "gpu XID_ERROR (hang)": (SPARES,),
    "gpu XID_ERROR (slow-peers)": (ONE_FAMILY, Way("injector=cuts-one-way", NOT_PROVEN)),
    "gpu XID_ERROR (with what follows)": (Way("injector=swallows-rest", NOT_PROVEN),),
    "gpu XID_ERROR (*)": (
        Way("injector=swallows-line", NOT_PROVEN),
        Way("injector=swallows-consequence", NOT_PROVEN),
    ),
    "gpu THROTTLE": WEAKLY,
    "gpu OVERHEAT": WEAKLY,
    "gpu COMPUTE_OVERLOAD": WEAKLY,
    "gpu MEMORY_PRESSURE": (Way("injector=halves-strength", NOT_PROVEN),),
}
"""Row -> what of it can be done by half."""
WAYS: dict[str, tuple[Way, ...]] = {
    HONEST: (Way("", ""),),
    "does nothing": (DOES_NOTHING,),
    "hits another": (Way("injector=hits-another", NOT_PROVEN),),
    "comes too late": (Way("injector=comes-too-late", NOT_PROVEN),),
    "ends early": (Way("injector=ends-early", ENDED), Way("injector=ends-early", ENDED, noticed=False)),
    "never ends": (Way("injector=recovers-nothing", NOT_ENDED),),
    "undoes another's": (Way("injector=undoes-others", ENDED), Way("injector=undoes-others", ENDED, noticed=False)),
    "witness: no answer": (
        Way("witness=refuses", NO_ANSWER),
        Way("witness=is-blind", f"{NOT_PROVEN}|tokens came at no steady rate before the fault"),
    ),
    "witness: stale answer": (Way("witness=is-stale", NOT_PROVEN), Way("witness=sees-no-end", f"{NOT_ENDED}|{ENDED}")),
}
"""Lie -> how it is told of any fault."""
OF_LISTS = {
    "witness: no answer": (Way("list=none", NOT_PROVEN),),
    "witness: stale answer": (Way("list=stale", NOT_PROVEN),),
}
"""The same of the frontend's list, which proves that somebody has left who is still there."""
MOMENT = "a restart is over as soon as it is done: nothing lasts, and nothing has to end"
LINE = "a line in the kernel log is all that there is of it; it stays"
IMPOSSIBLE: tuple[tuple[str, str, str], ...] = (
    ("process slow_disk", "*", "there is no such fault: the service refuses it"),
    ("network delay", "*", "it was never seen to bite: no machine of ours has netem, and the suite has no such fault"),
    ("process restart", "ends early", MOMENT),
    ("process restart", "never ends", MOMENT),
    ("gpu XID_ERROR (none)", "does half", LINE),
    ("gpu XID_ERROR (none)", "ends early", LINE),
    ("gpu XID_ERROR (none)", "never ends", LINE),
)
"""Row, lie (globs) and why the one cannot be told of the other."""
ENDLESS = ("process restart", "process terminate (lingers)", "gpu XID_ERROR (none)")
"""Rows with nothing whose end a witness could miss: the process runs before it and after it."""
STRENGTHS = {"network loss": {"percent": 50}}
"""Row -> with which strength it is made, where half of the usual one could be chance."""


def _of_xids(kind: type[XidError]) -> list[Row]:
    first: dict[str, int] = {}
    for number, entry in sorted(CATALOGUE.items()):
        first.setdefault(entry.consequence, number)
    follow = next(number for number, entry in sorted(CATALOGUE.items()) if entry.sequence)
    made = [(consequence, {"xid": number}) for consequence, number in first.items()]
    made.append(("with what follows", {"xid": follow, "sequence": True}))
    return [Row(f"gpu XID_ERROR ({form})", _maker(kind, **strength)) for form, strength in made]


def _maker(kind: type[Fault], **strength: Any) -> Callable[[Victim], Fault]:
    return lambda victim: kind(victim, **strength)


def rows() -> list[Row]:
    """Every type of fault that some driver makes, in all its forms."""
    found = []
    for family in KINDS:
        for type_ in types(family):
            kind, name = registry.ordered_as(family, type_), f"{family} {type_}"
            if kind is not None and issubclass(kind, XidError):
                found += _of_xids(kind)
                continue
            strength: dict[str, Any] = STRENGTHS.get(name, {})
            if kind is not None and len(kind.types) > 1:
                strength = strength | {"mode": type_}
            row = Row(name, None if kind is None else _maker(kind, **strength))
            found += [row, replace(row, name=f"{name} (lingers)", lingers=True)] if type_ == "terminate" else [row]
    return found


def impossible(row: Row, lie: str) -> str:
    """Why a lie cannot be told of a fault; empty: it can."""
    return next((why for name, of, why in IMPOSSIBLE if fnmatchcase(row.name, name) and fnmatchcase(lie, of)), "")


def ways(row: Row, lie: str) -> list[Way]:
    """All ways to tell a lie of a fault."""
    if row.make is None or impossible(row, lie):
        return []
    if lie == "does half":
        return [way for name, some in HALVES.items() if _is(row.name, name) for way in some]
    found = [*WAYS[lie], *(OF_LISTS.get(lie, ()) if row.lingers else ())]
    return [way for way in found if not (way.sabotage == "witness=sees-no-end" and row.name in ENDLESS)]


def _is(name: str, pattern: str) -> bool:
    """Round brackets mean themselves, and so do names without a star."""
    return fnmatchcase(name, pattern) if "*" in pattern else name == pattern
