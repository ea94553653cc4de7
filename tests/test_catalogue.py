"""The catalogue is complete, says what the code does, and is what is committed."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from steps.lint import parse
from steps.lint import sentences as sentences_of_lint
from steps.writing import glossary
from steps.writing.catalogue import problems
from steps.writing.content import described, span
from steps.writing.examples import Usage, scenarios, usages
from steps.writing.pages import SCRIPT, anchor
from steps.writing.sentences import Sentence, load
from steps.writing.sentences import described as docstring_of
from support import binaries, releases
from support.contract.shape import Shape
from support.faults.gpu import CONSEQUENCES, known_xids, xid
from support.faults.registry import KINDS
from support.judge.checker import CHECKERS
from support.rows import COLUMNS, columns
from support.run.lint.files import find
from support.run.lint.found import report
from support.run.selection import enumerate_scenarios
from support.run.tags import tags
from support.scenarios.model import MEMORY_TOKENS
from support.scenarios.model import TYPES as FAILURES
from support.settings import NAMES, ROOT, Settings
from support.words import REQUEST_OPTIONS, SHAPE_OPTIONS, TYPES

MARKDOWN, HTML = (ROOT / "docs" / f"catalogue.{kind}" for kind in ("md", "html"))


@cache
def read() -> tuple[Sequence[Sentence], Mapping[str, Usage]]:
    """All sentences, and what the features make of them."""
    sentences = load()
    return sentences, usages(sentences)


@pytest.fixture
def sentence() -> Sentence:
    """One that has a time."""
    return next(each for each in read()[0] if "within {timeout:Time} etcd has" in each.pattern)


def test_what_is_committed_is_what_the_code_says() -> None:
    """In a process of its own, for others of this one define checkers and steps."""
    argv = [sys.executable, "-m", "steps.writing.catalogue", "--check"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_that_is_not_what_the_code_says_is_named(sentence: Sentence) -> None:
    argv = [sys.executable, "-c"]
    program = """
import sys
from support import words
from steps.writing import catalogue
words.SHAPE_OPTIONS["pace"] = words.SHAPE_OPTIONS.pop("speed")
sys.argv = ["catalogue", "--check"]
catalogue.main()
"""
    done = subprocess.run([*argv, program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == "out of date: docs/catalogue.md, docs/catalogue.html; run make catalogue"


def test_every_sentence_says_what_has_to_be_known() -> None:
    sentences, uses = read()
    assert problems(sentences, uses) == []
    assert len(sentences) > 90


def _without(sentence: Sentence, name: str) -> Sentence:
    return replace(sentence, facts={each: text for each, text in sentence.facts.items() if each != name})


@pytest.mark.parametrize("name", ["Waits", "Proof", "Time"])
def test_a_sentence_that_lacks_something_is_named(name: str, sentence: Sentence) -> None:
    [said] = _without(sentence, name).problems()
    assert said.startswith('steps/etcd.py: "within {timeout:Time} etcd has a new leader"')
    assert said.endswith("names a time and has no Time:" if name == "Time" else f"has no {name}:")


def test_a_sentence_that_says_too_much_is_named(sentence: Sentence) -> None:
    timeless = replace(sentence, pattern="etcd has a new leader")
    assert ["has Time: and names no time" in each for each in timeless.problems()] == [True]
    luck = replace(sentence, facts={**sentence.facts, "Needs": "luck."})
    assert ["needs 'luck'; expected one of root, namespaces" in each for each in luck.problems()] == [True]
    [said] = replace(sentence, meaning="etcd leads").problems()
    assert said.endswith("does not say what it means in a first sentence")


def test_a_sentence_without_an_example_or_a_tag_is_named(sentence: Sentence) -> None:
    usage = read()[1][sentence.pattern]
    uses = {sentence.pattern: replace(usage, example=None)}
    told = problems([sentence], uses)
    assert ["is an example of it" in each for each in told] == [True]
    needy = replace(sentence, facts={**sentence.facts, "Needs": "kmsg, cancel count."})
    told = problems([needy], read()[1])
    assert [each.rpartition(" ")[2] for each in told] == ["@needs.kmsg", "@release.counts_cancellations"]


def test_a_docstring_with_a_line_that_is_no_field_is_refused() -> None:
    def then_luck() -> None:
        """Luck holds.

        Waits: no.
        Perhaps: it does not.
        """

    with pytest.raises(ValueError, match=r"then_luck says 'Perhaps: it does not\.'; expected a line that begins with"):
        docstring_of(then_luck)


def test_every_example_is_a_scenario_that_is_played_in_memory_or_on_a_cluster() -> None:
    """By tests/test_fake_target.py, which plays every scenario of the default selection; else it is about pods."""
    played = {each.name for each in enumerate_scenarios(ROOT, [], [])}
    played |= {each.name for each in enumerate_scenarios(ROOT, [], ["@k8s"])}
    examples = [usage.example for usage in read()[1].values()]
    assert [each for each in examples if each is None or each.name not in played] == []


def test_the_pages_have_all_that_can_be_said() -> None:
    sentences, _ = read()
    words = [*SHAPE_OPTIONS, *REQUEST_OPTIONS, *COLUMNS, *NAMES, *(f"@{tag}" for tag in tags())]
    ours = [name for name, checker in CHECKERS.items() if checker.__module__ == "support.judge.checkers"]
    words += [*FAILURES, *(name.replace("_", " ") for name in ours)]
    words += [kind.word for kind in KINDS.values() if kind.word]
    words += [each for name, kind in TYPES.items() if name != "Check" for each in getattr(kind, "words", ())]
    for page in (MARKDOWN, HTML):
        text = page.read_text().replace("&#x27;", "'")
        assert [word for word in words if word not in text] == [], page.name
        assert text.count("Waits") >= len(sentences)


def test_a_whole_scenario_stands_before_all_sentences_and_has_no_mistake(tmp_path: Path) -> None:
    text = MARKDOWN.read_text()
    assert text.index("## A whole scenario") < text.index("### `Given")
    shown = re.search(r"## A whole scenario.*?```gherkin\n(.*?)\n```", text, re.DOTALL)
    assert shown
    assert shown[1] == glossary.whole()
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "x.feature").write_text(shown[1])
    assert list(find([str(tmp_path / "features" / "x.feature")], parse, sentences_of_lint(), tmp_path)) == []
    scenario = next(each for _, each in scenarios() if each.name == glossary.WHOLE)
    assert [f"@{tag}" for tag in scenario.tags] == re.findall(r"@[\w.]+", shown[1])
    assert shown[1].count("    # ") == len(list(scenario.all_steps)) == len(glossary.NOTES)


def test_notes_to_a_scenario_that_is_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glossary, "NOTES", glossary.NOTES[:-1])
    with pytest.raises(LookupError, match=r"has as many steps as steps/writing/glossary\.py has notes: 4"):
        glossary.whole()


SEARCHES = {
    "freeze": "<victim> <crashes|is shut down|hangs",
    "pause": "<victim> <crashes|is shut down|hangs",
    "replace": "When a new worker joins the deployment",
    "browser": "When the client <closes|resets> the connection",
    "tab": "When the client <closes|resets> the connection",
    "disconnect": "When the client <closes|resets> the connection",
    "network card": "packets between <victim>",
    "NIC": "packets between <victim>",
    "peak": "more clients each ask for",
    "burst": "the clients of STANDARD ask for",
    "spike": "more clients each ask for",
    "memory error": "reports XID",
    "fell off the bus": "reports XID",
    "rolling update": "the workers are restarted one after the other",
    "capacity": "percent of its memory is in use",
    "slow down during an outage": "the time to first token is in the STANDARD band",
}
"""What somebody may search for -> words of a sentence that says it."""


@pytest.mark.parametrize(("words", "sentence"), SEARCHES.items())
def test_other_words_find_a_sentence(words: str, sentence: str) -> None:
    parts = MARKDOWN.read_text().split("### `")[1:]
    found = [part.partition("`\n")[0] for part in parts if f" {words}" in part]
    assert [title for title in found if sentence in title], found
    assert words in HTML.read_text()


def test_every_xid_is_told_with_what_it_means_and_what_happens() -> None:
    _, _, part = MARKDOWN.read_text().partition("## GPU errors (XID)")
    rows = {
        line.split(" | ")[0].strip("|` "): line for line in part.partition("\n## ")[0].splitlines() if "| `" in line
    }
    assert [int(number) for number in rows] == known_xids()
    ends = {"gone": "process is ended", "stopped": "process hangs"}
    for number, row in rows.items():
        assert xid(int(number))["meaning"] in row
        assert ends.get(CONSEQUENCES.get(int(number), ""), "lost" if number == "74" else "has to go on") in row
    assert "fallen off the bus" in rows["79"]
    assert "Double bit ECC error" in rows["48"]


def test_every_failure_is_told_with_its_columns() -> None:
    rows = [line.split(" | ") for line in MARKDOWN.read_text().splitlines()]
    told = {row[1].strip("`"): row for row in rows if len(row) == 8 and row[1].startswith("`")}
    for type_ in FAILURES:
        assert told[type_][4:6] == [", ".join(f"`{name}`" for name in names) for names in columns(type_)], type_


def test_the_memory_of_a_worker_is_told_where_a_sentence_asks_for_a_part_of_it() -> None:
    text = MARKDOWN.read_text()
    assert [f"| {each:,} tokens |" in text for each in MEMORY_TOKENS.values()] == [True] * len(MEMORY_TOKENS)
    assert f"0.2 percent of that of vllm is {int(0.002 * MEMORY_TOKENS['vllm']):,} tokens" in text


def test_the_band_is_defined_once() -> None:
    text = MARKDOWN.read_text()
    assert text.count("90th percentile of its seconds") == 1
    assert text.count("no longer than in STANDARD") == 0
    links = set(re.findall(r"\]\((#[\w-]+)\)", text))
    assert links <= {f"#{anchor(each)}" for each in re.findall(r"^## (.*)$", text, re.MULTILINE)}
    assert links <= {f"#{each}" for each in re.findall(r'<section id="([^"]+)"', HTML.read_text())}


def test_articles_go_with_what_follows_them() -> None:
    wrong = re.compile(
        r"\b(?:a [`<]?(?:etcd|error|idle|answer|overload|etc|agent|event|XID|end)|an [`<]?(?:unary|user|NATS))\b"
    )
    library = (ROOT / "features" / "library.feature").read_text()
    lint = report(find([str(ROOT / "tests" / "data" / "mistakes.feature")], parse, sentences_of_lint()))
    for text in (MARKDOWN.read_text(), library, lint):
        assert [text[max(0, at.start() - 30) : at.end() + 20] for at in wrong.finditer(text)] == []


def test_editors_know_what_stands_in_the_features() -> None:
    settings = json.loads((ROOT / ".vscode" / "settings.json").read_text())
    regexps = {each["name"]: each["regexp"] for each in settings["cucumber.parameterTypes"]}
    sentences, uses = read()
    for each in sentences:
        for name, kind in each.placeholders:
            regexp = regexps[f"{name}:{kind}" if kind else name]
            unknown = [word for word in uses[each.pattern].words[name] if not re.fullmatch(regexp, word)]
            assert unknown == [], each.pattern


def test_every_tag_of_a_feature_is_told() -> None:
    used = {tag for _, scenario in scenarios() for tag in scenario.effective_tags}
    plain = {tag for tag in used if not tag.startswith("not_judged.")}
    assert [tag for tag in plain if f"`@{tag}`" not in MARKDOWN.read_text()] == []


def test_texts_are_for_those_who_know_no_python() -> None:
    text = MARKDOWN.read_text().replace("```", "")
    assert [word for word in (":func:", ":class:", ":data:", ":mod:", "``", "support.", "None") if word in text] == []


class Links(HTMLParser):
    """Whatever a page could ask somebody for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [str(given[name]) for name in ("src", "href", "action", "data") if name in given]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(given["content"])


def test_the_page_asks_for_nothing_from_anywhere() -> None:
    text = HTML.read_text()
    links = Links()
    links.feed(text)
    assert [each for each in links.found if not each.startswith("#")] == []
    assert links.policy.startswith("default-src 'none'")
    asking = ("@import", "url(", "fetch(", "XMLHttpRequest", "http://", "https://")
    assert [word for word in asking if word in text] == []


SEEN = """
{
  const items = ["the etcd leader crashes", "within etcd has a new leader", "a worker crashes"].map((text) => (
    { textContent: text.toUpperCase(), hidden: false }
  ));
  const parts = [[0, 1], [2]].map((own) => (
    { querySelector: () => own.find((each) => !items[each].hidden) === undefined ? null : own }
  ));
  const field = { value: "", addEventListener: (_, look) => { field.look = look; } };
  const one = { input: field, output: {} }, all = { section: parts };
  globalThis.document = { querySelector: (name) => one[name], querySelectorAll: (name) => all[name] ?? items };
  globalThis.type = (text) => {
    field.value = text;
    field.look();
    return [items.map((each) => each.hidden), parts.map((each) => each.hidden), one.output.textContent];
  };
}
"""


def test_the_search_shows_what_has_all_words() -> None:
    typed = ["", "etcd Leader", "crashes", "leader within", "nobody"]
    program = f"{SEEN}{SCRIPT}\nconsole.log(JSON.stringify({json.dumps(typed)}.map(type)));"
    node = binaries.node(Settings())
    done = subprocess.run([node, "-e", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    hidden = True
    assert json.loads(done.stdout) == [
        [[False, False, False], [False, False], ""],
        [[False, False, hidden], [False, hidden], "2 of 3"],
        [[False, hidden, False], [False, False], "2 of 3"],
        [[hidden, False, hidden], [False, hidden], "1 of 3"],
        [[hidden, hidden, hidden], [hidden, hidden], "0 of 3"],
    ]


def test_texts_of_docstrings_are_found() -> None:
    texts = described(Shape)
    assert texts["frontends"].startswith("how many frontends clients may use; with several they skip those")
    assert texts["lease_seconds"].endswith("Releases where it cannot be set keep theirs.")
    assert next(iter(texts)) == "engine"


def test_releases_in_words() -> None:
    known = releases.known()
    assert span(known) == "every release"
    assert span(known[3:]) == f"{known[3]} and newer"
    assert span(known[1:3]) == f"{known[1]}, {known[2]}"
    assert span([]) == "none"
