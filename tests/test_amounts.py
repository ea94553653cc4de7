"""Numbers of things in words: one is never several."""

import ast
import re
from itertools import pairwise

import pytest

from support.amounts import amount
from support.settings import ROOT

FOLDERS = ("support", "agents", "steps", "tests/lies", "tests/mutation", "tests/sabotage")
COUNTS = {"len", "sum"}
NAMES = re.compile("^(count|total|missing|lost|wanted|listed|asked|played|max_tokens|planned)$")
SEVERAL = re.compile(r"^ (?!of )(?:[a-z]+ )?[a-z]{2,}s\b")
NO_NOUNS = re.compile(r"^ (?:[a-z]+ )?(?:times|seconds|was|is|has|does|this|[a-z]+ss)\b")


def plurals(text: str) -> list[str]:
    """Where an f-string of a module puts a number before a word that is one for several things."""
    found = []
    for node in ast.walk(ast.parse(text)):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for value, after in pairwise(parts):
            if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant):
                words = str(after.value)
                if _counts(value) and SEVERAL.match(words) and not NO_NOUNS.match(words):
                    found.append(f"{{{ast.unparse(value.value)}}}{words}")
    return found


def _counts(value: ast.FormattedValue) -> bool:
    what = value.value
    if isinstance(what, ast.Call):
        return isinstance(what.func, ast.Name) and what.func.id in COUNTS
    if isinstance(what, ast.BinOp):
        return any(isinstance(each, ast.Call) and _counts(ast.FormattedValue(each, -1)) for each in ast.walk(what))
    return bool(NAMES.match(getattr(what, "id", getattr(what, "attr", ""))))


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 workers"), (1, "1 worker"), (2, "2 workers"), (1.0, "1 worker"), (0.5, "0.5 workers")]
)
def test_one_is_one(number: float, words: str) -> None:
    assert amount(number, "worker") == words
    assert amount(number, "reply", "replies") == words.replace("workers", "replies").replace("worker", "reply")


def test_plurals_are_found() -> None:
    text = "f'{len(a)} requests, {count:g} new workers, {len(a) - b} more things of {len(c)} is {number} s, {x} goes'"
    assert plurals(text) == ["{len(a)} requests, ", "{count} new workers, ", "{len(a) - b} more things of "]


def test_nobody_else_puts_a_number_before_things() -> None:
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    found = [f"{file.relative_to(ROOT)}: {each}" for file in files for each in plurals(file.read_text())]
    assert found == []
