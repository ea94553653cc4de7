"""What a deployment of Dynamo can look like."""

from dataclasses import dataclass, field

from support.errors import Unsupported
from support.releases import Release

SIMULATED = ("vllm", "sglang", "trtllm")
ENGINES = (*SIMULATED, "ruler")
REQUEST_PLANES = ("tcp", "nats")
RESTART_POLICIES = ("Never", "OnFailure", "Always")
ROUTER_MODES = ("round-robin", "random", "kv")
LEAVINGS = ("draining", "handing over")
MOST_MEMBERS = 7
TOKENS_PER_SECOND = 170.0
"""Pace of one stream of the mocker as simulated vLLM, measured on 1.6.1 (docs/engines.md); the ruler is set to it."""


@dataclass(frozen=True)
class Shape:
    """What a deployment looks like.

    Attributes:
        engine: one of :data:`ENGINES`; all but ``ruler`` are simulated by ``dynamo.mocker``.
        workers: workers that answer requests; in a disaggregated deployment the decode workers.
        prefill_workers: 0 for an aggregated deployment.
        request_plane: ``tcp`` or ``nats``.
        migration_limit: how often one request may be moved to another worker; 0 switches migration off.
        sequence_cap: tokens (prompt and answer) above which a request is not migrated; None: no cap.
        max_model_len: tokens (prompt and answer) that a simulated worker has room for; None: it enforces no limit.
        health_checks: canary requests of Dynamo to its workers; off, for they disturb counts.
        etcd_members: members of the etcd cluster behind it, 1 to 7.
        etcd_delay_seconds: how long after everything else etcd is started; the deployment is then not waited for.
        frontends: frontends that clients may ask; more than one as behind a service that leaves out the dead.
        router_mode: how the frontend chooses a worker, one of :data:`ROUTER_MODES`.
        restart_policy: ``Never``, ``OnFailure`` or ``Always``, as the kubelet has it; of frontends and workers. What
            breaks of etcd and NATS stays broken until its fault ends.
        speed: speed of the workers relative to their default (about 170 tokens per second and stream).
        prefill_seconds: time that the ruler engine takes before its first token; others have their own model of it.
        lease_seconds: lifetime of a registration whose owner is gone, in whole seconds; None: the release's default.
            Releases where it cannot be set keep theirs, which is 10 s.
        leaving: how a ruler worker leaves that is told to shut down, one of :data:`LEAVINGS`: ``draining`` as Dynamo's
            mocker does, ``handing over`` as its workers for real engines do. Simulated engines always drain.
        drain_seconds: how long a worker that is told to shut down may finish what it has; None: the release's default.
        grace_seconds: how long a worker that hands over goes on before it does; None: the release's default.
        stream_timeout_seconds: silence of a worker after which the frontend gives it up; None: never.
        worker_env: further environment variables of the workers.
    """

    engine: str = "ruler"
    workers: int = 2
    prefill_workers: int = 0
    request_plane: str = "tcp"
    migration_limit: int = 3
    sequence_cap: int | None = None
    max_model_len: int | None = None
    health_checks: bool = False
    etcd_members: int = 1
    etcd_delay_seconds: float = 0.0
    frontends: int = 1
    router_mode: str = "round-robin"
    restart_policy: str = "Never"
    speed: float = 1.0
    prefill_seconds: float = 0.0
    lease_seconds: float | None = None
    leaving: str = "draining"
    drain_seconds: float | None = None
    grace_seconds: float | None = None
    stream_timeout_seconds: float | None = None
    worker_env: dict[str, str] = field(default_factory=dict)

    @property
    def pace(self) -> float:
        """Tokens per second of one undisturbed stream."""
        return TOKENS_PER_SECOND * self.speed

    @property
    def disaggregated(self) -> bool:
        """Whether prefill and decode run on workers of their own."""
        return self.prefill_workers > 0

    def describe(self) -> str:
        """One phrase for reports: ``2 vllm workers over tcp, migration limit 3``."""
        kind = self.engine if self.engine == "ruler" else f"simulated {self.engine}"
        count = f"{self.workers} {kind} workers" if self.workers != 1 else f"1 {kind} worker"
        if self.disaggregated:
            count = f"{self.prefill_workers} prefill and {self.workers} decode workers ({kind})"
        behind = f", {self.etcd_members}-member etcd cluster" if self.etcd_members > 1 else ""
        several = f", {self.frontends} frontends" if self.frontends > 1 else ""
        return f"{count} over {self.request_plane}, migration limit {self.migration_limit}{behind}{several}"

    def warnings(self) -> list[str]:
        """What is allowed and yet unwise, one sentence each."""
        if self.etcd_members % 2:
            return []
        survives, fewer = (self.etcd_members - 1) // 2, self.etcd_members - 1
        return [
            f"an etcd cluster of {self.etcd_members} members, an even count, survives the loss of {survives}, no more "
            f"than one of {fewer}; choose {fewer} or {self.etcd_members + 1}"
        ]

    def check(self, release: Release) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: a value that makes no sense, with the allowed ones.
            Unsupported: the release cannot do it.
        """
        for what, value, allowed in (
            ("engine", self.engine, ENGINES),
            ("request plane", self.request_plane, REQUEST_PLANES),
            ("restart policy", self.restart_policy, RESTART_POLICIES),
            ("router mode", self.router_mode, ROUTER_MODES),
            ("way to leave", self.leaving, LEAVINGS),
        ):
            if value not in allowed:
                raise ValueError(f"unknown {what} {value!r}; expected one of {', '.join(allowed)}")
        for name in ("workers", "prefill_workers", "migration_limit"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if not 1 <= self.etcd_members <= MOST_MEMBERS:
            raise ValueError(f"etcd_members is {self.etcd_members}; expected 1 to {MOST_MEMBERS}, best 1, 3 or 5")
        if self.frontends < 1:
            raise ValueError(f"frontends is {self.frontends}; expected 1 or more")
        if self.etcd_delay_seconds < 0:
            raise ValueError(f"etcd_delay_seconds is {self.etcd_delay_seconds}; expected 0 or more")
        for name in ("sequence_cap", "max_model_len"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.lease_seconds is not None and (self.lease_seconds < 1 or self.lease_seconds % 1):
            raise ValueError(f"lease_seconds is {self.lease_seconds:g}; etcd counts leases in whole seconds, 1 or more")
        if self.speed <= 0:
            raise ValueError(f"speed is {self.speed}; expected more than 0")
        if self.disaggregated and self.engine == "ruler":
            raise ValueError(f"the ruler engine has no prefill workers; choose one of {', '.join(SIMULATED)}")
        if self.max_model_len is not None and self.engine == "ruler":
            raise ValueError(f"the ruler engine has no max_model_len; choose one of {', '.join(SIMULATED)}")
        if self.leaving == "handing over" and self.engine != "ruler":
            raise ValueError(f"simulated {self.engine} workers always leave by draining; only the ruler can hand over")
        if self.grace_seconds is not None and self.leaving != "handing over":
            raise ValueError(f"grace_seconds is {self.grace_seconds:g}, but workers that leave by draining have none")
        for name in ("drain_seconds", "grace_seconds"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name):g}; expected 0 or more")
        if self.engine not in release.engines:
            raise Unsupported(f"Dynamo {release.version} has no simulated {self.engine}")
        if self.disaggregated and self.engine not in release.disaggregated_engines:
            raise Unsupported(f"Dynamo {release.version} simulates no disaggregated {self.engine}")
        if self.sequence_cap is not None and not release.sequence_cap:
            raise Unsupported(f"Dynamo {release.version} has no cap on the length of migrated sequences")
        if self.max_model_len is not None and not release.max_model_len:
            raise Unsupported(f"Dynamo {release.version} simulates no limit on the length of a sequence")
        if self.drain_seconds is not None and not release.drain_deadline:
            raise Unsupported(f"Dynamo {release.version} has no drain deadline")
        if self.stream_timeout_seconds is not None and not release.stream_timeout:
            raise Unsupported(f"Dynamo {release.version} has no timeout for silent workers")
