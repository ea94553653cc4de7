"""The features read well to behave itself: every step defined, every definition used."""

import subprocess
import sys

import pytest

from support.run.selection import Selected, enumerate_scenarios
from support.settings import ROOT


@pytest.fixture(scope="module")
def usage() -> subprocess.CompletedProcess[str]:
    """A dry run over every scenario, those left out by default included."""
    everything = ["--tags", "not @no.such.tag"]
    argv = [sys.executable, "-m", "behave", "--dry-run", "--no-summary", "-f", "steps.usage", *everything]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)


def test_no_step_is_undefined(usage: subprocess.CompletedProcess[str]) -> None:
    undefined = usage.stdout.partition("UNDEFINED STEPS")[2]
    assert (usage.returncode, undefined) == (0, ""), usage.stderr
    assert "features/" in usage.stdout


def test_no_step_definition_is_unused(usage: subprocess.CompletedProcess[str]) -> None:
    assert usage.stdout.partition("UNUSED STEP DEFINITIONS")[2] == ""


def test_who_measures_times_of_a_load_is_timed() -> None:
    measures = ("STANDARD band", "all of its checks hold")
    everything = enumerate_scenarios(ROOT, [], ["not @no.such.tag"])
    texts = {
        file: (ROOT / file).read_text().splitlines()
        for file in {each.location.rpartition(":")[0] for each in everything}
    }

    def measuring(scenario: Selected) -> bool:
        file, _, line = scenario.location.rpartition(":")
        begin = max(n for n, text in enumerate(texts[file][: int(line)]) if "Scenario" in text)
        end = next((n for n, text in enumerate(texts[file]) if n > begin and "Scenario" in text), None)
        return any(words in text for text in texts[file][begin:end] for words in measures)

    beside_others = [each.name for each in everything if measuring(each) and "timed" not in each.tags]
    assert (beside_others, sum(map(measuring, everything)) > 20) == ([], True)


def test_behave_speaks_to_the_console_and_to_no_file() -> None:
    dry = subprocess.run([sys.executable, "-m", "behave", "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert "Feature:" in dry.stdout  # `format` in behave.ini would send it to the file pretty.output
    assert list(ROOT.glob("*.output")) == []


def test_every_bench_runs_although_one_fails() -> None:
    broken = ["make", "bench", "BOOTSTRAP=true", "RUN=false"]
    done = subprocess.run(broken, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stdout.count("a bound is broken") == len(list((ROOT / "tests" / "bench").glob("bench_*.py")))
