"""The kind of target that a Kubernetes cluster is."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from support import sabotage
from support.amounts import amount
from support.contract.target import Capability, Need, Target
from support.events import EventLog
from support.releases import Release
from support.settings import Settings
from support.targets.needs import NEEDS, known

NO_AGENT = "that needs an agent on the nodes, which does not exist yet"
BY_AGENTS = ("namespaces", "nftables")
"""What the agents on the nodes can do, where an administrator has put them."""
MISSING = {
    "tbf": "how much a pod can send is not measured yet",
    "netem": "how late packets of a pod arrive is not measured yet",
    "kmsg": f"nothing writes to the kernel log of a node: {NO_AGENT}",
    "cgroups": f"nothing limits a node: {NO_AGENT}",
    "strain": f"pods have no simulated GPUs: {NO_AGENT}",
    "gpu": "no real engines yet",
}
"""Name of a need -> why this target does not meet it."""


class KubernetesKind:
    """Dynamo on a cluster; implements :class:`support.contract.target.TargetKind`."""

    description = "a Kubernetes cluster"
    in_cells = False
    real = True
    needs: Mapping[str, Need] = {
        name: NEEDS[name] for name in NEEDS if name in (*MISSING, *BY_AGENTS, "cluster", "pods", "drains")
    }

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def capabilities(self, names: Iterable[str]) -> dict[str, Capability]:
        """See :class:`support.contract.target.TargetKind`."""
        pods = partial(Capability, "pods", True, "each node is one")
        found: dict[str, Callable[[], Capability]] = {
            "cluster": self._cluster,
            "pods": pods,
            "drains": self._drains,
        }
        wanted = known(names, self.needs)
        agents = self._agents() if any(name in BY_AGENTS for name in wanted) else None
        found |= {name: partial(Capability, name, *agents) for name in BY_AGENTS if agents}
        return {name: found[name]() if name in found else Capability(name, False, MISSING[name]) for name in wanted}

    def _cluster(self) -> Capability:
        # Not at the top: its client takes 0.4 s of CPU to load, which other targets have no use for.
        from support.targets.kubernetes.api import ApiServer, ClusterError

        try:
            cluster = ApiServer(self._settings.kubeconfig)
            return Capability("cluster", True, f"Kubernetes {cluster.version()} at {cluster.host}")
        except ClusterError as error:
            return Capability("cluster", False, str(error))

    def _drains(self) -> Capability:
        from support.targets.kubernetes.api import ApiServer, ClusterError
        from support.targets.kubernetes.images import schedulable

        wanted = (("patch", "nodes"), ("list", "nodes"), ("create", "pods/eviction"))
        try:
            cluster, where = ApiServer(self._settings.kubeconfig), self._settings.namespace or ""
            if lacking := [f"{verb} {what}" for verb, what in wanted if not cluster.may(verb, "", what, where)]:
                return Capability("drains", False, f"the account of KUBECONFIG may not {lacking[0]}")
            nodes = len(schedulable(cluster.list("Node")))
        except ClusterError as error:
            return Capability("drains", False, str(error))
        return Capability("drains", nodes > 1, f"{amount(nodes, 'node')} can have pods")

    def _agents(self) -> tuple[bool, str]:
        """Whether the agents on the nodes can be used, and why not."""
        from support.targets.kubernetes.agents import NAMESPACE, NodeAgents
        from support.targets.kubernetes.api import ApiServer, ClusterError

        try:
            missing = NodeAgents(ApiServer(self._settings.kubeconfig)).missing()
        except ClusterError as error:
            missing = str(error)
        return not missing, missing or f"by the agents in the namespace {NAMESPACE}"

    def missing(self) -> str:
        """See :class:`support.contract.target.TargetKind`: a cluster that answers."""
        found = self._cluster()
        return "" if found.available else found.detail

    def begin(self) -> None:
        """See :class:`support.contract.target.TargetKind`; there is nothing to be made ready."""

    def make(self, release: Release, folder: Path, events: EventLog) -> Target:
        """See :class:`support.contract.target.TargetKind`.

        Raises:
            ValueError: ``FT_SABOTAGE`` wants what is not broken on purpose here.
            ClusterError: the cluster cannot be reached.
        """
        from support.targets.kubernetes.target import KubernetesTarget

        if not any(sabotage.asked()):
            return KubernetesTarget(self._settings, release, folder, events)
        from support.targets.kubernetes import sabotage as broken

        broken.check()
        return broken.SabotagedCluster(self._settings, release, folder, events)
