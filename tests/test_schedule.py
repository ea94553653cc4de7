"""Which scenario begins when."""

from pathlib import Path

import pytest

from support.run.schedule import BOOT, CAPACITY, Cost, Schedule, costs_file, read_costs, usual_costs, write_costs
from support.run.selection import Selected, enumerate_scenarios
from support.settings import ROOT


def scenario(name: str, *tags: str, seconds: float = 0.0) -> Selected:
    return Selected("F", name, f"features/f.feature:{name}", tags, seconds)


SHORT = [scenario(f"short {number}") for number in range(4)]
LONG = [scenario(f"long {number}") for number in range(4)]
TIMED = [scenario(f"timed {number}", "timed") for number in range(3)]
COSTS = (
    {each.key: Cost(5.0, 3.5) for each in SHORT}
    | {each.key: Cost(40.0, 5.0) for each in LONG}
    | {each.key: Cost(18.0, 10.0) for each in TIMED}
)


def names(chosen: list[Selected]) -> list[str]:
    return [each.name for each in chosen]


def test_only_so_many_boot_at_a_time_as_there_are_processors_for() -> None:
    schedule = Schedule([*SHORT, *LONG], COSTS, jobs=8, processors=2)
    begun = schedule.due([])
    assert names(begun) == ["long 0", "long 1"]
    assert len(begun) * BOOT <= CAPACITY * 2
    assert schedule.due([(each, False) for each in begun]) == []
    assert names(schedule.due([(begun[0], True), (begun[1], False)])) == ["long 2"]
    assert len(schedule.waiting) == 5


def test_those_that_wait_leave_places_for_those_that_boot() -> None:
    schedule = Schedule([*SHORT, *LONG], COSTS, jobs=4, processors=2)
    begun = schedule.due([])
    assert names(begun) == ["long 0", "long 1"]
    assert names(schedule.due([(each, True) for each in begun])) == ["short 0", "short 1"]


def test_more_processors_take_more() -> None:
    assert [len(Schedule(SHORT + LONG, COSTS, 8, count).due([])) for count in (1, 2, 4, 8)] == [1, 2, 5, 8]
    assert len(Schedule(SHORT + LONG, COSTS, 3, 8).due([])) == 3


def test_those_that_measure_times_begin_together_beside_nothing_that_boots() -> None:
    schedule = Schedule([*TIMED, *LONG[:1], *SHORT[:1]], COSTS, jobs=4, processors=2)
    others = schedule.due([])
    assert names(others) == ["long 0", "short 0"]
    assert schedule.due([(others[0], True), (others[1], False)]) == []  # the short one boots still
    begun = schedule.due([(others[0], True)])  # a long one that waits disturbs nobody
    assert names(begun) == ["timed 0", "timed 1"]
    assert schedule.due([(each, True) for each in begun]) == []
    assert schedule.due([(begun[1], True)]) == []  # its boot would disturb the one that still measures
    assert names(schedule.due([])) == ["timed 2"]


def test_what_never_ran_may_take_long_and_begins_first() -> None:
    strangers = [scenario("new"), scenario("new, for a minute", seconds=60.0)]
    schedule = Schedule([*LONG, *strangers], COSTS, jobs=1, processors=1)
    assert [names(schedule.due([])) for _ in range(3)] == [["new, for a minute"], ["new"], ["long 0"]]


def test_something_always_begins() -> None:
    huge = {each.key: Cost(10.0, 500.0) for each in (*TIMED, *LONG)}
    schedule = Schedule([*TIMED, *LONG], huge, jobs=1, processors=1)
    begun = [schedule.due([]) for _ in range(7)]
    assert [len(each) for each in begun] == [1] * 7
    assert schedule.waiting == []


@pytest.mark.parametrize("content", [None, "", "[]", '{"F: a": 3}', '{"F: a": ["x", 1]}'])
def test_costs_that_cannot_be_read_are_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "costs.json").write_text(content)
    assert read_costs(tmp_path / "costs.json") == {}


def test_costs_are_read_as_they_were_written(tmp_path: Path) -> None:
    local, fake = costs_file(tmp_path, "local"), costs_file(tmp_path, "fake")
    write_costs(local, COSTS)
    write_costs(fake, {})
    assert (read_costs(local), read_costs(fake)) == (COSTS, {})


def test_what_scenarios_usually_take_is_of_those_that_there_are() -> None:
    usual, there = set(usual_costs("local")), {each.key for each in enumerate_scenarios(ROOT, [], [])}
    assert usual - there == set(), "renew support/run/costs-local.json"
    assert len(usual) > 0.9 * len(there), "renew support/run/costs-local.json"
    assert usual_costs("fake") == {}
