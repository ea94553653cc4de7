"""Which skips are no gap on which release: the committed allow-list. What a target may lack, it says itself."""

import fnmatch
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from support.data import Releases, read_list

FILE = Path(__file__).with_name("skips.yaml")


@dataclass(frozen=True)
class AllowedSkip:
    """A reason (exact or glob) that may be given on some releases."""

    reason: str
    releases: Releases

    def covers(self, reason: str, release: str) -> bool:
        """Whether a skip for ``reason`` is in order on ``release``."""
        return fnmatch.fnmatchcase(reason, self.reason) and self.releases.contains(release, prereleases=True)


def load(path: Path = FILE) -> list[AllowedSkip]:
    """The allow-list.

    Raises:
        ValueError: an entry has an unknown field, no reason, or no releases.
    """
    return read_list(path, AllowedSkip)


def allowed(reason: str, release: str, skips: Collection[AllowedSkip]) -> bool:
    """Whether a skip for ``reason`` is on the allow-list for this release; an empty reason never is."""
    return bool(reason) and any(skip.covers(reason, release) for skip in skips)
