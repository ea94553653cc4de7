"""The evidence that records of known defects rest on, as findings: ``docs/defects/findings.jsonl``.

A line has the ``record``, the ``release``, ``feature`` and ``scenario`` it was seen in, the ``findings`` (rule, kind,
facts), and in ``ledger`` the file of docs/defects whose requests, judged again, give them; where there is none they
were seen in a run of the scenario (``python -m tests.reproduce``).
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from support.judge.checker import ValidationContext, seen_of_load
from support.judge.defects import KnownDefect, Way, load
from support.judge.history import History
from support.judge.invariants import check
from support.judge.rules.answers import bill_of
from support.judge.verdict import Finding, Verdict
from support.requests.ledger import LedgerEntry, unpack
from support.requests.outcomes import outcome, seen_of
from support.seen import Seen
from support.settings import ROOT

FOLDER = ROOT / "docs" / "defects"
FILE = FOLDER / "findings.jsonl"


@dataclass(frozen=True)
class Evidence:
    """A line of the file."""

    record: str
    release: str
    feature: str
    scenario: str
    ledger: str
    findings: list[dict[str, Any]] = field(default_factory=list)

    def as_findings(self) -> list[Finding]:
        """The findings as the judge has them."""
        return [Finding(each["rule"], "", "", "dynamo", each["kind"], each["facts"]) for each in self.findings]


def read(file: Path = FILE) -> list[Evidence]:
    """All lines."""
    return [Evidence(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def add(release: str, verdict: Verdict, file: Path = FILE) -> None:
    """Add the findings of a run to the file, of each record that explains some and has none of this release yet."""
    past = {(line.record, line.release) for line in read(file)}
    with file.open("a", encoding="utf-8") as lines:
        for record in load():
            applies = record.applies(release, verdict.name, verdict.feature)
            found = record.explained(verdict.findings) if applies else []
            if found and (record.id, release) not in past:
                line = Evidence(record.id, release, verdict.feature, verdict.name, "", plain(found))
                lines.write(json.dumps(asdict(line)) + "\n")


def plain(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings as they stand in the file."""
    return [{"rule": each.rule, "kind": each.kind, "facts": dict(each.facts)} for each in findings]


def judged_again(entries: Sequence[LedgerEntry], record: KnownDefect) -> list[Finding]:
    """What of a ledger is a way in which ``record`` shows: of a sentence the first thing, for it ends there."""
    found: list[Finding] = []
    for way in record.ways:
        if way.rule == "sentence":
            fitting = (each for each in _sentences(entries, way) if way.fits(each))
            found += [each for each in [next(fitting, None)] if each and not found]
        else:
            found += [each for each in check(History(entries=list(entries))) if way.fits(each)]
    return found


def _sentences(entries: Sequence[LedgerEntry], way: Way) -> Iterator[Finding]:
    for seen in _seen(entries, way):
        yield Finding.of("sentence", "", seen)


def _seen(entries: Sequence[LedgerEntry], way: Way) -> Iterator[Seen]:
    match way.seen:
        case "answer":
            yield from (seen_of(entry, way.where["wanted"]) for entry in entries)
        case "bill":
            yield from (bill_of(entry, entry.max_tokens) for entry in entries if entry.usage)
        case "load":
            silence = None if way.where["silence"] is None else _silence(entries)
            yield seen_of_load(way.where["check"], "", silence, ValidationContext(ledger=entries))


def _silence(entries: Sequence[LedgerEntry]) -> float:
    """The longest time between two tokens of whole answers."""
    times = sorted(at for entry in entries if outcome(entry).kind == "complete" for at in entry.token_times)
    return max((after - before for before, after in pairwise(times)), default=0.0)


def read_packed(ledger: str) -> list[LedgerEntry]:
    """The requests of a ledger of docs/defects."""
    with gzip.open(FOLDER / ledger, "rt", encoding="utf-8") as lines:
        return [unpack(json.loads(line)) for line in lines if line.strip()]
