"""What the catalogue tells, read from the code: sentences, settings, failures, checks, tags."""

import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_type_hints

from steps.writing import glossary
from steps.writing.examples import Example, Usage, scenarios
from steps.writing.sentences import Sentence
from support import releases, targets
from support.contract.shape import DISCOVERIES, ENGINES, LEAVINGS, SIMULATED, Shape
from support.errors import LACKS, Unsupported
from support.faults import registry
from support.faults.fault import Fault
from support.faults.gpu import CONSEQUENCES, SEQUENCES, known_xids, xid
from support.faults.victims import VICTIMS
from support.judge import skips
from support.judge.checker import CHECKERS, BaseChecker
from support.requests.client import start_request
from support.rows import COLUMNS, FAILURES, columns
from support.run import tags
from support.run.runtime import RELEASE_FACTS
from support.run.selection import left_out
from support.scenarios.model import LIBRARY, MEMORY_TOKENS, MORE_TYPES, read_scenarios
from support.schema import expected_of
from support.settings import NAMES, ROOT, TARGETS, TARGETS_AVAILABLE, Settings
from support.targets.needs import NEEDS
from support.words import CHECK_WORDS, OPTIONAL, REQUEST_OPTIONS, SHAPE_OPTIONS, TYPES, seconds
from support.world.clients import Clients

MOST_INLINE = 6
"""A placeholder with more words than these is named in its sentence, and its words are listed below."""
SUFFERED = {
    "none": "Nothing: the worker has to go on.",
    "end": "The worker's process is ended: it crashes.",
    "lose": "The worker's process is ended and cannot be started again until the GPU is repaired.",
    "hang": "The worker's process hangs.",
    "slow-peers": "5 percent of the packets between the worker and its peers are lost.",
}
"""Consequence of an XID, as its data has it -> what happens to the worker."""
NUMBERS = {int: "a whole number", float: "a number"}
LABELS = {"Time": "Time counts", "Waits": "Waits", "Proof": "Proof", "Table": "Table below it"}
TAGS = {name: need.tag for name, need in NEEDS.items() if need.tag} | {lack: tag for tag, lack in RELEASE_FACTS.items()}
"""What a sentence may need -> the tag of the scenarios that say it."""


@dataclass(frozen=True)
class Entry:
    """A sentence: how it reads, what there is to know of it, and an example."""

    title: str
    meaning: str
    facts: Sequence[tuple[str, str]]
    example: Example


@dataclass(frozen=True)
class Table:
    """Rows of cells below their headings."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A part of the catalogue. Texts have code in backticks, links to other parts, and no other markup.

    Attributes:
        example: lines of a feature, shown before ``more``.
    """

    title: str
    about: str
    example: str = ""
    more: Sequence[str] = ()
    entries: Sequence[Entry] = ()
    table: Table | None = None


def sections(sentences: Sequence[Sentence], uses: Mapping[str, Usage]) -> Iterator[Section]:
    """All parts, in their order.

    Args:
        uses: pattern of a sentence -> what the features make of it; each has an example.
    """
    yield Section("A whole scenario", "From `features/examples`, with notes.", glossary.whole(), glossary.TAGGING)
    rows = [[f"`{word}`", what] for word, what in glossary.WORDS.items()]
    yield Section("Words", "What they mean in every sentence.", table=Table(["word", "what it means"], rows))
    for noun in dict.fromkeys(each.noun for each in sentences):
        own = [each for each in sentences if each.noun == noun]
        topic, *rest = re.split(r"(?<=[.:,]) ", clean(own[0].about).removeprefix("Sentences about "), maxsplit=1)
        title = topic.rstrip(".:,")
        entries = [_entry(each, uses[each.pattern]) for each in own]
        yield Section(f"{title[0].upper()}{title[1:]}", sentence_of(" ".join(rest)), entries=entries)
    yield _shape_settings()
    yield _request_settings()
    yield _engines()
    yield from _failures()
    yield _xids()
    yield _checks()
    yield _ready()
    yield _tags()
    yield _run_settings()


# -- texts


def clean(text: str) -> str:
    """A docstring's text for those who know no Python: without references to code, with single backticks."""
    text = re.sub(r"\s*\(:\w+:`[^`]*`\)", "", text)
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", text)
    return " ".join(text.replace("``", "`").split())


def sentence_of(text: str) -> str:
    """A phrase as a sentence: a capital letter, a full stop."""
    text = text.strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def first_words(thing: Any) -> str:
    """The first paragraph of a docstring."""
    return clean((inspect.getdoc(thing) or "").partition("\n\n")[0])


def described(thing: Any, heading: str = "Attributes:") -> dict[str, str]:
    """Name -> what the docstring of a class or function says of it below ``heading``."""
    _, _, part = (inspect.getdoc(thing) or "").partition(heading + "\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in part.partition("\n\n")[0].splitlines():
        if (begin := re.match(r"    ([\w, ]+): (.*)", line)) and not line.startswith(" " * 5):
            names = begin[1].split(", ")
            found |= dict.fromkeys(names, begin[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return {name: clean(text) for name, text in found.items()}


def codes(words: Iterable[str]) -> str:
    """Words as code, one after the other."""
    return ", ".join(f"`{word}`" for word in words)


# -- sentences

WHOM = "one of the [victims](#victims), such as `the worker serving the request`; only a worker has a GPU or a request"


def _entry(sentence: Sentence, usage: Usage) -> Entry:
    assert usage.example is not None
    strengths = {name: expected_of(hint) for name, (hint, _) in registry.all_strengths().items()}
    listed = {name: words for name, words in strengths.items() if words.startswith("one of")}
    title, values = sentence.pattern, dict[str, list[str]]()
    for name, kind in sentence.placeholders:
        if kind in OPTIONAL:
            title = title.replace(f"{{{name}:{kind}}}", OPTIONAL[kind])
            continue
        words = _forms(usage.words[name]) if kind == "Noun" else _words(TYPES[kind]) if kind else ()
        shown = "|".join(words) if words and len(words) <= MOST_INLINE else name
        if shown == name:
            what = WHOM if kind == "Victim" else f"one of {codes(words)}" if words else listed.get(name) or _open(kind)
            values.setdefault(what, []).append(name)
        title = title.replace(f"{{{name}:{kind}}}" if kind else f"{{{name}}}", f"<{shown}>")
    told = "; ".join(f"{codes(names)}: {what}" for what, names in values.items())
    facts = [("Values", sentence_of(told))] if told else []
    facts += [(label, sentence_of(sentence.facts[name])) for name, label in LABELS.items() if name in sentence.facts]
    if tagged := [f"`@{TAGS[name]}`" for name in sentence.needs if name in TAGS]:
        facts.append(("Tags", f"The scenario has to have {' and '.join(tagged)}."))
    facts += [("Targets", _targets(sentence.needs)), ("Releases", _releases(sentence.needs))]
    facts += [("Also searched as", sentence.facts["Also"])] if "Also" in sentence.facts else []
    return Entry(f"{sentence.keyword.capitalize()} {title}", sentence.meaning, facts, usage.example)


def _open(kind: str) -> str:
    """What stands for a type whose words cannot be listed, as its reader says; no type: any text."""
    text = first_words(TYPES[kind]).rstrip(".") if kind else "any text"
    return f"{text[:1].lower()}{text[1:]}"


def _forms(nouns: Iterable[str]) -> Sequence[str]:
    """The singular and the plural of each."""
    return [each + end for each in sorted({noun.removesuffix("s") for noun in nouns}) for end in ("", "s")]


def _targets(needs: Sequence[str]) -> str:
    """Where a sentence can be played that needs these."""
    wanted = [name for name in needs if name in NEEDS]
    only = {NEEDS[name].only for name in wanted} - {""}
    found = []
    for name in TARGETS_AVAILABLE if not only else sorted(only):
        kind = targets.kind(Settings(target=name))
        lacking = [NEEDS[each].words for each in wanted if not NEEDS[each].only]
        having = f" where it has {' and '.join(lacking)}" if lacking else ""
        if kind.real:
            found.append(f"`{name}`{having}")
        elif all(answer.available for answer in kind.capabilities(wanted).values()):
            found.append(f"`{name}`")
    engines = [name for name in needs if name in ENGINES]
    alone = f"; engine {codes(engines)} alone" if engines else ""
    return f"{('; ' if wanted else ' and ').join(found)}{alone}."


def _releases(needs: Sequence[str]) -> str:
    lacks, entries = [name for name in needs if name in LACKS], skips.load()
    able = [each for each in releases.known() if not any(skips.allowed(lack, each, entries) for lack in lacks)]
    return sentence_of(span(able))


def span(versions: Sequence[str]) -> str:
    """Releases, in words."""
    known = releases.known()
    if list(versions) == known:
        return "every release"
    if versions and known[-len(versions) :] == list(versions):
        return f"{versions[0]} and newer"
    return ", ".join(versions) or "none"


# -- settings


def _shape_settings() -> Section:
    texts, hints = described(Shape), get_type_hints(Shape, include_extras=True)
    rows = []
    for name, (field, read) in SHAPE_OPTIONS.items():
        meaning, default = _without_default(texts[field])
        value = next(each.default for each in fields(Shape) if each.name == field)
        engines, able = _who_takes(field, value, _words(read))
        rows.append(
            [
                f"`{name}`",
                sentence_of(meaning),
                _allowed(read, hints[field]),
                default if value in (None, "") else _shown(read, value),
                "all" if len(engines) == len(ENGINES) else codes(engines),
                span(able),
            ]
        )
    about = "A table below a sentence that starts a deployment may set these. Its headings are `setting` and `value`."
    headings = ["setting", "meaning", "values", "default", "engines", "releases"]
    return Section("Settings of a deployment", about, table=Table(headings, rows))


def _without_default(text: str) -> tuple[str, str]:
    """A field's meaning, and what it says of None."""
    found = re.search(r"[;.,]? ?None: ([^.;]+)", text)
    return (text.replace(found[0], "", 1), found[1]) if found else (text, "none")


def _allowed(read: Callable[[str], Any], annotation: Any = None) -> str:
    """What a cell takes: the words of its reader, and what the field's annotation says of numbers."""
    expected = expected_of(annotation)
    if words := _words(read):
        return codes(words)
    if read is seconds:
        return first_words(read) + (f" Expected are {expected}." if "whole" in expected else "")
    return clean(expected) or first_words(read)


def _words(read: Callable[[str], Any]) -> Sequence[str]:
    """The words that a reader takes, where they can be listed."""
    return getattr(read, "words", ())


def _shown(read: Callable[[str], Any], value: Any) -> str:
    """A default as a cell has it."""
    if isinstance(value, bool):
        return "`yes`" if value else "`no`"
    return f"`{value:g} seconds`" if read is seconds else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _who_takes(field: str, default: Any, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Engines and releases that take another value than the default of a field of a shape; ``words``: all values of
    one that takes words.
    """
    whole = get_type_hints(Shape)[field] in (int, int | None)
    other: Any = not default if isinstance(default, bool) else default or (1 if whole else 1.0)
    if default == "":
        other = words[0]
    engines, able = dict[str, None](), dict[str, None]()
    for release in map(releases.get, releases.known()):
        for engine, leaving in itertools.product(ENGINES, LEAVINGS):
            if field == "leaving" and leaving == default:
                continue
            wanted = {field: other, "engine": engine, "leaving": leaving}
            try:
                Shape(**wanted).check(release, DISCOVERIES)
            except (ValueError, Unsupported):
                continue
            engines[engine] = able[release.version] = None
    return list(engines), list(able)


def _request_settings() -> Section:
    texts = described(start_request, "Args:") | described(Clients.send, "Args:")
    defaults = {
        name: each.default
        for function in (start_request, Clients.send)
        for name, each in inspect.signature(function).parameters.items()
    }
    rows = []
    for name, (field, read) in REQUEST_OPTIONS.items():
        default = "none" if defaults[field] is None else _shown(read, defaults[field])
        rows.append([f"`{name}`", sentence_of(texts[field]), _allowed(read), default])
    about = "A table below a sentence in which a client sends a request may set these. Its headings are `setting` and "
    headings = ["setting", "meaning", "values", "default"]
    return Section("Settings of a request", about + "`value`.", table=Table(headings, rows))


def _engines() -> Section:
    known = {version: releases.get(version) for version in releases.known()}
    rows = []
    for engine in ENGINES:
        whole = [version for version, release in known.items() if engine in release.engines]
        split = [version for version, release in known.items() if engine in release.disaggregated_engines]
        what = f"simulated {engine}" if engine in SIMULATED else "the suite's own: each token says its position"
        room = f"{MEMORY_TOKENS[engine]:,} tokens" if engine in MEMORY_TOKENS else "not counted"
        rows.append([f"`{engine}`", what, room, span(whole), span(split)])
    headings = ["engine", "what runs", "memory of a worker", "releases", "disaggregated on"]
    about = "What the workers of a deployment run. The memory is the room for the tokens of all requests that a worker "
    about += "has, prompts and answers: 0.2 percent of that of vllm is 2,097 tokens, as much as 5 requests of 420."
    return Section("Engines", about, table=Table(headings, rows))


def _run_settings() -> Section:
    texts = described(Settings)
    rows = []
    for each in fields(Settings):
        if each.name in NAMES:
            made = each.default if each.default is not MISSING else None
            default = "by the machine" if each.default is MISSING else "none" if made is None else f"`{made}`"
            rows.append([f"`{each.name}`", sentence_of(texts[each.name]), default])
    coming = [name for name in TARGETS if name not in TARGETS_AVAILABLE]
    about = "For a whole run: `-D NAME=VALUE` with behave, `NAME=VALUE` in capitals with make. "
    about += f"The targets {codes(coming)} are to come."
    return Section("Settings of a run", about, table=Table(["setting", "meaning", "default"], rows))


# -- failures


def _failures() -> Iterator[Section]:
    called = {name: words for words, name in FAILURES.items()}
    rows = [_failure(kind, called[name]) for name, kind in registry.KINDS.items()]
    rows += [
        [f"`{called[name]}`", f"`{name}`", what, "", *map(codes, columns(name)), "", ""]
        for name, what in MORE_TYPES.items()
    ]
    about = "What can break. Sentences and a table below `these failures strike` have the words of the first column, a "
    about += (
        "YAML file those of the second one. Those without a victim are more than one fault, or a load. A row of the "
    )
    about += "table fills the columns that its failure has to have, and may fill those that it takes."
    headings = ["failure", "in YAML", "what happens", "victims", "has to have", "takes", "proof", "machine needs"]
    yield Section("Failures", about, table=Table(headings, rows))
    rows = [[f"`{each.words}`", f"`{key}`", sentence_of(each.who)] for key, each in VICTIMS.items()]
    about = "Who may be hit. Sentences, and the column `target` of a table, have the words of the first column, a YAML "
    about += "file those of the second one."
    yield Section("Victims", about, table=Table(["victim", "in YAML", "who that is"], rows))
    strengths = registry.all_strengths()
    rows = []
    for column, (field, read) in COLUMNS.items():
        hint, each = strengths.get(field, (None, None))
        empty = _cell(read, each.default) if each else VICTIMS["worker"].words if column == "target" else ""
        rows.append([f"`{column}`", _takers(column, called), _allowed(read, hint), codes(filter(None, [empty]))])
    about = "The headings of a table below `these failures strike`, with a failure in each row. An empty cell says "
    about += "nothing. With `random`, `for` says for how long new faults begin. `share` is a part of 1: 0.5 is the `50 "
    about += "percent` of a sentence."
    yield Section("Columns of failures", about, table=Table(["column", "for", "values", "if empty"], rows))


def _cell(read: Callable[[str], Any], value: Any) -> str:
    """The cell that is read as this value."""
    for word in _words(read):
        if read(word) == value:
            return word
    return "both ways" if value == "both" else f"{value:g}"


def _takers(column: str, called: Mapping[str, str]) -> str:
    """Which failures have a column."""
    takers = [words for type_, words in called.items() if any(column in each for each in columns(type_))]
    return "all" if len(takers) == len(called) else codes(takers)


def _xids() -> Section:
    rows = []
    for number in known_xids():
        about = xid(number)
        follow = ", ".join(map(str, SEQUENCES.get(number, [])))
        seen = SUFFERED[about["consequence"]]
        rows.append([f"`{number}`", f"{about['meaning']}.", about["workload"], about["action"], seen, follow])
    text = (
        "For `the GPU of a worker reports XID 79`, and the column `xid`. The line stands in the real kernel log, and "
    )
    text += "what the worker suffers is made to happen. The sentence waits until both are seen. "
    ends = codes(str(number) for number in known_xids() if CONSEQUENCES.get(number) == "gone")
    text += f"To lose the worker take one of {ends}."
    headings = ["XID", "meaning", "on a real GPU", "what NVIDIA advises", "what happens here", "follow-up errors"]
    return Section("GPU errors (XID)", text, table=Table(headings, rows))


def _failure(kind: type[Fault], called: str) -> list[str]:
    return [
        f"`{called}`",
        f"`{kind.failure}`",
        first_words(kind),
        "workers" if kind.workers_only else "all",
        *map(codes, columns(kind.failure)),
        first_words(kind.prove),
        ", ".join(NEEDS[need].words for need in kind.needs),
    ]


def _spaced(name: str) -> str:
    return name.replace("_", " ")


# -- checks, ready scenarios, tags


def _checks() -> Section:
    rows = []
    for name, checker in CHECKERS.items():
        told = [", ".join(_setting(checker, each) for each in names) for names in (checker.bounds, checker.options)]
        rows.append([f"`{_spaced(name)}`", first_words(checker), *told])
    about = "For `the checks for ... hold`. A table below it says all that has to be said, and what you want to change "
    about += "of the rest; its headings are `setting` and `value`."
    return Section("Checks", about, table=Table(["check", "what holds", "has to be said", "may be said"], rows))


def _setting(checker: type[BaseChecker], name: str) -> str:
    """A parameter of a checker as a table has it, with what it may be."""
    read = CHECK_WORDS.get(name)
    hint = get_type_hints(checker)[name]
    what = NUMBERS[hint] if read is None else codes(_words(read)) or sentence_of(first_words(read)).rstrip(".")
    return f"`{_spaced(name)}` ({what[:1].lower()}{what[1:]})"


def _ready() -> Section:
    rows = []
    for each in read_scenarios(LIBRARY):
        breaks = "; ".join(failure.describe() for failure in each.failures)
        rows.append([f"`{each.name}`", breaks, codes(map(_spaced, each.checks))])
    about = 'For `the ready scenario "..." is played`. Each is there on every simulated engine too, aggregated and '
    about += "disaggregated, with one and two replicas: `a worker hangs (sglang, 2 replicas)`, `a worker hangs (vllm, "
    about += "disaggregated, 1 replica)`."
    return Section("Ready scenarios", about, table=Table(["name", "what breaks", "checks"], rows))


def _tags() -> Section:
    known, rare = tags.tags(), left_out(ROOT)
    rows = [[f"`@{tag}`", what, "no" if tag in rare else "yes"] for tag, what in known.items()]
    subjects: dict[str, list[str]] = {}
    for _, scenario in scenarios():
        for tag in scenario.feature.tags:
            if tag not in known and not tag.startswith("not_judged."):
                subjects.setdefault(str(tag), []).append(scenario.feature.name)
    for tag, features in sorted(subjects.items()):
        rows.append([f"`@{tag}`", f"Scenarios of: {'; '.join(dict.fromkeys(features))}.", "yes"])
    about = "A scenario has the tags of its feature as well. Without `TAGS=` those run that the last column says."
    return Section("Tags", about, table=Table(["tag", "meaning", "runs by default"], rows))
