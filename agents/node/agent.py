"""The node agent: a small kubelet for one cell, and the only one that breaks what runs in it.

Started by :mod:`agents.cell`, which hands over the listening socket and starts it again when it dies; the new one takes
up the nodes, processes and faults of the old one.

HTTP API, JSON in and out, bearer token ``FT_AGENT_TOKEN``; errors are problem+json (``title``, ``status``, ``detail``):

==================================  ==================================================================================
``POST /v1/nodes``                  ``{"name", "role"}``: make a node, returns its ``address``
``POST /v1/processes``              start a process on a node, see :class:`agents.node.process.Spec`
``GET /v1/processes``               all processes with state, pid, start time, exit code, restarts
``GET /v1/topology``                deployment, nodes with role, address, process and simulated GPUs, the agent's pid
``POST /v1/faults[?dry_run=true]``  ``{"kind", "type", ...}``, see the drivers; dry run: what it would touch
``GET /v1/faults[?active=true]``    faults in short (``owed=true``: failed undos too); ``/v1/faults/ID``: one, whole
``POST /v1/faults/ID/recover``      undo it now; ``/v1/faults/recover``: all
``GET /v1/capabilities``            which faults can be had here, and why not
``GET /v1/gpus``                    telemetry of the simulated GPUs by node
``GET /v1/history``                 every change of state since the cell began, on CLOCK_MONOTONIC
``GET /v1/world``                   processes, network namespaces and links that the kernel knows in this cell
``DELETE /v1/deployment``           end all processes, remove all nodes; answers when the kernel says they are gone
==================================  ==================================================================================
"""

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from agents.core.book import FaultBook
from agents.core.faults import Driver
from agents.core.http import fault_routes, guard
from agents.core.journal import read_journal
from agents.core.kernel import take_right_of_way
from agents.core.leases import JOURNAL
from agents.node.access import CellAccess
from agents.node.drivers import DRIVERS
from agents.node.drivers.simulated_gpu import SimulatedGpuDriver
from agents.node.marks import marked
from agents.node.network import Network
from agents.node.process import Spec
from agents.node.processes import ProcessTable

DEPLOYMENT = "local"


class NodeAgent:
    """State and actions behind the HTTP API."""

    def __init__(self, scratch: Path, namespaces: bool, token: str) -> None:
        self.scratch = scratch
        self.network = Network(namespaces, scratch / "nodes.json")
        self.table = ProcessTable(self.network, scratch)
        self.cell = CellAccess(self.network, self.table, token)
        self.gpus = self.cell.driver(SimulatedGpuDriver)
        self.book = FaultBook(scratch / JOURNAL, self.drivers(), DEPLOYMENT)

    def drivers(self) -> Sequence[Driver]:
        """All that there are, see :mod:`agents.node.drivers`."""
        return [self.cell.driver(kind) for kind in DRIVERS]

    def adopt(self) -> None:
        """Take up what an agent before this one has left."""
        self.network.adopt()
        for fault in read_journal(self.book.journal.path).values():
            for driver in self.cell.drivers.values() if fault.state == "active" else ():
                if (fault.kind, fault.type) in [(driver.kind, each.name) for each in driver.types]:
                    driver.adopt(fault)
        self.table.adopt()
        self.book.replay()

    def topology(self) -> dict[str, Any]:
        """The nodes of the deployment, for those who look for a target."""
        nodes = []
        for node in self.network.nodes.values():
            process = self.table.processes.get(node.name)
            view = process.view() if process else {"pid": None, "start_time": None, "state": "none"}
            gpus = self.gpus.telemetry(node.name)
            entry = {"name": node.name, "role": node.role, "address": node.address, "gpus": gpus}
            nodes.append(entry | {key: view[key] for key in ("pid", "start_time", "state")})
        return {"deployment": DEPLOYMENT, "agent_pid": os.getpid(), "nodes": nodes}

    def telemetry(self) -> dict[str, Any]:
        """Simulated GPUs by node."""
        return {name: self.gpus.telemetry(name) for name in self.network.nodes if self.gpus.telemetry(name)}

    async def inject(self, body: dict[str, Any]) -> dict[str, Any]:
        """Break something; see :class:`agents.core.book.FaultBook`."""
        return (await self.book.inject(body)).view()

    async def recover(self, fault_id: str) -> dict[str, Any]:
        """Undo it; see :class:`agents.core.book.FaultBook`."""
        return (await self.book.recover(fault_id)).view()

    async def remove_deployment(self) -> dict[str, Any]:
        """End every process and remove every node; the answer comes when the kernel agrees."""
        self.book.close()
        for driver in self.cell.drivers.values():
            driver.close()
        pids = await self.table.remove_all()
        self.network.remove_all()
        world = self.world()
        left = [f"process {pid}" for pid in world["processes"]] + [f"namespace {name}" for name in world["namespaces"]]
        self.book.forget("the deployment is gone", left)
        return {"ended": pids}

    def world(self) -> dict[str, Any]:
        """What the kernel knows of this cell's nodes: processes on them, named network namespaces, links."""
        return {"processes": sorted(marked(str(self.scratch))), **self.network.kernel_view()}


def application(agent: NodeAgent) -> web.Application:
    """The HTTP application around ``agent``."""

    async def post_node(request: web.Request) -> web.Response:
        body = await request.json()
        node = agent.network.add(str(body.get("name", "")), str(body.get("role", "")))
        return web.json_response({"name": node.name, "address": node.address}, status=201)

    async def post_process(request: web.Request) -> web.Response:
        return web.json_response(agent.table.add(Spec.parse(await request.json())).view(), status=201)

    async def get_processes(_: web.Request) -> web.Response:
        return web.json_response([process.view() for process in agent.table.processes.values()])

    async def get_topology(_: web.Request) -> web.Response:
        return web.json_response(agent.topology())

    async def get_gpus(_: web.Request) -> web.Response:
        return web.json_response(agent.telemetry())

    async def get_history(_: web.Request) -> web.Response:
        return web.json_response(agent.table.history)

    async def get_world(_: web.Request) -> web.Response:
        return web.json_response(agent.world())

    async def delete_deployment(_: web.Request) -> web.Response:
        return web.json_response(await agent.remove_deployment())

    app = web.Application(middlewares=[guard(os.environ["FT_AGENT_TOKEN"])])
    app.add_routes(fault_routes(agent.book, agent.inject, agent.recover, agent.book.view))
    app.add_routes(
        [
            web.post("/v1/nodes", post_node),
            web.post("/v1/processes", post_process),
            web.get("/v1/processes", get_processes),
            web.get("/v1/topology", get_topology),
            web.get("/v1/gpus", get_gpus),
            web.get("/v1/history", get_history),
            web.get("/v1/world", get_world),
            web.delete("/v1/deployment", delete_deployment),
        ]
    )
    return app


async def serve(listener: socket.socket, kind: type[NodeAgent] = NodeAgent) -> None:
    """Serve an agent of this ``kind`` on ``listener`` until SIGTERM."""
    token = os.environ["FT_AGENT_TOKEN"]
    agent = kind(Path(os.environ["FT_SCRATCH"]), os.environ["FT_CELL"] == "namespaces", token)
    agent.adopt()
    runner = web.AppRunner(application(agent), access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    take_right_of_way()
    # Ctrl-C is for the runner, which then takes the deployment down.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    await stop.wait()
    await agent.remove_deployment()
    await runner.cleanup()
