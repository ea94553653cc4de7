"""Victims as sentences have them: by what they are. Who that is right now says :mod:`support.world.victims`."""

from collections.abc import Collection
from dataclasses import dataclass, field

from support.contract.deployment import Node


@dataclass(frozen=True)
class Victim:
    """Nodes, by what they are.

    Attributes:
        felt: whether somebody has to be there to notice, once anything was asked of the deployment: a fault that nobody
            could is inconclusive then. False for a sentence that says that nobody is.
    """

    felt: bool = field(default=True, kw_only=True)


@dataclass(frozen=True)
class Exactly(Victim):
    """This node, whatever it works on."""

    node: Node


@dataclass(frozen=True)
class Serving(Victim):
    """The worker that has most of the requests in flight, of those with a role or, if that is empty, of all."""

    role: str = ""


@dataclass(frozen=True)
class Busiest(Victim):
    """The same of those with one of several roles."""

    roles: Collection[str]


@dataclass(frozen=True)
class First(Victim):
    """The first node of a role."""

    role: str


@dataclass(frozen=True)
class FirstRunning(Victim):
    """The first node of a role that runs."""

    role: str


@dataclass(frozen=True)
class IdleFrontend(Victim):
    """The last of several frontends, which clients are not sent to while an earlier one runs."""


@dataclass(frozen=True)
class All(Victim):
    """All nodes of a role."""

    role: str


@dataclass(frozen=True)
class Members(Victim):
    """Members of the etcd cluster: the ``leader``, one ``follower``, a ``minority`` (as many as may be lost, all of
    them followers), a ``majority`` (more than half of them, the leader among them), the ``busiest`` (through which most
    leases are kept alive) or ``all``.
    """

    part: str


@dataclass(frozen=True)
class Others(Victim):
    """The nodes that a fault cuts its victims off from: ``peers`` (the other members of the etcd cluster), ``dynamo``
    (frontends and workers) or ``everybody`` of both.
    """

    who: str
