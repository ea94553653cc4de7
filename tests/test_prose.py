"""How the documentation reads: short sentences, short paragraphs, no Python for those who write none, links that lead
somewhere, and messages that the suite really prints."""

import ast
import re
import textwrap
from functools import cache
from pathlib import Path

import pytest

from steps.lint import sentences as sentences_of_scenarios
from support.errors import Mistake
from support.faults.registry import KINDS
from support.settings import ROOT

PAGES = [ROOT / "README.md", *(each for each in sorted((ROOT / "docs").glob("*.md")) if each.stem != "catalogue")]
"""All pages for readers; the catalogue is made from the code and has its own test."""
FOR_ENGINES = {
    "adding-a-fault",
    "architecture",
    "dependencies",
    "judging",
    "known-defects",
    "mutation",
    "python-api",
    "releases",
    "sabotage",
}
"""Pages for those who read Python; every other page speaks to people who do not."""
WORDS = 20
"""Most words that a sentence of a page has on average."""
LINES, WIDTH = 5, 120
"""Most lines of a paragraph, and how wide one is."""
LEFT_OUT = re.compile(r"^```.*?^```$|^<!--.*?-->$|^ *\|.*?$|^#+ .*?$|^!\[.*?$", re.DOTALL | re.MULTILINE)
"""What is no prose: code, comments, tables, headings, pictures."""
ITEM = re.compile(r"^ *(?:[-*]|\d+\.) ", re.MULTILINE)
SENTENCE = re.compile(r"`(Given|When|Then) ([^`]+)`")
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]*)\)")
END = re.compile(r"(?<=[.!?])[\"”*)]*\s+(?=\S)")
PYTHON = re.compile(r"`[\w./-]+\.py`|`(?:support|steps|agents|tests)\.[\w.]+`|`(?:support|steps|agents|tests)/[\w/]*`")
"""A module or a room of the code, in a text."""
MESSAGES = re.compile(r"^\| message \|.*\n((?:\|.*\n)+)", re.MULTILINE)
"""A table of messages, without its heading row."""


def paragraphs(page: Path) -> list[str]:
    """The prose of a page: each paragraph and each item of a list in one line, a link by its text."""
    text = ITEM.sub("\n", LEFT_OUT.sub("\n", page.read_text()))
    parts = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return [LINK.sub(r"\1", part) for part in parts if part]


def sentences(page: Path) -> list[str]:
    """All of a page; a piece of code in one counts as one word."""
    texts = (re.sub(r"`[^`]*`", "code", paragraph) for paragraph in paragraphs(page))
    return [sentence for text in texts for sentence in END.split(text)]


def words(page: Path) -> float:
    """How many a sentence of the page has on average."""
    found = sentences(page)
    return sum(len(re.findall(r"\w[\w'.-]*", sentence)) for sentence in found) / len(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_sentences_are_short(page: Path) -> None:
    longest = sorted(sentences(page), key=lambda each: -len(each.split()))[:5]
    assert words(page) <= WORDS, "its longest sentences:\n" + "\n".join(longest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_paragraphs_are_short(page: Path) -> None:
    long = [each for each in paragraphs(page) if len(textwrap.wrap(each, WIDTH)) > LINES]
    assert long == []


@pytest.mark.parametrize("page", [each for each in PAGES if each.stem not in FOR_ENGINES], ids=lambda page: page.stem)
def test_a_page_for_users_leads_to_no_python(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert PYTHON.findall(text) == []


def test_pages_for_engineers_are_there() -> None:
    assert {page.stem for page in PAGES} >= FOR_ENGINES


def test_what_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    code = "```\nnot. one. word.\n```\n"
    table = "| a table. | of words. |\n"
    prose = "One two `three four` [five](x.md). Six!\n\n- seven\n  eight\n- nine\n"
    page.write_text(f"# A title. Of two.\n{code}{table}\n{prose}")
    assert paragraphs(page) == ["One two `three four` five. Six!", "seven eight", "nine"]
    assert sentences(page) == ["One two code five.", "Six!", "seven eight", "nine"]
    assert words(page) == 8 / 4
    assert PYTHON.findall("see `support/clock.py`, `support.clock` and `support/judge/`") != []
    assert PYTHON.findall("`support/judge/skips.yaml`, `python -m agents.service`") == []


# -- sentences of scenarios


def test_sentences_that_are_quoted_are_known() -> None:
    found = [each for page in PAGES for each in SENTENCE.findall(page.read_text()) if "..." not in each[1]]
    known = sentences_of_scenarios()
    for keyword, text in found:
        known.read(keyword.lower(), text)
    assert len(found) > 15
    with pytest.raises(Mistake, match="there is no sentence"):
        known.read("then", "the answer is complete with 200 tokens")


def test_every_fault_with_a_word_of_its_own_is_explained() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()
    said = " ".join(text for _, text in SENTENCE.findall(page))
    assert [kind.word for kind in KINDS.values() if kind.word and kind.word not in said] == []


# -- links


def _anchors(page: Path) -> set[str]:
    """Those of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", LINK.sub(r"\1", each).lower()) for each in headings)
    return {each.strip().replace(" ", "-") for each in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for _, target in LINK.findall(page.read_text()):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            dead.append(target)
    assert dead == []


def test_every_page_is_found_from_the_first_one() -> None:
    seen: set[Path] = set()
    next_ones = [ROOT / "README.md"]
    while next_ones:
        page = next_ones.pop()
        seen.add(page)
        targets = (page.parent / target.partition("#")[0] for _, target in LINK.findall(page.read_text()))
        next_ones += [each.resolve() for each in targets if each.suffix == ".md" and each.resolve() not in seen]
    assert [page.name for page in PAGES if page not in seen] == []


# -- messages


@cache
def _texts() -> list[str]:
    """Every text in the code of the suite, with ``\\0`` for what is filled in."""
    found: list[str] = []
    folders = ("support", "steps", "agents")
    for file in [ROOT / "environment.py", *(each for name in folders for each in (ROOT / name).rglob("*.py"))]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (each.value if isinstance(each, ast.Constant) else "\0" for each in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def printed(message: str) -> bool:
    """Whether the suite has a text with this message in it; ``...`` in the message stands for what is filled in."""
    parts = [re.escape(part.strip()) for part in message.split("...") if part.strip()]
    pattern = re.compile(r"[^\n]*".join(parts))
    return any(pattern.search(text) for text in _texts())


def _quoted() -> list[str]:
    """The messages in the first column of the tables that begin with the word ``message``, of all pages."""
    tables = (table for page in PAGES for table in MESSAGES.findall(page.read_text()))
    rows = (row for table in tables for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE))
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


@pytest.mark.parametrize("message", _quoted())
def test_a_message_that_is_explained_is_printed(message: str) -> None:
    assert printed(message), "no text of the suite has it: quote what is printed, ... for what is filled in"


def test_what_is_printed() -> None:
    assert {"the fault was not proven", "no node takes ..."} < set(_quoted())
    assert printed("no request was in flight any more when ... was hit")
    assert not printed("no request was inflight any more when ... was hit")
    assert not printed("was hit ... no request was under way any more when")
