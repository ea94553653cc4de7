"""The part of the HTTP API that every agent has: who may ask, how a refusal looks, ``/v1/faults``."""

import errno
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from agents.core.book import FaultBook
from agents.core.faults import KINDS, Problem

HEALTH = "/health"
"""The one path that wants no token: it says nothing but that the agent answers."""


def guard(token: str) -> Middleware:
    """Check the bearer ``token`` (none of it for :data:`HEALTH`) and turn :class:`Problem` into problem+json."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if request.path != HEALTH and not hmac.compare_digest(given, f"Bearer {token}".encode()):
            problem = Problem(401, "No or wrong token", "send 'Authorization: Bearer' with the token of this agent")
        else:
            try:
                return await handler(request)
            except Problem as raised:
                problem = raised
            except json.JSONDecodeError as error:
                problem = Problem(422, "Bad JSON", str(error))
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                problem = Problem(507, "No room on the disk", f"{error.filename or 'a file'}: {error.strerror}")
        page = {"title": problem.title, "status": problem.status, "detail": problem.detail}
        body = json.dumps(page).encode()
        return web.Response(body=body, status=problem.status, content_type="application/problem+json")

    return check


async def _nothing() -> None:
    return None


def fault_routes(
    book: FaultBook,
    inject: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
    recover: Callable[[str], Awaitable[dict[str, Any]]],
    view: Callable[[str], Awaitable[dict[str, Any]]],
    look: Callable[[], Awaitable[None]] = _nothing,
) -> list[web.RouteDef]:
    """``/v1/faults`` and ``/v1/capabilities``; ``look`` is awaited before a request is checked, dry runs included."""

    async def post_fault(request: web.Request) -> web.Response:
        body = await request.json()
        if not isinstance(body, dict):
            raise Problem(422, "Bad request", f"the body is {type(body).__name__}; expected a JSON object")
        await look()
        if request.query.get("dry_run") != "true":
            return web.json_response(await inject(body), status=201)
        plan = book.plan(body)
        shown = ("kind", "type", "targets", "touches", "parameters", "fidelity", "severity", "repair")
        answer = {name: getattr(plan, name) for name in shown}
        return web.json_response(answer | {"duration_seconds": book.duration(body)})

    async def get_faults(request: web.Request) -> web.Response:
        which = next((each for each in ("active", "owed") if request.query.get(each) == "true"), "all")
        return web.Response(text=book.listing(which), content_type="application/json")

    async def get_fault(request: web.Request) -> web.Response:
        return web.json_response(await view(request.match_info["id"]))

    async def post_recover(request: web.Request) -> web.Response:
        return web.json_response(await recover(request.match_info["id"]))

    async def post_recover_all(_: web.Request) -> web.Response:
        return web.json_response([fault.summary() for fault in await book.recover_all()])

    async def get_capabilities(_: web.Request) -> web.Response:
        missing = [kind for kind in KINDS if kind not in book.kinds]
        found: dict[str, Any] = {f"{kind}.*": {"available": False, "detail": book.not_here(kind)} for kind in missing}
        for driver in book.drivers:
            found |= driver.capabilities()
        return web.json_response(found)

    return [
        web.post("/v1/faults", post_fault),
        web.get("/v1/faults", get_faults),
        web.post("/v1/faults/recover", post_recover_all),
        web.get("/v1/faults/{id}", get_fault),
        web.post("/v1/faults/{id}/recover", post_recover),
        web.get("/v1/capabilities", get_capabilities),
    ]
