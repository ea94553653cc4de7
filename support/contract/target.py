"""A target: a place where Dynamo can run, what can be done there, who breaks things there, and who sees it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from support.amounts import amount
from support.contract.deployment import Deployment, Life, Node
from support.contract.fault_service import FaultService
from support.contract.shape import Shape
from support.errors import Inconclusive
from support.events import EventLog
from support.releases import Release


@dataclass(frozen=True)
class Wait:
    """A spell in which a process could have run and did not.

    Attributes:
        since, until: a look and the one after it, on :mod:`support.clock`.
        who: the process, in words.
        seconds: how long one of its threads waited for a processor between them.
    """

    since: float
    until: float
    who: str
    seconds: float


@dataclass(frozen=True)
class PodSeen:
    """What a cluster shows of the pod of a life.

    Attributes:
        there: whether that very pod is there; another one of its name is none.
        leaving: whether it was told to end.
        ready: whether its kubelet says that it can serve.
        routed: whether a Service leads new requests to it.
        machine: name of the cluster's node that it is on.
    """

    there: bool = False
    leaving: bool = False
    ready: bool = False
    routed: bool = False
    machine: str = ""

    @property
    def serves(self) -> bool:
        """Whether it is whole, and found by those who look for one that serves."""
        return self.ready and self.routed and not self.leaving

    def __str__(self) -> str:
        if not self.there:
            return "its pod is gone" + (", and a Service leads to it" if self.routed else "")
        states = ["leaving" if self.leaving else "there", "ready" if self.ready else "not ready"]
        return f"its pod is {', '.join(states)}, {'a' if self.routed else 'no'} Service leads to it"


@dataclass(frozen=True)
class SetsSeen:
    """What a cluster shows of the ReplicaSets that have the pods of workers.

    Attributes:
        current: name of the one with the pods that are wanted now; empty while the last order was seen by nobody.
        pods: name of each -> how many pods it has; ``ready``: how many of them can serve.
    """

    current: str = ""
    pods: Mapping[str, int] = field(default_factory=dict)
    ready: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        told = (f"{name} has {amount(number, 'pod')}, {self.ready[name]} ready" for name, number in self.pods.items())
        return ", ".join(told)


@dataclass(frozen=True)
class MachineSeen:
    """What a cluster shows of one of its nodes.

    Attributes:
        cordoned: whether it takes no new pods.
        workers: pods of workers that are on it, by the names of the suite's nodes.
    """

    cordoned: bool = False
    workers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"it is {'' if self.cordoned else 'not '}cordoned, with {', '.join(self.workers) or 'no worker'} on it"


class WaitRecorder(Protocol):
    """Watches who waits for a processor, from its making on."""

    def close(self) -> list[Wait]:
        """Look once more; returns all waits, oldest first."""


class Line(Protocol):
    """A TCP connection between two nodes, to measure with; ends with its ``with``."""

    def __enter__(self) -> "Line": ...

    def __exit__(self, *_: object) -> None: ...

    def seconds(self, size: int, timeout: float) -> float | None:
        """How long ``size`` bytes take; None when they are not all there within ``timeout`` seconds."""


class KernelLog(Protocol):
    """The kernel log of a node's machine from its opening on; ends with its ``with``."""

    def xids(self, pci: str) -> list[int]:
        """Numbers of the XID errors of the GPU at ``pci`` (``dddd:bb:dd``) so far."""


class NoPods:
    """What a witness says of pods on a target that has none."""

    def pod(self, life: Life) -> PodSeen:
        """See :class:`Witness`."""
        raise Inconclusive(f"{life.node} is not a pod; only the target kubernetes has them")

    def replica_sets(self) -> SetsSeen:
        """See :class:`Witness`."""
        raise Inconclusive("there are no ReplicaSets; only the target kubernetes has them")

    def machine(self, name: str) -> MachineSeen:
        """See :class:`Witness`."""
        raise Inconclusive("there is no cluster; only the target kubernetes has one")


class Witness(Protocol):
    """Sees what has become of nodes, independently of whoever breaks them. Changes nothing."""

    def state(self, life: Life) -> str:
        """``gone`` (that very run is over), ``stopped`` (it may not run) or ``alive``: all of it, with whatever it has
        started, for a process of it that goes on is ``alive``.
        """

    def pod(self, life: Life) -> PodSeen:
        """What the cluster shows of the pod of a life; Inconclusive: there are no pods."""

    def replica_sets(self) -> SetsSeen:
        """What the cluster shows of the ReplicaSets of the workers; Inconclusive: there are none."""

    def machine(self, name: str) -> MachineSeen:
        """What the cluster shows of one of its nodes; Inconclusive: there are none."""

    def lost_between(self, peer: Node, victim: Node, packets: int = 1) -> dict[str, int]:
        """How many of ``packets`` packets ``to`` the victim, and as many ``from`` it, are lost. Where a program on one
        could reach the other over IPv6 as well, ``to over IPv6`` and ``from over IPv6`` say so of that; the other two
        are of IPv4.
        """

    def connects(self, source: Node, destination: Node) -> dict[str, str]:
        """``IPv4``, and ``IPv6`` where one could reach the other over it -> what a new TCP connection to the port of a
        node meets: ``open``, ``refused`` or ``silent``.
        """

    def line(self, source: Node, destination: Node, timeout: float) -> Line:
        """A connection that is there already; OSError: there is none within ``timeout`` seconds."""

    def kernel_log(self, node: Node) -> AbstractContextManager[KernelLog]:
        """What the kernel of a node's machine logs from now on."""

    def telemetry(self, node: Node) -> dict[str, Any]:
        """What a node's first GPU tells of itself."""


class Injectors(Protocol):
    """The programs that break things, for scenarios in which they are what breaks.

    Raises:
        Inconclusive: one has ended, or another has taken its place, before it could be hit.
    """

    def kill(self) -> Iterator[str]:
        """Kill one after the other; each is told in words as soon as it is dead. Others take their places."""

    def freeze(self) -> tuple[str, Callable[[], str | None]]:
        """Stop the one that undoes faults; returns it in words, and a probe of its state: None once it is stopped."""

    def pids(self) -> dict[str, int]:
        """Name -> pid of those that run on this machine, and of this process."""


class Target(Protocol):
    """A place where Dynamo can run, for one scenario.

    Attributes:
        service: breaks things; ``injectors``: the programs behind it.
        witness: sees them broken.
    """

    service: FaultService
    injectors: Injectors
    witness: Witness

    def deploy(self, shape: Shape, watch: Callable[[Deployment], None] = ...) -> Deployment:
        """Make a deployment and wait until it serves. What its processes write goes to ``logs/`` in the folder of the
        scenario at once: ``NAME.log``, and ``NAME.journal.jsonl`` of a worker of the ruler engine.

        Args:
            watch: called as soon as the members of its etcd cluster start.

        Raises:
            ValueError: the shape makes no sense.
            Unsupported: the release under test, or the target, cannot do it.
            DeploymentFailed: it did not come up; nothing of it is left.
        """

    def watch_waits(self, file: Path) -> WaitRecorder:
        """Note from now on who of Dynamo and the suite waits for a processor; ``file`` gets a line of JSON for each."""


@dataclass(frozen=True)
class Need:
    """Something that may be needed of a target.

    Attributes:
        words: what a skipped scenario needs, such as ``a GPU``.
        title: what the doctor calls it, such as ``GPU``.
        needed_for: what for.
        tag: of the scenarios that are skipped where it is missing; empty: none is.
        only: name of the one target that can have it; empty: others can.
    """

    words: str
    title: str
    needed_for: str
    tag: str = ""
    only: str = ""


class Capability(NamedTuple):
    """What a target says to a need: its ``name``, whether it is ``available``, and in ``detail`` what was found."""

    name: str
    available: bool
    detail: str


class TargetKind(Protocol):
    """A kind of target under the settings of a run: what it can do is known before anything is deployed.

    Attributes:
        description: where that is, in words.
        in_cells: whether its scenarios run in cells of this machine (:mod:`support.run.cells`).
        real: whether Dynamo itself runs there, whose known defects have to show.
        needs: name -> what may be needed of it.
    """

    description: str
    in_cells: bool
    real: bool
    needs: Mapping[str, Need]

    def capabilities(self, names: Iterable[str]) -> dict[str, Capability]:
        """Its answers to some of its :attr:`needs`; looks for them and changes nothing.

        Raises:
            ValueError: a name that is none of these.
        """

    def missing(self) -> str:
        """What it lacks to run anything at all, in a sentence that says what to do; empty: nothing."""

    def begin(self) -> None:
        """Make this process ready for it, once, before it waits for anything."""

    def make(self, release: Release, folder: Path, events: EventLog) -> Target:
        """The target itself, for the scenario in ``folder``; ``events`` gets a note per step of a boot."""
