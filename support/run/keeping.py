"""What keeps a deployment running without those who made it: that of ``make up``, and the wreck of a scenario.

Its cell goes on with the process that plays it (:func:`agents.cell.leave`), and ends with that process. Who that is,
the kernel knows: it is the one that listens on the socket in the folder of the deployment.
"""

import asyncio
import contextlib
import fcntl
import functools
import json
import os
import shutil
import signal
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from agents import cell
from support.contract.deployment import Node
from support.observe.workers import in_flight, try_scrape, worker_id
from support.settings import ROOT
from support.signals import send_while
from support.world.world import World

AUDIT, LOCK, SOCKET = "audit.jsonl", "lock", "state.sock"
"""Files of a folder: the fault service's log of calls, which stays from one deployment to the next; the lock of whoever
has the place; the socket that tells whoever connects of the deployment.
"""
ANSWER_SECONDS, END_SECONDS = 10.0, 20.0


class Stay:
    """The place of a deployment that stays: there is one at a time.

    Args:
        name: of its folder in ``reports``.
        called: what it is called, in words.
    """

    def __init__(self, name: str, called: str) -> None:
        self.folder, self.called = ROOT / "reports" / name, called

    def claim(self) -> bool:
        """Take the place for as long as this process lives; False while another has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        return True  # it stays open, and locked, until the process ends

    def clear(self) -> None:
        """Remove what an earlier deployment has left in the folder; the log of calls stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for entry in self.folder.iterdir():
            if entry.name not in (AUDIT, LOCK):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def listen(self) -> socket.socket:
        """The socket by which this process is found from now on; the place has to be claimed."""
        listener = socket.socket(socket.AF_UNIX)
        with self._address() as address:
            Path(address).unlink(missing_ok=True)
            listener.bind(address)
        listener.listen()
        return listener

    def ask(self) -> dict[str, Any]:
        """What it tells of itself: ``title``, ``until`` (empty: no end), release of ``dynamo``, URLs of the
        ``frontend`` and of the fault ``service``, and of its ``nodes`` ``name``, ``role``, ``address``, ``state``,
        ``restarts``, ``in_flight`` (requests; None of whoever takes none, or does not answer), ``numbers`` (what
        Dynamo calls the worker, or has called it, in hex).

        Raises:
            OSError, ValueError: there is none, or it does not answer.
        """
        with self._connected() as line, line.makefile("rb") as stream:
            told: dict[str, Any] = json.loads(stream.read())
        return told

    def owner(self) -> int | None:
        """Pid of the process that plays it; None where there is none."""
        try:
            with self._connected() as line:
                pid: int = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        except OSError:
            return None
        return pid or None

    def end(self) -> bool:
        """End it, and see that all of its cell is gone; False when there is none.

        Raises:
            SystemExit: a process of it is still there after :data:`END_SECONDS`.
        """
        pid = self.owner()
        if pid is None:
            return False
        everything = []
        with contextlib.suppress(psutil.NoSuchProcess):
            everything = family(psutil.Process(pid).ppid())
        send_while(pid, lambda: self.owner() == pid, signal.SIGKILL)
        see_gone(everything)
        return True

    @contextlib.contextmanager
    def _address(self) -> Iterator[str]:
        """Of its socket; short, as those of sockets have to be."""
        folder = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{folder}/{SOCKET}"
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as line, self._address() as address:
            line.settimeout(ANSWER_SECONDS)
            line.connect(address)
            yield line


UP, WRECK = Stay("up", "the deployment"), Stay("wreck", "the wreck")


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it; those that are there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    return []


def see_gone(everything: list[psutil.Process]) -> None:
    """Wait until none of these is there any more.

    Raises:
        SystemExit: one still is after :data:`END_SECONDS`.
    """
    _, left = psutil.wait_procs(everything, END_SECONDS)
    if left:
        pids = ", ".join(str(each.pid) for each in left)
        raise SystemExit(f"still there after {END_SECONDS:g} s: {pids}; end them yourself")


@dataclass(frozen=True)
class Door:
    """Sockets of the world outside, bound to a port each, by which a cell is reached from there."""

    frontend: socket.socket
    service: socket.socket

    @classmethod
    @functools.cache
    def of_this_cell(cls) -> "Door | None":
        """The one that this cell was made with; None where it was made with none."""
        numbers = os.environ.get("FT_DOOR", "").split()
        return cls(*(socket.socket(fileno=int(each)) for each in numbers)) if numbers else None

    @property
    def environment(self) -> dict[str, str]:
        """By which it is found in the cell."""
        return {"FT_DOOR": f"{self.frontend.fileno()} {self.service.fileno()}"}

    @property
    def urls(self) -> dict[str, str]:
        """URLs of the ``frontend`` and of the fault ``service``."""
        sockets = {"frontend": self.frontend, "service": self.service}
        return {name: f"http://localhost:{each.getsockname()[1]}" for name, each in sockets.items()}

    def way_out(self, log: int) -> cell.WayOut:
        """What a cell needs to go on behind it; ``log``: an open file."""
        return cell.WayOut(self.service.fileno(), log)


def serve(stay: Stay, world: World, door: Door, status: int, title: str, until: str = "") -> None:
    """Leave those who made this cell, who are told that it has ended with ``status``, and pass connections on to the
    frontend of the world's deployment until this process is ended. The place has to be claimed.

    Args:
        title: of the deployment, in words.
        until: when it will be ended, in words.
    """
    told = {"title": title, "until": until, "dynamo": world.stage.release.version, **door.urls}
    tells = stay.listen()
    door.frontend.listen(64)
    cell.leave(status)
    asyncio.run(_serve(world, tells, door.frontend, told))


async def _serve(world: World, tells: socket.socket, frontend: socket.socket, told: Mapping[str, str]) -> None:
    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            nodes = await asyncio.to_thread(_nodes, world)
            writer.write(json.dumps({**told, "nodes": nodes}).encode())
            await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(tell, sock=tells):
        await _relay(world, frontend)


def _nodes(world: World) -> list[dict[str, Any]]:
    deployment = world.deployment
    lives = [(node, deployment.life(node)) for node in deployment.nodes]
    return [
        {"name": node.name, "role": node.role, "address": node.address, "state": life.state, "restarts": life.restarts}
        | {"in_flight": _in_flight(world, node), "numbers": _numbers(world, node)}
        for node, life in lives
    ]


def _in_flight(world: World, node: Node) -> float | None:
    names = world.stage.release.metrics
    if node.role == "frontend":
        page = try_scrape(node)
        return None if page is None else page.value(names["frontend_inflight"]) or 0.0
    return in_flight(node, names) if node in world.deployment.workers else None


def _numbers(world: World, node: Node) -> list[str]:
    """What Dynamo calls a worker, and has called it before: who hangs cannot be asked, and its registration outlives a
    dead one.
    """
    if node not in world.deployment.workers:
        return []
    return sorted(world.stage.etcd_recorder.leases_of(node.name) | {each for each in [worker_id(node)] if each})


async def _relay(world: World, listener: socket.socket) -> None:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            url = await asyncio.to_thread(lambda: world.deployment.frontend_url)
            host, _, port = url.removeprefix("http://").rpartition(":")
            there = await asyncio.open_connection(host, int(port))
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
