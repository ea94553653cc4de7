"""One sentence at a time: is it known, can its words be read, and if not, which ones are near."""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from support.errors import Mistake
from support.faults.victims import VICTIMS
from support.marks import Marks, marks_of
from support.run.lint.found import Unclear
from support.words import EXAMPLES, MOMENTS, TYPES

KINDS = ("given", "when", "then")
NEAREST, SURE = 3, 0.75
"""How many sentences are told that are near; how much of the nearest one has to be there to be what was meant."""
OTHER_KIND = 0.1
"""How much less a sentence for another keyword counts."""
PLACEHOLDER = re.compile(r"\{(\w+)(?::(\w+))?\}")


@dataclass(frozen=True)
class Understood:
    """A sentence that is known and whose words could be read.

    Attributes:
        step: the function that plays it.
        words: name of a placeholder -> its type, what was written, what that means.
    """

    step: Callable[..., Any]
    words: dict[str, tuple[str, str, Any]]

    @property
    def marks(self) -> Marks:
        """What the sentence takes and brings. A trigger needs somebody who asks; so may a victim, and a moment that is
        one of an answer needs that.
        """
        marks, words = marks_of(self.step), self.arguments
        needs = [*marks.needs, *(VICTIMS[words["victim"]].needs if "victim" in words else ())]
        needs += ["request"] if words.get("trigger") else []
        needs += [MOMENTS[words["moment"]]] if words.get("moment") else []
        return replace(marks, needs=tuple(needs))

    @property
    def arguments(self) -> dict[str, Any]:
        """What its step is called with."""
        return {name: value for name, (_, _, value) in self.words.items()}


class Sentences:
    """All sentences there are, as behave's registry of steps has them."""

    def __init__(self, registry: Any) -> None:
        self._steps = registry.steps
        self._read: dict[tuple[str, str], Understood | Mistake] = {}

    def read(self, kind: str, text: str) -> Understood:
        """The sentence.

        Args:
            kind: one of :data:`KINDS`.

        Raises:
            Mistake: nobody knows it, or a word in it cannot be read.
        """
        if (kind, text) not in self._read:
            self._read[kind, text] = self._understand(kind, text) or self._unknown(kind, text)
        found = self._read[kind, text]
        if isinstance(found, Mistake):
            raise found
        return found

    def _understand(self, kind: str, text: str) -> Understood | Mistake | None:
        for definition in [*self._steps[kind], *self._steps["step"]]:
            match = definition.match(text)
            if not match:
                continue
            if error := getattr(match, "stored_error", None):
                return error if isinstance(error, Mistake) else Mistake(str(error))
            types = dict(PLACEHOLDER.findall(definition.pattern))
            words = {each.name: (types[each.name], each.original, each.value) for each in match.arguments}
            return Understood(definition.func, words)
        return None

    def _unknown(self, kind: str, text: str) -> Mistake:
        for other in KINDS:
            if other != kind and isinstance(self._understand(other, text), Understood):
                said = f'"{text}" is a sentence for {other.title()}, not for {kind.title()}'
                return Mistake(said, write=f"{other.title()} {text}")
        near = self._near(kind, text)
        sure = near[0][1] if near[0][0] >= SURE else ""
        return Unclear(f'there is no sentence "{kind.title()} {text}"', [each for _, each in near], sure)

    def _near(self, kind: str, text: str) -> list[tuple[float, str]]:
        """The nearest sentences, with those words of ``text`` in them that fit, and how much of each is the same."""
        matcher = difflib.SequenceMatcher(None, "", text.lower(), autojunk=False)
        rough = []
        for other in KINDS:
            less = OTHER_KIND if other != kind else 0.0
            for definition in self._steps[other]:
                filled = _filled(definition.pattern, text)
                matcher.set_seq1(filled.lower())
                rough.append((matcher.quick_ratio() - less, less, f"{other.title()} {filled}", filled.lower()))
        near: list[tuple[float, str]] = []
        for most, less, told, filled in sorted(rough, reverse=True):
            if len(near) == NEAREST and most < near[-1][0]:
                break  # the exact ratio is never more than the rough one, which takes no time
            matcher.set_seq1(filled)
            near = sorted([*near, (matcher.ratio() - less, told)], reverse=True)[:NEAREST]
        return near

    def looks_like_one(self, kind: str, text: str) -> bool:
        """Whether a line that nothing calls a sentence was meant for one."""
        return self._understand(kind, text) is not None or self._near(kind, text)[0][0] >= SURE


def _filled(pattern: str, text: str) -> str:
    """A sentence with those words of ``text`` in its placeholders that are right there, else with right ones."""
    rest = text

    def fill(found: re.Match[str]) -> str:
        nonlocal rest
        name, word_type = found[1], TYPES.get(found[2] or "")
        if word_type is None:
            quoted = re.search(r'"([^"]*)"', rest)
            return quoted[1] if quoted else name
        words: tuple[str, ...] = getattr(word_type, "words", ())
        if words:
            there = [each for each in words if re.search(rf"(?<!\w){re.escape(each)}(?!\w)", rest)]
        else:
            pattern: str = word_type.pattern  # type: ignore[attr-defined]
            there = [each for each in re.findall(pattern, rest) if _readable(word_type, each)]
        if not there:
            return words[0] if words else EXAMPLES[found[2]]
        best = max(there, key=len) if words or "" in there else there[0]
        rest = rest.replace(best, "", 1)
        return best

    return PLACEHOLDER.sub(fill, pattern)


def _readable(word_type: Callable[[str], Any], text: str) -> bool:
    try:
        word_type(text)
    except Mistake:
        return False
    return True
