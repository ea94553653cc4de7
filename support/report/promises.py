"""What a run says in a sentence each: of the release, of every promise, of the faults, of who caused it, and of
what has changed since the run before it. A feature is a promise, and its name says which.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.amounts import amount
from support.events import read_events
from support.judge.verdict import Verdict
from support.report import runs, wording
from support.report.moments import strikes
from support.requests.load_log import read_phases

STATES = ("broken", "unproven", "known", "kept", "open")
"""What may be said of a promise, the most urgent first: ``known`` is kept except for known defects, ``unproven``
neither kept nor broken in a scenario, ``open`` not judged at all."""
GOOD = ("passed", "known_defect")
CAUSES = 3
"""At most this many faults are told of a scenario."""


@dataclass(frozen=True)
class Promise:
    """A promise and what became of it; ``state`` is one of :data:`STATES`."""

    name: str
    state: str
    sentence: str
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class Struck:
    """How many faults the fault service was asked for, how many of them their victims showed, and what clients did."""

    faults: int
    proven: int
    by_clients: int

    @property
    def sentence(self) -> str:
        """In words."""
        times = "once" if self.by_clients == 1 else f"{self.by_clients} times"
        clients = f" Clients misbehaved on purpose {times}." if self.by_clients else ""
        if not self.faults:
            return f"We broke nothing.{clients}"
        seen = "proven on its victim" if self.faults == 1 else "each proven on its victim"
        if self.proven < self.faults:
            seen = f"{self.proven} of them proven on their victims"
        return f"{amount(self.faults, 'fault')}, {seen}.{clients}"


@dataclass(frozen=True)
class Changes:
    """A run against the one before it.

    Attributes:
        since: what that one was, in words; empty: there is none.
        broke: what was kept then and is not now; ``holds``: the other way round.
        new: how many that one did not run; ``same``: how many came out as they did then.
        release: whether that one was on the same release.
    """

    since: str
    broke: Sequence[Verdict] = ()
    holds: Sequence[Verdict] = ()
    new: int = 0
    same: int = 0
    release: bool = False

    @property
    def sentence(self) -> str:
        """In words."""
        if not self.since:
            return "There is no earlier run of these scenarios on this target to compare with."
        told = [
            f"{amount(len(self.broke), 'scenario')} passed then and not now" if self.broke else "nothing new broke",
            f"{amount(len(self.holds), 'scenario')} passed again" if self.holds else "",
            f"{self.same} came out the same",
            f"{self.new} did not run then" if self.new else "",
        ]
        again = " The version is the same: run it again (make rerun)." if self.broke and self.release else ""
        return f"Against {self.since}: {', '.join(filter(None, told))}.{again}"


def judged(names: Collection[str], verdicts: Sequence[Verdict]) -> list[Promise]:
    """Every promise, the most urgent first.

    Args:
        names: of all features that there are.
        verdicts: of the run.
    """
    every = dict.fromkeys([*(verdict.feature for verdict in verdicts), *names])
    found = [_promise(name, [each for each in verdicts if each.feature == name]) for name in every]
    return sorted(found, key=lambda promise: STATES.index(promise.state))


def _promise(name: str, verdicts: Sequence[Verdict]) -> Promise:
    counts = Counter(map(_outcome, verdicts))
    ran = len(verdicts) - counts["skipped"]
    defects = {each for verdict in verdicts for each in verdict.known_defects}
    some = f"{amount(len(defects), 'known defect')}, in {counts['known']} of"
    scenarios = amount(ran, "scenario")
    if counts["broken"]:
        known = f", and {amount(len(defects), 'known defect')} showed" if defects else ""
        return Promise(name, "broken", f"Broken in {counts['broken']} of {scenarios}{known}.", verdicts)
    if not counts["kept"] + counts["known"]:
        why = "none of its scenarios ran" if not ran else f"{scenarios} proved nothing"
        return Promise(name, "unproven" if ran else "open", f"Not judged: {why}.", verdicts)
    if counts["open"]:
        sentence = f"Not proven in {counts['open']} of {scenarios}, kept in the others"
        return Promise(name, "unproven", f"{sentence}{f' except for {some} them' if defects else ''}.", verdicts)
    if defects:
        return Promise(name, "known", f"Kept, except for {some} {scenarios}.", verdicts)
    return Promise(name, "kept", f"Kept in {'all ' if ran > 1 else ''}{scenarios}.", verdicts)


def _outcome(verdict: Verdict) -> str:
    """What a scenario says of its promise."""
    outcomes = {"dynamo": "broken", "known": "known", "passed": "kept", "skipped": "skipped"}
    return outcomes.get(wording.category(verdict), "open")


def answer(release: str, promises: Sequence[Promise], complaints: Sequence[str]) -> tuple[str, str]:
    """Whether the release is safe, and that in a sentence.

    Args:
        complaints: why the run is red, of :func:`support.judge.judge.complaints` and the launcher.

    Returns:
        One of ``broken``, ``unproven``, ``known``, ``kept``, and the sentence.
    """
    verdicts = [verdict for promise in promises for verdict in promise.verdicts if verdict.verdict != "skipped"]
    tried = [promise for promise in promises if promise.state != "open"]
    states = Counter(promise.state for promise in promises)
    scenarios = amount(len(verdicts), "scenario")
    if new := broken(verdicts):
        kinds = f"{states['broken']} of {amount(len(tried), 'promise')}"
        return "broken", f"No. Dynamo {release} broke {kinds}, in {len(new)} of {scenarios}."
    if states["unproven"] or complaints:
        open_ones = sum(_outcome(verdict) == "open" for verdict in verdicts)
        why = f"{open_ones} of {scenarios} say nothing about it" if open_ones else "; ".join(complaints)
        return "unproven", f"Not proven. Nothing new broke in Dynamo {release}, but {why}."
    if defects := {each for verdict in verdicts for each in verdict.known_defects}:
        known = f"{amount(len(defects), 'known defect')} still showed"
        nothing = f"Nothing new broke in Dynamo {release} in {scenarios}"
        return "known", f"Yes, apart from known defects. {nothing}; {known}.{_untried(states['open'])}"
    yes = "Yes, as far as it was tried" if states["open"] else "Yes"
    kept = f"Dynamo {release} kept {amount(len(tried), 'promise')} in {scenarios}"
    return "kept", f"{yes}. {kept}.{_untried(states['open'])}"


def _untried(count: int) -> str:
    """How many promises were not judged, where there are any."""
    return f" {amount(count, 'other promise')} {'was' if count == 1 else 'were'} not judged." if count else ""


def broken(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The scenarios in which Dynamo broke a promise in a new way."""
    return [verdict for verdict in verdicts if _outcome(verdict) == "broken"]


def blame(verdicts: Sequence[Verdict]) -> str:
    """Whether Dynamo caused what broke, or the suite itself."""
    counts = Counter(map(_outcome, verdicts))
    new, known, ours = counts["broken"], counts["known"], counts["open"]
    if not new + known + ours:
        return "Neither: Dynamo broke nothing, and the suite worked."
    told = f"Dynamo broke a promise in {amount(new, 'scenario')}." if new else ""
    if known:
        where = f"{known} more" if new else amount(known, "scenario")
        told = f"{told or 'Dynamo broke nothing new.'} Known defects showed in {where}."
    own = f"In {amount(ours, 'scenario')} the suite itself could not tell." if ours else ""
    return f"{told} {own or 'The suite itself worked.'}".strip()


def struck(run: Path, verdicts: Sequence[Verdict]) -> Struck:
    """What was broken on purpose in a run."""
    found = []
    for verdict in verdicts:
        folder = runs.scenario_folder(run, verdict.location)
        found += strikes(read_events(folder / "events.jsonl"), dict(read_phases(folder)))
    ordered = [each for each in found if each.ordered]
    return Struck(len(ordered), sum(each.proven is not None for each in ordered), len(found) - len(ordered))


def causes(run: Path, verdicts: Sequence[Verdict]) -> dict[str, str]:
    """What was broken on purpose in each scenario that did not hold, by location."""
    told = {}
    for verdict in verdicts:
        if verdict.verdict in ("failed", "inconclusive"):
            folder = runs.scenario_folder(run, verdict.location)
            found = strikes(read_events(folder / "events.jsonl"), dict(read_phases(folder)))
            told[verdict.location] = "; ".join(dict.fromkeys(each.words for each in found[:CAUSES]))
    return told


def changes(run: Path, reports: Path, ran: Mapping[str, Any], verdicts: Sequence[Verdict]) -> Changes:
    """A run against the last one before it, on the same target, that ran one of its scenarios at least.

    Args:
        ran: what the run's ``run.json`` says.
    """
    now = {(verdict.feature, verdict.name): verdict for verdict in verdicts}
    for earlier in reversed([each for each in runs.history(reports) if each.name < run.name]):
        try:
            summary = json.loads((earlier / "summary.json").read_text(encoding="utf-8"))
            about = json.loads((earlier / "run.json").read_text(encoding="utf-8"))
            then = {(each["feature"], each["name"]): each["verdict"] for each in summary["scenarios"]}
        except (OSError, ValueError, LookupError):
            continue
        if summary["target"] == ran["target"] and then.keys() & now.keys():
            return _compared(about, then, now, ran["dynamo"])
    return Changes("")


def _compared(
    about: Mapping[str, Any], then: Mapping[tuple[str, str], str], now: Mapping[tuple[str, str], Verdict], release: str
) -> Changes:
    both = [(then[name], verdict) for name, verdict in now.items() if name in then]
    return Changes(
        since=f"the run of {moment(about['started'])} on Dynamo {about['dynamo']}",
        broke=[verdict for was, verdict in both if was in GOOD and verdict.verdict in ("failed", "inconclusive")],
        holds=[verdict for was, verdict in both if was in ("failed", "inconclusive") and verdict.verdict in GOOD],
        new=len(now) - len(both),
        same=sum(was == verdict.verdict for was, verdict in both),
        release=about["dynamo"] == release,
    )


def moment(iso: str) -> str:
    """A time of ``run.json`` for readers, in UTC as in the names of runs."""
    return f"{datetime.fromisoformat(iso).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
