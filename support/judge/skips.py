"""Which skips are no gap: the committed allow-list of reasons, by kind of machine and release."""

import fnmatch
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from support.data import read_yaml

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
    machine: str | None = None
    releases: SpecifierSet | None = None

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
    data = read_yaml(path) or []
    if not isinstance(data, list):
        raise ValueError(f"{path.name} holds a {type(data).__name__}; expected a list")
    return [_entry(f"{path.name}, entry {number}", fields) for number, fields in enumerate(data, 1)]


def allowed(reason: str, machine: Collection[str], release: str, skips: Collection[AllowedSkip]) -> bool:
    """Whether a skip for ``reason`` is on the allow-list for this machine and release; an empty reason never is."""
    return bool(reason) and any(skip.covers(reason, machine, release) for skip in skips)


def _entry(where: str, fields: Any) -> AllowedSkip:
    if not isinstance(fields, dict) or not isinstance(fields.get("reason"), str):
        raise ValueError(f"{where} is {fields!r}; expected reason and machine or releases")
    if unknown := set(fields) - {"reason", "machine", "releases"}:
        raise ValueError(f"{where}: unknown field {min(unknown)!r}; allowed are reason, machine, releases")
    machine, releases = fields.get("machine"), fields.get("releases")
    if machine is None and releases is None:
        raise ValueError(f"{where} ({fields['reason']}): expected machine or releases, a skip for no cause is a gap")
    if machine is not None and machine not in MACHINES:
        raise ValueError(f"{where}: unknown machine {machine!r}; expected one of {', '.join(MACHINES)}")
    try:
        return AllowedSkip(fields["reason"], machine, None if releases is None else SpecifierSet(releases))
    except InvalidSpecifier as error:
        raise ValueError(f"{where}: releases is {releases!r}; expected e.g. '<1.1'") from error
