"""Which skips are no gap: the committed allow-list of reasons, by kind of machine and release."""

import fnmatch
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from support.data import Releases, read_list
from support.schema import OneOf

FILE = Path(__file__).with_name("skips.yaml")
MACHINES = (
    "no-root",
    "no-namespaces",
    "no-nftables",
    "no-tbf",
    "no-netem",
    "no-kmsg",
    "no-cgroups",
    "no-gpu",
    "no-cluster",
)
"""Machine conditions: ``no-`` and the name of a capability that the machine lacks."""


@dataclass(frozen=True)
class AllowedSkip:
    """A reason (exact or glob) that may be given on a machine that lacks something, or on some releases."""

    reason: str
    machine: Annotated[str, OneOf(MACHINES)] | None = None
    releases: Releases | None = None

    def check(self) -> None:
        """Refuse what would allow a skip everywhere.

        Raises:
            ValueError: the entry has neither a machine nor releases.
        """
        if self.machine is None and self.releases is None:
            raise ValueError(f"{self.reason!r}: expected machine or releases, a skip for no cause is a gap")

    def covers(self, reason: str, machine: Collection[str], release: str) -> bool:
        """Whether a skip for ``reason`` is in order on a machine with the conditions ``machine`` and on ``release``."""
        return (
            (reason == self.reason or fnmatch.fnmatchcase(reason, self.reason))
            and (self.machine is None or self.machine in machine)
            and (self.releases is None or self.releases.contains(release, prereleases=True))
        )


def load(path: Path = FILE) -> list[AllowedSkip]:
    """The allow-list.

    Raises:
        ValueError: an entry has an unknown field, no reason, or neither a machine condition nor releases.
    """
    return read_list(path, AllowedSkip, check=AllowedSkip.check)


def allowed(reason: str, machine: Collection[str], release: str, skips: Collection[AllowedSkip]) -> bool:
    """Whether a skip for ``reason`` is on the allow-list for this machine and release; an empty reason never is."""
    return bool(reason) and any(skip.covers(reason, machine, release) for skip in skips)
