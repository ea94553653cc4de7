"""What may be asked of the service, and what it answers; the source of its OpenAPI page."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from agents.core.faults import DEFAULT_SECONDS, LONGEST_SECONDS


class GpuFault(StrEnum):
    """Faults of a GPU."""

    XID_ERROR = "XID_ERROR"
    THROTTLE = "THROTTLE"
    MEMORY_PRESSURE = "MEMORY_PRESSURE"
    OVERHEAT = "OVERHEAT"
    COMPUTE_OVERLOAD = "COMPUTE_OVERLOAD"


class Severity(StrEnum):
    """How much is taken: a share of 0.25, 0.5 or 0.75."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"


class Partition(StrEnum):
    """Between whom the network is cut."""

    FRONTEND_WORKER = "FRONTEND_WORKER"
    WORKER_NATS = "WORKER_NATS"
    WORKER_WORKER = "WORKER_WORKER"
    WORKER_ETCD = "WORKER_ETCD"
    ETCD_ETCD = "ETCD_ETCD"
    CUSTOM = "CUSTOM"


class Mode(StrEnum):
    """What becomes of a packet."""

    DROP = "drop"
    REJECT = "reject"
    RESET = "reset"
    LOSS = "loss"
    BANDWIDTH = "bandwidth"
    DELAY = "delay"


class Direction(StrEnum):
    """Packets to the target, from it, or both."""

    BOTH = "both"
    TO = "to"
    FROM = "from"


class ProcessFault(StrEnum):
    """Faults of a process."""

    CRASH = "crash"
    TERMINATE = "terminate"
    HANG = "hang"
    RESTART = "restart"
    SLOW_DISK = "slow_disk"


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Name = Annotated[str, Field(min_length=1, max_length=253)]
Duration = Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False, strict=True)]


GpuIndex = Annotated[
    int | None, Field(ge=0, le=63, strict=True, description="which one, where the target has several GPUs")
]


class Injection(BaseModel):
    """What every injection may say."""

    model_config = ConfigDict(extra="forbid")

    target_pod: Name | None = Field(None, description="logical name of the pod or node, exactly")
    node_name: Name | None = Field(None, description="the same; one of the two")
    deployment: Name | None = Field(None, description="where several deployments run")
    duration_seconds: Duration | None = Field(None, description=f"the lease; default {DEFAULT_SECONDS:g}")


class GpuInjection(Injection):
    """A fault of a GPU."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"target_pod": "vllm-worker-0", "fault_type": "XID_ERROR", "severity": "HIGH"}]
        },
    )

    fault_type: Annotated[GpuFault, BeforeValidator(_upper)]
    severity: Annotated[Severity | None, BeforeValidator(_upper)] = None
    gpu_index: GpuIndex = None
    xid: Annotated[int | None, Field(ge=1, le=1000, strict=True)] = None
    parameters: dict[str, Any] = Field(default_factory=dict, description="share (0 to 1), sequence (XID_ERROR)")


class XidInjection(Injection):
    """An XID error; its number is in the path."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"target_pod": "vllm-worker-0"}]})

    severity: Annotated[Severity | None, BeforeValidator(_upper)] = None
    gpu_index: GpuIndex = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class NetworkInjection(Injection):
    """A fault of the network."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"partition_type": "FRONTEND_WORKER", "duration_seconds": 30}]},
    )

    partition_type: Annotated[Partition, BeforeValidator(_upper)]
    source: Name | list[Name] | None = Field(None, description="CUSTOM: node or nodes")
    target: Name | list[Name] | None = Field(None, description="CUSTOM: node or nodes; the rules are made there")
    mode: Annotated[Mode, BeforeValidator(_lower)] = Mode.DROP
    direction: Annotated[Direction, BeforeValidator(_lower)] = Direction.BOTH
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="percent (loss), rate_kbit (bandwidth), delay_ms (delay)"
    )


class ProcessInjection(Injection):
    """A fault of a process."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"target_pod": "vllm-worker-0", "type": "hang"}]}
    )

    type: Annotated[ProcessFault, BeforeValidator(_lower)]


class ProblemPage(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    allowed: list[str] | None = None


class FaultSummary(BaseModel):
    """A fault in a list."""

    id: str
    kind: str
    type: str
    deployment: str
    targets: list[str]
    state: str = Field(description="pending, active, recovering, recovered, failed or latched")
    severity: str | None
    fidelity: str | None
    parameters: dict[str, Any]
    repair: str
    momentary: bool
    attempts: int = Field(description="undos of it that have failed")
    owed: bool = Field(description="whether its undo is still to be done: it is live, or an undo has failed")
    duration_seconds: float
    deadline: float = Field(description="on CLOCK_MONOTONIC of the agent's machine, seconds")
    created_at: str
    expires_at: str


class FaultView(FaultSummary):
    """A fault with evidence and history."""

    touches: list[str]
    undo: dict[str, Any]
    conflicts: list[str]
    evidence: dict[str, Any]
    history: list[dict[str, Any]]


class DryRun(BaseModel):
    """What an injection would do."""

    kind: str
    type: str
    targets: list[str]
    touches: list[str]
    parameters: dict[str, Any]
    fidelity: str | None
    severity: str | None
    repair: str
    duration_seconds: float


class Health(BaseModel):
    """The service itself and the agents it can reach."""

    status: str
    pid: int
    agents: dict[str, str]


class Capability(BaseModel):
    """Whether a fault can be had here, and how or why not."""

    available: bool
    detail: str
