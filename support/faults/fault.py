"""A fault as a value: what breaks, whose, how badly and for how long.

Each kind is a class of its own, which says all that there is to say of it: its words in sentences, tables, YAML and the
API of the fault service, what it needs, how it is ordered, how it is seen to bite and to be over. The modules of this
package hold them, and :mod:`support.faults.registry` lists them; docs/adding-a-fault.md says how to add one.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar

from support.clock import now
from support.contract.deployment import Deployment, Life, Node
from support.contract.fault_service import FaultService
from support.contract.target import Witness
from support.events import EventLog
from support.faults.victims import Victim

LEASE_SECONDS = 300.0


@dataclass(frozen=True)
class Ground:
    """Where a fault strikes, and who sees it.

    Attributes:
        rate: tokens per second that clients have received over the given number of seconds up to now.
    """

    service: FaultService
    witness: Witness
    deployment: Deployment
    events: EventLog
    rate: Callable[[float], float]


@dataclass(frozen=True)
class Ordered:
    """A fault that the service says is done.

    Attributes:
        nodes: the victims.
        before: what :meth:`Fault.look` saw of them.
        made: the fault as the service has it.
        at: when it was asked for; ``done_at``: when the service said that it is done.
        loaded: whether a load was still asking then.
    """

    nodes: Sequence[Node]
    before: Any
    made: dict[str, Any]
    at: float
    done_at: float
    loaded: bool = False


@dataclass(frozen=True)
class Proof:
    """What has shown that a fault bites.

    Attributes:
        at: when; ``words``: for the events.
        life: the run of the victim's program that was hit; None for a fault that hits no process.
        details: what the recovery has to be compared with.
    """

    at: float
    words: str
    life: Life | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Healing:
    """What shows that a fault is over.

    Attributes:
        broken: says what is still wrong; None once nothing is.
        what: what is waited for; ``words``: for the events, once it is so.
    """

    broken: Callable[[], str | None]
    what: str
    words: str


@dataclass(frozen=True)
class Fault:
    """One deliberate damage that is to be done; subclasses are the kinds, and have their strength as further fields.

    Attributes:
        victim: who is hit.
        lease_seconds: it is undone by then at the latest.
        name: what events and Python programs call the kind.
        failure: its type in YAML; empty: no kind of its own.
        word: in sentences and tables, ``crashes``; empty: a sentence of its own, and :attr:`failure` in tables.
        did: what it did to its victim, ``crashed``, for events and reports; a kind that says more has its own
            :meth:`describe`.
        family: of the fault service's API; ``types``: those that are ordered there, one that is called :attr:`name`
            where nothing else is said.
        needs: capabilities of the machine without which it cannot be had, as tags ``@needs.NAME`` of a scenario.
        workers_only: whether its target in a table or YAML has to be a worker.
        setting: setting of the deployment without which it cannot be had, and the value; two empty texts: none.
        dynamo_only: whether its target has to be a part of Dynamo: no etcd member, not NATS.
        ends_process: whether the victim's process ends; its undo would start it again.
        drawn: what random faults of this kind are called, ``crashes``; empty: none are. It has to be undone as soon as
            it is over.
        urgent: whether, from order to proof, we go before everything else on the machine.
        holds_answers: whether answers of the ruler engine that the victim serves are held before their end meanwhile.
        side_by_side: whether several victims are hit at once, by a fault each; else one after the other.
        healing_seconds: how long its end may take to show.
        tells_undone: whether events say when it is undone by a call; else only when it is seen to be over.
    """

    victim: Victim
    lease_seconds: float = field(default=LEASE_SECONDS, kw_only=True)

    name: ClassVar[str] = ""
    failure: ClassVar[str] = ""
    word: ClassVar[str] = ""
    did: ClassVar[str] = ""
    family: ClassVar[str] = ""
    types: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    workers_only: ClassVar[bool] = False
    setting: ClassVar[tuple[str, str]] = ("", "")
    dynamo_only: ClassVar[bool] = False
    ends_process: ClassVar[bool] = False
    drawn: ClassVar[str] = ""
    urgent: ClassVar[bool] = False
    holds_answers: ClassVar[bool] = False
    side_by_side: ClassVar[bool] = False
    healing_seconds: ClassVar[float] = 5.0
    tells_undone: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls) and "types" not in vars(cls):
            cls.types = (cls.name,)

    @property
    def kind(self) -> str:
        """What it is called among all faults: :attr:`name`, or something that says more."""
        return self.name

    @property
    def hits_process(self) -> bool:
        """Whether it is aimed at the victim's process, or ends it."""
        return self.family == "process" or self.ends_process

    def groups(self, nodes: Sequence[Node]) -> list[list[Node]]:
        """The victims of each order to the fault service: one each."""
        return [[node] for node in nodes]

    def look(self, ground: Ground, nodes: Sequence[Node], until_proven: ExitStack) -> Any:
        """See what has to be compared afterwards; what is watched with from now on ends with ``until_proven``.

        Raises:
            Inconclusive: the fault could not be proven.
        """

    def unsound(self, ground: Ground, nodes: Sequence[Node], before: Any) -> str | None:
        """What of the victims looks like the fault before it is ordered, in words; None: they are sound. What shows
        already would prove nothing afterwards, and a witness who sees nothing takes everybody for broken.
        """
        raise NotImplementedError

    def order(self, nodes: Sequence[Node], before: Any) -> dict[str, Any]:
        """The body for the fault service, without the lease."""
        raise NotImplementedError

    def describe(self, ordered: Ordered) -> str:
        """What it did, a sentence without its full stop that events and reports tell: ``vllm-worker-0 crashed``."""
        return f"{ordered.nodes[0].name} {self.did}"

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """Return once the victims show it.

        Raises:
            Inconclusive: they do not.
        """
        raise NotImplementedError

    def lapsed(self, ground: Ground, proven: "ProvenFault") -> str | None:
        """What shows that it is over before its time, in words; None while it is in force."""
        raise NotImplementedError

    def healing(self, ground: Ground, proven: "ProvenFault") -> Healing:
        """How the victims show that it is over, whoever has ended it."""
        raise NotImplementedError


@dataclass(frozen=True)
class ProvenFault:
    """A fault that was seen to bite.

    Attributes:
        id: the fault service's id of it.
        fault: what was ordered.
        node: the victim, of several the first; ``others``: all further ones.
        injected_at: when it was asked for; ``done_at``: when the service said that it is done; ``proven_at``: when
            the victim was seen to suffer it; ``struck_at``: when the injector sent its signal, where it says so,
            else when it was asked.
        until: when it ends by itself; of one that is over as soon as it is done, when that was.
        life: the run of the victim's program that it hit; None for one that hits no process.
        details: what its recovery has to be compared with.
        loaded: whether a load was still asking once it was done.
    """

    id: str
    fault: Fault
    node: Node
    injected_at: float
    done_at: float
    proven_at: float
    struck_at: float
    until: float
    life: Life | None = None
    details: dict[str, Any] = field(default_factory=dict)
    loaded: bool = False
    others: tuple[Node, ...] = ()

    @property
    def kind(self) -> str:
        """What the fault is called."""
        return self.fault.kind

    @classmethod
    def of(cls, fault: Fault, ordered: Ordered, proof: Proof) -> "ProvenFault":
        """That of a fault, its order and its proof."""
        struck = float(ordered.made["evidence"].get("sent_at", ordered.at))
        until = ordered.done_at if ordered.made["state"] == "recovered" else float(ordered.made["deadline"])
        times = (ordered.at, ordered.done_at, proof.at, struck, until)
        first, *others = ordered.nodes
        seen = proof.life, proof.details, ordered.loaded, tuple(others)
        return cls(ordered.made["id"], fault, first, *times, *seen)


def on_clock(made: Mapping[str, Any]) -> dict[str, Any]:
    """What an event of the injection carries: ``fault``, its id, and ``until``, when it is over at the latest (one that
    is over as soon as it is done, now).
    """
    return {"fault": made["id"], "until": now() if made["state"] == "recovered" else made["deadline"]}


def strength(column: str = "", read: str | Callable[[str], Any] = "") -> Mapping[str, Any]:
    """Metadata of a field of a kind that says how badly it breaks; a failure in YAML has a key of that name.

    Args:
        column: that of a table of failures; empty: there is none.
        read: how a cell is read: a word type of :mod:`support.words`, or a function.
    """
    return {"column": column, "read": read}
