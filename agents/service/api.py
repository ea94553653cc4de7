"""The public HTTP API of the fault service. It keeps no faults: the agents do, and survive its death."""

import asyncio
import contextlib
import errno
import hashlib
import hmac
import ipaddress
import json
import math
import os
import secrets
import sys
import time
import urllib.parse
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client import Counter as Metric
from starlette.exceptions import HTTPException

from agents.core.faults import DEFAULT_SECONDS, LIVE, STATES, Problem
from agents.core.kernel import take_right_of_way
from agents.service import models
from agents.service.fleet import ANSWER_SECONDS, CAPABILITY_SECONDS, READ_SECONDS, AgentAddress, Fleet
from agents.xid import xids

LARGEST_BODY = 65536
PAGE = "/page"
"""Where the scripts and styles of the page at /docs lie."""
OPEN = ("/health", "/docs", "/openapi.json")
"""What wants no token: whether the service is there, and what it could do for those who have one."""
MACHINES = ("machine", "pod")
"""Roles whose nodes are spread over agents: there the share is one of all of them."""
STRANGERS_SECONDS = 60.0
"""How often the audit log has a line of those without the token, at most."""
MISSING_HEADER = "X-Agents-Missing"
"""Names the agents that a list is without."""


@dataclass
class Policy:
    """Who may do what.

    Attributes:
        token: bearer token that callers have to send; empty: none.
        nodes: names that may be targets; namespaces: those of targets ``NAMESPACE/POD`` that may be hit. A target has
            to be in the one or the other; both empty: all may.
        max_active: faults, of all agents, that may be live or have an undo that is owed at once.
        max_share: share of the nodes of a role that may be under such faults at once; one may in any case.
        hosts: names of this service that callers may use, beside ``localhost`` and addresses.
        audit: the append-only log.
        urgent: whether to be scheduled before everything else, as in a cell, where an order may not wait for boots.
    """

    audit: Path
    token: str = field(default="", repr=False)
    nodes: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    max_active: int = 10
    max_share: float = 1.0
    urgent: bool = False
    hosts: frozenset[str] = frozenset()

    @property
    def principal(self) -> str:
        """What the audit log calls whoever has the token, without telling it; anybody where there is none."""
        if not self.token:
            return "anybody"
        return f"token {hashlib.sha256(f'principal {self.token}'.encode()).hexdigest()[:8]}"


@dataclass
class Numbers:
    """What ``/metrics`` shows; a registry of its own, so that several services fit into one process."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        kind = ["kind", "type", "outcome"]
        self.injections = Metric("fault_injections", "Injections asked for.", kind, registry=self.registry)
        self.faults = Gauge("faults", "Faults by state.", ["state"], registry=self.registry)
        self.lost = Metric("fault_audit_lines_lost", "Lines without room in the audit log.", registry=self.registry)
        self.agents = Gauge("fault_agent_up", "Whether the agent answers.", ["agent"], registry=self.registry)
        self.seconds = Histogram("fault_request_seconds", "Time of a request.", ["method"], registry=self.registry)


def problem(status: int, title: str, detail: str, allowed: list[str] | None = None) -> JSONResponse:
    """A problem+json answer."""
    page = models.ProblemPage(title=title, status=status, detail=detail, allowed=allowed)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    content = page.model_dump(exclude_none=True)
    return JSONResponse(content, status, headers, media_type="application/problem+json")


_PAGE = {"content": {"application/problem+json": {"schema": models.ProblemPage.model_json_schema()}}}
_WORDS = {
    401: "no token",
    403: "wrong token, or a target that is not allowed",
    404: "unknown target or fault",
    409: "in the way of another fault, over a limit, or an ambiguous target",
    411: "a body without a Content-Length",
    413: "a body that is too large",
    422: "a value that is not allowed",
    421: "a name of this service that it does not know, or a page of another site",
    501: "this machine cannot do it",
    502: "an agent failed, or an undo did",
    503: "an agent does not answer",
    507: "no room on the disk for a record; nothing was done, or it is undone again",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": words} | _PAGE for status, words in _WORDS.items()
}


class Service:
    """Resolves, allows, passes on and records."""

    def __init__(self, agents: list[AgentAddress], policy: Policy) -> None:
        self.fleet, self.policy, self.numbers = Fleet(agents), policy, Numbers()
        self._counting = asyncio.Lock()
        self._under_way: dict[str, set[tuple[str, str]]] = {}
        self._last_owed: dict[str, list[dict[str, Any]]] = {}
        self._strangers: Counter[int] = Counter()
        self._strangers_at = -math.inf
        policy.audit.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    def audit(self, request: Request, status: int | None = None, seconds: float | None = None) -> None:
        """Append one line for a call: before it changes anything, without a status, and when it has ended.

        Raises:
            OSError: there is no room for it.
        """
        asked = getattr(request.state, "asked", None) or Asked()
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "call": request.state.call,
            "principal": self.policy.principal,
            "caller": request.client.host if request.client else "",
            "method": request.method,
            "path": request.url.path,
            "dry_run": getattr(request.state, "dry_run", False),
            "target": getattr(request.state, "target", None),
            "kind": asked.kind,
            "type": asked.type,
            "parameters": asked.parameters,
            "duration_seconds": asked.duration_seconds,
            "fault": getattr(request.state, "fault", None),
            "status": status,
            "seconds": None if seconds is None else round(seconds, 4),
        }
        self._append(line)

    def audit_begun(self, request: Request, refuse: bool) -> None:
        """The line before a call acts; where there is no room for it, one that makes a fault is refused.

        Raises:
            Problem: 507.
        """
        try:
            self.audit(request)
        except OSError as error:
            self._lost(error)
            if refuse:
                detail = f"the audit log cannot take a line: {error.strerror}; nothing was done"
                raise Problem(507, "No room for the audit log", detail) from None

    def audit_ended(self, request: Request, status: int, seconds: float) -> None:
        """The line after a call; whatever has become of it, its answer is not lost for want of room.

        Those without the token share a line a minute: they do not fill the disk.
        """
        try:
            if request.state.known:
                self.audit(request, status, seconds)
            else:
                self._strangers[status] += 1
                self.audit_strangers(STRANGERS_SECONDS)
        except OSError as error:
            self._lost(error)

    def audit_strangers(self, pause: float = 0.0) -> None:
        """Append a line for calls without the token, unless the last one is younger than ``pause`` seconds."""
        if self._strangers and time.monotonic() >= self._strangers_at + pause:
            self._strangers_at = time.monotonic()
            counts = {str(status): count for status, count in sorted(self._strangers.items())}
            self._strangers.clear()
            moment = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._append({"time": moment, "principal": None, "calls_by_status": counts})

    def _append(self, line: dict[str, Any]) -> None:
        """All of a line, or nothing of it."""
        data = (json.dumps(line) + "\n").encode()
        file = os.open(self.policy.audit, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            before = os.fstat(file).st_size
            try:
                if os.write(file, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(file, before)
                raise
        finally:
            os.close(file)

    def _lost(self, error: OSError) -> None:
        self.numbers.lost.inc()
        print(f"fault service: {self.policy.audit}: {error.strerror}", file=sys.stderr, flush=True)

    def is_known(self, request: Request) -> bool:
        """Whether the caller has the token, or none is wanted."""
        given = request.headers.get("authorization", "")
        return not self.policy.token or hmac.compare_digest(given.encode(), f"Bearer {self.policy.token}".encode())

    def authorise(self, request: Request) -> JSONResponse | None:
        """None when the caller may go on.

        The name that a call comes under counts too: a page of another site can have its own name lead to this machine
        (DNS rebinding), but has no control over an address.
        """
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        name = _host_of(f"//{host}")
        if not _is_address(name) and name not in ("localhost", *self.policy.hosts):
            detail = f"Host {host!r}; expected localhost, an address or a name of --allow-host"
            return problem(421, "Unknown name", detail)
        if origin is not None and origin.partition("://")[2] != host:
            return problem(421, "Another site", f"Origin {origin!r}; expected none, or this service's own")
        if request.state.known or request.url.path in OPEN or request.url.path.startswith(f"{PAGE}/"):
            return None
        if "authorization" not in request.headers:
            return problem(401, "No token", "send 'Authorization: Bearer' with the token of this service")
        return problem(403, "Wrong token", "the token in 'Authorization' is not that of this service")

    async def inject(self, request: Request, agent: AgentAddress, body: dict[str, Any], dry_run: bool) -> Any:
        """Pass an injection on, unless a limit forbids it; a dry run is forbidden the same."""
        targets = body.get("targets") or [body["target"]]
        sources = body.get("sources", [])
        for name in [*targets, *sources]:
            self._check_allowed(name)
        # Of a partition by roles the first side is whole, as of a cut between all workers and the one frontend.
        hit = {(agent.name, name) for name in [*targets, *(sources if body.get("label") == "CUSTOM" else [])]}
        call = request.state.call
        async with self._counting:  # else two that come at once would both find room below the limit
            await self._check_limits(agent, hit)
            if not dry_run:
                self._under_way[call] = hit
        if dry_run:
            return await self.fleet.call(agent, "POST", "/v1/faults?dry_run=true", body)
        labels, outcome = {"kind": body["kind"], "type": body["type"]}, "refused"
        try:
            self.audit_begun(request, refuse=True)
            fault = await self.fleet.call(agent, "POST", "/v1/faults", body)
            outcome = "done"
        finally:
            del self._under_way[call]
            self.numbers.injections.labels(outcome=outcome, **labels).inc()
        request.state.fault = fault["id"]
        request.state.asked = Asked(fault["kind"], fault["type"], fault["parameters"], fault["duration_seconds"])
        return fault

    def _check_allowed(self, name: str) -> None:
        nodes, namespaces = self.policy.nodes, self.policy.namespaces
        namespace = name.partition("/")[0] if "/" in name else None
        if not (nodes or namespaces) or name in nodes or namespace in namespaces:
            return
        if namespaces and namespace is not None:
            raise Problem(403, "Not allowed", f"the namespace of {name!r} is not among the allowed ones")
        raise Problem(403, "Not allowed", f"{name!r} is not among the allowed nodes")

    async def _check_limits(self, agent: AgentAddress, hit: set[tuple[str, str]]) -> None:
        """409 when one more fault, of the nodes ``hit``, is too much; an agent that is away counts as last seen."""
        before = list(self._under_way.values())
        found, _ = await self.fleet.read("/v1/faults?owed=true")
        self._last_owed |= {name: json.loads(text) for name, text in found.items()}
        owed = [fault for faults in self._last_owed.values() for fault in faults]
        pending = sum(fault["state"] == "pending" for fault in owed)  # these are among those under way
        count = len(owed) - pending + max(pending, len(before))
        if count >= self.policy.max_active:
            detail = f"{count} faults are live, begun or not undone; the limit is {self.policy.max_active}"
            raise Problem(409, "Too many faults", detail)
        if self.policy.max_share == 1:
            return
        topologies, _ = await self.fleet.topologies()
        roles = {(name, node["name"]): node["role"] for name, nodes in topologies.items() for node in nodes}
        taken = {(fault["deployment"], name) for fault in owed for name in fault["targets"]}.union(*before)
        for role in sorted({roles[node] for node in hit if node in roles}):
            alike = {node for node in roles if roles[node] == role and (role in MACHINES or node[0] == agent.name)}
            if len((taken | hit) & alike) > max(1, self.policy.max_share * len(alike)):
                detail = f"{len(taken & alike)} of {len(alike)} with role {role} are hit already; the limit is "
                raise Problem(409, "Too many targets", f"{detail}{self.policy.max_share:g}")

    async def all_faults(self, active: bool | None) -> tuple[str, dict[str, Problem]]:
        """The faults of all agents that answer, a JSON array that has not been unpacked on the way, and who does not.

        Raises:
            Problem: 503, none answers.
        """
        found, missing = await self.fleet.read(f"/v1/faults{'?active=true' if active else ''}")
        if missing and not found:
            raise next(iter(missing.values()))
        if active is False:
            over = [fault for each in found.values() for fault in json.loads(each) if fault["state"] not in LIVE]
            return json.dumps(over), missing
        return f"[{','.join(filter(None, (each[1:-1] for each in found.values())))}]", missing

    async def recover(self, request: Request, fault_id: str) -> Any:
        """Undo one fault; :class:`Problem` 502 when that has failed."""
        request.state.fault = fault_id
        self.audit_begun(request, refuse=False)
        fault = await self.fleet.ask_owner("POST", fault_id, "/recover")
        request.state.target = fault["targets"]
        if fault["owed"]:
            raise Problem(502, "Not undone", _not_undone([fault]))
        return fault

    async def recover_all(self, request: Request) -> list[Any]:
        """Undo every fault of all agents; :class:`Problem` 502 or 503 when some are not undone."""
        self.audit_begun(request, refuse=False)
        _, silent = await self.fleet.read("/v1/faults?owed=true", prompt=True)

        async def ask(agent: AgentAddress) -> Any:
            # One that is silent now may hear it all the same once it goes on.
            seconds = READ_SECONDS if agent.name in silent else ANSWER_SECONDS
            try:
                return await self.fleet.call(agent, "POST", "/v1/faults/recover", seconds=seconds)
            except Problem as refusal:
                return refusal

        answers = await asyncio.gather(*(ask(agent) for agent in self.fleet.agents.values()))
        trouble = [each for each in answers if isinstance(each, Problem)]
        found = [fault for each in answers if not isinstance(each, Problem) for fault in each]
        request.state.fault = [fault["id"] for fault in found]
        request.state.target = sorted({name for fault in found for name in fault["targets"]})
        failed = [fault for fault in found if fault["owed"]]
        done = f"{len(found) - len(failed)} others are undone"
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
    return f"the undo of {names} has failed{reason}; it is tried again by itself, and at once when recovered again"


def _target(body: models.Injection) -> str:
    given = {name for name in (body.target_pod, body.node_name) if name}
    if len(given) != 1:
        raise Problem(422, "No target", "expected exactly one of target_pod and node_name, or the same in both")
    return given.pop()


def _host_of(url: str) -> str:
    """In lower case, without port and brackets; empty where there is none to make out."""
    with contextlib.suppress(ValueError):
        return urllib.parse.urlsplit(url).hostname or ""
    return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Asked:
    """What the audit log tells of a fault that is asked for."""

    kind: str | None = None
    type: str | None = None
    parameters: dict[str, Any] | None = None
    duration_seconds: float | None = None


def _named(request: Request, dry_run: bool, targets: list[str], asked: Asked) -> list[str]:
    """Remember for the audit log what is asked for, before it is known whether there is such a thing."""
    request.state.target, request.state.dry_run, request.state.asked = targets, dry_run, asked
    return targets


def _seconds(body: models.Injection) -> float:
    return DEFAULT_SECONDS if body.duration_seconds is None else body.duration_seconds


DryRunFlag = Annotated[bool, Query(description="say what would be touched, and touch nothing")]
FaultId = Annotated[str, InPath(description="as the list has it")]


def application(agents: list[AgentAddress], policy: Policy) -> FastAPI:
    """The service in front of ``agents``."""
    service = Service(agents, policy)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if policy.urgent:
            take_right_of_way()
        yield
        with contextlib.suppress(OSError):
            service.audit_strangers()
        await service.fleet.close()

    app = FastAPIOffline(  # FastAPI's own page fetches its scripts from the network, and stays blank without it
        static_url=PAGE,
        redoc_url=None,
        title="Dynamo fault injection service",
        version="1",
        description="Real faults with an id, a proof and a guaranteed end.",
        responses=RESPONSES,
        lifespan=lifespan,
    )
    _add_guards(app, service)
    _add_injections(app, service)
    _add_faults(app, service)
    _add_views(app, service)
    return app


def _too_large(request: Request) -> JSONResponse | None:
    """A refusal of a body that is larger than allowed, or does not say how large it is; it is not read."""
    if "transfer-encoding" in request.headers:
        return problem(411, "Length required", f"expected a body of at most {LARGEST_BODY} bytes with a Content-Length")
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > LARGEST_BODY:
        return problem(413, "Body too large", f"Content-Length {length}; expected at most {LARGEST_BODY} bytes")
    return None


def _add_guards(app: FastAPI, service: Service) -> None:
    @app.middleware("http")
    async def guard(request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Response:
        began, request.state.call, status = time.monotonic(), secrets.token_hex(4), 500
        method = request.method if request.method in ("GET", "POST") else "other"
        request.state.known = service.is_known(request)
        try:
            response = service.authorise(request) or _too_large(request) or await handler(request)
            status = response.status_code
        finally:
            seconds = time.monotonic() - began
            service.audit_ended(request, status, seconds)
            service.numbers.seconds.labels(method).observe(seconds)
        return response

    @app.exception_handler(Problem)
    async def refused(_: Request, error: Problem) -> JSONResponse:
        return problem(error.status, error.title, error.detail)

    @app.exception_handler(HTTPException)
    async def not_found(_: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:
            return problem(422, "Not JSON", "body: it cannot be read as JSON in UTF-8")
        answer = problem(error.status_code, str(error.detail), f"{error.detail}; /docs lists what there is")
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"][1:]) or "body"
        allowed = None
        if first["type"] == "enum":
            allowed = [each.strip("' ") for each in first["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return problem(422, "Not allowed", f"{place}: {first['msg']}", allowed)


def _add_injections(app: FastAPI, service: Service) -> None:
    made: dict[str, Any] = {
        "status_code": 201,
        "response_model": models.FaultView,
        "responses": {200: {"model": models.DryRun, "description": "dry run: what would be touched"}},
    }

    def answer(content: Any, dry_run: bool) -> JSONResponse:
        return JSONResponse(content, 200 if dry_run else 201)

    async def gpu(request: Request, body: models.GpuInjection | models.XidInjection, xid: int | None, dry: bool) -> Any:
        kind = body.fault_type.value if isinstance(body, models.GpuInjection) else "XID_ERROR"
        told = {"gpu_index": body.gpu_index, "xid": xid, "severity": body.severity} | body.parameters
        told = {name: value for name, value in told.items() if value is not None}
        target = _named(request, dry, [_target(body)], Asked("gpu", kind, told, _seconds(body)))[0]
        order: dict[str, Any] = {"kind": "gpu", "type": kind, "target": target, "gpu_index": body.gpu_index, "xid": xid}
        order |= {"severity": body.severity, "parameters": body.parameters, "duration_seconds": body.duration_seconds}
        agent = await service.fleet.find(target, body.deployment)
        return answer(await service.inject(request, agent, order, dry), dry)

    @app.post("/api/v1/faults/gpu/inject", **made)
    async def inject_gpu(request: Request, body: models.GpuInjection, dry_run: DryRunFlag = False) -> Any:
        """Break a GPU."""
        if body.xid is not None and body.fault_type is not models.GpuFault.XID_ERROR:
            raise Problem(422, "Not allowed", f"xid: only with fault_type XID_ERROR, not {body.fault_type}")
        return await gpu(request, body, body.xid, dry_run)

    @app.post("/api/v1/faults/gpu/inject/xid-{code}", **made)
    async def inject_xid(request: Request, code: int, body: models.XidInjection, dry_run: DryRunFlag = False) -> Any:
        """Report an XID error in the kernel log, and make the workload behave as on it."""
        if code not in xids.API:
            known = [str(each) for each in xids.API]
            return problem(422, "Unknown XID", f"xid {code}; allowed: {', '.join(known)}", known)
        return await gpu(request, body, code, dry_run)

    @app.post("/api/v1/faults/network/inject", **made)
    async def inject_network(request: Request, body: models.NetworkInjection, dry_run: DryRunFlag = False) -> Any:
        """Cut or hamper the network between nodes."""
        told = {"partition_type": body.partition_type, "direction": body.direction} | body.parameters
        asked = Asked("network", body.mode, told, _seconds(body))
        if body.partition_type is models.Partition.CUSTOM:
            sides = [[each] if isinstance(each, str) else each for each in (body.source, body.target)]
            sources, targets = (each or [] for each in sides)
            if not sources or not targets:
                raise Problem(422, "No sides", "CUSTOM wants source and target: a node or a list of nodes each")
            _named(request, dry_run, targets, asked)
            agent = await service.fleet.find(targets[0], body.deployment)
        else:
            if body.source or body.target:
                raise Problem(422, "Not allowed", "source and target go with CUSTOM; use target_pod to narrow this one")
            only = _target(body) if body.target_pod or body.node_name else None
            _named(request, dry_run, [only or f"all of {body.partition_type}"], asked)
            agent, sources, targets = await service.fleet.sides(body.partition_type, body.deployment, only)
        order: dict[str, Any] = {"kind": "network", "type": body.mode, "sources": sources, "targets": targets}
        order |= {"direction": body.direction, "parameters": body.parameters, "label": body.partition_type}
        order["duration_seconds"] = body.duration_seconds
        _named(request, dry_run, targets, asked)
        return answer(await service.inject(request, agent, order, dry_run), dry_run)

    @app.post("/api/v1/faults/process/inject", **made)
    async def inject_process(request: Request, body: models.ProcessInjection, dry_run: DryRunFlag = False) -> Any:
        """Break the process of a node."""
        target = _named(request, dry_run, [_target(body)], Asked("process", body.type, {}, _seconds(body)))[0]
        agent = await service.fleet.find(target, body.deployment)
        order = {"kind": "process", "type": body.type, "target": target, "duration_seconds": body.duration_seconds}
        return answer(await service.inject(request, agent, order, dry_run), dry_run)


def _add_faults(app: FastAPI, service: Service) -> None:
    @app.get("/api/v1/faults/gpu/xid-types")
    async def xid_types() -> list[dict[str, Any]]:
        """NVIDIA's meaning, recommended action and fatality of each XID."""
        return xids.api_table()

    @app.post("/api/v1/faults/recover", response_model=list[models.FaultSummary])
    async def recover_all(request: Request) -> Any:
        """Undo every live fault, also when an agent does not answer."""
        return JSONResponse(await service.recover_all(request))

    @app.get("/api/v1/faults", response_model=list[models.FaultSummary])
    async def list_faults(active: Annotated[bool | None, Query(description="live ones only")] = None) -> Any:
        """All faults of all agents that answer, the oldest of each first; X-Agents-Missing names the others."""
        text, missing = await service.all_faults(active)
        headers = {MISSING_HEADER: ", ".join(missing)} if missing else {}
        return Response(text, media_type="application/json", headers=headers)

    @app.get("/api/v1/faults/{fault_id}", response_model=models.FaultView)
    async def one_fault(request: Request, fault_id: FaultId) -> Any:
        """A fault with evidence and history."""
        request.state.fault = fault_id
        return JSONResponse(await service.fleet.ask_owner("GET", fault_id))

    @app.post("/api/v1/faults/{fault_id}/recover", response_model=models.FaultView)
    async def recover(request: Request, fault_id: FaultId) -> Any:
        """Undo a fault now; a second call changes nothing."""
        return JSONResponse(await service.recover(request, fault_id))


def _add_views(app: FastAPI, service: Service) -> None:
    @app.get("/health", response_model=models.Health)
    async def health(request: Request) -> Any:
        """Whether the service answers and, for those who have the token, whether its agents do."""
        if not request.state.known:
            return {"status": "ok", "pid": os.getpid(), "agents": {}}
        found, missing = await service.fleet.read("/v1/faults?owed=true", prompt=True)
        agents = dict.fromkeys(found, "ok") | dict.fromkeys(missing, "does not answer")
        return {"status": "degraded" if missing else "ok", "pid": os.getpid(), "agents": agents}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus; the faults are those of the agents that answer."""
        found, missing = await service.fleet.read("/v1/faults", prompt=True)
        counts = Counter(fault["state"] for each in found.values() for fault in json.loads(each))
        for name in service.fleet.agents:
            service.numbers.agents.labels(name).set(name not in missing)
        for state in STATES:
            service.numbers.faults.labels(state).set(counts[state])
        return PlainTextResponse(generate_latest(service.numbers.registry))

    @app.get("/api/v1/capabilities", response_model=dict[str, dict[str, models.Capability]])
    async def capabilities() -> Any:
        """Deployment -> fault -> whether it can be had there, and how or why not."""
        found, missing = await service.fleet.read("/v1/capabilities", CAPABILITY_SECONDS)
        away = {name: {"*": {"available": False, "detail": each.detail}} for name, each in missing.items()}
        return JSONResponse({name: json.loads(text) for name, text in found.items()} | away)
