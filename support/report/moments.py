"""What happened in a scenario beside its requests, in the order of time and in sentences for people: what was broken
and until when, who exited, who came back, who led.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support import releases
from support.events import ENDED, Event, read_events
from support.observe.metrics import Exposition
from support.requests.load_log import read_phases

PHASES = {"STANDARD": "before", "OVERFLOW": "during", "RECOVERY": "after"}
"""Phase of a load -> when it is, seen from what was broken."""


@dataclass(frozen=True)
class Strike:
    """Something that was broken on purpose, or that clients did on purpose. Times are seconds on the ledger's clock.

    Attributes:
        node: whom it hit, ``client`` for what clients did.
        words: what it did, a sentence without its full stop.
        begin: when it was ordered; ``proven``: when its victim was seen to suffer it, None: never.
        end: when it was over; None: not before the scenario was. Of what is over at once, its begin.
        ordered: whether the fault service was asked for it, so that it has to be proven.
        over: what its end was, in words; empty where it was the load's RECOVERY, or there was none.
    """

    node: str
    words: str
    begin: float
    proven: float | None
    end: float | None
    ordered: bool
    over: str = ""


@dataclass(frozen=True)
class Moment:
    """A point in time with its words; ``about``: ``strike``, ``over``, ``phase``, ``left`` or ``leader``."""

    at: float
    about: str
    words: str


@dataclass(frozen=True)
class Happenings:
    """All of that in a scenario.

    Attributes:
        events: as they were recorded, oldest first.
        strikes: in the order of their begins.
        phases: of a load, each with its begin.
        migrations: how often the frontends have moved a request, None where nobody counted.
    """

    events: Sequence[Event]
    strikes: Sequence[Strike]
    phases: Sequence[tuple[str, float]]
    migrations: int | None

    def moments(self) -> list[Moment]:
        """What is worth a line, oldest first."""
        found = [Moment(each.begin, "strike", each.words) for each in self.strikes]
        found += [Moment(each.end, "over", each.over) for each in self.strikes if each.end is not None and each.over]
        found += [Moment(at, "phase", f"{self.when(phase)} ({phase})") for phase, at in self.phases]
        found += [*self._departures(), *self._elections()]
        return sorted(found, key=lambda each: each.at)

    def when(self, phase: str) -> str:
        """A phase of a load in a reader's words."""
        by_clients = self.strikes and not any(each.ordered for each in self.strikes)
        return f"{PHASES[phase]} {'the overload' if by_clients else 'the fault'}"

    def _departures(self) -> list[Moment]:
        """Processes that ended and that nobody had broken until then."""
        over = next((event.at for event in self.events if event.data.get("steps") == "over"), float("inf"))
        struck = {each.node: each.begin for each in reversed(self.strikes)}
        return [
            Moment(event.at, "left", f"{event.subject} exited by itself ({event.text.split(': ', 1)[-1]})")
            for event in self.events
            if event.state in ENDED and event.at < over and event.at < struck.get(event.subject, float("inf"))
        ]

    def _elections(self) -> list[Moment]:
        """Leaders of etcd after something was broken."""
        since = self.strikes[0].begin if self.strikes else float("inf")
        changes = [event for event in self.events if event.kind == "leader" and event.at > since]
        return [Moment(event.at, "leader", f"{event.data['leader'] or 'nobody'} leads etcd") for event in changes]


def read_happenings(folder: Path) -> Happenings:
    """Those of a scenario, from its folder; files that are missing tell of nothing."""
    events, phases = read_events(folder / "events.jsonl"), read_phases(folder)
    return Happenings(events, strikes(events, dict(phases)), phases, _migrations(folder / "metrics"))


def strikes(events: Sequence[Event], phases: Mapping[str, float]) -> list[Strike]:
    """What was broken on purpose.

    Args:
        events: oldest first.
        phases: of a load -> their begins.
    """
    found, named = [], dict[str, list[Event]]()
    for event in events:
        if event.kind in ("fault", "proof") and "fault" in event.data:
            named.setdefault(event.data["fault"], []).append(event)
        elif event.kind == "fault":
            found.append(_unnamed(event, events, phases))
    found += [_ordered(own, events, phases) for own in named.values() if own[0].kind == "fault"]
    return sorted(found, key=lambda each: each.begin)


def _unnamed(event: Event, events: Sequence[Event], phases: Mapping[str, float]) -> Strike:
    """What clients did: over at once, or when a load's phase RECOVERY began."""
    back = phases.get("RECOVERY", event.at)
    return Strike(event.subject, event.text, event.at, None, max(back, event.at), ordered=False)


def _ordered(own: Sequence[Event], events: Sequence[Event], phases: Mapping[str, float]) -> Strike:
    """What the fault service was asked for, by the events that name it: the injection, its proof, and then whatever
    tells that it is over.
    """
    first, proofs = own[0], [event.at for event in own[1:] if event.kind == "proof"]
    undone = [event.at for event in own[1:] if event.kind == "fault"]
    proven = next((at for at in proofs if not undone or at < undone[0]), None)
    after = [at for at in proofs if at != proven]
    ends = [(at, f"{first.subject} works again") for at in (after or undone)[-1:]] or _back(first, events, phases)
    if (lease := first.data.get("until")) is not None and lease <= events[-1].at:
        ends.append((lease, f"the fault on {first.subject} is over"))
    end, over = min(ends, default=(None, ""))
    return Strike(first.subject, first.text, first.at, proven, end, ordered=True, over=over)


def _back(first: Event, events: Sequence[Event], phases: Mapping[str, float]) -> list[tuple[float, str]]:
    """When the failure was over although nobody undid the fault, and in which words: at a load's RECOVERY, else when a
    process of the victim's that had ended ran again.
    """
    if phases.get("RECOVERY", 0.0) > first.at:
        return [(phases["RECOVERY"], "")]
    later = [event for event in events if event.at >= first.at and event.subject == first.subject and event.state]
    ended = next((event.at for event in later if event.state in ENDED), None)
    again = [event.at for event in later if ended is not None and event.at >= ended and event.state == "running"]
    return [(at, f"{first.subject} runs again") for at in again[:1]]


def _migrations(metrics: Path) -> int | None:
    name, found = releases.get(releases.default()).metrics["frontend_migrations"], None
    for file in sorted((metrics / "after").glob("frontend-*.txt")):
        now = _value(file, name)
        if now is not None:
            found = (found or 0) + round(now - (_value(metrics / "before" / file.name, name) or 0.0))
    return found


def _value(file: Path, name: str) -> float | None:
    return Exposition(file.read_text(encoding="utf-8")).value(name) if file.exists() else None
