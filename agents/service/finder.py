"""Agents that are pods of a cluster: found by their name, for their addresses change with every restart."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agents.core.faults import Problem
from agents.host.pods import Api, Pod, PodsError
from agents.service.agents import AgentAddress

LABEL = "app.kubernetes.io/name"


@dataclass(frozen=True)
class Where:
    """Pods that are agents.

    Attributes:
        namespace: theirs; ``app``: value of their :data:`LABEL`; ``port``: that they listen on.
    """

    namespace: str
    app: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Where":
        """Of ``NAMESPACE/APP:PORT``.

        Raises:
            ValueError: it is something else.
        """
        found = re.fullmatch(r"([a-z0-9-]+)/([A-Za-z0-9._-]+):([0-9]{1,5})", text)
        if not found or not 0 < int(found[3]) < 65536:
            raise ValueError(f"{text!r}; expected NAMESPACE/APP:PORT, such as fault-injection/pod-fault-injector:8082")
        return cls(found[1], found[2], int(found[3]))


class Finder:
    """Implements :class:`agents.service.agents.Search`: asks the API for agents, and each new one what it is called."""

    def __init__(self, api: Api, places: Sequence[Where], token: str) -> None:
        self._api, self._places, self._token = api, places, token
        self._known: dict[str, AgentAddress] = {}

    async def look(self, ask: Callable[[AgentAddress], Awaitable[Any]]) -> list[AgentAddress]:
        """Those that there are; while the API cannot be asked, those of the last time."""
        try:
            found = {uid: each for place in self._places for uid, each in (await self._pods(place)).items()}
        except PodsError:
            return list(self._known.values())
        new = {uid: each for uid, each in found.items() if uid not in self._known or self._known[uid].url != each.url}
        named = dict(zip(new, await asyncio.gather(*(_named(each, ask) for each in new.values())), strict=True))
        answers = {uid: each for uid, each in named.items() if each}
        self._known = {uid: each for uid, each in self._known.items() if uid in found} | answers
        # One that has not said yet what it is called is missing under the name of its pod.
        return [answers.get(uid) or self._known.get(uid) or each for uid, each in found.items()]

    async def _pods(self, place: Where) -> dict[str, AgentAddress]:
        pods = [pod for pod in await self._api.pods(place.namespace) if pod.labels.get(LABEL) == place.app]
        return {pod.uid: self._at(pod, place.port) for pod in pods if pod.address}

    def _at(self, pod: Pod, port: int) -> AgentAddress:
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        return AgentAddress(pod.name, f"http://{host}:{port}", self._token)


async def _named(agent: AgentAddress, ask: Callable[[AgentAddress], Awaitable[Any]]) -> AgentAddress | None:
    try:
        return AgentAddress(str((await ask(agent))["deployment"]), agent.url, agent.token)
    except Problem:
        return None
