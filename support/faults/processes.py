"""Faults of processes, proven on the victim."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from support.contract.deployment import Life, Node
from support.faults.fault import Fault, Ground, Healing, Ordered, Proof, ProvenFault
from support.observe.health import instances
from support.observe.waiting import prove
from support.observe.workers import worker_id


@dataclass(frozen=True)
class ProcessFault(Fault):
    """Something is done to the process of a node.

    Attributes:
        shown_seconds: how long it may take to show; signals act at once, a loaded machine adds scheduling delays.
    """

    family = "process"
    urgent = True
    holds_answers = True
    side_by_side = True
    shown_seconds: ClassVar[float] = 5.0

    def look(self, ground: Ground, nodes: Sequence[Node], until_proven: ExitStack) -> Any:
        """The life that is hit."""
        return ground.deployment.life(nodes[0])

    def order(self, nodes: Sequence[Node], before: Any) -> dict[str, Any]:
        """See :class:`support.faults.fault.Fault`."""
        return {"target_pod": nodes[0].name, "type": self.types[0]}

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """The witness sees it."""
        life: Life = ordered.before

        def unproven() -> str | None:
            seen = ground.witness.state(life)
            return None if seen == self._shown else f"its process is {seen}"

        return self._proof(self._await(unproven, ordered), ordered, life)

    @property
    def _shown(self) -> str:
        return "gone" if self.ends_process else "stopped"

    def _await(self, unproven: Callable[[], str | None], ordered: Ordered) -> float:
        what = f"{ordered.nodes[0].name} shows the fault {self.kind}"
        return prove(unproven, self.shown_seconds, what, "the fault was not proven")

    def _proof(self, at: float, ordered: Ordered, life: Life) -> Proof:
        return Proof(at, f"{life.words} of {ordered.nodes[0].name} is {self._shown}", life)

    def healing(self, ground: Ground, proven: ProvenFault) -> Healing:
        """It runs."""
        name = proven.node.name

        def broken() -> str | None:
            seen = ground.witness.state(ground.deployment.life(proven.node))
            return None if seen == "alive" else f"its process is {seen}"

        return Healing(broken, f"{name} is free of the fault {self.kind}", f"{name} runs again")


@dataclass(frozen=True)
class Crash(ProcessFault):
    """SIGKILL."""

    name = "crash"
    failure = "process_kill"
    word, word_of_many = "crashes", "crash"
    ends_process = True
    drawn = True


@dataclass(frozen=True)
class Terminate(ProcessFault):
    """SIGTERM; proven when it is gone or serves no more, for it may finish first what it has."""

    name = "terminate"
    failure = "terminate"
    word, word_of_many = "is told to shut down", "are told to shut down"
    ends_process = True
    # Acts as soon as the worker's loop runs, and some releases' frontends show nothing of it before what is under way
    # has ended.
    shown_seconds = 15.0

    def look(self, ground: Ground, nodes: Sequence[Node], until_proven: ExitStack) -> Any:
        """The life that is hit, and the number by which the frontend lists it."""
        return ground.deployment.life(nodes[0]), worker_id(nodes[0])

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """It is gone, or nobody is sent to it any more."""
        node, (life, number) = ordered.nodes[0], ordered.before
        ground.events.add("state", node.name, "leaving: told to shut down", at=ordered.at, state="leaving")

        def unproven() -> str | None:
            seen = ground.witness.state(life)
            return None if seen == "gone" or _has_left(ground, node, number) else f"its process is {seen}"

        at = self._await(unproven, ordered)
        if ground.witness.state(life) == "gone":
            return self._proof(at, ordered, life)
        what = "serves no more" if node.role == "frontend" else "has left the frontend's list"
        return Proof(at, f"{node.name} {what}, with {life.words} still there", life)


@dataclass(frozen=True)
class Hang(ProcessFault):
    """SIGSTOP."""

    name = "hang"
    failure = "hang"
    word, word_of_many = "hangs", "hang"
    drawn = True


@dataclass(frozen=True)
class Restart(ProcessFault):
    """SIGKILL, and a fresh start at once."""

    name = "restart"
    failure = "pod_kill"
    word, word_of_many = "is restarted", "are restarted"
    ends_process = True


def _has_left(ground: Ground, node: Node, number: str | None) -> bool:
    """Whether the worker ``number`` is gone from a list that was given, or the frontend ``node`` serves no more."""
    if node.role == "frontend":
        return instances(f"http://{node.endpoint}") is None
    listed = instances(ground.deployment.frontend_url)
    return number is not None and listed is not None and number not in {f"{each.number:x}" for each in listed}
