"""Each scenario has a sabotage that turns it red, each row a scenario; `make sabotage` runs them and keeps score."""

import json
import os
import time
from pathlib import Path

import pytest

from agents.sabotage import injector, proxy
from support.judge import defects
from support.judge.verdict import Finding, Verdict
from support.report import self_tests
from support.report.self_tests import Trial, read_trials, score, write_trials
from support.run.schedule import Cost
from support.run.selection import Selected, enumerate_scenarios
from support.seen import Busy, GaugeSeen
from support.settings import ROOT
from support.targets.kubernetes.sabotage import CLUSTERS
from support.targets.local.sabotage import SHAPES, WITNESSES
from tests.lies import LIES, rows, ways
from tests.sabotage import Find, Sabotage, scenarios, table, trials
from tests.sabotage.trials import Estimate, marks_before, outcome, row_of, sources


def test_every_scenario_has_a_sabotage() -> None:
    names = [scenario.name for scenario in scenarios()]
    assert len(names) >= 50
    assert [name for name in names if not any(row.matches(name) for row in table())] == []


def test_every_row_is_about_a_scenario() -> None:
    names = [scenario.name for scenario in scenarios()]
    assert [row.scenario for row in table() if not any(row.matches(name) for name in names)] == []


def test_every_kind_of_sabotage_is_used_and_known() -> None:
    used = {row.sabotage for row in table() if row.sabotage and not row.sabotage.startswith("migration-limit=")}
    known = {f"proxy={kind}" for kind in proxy.KINDS} | {f"injector={kind}" for kind in injector.KINDS}
    known |= {f"shape={kind}" for kind in SHAPES} | {f"witness={kind}" for kind in WITNESSES}
    known |= {f"cluster={kind}" for kind in CLUSTERS}
    of_lies = [way.sabotage for row in rows() for lie in LIES for way in ways(row, lie)]
    used |= {each for each in of_lies if not each.startswith("list=")}
    # It can be imported in Dynamo's environment only.
    engine = (ROOT / "support" / "engines" / "ruler.py").read_text()
    assert {each for each in used if not each.startswith("ruler=")} == known
    assert all(f'"{each.removeprefix("ruler=")}"' in engine for each in used if each.startswith("ruler="))


def test_every_known_defect_is_about_a_scenario() -> None:
    everything = enumerate_scenarios(ROOT, [], ["not @no.such.tag"])
    assert defects.unmatched(defects.load(), [(scenario.feature, scenario.name) for scenario in everything]) == []


def test_a_row_is_caught_by_what_carries_the_verdict_alone() -> None:
    row = Sabotage("s", "proxy=drops-token", finds=[Find(seen="in-flight", where={"requests": 1})])
    busy, words = Busy("w-0", "worker", 1.0), "1 in flight"
    of_dynamo, excused = (Finding.of("sentence", "w-0", busy, each, words) for each in ("dynamo", "suite"))
    other = Finding.of("gauges", "f-0", GaugeSeen("f-0", "frontend", "busy", 1.0))
    more = Finding.of("sentence", "w-0", Busy("w-0", "worker", 2.0))

    def seen(word: str, *findings: Finding) -> Verdict:
        return Verdict("F", "s", "f:1", [], word, 1.0, "the gauge is 1", list(findings))

    assert row.explains(seen("failed", other, of_dynamo))
    assert not row.explains(seen("failed", other, excused))
    assert not row.explains(seen("failed", other))
    assert not row.explains(seen("failed", more))
    assert not row.explains(seen("inconclusive", other, of_dynamo))
    unproven = Sabotage("s", "injector=does-nothing", "inconclusive", words="in flight")
    assert unproven.explains(seen("inconclusive", excused))
    assert not unproven.explains(seen("inconclusive", of_dynamo))
    assert Sabotage("s", "injector=dawdles", "passed").explains(seen("passed"))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Sabotage("s", "x"), "names nothing that has to be found"),
        (Sabotage("s", "x", "inconclusive"), "words are for inconclusive rows"),
        (Sabotage("s", "x", words="in flight"), "words are for inconclusive rows"),
        (Sabotage("s", "x", finds=[Find()]), "neither rule nor seen"),
        (Sabotage("s", "x", finds=[Find(seen="flight")]), "seen is 'flight'; expected one of"),
        (Sabotage("s", "x", finds=[Find(seen="in-flight", where={"pid": 1})]), "'in-flight' has no field 'pid'"),
    ],
)
def test_a_row_that_could_catch_nothing_is_refused(row: Sabotage, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        row.check()


ROW = Sabotage("s", "proxy=drops-token", finds=[Find(seen="in-flight")])
FOUND = Finding.of("sentence", "w-0", Busy("w-0", "worker", 1.0))


def verdict(word: str, *findings: Finding) -> Verdict:
    return Verdict("F", "s", "f:1", [], word, 1.0, "", list(findings))


@pytest.mark.parametrize(
    ("came_out", "marks", "expected"),
    [
        (verdict("failed", FOUND), 1, "caught"),
        # It is red, and not for what nobody has done to it.
        (verdict("failed", FOUND), 0, "not reached"),
        (verdict("passed"), 1, "missed"),
        (verdict("passed"), 0, "not reached"),
        (verdict("failed", Finding.of("sentence", "w-0", GaugeSeen("f-0", "frontend", "busy", 1.0))), 1, "missed"),
        (verdict("inconclusive"), 1, "inconclusive"),
        (verdict("skipped"), 1, "inconclusive"),
        (None, 1, "inconclusive"),
    ],
)
def test_what_became_of_a_trial(came_out: Verdict | None, marks: int, expected: str) -> None:
    assert outcome(ROW, came_out, marks) == expected


def test_a_defect_of_dynamo_itself_leaves_no_mark() -> None:
    row = Sabotage("s", "", "known_defect", finds=[Find(seen="in-flight")])
    assert outcome(row, verdict("known_defect", FOUND), 0) == "caught"
    assert outcome(row, verdict("passed"), 0) == "missed"


def test_a_mark_that_comes_after_the_verdict_does_not_count(tmp_path: Path) -> None:
    told = tmp_path / "verdict.json"
    told.write_text("{}")
    os.utime(told, (1000.0, 1000.0))
    assert marks_before(tmp_path, told) == []
    lines = [json.dumps({"at": at, "what": f"at {at:g}"}) for at in (999.0, 1000.0, 1001.0)]
    (tmp_path / "marks.jsonl").write_text("\n".join(lines) + "\n")
    assert marks_before(tmp_path, told) == ["at 999", "at 1000"]
    assert marks_before(tmp_path, None) == ["at 999", "at 1000", "at 1001"]


def trial(scenario: str = "one", sabotage: str = "proxy=stalls", came_out: str = "caught", **fields: str) -> Trial:
    more = {"expected": "failed", "wanted": "gauges"} | fields
    told = {
        "verdict": "failed",
        "reason": "",
        "marks": 1,
        "proof": "",
        "seconds": 30.0,
        "at": "2026-11-27T22:00:00+00:00",
    }
    return Trial("F", scenario, sabotage, outcome=came_out, **more, **told, dynamo="1.6.1", sources="abc")  # type: ignore[arg-type]


def test_the_score_names_whom_nobody_caught_and_who_caught_nobody(tmp_path: Path) -> None:
    every = [
        trial("one"),
        trial("one", "proxy=truncates", "missed"),
        trial("two", "proxy=stalls", "not reached"),
        # It may not turn red, so it is no catch.
        trial("three", "injector=dawdles", expected="passed"),
        trial("three", "proxy=two-ends", "inconclusive"),
        trial("three", "", "missed", expected="known_defect"),
    ]
    found = score(every, 8)
    counts = {name: found[name] for name in ("wanted", "caught", "missed", "inconclusive", "not reached", "not run")}
    assert list(counts.values()) == [8, 2, 2, 1, 1, 2]
    assert found["sabotages that nobody caught"] == ["proxy=truncates", "proxy=two-ends"]
    assert found["scenarios that caught nobody"] == ["F: three", "F: two"]

    assert read_trials(tmp_path) == []
    write_trials(tmp_path, every, 8)
    assert read_trials(tmp_path) == every
    line = "2 of 8 caught, 2 missed, 1 inconclusive, 1 not reached, 2 not run"
    assert self_tests.self_tests(tmp_path) == {"sabotage": line}


def test_the_score_of_a_part_of_the_mutants_is_not_told(tmp_path: Path) -> None:
    for whole, told in ((True, {"mutation": "91.2 % of 250 mutants killed"}), (False, {})):
        (tmp_path / "mutation.json").write_text(json.dumps({"percent": 91.2, "mutants": 250, "whole": whole}))
        assert self_tests.self_tests(tmp_path) == told


def test_how_long_trials_take_is_what_they_took_before(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (Selected("F", name, f"f:{name}", ()) for name in ("one", "two", "three"))
    row = Sabotage("*", "proxy=stalls", finds=[Find(rule="gauges")])
    pairs = [(each, row) for each in (one, two, three)]
    clock = iter([0.0, 100.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    estimate = Estimate([trial("one")], {"F: two": Cost(60.0, 5.0)}, jobs=2)
    assert [estimate.seconds(pair) for pair in pairs] == [30.0, 60.0, trials.USUAL_SECONDS]
    assert estimate.left(pairs[:2], []) == 45.0
    assert estimate.left(pairs[:1], []) == 30.0
    # Those two took 100 seconds together and not 45.
    assert estimate.left(pairs[2:], pairs[:2]) == pytest.approx(trials.USUAL_SECONDS * 100 / 90)


def test_a_trial_is_of_one_row_and_one_state_of_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Selected("F", "one", "f:1", ())
    rules = [Sabotage("*", "proxy=stalls", finds=[Find(rule=rule)]) for rule in ("gauges", "order")]
    assert row_of((scenario, rules[0])) == trial().row
    assert row_of((scenario, rules[1])) != trial().row

    monkeypatch.setattr(trials, "ROOT", tmp_path)
    for name in ("environment.py", "behave.ini", "requirements.txt"):
        (tmp_path / name).touch()
    (tmp_path / "agents" / "__pycache__").mkdir(parents=True)
    before = sources()
    (tmp_path / "agents" / "__pycache__" / "x.pyc").write_text("compiled")
    (tmp_path / "docs.md").write_text("told")
    assert sources() == before
    (tmp_path / "agents" / "x.py").write_text("changed")
    assert sources() != before
