"""The proof that scenarios can fail: each is run with something broken and has to turn red for that reason."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from support.data import read_list
from support.judge.verdict import Verdict
from support.run.selection import Selected, enumerate_scenarios
from support.settings import ROOT

TABLE = Path(__file__).with_name("table.yaml")


@dataclass(frozen=True)
class Sabotage:
    """One row of the table."""

    scenario: str
    sabotage: str
    seen: str
    verdict: str = "failed"

    def matches(self, name: str) -> bool:
        """Whether the row is about the scenario called ``name``."""
        return fnmatchcase(name, self.scenario)

    def explains(self, seen: Verdict) -> bool:
        """Whether a scenario turned red as it had to: for any finding that carries its verdict."""
        blame = "suite" if seen.verdict == "inconclusive" else "dynamo"
        told = [seen.reason, *(f"{each.about} {each.message}" for each in seen.findings if each.blame == blame)]
        return bool(re.fullmatch(self.verdict, seen.verdict) and any(re.search(self.seen, text) for text in told))


def table() -> list[Sabotage]:
    """All rows; a ValueError names what is wrong with the line of one."""
    return read_list(TABLE, Sabotage)


def scenarios() -> list[Selected]:
    """Every scenario of the default selection."""
    return enumerate_scenarios(ROOT, [], [])
