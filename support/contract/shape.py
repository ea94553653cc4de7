"""What a deployment of Dynamo can look like."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated

from support.amounts import amount
from support.errors import Mistake, Unsupported
from support.releases import Release
from support.schema import Expected, NonNegativeFloat, NonNegativeInt, OneOf, PositiveFloat, PositiveInt, read

SIMULATED = ("vllm", "sglang", "trtllm")
ENGINES = (*SIMULATED, "ruler")
REQUEST_PLANES = ("tcp", "nats")
DISCOVERIES = ("etcd", "kubernetes")
RESTART_POLICIES = ("Never", "OnFailure", "Always")
CONTROLLERS = ("Deployment",)
ROUTER_MODES = ("round-robin", "random", "least-loaded", "kv")
LEAVINGS = ("draining", "handing over")
MOST_MEMBERS = 7
WholeSeconds = Annotated[float, Expected("whole seconds, 1 or more, as etcd counts leases", ge=1, multiple_of=1)]
TOKENS_PER_SECOND = 170.0
"""Pace of one stream of the mocker as simulated vLLM, measured on 1.6.1 (docs/engines.md); the ruler is set to it."""


@dataclass(frozen=True)
class Shape:
    """What a deployment looks like.

    Attributes:
        engine: what the workers run; all but ``ruler`` are simulated by ``dynamo.mocker``.
        workers: workers that answer requests; in a disaggregated deployment the decode workers.
        prefill_workers: 0 for an aggregated deployment.
        request_plane: how frontend and workers talk.
        discovery: how its parts find each other; ``kubernetes`` needs the target of that name; None: the target's own.
        migration_limit: how often one request may be moved to another worker; 0 switches migration off.
        sequence_cap: tokens (prompt and answer) above which a request is not migrated; None: no cap.
        max_model_len: tokens (prompt and answer) that a simulated worker has room for; None: it enforces no limit.
        health_checks: canary requests of Dynamo to its workers; off, because they disturb counts.
        etcd_members: members of the etcd cluster behind it, 1 to 7.
        etcd_delay_seconds: how long after everything else etcd is started; the deployment is then not waited for.
        frontends: how many frontends clients may use; with several they skip those that are down.
        router_mode: how the frontend chooses a worker.
        restart_policy: whether a frontend or worker that has ended is started again, as the kubelet has it. What breaks
            of etcd and NATS stays broken until its fault ends.
        speed: speed of the workers relative to their default (about 170 tokens per second and stream).
        prefill_seconds: time that the ruler engine takes before its first token; others have their own model of it.
        lease_seconds: lifetime of a registration whose owner is gone, in whole seconds; None: 30 s from 1.6.0 on and
            10 s before. Releases where it cannot be set keep theirs.
        leaving: what a ruler worker does when it is shut down: ``draining`` as Dynamo's mocker does, ``handing
            over`` as its workers for real engines do. Simulated engines always drain.
        drain_seconds: how long a worker that is shut down may take to finish its requests; None: the release's default.
        grace_seconds: how long a worker that hands over goes on before it does; None: the release's default.
        stream_timeout_seconds: silence of a worker after which the frontend gives up on it; None: never.
        readiness_switch: whether the readiness probe of a worker can be made to fail while its process lives; only pods
            have probes.
        controller: what has other pods take the place of workers that go: ``Deployment``; None: nothing. Only pods have
            one, and its workers are started again whatever the restart policy says.
        worker_env: further environment variables of the workers.
    """

    engine: Annotated[str, OneOf(ENGINES)] = "ruler"
    workers: NonNegativeInt = 2
    prefill_workers: NonNegativeInt = 0
    request_plane: Annotated[str, OneOf(REQUEST_PLANES)] = "tcp"
    discovery: Annotated[str, OneOf(("", *DISCOVERIES))] = ""
    migration_limit: NonNegativeInt = 3
    sequence_cap: PositiveInt | None = None
    max_model_len: PositiveInt | None = None
    health_checks: bool = False
    etcd_members: Annotated[int, Expected(f"1 to {MOST_MEMBERS}, best 1, 3 or 5", ge=1, le=MOST_MEMBERS)] = 1
    etcd_delay_seconds: NonNegativeFloat = 0.0
    frontends: PositiveInt = 1
    router_mode: Annotated[str, OneOf(ROUTER_MODES)] = "round-robin"
    restart_policy: Annotated[str, OneOf(RESTART_POLICIES)] = "Never"
    speed: PositiveFloat = 1.0
    prefill_seconds: NonNegativeFloat = 0.0
    lease_seconds: WholeSeconds | None = None
    leaving: Annotated[str, OneOf(LEAVINGS)] = "draining"
    drain_seconds: NonNegativeFloat | None = None
    grace_seconds: NonNegativeFloat | None = None
    stream_timeout_seconds: PositiveFloat | None = None
    readiness_switch: bool = False
    controller: Annotated[str, OneOf(("", *CONTROLLERS))] = ""
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
        count = amount(self.workers, f"{kind} worker")
        if self.disaggregated:
            count = f"{self.prefill_workers} prefill and {amount(self.workers, 'decode worker')} ({kind})"
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

    def check_alone(self) -> None:
        """Refuse what can be on no release.

        Raises:
            Mistake: a value that makes no sense, with the allowed ones.
        """
        read(Shape, self)
        if self.disaggregated and self.engine == "ruler":
            raise Mistake(f"the ruler engine has no prefill workers; choose one of {', '.join(SIMULATED)}")
        if self.max_model_len is not None and self.engine == "ruler":
            raise Mistake(f"the ruler engine has no max_model_len; choose one of {', '.join(SIMULATED)}")
        if self.leaving == "handing over" and self.engine != "ruler":
            raise Mistake(f"simulated {self.engine} workers always drain on shutdown; only the ruler can hand over")
        if self.controller and self.disaggregated:
            raise Mistake(f"the controller {self.controller} keeps workers of one role; this deployment has two")
        if self.grace_seconds is not None and self.leaving != "handing over":
            raise Mistake(f"grace_seconds is {self.grace_seconds:g}, but workers that drain have none")

    def check(self, release: Release, discoveries: Collection[str] = ("etcd",)) -> None:
        """Refuse what cannot be.

        Args:
            discoveries: those that the target has.

        Raises:
            Mistake: a value that makes no sense, with the allowed ones.
            Unsupported: the release cannot do it.
        """
        self.check_alone()
        if self.discovery and self.discovery not in discoveries:
            raise Mistake(f"discovery is {self.discovery!r}, which needs the target kubernetes")
        if self.readiness_switch and "kubernetes" not in discoveries:
            raise Mistake("a readiness switch needs the target kubernetes")
        if self.controller and "kubernetes" not in discoveries:
            raise Mistake(f"the controller {self.controller} needs the target kubernetes")
        if self.discovery == "kubernetes" and not release.kubernetes_discovery:
            raise Unsupported(release.version, "Kubernetes discovery")
        if self.engine not in release.engines:
            raise Unsupported(release.version, f"simulated {self.engine}")
        if self.disaggregated and self.engine not in release.disaggregated_engines:
            raise Unsupported(release.version, f"disaggregated {self.engine}")
        if self.sequence_cap is not None and not release.sequence_cap:
            raise Unsupported(release.version, "sequence cap")
        if self.max_model_len is not None and not release.max_model_len:
            raise Unsupported(release.version, "sequence limit")
        if self.router_mode == "least-loaded" and not release.least_loaded:
            raise Unsupported(release.version, "least-loaded router")
        if self.drain_seconds is not None and not release.drain_deadline:
            raise Unsupported(release.version, "drain deadline")
        if self.stream_timeout_seconds is not None and not release.stream_timeout:
            raise Unsupported(release.version, "stream timeout")
