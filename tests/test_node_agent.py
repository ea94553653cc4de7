"""The node agent: processes, restarts, faults, leases, bad input. Its nodes are on loopback here."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agents.core.kernel import stat_of
from agents.node.network import Network
from agents.node.process import Spec
from agents.node.processes import ProcessTable
from support.clock import now
from support.contract.deployment import Life
from support.contract.fault_service import FaultService
from support.errors import Refused
from support.observe.waiting import until
from support.run import cells
from support.targets.local import process
from support.targets.local.agent import Agent
from tests.patience import PATIENCE

SLEEPER = ["sleep", "600"]
# A child, one that leads a session of its own, and one whose parent and session are gone.
FAMILY = """
import subprocess, time
child = subprocess.Popen(["sleep", "600"])
leader = subprocess.Popen(["sleep", "600"], start_new_session=True)
orphan = ["sh", "-c", "sleep 600 > /dev/null 2>&1 & echo $!"]
orphan = subprocess.run(orphan, start_new_session=True, capture_output=True, text=True, check=True).stdout.strip()
print(child.pid, leader.pid, orphan, flush=True)
time.sleep(600)
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
    assert agent.world()["processes"] == []


@pytest.fixture
def start(agent: Agent, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Start a process on a node of its own and wait until it is ready; returns the agent's view of it."""

    def run(argv: list[str], name: str = "node-0", **spec: Any) -> dict[str, Any]:
        agent.add_node(name, "worker")
        agent.run(node=name, argv=argv, env={"PATH": os.environ["PATH"]}, log=str(tmp_path / f"{name}.log"), **spec)
        until(lambda: None if view(agent, name)["ready"] else str(view(agent, name)), PATIENCE, f"{name} is ready")
        return view(agent, name)

    return run


@pytest.fixture
def faults(cell: dict[str, str]) -> FaultService:
    """The cell's fault service."""
    return FaultService(cell["FT_FAULTS"], cell["FT_AGENT_TOKEN"])


def break_it(faults: FaultService, kind: str, node: str, seconds: float) -> dict[str, Any]:
    return faults.inject("process", target_pod=node, type=kind, duration_seconds=seconds)


def shows(wanted: str, look: Callable[[], str]) -> Callable[[], str | None]:
    return lambda: None if look() == wanted else "not yet"


def view(agent: Agent, name: str = "node-0") -> dict[str, Any]:
    return agent.processes()[name]


def test_crash_ends_the_very_process_and_its_undo_starts_it_again(
    agent: Agent, faults: FaultService, start: Callable[..., dict[str, Any]]
) -> None:
    before = start(SLEEPER)
    fault = break_it(faults, "crash", "node-0", 60)
    assert (fault["state"], fault["evidence"]["exit_code"]) == ("active", -9)
    assert process.state(before["pid"], before["start_time"]) == "gone"
    assert faults.recover(fault["id"])["state"] == "recovered"
    after = view(agent)
    assert after["pid"] != before["pid"]
    assert process.state(after["pid"], after["start_time"]) == "alive"


def test_hang_ends_by_itself_at_its_deadline(
    agent: Agent, faults: FaultService, start: Callable[..., dict[str, Any]]
) -> None:
    victim = start(SLEEPER)
    fault = break_it(faults, "hang", "node-0", 3.0)  # it has to be on still when we look
    assert process.state(victim["pid"], victim["start_time"]) == "stopped"
    until(
        lambda: None if process.state(victim["pid"], victim["start_time"]) == "alive" else "stopped",
        PATIENCE,
        "it goes on",
    )
    assert now() >= fault["deadline"]
    until(lambda: None if faults.get(fault["id"])["state"] == "recovered" else "not yet", PATIENCE, "the agent says so")


@pytest.fixture
def family(start: Callable[..., dict[str, Any]], tmp_path: Path, cell: dict[str, str]) -> tuple[Life, list[int], str]:
    """The life of a process that has started others, their pids, and the cell's mark."""
    victim = start([sys.executable, "-c", FAMILY])
    log = tmp_path / "node-0.log"
    until(lambda: None if log.read_text().endswith("\n") else "no output", PATIENCE, "all of them run")
    life = Life("node-0", process.identity(victim["pid"], victim["start_time"]), "it", "running", victim["restarts"])
    return life, [int(each) for each in log.read_text().split()], cell["FT_SCRATCH"]


def test_a_hang_and_its_end_are_of_all_that_the_process_has_started(
    faults: FaultService, family: tuple[Life, list[int], str]
) -> None:
    life, pids, mark = family
    fault = break_it(faults, "hang", "node-0", 60)
    assert [process.state(pid, None) for pid in pids] == ["stopped"] * 3
    assert process.state_of(life, mark) == "stopped"
    faults.recover(fault["id"])
    assert [process.state(pid, None) for pid in pids] == ["alive"] * 3


@pytest.mark.parametrize("kind", ["crash", "restart", "terminate"])
def test_nothing_that_the_process_has_started_outlives_it(
    agent: Agent, faults: FaultService, family: tuple[Life, list[int], str], kind: str
) -> None:
    life, pids, mark = family
    break_it(faults, kind, "node-0", 60)
    until(lambda: None if process.state_of(life, mark) == "gone" else "some are there", PATIENCE, "all are gone")
    assert [process.state(pid, None) for pid in pids] == ["gone"] * 3
    # Of those that were told, none need be left to sweep; nobody has told the others of a shutdown.
    swept = " ".join(each["detail"] for each in agent.history() if each["state"] == "swept")
    assert kind != "terminate" or all(str(pid) in swept for pid in pids)


@pytest.mark.parametrize("which", [0, 1, 2], ids=["child", "leader of a session", "orphan"])
def test_the_witness_believes_in_no_crash_or_hang_of_one_process_of_several(
    family: tuple[Life, list[int], str], which: int
) -> None:
    life, pids, mark = family
    first: int = life.identity[0]  # type: ignore[index]
    others = [first, *(pid for pid in pids if pid != pids[which])]
    for number, seen in ((signal.SIGSTOP, "stopped"), (signal.SIGCONT, "alive")):
        for pid in others:
            os.kill(pid, number)
        assert process.state_of(life, mark) == "alive"
        os.kill(pids[which], number)
        until(shows(seen, lambda: process.state_of(life, mark)), PATIENCE, seen)


def test_the_witness_sees_what_a_dead_process_has_left(tmp_path: Path) -> None:
    """Nobody ends it here, as an agent would."""
    argv, own = [sys.executable, "-c", FAMILY], str(tmp_path)
    env = {"FT_LIFE": f"{own}:n:0"}
    dead = subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE, text=True, env=env)
    assert dead.stdout
    pids = [int(pid) for pid in dead.stdout.readline().split()]
    stat = stat_of(dead.pid)
    assert stat
    life = Life("n", process.identity(dead.pid, stat[1]), "it", "running")
    dead.kill()
    dead.wait()
    try:
        for pid in pids:
            assert process.state_of(life, own) == "alive"
            assert process.state_of(Life("n", life.identity, "the next one", "running", 1), "another") == (
                "alive" if pid == pids[0] else "gone"  # by its session alone
            )
            os.kill(pid, signal.SIGKILL)
            until(shows("gone", partial(process.state, pid, None)), PATIENCE, "it is gone")
        assert process.state_of(life, own) == "gone"
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_terminate_lets_the_process_end_as_it_likes(
    agent: Agent, faults: FaultService, start: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    start(["sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"])
    log = tmp_path / "node-0.log"
    until(lambda: None if log.read_text() else "no output", PATIENCE, "the trap is set")
    break_it(faults, "terminate", "node-0", 60)
    until(lambda: None if view(agent)["state"] == "exited" else view(agent)["state"], PATIENCE, "it has ended")
    assert view(agent)["exit_code"] == 7


def test_a_shutdown_that_is_ignored_ends_with_its_lease(
    agent: Agent, faults: FaultService, start: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    before = start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.01; done"])
    until(lambda: None if (tmp_path / "node-0.log").read_text() else "no output", PATIENCE, "the trap is set")
    fault = break_it(faults, "terminate", "node-0", 0.3)
    until(
        lambda: None if faults.get(fault["id"])["state"] == "recovered" else "not yet", PATIENCE, "the lease has ended"
    )
    assert process.state(before["pid"], before["start_time"]) == "gone"
    assert view(agent)["pid"] != before["pid"]


def test_restart_brings_a_new_process(agent: Agent, faults: FaultService, start: Callable[..., dict[str, Any]]) -> None:
    before = start(SLEEPER)
    fault = break_it(faults, "restart", "node-0", 60)
    assert fault["state"] == "recovered"
    assert view(agent)["pid"] != before["pid"]
    assert process.state(before["pid"], before["start_time"]) == "gone"


def test_undo_right_after_a_death_that_the_agent_has_not_been_told_of_starts_the_process(tmp_path: Path) -> None:
    async def die_and_recover() -> tuple[int, int, bool]:
        network = Network(False, tmp_path / "nodes.json")
        network.add("node-0", "worker")
        table = ProcessTable(network, tmp_path)
        spec = {"node": "node-0", "argv": SLEEPER, "env": {"PATH": os.environ["PATH"]}, "log": str(tmp_path / "log")}
        process = table.add(Spec.parse(spec))
        try:
            await asyncio.wait_for(process.ready.wait(), 10)
            first = process.pid or 0
            os.kill(first, signal.SIGKILL)
            os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)  # dead, and the loop has not run since
            await table.start_if_stopped("node-0")
            return first, process.pid or 0, process.alive()
        finally:
            await table.remove_all()

    first, second, alive = asyncio.run(die_and_recover())
    assert (second != first, alive) == (True, True)


def test_journal_has_the_undo_before_anything_changes(
    agent: Agent, faults: FaultService, start: Callable[..., dict[str, Any]], cell: dict[str, str]
) -> None:
    start(SLEEPER)
    fault = break_it(faults, "hang", "node-0", 60)
    lines = [json.loads(line) for line in (Path(cell["FT_SCRATCH"]) / "journal.jsonl").read_text().splitlines()]
    mine = [line for line in lines if line["id"] == fault["id"]]
    assert [line["state"] for line in mine] == ["pending", "active"]
    assert mine[0]["undo"]["node"] == "node-0"
    assert mine[0]["history"][0]["at"] < fault["evidence"]["sent_at"]
    faults.recover(fault["id"])


def test_restarts_wait_longer_each_time_as_the_kubelet_does(agent: Agent, tmp_path: Path) -> None:
    agent.add_node("node-0", "worker")
    spec = {"env": {"PATH": os.environ["PATH"]}, "log": str(tmp_path / "log"), "restart_policy": "OnFailure"}
    agent.run(node="node-0", argv=["sh", "-c", "exit 3"], backoff_seconds=0.1, **spec)
    until(lambda: None if view(agent)["restarts"] >= 4 else str(view(agent)["restarts"]), PATIENCE, "four restarts")
    waits = [
        change["detail"] for change in agent.history() if change["node"] == "node-0" and change["state"] == "backoff"
    ]
    assert waits[:4] == ["restart in 0 s", "restart in 0.1 s", "restart in 0.2 s", "restart in 0.4 s"]


def test_on_failure_leaves_a_clean_exit_alone(agent: Agent, tmp_path: Path) -> None:
    agent.add_node("node-0", "worker")
    spec = {"env": {"PATH": os.environ["PATH"]}, "log": str(tmp_path / "log"), "restart_policy": "OnFailure"}
    agent.run(node="node-0", argv=["sh", "-c", "exit 0"], **spec)
    until(lambda: None if view(agent)["state"] == "exited" else view(agent)["state"], PATIENCE, "it has ended")
    assert view(agent)["restarts"] == 0


def test_what_comes_after_waits_for_readiness(agent: Agent, tmp_path: Path) -> None:
    address = agent.add_node("server-0", "worker")
    serve = f"import http.server as h; h.HTTPServer(('{address}', 8000), h.SimpleHTTPRequestHandler).serve_forever()"
    spec = {"env": {"PATH": os.environ["PATH"]}, "log": str(tmp_path / "log")}
    agent.run(node="server-0", argv=["python3", "-c", serve], ready=f"http://{address}:8000/", **spec)
    agent.add_node("client-0", "worker")
    agent.run(node="client-0", argv=SLEEPER, after=["server-0"], **spec)
    until(lambda: None if view(agent, "client-0")["ready"] else "waiting", PATIENCE, "the client runs")
    moves = [(change["node"], change["state"]) for change in agent.history()][-4:]
    assert moves.index(("server-0", "running")) < moves.index(("client-0", "starting"))


def test_a_program_that_is_not_there_is_named(agent: Agent, tmp_path: Path) -> None:
    agent.add_node("node-0", "worker")
    agent.run(node="node-0", argv=["/no/such/program"], env={"PATH": "/"}, log=str(tmp_path / "log"))
    until(lambda: None if view(agent)["state"] == "failed" else view(agent)["state"], PATIENCE, "it has failed")
    assert "cannot start /no/such/program" in view(agent)["detail"]


@pytest.mark.parametrize(
    ("kind", "node", "lease", "status", "words"),
    [
        ("explode", "node-0", 60, 422, "'crash', 'terminate', 'hang', 'restart' or 'slow_disk'"),
        ("crash", "node-9", 60, 404, "known: node-0"),
        ("crash", "node-0", 0, 422, "greater than 0"),
        ("crash", "node-0", 4000, 422, "less than or equal to 3600"),
    ],
)
def test_bad_faults_are_refused_in_words(
    agent: Agent,
    faults: FaultService,
    start: Callable[..., dict[str, Any]],
    kind: str,
    node: str,
    lease: float,
    status: int,
    words: str,
) -> None:
    victim = start(SLEEPER)
    with pytest.raises(Refused, match=words) as caught:
        break_it(faults, kind, node, lease)
    assert caught.value.status == status
    assert process.state(victim["pid"], victim["start_time"]) == "alive"


def test_a_dead_process_cannot_be_broken_and_a_hung_one_not_told(
    faults: FaultService, start: Callable[..., dict[str, Any]]
) -> None:
    start(SLEEPER)
    hang = break_it(faults, "hang", "node-0", 60)
    with pytest.raises(Refused, match="recover that one first") as caught:
        break_it(faults, "terminate", "node-0", 60)
    assert caught.value.status == 409
    faults.recover(hang["id"])
    break_it(faults, "crash", "node-0", 60)
    with pytest.raises(Refused, match="nothing to break"):
        break_it(faults, "hang", "node-0", 60)


def test_only_its_own_cell_may_talk_to_it(cell: dict[str, str]) -> None:
    with pytest.raises(Refused, match="token") as caught:
        Agent(cell["FT_AGENT"], "wrong").processes()
    assert caught.value.status == 401
