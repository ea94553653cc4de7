"""What a run looks like on a terminal while it goes on: failures on top, below them what runs right now.

Lines that are printed meanwhile go above it, as on any console; it is gone with the run.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from support import activity
from support.events import Event
from support.judge.verdict import BAD, Verdict
from support.report.wording import MARKS, headline
from support.run.schedule import Cost
from support.run.selection import Selected

REFRESH_SECONDS = 0.5
LEAST_SECONDS = 15.0
"""Before that nobody knows how fast a run is."""
MOST_FAILURES = 5
STYLES = {"passed": "green", "failed": "bold red", "mistake": "bold blue", "inconclusive": "bold yellow"}
STYLES |= {"known_defect": "magenta"}


@dataclass(frozen=True)
class Doing:
    """A scenario that runs: since when, on the clock of :func:`time.monotonic`, and its folder."""

    scenario: Selected
    began: float
    folder: Path


def seconds_left(
    running: Sequence[Doing],
    waiting: Sequence[Selected],
    verdicts: Sequence[Verdict],
    costs: Mapping[str, Cost],
    elapsed: float,
    now: float,
) -> float | None:
    """How much longer a run may take, from what scenarios took before and how many are done side by side; None while
    there is too little to tell from.

    Args:
        verdicts: of the scenarios that have ended.
        costs: key of a scenario -> what it took in an earlier run, or in this one.
        elapsed: seconds since the run began.
    """
    known = [costs[each.key].seconds for each in waiting if each.key in costs] or [v.seconds for v in verdicts]
    if elapsed < LEAST_SECONDS or not known:
        return None
    usual = sum(known) / len(known)

    def whole(scenario: Selected) -> float:
        return costs[scenario.key].seconds if scenario.key in costs else usual

    rest = [max(0.0, whole(each.scenario) - (now - each.began)) for each in running]
    coming = [whole(each) for each in waiting]
    done = sum(verdict.seconds for verdict in verdicts) + sum(now - each.began for each in running)
    return max([(sum(rest) + sum(coming)) / max(1.0, done / elapsed), *rest, *coming])


class FaultsOn:
    """The faults that are on in a scenario, by what it has written down; reads each line of its events once."""

    def __init__(self, folder: Path) -> None:
        self._file, self._read = folder / "events.jsonl", 0
        self._on: dict[str, Event] = {}

    def at(self, now: float) -> list[str]:
        """Each in words."""
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._read)
                whole = stream.read().rpartition(b"\n")[0]
        except FileNotFoundError:
            return []
        self._read += len(whole) + bool(whole)
        for line in whole.splitlines():
            if b'"kind": "fault"' in line:
                self._note(Event(**json.loads(line)))
        ends = {number: event.data.get("until") for number, event in self._on.items()}
        return [self._on[number].text for number, end in ends.items() if end is None or now < end]

    def _note(self, event: Event) -> None:
        number = event.data.get("fault", "")
        if number in self._on:  # the second that is told of a fault is its end
            del self._on[number]
        elif number:
            self._on[number] = event


class View:
    """Shows nothing: for a run whose console is a file or a pipe, which get a line per scenario.

    Attributes:
        period: how often it is shown what happens, in seconds.
    """

    period: float = 1.0

    def __enter__(self) -> "View":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The run is over."""

    def show(self, running: Sequence[Doing], waiting: Sequence[Selected], verdicts: Sequence[Verdict]) -> None:
        """What there is to see now.

        Args:
            waiting: those that have not begun.
            verdicts: those that there are, oldest first.
        """


class LiveView(View):
    """The same on a terminal.

    Args:
        title: what is tested, such as ``Dynamo 1.6.1 on target local``.
        costs: key of a scenario -> what it took; may grow meanwhile.
    """

    period = REFRESH_SECONDS

    def __init__(self, console: Console, title: str, costs: Mapping[str, Cost]) -> None:
        self._console, self._title, self._costs = console, title, costs
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._began = time.monotonic()
        self._shown_at = float("-inf")
        self._faults: dict[Path, FaultsOn] = {}

    def __enter__(self) -> "View":
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, running: Sequence[Doing], waiting: Sequence[Selected], verdicts: Sequence[Verdict]) -> None:
        """See :class:`View`; more often than every :data:`REFRESH_SECONDS` it changes nothing."""
        now = time.monotonic()
        if now >= self._shown_at + REFRESH_SECONDS:
            self._shown_at = now
            self._live.update(self.picture(running, waiting, verdicts, now), refresh=True)

    def picture(
        self, running: Sequence[Doing], waiting: Sequence[Selected], verdicts: Sequence[Verdict], now: float
    ) -> RenderableType:
        """What is shown at a time."""
        bad = [verdict for verdict in verdicts if verdict.verdict in BAD]
        left = seconds_left(running, waiting, verdicts, self._costs, now - self._began, now)
        rows = Table.grid(padding=(0, 1), expand=True)
        rows.add_column(justify="right", no_wrap=True)
        rows.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        for each in sorted(running, key=lambda each: each.began):
            title = Text(each.scenario.name).append(f"  {each.scenario.location}", style="dim")
            rows.add_row(_clock(now - each.began), title)
            rows.add_row("", Text(self._doing(each, now), style="dim"))
        return Group(
            Text("─" * self._console.width, style="dim"),
            *(self._failure(verdict) for verdict in bad[-MOST_FAILURES:]),
            self._head(running, waiting, verdicts, now - self._began, left),
            rows,
        )

    def _head(
        self,
        running: Sequence[Doing],
        waiting: Sequence[Selected],
        verdicts: Sequence[Verdict],
        elapsed: float,
        left: float | None,
    ) -> Text:
        counts = Counter(verdict.verdict for verdict in verdicts)
        total = len(verdicts) + len(running) + len(waiting)
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"{self._title}  ", style="bold")
        text.append(f"{len(verdicts)} of {total} done, {len(running)} running")
        for name, count in counts.items():
            text.append(f"  {count} {MARKS[name]}", style=STYLES.get(name, ""))
        text.append(f"  {_clock(elapsed)}")
        if left is not None:
            text.append(f", about {_clock(left)} left")
        return text

    @staticmethod
    def _failure(verdict: Verdict) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(MARKS[verdict.verdict], style=STYLES[verdict.verdict])
        return text.append(f" {verdict.location}  {headline(verdict)}")

    def _doing(self, each: Doing, now: float) -> str:
        told = activity.read(each.folder)
        parts = [told.step or "begins"]
        for awaited in told.awaited[-1:]:
            until = "" if awaited.until is None else f" ({max(0.0, awaited.until - now):.0f} s left)"
            parts.append(f"waits until {awaited.what}{until}")
        faults = self._faults.setdefault(each.folder, FaultsOn(each.folder)).at(now)
        return "  |  ".join([*parts, *_first(faults, 2)])


def _first(faults: Iterable[str], count: int) -> list[str]:
    told = list(faults)
    return [f"on: {each}" for each in told[:count]] + [f"and {len(told) - count} more"] * (len(told) > count)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
