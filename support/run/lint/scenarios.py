"""A feature as a whole: do its sentences go together, can each scenario fail, are its names its own."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from support.contract.shape import Shape
from support.errors import Mistake
from support.faults.gpu import CONSEQUENCES
from support.faults.network import SIDE_WORDS
from support.faults.pods import ForceDeletePod
from support.faults.processes import Crash, Restart
from support.faults.victims import VICTIMS
from support.marks import THINGS, Marks
from support.run.lint import tables, tags
from support.run.lint.found import FoundMistake
from support.run.lint.sentences import Sentences, Understood
from support.run.selection import LIMIT, SLOW_LIMIT, limit
from support.scenarios import Failure
from support.words import TIMES

COLUMN = re.compile(r"<([^<>|]+)>")
ONE_TABLE = "one table of all failures, below: When these failures strike"
SERVING = ("worker", "serving_worker", "decode_worker")
"""Victims that answer a request."""


@dataclass(frozen=True)
class Placed:
    """A step of a scenario.

    Attributes:
        step: behave's.
        line: where a mistake in it is to be corrected: of an outline whose step has a column in it, that of the row.
        sentence: what it was read as; None: it could not be.
    """

    step: Any
    line: int
    sentence: Understood | None

    @property
    def text(self) -> str:
        """As it was written, with its keyword."""
        return f"{self.step.keyword} {self.step.name}"

    def brings(self, thing: str) -> bool:
        """Whether a key of :data:`support.marks.THINGS` is there from then on."""
        return self.sentence is not None and thing in self.sentence.marks.brings

    def needs(self, thing: str) -> bool:
        """Whether it makes no sense without such a thing before it."""
        return self.sentence is not None and thing in self.sentence.marks.needs


class FeatureLint:
    """What is wrong with one feature.

    Args:
        file: its file, as it is told.
        feature: behave's.
        sentences: all that there are.
    """

    def __init__(self, file: str, feature: Any, sentences: Sentences) -> None:
        self._file, self._feature, self._sentences = file, feature, sentences

    def found(self) -> Iterator[FoundMistake]:
        """All mistakes, some of them more than once, in no order."""
        for line, mistake in self._located():
            yield FoundMistake.at(self._file, line, mistake)

    def _located(self) -> Iterator[tables.Located]:
        statements = self._feature.walk_scenarios(with_outlines=True, with_rules=True)
        outlines = [each for each in statements if each.type == "scenario_outline"]
        scenarios = [each for each in statements if each.type == "scenario"]
        if not scenarios and not outlines:
            yield self._feature.line, Mistake("the feature has no scenario", write="Scenario: NAME, with its steps")
        for each in [self._feature, *statements]:
            if not each.name and each.type != "rule":
                yield each.line, Mistake(f"the {each.keyword} has no name; its history needs one")
        yield from self._tags([self._feature, *statements])
        for outline in outlines:
            if not outline.scenarios:
                columns = "".join(f" {name} |" for name in dict.fromkeys(_columns(outline))) or " column |"
                rows = f"Examples: with | {columns.strip()} and a row for each scenario"
                yield outline.line, Mistake("the outline has no row below Examples, so it plays nothing", write=rows)
        yield from _twice(scenarios)
        for scenario in scenarios:
            yield from self._scenario(scenario)

    def _tags(self, statements: Sequence[Any]) -> Iterator[tables.Located]:
        for each in statements:
            of_row = each.type == "scenario" and each._row is not None
            examples = [tag for block in getattr(each.parent if of_row else each, "examples", ()) for tag in block.tags]
            filled = {*each.parent.tags, *examples} if of_row else set()
            for tag in [*each.tags, *([] if of_row else examples)]:
                # One with a column is looked at in each row, and there no other one again.
                if not COLUMN.search(tag) and tag not in filled:
                    line = each.line if of_row else tag.line
                    yield from ((line, mistake) for mistake in tags.mistakes(str(tag)))

    def _scenario(self, scenario: Any) -> Iterator[tables.Located]:
        place = scenario.line if scenario._row is None else scenario.parent.line
        steps = list(scenario.all_steps)
        if not steps:
            yield place, Mistake("the scenario has no step", write="Given, When and Then")
            return
        placed = []
        for step, line in zip(steps, _lines(scenario), strict=True):
            sentence = None
            try:
                if wrong := _unknown_column(scenario, step):
                    yield step.line, wrong
                else:
                    sentence = self._sentences.read(step.step_type, step.name)
                    yield from self._words(scenario, step, line, sentence)
            except Mistake as mistake:
                yield line, mistake
            placed.append(Placed(step, line, sentence))
        yield from _order(placed)
        yield from _places(placed, scenario)
        yield from _expectations(placed, place)
        yield from _load(placed)
        yield from _takeovers(placed)

    def _words(self, scenario: Any, step: Any, line: int, sentence: Understood) -> Iterator[tables.Located]:
        in_row = line == scenario.line and scenario._row is not None
        found = list(tables.mistakes(step, sentence))
        for at, mistake in found or tables.impossible(step, sentence):
            yield line if in_row else at, mistake
        longest = limit(scenario.effective_tags)
        for word_type, written, value in sentence.words.values():
            seconds = value.get("trigger_after_seconds", 0.0) if word_type in ("Trigger", "Begin") else value
            if word_type in TIMES and (seconds or 0.0) >= longest:
                said = f"{written.strip()!r} is longer than the scenario may take: {longest:g} seconds"
                more = f", or the tag @slow: {SLOW_LIMIT:g} seconds" if longest == LIMIT else ""
                yield line, Mistake(said, write=f"a shorter time{more}")
        if sentence.marks.check:
            try:
                sentence.marks.check(**sentence.arguments)
            except Mistake as mistake:
                yield line, mistake


def _columns(outline: Any) -> Iterator[str]:
    for step in outline.steps:
        yield from COLUMN.findall(_written(step))


def _written(step: Any) -> str:
    rows = [step.table.headings, *(row.cells for row in step.table)] if step.table else []
    return "\n".join([step.name, *("|".join(cells) for cells in rows)])


def _lines(scenario: Any) -> list[int]:
    """For each step the line where a mistake in it is to be corrected."""
    template = scenario.steps if scenario._row is None else scenario.parent.steps
    own = [scenario.line if COLUMN.search(_written(each)) else each.line for each in template]
    if scenario._row is None:
        own = [each.line for each in scenario.steps]
    return [*(each.line for each in scenario.background_steps), *own]


def _unknown_column(scenario: Any, step: Any) -> Mistake | None:
    """That a step has a column in it which the outline does not have, or that there is no outline."""
    found = COLUMN.search(_written(step))
    if not found:
        return None
    if scenario._row is None:
        return Mistake(f"{found[0]} is filled in only in an outline", write="Scenario Outline: with Examples:")
    return Mistake(f"the outline has no column {found[0]}", [f"<{each}>" for each in scenario._row.headings])


def _twice(scenarios: Sequence[Any]) -> Iterator[tables.Located]:
    first: dict[str, int] = {}
    for each in scenarios:
        before = first.setdefault(each.name, each.line)
        if before == each.line:
            continue
        said = f"a second scenario {each.name!r} (the first: line {before}); the two would share one history"
        if each._row is None:
            yield each.line, Mistake(said, write="another name")
        else:
            named = f"{each.parent.name} (<{each._row.headings[0]}>) as the outline's name"
            yield each.line, Mistake(said, write=named)


def _order(placed: Sequence[Placed]) -> Iterator[tables.Located]:
    """Given comes first, and each sentence after those that bring what it needs."""
    acts = [n for n, each in enumerate(placed) if each.step.step_type != "given"]
    late = [n for n, each in enumerate(placed) if each.step.step_type == "given" and acts and n > acts[0]]
    if late:
        said = f"{placed[acts[0]].text!r} comes before {placed[late[0]].text!r}"
        yield placed[acts[0]].line, Mistake(said, write="first each Given, then When, then Then")
        return
    there: set[str] = set()
    for each in placed:
        if each.sentence is None:
            there |= {*THINGS}  # it may have brought anything
            continue
        marks = each.sentence.marks
        for thing in ("deployment", "load") if each.step.step_type == "given" and not there >= {*THINGS} else ():
            if thing in marks.brings and thing in there:
                yield each.line, Mistake(f"a scenario has one {thing}, and this is the second", write="the first alone")
        needed = marks.needs if "deployment" in marks.brings else ("deployment", *marks.needs)
        if missing := [thing for thing in needed if thing not in there]:
            yield each.line, Mistake(f"{each.text!r} needs something before it", write=THINGS[missing[0]])
        there |= {*needed, *marks.brings}


def _expectations(placed: Sequence[Placed], place: int) -> Iterator[tables.Located]:
    """A scenario can fail, and each fault is followed by what is expected."""
    thens = [n for n, each in enumerate(placed) if each.step.step_type == "then"]
    faults = [n for n, each in enumerate(placed) if each.brings("fault")]
    expect = "Then, with what users of the deployment should see"
    if faults and (not thens or thens[-1] < faults[-1]):
        yield placed[faults[-1]].line, Mistake("nothing is expected after this fault", write=expect)
    elif not thens:
        yield place, Mistake("no step of this scenario can fail", write=expect)


def _places(placed: Sequence[Placed], scenario: Any) -> Iterator[tables.Located]:
    """The deployment has whom each fault is to hit."""
    shape = None
    for each in placed:
        if each.sentence is None:
            continue
        if each.sentence.marks.table == "deployment":
            with contextlib.suppress(Mistake):  # it has been told
                shape = tables.shape_of(each.step, each.sentence)
        if shape is None:
            continue
        if (engine := each.sentence.marks.engine) and engine != shape.engine:
            wrong = f"{each.text!r} is only for {engine} workers, and the deployment has {shape.engine} workers"
            yield each.line, Mistake(wrong, write=f"{engine} workers in the deployment, or another sentence")
        for line, failure in tables.failures_of(each.step, each.sentence):
            if mistake := _refused(failure, shape):
                in_row = each.line == scenario.line and scenario._row is not None
                yield each.line if in_row else line, _with_those_there(mistake, failure, shape)


def _refused(failure: Failure, shape: Shape) -> Mistake | None:
    try:
        failure.check_place(shape)
    except Mistake as mistake:
        return mistake
    return None


def _with_those_there(mistake: Mistake, failure: Failure, shape: Shape) -> Mistake:
    """The same with all victims that could be hit instead or, where that is not the matter, all other sides."""
    victims = [called.words for key, called in VICTIMS.items() if not _refused(replace(failure, target=key), shape)]
    sides = [
        words for words, key in SIDE_WORDS.items() if not _refused(replace(cast(Any, failure), partition=key), shape)
    ]
    return Mistake(mistake.wrong, sides or victims, mistake.write)


def _load(placed: Sequence[Placed]) -> Iterator[tables.Located]:
    """What is to happen to a load happens before it is over."""
    there, ends, over = False, 0.0, 0
    for each in placed:
        words, marks = (each.sentence.arguments, each.sentence.marks) if each.sentence else ({}, Marks())
        if each.brings("load"):
            there, ends = True, words.get("time", 0.0)
        if ends and words.get("trigger", {}).get("trigger_after_seconds", 0.0) >= ends:
            said = f"{each.text!r} never happens: the load is over after {ends:g} seconds"
            yield each.line, Mistake(said, write="an earlier time, or a longer load")
        if ends and words.get(marks.recovery, 0.0) >= ends:
            said = f"RECOVERY cannot last that long: the load is over after {ends:g} seconds"
            yield (
                each.line,
                Mistake(said, write="the load without 'for', so that it goes on as long as RECOVERY has to"),
            )
        plays = (each.needs("load") and each.brings("run")) or (there and bool(words.get("trigger")))
        if there and over and (plays or marks.running):
            said = f"the load is over by then: the step in line {over} plays it to its end"
            yield each.line, Mistake(said, write=ONE_TABLE if plays else "this step above that one")
        if plays or (
            each.step.step_type == "then" and not marks.running and (each.needs("run") or each.needs("request"))
        ):
            over = over or each.step.line


def _takeovers(placed: Sequence[Placed]) -> Iterator[tables.Located]:
    """Where a worker is lost with an answer, another one is there to complete it, if it is to be whole."""
    workers, lost = 0, 0
    for each in placed:
        if each.sentence is None:
            return
        marks, words = each.sentence.marks, each.sentence.arguments
        workers += words[marks.workers] if isinstance(marks.workers, str) else marks.workers
        if marks.loses and _loses(words[marks.loses]) and words["victim"] in SERVING:
            workers -= 1
            lost = lost or (each.line if workers < 1 else 0)
        if marks.whole and lost:
            left = f"after the fault in line {lost} no worker is left to complete the answer"
            instead = "one more worker, or: within 10 seconds the answer ends in a clean error"
            yield each.line, Mistake(f"{left}; one that joins later comes too late", write=instead)


def _loses(cause: Any) -> bool:
    """Whether a worker that is hit by it loses what it has in flight."""
    return cause in (Crash, Restart, ForceDeletePod) or CONSEQUENCES.get(cause) == "gone"
