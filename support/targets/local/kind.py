"""The kind of target that this machine is."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from support import sabotage
from support.contract.target import Capability, Need, Target
from support.events import EventLog
from support.releases import Release
from support.settings import Settings
from support.targets.local import machine
from support.targets.needs import NEEDS


class LocalKind:
    """Dynamo on this machine; implements :class:`support.contract.target.TargetKind`."""

    description = "this machine"
    in_cells = True
    real = True
    needs: Mapping[str, Need] = NEEDS

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def capabilities(self, names: Iterable[str]) -> dict[str, Capability]:
        """See :class:`support.contract.target.TargetKind`; in a cell, what can be done in that cell."""
        return machine.probe(self._settings, names)

    def missing(self) -> str:
        """See :class:`support.contract.target.TargetKind`."""
        return ""

    def begin(self) -> None:
        """See :class:`support.contract.target.TargetKind`; the cell has done it."""

    def make(self, release: Release, folder: Path, events: EventLog) -> Target:
        """See :class:`support.contract.target.TargetKind`; one that breaks its own deployments where ``FT_SABOTAGE``
        is set.

        Raises:
            ValueError: ``FT_SABOTAGE`` makes no sense.
            RuntimeError: this process runs in no cell.
        """
        # Not at the top: they load for as long as the trial of a kernel takes, which makes no target.
        from support.targets.local.sabotage import SabotagedTarget
        from support.targets.local.target import LocalTarget

        kind, _ = sabotage.asked()
        if kind == "answers":
            raise ValueError("FT_SABOTAGE is answers=, which the target fake alone knows; run it with -D target=fake")
        return (SabotagedTarget if kind else LocalTarget)(self._settings, release, folder, events)
