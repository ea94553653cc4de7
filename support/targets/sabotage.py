"""The local target with deployments that are broken on purpose; each sabotage that needs more than another shape is a
deployment of its own.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.sabotage import asked
from support.settings import ROOT
from support.targets.base import Node, Shape
from support.targets.local import FRONTEND_PORT, LocalDeployment, LocalTarget

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
        return super()._endpoints()[:1]


class SlowElections(LocalDeployment):
    """etcd waits :data:`SLOW_ELECTION_SECONDS` or more before it elects a new leader."""

    def _member_argv(self, node: Node, cluster: list[Node], state: str, data: Path) -> list[str]:
        argv = super()._member_argv(node, cluster, state, data)
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
        self._run(node, argv, {"PYTHONPATH": str(ROOT)}, ready=None, after=[])


DEPLOYMENTS: dict[tuple[str, str], type[LocalDeployment]] = {
    ("shape", "one-endpoint"): OneEndpoint,
    ("shape", "slow-elections"): SlowElections,
}


class SabotagedTarget(LocalTarget):
    """The local target as ``FT_SABOTAGE`` wants it."""

    def deploy(self, shape: Shape) -> LocalDeployment:
        """See :class:`support.targets.base.Target`; the deployment is another than the one that was asked for.

        Raises:
            ValueError: ``FT_SABOTAGE`` makes no sense.
        """
        kind, value = asked()
        if kind == "ruler":
            shape = replace(shape, worker_env=shape.worker_env | {"RULER_SABOTAGE": value})
        if kind == "migration-limit":
            shape = replace(shape, migration_limit=int(value))
        if kind == "shape":
            shape = replace(shape, **SHAPES[value])
        return super().deploy(shape)

    def _deployment(self, shape: Shape) -> LocalDeployment:
        kind, value = asked()
        made = BehindProxy if kind == "proxy" else DEPLOYMENTS.get((kind, value), LocalDeployment)
        return made(self, shape)


def local_target() -> type[LocalTarget]:
    """The local target; one that breaks its deployments where ``FT_SABOTAGE`` is set."""
    return SabotagedTarget if os.environ.get("FT_SABOTAGE") else LocalTarget
