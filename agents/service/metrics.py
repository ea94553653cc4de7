"""What the service counts and times for Prometheus."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


@dataclass
class Metrics:
    """What ``/metrics`` shows; a registry of its own, so that several services fit into one process."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        kind = ["kind", "type", "outcome"]
        self.injections = Counter("fault_injections", "Injections requested.", kind, registry=self.registry)
        self.faults = Gauge("faults", "Faults by state.", ["state"], registry=self.registry)
        self.lost = Counter("fault_audit_lines_lost", "Lines with no room in the audit log.", registry=self.registry)
        self.agents = Gauge("fault_agent_up", "Whether the agent answers.", ["agent"], registry=self.registry)
        self.seconds = Histogram("fault_request_seconds", "Time of a request.", ["method"], registry=self.registry)
