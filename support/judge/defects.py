"""Known defects of Dynamo releases: one committed data file, strictly checked.

A scenario that shows a real defect stays in the suite; a record here says which way of failing is the known one. Any
other way of failing in that scenario is red, and so is a defect that should always show and did not.
"""

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from support.data import read_yaml
from support.judge.invariants import RULES
from support.judge.verdict import Finding

FILE = Path(__file__).with_name("known_defects.yaml")
FREQUENCIES = ("always", "sometimes")
LEAST_RUNS = 5
"""Runs that a record has to rest on."""

_REQUIRED = ("id", "scenario", "releases", "rule", "seen", "frequency", "reproductions", "evidence", "upstream")
_OPTIONAL = ("feature",)


@dataclass(frozen=True)
class Record:
    """One known defect.

    Attributes:
        id: short stable name, shown in reports.
        scenario: exact name of the scenario, or a glob (``*``, ``?``); several, with `` | `` between them, where the
            same defect shows in the same way.
        releases: the Dynamo releases that show it, e.g. ``>=1.4,<1.7``.
        rule: the invariant that breaks (a name in :data:`support.judge.invariants.RULES`) or ``sentence``.
        seen: regular expression searched in the finding's message.
        frequency: ``always`` or ``sometimes``.
        reproductions: ``k/n``: seen in k of n runs.
        evidence: what was seen, in words, with the place of the ledgers.
        upstream: address of the thread, or ``none found``.
        feature: exact name of the feature or a glob; empty means any.
    """

    id: str
    scenario: str
    releases: SpecifierSet
    rule: str
    seen: re.Pattern[str]
    frequency: str
    reproductions: str
    evidence: str
    upstream: str
    feature: str = ""

    def applies(self, release: str, scenario: str, feature: str = "") -> bool:
        """Whether the defect is expected in ``scenario`` (its name) of ``feature`` on ``release`` (``1.6.1``)."""
        return (
            self.releases.contains(release, prereleases=True)
            and _matches(self.scenario, scenario)
            and (not self.feature or _matches(self.feature, feature))
        )

    def explains(self, finding: Finding) -> bool:
        """Whether ``finding`` is the known way of failing."""
        return finding.blame == "dynamo" and finding.rule == self.rule and bool(self.seen.search(finding.message))


def load(path: Path = FILE) -> list[Record]:
    """The records of a file.

    Raises:
        ValueError: the file is not a list of records, or a record is wrong; the message names the record and the field.
    """
    try:
        data = read_yaml(path)
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not YAML: {error}") from error
    if data is None:
        return []
    if not isinstance(data, list):
        raise ValueError(f"{path.name} holds a {type(data).__name__}; expected a list of records")
    records = [_record(f"{path.name}, record {number}", fields) for number, fields in enumerate(data, 1)]
    ids = [record.id for record in records]
    if twice := next((name for name in ids if ids.count(name) > 1), None):
        raise ValueError(f"{path.name} has two records with the id {twice!r}; give each its own")
    return records


def unmatched(records: Iterable[Record], scenarios: Iterable[tuple[str, str]]) -> list[str]:
    """Ids of stale records: their scenario is not among ``scenarios`` (pairs of feature name and scenario name)."""
    names = list(scenarios)
    return [
        record.id
        for record in records
        if not any(
            _matches(record.scenario, scenario) and (not record.feature or _matches(record.feature, feature))
            for feature, scenario in names
        )
    ]


def _matches(pattern: str, name: str) -> bool:
    return any(name == each or fnmatch.fnmatchcase(name, each) for each in pattern.split(" | "))


def _record(where: str, fields: Any) -> Record:
    if not isinstance(fields, dict):
        raise ValueError(f"{where} is a {type(fields).__name__}; expected fields {', '.join(_REQUIRED)}")
    where += f" ({fields.get('id', 'without id')})"
    for name, value in fields.items():
        if name not in _REQUIRED + _OPTIONAL:
            raise ValueError(f"{where}: unknown field {name!r}; allowed are {', '.join(_REQUIRED + _OPTIONAL)}")
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{where}: {name} is {value!r}; expected a text in quotes")
    if missing := [name for name in _REQUIRED if name not in fields]:
        raise ValueError(f"{where}: {', '.join(missing)} missing")
    rules = (*RULES, "sentence")
    if fields["rule"] not in rules:
        raise ValueError(f"{where}: unknown rule {fields['rule']!r}; expected one of {', '.join(rules)}")
    if fields["frequency"] not in FREQUENCIES:
        raise ValueError(f"{where}: frequency is {fields['frequency']!r}; expected {' or '.join(FREQUENCIES)}")
    _check_reproductions(where, fields["frequency"], fields["reproductions"])
    if not (fields["upstream"] == "none found" or fields["upstream"].startswith("https://")):
        raise ValueError(f"{where}: upstream is {fields['upstream']!r}; expected an https address or 'none found'")
    try:
        return Record(**{**fields, "releases": SpecifierSet(fields["releases"]), "seen": re.compile(fields["seen"])})
    except InvalidSpecifier as error:
        raise ValueError(f"{where}: releases is {fields['releases']!r}; expected e.g. '>=1.4,<1.7'") from error
    except re.error as error:
        raise ValueError(f"{where}: seen is no regular expression: {error}") from error


def _check_reproductions(where: str, frequency: str, text: str) -> None:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    shown, runs = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= shown <= runs or runs < LEAST_RUNS:
        raise ValueError(f"{where}: reproductions is {text!r}; expected k/n with n at least {LEAST_RUNS}, e.g. '5/5'")
    if frequency == "always" and shown < runs:
        raise ValueError(
            f"{where}: frequency 'always' with {text} reproductions; expected {runs}/{runs} or 'sometimes'"
        )
