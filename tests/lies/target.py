"""The local target with markers (:mod:`tests.lies.marker`) in the places of Dynamo's programs."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.contract.deployment import Deployment, Facts
from support.contract.shape import Shape
from support.observe.waiting import until
from support.targets.local.deployment import SYSTEM_PORT, LocalDeployment
from support.targets.local.network import own_ipv6
from support.targets.local.sabotage import SabotagedTarget

IPV6 = Path("/proc/net/if_inet6")
MARKER = Path(__file__).with_name("marker.py")
READY_SECONDS = 60.0


class MarkerDeployment(LocalDeployment):
    """A frontend and as many workers as the shape has; nobody but us asks them.

    Attributes:
        options: of the markers that stand for workers, and for the frontend; see :mod:`tests.lies.marker`.
    """

    facts = Facts(exact_tokens=False, only_user=False)
    options: tuple[list[str], list[str]] = ([], [])

    def start(self) -> None:
        """Start all of them and wait until they answer."""
        of_workers, of_frontend = self.options
        registry = self.site.scratch / "registry"
        registry.mkdir()
        for number in range(self.shape.workers):
            options = ["--worker", str(number + 1), *of_workers]
            self._start(f"marker-{number}", "worker", registry, options, gpus=1)
        self._start("frontend-0", "frontend", registry, of_frontend)

        def starting() -> str | None:
            seen = {name: each["state"] for name, each in self._agent.processes().items() if not each["ready"]}
            # The kernel looks for a second whether an address of IPv6 is free.
            seen |= {node.name: "without IPv6" for node in self.nodes if IPV6.exists() and not own_ipv6(node.name)}
            return str(seen) if seen else None

        until(starting, READY_SECONDS, "all markers answer")

    def _start(self, name: str, role: str, registry: Path, options: list[str], **more: Any) -> None:
        node = self._node(name, role, SYSTEM_PORT)
        argv = [sys.executable, "-S", str(MARKER), "--address", node.address, "--port", str(node.port)]
        argv += ["--registry", str(registry), *options]
        work = {"url": str(node.metrics_url), "metric": "work_total"}
        more |= {"ready": node.metrics_url, "progress": work, "log": str(self._log(node))}
        self._agent.run(node=node.name, argv=argv, env={"PATH": os.environ["PATH"]}, **more)


class MarkerTarget(SabotagedTarget):
    """Deploys markers; implements :class:`support.contract.target.Target`.

    Attributes:
        options: of the deployment that it makes.
    """

    options: tuple[list[str], list[str]] = ([], [])

    def _made(self, shape: Shape, watch: Callable[[Deployment], None]) -> LocalDeployment:
        made = MarkerDeployment(self._site, shape, watch)
        made.options = self.options
        return made
