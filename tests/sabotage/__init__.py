"""The proof that scenarios can fail: each is run with something broken and has to turn red for that reason."""

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from support.data import read_list
from support.judge.defects import check_where, may_be
from support.judge.verdict import Finding, Verdict
from support.run.selection import Selected, enumerate_scenarios
from support.seen import KINDS
from support.settings import ROOT

TABLE = Path(__file__).with_name("table.yaml")


@dataclass(frozen=True)
class Find:
    """A finding that a sabotage has to give: by its rule, or by its kind and some of its fields."""

    rule: str = ""
    seen: str = ""
    where: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse one that says nothing, or of which nothing can be.

        Raises:
            ValueError: says what is wrong.
        """
        if not self.rule and not self.seen:
            raise ValueError("it names neither rule nor seen")
        if self.seen and self.seen not in KINDS:
            raise ValueError(f"seen is {self.seen!r}; expected one of {', '.join(KINDS)}")
        check_where(self.seen or "told", self.where)

    def __str__(self) -> str:
        return " ".join([self.rule, self.seen, *(f"{name}={value}" for name, value in self.where.items())]).strip()

    def fits(self, finding: Finding) -> bool:
        """Whether ``finding`` is one of these."""
        return (
            self.rule in ("", finding.rule)
            and self.seen in ("", finding.kind)
            and all(may_be(finding.facts[name], allowed) for name, allowed in self.where.items())
        )


@dataclass(frozen=True)
class Sabotage:
    """One row of the table: one of ``finds`` has to be among the findings, or ``words`` in what an inconclusive
    scenario says; neither, and the verdict alone is looked at.
    """

    scenario: str
    sabotage: str
    verdict: str = "failed"
    finds: list[Find] = field(default_factory=list)
    words: str = ""

    @property
    def wanted(self) -> str:
        """What has to be found, in short."""
        return self.words or "; ".join(map(str, self.finds))

    def check(self) -> None:
        """Refuse a row of which nothing can be.

        Raises:
            ValueError: says what is wrong.
        """
        for each in self.finds:
            each.check()
        if bool(self.words) != (self.verdict == "inconclusive"):
            raise ValueError("words are for inconclusive rows, and those have no fields")
        if not self.finds and self.verdict not in ("inconclusive", "passed"):
            raise ValueError("it names nothing that has to be found")

    def matches(self, name: str) -> bool:
        """Whether the row is about the scenario called ``name``."""
        return fnmatchcase(name, self.scenario)

    def explains(self, seen: Verdict) -> bool:
        """Whether a scenario turned red as it had to: for any finding that carries its verdict."""
        blame = "suite" if seen.verdict == "inconclusive" else "dynamo"
        carrying = [each for each in seen.findings if each.blame == blame]
        if not re.fullmatch(self.verdict, seen.verdict):
            return False
        if self.words:
            told = [seen.reason, *(f"{each.about} {each.message}" for each in carrying)]
            return any(re.search(self.words, text) for text in told)
        return not self.finds or any(find.fits(each) for find in self.finds for each in carrying)


def table() -> list[Sabotage]:
    """All rows; a ValueError names what is wrong with the line of one."""
    return read_list(TABLE, Sabotage, check=Sabotage.check)


def scenarios(cluster: bool = True) -> list[Selected]:
    """Every scenario of the default selection, and with a ``cluster`` those that need one."""
    return enumerate_scenarios(ROOT, [], []) + (enumerate_scenarios(ROOT, [], ["@k8s"]) if cluster else [])
