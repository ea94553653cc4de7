"""Agents that are pods: the service finds them by their label, under the names that they have for themselves."""

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest

from agents.core.faults import Problem
from agents.host.pods import Api, Pod, PodsError
from agents.service.agents import AgentAddress, Agents
from agents.service.finder import LABEL, Finder, Where
from support.settings import ROOT

HERE = Where("fault-injection", "pod-fault-injector", 8082)


def pod(name: str, address: str, app: str = HERE.app) -> Pod:
    return Pod(f"fault-injection/{name}", f"uid-{name}", address, "Running", labels={LABEL: app})


class Cluster(Api):
    """An API server that knows the given pods, and their topologies by address."""

    def __init__(self, *pods: Pod) -> None:
        self.known, self.away, self.silent = list(pods), False, set[str]()
        self.asked: list[str] = []

    async def pods(self, namespace: str, node: str = "") -> list[Pod]:
        if self.away:
            raise PodsError("away")
        assert namespace == HERE.namespace
        return self.known

    async def topology(self, agent: AgentAddress) -> Any:
        self.asked.append(agent.url)
        if agent.url in self.silent:
            raise Problem(503, "Agent not available", "silent")
        return {"deployment": f"node-{agent.url.rpartition('.')[2].partition(':')[0]}"}


def look(finder: Finder, cluster: Cluster) -> dict[str, str]:
    return {agent.name: agent.url for agent in asyncio.run(finder.look(cluster.topology))}


def test_agents_are_found_by_label_and_asked_once_for_their_names() -> None:
    cluster = Cluster(pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), pod("other", "10.0.0.3", "dns"), pod("new", ""))
    finder = Finder(cluster, [HERE], "token")
    expected = {"node-1": "http://10.0.0.1:8082", "node-2": "http://10.0.0.2:8082"}
    assert look(finder, cluster) == look(finder, cluster) == expected
    assert sorted(cluster.asked) == sorted(expected.values())


def test_one_that_has_moved_is_found_again_and_one_that_is_gone_is_forgotten() -> None:
    cluster = Cluster(pod("a", "10.0.0.1"), pod("b", "10.0.0.2"))
    finder = Finder(cluster, [HERE], "token")
    look(finder, cluster)
    cluster.known = [pod("a", "fd00::7")]
    assert look(finder, cluster) == {"node-1": "http://[fd00::7]:8082"}


def test_one_that_does_not_answer_yet_has_the_name_of_its_pod() -> None:
    cluster = Cluster(pod("a", "10.0.0.1"))
    finder = Finder(cluster, [HERE], "token")
    cluster.silent = {"http://10.0.0.1:8082"}
    assert list(look(finder, cluster)) == ["fault-injection/a"]
    cluster.silent.clear()
    assert list(look(finder, cluster)) == ["node-1"]


def test_while_the_api_is_away_those_of_the_last_time_are_known() -> None:
    cluster = Cluster(pod("a", "10.0.0.1"))
    finder = Finder(cluster, [HERE], "token")
    before = look(finder, cluster)
    cluster.away = True
    assert look(finder, cluster) == before == {"node-1": "http://10.0.0.1:8082"}


def test_agents_that_were_named_stay_beside_those_that_are_found() -> None:
    cluster = Cluster(pod("a", "10.0.0.1"))
    agents = Agents([AgentAddress("gpu", "http://127.0.0.1:8081", "token")], Finder(cluster, [HERE], "token"))

    async def names() -> list[str]:
        agents._topology = cluster.topology  # type: ignore[method-assign]
        await agents.look()
        await agents.look()
        return sorted(agents.by_name)

    assert asyncio.run(names()) == ["gpu", "node-1"]
    assert len(cluster.asked) == 1


@pytest.mark.parametrize("text", ["", "fault-injection", "fault-injection/x", "a/b:0", "a/b:70000", "a/b/c:1", "A/b:1"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected NAMESPACE/APP:PORT"):
        Where.parse(text)


def test_outside_of_a_cluster_nobody_can_be_found() -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("FT_", "KUBERNETES_"))}
    argv = [sys.executable, "-m", "agents.service", "--port=0", "--agents-in=a/b:1"]
    env = own | {"FT_SERVICE_TOKEN": "s", "FT_AGENT_TOKEN": "a"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "outside a cluster, name agents with --agent" in done.stderr) == (2, True)
