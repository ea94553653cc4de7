"""Processes of nodes, as a small kubelet has them, and their faults.

In a cell with namespaces a process outlives the agent: the next agent adopts it by pid and start time. Without
namespaces it ends with the agent (PR_SET_PDEATHSIG), for nothing else would end it with the cell.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from agents.core.faults import Fault, Plan, Problem
from agents.core.kernel import children_of, die_with_parent, enter_network_namespace, signal_process, stat_of
from agents.node.network import Network

FAULT_TYPES = {
    "crash": "SIGKILL to {}; started again at the end",
    "terminate": "SIGTERM to {}; SIGKILL if it is still there at the end, then started again",
    "hang": "SIGSTOP to {}; SIGCONT at the end",
    "restart": "SIGKILL to {}, then started again at once",
}
SLOW_DISK = (
    "the disk of a process cannot be slowed: what the suite's processes write lies in memory (tmpfs), which the "
    "kernel's limits for block devices (blkio.throttle, io.max) do not reach, and such a limit would end with nobody"
)
RESTART_POLICIES = ("Never", "OnFailure", "Always")
# The kubelet's crash-loop back-off: the first restart at once, then 10 s, doubled up to 300 s, forgotten after 10
# minutes of running (kubernetes.io, "Pod Lifecycle", restartPolicy).
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, BACKOFF_RESET_SECONDS = 10.0, 300.0, 600.0
READINESS_PERIOD_SECONDS = 0.02
LONGEST_HISTORY = 10000
"""Changes of state that are kept."""
# Signals act at once; only a process in uninterruptible sleep takes longer.
SIGNAL_SECONDS = 5.0
# A boot takes up to 6 s of a busy machine; one that takes this long has failed.
READY_SECONDS = 60.0


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
        gpus: simulated GPUs of the node.
        progress: ``url`` of a Prometheus page and ``metric``, the counter on it that rises with the work done.
    """

    node: str
    argv: list[str]
    env: dict[str, str]
    log: str
    after: list[str] = field(default_factory=list)
    ready: str | None = None
    restart_policy: str = "Never"
    backoff_seconds: float = BACKOFF_SECONDS
    gpus: int = 0
    progress: dict[str, str] | None = None

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
        self.pid: int | None = None
        self.start_time: int | None = None
        self.started_at: float | None = None
        self.exit_code: int | None = None
        self.restarts = 0
        self.delay = 0.0
        self.detail = ""
        self.fences: list[str] = []
        self.ended = asyncio.Event()
        self.ready = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()
        self.wake = asyncio.Event()
        self.child: subprocess.Popen[bytes] | None = None

    def kernel_state(self) -> str:
        """``running``, ``stopped`` or ``gone``: the very process that we started, as the kernel has it."""
        stat = stat_of(self.pid) if self.pid is not None else None
        if not stat or stat[1] != self.start_time or stat[0] in "ZX":
            return "gone"
        return "stopped" if stat[0] in "Tt" else "running"

    def alive(self) -> bool:
        """Whether that process still exists and is not a zombie."""
        return self.kernel_state() != "gone"

    def view(self) -> dict[str, Any]:
        """JSON form. ``state``: waiting, fenced (may not start), running, exited, backoff, failed (could not be
        started; see ``detail``).
        """
        return {
            "node": self.spec.node,
            "state": self.state,
            "ready": self.ready.is_set(),
            "pid": self.pid,
            "start_time": self.start_time,
            "exit_code": self.exit_code,
            "restarts": self.restarts,
            "fences": self.fences,
            "log": self.spec.log,
            "detail": self.detail,
        }


class ProcessTable:
    """All processes of a cell's nodes.

    Args:
        network: of the nodes.
        scratch: folder that processes run in; ``processes.json`` there is for the agent's successor.
    """

    def __init__(self, network: Network, scratch: Path) -> None:
        self.network, self.scratch = network, scratch
        self.processes: dict[str, Process] = {}
        self.history: list[dict[str, Any]] = []
        self.before_start: list[Callable[[str], None]] = []
        self._record, self._changes = scratch / "processes.json", scratch / "history.jsonl"
        self._lines = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: set[str] = set()
        self._http: aiohttp.ClientSession | None = None

    # -- records

    def note(self, node: str, state: str, detail: str = "", **data: Any) -> None:
        """Add a change of state to the history and keep the table on disk in step, unless the disk is full: what is
        missing there the next agent sees from the kernel.
        """
        change = {"at": time.monotonic(), "node": node, "state": state, "detail": detail} | data
        self.history.append(change)
        del self.history[:-LONGEST_HISTORY]
        with contextlib.suppress(OSError):
            self._append(change)
            self._save()

    def _append(self, change: dict[str, Any]) -> None:
        if self._lines >= 2 * LONGEST_HISTORY:  # of a process that ends over and over
            draft = self._changes.with_suffix(".new")
            draft.write_text("".join(json.dumps(each) + "\n" for each in self.history))
            draft.replace(self._changes)
            self._lines = len(self.history)
            return
        with self._changes.open("a") as stream:
            stream.write(json.dumps(change) + "\n")
        self._lines += 1

    def _save(self) -> None:
        kept = ("state", "pid", "start_time", "started_at", "exit_code", "restarts", "delay", "detail", "fences")
        entries = [
            {"spec": asdict(process.spec)} | {name: getattr(process, name) for name in kept}
            for process in self.processes.values()
        ]
        draft = self._record.with_suffix(".new")
        draft.write_text(json.dumps({"processes": entries}))
        draft.replace(self._record)

    def adopt(self) -> None:
        """Take over the processes that an agent before this one has started."""
        if not self._record.exists():
            return
        content = json.loads(self._record.read_text())
        text = self._changes.read_text(errors="replace") if self._changes.exists() else ""
        # One that was cut short would spoil what is written behind it: written anew with the next change.
        self._lines = text.count("\n") if text.endswith("\n") else 2 * LONGEST_HISTORY
        for line in text.splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # cut short by the end of the agent before
                self.history.append(json.loads(line))
        del self.history[:-LONGEST_HISTORY]
        strays = self._leaders()
        for entry in content["processes"]:
            process = Process(Spec(**entry.pop("spec")))
            for name, value in entry.items():
                setattr(process, name, value)
            if process.fences:
                process.free.clear()
            self.processes[process.spec.node] = process
        for process in self.processes.values():
            found = strays.get(process.spec.node)
            if found and found != (process.pid, process.start_time):
                # Started in the last moment of the agent before, who had no time to write it down.
                process.pid, process.start_time = found
                process.state, process.started_at = "running", time.monotonic()
            self._spawn_task(self._run(process, adopted=True))
        self.note("", "agent restarted", f"{len(strays)} processes adopted")

    def _leaders(self) -> dict[str, tuple[int, int]]:
        found = {}
        for pid, node in marked(str(self.scratch)).items():
            with contextlib.suppress(ProcessLookupError):
                stat = stat_of(pid)
                if stat and stat[0] not in "ZX" and os.getsid(pid) == pid:
                    found[node] = (pid, stat[1])
        return found

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- starting and watching

    def get(self, node: str) -> Process:
        """The process of a node; 404 with the known names when there is none."""
        if node not in self.processes:
            known = ", ".join(sorted(self.processes)) or "none"
            raise Problem(404, "Unknown target", f"no process on a node {node!r}; known: {known}")
        return self.processes[node]

    def add(self, spec: Spec) -> Process:
        """Take a spec and start it in the background as soon as what it waits for is ready."""
        if spec.node not in self.network.nodes:
            raise Problem(404, "Unknown node", f"no node {spec.node!r}; make it with POST /v1/nodes first")
        if spec.node in self.processes:
            raise Problem(409, "Process exists", f"node {spec.node!r} has a process already")
        for other in spec.after:
            self.get(other)
        process = self.processes[spec.node] = Process(spec)
        try:
            self._save()
        except OSError as error:  # the next agent would not know of it
            del self.processes[spec.node]
            raise Problem(507, "No room on the disk", f"{self._record}: {error.strerror}") from None
        self._spawn_task(self._run(process))
        return process

    async def _run(self, process: Process, adopted: bool = False) -> None:
        if adopted and process.state in ("exited", "failed"):
            process.ended.set()
            return
        if not (adopted and process.state == "running"):
            await self._start_when_due(process)
        while process.state == "running":
            code = await self._watch(process)
            if not self._restarts(process, code):
                return
            if time.monotonic() - (process.started_at or 0) >= BACKOFF_RESET_SECONDS:
                process.delay = 0.0
            process.wake.clear()
            process.state = "backoff"
            self.note(process.spec.node, "backoff", f"restart in {process.delay:g} s")
            try:
                await asyncio.wait_for(process.wake.wait(), process.delay)
                process.delay = 0.0
            except TimeoutError:
                base = process.spec.backoff_seconds
                process.delay = min(max(base, 2 * process.delay), LONGEST_BACKOFF_SECONDS)
            process.restarts += 1
            await self._start_when_due(process)

    async def _start_when_due(self, process: Process) -> None:
        # Of a first start only: what is started again finds the others as they are, as a pod does.
        for other in process.spec.after if not process.restarts else ():
            await self.processes[other].ready.wait()
        for hook in self.before_start:
            hook(process.spec.node)
        if process.fences:
            process.state = "fenced"
            self.note(process.spec.node, "fenced", "; ".join(process.fences))
            await process.free.wait()
        self._start(process)

    def _restarts(self, process: Process, code: int | None) -> bool:
        if process.spec.node in self._held or process.spec.node not in self.processes:
            return False
        return process.spec.restart_policy == "Always" or (process.spec.restart_policy == "OnFailure" and code != 0)

    def _start(self, process: Process) -> None:
        spec = process.spec
        fd = self.network.files.get(spec.node)

        def prepare() -> None:
            if fd is None:
                die_with_parent()
            else:
                enter_network_namespace(fd)

        process.ended.clear()
        process.ready.clear()
        process.exit_code = None
        try:
            with open(spec.log, "ab") as log:
                process.child = subprocess.Popen(
                    spec.argv,
                    env=spec.env | {"FT_NODE": f"{self.scratch}:{spec.node}"},
                    cwd=self.scratch,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=prepare,  # noqa: PLW1509 - only kernel calls
                )
        except OSError as error:
            process.state, process.detail = "failed", f"cannot start {spec.argv[0]}: {error.strerror or error}"
            self.note(spec.node, "failed", process.detail)
            process.ended.set()
            return
        process.pid = process.child.pid
        stat = stat_of(process.pid)
        process.start_time = stat[1] if stat else None
        process.started_at = time.monotonic()
        process.state = "running"
        self.note(spec.node, "starting", f"pid {process.pid}", pid=process.pid)

    async def _await_ready(self, process: Process, pid: int | None) -> None:
        if process.spec.ready:
            if self._http is None:
                self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1))
            while process.pid == pid and not process.ended.is_set():
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with self._http.get(process.spec.ready) as answer:
                        if answer.status == 200:
                            break
                await asyncio.sleep(READINESS_PERIOD_SECONDS)
        if process.pid == pid and not process.ended.is_set():
            process.ready.set()
            self.note(process.spec.node, "running", f"pid {pid} is ready", pid=pid)

    async def _watch(self, process: Process) -> int | None:
        """Wait for its end; None for the exit code of an adopted one, which only its parent is told."""
        self._spawn_task(self._await_ready(process, process.pid))
        code = await self._ended(process)
        process.exit_code, process.state = code, "exited"
        process.ready.clear()
        if code is None:
            how = "ended"
        else:
            how = f"ended by signal {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        self.note(process.spec.node, "stopped" if code is not None and code >= 0 else "dead", how, exit_code=code)
        process.ended.set()
        return code

    @staticmethod
    async def _ended(process: Process) -> int | None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(process.pid or 0)
            try:
                if process.alive():  # of an adopted one the pid may be somebody else's by now
                    loop.add_reader(fd, done.set)
                    await done.wait()
            finally:
                loop.remove_reader(fd)
                os.close(fd)
        if not process.child or process.child.pid != process.pid:
            return None
        # In a thread, which has no right of way: the kernel may spin in wait until the last of the dying process has
        # run, and on a processor that a real-time thread spins on it gets its turn after 0.95 s only.
        return await asyncio.to_thread(process.child.wait)

    def start_again(self, node: str) -> Process:
        """Start a stopped process with the spec that it had; 409 while it runs."""
        process = self.get(node)
        if process.state in ("running", "waiting", "backoff", "fenced"):
            raise Problem(409, "Already running", f"the process on {node!r} is {process.state}")
        process.restarts += 1
        process.state = "waiting"
        self._spawn_task(self._run(process))
        return process

    # -- what drivers of faults need

    def running(self, node: str) -> Process:
        """The process of a node that is there; 409 when it is not."""
        process = self.get(node)
        if not process.alive():
            raise Problem(409, "Not running", f"the process on {node!r} is {process.state}; nothing to break")
        return process

    def signal(self, node: str, identity: tuple[int, int], number: signal.Signals) -> bool:
        """Signal the very process ``identity`` (pid, start time); False when it is gone."""
        process = self.processes.get(node)
        if not process or (process.pid, process.start_time) != tuple(identity):
            return False
        return signal_process(*identity, number)

    async def await_kernel_state(self, node: str, wanted: str) -> None:
        """Wait until the kernel shows ``wanted``, for :data:`SIGNAL_SECONDS` at most."""
        deadline = time.monotonic() + SIGNAL_SECONDS
        while self.get(node).kernel_state() != wanted:
            if time.monotonic() > deadline:
                raise Problem(500, "No effect", f"the process on {node!r} is {self.get(node).kernel_state()}")
            await asyncio.sleep(0.001)

    async def end(self, node: str, held: bool = False) -> None:
        """SIGKILL, and wait until it is gone; ``held``: without its restart policy."""
        process = self.get(node)
        if held:
            self._held.add(node)
        try:
            if process.pid is not None and signal_process(process.pid, process.start_time, signal.SIGKILL):
                await asyncio.wait_for(process.ended.wait(), SIGNAL_SECONDS)
            await asyncio.sleep(0)  # lets _run see that the node is held
        finally:
            self._held.discard(node)

    async def start_if_stopped(self, node: str) -> None:
        """Start it again unless it runs, at once even if it waits out a back-off, and wait until it is ready.

        The back-off is for programs that crash by themselves; what a fault has ended is whole.

        Raises:
            Problem: 500, it does not start, or is not ready within :data:`READY_SECONDS`.
        """
        process = self.get(node)
        if process.state == "running" and not process.alive():
            # it has just died, and the one that watches it has not been told yet
            await asyncio.wait_for(process.ended.wait(), SIGNAL_SECONDS)
        if process.state in ("exited", "failed"):
            self.start_again(node)
        process.wake.set()
        deadline = time.monotonic() + READY_SECONDS
        while not process.ready.is_set():
            if process.fences:  # it may not start: another fault keeps it from that, or its own will be found to
                return
            if process.state in ("exited", "failed"):
                why = process.detail or f"it ended with status {process.exit_code}"
                raise Problem(500, "Cannot start", f"{node!r}: {why}")
            if time.monotonic() > deadline:
                raise Problem(500, "Not ready", f"{node!r} is {process.state} {READY_SECONDS:g} s after its start")
            await asyncio.sleep(READINESS_PERIOD_SECONDS)

    def fence(self, node: str, reason: str) -> None:
        """Keep the node's process from being started, for ``reason``; one that runs is left alone."""
        process = self.get(node)
        if reason not in process.fences:
            process.fences.append(reason)
            process.free.clear()
            with contextlib.suppress(OSError):
                self._save()

    def unfence(self, node: str, reason: str) -> None:
        """Take that reason back; with the last one the process may start."""
        process = self.processes.get(node)
        if process and reason in process.fences:
            process.fences.remove(reason)
            if not process.fences:
                process.free.set()
            with contextlib.suppress(OSError):
                self._save()

    # -- the end

    async def remove_all(self) -> list[int]:
        """End every process; returns the pids."""
        for task in list(self._tasks):
            task.cancel()
        ours = {
            (process.pid, process.start_time)
            for process in self.processes.values()
            if process.alive() and process.pid and process.start_time
        }
        # The newest first: what is started last leans on the others, and would fill its log with complaints.
        ended = sorted(ours.union(*(children_of(pid) for pid, _ in ours)), reverse=True)
        for identity in ended:
            signal_process(*identity, signal.SIGKILL)
        for node, process in self.processes.items():
            if process.child:
                await asyncio.to_thread(process.child.wait)
            else:
                await self.await_kernel_state(node, "gone")
        # What was forked between the look and the signal.
        deadline = time.monotonic() + SIGNAL_SECONDS
        while (left := marked(str(self.scratch))) and time.monotonic() < deadline:
            for pid in left:
                self._kill_marked(pid)
            await asyncio.sleep(0.005)
        for node in self.processes:
            self.note(node, "removed")
        self.processes.clear()
        with contextlib.suppress(OSError):
            self._save()
        return [pid for pid, _ in ended]

    def _kill_marked(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            try:
                if _mark_of(pid, str(self.scratch)) is not None:  # still, now that whoever has the pid is held
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


def marked(mark: str) -> dict[int, str]:
    """Pid -> node of every process that carries ``FT_NODE=MARK:NODE`` in its environment, children included."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                node = _mark_of(int(entry.name), mark)
                if node is not None:
                    found[int(entry.name)] = node
    return found


def _mark_of(pid: int, mark: str) -> str | None:
    wanted = os.fsencode(f"FT_NODE={mark}:")
    for each in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if each.startswith(wanted):
            return os.fsdecode(each.removeprefix(wanted))
    return None


class ProcessDriver:
    """Faults of kind ``process``."""

    def __init__(self, table: ProcessTable) -> None:
        self.table = table

    def plan(self, body: dict[str, Any]) -> Plan:
        """See :class:`agents.core.faults.Driver`."""
        kind, node = body.get("type"), str(body.get("target", ""))
        if kind == "slow_disk":
            raise Problem(501, "Not here", SLOW_DISK)
        if kind not in FAULT_TYPES:
            raise Problem(422, "Unknown fault type", f"type {kind!r}; allowed: {', '.join(FAULT_TYPES)}")
        process = self.table.running(node)
        what = f"pid {process.pid} on {node}"
        undo = {"node": node, "identity": [process.pid, process.start_time]}
        touches = [FAULT_TYPES[kind].format(what)]
        keys = [conflict(process), *([stopping(node)] if kind == "hang" else [])]
        return Plan("process", kind, [node], touches, undo, conflicts=keys, momentary=kind == "restart")

    async def snapshot(self, fault: Fault) -> dict[str, Any]:
        """See :class:`agents.core.faults.Driver`."""
        return {"process": standing(self.table.get(fault.undo["node"]), fault.undo["identity"])}

    async def apply(self, fault: Fault) -> None:
        """See :class:`agents.core.faults.Driver`."""
        node, identity = fault.undo["node"], tuple(fault.undo["identity"])
        fault.evidence |= {"pid": identity[0], "start_time": identity[1], "sent_at": time.monotonic()}
        if fault.type in ("crash", "restart"):
            await self.table.end(node, held=fault.type == "restart")
            process = self.table.get(node)
            fault.evidence |= {"signal": "SIGKILL", "gone_at": time.monotonic(), "exit_code": process.exit_code}
            if fault.type == "restart":
                await self.table.start_if_stopped(node)
                fault.evidence["new_pid"] = process.pid
            return
        number = signal.SIGTERM if fault.type == "terminate" else signal.SIGSTOP
        if not self.table.signal(node, identity, number):
            raise Problem(409, "Not running", f"the process on {node!r} is gone")
        fault.evidence["signal"] = number.name
        if fault.type == "hang":
            await self.table.await_kernel_state(node, "stopped")
            self.table.note(node, "hung", "SIGSTOP")

    async def undo(self, fault: Fault) -> None:
        """See :class:`agents.core.faults.Driver`."""
        node, identity = fault.undo["node"], tuple(fault.undo["identity"])
        if fault.type == "hang" and self.table.signal(node, identity, signal.SIGCONT):
            await self.table.await_kernel_state(node, "running")
            self.table.note(node, "running", "SIGCONT")
        if fault.type == "terminate" and self.table.signal(node, identity, signal.SIGKILL):
            # as the kubelet does when the grace period is over
            await asyncio.wait_for(self.table.get(node).ended.wait(), SIGNAL_SECONDS)
        await self.table.start_if_stopped(node)

    def differences(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """See :class:`agents.core.faults.Driver`."""
        was, now = before.get("process"), after.get("process")
        return [] if was == now else [f"the process was {was} and is {now}"]

    def capabilities(self) -> dict[str, dict[str, Any]]:
        """See :class:`agents.core.faults.Driver`."""
        can = {
            f"process.{kind}": {"available": True, "detail": text.format("the process")}
            for kind, text in FAULT_TYPES.items()
        }
        return can | {"process.slow_disk": {"available": False, "detail": SLOW_DISK}}


def conflict(process: Process) -> str:
    """Key of a fault that acts on this very process: the one that is started after it is another."""
    return f"process {process.spec.node} (pid {process.pid})"


def stopping(node: str) -> str:
    """Key of a fault that stops what runs on a node: two of them would continue each other's process."""
    return f"stopping of {node}"


def standing(process: Process, identity: Sequence[int]) -> str:
    """``running``, ``stopped`` or ``gone``: a node whose process ``identity`` (pid, start time) a fault was made for.

    Whatever has been started since is ``running``: what stops that one is another fault.
    """
    state = process.kernel_state()
    another = (process.pid, process.start_time) != tuple(identity)
    return "running" if another and state == "stopped" else state
