"""The public HTTP API of the fault service. It keeps no faults: the agents do, and survive its death."""

import contextlib
import json
import os
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException

from agents.core.faults import DEFAULT_SECONDS, STATES, Problem
from agents.core.kernel import take_right_of_way
from agents.service import models
from agents.service.agents import CAPABILITY_SECONDS, CUSTOM, AgentAddress, Search
from agents.service.audit import Asked, named
from agents.service.policy import PAGE, Policy
from agents.service.problems import RESPONSES, problem
from agents.service.service import Service
from agents.xid import xids

LARGEST_BODY = 65536
XID_ERROR = "XID_ERROR"
"""The type whose number may be in the path."""
MISSING_HEADER = "X-Agents-Missing"
"""Names the agents that a list is without."""


def _target(body: models.Injection) -> str:
    given = {name for name in (body.target_pod, body.node_name) if name}
    if len(given) != 1:
        raise Problem(422, "No target", "expected exactly one of target_pod and node_name, or the same in both")
    return given.pop()


def _seconds(body: models.Injection) -> float:
    return DEFAULT_SECONDS if body.duration_seconds is None else body.duration_seconds


DryRunFlag = Annotated[bool, Query(description="report what would be changed, and change nothing")]
FaultId = Annotated[str, InPath(description="as the list has it")]


def application(agents: list[AgentAddress], policy: Policy, search: Search | None = None) -> FastAPI:
    """The service in front of ``agents`` and of those that ``search`` finds."""
    service = Service(agents, policy, search)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if policy.urgent:
            take_right_of_way()
        yield
        with contextlib.suppress(OSError):
            service.audit.note_strangers()
        await service.agents.close()

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
        request.state.known = service.policy.knows(request)
        try:
            response: Response | None = service.policy.refusal(request) or _too_large(request)
            if response is None:
                await service.agents.look()
                response = await handler(request)
            status = response.status_code
        finally:
            seconds = time.monotonic() - began
            service.audit.ended(request, status, seconds)
            service.metrics.seconds.labels(method).observe(seconds)
        return response

    @app.exception_handler(Problem)
    async def refused(_: Request, error: Problem) -> JSONResponse:
        return problem(error.status, error.title, error.detail)

    @app.exception_handler(HTTPException)
    async def not_found(_: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:
            return problem(422, "Not JSON", "body: it is not JSON in UTF-8")
        answer = problem(error.status_code, str(error.detail), f"{error.detail}; /docs lists what there is")
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"][1:]) or "body"
        allowed = None
        if first["type"] == "literal_error":
            allowed = [each.strip("' ") for each in first["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return problem(422, "Not allowed", f"{place}: {first['msg']}", allowed)


def _add_injections(app: FastAPI, service: Service) -> None:
    made: dict[str, Any] = {
        "status_code": 201,
        "response_model": models.FaultView,
        "responses": {200: {"model": models.DryRun, "description": "dry run: what would be changed"}},
    }

    def answer(content: Any, dry_run: bool) -> JSONResponse:
        return JSONResponse(content, 200 if dry_run else 201)

    async def gpu(request: Request, body: models.GpuInjection | models.XidInjection, xid: int | None, dry: bool) -> Any:
        kind = body.fault_type if isinstance(body, models.GpuInjection) else XID_ERROR
        told = {"gpu_index": body.gpu_index, "xid": xid, "severity": body.severity} | body.parameters
        told = {name: value for name, value in told.items() if value is not None}
        target = named(request, dry, [_target(body)], Asked("gpu", kind, told, _seconds(body)))[0]
        order: dict[str, Any] = {"kind": "gpu", "type": kind, "target": target, "gpu_index": body.gpu_index, "xid": xid}
        order |= {"severity": body.severity, "parameters": body.parameters, "duration_seconds": body.duration_seconds}
        agent = await service.agents.find(target, body.deployment)
        return answer(await service.inject(request, agent, order, dry), dry)

    @app.post("/api/v1/faults/gpu/inject", **made)
    async def inject_gpu(request: Request, body: models.GpuInjection, dry_run: DryRunFlag = False) -> Any:
        """Break a GPU."""
        if body.xid is not None and body.fault_type != XID_ERROR:
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
        if body.partition_type == CUSTOM:
            sides = [[each] if isinstance(each, str) else each for each in (body.source, body.target)]
            sources, targets = (each or [] for each in sides)
            if not sources or not targets:
                raise Problem(422, "No sides", "CUSTOM needs source and target, each a node or a list of nodes")
            named(request, dry_run, targets, asked)
            agent = await service.agents.find(targets[0], body.deployment)
        else:
            if body.source or body.target:
                raise Problem(422, "Not allowed", "source and target go with CUSTOM; use target_pod to narrow this one")
            only = _target(body) if body.target_pod or body.node_name else None
            named(request, dry_run, [only or f"all of {body.partition_type}"], asked)
            agent, sources, targets = await service.agents.sides(body.partition_type, body.deployment, only)
        order: dict[str, Any] = {"kind": "network", "type": body.mode, "sources": sources, "targets": targets}
        order |= {"direction": body.direction, "parameters": body.parameters, "label": body.partition_type}
        order["duration_seconds"] = body.duration_seconds
        named(request, dry_run, targets, asked)
        return answer(await service.inject(request, agent, order, dry_run), dry_run)

    @app.post("/api/v1/faults/process/inject", **made)
    async def inject_process(request: Request, body: models.ProcessInjection, dry_run: DryRunFlag = False) -> Any:
        """Break the process of a node."""
        asked = Asked("process", body.type, body.parameters, _seconds(body))
        [target] = named(request, dry_run, [_target(body)], asked)
        agent = await service.agents.find(target, body.deployment)
        order: dict[str, Any] = {"kind": "process", "type": body.type, "target": target}
        order |= {"parameters": body.parameters, "duration_seconds": body.duration_seconds}
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
    async def list_faults(active: Annotated[bool | None, Query(description="only live faults")] = None) -> Any:
        """All faults of all agents that answer, the oldest of each first; X-Agents-Missing names the others."""
        text, missing = await service.all_faults(active)
        headers = {MISSING_HEADER: ", ".join(missing)} if missing else {}
        return Response(text, media_type="application/json", headers=headers)

    @app.get("/api/v1/faults/{fault_id}", response_model=models.FaultView)
    async def one_fault(request: Request, fault_id: FaultId) -> Any:
        """A fault with evidence and history."""
        request.state.fault = fault_id
        return JSONResponse(await service.agents.ask_owner("GET", fault_id))

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
        found, missing = await service.agents.read("/v1/faults?owed=true", prompt=True)
        agents = dict.fromkeys(found, "ok") | dict.fromkeys(missing, "does not answer")
        return {"status": "degraded" if missing else "ok", "pid": os.getpid(), "agents": agents}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus; the faults are those of the agents that answer."""
        found, missing = await service.agents.read("/v1/faults", prompt=True)
        counts = Counter(fault["state"] for each in found.values() for fault in json.loads(each))
        for name in service.agents.by_name:
            service.metrics.agents.labels(name).set(name not in missing)
        for state in STATES:
            service.metrics.faults.labels(state).set(counts[state])
        return PlainTextResponse(generate_latest(service.metrics.registry))

    @app.get("/api/v1/capabilities", response_model=dict[str, dict[str, models.Capability]])
    async def capabilities() -> Any:
        """Deployment -> fault -> whether it can be had there, and how or why not."""
        found, missing = await service.agents.read("/v1/capabilities", CAPABILITY_SECONDS)
        away = {name: {"*": {"available": False, "detail": each.detail}} for name, each in missing.items()}
        return JSONResponse({name: json.loads(text) for name, text in found.items()} | away)
