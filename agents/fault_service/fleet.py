"""The agents behind the service: who has which target, and the way to them."""

from dataclasses import dataclass
from typing import Any

import aiohttp

from agents.faults import Problem

WORKERS = ("worker", "decode", "prefill")
PARTITIONS = {
    "FRONTEND_WORKER": (("frontend",), WORKERS),
    "WORKER_NATS": (("nats",), WORKERS),
    "WORKER_WORKER": (WORKERS, WORKERS),
    "WORKER_ETCD": (("etcd",), WORKERS),
    "ETCD_ETCD": (("etcd",), ("etcd",)),
}
"""Partition -> roles of the one side and of the other; the rules are made on the other."""
ANSWER_SECONDS = 90.0


@dataclass(frozen=True)
class AgentAddress:
    """One agent: the name of its deployment, its URL and token."""

    name: str
    url: str
    token: str


class Fleet:
    """All agents that the service was given."""

    def __init__(self, agents: list[AgentAddress]) -> None:
        self.agents = {agent.name: agent for agent in agents}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    async def call(self, agent: AgentAddress, method: str, path: str, body: Any = None) -> Any:
        """Ask an agent; its refusals come back as :class:`Problem`, 503 when it does not answer."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))
        headers = {"Authorization": f"Bearer {agent.token}"}
        try:
            async with self._session.request(method, agent.url + path, json=body, headers=headers) as answer:
                content = await answer.json(content_type=None)
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            detail = f"the agent of {agent.name!r} at {agent.url} does not answer: {type(error).__name__}"
            raise Problem(503, "Agent not available", detail) from None
        if status >= 500 and status != 501:
            raise Problem(502, content.get("title", "Agent failed"), content.get("detail", f"status {status}"))
        if status >= 400:
            raise Problem(status, content["title"], content["detail"])
        return content

    async def topologies(self, deployment: str | None = None) -> dict[str, list[dict[str, Any]]]:
        """Deployment -> its nodes; of one deployment, or of all agents that answer."""
        if deployment is not None and deployment not in self.agents:
            known = ", ".join(sorted(self.agents)) or "none"
            raise Problem(404, "Unknown deployment", f"no deployment {deployment!r}; known: {known}")
        if not self.agents:
            detail = "no agent is known to this service: start a deployment (make up), or name an agent with --agent"
            raise Problem(404, "No deployment", detail)
        chosen = [self.agents[deployment]] if deployment else list(self.agents.values())
        return {each.name: (await self.call(each, "GET", "/v1/topology"))["nodes"] for each in chosen}

    async def find(self, name: str, deployment: str | None) -> AgentAddress:
        """The agent that has the node ``name``; 404 when none, 409 when two have it."""
        topologies = await self.topologies(deployment)
        having = [each for each, nodes in topologies.items() if any(node["name"] == name for node in nodes)]
        if not having:
            known = ", ".join(sorted(node["name"] for nodes in topologies.values() for node in nodes)) or "none"
            raise Problem(404, "Unknown target", f"no target {name!r}; known: {known}")
        if len(having) > 1:
            listed = ", ".join(sorted(having))
            raise Problem(409, "Ambiguous target", f"{name!r} is in {listed}; say which with deployment")
        return self.agents[having[0]]

    async def sides(
        self, partition: str, deployment: str | None, only: str | None
    ) -> tuple[AgentAddress, list[str], list[str]]:
        """Agent, sources and targets of a partition by roles; ``only`` narrows the targets to one node."""
        topologies = await self.topologies(deployment)
        if len(topologies) > 1:
            listed = ", ".join(sorted(topologies))
            raise Problem(409, "Ambiguous deployment", f"several deployments run: {listed}; say which with deployment")
        [(name, nodes)] = topologies.items()
        found = []
        for roles in PARTITIONS[partition]:
            names = [node["name"] for node in nodes if node["role"] in roles]
            if not names:
                raise Problem(404, "No such side", f"{partition}: deployment {name!r} has no {' or '.join(roles)}")
            found.append(names)
        sources, targets = found
        if only is not None:
            if only not in targets:
                raise Problem(404, "Unknown target", f"{partition}: no target {only!r}; known: {', '.join(targets)}")
            targets = [only]
        return self.agents[name], sources, targets
