"""A few of the crash trials (`make crash-trials` has many): the harness works, and finds nothing."""

import subprocess
import sys

import pytest

from support.settings import ROOT
from support.targets.local import namespaces


@pytest.mark.skipif(bool(namespaces.missing()), reason=f"crash trials need network namespaces: {namespaces.missing()}")
def test_a_few_kills_leave_nothing_behind() -> None:
    argv = [sys.executable, "-m", "tests.crash_trials", "--trials=10", "--seed=1"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 kills: " in done.stdout
    assert "planted leaks that the scan missed: none" in done.stdout
    assert "leaks: 0" in done.stdout
