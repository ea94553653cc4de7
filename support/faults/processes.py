"""Faults of processes, asked of the fault service and proven on the victim."""

from support.clock import now
from support.contract.deployment import Deployment, Life, Node
from support.contract.target import Target
from support.events import EventLog
from support.faults.proven import LEASE_SECONDS, ProvenFault, on_clock, struck_at
from support.observe.health import instances
from support.observe.waiting import prove
from support.observe.workers import worker_id
from support.priority import right_of_way

# SIGKILL and SIGSTOP act at once, SIGTERM as soon as the worker's loop runs; a loaded machine adds scheduling delays.
PROOF_SECONDS = 5.0
# Some releases' frontends show nothing of a shutdown before what is under way has ended.
DRAIN_SECONDS = 15.0


class ProcessFaults:
    """Injects faults of processes; every injection and proof goes to ``events``."""

    def __init__(self, target: Target, deployment: Deployment, events: EventLog) -> None:
        self._service, self._witness = target.service, target.witness
        self._deployment, self._events = deployment, events

    @right_of_way()
    def inject(self, kind: str, node: Node, lease_seconds: float = LEASE_SECONDS) -> ProvenFault:
        """Break the node's process and return once the victim shows it.

        Args:
            kind: ``crash`` (SIGKILL), ``terminate`` (SIGTERM), ``hang`` (SIGSTOP) or ``restart`` (SIGKILL and start).
            node: the victim.
            lease_seconds: the fault is undone by then at the latest.

        Raises:
            Inconclusive: the victim does not show it.
            Refused: the fault service refused.
        """
        before = self._deployment.life(node)
        number = worker_id(node) if kind == "terminate" else None
        injected_at = now()
        fault = self._service.inject("process", target_pod=node.name, type=kind, duration_seconds=lease_seconds)
        done_at = now()
        self._events.add("fault", node.name, f"{kind} {node.name}", at=injected_at, **on_clock(fault))

        if kind == "terminate":
            self._events.add("state", node.name, "leaving: told to shut down", at=injected_at)

        def unproven() -> str | None:
            seen = self._witness.state(before)
            if seen == ("stopped" if kind == "hang" else "gone"):
                return None
            if kind == "terminate" and self._has_left(node, number):
                return None
            return f"its process is {seen}"

        timeout = DRAIN_SECONDS if kind == "terminate" else PROOF_SECONDS
        proven_at = prove(unproven, timeout, f"{node.name} shows the fault {kind}", "the fault was not proven")
        gone = self._witness.state(before) == "gone"
        self._events.add("proof", node.name, self._proof(kind, node, before, gone), at=proven_at, fault=fault["id"])
        struck = struck_at(fault, injected_at)
        return ProvenFault(fault["id"], "process", kind, node, injected_at, done_at, proven_at, struck, before)

    def _has_left(self, node: Node, number: str | None) -> bool:
        """Whether the worker ``number`` is gone from a list that was given, or the frontend ``node`` serves no more."""
        if node.role == "frontend":
            return instances(f"http://{node.endpoint}") is None
        listed = instances(self._deployment.frontend_url)
        return number is not None and listed is not None and number not in {f"{each.number:x}" for each in listed}

    @staticmethod
    def _proof(kind: str, node: Node, before: Life, gone: bool) -> str:
        if kind == "hang":
            return f"{before.words} of {node.name} is stopped"
        if not gone:
            what = "serves no more" if node.role == "frontend" else "has left the frontend's list"
            return f"{node.name} {what}, with {before.words} still there"
        return f"{before.words} of {node.name} is gone"

    def recover(self, fault: ProvenFault) -> None:
        """Undo the fault and return once the victim shows that it is gone.

        Raises:
            Inconclusive: the service says recovered, the victim does not.
        """
        self._service.recover(fault.id)
        self._events.add("fault", fault.node.name, f"{fault.kind} of {fault.node.name} undone", fault=fault.id)
        self.see_healed(fault, PROOF_SECONDS)

    def see_healed(self, fault: ProvenFault, timeout: float) -> None:
        """Wait until the victim runs, whoever has ended the fault.

        Raises:
            Inconclusive: it does not within ``timeout`` seconds.
        """

        def broken() -> str | None:
            seen = self._witness.state(self._deployment.life(fault.node))
            return None if seen == "alive" else f"its process is {seen}"

        at = prove(
            broken, timeout, f"{fault.node.name} is free of the fault {fault.kind}", "the recovery was not proven"
        )
        self._events.add("proof", fault.node.name, f"{fault.node.name} runs again", at=at, fault=fault.id)
