"""What a run shows on a terminal, and what scenarios tell of themselves for that."""

import json
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from support import activity
from support.activity import Activity, Awaited
from support.clock import now
from support.events import EventLog
from support.judge.verdict import Finding, Verdict
from support.observe.waiting import throughout, until
from support.run.live import Doing, FaultsOn, LiveView, seconds_left
from support.run.schedule import Cost
from support.run.selection import Selected
from tests.patience import PATIENCE


def selected(name: str) -> Selected:
    return Selected("F", name, f"features/f.feature:{len(name)}", ())


def ended(name: str, verdict: str = "passed", seconds: float = 10.0, reason: str = "") -> Verdict:
    found = [Finding("sentence", "x", reason)] if verdict == "failed" else []
    return Verdict("F", name, "features/f.feature:9", [], verdict, seconds, reason, found)


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """A scenario's folder, in which it tells what it does."""
    activity.begin(tmp_path)
    return tmp_path


def test_a_scenario_tells_its_sentence_and_what_it_waits_for(told: Path) -> None:
    seen = []

    def probe() -> str | None:
        seen.append(activity.read(told))
        return "not yet" if len(seen) < 3 else None

    activity.begin_step("When a worker crashes")
    began = now()
    until(probe, 60.0, "it is gone")
    # The first look comes before there is anything to wait for.
    assert [[each.what for each in look.awaited] for look in seen] == [[], ["it is gone"], ["it is gone"]]
    assert seen[1].awaited[0].until == pytest.approx(began + 60, abs=1)
    assert {each.step for each in seen} == {"When a worker crashes"}
    assert activity.read(told).awaited == []
    throughout(lambda: seen.append(activity.read(told)), 0.01, "it stays")
    assert [each.what for each in seen[3].awaited] == ["it stays, all the time"]


def test_a_wait_that_fails_is_over(told: Path) -> None:
    with pytest.raises(AssertionError):
        until(lambda: "no", 0.05, "it holds")
    assert activity.read(told).awaited == []


def test_parts_of_a_step_may_wait_at_once(told: Path) -> None:
    gone = threading.Event()

    def other() -> None:
        with activity.waiting("the other", 5.0):
            gone.wait(10)

    thread = threading.Thread(target=other)
    with activity.waiting("the one"):
        thread.start()
        until(lambda: None if len(activity.read(told).awaited) >= 2 else "one", PATIENCE, "both wait")
        assert Awaited("the one", None) in activity.read(told).awaited
    gone.set()
    thread.join()
    assert activity.read(told).awaited == []


@pytest.mark.parametrize("content", [None, "", "{", '{"step": 1}', "[]"])
def test_of_what_cannot_be_read_nothing_is_shown(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / activity.FILE).write_text(content)
    assert activity.read(tmp_path) == Activity()


def test_a_view_that_cannot_be_written_costs_no_scenario(tmp_path: Path) -> None:
    activity.begin(tmp_path / "gone")
    activity.begin_step("When it goes on")
    with activity.waiting("something"):
        pass
    assert activity.read(tmp_path / "gone") == Activity()


def test_the_time_left_comes_from_earlier_runs_and_from_how_many_run_side_by_side(tmp_path: Path) -> None:
    costs = {"F: a": Cost(30.0, 1.0), "F: b": Cost(10.0, 1.0)}
    running = [Doing(selected("a"), 90.0, tmp_path)]
    # 100 s of scenarios in 50 s, two at a time; 20 s of a, b, and one that is taken to be like b are left.
    done = [ended("c", seconds=50.0), ended("d", seconds=40.0)]
    assert seconds_left(running, [selected("b"), selected("e")], done, costs, 50.0, 100.0) == pytest.approx(20.0)
    # However many run side by side, the longest takes its time.
    assert seconds_left(running, [], [ended("c", seconds=900.0)], costs, 50.0, 95.0) == pytest.approx(25.0)


def test_a_run_that_has_hardly_begun_knows_no_end(tmp_path: Path) -> None:
    costs = {"F: b": Cost(10.0, 1.0)}
    assert seconds_left([], [selected("b")], [], costs, 5.0, 5.0) is None
    assert seconds_left([], [selected("b")], [], {}, 50.0, 50.0) is None


def test_faults_are_on_until_they_are_undone_or_their_lease_is_over(tmp_path: Path) -> None:
    faults, events = FaultsOn(tmp_path), EventLog(tmp_path / "events.jsonl")
    assert faults.at(0.0) == []
    events.add("fault", "w-0", "hang of w-0", at=1.0, fault="f-1", until=9.0)
    events.add("fault", "w-1", "crash of w-1", at=2.0, fault="f-2")
    events.add("fault", "client", "client cancels request 1", at=2.0)
    assert faults.at(3.0) == ["hang of w-0", "crash of w-1"]
    assert faults.at(9.0) == ["crash of w-1"]
    with (tmp_path / "events.jsonl").open("a") as stream:
        stream.write('{"at": 3.0, "kind": "fault", "subject": "w-1", "text": "crash of w-1 un')  # being written
    assert faults.at(9.0) == ["crash of w-1"]
    with (tmp_path / "events.jsonl").open("a") as stream:
        stream.write('done", "data": {"fault": "f-2"}}\n')
    assert faults.at(9.0) == []


def test_the_picture_has_failures_on_top_and_what_runs_below(tmp_path: Path) -> None:
    console = Console(width=110, record=True, file=(tmp_path / "out").open("w"))
    view = LiveView(console, "Dynamo 1.6.1 on target local", {"F: it breaks": Cost(40.0, 1.0)})
    at = time.monotonic()
    step = {"step": "Then all is well", "since": at, "awaited": [{"what": "it is", "until": at + 5.2}]}
    (tmp_path / activity.FILE).write_text(json.dumps(step))
    EventLog(tmp_path / "events.jsonl").add("fault", "w", "hang of w-0", at=at, fault="f", until=at + 60)
    console.print(
        view.picture(
            [Doing(selected("it breaks"), at - 65, tmp_path)],
            [selected("b")],
            [ended("a"), ended("c", "failed", reason="it was not so")],
            at,
        )
    )
    lines = console.export_text().splitlines()
    assert lines[1] == "FAILED features/f.feature:9  Dynamo defect: it was not so"
    assert lines[2].startswith("Dynamo 1.6.1 on target local  2 of 4 done, 1 running  1 passed  1 FAILED  0:00")
    assert lines[3].startswith("1:05 it breaks  features/f.feature:9")
    assert lines[4].strip() == "Then all is well  |  waits until it is (5 s left)  |  on: hang of w-0"
