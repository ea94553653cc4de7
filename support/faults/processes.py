"""Faults of processes, proven on the victim."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from support.contract.deployment import Life, Node
from support.faults.fault import Fault, Ground, Healing, Ordered, Proof, ProvenFault
from support.observe.health import numbers, refuses
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
        """The life that is hit, and what Dynamo calls it: None unless it is a worker that answers."""
        number = worker_id(nodes[0]) if nodes[0] in ground.deployment.workers else None
        return ground.deployment.life(nodes[0]), number

    def unsound(self, ground: Ground, nodes: Sequence[Node], before: Any) -> str | None:
        """It does not run."""
        seen = ground.witness.state(ground.deployment.life(nodes[0]))
        return None if seen == "alive" else f"its process is {seen}"

    def order(self, nodes: Sequence[Node], before: Any) -> dict[str, Any]:
        """See :class:`support.faults.fault.Fault`."""
        return {"target_pod": nodes[0].name, "type": self.types[0]}

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """The kernel shows it, of the process and of all that it has started."""
        life: Life = ordered.before[0]

        def unproven() -> str | None:
            seen = ground.witness.state(life)
            return None if seen == self._shown else f"its process is {seen}"

        return self._proof(self._await(unproven, ordered), ordered)

    @property
    def _shown(self) -> str:
        return "gone" if self.ends_process else "stopped"

    def _await(self, unproven: Callable[[], str | None], ordered: Ordered) -> float:
        what = f"{ordered.nodes[0].name} shows the fault {self.kind}"
        return prove(unproven, self.shown_seconds, what, "the fault was not proven")

    def _proof(self, at: float, ordered: Ordered) -> Proof:
        life, number = ordered.before
        words = f"{life.words} of {ordered.nodes[0].name} is {self._shown}, with everything it had started"
        return Proof(at, words, life, {"number": number})

    def lapsed(self, ground: Ground, proven: ProvenFault) -> str | None:
        """It runs, or another runs in its place."""
        assert proven.life is not None
        if self.ends_process:
            return started_again(ground, proven.node, proven.life)
        seen = ground.witness.state(proven.life)
        return None if seen == self._shown else f"its process is {seen}"

    def healing(self, ground: Ground, proven: ProvenFault) -> Healing:
        """It runs; where its process had to end, it is another one than was hit."""
        name = proven.node.name

        def broken() -> str | None:
            life = ground.deployment.life(proven.node)
            if (seen := ground.witness.state(life)) != "alive":
                return f"its process is {seen}"
            return f"{life.words} should be gone but still runs" if self.ends_process and life == proven.life else None

        return Healing(broken, f"{name} is free of the fault {self.kind}", f"{name} runs again")


@dataclass(frozen=True)
class Crash(ProcessFault):
    """The process is killed (SIGKILL)."""

    name = "crash"
    failure = "process_kill"
    word, did = "crashes", "crashed"
    ends_process = True
    drawn = "crashes"


@dataclass(frozen=True)
class Terminate(ProcessFault):
    """The process is shut down (SIGTERM); it may finish what it has first.

    It also counts as proven once no new request is sent to it.
    """

    name = "terminate"
    failure = "terminate"
    word, did = "is shut down", "was shut down"
    ends_process = True
    # Acts as soon as the worker's loop runs, and some releases' frontends show nothing of it before what is in flight
    # has ended.
    shown_seconds = 15.0

    def look(self, ground: Ground, nodes: Sequence[Node], until_proven: ExitStack) -> Any:
        """The life that is hit, and what Dynamo calls it where the frontend lists it by that."""
        life, number = super().look(ground, nodes, until_proven)
        return life, number if number in (numbers(ground.deployment.frontend_url) or ()) else None

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """The kernel shows that the process is gone; or a list that the frontend gave no longer has the worker, and had
        it before; or a frontend refuses connections.
        """
        node, (life, number) = ordered.nodes[0], ordered.before
        tell_leaving(ground, ordered.at, node.name)

        def unproven() -> str | None:
            seen = ground.witness.state(life)
            return None if seen == "gone" or _has_left(ground, node, number) else f"its process is {seen}"

        at = self._await(unproven, ordered)
        if ground.witness.state(life) == "gone":
            return self._proof(at, ordered)
        what = "accepts no more connections" if node.role == "frontend" else f"({number}) has left the frontend's list"
        return Proof(at, f"{node.name} {what}, with {life.words} still there", life, {"number": number})


@dataclass(frozen=True)
class Hang(ProcessFault):
    """The process is stopped (SIGSTOP), and goes on when the fault is over."""

    name = "hang"
    failure = "hang"
    word, did = "hangs", "hung: it stayed, but did nothing and said nothing"
    drawn = "hangs"


@dataclass(frozen=True)
class Restart(ProcessFault):
    """The process is killed (SIGKILL) and started again at once."""

    name = "restart"
    failure = "pod_kill"
    word, did = "is restarted", "was restarted"
    ends_process = True

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        """The kernel shows that the process is gone, and that another one runs in its place."""
        node, life = ordered.nodes[0], ordered.before[0]

        def unproven() -> str | None:
            if (seen := ground.witness.state(life)) != "gone":
                return f"its process is {seen}"
            after = ground.deployment.life(node)
            seen = "gone" if after == life else ground.witness.state(after)
            return None if seen == "alive" else f"the one in its place is {seen}"

        return self._proof(self._await(unproven, ordered), ordered)


def tell_leaving(ground: Ground, at: float, *names: str) -> None:
    """Note that these were told to end, which the judge goes by."""
    for name in names:
        ground.events.add("state", name, "shutting down: told to", at=at, state="leaving")


def started_again(ground: Ground, node: Node, life: Life, kept_from_it: bool = False) -> str | None:
    """What runs on ``node`` after the end of ``life``, in words; None: nothing does, or its restart policy may have
    started it, from which ``kept_from_it`` says that the fault keeps it.
    """
    supervised = node in ground.deployment.dynamo and ground.deployment.shape.restart_policy != "Never"
    after = ground.deployment.life(node)
    if after == life or (supervised and not kept_from_it) or ground.witness.state(after) == "gone":
        return None
    return f"{after.words} runs in its place"


def _has_left(ground: Ground, node: Node, number: str | None) -> bool:
    """Whether the worker ``number`` is not in a list that was given, or the frontend ``node`` refuses connections."""
    if node.role == "frontend":
        return refuses(f"http://{node.endpoint}")
    listed = numbers(ground.deployment.frontend_url)
    return number is not None and listed is not None and number not in listed
