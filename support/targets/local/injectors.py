"""The node agent and the fault service of a cell, seen as processes, which can be broken too."""

import os
import signal
from collections.abc import Callable, Iterator

import psutil

from support.contract.fault_service import FaultService
from support.errors import Inconclusive
from support.signals import send_while
from support.targets.local import process
from support.targets.local.agent import Agent


class LocalInjectors:
    """Those of this cell, whose first process starts them again; implements
    :class:`support.contract.target.Injectors`.
    """

    def __init__(self, agent: Agent, service: FaultService) -> None:
        self._agent, self._service = agent, service

    def _agent_pid(self) -> int:
        return int(self._agent.topology()["agent_pid"])

    def _service_pid(self) -> int:
        return int(self._service.health()["pid"])

    def kill(self) -> Iterator[str]:
        """By SIGKILL; the first process of the cell starts them again."""
        yield f"the fault service (pid {_signal(self._service_pid, signal.SIGKILL)})"
        yield f"the node agent (pid {_signal(self._agent_pid, signal.SIGKILL)})"

    def freeze(self) -> tuple[str, Callable[[], str | None]]:
        """The node agent, by SIGSTOP."""
        pid = _signal(self._agent_pid, signal.SIGSTOP)

        def awake() -> str | None:
            seen = process.state(pid, None)
            return None if seen == "stopped" else seen

        return f"the node agent (pid {pid})", awake

    def pids(self) -> dict[str, int]:
        """Those two, what keeps them running and watches over their leases, and this process."""
        agent = self._agent_pid()
        cell = psutil.Process(agent).ppid()
        found = {"node agent": agent, "fault service": self._service_pid()}
        return found | {"cell and watchdog": cell, "behave": os.getpid()}


def _signal(ask: Callable[[], int], number: signal.Signals) -> int:
    """Signal the program that tells its pid when asked; returns it.

    Raises:
        Inconclusive: it has ended, or another has taken its place, meanwhile.
    """
    pid = ask()
    if not send_while(pid, lambda: ask() == pid, number):
        raise Inconclusive(f"pid {pid} should get {number.name} but has ended")
    return pid
