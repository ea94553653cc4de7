"""The local target with deployments that are broken on purpose, each sabotage that needs more than another shape being
a deployment of its own; or with a witness that lies.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from agents.sabotage import marks
from agents.sabotage.signs import CUE
from support.contract.deployment import Deployment, Life, Node
from support.contract.shape import Shape
from support.contract.target import KernelLog, Line, MachineSeen, PodSeen, SetsSeen, Witness
from support.events import EventLog
from support.releases import Release
from support.sabotage import asked
from support.settings import ROOT, Settings
from support.targets.local.deployment import FRONTEND_PORT, LocalDeployment
from support.targets.local.target import LocalTarget

SHAPES: dict[str, dict[str, Any]] = {
    "lone-member": {"etcd_members": 1},
    "one-endpoint": {},
    "slow-elections": {},
    "endless-lease": {"lease_seconds": 600.0},
    "endless-drain": {"drain_seconds": None},
    "hasty-drain": {"drain_seconds": 1.0, "speed": 0.1, "migration_limit": 0},
    "endless-grace": {"grace_seconds": 60.0},
    "hasty-handover": {"leaving": "handing over", "grace_seconds": 0.0},
    "lone-frontend": {"frontends": 1},
    "unsupervised": {"restart_policy": "Never"},
    "takes-turns": {"router_mode": "round-robin"},
}
"""``FT_SABOTAGE=shape=KIND`` -> what becomes of the shape; ``one-endpoint`` and ``slow-elections`` are no matter of it,
see :data:`DEPLOYMENTS`.
"""
WITNESSES = ("refuses", "is-blind", "is-stale", "sees-no-end")
"""``FT_SABOTAGE=witness=KIND``: it answers no question; it finds nobody and sees nothing arrive; it answers as
if nothing were broken yet; on a cue, as it did when the fault was proven.
"""
# Longer than any sentence allows, and still short enough for a cluster to form within ETCD_SECONDS.
SLOW_ELECTION_SECONDS = 15.0


class OneEndpoint(LocalDeployment):
    """Dynamo is told of one member of etcd alone."""

    def _endpoints(self) -> list[Node]:
        known = super()._endpoints()
        if known[1:]:
            marks.leave(f"Dynamo is told of {known[0].name} alone")
        return known[:1]


class SlowElections(LocalDeployment):
    """etcd waits :data:`SLOW_ELECTION_SECONDS` or more before it elects a new leader."""

    def _member_argv(self, node: Node, cluster: list[Node], state: str, data: Path) -> list[str]:
        argv = super()._member_argv(node, cluster, state, data)
        marks.leave(f"{node.name} elects late")
        return [*argv, "--election-timeout", f"{SLOW_ELECTION_SECONDS * 1000:.0f}"]


class BehindProxy(LocalDeployment):
    """Clients reach the frontend through a bad neighbour, ``agents.sabotage.proxy``."""

    @property
    def frontend_url(self) -> str:
        """That of the bad neighbour, as soon as it is there."""
        proxies = self._all("proxy")
        return f"http://{proxies[0].endpoint}" if proxies else super().frontend_url

    def _start_dynamo(self) -> None:
        super()._start_dynamo()
        upstream = self.frontend_url
        node = self._node("sabotage-0", "proxy", FRONTEND_PORT, metrics=False)
        argv = [sys.executable, "-m", "agents.sabotage.proxy", "--listen", node.endpoint]
        argv += ["--upstream", upstream, "--kind", asked()[1]]
        env = {"PYTHONPATH": str(ROOT), marks.VARIABLE: os.environ.get(marks.VARIABLE, "")}
        self._run(node, argv, env, ready=None, after=[])


DEPLOYMENTS: dict[tuple[str, str], type[LocalDeployment]] = {
    ("shape", "one-endpoint"): OneEndpoint,
    ("shape", "slow-elections"): SlowElections,
}


class _LyingLine:
    """A line that has its answers from a liar; implements :class:`support.contract.target.Line`."""

    def __init__(self, real: Line, answer: Callable[[Callable[[], float | None]], float | None]) -> None:
        self._real, self._answer = real, answer

    def __enter__(self) -> "_LyingLine":
        self._real.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._real.__exit__(*error)

    def seconds(self, size: int, timeout: float) -> float | None:
        """See :class:`support.contract.target.Line`."""
        return self._answer(lambda: self._real.seconds(size, timeout))


class LyingWitness:
    """Stands in front of a real witness and lies for it; implements :class:`support.contract.target.Witness`.

    Args:
        kind: one of :data:`WITNESSES`.
    """

    def __init__(self, real: Witness, kind: str) -> None:
        if kind not in WITNESSES:
            raise ValueError(f"FT_SABOTAGE=witness={kind}; expected one of {', '.join(WITNESSES)}")
        self._real, self._kind, self._scratch = real, kind, Path(os.environ["FT_SCRATCH"])
        self._known: dict[Any, Any] = {}

    def _answer(self, question: Any, look: Callable[[], Any], blind: Any, sound: Any) -> Any:
        late = (self._scratch / CUE).exists()
        if self._kind != "sees-no-end" or late:
            marks.leave(f"the witness {self._kind}: {question[0]}")
        if self._kind == "refuses":
            raise OSError(f"the witness does not answer: {question[0]}")
        if self._kind == "is-blind":
            return blind
        if self._kind == "is-stale":
            return sound
        if not late or question not in self._known:
            self._known[question] = look()
        return self._known[question]

    def state(self, life: Life) -> str:
        """See :class:`support.contract.target.Witness`."""
        return str(self._answer(("state", life.node), lambda: self._real.state(life), "gone", "alive"))

    def pod(self, life: Life) -> PodSeen:
        """See :class:`support.contract.target.Witness`."""
        sound = PodSeen(there=True, ready=True, routed=True)
        seen = self._answer(("pod", life.node), lambda: self._real.pod(life), PodSeen(), sound)
        return cast(PodSeen, seen)

    def replica_sets(self) -> SetsSeen:
        """See :class:`support.contract.target.Witness`."""
        seen = self._answer(("ReplicaSets",), self._real.replica_sets, SetsSeen(), SetsSeen())
        return cast(SetsSeen, seen)

    def machine(self, name: str) -> MachineSeen:
        """See :class:`support.contract.target.Witness`."""
        seen = self._answer(("machine", name), lambda: self._real.machine(name), MachineSeen(True), MachineSeen())
        return cast(MachineSeen, seen)

    def lost_between(self, peer: Node, victim: Node, packets: int = 1) -> dict[str, int]:
        """See :class:`support.contract.target.Witness`."""
        all_lost, none = ({"to": count, "from": count} for count in (packets, 0))

        def look() -> dict[str, int]:
            return self._real.lost_between(peer, victim, packets)

        return dict(self._answer(("lost", peer, victim), look, all_lost, none))

    def connects(self, source: Node, destination: Node) -> dict[str, str]:
        """See :class:`support.contract.target.Witness`."""
        pair, (silent, met) = (source, destination), ({"IPv4": each} for each in ("silent", "open"))
        return dict(self._answer(("connects", *pair), lambda: self._real.connects(*pair), silent, met))

    def line(self, source: Node, destination: Node, timeout: float) -> Line:
        """See :class:`support.contract.target.Witness`."""
        question = "line", source, destination
        real = self._real.line(source, destination, timeout)
        return _LyingLine(real, lambda look: cast(float | None, self._answer(question, look, None, 0.0)))

    @contextmanager
    def kernel_log(self, node: Node) -> Iterator[KernelLog]:
        """See :class:`support.contract.target.Witness`."""
        with self._real.kernel_log(node) as real:

            def xids(pci: str) -> list[int]:
                return list(self._answer(("kernel log", pci), lambda: real.xids(pci), [], []))

            yield SimpleNamespace(xids=xids)

    def telemetry(self, node: Node) -> dict[str, Any]:
        """See :class:`support.contract.target.Witness`; where nothing is seen, that of a GPU that is lost."""
        seen = self._real.telemetry(node)
        sound = self._known.setdefault(("telemetry", node, "first"), seen)
        return dict(self._answer(("telemetry", node), lambda: seen, seen | {"state": "lost"}, sound))


class SabotagedTarget(LocalTarget):
    """The local target as ``FT_SABOTAGE`` wants it."""

    def __init__(self, settings: Settings, release: Release, folder: Path, events: EventLog) -> None:
        super().__init__(settings, release, folder, events)
        kind, value = asked()
        if kind == "witness":
            self.witness = LyingWitness(self.witness, value)

    def deploy(self, shape: Shape, watch: Callable[[Deployment], None] = lambda _: None) -> LocalDeployment:
        """See :class:`support.contract.target.Target`; the deployment is another than the one that was asked for.

        Raises:
            ValueError: ``FT_SABOTAGE`` makes no sense.
        """
        kind, value = asked()
        if kind == "ruler":
            told = {"RULER_SABOTAGE": value, "RULER_MARKS": os.environ.get(marks.VARIABLE, "")}
            shape = replace(shape, worker_env=shape.worker_env | told)
        if kind == "migration-limit":
            shape = changed(shape, migration_limit=int(value))
        if kind == "shape":
            shape = changed(shape, **SHAPES[value])
        return super().deploy(shape, watch)

    def _made(self, shape: Shape, watch: Callable[[Deployment], None]) -> LocalDeployment:
        kind, value = asked()
        made = BehindProxy if kind == "proxy" else DEPLOYMENTS.get((kind, value), LocalDeployment)
        return made(self._site, shape, watch)


def changed(shape: Shape, **fields: Any) -> Shape:
    """Another shape, and a mark where it is one."""
    other = replace(shape, **fields)
    if other != shape:
        marks.leave(f"the deployment is another: {', '.join(f'{name}={value}' for name, value in fields.items())}")
    return other
