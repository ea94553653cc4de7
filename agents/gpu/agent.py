"""The GPU agent: breaks the NVIDIA GPUs of the machine that it runs on, when asked, and gives them back.

It is a deployment of its own to the fault service (``--agent NAME=URL``) and the DaemonSet of
``agents/manifests/gpu-fault-injector.yaml``. Faults are in :mod:`agents.gpu.real_gpu`, options in
``agents/gpu/__main__.py``, the API in :mod:`agents.core.http`, and:

====================  ================================================================================================
``GET /v1/topology``  the machine and, in a cluster, the pods on it, each with its GPUs
``GET /v1/gpus``      telemetry of all GPUs
``GET /health``       ``{"status": "ok"}``; wants no token
====================  ================================================================================================
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pynvml
from aiohttp import web

from agents.core.book import FaultBook
from agents.core.faults import Problem
from agents.core.http import HEALTH, fault_routes, guard
from agents.core.kernel import boot_id
from agents.core.leases import JOURNAL
from agents.gpu.nvml import Cards
from agents.gpu.pods import Api, Pod, PodsError, is_of
from agents.gpu.real_gpu import LOAD, RealGpuDriver
from agents.watchdog.guard import Guard
from agents.watchdog.watchdog import ensure

LEAVE_SECONDS = 10.0
GUARD = "gpu-agent.guard.json"


@dataclass(frozen=True)
class AgentSettings:
    """What the operator has decided.

    Attributes:
        name: of the machine, and of the deployment that it is to the fault service.
        state: folder of the journal.
        namespaces: those whose pods may be targets.
        clock_control: whether clock and power settings may be touched.
        program: what the watchdog runs to undo what the journal lists, as after ``python -m``; empty where somebody
            else sees to it that an agent that dies or freezes is started again.
    """

    name: str
    state: Path
    token: str = field(repr=False)
    namespaces: tuple[str, ...] = ()
    clock_control: bool = False
    program: tuple[str, ...] = ()


class GpuAgent:
    """State and actions behind the HTTP API.

    Args:
        nvml: the module ``pynvml``, or something with functions of the same names.
        load: the command of :mod:`agents.gpu.load`.
        api: the Kubernetes API; None outside of a cluster.
    """

    def __init__(
        self, settings: AgentSettings, nvml: Any = pynvml, load: Sequence[str] = LOAD, api: Api | None = None
    ) -> None:
        self.settings, self.cards, self._api = settings, Cards(nvml), api
        self._pods: dict[str, Pod] = {}
        self._trouble = ""
        self.driver = RealGpuDriver(self.cards, self.places, settings.clock_control, tuple(load))
        self.book = FaultBook(settings.state / JOURNAL, [self.driver], settings.name)

    async def take_up(self) -> None:
        """Take up what an agent before this one has left; after a reboot its deadlines mean nothing: all ends."""
        boot = self.settings.state / "boot"
        known = boot.read_text() if boot.exists() else ""
        if known and known != boot_id():
            await self.book.end_journal()
        else:
            self.book.replay()
        if known != boot_id():
            with contextlib.suppress(OSError):  # on a full disk the next agent ends once more what this one has begun
                boot.write_text(boot_id())

    async def look(self) -> None:
        """Ask anew which pods there are."""
        found: dict[str, Pod] = {}
        self._trouble = ""
        try:
            for namespace in self.settings.namespaces if self._api else ():
                assert self._api is not None
                pods = await self._api.pods(namespace, self.settings.name)
                found |= {pod.name: pod for pod in pods}
        except PodsError as error:
            self._trouble = str(error)
        self._pods = found

    def places(self, target: str) -> list[int]:
        """Indices of a target's GPUs: those its processes use; while none is used, all if it asks for any.

        Raises:
            Problem: 404 when there is no such target.
        """
        cards = self.cards.all()
        if target == self.settings.name:
            return [card.index for card in cards]
        pod = self._pods.get(target)
        if pod is None:
            known = ", ".join([self.settings.name, *self._pods])
            trouble = f" ({self._trouble})" if self._trouble else ""
            raise Problem(404, "Unknown target", f"no target {target!r}; known: {known}{trouble}")
        used = [card.index for card in cards if any(is_of(pid, pod) for pid in self.cards.processes(card))]
        return used or [card.index for card in cards if pod.wants_gpu]

    def telemetry(self) -> list[dict[str, Any]]:
        """All GPUs."""
        return [self.cards.reading(card) for card in self.cards.all()]

    async def topology(self) -> dict[str, Any]:
        """The machine and the pods on it, in the shape that the node agent has too."""
        await self.look()
        gpus = await asyncio.to_thread(self.telemetry)
        machine: dict[str, Any] = {
            "name": self.settings.name,
            "role": "machine",
            "address": socket.gethostname(),
            "state": "running",
        }
        nodes = [machine | {"gpus": gpus}]
        for pod in self._pods.values():
            own = self.places(pod.name)
            entry: dict[str, Any] = {
                "name": pod.name,
                "role": "pod",
                "address": pod.address,
                "state": pod.phase.lower(),
            }
            nodes.append(entry | {"gpus": [gpu for gpu in gpus if gpu["index"] in own]})
        nodes = [node | {"pid": None, "start_time": None} for node in nodes]
        found = {"deployment": self.settings.name, "agent_pid": os.getpid(), "nodes": nodes}
        return found | ({"trouble": self._trouble} if self._trouble else {})

    async def inject(self, body: dict[str, Any]) -> dict[str, Any]:
        """Break something; see :class:`agents.core.book.FaultBook`."""
        if self.settings.program:
            Guard.of_this_process().write(self.settings.state / GUARD)
            await asyncio.to_thread(ensure, self.settings.state, self.settings.program)
        return (await self.book.inject(body)).view()

    async def recover(self, fault_id: str) -> dict[str, Any]:
        """Undo it; see :class:`agents.core.book.FaultBook`."""
        return (await self.book.recover(fault_id)).view()


def application(agent: GpuAgent) -> web.Application:
    """The HTTP application around ``agent``."""

    async def get_topology(_: web.Request) -> web.Response:
        return web.json_response(await agent.topology())

    async def get_gpus(_: web.Request) -> web.Response:
        return web.json_response({agent.settings.name: await asyncio.to_thread(agent.telemetry)})

    async def get_health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    app = web.Application(middlewares=[guard(agent.settings.token)])
    app.add_routes(fault_routes(agent.book, agent.inject, agent.recover, agent.book.view, agent.look))
    app.add_routes([web.get("/v1/topology", get_topology), web.get("/v1/gpus", get_gpus), web.get(HEALTH, get_health)])
    return app


async def serve(agent: GpuAgent, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; then every fault is undone."""
    await agent.take_up()
    runner = web.AppRunner(application(agent), access_log=None, shutdown_timeout=LEAVE_SECONDS)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    host, port = listener.getsockname()[:2]
    what = agent.cards.missing() or f"GPUs: {len(agent.cards.all())}"
    print(f"gpu agent {agent.settings.name}: http://{host}:{port} ({what})", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()  # first: what is under way ends, and nothing new comes
    await agent.book.recover_all()
    if not agent.book.owed():  # else the watchdog goes on trying
        (agent.settings.state / GUARD).unlink(missing_ok=True)


async def recover(agent: GpuAgent) -> bool:
    """Undo all that the journal lists as live; whether that has come off."""
    touched = await agent.book.end_journal()
    for fault in touched:
        print(json.dumps({"id": fault.id, "type": fault.type, "state": fault.state} | fault.evidence), flush=True)
    return all(fault.state != "failed" for fault in touched)
