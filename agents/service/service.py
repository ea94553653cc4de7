"""The service behind its API: it finds the agents, keeps the limits and passes orders on. It keeps no faults."""

import asyncio
import json
from typing import Any

from fastapi import Request

from agents.core.faults import LIVE, Problem
from agents.service.agents import ANSWER_SECONDS, CUSTOM, READ_SECONDS, AgentAddress, Agents, Search
from agents.service.audit import Asked, AuditLog
from agents.service.metrics import Metrics
from agents.service.policy import Policy

MACHINES = ("machine", "pod")
"""Roles whose nodes are spread over agents: there the share is one of all of them."""


class Service:
    """Resolves, allows, passes on and records."""

    def __init__(self, agents: list[AgentAddress], policy: Policy, search: Search | None = None) -> None:
        self.agents, self.policy, self.metrics = Agents(agents, search), policy, Metrics()
        self.audit = AuditLog(policy, self.metrics.lost)
        self._counting = asyncio.Lock()
        self._under_way: dict[str, set[tuple[str, str]]] = {}
        self._last_owed: dict[str, list[dict[str, Any]]] = {}

    async def inject(self, request: Request, agent: AgentAddress, body: dict[str, Any], dry_run: bool) -> Any:
        """Pass an injection on, unless a limit forbids it; a dry run is forbidden the same."""
        targets = body.get("targets") or [body["target"]]
        sources = body.get("sources", [])
        for name in [*targets, *sources]:
            self.policy.check_target(name)
        # Of a partition by roles the first side is whole, as of a cut between all workers and the one frontend.
        hit = {(agent.name, name) for name in [*targets, *(sources if body.get("label") == CUSTOM else [])]}
        call = request.state.call
        async with self._counting:  # else two that come at once would both find room below the limit
            await self._check_limits(agent, hit)
            if not dry_run:
                self._under_way[call] = hit
        if dry_run:
            return await self.agents.call(agent, "POST", "/v1/faults?dry_run=true", body)
        labels, outcome = {"kind": body["kind"], "type": body["type"]}, "refused"
        try:
            self.audit.begun(request, refuse=True)
            fault = await self.agents.call(agent, "POST", "/v1/faults", body)
            outcome = "done"
        finally:
            del self._under_way[call]
            self.metrics.injections.labels(outcome=outcome, **labels).inc()
        request.state.fault = fault["id"]
        request.state.asked = Asked(fault["kind"], fault["type"], fault["parameters"], fault["duration_seconds"])
        return fault

    async def _check_limits(self, agent: AgentAddress, hit: set[tuple[str, str]]) -> None:
        """409 when one more fault, of the nodes ``hit``, is too much; an agent that is away counts as last seen."""
        before = list(self._under_way.values())
        found, _ = await self.agents.read("/v1/faults?owed=true")
        self._last_owed |= {name: json.loads(text) for name, text in found.items()}
        owed = [fault for faults in self._last_owed.values() for fault in faults]
        pending = sum(fault["state"] == "pending" for fault in owed)  # these have begun, too
        count = len(owed) - pending + max(pending, len(before))
        if count >= self.policy.max_active:
            detail = f"faults that are live, begun or not undone: {count}; the limit is {self.policy.max_active}"
            raise Problem(409, "Too many faults", detail)
        if self.policy.max_share == 1:
            return
        topologies, _ = await self.agents.topologies()
        roles = {(name, node["name"]): node["role"] for name, nodes in topologies.items() for node in nodes}
        taken = {(fault["deployment"], name) for fault in owed for name in fault["targets"]}.union(*before)
        for role in sorted({roles[node] for node in hit if node in roles}):
            alike = {node for node in roles if roles[node] == role and (role in MACHINES or node[0] == agent.name)}
            if len((taken | hit) & alike) > max(1, self.policy.max_share * len(alike)):
                detail = f"{len(taken & alike)} of {len(alike)} with role {role} already have faults; the limit is "
                raise Problem(409, "Too many targets", f"{detail}{self.policy.max_share:g}")

    async def all_faults(self, active: bool | None) -> tuple[str, dict[str, Problem]]:
        """The faults of all agents that answer, a JSON array that has not been unpacked on the way, and who does not.

        Raises:
            Problem: 503, none answers.
        """
        found, missing = await self.agents.read(f"/v1/faults{'?active=true' if active else ''}")
        if missing and not found:
            raise next(iter(missing.values()))
        if active is False:
            over = [fault for each in found.values() for fault in json.loads(each) if fault["state"] not in LIVE]
            return json.dumps(over), missing
        return f"[{','.join(filter(None, (each[1:-1] for each in found.values())))}]", missing

    async def recover(self, request: Request, fault_id: str) -> Any:
        """Undo one fault; :class:`Problem` 502 when that has failed."""
        request.state.fault = fault_id
        self.audit.begun(request, refuse=False)
        fault = await self.agents.ask_owner("POST", fault_id, "/recover")
        request.state.target = fault["targets"]
        if fault["owed"]:
            raise Problem(502, "Not undone", _not_undone([fault]))
        return fault

    async def recover_all(self, request: Request) -> list[Any]:
        """Undo every fault of all agents; :class:`Problem` 502 or 503 when some are not undone."""
        self.audit.begun(request, refuse=False)
        _, silent = await self.agents.read("/v1/faults?owed=true", prompt=True)

        async def ask(agent: AgentAddress) -> Any:
            # One that is silent now may hear it all the same once it goes on.
            seconds = READ_SECONDS if agent.name in silent else ANSWER_SECONDS
            try:
                return await self.agents.call(agent, "POST", "/v1/faults/recover", seconds=seconds)
            except Problem as refusal:
                return refusal

        answers = await asyncio.gather(*(ask(agent) for agent in self.agents.by_name.values()))
        trouble = [each for each in answers if isinstance(each, Problem)]
        found = [fault for each in answers if not isinstance(each, Problem) for fault in each]
        request.state.fault = [fault["id"] for fault in found]
        request.state.target = sorted({name for fault in found for name in fault["targets"]})
        failed = [fault for fault in found if fault["owed"]]
        done = f"others undone: {len(found) - len(failed)}"
        if trouble:
            words = [*(each.detail for each in trouble), *([_not_undone(failed)] if failed else []), done]
            raise Problem(trouble[0].status, trouble[0].title, "; ".join(words))
        if failed:
            raise Problem(502, "Not undone", f"{_not_undone(failed)}; {done}")
        return found


def _not_undone(faults: list[dict[str, Any]]) -> str:
    names = ", ".join(f"{fault['id']} ({fault['type']} of {', '.join(fault['targets'])})" for fault in faults)
    why = faults[0].get("evidence", {}).get("differences")
    reason = f": {'; '.join(why)}" if why else ""
    return f"the undo of {names} has failed{reason}; it is retried by itself, and at once when you recover it again"
