"""The kind of target that memory is."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from support import sabotage
from support.contract.target import Capability, Need, Target
from support.events import EventLog
from support.releases import Release
from support.settings import Settings
from support.targets.needs import NEEDS, known

SIMULATED = {
    "namespaces": True,
    "nftables": True,
    "tbf": True,
    "netem": False,
    "kmsg": True,
    "cgroups": False,
    "strain": True,
    "gpu": False,
    "cluster": False,
    "pods": False,
    "drains": False,
}
"""Name of a need -> whether it is simulated here."""


class FakeKind:
    """A simulated Dynamo in memory; implements :class:`support.contract.target.TargetKind`."""

    description = "memory"
    in_cells = False
    real = False
    needs: Mapping[str, Need] = {name: NEEDS[name] for name in SIMULATED}

    def __init__(self, _settings: Settings) -> None:
        pass

    def capabilities(self, names: Iterable[str]) -> dict[str, Capability]:
        """See :class:`support.contract.target.TargetKind`."""
        said = {True: "simulated in memory", False: "not simulated"}
        wanted = known(names, SIMULATED)
        return {name: Capability(name, SIMULATED[name], said[SIMULATED[name]]) for name in wanted}

    def missing(self) -> str:
        """See :class:`support.contract.target.TargetKind`."""
        return ""

    def begin(self) -> None:
        """See :class:`support.contract.target.TargetKind`; from now on the process lives on a clock in memory."""
        from support.targets.fake import target  # not at the top: others have no use for it

        target.begin()

    def make(self, release: Release, folder: Path, events: EventLog) -> Target:
        """See :class:`support.contract.target.TargetKind`.

        Raises:
            ValueError: ``FT_SABOTAGE`` wants what is not simulated here.
        """
        from support.targets.fake import faults, frontend, worker
        from support.targets.fake.target import FakeTarget

        lies = {"answers": (*worker.LIES, *worker.LATER_LIES), "faults": faults.LIES, "router": frontend.LIES}
        known = [f"{kind}={lie}" for kind, all_of_kind in lies.items() for lie in all_of_kind]
        asked = "=".join(each for each in sabotage.asked() if each)
        if asked not in ("", *known):
            raise ValueError(f"FT_SABOTAGE is {asked}; the target fake knows {', '.join(known)}")
        return FakeTarget(release, folder, events)
