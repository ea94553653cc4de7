"""The formatter for Allure, on a real run of behave with every way in which a scenario can end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from allure_commons.utils import md5

from support.judge.verdict import Finding, Verdict
from support.report import allure

ROOT = Path(__file__).parents[1]

BEHAVE = """
[behave]
paths = features
show_skipped = false
scenario_outline_annotation_schema = {name}
capture_hooks = false
"""

ENVIRONMENT = """
from support.judge.verdict import Finding, Verdict
from support.report import allure

def before_all(context):
    context.on_cleanup_error = allure.on_cleanup_error

def before_feature(context, feature):
    if "feature_breaks" in feature.tags:
        raise OSError("no feature today")

def before_scenario(context, scenario):
    if "before_breaks" in scenario.tags:
        raise OSError("no scenario today")
    if "skipped_before" in scenario.tags:
        scenario.skip("needs a GPU")
    if "cleanup_breaks" in scenario.tags:
        context.add_cleanup(throw_away)

def throw_away():
    raise OSError("it sticks")

def after_scenario(context, scenario):
    if "after_breaks" in scenario.tags:
        raise OSError("no end today")
    for tag in scenario.tags:
        if tag.startswith("verdict."):
            word = tag.removeprefix("verdict.")
            found = [Finding("sentence", "x", "seen")] if word == "failed" else []
            verdict = Verdict(scenario.feature.name, scenario.name, "", scenario.tags, word, 1.0, "for a reason", found)
            allure.set_verdict(verdict, {"dynamo": context.config.userdata["dynamo"]})
"""

STEPS = """
from behave import step

@step("it works")
def works(context):
    pass

@step("it fails")
def fails(context):
    raise AssertionError("it did not work")

@step("it breaks")
def breaks(context):
    raise OSError("it broke")

@step("it gives up")
def gives_up(context):
    context.scenario.skip("needs two GPUs")
"""

FEATURE = """
Feature: Ends
  @before_breaks
  Scenario: before breaks
    Given it works
  @after_breaks
  Scenario: after breaks
    Given it works
  @cleanup_breaks @verdict.passed
  Scenario: cleanup breaks
    Given it works
  @skipped_before
  Scenario: skipped before
    Given it works
  Scenario: skipped in a step
    Given it gives up
    Then it works
  Scenario: after the skip
    Given it works
  @verdict.passed
  Scenario: passed
    Given it works
  @verdict.failed
  Scenario: failed by an invariant
    Given it works
  @verdict.inconclusive
  Scenario: inconclusive
    Given it fails
  @verdict.known_defect
  Scenario: known defect
    Given it fails
  @verdict.failed
  Scenario: failed with a step that broke
    Given it breaks
  @verdict.inconclusive
  Scenario: inconclusive with a step that broke
    Given it breaks
  Rule: a rule
    Scenario: under a rule
      Given it works
"""

DATA_FEATURE = """
@blocker @allure.issue:http://issues/1
Feature: Data
  Background: ground
    Given it works

  @verdict.passed
  Scenario Outline: with <what>
    In words.
    When it works
      \"\"\"
      a text
      \"\"\"
    Then it works
      | a | b |
      | 1 | 2 |

    Examples: all
      | what | more |
      | data | x    |

  Scenario: fails half-way
    When it fails
    Then it works

  Scenario: nobody knows
    Then nobody knows it

  @verdict.passed @vllm
  Scenario: a twin
    When it works

  @verdict.passed @sglang
  Scenario: a twin
    When it works
"""

BROKEN_FEATURE = """
@feature_breaks
Feature: Never begins
  Scenario: never starts
    Given it works
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toy")


def run(folder: Path, dynamo: str) -> dict[str, dict[str, Any]]:
    """Results of the toy project by scenario name."""
    for name, text in {
        "environment.py": ENVIRONMENT,
        "steps/s.py": STEPS,
        "features/ends.feature": FEATURE,
        "features/broken.feature": BROKEN_FEATURE,
        "features/data.feature": DATA_FEATURE,
        "behave.ini": BEHAVE,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    results = folder / f"results-{dynamo}"
    command = [sys.executable, "-m", "behave", "-f", "steps.allure_formatter:AllureFormatter", "-o", str(results)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([*command, f"-Ddynamo={dynamo}"], cwd=folder, env=environment, capture_output=True)
    found = [json.loads(file.read_text()) for file in results.glob("*-result.json")]
    assert len(found) == 19
    return {result["name"]: result for result in found}


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, dict[str, Any]]:
    return run(folder, "1.6.1")


@pytest.mark.parametrize(
    ("name", "status", "said", "category"),
    [
        ("before breaks", "broken", "no scenario today", "suite"),
        ("after breaks", "broken", "no end today", "suite"),
        ("cleanup breaks", "broken", "throw_away failed in cleanup: OSError: it sticks", "suite"),
        ("never starts", "broken", "no feature today", "suite"),
        ("skipped before", "skipped", "needs a GPU", "skipped"),
        ("skipped in a step", "skipped", "needs two GPUs", "skipped"),
        ("passed", "passed", "", "passed"),
        ("failed by an invariant", "failed", "Dynamo defect: for a reason", "dynamo"),
        ("inconclusive", "broken", "says nothing about Dynamo): for a reason", "suite"),
        ("known defect", "unknown", "Known Dynamo defect: for a reason", "known"),
        ("under a rule", "passed", "", "suite"),
    ],
)
def test_every_end_is_reported(
    results: dict[str, dict[str, Any]], name: str, status: str, said: str, category: str
) -> None:
    result = results[name]
    assert result["status"] == status
    assert said in (result.get("statusDetails") or {}).get("message", "")
    labels = {label["name"]: label["value"] for label in result["labels"]}
    assert labels["category"] == category
    assert labels["location"].startswith("features/")


def test_steps_of_a_skipped_scenario_do_not_leak_into_the_next_one(results: dict[str, dict[str, Any]]) -> None:
    assert [step["name"] for step in results["after the skip"]["steps"]] == ["Given it works"]


def test_a_scenario_is_known_by_ids_that_stay(results: dict[str, dict[str, Any]]) -> None:
    """Others would cut off the histories in reports of earlier runs."""
    case = "8e2bdbd296f8c59fc7ae968026acc789"
    assert (results["passed"]["testCaseId"], results["passed"]["historyId"]) == (case, md5(case, "dynamo=1.6.1"))
    outlined, case = results["with data"], md5("Data: with data")
    assert (outlined["fullName"], outlined["testCaseId"]) == ("Data: with data", case)
    assert outlined["historyId"] == md5(case, "dynamo=1.6.1")


def test_equal_names_and_other_engines_are_other_tests(folder: Path, results: dict[str, dict[str, Any]]) -> None:
    every = [json.loads(file.read_text()) for file in (folder / "results-1.6.1").glob("*-result.json")]
    twins = sorted((each for each in every if each["name"] == "a twin"), key=lambda each: str(each["fullName"]))
    assert [each["fullName"] for each in twins] == ["Data: a twin", "Data: a twin (2)"]
    assert {"name": "engine", "value": "vllm"} in twins[0]["parameters"]
    assert {"name": "engine", "value": "sglang"} in twins[1]["parameters"]
    ids = [(each["testCaseId"], each["historyId"]) for each in every]
    assert len({case for case, _ in ids}) == len({history for _, history in ids}) == len(results) + 1


def test_a_scenario_whose_process_died_has_the_ids_that_it_always_has(results: dict[str, dict[str, Any]]) -> None:
    verdict = Verdict("Data", "a twin", "features/data.feature:30", ["sglang"], "inconclusive", 2.0, "killed")
    made = allure.synthetic(verdict, {"dynamo": "1.6.1"}, twin=2)
    assert made.fullName == "Data: a twin (2)"
    assert results["a twin"]["fullName"] in ("Data: a twin", "Data: a twin (2)")
    assert made.testCaseId == md5("Data: a twin (2)")
    assert made.historyId == md5(made.testCaseId, "dynamo=1.6.1", "engine=sglang")


def test_a_traceback_is_no_part_of_a_verdict_about_dynamo(results: dict[str, dict[str, Any]]) -> None:
    def traces(name: str) -> list[str]:
        result = results[name]
        every = [result, *result["steps"]]
        return [(each.get("statusDetails") or {}).get("trace") or "" for each in every]

    assert not [trace for trace in traces("failed with a step that broke") if "in breaks" in trace or "File" in trace]
    assert all("in breaks" in trace for trace in traces("inconclusive with a step that broke"))
    [step] = results["failed with a step that broke"]["steps"]
    assert step["statusDetails"]["message"].strip() == "OSError: it broke"


@pytest.mark.parametrize(
    ("name", "owner"),
    [("passed", None), ("known defect", "Dynamo"), ("failed by an invariant", "Dynamo"), ("inconclusive", "the suite")],
)
def test_a_result_says_which_promise_it_is_about_and_whose_doing_it_is(
    results: dict[str, dict[str, Any]], name: str, owner: str | None
) -> None:
    labels = {label["name"]: label["value"] for label in results[name]["labels"]}
    assert (labels["epic"], labels["feature"], labels["story"]) == (allure.EPIC, "Ends", name)
    assert labels.get("owner") == owner
    assert labels["severity"] == "normal"


def test_a_story_is_the_same_whatever_it_runs_on() -> None:
    found = allure.labels("features/f.feature:3", "F", "A worker dies (vllm, tcp)", ["smoke"])
    told = {label.name: label.value for label in found}
    assert (told["story"], told["severity"]) == ("A worker dies", "critical")


def test_a_scenario_is_described_as_it_is_written(folder: Path, results: dict[str, dict[str, Any]]) -> None:
    result = results["with data"]
    assert (result["description"], result["titlePath"]) == ("In words.", ["features", "Data"])
    row = [{"name": name, "value": value, "excluded": True} for name, value in (("what", "data"), ("more", "x"))]
    assert result["parameters"] == [*row, {"name": "dynamo", "value": "1.6.1"}]
    assert result["links"] == [{"type": "issue", "url": "http://issues/1", "name": "http://issues/1"}]
    assert result["start"] <= result["steps"][0]["start"] <= result["steps"][2]["stop"] <= result["stop"]
    labels = [(label["name"], label["value"]) for label in result["labels"]]
    assert {("severity", "blocker"), ("tag", "verdict.passed"), ("feature", "Data"), ("framework", "behave")} < {
        *labels
    }
    ground, when, then = result["steps"]
    assert [step["name"] for step in (ground, when, then)] == ["Given it works", "When it works", "Then it works"]
    assert {step["status"] for step in (ground, when, then)} == {"passed"}
    attached = [(each["name"], each["type"], each["source"]) for each in when["attachments"] + then["attachments"]]
    assert [entry[:2] for entry in attached] == [(".text", "text/plain"), (".table", "text/csv")]
    texts = [(folder / "results-1.6.1" / source).read_text() for _, _, source in attached]
    assert texts == ["a text", "a,b\n1,2\n"]


def test_a_step_that_fails_says_why_and_those_after_it_are_skipped(results: dict[str, dict[str, Any]]) -> None:
    result = results["fails half-way"]
    assert [step["status"] for step in result["steps"]] == ["passed", "failed", "skipped"]
    said = result["steps"][1]["statusDetails"]
    assert said == {"message": "it did not work"}
    assert (result["status"], result["statusDetails"]) == ("failed", said)
    unknown = results["nobody knows"]
    assert [step["status"] for step in unknown["steps"]] == ["passed", "broken"]
    assert (unknown["status"], unknown["statusDetails"]["message"]) == (
        "broken",
        "no step is defined for this sentence; `behave --steps-catalog` lists those that are",
    )


def test_a_scenario_that_was_not_selected_has_no_result(folder: Path, results: dict[str, dict[str, Any]]) -> None:
    options = ["-f", "steps.allure_formatter:AllureFormatter", "-o", "chosen"]
    options += ["--tags=@verdict.failed", "--show-skipped"]
    command = [sys.executable, "-m", "behave", *options, "-Ddynamo=1.6.1"]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    names = {json.loads(each.read_text())["name"] for each in (folder / "chosen").iterdir()}
    assert names == {"failed by an invariant", "failed with a step that broke"}


def test_a_known_defect_is_no_failure(results: dict[str, dict[str, Any]]) -> None:
    assert [name for name, result in results.items() if result["status"] == "unknown"] == ["known defect"]
    steps = {name: [step["status"] for step in results[name]["steps"]] for name in ("known defect", "inconclusive")}
    assert steps == {"known defect": ["unknown"], "inconclusive": ["failed"]}


def test_another_release_has_a_history_of_its_own(results: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    other = run(tmp_path, "1.4.2")
    assert other["passed"]["historyId"] != results["passed"]["historyId"]
    assert other["passed"]["testCaseId"] == results["passed"]["testCaseId"]
    assert {"name": "dynamo", "value": "1.4.2"} in other["passed"]["parameters"]


def test_a_synthetic_result_says_what_the_verdict_says() -> None:
    finding = Finding("step-error", "x", "killed", blame="suite")
    verdict = Verdict("F", "s", "features/f.feature:3", ["smoke"], "inconclusive", 2.0, "killed", [finding])
    result = allure.synthetic(verdict, {"dynamo": "1.6.1"})
    assert (result.status, result.stop - result.start) == ("broken", 2000)
    assert result.statusDetails.message == "Suite or surroundings (says nothing about Dynamo): killed"
    assert "[step-error] x: killed" in result.statusDetails.trace
