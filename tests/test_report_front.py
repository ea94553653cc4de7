"""The first page: what it says of a release, promise by promise, and against the run before."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from support.events import EventLog
from support.judge.defects import KnownDefect
from support.judge.verdict import Finding, Verdict
from support.report import frontpage, page, promises, publish, runs
from support.report.promises import Changes, Struck
from support.settings import ROOT

SEEN = Finding("sentence", "Then it ends", "it did not")


def verdict(word: str, line: int = 1, feature: str = "Answers go on", **fields: Any) -> Verdict:
    if word == "failed":
        fields.setdefault("findings", [SEEN])
    return Verdict(feature, f"scenario {line}", f"features/x.feature:{line}", [], word, 1.0, **fields)


def known(line: int, *ids: str) -> Verdict:
    return verdict("known_defect", line, known_defects=list(ids))


WORDS = ("passed", "failed", "inconclusive", "skipped")
PASSED, FAILED, OPEN, SKIPPED = (verdict(word, line) for line, word in enumerate(WORDS))


@pytest.mark.parametrize(
    ("verdicts", "state", "sentence"),
    [
        ([PASSED], "kept", "Kept in 1 scenario."),
        ([PASSED, PASSED, SKIPPED], "kept", "Kept in all 2 scenarios."),
        (
            [PASSED, known(5, "a"), known(6, "a", "b")],
            "known",
            "Kept, except for 2 known defects, in 2 of 3 scenarios.",
        ),
        ([PASSED, FAILED], "broken", "Broken in 1 of 2 scenarios."),
        ([FAILED, OPEN, known(5, "a")], "broken", "Broken in 1 of 3 scenarios, and 1 known defect showed."),
        ([PASSED, OPEN], "unproven", "Not proven in 1 of 2 scenarios, kept in the others."),
        (
            [PASSED, OPEN, known(5, "a")],
            "unproven",
            "Not proven in 1 of 3 scenarios, kept in the others except for 1 known defect, in 1 of them.",
        ),
        ([OPEN], "unproven", "Not judged: 1 scenario proved nothing."),
        # a known defect that did not show breaks no promise
        (
            [PASSED, verdict("failed", 5, findings=[])],
            "unproven",
            "Not proven in 1 of 2 scenarios, kept in the others.",
        ),
        ([SKIPPED], "open", "Not judged: none of its scenarios ran."),
        ([], "open", "Not judged: none of its scenarios ran."),
    ],
)
def test_a_promise_has_a_sentence(verdicts: list[Verdict], state: str, sentence: str) -> None:
    [found] = promises.judged(["Answers go on"], verdicts)
    assert (found.state, found.sentence) == (state, sentence)


def test_the_most_urgent_promise_comes_first() -> None:
    verdicts = [verdict("passed", feature="A"), verdict("failed", feature="B"), verdict("inconclusive", feature="C")]
    assert [each.name for each in promises.judged(["D", "A"], verdicts)] == ["B", "C", "A", "D"]


def test_a_release_that_was_tried_in_everything_is_safe_without_a_but() -> None:
    answer = promises.answer("1.6.1", promises.judged(["Answers go on"], [PASSED]), [])
    assert answer == ("kept", "Yes. Dynamo 1.6.1 kept 1 promise in 1 scenario.")


@pytest.mark.parametrize(
    ("verdicts", "complaints", "state", "sentence"),
    [
        (
            [PASSED],
            [],
            "kept",
            "Yes, as far as it was tried. Dynamo 1.6.1 kept 1 promise in 1 scenario. 1 other promise was not judged.",
        ),
        (
            [PASSED, known(5, "a", "b")],
            [],
            "known",
            "Yes, apart from known defects. "
            "Nothing new broke in Dynamo 1.6.1 in 2 scenarios; 2 known defects still showed. "
            "1 other promise was not judged.",
        ),
        (
            [PASSED, OPEN, known(5, "a")],
            ["1 inconclusive"],
            "unproven",
            "Not proven. Nothing new broke in Dynamo 1.6.1, but 1 of 3 scenarios say nothing about it.",
        ),
        (
            [PASSED],
            ["3 of 4 scenarios did not run"],
            "unproven",
            "Not proven. Nothing new broke in Dynamo 1.6.1, but 3 of 4 scenarios did not run.",
        ),
        (
            [PASSED, FAILED, OPEN],
            ["1 failed"],
            "broken",
            "No. Dynamo 1.6.1 broke 1 of 1 promise, in 1 of 3 scenarios.",
        ),
        ([], ["no scenario ran"], "unproven", "Not proven. Nothing new broke in Dynamo 1.6.1, but no scenario ran."),
    ],
)
def test_the_release_has_a_sentence(verdicts: list[Verdict], complaints: list[str], state: str, sentence: str) -> None:
    assert promises.answer("1.6.1", promises.judged(["Other"], verdicts), complaints) == (state, sentence)


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        ([PASSED, SKIPPED], "Neither: Dynamo broke nothing, and the suite worked."),
        (
            [FAILED, known(5, "a")],
            "Dynamo broke a promise in 1 scenario. Known defects showed in 1 more. The suite itself worked.",
        ),
        ([FAILED], "Dynamo broke a promise in 1 scenario. The suite itself worked."),
        ([OPEN], "In 1 scenario the suite itself could not tell."),
        (
            [known(5, "a"), OPEN],
            "Dynamo broke nothing new. Known defects showed in 1 scenario. "
            "In 1 scenario the suite itself could not tell.",
        ),
    ],
)
def test_it_is_dynamo_or_us(verdicts: list[Verdict], sentence: str) -> None:
    assert promises.blame(verdicts) == sentence


@pytest.mark.parametrize(
    ("struck", "sentence"),
    [
        (Struck(0, 0, 0), "We broke nothing."),
        (Struck(1, 1, 0), "1 fault, proven on its victim."),
        (Struck(2, 2, 1), "2 faults, each proven on its victim. Clients misbehaved on purpose once."),
        (Struck(9, 8, 2), "9 faults, 8 of them proven on their victims. Clients misbehaved on purpose 2 times."),
    ],
)
def test_faults_are_counted(struck: Struck, sentence: str) -> None:
    assert struck.sentence == sentence


ON = {"dynamo": "1.6.1", "target": "local"}


def a_run(reports: Path, name: str, verdicts: Sequence[Verdict], target: str = "local") -> Path:
    folder = reports / "runs" / name
    (folder / "scenarios").mkdir(parents=True)
    about = {"dynamo": "1.6.1", "target": target, "started": "2026-11-27T23:21:35+00:00"}
    runs.write_json(folder / "run.json", about)
    runs.write_json(folder / "summary.json", publish.summarize(about, verdicts, []))
    return folder


def test_faults_are_counted_by_what_their_scenarios_recorded(tmp_path: Path) -> None:
    run = a_run(tmp_path, "1", [PASSED, FAILED])
    for each, proven in ((PASSED, True), (FAILED, False)):
        folder = runs.scenario_folder(run, each.location)
        folder.mkdir()
        events = EventLog(folder / "events.jsonl")
        events.add("fault", "w", "x", at=1.0, fault="f", order="crash")
        if proven:
            events.add("proof", "w", "x", at=2.0, fault="f")
        events.add("fault", "client", "client cancels request 1 by close", at=3.0)
    assert promises.struck(run, [PASSED, FAILED, SKIPPED]) == Struck(2, 1, 2)


def test_a_run_is_held_against_the_one_before_it(tmp_path: Path) -> None:
    was = [verdict(*each) for each in (("passed", 1), ("failed", 2), ("known_defect", 3), ("passed", 4), ("passed", 5))]
    a_run(tmp_path, "1", [verdict("failed", 1)])
    a_run(tmp_path, "2", was)
    a_run(tmp_path, "3", [verdict("failed", 1)], target="fake")
    a_run(tmp_path, "4", [verdict("failed", 1, feature="Other")])
    (tmp_path / "runs" / "5").mkdir()
    words = ("failed", "passed", "passed", "inconclusive", "passed", "passed")
    now = [verdict(word, line) for line, word in enumerate(words, 1)]
    run = a_run(tmp_path, "6", now)
    a_run(tmp_path, "7", now)
    found = promises.changes(run, tmp_path, ON, now)
    assert [each.name for each in found.broke] == ["scenario 1", "scenario 4"]
    assert [each.name for each in found.holds] == ["scenario 2"]
    assert found.sentence == (
        "Against the run of 2026-11-27 23:21 UTC on Dynamo 1.6.1: 2 scenarios passed then and not now, "
        "1 scenario passed again, 1 came out the same, 1 did not run then. "
        "The version is the same: run it again (make rerun)."
    )
    other = promises.changes(run, tmp_path, ON | {"dynamo": "1.7.0"}, now)
    assert other.sentence.endswith("1 did not run then.")
    assert promises.changes(tmp_path / "runs" / "1", tmp_path, ON, now) == Changes("")


RECORD = KnownDefect(
    *("answer-cut", "scenario *", SpecifierSet(">=1.6"), [], "always", "5/5", "It is <cut>."),
    upstream="https://github.com/ai-dynamo/dynamo/issues/13691",
)


def facts(verdicts: Sequence[Verdict], **more: Any) -> frontpage.Front:
    usual: dict[str, Any] = {
        "release": "1.6.1",
        "target": "local",
        "versions": {"started": "now", "selection": "@smoke"},
        "promises": promises.judged(["Never tried"], verdicts),
        "complaints": [],
        "worst": None,
        "felt": "Every request was answered whole: 9 of 9.",
        "struck": Struck(3, 3, 0),
        "changes": Changes(""),
        "causes": {each.location: "w-0 crashed" for each in verdicts},
        "ids": {each.location: f"id-{each.name[-1]}" for each in verdicts},
        "records": [RECORD],
    }
    return frontpage.Front(**usual | more)


def test_the_page_names_what_broke_and_links_it() -> None:
    broken = verdict("failed", 7, reason="cut <off>")
    told = frontpage.render(facts([PASSED, broken, known(8, "answer-cut", "unheard-of")]))
    assert '<h1 class="broken">' in told
    assert '<a href="#id-7">scenario 7</a><br><small>Broken on purpose: w-0 crashed</small>' in told
    assert "<br><small>Seen: cut &lt;off&gt;</small></li>" in told
    assert "<summary>answer cut (1 scenario)</summary><p>It is &lt;cut&gt;.</p>" in told
    assert "<p>Recorded for Dynamo &gt;=1.6; it showed in 5 of 5 runs.</p>" in told
    assert '<li id="known-answer-cut">' in told
    assert '<a href="https://github.com/ai-dynamo/dynamo/issues/13691" target="_blank">dynamo #13691</a>' in told
    assert "<summary>unheard of (1 scenario)</summary><ul>" in told
    assert "Not judged in this run: Never tried." in told
    assert "All 3 scenarios" in told
    assert "<th>selection</th><td>@smoke</td>" in told


def test_the_page_begins_with_what_failed_and_what_users_felt() -> None:
    told = frontpage.render(facts([PASSED], target="kubernetes"))
    assert "safe while parts of it fail? Tried on a Kubernetes cluster.</p>" in told
    assert '<dl class="lead"><dt>What users felt</dt><dd>Every request was answered whole: 9 of 9.</dd></dl>' in told
    broken = verdict("failed", 7)
    worst = frontpage.Worst(broken, "2 of 9 requests got an error <x>")
    told = frontpage.render(facts([PASSED, broken], worst=worst, target="moon"))
    assert "Tried on target moon.</p>" in told
    failed = '<b>Answers go on</b>: <a href="#id-7">scenario 7</a>, after w-0 crashed.'
    felt = "In that scenario 2 of 9 requests got an error &lt;x&gt;."
    assert f"<dt>Broken promise</dt><dd>{failed}</dd><dt>What users felt</dt><dd>{felt}</dd></dl>" in told
    told = frontpage.render(facts([PASSED, broken], worst=worst, causes={}))
    assert "scenario 7</a>, with nothing broken on purpose.</dd>" in told


def test_a_known_defect_is_no_failure_on_the_first_page() -> None:
    told = frontpage.render(facts([PASSED, known(8, "answer-cut")]))
    assert '<h1 class="known">' in told
    assert "ailed" not in told
    assert "100" not in told.partition("</style>")[2]


def test_many_broken_scenarios_are_folded() -> None:
    told = frontpage.render(facts([verdict("failed", line) for line in range(9)]))
    assert "<details><summary>Which 9</summary>" in told


def test_states_are_told_apart_without_colour() -> None:
    assert len({sign for sign, _ in frontpage.SIGNS.values()}) == len(promises.STATES) == len(frontpage.SIGNS)


def test_allures_page_gets_the_first_page_or_an_error() -> None:
    assert frontpage.insert('<a><div id="app"></div>', "<main>") == '<a><main><div id="app"></div>'
    with pytest.raises(RuntimeError, match="0 times"):
        frontpage.insert("<a>", "<main>")


def test_every_feature_is_a_promise_and_an_example_is_none() -> None:
    names = publish.features(ROOT / "features")
    assert "A worker dies and its answers continue" in names
    assert len(names) == len(list((ROOT / "features").glob("*.feature")))
    assert not [name for name in names if "xample" in name]


def test_a_run_that_is_published_again_is_once_in_the_history(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    page.forget(history, ["a"])
    assert not history.exists()
    points = [{"testResults": {"x": {"id": each}}} for each in ("a", "b")]
    history.write_text("".join(f"{json.dumps(each)}\n" for each in points) + '{"testRes')
    page.forget(history, ["a", "z"])
    assert [json.loads(line) for line in history.read_text().splitlines()] == points[1:]
