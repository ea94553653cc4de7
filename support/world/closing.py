"""The end of a scenario: many steps that all have to be taken, whatever becomes of those before."""

from collections.abc import Iterator
from contextlib import contextmanager


class Closing:
    """What went wrong on the way, in words; nothing of it keeps the next step from being taken.

    Attributes:
        records_lost: steps that should have kept what was seen.
        not_undone: steps that should have put the machine back as it was.
    """

    def __init__(self) -> None:
        self.records_lost: list[str] = []
        self.not_undone: list[str] = []

    @contextmanager
    def recording(self, what: str) -> Iterator[None]:
        """A step that keeps a record; ``what`` it keeps begins its entry in :attr:`records_lost`."""
        with _kept(self.records_lost, what):
            yield

    @contextmanager
    def undoing(self, what: str) -> Iterator[None]:
        """A step that puts something back; ``what`` begins its entry in :attr:`not_undone`."""
        with _kept(self.not_undone, what):
            yield


@contextmanager
def _kept(problems: list[str], what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the next step is taken
        problems.append(f"{what}: {type(error).__name__}: {error}")
