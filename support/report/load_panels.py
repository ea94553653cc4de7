"""The part of a timeline that shows a load: throughput, latency and errors over time, over the phases of the run."""

import math
from collections.abc import Callable, Iterator, Sequence

from support.judge.figures import Window, windows
from support.judge.recovery import recovery
from support.judge.samples import LoadHistory
from support.report.moments import PHASES
from support.report.svg import fits, level, stretched, text

FIRST = "first token p99"
PANELS: tuple[tuple[str, str, str, Callable[[Window], float | None]], ...] = (
    ("tokens per second", "", "good", lambda window: window.tokens),
    (FIRST, " ms", "first", lambda window: _milliseconds(window.p99_first)),
    ("whole answer p99", " ms", "warn", lambda window: _milliseconds(window.p99_latency)),
    ("requests without an answer", "", "fault", lambda window: window.failed),
)
"""What a panel shows, its unit, its colour, and its value in a window."""
PANEL, NAME, HEAD = 58, 18, 20
"""Pixels: height of a panel, the line with its name, the room for the names of the phases."""


def phases(run: LoadHistory, x: Callable[[float], float], top: float) -> Iterator[str]:
    """A bracket with a name for each phase where it has room for it; its begin is marked in any case."""
    for phase, (since, until) in run.spans().items():
        yield level(x(since) + 0.2, x(until) - 0.2, top + HEAD - 3, "soft")
        if fits(PHASES[phase], x(until) - x(since)):
            yield text(x(since), top + HEAD - 7, PHASES[phase], "soft", size=11, shift=4)


def panels(
    run: LoadHistory, x: Callable[[float], float], top: float, left: float, right: float
) -> tuple[list[str], float]:
    """The curves, and where they end.

    Args:
        x: percent of the width for a time.
        left, right: from where to where the panels reach, in percent of the width.
    """
    slices = windows(run.samples, run.begin, run.end)
    band, drawn = recovery(run)["band"], list[str]()
    for row, (name, unit, colour, value) in enumerate(PANELS):
        base = top + HEAD + (row + 1) * (PANEL + NAME)
        points = [(x(window.begin + 0.5), value(window)) for window in slices]
        bound = band["p99_ms"] if band and name == FIRST else None
        drawn += _panel(base, (name, unit), colour, points, (left, right), bound)
    return drawn, top + HEAD + len(PANELS) * (PANEL + NAME)


def _panel(
    base: float,
    named: tuple[str, str],
    colour: str,
    points: Sequence[tuple[float, float | None]],
    sides: tuple[float, float],
    bound: float | None,
) -> Iterator[str]:
    """A curve under its name and its greatest value, and a dashed line at a bound."""
    most = max((value for value in (*(value for _, value in points), bound) if value), default=1.0)
    (name, unit), told = named, f", dashed {bound:.0f}" if bound else ""
    yield text(sides[0], base - PANEL - 4, f"{name}: up to {most:.0f}{unit}{told}", colour)
    yield level(*sides, base, "grid")
    if bound:
        yield level(*sides, base - bound / most * (PANEL - 4), colour, dashed=True)
    # A window without a value interrupts the line: nothing was measured there, or somebody was never answered.
    path, resting = [], True
    for at, value in points:
        if value is not None:
            y = PANEL - value / most * (PANEL - 4)
            path.append(f"{'M' if resting else 'L'}{at * 10:.1f} {y:.1f}" + ("h2" if resting else ""))
        resting = value is None
    if path:
        yield stretched(base - PANEL, PANEL, "".join(path), colour)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else seconds * 1000
