"""The target kubernetes with a driver that lies, or on a cluster that is not what it should be."""

from collections.abc import Callable

from agents.sabotage import marks
from support.contract.deployment import Deployment, Node
from support.contract.shape import Shape
from support.sabotage import asked
from support.targets.kubernetes.api import Object
from support.targets.kubernetes.deployment import KubernetesDeployment
from support.targets.kubernetes.faults import PodFault, PodFaults, Pods
from support.targets.kubernetes.target import KubernetesTarget
from support.targets.local.sabotage import SHAPES, changed

INJECTORS = ("does-nothing", "hits-another")
"""Of ``FT_SABOTAGE=injector=KIND`` those that this target knows."""
CLUSTERS = ("leads-to-nobody", "probes-succeed")
"""``FT_SABOTAGE=cluster=KIND``: from the first fault on the Service of the workers has no endpoint; readiness probes of
workers always succeed.
"""
NOBODY = {"nobody": "has-this-label"}


def check() -> None:
    """Refuse what is not broken on purpose here.

    Raises:
        ValueError: says what is.
    """
    kinds = {"injector": INJECTORS, "cluster": CLUSTERS, "shape": tuple(SHAPES)}
    kind, value = asked()
    if kind != "migration-limit" and value not in kinds.get(kind, ()):
        known = ", ".join(f"{name}={each}" for name, values in kinds.items() for each in values)
        raise ValueError(f"FT_SABOTAGE is {kind}={value}; the target kubernetes knows migration-limit=N, {known}")


class LyingFaults(PodFaults):
    """Makes other faults than were ordered, or something beside them."""

    def _make(self, kind: str, fault: PodFault, pods: Pods, node: Node) -> None:
        if asked() == ("injector", "does-nothing"):
            marks.leave(f"the fault {kind} is not made")
            return
        if asked() == ("injector", "hits-another"):
            named, node = node.name, next(each for each in pods.nodes if each.role == node.role and each != node)
            marks.leave(f"{node.name} is hit, not {named}")
        super()._make(kind, fault, pods, node)
        if asked() == ("cluster", "leads-to-nobody"):
            self._cluster.patch("Service", pods.namespace, "workers", {"spec": {"selector": NOBODY}})
            marks.leave("the Service of the workers has no endpoint")


class SabotagedPods(KubernetesDeployment):
    """Its workers have readiness probes that always succeed, where that is wanted."""

    def _place(self, manifest: Object, role: str, port: int, gate: bool = False) -> Node:
        if asked() == ("cluster", "probes-succeed") and role != "frontend":
            probe = manifest["spec"]["containers"][0]["readinessProbe"]
            probe |= {"exec": {"command": ["true"]}}
            probe.pop("httpGet", None)
            marks.leave(f"the readiness probe of {manifest['metadata']['name']} always succeeds")
        return super()._place(manifest, role, port, gate)


class SabotagedCluster(KubernetesTarget):
    """The target as ``FT_SABOTAGE`` wants it."""

    faults, deployments = LyingFaults, SabotagedPods

    def deploy(self, shape: Shape, watch: Callable[[Deployment], None] = lambda _: None) -> KubernetesDeployment:
        """See :class:`support.contract.target.Target`; the deployment is another than the one that was asked for."""
        kind, value = asked()
        if kind == "migration-limit":
            shape = changed(shape, migration_limit=int(value))
        if kind == "shape":
            shape = changed(shape, **SHAPES[value])
        return super().deploy(shape, watch)
