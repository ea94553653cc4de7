"""Cells: nothing of one survives, whatever is killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.observe.waiting import until
from support.run import cells
from support.settings import ROOT

# Makes a node with a process, tells which pids the machine knows them by, and stays.
TENANT = """
import json, os, sys, time
from pathlib import Path
from support.targets.local.agent import Agent
agent = Agent.of_this_cell()
agent.add_node("node-0", "worker")
env = {"PATH": os.environ["PATH"], "MARK": os.environ["MARK"]}
agent.run(node="node-0", argv=["sleep", "600"], env=env, log=os.environ["FT_SCRATCH"] + "/log")
while not agent.processes()["node-0"]["ready"]: time.sleep(0.01)
told = {"network": os.readlink("/proc/self/ns/net"), "links": len(agent.world()["links"])}
Path(sys.argv[1]).write_text(json.dumps(told))
time.sleep(600)
"""

modes = pytest.mark.parametrize("mode", ["on", "off"])


@pytest.fixture(autouse=True)
def _namespaces_or_skip(mode: str) -> None:
    if mode == "on" and (reason := cells.available()):
        pytest.skip(f"needs network namespaces: {reason}")


def tagged(mark: str) -> dict[int, str]:
    """Pids of this machine whose command line or environment carries ``mark``, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line, env = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark.encode() in line + env and line:
                found[int(entry.name)] = line.replace(b"\0", b" ").decode()
    return found


@pytest.fixture
def tenant(mode: str, tmp_path: Path) -> tuple[subprocess.Popen[bytes], str, Path]:
    """A cell with a tenant: its outermost process, a mark that all its processes carry, the file that the tenant
    wrote.
    """
    mark, told = f"tenant-{os.getpid()}-{tmp_path.name}", tmp_path / "told.json"
    argv = cells.command([sys.executable, "-c", TENANT, str(told)], mode)
    env = os.environ | {"FT_RUN_DIR": str(tmp_path), "MARK": mark}
    process = subprocess.Popen(argv, cwd=ROOT, env=env)
    until(lambda: None if told.exists() and told.read_text() else "nothing told", 20, "the tenant has moved in")
    return process, mark, told


def pid_of(mark: str, words: str, but: str = "unshare") -> int:
    (pid,) = [pid for pid, line in tagged(mark).items() if words in line and but not in line]
    return pid


@modes
@pytest.mark.parametrize("victim", ["outermost", "first process", "tenant"])
def test_nothing_survives(tenant: tuple[subprocess.Popen[bytes], str, Path], mode: str, victim: str) -> None:
    process, mark, _ = tenant
    assert pid_of(mark, "sleep 600", but="time.sleep")
    pids = {"outermost": process.pid, "tenant": pid_of(mark, "told.json", but="agents.cell")}
    os.kill(pids.get(victim) or pid_of(mark, "agents.cell"), signal.SIGKILL)
    until(lambda: str(tagged(mark)) if tagged(mark) else None, 10, "no process of the cell is left")
    process.wait()


@modes
def test_an_agent_that_is_killed_comes_back(tenant: tuple[subprocess.Popen[bytes], str, Path], mode: str) -> None:
    process, mark, _ = tenant
    agent, sleeper = pid_of(mark, "agents.node"), pid_of(mark, "sleep 600", but="time.sleep")
    os.kill(agent, signal.SIGKILL)

    def another() -> str | None:
        found = [pid for pid, line in tagged(mark).items() if "agents.node" in line and pid != agent]
        return None if found else "no agent"

    until(another, 10, "another agent runs")
    # Without namespaces nothing but the agent's death would end its processes with the cell.
    until(lambda: None if (sleeper in tagged(mark)) == (mode == "on") else mode, 10, "the process of the node")
    process.kill()
    process.wait()
    until(lambda: str(tagged(mark)) if tagged(mark) else None, 10, "no process of the cell is left")


@modes
def test_network_of_a_cell_is_its_own(tenant: tuple[subprocess.Popen[bytes], str, Path], mode: str) -> None:
    process, _, told = tenant
    content = json.loads(told.read_text())
    assert (content["network"] == os.readlink("/proc/self/ns/net")) == (mode == "off")
    assert content["links"] == (3 if mode == "on" else 0)  # lo, the bridge, one veth
    process.kill()
    process.wait()


@modes
def test_status_of_the_command_is_the_status_of_the_cell(mode: str, tmp_path: Path) -> None:
    argv = cells.command(["sh", "-c", "exit 5"], mode)
    assert subprocess.run(argv, cwd=ROOT, env=os.environ | {"FT_RUN_DIR": str(tmp_path)}).returncode == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["maybe"])
def test_unknown_mode_is_named(mode: str) -> None:
    with pytest.raises(ValueError, match="'maybe'; expected auto, on or off"):
        cells.command(["true"], mode)
