"""One picture of a scenario: tokens of each request over time, faults and their proofs, states of the nodes.

Written as SVG by hand: a run has dozens of these, and a plotting library took a second of CPU time for every four.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from support.events import Event, read_events
from support.judge.outcomes import outcome, shorten
from support.judge.verdict import read_verdict
from support.report import wording
from support.requests.ledger import LedgerEntry, read_ledger

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
    "hung": "#f0a830",
    "dead": "#c8102e",
    "stopped": "#bdbdbd",
}
"""State of a node -> its colour."""
MARKS = {"fault": "#8b0000", "proof": "#1a7f37"}
"""Kind of event that is drawn through all panels -> its colour."""

LABELLED = 6
"""Up to so many requests each get a label of their own; of more only the number per outcome is told."""
WORDED = 8
"""Up to so many faults and proofs are told in words; of more only the first ones."""
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


def draw(folder: Path) -> Path | None:
    """Draw ``timeline.svg`` into a scenario's folder from what lies there; None when nothing with a time was recorded.

    Files that are missing (a scenario that died early) leave their part of the picture empty.
    """
    entries = [entry for entry in read_ledger(folder / "ledger.jsonl") if entry.sent_at is not None]
    events = read_events(folder / "events.jsonl")
    times = [event.at for event in events] + [at for entry in entries for at in (entry.sent_at or 0.0, _end(entry))]
    if not times:
        return None
    marks = [event for event in events if event.kind in MARKS]
    nodes = _nodes(folder, events)
    top = 40 + LINE * max(1, min(len(marks), WORDED)) + 10
    most = max([len(entry.tokens) for entry in entries] + [1])
    zero = min([entry.sent_at or 0.0 for entry in entries] or times)
    begin = max(min(times), zero - BEFORE * (max(times) - zero))
    scale = _Scale(zero, begin, max(*times, begin + 0.001), round(most * 1.08) + 1, top)
    lanes = top + PLOT + 16
    bottom = lanes + LANE * len(nodes)
    parts = [
        _text(8, 22, _title(folder), size=15, weight="bold"),
        *_grid(scale, bottom),
        *_pause(scale, entries),
        *_requests(scale, entries),
        *_states(scale, nodes, events, lanes),
        *_marks(scale, marks, bottom),
    ]
    height = bottom + 64
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    style = ' font-family="Helvetica, Arial, sans-serif"><rect width="100%" height="100%" fill="white"/>'
    picture = folder / "timeline.svg"
    picture.write_text(f"{head}{style}\n{chr(10).join(parts)}\n</svg>\n", encoding="utf-8")
    return picture


def _requests(scale: _Scale, entries: Sequence[LedgerEntry]) -> Iterator[str]:
    ends = [(entry, *OUTCOMES[outcome(entry).kind]) for entry in entries]
    for entry, colour, _ in ends:
        steps = [(entry.sent_at or 0.0, 0), *((at, n) for n, at in enumerate(entry.token_times, 1))]
        steps.append((_end(entry), steps[-1][1]))
        points = [(scale.x(at), scale.y(count)) for at, count in steps]
        yield f'<polyline points="{_path(points)}" fill="none" stroke="{colour}" stroke-width="1.8" opacity="0.9"/>'
        yield f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="4" fill="{colour}"/>'
    if len(entries) <= LABELLED:
        yield from _labels(scale, ends)
    else:
        counts = Counter((colour, words) for _, colour, words in ends)
        yield _text(RIGHT + 12, scale.top + 14, f"{len(entries)} requests")
        for row, ((colour, words), number) in enumerate(counts.most_common(), 1):
            yield _text(RIGHT + 12, scale.top + 14 + LINE * row, f"{number} {words}", colour)


def _labels(scale: _Scale, ends: Sequence[tuple[LedgerEntry, str, str]]) -> Iterator[str]:
    """A label to the right of each curve's end, moved down where it would cover another."""
    free = scale.top + 4.0
    for entry, colour, words in sorted(ends, key=lambda end: -len(end[0].tokens)):
        at = max(scale.y(len(entry.tokens)) + 4, free)
        free = at + LINE - 2
        yield _text(
            RIGHT + 12, at, f"request {entry.number}: {words}, {len(entry.tokens)} of {entry.max_tokens}", colour
        )


def _pause(scale: _Scale, entries: Sequence[LedgerEntry]) -> Iterator[str]:
    paused = max(entries, key=lambda entry: entry.longest_pause, default=None)
    if paused is None or paused.longest_pause < PAUSE_SHOWN:
        return
    times = sorted({chunk.at for chunk in paused.chunks if chunk.tokens})
    before, after = max(pairwise(times), key=lambda pair: pair[1] - pair[0])
    left, right = scale.x(before), scale.x(after)
    yield _box(left, scale.top, right - left, PLOT, "#fff0bf")
    text = f"pause {after - before:.2f} s in request {paused.number}"
    yield _text((left + right) / 2, scale.top + PLOT - 6, text, anchor="middle")


def _grid(scale: _Scale, bottom: float) -> Iterator[str]:
    for count in _ticks(scale.tokens):
        y = scale.y(count)
        yield f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>'
        yield _text(LEFT - 8, y + 4, f"{count:g}", anchor="end")
    yield _text(LEFT - 8, scale.top - 4, "tokens received", anchor="end")
    for second in _ticks(scale.end - scale.zero):
        x = scale.x(scale.zero + second)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}" stroke="#222"/>'
        yield _text(x, bottom + 19, f"{second:g}", anchor="middle")
    yield f'<line x1="{LEFT}" x2="{RIGHT}" y1="{bottom}" y2="{bottom}" stroke="#222"/>'
    yield _text(RIGHT + 12, bottom + 19, "seconds since the first request")


def _states(scale: _Scale, nodes: Sequence[str], events: Sequence[Event], top: float) -> Iterator[str]:
    for row, node in enumerate(nodes):
        yield _text(LEFT - 8, top + LANE * row + 14, node, anchor="end")
        changes = [event for event in events if event.kind == "state" and event.subject == node]
        ends = [*(event.at for event in changes[1:]), scale.end]
        for change, until in zip(changes, ends, strict=True):
            colour = next(
                (colour for state, colour in STATES.items() if change.text.startswith(state)), STATES["stopped"]
            )
            left = scale.x(change.at)
            yield _box(left, top + LANE * row + 2, scale.x(until) - left, LANE - 5, colour, change.text)
    y = top + LANE * len(nodes) + 34
    for column, (state, colour) in enumerate(STATES.items()):
        yield _box(LEFT + 90 * column, y, 12, 12, colour)
        yield _text(LEFT + 90 * column + 17, y + 11, state)


def _marks(scale: _Scale, marks: Sequence[Event], bottom: float) -> Iterator[str]:
    """A line for each fault and proof through all panels, its words above them."""
    if not marks:
        yield _text(LEFT, 40 + LINE - 4, "no fault was injected", "#6b6b6b")
    for row, mark in enumerate(marks):
        colour, x, y = MARKS[mark.kind], scale.x(mark.at), 40 + LINE * min(row, WORDED - 1)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{bottom}" stroke="{colour}" stroke-dasharray="4 3"/>'
    for row, mark in enumerate(marks[:WORDED]):
        colour, x, y = MARKS[mark.kind], scale.x(mark.at), 40 + LINE * row
        yield f'<circle cx="{x:.1f}" cy="{y + 5}" r="4" fill="{colour}"/>'
        words = f"{mark.kind} at {mark.at - scale.zero:.2f} s: {shorten(mark.text, 90)}"
        if row == WORDED - 1 and len(marks) > WORDED:
            words = f"and {len(marks) - row} more until {marks[-1].at - scale.zero:.2f} s"
        late = x > (LEFT + RIGHT) / 2
        yield _text(x - 9 if late else x + 9, y + 9, words, colour, anchor="end" if late else "start")


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


def _ticks(end: float) -> list[float]:
    """Round values from 0 to ``end``, some six of them."""
    step = next(size * 10.0**power for power in range(-3, 9) for size in (1, 2, 5) if end / (size * 10.0**power) <= 7)
    return [round(step * number, 3) for number in range(int(end / step) + 1)]


def _path(points: Sequence[tuple[float, float]]) -> str:
    """SVG points, leaving out those that are less than a pixel away from the one before."""
    kept = [points[0]]
    for x, y in points[1:-1]:
        if abs(x - kept[-1][0]) + abs(y - kept[-1][1]) >= 1:
            kept.append((x, y))
    # A curve stands still until the next token: without the corner a pause would look like a slow stream.
    corners = [point for (_, y), (x, _) in pairwise([*kept, points[-1]]) for point in ((x, y),)]
    drawn = [
        kept[0],
        *(point for corner, end in zip(corners, [*kept[1:], points[-1]], strict=True) for point in (corner, end)),
    ]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)


def _text(
    x: float,
    y: float,
    words: str,
    colour: str = "#222222",
    *,
    size: int = 12,
    weight: str = "normal",
    anchor: str = "start",
) -> str:
    style = f'fill="{colour}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
    halo = 'stroke="white" stroke-width="3" paint-order="stroke"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style} {halo}>{escape(words)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str, told: str = "") -> str:
    title = f"<title>{escape(told)}</title>" if told else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height}" fill="{colour}">{title}</rect>'
    )
