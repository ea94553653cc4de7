"""One scenario's world: its deployment, what its clients do, what breaks, and how all of it ends.

Feature files reach it through the steps; Python programs use it through :mod:`support.api`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.contract.deployment import Deployment
from support.contract.target import Target
from support.judge.history import History
from support.observe.fleet import Fleet
from support.settings import Settings
from support.world.answers import Answers
from support.world.bystanders import Bystanders
from support.world.clients import Clients
from support.world.etcd import EtcdCluster
from support.world.faults import Faults
from support.world.injectors import InjectorFaults
from support.world.lifetimes import Lifetimes
from support.world.members import EtcdMembers
from support.world.pods import PodLives
from support.world.records import Records
from support.world.stage import Stage
from support.world.strikes import Strikes
from support.world.takeovers import Takeovers
from support.world.victims import Victims
from support.world.workload import Workload


class World:
    """Everything of one scenario; its parts say what they are.

    Args:
        settings: of the run.
        folder: of the scenario; made if missing.
        target: where Dynamo is to run; that of the settings if None.
    """

    def __init__(self, settings: Settings, folder: Path, target: Target | None = None) -> None:
        self.stage = Stage(settings, folder, target)
        self.clients = Clients(self.stage)
        members = EtcdMembers(self.stage)
        self.faults = Faults(self.stage, self.clients, Victims(self.stage, members))
        self.workload = Workload(self.stage, self.clients, self.faults)
        self.answers = Answers(self.stage, self.clients, self.faults, self.workload)
        self.etcd = EtcdCluster(self.stage, members, self.faults)
        self.takeovers = Takeovers(self.stage, self.clients)
        looks = self.answers, self.takeovers
        self.lifetimes = Lifetimes(self.stage, self.clients, *looks, self.faults, self.etcd)
        self.pods = PodLives(self.stage, self.faults)
        self.bystanders = Bystanders(self.stage, self.clients, self.answers, self.faults, self.workload)
        self.strikes = Strikes(self.stage, self.clients, self.answers, self.faults, self.workload)
        self.injectors = InjectorFaults(self.stage, self.faults)
        self.records = Records(self.stage, self.clients, self.faults, self.lifetimes)

    def deploy(self, **shape: Any) -> Deployment:
        """Make the scenario's deployment; see :meth:`support.world.stage.Stage.deploy`."""
        return self.stage.deploy(**shape)

    @property
    def deployment(self) -> Deployment:
        """The deployment of this scenario; Mistake: there is none yet."""
        return self.stage.deployment

    @property
    def fleet(self) -> Fleet:
        """The deployment as its own metrics and lists show it; Mistake: there is none yet."""
        return self.stage.fleet

    def close(self, give_up: bool, keep: Callable[[History], bool] | None = None) -> History:
        """End the scenario and return what was seen of it; see :meth:`support.world.records.Records.close`."""
        return self.records.close(give_up, keep)
