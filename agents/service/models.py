"""What may be asked of the service, and what it answers; the source of its OpenAPI page."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from agents import registry
from agents.core.faults import DEFAULT_SECONDS, DIRECTIONS, LONGEST_SECONDS, SEVERITIES
from agents.service.agents import CUSTOM, PARTITIONS


class _OneOf:
    """Annotation: the value is one of ``words``; the API's page and refusals list the allowed ones."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words = list(words)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {"type": "literal", "expected": self._words}


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Upper, Lower = BeforeValidator(_upper), BeforeValidator(_lower)
Severity = Annotated[str, _OneOf(SEVERITIES), Upper]
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

    fault_type: Annotated[str, _OneOf(registry.types("gpu")), Upper]
    severity: Severity | None = None
    gpu_index: GpuIndex = None
    xid: Annotated[int | None, Field(ge=1, le=1000, strict=True)] = None
    parameters: dict[str, Any] = Field(default_factory=dict, description=registry.options("gpu"))


class XidInjection(Injection):
    """An XID error; its number is in the path."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"target_pod": "vllm-worker-0"}]})

    severity: Severity | None = None
    gpu_index: GpuIndex = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class NetworkInjection(Injection):
    """A fault of the network."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"partition_type": "FRONTEND_WORKER", "duration_seconds": 30}]},
    )

    partition_type: Annotated[str, _OneOf([*PARTITIONS, CUSTOM]), Upper]
    source: Name | list[Name] | None = Field(None, description="CUSTOM: node or nodes")
    target: Name | list[Name] | None = Field(None, description="CUSTOM: node or nodes; the rules are made there")
    mode: Annotated[str, _OneOf(registry.types("network")), Lower] = "drop"
    direction: Annotated[str, _OneOf(DIRECTIONS), Lower] = "both"
    parameters: dict[str, Any] = Field(default_factory=dict, description=registry.options("network"))


class ProcessInjection(Injection):
    """A fault of a process."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"target_pod": "vllm-worker-0", "type": "hang"}]}
    )

    type: Annotated[str, _OneOf(registry.types("process")), Lower]
    parameters: dict[str, Any] = Field(default_factory=dict, description=registry.options("process"))


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
    attempts: int = Field(description="how many of its undos have failed")
    owed: bool = Field(description="whether its undo is still due: it is live, or an undo has failed")
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
