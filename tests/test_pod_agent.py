"""The pod agent on pods that are processes of this machine: whose each is, a mark in its environment says."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agents.core.faults import Problem
from agents.core.kernel import is_stopped, stat_of
from agents.host.agent import HostSettings
from agents.host.pods import Api, Pod, PodsError
from agents.network import netlink
from agents.network.netlink import Bench
from agents.pods import machine
from agents.pods.agent import PodAgent
from support.targets.local import namespaces

T = TypeVar("T")
WORKER, OTHER = "dynamo/vllm-worker-0", "dynamo/frontend-0"
UID, CONTAINER = "0c8b6f2e-8f2c-4a57-9d8e-2b1d3f4a5b6c", "5d1e" * 16
# A first process and a child that it does not look after, in a network namespace of their own where there may be one.
PROGRAM = """
import subprocess, sys, time
from agents.core.kernel import bring_loopback_up, enter_new_namespaces
if sys.argv[1] == "apart":
    enter_new_namespaces("net")
    bring_loopback_up()
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


class Cluster(Api):
    """An API server that knows two pods."""

    def __init__(self) -> None:
        self.away = False
        self.known = [
            Pod(WORKER, UID, "10.0.0.7", "Running", "node-a", main="main", containers={"main": CONTAINER}),
            Pod(OTHER, "1111", "10.0.0.9", "Running", "node-b", main="main", containers={"main": "9" * 64}),
        ]

    async def pods(self, namespace: str, node: str = "") -> list[Pod]:
        if self.away:
            raise PodsError("the Kubernetes API does not answer")
        return [pod for pod in self.known if node in ("", pod.node)]


@pytest.fixture(autouse=True)
def _marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process belongs to what ``CGROUP`` in its environment says."""

    def cgroup_of(pid: int) -> str:
        try:
            found = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return ""
        return next((os.fsdecode(each[7:]) for each in found if each.startswith(b"CGROUP=")), "")

    monkeypatch.setattr(machine, "cgroup_of", cgroup_of)


@pytest.fixture
def pids() -> Iterator[tuple[int, int]]:
    """The first process of the worker's container, and its child."""
    yield from _container("shared")


@pytest.fixture
def apart() -> Iterator[tuple[int, int]]:
    """The same, with a network namespace of its own."""
    if reason := namespaces.missing():
        pytest.skip(f"needs network namespaces: {reason}")
    yield from _container("apart")


def _container(network: str) -> Iterator[tuple[int, int]]:
    env = os.environ | {"CGROUP": f"/kubepods/pod{UID}/{CONTAINER}"}
    first = subprocess.Popen([sys.executable, "-c", PROGRAM, network], env=env, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    child = int(first.stdout.readline())
    yield first.pid, child
    for pid in (child, first.pid):
        if _lives(pid):
            os.kill(pid, signal.SIGKILL)
    first.wait()
    first.stdout.close()


def _lives(pid: int) -> bool:
    return (stat_of(pid) or ("X", 0))[0] not in "ZX"


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def agent(tmp_path: Path, cluster: Cluster | None) -> PodAgent:
    settings = HostSettings("node-a", tmp_path, "token", ("dynamo",))
    return PodAgent(settings, cluster, Path("/proc/self/ns/net"))


def on(tmp_path: Path, cluster: Cluster | None, work: Callable[[PodAgent], Awaitable[T]]) -> T:
    """What ``work`` returns, with an agent that has taken up its journal; its leases end with it."""

    async def run() -> T:
        made = agent(tmp_path, cluster)
        made.book.journal.hold()
        await made.take_up()
        try:
            return await work(made)
        finally:
            made.book.close()
            made.book.journal.hold().close()

    return asyncio.run(run())


def order(kind: str, type_: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "type": type_, "target": WORKER, "duration_seconds": 60} | more


def test_a_hang_stops_all_that_the_container_runs(tmp_path: Path, cluster: Cluster, pids: tuple[int, int]) -> None:
    async def work(found: PodAgent) -> tuple[list[bool], list[bool], str]:
        fault = await found.inject(order("process", "hang"))
        during = [is_stopped(pid) for pid in pids]
        ended = await found.recover(fault["id"])
        return during, [is_stopped(pid) for pid in pids], ended["state"]

    assert on(tmp_path, cluster, work) == ([True, True], [False, False], "recovered")


def test_a_crash_leaves_nothing_of_the_container_and_is_over_at_once(
    tmp_path: Path, cluster: Cluster, pids: tuple[int, int]
) -> None:
    async def work(found: PodAgent) -> str:
        return str((await found.inject(order("process", "crash")))["state"])

    assert on(tmp_path, cluster, work) == "recovered"
    assert [_lives(pid) for pid in pids] == [False, False]


def test_a_shutdown_is_told_to_the_first_process_and_ends_with_its_lease(
    tmp_path: Path, cluster: Cluster, pids: tuple[int, int]
) -> None:
    os.kill(pids[0], signal.SIGSTOP)  # does not act on it before it goes on

    async def work(found: PodAgent) -> tuple[list[bool], str]:
        fault = await found.inject(order("process", "terminate"))
        during = [_lives(pid) for pid in pids]
        return during, (await found.recover(fault["id"]))["state"]

    assert on(tmp_path, cluster, work) == ([True, True], "recovered")
    assert [_lives(pid) for pid in pids] == [False, False]


def test_a_container_that_has_been_started_again_is_not_touched(
    tmp_path: Path, cluster: Cluster, pids: tuple[int, int]
) -> None:
    async def work(found: PodAgent) -> str:
        fault = await found.inject(order("process", "hang"))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return str((await found.recover(fault["id"]))["state"])

    assert on(tmp_path, cluster, work) == "recovered"


def tables(pid: int) -> list[str]:
    """Names of the tables that the kernel has for a process."""
    with open(f"/proc/{pid}/ns/net") as namespace:
        bench = Bench(namespace.fileno())
    try:
        return [str(name) for name in bench.submit(netlink.tables).result(netlink.KERNEL_SECONDS)]
    finally:
        bench.close()


def cut() -> dict[str, Any]:
    return {"kind": "network", "type": "drop", "sources": [OTHER], "targets": [WORKER], "duration_seconds": 60}


def test_a_cut_lies_in_the_network_of_the_pod(tmp_path: Path, cluster: Cluster, apart: tuple[int, int]) -> None:
    async def work(found: PodAgent) -> tuple[Any, list[str], str]:
        fault = await found.inject(cut())
        during = tables(apart[0])
        assert during == [f"ft_{fault['id']}"]
        return fault["evidence"]["peers"], tables(os.getpid()), (await found.recover(fault["id"]))["state"]

    peers, own, state = on(tmp_path, cluster, work)
    assert peers == {WORKER: ["10.0.0.9"]}
    assert not [name for name in own if name.startswith("ft_f-")]
    assert (state, tables(apart[0])) == ("recovered", [])


def test_an_agent_that_cannot_ask_the_cluster_undoes_what_another_has_made(
    tmp_path: Path, cluster: Cluster, apart: tuple[int, int]
) -> None:
    async def make(found: PodAgent) -> None:
        await found.inject(cut())

    on(tmp_path, cluster, make)
    assert len(tables(apart[0])) == 1
    cluster.away = True

    async def end(found: PodAgent) -> list[str]:
        return [fault.state for fault in await found.book.recover_all()]

    assert on(tmp_path, cluster, end) == ["recovered"]
    assert tables(apart[0]) == []


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (order("process", "crash", target="dynamo/who"), 404, f"no pod 'dynamo/who' on this machine; known: {WORKER}"),
        (order("process", "crash", target=OTHER), 404, f"no pod '{OTHER}' on this machine"),
        (order("process", "crash", target=f"{WORKER}/side"), 409, "runs no container 'side'"),
        (order("process", "crash"), 409, "has no process on this machine"),
        (
            cut() | {"targets": [OTHER], "sources": [WORKER]},
            409,
            f"'{OTHER}' has no network of its own on this machine",
        ),
        (cut() | {"targets": ["dynamo/who"]}, 404, "no node 'dynamo/who'; known: "),
    ],
)
def test_what_cannot_be_broken_is_refused(
    tmp_path: Path, cluster: Cluster, body: dict[str, Any], status: int, said: str
) -> None:
    async def work(found: PodAgent) -> None:
        await found.inject(body)

    with pytest.raises(Problem, match=said.replace("(", r"\(")) as refused:
        on(tmp_path, cluster, work)
    assert refused.value.status == status


def test_a_pod_that_shares_the_network_of_its_machine_is_not_cut(
    tmp_path: Path, cluster: Cluster, pids: tuple[int, int]
) -> None:
    async def work(found: PodAgent) -> None:
        await found.inject(cut())

    with pytest.raises(Problem, match="no network of its own on this machine"):
        on(tmp_path, cluster, work)


def test_the_targets_are_the_pods_on_this_machine(tmp_path: Path, cluster: Cluster) -> None:
    async def work(found: PodAgent) -> Any:
        return (await found.topology())["nodes"]

    [node] = on(tmp_path, cluster, work)
    assert (node["name"], node["role"], node["address"]) == (WORKER, "pod", "10.0.0.7")
