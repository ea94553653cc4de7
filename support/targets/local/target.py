"""The local target: deployments in the cell that this process runs in."""

import os
from collections.abc import Callable
from pathlib import Path

from support.contract.deployment import Deployment
from support.contract.shape import Shape
from support.contract.target import Injectors, WaitRecorder, Witness
from support.events import EventLog
from support.releases import Release
from support.settings import Settings
from support.targets.local.agent import Agent, fault_service_of_this_cell
from support.targets.local.deployment import LocalDeployment, Site
from support.targets.local.injectors import LocalInjectors
from support.targets.local.waits import StarvationRecorder
from support.targets.local.witness import LocalWitness


class LocalTarget:
    """Makes deployments through the node agent of this cell; implements :class:`support.contract.target.Target`.

    Args:
        settings: programs to use.
        release: what differs in the release under test.
        folder: of the scenario.
        events: gets a note per step of a boot.

    Raises:
        RuntimeError: this process runs in no cell.
    """

    def __init__(self, settings: Settings, release: Release, folder: Path, events: EventLog) -> None:
        self._agent = Agent.of_this_cell()
        self._site = Site(settings, release, folder / "logs", Path(os.environ["FT_SCRATCH"]), events, self._agent)
        self.service = fault_service_of_this_cell()
        self.injectors: Injectors = LocalInjectors(self._agent, self.service)
        self.witness: Witness = LocalWitness(self._agent, os.environ["FT_SCRATCH"])

    def deploy(self, shape: Shape, watch: Callable[[Deployment], None] = lambda _: None) -> LocalDeployment:
        """See :class:`support.contract.target.Target`."""
        shape.check(self._site.release)
        self._site.logs.mkdir(parents=True, exist_ok=True)
        deployment = self._made(shape, watch)
        try:
            deployment.start()
        except BaseException:
            deployment.remove()
            raise
        return deployment

    def _made(self, shape: Shape, watch: Callable[[Deployment], None]) -> LocalDeployment:
        """One that is still to be started."""
        return LocalDeployment(self._site, shape, watch)

    def watch_waits(self, file: Path) -> WaitRecorder:
        """See :class:`support.contract.target.Target`; all of the cell is below its first process, our parent."""
        return StarvationRecorder(os.getppid(), file)
