"""The committed records of known defects: each fits the evidence that it rests on, and nothing beside it."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from support.judge import defects
from support.judge.defects import KnownDefect, Rate, Way
from support.judge.judge import decide
from support.judge.verdict import Finding, Verdict
from support.run import rates
from support.seen import KINDS, Fact, GaugeSeen, comparable
from support.settings import ROOT
from tests import evidence
from tests.evidence import Evidence

RECORDS = {record.id: record for record in defects.load()}
EVIDENCE = evidence.read()
OWED = {
    "model-not-listed-after-quorum",
    "silent-etcd-member-reached-by-others-rarely",
    "refused-handover-waits-forever-gauges",
    "worker-aborts-at-exit",
    "drain-deadline-does-not-bind",
    "worker-aborts-at-exit-after-its-deadline",
    "worker-aborts-at-exit-told-to-shut-down",
    "worker-aborts-at-exit-told-to-shut-down-seen-afterwards",
    "unanswered-request-waits-forever-at-a-restart-in-flight",
}
"""Records whose ledgers do not show what was seen (how a process ended, a gauge, a list): ``python -m tests.reproduce``
has to see them again, on releases other than the default one but for the second, which shows now and then.
"""


@pytest.mark.parametrize("record", RECORDS.values(), ids=lambda record: record.id)
def test_a_record_fits_its_own_evidence(record: KnownDefect) -> None:
    own = [line for line in EVIDENCE if line.record == record.id]
    assert bool(own) != (record.id in OWED), f"lines of {evidence.FILE.name} on {record.id}: {len(own)}"
    for line in own:
        assert record.applies(line.release, line.scenario, line.feature), line
        findings = line.as_findings()
        assert record.explained(findings) == findings, line
        assert decide(findings, [record], line.release, line.scenario, line.feature)[::2] == (
            "known_defect",
            [record.id],
        )


@pytest.mark.parametrize(
    "line", [line for line in EVIDENCE if line.ledger], ids=lambda line: f"{line.record} {line.release}"
)
def test_evidence_is_what_its_ledger_gives_when_it_is_judged_again(line: Evidence) -> None:
    found = evidence.plain(evidence.judged_again(evidence.read_packed(line.ledger), RECORDS[line.record]))
    assert line.findings == json.loads(json.dumps(found))[: len(line.findings)]


def mutants(finding: Finding) -> Iterator[tuple[str, Finding]]:
    """The same finding with one field changed: about another, a larger number, another word, nothing, something."""

    def with_fact(name: str, value: Fact) -> Finding:
        return replace(finding, facts={**finding.facts, name: value})

    yield "rule", replace(finding, rule="counters")
    yield "kind", replace(finding, kind="counter")
    yield "blame", replace(finding, blame="suite")
    for name, value in finding.facts.items():
        if isinstance(value, bool):
            yield name, with_fact(name, not value)
        elif isinstance(value, int | float):
            yield f"larger {name}", with_fact(name, 10 * value + 100_000)
            yield f"no {name}", with_fact(name, "unheard-of")
        elif isinstance(value, str):
            yield f"another {name}", with_fact(name, "unheard-of")
        else:
            yield f"some {name}", with_fact(name, -7)


@pytest.mark.parametrize("record", RECORDS.values(), ids=lambda record: record.id)
def test_a_record_fits_nothing_beside_its_evidence(record: KnownDefect) -> None:
    free = {("last_succeeded", record.id) for record in [RECORDS["unanswered-request-waits-forever-random"]]}
    for line in (line for line in EVIDENCE if line.record == record.id):
        for finding in line.as_findings():
            for what, mutant in mutants(finding):
                if (what, record.id) in free:
                    continue
                assert record.explained([mutant]) == [], f"{record.id} explains {what}: {mutant}"


@pytest.mark.parametrize("record", RECORDS.values(), ids=lambda record: record.id)
def test_a_record_fits_no_more_findings_than_it_says(record: KnownDefect) -> None:
    for line in (line for line in EVIDENCE if line.record == record.id):
        findings = line.as_findings()
        way = next(way for way in record.ways if way.fits(findings[0]))
        assert record.explained([findings[0]] * way.most) != []
        assert record.explained([findings[0]] * (way.most + 1)) == []
        assert (
            decide([findings[0]] * (way.most + 1), [record], line.release, line.scenario, line.feature)[0] == "failed"
        )


WIDE = [
    # a frontend that exits with status 1 is no worker that aborts
    ("worker-aborts-at-exit", {"role": "frontend", "node": "frontend-0"}),
    ("worker-aborts-at-exit", {"status": 1, "signal": ""}),
    ("worker-aborts-at-exit", {"signal": "SIGKILL"}),
    # a wrong number of tokens of the answer is another defect than a prompt that is counted twice
    ("usage-counts-replay", {"completion_over": 1}),
    ("usage-counts-replay", {"prompt_over": -1}),
    ("usage-counts-replay-sentence", {"completion_over": 1}),
    # new requests that fail for a second or two are no outage
    ("prefill-crash-costs-new-requests", {"last_succeeded": False}),
    ("prefill-crash-costs-new-requests", {"failing_seconds": 30.0}),
    ("prefill-crash-costs-new-requests", {"statuses": "500"}),
    ("prefill-crash-costs-new-requests", {"broken": 1}),
    # a refusal for another reason has another cause
    ("silent-etcd-member-reached-by-others", {"error_says": "Internal server error", "status": 500}),
    ("silent-etcd-member-reached-by-others", {"tokens": 12}),
    ("silent-etcd-member-reached-by-others", {"status": 504}),
]


@pytest.mark.parametrize(("name", "change"), WIDE)
def test_what_was_once_explained_as_well_is_not_any_more(name: str, change: dict[str, Any]) -> None:
    record = RECORDS[name]
    way = record.ways[0]
    facts = {fact: _least(way.where[fact]) for fact in comparable(way.seen)}
    usual = Finding(way.rule, "", "", "dynamo", way.seen, facts)
    assert record.explained([usual]) == [usual]
    assert record.explained([replace(usual, facts=facts | change)]) == []


def _least(allowed: Any) -> Fact:
    """The first value that a record allows."""
    if isinstance(allowed, list):
        return _least(allowed[0])
    if isinstance(allowed, dict):
        return float(allowed["least"])
    text = allowed.replace("[01]", "0").replace("[0-3]", "0") if isinstance(allowed, str) else allowed
    assert not isinstance(text, str) or fnmatchcase(text, allowed)
    return text


def test_records_speak_of_kinds_that_somebody_sees() -> None:
    used = {way.seen for record in RECORDS.values() for way in record.ways}
    assert used <= set(KINDS)
    assert all(comparable(kind) or kind == "told" for kind in KINDS)


def gauge(rate: Rate | None, name: str = "leaks") -> KnownDefect:
    where = {"node": "w-0", "role": "worker", "metric": "busy", "value": 1}
    frequency = "sometimes" if rate else "always"
    return replace(
        RECORDS["prefill-slot-leaked"],
        id=name,
        scenario="S",
        feature="",
        ways=[Way("gauges", "gauge", where)],
        frequency=frequency,
        rate=rate,
    )


RATE = Rate(0.5, 0.8, 12)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ([True, False] * 6, ""),
        ([False] * 11, ""),  # too few runs to tell
        ([False] * 12, "showed in 0 of the last 12 runs; expected 50% of them at least"),
        ([False, *[True] * 12], ""),  # four of five may be twelve of twelve
        ([True] * 20 + [False] * 12, "showed in 0 of the last 12 runs; expected 50% of them at least"),
    ],
)
def test_what_shows_sometimes_is_held_to_its_rate(shown: list[bool], said: str) -> None:
    assert RATE.strays(shown) == said


def test_what_shows_far_oftener_than_it_did_is_noticed() -> None:
    assert Rate(0.1, 0.3, 80).strays([True] * 80).endswith("expected 30% of them at most")


def test_a_record_is_not_expected_where_none_of_its_rules_is_judged() -> None:
    one, other = gauge(None), gauge(None)
    both = replace(one, ways=[*one.ways, replace(other.ways[0], rule="counters")])
    assert [each.can_show(["gauges"]) for each in (one, both)] == [False, True]
    assert not both.can_show({"gauges": "others ask as well", "counters": "others ask as well"})


def run(*words: str, shows: bool = False) -> list[Verdict]:
    seen = [Finding.of("gauges", "w-0", GaugeSeen("w-0", "worker", "busy", 1.0))] if shows else []
    return [Verdict("F", "S", "features/f.feature:1", [], word, 1.0, findings=seen) for word in words]


def test_runs_are_kept_and_a_defect_that_shows_no_more_is_noticed(tmp_path: Path) -> None:
    file, records = rates.history_file(tmp_path), [gauge(RATE), gauge(None, "always")]
    assert rates.keep(file, records, "1.6.1", run("passed", "known_defect", shows=True)) == []
    for verdicts in (run("inconclusive"), run("skipped"), []):  # say nothing, and are no run of it
        assert rates.keep(file, records, "1.6.1", verdicts) == []
    for _ in range(RATE.window - 1):
        assert rates.keep(file, records, "1.6.1", run("passed")) == []
    assert json.loads(file.read_text()) == {"1.6.1": {"leaks": "1" + "0" * 11}}
    [said] = rates.keep(file, records, "1.6.1", run("passed"))
    assert said == (
        "known defect leaks showed in 0 of the last 12 runs; expected 50% of them at least: "
        "correct its rate or its releases"
    )
    assert rates.keep(file, records, "1.6.1", run("failed", shows=True)) == []
    assert json.loads(file.read_text()) == {"1.6.1": {"leaks": "0" * 11 + "1"}}


def test_a_history_that_cannot_be_read_begins_anew(tmp_path: Path) -> None:
    file = rates.history_file(tmp_path)
    file.write_text("{")
    assert rates.keep(file, [gauge(RATE)], "1.6.1", run("passed")) == []
    assert json.loads(file.read_text()) == {"1.6.1": {"leaks": "0"}}


def test_each_line_of_evidence_is_about_a_record() -> None:
    assert {line.record for line in EVIDENCE} <= set(RECORDS)
    assert max(Counter((line.record, line.release) for line in EVIDENCE).values()) <= 3, "one or two are enough"


def test_findings_of_a_run_become_evidence_once(tmp_path: Path) -> None:
    file = tmp_path / "findings.jsonl"
    file.write_text("")
    record = RECORDS["refused-handover-not-retried-slot"]
    [name] = {
        row.scenario for row in EVIDENCE if row.record == "refused-handover-not-retried" and row.release == "1.6.1"
    }
    leak = Finding.of("gauges", "x", GaugeSeen("vllm-prefill-worker-0", "prefill", record.ways[0].where["metric"], 1.0))
    seen = Verdict("F", name, "features/f.feature:1", [], "known_defect", 1.0, findings=[leak])
    evidence.add("1.6.1", seen, file)
    evidence.add("1.6.1", seen, file)
    evidence.add("1.0.2", seen, file)  # no record has it there
    [line] = evidence.read(file)
    assert (line.record, line.release, line.as_findings()) == (
        record.id,
        "1.6.1",
        [replace(leak, about="", message="")],
    )


PROSE = re.compile(
    r"\.(?:text|message|reason|detail)(?:\.(?:startswith|endswith|partition|removeprefix|find)\(| ?[!=]= ?)"
)


def test_nobody_compares_what_is_written_for_people() -> None:
    sources = [file for folder in ("support", "steps") for file in (ROOT / folder).rglob("*.py")]
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for file in sources
        for line in file.read_text().splitlines()
        if PROSE.search(line)
    ]
    assert found == []


def test_every_finding_is_made_from_what_was_seen() -> None:
    makers = {file: file.read_text() for file in (ROOT / "support").rglob("*.py")}
    bare = [str(file.relative_to(ROOT)) for file, text in makers.items() if re.search(r"\bFinding\(", text)]
    assert bare == ["support/report/reading.py"], "Finding.of has kind and facts"
