"""Lines that behave's parser does not take for what they were meant to be, and how they have to be written."""

import difflib
import re
from collections.abc import Iterator
from typing import Any

from support.errors import Mistake
from support.run.lint.sentences import KINDS, Sentences

STEPS = ("Given", "When", "Then", "And", "But")
STRUCTURE = ("Feature", "Background", "Rule", "Scenario Outline", "Scenario", "Examples")
ALIASES = ("Example", "Scenario Template", "Scenarios")
"""Keywords that behave knows as well."""
ALIKE = 0.75
"""How much of a word has to be there for the keyword that it was meant for."""
REASONS = {
    "Malformed table": Mistake("the row has more or fewer cells than the heading row", write="a cell for each column"),
    "REQUIRES: An previous": Mistake("And and But come after a Given, When or Then", STEPS[:3]),
    "TABLE-START": Mistake("the table is not below a sentence"),
    "Multiple features": Mistake("a file has one feature, and this is the second", write="it into a file of its own"),
    "Second Background": Mistake("this is a second Background", write="all of its steps into the first"),
    "Background may not occur after": Mistake("the Background is below a scenario", write="it above all scenarios"),
    "Background supports no tags": Mistake("a Background has no tags", write="them above the Feature"),
    "No feature found": Mistake("the file does not begin with a Feature", write="Feature: NAME as its first line"),
    "tag:": Mistake("in a line of tags each word begins with @"),
}
"""What behave's parser says of a line -> the same for whoever wrote it."""


def corrected(line: str, sentences: Sentences) -> str:
    """The line as it was meant, where its keyword is misspelt; empty where there is no telling."""
    blank = line[: len(line) - len(line.lstrip())]
    words = line.split()
    if found := re.match(r"\s*([A-Za-z]+(?: [A-Za-z]+)?)\s*:(.*)", line):
        near = difflib.get_close_matches(found[1].title(), STRUCTURE, 1, ALIKE)
        if near and found[1] not in (*STRUCTURE, *ALIASES):
            return f"{blank}{near[0]}:{found[2]}"
    if len(words) > 1:
        near = difflib.get_close_matches(words[0].rstrip(":").title(), STEPS, 1, ALIKE)
        text = line.split(None, 1)[1].strip()
        if near and words[0].lower() != near[0].lower() and _was_meant(near[0], text, sentences):
            return f"{blank}{near[0]} {text}"
    return ""


def is_step(line: str, sentences: Sentences) -> bool:
    """Whether a line is a step, although it stands where none is taken for one."""
    keyword, _, text = line.strip().partition(" ")
    return keyword in STEPS and _was_meant(keyword, text.strip(), sentences)


def begins_block(line: str) -> bool:
    """Whether a line begins something of its own: a scenario, or the tags of one."""
    return line.startswith("@") or any(line.startswith(f"{each}:") for each in (*STRUCTURE, *ALIASES))


def without_colon(line: str) -> str:
    """A line whose keyword lacks its colon alone, with it; empty for others."""
    found = re.match(rf"(\s*)({'|'.join(STRUCTURE)})\b(?!:)(.*)", line)
    return f"{found[1]}{found[2]}:{found[3]}" if found else ""


def _was_meant(keyword: str, text: str, sentences: Sentences) -> bool:
    kinds = [keyword.lower()] if keyword.lower() in KINDS else KINDS
    return any(sentences.looks_like_one(kind, text) for kind in kinds)


def misspelt(line: str, right: str) -> Mistake:
    """That a line has to be ``right`` instead."""
    wrong, meant = line.split()[0], right.strip()
    structure = next((each for each in STRUCTURE if meant.startswith(f"{each}:")), "")
    allowed = [f"{each}:" for each in STRUCTURE] if structure else STEPS
    return Mistake(
        f"{wrong!r} is not a keyword" if not structure else f"{line.strip()!r} is not a heading", allowed, meant
    )


def reason(said: str, line: str) -> Mistake:
    """What is wrong with a line of which behave's parser says this."""
    for words, mistake in REASONS.items():
        if words in said:
            return mistake
    if "Parser failure" not in said:
        return Mistake(f"{line.strip()!r} cannot be read: {said.strip().splitlines()[0]}")
    return Mistake(f"{line.strip()!r} begins with no keyword", [*STEPS, *(f"{each}:" for each in STRUCTURE)])


def descriptions(feature: Any, lines: list[str]) -> Iterator[int]:
    """Index of each line that was taken for a part of a description: of the feature, a rule or a scenario."""
    for each in [feature, *feature.walk_scenarios(with_outlines=True, with_rules=True)]:
        told = list(each.description)
        at = each.line  # the line below its heading, counted from 0
        for text in told if getattr(each, "_row", None) is None else ():
            while at < len(lines) and lines[at].strip() != text.strip():
                at += 1
            if at < len(lines):
                yield at
                at += 1
