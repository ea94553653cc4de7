"""The pod agent: breaks the pods on the machine that it runs on, when asked, and gives them back.

It is a DaemonSet with the pids (hostPID) and the network (hostNetwork) of its machine
(``agents/manifests/pod-fault-injector.yaml``), and to the fault service a deployment for each machine. A pod is a
target of the agent on its own machine; pods elsewhere are known as the other side of a cut.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.host.agent import HostAgent, HostSettings
from agents.host.pods import Api, Pod
from agents.network.cuts import CutDriver
from agents.pods.driver import PodProcessDriver
from agents.pods.machine import MACHINE, PodLinks, role

RECORD = "pods.json"


class PodAgent(HostAgent):
    """State and actions behind the HTTP API.

    Args:
        network: file of the network namespace of the machine.
    """

    called = "pod agent"
    everywhere = True

    def __init__(self, settings: HostSettings, api: Api | None = None, network: Path = MACHINE) -> None:
        self._links = PodLinks(settings.state / RECORD, settings.name, network)
        super().__init__(settings, [PodProcessDriver(self._local), CutDriver(self._links)], api)

    def _local(self) -> Mapping[str, Pod]:
        return {pod.name: pod for pod in self._links.local}

    async def look(self) -> None:
        """Ask again which pods there are; while the API cannot be asked, those of the last time are known."""
        await super().look()
        if self.api is not None and not self.trouble:
            self._links.update(self.pods)

    async def nodes(self) -> list[dict[str, Any]]:
        """The pods on this machine."""
        return [
            {"name": pod.name, "role": role(pod), "address": pod.address, "state": pod.phase.lower(), "gpus": []}
            for pod in self._links.local
        ]

    def about(self) -> str:
        """How many pods there are, or why it knows of none."""
        return self.trouble or f"pods: {len(self._links.local)}"
