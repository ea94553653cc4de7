"""Each scenario has a sabotage that turns it red, each row a scenario; `make sabotage` runs them."""

from agents.sabotage import injector, proxy
from support.judge import defects
from support.judge.verdict import Finding, Verdict
from support.run.selection import enumerate_scenarios
from support.settings import ROOT
from support.targets.local.sabotage import SHAPES, WITNESSES
from tests.lies import LIES, rows, ways
from tests.sabotage import Sabotage, scenarios, table


def test_every_scenario_has_a_sabotage() -> None:
    names = [scenario.name for scenario in scenarios()]
    assert len(names) >= 50
    assert [name for name in names if not any(row.matches(name) for row in table())] == []


def test_every_row_is_about_a_scenario() -> None:
    names = [scenario.name for scenario in scenarios()]
    assert [row.scenario for row in table() if not any(row.matches(name) for name in names)] == []


def test_every_kind_of_sabotage_is_used_and_known() -> None:
    used = {row.sabotage for row in table() if row.sabotage and not row.sabotage.startswith("migration-limit=")}
    known = {f"proxy={kind}" for kind in proxy.KINDS} | {f"injector={kind}" for kind in injector.KINDS}
    known |= {f"shape={kind}" for kind in SHAPES} | {f"witness={kind}" for kind in WITNESSES}
    of_lies = [way.sabotage for row in rows() for lie in LIES for way in ways(row, lie)]
    used |= {each for each in of_lies if not each.startswith("list=")}
    # It can be imported in Dynamo's environment only.
    engine = (ROOT / "support" / "engines" / "ruler.py").read_text()
    assert {each for each in used if not each.startswith("ruler=")} == known
    assert all(f'"{each.removeprefix("ruler=")}"' in engine for each in used if each.startswith("ruler="))


def test_every_known_defect_is_about_a_scenario() -> None:
    everything = enumerate_scenarios(ROOT, [], ["not @no.such.tag"])
    assert defects.unmatched(defects.load(), [(scenario.feature, scenario.name) for scenario in everything]) == []


def test_a_row_is_caught_by_what_carries_the_verdict_alone() -> None:
    row = Sabotage("s", "proxy=drops-token", "in flight")
    of_dynamo, excused = (Finding("sentence", "w-0", "1 in flight", blame=blame) for blame in ("dynamo", "suite"))
    other = Finding("gauges", "f-0", "the gauge is 1")

    def seen(word: str, *findings: Finding) -> Verdict:
        return Verdict("F", "s", "f:1", [], word, 1.0, "the gauge is 1", list(findings))

    assert row.explains(seen("failed", other, of_dynamo))
    assert not row.explains(seen("failed", other, excused))
    assert not row.explains(seen("failed", other))
    assert not row.explains(seen("inconclusive", other, of_dynamo))
    assert Sabotage("s", "injector=does-nothing", "in flight", "inconclusive").explains(seen("inconclusive", excused))
