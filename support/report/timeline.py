"""One picture of a scenario: tokens of each request over time, faults and their proofs, states of the nodes.

Matplotlib costs 1.5 CPU-seconds to import, so this module is imported only when a run is published.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from support.events import Event, read_events
from support.judge.outcomes import outcome, shorten
from support.judge.verdict import read_verdict
from support.report import wording
from support.requests.ledger import LedgerEntry, read_ledger

OUTCOME_COLOURS = {"complete": "#1f77b4", "error": "#e08a00", "cancelled": "#7a7a7a", "broken": "#c8102e"}
OUTCOME_WORDS = {"complete": "complete", "error": "clean error", "cancelled": "cancelled by us", "broken": "broken"}
STATE_COLOURS = {
    "starting": "#cfe3f3",
    "running": "#8cc38c",
    "hung": "#f0a830",
    "dead": "#c8102e",
    "stopped": "#bdbdbd",
}
FAULT, PROOF, INK = "#8b0000", "#1a7f37", "#222222"
LABELLED = 6
"""Up to so many requests each get their own label; of more only the number per outcome is told."""
PAUSE_SHOWN = 0.25
"""Seconds from which the longest pause between two tokens is marked."""


def draw(folder: Path) -> Path | None:
    """Draw ``timeline.png`` into a scenario's folder from what lies there; None when nothing with a time was recorded.

    Files that are missing (a scenario that died early) leave their part of the picture empty.
    """
    entries, events = read_ledger(folder / "ledger.jsonl"), read_events(folder / "events.jsonl")
    sent = [entry for entry in entries if entry.sent_at is not None]
    times = [event.at for event in events] + [at for entry in sent for at in _span(entry)]
    if not times:
        return None
    zero, end = min(times), max(times)
    nodes = _nodes(folder, events)
    marks = [event for event in events if event.kind in ("fault", "proof")]
    heights = [0.24 * max(1, len(marks)) + 0.1, 3.0, 0.26 * max(1, len(nodes)) + 0.2]
    figure = Figure(figsize=(11, sum(heights) + 1.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    told, requests, states = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    figure.suptitle(_title(folder), x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    _draw_requests(requests, sent, zero, end)
    _draw_states(states, nodes, events, zero, end)
    _draw_marks([told, requests, states], marks, zero, end)
    states.set_xlim(-0.01 * (end - zero), (end - zero) * (1.22 if len(sent) <= LABELLED else 1.02) or 1.0)
    states.set_xlabel("seconds since the deployment was asked for", fontsize=9)
    picture = folder / "timeline.png"
    figure.savefig(picture)
    return picture


def _span(entry: LedgerEntry) -> list[float]:
    ends = [chunk.at for chunk in entry.chunks[-1:]] + [at for at in (entry.ended_at, entry.cancelled_at) if at]
    return [at for at in (entry.sent_at,) if at is not None] + ends


def _title(folder: Path) -> str:
    try:
        verdict = read_verdict(folder / "verdict.json")
    except (OSError, ValueError, TypeError):
        return folder.name
    return f"{shorten(verdict.name, 100)}: {wording.MARKS[verdict.verdict]}"


def _nodes(folder: Path, events: Sequence[Event]) -> list[str]:
    try:
        topology: dict[str, Any] = json.loads((folder / "topology.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        topology = {}
    named = [node["name"] for node in topology.get("nodes", [])]
    return list(dict.fromkeys(named + [event.subject for event in events if event.kind == "state"]))


def _draw_requests(axes: Axes, entries: Sequence[LedgerEntry], zero: float, end: float) -> None:
    kinds = [outcome(entry).kind for entry in entries]
    labels: list[tuple[float, str, str]] = []
    for entry, kind in zip(entries, kinds, strict=True):
        colour = OUTCOME_COLOURS[kind]
        times = [entry.sent_at or zero, *entry.token_times]
        last = max(_span(entry))
        counts = [*range(len(times)), len(times) - 1]
        axes.step([at - zero for at in [*times, last]], counts, where="post", color=colour, linewidth=1.6, alpha=0.9)
        axes.plot([last - zero], counts[-1:], marker="o" if kind == "complete" else "X", color=colour, markersize=6)
        told = f"request {entry.number}: {OUTCOME_WORDS[kind]}, {counts[-1]} of {entry.max_tokens}"
        labels.append((counts[-1], told, colour))
    _mark_pause(axes, entries, zero)
    top = max([count for count, _, _ in labels] + [1])
    axes.set_ylim(0, top * 1.15)
    axes.set_ylabel("tokens received", fontsize=9)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if len(entries) <= LABELLED:
        _label_requests(axes, labels, top * 1.15, end - zero)
    else:
        for kind in OUTCOME_COLOURS:
            if number := kinds.count(kind):
                axes.plot([], [], color=OUTCOME_COLOURS[kind], label=f"{number} {OUTCOME_WORDS[kind]}")
        axes.legend(loc="upper left", fontsize=9, frameon=False, title=f"{len(entries)} requests", alignment="left")


def _label_requests(axes: Axes, labels: list[tuple[float, str, str]], top: float, right: float) -> None:
    """Labels to the right of the curves, moved apart so that they do not cover each other."""
    below = top
    for count, text, colour in sorted(labels, key=lambda label: -label[0]):
        below = min(count, below - top * 0.085)
        axes.text(right * 1.015, below, text, fontsize=8.5, color=colour, va="center")


def _mark_pause(axes: Axes, entries: Sequence[LedgerEntry], zero: float) -> None:
    paused = max(entries, key=lambda entry: entry.longest_pause, default=None)
    if paused is None or paused.longest_pause < PAUSE_SHOWN:
        return
    times = sorted({chunk.at for chunk in paused.chunks if chunk.tokens})
    before, after = max(pairwise(times), key=lambda pair: pair[1] - pair[0])
    axes.axvspan(before - zero, after - zero, color="#ffe9a8", alpha=0.6, linewidth=0)
    text = f"pause {after - before:.2f} s"
    axes.annotate(text, ((before + after) / 2 - zero, 0), (0, 4), textcoords="offset points", ha="center", fontsize=8.5)


def _draw_states(axes: Axes, nodes: Sequence[str], events: Sequence[Event], zero: float, end: float) -> None:
    used = []
    for row, node in enumerate(nodes):
        changes = [event for event in events if event.kind == "state" and event.subject == node]
        for change, until in zip(changes, [event.at for event in changes[1:]] + [end], strict=True):
            state = next((name for name in STATE_COLOURS if change.text.startswith(name)), "stopped")
            used.append(state)
            axes.barh(row, until - change.at, left=change.at - zero, height=0.7, color=STATE_COLOURS[state])
    for state in dict.fromkeys(used):
        axes.bar(0, 0, color=STATE_COLOURS[state], label=state)
    if used:
        axes.legend(
            loc="upper left", bbox_to_anchor=(0, -0.5 / max(1, len(nodes))), ncols=5, fontsize=8.5, frameon=False
        )
    axes.set_yticks(range(len(nodes)), nodes, fontsize=9)
    axes.set_ylim(len(nodes) - 0.5, -0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)


def _draw_marks(axes: Sequence[Axes], marks: Sequence[Event], zero: float, end: float) -> None:
    """A line for each fault and proof through all panels, its text in the uppermost one."""
    told, *below = axes
    told.set_axis_off()
    told.set_ylim(len(marks) + 0.2, -0.5)
    if not marks:
        told.text(0, 0, "no fault was injected", fontsize=9, color="#7a7a7a", va="center")
    middle = zero + (end - zero) / 2
    for row, mark in enumerate(marks):
        colour = FAULT if mark.kind == "fault" else PROOF
        at = mark.at - zero
        text = f"{mark.kind} at {at:.2f} s: {shorten(mark.text, 90)}"
        side, align = (-6, "right") if mark.at > middle else (6, "left")
        told.plot([at, at], [row, len(marks) + 0.2], color=colour, linewidth=0.8, linestyle="--", clip_on=False)
        told.annotate(
            text, (at, row), (side, 0), textcoords="offset points", ha=align, va="center", fontsize=9, color=colour
        )
        told.plot([at], [row], marker="v" if mark.kind == "fault" else "P", color=colour, markersize=6, clip_on=False)
        for panel in below:
            panel.axvline(at, color=colour, linewidth=0.8, linestyle="--")
