"""One process of a node: what is to be run, and what the kernel shows of it."""

import asyncio
import subprocess
from dataclasses import dataclass, field
from typing import Any

from agents.core.faults import Problem
from agents.core.kernel import stat_of

RESTART_POLICIES = ("Never", "OnFailure", "Always")
# The kubelet's crash-loop back-off: the first restart at once, then 10 s, doubled up to 300 s, forgotten after 10
# minutes of running (kubernetes.io, "Pod Lifecycle", restartPolicy).
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, BACKOFF_RESET_SECONDS = 10.0, 300.0, 600.0


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
