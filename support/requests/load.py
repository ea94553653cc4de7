"""Load on a deployment: many clients, each request planned first, written down when it ends, on one honest clock.

::

    from support.requests.load import LoadPlan, client, run_load

    client(base_url, num_clients=10, requests_per_client=20, model=model, max_tokens=100, log_dir="logs")
    run_load(LoadPlan(base_url=base_url, model=model, arrival="poisson", rate=20, duration_seconds=30), "logs/poisson")

The clients run in processes of their own, so that neither the caller's work nor its death bends their clock.
Latency counts from the time at which a request was due, not from the time at which it could be sent.
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
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any

from support.asking import NoAnswer, ask
from support.clock import now
from support.requests.client import Pending, start_request
from support.requests.ledger import Ledger, LedgerEntry, pack
from support.requests.load_log import END, PLAN, LoadLog, create, read_load
from support.requests.outcomes import outcome
from support.requests.plan import ENDPOINTS, Load, LoadPlan, Planned
from support.requests.reader import shared_reader
from support.requests.second_opinion import shape

MODELS_SECONDS = 10.0
ROOT = Path(__file__).resolve().parent.parent.parent
# Import and a first look around take a client process half a second on an idle machine.
READY_SECONDS = 60.0
TICK_SECONDS = 0.05
# From "go" to the first request: all processes have heard it by then.
HEAD_START_SECONDS = 0.1


@dataclass(frozen=True)
class Progress:
    """How far a load is, at most some :data:`TICK_SECONDS` ago.

    Attributes:
        sent, ended: requests; ``tokens``: tokens received.
    """

    sent: int = 0
    ended: int = 0
    tokens: int = 0


def client(
    base_url: str,
    num_clients: int,
    requests_per_client: int,
    model: str,
    max_tokens: int,
    log_dir: str | Path,
    endpoint: str = "completions",
) -> LoadLog:
    """Have ``num_clients`` clients send ``requests_per_client`` streamed requests each, one after the other.

    Args:
        base_url: ``http://HOST:PORT`` of the frontend.
        log_dir: a new or empty folder; gets a JSON line per request while the load runs.
        endpoint: ``completions`` or ``chat/completions``.

    Returns:
        What :func:`support.requests.load_log.read_load` makes of ``log_dir``.

    Raises:
        ValueError: an argument that cannot be; nothing was started.
    """
    load = Load(num_clients, requests_per_client, endpoint=endpoint, max_tokens=max_tokens)
    return run_load(LoadPlan.of(load, base_url, model), log_dir)


def run_load(plan: LoadPlan, log_dir: str | Path) -> LoadLog:
    """Run a load to its end.

    Raises:
        ValueError: a plan that cannot be; nothing was started.
    """
    return start_load(plan, log_dir).join()


def start_load(plan: LoadPlan, log_dir: str | Path) -> "LoadRun":
    """Start a load and come back once its clients begin.

    Raises:
        ValueError: a plan that cannot be, a model that the frontend does not serve, or a folder that holds another run.
        RuntimeError: a client process does not start.
    """
    plan.check()
    served = _models(plan.base_url)
    if plan.model not in served:
        raise ValueError(f"unknown model {plan.model!r}; {plan.base_url} serves {', '.join(served) or 'none'}")
    folder = Path(log_dir)
    create(folder, plan)
    return LoadRun(plan, folder)


def _models(base_url: str) -> list[str]:
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"base_url is {base_url!r}; expected http://HOST:PORT or https://HOST:PORT")
    try:
        answer = ask(f"{base_url.rstrip('/')}/v1/models", MODELS_SECONDS)
        return [str(each["id"]) for each in answer.json()["data"]]
    except (NoAnswer, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"base_url {base_url!r} lists no models at /v1/models: {error}") from None


class LoadRun:
    """A load under way."""

    def __init__(self, plan: LoadPlan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self._changed = threading.Condition()
        self._progress = [Progress() for _ in range(plan.processes)]
        self._tokens: deque[tuple[float, int]] = deque(maxlen=1000)
        self._ready = 0
        self._stopped_at: float | None = None
        self._processes = [self._spawn(index) for index in range(plan.processes)]
        # Another thread waits for them: a pid could be another's between our look and the signal.
        self._handles = [os.pidfd_open(process.pid) for process in self._processes]
        self._threads = [threading.Thread(target=self._follow, args=(index,)) for index in range(plan.processes)]
        for thread in self._threads:
            thread.start()
        with self._changed:
            ready = self._changed.wait_for(lambda: self._ready == plan.processes or self.ended, READY_SECONDS)
            if not ready or self._ready < plan.processes:
                self.kill()
                raise RuntimeError(f"the clients of the load in {folder} did not start; see client-*.txt there")
        self.began_at = now() + HEAD_START_SECONDS
        head = {"plan": asdict(plan), "began_at": self.began_at, "began": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        draft = folder / f"{PLAN}.new"
        draft.write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
        draft.rename(folder / PLAN)
        for process in self._processes:
            self._tell(process, f"go {self.began_at}\n")
        self._closer = threading.Thread(target=self._close)
        self._closer.start()

    def _spawn(self, index: int) -> subprocess.Popen[str]:
        with (self.folder / f"client-{index}.txt").open("w") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "support.requests.load", str(self.folder.resolve()), str(index)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                process_group=0,
            )

    @staticmethod
    def _tell(process: subprocess.Popen[str], words: str) -> None:
        assert process.stdin
        # One that has ended is told of by its exit status and its missing end.
        with contextlib.suppress(BrokenPipeError, ValueError):
            process.stdin.write(words)
            process.stdin.flush()

    def _follow(self, index: int) -> None:
        process = self._processes[index]
        assert process.stdout
        for line in process.stdout:
            with self._changed:
                if line.startswith("ready"):
                    self._ready += 1
                else:
                    self._progress[index] = Progress(*map(int, line.split()))
                    self._tokens.append((now(), sum(each.tokens for each in self._progress)))
                self._changed.notify_all()
        process.wait()
        with self._changed:
            self._changed.notify_all()

    def _close(self) -> None:
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                assert pipe
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        with self._changed:
            for handle in self._handles:
                os.close(handle)
            self._handles.clear()
        codes = [process.returncode for process in self._processes]
        end = {"ended_at": now(), "exit_codes": codes, "stopped_at": self._stopped_at}
        (self.folder / END).write_text(json.dumps(end) + "\n", encoding="utf-8")

    @property
    def pids(self) -> list[int]:
        """The client processes."""
        return [process.pid for process in self._processes]

    @property
    def ended(self) -> bool:
        """Whether all client processes have ended, in whatever way."""
        return all(process.poll() is not None for process in self._processes)

    @property
    def progress(self) -> Progress:
        """Sum over all processes."""
        with self._changed:
            every = list(self._progress)
        return Progress(*(sum(getattr(each, name) for each in every) for name in ("sent", "ended", "tokens")))

    def rate(self, seconds: float) -> float:
        """Tokens per second over the last ``seconds``; 0 when the load is younger than that."""
        with self._changed:
            since = [tokens for at, tokens in self._tokens if at < now() - seconds]
            return (self._tokens[-1][1] - since[-1]) / seconds if since else 0.0

    def wait_for(self, condition: Callable[[Progress], bool], timeout: float) -> bool:
        """Wait until ``condition`` holds for :attr:`progress`; False when the load has ended or ``timeout`` seconds
        have passed before.
        """
        deadline = now() + timeout
        with self._changed:
            while not condition(self.progress):
                left = deadline - now()
                if left <= 0 or self.ended:
                    return condition(self.progress)
                self._changed.wait(left)
        return True

    def stop(self) -> None:
        """Begin no further request; those under way come to their end. What was not sent counts as withdrawn."""
        self._stopped_at = now()
        for process in self._processes:
            self._tell(process, "stop\n")

    def kill(self) -> None:
        """End the client processes at once; what they had not written down is lost, and the results will say so."""
        with self._changed:
            for handle in self._handles:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for the end, which the plan and the deadlines of its requests bound."""
        self._closer.join()

    def join(self) -> LoadLog:
        """Wait for the end and read what came of it."""
        self.wait()
        return read_load(self.folder)


class _Clients:
    """The clients of one process; everything runs on the reader's thread."""

    def __init__(self, plan: LoadPlan, folder: Path, process: int, began_at: float) -> None:
        self.plan, self.process, self.began_at = plan, process, began_at
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
        os.write(1, b"%d %d %d\n" % (self.sent, self.ended, tokens))

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
    os._exit(1)  # whoever wanted the load is gone, however that came about


def main() -> None:
    """``python -m support.requests.load FOLDER PROCESS``: the clients of one process of a load; started by
    :class:`LoadRun`.
    """
    folder, process = Path(sys.argv[1]), int(sys.argv[2])
    plan = read_load(folder).plan
    os.write(1, b"ready\n")
    word, _, began_at = sys.stdin.readline().partition(" ")
    if word != "go":
        raise SystemExit("whoever wanted the load is gone")
    reader = shared_reader()
    # Going through the thousands of chunks of all open answers, the collector stopped the clients for half a second at
    # a time. It has nothing to find: an exchange that is over holds no circle of references.
    gc.freeze()
    gc.disable()

    async def run() -> None:
        clients = _Clients(plan, folder, process, float(began_at))
        threading.Thread(target=_orders, args=(clients, reader.loop, sys.stdin), daemon=True).start()
        await clients.run()

    asyncio.run_coroutine_threadsafe(run(), reader.loop).result()
    sys.stdout.flush()
    os._exit(0)  # the thread that listens for orders holds standard input, which an orderly exit would wait for


if __name__ == "__main__":
    main()
