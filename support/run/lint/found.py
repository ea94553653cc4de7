"""A mistake and its place, and how all of them are told."""

from collections.abc import Iterable
from dataclasses import dataclass

from support.amounts import amount
from support.errors import Mistake

WIDEST, LONGEST_WORD = 100, 40
"""Characters of a line; of something allowed that has a line of its own, as sentences have."""


@dataclass(frozen=True, order=True)
class FoundMistake:
    """One mistake in a feature file.

    Attributes:
        file: as it was given; ``line`` from 1 up.
        wrong, allowed, write: as :class:`support.errors.Mistake` has them.
        called: what ``allowed`` are.
    """

    file: str
    line: int
    wrong: str
    allowed: tuple[str, ...] = ()
    write: str = ""
    called: str = "allowed"

    @classmethod
    def at(cls, file: str, line: int, mistake: Mistake) -> "FoundMistake":
        """A mistake at its place."""
        return cls(file, line, mistake.wrong, mistake.allowed, mistake.write, getattr(mistake, "called", "allowed"))

    def told(self) -> str:
        """In a few lines: the place with what is wrong, what is allowed, what to write."""
        lines = [f"{self.file}:{self.line}: {self.wrong}"]
        if self.allowed:
            apart = max(map(len, self.allowed)) > LONGEST_WORD
            rows = self.allowed if apart else _wrapped(self.allowed)
            lines += [f"    {f'{self.called}:' if n == 0 else '':<9}{row}" for n, row in enumerate(rows)]
        if self.write:
            lines.append(f"    {'write:':<9}{self.write}")
        return "\n".join(lines)


def _wrapped(words: Iterable[str]) -> list[str]:
    rows = [""]
    for word in words:
        if rows[-1] and len(rows[-1]) + len(word) > WIDEST:
            rows.append("")
        rows[-1] += f"{', ' if rows[-1] else ''}{word}"
    return [f"{row}," for row in rows[:-1]] + rows[-1:]


class Unclear(Mistake):
    """A mistake for which there are only sentences that are much like what was written."""

    called = "nearest"


def report(found: Iterable[FoundMistake]) -> str:
    """All mistakes, by place, and how many there are; empty for none."""
    mistakes = sorted(set(found))
    if not mistakes:
        return ""
    count = amount(len(mistakes), "mistake")
    where = files_of(len({each.file for each in mistakes}))
    return "\n".join([*(each.told() for each in mistakes), "", f"{count} in {where}; nothing was started"])


def files_of(count: int) -> str:
    """So many feature files, in words."""
    return amount(count, "feature file")
