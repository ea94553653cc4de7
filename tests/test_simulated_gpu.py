"""Simulated GPUs of a cell: a fault undoes and judges what it has touched and nothing else, and slows by its share."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.xid import kmsg
from support.clock import now
from support.contract.fault_service import FaultService
from support.errors import Refused
from support.observe.waiting import until
from support.run import cells
from support.settings import ROOT
from support.targets.local import namespaces, process
from support.targets.local.agent import Agent
from tests.patience import PATIENCE

SLEEPER = ["sleep", "600"]
NODE = "vllm-worker-0"
# Mostly sleeps, as a simulated engine does, and works as much as the file `load` says.
ENGINE = """
import http.server, os, pathlib, sys, threading, time
load, done, count = pathlib.Path(sys.argv[2]), 0.0, os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT)
os.pwrite(count, b"%020.3f" % done, 0)  # whoever sees the page below may read it
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"# TYPE work counter\\nwork_total {done}\\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer((sys.argv[1], 9090), Page)
threading.Thread(target=server.serve_forever, daemon=True).start()
while True:
    time.sleep(0.005 - time.monotonic() % 0.005)  # on a grid, so that a busy machine makes it little slower
    done += float(load.read_text())
    os.pwrite(count, b"%020.3f" % done, 0)
"""


@pytest.fixture(scope="module")
def cell() -> dict[str, str]:
    """One cell for all tests of this file."""
    return cells.start_loopback()


@pytest.fixture
def agent(cell: dict[str, str]) -> Iterator[Agent]:
    """The cell's agent, with nothing deployed before and after."""
    agent = Agent(cell["FT_AGENT"], cell["FT_AGENT_TOKEN"])
    yield agent
    agent.remove_deployment()


@pytest.fixture
def faults(cell: dict[str, str]) -> FaultService:
    """The cell's fault service."""
    return FaultService(cell["FT_FAULTS"], cell["FT_AGENT_TOKEN"])


@pytest.fixture
def worker(agent: Agent, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Start a worker with one GPU and the given restart policy; returns the agent's view of it."""

    def run(restart_policy: str = "Never", argv: list[str] = SLEEPER, **spec: Any) -> dict[str, Any]:
        if "progress" not in spec:
            agent.add_node(NODE, "worker")
        env = {"PATH": os.environ["PATH"]}
        spec |= {"node": NODE, "env": env, "log": str(tmp_path / "log"), "restart_policy": restart_policy}
        agent.run(argv=argv, gpus=1, **spec)
        until(lambda: None if view(agent)["ready"] else str(view(agent)), PATIENCE, "the worker runs")
        return view(agent)

    return run


def view(agent: Agent) -> dict[str, Any]:
    return agent.processes()[NODE]


def gpu(faults: FaultService, kind: str, **order: Any) -> dict[str, Any]:
    return faults.inject("gpu", target_pod=NODE, fault_type=kind, duration_seconds=60, **order)


def break_process(faults: FaultService, kind: str) -> dict[str, Any]:
    return faults.inject("process", target_pod=NODE, type=kind, duration_seconds=60)


def another(agent: Agent, before: dict[str, Any]) -> dict[str, Any]:
    until(lambda: None if view(agent)["pid"] != before["pid"] else "the old one", PATIENCE, "another process runs")
    return view(agent)


# -- what a fault has not touched


def test_memory_that_is_given_back_starts_no_process_that_another_fault_has_ended(
    agent: Agent, faults: FaultService, worker: Callable[..., dict[str, Any]]
) -> None:
    worker()
    memory, crash = gpu(faults, "MEMORY_PRESSURE"), break_process(faults, "crash")
    assert faults.recover(memory["id"])["state"] == "recovered"
    assert (view(agent)["state"], faults.get(crash["id"])["state"]) == ("exited", "active")
    assert faults.recover(crash["id"])["state"] == "recovered"


def test_memory_that_is_given_back_is_not_judged_by_the_hang_of_another_fault(
    faults: FaultService, worker: Callable[..., dict[str, Any]]
) -> None:
    before = worker()
    memory, hang = gpu(faults, "MEMORY_PRESSURE"), break_process(faults, "hang")
    ended = faults.recover(memory["id"])
    assert (ended["state"], ended["evidence"]["differences"]) == ("recovered", [])
    assert process.state(before["pid"], before["start_time"]) == "stopped"
    assert faults.recover(hang["id"])["state"] == "recovered"


def test_worker_that_finds_too_little_memory_starts_when_it_is_given_back(
    agent: Agent, faults: FaultService, worker: Callable[..., dict[str, Any]]
) -> None:
    before = worker("Always")
    memory = gpu(faults, "MEMORY_PRESSURE", severity="HIGH")
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: None if view(agent)["state"] == "fenced" else view(agent)["state"], PATIENCE, "it may not start")
    assert faults.recover(memory["id"])["state"] == "recovered"
    assert (view(agent)["ready"], view(agent)["fences"]) == (True, [])


def test_crash_is_not_judged_by_a_hang_of_the_process_that_came_after_it(
    agent: Agent, faults: FaultService, worker: Callable[..., dict[str, Any]]
) -> None:
    before = worker("Always")
    crash = break_process(faults, "crash")
    after = another(agent, before)
    hang = break_process(faults, "hang")
    assert faults.recover(crash["id"])["state"] == "recovered"
    assert process.state(after["pid"], after["start_time"]) == "stopped"
    assert faults.recover(hang["id"])["state"] == "recovered"


# -- what is told


def test_telemetry_is_in_the_evidence_while_the_fault_is_active(
    faults: FaultService, worker: Callable[..., dict[str, Any]]
) -> None:
    worker()
    fault = gpu(faults, "THROTTLE", severity="MEDIUM")
    assert faults.get(fault["id"])["evidence"]["now"]["gpu"]["throttle_reasons"] == ["sw_power_cap"]
    faults.recover(fault["id"])


NVLINK = """
import json, os
from pathlib import Path
from support.observe.waiting import until
from support.targets.local.agent import Agent, fault_service_of_this_cell
agent, faults = Agent.of_this_cell(), fault_service_of_this_cell()
for name in ("vllm-worker-0", "vllm-worker-1"):
    agent.add_node(name, "worker")
    log = str(Path(os.environ["FT_SCRATCH"]) / "log")
    agent.run(node=name, argv=["sleep", "60"], env={"PATH": os.environ["PATH"]}, log=log, gpus=1)
until(lambda: None if all(each["ready"] for each in agent.processes().values()) else "no", 20, "both run")
fault = faults.inject("gpu", target_pod="vllm-worker-0", fault_type="XID_ERROR", xid=74, duration_seconds=60)
print(json.dumps([fault, faults.get(fault["id"]), faults.recover(fault["id"])]))
"""


@pytest.mark.skipif(bool(namespaces.missing() or kmsg.missing()), reason=f"{namespaces.missing()}; {kmsg.missing()}")
def test_an_nvlink_error_has_the_counters_of_its_losses_in_its_evidence() -> None:
    argv = cells.command([sys.executable, "-c", NVLINK], "on")
    done = subprocess.run(argv, cwd=ROOT, env=cells.environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    made, seen, ended = json.loads(done.stdout.splitlines()[-1])
    for fault in (made, seen, ended):
        assert fault["evidence"]["counters"]["vllm-worker-0"], fault["state"]
    assert ended["state"] == "recovered"


# -- the back-off


def test_what_a_fault_has_ended_is_started_at_once_whatever_the_back_off(
    agent: Agent, faults: FaultService, worker: Callable[..., dict[str, Any]]
) -> None:
    worker("Always", backoff_seconds=300.0)
    for _ in range(4):
        began, before = now(), view(agent)
        assert faults.recover(break_process(faults, "crash")["id"])["state"] == "recovered"
        assert another(agent, before)["ready"]
        assert now() - began < 2 * PATIENCE, "it did not wait for its back-off of 300 s"


# -- slower


def test_brake_that_has_moved_on_to_the_next_process_leaves_no_room_for_a_hang_that_it_would_end(
    agent: Agent, faults: FaultService, worker: Callable[..., dict[str, Any]]
) -> None:
    before = worker("Always")
    throttle = gpu(faults, "THROTTLE")
    os.kill(before["pid"], signal.SIGKILL)
    another(agent, before)
    with pytest.raises(Refused, match=f"under fault {throttle['id']}") as caught:
        break_process(faults, "hang")
    assert caught.value.status == 409
    assert faults.recover(throttle["id"])["state"] == "recovered"
    hang = break_process(faults, "hang")
    after = view(agent)
    assert process.state(after["pid"], after["start_time"]) == "stopped"
    faults.recover(hang["id"])


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_work_that_comes_later_and_grows_is_slowed_by_the_share(
    agent: Agent,
    faults: FaultService,
    worker: Callable[..., dict[str, Any]],
    tmp_path: Path,
    share: float,
) -> None:
    load, count, address = tmp_path / "load", tmp_path / "count", agent.add_node(NODE, "worker")
    progress = {"url": f"http://{address}:9090/", "metric": "work_total"}

    def work(amount: int) -> None:
        (draft := load.with_suffix(".draft")).write_text(str(amount))
        draft.replace(load)  # the engine reads it at any moment

    work(0)
    worker(
        argv=[sys.executable, "-c", ENGINE, address, str(load), str(count)], progress=progress, ready=progress["url"]
    )
    work(1)
    full = max(_rate(count) for _ in range(3))  # in one of them somebody else may have had the processor
    work(0)
    fault = gpu(faults, "THROTTLE", parameters={"share": share})
    assert fault["evidence"]["base_rate"] is None

    def slowed(times: float) -> Callable[[], str | None]:
        def check() -> str | None:
            rate = _rate(count) / (full * times)
            steered = faults.get(fault["id"])["evidence"].get("steered")
            close = steered and abs(rate - (1 - share)) <= 0.2 * share
            return None if close else f"{rate:.2f} of the full rate, {full:.0f}; steered: {steered}"

        return check

    work(1)
    until(slowed(1), PATIENCE, "the work is slowed by the share")
    work(3)
    until(slowed(3), PATIENCE, "so is three times the work")
    work(0)

    def idle() -> str | None:
        evidence = faults.get(fault["id"])["evidence"]
        return None if (evidence["steered"], evidence["rate"]) == (False, None) else json.dumps(evidence)

    until(idle, PATIENCE, "there is no rate without work")
    faults.recover(fault["id"])


def _rate(count: Path) -> float:
    """Work per second over one second."""
    began, first = time.monotonic(), float(count.read_text())
    time.sleep(1)
    ended, last = time.monotonic(), float(count.read_text())
    return (last - first) / (ended - began)
