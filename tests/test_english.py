"""Texts are plain English: phrases that make a native reader stop do not come back."""

import re
from pathlib import Path

import pytest

from support.settings import ROOT

PLACES = ("features", "steps", "support", "agents", "environment.py", "docs", "README.md")
KINDS = {".feature", ".py", ".yaml", ".md"}
STILTED = [
    (r"\bin so many words\b", "say the words", "it is refused in so many words"),
    (r"\b(?:up to|at most|after|for|by|with|in) so (?:many|much|long)\b", "this many", "Up to so many are drawn"),
    (r"\bnobody's way\b", "that no request crosses", "a cut that lies in nobody's way"),
    (r"\b(?:finds|found) etcd\b|\betcd (?:is|was) away\b", "notices that etcd is down", "w-0 finds etcd away"),
    (r"\btold to shut down\b", "is shut down", "a worker that is told to shut down"),
    (r"\btakes? (?:\w+ ){1,3}for busy\b", "treats as busy", "the frontend takes a worker for busy"),
    (r"(?:percent|%) of its memory on\b", "once ... of its memory is in use", "busy from 0.2 percent of its memory on"),
    (r"\bcosts nothing any more\b", "is free", "an answer costs nothing any more"),
    (r"\bunder way\b", "in flight (a request), running (a load)", "a request was under way"),
    (r"\b(?:was|were) to (?:be|end|get|keep|put|stay|wait|come|complete)\b", "should have", "it was to end"),
    (r"\bfor want of\b", "for lack of", "lost for want of room"),
    (r"\bbut for\b", "except", "unharmed but for one thing"),
    (r"\banew\b", "again", "read anew"),
    (r"\bmend(?:s|ed|ing)?\b", "correct, repair", "mend the record"),
    (r"\bpasses for an\b", "looks like", "what passes for an answer"),
    (r"'s doing\b", "who caused it", "it is Dynamo's doing"),
    (r"\b(?:left|leaves|has left) by (?:itself|themselves)\b", "exits by itself", "w-0 left by itself"),
    (
        r"(?<!there )\bis no (?:count|time|number|share|trigger|keyword|heading|folder|file|JSON|YAML|UTF-8|pod)\b",
        "is not a",
        "'x' is no time",
    ),
    (r"\bis said (?:after|when|once)\b", "say who says it and when", "recovered is said after a look"),
    (r"\bthe \w+ that there (?:is|are)\b", "leave it out", "on top of the load that there is"),
    (r"\bbelieved\?|\bis to be believed\b", "can be trusted", "nothing there is to be believed"),
    (r"\bto speak of\b", "leave it out", "no leader to speak of"),
    (r"\bwhoever comes by\b", "the next one", "whoever comes by removes it"),
]
"""Pattern of a phrase, what to write instead, and a text that has it."""


def texts() -> list[Path]:
    """All files that may have such phrases."""
    places = [ROOT / place for place in PLACES]
    files = [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*")))]
    return [file for file in files if file.suffix in KINDS]


def found(pattern: str, text: str) -> list[str]:
    """Where a text has the phrase, with its surroundings; line breaks in comments and literals do not hide it."""
    joined = re.sub(r"""["']\s*\n\s*[a-z]?["']""", "", text)
    flat = re.sub(r"\s*\n\s*(?:#\s*)?", " ", joined)
    return [flat[max(0, at.start() - 40) : at.end() + 20] for at in re.finditer(pattern, flat, re.IGNORECASE)]


@pytest.mark.parametrize(("pattern", "instead", "example"), STILTED)
def test_each_pattern_finds_its_phrase(pattern: str, instead: str, example: str) -> None:
    assert found(pattern, example), example
    assert found(pattern, example.replace(" ", "\n    # ", 1)) == found(pattern, example.replace(" ", " ", 1)), example
    assert found(pattern, instead) == []


@pytest.mark.parametrize(("pattern", "instead", "example"), STILTED)
def test_no_text_is_stilted(pattern: str, instead: str, example: str) -> None:
    files = texts()
    assert {file.suffix for file in files} >= {".feature", ".py", ".yaml"}
    wrong = [f"{file.relative_to(ROOT)}: {place}" for file in files for place in found(pattern, file.read_text())]
    assert wrong == [], f"write instead: {instead}"
