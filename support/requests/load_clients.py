"""The clients of a load: those of one process, and who runs them.

They run in processes of their own, so that neither the caller's work nor its death bends their clock; where
no other process has that clock they run in this one.
"""

import asyncio
import contextlib
import gc
import json
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import IO, Any, Protocol

from support import clock
from support.clock import now
from support.requests.client import Pending, start_request
from support.requests.ledger import Ledger, LedgerEntry, pack
from support.requests.load_log import read_load
from support.requests.outcomes import outcome
from support.requests.plan import ENDPOINTS, LoadPlan, Planned
from support.requests.reader import shared_reader
from support.requests.second_opinion import shape

ROOT = Path(__file__).resolve().parent.parent.parent
TICK_SECONDS = 0.05


class Crew(Protocol):
    """Some of the clients of a load, wherever they run.

    Attributes:
        pids: the processes that are theirs alone.
    """

    pids: list[int]

    def lines(self) -> Iterator[str]:
        """``ready``, then how far they are; ends with them."""

    def begin(self, at: float) -> None:
        """Have them send their first requests at a time."""

    def stop(self) -> None:
        """Have them begin no further request."""

    def kill(self) -> None:
        """End them at once."""

    @property
    def exit_code(self) -> int | None:
        """How they have ended; None while they go on."""

    def close(self) -> None:
        """Let go of what was held for them, once they have ended."""


def crew(folder: Path, index: int) -> Crew:
    """The clients of the load in ``folder`` that have this number, about to begin."""
    return OwnProcess(folder, index) if clock.of_the_machine() else ThisProcess(folder, index)


class OwnProcess:
    """Clients in a process of their own; implements :class:`Crew`."""

    def __init__(self, folder: Path, index: int) -> None:
        with (folder / f"client-{index}.txt").open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.requests.load_clients", str(folder.resolve()), str(index)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                process_group=0,
            )
        self.pids = [self._process.pid]
        # Another thread waits for it: a pid could be another's between our look and the signal.
        self._handle: int | None = os.pidfd_open(self._process.pid)
        self._closing = threading.Lock()

    def lines(self) -> Iterator[str]:
        """See :class:`Crew`."""
        assert self._process.stdout
        yield from self._process.stdout
        self._process.wait()

    def begin(self, at: float) -> None:
        """See :class:`Crew`."""
        self._tell(f"go {at}\n")

    def stop(self) -> None:
        """See :class:`Crew`."""
        self._tell("stop\n")

    def _tell(self, words: str) -> None:
        assert self._process.stdin
        # One that has ended is told of by its exit status and its missing end.
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(words)
            self._process.stdin.flush()

    def kill(self) -> None:
        """See :class:`Crew`."""
        with self._closing, contextlib.suppress(ProcessLookupError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    @property
    def exit_code(self) -> int | None:
        """See :class:`Crew`."""
        return self._process.poll()

    def close(self) -> None:
        """See :class:`Crew`."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        with self._closing:
            if self._handle is not None:
                os.close(self._handle)
            self._handle = None


class ThisProcess:
    """Clients in this process, on the reader's loop; implements :class:`Crew`."""

    def __init__(self, folder: Path, index: int) -> None:
        self.pids = list[int]()
        self._folder, self._index = folder, index
        self._changed = clock.condition()
        self._lines = deque(["ready"])
        self._clients: _Clients | None = None
        self._task: asyncio.Task[None] | None = None
        self._over = False

    def lines(self) -> Iterator[str]:
        """See :class:`Crew`."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._over)
                if not self._lines:
                    return
                line = self._lines.popleft()
            yield line

    def begin(self, at: float) -> None:
        """See :class:`Crew`."""
        shared_reader().call(self._begin, at)

    def _begin(self, at: float) -> None:
        self._clients = _Clients(read_load(self._folder).plan, self._folder, self._index, at, self._say)
        self._task = asyncio.get_running_loop().create_task(self._clients.run())
        self._task.add_done_callback(self._end)

    def _say(self, line: str) -> None:
        with self._changed:
            self._lines.append(line)
            self._changed.notify_all()

    def _end(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()):
            text = "".join(traceback.format_exception(error))
            (self._folder / f"client-{self._index}.txt").write_text(text, encoding="utf-8")
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def stop(self) -> None:
        """See :class:`Crew`."""
        if self._clients is not None:
            shared_reader().call(self._clients.stopping.set)

    def kill(self) -> None:
        """See :class:`Crew`."""
        if self._task is None:
            self._over = True
        else:
            shared_reader().call(self._kill)

    def _kill(self) -> None:
        assert self._clients
        assert self._task
        self._task.cancel()
        self._clients.give_up()

    @property
    def exit_code(self) -> int | None:
        """See :class:`Crew`."""
        if self._over and self._task is not None:
            return 1 if self._task.cancelled() or self._task.exception() else 0
        return 1 if self._over else None

    def close(self) -> None:
        """See :class:`Crew`."""


class _Clients:
    """The clients of one process; everything runs on the reader's thread."""

    def __init__(
        self, plan: LoadPlan, folder: Path, process: int, began_at: float, say: Callable[[str], object]
    ) -> None:
        self.plan, self.process, self.began_at, self._say = plan, process, began_at, say
        self.sent = self.ended = self.tokens = 0
        self.stopping = asyncio.Event()
        self._folder = folder
        self._open: set[Pending] = set()
        self._shapes: set[str] = set()
        self._results: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_results, args=(folder / f"requests-{process}.jsonl",))
        self._writer.start()
        self._planned: IO[str] = (folder / f"planned-{process}.jsonl").open("a", encoding="utf-8")

    async def run(self) -> None:
        """Send everything; back when the last answer has ended."""
        ticker = asyncio.create_task(self._tick())
        try:
            await (self._closed_loop() if self.plan.arrival == "closed" else self._open_loop())
        finally:
            ticker.cancel()
            self._results.put(None)
            self._writer.join()
        self._report()
        self._planned.close()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        end = {
            "ended_at": now(),
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_rss_mib": usage.ru_maxrss / 1024,
        }
        (self._folder / f"process-{self.process}.json").write_text(json.dumps(end) + "\n", encoding="utf-8")

    async def _tick(self) -> None:
        while True:
            self._report()
            await asyncio.sleep(TICK_SECONDS)

    def _write_results(self, file: Path) -> None:
        """On a thread of its own: a disk that is slow to take a line must not make the clients late."""
        with file.open("w", encoding="utf-8", buffering=1) as stream:
            while (line := self._results.get()) is not None:
                stream.write(line)

    def _report(self) -> None:
        tokens = self.tokens + sum(pending.token_count for pending in self._open)
        self._say(f"{self.sent} {self.ended} {tokens}")

    def give_up(self) -> None:
        """End all requests that are in flight; nothing of them is written down."""
        for pending in list(self._open):
            pending.cancel()
        self._results.put(None)
        self._planned.close()

    async def _closed_loop(self) -> None:
        mine = range(self.process, self.plan.clients, self.plan.processes)
        await asyncio.gather(*(self._client(each) for each in mine))

    async def _client(self, number: int) -> None:
        plan = self.plan
        intended = self.began_at + number * plan.stagger_seconds
        await self._until(intended)
        for turn in count():
            if plan.requests_per_client is not None:
                if turn == plan.requests_per_client:
                    return
                planned = plan.request(number, turn)
            else:
                if self.stopping.is_set() or intended >= self.began_at + (plan.duration_seconds or 0.0):
                    return
                planned = plan.request(number, turn)
                self._planned.write(json.dumps(asdict(planned)) + "\n")
                self._planned.flush()
            if not await self._send(planned, intended):
                if plan.gives_up:
                    return
                await self._until(now() + plan.retry_seconds)
            intended = now()

    async def _open_loop(self) -> None:
        tasks = set()
        for planned in self.plan.requests():
            if planned.process != self.process:
                continue
            intended = self.began_at + (planned.offset or 0.0)
            await self._until(intended)
            task = asyncio.create_task(self._send(planned, intended))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _until(self, at: float) -> None:
        """Wait for a time, or for the order to stop."""
        if not self.stopping.is_set() and (left := at - now()) > 0:
            stop = asyncio.create_task(self.stopping.wait())
            await asyncio.wait({stop}, timeout=left)
            stop.cancel()

    async def _send(self, planned: Planned, intended: float) -> bool:
        """Send a request, again if it may be; returns whether it was answered, or given up as planned."""
        if self.stopping.is_set():
            self._write({"number": planned.number, "attempt": 0, "last": True, "withdrawn": True})
            return True
        self.sent += 1
        for attempt in range(self.plan.retries + 1):
            pending = await self._attempt(planned, intended)
            entry = pending.entry
            answered = outcome(entry).kind in ("complete", "cancelled")
            last = answered or attempt == self.plan.retries
            self.tokens += pending.token_count
            self._keep_one_of_each_shape(entry)
            line = {"number": planned.number, "attempt": attempt, "last": last, "withdrawn": False}
            self._write(line | {"entry": pack(entry)})
            if last:
                break
            await asyncio.sleep(self.plan.retry_seconds)
            intended = now()
        self.ended += 1
        return answered

    async def _attempt(self, planned: Planned, intended: float) -> Pending:
        plan = self.plan
        words = " ".join(["word"] * planned.prompt_words)
        prompt: Any = words if ENDPOINTS[plan.endpoint] == "completions" else [{"role": "user", "content": words}]
        pending = start_request(
            plan.base_url,
            plan.model,
            prompt,
            planned.max_tokens,
            stream=plan.stream,
            timeout=plan.deadline_seconds,
            ledger=Ledger(first_number=planned.number),
            intended_at=intended,
            exact_tokens=plan.exact_tokens,
        )
        over = asyncio.Event()
        pending.when_finished(over.set)
        if planned.cancel_after is not None and plan.stream:
            pending.when_tokens(planned.cancel_after, pending.cancel)
        self._open.add(pending)
        if planned.cancel_after is not None and not plan.stream:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), plan.cancel_seconds)
            pending.cancel()
        await over.wait()
        self._open.discard(pending)
        return pending

    def _keep_one_of_each_shape(self, entry: LedgerEntry) -> None:
        """The second judge is asked about one of each, and the bytes are ten times as long as all else that is kept."""
        kind = shape(entry)
        if kind in self._shapes:
            entry.received = b""
        self._shapes.add(kind)

    def _write(self, line: dict[str, Any]) -> None:
        self._results.put(json.dumps(line) + "\n")


def _orders(clients: _Clients, loop: asyncio.AbstractEventLoop, orders: IO[str]) -> None:
    for line in orders:
        if line.strip() == "stop":
            loop.call_soon_threadsafe(clients.stopping.set)
    os._exit(1)  # the process that started the load is gone, however that came about


def main() -> None:
    """``python -m support.requests.load_clients FOLDER PROCESS``: the clients of one process of a load; started by
    :class:`OwnProcess`.
    """
    folder, process = Path(sys.argv[1]), int(sys.argv[2])
    plan = read_load(folder).plan
    os.write(1, b"ready\n")
    word, _, began_at = sys.stdin.readline().partition(" ")
    if word != "go":
        raise SystemExit("the process that started the load is gone")
    reader = shared_reader()
    # Going through the thousands of chunks of all open answers, the collector stopped the clients for half a second at
    # a time. It has nothing to find: an exchange that is over holds no circle of references.
    gc.freeze()
    gc.disable()

    async def run() -> None:
        clients = _Clients(plan, folder, process, float(began_at), lambda line: os.write(1, f"{line}\n".encode()))
        threading.Thread(target=_orders, args=(clients, reader.loop, sys.stdin), daemon=True).start()
        await clients.run()

    asyncio.run_coroutine_threadsafe(run(), reader.loop).result()
    sys.stdout.flush()
    os._exit(0)  # the thread that listens for orders holds standard input, which an orderly exit would wait for


if __name__ == "__main__":
    main()
