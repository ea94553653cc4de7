"""How slow the machine makes us, what grows with it, and what it excuses."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import slowness
from support.contract.target import Wait
from support.errors import Inconclusive, Since, TooLate
from support.judge import defects
from support.judge.history import WAITS as FILE
from support.judge.history import History
from support.judge.invariants import EVIDENCE, RULES, evidence
from support.judge.judge import decide, judge_scenario
from support.judge.verdict import Verdict
from support.observe.waiting import prove, throughout, until
from support.report import console
from support.report.reading import read_waits
from support.requests.ledger import LedgerEntry
from support.seen import EtcdSeen
from support.targets.local.waits import StarvationRecorder

LEADERLESS = EtcdSeen("", "no-leader", 0, "none")
MISSED = "not within 2 seconds of the fault: etcd has a leader; last seen: none"
LATE = TooLate("etcd has a leader; last seen: none", 2.0, Since(10.0, "the fault"), until=12.0, seen=[LEADERLESS])
WAITS = [Wait(10.0, 11.0, "frontend-0 (pid 7)", 0.3), Wait(11.0, 12.0, "frontend-0 (pid 7)", 0.2)]


def test_the_factor_is_time_wanted_over_time_had() -> None:
    assert slowness.parse("2000000000 1000000000 7\n") == (2.0, 1.0)
    assert slowness.between((0.0, 0.0), (2.0, 1.0)) == 1.5
    assert slowness.between((2.0, 1.0), (3.0, 1.0)) == 1.0
    assert slowness.between((0.0, 0.0), (0.1, 900.0)) == slowness.MOST
    assert slowness.between((1.0, 1.0), (1.0, 5.0)) == 1.0


def test_our_own_waits_grow_with_it_and_promises_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slowness, "factor", lambda: 3.0)
    with pytest.raises(Inconclusive, match=r"not within 0\.3 seconds"):
        prove(lambda: "nothing", 0.1, "it comes", "it was not proven")
    with pytest.raises(TooLate, match=r"not within 0\.1 seconds") as caught:
        until(lambda: "nothing", 0.1, "it comes")
    assert (caught.value.bound, caught.value.until > caught.value.since) == (0.1, True)
    assert slowness.lengthened(2.0) == 6.0
    monkeypatch.setattr(slowness, "factor", lambda: 9.0)
    assert slowness.lengthened(2.0) == 2.0 * slowness.LONGEST_ANSWER


def test_an_answer_is_lengthened_by_what_is_seen_after_the_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    """It works until it has something to tell from: here 10 ms at a time, each of which takes twice as long."""
    ran = itertools.count(1)
    monkeypatch.setattr(slowness, "_read", lambda: (50.0 + 0.01 * (turn := next(ran)), 400.0 + 0.01 * turn))
    slowness.begin()
    assert slowness.lengthened(3.0) == pytest.approx(6.0)
    assert next(ran) * 0.01 > slowness.LEAST_RUN_SECONDS


def test_where_the_kernel_does_not_tell_nothing_is_lengthened(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = itertools.count(1)
    monkeypatch.setattr(slowness, "_read", lambda: (0.0 * next(asked), 0.0))
    slowness.begin()
    assert slowness.lengthened(3.0) == 3.0
    assert next(asked) < 5, "it works on with nothing to gain"


def test_a_look_at_the_end_is_never_left_out() -> None:
    looks = []
    throughout(lambda: looks.append(1), 0.0, "it holds")
    assert looks == [1]


@pytest.mark.parametrize(
    ("failure", "waits", "verdict"),
    [
        (LATE, WAITS, "inconclusive"),
        (LATE, WAITS[:1], "failed"),  # 0.3 s are less than a fifth of the bound
        (LATE, [Wait(12.5, 13.5, "frontend-0 (pid 7)", 1.0)], "failed"),  # after it
        (LATE, [Wait(10.0, 11.0, "a", 0.3), Wait(11.0, 12.0, "b", 0.3)], "failed"),  # neither by itself
        (AssertionError("37 of 200 tokens"), WAITS, "failed"),  # no matter of time
    ],
)
def test_a_deadline_that_was_missed_for_want_of_a_processor_says_nothing(
    failure: AssertionError, waits: list[Wait], verdict: str
) -> None:
    findings = judge_scenario(History(waits=waits), failure, "Then within 2 seconds etcd has a new leader")
    assert decide(findings, [], "1.6.1", "a scenario")[0] == verdict
    excuses = [finding.message for finding in findings if finding.rule == "starved"]
    assert (verdict == "inconclusive") == any(
        "frontend-0 (pid 7) was ready to run for 0.50 s" in each for each in excuses
    )


def test_a_known_defect_needs_no_excuse(tmp_path: Path) -> None:
    findings = judge_scenario(History(waits=WAITS), LATE, "Then within 2 seconds etcd has a leader")
    way = {"rule": "sentence", "seen": "etcd", "where": {"node": "", "flaw": "no-leader", "amount": 0}}
    known: dict[str, Any] = {"id": "d", "scenario": "*", "releases": "==1.6.1", "ways": [way]}
    known |= {"frequency": "always", "reproductions": "5/5", "evidence": "e", "upstream": "none found"}
    file = tmp_path / "records.yaml"
    file.write_text(json.dumps([known]))
    assert decide(findings, defects.load(file), "1.6.1", "a scenario")[::2] == ("known_defect", ["d"])


def test_a_process_that_gets_no_processor_is_seen(tmp_path: Path) -> None:
    # Two that never rest, on one processor, wait for each other half of the time.
    spin = [sys.executable, "-c", "import os; os.sched_setaffinity(0, {0})\nwhile True: pass"]
    recorder = StarvationRecorder(os.getpid(), tmp_path / FILE)
    spinners = [subprocess.Popen(spin, env=os.environ | {"FT_NODE": f"x:worker-{n}"}) for n in range(2)]
    try:
        throughout(lambda: None, 1.5, "it holds")
    finally:
        for each in spinners:
            each.kill()
            each.wait()
    waits = recorder.close()
    who = f"worker-0 (pid {spinners[0].pid})"
    assert sum(wait.seconds for wait in waits if wait.who == who) > 0.3
    assert History(waits=waits).starved(waits[0].since, waits[-1].until, 0.5)
    assert read_waits(tmp_path / FILE) == waits


def test_every_rule_says_what_it_looked_at() -> None:
    assert list(EVIDENCE) == list(RULES)
    nothing = evidence(History())
    assert set(nothing.values()) == {0}
    one = evidence(History(entries=[LedgerEntry(1, "completions", True, "m", "p", 4)], not_judged={"usage": "why"}))
    assert one["one-outcome"] == 1
    assert "usage" not in one


def test_the_console_tells_what_a_pass_is_worth_and_how_busy_the_machine_was() -> None:
    found = Verdict("F", "s", "f:1", [], "passed", 1.0, evidence={"usage": 2, "replay": 0}, slowness=2.5)
    assert "(1 of 2 invariants had evidence)" in console.line(found)
    assert "ran 2.5 times slower than alone" in console.table([found], "Dynamo", 1.0, [])
