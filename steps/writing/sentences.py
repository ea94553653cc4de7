"""All sentences, as their step functions define and describe them.

The docstring of a step function says in its first paragraph what the sentence means, and then, a line each::

    Time: from when the times in the sentence count.
    Waits: until when behave waits before it goes on; "no" where it does not.
    Proof: what shows it.
    Needs: what the target or the release has to have: names of needs and lacks.
    Also: other words that somebody may search for.

``Waits`` and ``Proof`` are there always, ``Time`` wherever the sentence names a time, ``Needs`` and ``Also`` where they
apply. What table may stand below it is among its marks.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from behave import register_type
from behave.step_registry import registry

from support.contract.shape import ENGINES
from support.errors import LACKS
from support.marks import TABLES, marks_of
from support.settings import ROOT
from support.targets.needs import NEEDS
from support.words import TIMES, TYPES

FIELDS = ("Time", "Waits", "Proof", "Needs", "Also")
KEYWORDS = ("given", "when", "then")
PLACEHOLDER = re.compile(r"\{(\w+)(?::(\w+))?\}")
NAMES = (*NEEDS, *LACKS, *ENGINES)
"""What a sentence may need."""


@dataclass(frozen=True)
class Sentence:
    """One sentence.

    Attributes:
        keyword: ``given``, ``when`` or ``then``.
        pattern: as the step function has it, ``a Dynamo deployment with {count:Count} ...``.
        noun: the file of steps/ that it is in; ``about``: what that file says of itself.
        meaning: in a sentence.
        facts: those of :data:`FIELDS` that it has, and ``Table``, where one may stand below it.
        matcher: behave's own, which tells whether a line of a feature is this sentence.
    """

    keyword: str
    pattern: str
    noun: str
    about: str
    meaning: str
    facts: Mapping[str, str]
    matcher: Any

    @property
    def placeholders(self) -> list[tuple[str, str]]:
        """Name and type of each; a type that is empty stands for any text."""
        return PLACEHOLDER.findall(self.pattern)

    @property
    def needs(self) -> list[str]:
        """What the target or the release has to have."""
        return self.facts["Needs"].rstrip(".").split(", ") if "Needs" in self.facts else []

    def problems(self) -> list[str]:
        """What it lacks to be looked up, a sentence each."""
        found = [f"has no {name}:" for name in ("Waits", "Proof") if not self.facts.get(name)]
        timed = any(kind in TIMES for _, kind in self.placeholders)
        if timed and "Time" not in self.facts:
            found.append("names a time and has no Time:")
        elif "Time" in self.facts and not (timed or "Table" in self.facts):
            found.append("has Time: and names no time, nor has a Table: that could")
        if not self.meaning.endswith("."):
            found.append("does not say what it means in a first sentence")
        found += [f"needs {name!r}; expected one of {', '.join(NAMES)}" for name in self.needs if name not in NAMES]
        return [f'steps/{self.noun}.py: "{self.pattern}" {each}' for each in found]


def load() -> list[Sentence]:
    """All sentences: by file, those that begin scenarios first, and in a file by keyword.

    Raises:
        ValueError: a docstring has a line that belongs to no field.
    """
    register_type(**TYPES)
    modules = [importlib.import_module(f"steps.{file.stem}") for file in sorted((ROOT / "steps").glob("*.py"))]
    abouts = {module.__name__: (inspect.getdoc(module) or "").partition("\n\n")[0] for module in modules}
    found = []
    for keyword in KEYWORDS:
        for matcher in registry.steps[keyword]:
            meaning, facts = described(matcher.func)
            if table := marks_of(matcher.func).table:
                facts["Table"] = f"{TABLES[table]}."
            if engine := marks_of(matcher.func).engine:
                facts["Needs"] = ", ".join([engine, *filter(None, [facts.get("Needs")])])
            noun = Path(matcher.func.__code__.co_filename).stem  # a step that behave has loaded has no module
            about = abouts[f"steps.{noun}"]
            found.append(Sentence(keyword, matcher.pattern, noun, about, meaning, facts, matcher))
    first = {each.noun: KEYWORDS.index(each.keyword) for each in reversed(found)}
    return sorted(found, key=lambda each: (first[each.noun], each.noun))


def described(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What the docstring of a step function says: the meaning, and the fields.

    Raises:
        ValueError: it has a line that belongs to no field.
    """
    meaning, _, rest = (inspect.getdoc(function) or "").partition("\n\n")
    facts: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        begin, colon, value = line.partition(": ")
        if begin in FIELDS and colon:
            name = begin
            facts[name] = value
        elif line.startswith(" ") and name:
            facts[name] += " " + line.strip()
        else:
            raise ValueError(f"{function.__name__} says {line!r}; expected a line that begins with one of {FIELDS}")
    return " ".join(meaning.split()), facts
