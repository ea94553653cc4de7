"""A deployment: its nodes, their lives, and what holds of it."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

from support.contract.shape import Shape


@dataclass(frozen=True)
class Node:
    """One host of a deployment.

    Attributes:
        name: logical name, ``vllm-worker-0``.
        role: ``frontend``, ``worker``, ``prefill``, ``decode``, ``etcd`` or ``nats``.
        address: IPv4 address.
        port: where its process listens; that of its metrics for a worker.
        metrics_url: its Prometheus page; None where it has none.
        gate_url: where a worker of the ruler engine is told to hold answers (:mod:`support.world.gate`); None for all
            others.
    """

    name: str
    role: str
    address: str
    port: int
    metrics_url: str | None
    gate_url: str | None = None

    @property
    def endpoint(self) -> str:
        """``ADDRESS:PORT``."""
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Life:
    """One run of a node's program, as its target knows it. Two are the same life when they are equal, whatever has
    become of it meanwhile.

    Attributes:
        node: name of the node.
        identity: opaque: a pid with its start time, or the UID of a pod with the ID of its container.
        words: what a person calls it, ``pid 12``.
        state: ``running``; ``waiting`` (for others, or for its next restart), ``fenced`` (may not start), ``ended``.
        restarts: how often the node's program has been started again.
    """

    node: str
    identity: Hashable
    words: str = field(compare=False)
    state: str = field(compare=False)
    restarts: int = field(compare=False, default=0)


@dataclass(frozen=True)
class Change:
    """A change in the lives of a node, as its target has seen it.

    Attributes:
        at: when, on :mod:`support.clock`.
        node: name of the node; empty for what is about all of them.
        identity: of the life that it is about, as :class:`Life` has it.
        state: ``starting``, ``running``, ``hung``, ``fenced``, ``stopped`` (it exited with a status, told to or not),
            ``dead`` (a signal ended it, or nobody knows what).
        detail: in words.
        exit_code: of an end: the exit status, negative for the signal that ended it; None where nobody knows.
    """

    at: float
    node: str
    identity: Hashable
    state: str
    detail: str
    exit_code: int | None = None


@dataclass(frozen=True)
class Facts:
    """What holds of a deployment, and so what may be judged of it.

    Attributes:
        exact_tokens: the suite's own tokenizer is the model's: tokens and the length of prompts can be counted.
        only_user: nobody else sends requests: counters and gauges have to agree with what we sent.
        one_clock: all processes and we read the same clock: times of different machines can be put in one order.
    """

    exact_tokens: bool = True
    only_user: bool = True
    one_clock: bool = True


class Deployment(Protocol):
    """One running Dynamo."""

    shape: Shape
    model: str
    nodes: list[Node]
    facts: Facts

    @property
    def frontend_url(self) -> str:
        """Where its users send requests; with several frontends one that runs."""

    @property
    def dynamo(self) -> list[Node]:
        """The nodes that run Dynamo itself: frontends, then workers."""

    @property
    def workers(self) -> list[Node]:
        """Nodes that answer requests, in the order of their names; prefill workers come last."""

    def life(self, node: Node) -> Life:
        """The life of a node's program right now, or the last one that it had."""

    def changes(self) -> list[Change]:
        """All changes in the lives of its nodes so far, oldest first."""

    def add_worker(self) -> Node:
        """Start one more worker and wait until the frontend lists it."""

    def start_worker(self) -> Node:
        """Start one more worker and come back at once."""

    def replace_etcd_member(self, lost: Node) -> Node:
        """Take a member that is lost with its data out of the etcd cluster and put a new, empty one in its place.

        Raises:
            DeploymentFailed: the cluster refuses, or the new member does not join.
        """

    def topology(self) -> dict[str, Any]:
        """The published document: ``deployment``, ``shape``, ``nodes``, each with ``name``, ``role``, ``address``,
        ``life`` (in words), ``state`` and ``restarts`` as :class:`Life` has them, and what else the target knows.
        """

    def remove(self) -> list[str]:
        """Take everything down; returns what is still there of it, one line each."""
