"""How a load came back from its disturbance, held against what its own STANDARD phase showed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from support.amounts import amount
from support.judge.figures import WINDOW_SECONDS, Window, windows
from support.judge.history import LEAST_SECONDS, STARVED_SHARE
from support.judge.samples import NEVER, NO_OBJECTIVES, LoadHistory, Objectives, Sample, milliseconds, percentile

STABLE_WINDOWS = 3
LEAST_REQUESTS, LEAST_WINDOWS = 30, 3
"""Of STANDARD, with fewer of which its spread is not known well enough for a band."""
RESOLUTION_MS = 1000 * LEAST_SECONDS
"""What a wait for a processor may take without being noticed: a band is no narrower than what could be excused."""
STEPS = 4
"""Between the median of STANDARD and the bound of its slowest requests, see :class:`Band`."""


@dataclass(frozen=True)
class Band:
    """How long users have nothing in a window of STANDARD, and hence in one that is as good, in milliseconds.

    STANDARD shows the median of its requests and, of its windows, the slowest 90th percentile: a window has some 15
    requests, so its 99th is but the slowest one, a matter of chance. The step from the one to the other is its spread;
    what the client's own clock cannot tell (its lag in STANDARD) is the least that it may be. A window is in the band
    when its median is no more than one step above that of STANDARD and its 90th percentile no more than
    :data:`STEPS`; of all requests one in a hundred, and always one, may be slower than that.

    Of ``n`` times with an exponential tail the upper tenth begins ln(5) of its scales above the median, and the slowest
    of six such windows a third higher, so the step has two scales and the bound eight: one of 110 later requests of the
    same kind is beyond it with a chance of 2 in 100, two of them with one in 5000.

    Attributes:
        requests: of STANDARD; ``goodput_rate``: percent of them that kept the objectives in its worst window.
        middle_ms, slowest_ms, lag_ms: what it showed.
        p50_ms, p99_ms: the bounds that follow.
    """

    requests: int
    goodput_rate: float
    middle_ms: float
    slowest_ms: float
    lag_ms: float
    p50_ms: float
    p99_ms: float

    def describe(self) -> str:
        """One line with the bounds and where they come from."""
        seen = f"median {self.middle_ms:.0f} ms, p90 {self.slowest_ms:.0f} ms at worst"
        bounds = f"STANDARD band: p50 up to {self.p50_ms:.0f} ms, p99 up to {self.p99_ms:.0f} ms"
        return f"{bounds} ({seen}, of {amount(self.requests, 'request')}, client lag {self.lag_ms:.0f} ms)"

    def slow(self, firsts: Iterable[float]) -> int:
        """How many of these times in seconds are beyond the bound for p99."""
        return sum(each * 1000 > self.p99_ms for each in firsts)


def few(slow: int, every: int) -> bool:
    """Whether this many slow requests are no more than one in a hundred, or one alone."""
    return slow <= max(1, every // 100)


class StandardFailed(ValueError):
    """STANDARD itself is not sound, with nothing broken yet."""


def band(samples: Sequence[Sample], slices: Sequence[Window]) -> Band:
    """The band that these requests of STANDARD show, and their windows.

    Raises:
        ValueError: they show none; says why. :class:`StandardFailed`: because some have no whole answer.
    """
    judged = [each for each in samples if each.judged]
    busy = [each for each in slices if each.due]
    if lost := sum(not each.answered for each in judged):
        raise StandardFailed(f"STANDARD itself failed {lost} of {amount(len(judged), 'request')}, so it shows no band")
    if len(judged) < LEAST_REQUESTS or len(busy) < LEAST_WINDOWS:
        seen = f"{amount(len(judged), 'request')} in {amount(len(busy), 'window')} of {WINDOW_SECONDS:g} s"
        wanted = f"{LEAST_REQUESTS} in {LEAST_WINDOWS} windows"
        raise ValueError(f"STANDARD had {seen}; a band needs {wanted}, so let the failure strike later")
    middle = 1000 * (percentile(sorted(each.first for each in judged), 0.5) or 0.0)
    slowest = 1000 * max(each.p90_first or 0.0 for each in busy)
    lag = 1000 * (percentile(sorted(each.lag for each in judged), 0.99) or 0.0)
    step = max(slowest - middle, lag, RESOLUTION_MS)
    goodput = min(100 * each.good / each.asking for each in busy)
    return Band(len(judged), goodput, middle, slowest, lag, p50_ms=middle + step, p99_ms=middle + STEPS * step)


def recovery(run: LoadHistory, objectives: Objectives = NO_OBJECTIVES) -> dict[str, Any]:
    """How the run came back from its disturbance.

    Returns:
        ``since`` (begin of RECOVERY, else the first fault; None: there was neither), ``to_first_success_seconds``
        (``math.inf``: none came), ``band`` (the fields of :class:`Band`; None: STANDARD shows none, ``no_band`` says
        why, and ``standard_failed`` whether because it failed itself), ``slow`` (per phase: how many requests are
        beyond its bound for p99), ``after`` (per window since then: how many requests were ``due``, how many of them
        ``slow``, how many ``asking``, how many of those ``lost``, and ``p50_ms`` and ``p90_ms`` of the time for which
        they had nothing), ``to_stable_seconds`` and ``relapses`` of :func:`stable`. None where there was no
        disturbance. ``unstarved`` has what would be said without the slow requests of :func:`_starved`: how many those
        are (``starved``), ``to_stable_seconds``, ``relapses``, and per phase ``slow`` and ``p50_ms``.
    """
    spans = run.spans()
    faults = [event.at for event in run.events if event.kind == "fault"]
    since = spans["RECOVERY"][0] if "RECOVERY" in spans else min(faults, default=None)
    found: dict[str, Any] = {
        "since": since,
        "to_first_success_seconds": None,
        "to_stable_seconds": None,
        "relapses": None,
        "band": None,
        "no_band": "no phase STANDARD",
        "standard_failed": False,
        "slow": {},
        "after": [],
        "unstarved": {"starved": 0},
    }
    if "STANDARD" in spans:
        try:
            found["band"] = asdict(_standard_band(run, *spans["STANDARD"], objectives))
            found["no_band"] = ""
        except ValueError as error:
            found["no_band"], found["standard_failed"] = str(error), isinstance(error, StandardFailed)
    bounds = Band(**found["band"]) if found["band"] else None
    if bounds:
        found["slow"] = {name: bounds.slow(each) for name, each in _firsts(run.samples, spans).items()}
    starved = _starved(run, bounds) if bounds else set()
    rest = [each for index, each in enumerate(run.samples) if index not in starved]
    found["unstarved"] = {"starved": len(starved)}
    if bounds:
        firsts = _firsts(rest, spans)
        found["unstarved"]["slow"] = {name: bounds.slow(each) for name, each in firsts.items()}
        middle = {name: percentile(sorted(each), 0.5) for name, each in firsts.items()}
        found["unstarved"]["p50_ms"] = {name: milliseconds(each) for name, each in middle.items()}
    if since is None:
        return found
    ends = [each.intended_at + each.latency for each in run.samples if each.judged and each.intended_at >= since]
    found["to_first_success_seconds"] = min(ends, default=NEVER) - since
    found["after"] = _after(run, run.samples, since, bounds)
    found["to_stable_seconds"], found["relapses"] = stable(found)
    without = found | {"after": _after(run, rest, since, bounds)}
    found["unstarved"]["to_stable_seconds"], found["unstarved"]["relapses"] = stable(without)
    return found


def _firsts(samples: Iterable[Sample], phases: Iterable[str]) -> dict[str, list[float]]:
    """Phase -> how long each of its requests had nothing."""
    judged = [each for each in samples if each.judged]
    return {name: [each.first for each in judged if each.phase == name] for name in phases}


def _after(run: LoadHistory, samples: Sequence[Sample], since: float, bounds: Band | None) -> list[dict[str, Any]]:
    """Windows of some of the run's samples from ``since`` on."""
    # Not until the last request was due: who leaves all clients without an answer has none that are due.
    dues = [each.intended_at for each in run.samples if each.kind != "withdrawn"]
    offered = [load.offered_until or 0.0 for load in run.loads if load.plan.phase in ("", "RECOVERY")]
    slices = windows(samples, since, max([since, *dues, *offered]), rest=True)
    return [_plain(each, bounds) for each in slices]


def _starved(run: LoadHistory, bounds: Band) -> set[int]:
    """Which samples have a whole answer whose first token came late while somebody could have run for a fifth of the
    bound and got no processor (:class:`support.contract.target.Wait`): they show how busy the machine was.
    """
    waits = [each for each in run.waits if 1000 * each.seconds > STARVED_SHARE * bounds.p99_ms]
    return {
        index
        for index, each in enumerate(run.samples)
        if each.judged
        and each.answered
        and 1000 * each.first > bounds.p50_ms
        and any(wait.since < each.intended_at + each.first and wait.until > each.intended_at for wait in waits)
    }


def _standard_band(run: LoadHistory, begin: float, end: float, objectives: Objectives) -> Band:
    """The band of STANDARD without the requests that the failure may have hit: they would make it as bad as itself."""
    every = [each for each in run.samples if each.phase == "STANDARD"]
    hit = [each.intended_at for each in every if each.judged and (each.ended_at is None or each.ended_at > end)]
    end = min([end, *hit])
    whole = [each for each in every if each.intended_at < end]
    return band(whole, windows(whole, begin, end, objectives, rest=True))


def stable(found: Mapping[str, Any]) -> tuple[float, int]:
    """Seconds from the begin of RECOVERY to the first :data:`STABLE_WINDOWS` windows in a row in the STANDARD band, and
    how many windows are out of it after that; ``math.inf`` and 0: that never came.

    A window is in the band (:class:`Band`) when requests were asking in it, none of them was lost, and both percentiles
    are within its bounds; one in which nobody was asking is neither in it nor out of it. If more than a :func:`few` of
    all requests since then are slow, the windows with slow ones are out of it as well.

    Args:
        found: what :func:`recovery` found.
    """
    after = found["after"]
    inside = [found["band"] is not None and bool(each["asking"]) and _fits(each, found["band"]) for each in after]
    for index in range(len(inside) - STABLE_WINDOWS + 1):
        if all(inside[index : index + STABLE_WINDOWS]):
            later = after[index:]
            patient = few(sum(each["slow"] for each in later), sum(each["due"] for each in later))
            kept = [good and (patient or not each["slow"]) for good, each in zip(inside[index:], later, strict=True)]
            relapses = sum(bool(each["asking"]) and not good for good, each in zip(kept, later, strict=True))
            return index * WINDOW_SECONDS, relapses
    return NEVER, 0


def _fits(window: Mapping[str, Any], bounds: Mapping[str, Any]) -> bool:
    return not window["lost"] and window["p50_ms"] <= bounds["p50_ms"] and window["p90_ms"] <= bounds["p99_ms"]


def _plain(window: Window, bounds: Band | None) -> dict[str, Any]:
    return {
        "due": window.due,
        "slow": bounds.slow(window.firsts) if bounds else 0,
        "asking": window.asking,
        "lost": window.lost,
        "p50_ms": milliseconds(window.p50_first),
        "p90_ms": milliseconds(window.p90_first),
    }
