"""Faults of the suite's own injectors: what they broke has to end all the same."""

from support.clock import now
from support.errors import Inconclusive
from support.observe.fleet import ARRIVAL_SECONDS
from support.observe.waiting import prove
from support.world.faults import Faults
from support.world.stage import Stage


class InjectorFaults:
    """Breaks the programs that break everything else."""

    def __init__(self, stage: Stage, faults: Faults) -> None:
        self._stage, self._faults = stage, faults

    def kill(self) -> None:
        """Kill all of them, and see that those who take their place know of the faults.

        Raises:
            Inconclusive: one had ended before, or its successor does not know of a fault.
        """
        for each in self._stage.target.injectors.kill():
            self._stage.events.add("fault", "", f"{each} was killed")
        known = {fault["id"]: fault for fault in self._stage.target.service.faults()}
        for fault in self._faults.made:
            seen = known.get(fault.id, {"state": "unknown", "deadline": 0.0})
            # On a busy machine they may come back after the fault's end.
            if seen["state"] != "active" and not 0 < seen["deadline"] <= now():
                raise Inconclusive(f"after their death the injectors have fault {fault.id} as {seen['state']}")
        self._stage.events.add("proof", "", "all run again and know of the faults")

    def freeze(self) -> None:
        """Stop the one that undoes faults, which then ends none; that is left to its watchdog.

        Raises:
            Inconclusive: it goes on.
        """
        who, awake = self._stage.target.injectors.freeze()
        self._stage.events.add("fault", "", f"{who} was stopped")
        prove(awake, ARRIVAL_SECONDS, f"{who} is stopped", f"{who} did not freeze")
        self._stage.events.add("proof", "", f"{who} is stopped")
