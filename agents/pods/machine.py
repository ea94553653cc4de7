"""The pods of this machine as its kernel shows them: their processes and network namespaces.

The agent sees the pids of the machine (hostPID). The control group of a process says whose it is: its path has the UID
of the pod and the id of the container; the network of the machine is that of its process 1.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.core.faults import Problem
from agents.core.kernel import stat_of
from agents.host.pods import Pod, cgroup_of, names
from agents.network.cuts import CABLE
from agents.network.netlink import KERNEL_SECONDS, Bench

Identity = tuple[int, int]
"""Pid and start time."""
MACHINE = Path("/proc/1/ns/net")
ROLE = "fault-tolerance.dynamo/role"
"""Label of a pod that has a role in a deployment; of the operator's pods it is :data:`COMPONENT`."""
COMPONENT = "nvidia.com/dynamo-component-type"


def processes_of(container: str) -> list[Identity]:
    """The processes of a container, the oldest first; no zombies."""
    found = []
    for pid in _pids():
        if container in cgroup_of(pid) and (stat := stat_of(pid)) and stat[0] not in "ZX":
            found.append((pid, stat[1]))
    return sorted(found, key=lambda each: (each[1], each[0]))


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


class PodLinks:
    """The pods as nodes that can be cut off; implements :class:`agents.network.cuts.Links`.

    A namespace is held open for as long as the pod is on this machine, and found again by the UID of the pod: an agent
    that comes after this one, and cannot ask the API, still knows what is to be undone.

    Args:
        record: file with what was known last.
        name: of this machine.
        network: file of its network namespace.
    """

    namespaces = True

    def __init__(self, record: Path, name: str, network: Path = MACHINE) -> None:
        self._record, self._name = record, name
        self.pods: dict[str, Pod] = {}
        self._files: dict[str, tuple[str, int]] = {}
        self.bridge: int | None = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
        with contextlib.suppress(OSError, ValueError, TypeError):
            content: list[dict[str, Any]] = json.loads(record.read_text(encoding="utf-8"))
            self.pods = {each["name"]: Pod(**each) for each in content}

    def update(self, pods: Mapping[str, Pod]) -> None:
        """Know of these pods from now on."""
        self.pods = dict(pods)
        draft = self._record.with_suffix(".new")
        with contextlib.suppress(OSError):  # on a full disk the next agent asks the API
            draft.write_text(json.dumps([asdict(pod) for pod in self.local]), encoding="utf-8")
            draft.replace(self._record)

    @property
    def local(self) -> list[Pod]:
        """Those on this machine."""
        return [pod for pod in self.pods.values() if pod.node == self._name]

    @property
    def files(self) -> Mapping[str, int]:
        """Name of each pod on this machine with a network namespace of its own -> open file of it."""
        pids = {pid: cgroup for pid in _pids() if (cgroup := cgroup_of(pid))}
        for pod in self.local:
            known = self._files.get(pod.name)
            if known is None or known[0] != pod.uid:
                self._forget(pod.name)
                with contextlib.suppress(StopIteration, OSError):
                    pid = next(pid for pid, cgroup in pids.items() if names(cgroup, pod))
                    self._files[pod.name] = pod.uid, os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        for name, (uid, _) in list(self._files.items()):
            if name not in self.pods or not any(uid in each or uid.replace("-", "_") in each for each in pids.values()):
                self._forget(name)
        assert self.bridge is not None
        shared = os.fstat(self.bridge).st_ino
        return {name: fd for name, (_, fd) in self._files.items() if os.fstat(fd).st_ino != shared}

    def _forget(self, name: str) -> None:
        if name in self._files:
            os.close(self._files.pop(name)[1])

    @property
    def addresses(self) -> Mapping[str, str]:
        """Name -> IPv4 address of all pods that have one."""
        return {pod.name: pod.address for pod in self.pods.values() if pod.address}

    def roles(self) -> dict[str, str]:
        """Name -> role of all pods; ``pod`` where they have none."""
        return {pod.name: role(pod) for pod in self.pods.values()}

    def link(self, name: str) -> str:
        """Name of the other end of a pod's cable on this machine.

        Raises:
            Problem: 501, its cable does not end here.
        """
        index = _ask(self.files[name], lambda route: route.get_links(ifname=CABLE)[0].get_attr("IFLA_LINK"))
        found = _ask(self.bridge, lambda route: [each.get_attr("IFLA_IFNAME") for each in route.get_links(index)])
        if not found:
            raise Problem(501, "Not here", f"the network link of {name!r} does not end on this machine")
        return str(found[0])


def _ask(namespace: int | None, question: Callable[[Any], Any]) -> Any:
    """What the kernel answers in a network namespace."""
    from pyroute2 import IPRoute  # 0.5 s of CPU: only where it is used

    def ask() -> Any:
        with IPRoute() as route:
            return question(route)

    bench = Bench(namespace)
    try:
        return bench.submit(ask).result(KERNEL_SECONDS)
    finally:
        bench.close()


def role(pod: Pod) -> str:
    """What a pod is to a deployment of Dynamo; ``pod`` where nothing says so."""
    return pod.labels.get(ROLE) or pod.labels.get(COMPONENT) or "pod"


def container_of(pods: Mapping[str, Pod], target: str) -> tuple[Pod, str]:
    """The pod that ``NAMESPACE/POD`` or ``NAMESPACE/POD/CONTAINER`` names, and the id of its container.

    Raises:
        Problem: 404, no such pod or container; 409, the container does not run.
    """
    name, wanted = "/".join(target.split("/")[:2]), "/".join(target.split("/")[2:])
    pod = pods.get(name)
    if pod is None:
        known = ", ".join(sorted(pods)) or "none"
        raise Problem(404, "Unknown target", f"no pod {name!r} on this machine; known: {known}")
    wanted = wanted or pod.main
    if wanted not in pod.containers:
        running = ", ".join(pod.containers) or "none"
        raise Problem(409, "Not running", f"{name!r} runs no container {wanted!r}; running: {running}")
    return pod, pod.containers[wanted]
