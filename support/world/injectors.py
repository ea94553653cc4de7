"""Faults of the suite's own injectors: what they broke has to end all the same."""

import signal
from collections.abc import Callable

from support.clock import now
from support.errors import Inconclusive
from support.observe import process
from support.observe.fleet import ARRIVAL_SECONDS
from support.observe.waiting import prove
from support.signals import send_while
from support.world.faults import Faults
from support.world.stage import Stage


class Injectors:
    """The fault service and the node agent of a cell."""

    def __init__(self, stage: Stage, faults: Faults) -> None:
        self._stage, self._faults = stage, faults

    def kill(self) -> None:
        """SIGKILL the fault service and the node agent; PID 1 of the cell starts them again."""
        asked: dict[str, Callable[[], int]] = {
            "fault service": lambda: self._stage.service.health()["pid"],
            "node agent": lambda: self._stage.agent.topology()["agent_pid"],
        }
        for name, ask in asked.items():
            pid = self._signal(ask, signal.SIGKILL)
            self._stage.events.add("fault", "", f"the {name} (pid {pid}) is killed")
        known = {fault["id"]: fault for fault in self._stage.service.faults()}
        for fault in self._faults.made:
            seen = known.get(fault.id, {"state": "unknown", "deadline": 0.0})
            # On a busy machine they may come back after the fault's end.
            if seen["state"] != "active" and not 0 < seen["deadline"] <= now():
                raise Inconclusive(f"after their death the injectors have fault {fault.id} as {seen['state']}")
        self._stage.events.add("proof", "", "both run again and know of the faults")

    @staticmethod
    def _signal(ask: Callable[[], int], number: signal.Signals) -> int:
        """Signal the program that tells its pid when asked; returns it.

        Raises:
            Inconclusive: it has ended, or another has taken its place, meanwhile.
        """
        pid = ask()
        if not send_while(pid, lambda: ask() == pid, number):
            raise Inconclusive(f"pid {pid} was to get {number.name} but has ended")
        return pid

    def freeze_agent(self) -> None:
        """SIGSTOP the node agent, which then ends no fault; that is left to the watchdog of the cell.

        Raises:
            Inconclusive: it goes on.
        """
        pid = self._signal(lambda: self._stage.agent.topology()["agent_pid"], signal.SIGSTOP)
        self._stage.events.add("fault", "", f"the node agent (pid {pid}) freezes")

        def awake() -> str | None:
            seen = process.state(pid, None)
            return None if seen == "stopped" else seen

        prove(awake, ARRIVAL_SECONDS, f"pid {pid} is stopped", "the node agent did not freeze")
        self._stage.events.add("proof", "", f"the kernel shows pid {pid} of the node agent as stopped")
