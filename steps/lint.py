"""The lint of feature files, by behave's own parser and registry: ``python -m steps.lint [FEATURE[:LINE] ...]``.

environment.py calls :func:`refuse_mistakes`; the rest is in support/run/lint/. Exit status: 0 without mistakes, else 2.
"""

import contextlib
import sys
from pathlib import Path

from behave import register_type
from behave.configuration import Configuration
from behave.parser import Parser, ParserError
from behave.runner import the_step_registry as registry
from behave.runner_util import collect_feature_locations, load_step_modules

from support.amounts import amount
from support.errors import Mistake
from support.run.lint.files import Unreadable, find
from support.run.lint.found import FoundMistake, files_of, report
from support.run.lint.sentences import Sentences
from support.run.selection import MISTAKES
from support.settings import ROOT
from support.words import TYPES


def refuse_mistakes(arguments):
    """End this behave, which was started with these arguments, if the features that it would run have mistakes.

    Raises:
        SystemExit: they have; all have been printed.
    """
    config = Configuration(arguments)
    try:
        locations = collect_feature_locations(config.paths)
    except (OSError, ValueError):
        return  # behave says itself which file there is not
    told = report(mistakes([each.filename for each in locations if not config.exclude(each.filename)]))
    if told:
        print(told, file=sys.stderr)
        raise SystemExit(MISTAKES)


def mistakes(files) -> list[FoundMistake]:
    """All mistakes in some feature files."""
    return list(find(files, parse, sentences()))


def sentences() -> Sentences:
    """All sentences; loads them if nobody has."""
    if not any(registry.steps.values()):
        register_type(**TYPES)
        load_step_modules([str(ROOT / "steps")])
    return Sentences(registry)


def recovery_of(scenario) -> float:
    """For how many seconds a scenario (behave's) wants RECOVERY to be played; 0 where no sentence says."""
    known, wanted = sentences(), [0.0]
    for step in scenario.all_steps:
        with contextlib.suppress(Mistake):  # it will end the scenario in its own place
            sentence = known.read(step.step_type, step.name)
            wanted.append(sentence.arguments.get(sentence.marks.recovery, 0.0))
    return max(wanted)


def parse(text, file):
    """behave's model of a feature; Unreadable: it has a line that behave cannot read."""
    try:
        return Parser().parse(text, file)
    except ParserError as error:
        raise Unreadable(error.line or 1, str(error.args[0])) from None


def all_well(files) -> str:
    """That files which have no mistakes have none, and what was looked at."""
    features = [parse(Path(each).read_text(encoding="utf-8"), each) for each in files]
    count = sum(len(list(each.walk_scenarios(with_rules=True))) for each in features)
    looked = "sentences, values, tables, order, victims, times, names, tags"
    return f"{amount(count, 'scenario')} in {files_of(len(files))}: no mistake (checked: {looked})"


def main(arguments) -> int:
    """Print the mistakes in the named features, or else in all."""
    try:
        config = Configuration(arguments)
        files = list(dict.fromkeys(each.filename for each in collect_feature_locations(config.paths)))
    except (OSError, ValueError) as error:
        print(f"error: there is no such feature: {error}; expected such as features/soak.feature", file=sys.stderr)
        return MISTAKES
    told = report(mistakes(files))
    print(told or all_well(files), file=sys.stderr if told else sys.stdout)
    return MISTAKES if told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
