"""Victims as sentences have them: by what they are. Who that is right now says :mod:`support.world.victims`."""

from dataclasses import dataclass, field

from support.contract.deployment import Node
from support.contract.shape import Shape

WORKER_ROLES = ("worker", "decode", "prefill")


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
    """This node, whatever it works on; and ``others`` beside it."""

    node: Node
    others: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Serving(Victim):
    """The worker that has most of the requests in flight, of those with one of these roles or, without any, of all."""

    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnyWorker(Victim):
    """The first worker that runs; of the ``idle`` ones, which have no request in flight, where that is asked for."""

    idle: bool = False


@dataclass(frozen=True)
class First(Victim):
    """The first node of a role that runs."""

    role: str


@dataclass(frozen=True)
class IdleFrontend(Victim):
    """The last of several frontends, which clients are not sent to while an earlier one runs."""


@dataclass(frozen=True)
class All(Victim):
    """All nodes with one of these roles."""

    roles: tuple[str, ...]


@dataclass(frozen=True)
class Members(Victim):
    """Members of the etcd cluster: the ``leader``, one ``follower``, a ``minority`` (as many as may be lost, all of
    them followers), a ``majority`` (more than half of them, the leader among them), the ``busiest`` (through which most
    leases are kept alive) or ``all``.
    """

    part: str


@dataclass(frozen=True)
class Called:
    """What a victim is called.

    Attributes:
        words: in sentences and tables; ``who``: who that is, for the catalogue.
        needs: what has to be there to be hit, of :data:`support.marks.THINGS`.
    """

    words: str
    who: str
    victim: Victim
    needs: tuple[str, ...] = ()


VICTIMS = {
    "worker": Called(
        "the busiest worker",
        "the worker that has most of the requests in flight; in a disaggregated deployment, of the decode workers",
        Serving(("worker", "decode")),
        ("request",),
    ),
    "serving_worker": Called(
        "the worker serving the request",
        "the worker that has most of the requests in flight, whatever its role",
        Serving(),
        ("request",),
    ),
    "decode_worker": Called(
        "the busiest decode worker",
        "the decode worker that has most of the requests in flight",
        Serving(("decode",)),
        ("request",),
    ),
    "prefill_worker": Called(
        "the busiest prefill worker",
        "the prefill worker that has most of the requests in flight, which is while it reads their prompts",
        Serving(("prefill",)),
        ("request",),
    ),
    "any_worker": Called("a worker", "the first worker that runs", AnyWorker()),
    "idle_worker": Called(
        "an idle worker", "the first worker that runs and has no request in flight", AnyWorker(idle=True, felt=False)
    ),
    "every_worker": Called("every worker", "all workers, of every role", All(WORKER_ROLES)),
    "frontend": Called("the frontend", "the first frontend that runs", First("frontend")),
    "idle_frontend": Called(
        "the idle frontend",
        "the last of several frontends, to which clients send nothing while an earlier one runs",
        IdleFrontend(),
    ),
    "etcd": Called("an etcd member", "the first etcd member that runs", First("etcd")),
    "etcd_leader": Called("the etcd leader", "the member that leads the etcd cluster", Members("leader")),
    "etcd_follower": Called("an etcd follower", "one member that does not lead", Members("follower")),
    "etcd_busiest": Called(
        "the busiest etcd member", "the member through which most leases are kept alive", Members("busiest")
    ),
    "etcd_minority": Called(
        "a minority of etcd", "as many members as may be lost, all of them followers", Members("minority")
    ),
    "etcd_majority": Called(
        "a majority of etcd", "more than half of the members, the leader among them", Members("majority")
    ),
    "etcd_all": Called("all of etcd", "all members", Members("all")),
    "nats": Called("the NATS server", "the NATS server, of a deployment over nats", First("nats")),
}
"""Key in YAML -> what the victim is called elsewhere."""
WORKERS = tuple(key for key in VICTIMS if key.endswith("worker"))
ROLES = {"frontend": "frontend", "idle_frontend": "frontend", "nats": "nats"} | {
    key: "etcd" for key in VICTIMS if key.startswith("etcd")
}
"""Key of a victim that is no worker -> its role."""


def lacking(key: str, shape: Shape) -> tuple[str, str]:
    """What a deployment of this shape lacks to have such a victim, and what a sentence or its table needs for that; two
    empty texts where it has one.
    """
    if key in ("decode_worker", "prefill_worker") and not shape.disaggregated:
        return (
            "prefill and decode workers",
            "a disaggregated Dynamo deployment with 1 prefill and 2 decode vllm workers",
        )
    if key == "idle_frontend" and shape.frontends < 2:
        return "second frontend", "| frontends | 2 | in the table below the deployment"
    if key == "nats" and shape.request_plane != "nats":
        return "NATS server", "| request plane | nats | in the table below the deployment"
    if ROLES.get(key) == "etcd" and shape.discovery == "kubernetes":
        return "etcd", "| discovery | etcd | in the table below the deployment"
    if isinstance(victim := VICTIMS[key].victim, Members) and shape.etcd_members < _LEAST_MEMBERS.get(victim.part, 2):
        return "etcd cluster with such members", "| etcd members | 3 | in the table below the deployment"
    return "", ""


_LEAST_MEMBERS = {"all": 1, "minority": 3}
"""Part of an etcd cluster -> how many members it has to have for that; 2 for the others."""
