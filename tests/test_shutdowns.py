"""What became of a worker that was shut down: real processes, a node agent and metrics that are made up."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.clock import now
from support.contract.deployment import Change, Life, Node
from support.errors import Inconclusive, Mistake
from support.events import EventLog
from support.faults.fault import Fault, ProvenFault
from support.faults.processes import Crash, Terminate
from support.faults.victims import Exactly
from support.targets.local.process import identity, state_of
from support.world import shutdowns
from support.world.shutdowns import Shutdowns

NODE = Node("w-0", "worker", "127.0.0.1", 9, None)


class Seen:
    """A deployment in which one process lived, its witness, its fleet with so many migrations, and who had requests."""

    nodes = (NODE,)

    def __init__(self, changes: list[Change], moved: float, producing: Collection[str]) -> None:
        self.seen, self.moved, self.producing = changes, moved, producing

    def changes(self) -> list[Change]:
        return self.seen

    def state(self, life: Life) -> str:
        return state_of(life)

    def frontend_count(self, name: str, **labels: str) -> float:
        assert (name, labels) == ("frontend_migrations", {"migration_type": "ongoing_request"})
        return self.moved

    def expect_takeover(self, faults: Sequence[ProvenFault]) -> None:
        if not set(self.producing) - {fault.node.name for fault in faults}:
            raise AssertionError("no worker took over")

    def expect_no_takeover(self, victims: Collection[str]) -> None:
        if set(self.producing) - set(victims):
            raise AssertionError("went on with the request")


def told(process: subprocess.Popen[bytes], seconds_ago: float = 0.0, kind: type[Fault] = Terminate) -> ProvenFault:
    ticks = (psutil.Process(process.pid).create_time() - psutil.boot_time()) * os.sysconf("SC_CLK_TCK")
    life = Life("w-0", identity(process.pid, round(ticks)), f"pid {process.pid}", "running")
    at = now() - seconds_ago
    return ProvenFault("f", kind(Exactly(NODE)), NODE, at, at, at, at, at, life=life)


def run(seconds: float = 60.0) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])


@pytest.fixture
def left() -> ProvenFault:
    """Told to shut down, and gone."""
    process = run()
    fault = told(process)
    process.kill()
    process.wait()
    return fault


def seen(
    fault: ProvenFault,
    code: int | None = 0,
    after: float = 1.0,
    moved: float = 0,
    producing: Collection[str] = ("w-0",),
) -> Shutdowns:
    assert fault.life
    state = "stopped" if code is not None and code >= 0 else "dead"
    change = Change(fault.injected_at + after, "w-0", fault.life.identity, state, "it is over", code)
    every: Any = Seen([change], moved, producing)
    return Shutdowns(every, every, every, every)


Claim = Callable[[Shutdowns, ProvenFault], None]
CLAIMS: dict[str, Claim] = {
    "finished": lambda seen, fault: seen.expect_finished(fault, fault.injected_at, 10),
    "handed over": lambda seen, fault: seen.expect_handed_over(fault, 10),
    "drained": lambda seen, fault: seen.expect_drained([fault], 10),
}
MOVED: dict[str, Any] = {"moved": 1, "producing": ("w-0", "w-1")}
STAYED: dict[str, Any] = {}
HOLDS = {"finished": STAYED, "handed over": MOVED, "drained": STAYED}


@pytest.mark.parametrize("claim", CLAIMS)
def test_each_fate_is_believed_where_it_is_so(claim: str, left: ProvenFault) -> None:
    CLAIMS[claim](seen(left, **HOLDS[claim]), left)


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"code": -signal.SIGTERM}, "w-0 ended by signal SIGTERM; expected a clean end with status 0"),
        ({"code": -signal.SIGABRT}, "w-0 ended by signal SIGABRT"),
        ({"code": 1}, "w-0 exited with status 1"),
        ({"after": 11.0}, "w-0 exited after 11.0 s; 10 s are allowed"),
    ],
)
def test_an_end_that_is_unclean_or_late_is_no_fate(
    claim: str, change: dict[str, Any], words: str, left: ProvenFault
) -> None:
    with pytest.raises(AssertionError, match=words):
        CLAIMS[claim](seen(left, **HOLDS[claim], **change), left)


@pytest.mark.parametrize(
    ("claim", "change", "words"),
    [
        ("finished", MOVED, "moved requests in flight, 1 times"),
        ("finished", {"producing": ("w-0", "w-1")}, "went on with the request"),
        ("drained", MOVED, "moved requests in flight, 1 times"),
        ("handed over", STAYED, "w-0 handed nothing over"),
        ("handed over", {"moved": 1}, "no worker took over"),
    ],
)
def test_one_fate_is_not_taken_for_the_other(claim: str, change: dict[str, Any], words: str, left: ProvenFault) -> None:
    with pytest.raises(AssertionError, match=words):
        CLAIMS[claim](seen(left, **change), left)


def test_a_worker_that_has_left_long_ago_has_left_in_time(left: ProvenFault) -> None:
    answered_late = ProvenFault(left.id, left.fault, NODE, now() - 30, now(), now(), now(), now(), life=left.life)
    seen(answered_late).expect_left(answered_late, 10)


def test_who_finishes_a_long_answer_has_its_time_from_the_end_of_that(left: ProvenFault) -> None:
    late = seen(left, after=11.0)
    late.expect_finished(left, left.injected_at + 5.0, 10)
    with pytest.raises(AssertionError, match=r"w-0 exited after 9\.0 s; 8 s are allowed"):
        late.expect_finished(left, left.injected_at + 2.0, 8)


def test_a_worker_that_stays_has_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdowns, "LEAVE_SECONDS", 0.1)
    with run() as process:
        fault, events = told(process), EventLog()
        with pytest.raises(
            AssertionError, match=r"not within 0\.1 seconds of its fault: w-0 has exited; .*w-0 still there \(alive\)"
        ):
            seen(fault).expect_left(fault, 0.1)
        seen(fault).see_gone([fault, told(process, kind=Crash)], events)
        assert [event.text.partition(" after")[0] for event in events.all()] == ["shutting down: still there"]
        process.kill()
    seen(fault).see_gone([fault], events)
    assert len(events.all()) == 1


def test_nothing_is_said_of_those_who_were_told_nothing(left: ProvenFault) -> None:
    crashed = ProvenFault(left.id, Crash(Exactly(NODE)), NODE, 1, 1, 1, 1, 1, life=left.life)
    with pytest.raises(Mistake, match="the last fault is crash of w-0; nobody was shut down"):
        seen(left).expect_finished(crashed, 1.0, 10)
    with pytest.raises(Inconclusive, match="no worker was shut down"):
        seen(left).expect_drained([crashed], 10)
