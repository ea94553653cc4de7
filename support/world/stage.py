"""What all parts of a scenario share: its settings, its records, and the deployment that it plays on."""

from pathlib import Path
from typing import Any

from support import releases, slowness, targets
from support.asking import ask
from support.contract.deployment import Deployment, Life, Node
from support.contract.shape import Shape
from support.contract.target import Target
from support.errors import Mistake, Unsupported
from support.events import EventLog
from support.observe.etcd_recorder import EtcdRecorder
from support.observe.fleet import Fleet
from support.observe.logs import tail
from support.observe.workers import worker_id
from support.requests.ledger import Ledger
from support.settings import Settings
from support.world.gate import Gates

ANSWER_SECONDS = 10.0


class Stage:
    """The place of one scenario; empty until its deployment is made.

    Args:
        settings: of the run.
        folder: of the scenario; made if missing.
        target: where Dynamo is to run; that of the settings if None.
    """

    def __init__(self, settings: Settings, folder: Path, target: Target | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.settings, self.folder = settings, folder
        self.release = releases.get(settings.dynamo)
        self.events = EventLog(folder / "events.jsonl")
        self.ledger = Ledger()
        self.target = target or targets.kind(settings).make(self.release, folder, self.events)
        self.recorder: EtcdRecorder | None = None
        self.first: dict[str, Life] = {}
        """Name of a node of Dynamo -> the life that it had when the deployment was ready."""
        self._deployment: Deployment | None = None
        self._fleet: Fleet | None = None
        self._gate: Gates | None = None
        self._lease_asked: float | None = None

    @property
    def logs(self) -> Path:
        """Folder with the logs of all nodes and the journals of the ruler's workers."""
        return self.folder / "logs"

    @property
    def deployed(self) -> bool:
        """Whether there is a deployment."""
        return self._deployment is not None

    @property
    def deployment(self) -> Deployment:
        """The deployment of this scenario.

        Raises:
            Mistake: there is none yet.
        """
        if self._deployment is None:
            message = "there is no deployment yet; begin with a sentence such as "
            raise Mistake(message + "'Given a Dynamo deployment with 2 vllm workers'")
        return self._deployment

    @property
    def has_fleet(self) -> bool:
        """Whether the deployment came as far as being looked at."""
        return self._fleet is not None

    @property
    def fleet(self) -> Fleet:
        """The deployment as its own metrics and lists show it; there is one as soon as there is a deployment."""
        if self._fleet is None:
            raise Mistake("there is no deployment yet to look at")
        return self._fleet

    @property
    def gate(self) -> Gates:
        """What holds answers of the ruler engine in their middle; there is one as soon as there is a deployment."""
        if self._gate is None:
            raise Mistake("there is no deployment yet whose answers could be held")
        return self._gate

    @property
    def etcd_recorder(self) -> EtcdRecorder:
        """Who watches the etcd members; there is one as soon as a deployment is being made."""
        if self.recorder is None:
            raise Mistake("there is no deployment yet, hence no etcd")
        return self.recorder

    @property
    def engine(self) -> str:
        """Engine of the deployment, empty while there is none."""
        return self._deployment.shape.engine if self._deployment else ""

    def let_go(self) -> None:
        """Let answers that are held go on to their end: from now on the scenario is about what becomes of them."""
        if self._gate is not None:
            self._gate.open()

    def tail(self, node: Node, lines: int) -> str:
        """The last lines of what a node's processes wrote."""
        return tail(self.logs / f"{node.name}.log", lines)

    def nodes(self, role: str) -> list[Node]:
        """The nodes in a role, in the order of their names."""
        return [node for node in self.deployment.nodes if node.role == role]

    @property
    def lease_seconds(self) -> float:
        """How long the registration of a dead worker is to live in the deployment that the scenario asked for."""
        return (self._lease_asked if self.release.lease_setting else None) or self.release.lease_seconds

    def deploy(self, **shape: Any) -> Deployment:
        """Make the scenario's deployment; the arguments are those of :class:`support.contract.shape.Shape`.

        Raises:
            Unsupported, DeploymentFailed: see there.
            Mistake: there is one already, or there can be none of this shape.
        """
        if self._deployment is not None:
            raise Mistake("there is already a deployment; a scenario has only one")
        shape.setdefault("request_plane", self.settings.request_plane)
        self._lease_asked = Shape(**shape).lease_seconds
        try:
            self._deployment = self.target.deploy(Shape(**shape), self._watch_etcd)
        finally:
            if self.recorder and self._deployment is None:
                self.recorder.stop()
        deployment = self._deployment
        # It starts beside the deployment; a fault that is ordered later may not have to wait for that.
        self.target.service.health()
        self.first = {node.name: deployment.life(node) for node in deployment.dynamo}
        self._fleet = Fleet(deployment, self.release, self.events, self.folder / "metrics")
        self._gate = Gates(deployment, self.events)
        slowness.begin()
        return deployment

    def set_busy_threshold(self, percent: float) -> None:
        """Tell the frontend from which share of its memory on a worker is busy; with all busy it refuses requests.

        Raises:
            Unsupported: the release does not do that.
            RuntimeError: the frontend does not take the order.
        """
        if not self.release.refuses_when_busy:
            raise Unsupported(self.release.version, "busy threshold")
        frontend = self.nodes("frontend")[0]
        wanted = {"model": self.deployment.model, "active_decode_blocks_threshold": percent / 100}
        answer = ask(f"http://{frontend.endpoint}/busy_threshold", ANSWER_SECONDS, "POST", wanted)
        if answer.status != 200 or answer.json().get("active_decode_blocks_threshold") != percent / 100:
            said = f"HTTP {answer.status}, {answer.text}"
            raise RuntimeError(f"the frontend did not accept the busy threshold {wanted}: {said}")
        self.events.add("note", frontend.name, f"a worker counts as busy once {percent:g} % of its memory is in use")

    def _watch_etcd(self, deployment: Deployment) -> None:
        def holders() -> dict[str, str]:
            ids = {worker_id(node): node.name for node in deployment.workers}
            return {number: name for number, name in ids.items() if number}

        members = [node for node in deployment.nodes if node.role == "etcd"]
        self.recorder = EtcdRecorder(members, self.events, holders)
