"""The node agent: a small kubelet for one cell. It alone starts, stops, restarts and signals what runs on the nodes.

Usage: ``python -m agents.node_agent --listen-fd N`` (started by :mod:`agents.cell`, which hands over the listening
socket).

HTTP API, JSON in and out, bearer token ``FT_AGENT_TOKEN``; errors are problem+json (``title``, ``status``, ``detail``):

==================================  ==================================================================================
``POST /v1/nodes``                  ``{"name"}``: make a node, returns its ``address``
``POST /v1/processes``              start a process on a node, see :class:`Spec`; returns :meth:`Process.view`
``GET /v1/processes``               all processes with state, pid, start time, exit code, restarts
``POST /v1/processes/NODE/start``   start a stopped process again with the spec that it had
``POST /v1/faults``                 ``{"type", "node", "lease_seconds"}`` with a type of :data:`FAULT_TYPES`
``GET /v1/faults[/ID]``             faults with state, evidence and history, see :class:`Fault`
``POST /v1/faults/ID/recover``      undo it now
``GET /v1/history``                 every change of state since the cell began, on CLOCK_MONOTONIC
``GET /v1/world``                   processes, network namespaces and links that the kernel knows in this cell
``DELETE /v1/deployment``           end all processes, remove all nodes; answers when the kernel says they are gone
==================================  ==================================================================================
"""

import argparse
import asyncio
import contextlib
import hmac
import itertools
import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from agents.kernel import children_of, die_with_parent, enter_network_namespace, stat_of

FAULT_TYPES = ("crash", "terminate", "hang", "restart")
RESTART_POLICIES = ("Never", "OnFailure", "Always")
DEFAULT_LEASE_SECONDS, LONGEST_LEASE_SECONDS = 300.0, 3600.0
# The kubelet's crash-loop back-off: the first restart at once, then 10 s, doubled up to 300 s, forgotten after 10
# minutes of running (kubernetes.io, "Pod Lifecycle", restartPolicy).
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, BACKOFF_RESET_SECONDS = 10.0, 300.0, 600.0
READINESS_PERIOD_SECONDS = 0.02
# SIGCONT acts at once; only a process in uninterruptible sleep takes longer.
SIGNAL_SECONDS = 5.0


class Problem(Exception):
    """A request that cannot be served; becomes an RFC 9457 problem+json answer."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail


@dataclass(frozen=True)
class Spec:
    """What to run on a node.

    Attributes:
        node: logical name of the node, one process each.
        argv: program and arguments. ``env`` is the whole environment, nothing is inherited.
        log: file that stdout and stderr are appended to, over restarts too.
        after: nodes whose processes must be ready before this one is started.
        ready: URL that answers 200 once the process is ready; None: ready as soon as it runs.
        restart_policy: one of :data:`RESTART_POLICIES`, with the kubelet's meaning.
        backoff_seconds: delay before the second restart, doubled for each further one.
    """

    node: str
    argv: list[str]
    env: dict[str, str]
    log: str
    after: list[str] = field(default_factory=list)
    ready: str | None = None
    restart_policy: str = "Never"
    backoff_seconds: float = BACKOFF_SECONDS

    @classmethod
    def parse(cls, body: dict[str, Any]) -> "Spec":
        """Check a request body; raises :class:`Problem` 422 that names the offending key or value."""
        unknown = set(body) - set(cls.__dataclass_fields__)
        if unknown:
            allowed = ", ".join(cls.__dataclass_fields__)
            raise Problem(422, "Unknown key", f"unknown key {sorted(unknown)[0]!r}; allowed: {allowed}")
        missing = [key for key in ("node", "argv", "env", "log") if not body.get(key)]
        if missing:
            raise Problem(422, "Missing key", f"{missing[0]!r} is missing or empty")
        if body.get("restart_policy", "Never") not in RESTART_POLICIES:
            allowed = ", ".join(RESTART_POLICIES)
            raise Problem(422, "Unknown value", f"restart_policy {body['restart_policy']!r}; allowed: {allowed}")
        return cls(**body)


class Process:
    """One process of a node over all its restarts."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.state = "waiting"
        self.handle: asyncio.subprocess.Process | None = None
        self.start_time: int | None = None
        self.started_at: float | None = None
        self.exit_code: int | None = None
        self.restarts = 0
        self.delay = 0.0
        self.ended = asyncio.Event()
        self.ready = asyncio.Event()
        self.detail = ""

    @property
    def pid(self) -> int | None:
        """Pid in the cell of the running process, else of the last one; None before the first start."""
        return self.handle.pid if self.handle else None

    def alive(self) -> bool:
        """Whether the very process that we started still exists and is not a zombie."""
        stat = stat_of(self.pid) if self.pid is not None else None
        return bool(stat and stat[1] == self.start_time and stat[0] != "Z")

    def view(self) -> dict[str, Any]:
        """JSON form. ``state``: waiting, running, exited, backoff, failed (could not be started; see ``detail``)."""
        return {
            "node": self.spec.node,
            "state": self.state,
            "ready": self.ready.is_set(),
            "pid": self.pid,
            "start_time": self.start_time,
            "exit_code": self.exit_code,
            "restarts": self.restarts,
            "log": self.spec.log,
            "detail": self.detail,
        }


@dataclass
class Fault:
    """One deliberate damage to a process.

    ``state``: pending, active, recovering, recovered or failed. ``deadline`` is on CLOCK_MONOTONIC. ``evidence`` is
    what the agent did and saw; it proves nothing by itself, observers look at the victim.
    """

    id: str
    type: str
    node: str
    deadline: float
    lease_seconds: float
    undo: str
    state: str = "pending"
    evidence: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def view(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


class Network:
    """Nodes of a cell. With namespaces: one network namespace each on one bridge; without: loopback addresses."""

    BRIDGE, PREFIX, GROUP = "cell0", "10.77.0.", 77

    def __init__(self, namespaces: bool) -> None:
        self.namespaces = namespaces
        self.addresses: dict[str, str] = {}
        self.files: dict[str, int] = {}
        self._numbers = itertools.count(10)
        # Runs side by side on one loopback keep out of each other's way by a random /24 of 127/8.
        self._prefix = self.PREFIX if namespaces else f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(254) + 1}."

    def add(self, name: str) -> str:
        """Make the node ``name``; returns its IPv4 address."""
        number = next(self._numbers)
        address = f"{self._prefix}{number}"
        if self.namespaces:
            self._add_namespace(name, f"node{number}", address)
        self.addresses[name] = address
        return address

    def _add_namespace(self, name: str, outside: str, address: str) -> None:
        from pyroute2 import IPRoute, netns  # 0.5 s of CPU: only where it is used

        netns.create(name)
        self.files[name] = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        with IPRoute() as route:
            if not route.link_lookup(ifname=self.BRIDGE):
                route.link("add", ifname=self.BRIDGE, kind="bridge")
                index = route.link_lookup(ifname=self.BRIDGE)[0]
                route.addr("add", index=index, address=f"{self.PREFIX}1", prefixlen=24)
                route.link("set", index=index, state="up", group=self.GROUP)
            bridge = route.link_lookup(ifname=self.BRIDGE)[0]
            peer = {"ifname": "eth0", "net_ns_fd": name}
            route.link("add", ifname=outside, kind="veth", peer=peer)
            index = route.link_lookup(ifname=outside)[0]
            route.link("set", index=index, master=bridge, state="up", group=self.GROUP)
        netns.pushns(name)
        try:
            with IPRoute() as route:
                for interface in ("lo", "eth0"):
                    index = route.link_lookup(ifname=interface)[0]
                    if interface == "eth0":
                        route.addr("add", index=index, address=address, prefixlen=24)
                    route.link("set", index=index, state="up")
                # Dynamo before 1.3 finds its own address through the default route and fails without one.
                route.route("add", gateway=f"{self.PREFIX}1")
        finally:
            netns.popns()

    def remove_all(self) -> None:
        """Remove every node and the bridge."""
        if self.namespaces and self.addresses:
            from pyroute2 import IPRoute, netns

            with IPRoute() as route:
                # All links of the group in one go; one by one the kernel waits for each.
                route.link("del", index=0, group=self.GROUP)
            for name, fd in self.files.items():
                os.close(fd)
                netns.remove(name)
        self.addresses.clear()
        self.files.clear()
        self._numbers = itertools.count(10)

    def kernel_view(self) -> dict[str, list[str]]:
        """Named network namespaces and links of this cell as the kernel lists them."""
        folder = Path("/run/netns")
        if not self.namespaces:
            return {"namespaces": [], "links": []}
        links = sorted(name for _, name in socket.if_nameindex())
        return {"namespaces": sorted(entry.name for entry in folder.iterdir()), "links": links}


class NodeAgent:
    """State and actions behind the HTTP API."""

    def __init__(self, scratch: Path, namespaces: bool) -> None:
        self.scratch = scratch
        self.network = Network(namespaces)
        self.processes: dict[str, Process] = {}
        self.faults: dict[str, Fault] = {}
        self.history: list[dict[str, Any]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._leases: dict[str, asyncio.TimerHandle] = {}
        self._held: set[str] = set()
        self._http: aiohttp.ClientSession | None = None

    # -- processes

    def _note(self, node: str, state: str, detail: str = "", **data: Any) -> None:
        self.history.append({"at": time.monotonic(), "node": node, "state": state, "detail": detail} | data)

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def add_node(self, name: str) -> dict[str, str]:
        """Make a node; 409 when the name is taken."""
        if not name or not name.replace("-", "").isalnum():
            raise Problem(422, "Bad name", f"node name {name!r}; expected letters, digits and dashes")
        if name in self.network.addresses:
            raise Problem(409, "Node exists", f"there is a node {name!r} already")
        return {"name": name, "address": self.network.add(name)}

    def process(self, node: str) -> Process:
        """The process of a node; 404 with the known names when there is none."""
        if node not in self.processes:
            known = ", ".join(sorted(self.processes)) or "none"
            raise Problem(404, "Unknown target", f"no process on a node {node!r}; known: {known}")
        return self.processes[node]

    def add_process(self, spec: Spec) -> Process:
        """Take a spec and start it in the background as soon as what it waits for is ready."""
        if spec.node not in self.network.addresses:
            raise Problem(404, "Unknown node", f"no node {spec.node!r}; make it with POST /v1/nodes first")
        if spec.node in self.processes:
            raise Problem(409, "Process exists", f"node {spec.node!r} has a process already")
        for other in spec.after:
            self.process(other)
        process = self.processes[spec.node] = Process(spec)
        self._spawn_task(self._run(process))
        return process

    async def _run(self, process: Process) -> None:
        for other in process.spec.after:
            await self.processes[other].ready.wait()
        while True:
            if not await self._start(process):
                return
            code = await self._watch(process)
            if not self._restarts(process, code):
                return
            ran = time.monotonic() - (process.started_at or 0)
            if ran >= BACKOFF_RESET_SECONDS:
                process.delay = 0.0
            process.state = "backoff"
            self._note(process.spec.node, "backoff", f"restart in {process.delay:g} s")
            await asyncio.sleep(process.delay)
            base = process.spec.backoff_seconds
            process.delay = min(max(base, 2 * process.delay), LONGEST_BACKOFF_SECONDS)
            process.restarts += 1

    def _restarts(self, process: Process, code: int) -> bool:
        if process.spec.node in self._held or process.spec.node not in self.processes:
            return False
        return process.spec.restart_policy == "Always" or (process.spec.restart_policy == "OnFailure" and code != 0)

    async def _start(self, process: Process) -> bool:
        spec = process.spec
        fd = self.network.files.get(spec.node)

        def prepare() -> None:
            die_with_parent()
            if fd is not None:
                enter_network_namespace(fd)

        process.ended.clear()
        process.ready.clear()
        process.exit_code = None
        try:
            with open(spec.log, "ab") as log:
                process.handle = await asyncio.create_subprocess_exec(
                    *spec.argv,
                    env=spec.env,
                    cwd=self.scratch,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=prepare,
                )
        except OSError as error:
            process.state, process.detail = "failed", f"cannot start {spec.argv[0]}: {error.strerror or error}"
            self._note(spec.node, "failed", process.detail)
            process.ended.set()
            return False
        stat = stat_of(process.handle.pid)
        process.start_time = stat[1] if stat else None
        process.started_at = time.monotonic()
        process.state = "running"
        self._note(spec.node, "starting", f"pid {process.pid}", pid=process.pid)
        self._spawn_task(self._await_ready(process, process.handle))
        return True

    async def _await_ready(self, process: Process, handle: asyncio.subprocess.Process) -> None:
        if process.spec.ready:
            if self._http is None:
                self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1))
            while process.handle is handle and not process.ended.is_set():
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with self._http.get(process.spec.ready) as answer:
                        if answer.status == 200:
                            break
                await asyncio.sleep(READINESS_PERIOD_SECONDS)
        if process.handle is handle and not process.ended.is_set():
            process.ready.set()
            self._note(process.spec.node, "running", f"pid {process.pid} is ready", pid=process.pid)

    async def _watch(self, process: Process) -> int:
        assert process.handle
        code = await process.handle.wait()
        process.exit_code, process.state = code, "exited"
        process.ready.clear()
        how = f"ended by signal {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        self._note(process.spec.node, "dead" if code < 0 else "stopped", how, exit_code=code)
        process.ended.set()
        return code

    def start_again(self, node: str) -> Process:
        """Start a stopped process with the spec that it had; 409 while it runs."""
        process = self.process(node)
        if process.state in ("running", "waiting", "backoff"):
            raise Problem(409, "Already running", f"the process on {node!r} is {process.state}")
        process.restarts += 1
        process.state = "waiting"
        self._spawn_task(self._run(process))
        return process

    # -- faults

    def _journal(self, fault: Fault) -> None:
        """Append the fault's state to the journal and see it on disk before anything is changed."""
        with (self.scratch / "journal.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(fault.view()) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _move(self, fault: Fault, state: str, **evidence: Any) -> None:
        fault.state = state
        fault.evidence |= evidence
        fault.history.append({"at": time.monotonic(), "state": state} | evidence)
        self._journal(fault)

    async def inject(self, body: dict[str, Any]) -> Fault:
        """Do the damage; returns when it is done, with the raw evidence.

        Raises:
            Problem: 422 for a type or lease that is not allowed, 404 for an unknown node, 409 when the process does
                not run or is already under a fault that this one contradicts.
        """
        kind, node = body.get("type"), str(body.get("node", ""))
        if kind not in FAULT_TYPES:
            raise Problem(422, "Unknown fault type", f"type {kind!r}; allowed: {', '.join(FAULT_TYPES)}")
        lease = body.get("lease_seconds", DEFAULT_LEASE_SECONDS)
        if not isinstance(lease, int | float) or not 0 < lease <= LONGEST_LEASE_SECONDS:
            detail = f"lease_seconds {lease!r}; expected a number above 0 and at most {LONGEST_LEASE_SECONDS:g}"
            raise Problem(422, "Bad lease", detail)
        process = self.process(node)
        if not process.alive():
            raise Problem(409, "Not running", f"the process on {node!r} is {process.state}; nothing to {kind}")
        hung = [each for each in self._active(node) if each.type == "hang"]
        if hung and kind in ("hang", "terminate", "restart"):
            # A stopped process does not act on SIGTERM; only SIGKILL reaches it.
            raise Problem(
                409, "Conflicting fault", f"{node!r} is already hung by fault {hung[0].id}; recover that first"
            )
        undo = {"crash": "start again", "terminate": "start again", "hang": "SIGCONT", "restart": "none"}[kind]
        fault = Fault(f"f-{secrets.token_hex(4)}", kind, node, time.monotonic() + lease, lease, undo)
        self.faults[fault.id] = fault
        fault.evidence = {"pid": process.pid, "start_time": process.start_time}
        self._move(fault, "pending")
        self._leases[fault.id] = asyncio.get_running_loop().call_at(
            fault.deadline, lambda: self._spawn_task(self._expire(fault))
        )
        await self._actions()[kind](fault, process)
        return fault

    def _active(self, node: str) -> list[Fault]:
        return [each for each in self.faults.values() if each.node == node and each.state in ("pending", "active")]

    def _actions(self) -> dict[str, Callable[[Fault, Process], Awaitable[None]]]:
        return {"crash": self._crash, "terminate": self._terminate, "hang": self._hang, "restart": self._restart}

    def _signal(self, process: Process, number: signal.Signals) -> float:
        assert process.pid
        if not process.alive():
            raise Problem(409, "Not running", f"the process on {process.spec.node!r} is gone")
        os.kill(process.pid, number)
        return time.monotonic()

    async def _crash(self, fault: Fault, process: Process) -> None:
        for each in self._active(process.spec.node):
            if each.type == "hang":
                self._finish(each, note="the hung process was crashed")
        sent = self._signal(process, signal.SIGKILL)
        await process.ended.wait()
        self._move(
            fault, "active", signal="SIGKILL", sent_at=sent, gone_at=time.monotonic(), exit_code=process.exit_code
        )

    async def _terminate(self, fault: Fault, process: Process) -> None:
        self._move(fault, "active", signal="SIGTERM", sent_at=self._signal(process, signal.SIGTERM))

    async def _hang(self, fault: Fault, process: Process) -> None:
        sent = self._signal(process, signal.SIGSTOP)
        while (stat := stat_of(process.pid or 0)) and stat[0] != "T" and time.monotonic() < fault.deadline:
            await asyncio.sleep(0.001)
        self._note(process.spec.node, "hung", "SIGSTOP")
        self._move(fault, "active", signal="SIGSTOP", sent_at=sent, kernel_state=stat[0] if stat else "gone")

    async def _restart(self, fault: Fault, process: Process) -> None:
        self._held.add(process.spec.node)
        try:
            sent = self._signal(process, signal.SIGKILL)
            await process.ended.wait()
            await asyncio.sleep(0)  # lets _run see that the node is held
        finally:
            self._held.discard(process.spec.node)
        self.start_again(process.spec.node)
        self._move(fault, "active", signal="SIGKILL", sent_at=sent, gone_at=time.monotonic())
        await process.ready.wait()
        self._finish(fault, new_pid=process.pid)

    async def _expire(self, fault: Fault) -> None:
        if fault.state in ("pending", "active"):
            await self.recover(fault.id)

    def _finish(self, fault: Fault, **evidence: Any) -> None:
        timer = self._leases.pop(fault.id, None)
        if timer:
            timer.cancel()
        self._move(fault, "recovered", **evidence)

    async def recover(self, fault_id: str) -> Fault:
        """Undo a fault; a second call changes nothing. ``recovered`` is said once the victim has been looked at."""
        if fault_id not in self.faults:
            raise Problem(404, "Unknown fault", f"no fault {fault_id!r}; GET /v1/faults lists them")
        fault = self.faults[fault_id]
        if fault.state not in ("pending", "active"):
            return fault
        self._move(fault, "recovering")
        process = self.process(fault.node)
        if fault.type == "hang" and process.start_time == fault.evidence["start_time"] and process.alive():
            os.kill(process.pid or 0, signal.SIGCONT)
            deadline = time.monotonic() + SIGNAL_SECONDS
            while (stat := stat_of(process.pid or 0)) and stat[0] == "T" and time.monotonic() < deadline:
                await asyncio.sleep(0.001)
            if stat and stat[0] == "T":
                self._move(fault, "failed", kernel_state="T")
                return fault
            self._note(process.spec.node, "running", "SIGCONT")
            self._finish(fault, kernel_state=stat[0] if stat else "gone")
        elif fault.type in ("crash", "terminate"):
            if fault.type == "terminate" and process.alive():
                self._signal(process, signal.SIGKILL)  # as the kubelet does when the grace period is over
                await process.ended.wait()
            if process.state in ("exited", "failed"):
                self.start_again(fault.node)
            await process.ready.wait()
            self._finish(fault, new_pid=process.pid)
        else:
            self._finish(fault, note="nothing left to undo")
        return fault

    # -- the end

    async def remove_deployment(self) -> dict[str, Any]:
        """End every process and remove every node; the answer comes when the kernel agrees."""
        for timer in self._leases.values():
            timer.cancel()
        self._leases.clear()
        for task in list(self._tasks):
            task.cancel()
        # The newest first: what is started last leans on the others, and would fill its log with complaints.
        pids = sorted(children_of(os.getpid()), reverse=True)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes.values():
            if process.handle and process.handle.returncode is None:
                await process.handle.wait()
        for node in self.processes:
            self._note(node, "removed")
        self.processes.clear()
        self.network.remove_all()
        self.faults.clear()
        return {"ended": pids}

    def world(self) -> dict[str, Any]:
        """What the kernel knows of this cell's nodes: pids below the agent, named network namespaces, links."""
        return {"processes": children_of(os.getpid()), **self.network.kernel_view()}


@web.middleware
async def guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Check the token and turn :class:`Problem` into problem+json."""
    expected = f"Bearer {os.environ['FT_AGENT_TOKEN']}"
    if not hmac.compare_digest(request.headers.get("Authorization", ""), expected):
        problem = Problem(401, "No or wrong token", "send 'Authorization: Bearer' with the token of this cell")
    else:
        try:
            return await handler(request)
        except Problem as raised:
            problem = raised
        except json.JSONDecodeError as error:
            problem = Problem(422, "Bad JSON", str(error))
    body = {"title": problem.title, "status": problem.status, "detail": problem.detail}
    return web.json_response(body, status=problem.status, content_type="application/problem+json")


def application(agent: NodeAgent) -> web.Application:
    """The HTTP application around ``agent``."""

    async def post_node(request: web.Request) -> web.Response:
        return web.json_response(agent.add_node(str((await request.json()).get("name", ""))), status=201)

    async def post_process(request: web.Request) -> web.Response:
        return web.json_response(agent.add_process(Spec.parse(await request.json())).view(), status=201)

    async def get_processes(_: web.Request) -> web.Response:
        return web.json_response([process.view() for process in agent.processes.values()])

    async def post_start(request: web.Request) -> web.Response:
        return web.json_response(agent.start_again(request.match_info["node"]).view())

    async def post_fault(request: web.Request) -> web.Response:
        return web.json_response((await agent.inject(await request.json())).view(), status=201)

    async def get_faults(_: web.Request) -> web.Response:
        return web.json_response([fault.view() for fault in agent.faults.values()])

    async def get_fault(request: web.Request) -> web.Response:
        fault = agent.faults.get(request.match_info["id"])
        if fault is None:
            raise Problem(404, "Unknown fault", f"no fault {request.match_info['id']!r}; GET /v1/faults lists them")
        return web.json_response(fault.view())

    async def post_recover(request: web.Request) -> web.Response:
        return web.json_response((await agent.recover(request.match_info["id"])).view())

    async def get_history(_: web.Request) -> web.Response:
        return web.json_response(agent.history)

    async def get_world(_: web.Request) -> web.Response:
        return web.json_response(agent.world())

    async def delete_deployment(_: web.Request) -> web.Response:
        return web.json_response(await agent.remove_deployment())

    app = web.Application(middlewares=[guard])
    app.add_routes(
        [
            web.post("/v1/nodes", post_node),
            web.post("/v1/processes", post_process),
            web.get("/v1/processes", get_processes),
            web.post("/v1/processes/{node}/start", post_start),
            web.post("/v1/faults", post_fault),
            web.get("/v1/faults", get_faults),
            web.get("/v1/faults/{id}", get_fault),
            web.post("/v1/faults/{id}/recover", post_recover),
            web.get("/v1/history", get_history),
            web.get("/v1/world", get_world),
            web.delete("/v1/deployment", delete_deployment),
        ]
    )
    return app


async def serve(listener: socket.socket, kind: type[NodeAgent] = NodeAgent) -> None:
    """Serve an agent of this ``kind`` on ``listener`` until SIGTERM."""
    agent = kind(Path(os.environ["FT_SCRATCH"]), os.environ["FT_CELL"] == "namespaces")
    runner = web.AppRunner(application(agent), access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    # Ctrl-C is for the runner, which then takes the deployment down.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    await stop.wait()
    await agent.remove_deployment()
    await runner.cleanup()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m agents.node_agent")
    parser.add_argument("--listen-fd", type=int, required=True)
    asyncio.run(serve(socket.socket(fileno=parser.parse_args().listen_fd)))


if __name__ == "__main__":
    main()
