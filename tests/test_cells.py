"""Cells: nothing of one survives, whatever is killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from support.observe.waiting import until
from support.run import cells
from support.settings import ROOT
from support.targets.local import namespaces
from tests.patience import PATIENCE
from tests.plain_http import Client

# Makes a node with a process, tells which pids the machine knows them by, and stays.
TENANT = """
import json, os, sys, time
from pathlib import Path
from support.targets.local.agent import Agent
agent = Agent.of_this_cell()
agent.add_node("node-0", "worker")
env = {"PATH": os.environ["PATH"]}
agent.run(node="node-0", argv=["sleep", "600"], env=env, log=os.environ["FT_SCRATCH"] + "/log")
while not agent.processes()["node-0"]["ready"]: time.sleep(0.01)
told = {"network": os.readlink("/proc/self/ns/net"), "links": len(agent.world()["links"])}
Path(sys.argv[1]).write_text(json.dumps(told))
time.sleep(600)
"""

modes = pytest.mark.parametrize("mode", ["on", "off"])


@pytest.fixture(autouse=True)
def _namespaces_or_skip(mode: str) -> None:
    if mode == "on" and (reason := namespaces.missing()):
        pytest.skip(f"needs network namespaces: {reason}")


def left(everything: list[psutil.Process]) -> str | None:
    """The processes that are still there, in words."""

    def lives(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end between the two questions
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    found = [each for each in everything if lives(each)]
    return str(found) if found else None


@pytest.fixture
def tenant(mode: str, tmp_path: Path) -> tuple[psutil.Popen, Path]:
    """A cell with a tenant: its outermost process, and the file that the tenant wrote."""
    told = tmp_path / "told.json"
    argv = cells.command([sys.executable, "-c", TENANT, str(told)], mode)
    env = os.environ | {"FT_RUN_DIR": str(tmp_path)}
    process = psutil.Popen(argv, cwd=ROOT, env=env)
    until(lambda: None if told.exists() and told.read_text() else "nothing told", PATIENCE, "the tenant has moved in")
    return process, told


def line_of(process: psutil.Process) -> str:
    """Its command line; empty for one that has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one, too
        return " ".join(process.cmdline())
    return ""


def one_of(process: psutil.Popen, words: str) -> psutil.Process:
    """The process of the cell whose command line begins so."""
    lines = {each: line_of(each).removeprefix(f"{sys.executable} ") for each in process.children(True)}
    (found,) = [each for each, line in lines.items() if line.startswith(words)]
    return found


@modes
@pytest.mark.parametrize("victim", ["outermost", "first process", "tenant"])
def test_nothing_survives(tenant: tuple[psutil.Popen, Path], mode: str, victim: str) -> None:
    process, _ = tenant
    # the outermost, the first process, two agents, the tenant, and the sleeper of its node
    everything = [process, *process.children(recursive=True)]
    assert len(everything) == 6
    assert one_of(process, "sleep 600") in everything
    first = process.children()[0].pid
    pids = {"outermost": process.pid, "first process": first, "tenant": one_of(process, "-c").pid}
    os.kill(pids[victim], signal.SIGKILL)
    until(lambda: left(everything), PATIENCE, "no process of the cell is left")
    process.wait()


@modes
def test_an_agent_that_is_killed_comes_back(tenant: tuple[psutil.Popen, Path], mode: str) -> None:
    process, _ = tenant
    agent, sleeper = one_of(process, "-m agents.node"), one_of(process, "sleep 600")
    agent.kill()

    def another() -> str | None:
        found = [each for each in process.children(recursive=True) if "-m agents.node " in line_of(each)]
        return None if found and agent not in found else "no agent"

    until(another, PATIENCE, "another agent runs")
    # Without namespaces nothing but the agent's death would end its processes with the cell.
    until(
        lambda: None if (left([sleeper]) is not None) == (mode == "on") else mode, PATIENCE, "the process of the node"
    )
    everything = [*process.children(recursive=True), sleeper]
    process.kill()
    process.wait()
    until(lambda: left(everything), PATIENCE, "no process of the cell is left")


@modes
def test_network_of_a_cell_is_its_own(tenant: tuple[psutil.Popen, Path], mode: str) -> None:
    process, told = tenant
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


# A program that ends with 3 and goes on without us: says by its pipe that it did, and ends when the kernel says so.
LEAVING = """
import os, signal, socket, sys, time
from pathlib import Path
from agents import cell
from support.run import cells
from support.settings import ROOT

folder, mode, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
service = socket.socket()
service.bind(("127.0.0.1", 0))
log = (folder / "log").open("ab")

def then(status):
    print("still here", flush=True)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    cell.leave(status + 3)
    print("left", flush=True)
    time.sleep(600)

way_out = cell.WayOut(service.fileno(), log.fileno())
prepare = lambda: os.environ.update(FT_RUN_DIR=str(folder))
made = cells.Cell("platform", [], mode, prepare, way_out, then)
while made.poll() is None:
    time.sleep(0.01)
(folder / "port").write_text(str(service.getsockname()[1]))
sys.exit(made.status)
"""
LEFT_SECONDS = 12.0


def writing_to(log: Path) -> list[psutil.Process]:
    """All processes whose standard output is this file."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.readlink(f"/proc/{each.pid}/fd/1") == str(log):
                found.append(each)
    return found


def left_alone(folder: Path, mode: str, seconds: float) -> list[psutil.Process]:
    """The processes of a cell whose program has left, and ends after so many seconds."""
    argv = [sys.executable, "-c", LEAVING, str(folder), mode, str(seconds)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    # It came back, so nobody of the cell has our pipe any more.
    assert (done.returncode, "still here" in done.stdout, "left" in done.stdout) == (3, True, False), done.stderr
    service = Client(f"http://127.0.0.1:{(folder / 'port').read_text()}")
    assert service.ask("GET", "/api/v1/faults")[0] == 200  # from outside, without a token
    everything = writing_to(folder / "log")
    assert len(everything) == 4, "first process, two agents and the tenant"
    return everything


@modes
def test_a_cell_that_has_left_goes_on_by_itself_until_its_tenant_ends(mode: str, tmp_path: Path) -> None:
    everything = left_alone(tmp_path, mode, LEFT_SECONDS)
    assert "left\n" in (tmp_path / "log").read_text()
    assert (tmp_path / "audit.jsonl").exists()
    until(lambda: left(everything), LEFT_SECONDS + PATIENCE, "no process of the cell is left")
    assert list(tmp_path.glob("cell-*")) == []


@pytest.mark.parametrize("victim", ["first process", "tenant"])
@modes
def test_nothing_of_a_cell_that_has_left_survives(mode: str, tmp_path: Path, victim: str) -> None:
    everything = left_alone(tmp_path, mode, 600)
    first = next(each for each in everything if each.ppid() not in [other.pid for other in everything])
    tenant = next(each for each in everything if each != first and "agents." not in line_of(each))
    (first if victim == "first process" else tenant).kill()
    until(lambda: left(everything), PATIENCE, "no process of the cell is left")


@pytest.mark.parametrize("mode", ["maybe"])
def test_unknown_mode_is_named(mode: str) -> None:
    with pytest.raises(ValueError, match="'maybe'; expected auto, on or off"):
        cells.command(["true"], mode)
