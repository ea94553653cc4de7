"""Mutants that may survive, each with the reason; whatever else survives is a hole in the tests."""

from collections.abc import Sequence
from dataclasses import dataclass

from support.data import read_list
from tests.mutation import SURVIVORS
from tests.mutation.mutants import Mutant


@dataclass(frozen=True)
class Survivor:
    """A mutant that is accepted: the fields that tell it (:class:`tests.mutation.mutants.Mutant`), and why it is."""

    path: str
    where: str
    was: str
    now: str
    why: str

    def is_of(self, mutant: Mutant) -> bool:
        """Whether it is this one."""
        return (self.path, self.where, self.was, self.now) == (mutant.path, mutant.where, mutant.was, mutant.now)


def read_survivors() -> list[Survivor]:
    """All that are accepted; ValueError: the file makes no sense."""
    return read_list(SURVIVORS, Survivor)


def unknown(left: Sequence[Mutant], accepted: Sequence[Survivor]) -> list[Mutant]:
    """Those that survived and are not accepted."""
    return [mutant for mutant in left if not any(each.is_of(mutant) for each in accepted)]


def unneeded(left: Sequence[Mutant], accepted: Sequence[Survivor]) -> list[Survivor]:
    """Those that are accepted and did not survive, or are no mutant any more."""
    return [each for each in accepted if not any(each.is_of(mutant) for mutant in left)]
