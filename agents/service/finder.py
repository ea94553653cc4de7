"""Agents that are pods of a cluster: found by their name, for their addresses change with every restart."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
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
        self._names: dict[str, str] = {}
        self._last: list[AgentAddress] = []

    async def look(self, ask: Callable[[AgentAddress], Awaitable[Any]]) -> list[AgentAddress]:
        """Those that there are; while the API cannot be asked, those of the last time."""
        try:
            found = {uid: each for place in self._places for uid, each in (await self._pods(place)).items()}
        except PodsError:
            return self._last
        new = {uid: each for uid, each in found.items() if uid not in self._names}
        named = dict(zip(new, await asyncio.gather(*(_name(each, ask) for each in new.values())), strict=True))
        known = self._names | {uid: name for uid, name in named.items() if name}
        self._names = {uid: name for uid, name in known.items() if uid in found}
        # One that has not said yet what it is called is missing under the name of its pod.
        self._last = [replace(each, name=self._names.get(uid, each.name)) for uid, each in found.items()]
        return self._last

    async def _pods(self, place: Where) -> dict[str, AgentAddress]:
        pods = [pod for pod in await self._api.pods(place.namespace) if pod.labels.get(LABEL) == place.app]
        return {pod.uid: self._at(pod, place.port) for pod in pods if pod.address}

    def _at(self, pod: Pod, port: int) -> AgentAddress:
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        return AgentAddress(pod.name, f"http://{host}:{port}", self._token)


async def _name(agent: AgentAddress, ask: Callable[[AgentAddress], Awaitable[Any]]) -> str:
    """What an agent calls itself; empty when it does not answer."""
    try:
        return str((await ask(agent))["deployment"])
    except Problem:
        return ""
