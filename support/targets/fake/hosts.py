"""Hosts of a deployment in memory, the program on each, and the lives of that program."""

import asyncio
import itertools
import json
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from support.asking import Order, Response
from support.contract.deployment import Change, Life, Node
from support.targets.fake.network import Connection, FakeNetwork, respond

_pids = itertools.count(100)
BACKOFF_SECONDS = (0.0, 1.0, 2.0, 4.0, 8.0)


class FakeProgram:
    """One run of a host's program; everything that it does ends with it.

    Attributes:
        awake: set while it may run.
    """

    def __init__(self, host: "Host") -> None:
        self.host, self.network = host, host.network
        self.name = host.node.name
        self.listening = False
        self.gone = False
        self.leaving = False
        self.awake = asyncio.Event()
        self.awake.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def answering(self) -> bool:
        """Whether it runs."""
        return self.awake.is_set() and not self.gone

    @property
    def now(self) -> float:
        """On the clock."""
        return self.network.clock.now()

    def do(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Have something done beside everything else."""
        task = self.network.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.host.say(f"Traceback: {type(error).__name__}: {error}")
            self.host.trouble.append(f"{self.name}: {type(error).__name__}: {error}")

    async def rest(self, seconds: float) -> None:
        """Wait, and longer while it may not run."""
        await asyncio.sleep(seconds)
        if not self.awake.is_set():
            await self.awake.wait()

    def begin(self) -> None:
        """It has been started."""
        self.listening = True

    def end(self) -> None:
        """It is over, however that came about; nobody may be kept waiting for it."""
        self.gone, self.listening = True, False
        for task in list(self._tasks):
            task.cancel()

    def told(self) -> None:
        """SIGTERM."""
        self.host.over(-signal.SIGTERM)

    def call(self, order: Order) -> Response:
        """See :class:`support.targets.fake.network.Server`."""
        return respond(order, self.answer)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """See :func:`support.targets.fake.network.respond`."""
        return 404, {"title": "Not found", "detail": path}

    def accept(self, connection: Connection) -> None:
        """See :class:`support.targets.fake.network.Server`."""
        connection.lose()


class Host:
    """A node with its program.

    Args:
        make: the program of a new life.
        boot_seconds: until a new life serves.

    Attributes:
        policy: restart policy, as the kubelet has it.
        state: as :class:`support.contract.deployment.Life` has it.
        pace: share of its speed that its GPU has left.
        trouble: mistakes of this simulation, in words.
    """

    def __init__(
        self, node: Node, network: FakeNetwork, logs: Path, make: Callable[["Host"], FakeProgram], boot_seconds: float
    ) -> None:
        self.node, self.network, self.logs = node, network, logs
        self._make, self._boot_seconds = make, boot_seconds
        self.policy = "Never"
        self.program: FakeProgram | None = None
        self.pid = 0
        self.restarts = -1
        self.state = "ended"
        self.fences: set[str] = set()
        self.pace = 1.0
        self.changes: list[Change] = []
        self.trouble: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._quick = 0

    def say(self, line: str) -> None:
        """Into its log."""
        with (self.logs / f"{self.node.name}.log").open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def journal(self, **line: Any) -> None:
        """Into the journal that the ruler's workers keep."""
        with (self.logs / f"{self.node.name}.journal.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"at": self.network.clock.now(), **line}) + "\n")

    @property
    def life(self) -> Life:
        """That of now, or the last one."""
        return Life(self.node.name, self.pid, f"pid {self.pid}", self.state, max(0, self.restarts))

    def state_of(self, identity: object) -> str:
        """What has become of a life: ``gone``, ``stopped`` or ``alive``."""
        if identity != self.pid or self.program is None or self.program.gone:
            return "gone"
        return "alive" if self.program.awake.is_set() else "stopped"

    def _note(self, state: str, detail: str, exit_code: int | None = None) -> None:
        self.changes.append(Change(self.network.clock.now(), self.node.name, self.pid, state, detail, exit_code))

    def start(self) -> None:
        """A new life, unless there is one or it may not start."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.program is not None and not self.program.gone:
            return
        if self.fences:
            self.state = "fenced"
            self._note("fenced", ", ".join(sorted(self.fences)))
            return
        self.pid, self.restarts, self.state = next(_pids), self.restarts + 1, "running"
        self._note("starting", "")
        self._note("running", "")
        self.program = self._make(self)
        self.program.do(self._boot(self.program))
        self.network.loop.wake()

    async def _boot(self, program: FakeProgram) -> None:
        await program.rest(self._boot_seconds)
        program.begin()
        self.network.change()

    def over(self, code: int, held_back: bool = False) -> None:
        """Its life has ended with an exit status, negative for a signal; ``held_back``: a fault keeps the restart
        policy from doing anything.
        """
        if self.program is None or self.program.gone:
            return
        self.program.end()
        self.state = "ended"
        how = f"ended by signal {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        self._note("dead" if code < 0 else "stopped", how, code)
        self.network.change()
        wanted = self.policy == "Always" or (self.policy == "OnFailure" and code)
        if wanted and not held_back:
            self.again()

    def again(self) -> None:
        """What its restart policy does: at once, then later and later."""
        if self.fences:
            self.start()
            return
        self.state = "waiting"
        wait = BACKOFF_SECONDS[min(self._quick, len(BACKOFF_SECONDS) - 1)]
        self._quick += 1
        self._timer = self.network.loop.call_later(wait, self.start)
        self.network.loop.wake()

    def stop(self) -> None:
        """SIGSTOP."""
        if self.program is not None and not self.program.gone:
            self.program.awake.clear()
            self._note("hung", "stopped by a signal")
            self.network.change()

    def go_on(self) -> None:
        """SIGCONT."""
        if self.program is not None and not self.program.gone and not self.program.awake.is_set():
            self.program.awake.set()
            self._note("running", "goes on")
            self.network.change()

    def fence(self, reason: str) -> None:
        """It may not start from now on."""
        self.fences.add(reason)

    def unfence(self, reason: str) -> None:
        """It may start again, and does."""
        self.fences.discard(reason)
        if not self.fences and self.state == "fenced":
            self.start()
