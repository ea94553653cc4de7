"""Which scenario begins when: by what it needs of the processors, not by their number alone.

A boot keeps a processor busy for a second or two; what comes then is mostly waiting. So few boot at a time, while many
wait, and those that measure times (``@timed``) begin together once nothing else boots: no boot of another
spoils what they measure.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.report import runs
from support.run.selection import Selected

BOOT_CPU_SECONDS, BOOT_SECONDS = 1.5, 1.5
BOOT = BOOT_CPU_SECONDS / BOOT_SECONDS
"""Processors that a boot takes: a second and a half of CPU for three processes of Dynamo and etcd, in as long a time
(measured; two cores).
"""
CAPACITY = 1.3
"""So much of each processor is given to scenarios: more than there is, for needs are averages that seldom add up."""
TIMED_CAPACITY = 0.6
"""The same while times are measured, which must not be those of a wait for a processor."""
UNKNOWN, UNKNOWN_TIMED, LEAST = 0.2, 0.5, 0.05
"""Processors that a scenario takes after its boot: one that has never run, the same of those that measure times, whose
load is steady, and one that only waits.
"""
TIMED = "timed"


@dataclass(frozen=True)
class Cost:
    """What a scenario took when it ran last; ``cpu_seconds`` is of all its processes."""

    seconds: float
    cpu_seconds: float

    @property
    def need(self) -> float:
        """Processors that it takes after its boot."""
        rest = (self.cpu_seconds - BOOT_CPU_SECONDS) / max(1.0, self.seconds - BOOT_SECONDS)
        return max(LEAST, rest)


class Schedule:
    """The scenarios of a run that have not begun.

    Args:
        scenarios: all of the run.
        costs: key of a scenario -> what it took; one that is not there may take long and begins early.
        jobs: at most this many run at a time.
        processors: how many this run may use.
    """

    def __init__(self, scenarios: Sequence[Selected], costs: Mapping[str, Cost], jobs: int, processors: int) -> None:
        self._costs, self._jobs, self._processors = costs, jobs, processors
        lengthy = sorted(scenarios, key=self._length, reverse=True)
        self._timed = [each for each in lengthy if TIMED in each.tags]
        others = [each for each in lengthy if TIMED not in each.tags]
        half = (len(others) + 1) // 2
        self._longer, self._shorter = others[:half], others[half:]

    @property
    def waiting(self) -> list[Selected]:
        """Those that have not begun."""
        return self._longer + self._shorter + self._timed

    def due(self, running: Iterable[tuple[Selected, bool]]) -> list[Selected]:
        """Those that are to begin now; they count as begun.

        Args:
            running: those that run, and whether the deployment of each serves.
        """
        under_way, chosen = list(running), list[Selected]()
        while len(under_way) < self._jobs and (following := self._next(under_way, bool(chosen))):
            chosen.append(following)
            under_way.append((following, False))
        return chosen

    def _next(self, under_way: Sequence[tuple[Selected, bool]], together: bool) -> Selected | None:
        if any(TIMED in each.tags for each, _ in under_way) and not together:
            return None
        if self._longer or self._shorter:
            taken = sum(self._need(each) if serves else BOOT for each, serves in under_way)
            if under_way and taken + BOOT > CAPACITY * self._processors:
                return None
            # Those that mostly wait leave half of the places to those that are nearly all boot.
            waiters = sum(serves for _, serves in under_way)
            first, then = self._longer, self._shorter
            if waiters >= self._jobs / 2:
                first, then = then, first
            return (first or then).pop(0)
        if self._timed and not (under_way and not self._quiet(under_way)):
            return self._timed.pop(0)
        return None

    def _quiet(self, under_way: Sequence[tuple[Selected, bool]]) -> bool:
        """Whether one more that measures times finds nothing that boots but its like, and processors enough."""
        boots = any(not serves for each, serves in under_way if TIMED not in each.tags)
        taken = sum(self._need(each) for each, _ in under_way) + self._need(self._timed[0])
        return not boots and taken <= TIMED_CAPACITY * self._processors

    def _need(self, scenario: Selected) -> float:
        known = self._costs.get(scenario.key)
        return known.need if known else UNKNOWN_TIMED if TIMED in scenario.tags else UNKNOWN

    def _length(self, scenario: Selected) -> tuple[float, float]:
        known = self._costs.get(scenario.key)
        return (known.seconds if known else float("inf"), scenario.seconds)


def costs_file(reports: Path, target: str) -> Path:
    """The file that keeps what scenarios took on a target."""
    return reports / f"costs-{target}.json"


def usual_costs(target: str) -> dict[str, Cost]:
    """Key of a scenario -> what it takes on two cores, for a machine on which it has not run yet. Renewed by copying
    :func:`costs_file` of a full run here; none are kept of a target but the local one.
    """
    return read_costs(costs_file(Path(__file__).parent, target))


def read_costs(file: Path) -> dict[str, Cost]:
    """Key of a scenario -> what it took last; empty where nothing was written down, or nothing that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {key: Cost(*map(float, cost)) for key, cost in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_costs(file: Path, costs: Mapping[str, Cost]) -> None:
    """Keep what scenarios took, for the next run."""
    runs.write_json(file, {key: [cost.seconds, cost.cpu_seconds] for key, cost in costs.items()})
