"""Command line of the observer: ``python -m agents.observer [--token-file FILE]``.

HTTP API, JSON in and out, bearer token; errors are problem+json:

===============================  =====================================================================================
``GET /v1/containers/ID``        ``state`` (gone, stopped or alive) and ``pids`` of a container
``POST /v1/connect``             ``{"uid", "address", "port"}``: what a TCP connection from a pod meets, in ``met``
``POST /v1/receivers``           ``{"uid", "address"}``: a UDP socket in a pod; returns its ``name`` and ``port``
``POST /v1/receivers/NAME``      ``{"packets"}``: how many have come, in ``count``; it is closed
``POST /v1/send``                ``{"uid", "address", "port", "packets"}``: ``taken`` by the kernel of those
``GET /health``                  ``{"status": "ok"}``; wants no token
===============================  =====================================================================================
"""

import argparse
import asyncio
import ipaddress
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from agents.core.faults import Problem
from agents.core.http import HEALTH, guard
from agents.core.tokens import read_token
from agents.observer import look


def _text(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError("a text")


def _address(value: Any) -> str:
    try:
        return str(ipaddress.ip_address(_text(value)))
    except ValueError:
        raise ValueError("an address of IPv4 or IPv6") from None


def _number(most: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
            return value
        raise ValueError(f"a whole number from 1 to {most}")

    return check


FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "uid": _text,
    "address": _address,
    "port": _number(65535),
    "packets": _number(look.MOST_PACKETS),
}


async def _asked(request: web.Request, *names: str) -> list[Any]:
    body = await request.json()
    found = []
    for name in names:
        given = body.get(name) if isinstance(body, dict) else None
        try:
            found.append(FIELDS[name](given))
        except ValueError as error:
            raise Problem(422, "Bad request", f"{name} is {given!r}; expected {error}") from None
    return found


def application(token: str) -> web.Application:
    """The HTTP application; whatever it is asked it does in threads, for a look waits for packets."""
    receivers = look.Receivers()

    async def get_container(request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(look.container_state, request.match_info["id"]))

    async def post_connect(request: web.Request) -> web.Response:
        return web.json_response(
            {"met": await asyncio.to_thread(look.connects, *await _asked(request, "uid", "address", "port"))}
        )

    async def post_receiver(request: web.Request) -> web.Response:
        name, port = await asyncio.to_thread(receivers.open, *await _asked(request, "uid", "address"))
        return web.json_response({"name": name, "port": port}, status=201)

    async def post_count(request: web.Request) -> web.Response:
        [packets] = await _asked(request, "packets")
        return web.json_response(
            {"count": await asyncio.to_thread(receivers.count, request.match_info["name"], packets)}
        )

    async def post_send(request: web.Request) -> web.Response:
        asked = await _asked(request, "uid", "address", "port", "packets")
        return web.json_response({"taken": await asyncio.to_thread(look.send, *asked)})

    async def get_health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    app = web.Application(middlewares=[guard(token)])
    app.add_routes(
        [
            web.get("/v1/containers/{id:[0-9a-f]{64}}", get_container),
            web.post("/v1/connect", post_connect),
            web.post("/v1/receivers", post_receiver),
            web.post("/v1/receivers/{name}", post_count),
            web.post("/v1/send", post_send),
            web.get(HEALTH, get_health),
        ]
    )
    return app


def parser() -> argparse.ArgumentParser:
    """Its options."""
    found = argparse.ArgumentParser(
        prog="python -m agents.observer",
        description="Sees containers and the network of the pods on this machine. Environment: FT_AGENT_TOKEN.",
    )
    found.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback)")
    found.add_argument("--port", type=int, default=8083, help="0: any free one (default 8083)")
    found.add_argument("--token-file", type=Path, help="file with the bearer token; else FT_AGENT_TOKEN")
    return found


async def serve(token: str, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT."""
    runner = web.AppRunner(application(token), access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    host, port = listener.getsockname()[:2]
    print(f"observer: http://{host}:{port}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point.

    Raises:
        SystemExit: 2 for options that make no sense.
    """
    own = parser()
    options = own.parse_args(argv)
    try:
        token = read_token(options.token_file, "FT_AGENT_TOKEN")
        if not token:
            own.error("no token: name a file with --token-file, or set FT_AGENT_TOKEN")
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family, backlog=64)
    except OSError as error:
        own.error(f"{error.filename or f'{options.host}:{options.port}'}: {error.strerror}")
    except ValueError as error:
        own.error(str(error))
    asyncio.run(serve(token, listener))


if __name__ == "__main__":
    main()
