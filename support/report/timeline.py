"""One picture of a scenario over time: what requests or a load got, faults and their proofs, states of the nodes."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.amounts import amount
from support.events import Event, read_events
from support.judge.samples import LoadHistory
from support.report import load_panels, wording
from support.report.reading import read_load_history, read_verdict
from support.report.svg import box, frame, text, ticks
from support.requests.ledger import LedgerEntry, read_ledger
from support.requests.load_log import find_loads
from support.requests.outcomes import outcome, shorten

OUTCOMES = {
    "complete": ("#1f77b4", "complete"),
    "error": ("#d97a00", "clean error"),
    "cancelled": ("#6b6b6b", "cancelled by us"),
    "broken": ("#c8102e", "broken"),
}
"""Outcome of a request -> its colour and its words."""
STATES = {
    "starting": "#cfe3f3",
    "running": "#8cc38c",
    "leaving": "#c9dd7a",
    "hung": "#f0a830",
    "dead": "#c8102e",
    "stopped": "#bdbdbd",
}
"""State of a node -> its colour."""
LEADERS = ("#9ecae1", "#fdd0a2", "#c7e9c0", "#dadaeb", "#fde0ef", "#d9d9d9", "#ffffb3")
"""Colours of the etcd members while they lead, by the order in which they first do; nobody leads: white."""
LEASES = {False: "#1a7f37", True: "#c8102e"}
"""Whether a lease is gone -> the colour of its tick."""
FAULT = "#d62728"
"""Shade over the time that a fault is on."""
MARKS = {"fault": "#8b0000", "proof": "#1a7f37"}
"""Kind of event that is drawn through all panels -> its colour."""

LABELLED = 6
"""Up to so many requests each get a label of their own; of more only the number per outcome is told."""
WORDED = 8
"""Up to so many faults and proofs are told in words; of more only the first ones."""
LINED = 24
"""Up to so many have a line each."""
PAUSE_SHOWN = 0.25
"""Seconds from which the longest pause between two tokens is marked."""
BEFORE = 0.08
"""Part of the time axis that lies before the first request; what was earlier is the boot."""

WIDTH, LEFT, RIGHT = 1100, 140, 860
"""Pixels: the picture, and where its time axis begins and ends."""
PLOT, LANE, LINE = 260, 22, 18
"""Pixels: height of the panel of requests, of one node, of one line of text."""


@dataclass(frozen=True)
class _Scale:
    """Times and tokens to pixels. Seconds are counted from ``zero``; the axis reaches from ``begin`` to ``end``."""

    zero: float
    begin: float
    end: float
    tokens: int
    top: float

    def x(self, at: float) -> float:
        return LEFT + (max(at, self.begin) - self.begin) / (self.end - self.begin) * (RIGHT - LEFT)

    def y(self, count: float) -> float:
        return self.top + PLOT - count / self.tokens * PLOT


def draw(folder: Path, name: str = "timeline.svg") -> Path | None:
    """Draw a scenario's picture into its folder from what lies there; None when nothing with a time was recorded.

    Of a load the picture shows throughput, latency and errors, of single requests their tokens. Files that are missing
    (a scenario that died early) leave their part of the picture empty.
    """
    run = read_load_history(folder) if find_loads(folder) else None
    if run and not run.samples:
        run = None
    entries = [] if run else [each for each in read_ledger(folder / "ledger.jsonl") if each.sent_at is not None]
    events = read_events(folder / "events.jsonl")
    times = [event.at for event in events] + [at for entry in entries for at in (entry.sent_at or 0.0, _end(entry))]
    times += [run.begin, run.end] if run else []
    if not times:
        return None
    marks = [event for event in events if event.kind in MARKS]
    nodes = _nodes(folder, events)
    cluster = ["etcd leader", "leases"] if any(event.kind == "leader" for event in events) else []
    top = 40 + LINE * max(1, min(len(marks), WORDED)) + 10
    most = max([len(entry.tokens) for entry in entries] + [1])
    zero = run.begin if run else min([entry.sent_at or 0.0 for entry in entries] or times)
    begin = max(min(times), zero - BEFORE * (max(times) - zero))
    scale = _Scale(zero, begin, max(*times, begin + 0.001), round(most * 1.08) + 1, top)
    plot = load_panels.HEIGHT if run else PLOT
    lanes = top + plot + 16
    bottom = lanes + LANE * (len(nodes) + len(cluster))
    shades = list(_faults(scale, events, plot))
    parts = [
        text(8, 22, _title(folder), size=15, weight="bold"),
        *_seconds(scale, bottom),
        *(_load(scale, run, shades) if run else (*shades, *_curves(scale, entries))),
        *_states(scale, nodes, events, lanes, bottom),
        *(_cluster(scale, cluster, events, lanes + LANE * len(nodes), bottom) if cluster else ()),
        *_marks(scale, marks, bottom),
    ]
    picture = folder / name
    picture.write_text(frame(WIDTH, bottom + 64, parts), encoding="utf-8")
    return picture


def _load(scale: _Scale, run: LoadHistory, shades: Sequence[str]) -> Iterator[str]:
    yield from load_panels.phases(run, scale.x, scale.top)
    yield from shades
    yield from load_panels.panels(run, scale.x, scale.top, LEFT, RIGHT)
    counts = Counter(sample.kind for sample in run.samples)
    told = ", ".join(f"{number} {kind}" for kind, number in counts.most_common())
    if len(counts) < 3:
        told = f"{amount(len(run.samples), 'request')}: {told}"
    yield text(RIGHT + 12, scale.top + 13, told, size=11)


def _faults(scale: _Scale, events: Sequence[Event], height: float) -> Iterator[str]:
    """A shade from the begin of each fault to its end, or to the end of the picture."""
    found: dict[str, list[Event]] = {}
    for event in events:
        if event.kind in MARKS and "fault" in event.data:
            found.setdefault(event.data["fault"], []).append(event)
    for first, *rest in found.values():
        # Its injection, its proof, and then whatever tells that it is over.
        seen = rest[-1].at if len(rest) > 1 else scale.end
        over = min(seen, first.data.get("until", seen))
        left = scale.x(first.at)
        yield box(left, scale.top, max(1.0, scale.x(over) - left), height, FAULT, first.text, opacity=0.16)


def _curves(scale: _Scale, entries: Sequence[LedgerEntry]) -> Iterator[str]:
    for count in ticks(scale.tokens):
        y = scale.y(count)
        yield f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>'
        yield text(LEFT - 8, y + 4, f"{count:g}", anchor="end")
    yield text(LEFT - 8, scale.top - 4, "tokens received", anchor="end")
    yield from _pause(scale, entries)
    yield from _requests(scale, entries)


def _requests(scale: _Scale, entries: Sequence[LedgerEntry]) -> Iterator[str]:
    ends = [(entry, *OUTCOMES[outcome(entry).kind]) for entry in entries]
    for entry, colour, _ in ends:
        steps = [(entry.sent_at or 0.0, 0), *((at, n) for n, at in enumerate(entry.token_times, 1))]
        steps.append((_end(entry), steps[-1][1]))
        points = [(scale.x(at), scale.y(count)) for at, count in steps]
        yield f'<path d="{_path(points)}" fill="none" stroke="{colour}" stroke-width="1.8" opacity="0.9"/>'
        yield f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="4" fill="{colour}"/>'
    if len(entries) <= LABELLED:
        yield from _labels(scale, ends)
    else:
        counts = Counter((colour, words) for _, colour, words in ends)
        yield text(RIGHT + 12, scale.top + 14, amount(len(entries), "request"))
        for row, ((colour, words), number) in enumerate(counts.most_common(), 1):
            yield text(RIGHT + 12, scale.top + 14 + LINE * row, f"{number} {words}", colour)


def _labels(scale: _Scale, ends: Sequence[tuple[LedgerEntry, str, str]]) -> Iterator[str]:
    """A label to the right of each curve's end, moved down where it would cover another."""
    free = scale.top + 4.0
    for entry, colour, words in sorted(ends, key=lambda end: -len(end[0].tokens)):
        at = max(scale.y(len(entry.tokens)) + 4, free)
        free = at + LINE - 2
        yield text(
            RIGHT + 12, at, f"request {entry.number}: {words}, {len(entry.tokens)} of {entry.max_tokens}", colour
        )


def _pause(scale: _Scale, entries: Sequence[LedgerEntry]) -> Iterator[str]:
    paused = max(entries, key=lambda entry: entry.longest_pause, default=None)
    if paused is None or not paused.pause or paused.longest_pause < PAUSE_SHOWN:
        return
    before, after = paused.pause
    left, right = scale.x(before), scale.x(after)
    yield box(left, scale.top, right - left, PLOT, "#fff0bf")
    words = f"pause {after - before:.2f} s in request {paused.number}"
    yield text((left + right) / 2, scale.top + PLOT - 6, words, anchor="middle")


def _seconds(scale: _Scale, bottom: float) -> Iterator[str]:
    for second in ticks(scale.end - scale.zero):
        x = scale.x(scale.zero + second)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}" stroke="#222"/>'
        yield text(x, bottom + 19, f"{second:g}", anchor="middle")
    yield f'<line x1="{LEFT}" x2="{RIGHT}" y1="{bottom}" y2="{bottom}" stroke="#222"/>'
    yield text(RIGHT + 12, bottom + 19, "seconds since the first request")


def _states(scale: _Scale, nodes: Sequence[str], events: Sequence[Event], top: float, bottom: float) -> Iterator[str]:
    for row, node in enumerate(nodes):
        yield text(LEFT - 8, top + LANE * row + 14, node, anchor="end")
        changes = [event for event in events if event.kind == "state" and event.subject == node]
        ends = [*(event.at for event in changes[1:]), *([scale.end] if changes else [])]
        for change, until in zip(changes, ends, strict=True):
            colour = STATES.get(change.state, STATES["stopped"])
            left = scale.x(change.at)
            yield box(left, top + LANE * row + 2, scale.x(until) - left, LANE - 5, colour, change.text)
    y = bottom + 34
    for column, (state, colour) in enumerate(STATES.items()):
        yield box(LEFT + 90 * column, y, 12, 12, colour)
        yield text(LEFT + 90 * column + 17, y + 11, state)


def _cluster(scale: _Scale, lanes: Sequence[str], events: Sequence[Event], top: float, bottom: float) -> Iterator[str]:
    """Who leads the etcd cluster over time, and a tick for each lease or registration that comes or goes."""
    for row, lane in enumerate(lanes):
        yield text(LEFT - 8, top + LANE * row + 14, lane, anchor="end")
    changes = [event for event in events if event.kind == "leader"]
    names = list(dict.fromkeys(event.data["leader"] for event in changes if event.data["leader"]))
    for change, until in zip(changes, [*(event.at for event in changes[1:]), scale.end], strict=True):
        name, left = change.data["leader"], scale.x(change.at)
        colour = LEADERS[names.index(name) % len(LEADERS)] if name else "#ffffff"
        yield box(left, top + 2, scale.x(until) - left, LANE - 5, colour, change.text)
        if scale.x(until) - left > 40:
            yield text(left + 4, top + 14, name or "none", size=11)
    for event in events:
        if event.kind == "lease":
            yield box(scale.x(event.at), top + LANE + 2, 2, LANE - 5, LEASES[event.data["gone"]], event.text)
    for column, (gone, words) in enumerate(((False, "lease or registration comes"), (True, "goes"))):
        left = LEFT + 90 * len(STATES) + 190 * column
        yield box(left, bottom + 34, 3, 12, LEASES[gone])
        yield text(left + 8, bottom + 45, words)


def _marks(scale: _Scale, marks: Sequence[Event], bottom: float) -> Iterator[str]:
    """A line for each fault and proof through all panels, its words above them; where they are many, their shades tell
    more than lines.
    """
    if not marks:
        yield text(LEFT, 40 + LINE - 4, "no fault was injected", "#6b6b6b")
    for row, mark in enumerate(marks[:WORDED] if len(marks) > LINED else marks):
        colour, x, y = MARKS[mark.kind], scale.x(mark.at), 40 + LINE * min(row, WORDED - 1)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{bottom}" stroke="{colour}" stroke-dasharray="4 3"/>'
    for row, mark in enumerate(marks[:WORDED]):
        colour, x, y = MARKS[mark.kind], scale.x(mark.at), 40 + LINE * row
        yield f'<circle cx="{x:.1f}" cy="{y + 5}" r="4" fill="{colour}"/>'
        words = f"{mark.kind} at {mark.at - scale.zero:.2f} s: {shorten(mark.text, 90)}"
        if row == WORDED - 1 and len(marks) > WORDED:
            words = f"and {len(marks) - row} more until {marks[-1].at - scale.zero:.2f} s"
        late = x > (LEFT + RIGHT) / 2
        yield text(x - 9 if late else x + 9, y + 9, words, colour, anchor="end" if late else "start")


def _nodes(folder: Path, events: Sequence[Event]) -> list[str]:
    try:
        topology: dict[str, Any] = json.loads((folder / "topology.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        topology = {}
    named = [node["name"] for node in topology.get("nodes", [])]
    return list(dict.fromkeys(named + [event.subject for event in events if event.kind == "state"]))


def _title(folder: Path) -> str:
    try:
        verdict = read_verdict(folder / "verdict.json")
    except (OSError, ValueError, TypeError):
        return folder.name
    return f"{shorten(verdict.name, 110)}: {wording.MARKS[verdict.verdict]}"


def _end(entry: LedgerEntry) -> float:
    """When the last thing happened to a request."""
    seen = (entry.sent_at, entry.ended_at, entry.cancelled_at, *(chunk.at for chunk in entry.chunks[-1:]))
    return max(at for at in seen if at is not None)


def _path(points: Sequence[tuple[float, float]]) -> str:
    """A staircase as an SVG path: a curve stands still until the next token, or a pause would look like a slow stream.

    Of the points in one column of pixels only the last is drawn: the others lie on the line that leads up to it.
    """
    first, columns = points[0], {int(x): (x, y) for x, y in points}
    steps, height = [f"M{first[0]:.1f} {first[1]:.1f}"], f"{first[1]:.1f}"
    for x, y in columns.values():
        steps.append(f"H{x:.1f}")
        if f"{y:.1f}" != height:
            height = f"{y:.1f}"
            steps.append(f"V{height}")
    return "".join(steps)
