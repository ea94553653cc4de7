"""Which skips are acceptable on which release: the committed allow-list. What a target may lack, it says itself."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from support.data import Releases, read_list
from support.errors import LACKS
from support.schema import OneOf

FILE = Path(__file__).with_name("skips.yaml")


@dataclass(frozen=True)
class AllowedSkip:
    """What some releases may lack."""

    lack: Annotated[str, OneOf(LACKS)]
    releases: Releases

    def covers(self, lack: str, release: str) -> bool:
        """Whether a skip for the want of ``lack`` is in order on ``release``."""
        return lack == self.lack and self.releases.contains(release, prereleases=True)


def load(path: Path = FILE) -> list[AllowedSkip]:
    """The allow-list.

    Raises:
        ValueError: an entry has an unknown field, names no lack, or has no releases.
    """
    return read_list(path, AllowedSkip)


def allowed(lack: str, release: str, skips: Collection[AllowedSkip]) -> bool:
    """Whether a skip for the want of ``lack`` is on the allow-list for this release; one that names none never is."""
    return any(skip.covers(lack, release) for skip in skips)
