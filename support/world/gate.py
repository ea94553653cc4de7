"""Holding answers of the ruler engine in their middle until the faults of a scenario are proven.

How long a fault takes from its order to its proof depends on the machine; whether an answer is still in flight then
must not. The gate is the ruler's own (``support/engines/ruler.py``); simulated engines have none and get longer answers
instead (:func:`support.slowness.lengthened`).
"""

from collections.abc import Collection

from support import clock
from support.contract.deployment import Deployment, Node
from support.errors import Refused
from support.events import EventLog
from support.json_api import JsonApi

LAST_TOKENS = 20
"""Tokens that an answer still has to come when it is held; of a short one it is half."""
LEASE_SECONDS = 60.0
"""A gate that nobody opens opens by itself: an answer held this long is a mistake of the suite."""
# A worker answers in milliseconds; one that is dead or hangs holds nothing back that anybody waits for.
ANSWER_SECONDS = 2.0


class _WorkerGate(JsonApi):
    WHO = "gate of the ruler"


class Gates:
    """The gates of all workers of a deployment; one whose engine has none holds nothing.

    Args:
        deployment: whose workers are asked, those that come later too.
        events: gets an event for each order.
    """

    def __init__(self, deployment: Deployment, events: EventLog) -> None:
        self._deployment, self._events = deployment, events
        self._holds: dict[int, int] = {}

    @property
    def closed(self) -> bool:
        """Whether answers are held."""
        return bool(self._holds)

    def hold_end(self, sizes: Collection[int]) -> None:
        """Hold every answer of one of these sizes shortly before its end."""
        self._hold({size: _end(size) for size in sizes}, self._workers())

    def hold_start(self, size: int) -> None:
        """Hold every answer of this size before its first token."""
        self._hold({size: 0}, self._workers())

    def hold_finish(self, size: int) -> None:
        """Hold every answer of this size after its last token, so that nothing is missing but its end."""
        self._hold({size: size}, self._workers())

    def move_to_end(self, workers: Collection[Node] | None = None) -> None:
        """Let answers that are held before their first token go on until shortly before their end, at these workers
        or at all of them.
        """
        if 0 in self._holds.values():
            ends = {size: _end(size) for size in self._holds}
            self._order("PUT", ends, self._workers() if workers is None else workers)
            if workers is None:
                self._holds = ends

    def open(self) -> None:
        """Let all answers go on; returns at once, for a worker that hangs takes the order when it goes on."""
        if self._holds:
            self._holds = {}
            self._order("DELETE", {}, self._workers(), wait=False)
            self._events.add("gate", "", "answers are let go on to their end")

    def _workers(self) -> list[Node]:
        return [node for node in self._deployment.workers if node.gate_url is not None]

    def _hold(self, holds: dict[int, int], workers: Collection[Node]) -> None:
        if holds.items() <= self._holds.items() or not workers:
            return
        self._holds |= holds
        self._order("PUT", self._holds, workers)
        for size, at in holds.items():
            self._events.add("gate", "", f"answers of {size} tokens are held after {at}")

    def _order(self, method: str, holds: dict[int, int], workers: Collection[Node], wait: bool = True) -> None:
        body = {"holds": holds, "seconds": LEASE_SECONDS} if holds else None

        def tell(node: Node) -> None:
            try:
                _WorkerGate(str(node.gate_url)).call(method, "/gate", body)
            except Refused as error:
                self._events.add("gate", node.name, str(error))

        threads = [clock.thread(tell, (node,)) for node in workers]
        for thread in threads:
            thread.start()
        for thread in threads if wait else ():
            thread.join(ANSWER_SECONDS)


def _end(size: int) -> int:
    """Tokens of an answer of this size after which it is held shortly before its end."""
    return max(size - LAST_TOKENS, size // 2)
