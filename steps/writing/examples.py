"""Examples of sentences: scenarios of the features. tests/test_fake_target.py plays all but those for a cluster."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from behave.configuration import Configuration
from behave.parser import parse_file
from behave.step_registry import registry

from steps.writing.sentences import Sentence
from support.settings import ROOT

Use = tuple[str, Any, Any]
"""A file, behave's scenario in it and behave's step in that."""


@dataclass(frozen=True)
class Example:
    """A sentence in a scenario.

    Attributes:
        line: the sentence with the table below it, as lines of a feature.
        scenario: the whole scenario, as lines of a feature.
        name: of the scenario; ``feature``: the file that it is in.
    """

    line: str
    scenario: str
    name: str
    feature: str


@dataclass(frozen=True)
class Usage:
    """What the features make of a sentence.

    Attributes:
        example: the shortest scenario of the default selection with it, else of any; None: none has it.
        words: name of each placeholder -> what stands there, in all features.
        tags: those that all scenarios with it have.
    """

    example: Example | None
    words: dict[str, set[str]]
    tags: frozenset[str]


def usages(sentences: Sequence[Sentence]) -> dict[str, Usage]:
    """Pattern of each sentence -> what the features make of it."""
    found: dict[int, list[Use]] = defaultdict(list)
    known: dict[tuple[str, str], Any] = {}
    for file, scenario in scenarios():
        for step in scenario.all_steps:
            key = step.step_type, step.name
            if key not in known:
                known[key] = registry.find_step_definition(step)
            found[id(known[key])].append((file, scenario, step))
    selected = Configuration([]).tag_expression
    return {each.pattern: _usage(each, found[id(each.matcher)], selected) for each in sentences}


def scenarios() -> Iterator[tuple[str, Any]]:
    """Every scenario of the features, as behave has it, with its file; one for each row of an outline.

    Raises:
        behave.parser.ParserError: a file is not Gherkin.
    """
    Configuration([])  # it has an outline's scenarios named as behave.ini wants it
    for file in sorted((ROOT / "features").rglob("*.feature")):
        for scenario in parse_file(str(file)).walk_scenarios():
            yield str(file.relative_to(ROOT)), scenario


def _usage(sentence: Sentence, uses: Sequence[Use], selected: Any) -> Usage:
    words = defaultdict[str, set[str]](set)
    for _, _, step in uses:
        for argument in sentence.matcher.match(step.name).arguments or ():
            words[argument.name].add(argument.original)
    played = [use for use in uses if selected.check(use[1].effective_tags)]
    shortest = min(played or uses, key=lambda use: len(list(use[1].all_steps)), default=None)
    tags = [frozenset(scenario.effective_tags) for _, scenario, _ in uses]
    return Usage(
        shortest and _example(sentence, *shortest),
        words,
        frozenset.intersection(*tags) if tags else frozenset(),
    )


def _example(sentence: Sentence, file: str, scenario: Any, step: Any) -> Example:
    text = "\n".join([f"Scenario: {scenario.name}", *as_text(scenario)])
    line = "\n".join(_lines(sentence.keyword.capitalize(), step))
    return Example(line, text, scenario.name, file)


def as_text(scenario: Any) -> Iterator[str]:
    """The steps of a scenario as lines of a feature."""
    for step in scenario.all_steps:
        yield from (f"  {line}" for line in _lines(step.keyword, step))


def _lines(keyword: str, step: Any) -> Iterator[str]:
    yield f"{keyword} {step.name}"
    if step.table:
        rows = [step.table.headings, *(row.cells for row in step.table.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            yield "  | " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
