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
from support.seen import BillSeen, GaugeSeen, Seen, Told

WHERE = {"node": ["w-[01]", "w-9"], "role": "worker", "metric": "busy", "value": {"least": 1, "most": 2}}
RECORD = {
    "id": "short-answer",
    "scenario": "A worker crashes*",
    "releases": ">=1.4,<1.7",
    "ways": [{"rule": "sentence", "seen": "gauge", "where": WHERE}],
    "frequency": "always",
    "reproductions": "5/5",
    "evidence": "five ledgers",
    "upstream": "none found",
}
RATE = {"least": 0.5, "most": 1.0, "window": 11}
GAUGE = GaugeSeen("w-1", "worker", "busy", 2.0)


def found(seen: Seen = GAUGE, rule: str = "sentence", blame: str = "dynamo") -> Finding:
    return Finding.of(rule, "Then the answer completes", seen, blame)


SHOWN = found()
OTHER = found(BillSeen(1, 7, 4, 5, 0, 12, 4), "usage")
UNPROVEN = found(Told("pid 7 is alive"), "unproven", "suite")
BROKE_DOWN = found(Told("OSError: no route"), "step-error", "suite")
LAGGED = found(Told("lagged 0.7 s"), "client-lag", "suite")
LEFT = found(Told("left behind: namespace n"), "leftovers", "suite")


def records(tmp_path: Path, *changes: dict[str, Any]) -> list[defects.KnownDefect]:
    file = tmp_path / "records.yaml"
    made = [RECORD | change for change in changes]
    rated = [({"rate": RATE} if each["frequency"] == "sometimes" else {}) | each for each in made]
    file.write_text(yaml.safe_dump(rated))
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
    seen, reason, ids = decide(findings, known, "1.6.1", "A worker crashes mid-answer")
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
    assert reason == ("Then the answer completes: busy is 2 after the last request ended; expected 0 (and 1 more)")


def way(**change: Any) -> dict[str, Any]:
    return {"ways": [{"rule": "sentence", "seen": "gauge", "where": WHERE} | change]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (way(rule="nonsense"), "rule is 'nonsense'; expected one of"),
        (way(seen="nonsense"), "seen is 'nonsense'; expected one of"),
        (way(seen="told"), "seen is 'told'; expected one of"),
        (way(most=0), "most is 0"),
        (way(where={**WHERE, "pid": 7}), "'gauge' has no field 'pid'; its fields are node, role, metric, value"),
        (way(where={"node": "w-1"}), "where lacks role, metric, value; a record says of each field what it may be"),
        (way(where={**WHERE, "value": {"most": 2}}), "value is {'most': 2}; expected a value (texts may have * and ?)"),
        (way(where={**WHERE, "value": []}), "value is []; expected a value"),
        ({"ways": []}, "ways is []; expected how the defect shows"),
        ({"frequency": "sometimes", "rate": None}, "frequency 'sometimes' without a rate"),
        ({"rate": RATE}, "a rate with frequency 'always'"),
        ({"frequency": "sometimes", "rate": {**RATE, "least": 0.0}}, "least is 0.0; expected a share of runs"),
        ({"frequency": "sometimes", "reproductions": "1/5"}, "rate is 0.5 to 1; expected least and most with 1/5"),
        ({"frequency": "sometimes", "rate": {**RATE, "window": 5}}, "window is 5; expected enough runs that none"),
        ({"frequency": "often"}, "frequency is 'often'"),
        ({"reproductions": "3/5"}, "frequency 'always' with 3/5"),
        ({"reproductions": "3/3"}, "n at least 5"),
        ({"reproductions": "5"}, "expected k/n"),
        ({"releases": "new ones"}, "releases is 'new ones'"),
        ({"upstream": "somewhere"}, "upstream is 'somewhere'"),
        ({"evidence": ""}, "evidence is ''"),
        ({"ticket": "x"}, "unknown key 'ticket'"),
    ],
)
def test_a_wrong_record_is_refused_with_its_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"records.yaml, line \d+: ") as refusal:
        records(tmp_path, change)
    assert said in str(refusal.value)


def test_records_that_clash_or_lack_fields_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"records.yaml, line 20: a second KnownDefect 'short-answer'; give each its own id"
    ):
        records(tmp_path, {}, {})
    file = tmp_path / "one.yaml"
    file.write_text("- {id: x}")
    with pytest.raises(ValueError, match=r"one.yaml, line 1: scenario, releases, ways, .* missing"):
        defects.load(file)


def test_a_record_without_a_scenario_is_found_stale(tmp_path: Path) -> None:
    known = records(tmp_path, {}, {"id": "stale", "scenario": "Gone"})
    assert defects.unmatched(known, [("Migration", "A worker crashes mid-answer")]) == ["stale"]


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
        [finding] = judge_scenario(History(), failure, "Then it holds")
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
        (["passed", "mistake", "failed"], ["1 failed", "1 with mistakes"]),
        ([], ["no scenario ran"]),
    ],
)
def test_what_makes_a_run_red(words: list[str], said: list[str]) -> None:
    assert complaints([verdict(word) for word in words], lambda reason: True) == said


def test_a_skip_that_is_not_allowed_is_red() -> None:
    said = complaints([verdict("passed"), verdict("skipped", "felt like it")], lambda reason: False)
    assert said == ["1 skipped for a reason that is not allowed here (docs/verdicts.md lists those that are)"]


def test_skips_are_allowed_by_release(tmp_path: Path) -> None:
    file = tmp_path / "skips.yaml"
    file.write_text('- {lack: simulated sglang, releases: "<1.1"}\n')
    known = skips.load(file)
    assert skips.allowed("simulated sglang", "1.0.2", known)
    assert not skips.allowed("simulated sglang", "1.1.0", known)
    assert not skips.allowed("simulated trtllm", "1.0.2", known)
    assert not skips.allowed("", "1.0.2", known)


def test_the_allow_list_agrees_with_the_table_of_releases() -> None:
    known = skips.load()
    for version in releases.known():
        release = releases.get(version)
        for engine in ("vllm", "sglang", "trtllm"):
            assert skips.allowed(f"simulated {engine}", version, known) == (engine not in release.engines)
            lacking = engine not in release.disaggregated_engines and engine in release.engines
            assert skips.allowed(f"disaggregated {engine}", version, known) >= lacking
        has = {
            "sequence cap": release.sequence_cap,
            "sequence limit": release.max_model_len,
            "cancel count": release.counts_cancellations,
            "drain deadline": release.drain_deadline,
            "stream timeout": release.stream_timeout,
            "busy threshold": release.refuses_when_busy,
        }
        assert {lack: not skips.allowed(lack, version, known) for lack in has} == {
            lack: bool(fact) for lack, fact in has.items()
        }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {lack: sequence cap}", "skips.yaml, line 1: releases missing"),
        ("- {lack: sequence cap, releases: old}", "releases is 'old'"),
        ("- {lack: wings, releases: <1.1}", "lack is 'wings'; expected one of simulated vllm, simulated sglang"),
        (
            "- {lack: sequence cap, releases: <1.1, who: me}",
            "unknown key 'who' of AllowedSkip; allowed are lack, releases",
        ),
        ("- lack: sequence cap\n  releases: 1.4", "skips.yaml, line 2: releases is 1.4"),
        ("- x", "expected a mapping with keys lack"),
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
