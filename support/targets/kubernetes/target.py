"""The target kubernetes: deployments in a namespace of a cluster, made for one scenario."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from support.contract.deployment import Deployment
from support.contract.fault_service import FaultService
from support.contract.shape import Shape
from support.contract.target import Injectors, WaitRecorder, Witness
from support.errors import DeploymentFailed, Inconclusive, Refused
from support.events import EventLog
from support.releases import Release
from support.settings import Settings
from support.targets.kubernetes import images
from support.targets.kubernetes.agents import ClusterFaults, NetworkFaults, NodeAgents, ObservedWitness
from support.targets.kubernetes.api import ApiServer, ClusterError
from support.targets.kubernetes.deployment import KubernetesDeployment, Premises
from support.targets.kubernetes.faults import PodFaults
from support.targets.kubernetes.manifests import Blueprint
from support.targets.kubernetes.names import Names
from support.targets.kubernetes.scope import Scope, reap, run_name
from support.targets.kubernetes.witness import PodWitness
from support.targets.local.waits import StarvationRecorder

DISCOVERIES = ("etcd", "kubernetes")


def discovery(shape: Shape, settings: Settings, release: Release) -> str:
    """How the parts of a deployment find each other: what the sentence says, else the settings, else Dynamo's own way
    from the release on that has it; what speaks of etcd has etcd.
    """
    if shape.discovery:
        return shape.discovery
    if settings.discovery != "auto":
        return settings.discovery
    about_etcd = shape.etcd_members > 1 or shape.lease_seconds is not None or shape.etcd_delay_seconds
    return "kubernetes" if release.kubernetes_discovery and not about_etcd else "etcd"


class ApiInjectors:
    """Implements :class:`support.contract.target.Injectors`; what breaks pods is the API server, which is not ours to
    break.
    """

    def kill(self) -> Iterator[str]:
        """See :class:`support.contract.target.Injectors`."""
        raise Inconclusive("on the target kubernetes the suite runs no injector that could be killed")

    def freeze(self) -> tuple[str, Callable[[], str | None]]:
        """See :class:`support.contract.target.Injectors`."""
        raise Inconclusive("on the target kubernetes the suite runs no injector that could be frozen")

    def pids(self) -> dict[str, int]:
        """See :class:`support.contract.target.Injectors`."""
        return {"behave": os.getpid()}


class KubernetesTarget:
    """Implements :class:`support.contract.target.Target`.

    Args:
        settings: which cluster, which namespace, which images.
        folder: of the scenario.

    Raises:
        ClusterError: the cluster cannot be reached.
    """

    faults: type[PodFaults] = PodFaults
    deployments: type[KubernetesDeployment] = KubernetesDeployment

    def __init__(self, settings: Settings, release: Release, folder: Path, events: EventLog) -> None:
        self._settings, self._release, self._folder, self._events = settings, release, folder, events
        self._cluster = ApiServer(settings.kubeconfig)
        self._scope = Scope(self._cluster, run_name(), folder.name, settings.namespace)
        self._faults = self.faults(self._cluster)
        self._made: KubernetesDeployment | None = None
        self._agents, namespace, self._names = NodeAgents(self._cluster), self._scope.namespace, Names()
        self._network = NetworkFaults(
            self._agents, self._cluster, namespace, lambda: self._made.nodes if self._made else [], self._names
        )
        self._by_agents = not self._agents.missing()
        self.service: FaultService = ClusterFaults(self._faults, self._network) if self._by_agents else self._faults
        self.injectors: Injectors = ApiInjectors()
        self.witness: Witness = PodWitness(self._cluster, namespace, self._names)
        if self._by_agents:
            self.witness = ObservedWitness(self._cluster, namespace, self._names, self._agents)

    def deploy(self, shape: Shape, watch: Callable[[Deployment], None] = lambda _: None) -> KubernetesDeployment:
        """See :class:`support.contract.target.Target`."""
        shape.check(self._release, DISCOVERIES)
        if shape.controller:
            shape = replace(shape, restart_policy="Always")
        if shape.etcd_delay_seconds:
            raise DeploymentFailed("on the target kubernetes Dynamo cannot start before etcd")
        for each in reap(self._cluster, self._settings.namespace):
            self._events.add("note", "", f"removed what an earlier run left behind: {each}")
        logs = self._folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        made: KubernetesDeployment | None = None
        try:
            if self._by_agents:
                self._agents.open()
            self._scope.open()
            programs, one_clock = images.find(self._settings, self._cluster, self._scope, self._memory())
            plan = Blueprint(shape, self._release, programs, discovery(shape, self._settings, self._release))
            text = f"namespace {self._scope.namespace} is there after {time.monotonic() - began:.2f} s"
            self._events.add("note", "", text)
            url = self._settings.frontend_url
            made = self._made = self.deployments(
                Premises(
                    self._cluster, self._scope, plan, logs, self._events, url, one_clock, self._names, self._let_go
                ),
                watch,
            )
            self._faults.take(made)
            made.start()
        except BaseException as error:
            left = self._clear(made)
            if left:
                error.add_note(f"left behind: {', '.join(left)}")
            raise
        return made

    def _let_go(self) -> None:
        """No rule of ours stays on a node when its pods go."""
        try:
            self._network.close()
        except Refused as error:
            self._events.add("note", "", f"a cut is left to the end of its lease: {error}")
        self._agents.close()

    def _clear(self, made: KubernetesDeployment | None) -> list[str]:
        try:
            return made.remove() if made is not None else self._scope.close()
        except ClusterError as error:
            return [str(error)]

    def _memory(self) -> Path:
        """What is found out once for all scenarios of a run lies with the run."""
        return Path(os.environ.get("FT_RUN_DIR", self._folder)) / "nodes.json"

    def watch_waits(self, file: Path) -> WaitRecorder:
        """See :class:`support.contract.target.Target`; the suite's own: loads, and the port that is forwarded."""
        return StarvationRecorder(os.getpid(), file)
