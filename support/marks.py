"""What a sentence takes and brings besides its words, noted on its step; the lint of feature files reads it.

::

    @when("the network is healed")
    @marks(needs="fault")
    def when_healed(context): ...
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Step = TypeVar("Step", bound=Callable[..., Any])

THINGS = {
    "deployment": "a deployment, such as: Given a Dynamo deployment with 2 vllm workers",
    "request": "a request, such as: Given a client is receiving a streamed chat answer of 200 tokens",
    "answer": "an answer of its own, such as: Given a client is receiving a streamed chat answer of 200 tokens",
    "load": "a load, such as: Given 4 clients keep asking for streamed completions answers of 40 tokens",
    "run": "a load, such as: Given 4 clients keep asking for streamed completions answers of 40 tokens",
    "fault": "a fault, such as: When the worker serving the request crashes mid-answer",
    "order": "an order that cannot be, such as: When a fault on a worker that does not exist is ordered",
    "newcomer": "a new worker, such as: When a new worker starts",
    "roles": "roles, such as: Given a disaggregated Dynamo deployment with 1 prefill and 2 decode vllm workers",
}
"""What a sentence may bring, and what others then need -> the same in words, with a sentence that brings it. That each
needs a deployment, unless it brings one, goes without saying.
"""
TABLES = {
    "deployment": "settings of the deployment",
    "request": "settings of the request",
    "check": "settings of the check",
    "failures": "failures, which it needs",
}
"""Kind of a table below a sentence -> what it holds."""


@dataclass(frozen=True)
class Marks:
    """What is noted on a step.

    Attributes:
        table: kind of the table that may stand below the sentence, a key of :data:`TABLES`; one of failures alone has
            to be there; empty: none may.
        brings, needs: keys of :data:`THINGS`; what a victim, a trigger or a moment needs besides comes with the words.
        workers: how many workers there are more from then on: a number, or the name of the argument that says so.
        loses: name of the argument (a kind of fault, or an XID) that says whether the worker that has the request is
            lost, so that another one has to finish the answer.
        whole: whether it expects whole answers.
        recovery: name of the argument that says for how long the phase RECOVERY has to go on, once it is played.
        running: whether it needs the load to go on still, where there is one.
        check: called with the arguments; raises :class:`support.errors.Mistake` where they cannot be.
        strikes: makes of the arguments the failure that strikes (:class:`support.scenarios.Failure`).
        engine: whose workers alone can do it; empty: all can.
    """

    table: str = ""
    brings: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    workers: int | str = 0
    loses: str = ""
    whole: bool = False
    recovery: str = ""
    running: bool = False
    check: Callable[..., Any] | None = None
    strikes: Callable[..., Any] | None = None
    engine: str = ""


def marks(brings: str = "", needs: str = "", **others: Any) -> Callable[[Step], Step]:
    """Note on a step what :class:`Marks` says; several things are separated by spaces."""
    made = Marks(brings=tuple(brings.split()), needs=tuple(needs.split()), **others)
    if wrong := {*made.brings, *made.needs} - {*THINGS}:
        raise ValueError(f"unknown things {wrong}; expected some of {', '.join(THINGS)}")
    if made.table not in ("", *TABLES):
        raise ValueError(f"unknown table {made.table!r}; expected one of {', '.join(TABLES)}")

    def mark(step: Step) -> Step:
        step.marks = made  # type: ignore[attr-defined]
        return step

    return mark


def marks_of(step: Callable[..., Any]) -> Marks:
    """What is noted on a step; nothing by default."""
    found: Marks = getattr(step, "marks", Marks())
    return found
