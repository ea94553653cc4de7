"""The GPU agent: breaks the NVIDIA GPUs of the machine that it runs on, when asked, and gives them back.

Usage: ``python -m agents.gpu_agent --state-dir DIR [--token-file FILE]``; ``--help`` has all options. It is a
deployment of its own to the fault service (``--agent NAME=URL``) and the DaemonSet of
``agents/manifests/gpu-fault-injector.yaml``. Faults are in :mod:`agents.real_gpu`, the API in :mod:`agents.http`, and:

====================  ================================================================================================
``GET /v1/topology``  the machine and, in a cluster, the pods on it, each with its GPUs
``GET /v1/gpus``      telemetry of all GPUs
``GET /health``       ``{"status": "ok"}``; wants no token
====================  ================================================================================================

When the agent is gone for good, ``--recover --state-dir DIR`` undoes what its journal lists as live, prints one line
of JSON for each fault and ends: 0 when all is undone, 1 when something is not, 3 when an agent still holds the journal
(it is its only writer: ask that one, or end it first, also when it is frozen).
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pynvml
from aiohttp import web

from agents.faults import FaultBook, JournalInUse, Problem
from agents.http import HEALTH, fault_routes, guard
from agents.nvml import Cards
from agents.pods import Api, Pod, PodsError, is_of
from agents.real_gpu import LOAD, RealGpuDriver, boot_id
from agents.tokens import read_token
from agents.watchdog import JOURNAL, PROGRAM, Guard, ensure, private

LEAVE_SECONDS = 10.0
GUARD = "gpu-agent.guard.json"


@dataclass(frozen=True)
class Settings:
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
        load: the command of :mod:`agents.gpu_load`.
        api: the Kubernetes API; None outside of a cluster.
    """

    def __init__(
        self, settings: Settings, nvml: Any = pynvml, load: Sequence[str] = LOAD, api: Api | None = None
    ) -> None:
        self.settings, self.cards, self._api = settings, Cards(nvml), api
        self._pods: dict[str, Pod] = {}
        self._trouble = ""
        self.driver = RealGpuDriver(self.cards, self.places, settings.clock_control, tuple(load))
        self.book = FaultBook(settings.state / JOURNAL, {"gpu": self.driver}, settings.name)

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

    async def fault(self, fault_id: str) -> dict[str, Any]:
        """One fault, while it is active with the present readings."""
        fault = self.book.get(fault_id)
        if fault.state == "active":
            await self.driver.look(fault)
        return fault.view()

    async def inject(self, body: dict[str, Any]) -> dict[str, Any]:
        """Break something; see :class:`agents.faults.FaultBook`."""
        if self.settings.program:
            Guard.of_this_process().write(self.settings.state / GUARD)
            await asyncio.to_thread(ensure, self.settings.state, self.settings.program)
        return (await self.book.inject(body)).view()

    async def recover(self, fault_id: str) -> dict[str, Any]:
        """Undo it; see :class:`agents.faults.FaultBook`."""
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
    app.add_routes(fault_routes(agent.book, agent.inject, agent.recover, agent.fault, agent.look))
    app.add_routes([web.get("/v1/topology", get_topology), web.get("/v1/gpus", get_gpus), web.get(HEALTH, get_health)])
    return app


async def serve(agent: GpuAgent, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; then every fault is undone."""
    await agent.take_up()
    runner = web.AppRunner(application(agent), access_log=None, shutdown_timeout=LEAVE_SECONDS)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    host, port = listener.getsockname()[:2]
    what = agent.cards.missing() or f"{len(agent.cards.all())} GPUs"
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


def _make_private(state: Path) -> None:
    """Close the folder to others, which the kubelet or an older version may have left open to readers.

    What stands in the journal is done with the rights of the agent: a folder that others may write to is refused.

    Raises:
        PermissionError: it is somebody else's, or others could have written to it.
    """
    seen = state.stat()
    if seen.st_uid == os.geteuid() and not seen.st_mode & 0o022:
        state.chmod(0o700)
    private(state)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agents.gpu_agent",
        description="Faults of this machine's NVIDIA GPUs. Environment: FT_AGENT_TOKEN (bearer token), NODE_NAME.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback)")
    parser.add_argument("--port", type=int, default=8081, help="0: any free one (default 8081)")
    parser.add_argument("--name", default=os.environ.get("NODE_NAME") or socket.gethostname(), help="of this machine")
    parser.add_argument("--state-dir", type=Path, required=True, help="journal; has to outlive the agent")
    parser.add_argument("--token-file", type=Path, help="file with the bearer token; else FT_AGENT_TOKEN")
    parser.add_argument(
        "--allow-namespace", action="append", default=[], metavar="NAMESPACE", help="whose pods may be targets"
    )
    parser.add_argument("--allow-clock-control", action="store_true", help="let THROTTLE and OVERHEAT touch settings")
    parser.add_argument(
        "--supervised", action="store_true", help="start no watchdog: kubelet or systemd restart a dead or frozen agent"
    )
    parser.add_argument("--recover", action="store_true", help="undo what the journal lists as live, and end")
    return parser


def main(
    argv: Sequence[str] | None = None,
    nvml: Any = pynvml,
    load: Sequence[str] = LOAD,
    program: Sequence[str] = PROGRAM,
) -> None:
    """Entry point; ``nvml`` and ``load`` as for :class:`GpuAgent`, ``program`` what to run this as after ``python -m``.

    Raises:
        SystemExit: 2 for options that make no sense, 1 when the address cannot be had or something is not undone, 3
            when another agent holds the journal.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    state = options.state_dir.resolve()
    try:
        given = read_token(options.token_file, "FT_AGENT_TOKEN")
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_private(state)
        api = None if options.recover else Api.of_this_cluster()
        namespaces, guarded_by = tuple(options.allow_namespace), () if options.supervised else tuple(program)
        settings = Settings(options.name, state, given, namespaces, options.allow_clock_control, guarded_by)
        agent = GpuAgent(settings, nvml, load, api)
        agent.book.hold()
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        parser.error(str(error))
    except JournalInUse:
        print(f"gpu agent: another one holds {state}; ask it, or end it first", file=sys.stderr)
        raise SystemExit(3) from None
    if options.recover:
        raise SystemExit(0 if asyncio.run(recover(agent)) else 1)
    if not given:
        parser.error("no token: name a file with --token-file, or set FT_AGENT_TOKEN")
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family, backlog=64)
    except OSError as error:
        print(f"gpu agent: {options.host}:{options.port}: {error.strerror}", file=sys.stderr)
        raise SystemExit(1) from None
    asyncio.run(serve(agent, listener))


if __name__ == "__main__":
    main()
