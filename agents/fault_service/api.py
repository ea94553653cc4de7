"""The public HTTP API of the fault service. It keeps no faults: the agents do, and survive its death."""

import hmac
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client import Counter as Metric
from starlette.exceptions import HTTPException

from agents import xids
from agents.fault_service import models
from agents.fault_service.fleet import AgentAddress, Fleet
from agents.faults import STATES, Problem

LARGEST_BODY = 65536


@dataclass
class Policy:
    """Who may do what.

    Attributes:
        token: bearer token that callers have to send; empty: none.
        nodes: names that may be targets; empty: all.
        namespaces: namespaces of targets ``NAMESPACE/POD`` that may be hit; empty: all.
        max_active: faults that may be live at once.
        max_share: share of the nodes of a deployment that may be under live faults of processes and GPUs at once.
        audit: the append-only log.
    """

    audit: Path
    token: str = ""
    nodes: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    max_active: int = 10
    max_share: float = 1.0


@dataclass
class Numbers:
    """What ``/metrics`` shows; a registry of its own, so that several services fit into one process."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        kind = ["kind", "type", "outcome"]
        self.injections = Metric("fault_injections", "Injections asked for.", kind, registry=self.registry)
        self.faults = Gauge("faults", "Faults by state.", ["state"], registry=self.registry)
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
    413: "body too large",
    422: "a value that is not allowed",
    501: "this machine cannot do it",
    502: "an agent failed",
    503: "an agent does not answer",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": words} | _PAGE for status, words in _WORDS.items()
}


class Service:
    """Resolves, allows, passes on and records."""

    def __init__(self, agents: list[AgentAddress], policy: Policy) -> None:
        self.fleet, self.policy, self.numbers = Fleet(agents), policy, Numbers()
        policy.audit.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    def audit(self, request: Request, status: int, seconds: float) -> None:
        """Append one line for a call."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "caller": request.client.host if request.client else "",
            "method": request.method,
            "path": request.url.path,
            "target": getattr(request.state, "target", None),
            "fault": getattr(request.state, "fault", None),
            "status": status,
            "seconds": round(seconds, 4),
        }
        file = os.open(self.policy.audit, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, (json.dumps(line) + "\n").encode())
        finally:
            os.close(file)

    def authorise(self, request: Request) -> JSONResponse | None:
        """None when the caller may go on."""
        if not self.policy.token or request.url.path == "/health":
            return None
        given = request.headers.get("authorization", "")
        if not given:
            return problem(401, "No token", "send 'Authorization: Bearer' with the token of this service")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.policy.token}".encode()):
            return problem(403, "Wrong token", "the token in 'Authorization' is not that of this service")
        return None

    async def inject(self, request: Request, agent: AgentAddress, body: dict[str, Any], dry_run: bool) -> Any:
        """Pass an injection on, unless a limit forbids it."""
        targets = body.get("targets") or [body["target"]]
        request.state.target = targets
        for name in [*targets, *body.get("sources", [])]:
            namespace = name.partition("/")[0] if "/" in name else ""
            if self.policy.nodes and name not in self.policy.nodes:
                raise Problem(403, "Not allowed", f"{name!r} is not among the allowed nodes")
            if self.policy.namespaces and namespace not in self.policy.namespaces:
                raise Problem(403, "Not allowed", f"the namespace of {name!r} is not among the allowed ones")
        labels = {"kind": body["kind"], "type": body["type"]}
        if dry_run:
            return await self.fleet.call(agent, "POST", "/v1/faults?dry_run=true", body)
        live = await self.fleet.call(agent, "GET", "/v1/faults?active=true")
        if len(live) >= self.policy.max_active:
            raise Problem(409, "Too many faults", f"{len(live)} faults are live; the limit is {self.policy.max_active}")
        if body["kind"] != "network" and self.policy.max_share < 1:
            nodes = (await self.fleet.topologies(agent.name))[agent.name]
            role = {node["name"]: node["role"] for node in nodes}
            alike = [name for name in role if role[name] == role.get(body["target"])]
            hit = {name for fault in live if fault["kind"] != "network" for name in fault["targets"]} & set(alike)
            if len(hit | {body["target"]}) > self.policy.max_share * len(alike):
                detail = f"{len(hit)} of {len(alike)} like it are hit already; the limit is {self.policy.max_share:g}"
                raise Problem(409, "Too many targets", detail)
        try:
            fault = await self.fleet.call(agent, "POST", "/v1/faults", body)
        except Problem:
            self.numbers.injections.labels(outcome="refused", **labels).inc()
            raise
        self.numbers.injections.labels(outcome="done", **labels).inc()
        request.state.fault = fault["id"]
        return fault

    async def all_faults(self, active: bool | None) -> list[dict[str, Any]]:
        """The faults of all agents."""
        query = "?active=true" if active else ""
        found: list[dict[str, Any]] = []
        for agent in self.fleet.agents.values():
            found += await self.fleet.call(agent, "GET", f"/v1/faults{query}")
        live = ("pending", "active", "recovering")
        return [fault for fault in found if active is not False or fault["state"] not in live]

    async def of_fault(self, request: Request, method: str, fault_id: str, path: str = "") -> Any:
        """Ask the agent that knows the fault."""
        request.state.fault = fault_id
        for agent in self.fleet.agents.values():
            try:
                return await self.fleet.call(agent, method, f"/v1/faults/{fault_id}{path}")
            except Problem as refusal:
                if refusal.status != 404:
                    raise
        raise Problem(404, "Unknown fault", f"no fault {fault_id!r}; GET /api/v1/faults lists them")


def _target(body: models.Injection) -> str:
    given = [name for name in (body.target_pod, body.node_name) if name]
    if len(given) != 1:
        raise Problem(422, "No target", "expected exactly one of target_pod and node_name")
    return given[0]


DryRunFlag = Annotated[bool, Query(description="say what would be touched, and touch nothing")]
FaultId = Annotated[str, InPath(pattern=r"^f-[0-9a-f]{1,32}$")]


def application(agents: list[AgentAddress], policy: Policy) -> FastAPI:
    """The service in front of ``agents``."""
    service = Service(agents, policy)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.fleet.close()

    app = FastAPI(
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


def _add_guards(app: FastAPI, service: Service) -> None:
    @app.middleware("http")
    async def guard(request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Response:
        began = time.monotonic()
        response: Response | None = service.authorise(request)
        length = request.headers.get("content-length", "0")
        if response is None and (not length.isdigit() or int(length) > LARGEST_BODY):
            response = problem(413, "Body too large", f"expected at most {LARGEST_BODY} bytes with a Content-Length")
        response = response or await handler(request)
        seconds = time.monotonic() - began
        service.audit(request, response.status_code, seconds)
        service.numbers.seconds.labels(request.method if request.method in ("GET", "POST") else "other").observe(
            seconds
        )
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
        target = _target(body)
        kind = body.fault_type.value if isinstance(body, models.GpuInjection) else "XID_ERROR"
        order = {"kind": "gpu", "type": kind, "target": target, "gpu_index": body.gpu_index, "xid": xid}
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
        if body.partition_type is models.Partition.CUSTOM:
            sides = [[each] if isinstance(each, str) else each for each in (body.source, body.target)]
            sources, targets = (each or [] for each in sides)
            if not sources or not targets:
                raise Problem(422, "No sides", "CUSTOM wants source and target: a node or a list of nodes each")
            agent = await service.fleet.find(targets[0], body.deployment)
        else:
            if body.source or body.target:
                raise Problem(422, "Not allowed", "source and target go with CUSTOM; use target_pod to narrow this one")
            only = _target(body) if body.target_pod or body.node_name else None
            agent, sources, targets = await service.fleet.sides(body.partition_type, body.deployment, only)
        order: dict[str, Any] = {"kind": "network", "type": body.mode, "sources": sources, "targets": targets}
        order |= {"direction": body.direction, "parameters": body.parameters, "label": body.partition_type}
        order["duration_seconds"] = body.duration_seconds
        return answer(await service.inject(request, agent, order, dry_run), dry_run)

    @app.post("/api/v1/faults/process/inject", **made)
    async def inject_process(request: Request, body: models.ProcessInjection, dry_run: DryRunFlag = False) -> Any:
        """Break the process of a node."""
        target = _target(body)
        agent = await service.fleet.find(target, body.deployment)
        order = {"kind": "process", "type": body.type, "target": target, "duration_seconds": body.duration_seconds}
        return answer(await service.inject(request, agent, order, dry_run), dry_run)


def _add_faults(app: FastAPI, service: Service) -> None:
    @app.get("/api/v1/faults/gpu/xid-types")
    async def xid_types() -> list[dict[str, Any]]:
        """NVIDIA's meaning, recommended action and fatality of each XID."""
        return xids.api_table()

    @app.post("/api/v1/faults/recover", response_model=list[models.FaultSummary])
    async def recover_all() -> Any:
        """Undo every live fault."""
        found: list[Any] = []
        for agent in service.fleet.agents.values():
            found += await service.fleet.call(agent, "POST", "/v1/faults/recover")
        return JSONResponse(found)

    @app.get("/api/v1/faults", response_model=list[models.FaultSummary])
    async def list_faults(active: Annotated[bool | None, Query(description="live ones only")] = None) -> Any:
        """All faults, the oldest first."""
        return JSONResponse(await service.all_faults(active))

    @app.get("/api/v1/faults/{fault_id}", response_model=models.FaultView)
    async def one_fault(request: Request, fault_id: FaultId) -> Any:
        """A fault with evidence and history."""
        return JSONResponse(await service.of_fault(request, "GET", fault_id))

    @app.post("/api/v1/faults/{fault_id}/recover", response_model=models.FaultView)
    async def recover(request: Request, fault_id: FaultId) -> Any:
        """Undo a fault now; a second call changes nothing."""
        return JSONResponse(await service.of_fault(request, "POST", fault_id, "/recover"))


def _add_views(app: FastAPI, service: Service) -> None:
    @app.get("/health", response_model=models.Health)
    async def health() -> Any:
        """Whether the service and its agents answer."""
        agents = {}
        for name, agent in service.fleet.agents.items():
            try:
                await service.fleet.call(agent, "GET", "/v1/topology")
                agents[name] = "ok"
            except Problem as trouble:
                agents[name] = trouble.detail
        status = "ok" if all(each == "ok" for each in agents.values()) else "degraded"
        return {"status": status, "pid": os.getpid(), "agents": agents}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus."""
        counts = Counter(fault["state"] for fault in await service.all_faults(None))
        for state in STATES:
            service.numbers.faults.labels(state).set(counts[state])
        return PlainTextResponse(generate_latest(service.numbers.registry))

    @app.get("/api/v1/capabilities", response_model=dict[str, dict[str, models.Capability]])
    async def capabilities() -> Any:
        """Deployment -> fault -> whether it can be had there, and how or why not."""
        found = {}
        for name, agent in service.fleet.agents.items():
            found[name] = await service.fleet.call(agent, "GET", "/v1/capabilities")
        return JSONResponse(found)
