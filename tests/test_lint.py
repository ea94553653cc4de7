"""Mistakes in feature files: each is found before anything starts, at its line, with what to write instead."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from behave.configuration import Configuration

from steps.lint import all_well, parse, sentences
from support.errors import Mistake, nearest, unknown
from support.judge.history import History
from support.judge.judge import complaints, decide, judge_scenario
from support.judge.verdict import Verdict
from support.marks import THINGS, marks, marks_of
from support.report import runs, wording
from support.run.lint import files, tags
from support.run.lint.found import FoundMistake, report
from support.run.lint.sentences import PLACEHOLDER
from support.run.runtime import failure_of
from support.run.selection import enumerate_scenarios
from support.settings import ROOT
from support.words import EXAMPLES, TYPES

PLANTED = ROOT / "tests" / "data" / "mistakes.feature"
GOOD = "    Given a Dynamo deployment with 1 ruler worker\n    Then a new request succeeds within 5 seconds\n"


@pytest.fixture(autouse=True, scope="module")
def _() -> None:
    """Have behave.ini read, as each behave has: it says how rows of an outline are called."""
    Configuration([])


def lint(folder: Path, **texts: str) -> list[FoundMistake]:
    """The mistakes in some feature files, by their names."""
    (folder / "features").mkdir(exist_ok=True)
    names = []
    for name, text in texts.items():
        names.append(str(folder / "features" / f"{name}.feature"))
        Path(names[-1]).write_text(text, encoding="utf-8")
    return sorted(set(files.find(names, parse, sentences(), folder)))


def only(found: list[FoundMistake]) -> tuple[int, str, str]:
    """Line, what is wrong and what to write of the one mistake that there is."""
    assert len(found) == 1, report(found)
    return found[0].line, found[0].wrong, found[0].write


def planted() -> list[tuple[int, str, str]]:
    """Line, words and what to write of each mistake that is planted."""
    lines, found = PLANTED.read_text().splitlines(), []
    for number, line in enumerate(lines, 1):
        if (said := line.strip()).startswith("#! "):
            wrong, _, write = said.removeprefix("#! ").partition(" -> ")
            found.append((number + 1, wrong, write))
    return found


def test_every_planted_mistake_is_told_at_its_line_with_what_to_write_and_nothing_else_is() -> None:
    found = sorted(set(files.find([str(PLANTED)], parse, sentences())))
    wanted = planted()
    assert len(wanted) >= 50
    assert [each.line for each in found] == [line for line, _, _ in wanted], report(found)
    for each, (_, wrong, write) in zip(found, wanted, strict=True):
        assert wrong in each.wrong, each.told()
        assert write in (each.write or " ".join(each.allowed)), each.told()


def test_the_features_of_the_suite_have_no_mistakes() -> None:
    every = [str(each) for each in sorted((ROOT / "features").rglob("*.feature"))]
    assert report(files.find(every, parse, sentences())) == ""


@pytest.mark.parametrize(
    ("text", "line", "wrong", "write"),
    [
        ("", 1, "the file does not begin with a Feature", "Feature: NAME as its first line"),
        (f"  Scenario: s\n{GOOD}", 1, "the file does not begin with a Feature", "Feature: NAME as its first line"),
        ("Feature: f\n  Says something.\n", 1, "the feature has no scenario", "Scenario: NAME, with its steps"),
        (f"Featur: f\n  Scenario: s\n{GOOD}", 1, "'Featur: f' is not a heading", "Feature: f"),
        (f"Feature: f\n  Scenario s\n{GOOD}", 2, "'Scenario s' is not a heading", "Scenario: s"),
        (f"Feature: f\n\n  It works.\n{GOOD.splitlines()[0]}", 4, "in no scenario", "Scenario: NAME above it"),
        (f"Feature: f\n  Scenario: r\n{GOOD}  Scenario s\n{GOOD}", 5, "'Scenario s' is not a heading", "Scenario: s"),
        (
            f"Feature: f\n  Scenario: s\n{GOOD}    Examples:\n      | x |\n",
            2,
            "Examples need a Scenario Outline",
            "Outline",
        ),
        (f"Feature: f\n  Scenario: s\n{GOOD}Feature: g\n", 5, "a file has one feature", "a file of its own"),
        (f"Feature: f\n  Scenario: s\n{GOOD}  Background:\n{GOOD}", 5, "the Background is below", "above all"),
        (f"Feature: f\n  Scenario: s\n    And this\n{GOOD}", 3, "And and But come after a Given", ""),
        (f"Feature: f\n  @smoke slow\n  Scenario: s\n{GOOD}", 2, "each word begins with @", ""),
        (f"Feature: f\n  Scenario:\n{GOOD}", 2, "the Scenario has no name", ""),
    ],
)
def test_what_behave_cannot_read_is_told_in_words(tmp_path: Path, text: str, line: int, wrong: str, write: str) -> None:
    found = [each for each in lint(tmp_path, x=text) if wrong in each.wrong]
    assert [each.line for each in found] == [line], report(lint(tmp_path, x=text))
    assert write in found[0].write


def test_a_row_with_a_cell_too_few(tmp_path: Path) -> None:
    table = "      | setting | value |\n      | lease |\n"
    given, then = GOOD.splitlines(keepends=True)
    found = lint(tmp_path, x=f"Feature: f\n  Scenario: s\n{given}{table}{then}")
    assert only(found) == (5, "the row has more or fewer cells than the heading row", "a cell for each column")


def test_a_file_that_is_no_utf_8(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "x.feature").write_bytes(b"Feature: \xff\n")
    found = list(files.find([str(tmp_path / "features" / "x.feature")], parse, sentences(), tmp_path))
    assert only(found)[1].startswith("the file is not UTF-8")


def test_two_features_of_one_name(tmp_path: Path) -> None:
    text = f"Feature: f\n  Scenario: s\n{GOOD}"
    assert lint(tmp_path, a=text) == []
    line, wrong, write = only(lint(tmp_path, b=text))  # the other one is there, and was not chosen
    assert (line, write) == (1, "another name")
    assert wrong == "features/a.feature also has a feature 'f'; the two would share one history"


def test_a_step_of_the_background_is_told_once(tmp_path: Path) -> None:
    text = "Feature: f\n  Background:\n    Given a Dynamo deployment with 2 vlm workers\n"
    text += "".join(f"  Scenario: {name}\n    Then a new request succeeds within 5 seconds\n" for name in "ab")
    assert only(lint(tmp_path, x=text))[:2] == (3, "unknown engine 'vlm'")


def test_a_background_and_a_rule_bring_what_is_needed(tmp_path: Path) -> None:
    text = """
@ruler
Feature: f
  Background:
    Given a Dynamo deployment with 1 ruler worker

  @timed
  Rule: r
    Background:
      Given a client has received a streamed completions answer of 20 tokens
    Scenario: s
      Then the answer completes with 20 tokens

  Rule: q
    Scenario: t
      Then a new request succeeds within 5 seconds
"""
    assert lint(tmp_path, x=text) == []


def test_longer_deadlines_for_those_that_may_take_longer(tmp_path: Path) -> None:
    text = f"Feature: f\n  {{}}\n  Scenario: s\n{GOOD.replace('5 seconds', '{} seconds')}"
    assert lint(tmp_path, x=text.format("@slow", 400)) == []
    assert "longer than the scenario may take: 3600" in only(lint(tmp_path, x=text.format("@soak", 3600)))[1]
    assert "longer than the scenario may take: 300" in only(lint(tmp_path, x=text.format("@smoke", 300)))[1]


def test_tags_of_ones_own(tmp_path: Path) -> None:
    text = f"Feature: f\n  @own.team_a\n  Scenario: s\n{GOOD}"
    assert lint(tmp_path, x=text) == []
    assert only(lint(tmp_path, x=text.replace("own.team_a", "own.")))[1] == "unknown tag @own."


def test_a_tag_of_a_row_is_told_at_the_row(tmp_path: Path) -> None:
    text = f"Feature: f\n  @<tag>\n  Scenario Outline: s <tag>\n{GOOD}    Examples:\n      | tag |\n      | slwo |\n"
    assert only(lint(tmp_path, x=text)) == (8, "unknown tag @slwo", "@slow")


def test_every_tag_that_the_suite_asks_for_is_known() -> None:
    left_out = re.findall(r"not @([\w.-]+)", (ROOT / "behave.ini").read_text())
    for tag in (*left_out, "timed", "ruler", "needs.kmsg", "gpu", "k8s", "release.counts_cancellations", *tags.TOPICS):
        assert list(tags.mistakes(tag)) == []


def test_a_worker_that_joins_in_time_completes_the_answer(tmp_path: Path) -> None:
    late = "    When the worker serving the request {}\n    And a new worker joins the deployment\n"
    head = "Feature: f\n  Scenario: s\n    Given a Dynamo deployment with {} ruler worker\n"
    head += "    And a client is receiving a streamed completions answer of 200 tokens\n"
    then = "    Then the answer completes with 200 tokens\n"
    found = lint(tmp_path, x=head.format(1) + late.format("is restarted mid-answer") + then)
    assert "one that joins later comes too late" in only(found)[1]
    in_time = "    When a new worker joins the deployment\n    And the worker serving the request crashes mid-answer\n"
    for act in (late.format("is shut down mid-answer"), late.format("hangs mid-answer"), in_time):
        assert lint(tmp_path, x=head.format(1) + act + then) == []
    assert lint(tmp_path, x=head.format(2) + late.format("crashes mid-answer") + then) == []


def test_prose_is_no_misspelt_step(tmp_path: Path) -> None:
    prose = "  The workers crash one after the other.\n  Note: this takes a while. When it is over, all is whole.\n"
    text = f"Feature: f\n{prose}  Scenario: s\n  {prose}{GOOD}"
    assert lint(tmp_path, x=text) == []


@pytest.mark.parametrize(
    ("word", "words", "meant"),
    [("vlm", ("vllm", "sglang"), "vllm"), ("Always", ("always",), "always"), ("zebra", ("vllm", "sglang"), "")],
)
def test_the_nearest_word(word: str, words: tuple[str, ...], meant: str) -> None:
    assert nearest(word, words) == meant
    assert str(unknown("x", word, words)).endswith(f"; write {meant}" if meant else ", ".join(words))


def test_a_mistake_is_told_with_what_is_allowed_and_what_to_write() -> None:
    found = FoundMistake.at("a.feature", 3, Mistake("unknown x 'y'", ("u", "v"), "u"))
    long = FoundMistake("a.feature", 2, "no sentence", ("one two " * 10, "three four " * 10), called="nearest")
    assert report([found, found, long]).splitlines() == [
        "a.feature:2: no sentence",
        f"    nearest: {'one two ' * 10}",
        f"             {'three four ' * 10}",
        "a.feature:3: unknown x 'y'",
        "    allowed: u, v",
        "    write:   u",
        "",
        "2 mistakes in 1 feature file; nothing was started",
    ]
    assert report([]) == ""


def test_each_step_that_reads_a_table_says_which_and_no_other_does() -> None:
    for file in sorted((ROOT / "steps").glob("*.py")):
        for step in re.split(r"\n\n\n", file.read_text()):
            if step.startswith(("@given", "@when", "@then")):
                body = step.partition('"""')[2].partition('"""')[2]
                reads = re.search(r"\b(deploy|send|given_receiving|failures|check_settings)\(", body) is not None
                assert reads == ("marks(table=" in step), f"{file.name}: {step}"


def test_each_word_of_a_sentence_can_be_listed_or_has_an_example() -> None:
    registry = sentences()._steps
    used = {each[1] for kind in registry.values() for step in kind for each in PLACEHOLDER.findall(step.pattern)} - {""}
    assert used <= {*TYPES}
    for name, word_type in TYPES.items():
        words = getattr(word_type, "words", ())
        assert bool(words) != (name in EXAMPLES), name
        for word in words or [EXAMPLES[name]]:
            word_type(word)


def test_things_are_brought_by_some_and_needed_by_others() -> None:
    steps = [each.func for kind in sentences()._steps.values() for each in kind]
    assert {thing for step in steps for thing in marks_of(step).brings} == {*THINGS}
    needed = {thing for step in steps for thing in marks_of(step).needs}
    assert needed | {"deployment"} == {*THINGS}
    with pytest.raises(ValueError, match=r"unknown things \{'luck'\}"):
        marks(brings="luck")


# -- the ways in


def behave(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "FT_RUN_DIR"}
    argv = [sys.executable, "-m", "behave", *arguments]
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("how", [["--dry-run"], ["-D", "target=fake"], []])
def test_behave_starts_nothing_where_there_is_a_mistake(how: list[str]) -> None:
    before = runs.history(ROOT / "reports")
    done = behave(*how, str(PLANTED.relative_to(ROOT)))
    assert done.returncode == 2
    assert f"{len(planted())} mistakes in 1 feature file; nothing was started" in done.stderr
    assert ("Traceback" in done.stderr, "Scenario" in done.stdout) == (False, False)
    assert runs.history(ROOT / "reports") == before


def test_make_acceptance_lists_nothing_where_there_is_a_mistake() -> None:
    with pytest.raises(RuntimeError, match=r"tests/data/mistakes.feature:4: unknown tag @migratoin"):
        enumerate_scenarios(ROOT, [str(PLANTED.relative_to(ROOT))], [])


def test_what_was_checked_is_told_where_all_is_well(tmp_path: Path) -> None:
    for name, count in (("one", 1), ("two", 2)):
        (tmp_path / name).write_text(f"Feature: {name}\n" + "".join(f"  Scenario: {n}\n{GOOD}" for n in range(count)))
    told = all_well([str(tmp_path / "one"), str(tmp_path / "two")])
    assert told.startswith("3 scenarios in 2 feature files: no mistake (checked: sentences, values, tables")


def test_make_lint_features() -> None:
    lint_features = ["make", "-s", "lint-features", "BOOTSTRAP=true", f"RUN={sys.executable} -m"]
    done = subprocess.run([*lint_features, f"FEATURES={PLANTED}"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, "mistakes in 1 feature file" in done.stderr) == (2, True), done.stderr
    done = subprocess.run([*lint_features, "FEATURES=features/soak.feature"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("in 1 feature file: no mistake (checked: sentences,")) == (0, 1), (
        done.stderr
    )
    done = subprocess.run([*lint_features, "FEATURES=features/none.feature"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, "there is no such feature" in done.stderr) == (2, True)


@pytest.fixture
def inside() -> Iterator[Path]:
    """A folder in the checkout, where behave finds the steps of its features."""
    (ROOT / "reports").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "reports") as folder:
        yield Path(folder)


RULED = """
@ruler
Feature: Ruled
  Background:
    Given a Dynamo deployment with 1 ruler worker

  @timed
  Rule: Of its own
    Background:
      Given a client has received a streamed completions answer of 20 tokens

    @smoke
    Scenario: In a rule
      Then the answer completes with 20 tokens

  Rule: Of another one
    Scenario Outline: In a row (<seconds>)
      Then a new request succeeds within <seconds> seconds

      Examples:
        | seconds |
        | 5       |
"""


def test_a_background_and_a_rule_run_under_the_launcher_as_under_behave(tmp_path: Path, inside: Path) -> None:
    (inside / "ruled.feature").write_text(RULED)
    found = enumerate_scenarios(ROOT, [os.path.relpath(inside, ROOT)], [])
    assert [(each.name, each.tags) for each in found] == [
        ("In a rule", ("ruler", "timed", "smoke")),
        ("In a row (5)", ("ruler",)),
    ]
    run = runs.create(tmp_path)
    env = os.environ | {"FT_RUN_DIR": str(run)}
    for each in found:
        argv = [sys.executable, "-m", "behave", "-D", "target=fake", "-f", "steps.allure_formatter:AllureFormatter"]
        argv += ["-o", str(run / "allure-results"), "-f", "plain", each.location]
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        verdict = json.loads((runs.scenario_folder(run, each.location) / "verdict.json").read_text())
        assert (verdict["verdict"], tuple(verdict["tags"])) == ("passed", each.tags)
    results = [json.loads(each.read_text()) for each in (run / "allure-results").glob("*-result.json")]
    assert {each["name"]: len(each["steps"]) for each in results} == {"In a rule": 3, "In a row (5)": 2}


# -- the verdict


def test_a_mistake_has_a_verdict_of_its_own_whatever_else_was_seen() -> None:
    failure = Mistake("no load was named")
    findings = judge_scenario(History(panics={"w-0": ["it panicked"]}), failure, "When nothing breaks")
    assert {each.rule for each in findings} == {"mistake", "panics"}
    word, reason, _ = decide(findings, [], "1.6.1", "s")
    assert (word, reason) == ("mistake", "When nothing breaks: no load was named (and 1 more)")
    verdict = Verdict("F", "s", "f:1", [], word, 1.0, reason, findings)
    assert wording.headline(verdict).startswith("Mistake in the scenario (says nothing about Dynamo): When nothing")
    assert complaints([verdict], lambda lack: True) == ["1 with mistakes"]


def test_what_ends_a_step_is_the_mistake_in_it() -> None:
    mistake, other = Mistake("unknown engine"), ValueError("parsed")
    wrapped = ValueError("unknown engine")
    wrapped.__cause__ = mistake
    status = SimpleNamespace(name="undefined")
    assert failure_of(SimpleNamespace(exception=wrapped, status=status)) is mistake
    assert failure_of(SimpleNamespace(exception=other, status=status)) is other
    assert isinstance(failure_of(SimpleNamespace(exception=None, status=status)), Mistake)


UNPLAYABLE = """
Feature: Unplayable
  Scenario: Nobody asks for anything
    Given a Dynamo deployment with 2 ruler workers
    When after 2 requests the worker serving the request crashes
    Then a new request succeeds within 5 seconds

  Scenario: A load has no answer of its own
    Given a Dynamo deployment with 2 ruler workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    When the worker serving the request crashes before the first token
    Then a new request succeeds within 5 seconds

  Scenario: A load that is over
    Given a Dynamo deployment with 2 ruler workers
    And 4 clients keep asking for streamed completions answers of 40 tokens for 2 seconds
    When after 1 second the busiest worker crashes
    And after 3 seconds the busiest worker crashes
    Then every request succeeds

  Scenario: A second load
    Given a Dynamo deployment with 2 ruler workers
    And 4 clients keep asking for streamed completions answers of 40 tokens
    And a client keeps asking for streamed completions answers of 40 tokens
    Then every request succeeds

  Scenario: A RECOVERY that is over too early
    Given a Dynamo deployment with 2 ruler workers
    And 4 clients keep asking for streamed completions answers of 40 tokens for 4 seconds
    When after 1 second the busiest worker hangs for 1 second
    Then at least 99 percent of the requests succeed in RECOVERY for 5 seconds

  Scenario: A new request that has the deployment to itself
    Given a Dynamo deployment with 2 ruler workers
    And 4 clients keep asking for streamed completions answers of 40 tokens for 4 seconds
    When after 1 second the busiest worker hangs for 1 second
    Then a new request is served as fast as before the fault

  Scenario: A word that is not known
    Given a Dynamo deployment with 2 rular workers
    Then a new request succeeds within 5 seconds

  Scenario: A sentence that is not known
    Given a Dynamo deployment with 2 ruler workers
    Then nobody knows this

  Scenario: A shape that cannot be
    Given a disaggregated Dynamo deployment with 1 prefill and 1 decode ruler workers
    Then a new request succeeds within 5 seconds

  Scenario: A failure that can never strike
    Given a Dynamo deployment with 2 ruler workers
    And 4 clients keep asking for streamed completions answers of 40 tokens for 10 seconds
    When after 20 seconds the busiest worker crashes
    Then every request succeeds

  Scenario: A process that an error of its GPU has ended has not left by itself
    Given a Dynamo deployment with 2 ruler workers
    And a client is receiving a streamed completions answer of 600 tokens
    When the GPU of the worker serving the request reports XID 79
    Then the answer completes with 600 tokens
    And no Dynamo process has exited
"""


def test_what_only_shows_when_it_is_played_is_a_mistake_as_well(tmp_path: Path, inside: Path) -> None:
    """Past the lint, as the launcher's processes are: each says what is wrong at once."""
    (inside / "unplayable.feature").write_text(UNPLAYABLE)
    run = runs.create(tmp_path)
    argv = [sys.executable, "-m", "behave", "-D", "target=fake", "-f", "plain", os.path.relpath(inside, ROOT)]
    env = os.environ | {"FT_RUN_DIR": str(run)}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    found = [json.loads(each.read_text()) for each in run.glob("scenarios/*/verdict.json")]
    told = {each["name"]: (each["verdict"], each["reason"]) for each in found}
    assert {name: word for name, (word, _) in told.items()} == {
        "Nobody asks for anything": "mistake",
        "A load has no answer of its own": "mistake",
        "A load that is over": "mistake",
        "A second load": "mistake",
        "A RECOVERY that is over too early": "mistake",
        "A new request that has the deployment to itself": "mistake",
        "A word that is not known": "mistake",
        "A sentence that is not known": "mistake",
        "A shape that cannot be": "mistake",
        "A failure that can never strike": "mistake",
        "A process that an error of its GPU has ended has not left by itself": "passed",
    }, told
    assert "no client has asked for anything yet" in told["Nobody asks for anything"][1]
    assert "the load is over already" in told["A load that is over"][1]
    assert "a scenario has one load" in told["A second load"][1]
    assert "of 5 seconds, with the load; write the load without 'for'" in told["A RECOVERY that is over too early"][1]
    assert "the load is over, so that a new" in told["A new request that has the deployment to itself"][1]
    assert "unknown engine 'rular'" in told["A word that is not known"][1]
    assert "the ruler engine has no prefill workers" in told["A shape that cannot be"][1]
    assert "can never strike" in told["A failure that can never strike"][1]
    assert max(each["seconds"] for each in found if each["verdict"] == "mistake") < 30
