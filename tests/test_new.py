"""`make new`: a feature to begin with, which runs; and names that cannot be one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.report.reading import read_verdict
from support.settings import ROOT

NAME = "A worker's crash is felt by nobody (in 10 % of the cases)"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What plays features in memory, once more."""
    place = tmp_path_factory.mktemp("new") / "checkout"
    for name in ("features", "steps", "support", "agents", "docs/scenarios.yaml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, place / name)
    for name in ("behave.ini", "environment.py"):
        shutil.copy(ROOT / name, place)
    return place


def new(place: Path, name: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "steps.writing.new", name]
    return subprocess.run(argv, cwd=place, capture_output=True, text=True)


def test_a_new_feature_runs(checkout: Path, tmp_path: Path) -> None:
    done = new(checkout, f"  {NAME} ")
    assert done.returncode == 0, done.stderr
    file = "features/a_worker_s_crash_is_felt_by_nobody_in_10_of_the_cases.feature"
    assert f"{file} is written" in done.stdout
    (tmp_path / "scenarios").mkdir()
    argv = [sys.executable, "-m", "behave", "-D", "target=fake", file]
    played = subprocess.run(
        argv, cwd=checkout, env=os.environ | {"FT_RUN_DIR": str(tmp_path)}, capture_output=True, text=True
    )
    [verdict] = [read_verdict(each) for each in tmp_path.glob("scenarios/*/verdict.json")]
    assert (verdict.feature, verdict.name, verdict.verdict) == (NAME, NAME, "passed"), played.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "NAME is ''; expected a short sentence"),
        ("7 workers crash", "expected a short sentence of letters, digits, spaces"),
        ("A <worker> crashes", "expected a short sentence"),
        ("A worker crashes: twice", "expected a short sentence"),
        ("A worker " + "really " * 15 + "crashes", "expected a short sentence"),
        ("Etcd, HA", "but features/etcd_ha.feature already exists; choose another name"),
        ("the etcd LEADER hangs", "which is already a name in features/etcd_ha.feature; choose another one"),
        ("A rolling restart loses no request", "which is already a name in features/rolling_restart.feature"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(name: str, said: str, checkout: Path) -> None:
    before = sorted((checkout / "features").iterdir())
    done = new(checkout, name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("new: NAME is ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted((checkout / "features").iterdir()) == before
