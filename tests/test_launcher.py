"""The launcher on a toy project: every way in which a scenario's process can end, limits, signals, selection."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agents import cell
from support.judge.verdict import Verdict
from support.report import publish, runs
from support.run import cells, launcher, selection
from support.run.launcher import Launcher
from support.run.schedule import Cost, costs_file, read_costs, write_costs
from support.run.selection import Selected, enumerate_scenarios, with_defaults
from support.settings import Settings
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[1]

ENVIRONMENT = """
import os
from pathlib import Path
from support.judge.verdict import Verdict
from support.report import allure, runs

def after_scenario(context, scenario):
    failed = any(step.status.has_failed() for step in scenario.all_steps)
    location = allure.location_of(scenario)
    word = "inconclusive" if failed else "passed"
    verdict = Verdict(scenario.feature.name, scenario.name, location, scenario.effective_tags, word, 0.5)
    folder = Path(os.environ["FT_RUN_DIR"], "scenarios", runs.slug(location))
    folder.mkdir(exist_ok=True)
    runs.write_json(folder / "verdict.json", verdict.as_dict())
    allure.set_verdict(verdict, {})
    if "lies" in scenario.tags:
        raise OSError("after the verdict")
"""

STEPS = """
import os, signal, sys, time
from pathlib import Path
from behave import step

@step("it works")
def works(context):
    print("warning: it works in an odd way", file=sys.__stderr__)

@step("it dies")
def dies(context):
    os._exit(9)

@step("it hangs")
def hangs(context):
    Path("hanging").touch()
    time.sleep(60)

@step("it hangs and will not listen")
def deaf(context):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path("hanging").touch()
    time.sleep(60)

@step("it notes when")
def notes(context):
    with open("notes", "a") as stream:
        stream.write(f"{time.monotonic()} ")
    time.sleep(0.3)
    with open("notes", "a") as stream:
        stream.write(f"{time.monotonic()}\\n")
"""

FEATURE = """
@toy
Feature: Toy
  Scenario: works
    Given it works
  Scenario: dies
    Given it dies
  @lies
  Scenario: lies
    Given it works
  Scenario: hangs
    Given it hangs
  Scenario: is deaf
    Given it hangs and will not listen
  @timed
  Scenario: alone
    Given it notes when
  @timed
  Scenario: alone too
    Given it notes when
  @slow
  Scenario Outline: row <number>
    Given it works
    Examples:
      | number |
      | 1      |
      | 2      |
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {
        "environment.py": ENVIRONMENT,
        "steps/s.py": STEPS,
        "features/toy.feature": FEATURE,
        "behave.ini": "[behave]\npaths = features\nshow_skipped = false\n"
        "scenario_outline_annotation_schema = {name}\ndefault_tags = not @slow\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # The cell is tested elsewhere; here its place is taken by the bare program.
    monkeypatch.setattr(cell, "run", lambda world, tenant, agent, way_out: tenant())
    return tmp_path


def launch(project: Path, *names: str, jobs: int = 2) -> tuple[Launcher, dict[str, Verdict]]:
    chosen = [scenario for scenario in enumerate_scenarios(project, [], []) if scenario.name in names]
    assert len(chosen) == len(names)
    made = Launcher(project, Settings(), [], runs.create(project / "reports"))
    verdicts = made.acceptance(chosen, [], jobs)
    assert {verdict.name for verdict in publish.collect(made.run)} == set(names)
    return made, {verdict.name: verdict for verdict in verdicts}


def test_scenarios_are_listed_as_behave_would_run_them(project: Path) -> None:
    everything = enumerate_scenarios(project, [], [])
    names = ["works", "dies", "lies", "hangs", "is deaf", "alone", "alone too"]
    assert [scenario.name for scenario in everything] == names
    assert everything[0] == Selected("Toy", "works", "features/toy.feature:4", ("toy",))
    slow = enumerate_scenarios(project, [], ["@slow"])
    assert [(scenario.name, scenario.limit) for scenario in slow] == [("row 1", 3600.0), ("row 2", 3600.0)]
    assert [scenario.name for scenario in enumerate_scenarios(project, ["features/toy.feature:9"], [])] == ["lies"]
    assert enumerate_scenarios(project, [], ["@toy and @nothing"]) == []


@pytest.mark.parametrize(
    ("given", "tags"),
    [
        ([], []),
        (["@deployment"], ["@deployment", "not @slow", "not @soak"]),
        (["@toy and @slow"], ["@toy and @slow", "not @soak"]),
        (["not slow or @slower", "@soak"], ["not slow or @slower", "@soak"]),
        (["@slower"], ["@slower", "not @slow", "not @soak"]),
    ],
)
def test_tags_keep_what_is_left_out_by_default_unless_they_name_it(
    tmp_path: Path, given: list[str], tags: list[str]
) -> None:
    (tmp_path / "behave.ini").write_text("[behave]\ndefault_tags = not @slow and not @soak\n")
    assert with_defaults(tmp_path, given) == tags


def test_acceptance_by_tag_leaves_out_what_takes_long(project: Path) -> None:
    status, output = call(project, "acceptance", "--tags", "@toy", "--features", "features/toy.feature:26")
    assert (status, "0 scenarios" in output) == (1, True), output


def test_a_choice_by_tag_leaves_out_what_takes_long() -> None:
    default = enumerate_scenarios(ROOT, [], [])
    assert [each.seconds for each in default if "the default lease of 10 or 30 seconds" in each.name] == [30]
    chosen = enumerate_scenarios(ROOT, [], with_defaults(ROOT, ["@deployment"]))
    assert 30 <= len(chosen) <= 50
    assert {each.name for each in chosen} < {each.name for each in default}
    # On a new checkout, too, what takes longest is begun first.
    assert max(chosen, key=lambda each: each.seconds).name == "Random faults strike for three minutes"
    # A choice with plain behave means no more.
    assert enumerate_scenarios(ROOT, [], ["@deployment"]) == chosen
    assert len(enumerate_scenarios(ROOT, [], with_defaults(ROOT, ["@matrix"]))) > 200


def test_undefined_steps_are_told_before_anything_runs(project: Path) -> None:
    (project / "features" / "wrong.feature").write_text("Feature: W\n  Scenario: w\n    Given nobody knows this\n")
    with pytest.raises(RuntimeError, match="nobody knows this"):
        enumerate_scenarios(project, [], [])


def test_every_process_leaves_a_verdict(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, verdicts = launch(project, "works", "dies", "lies")
    assert {name: verdict.verdict for name, verdict in verdicts.items()} == {
        "works": "passed",
        "dies": "inconclusive",
        "lies": "inconclusive",
    }
    assert verdicts["dies"].reason.startswith("behave ended with status 9 and left no verdict")
    assert "after the verdict passed: HOOK-ERROR in after_scenario: OSError" in verdicts["lies"].reason
    assert "warning: it works in an odd way" in capsys.readouterr().out.splitlines()
    assert "it works" in (made.run / "scenarios" / "toy-4" / "console.txt").read_text()
    assert set(json.loads((project / "reports" / "costs-local.json").read_text())) == {
        "Toy: works",
        "Toy: dies",
        "Toy: lies",
    }


def test_what_a_scenario_cost_is_kept_for_the_next_run(project: Path) -> None:
    (project / "reports").mkdir()
    write_costs(
        costs_file(project / "reports", "local"), {"Toy: hangs": Cost(60.0, 1.0), "Toy: works": Cost(500.0, 500.0)}
    )
    launch(project, "works", "lies")
    costs = read_costs(costs_file(project / "reports", "local"))
    assert set(costs) == {"Toy: works", "Toy: lies", "Toy: hangs"}
    assert costs["Toy: hangs"] == Cost(60.0, 1.0)
    for each in (costs["Toy: works"], costs["Toy: lies"]):
        assert 0 < each.seconds < 60, each
        assert 0 < each.cpu_seconds < 60, each


def test_the_time_of_a_scenario_is_its_own_however_late_the_launcher_is(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn = Launcher._spawn

    def late(*given: Any) -> cells.Cell:
        made = spawn(*given)
        while made.poll() is None:
            time.sleep(0.01)
        return made

    monkeypatch.setattr(Launcher, "_spawn", late)
    launch(project, "alone")
    assert read_costs(costs_file(project / "reports", "local"))["Toy: alone"].seconds > 0.3


def test_those_that_measure_times_wait_until_nothing_else_boots(project: Path) -> None:
    _, verdicts = launch(project, "works", "alone", "alone too", jobs=1)
    assert {verdict.verdict for verdict in verdicts.values()} == {"passed"}
    first, second = (tuple(map(float, line.split())) for line in (project / "notes").read_text().splitlines())
    assert first[1] <= second[0]


@pytest.mark.parametrize("name", ["hangs", "is deaf"])
def test_a_scenario_that_does_not_end_is_ended(project: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(selection, "LIMIT", 2.0)
    monkeypatch.setattr(launcher, "GRACE", 0.5)
    began = time.monotonic()
    _, verdicts = launch(project, name)
    assert time.monotonic() - began < 50, "the step itself takes 60 s"
    assert verdicts[name].verdict == "inconclusive"
    assert verdicts[name].reason == "did not end within its limit of 2 s"


STUB = """
import sys
from agents import cell
from support.run import cells, launcher, selection
cell.run = lambda world, tenant, agent, way_out: tenant()
sys.exit(launcher.main({arguments!r}))
"""


def start(project: Path, *arguments: str) -> subprocess.Popen[str]:
    """The launcher in a process of its own, once its scenario hangs."""
    (project / "hanging").unlink(missing_ok=True)
    command = [sys.executable, "-c", STUB.format(arguments=list(arguments))]
    process = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + PATIENCE
    while not (project / "hanging").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    return process


def hanging(project: Path) -> list[int]:
    """Pids of behave processes that work in the project."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"-m behave" in (entry / "cmdline").read_bytes() and os.readlink(entry / "cwd") == str(project):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


ACCEPTANCE = ("acceptance", "--features", "features/toy.feature:11")
BEHAVE = ("behave", "--", "features/toy.feature:11")


@pytest.mark.parametrize("arguments", [ACCEPTANCE, BEHAVE])
def test_ctrl_c_ends_the_scenario_and_still_publishes(project: Path, arguments: tuple[str, ...]) -> None:
    process = start(project, *arguments)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "interrupted by SIGINT" in output
    summary = json.loads((project / "reports" / "summary.json").read_text())
    assert [scenario["verdict"] for scenario in summary["scenarios"]] == ["inconclusive"]
    assert hanging(project) == []


@pytest.mark.parametrize("arguments", [ACCEPTANCE, BEHAVE])
def test_sigkill_of_the_launcher_leaves_no_process(project: Path, arguments: tuple[str, ...]) -> None:
    process = start(project, *arguments)
    assert hanging(project)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + PATIENCE
    while hanging(project):
        assert time.monotonic() < deadline, "behave outlived its launcher"
        time.sleep(0.05)


def call(project: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-c", STUB.format(arguments=list(arguments))]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


def test_plain_behave_passes_its_arguments_on_and_publishes(project: Path) -> None:
    status, output = call(project, "behave", "--", "--tags=@slow", "-f", "plain", "-Djobs=3")
    assert status == 0, output
    assert "jobs              3" in output
    assert "Warning" not in output
    assert "row 1" in output
    summary = json.loads((project / "reports" / "summary.json").read_text())
    assert summary["verdicts"]["passed"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("behave", "--", "--tags=@nothing"), "no scenario ran"),
        (("behave", "--", "features/toy.feature:9"), "1 inconclusive"),
        (("acceptance", "--tags", "@nothing"), "no scenario ran"),
    ],
)
def test_a_red_run_exits_with_1(project: Path, arguments: tuple[str, ...], said: str) -> None:
    status, output = call(project, *arguments)
    assert status == 1
    assert said in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("acceptance", "-D", "dynamo=0.0.1"), "unknown Dynamo release '0.0.1'"),
        (("acceptance", "-D", "colour=red"), "there is no setting 'colour'"),
        (("behave", "--", "-Dtarget=moon"), "target is 'moon'"),
        (("acceptance", "--jobs", "0"), "'0' is not a number of scenarios"),
        (("acceptance", "--features", "features/none.feature"), "features/none.feature"),
        (("acceptance", "--tags", "@a and ("), "behave cannot list the scenarios"),
    ],
)
def test_a_wrong_call_is_refused_in_words(project: Path, arguments: tuple[str, ...], said: str) -> None:
    status, output = call(project, *arguments)
    assert status == 2
    assert said in output
    assert "Traceback" not in output
    assert not (project / "reports" / "summary.json").exists()


def test_another_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    status, output = call(tmp_path, "acceptance")
    assert status == 2
    assert f"{tmp_path} is not the root of the checkout" in output


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["-D", "a=1", "-Db=2", "--define=c=3", "--define", "d = 4"], {"a": "1", "b": "2", "c": "3", "d": "4"}),
        (["-Dflag", "--tags", "x", "file.feature"], {"flag": "true"}),
    ],
)
def test_definitions_are_found_among_behaves_arguments(words: list[str], found: dict[str, str]) -> None:
    assert launcher._userdata(words) == found


def test_a_scenario_that_cannot_be_started_or_written_down_costs_no_other(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, write = Launcher._start, publish.write_verdict

    def refuse(self: Launcher, scenario: Selected, tags: list[str], slot: int) -> launcher.Running:
        if scenario.name == "dies":
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return start(self, scenario, tags, slot)

    def full(run: Path, verdict: Verdict) -> None:
        if verdict.name == "dies":
            raise OSError(28, "No space left on device")
        write(run, verdict)

    monkeypatch.setattr(Launcher, "_start", refuse)
    monkeypatch.setattr(publish, "write_verdict", full)
    chosen = [each for each in enumerate_scenarios(project, [], []) if each.name in ("dies", "works")]
    made = Launcher(project, Settings(), [], runs.create(project / "reports"))
    verdicts = {each.name: each for each in made.acceptance(chosen, [], 2)}
    assert {name: each.verdict for name, each in verdicts.items()} == {"dies": "inconclusive", "works": "passed"}
    assert "could not be started" in verdicts["dies"].reason
    assert ["could not be written" in each for each in made.complaints] == [True]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_what_runs_and_a_pipe_gets_lines(project: Path, terminal: bool) -> None:
    arguments = ["acceptance", "--features", "features/toy.feature:4", "features/toy.feature:16"]
    command = [sys.executable, "-c", STUB.format(arguments=arguments)]
    ours, theirs = pty.openpty() if terminal else os.pipe()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, cwd=project, stdin=subprocess.DEVNULL, stdout=theirs, env=env) as process:
        os.close(theirs)
        output = b""
        with contextlib.suppress(OSError):  # a terminal whose other side is closed
            while block := os.read(ours, 65536):
                output += block
    os.close(ours)
    assert process.returncode == 0, output
    assert (b"0 of 2 done, 1 running" in output) == terminal
    assert (b"features/toy.feature:" in output) == terminal  # lines tell a pass by its name
    assert b"GREEN (exit status 0)" in output


def summary(project: Path) -> dict[str, str]:
    """Name of a scenario of the last run -> its verdict."""
    told = json.loads((project / "reports" / "summary.json").read_text())
    return {each["name"]: each["verdict"] for each in told["scenarios"]}


def test_what_was_not_good_is_run_again_with_the_settings_that_it_had(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, output = call(project, "rerun")
    assert (status, "there is no run in" in output) == (2, True), output
    chosen = ("--features", "features/toy.feature:4", "features/toy.feature:6")
    status, output = call(project, "acceptance", *chosen, "-Djobs=3")
    assert status == 1
    assert " again: make acceptance FEATURES=features/toy.feature:6 JOBS=3\n" in output
    assert "\nagain:  make rerun\n" in output
    assert summary(project) == {"works": "passed", "dies": "inconclusive"}
    status, output = call(project, "rerun")
    assert (status, summary(project)) == (1, {"dies": "inconclusive"}), output
    assert "  jobs              3 " in output
    monkeypatch.setenv("JOBS", "4")
    assert "  jobs              4                              environment JOBS" in call(project, "rerun")[1]


def test_a_run_that_is_green_leaves_nothing_to_run_again(project: Path) -> None:
    assert call(project, "acceptance", "--features", "features/toy.feature:4")[0] == 0
    status, output = call(project, "rerun")
    assert (status, "nothing to run again" in output) == (0, True), output


def test_a_scenario_that_has_another_name_now_is_not_run_again_in_silence(project: Path) -> None:
    assert call(project, "acceptance", "--features", "features/toy.feature:6")[0] == 1
    feature = project / "features" / "toy.feature"
    feature.write_text(feature.read_text().replace("Scenario: dies", "Scenario: ends"))
    status, output = call(project, "rerun")
    assert (status, "'Toy' no longer has a scenario 'dies'" in output) == (2, True), output
