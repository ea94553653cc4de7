"""Which pod is which node of a scenario."""

import threading
from collections.abc import Callable

from support.targets.kubernetes.api import Object


class Names:
    """A pod has the name of its node, or is one that a Deployment has made: those are numbered as they appear.

    A pod that takes the place of another one is a node of its own: ``ruler-worker-2`` after ``ruler-worker-1``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pods: dict[str, str] = {}
        self._nodes: dict[str, str] = {}
        self.appeared: Callable[[str], None] = lambda node: None
        """Called with the name of each new node."""

    def node(self, pod: Object) -> str:
        """Name of the node that a pod is."""
        name = str(pod["metadata"]["name"])
        if not any(each.get("kind") == "ReplicaSet" for each in pod["metadata"].get("ownerReferences", [])):
            return name
        with self._lock:
            if name in self._nodes:
                return self._nodes[name]
            made = f"{name.rsplit('-', 2)[0]}-{len(self._nodes)}"
            self._nodes[name], self._pods[made] = made, name
        self.appeared(made)
        return made

    def pod(self, node: str) -> str:
        """Name of the pod that a node is."""
        return self._pods.get(node, node)
