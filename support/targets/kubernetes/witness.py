"""What the kubelets and the kernels of the nodes show of pods, asked independently of whoever breaks them."""

from contextlib import AbstractContextManager
from typing import Any, NoReturn, cast

from support.contract.deployment import Life, Node
from support.contract.target import KernelLog, Line
from support.errors import Inconclusive
from support.targets.kubernetes import shell
from support.targets.kubernetes.api import ApiServer, ClusterError, Object
from support.targets.kubernetes.lives import main_status
from support.targets.kubernetes.manifests import MAIN


def over(life: Life, pod: Object | None) -> bool:
    """Whether a life is over, as the API server has it: its pod is gone or another, or its container has ended."""
    uid, container = cast(tuple[str, str | None], life.identity)
    if pod is None or pod["metadata"]["uid"] != uid or container is None:
        return True
    status = main_status(pod)
    return status.get("containerID") != container or "running" not in status.get("state", {})


class PodWitness:
    """Sees the pods of a scenario; implements :class:`support.contract.target.Witness`."""

    def __init__(self, cluster: ApiServer, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace

    def state(self, life: Life) -> str:
        """The kubelet says whether that very container runs; whether its processes may run, the kernel of its node."""
        if over(life, self._cluster.get("Pod", self._namespace, life.node)):
            return "gone"
        try:
            said = self._cluster.run_in(self._namespace, life.node, MAIN, shell.LOOK)
        except ClusterError:
            if over(life, self._cluster.get("Pod", self._namespace, life.node)):
                return "gone"
            return "alive"  # of one that is on its way out nobody else can tell
        return "stopped" if shell.stopped(said) else "alive"

    def _blind(self, what: str) -> NoReturn:
        raise Inconclusive(f"the target kubernetes cannot see {what} yet: that needs an agent on the node")

    def lost_between(self, peer: Node, victim: Node, packets: int = 1) -> dict[str, int]:
        """See :class:`support.contract.target.Witness`."""
        self._blind("packets between pods")

    def connects(self, source: Node, destination: Node) -> dict[str, str]:
        """See :class:`support.contract.target.Witness`."""
        self._blind("connections between pods")

    def line(self, source: Node, destination: Node, timeout: float) -> Line:
        """See :class:`support.contract.target.Witness`."""
        self._blind("connections between pods")

    def kernel_log(self, node: Node) -> AbstractContextManager[KernelLog]:
        """See :class:`support.contract.target.Witness`."""
        self._blind("the kernel log of a node")

    def telemetry(self, node: Node) -> dict[str, Any]:
        """See :class:`support.contract.target.Witness`."""
        self._blind("the GPU of a node")
