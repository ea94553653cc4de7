"""What users felt: how many of their requests were answered, for how long they were not, and how long they waited."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.amounts import amount
from support.judge.samples import Sample
from support.judge.verdict import Verdict
from support.report import runs, wording
from support.report.reading import read_load_history
from support.requests.ledger import LedgerEntry, read_ledger
from support.requests.load_log import find_loads
from support.requests.outcomes import outcome

UNANSWERED = {
    "passed": "where the promise allows it",
    "dynamo": "where a promise was broken",
    "known": "in scenarios with known defects",
}
"""Category of a verdict -> where requests without a whole answer were; any other category says nothing."""


@dataclass(frozen=True)
class Felt:
    """The requests of one scenario, or of several.

    Attributes:
        whole: how many have a whole answer; ``errors``: an error instead; ``broken``: a broken answer, or none at all.
        given_up: how many their own clients took back, as planned; they count nowhere else.
        seconds: from when the first of those without a whole answer was asked to when the last of them was over.
        wait: the longest that anybody with a whole answer waited for a token, in seconds.
    """

    whole: int = 0
    errors: int = 0
    broken: int = 0
    given_up: int = 0
    seconds: float = 0.0
    wait: float = 0.0

    @property
    def asked(self) -> int:
        """How many requests wanted an answer."""
        return self.whole + self.errors + self.broken

    @property
    def lost(self) -> int:
        """How many of them got no whole one."""
        return self.errors + self.broken

    @property
    def sentence(self) -> str:
        """That of one scenario in words."""
        if not self.asked:
            return "nobody waited for an answer"
        if not self.lost:
            every = "the only request was" if self.asked == 1 else f"all {amount(self.asked, 'request')} were"
            wait = f"; the longest wait for a token was {self.wait:.1f} s" if self.wait else ""
            return f"no request was lost: {every} answered whole{wait}"
        ends = {"an error instead of an answer": self.errors, "a broken answer or none": self.broken}
        (end, number), *rest = ((end, number) for end, number in ends.items() if number)
        who = "the only request" if self.asked == 1 else f"{number} of {amount(self.asked, 'request')}"
        more = "".join(f", {others} got {end}" for end, others in rest)
        within = f", within {max(self.seconds, 0.1):.1f} s" if self.lost > 1 else ""
        return f"{who} got {end}{more}{within}"


def read_felt(folder: Path) -> Felt:
    """What lies in a scenario's folder: its loads, and the requests of its ledger that belong to none of them."""
    load = read_load_history(folder) if find_loads(folder) else None
    ends = list(map(_of_load, load.samples)) if load else []
    sent_by_load = {each.intended_at for log in load.loads for each in log.entries()} if load else set()
    single = (each for each in read_ledger(folder / "ledger.jsonl") if each.intended_at not in sent_by_load)
    ends += map(_single, single)
    counts = Counter(kind for kind, *_ in ends)
    lost = [(since, until) for kind, since, until, _ in ends if kind in ("errors", "broken")]
    seconds = max(until for _, until in lost) - min(since for since, _ in lost) if lost else 0.0
    return Felt(**counts, seconds=seconds, wait=max((wait for kind, *_, wait in ends if kind == "whole"), default=0.0))


def _single(entry: LedgerEntry) -> tuple[str, float, float, float]:
    """What became of a request, from when to when, and its longest wait for a token."""
    kind = {"complete": "whole", "error": "errors", "cancelled": "given_up"}.get(outcome(entry).kind, "broken")
    since = entry.intended_at if entry.sent_at is None else entry.sent_at
    first = entry.token_times[0] - since if entry.token_times else 0.0
    return kind, since, entry.ended_at or since, max(first, entry.longest_pause)


def _of_load(sample: Sample) -> tuple[str, float, float, float]:
    kind = "whole" if sample.answered else {"error": "errors"}.get(sample.kind, "broken")
    waits = (sample.first, sample.pause or 0.0) if sample.answered else ()
    since = sample.intended_at
    return kind if sample.judged else "given_up", since, sample.ended_at or since, max(waits, default=0.0)


def read_all(run: Path, verdicts: Iterable[Verdict]) -> dict[str, Felt]:
    """That of each scenario of a run that ran, by location; records that make no sense tell of nobody."""
    found = {}
    for verdict in verdicts:
        if verdict.verdict != "skipped":
            try:
                found[verdict.location] = read_felt(runs.scenario_folder(run, verdict.location))
            except (ValueError, LookupError, TypeError):
                found[verdict.location] = Felt()
    return found


def worst(felt: Mapping[str, Felt], broken: Sequence[Verdict]) -> Verdict:
    """Of the scenarios that broke a promise the one whose users suffered most: broken answers before errors."""
    return max(broken, key=lambda each: (felt[each.location].broken, felt[each.location].errors))


def of_run(felt: Mapping[str, Felt], verdicts: Sequence[Verdict]) -> str:
    """What the users of a whole run felt, in words."""
    asked, given_up = (sum(getattr(each, name) for each in felt.values()) for name in ("asked", "given_up"))
    if not asked:
        return "Nobody waited for an answer."
    where = Counter[str]()
    for verdict in verdicts:
        if verdict.location in felt:
            place = UNANSWERED.get(wording.category(verdict), "in scenarios that prove nothing")
            where[place] += felt[verdict.location].lost
    lost = sum(where.values())
    told = f"Every request was answered whole: {asked} of {asked}."
    if lost:
        places = ", ".join(f"{number} {place}" for place, number in where.most_common() if number)
        told = f"{asked - lost} of {amount(asked, 'request')} were answered whole. The others: {places}."
    wait = max(each.wait for each in felt.values())
    told += f" The longest wait for a token was {wait:.1f} s." if wait else ""
    more = f" Clients gave up {amount(given_up, 'more request')} on purpose."
    return told + (more if given_up else "")
