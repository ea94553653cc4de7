"""The part of a timeline that shows a load: throughput, latency and errors over time, over the phases of the run."""

import math
from collections.abc import Callable, Iterator, Sequence

from support.judge.figures import Window, windows
from support.judge.recovery import recovery
from support.judge.samples import LoadHistory
from support.report.svg import box, text

PHASE_COLOURS = {"STANDARD": "#eef6ee", "OVERFLOW": "#fdf1e4", "RECOVERY": "#eef2fb"}
FIRST = "p99 time to first token, ms"
PANELS: tuple[tuple[str, str, Callable[[Window], float | None]], ...] = (
    ("tokens per second", "#1f77b4", lambda window: window.tokens),
    (FIRST, "#7a4fb5", lambda window: _milliseconds(window.p99_first)),
    ("p99 latency, ms", "#b35c00", lambda window: _milliseconds(window.p99_latency)),
    ("requests without an answer", "#c8102e", lambda window: window.failed),
)
"""What a panel shows, its colour, and its value in a window."""
PANEL, GAP, HEAD = 84, 16, 18
"""Pixels: height of a panel, the room between two, the room for the names of the phases."""
HEIGHT = HEAD + len(PANELS) * (PANEL + GAP)


def phases(run: LoadHistory, x: Callable[[float], float], top: float) -> Iterator[str]:
    """A band for each phase, ``HEIGHT`` pixels high; a name where there is room for it."""
    for phase, (since, until) in run.spans().items():
        width = x(until) - x(since)
        yield box(x(since), top, width, HEIGHT, PHASE_COLOURS[phase], phase)
        if width > 8 * len(phase):
            yield text(x(since) + 4, top + 13, phase)


def panels(run: LoadHistory, x: Callable[[float], float], top: float, left: float, right: float) -> Iterator[str]:
    """The curves. ``x`` gives the pixels of a time; the panels reach from ``left`` to ``right``."""
    slices = windows(run.samples, run.begin, run.end)
    band = recovery(run)["band"]
    for row, (name, colour, value) in enumerate(PANELS):
        bottom = top + HEAD + row * (PANEL + GAP) + PANEL
        points = [(x(window.begin + 0.5), value(window)) for window in slices]
        line = (band["p99_ms"], f"STANDARD band {band['p99_ms']:.0f} ms") if band and name == FIRST else None
        yield from _panel(bottom, colour, points, left, right, line)
        yield text(right + 12, bottom - PANEL / 2, name, colour)


def _panel(
    bottom: float,
    colour: str,
    points: Sequence[tuple[float, float | None]],
    left: float,
    right: float,
    bound: tuple[float, str] | None,
) -> Iterator[str]:
    """A curve, and a dashed line at a bound with its words."""
    most = max((value for value in (*(value for _, value in points), bound and bound[0]) if value), default=1.0)
    yield text(left - 8, bottom - PANEL + 10, f"{most:.0f}", anchor="end")
    yield text(left - 8, bottom, "0", anchor="end")
    yield f'<line x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="#999"/>'
    if bound:
        y = bottom - bound[0] / most * (PANEL - 6)
        yield f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#1a7f37" stroke-dasharray="4 3"/>'
        yield text(left + 4, y - 3, bound[1], "#1a7f37")
    # A window without a value interrupts the line: nothing was measured there, or somebody was never answered.
    runs: list[list[str]] = [[]]
    for at, value in points:
        if value is None:
            runs.append([])
        else:
            runs[-1].append(f"{at:.1f},{bottom - value / most * (PANEL - 6):.1f}")
    for line in runs:
        if len(line) == 1:
            at_x, _, at_y = line[0].partition(",")
            yield f'<circle cx="{at_x}" cy="{at_y}" r="2.5" fill="{colour}"/>'
        elif line:
            yield f'<polyline points="{" ".join(line)}" fill="none" stroke="{colour}" stroke-width="1.8"/>'


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else seconds * 1000
