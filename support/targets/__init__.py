"""Where Dynamo runs: this machine."""

from pathlib import Path

from support import sabotage
from support.contract.target import Target
from support.events import EventLog
from support.releases import Release
from support.settings import Settings
from support.targets.local.sabotage import SabotagedTarget
from support.targets.local.target import LocalTarget


def make(settings: Settings, release: Release, folder: Path, events: EventLog) -> Target:
    """The target of the settings, for the scenario in ``folder``; one that breaks its own deployments where
    ``FT_SABOTAGE`` is set.

    Raises:
        ValueError: ``FT_SABOTAGE`` makes no sense.
        RuntimeError: this process runs in no cell.
    """
    kind, _ = sabotage.asked()
    return (SabotagedTarget if kind else LocalTarget)(settings, release, folder, events)
