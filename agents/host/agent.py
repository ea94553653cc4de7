"""An agent of a whole machine: its journal outlives it, a watchdog or the kubelet stands behind it.

The API is that of :mod:`agents.core.http`, and ``GET /v1/topology``, ``GET /health`` (which wants no token).
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from aiohttp import web

from agents.core.book import FaultBook
from agents.core.faults import Driver
from agents.core.http import HEALTH, fault_routes, guard
from agents.core.kernel import boot_id
from agents.core.leases import JOURNAL
from agents.host.pods import Api, Pod, PodsError
from agents.watchdog.guard import Guard
from agents.watchdog.watchdog import ensure

LEAVE_SECONDS = 10.0


@dataclass(frozen=True)
class HostSettings:
    """What the operator has decided.

    Attributes:
        name: of the machine, and of the deployment that it is to the fault service.
        state: folder of the journal.
        namespaces: those whose pods may be targets; ``*`` and ``?`` stand for what they stand for in a shell.
        program: what the watchdog runs to undo what the journal lists, as after ``python -m``; empty where somebody
            else sees to it that an agent that dies or freezes is started again.
    """

    name: str
    state: Path
    token: str = field(repr=False)
    namespaces: tuple[str, ...] = ()
    program: tuple[str, ...] = ()


class HostAgent:
    """State and actions behind the HTTP API.

    Args:
        api: the Kubernetes API; None outside of a cluster.

    Attributes:
        called: what it calls itself, ``gpu agent``; ``everywhere``: whether it has to know pods on other machines, too.
        pods: those that may be targets, by name, as of the last :meth:`look`; ``trouble``: why there are none.
    """

    called: ClassVar[str]
    everywhere: ClassVar[bool] = False

    def __init__(self, settings: HostSettings, drivers: Sequence[Driver], api: Api | None = None) -> None:
        self.settings, self.api = settings, api
        self.pods: dict[str, Pod] = {}
        self.trouble = ""
        self.book = FaultBook(settings.state / JOURNAL, drivers, settings.name)

    @property
    def guard_file(self) -> Path:
        """Where the watchdog finds out about this agent."""
        return self.settings.state / f"{self.called.replace(' ', '-')}.guard.json"

    async def take_up(self) -> None:
        """Take up what an agent before this one has left; after a reboot its deadlines mean nothing: all ends."""
        boot = self.settings.state / "boot"
        known = boot.read_text() if boot.exists() else ""
        await self.look()
        if known and known != boot_id():
            await self.book.end_journal()
        else:
            self.book.replay()
        if known != boot_id():
            with contextlib.suppress(OSError):  # on a full disk the next agent ends once more what this one has begun
                boot.write_text(boot_id())

    async def look(self) -> None:
        """Ask again which pods there are; those that cannot be asked for are none, for the reason in ``trouble``."""
        self.pods, self.trouble = {}, ""
        if self.api is None:
            return
        node = "" if self.everywhere else self.settings.name
        try:
            for namespace in self.settings.namespaces:
                self.pods |= {pod.name: pod for pod in await self.api.pods(namespace, node)}
        except PodsError as error:
            self.pods, self.trouble = {}, str(error)

    @abstractmethod
    async def nodes(self) -> list[dict[str, Any]]:
        """The targets: ``name``, ``role``, ``address``, ``state``, ``gpus``."""

    @abstractmethod
    def about(self) -> str:
        """What it has to work with, in a few words, for its first line."""

    async def topology(self) -> dict[str, Any]:
        """The targets, in the shape that the node agent has too."""
        await self.look()
        nodes = [node | {"pid": None, "start_time": None} for node in await self.nodes()]
        found = {"deployment": self.settings.name, "agent_pid": os.getpid(), "nodes": nodes}
        return found | ({"trouble": self.trouble} if self.trouble else {})

    async def inject(self, body: dict[str, Any]) -> dict[str, Any]:
        """Break something; see :class:`agents.core.book.FaultBook`."""
        if self.settings.program:
            Guard.of_this_process().write(self.guard_file)
            await asyncio.to_thread(ensure, self.settings.state, self.settings.program)
        return (await self.book.inject(body)).view()

    async def recover(self, fault_id: str) -> dict[str, Any]:
        """Undo it; see :class:`agents.core.book.FaultBook`."""
        return (await self.book.recover(fault_id)).view()

    def application(self) -> web.Application:
        """The HTTP application around it."""

        async def get_topology(_: web.Request) -> web.Response:
            return web.json_response(await self.topology())

        async def get_health(_: web.Request) -> web.Response:
            return web.json_response({"status": "ok"})

        app = web.Application(middlewares=[guard(self.settings.token)])
        app.add_routes(fault_routes(self.book, self.inject, self.recover, self.book.view, self.look))
        app.add_routes([web.get("/v1/topology", get_topology), web.get(HEALTH, get_health)])
        return app

    async def serve(self, listener: socket.socket) -> None:
        """Serve until SIGTERM or SIGINT; then every fault is undone."""
        await self.take_up()
        runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=LEAVE_SECONDS)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        host, port = listener.getsockname()[:2]
        print(f"{self.called} {self.settings.name}: http://{host}:{port} ({self.about()})", flush=True)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()
        await runner.cleanup()  # first: open calls end, and nothing new comes
        await self.book.recover_all()
        if not self.book.owed():  # else the watchdog goes on trying
            self.guard_file.unlink(missing_ok=True)

    async def end_all(self) -> bool:
        """Undo all that the journal lists as live; whether that has come off."""
        await self.look()
        touched = await self.book.end_journal()
        for fault in touched:
            print(json.dumps({"id": fault.id, "type": fault.type, "state": fault.state} | fault.evidence), flush=True)
        return all(fault.state != "failed" for fault in touched)
