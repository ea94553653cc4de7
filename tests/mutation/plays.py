"""Scenarios on the Dynamo in memory, as tests that mutants of observers and proofs have to get past.

Each is a fork of this process, so that it runs the code that this process has been given. Not a part of `make test`,
where tests/test_fake_target.py plays every scenario.
"""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from agents.core.forks import fork, run_module
from agents.core.kernel import die_with_parent
from tests.mutation import ROOT
from tests.mutation.trials import Reached

SCENARIOS = {
    "migration": "Every token comes once and in order when the worker crashes mid-answer",
    "etcd_ha": "Two of five etcd members crash",
    "network_faults": "A short silence between frontend and worker",
    "gpu_faults": "A GPU that gets slower",
    "cancellation": "The engine itself is told to stop",
    "rolling_restart": "The workers are restarted one after the other under load (ruler)",
}
"""Feature -> how the name of its scenario begins."""


@pytest.mark.parametrize("feature", SCENARIOS)
def test_a_scenario_in_memory_passes(feature: str, tmp_path: Path) -> None:
    trace = sys.gettrace()

    def program() -> int:
        die_with_parent()
        try:
            return _behave(feature, tmp_path)
        finally:
            if isinstance(trace, Reached):
                (tmp_path / "reached.json").write_text(json.dumps(trace.told()))

    pid = fork(program)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if isinstance(trace, Reached):
        trace.add(json.loads((tmp_path / "reached.json").read_text()))
    assert ended == 0
    words = [json.loads(file.read_text())["verdict"] for file in tmp_path.glob("scenarios/*/verdict.json")]
    assert words
    assert set(words) == {"passed"}


def _behave(feature: str, folder: Path) -> int:
    (folder / "scenarios").mkdir()
    os.chdir(ROOT)
    os.environ["FT_RUN_DIR"] = str(folder)
    name = f"^{re.escape(SCENARIOS[feature])}"
    return run_module("behave", ["-D", "target=fake", "-f", "progress", "--name", name, f"features/{feature}.feature"])
