"""The fault service of a deployment in memory: the same API, for hosts and a network that are objects.

It undoes each fault at its deadline, as agents do. The errors of GPUs have the consequences that docs/fault-service.md
tells of.
"""

import itertools
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agents.sabotage import marks
from support import sabotage
from support.asking import Order, Response
from support.targets.fake.hosts import Host
from support.targets.fake.network import Connection, FakeNetwork, Rule, respond

ADDRESS, PORT = "faults", 8080
SECONDS = 300.0
ROLES = {
    "FRONTEND_WORKER": ("frontend",),
    "WORKER_NATS": ("nats",),
    "WORKER_WORKER": ("worker", "decode", "prefill"),
    "WORKER_ETCD": ("etcd",),
}
SIMULATED = {
    "process": ("crash", "terminate", "hang", "restart"),
    "network": ("drop", "reject", "reset", "loss", "bandwidth"),
    "gpu": ("XID_ERROR", "THROTTLE", "OVERHEAT", "COMPUTE_OVERLOAD", "MEMORY_PRESSURE"),
}
"""Family -> its types; others are refused."""
FATAL, FROZEN, LINK = (43, 48, 79, 94, 95), (119, 120), 74
"""XID errors that end the worker, that stop it, and that spoil what goes over NVLink."""
SEQUENCES = {48: [63, 95, 154], 95: [154], 119: [154]}
LINK_LOSS_PERCENT = 30
BURST_BYTES = 3000
MEMORY_MIB = 80000
FULL = 0.65
"""Share of its memory that is taken beside it with which a worker does not start."""

LIES = ("hits-two", "names-nobody", "obeys")
"""``FT_SABOTAGE=faults=KIND``: a fault of a process hits another host of the same role as well; an order for a host
that there is not is refused and names none, or is taken.
"""


@dataclass
class Gpu:
    """The GPU of a worker: errors that the kernel has logged of it, and the strain on it."""

    pci: str
    errors: list[int] = field(default_factory=list)
    strains: dict[str, float] = field(default_factory=dict)
    broken: bool = False

    def telemetry(self) -> dict[str, Any]:
        """As an agent has it."""
        reasons = {"THROTTLE": "sw_power_cap", "OVERHEAT": "hw_thermal_slowdown"}
        return {
            "pci": self.pci,
            "state": "lost" if self.broken else "ok",
            "throttle_reasons": [reasons[each] for each in self.strains if each in reasons],
            "temperature_c": 95 if "OVERHEAT" in self.strains else 60,
            "utilization_percent": 100 if "COMPUTE_OVERLOAD" in self.strains else 40,
            "memory_used_mib": 1000 + self.strains.get("MEMORY_PRESSURE", 0.0) * MEMORY_MIB,
            "memory_total_mib": MEMORY_MIB,
        }

    @property
    def pace(self) -> float:
        """Share of its speed that is left."""
        slowing = [share for kind, share in self.strains.items() if kind != "MEMORY_PRESSURE"]
        return 1 - max(slowing, default=0.0)


@dataclass(eq=False)
class FakeFault:
    """One fault, as the API shows it, and how it is undone."""

    view: dict[str, Any]
    undo: Callable[[], None]
    rules: list[Rule] = field(default_factory=list)


class FaultServer:
    """Breaks hosts, the network between them, and GPUs; implements :class:`support.targets.fake.network.Server`.

    Attributes:
        gpus: name of a worker -> its GPU, of those that somebody has asked for.
    """

    listening = answering = True

    def __init__(self, hosts: dict[str, Host], network: FakeNetwork) -> None:
        self._hosts, self._network = hosts, network
        self.gpus: dict[str, Gpu] = {}
        self._faults: dict[str, FakeFault] = {}
        self._numbers = itertools.count(1)
        self._lie = sabotage.asked()[1] if sabotage.asked()[0] == "faults" else ""

    def gpu(self, node: str) -> Gpu:
        """The GPU of a worker."""
        return self.gpus.setdefault(node, Gpu(f"0000:{len(self.gpus) + 1:02x}:00"))

    def call(self, order: Order) -> Response:
        """See :class:`support.targets.fake.network.Server`."""
        return respond(order, self._answer)

    def accept(self, connection: Connection) -> None:
        """It has no clients but those of control calls."""
        connection.lose()

    def _answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        if path == "/health":
            return {"status": "ok", "pid": 0, "agents": {"memory": "ok"}}
        path, _, query = path.partition("?")
        _, _, _, _, *rest = path.split("/")
        if not rest:
            views = [self._view(each) for each in self._faults.values()]
            return [each for each in views if each["state"] == "active" or not query]
        if rest[-1] == "inject":
            return self._inject(rest[0], body)
        fault = self._faults.get(rest[0])
        if fault is None:
            return 404, {"title": "Not found", "detail": f"there is no fault {rest[0]}"}
        if rest[-1] == "recover":
            self._end(fault)
        return self._view(fault)

    def _view(self, fault: FakeFault) -> dict[str, Any]:
        counters = {
            rule_name: {"chain": {"packets": rule.hits, "drawn": rule.hits}}
            for rule_name, rule in ((f"rule {rule.number}", rule) for rule in fault.rules)
        }
        return fault.view | {"evidence": fault.view["evidence"] | {"counters": counters}}

    def _inject(self, family: str, body: dict[str, Any]) -> Any:
        name = body.get("target_pod")
        if name is not None and name not in self._hosts:
            if self._lie == "obeys":
                marks.leave(f"an order for {name} is taken")
                return {"id": "fault-0", "state": "active"}
            known = "" if self._lie == "names-nobody" else f"; known: {', '.join(sorted(self._hosts))}"
            if not known:
                marks.leave("a refusal names nobody")
            return 404, {"title": "Unknown target", "detail": f"no target {name!r}{known}"}
        seconds = float(body.get("duration_seconds") or SECONDS)
        kind = str(body.get("type") or body.get("fault_type") or body.get("mode"))
        if kind not in SIMULATED[family]:
            return 501, {"title": "Not implemented", "detail": f"{family} {kind} is not simulated in memory"}
        view: dict[str, Any] = {
            "id": f"fault-{next(self._numbers)}",
            "kind": family,
            "type": kind,
            "targets": [name],
            "state": "active",
            "deadline": self._network.clock.now() + seconds,
            "parameters": {},
            "fidelity": "in memory",
            "evidence": {"sent_at": self._network.clock.now()},
        }
        self._network.struck_at = self._network.struck_at or self._network.clock.now()
        fault = FakeFault(view, lambda: None)
        self._faults[str(view["id"])] = fault
        if family == "process":
            self._process(fault, self._hosts[str(name)], kind)
            if self._lie == "hits-two":
                self._hit_another(self._hosts[str(name)])
        elif family == "network":
            self._cut(fault, body)
        else:
            self._gpu_fault(fault, self._hosts[str(name)], kind, body)
        if view["state"] == "active":
            self._network.loop.call_later(seconds, self._end, fault)
        self._network.loop.wake()
        return self._view(fault)

    def _end(self, fault: FakeFault) -> None:
        if fault.view["state"] == "active":
            fault.view["state"] = "recovered"
            fault.undo()
            self._network.change()

    # -- processes

    def _process(self, fault: FakeFault, host: Host, kind: str) -> None:
        if kind == "hang":
            fault.undo = host.go_on
            host.stop()
        elif kind == "terminate":
            fault.undo = host.start
            if host.program is not None and not host.program.gone:
                host.program.told()
        else:
            host.over(-signal.SIGKILL, held_back=kind == "restart")
            fault.undo = host.start
            if kind == "restart":
                fault.view["state"] = "recovered"
                host.start()

    def _hit_another(self, host: Host) -> None:
        others = [each for each in self._hosts.values() if each.node.role == host.node.role and each != host]
        for other in others[:1]:
            marks.leave(f"{other.node.name} is hit as well as {host.node.name}")
            other.over(-signal.SIGKILL, held_back=True)

    # -- the network

    def _cut(self, fault: FakeFault, body: dict[str, Any]) -> None:
        parameters, mode = body.get("parameters", {}), body.get("mode", "drop")
        victim = body.get("target_pod")
        if body["partition_type"] == "CUSTOM":
            sources, targets = (_listed(body[side]) for side in ("source", "target"))
        else:
            roles = ROLES[body["partition_type"]]
            targets = [str(victim)]
            sources = [name for name, host in self._hosts.items() if host.node.role in roles and name != victim]
        strength = float(parameters.get("percent") or parameters.get("rate_kbit") or 0)
        rule = Rule(sources, targets, mode, body.get("direction", "both"), strength)
        if mode == "bandwidth":
            fault.view["parameters"]["burst_bytes"] = BURST_BYTES
        fault.rules.append(rule)
        fault.undo = lambda: self._network.remove(rule)
        self._network.add(rule)

    # -- GPUs

    def _gpu_fault(self, fault: FakeFault, host: Host, kind: str, body: dict[str, Any]) -> None:
        gpu, parameters = self.gpu(host.node.name), body.get("parameters", {})
        fault.view["parameters"] |= {"pci": gpu.pci, "meaning": "an error of a GPU in memory"}
        if kind != "XID_ERROR":
            self._strain(fault, host, gpu, kind, float(parameters["share"]))
            return
        number = int(body["xid"])
        gpu.errors += [number, *(SEQUENCES.get(number, []) if parameters.get("sequence") else [])]
        if number in FATAL:
            reason = f"GPU error {number} ({fault.view['id']})"
            gpu.broken = True
            host.fence(reason)
            host.over(-signal.SIGABRT)

            def repair() -> None:
                gpu.broken = False
                host.unfence(reason)
                host.start()

            fault.undo = repair
        elif number in FROZEN:
            fault.undo = host.go_on
            host.stop()
        elif number == LINK:
            others = [name for name, each in self._hosts.items() if each.node.role in ROLES["WORKER_WORKER"]]
            rule = Rule([name for name in others if name != host.node.name], [host.node.name], "loss")
            rule.strength = LINK_LOSS_PERCENT
            fault.view["parameters"]["link_loss_percent"] = LINK_LOSS_PERCENT
            fault.undo = lambda: self._network.remove(rule)
            self._network.add(rule)

    def _strain(self, fault: FakeFault, host: Host, gpu: Gpu, kind: str, share: float) -> None:
        reason = f"CUDA out of memory ({fault.view['id']})"
        gpu.strains[kind] = share
        host.pace = gpu.pace
        if kind == "MEMORY_PRESSURE" and share > FULL:
            host.fence(reason)

        def relieve() -> None:
            gpu.strains.pop(kind, None)
            host.pace = gpu.pace
            host.unfence(reason)

        fault.undo = relieve


def _listed(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names
