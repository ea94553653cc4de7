"""The agents behind the service: who has which target, and the way to them."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from agents.core.faults import Problem

FAULT_ID = r"f-[0-9a-f]{1,32}"
WORKERS = ("worker", "decode", "prefill")
PARTITIONS = {
    "FRONTEND_WORKER": (("frontend",), WORKERS),
    "WORKER_NATS": (("nats",), WORKERS),
    "WORKER_WORKER": (WORKERS, WORKERS),
    "WORKER_ETCD": (("etcd",), WORKERS),
    "ETCD_ETCD": (("etcd",), ("etcd",)),
}
"""Partition -> roles of the one side and of the other; the rules are made on the other."""
CUSTOM = "CUSTOM"
"""Partition between nodes that are named."""
ANSWER_SECONDS, CAPABILITY_SECONDS, FIND_SECONDS, READ_SECONDS = 90.0, 20.0, 5.0, 3.0
"""How long an agent has to make or undo a fault, to try out what it can, to tell its nodes before a fault (it may just
be starting again), and to tell its faults. One that is silent for longer counts as missing."""
FOUND_SECONDS = 1.0
"""For how long it is known which agents there are."""
SILENT_SECONDS, LONE_SECONDS = 0.5, 30.0
"""How long one of several agents has that was silent the last time, and an only one, beside which there is nothing to
tell."""


@dataclass(frozen=True)
class AgentAddress:
    """One agent: the name of its deployment, its URL and token."""

    name: str
    url: str
    token: str = field(repr=False)


class Search(Protocol):
    """Looks for agents whose addresses nobody could name beforehand."""

    async def look(self, ask: Callable[[AgentAddress], Awaitable[Any]]) -> list[AgentAddress]:
        """Those that there are; ``ask`` gets the topology of one, or raises :class:`Problem`."""


class Agents:
    """All agents that the service was given, and those that are found.

    Attributes:
        by_name: all of them.
    """

    def __init__(self, agents: list[AgentAddress], search: Search | None = None) -> None:
        self._given = {agent.name: agent for agent in agents}
        self.by_name = dict(self._given)
        self._search = search
        self._looked_at, self._looking = float("-inf"), asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._silent: set[str] = set()

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    async def look(self) -> None:
        """Look for agents, unless that was done within :data:`FOUND_SECONDS`; one that is no more is forgotten."""
        if self._search is None:
            return
        async with self._looking:
            if time.monotonic() - self._looked_at > FOUND_SECONDS:
                found = await self._search.look(self._topology)
                self.by_name = {agent.name: agent for agent in found} | self._given
                self._looked_at = time.monotonic()

    async def _topology(self, agent: AgentAddress) -> Any:
        return await self.call(agent, "GET", "/v1/topology", seconds=READ_SECONDS)

    async def call(
        self, agent: AgentAddress, method: str, path: str, body: Any = None, seconds: float = ANSWER_SECONDS
    ) -> Any:
        """Ask an agent; its refusals come back as :class:`Problem`, 503 when it does not answer in ``seconds``."""
        return json.loads(await self.text(agent, method, path, body, seconds))

    async def text(
        self, agent: AgentAddress, method: str, path: str, body: Any = None, seconds: float = ANSWER_SECONDS
    ) -> str:
        """The same, but the answer as it came: JSON."""
        if self._session is None:
            self._session = aiohttp.ClientSession()
        limit = aiohttp.ClientTimeout(total=seconds, sock_connect=READ_SECONDS)
        more: dict[str, Any] = {"headers": {"Authorization": f"Bearer {agent.token}"}, "timeout": limit}
        try:
            async with self._session.request(method, agent.url + path, json=body, **more) as answer:
                text, status = await answer.text(), answer.status
                content = json.loads(text) if status >= 400 else {}
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            detail = f"the agent of {agent.name!r} at {agent.url} does not answer: {type(error).__name__}"
            raise Problem(503, "Agent not available", detail) from None
        if status >= 500 and status not in (501, 507):
            raise Problem(502, content.get("title", "Agent failed"), content.get("detail", f"status {status}"))
        if status >= 400:
            raise Problem(status, content["title"], content["detail"])
        return text

    async def read(
        self, path: str, seconds: float = READ_SECONDS, only: str | None = None, prompt: bool = False
    ) -> tuple[dict[str, str], dict[str, Problem]]:
        """Read from all agents at once, or from one: name -> answer (JSON), and name -> why there is none.

        Args:
            prompt: whether silence is an answer as well, so that an only agent has no longer than others.
        """
        asked = [agent for name, agent in self.by_name.items() if only in (None, name)]
        if len(self.by_name) > 1:
            limits = [min(seconds, SILENT_SECONDS) if agent.name in self._silent else seconds for agent in asked]
        else:
            limits = [seconds if prompt else max(seconds, LONE_SECONDS) for _ in asked]
        work = (self.text(agent, "GET", path, seconds=limit) for agent, limit in zip(asked, limits, strict=True))
        answers = dict(zip(asked, await asyncio.gather(*work, return_exceptions=True), strict=True))
        found: dict[str, str] = {}
        missing: dict[str, Problem] = {}
        for agent, answer in answers.items():
            if isinstance(answer, Problem):
                missing[agent.name] = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found[agent.name] = answer
        self._silent = self._silent - found.keys() | missing.keys()
        return found, missing

    async def ask_owner(self, method: str, fault_id: str, path: str = "") -> Any:
        """Ask the agent that knows a fault; one that is silent is waited for only as long as no other knows it.

        Raises:
            Problem: 404, no agent knows it; 503, none that answers does.
        """
        unknown = Problem(404, "Unknown fault", f"no fault {fault_id!r}; GET /api/v1/faults lists them")
        if not re.fullmatch(FAULT_ID, fault_id):
            raise unknown
        seconds = ANSWER_SECONDS if method == "POST" else FIND_SECONDS
        url = f"/v1/faults/{fault_id}{path}"
        asked = [asyncio.ensure_future(self.call(each, method, url, None, seconds)) for each in self.by_name.values()]
        away: Problem | None = None
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    return await answer
                except Problem as refusal:
                    if refusal.status not in (404, 503):
                        raise
                    away = refusal if refusal.status == 503 else away
        finally:
            for each in asked:
                each.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*asked, return_exceptions=True)
        raise away or unknown

    async def topologies(
        self, deployment: str | None = None
    ) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Problem]]:
        """Deployment -> its nodes, of one deployment or of all, and the agents that do not answer.

        Raises:
            Problem: 404, there is no such deployment, or none at all; 503, no agent answers.
        """
        if deployment is not None and deployment not in self.by_name:
            known = ", ".join(sorted(self.by_name)) or "none"
            raise Problem(404, "Unknown deployment", f"no deployment {deployment!r}; known: {known}")
        if not self.by_name:
            detail = "no agent is known to this service: start a deployment (make up), or name an agent with --agent"
            raise Problem(404, "No deployment", detail)
        found, missing = await self.read("/v1/topology", FIND_SECONDS, deployment)
        if not found:
            raise _all_away(missing)
        return {name: json.loads(text)["nodes"] for name, text in found.items()}, missing

    async def find(self, name: str, deployment: str | None) -> AgentAddress:
        """The agent that has the node ``name``; 404 when none, 409 when two have it, 503 when one that is away may."""
        topologies, missing = await self.topologies(deployment)
        meant = {name, "/".join(name.split("/")[:2])}  # of NAMESPACE/POD/CONTAINER the pod
        having = [each for each, nodes in topologies.items() if any(node["name"] in meant for node in nodes)]
        if not having:
            known = ", ".join(sorted(node["name"] for nodes in topologies.values() for node in nodes)) or "none"
            raise _unknown("Unknown target", f"no target {name!r}; known: {known}", missing)
        if len(having) > 1:
            listed = ", ".join(sorted(having))
            raise Problem(409, "Ambiguous target", f"{name!r} is in {listed}; choose one with deployment")
        return self.by_name[having[0]]

    async def sides(
        self, partition: str, deployment: str | None, only: str | None
    ) -> tuple[AgentAddress, list[str], list[str]]:
        """Agent, sources and targets of a partition by roles; ``only`` narrows the targets to one node."""
        topologies, missing = await self.topologies(deployment)
        sides = {
            name: [[node["name"] for node in nodes if node["role"] in roles] for roles in PARTITIONS[partition]]
            for name, nodes in topologies.items()
        }
        # An agent of GPUs, say, has neither side of a partition: it is not meant.
        having = {name: each for name, each in sides.items() if all(each)}
        if len(having) > 1:
            listed = ", ".join(sorted(having))
            raise Problem(409, "Ambiguous deployment", f"several deployments run: {listed}; choose one with deployment")
        if not having:
            lacking = [
                f"deployment {name!r} has no {' or '.join(roles)}"
                for name, each in sides.items()
                for roles, names in zip(PARTITIONS[partition], each, strict=True)
                if not names
            ]
            raise _unknown("No such side", f"{partition}: {'; '.join(lacking)}", missing)
        [(name, found)] = having.items()
        sources, targets = found
        if only is not None:
            if only not in targets:
                raise Problem(404, "Unknown target", f"{partition}: no target {only!r}; known: {', '.join(targets)}")
            targets = [only]
        return self.by_name[name], sources, targets


def _unknown(title: str, detail: str, missing: dict[str, Problem]) -> Problem:
    """Nobody who answers has it: 404, or 503 where somebody does not answer who may have it."""
    if not missing:
        return Problem(404, title, detail)
    return Problem(503, "Agent not available", f"{detail}; {_in_words(missing)}")


def _all_away(missing: dict[str, Problem]) -> Problem:
    first = next(iter(missing.values()))
    return Problem(first.status, first.title, _in_words(missing))


def _in_words(missing: dict[str, Problem]) -> str:
    return "; ".join(each.detail for each in missing.values())
