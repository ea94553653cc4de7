"""Each scenario has a sabotage that turns it red, each row a scenario; `make sabotage` runs them."""

import pytest

from agents.sabotage import injector, proxy
from support.judge import defects
from support.judge.verdict import Finding, Verdict
from support.run.selection import enumerate_scenarios
from support.seen import Busy, GaugeSeen
from support.settings import ROOT
from support.targets.local.sabotage import SHAPES, WITNESSES
from tests.lies import LIES, rows, ways
from tests.sabotage import Find, Sabotage, scenarios, table


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
    row = Sabotage("s", "proxy=drops-token", finds=[Find(seen="in-flight", where={"requests": 1})])
    busy, words = Busy("w-0", "worker", 1.0), "1 in flight"
    of_dynamo, excused = (Finding.of("sentence", "w-0", busy, each, words) for each in ("dynamo", "suite"))
    other = Finding.of("gauges", "f-0", GaugeSeen("f-0", "frontend", "busy", 1.0))
    more = Finding.of("sentence", "w-0", Busy("w-0", "worker", 2.0))

    def seen(word: str, *findings: Finding) -> Verdict:
        return Verdict("F", "s", "f:1", [], word, 1.0, "the gauge is 1", list(findings))

    assert row.explains(seen("failed", other, of_dynamo))
    assert not row.explains(seen("failed", other, excused))
    assert not row.explains(seen("failed", other))
    assert not row.explains(seen("failed", more))
    assert not row.explains(seen("inconclusive", other, of_dynamo))
    unproven = Sabotage("s", "injector=does-nothing", "inconclusive", words="in flight")
    assert unproven.explains(seen("inconclusive", excused))
    assert not unproven.explains(seen("inconclusive", of_dynamo))
    assert Sabotage("s", "injector=dawdles", "passed").explains(seen("passed"))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Sabotage("s", "x"), "names nothing that has to be found"),
        (Sabotage("s", "x", "inconclusive"), "words are for inconclusive rows"),
        (Sabotage("s", "x", words="in flight"), "words are for inconclusive rows"),
        (Sabotage("s", "x", finds=[Find()]), "neither rule nor seen"),
        (Sabotage("s", "x", finds=[Find(seen="flight")]), "seen is 'flight'; expected one of"),
        (Sabotage("s", "x", finds=[Find(seen="in-flight", where={"pid": 1})]), "'in-flight' has no field 'pid'"),
    ],
)
def test_a_row_that_could_catch_nothing_is_refused(row: Sabotage, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        row.check()
