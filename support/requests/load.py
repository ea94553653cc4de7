"""Load on a deployment: many clients, each request planned first, written down when it ends, on one honest clock.

::

    from support.requests.load import LoadPlan, client, run_load

    client(base_url, num_clients=10, requests_per_client=20, model=model, max_tokens=100, log_dir="logs")
    run_load(LoadPlan(base_url=base_url, model=model, arrival="poisson", rate=20, duration_seconds=30), "logs/poisson")

The clients run in processes of their own, except on the clock of a target in memory, so that neither the caller's work
nor its death bends their clock.
Latency counts from the time at which a request was due, not from the time at which it could be sent.
"""

import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from support import clock
from support.asking import NoAnswer, ask
from support.clock import now
from support.requests.load_clients import crew
from support.requests.load_log import END, PLAN, LoadLog, create, read_load
from support.requests.plan import Load, LoadPlan

MODELS_SECONDS = 10.0
# Import and a first look around take a client process half a second on an idle machine.
READY_SECONDS = 60.0
# From "go" to the first request: all processes have heard it by then.
HEAD_START_SECONDS = 0.1


@dataclass(frozen=True)
class Progress:
    """How far a load is, at most some :data:`support.requests.load_clients.TICK_SECONDS` ago.

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
    """A running load."""

    def __init__(self, plan: LoadPlan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self._changed = clock.condition()
        self._progress = [Progress() for _ in range(plan.processes)]
        self._tokens: deque[tuple[float, int]] = deque(maxlen=1000)
        self._ready = 0
        self._stopped_at: float | None = None
        self._crews = [crew(folder, index) for index in range(plan.processes)]
        self._threads = [clock.thread(self._follow, (index,), daemon=False) for index in range(plan.processes)]
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
        for each in self._crews:
            each.begin(self.began_at)
        self._closer = clock.thread(self._close, daemon=False)
        self._closer.start()

    def _follow(self, index: int) -> None:
        for line in self._crews[index].lines():
            with self._changed:
                if line.startswith("ready"):
                    self._ready += 1
                else:
                    self._progress[index] = Progress(*map(int, line.split()))
                    self._tokens.append((now(), sum(each.tokens for each in self._progress)))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _close(self) -> None:
        for thread in self._threads:
            thread.join()
        for each in self._crews:
            each.close()
        codes = [each.exit_code for each in self._crews]
        end = {"ended_at": now(), "exit_codes": codes, "stopped_at": self._stopped_at}
        (self.folder / END).write_text(json.dumps(end) + "\n", encoding="utf-8")

    @property
    def pids(self) -> list[int]:
        """The client processes."""
        return [pid for each in self._crews for pid in each.pids]

    @property
    def ended(self) -> bool:
        """Whether all client processes have ended, in whatever way."""
        return all(each.exit_code is not None for each in self._crews)

    @property
    def gave_up(self) -> bool:
        """Whether it has ended because its clients were to ask no more once a request failed."""
        return self.plan.gives_up and self.ended and self._stopped_at is None

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
        """Begin no further request; those in flight come to their end. What was not sent counts as withdrawn."""
        self._stopped_at = now()
        for each in self._crews:
            each.stop()

    def kill(self) -> None:
        """End the client processes at once; what they had not written down is lost, and the results will say so."""
        for each in self._crews:
            each.kill()

    def wait(self) -> None:
        """Wait for the end, which the plan and the deadlines of its requests bound."""
        self._closer.join()

    def join(self) -> LoadLog:
        """Wait for the end and read what came of it."""
        self.wait()
        return read_load(self.folder)
