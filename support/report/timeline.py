"""One picture of a scenario over time: what was broken and until when, what requests or a load got, who was up.

From top to bottom: a line for each thing that happened, with a number that stands again where it happened; the
requests, each a bar with its tokens in it, or the curves of a load; a bar for each node. A fault is a striped interval
over all of it. It is as wide as whatever shows it, a phone or a screen (:mod:`support.report.svg`).
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.amounts import amount
from support.events import Event
from support.judge.samples import LoadHistory
from support.judge.verdict import Verdict
from support.report import load_panels, wording
from support.report.moments import Happenings, Moment, Strike, read_happenings
from support.report.reading import read_load_history, read_verdict
from support.report.svg import NARROW, badge, box, fits, frame, level, lines, stretched, text, ticks, upright
from support.requests.ledger import LedgerEntry, read_ledger
from support.requests.load_log import find_loads
from support.requests.outcomes import outcome

OUTCOMES = {
    "complete": ("good", "\N{CHECK MARK}"),
    "error": ("warn", "!"),
    "cancelled": ("soft", "\N{EN DASH}"),
    "broken": ("fault", "\N{MULTIPLICATION SIGN}"),
}
"""Outcome of a request -> its colour and its sign."""
STATES = {
    "starting": ("idle", "starts"),
    "running": ("calm", "runs"),
    "leaving": ("idle", "shuts down"),
    "hung": ("paper", "hangs"),
    "dead": ("paper", "down"),
    "stopped": ("paper", "exited"),
}
"""State of a node -> the colour of its bar, and the word in it; what does not serve is an empty frame."""
MISSED = "\N{MULTIPLICATION SIGN}"
"""What did not hold is marked with it."""
SIGNS = {"over": "\N{CHECK MARK}", "left": "!", "leader": "L"}
"""What a moment that is not a strike is marked with."""

LABELLED = 12
"""Up to this many requests have a line of words each; of more only the number per outcome is told."""
DRAWN = 60
"""Up to this many requests are drawn; of more those that have no whole answer come first."""
WORDED = 9
"""Up to this many things that happened have a line of words."""
NUMBERED = 24
"""Up to this many strikes are numbered in the picture; where they are more their stripes tell more."""
PAUSE_SHOWN = 0.25
"""Seconds from which the longest pause between two tokens is told."""
BEFORE = 0.06
"""Part of the time axis that lies before the first request; what was earlier is the boot."""
COLUMNS = 400
"""Tokens are drawn in this many columns."""

BESIDE = 13.0
"""Percent of the narrowest picture by which a sign may be moved to the right of its place; further it is left out."""
LEFT, RIGHT = 2.5, 97.5
"""Percent of the width: where the time axis begins and ends."""
LINE, BAR, THIN, LANE = 17, 12, 4, 34
"""Pixels: a line of words, the bar of a request that is labelled, of one that is not, a node with its name."""


@dataclass(frozen=True)
class _Scale:
    """Times to percent of the width. Seconds are counted from ``zero``; the axis reaches from ``begin`` to ``end``."""

    zero: float
    begin: float
    end: float

    def x(self, at: float) -> float:
        inside = min(max(at, self.begin), self.end)
        return LEFT + (inside - self.begin) / (self.end - self.begin) * (RIGHT - LEFT)

    def seconds(self, at: float) -> str:
        return f"{at - self.zero:.2f} s"


def draw(folder: Path, name: str = "timeline.svg") -> Path | None:
    """Draw a scenario's picture into its folder from what lies there; None when nothing with a time was recorded.

    Of a load the picture shows throughput, latency and errors, of single requests their tokens. Files that are missing
    (a scenario that died early) leave their part of the picture empty.
    """
    load = read_load_history(folder) if find_loads(folder) else None
    if load and not load.samples:
        load = None
    entries = [] if load else [each for each in read_ledger(folder / "ledger.jsonl") if each.sent_at is not None]
    happened = read_happenings(folder)
    verdict = _verdict(folder)
    scale = _scale(happened.events, entries, load, verdict)
    if scale is None:
        return None
    title = f"{verdict.name}: {wording.MARKS[verdict.verdict]}" if verdict else folder.name
    heading, top = _heading(title)
    words, top = _words(scale, happened.moments(), top)
    missed, top = _missed(scale, verdict, top)
    plot = top + 14
    shown, lanes = _load(scale, load, plot) if load else _requests(scale, entries, happened, plot)
    nodes = _nodes(folder, happened.events)
    states, bottom = _states(scale, nodes, happened.events, lanes + 10)
    rooms = {name: (lanes + 12 + LANE * row, lanes + 40 + LANE * row) for row, name in enumerate(nodes)}
    cluster, bottom = _cluster(scale, happened.events, bottom)
    stripes = list(_stripes(scale, happened.strikes, {"": (plot - 4, lanes + 6), **rooms}))
    marks = list(_marks(scale, happened.moments(), plot - 10, bottom))
    parts = [*heading, *words, *states, *cluster, *shown, *stripes, *_seconds(scale, bottom)]
    # Words are drawn over stripes, which else make them illegible.
    parts = [*sorted(parts, key=lambda part: part.startswith("<text")), *missed, *marks]
    picture = folder / name
    picture.write_text(frame(bottom + 40, title, parts), encoding="utf-8")
    return picture


def _scale(
    events: Sequence[Event], entries: Sequence[LedgerEntry], load: LoadHistory | None, verdict: Verdict | None
) -> _Scale | None:
    times = [event.at for event in events] + [at for entry in entries for at in (entry.sent_at or 0.0, _end(entry))]
    times += [load.begin, load.end] if load else []
    times += [each.until for each in verdict.findings if each.until is not None] if verdict and times else []
    if not times:
        return None
    zero = load.begin if load else min([entry.sent_at or 0.0 for entry in entries] or times)
    begin = max(min(times), zero - BEFORE * (max(times) - zero))
    return _Scale(zero, begin, max(*times, begin + 0.001))


def _heading(title: str) -> tuple[list[str], float]:
    rows = lines(title, 4, letter=7.4)
    drawn = [text(LEFT, 20 + LINE * row, line, size=13, weight="bold") for row, line in enumerate(rows)]
    return drawn, 20 + LINE * len(rows)


def _words(scale: _Scale, moments: Sequence[Moment], top: float) -> tuple[list[str], float]:
    """A line for each thing that happened, behind its sign and its time."""
    if not any(each.about == "strike" for each in moments):
        return [text(LEFT, top, "nothing was broken", "soft")], top + LINE
    drawn, y = list[str](), top
    shown = moments if len(moments) <= WORDED else moments[: WORDED - 1]
    for moment, sign in zip(shown, _signs(moments), strict=False):
        drawn.append(badge(LEFT + 1.5, y - 4, sign, _colour(moment)))
        rows = lines(f"{scale.seconds(moment.at)}: {moment.words}", 2, indent=20)
        drawn += [text(LEFT + 1.5, y + (LINE - 3) * row, line, shift=14) for row, line in enumerate(rows)]
        y += LINE + (LINE - 3) * (len(rows) - 1) + 2
    if len(moments) > len(shown):
        more = f"and {len(moments) - len(shown)} more until {scale.seconds(moments[-1].at)}"
        drawn.append(text(LEFT + 1.5, y, more, "soft", shift=14))
        y += LINE
    return drawn, y


def _missed(scale: _Scale, verdict: Verdict | None, top: float) -> tuple[list[str], float]:
    """What did not hold, in words, with a bar for as long as it was waited for; nothing where all did."""
    lead = wording.lead(verdict) if verdict else None
    if not verdict or lead is None:
        return [], top
    expected, seen = wording.promised(verdict)
    spell = None if lead.since is None or lead.until is None else (lead.since, lead.until)
    when = f" from {' to '.join(map(scale.seconds, spell))}" if spell else ""
    rows = lines(f"not so{when}: {expected}" if expected else seen, 3, indent=20)
    drawn = [badge(LEFT + 1.5, top - 4, MISSED, "fault")]
    drawn += [text(LEFT + 1.5, top + (LINE - 3) * row, line, shift=14) for row, line in enumerate(rows)]
    top += LINE + (LINE - 3) * (len(rows) - 1) + 2
    if not spell:
        return drawn, top
    left, right = map(scale.x, spell)
    bar = box(left, top - 8, max(0.4, right - left), THIN, "fault")
    return [*drawn, bar, badge(right, top - 6, MISSED, "fault")], top + LINE


def _signs(moments: Sequence[Moment]) -> list[str]:
    """The sign of each moment: strikes are numbered, a phase has its initial."""
    signs, strikes = [], 0
    for each in moments:
        strikes += each.about == "strike"
        signs.append(str(strikes) if each.about == "strike" else SIGNS.get(each.about) or each.words[0].upper())
    return signs


def _colour(moment: Moment) -> str:
    return {"strike": "fault", "over": "good", "left": "warn"}.get(moment.about, "soft")


def _stripes(scale: _Scale, strikes: Sequence[Strike], rooms: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """A striped interval from the begin of each strike to its end, over the requests and its victim's bar; without a
    line at its right while it goes on.

    Args:
        rooms: name of a node, and empty for the requests -> top and bottom.
    """
    for each in strikes:
        left, right = scale.x(each.begin), scale.x(scale.end if each.end is None else each.end)
        for name in ("", each.node):
            if name in rooms:
                top, bottom = rooms[name]
                yield box(left, top, max(0.3, right - left), bottom - top, "url(#stripes)", each.words)
                yield upright(left, top, bottom, "fault")
                if each.end is not None and right - left > 0.3:
                    yield upright(right, top, bottom, "fault", dashed=True)


def _marks(scale: _Scale, moments: Sequence[Moment], y: float, bottom: float) -> Iterator[str]:
    """The sign of each moment above its place; one that would cover the sign before it stands beside it."""
    if sum(each.about == "strike" for each in moments) > NUMBERED:
        return
    free = 0.0
    for moment, sign in zip(moments, _signs(moments), strict=True):
        x = scale.x(moment.at)
        if moment.about == "phase":
            yield upright(x, y, bottom, "soft", dashed=True)
        place = min(max(x, free), RIGHT)
        if place - x <= BESIDE:
            yield badge(x, y, sign, _colour(moment), shift=(place - x) / 100 * NARROW)
            free = place + 17 / NARROW * 100


def _load(scale: _Scale, run: LoadHistory, top: float) -> tuple[list[str], float]:
    told = wording.outcomes(sample.kind for sample in run.samples)
    heading, top = _counts(f"{amount(len(run.samples), 'request')}: {told}", top)
    panels, bottom = load_panels.panels(run, scale.x, top, LEFT, RIGHT)
    return [*heading, *load_panels.phases(run, scale.x, top), *panels], bottom


def _counts(words: str, top: float) -> tuple[list[str], float]:
    rows = lines(words, 2)
    return [text(LEFT, top + 12 + LINE * row, line) for row, line in enumerate(rows)], top + 3 + LINE * len(rows)


def _requests(
    scale: _Scale, entries: Sequence[LedgerEntry], happened: Happenings, top: float
) -> tuple[list[str], float]:
    """A bar for each request from when it was sent to its end, with a line for each token; returns where they end."""
    moved = _moved(entries, happened)
    kinds = {entry.number: outcome(entry).kind for entry in entries}
    drawn, y = list[str](), top
    if len(entries) > LABELLED:
        drawn, y = _counts(f"{amount(len(entries), 'request')}: {wording.outcomes(kinds.values())}", top)
    telling = sorted(entries, key=lambda entry: kinds[entry.number] == "complete")[:DRAWN]
    for entry in sorted(telling, key=lambda entry: entry.number):
        colour, sign = OUTCOMES[kinds[entry.number]]
        height = THIN if len(entries) > LABELLED else BAR
        if len(entries) <= LABELLED:
            drawn.append(text(LEFT, y + 12, f"{sign} {_label(entry, kinds[entry.number], moved)}", colour))
            y += LINE - 1
        drawn += _bar(scale, entry, colour, y, height)
        y += height + (2 if height == THIN else 5)
    if len(entries) > DRAWN:
        y += LINE
        drawn.append(text(LEFT, y - 4, f"{DRAWN} of {amount(len(entries), 'request')} are drawn", "soft"))
    return drawn, y


def _label(entry: LedgerEntry, kind: str, moved: Collection[int]) -> str:
    """A request in a few words, without those that its sign stands for alone."""
    end = "" if kind == "complete" else f"{wording.OUTCOMES[kind][0]}, "
    parts = [f"request {entry.number}: {end}{len(entry.tokens)}/{amount(entry.max_tokens, 'token')}"]
    if entry.number in moved:
        parts.append("moved")
    elif entry.cancelled_at is None and entry.longest_pause >= PAUSE_SHOWN:
        parts.append(f"paused {entry.longest_pause:.1f} s")
    return ", ".join(parts)


def _bar(scale: _Scale, entry: LedgerEntry, colour: str, y: float, height: float) -> Iterator[str]:
    left, right = scale.x(entry.sent_at or 0.0), scale.x(_end(entry))
    yield box(left, y, max(0.4, right - left), height, "paper", edge=colour)
    if tokens := _token_path([scale.x(at) * 10 for at in entry.token_times], height):
        yield stretched(y, height, tokens, colour, width=1000 / COLUMNS)


def _token_path(places: Sequence[float], height: float) -> str:
    """A stroke for each column of the picture in which a token came."""
    columns = sorted({round(place / 1000 * COLUMNS) for place in places})
    return "".join(f"M{column * 1000 / COLUMNS:g} 0v{height:g}" for column in columns)


def _moved(entries: Sequence[LedgerEntry], happened: Happenings) -> set[int]:
    """Numbers of the requests that were moved to another worker: those that were in flight when a worker was struck
    and have their whole answer, where the frontends have counted as many moves as there are such requests.
    """
    struck = [each.begin for each in happened.strikes if each.ordered and "worker" in each.node]
    spanning = {
        entry.number
        for entry in entries
        if outcome(entry).kind == "complete" and any((entry.sent_at or 0.0) < at < _end(entry) for at in struck)
    }
    return spanning if happened.migrations == len(spanning) else set()


def _seconds(scale: _Scale, bottom: float) -> Iterator[str]:
    yield level(LEFT, RIGHT, bottom, "ink")
    for second in ticks(scale.end - scale.zero):
        x = scale.x(scale.zero + second)
        yield upright(x, bottom, bottom + 5, "ink")
        yield text(x, bottom + 18, f"{second:g}", anchor="middle")
    yield text(RIGHT, bottom + 33, "seconds since the first request", "soft", anchor="end")


def _states(scale: _Scale, nodes: Sequence[str], events: Sequence[Event], top: float) -> tuple[list[str], float]:
    """A bar for each node under its name, with its state in words where there is room."""
    drawn = []
    for row, node in enumerate(nodes):
        y = top + LANE * row
        drawn.append(text(LEFT, y + 12, node, "soft"))
        changes = [event for event in events if event.kind == "state" and event.subject == node]
        ends = [*(event.at for event in changes[1:]), *([scale.end] if changes else [])]
        for change, until in zip(changes, ends, strict=True):
            colour, word = STATES.get(change.state, STATES["stopped"])
            drawn += _lane(scale, change.at, until, y + 16, colour, word, change.text)
    return drawn, top + LANE * len(nodes)


def _cluster(scale: _Scale, events: Sequence[Event], top: float) -> tuple[list[str], float]:
    """Who leads the etcd cluster over time, and a tick for each lease or registration that goes; nothing where that
    never changes.
    """
    changes = [event for event in events if event.kind == "leader"]
    lost = [event for event in events if event.kind == "lease" and event.data["gone"] and event.at > scale.begin]
    if sum(event.at > scale.begin for event in changes) == 0 and not lost:
        return [], top
    drawn = [text(LEFT, top + 12, "etcd leader; \N{MULTIPLICATION SIGN} where a lease is lost", "soft")]
    for change, until in zip(changes, [*(event.at for event in changes[1:]), scale.end], strict=True):
        name = change.data["leader"]
        drawn += _lane(scale, change.at, until, top + 16, "idle" if name else "paper", name or "nobody", change.text)
    drawn += [text(scale.x(event.at), top + 27, "\N{MULTIPLICATION SIGN}", "fault", anchor="middle") for event in lost]
    return drawn, top + LANE


def _lane(scale: _Scale, since: float, until: float, y: float, colour: str, word: str, told: str) -> Iterator[str]:
    left, right = scale.x(since), scale.x(until)
    if right > left:
        yield box(left, y, right - left, 13, colour, told, edge="soft")
        if fits(word, right - left):
            yield text(left, y + 10.5, word, size=11, shift=4)


def _nodes(folder: Path, events: Sequence[Event]) -> list[str]:
    try:
        topology: dict[str, Any] = json.loads((folder / "topology.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        topology = {}
    named = [node["name"] for node in topology.get("nodes", [])]
    return list(dict.fromkeys(named + [event.subject for event in events if event.kind == "state"]))


def _verdict(folder: Path) -> Verdict | None:
    try:
        return read_verdict(folder / "verdict.json")
    except (OSError, ValueError, TypeError):
        return None


def _end(entry: LedgerEntry) -> float:
    """When the last thing happened to a request."""
    seen = (entry.sent_at, entry.ended_at, entry.cancelled_at, *(chunk.at for chunk in entry.chunks[-1:]))
    return max(at for at in seen if at is not None)
