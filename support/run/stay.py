"""A deployment that stays: ``make up`` starts one, ``make down`` ends it.

``python -m support.run.stay up [--engine vllm] [--workers 2] [--plane tcp] [--frontend-port 8000] [--service-port N]``
    starts a Dynamo deployment in a cell of its own and comes back once it serves. Its frontend is on
    http://localhost:8000, the fault service on http://localhost:8080.
``python -m support.run.stay down``
    ends it; the kernel takes every process, rule and namespace of its cell along.

Records and logs lie in ``reports/up``, the fault service's audit log among them.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
from typing import Any

import psutil

from support.contract.shape import ENGINES, REQUEST_PLANES
from support.observe.logs import tail
from support.observe.waiting import until
from support.report.runs import write_json
from support.run import bootstrap, cells
from support.settings import ROOT, Settings
from support.signals import send_while
from support.world.world import World

FOLDER = ROOT / "reports" / "up"
AUDIT = "audit.jsonl"
"""The fault service's log of calls; it stays from one deployment to the next."""
STATE = "reports/up/state.sock"
"""A socket that tells whoever connects what the processes of the deployment do; below the checkout's root, for the
address of a socket has to be short.
"""
BOOT_SECONDS, END_SECONDS = 120.0, 10.0


def _running() -> psutil.Process | None:
    """The outermost process of the deployment that stays; None when there is none."""
    try:
        record = json.loads((FOLDER / "cell.json").read_text())
        found = psutil.Process(record["pid"])
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None
    same = abs(found.create_time() - record["created"]) < 1
    return found if same and found.status() != psutil.STATUS_ZOMBIE else None


def addresses() -> dict[str, str]:
    """URLs of the ``frontend`` and of the fault ``service`` of the deployment that stays; empty when there is none."""
    if _running() is None:
        return {}
    found: dict[str, str] = json.loads((FOLDER / "cell.json").read_text())["addresses"]
    return found


def _listen(port: int, what: str) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=64)
    except OSError as error:
        raise SystemExit(
            f"up: port {port} for the {what} cannot be had: {error.strerror}; choose another one"
        ) from None


def up(options: argparse.Namespace) -> None:
    """Start the deployment and wait until it serves.

    Raises:
        SystemExit: there is one already, a port is taken, or it did not come up; with the last lines of its log.
    """
    if _running():
        raise SystemExit("up: a deployment is up already; `make down` ends it")
    settings = Settings.load()
    bootstrap.ensure(("dynamo",), settings.dynamo)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for entry in FOLDER.iterdir():
        if entry.name != AUDIT:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    frontend, service = _listen(options.frontend_port, "frontend"), _listen(options.service_port, "fault service")
    hold = [sys.executable, "-m", "support.run.stay", "hold", f"--relay-fd={frontend.fileno()}"]
    hold += [f"--engine={options.engine}", f"--workers={options.workers}", f"--plane={options.plane}"]
    log = FOLDER / "console.txt"
    with log.open("wb") as output:
        cell = subprocess.Popen(
            cells.command(hold, settings.cells, service_fd=service.fileno()),
            cwd=ROOT,
            env=cells.environment() | {"FT_RUN_DIR": str(FOLDER)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[frontend.fileno(), service.fileno()],
            start_new_session=True,
        )
    try:
        ports = {"frontend": options.frontend_port, "service": options.service_port}
        urls = {name: f"http://localhost:{port}" for name, port in ports.items()}
        created = psutil.Process(cell.pid).create_time()
        write_json(FOLDER / "cell.json", {"pid": cell.pid, "created": created, "addresses": urls})
    except (OSError, psutil.NoSuchProcess) as error:
        cell.kill()  # without its record `make down` would not find it
        cell.wait()
        raise SystemExit(f"up: no record of the deployment can be kept in {FOLDER}: {error}; it was ended") from None

    def booting() -> str | None:
        if cell.poll() is not None:
            raise SystemExit(f"up: the deployment did not come up; last lines of {log}:\n{tail(log, 20)}")
        return None if (FOLDER / "ready").exists() else "not ready"

    try:
        until(booting, BOOT_SECONDS, "the deployment serves")
    except (AssertionError, KeyboardInterrupt) as error:
        try:
            down()
        except SystemExit as trouble:
            raise SystemExit(f"up: {error or 'interrupted'}; {trouble}") from None
        raise SystemExit(f"up: {error or 'interrupted'}; the deployment was taken down again") from None
    print((FOLDER / "ready").read_text(), end="")
    print(f"frontend       http://localhost:{options.frontend_port}")
    print(f"fault service  http://localhost:{options.service_port}  (the API: /docs; every call: {FOLDER / AUDIT})")
    print("`make watch` shows it, `make down` ends it")


def down() -> None:
    """End the deployment; says so when there is none.

    Raises:
        SystemExit: a process of it is still there after :data:`END_SECONDS`.
    """
    outermost = _running()
    if outermost is None:
        print("down: nothing is up")
        return
    everything = [outermost, *outermost.children(recursive=True)]
    send_while(outermost.pid, lambda: _running() == outermost, signal.SIGKILL)
    _, left = psutil.wait_procs(everything, END_SECONDS)
    if left:
        raise SystemExit(f"down: still there after {END_SECONDS:g} s: {', '.join(str(each.pid) for each in left)}")
    for scratch in FOLDER.glob("cell-*"):
        shutil.rmtree(scratch, ignore_errors=True)
    (FOLDER / "cell.json").unlink()
    print("down: the deployment is gone")


def hold(options: argparse.Namespace) -> None:
    """Inside the cell: make the deployment, then pass connections on to its frontend until the cell ends."""
    world = World(Settings.load(), FOLDER)
    deployment = world.deploy(
        engine=options.engine, workers=options.workers, request_plane=options.plane, restart_policy="Always"
    )
    names = "\n".join(f"  {node.name:20} {node.role:10} {node.address}" for node in deployment.nodes)
    draft = FOLDER / "ready.new"
    draft.write_text(f"{deployment.shape.describe()}, model {deployment.model}\n{names}\n")
    draft.replace(FOLDER / "ready")
    host, _, port = deployment.frontend_url.removeprefix("http://").rpartition(":")
    asyncio.run(_serve(world, socket.socket(fileno=options.relay_fd), host, int(port)))


def _state(world: World) -> list[dict[str, Any]]:
    """What the processes do now; ``in_flight`` is None of whoever answers no requests, or does not say."""
    deployment, flight = world.stage.deployment, world.fleet.in_flight()
    lives = [(node, deployment.life(node)) for node in deployment.nodes]
    return [
        {"name": node.name, "role": node.role, "address": node.address}
        | {"state": life.state, "restarts": life.restarts, "in_flight": flight.get(node.name)}
        for node, life in lives
    ]


async def _serve(world: World, listener: socket.socket, host: str, port: int) -> None:
    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(await asyncio.to_thread(_state, world)).encode())
            await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(tell, STATE):
        await _relay(listener, host, port)


async def _relay(listener: socket.socket, host: str, port: int) -> None:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        directions = [asyncio.create_task(copy(reader, there[1])), asyncio.create_task(copy(there[0], writer))]
        # Whichever side ends, the other has to notice: a client that leaves is a cancelled request.
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, there[1]):
            each.close()

    server = await asyncio.start_server(serve, sock=listener)
    await server.serve_forever()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m support.run.stay", description="A deployment that stays.")
    modes = parser.add_subparsers(dest="mode", required=True)
    modes.add_parser("down", help="end it")
    for mode in ("up", "hold"):
        each = modes.add_parser(mode, help="start it" if mode == "up" else argparse.SUPPRESS)
        each.add_argument("--engine", choices=ENGINES, default="vllm")
        each.add_argument("--workers", type=int, default=2)
        each.add_argument("--plane", choices=REQUEST_PLANES, default="tcp")
        each.add_argument("--frontend-port", type=int, default=8000)
        each.add_argument("--service-port", type=int, default=8080)
        each.add_argument("--relay-fd", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mode == "up":
        up(options)
    elif options.mode == "hold":
        hold(options)
    else:
        down()


if __name__ == "__main__":
    main()
