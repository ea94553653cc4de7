"""Feature files as behave reads them, once their lines are as they were meant; and all mistakes in them."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from support.errors import Mistake
from support.run.lint import keywords
from support.run.lint.found import FoundMistake
from support.run.lint.scenarios import FeatureLint
from support.run.lint.sentences import Sentences
from support.settings import ROOT


class Unreadable(Exception):
    """A line of a feature file cannot be read.

    Attributes:
        line: from 1 up; ``said``: what behave says of it.
    """

    def __init__(self, line: int, said: str) -> None:
        super().__init__(said)
        self.line, self.said = line, said


Parse = Callable[[str, str], Any]
"""Makes behave's model of a feature from a text and the name of its file; raises :class:`Unreadable`."""


def find(files: Iterable[str], parse: Parse, sentences: Sentences, root: Path = ROOT) -> Iterator[FoundMistake]:
    """All mistakes in some feature files; the features of the same name are looked for in all of features/."""
    chosen = [os.path.relpath(file, root) for file in files]
    others = [str(each.relative_to(root)) for each in sorted((root / "features").rglob("*.feature"))]
    names: dict[str, str] = {}
    for file in dict.fromkeys([*(each for each in others if each not in chosen), *chosen]):
        reading = Reading(file, (root / file).read_bytes(), parse, sentences)
        feature = reading.feature
        if file in chosen:
            yield from reading.found
            if feature is not None:
                yield from FeatureLint(file, feature, sentences).found()
        if feature is not None and (other := names.setdefault(feature.name, file)) != file and file in chosen:
            said = f"{other} also has a feature {feature.name!r}; the two would share one history"
            yield FoundMistake.at(file, feature.line, Mistake(said, write="another name"))


class Reading:
    """One file, read again and again until each line can be.

    Attributes:
        feature: behave's model of it; None: it is beyond reading.
        found: the lines that had to be corrected.
    """

    def __init__(self, file: str, content: bytes, parse: Parse, sentences: Sentences) -> None:
        self._file, self._parse, self._sentences = file, parse, sentences
        self.feature: Any = None
        self.found: list[FoundMistake] = []
        try:
            self._lines = content.decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            self._tell(0, Mistake(f"the file is not UTF-8: {error}", write="it as UTF-8"))
        else:
            self._close_rows()
            while self._mend():
                pass

    def _tell(self, index: int, mistake: Mistake) -> None:
        self.found.append(FoundMistake.at(self._file, index + 1, mistake))

    def _close_rows(self) -> None:
        """behave takes the last letter of a row for its end, whatever it is."""
        for index, line in enumerate(self._lines):
            if line.strip().startswith("|") and not line.strip().endswith("|"):
                right = f"{line.rstrip()} |"
                self._tell(index, Mistake("the row does not end with |", write=right.strip()))
                self._lines[index] = right

    def _mend(self) -> bool:
        """Read it once; whether a line was corrected, so that it has to be read again."""
        try:
            feature = self._parse("\n".join(self._lines), self._file)
        except Unreadable as error:
            return self._mend_unreadable(error.line - 1, error.said)
        if feature is None:
            self._tell(0, keywords.REASONS["No feature found"])
            return False
        for part in [feature, *feature.iter_rules()]:
            for each in part.scenarios:
                if each.type == "scenario_outline":  # behave would print of those without a table
                    each.examples = [block for block in each.examples if block.table is not None]
        above = 0
        for index in keywords.descriptions(feature, self._lines):
            line = self._lines[index]
            if right := keywords.corrected(line, self._sentences):
                return self._correct(index, right)
            if keywords.is_step(line, self._sentences):
                if right := keywords.without_colon(self._lines[above]):
                    return self._correct(above, right)
                self._tell(index, Mistake(f"{line.strip()!r} is in no scenario", write="Scenario: NAME above it"))
                self._lines[index] = ""
                return True
            above = index
        self.feature = feature
        return False

    def _correct(self, index: int, right: str) -> bool:
        self._tell(index, keywords.misspelt(self._lines[index], right))
        self._lines[index] = right
        return True

    def _mend_unreadable(self, index: int, said: str) -> bool:
        line = self._lines[index]
        if "REQUIRES" in said and (first := self._misspelt_above(index)) is not None:
            index, line = first, self._lines[first]
        if right := keywords.corrected(line, self._sentences) or keywords.without_colon(line):
            return self._correct(index, right)
        outline = self._outline_above(index) if "Examples must only appear" in said else None
        if outline is not None:
            mistake = Mistake("Examples need a Scenario Outline, not a Scenario", write="Scenario Outline: instead")
            self._tell(outline, mistake)
            self._lines[outline] = self._lines[outline].replace("Scenario:", "Scenario Outline:", 1)
            return True
        self._tell(index, keywords.reason(said, line))
        if "No feature found" in said or not line.strip():
            return False
        # What follows it belongs to it: a table to its sentence, steps to their heading.
        for n in range(index, self._end_of(index)):
            self._lines[n] = ""
        return True

    def _misspelt_above(self, index: int) -> int | None:
        """Index of the line above that would have been the first step, had its keyword been right."""
        for n in range(index - 1, 0, -1):
            if keywords.begins_block(self._lines[n].strip()):
                return None
            if keywords.corrected(self._lines[n], self._sentences):
                return n
        return None

    def _outline_above(self, index: int) -> int | None:
        found = [n for n in range(index) if self._lines[n].strip().startswith("Scenario:")]
        return found[-1] if found else None

    def _end_of(self, index: int) -> int:
        """Index of the first line that does not go with this one."""
        first = self._lines[index].strip()
        headed = first.endswith(":") or any(first.startswith(f"{each}:") for each in keywords.STRUCTURE)
        for n in range(index + 1, len(self._lines)):
            line = self._lines[n].strip()
            if line.startswith("|") and not first.startswith("|"):
                continue
            if not headed or keywords.begins_block(line):
                return n
        return len(self._lines)
