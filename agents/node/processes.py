"""All processes of a cell's nodes, as a small kubelet has them: started, watched, started again, adopted and ended.

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
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp

from agents.core.faults import Problem
from agents.core.kernel import die_with_parent, enter_network_namespace, family_of, is_stopped, signal_process, stat_of
from agents.node.marks import kill_marked, mark, marked
from agents.node.network import Network
from agents.node.process import BACKOFF_RESET_SECONDS, LONGEST_BACKOFF_SECONDS, Process, Spec

# The longer a process takes to be ready the less often it is asked; that it is will be seen by a share of that late.
READINESS_PERIOD_SECONDS, LONGEST_READINESS_PERIOD_SECONDS, READINESS_SHARE = 0.02, 0.25, 0.04
LONGEST_HISTORY = 10000
"""Changes of state that are kept."""
# Signals act at once; only a process in uninterruptible sleep takes longer.
SIGNAL_SECONDS = 5.0
# A boot takes up to 6 s of a busy machine; one that takes this long has failed.
READY_SECONDS = 60.0


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
        # One that was cut short would spoil what is written behind it: rewritten with the next change.
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
            found = strays.get(process.spec.node, [])
            if found and (process.pid, process.start_time) not in found:
                # Started in the last moment of the agent before, who had no time to write it down. Of several it is
                # the first: what it has started may lead a session, too.
                process.pid, process.start_time = min(found, key=lambda each: (each[1], each[0]))
                process.state, process.started_at = "running", time.monotonic()
            self._spawn_task(self._run(process, adopted=True))
        self.note("", "agent restarted", f"processes adopted: {len(strays)}")

    def _leaders(self) -> dict[str, list[tuple[int, int]]]:
        found: dict[str, list[tuple[int, int]]] = {}
        for pid, node in marked(str(self.scratch)).items():
            with contextlib.suppress(ProcessLookupError):
                stat = stat_of(pid)
                if stat and stat[0] not in "ZX" and os.getsid(pid) == pid:
                    found.setdefault(node, []).append((pid, stat[1]))
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
            raise Problem(404, "Unknown target", f"no process on node {node!r}; known: {known}")
        return self.processes[node]

    def add(self, spec: Spec) -> Process:
        """Take a spec and start it in the background as soon as what it waits for is ready."""
        if spec.node not in self.network.nodes:
            raise Problem(404, "Unknown node", f"no node {spec.node!r}; make it with POST /v1/nodes first")
        if spec.node in self.processes:
            raise Problem(409, "Process exists", f"node {spec.node!r} already has a process")
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
                    env=spec.env | mark(str(self.scratch), spec.node, process.restarts),
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
        self.note(spec.node, "starting", f"pid {process.pid}", pid=process.pid, start_time=process.start_time)

    async def _await_ready(self, process: Process, pid: int | None) -> None:
        began = time.monotonic()
        if process.spec.ready:
            if self._http is None:
                self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1))
            while process.pid == pid and not process.ended.is_set():
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with self._http.get(process.spec.ready) as answer:
                        if answer.status == 200:
                            break
                share = READINESS_SHARE * (time.monotonic() - began)
                await asyncio.sleep(max(READINESS_PERIOD_SECONDS, min(share, LONGEST_READINESS_PERIOD_SECONDS)))
        if process.pid == pid and not process.ended.is_set():
            process.ready.set()
            self.note(process.spec.node, "running", f"pid {pid} is ready", pid=pid)

    async def _watch(self, process: Process) -> int | None:
        """Wait for its end; None for the exit code of an adopted one, which only its parent is told."""
        self._spawn_task(self._await_ready(process, process.pid))
        code = await self._ended(process)
        # As a container ends with its first process. Whoever waits for the end waits for all of it.
        await self._end_rest(process)
        process.exit_code, process.state = code, "exited"
        process.ready.clear()
        if code is None:
            how = "ended"
        else:
            how = f"ended by signal {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        self.note(process.spec.node, "stopped" if code is not None and code >= 0 else "dead", how, exit_code=code)
        process.ended.set()
        return code

    async def _end_rest(self, process: Process) -> None:
        """SIGKILL to what a process that has ended has left running; a child that goes on would keep its port."""
        ended, deadline = set[int](), time.monotonic() + SIGNAL_SECONDS
        while (rest := self._family(process)) and time.monotonic() < deadline:
            for pid, start_time, _ in rest:
                if signal_process(pid, start_time, signal.SIGKILL):
                    ended.add(pid)
            await asyncio.sleep(0.001)
        if ended:
            self.note(process.spec.node, "swept", f"ended its leftovers: pids {', '.join(map(str, sorted(ended)))}")

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

    async def _bring(self, node: str, identity: tuple[int, int], number: signal.Signals, stopped: bool) -> bool:
        deadline = time.monotonic() + SIGNAL_SECONDS
        while members := self.family(node, identity):  # again each time: one of them may just have made another
            others = [each for each in members if is_stopped(each[0]) != stopped]
            if not others:
                return True
            if time.monotonic() > deadline:
                pids = ", ".join(str(pid) for pid, _ in others)
                raise Problem(500, "No effect", f"pids {pids} on {node!r} are {'not ' if stopped else ''}stopped")
            for each in others:
                signal_process(*each, number)
            await asyncio.sleep(0.001)
        return False

    def signal(self, node: str, identity: tuple[int, int], number: signal.Signals) -> bool:
        """Signal the very process ``identity`` (pid, start time); False when it is gone."""
        process = self.processes.get(node)
        if not process or (process.pid, process.start_time) != tuple(identity):
            return False
        return signal_process(*identity, number)

    def _family(self, process: Process) -> list[tuple[int, int, str]]:
        """Pid, start time and state letter of a node's process and of all that it has started, as far as they run."""
        strays = [pid for pid, node in marked(str(self.scratch)).items() if node == process.spec.node]
        return family_of(process.pid or 0, process.start_time, strays)

    def family(self, node: str, identity: tuple[int, int]) -> list[tuple[int, int]]:
        """Pid and start time of the very process ``identity`` and of all that it has started; none when it is gone."""
        process = self.processes.get(node)
        if not process or (process.pid, process.start_time) != tuple(identity) or not process.alive():
            return []
        return [(pid, start_time) for pid, start_time, _ in self._family(process)]

    async def stop(self, node: str, identity: tuple[int, int]) -> bool:
        """SIGSTOP to that very process and all that it has started, until the kernel shows all of them stopped; False
        when it is gone.
        """
        return await self._bring(node, identity, signal.SIGSTOP, stopped=True)

    async def go_on(self, node: str, identity: tuple[int, int]) -> bool:
        """The same with SIGCONT, until none of them is stopped."""
        return await self._bring(node, identity, signal.SIGCONT, stopped=False)

    async def await_kernel_state(self, node: str, wanted: str) -> None:
        """Wait until the kernel shows ``wanted``, for :data:`SIGNAL_SECONDS` at most."""
        deadline = time.monotonic() + SIGNAL_SECONDS
        while self.get(node).kernel_state() != wanted:
            if time.monotonic() > deadline:
                raise Problem(500, "No effect", f"the process on {node!r} is {self.get(node).kernel_state()}")
            await asyncio.sleep(0.001)

    async def end(self, node: str, held: bool = False) -> None:
        """SIGKILL to it and all that it has started, and wait until they are gone; ``held``: it stays so for now."""
        process = self.get(node)
        if held:
            self._held.add(node)
        try:
            members = self.family(node, (process.pid or 0, process.start_time or 0))
            for each in members:
                signal_process(*each, signal.SIGKILL)
            if members:
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
        # The newest first: what is started last leans on the others, and would fill its log with complaints.
        members = {each[:2] for process in self.processes.values() for each in self._family(process)}
        ended = sorted(members, reverse=True)
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
                kill_marked(pid, str(self.scratch))
            await asyncio.sleep(0.005)
        for node in self.processes:
            self.note(node, "removed")
        self.processes.clear()
        with contextlib.suppress(OSError):
            self._save()
        return [pid for pid, _ in ended]
