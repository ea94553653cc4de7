"""The local target with deployments that are broken on purpose; each sabotage that needs more than another shape is a
deployment of its own.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.sabotage import marks
from support.contract.deployment import Deployment, Node
from support.contract.shape import Shape
from support.sabotage import asked
from support.settings import ROOT
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
}
"""``FT_SABOTAGE=shape=KIND`` -> what becomes of the shape; ``one-endpoint`` and ``slow-elections`` are no matter of it,
see :data:`DEPLOYMENTS`.
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


class SabotagedTarget(LocalTarget):
    """The local target as ``FT_SABOTAGE`` wants it."""

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
            shape = _changed(shape, migration_limit=int(value))
        if kind == "shape":
            shape = _changed(shape, **SHAPES[value])
        return super().deploy(shape, watch)

    def _made(self, shape: Shape, watch: Callable[[Deployment], None]) -> LocalDeployment:
        kind, value = asked()
        made = BehindProxy if kind == "proxy" else DEPLOYMENTS.get((kind, value), LocalDeployment)
        return made(self._site, shape, watch)


def _changed(shape: Shape, **fields: Any) -> Shape:
    """Another shape, and a mark where it is one."""
    other = replace(shape, **fields)
    if other != shape:
        marks.leave(f"the deployment is another: {', '.join(f'{name}={value}' for name, value in fields.items())}")
    return other
