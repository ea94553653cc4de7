"""From findings to a verdict, the records of known defects, the allow-list of skips, and what makes a run red."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import releases
from support.errors import Inconclusive
from support.judge import defects, skips
from support.judge.history import History
from support.judge.judge import complaints, decide, judge_scenario, opt_outs
from support.judge.verdict import Finding, Verdict
from support.report.reading import read_verdict
from support.requests.ledger import LedgerEntry

RECORD = {
    "id": "short-answer",
    "scenario": "A worker crashes*",
    "releases": ">=1.4,<1.7",
    "rule": "sentence",
    "seen": "no finish_reason",
    "frequency": "always",
    "reproductions": "5/5",
    "evidence": "five ledgers",
    "upstream": "none found",
}
SHOWN = Finding("sentence", "Then the answer completes", "37 of 200 tokens, no finish_reason")
OTHER = Finding("usage", "request 1", "usage says prompt_tokens 7 instead of 3")
UNPROVEN = Finding("unproven", "When it crashes", "pid 7 is alive", blame="suite")
BROKE_DOWN = Finding("step-error", "When it crashes", "OSError: no route", blame="suite")
LAGGED = Finding("client-lag", "request 1", "lagged 0.7 s", blame="suite")
LEFT = Finding("leftovers", "machine", "left behind: namespace n", blame="suite")


def records(tmp_path: Path, *changes: dict[str, Any]) -> list[defects.KnownDefect]:
    file = tmp_path / "records.yaml"
    file.write_text(yaml.safe_dump([RECORD | change for change in changes]))
    return defects.load(file)


@pytest.mark.parametrize(
    ("findings", "frequency", "verdict"),
    [
        ([], None, "passed"),
        ([OTHER], None, "failed"),
        ([SHOWN], "always", "known_defect"),
        ([SHOWN], "sometimes", "known_defect"),
        ([], "sometimes", "passed"),
        ([], "always", "failed"),
        ([SHOWN, OTHER], "always", "failed"),
        ([OTHER], "always", "failed"),
        ([UNPROVEN], None, "inconclusive"),
        ([UNPROVEN, OTHER], None, "inconclusive"),
        ([UNPROVEN], "always", "inconclusive"),
        ([BROKE_DOWN, OTHER], None, "inconclusive"),
        ([LAGGED, SHOWN], None, "inconclusive"),
        ([LAGGED, OTHER], None, "failed"),
        ([LEFT], None, "inconclusive"),
        ([LEFT, OTHER], None, "failed"),
        ([LEFT, SHOWN], "always", "inconclusive"),
    ],
)
def test_findings_and_records_make_the_verdict(
    tmp_path: Path, findings: list[Finding], frequency: str | None, verdict: str
) -> None:
    known = records(tmp_path, {"frequency": frequency}) if frequency else []
    seen, reason, ids = decide(findings, known, "1.6.1", "A worker crashes in mid-answer")
    assert seen == verdict
    assert bool(reason) == (verdict != "passed")
    assert ids == (["short-answer"] if verdict == "known_defect" else [])


def test_a_record_of_another_release_or_scenario_explains_nothing(tmp_path: Path) -> None:
    known = records(tmp_path, {})
    assert decide([SHOWN], known, "1.7.0", "A worker crashes")[0] == "failed"
    assert decide([SHOWN], known, "1.6.1", "A worker hangs")[0] == "failed"
    assert decide([], known, "1.7.0", "A worker crashes")[0] == "passed"


def test_a_defect_that_does_not_show_names_its_record(tmp_path: Path) -> None:
    reason = decide([], records(tmp_path, {}), "1.6.1", "A worker crashes")[1]
    assert reason.startswith("known defect short-answer did not show on 1.6.1")


def test_the_reason_names_the_first_finding_and_counts_the_others() -> None:
    reason = decide([SHOWN, OTHER], [], "1.6.1", "x")[1]
    assert reason == "Then the answer completes: 37 of 200 tokens, no finish_reason (and 1 more)"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rule": "nonsense"}, "rule is 'nonsense'; expected one of"),
        ({"frequency": "often"}, "frequency is 'often'"),
        ({"reproductions": "3/5"}, "frequency 'always' with 3/5"),
        ({"reproductions": "3/3"}, "n at least 5"),
        ({"reproductions": "5"}, "expected k/n"),
        ({"releases": "new ones"}, "releases is 'new ones'"),
        ({"seen": "("}, "seen is '('; expected a valid regular expression"),
        ({"upstream": "somewhere"}, "upstream is 'somewhere'"),
        ({"evidence": ""}, "evidence is ''"),
        ({"ticket": "x"}, "unknown key 'ticket'"),
    ],
)
def test_a_wrong_record_is_refused_with_its_line(tmp_path: Path, change: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=r"records.yaml, line \d+: ") as refusal:
        records(tmp_path, change)
    assert said in str(refusal.value)


def test_records_that_clash_or_lack_fields_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"records.yaml, line 10: a second KnownDefect 'short-answer'; give each its own id"
    ):
        records(tmp_path, {}, {})
    file = tmp_path / "one.yaml"
    file.write_text("- {id: x}")
    with pytest.raises(ValueError, match=r"one.yaml, line 1: scenario, releases, rule, seen, .* missing"):
        defects.load(file)


def test_a_record_without_a_scenario_is_found_stale(tmp_path: Path) -> None:
    known = records(tmp_path, {}, {"id": "stale", "scenario": "Gone"})
    assert defects.unmatched(known, [("Migration", "A worker crashes in mid-answer")]) == ["stale"]


def test_a_record_may_be_about_several_scenarios(tmp_path: Path) -> None:
    [record] = records(tmp_path, {"scenario": "One | Two *", "releases": ">=1.0"})
    assert [record.applies("1.6.1", name) for name in ("One", "Two x", "One | Two *", "Three")] == [
        True,
        True,
        False,
        False,
    ]


def test_the_committed_records_and_skips_are_well_formed() -> None:
    assert all(record.id for record in defects.load())
    assert all(entry.releases for entry in skips.load())


def test_a_failed_step_blames_dynamo_and_anything_else_blames_us() -> None:
    def found(failure: BaseException) -> tuple[str, str, str]:
        finding = judge_scenario(History(), failure, "Then it holds")[0]
        return finding.rule, finding.blame, finding.message

    assert found(AssertionError("no")) == ("sentence", "dynamo", "no")
    assert found(AssertionError()) == ("sentence", "dynamo", "did not hold")
    assert found(Inconclusive("pid 7\nis alive")) == ("unproven", "suite", "pid 7 is alive")
    assert found(KeyError("x")) == ("step-error", "suite", "KeyError: 'x'")


def test_invariants_are_judged_whether_or_not_a_step_failed() -> None:
    history = History(entries=[LedgerEntry(1, "completions", True, "m", "p", 5)])
    assert [finding.rule for finding in judge_scenario(history, AssertionError("no"), "x")] == [
        "sentence",
        "one-outcome",
    ]
    assert [finding.rule for finding in judge_scenario(history, None)] == ["one-outcome"]


def test_an_opt_out_names_a_rule_and_a_reason() -> None:
    assert opt_outs(["vllm", "not_judged.usage.the_engine_has_none"]) == {"usage": "the engine has none"}
    with pytest.raises(ValueError, match="unknown rule 'bill'"):
        opt_outs(["not_judged.bill.why"])
    with pytest.raises(ValueError, match="gives no reason"):
        opt_outs(["not_judged.usage"])


def verdict(word: str, reason: str = "") -> Verdict:
    return Verdict("F", "s", "features/f.feature:1", [], word, 1.0, reason)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["passed", "known_defect", "skipped"], []),
        (["passed", "failed"], ["1 failed"]),
        (["passed", "inconclusive", "inconclusive"], ["2 inconclusive"]),
        (["skipped"], ["no scenario ran"]),
        ([], ["no scenario ran"]),
    ],
)
def test_what_makes_a_run_red(words: list[str], said: list[str]) -> None:
    assert complaints([verdict(word) for word in words], lambda reason: True) == said


def test_a_skip_that_is_not_allowed_is_red() -> None:
    said = complaints([verdict("passed"), verdict("skipped", "felt like it")], lambda reason: False)
    assert said == ["1 skipped for a reason that is not allowed here (what may be: docs/verdicts.md)"]


def test_skips_are_allowed_by_release(tmp_path: Path) -> None:
    file = tmp_path / "skips.yaml"
    file.write_text('- {reason: "no sglang", releases: "<1.1"}\n- {reason: "*", releases: "<1.0"}\n')
    known = skips.load(file)
    assert skips.allowed("no sglang", "1.0.2", known)
    assert not skips.allowed("no sglang", "1.1.0", known)
    assert not skips.allowed("no sglang: none", "1.0.2", known)
    assert skips.allowed("whatever", "0.9", known)
    assert not skips.allowed("", "0.9", known)


def test_the_allow_list_agrees_with_the_table_of_releases() -> None:
    known = skips.load()
    for version in releases.known():
        release = releases.get(version)
        for engine in ("vllm", "sglang", "trtllm"):
            reason = f"Dynamo {version} has no simulated {engine}"
            assert skips.allowed(reason, version, known) == (engine not in release.engines)
        reason = f"Dynamo {version} has no cap on the length of migrated sequences"
        assert skips.allowed(reason, version, known) == (not release.sequence_cap)
        reason = f"Dynamo {version} has no count of cancelled requests"
        assert skips.allowed(reason, version, known) == (not release.counts_cancellations)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {reason: x}", "skips.yaml, line 1: releases missing"),
        ("- {reason: x, releases: old}", "releases is 'old'"),
        (
            "- {reason: x, releases: <1.1, who: me}",
            "unknown key 'who' of AllowedSkip; allowed are reason, releases",
        ),
        ("- reason: x\n  releases: 1.4", "skips.yaml, line 2: releases is 1.4"),
        ("- x", "expected a mapping with keys reason"),
    ],
)
def test_a_wrong_allow_list_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "skips.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        skips.load(file)


def test_a_verdict_survives_the_disk(tmp_path: Path) -> None:
    written = Verdict("F", "s", "features/f.feature:1", ["a"], "failed", 1.5, "why", [OTHER])
    file = tmp_path / "verdict.json"
    file.write_text(json.dumps(written.as_dict()))
    assert read_verdict(file) == written
