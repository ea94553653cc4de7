"""Scenarios as data, and the checkers of what was played."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import islice
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from support.contract.deployment import Node
from support.contract.shape import Shape
from support.contract.target import Wait
from support.errors import Inconclusive
from support.faults.fault import Fault
from support.faults.processes import Crash
from support.faults.victims import Exactly
from support.judge.checker import CHECKERS, BaseChecker, ValidationContext
from support.judge.checkers import MigrationChecker, run_check
from support.judge.recovery import Band
from support.judge.samples import Objectives
from support.requests.ledger import Chunk, LedgerEntry, pack
from support.requests.load_log import create
from support.requests.plan import LoadPlan
from support.run.selection import enumerate_scenarios
from support.scenarios import Failure, Load, Scenario, chaos, library, read_scenarios
from support.scenarios.__main__ import ELSEWHERE
from support.scenarios.model import ready, scenario_of
from support.scenarios.record import keep, read_context
from support.settings import ROOT, Settings
from support.world import runner
from support.world.victims import Victims

LOAD = Load(clients=4, requests_per_client=10, max_tokens=20)
CRASH = Failure("process_kill", trigger_after_requests=10)
SOUND = Scenario("x", "vllm", LOAD, CRASH)


def entry(at: float, ends: float, kind: str = "complete") -> LedgerEntry:
    """A request that is due ``at`` and ends ``ends``, whole, cleanly refused or cut off."""
    chunks = {
        "complete": [
            Chunk(ends, "token", 0, ["w"], finish_reason="length"),
            Chunk(ends, "done"),
        ],
        "error": [Chunk(ends, "error", raw='{"error": "busy"}')],
        "broken": [],
    }[kind]
    status = 529 if kind == "error" else 200
    end = "lost" if kind == "broken" else "complete"
    more: dict[str, Any] = {"sent_at": at, "connected_at": at, "status_code": status, "ended_at": ends, "end": end}
    return LedgerEntry(1, "completions", True, "m", "a", 1, intended_at=at, chunks=chunks, **more)


def phase(**change: Any) -> dict[str, Any]:
    """Figures of a phase in which all is well."""
    well: dict[str, Any] = {
        "planned": 10,
        "refused": 0,
        "broken": 0,
        "success_rate": 100.0,
        "goodput_rate": 100.0,
        "p99_ttft_ms": 50.0,
    }
    well |= {"succeeded": 10, "missing_ends": 0, "statuses": {"200": 10}}
    return well | {"p50_ttft_ms": 30.0, "p50_lag_ms": 1.0, "p99_lag_ms": 2.0, "max_lag_ms": 3.0} | change


def context(*ledger: LedgerEntry, phases: Mapping[str, Any] | None = None, **change: Any) -> ValidationContext:
    """A run that was struck at 10."""
    named = phases or {name: phase() for name in ("STANDARD", "OVERFLOW", "RECOVERY")}
    results: dict[str, Any] = phase() | {"phases": named, "latency_valid": True, "recovery": came_back()}
    nodes = [{"name": "w-0", "role": "worker"}, {"name": "etcd-0", "role": "etcd"}]
    made = ValidationContext(ledger=ledger, results=results, struck_at=10.0, affected_workers=["w-0"])
    usual: dict[str, Any] = {"deployment": {"nodes": nodes}, "overload_status": 529}
    return replace(made, **(usual | change))


BAND = Band(90, 100.0, middle_ms=30, slowest_ms=50, lag_ms=1, p50_ms=50, p99_ms=110)


def came_back(after: float = 1.0, relapses: int = 0, slow: int = 1, **change: Any) -> dict[str, Any]:
    """A run that was in the band of STANDARD again after so many seconds."""
    found: dict[str, Any] = {
        "band": asdict(BAND),
        "no_band": "",
        "to_stable_seconds": after,
        "relapses": relapses,
        "after": [],
        "unstarved": {"to_stable_seconds": inf, "relapses": 0, "p50_ms": {"STANDARD": None, "RECOVERY": None}},
    }
    return found | {"slow": {"STANDARD": 1, "RECOVERY": slow}} | change


def judged(**change: Any) -> ValidationContext:
    """A sound run but for some of its results."""
    made = context(*WHOLE)
    return replace(made, results={**made.results, **change})


WHOLE = [entry(n, n + 0.5) for n in range(20)]
ACROSS = [entry(9.8, 10.4), entry(9.9, 10.5)]
REFUSED = {"STANDARD": phase(), "OVERFLOW": phase(refused=5, statuses={"200": 5, "529": 5}), "RECOVERY": phase()}


@pytest.mark.parametrize(
    ("name", "holds", "fails"),
    [
        ("success_rate", context(), context(phases=None, results=phase(success_rate=99.0))),
        ("success_rate", judged(), judged(missing=["client process 0 died"])),
        ("recovery_time", context(), judged(recovery=came_back(after=inf))),
        ("recovery_time", context(), judged(recovery=came_back(relapses=1))),
        ("recovery_time", context(), judged(recovery=came_back(after=31))),
        ("no_failures", context(*WHOLE), context(*WHOLE, entry(3, 4, "error"))),
        ("no_failures", judged(), judged(missing=["3 of 20 planned requests have no recorded end"])),
        ("no_failures", context(*WHOLE, entry(3, 4, "error"), answers=WHOLE), context(answers=[entry(3, 4, "error")])),
        ("high_availability", judged(), judged(missing=["client process 0 died"])),
        ("high_availability", context(*WHOLE), context(*WHOLE, entry(12, 13, "error"))),
        ("high_availability", context(*WHOLE), context(*WHOLE, entry(40, 41))),
        (
            "single_worker",
            context(entry(11, 12, "error"), entry(13, 14)),
            context(entry(11, 12), entry(13, 14, "error")),
        ),
        ("single_worker", context(entry(13, 14)), context(entry(11, 12, "broken"), entry(13, 14))),
        ("migration", context(*ACROSS, metrics={"migrations_total": 1}), context(*ACROSS)),
        (
            "migration",
            context(*ACROSS, metrics={"migrations_total": 2}),
            context(*ACROSS, entry(9.9, 10.2, "broken"), metrics={"migrations_total": 3}),
        ),
        (
            "nothing_moved",
            context(metrics={"ongoing_migrations_total": 0, "migrations_total": 1}),
            context(metrics={"ongoing_migrations_total": 1}),
        ),
        (
            "overload_rejection",
            context(phases=REFUSED),
            context(phases=REFUSED | {"RECOVERY": phase(success_rate=99.0)}),
        ),
        (
            "overload_rejection",
            context(phases=REFUSED),
            context(phases=REFUSED | {"OVERFLOW": REFUSED["OVERFLOW"] | {"succeeded": 0}}),
        ),
        *(
            (
                "overload_rejection",
                context(phases=REFUSED),
                context(phases=REFUSED | {"OVERFLOW": phase(refused=5, statuses=statuses)}),
            )
            # Errors, errors inside of a 200, connections that are refused, the overload status of another release.
            for statuses in ({"500": 5}, {"200": 10}, {"200": 5}, {"200": 5, "503": 5})
        ),
        ("standard_band", context(), context(phases={"STANDARD": phase(), "RECOVERY": phase(p50_ttft_ms=51.0)})),
        ("standard_band", context(), context(phases={"STANDARD": phase(), "RECOVERY": phase(goodput_rate=99.0)})),
        ("standard_band", context(), judged(recovery=came_back(slow=2))),
        ("clean_refusals", context(entry(1, 2, "error")), context(entry(1, 2, "error"), entry(1, 2, "broken"))),
        (
            "ledger_against_counters",
            context(*WHOLE, metrics={"requests_total": 20}),
            context(*WHOLE, metrics={"requests_total": 21}),
        ),
    ],
)
def test_a_checker_holds_and_fails(name: str, holds: ValidationContext, fails: ValidationContext) -> None:
    good, bad = run_check(name, holds), run_check(name, fails)
    assert good.passed, good.message
    assert not bad.passed
    assert bad.message
    assert "nothing to check" not in bad.message


@pytest.mark.parametrize("name", CHECKERS)
def test_a_checker_with_nothing_to_check_fails(name: str) -> None:
    result = run_check(name, ValidationContext())
    assert not result.passed
    assert result.message.startswith("nothing to check: ")


def test_several_attempts_for_one_request_are_one_migration() -> None:
    thrice = context(entry(9.8, 10.4), metrics={"migrations_total": 3})
    assert run_check("migration", thrice, {"at_least": 1}).passed
    assert not run_check("migration", thrice, {"at_least": 2}).passed


@pytest.mark.parametrize("name", ["recovery_time", "standard_band"])
def test_without_a_band_nobody_knows_whether_it_is_reached(name: str) -> None:
    result = run_check(name, judged(recovery=came_back(band=None, no_band="STANDARD had 3 requests")))
    assert (result.nothing, result.message) == (True, "nothing to check: STANDARD had 3 requests")
    failed = run_check(name, judged(recovery=came_back(band=None, no_band="it failed", standard_failed=True)))
    assert (failed.passed, failed.nothing, failed.message) == (False, False, "it failed")


@pytest.mark.parametrize("name", ["recovery_time", "standard_band"])
@pytest.mark.parametrize("during", ["STANDARD", "RECOVERY"])
@pytest.mark.parametrize("lag", [{"p50_lag_ms": 11.0}, {"p99_lag_ms": 23.0}])
@pytest.mark.parametrize("held", [True, False])
def test_a_client_that_lagged_by_more_than_a_fifth_of_the_band_proves_nothing(
    name: str, during: str, lag: dict[str, Any], held: bool
) -> None:
    phases = {each: phase(p50_ttft_ms=30.0 if held else 51.0) for each in ("STANDARD", "RECOVERY")}
    recovery = came_back(after=1.0 if held else 99.0)
    sound = run_check(name, judged(phases=phases, recovery=recovery))
    assert (sound.passed, sound.nothing) == (held, False)
    result = run_check(name, judged(phases=phases | {during: phases[during] | lag}, recovery=recovery))
    assert (result.passed, result.nothing) == (False, True)
    assert f"of {during}" in result.message
    assert "the client itself lagged" in result.message


def test_a_token_of_an_answer_that_fails_ends_no_outage() -> None:
    cut = replace(entry(14, 15), end="lost")
    around = [entry(11, 11.5), entry(17, 17.5)]
    bounds = {"at_least": 60, "longest_outage_seconds": 5}
    assert run_check("high_availability", context(*around, replace(cut, end="complete")), bounds).passed
    assert not run_check("high_availability", context(*around, cut), bounds).passed


def test_a_request_that_is_late_past_the_failure_counts_for_nothing() -> None:
    due, late = [entry(11, 11.5), entry(13, 13.5, "error")], [entry(9, 10.5)] * 20
    assert not run_check("high_availability", context(*late, *due), {"at_least": 60}).passed


@pytest.mark.parametrize(
    ("waited", "failed", "verdict"),
    [
        (3.0, 0, "nothing"),  # without it nobody would have waited for longer than is allowed
        (1.0, 0, "failed"),  # it explains a part alone
        (3.0, 9, "failed"),  # requests failed as well
    ],
)
def test_an_outage_is_void_where_a_process_got_no_processor(waited: float, failed: int, verdict: str) -> None:
    """Seven seconds without a token, five are allowed."""
    due = [entry(11, 12), entry(12.5, 19), *[entry(11, 12, "error")] * failed]
    waits = [Wait(13.0, 13.0 + waited, "frontend-0 (pid 7)", waited), Wait(20.0, 29.0, "frontend-0 (pid 7)", 9.0)]
    seen = run_check("high_availability", context(*due, waits=waits), {"at_least": 90, "longest_outage_seconds": 5})
    assert (seen.passed, seen.nothing) == (False, verdict == "nothing")
    assert ("frontend-0 (pid 7) was ready to run for 3.00 s" in seen.message) == seen.nothing


def test_a_claim_is_void_when_the_client_lagged_by_more_than_a_fifth_of_it() -> None:
    phases = {each: phase(max_lag_ms=601.0) for each in ("STANDARD", "RECOVERY")}
    assert run_check("recovery_time", judged(phases=phases), {"within_seconds": 3}).nothing
    assert run_check("recovery_time", judged(phases=phases), {"within_seconds": 3.1}).passed
    late = [replace(each, lag_seconds=1.1) for each in WHOLE]
    assert run_check("high_availability", context(*late), {"longest_outage_seconds": 5}).nothing
    assert run_check("high_availability", context(*late), {"longest_outage_seconds": 6}).passed
    lone = context(entry(11, 12, "error"), replace(entry(13, 14), lag_seconds=0.3))
    assert run_check("single_worker", lone).nothing
    kept = replace(SOUND, objectives=Objectives(latency_ms=9))
    assert run_check("standard_band", replace(judged(), scenario=kept)).nothing


@pytest.mark.parametrize(
    "change",
    [
        {"affected_workers": ["etcd-0"]},
        {"deployment": {"nodes": [{"name": "w-0", "role": "worker"}, {"name": "w-1", "role": "worker"}]}},
        {"ledger": [entry(9 + n / 2, 9.4 + n / 2) for n in range(10)]},
    ],
)
def test_the_loss_of_a_single_worker_is_that_of_one_and_noticed(change: dict[str, Any]) -> None:
    sound = context(entry(11, 12, "error"), entry(13, 14))
    assert run_check("single_worker", sound).passed
    assert run_check("single_worker", replace(sound, **change)).nothing


def test_attempts_to_migrate_are_not_successes() -> None:
    cut = [entry(9.0, 10.2, "broken"), entry(9.1, 10.3, "broken")]
    assert not MigrationChecker().check(context(*cut, metrics={"migrations_total": 2}))


def test_a_checker_of_somebody_elses() -> None:
    class FirstAnswer(BaseChecker):
        def check(self, context: ValidationContext) -> bool:
            return self.say(context.ledger[0].status_code == 200, "the first answer")

    try:
        assert run_check("FirstAnswer", context(*WHOLE)).passed
        assert run_check("FirstAnswer", context()).message == "IndexError: tuple index out of range"
        with pytest.raises(ValueError, match="unknown check 'other'; expected one of success_rate"):
            run_check("other", context())
        with pytest.raises(ValueError, match="least"):
            run_check("success_rate", context(), {"least": 3})
        with pytest.raises(TypeError, match="another checker"):
            type("Twice", (BaseChecker,), {"name": "FirstAnswer"})
    finally:
        del CHECKERS["FirstAnswer"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "llama"}, "scenario 'x': backend is 'llama'; expected one of vllm"),
        ({"load": replace(LOAD, clients=0)}, "clients is 0"),
        ({"deployment": {"worker": 2}}, "unknown key 'worker' of deployment; allowed are workers"),
        ({"checks": {"luck": None}}, "unknown check 'luck'"),
        (
            {"checks": {"success_rate": {"least": 3}}},
            "check 'success_rate': unknown key 'least' .* allowed are at_least",
        ),
        (
            {"failure": Failure("explosion", trigger_after_requests=1)},
            "type is 'explosion'; expected one of process_kill",
        ),
        (
            {"failure": Failure("hang", target="moon", trigger_after_requests=1)},
            "target is 'moon'; expected one of worker",
        ),
        ({"failure": Failure("hang")}, "'hang' has 0 triggers; expected one of trigger_after_requests"),
        ({"failure": replace(CRASH, trigger_after_tokens=3)}, "has 2 triggers"),
        ({"failure": replace(CRASH, trigger_after_requests=40)}, "can never strike: .* 40, the load has 40 requests"),
        ({"failure": Failure("hang", trigger_after_tokens=800)}, "can never strike: .* the load has 800 tokens"),
        (
            {"load": Load(duration_seconds=5.0), "failure": Failure("hang", trigger_after_seconds=6.0)},
            "can never strike: .* the load has 5 seconds",
        ),
        ({"failure": Failure("hang", trigger_in_phase="RECOVERY")}, "no other failure begins the phase RECOVERY"),
        (
            {"failure": [Failure("hang", trigger_in_phase="OVERFLOW"), Failure("hang", trigger_in_phase="OVERFLOW")]},
            "no other failure begins the phase OVERFLOW",
        ),
        ({"failure": Failure("hang", trigger_after_seconds=1e6)}, "can never strike: .* the load has 602.02 seconds"),
        (
            {
                "load": Load(requests_per_client=5, arrival="constant", rate=1.0),
                "failure": Failure("hang", trigger_after_seconds=4.0),
            },
            "can never strike: .* the load has 4 seconds",
        ),
        (
            {"failure": replace(CRASH, trigger_after_requests=cast(Any, "3"))},
            "trigger_after_requests is '3'; expected a whole number, 0 or more",
        ),
        ({"failure": replace(cast(Any, CRASH), mode="foo")}, "mode is 'foo'; expected one of drop, reject, reset"),
        ({"failure": replace(cast(Any, CRASH), direction="up")}, "direction is 'up'; expected one of both, to, from"),
        ({"failure": replace(cast(Any, CRASH), xid=99999)}, "xid is 99999; expected one of 13, 31"),
        ({"failure": replace(cast(Any, CRASH), share=7)}, "share is 7; expected more than 0 and up to 1"),
        ({"failure": replace(cast(Any, CRASH), percent=0)}, "percent is 0; expected a whole number, 1 to 100"),
        ({"failure": replace(cast(Any, CRASH), rate_kbit=0)}, "rate_kbit is 0; expected a whole number, 1 or more"),
        ({"failure": replace(CRASH, target="nats")}, "can never happen to the NATS server: .* has no NATS server"),
        (
            {"failure": Failure("network_partition", partition="WORKER_NATS", trigger_after_requests=1)},
            "can never happen to the busiest worker: .* has no NATS server to be parted from",
        ),
        ({"failure": replace(CRASH, duration_seconds=cast(Any, "5"))}, "duration_seconds is '5'"),
        ({"failure": replace(CRASH, duration_seconds=3600)}, "duration_seconds is 3600; .* less than 3600"),
        ({"deployment": {"workers": 0}}, "workers is 0; expected a whole number of workers"),
        (
            {"checks": {"success_rate": {"at_least": "ninety"}}},
            "check 'success_rate': at_least is 'ninety'; expected a valid number",
        ),
        ({"checks": ["no_failures"]}, "checks is .*; expected a mapping of names to values"),
        ({"load": None}, "load is None; expected an instance of Load"),
        ({"load": {"clients": 4}}, "load is {'clients': 4}; expected an instance of Load"),
        ({"load": replace(LOAD, clients=cast(Any, True))}, "clients is True; expected a whole number, 1 or more"),
        ({"load": replace(LOAD, stream=cast(Any, "no"))}, "stream is 'no'; expected a valid boolean"),
        ({"deployment": {"speed": "high"}}, "speed is 'high'; expected a number, more than 0"),
        ({"objectives": Objectives(ttft_ms=-1)}, "ttft_ms is -1; expected a number, more than 0"),
        (
            {"failure": Failure("hang", trigger_in_phase="NEVER")},
            "trigger_in_phase is 'NEVER'; expected one of STANDARD, OVERFLOW, RECOVERY",
        ),
        ({"failure": replace(CRASH, target="idle_frontend")}, "has no second frontend; write | frontends | 2 |"),
        (
            {"failure": Failure("network_loss", target="frontend", trigger_after_requests=1)},
            "has no other frontend to be parted from; write another side",
        ),
        (
            {"failure": replace(CRASH, kinds=("hang",))},
            "'process_kill' has kinds or every_seconds; only random takes them",
        ),
        ({"failure": replace(CRASH, every_seconds=5.0)}, "'process_kill' has kinds or every_seconds"),
        (
            {"failure": Failure("random", trigger_after_requests=1, duration_seconds=9.0, seed=1, kinds=("xyz",))},
            "kinds is 'xyz'; expected one of process_kill, hang",
        ),
        (
            {"failure": replace(CRASH, target="prefill_worker")},
            "has no prefill and decode workers; write a disaggregated",
        ),
        ({"failure": replace(CRASH, duration_seconds=0.0)}, "duration_seconds is 0.0"),
        ({"failure": Failure("overload", trigger_after_requests=1)}, "token_overflow and overload have one"),
        ({"failure": replace(CRASH, load=LOAD)}, "token_overflow and overload have one"),
        ({"failure": replace(CRASH, times=3, duration_seconds=2.0)}, "times is for overload alone"),
        ({"failure": Failure("overload", times=3, trigger_after_requests=1)}, "overload alone, with duration_seconds"),
        (
            {"failure": Failure("overload", times=1, duration_seconds=2.0, trigger_after_requests=1)},
            "times is 1; expected a whole number, 2 or more",
        ),
        ({"failure": replace(CRASH, target="etcd_leader")}, r"has no etcd cluster .*; write \| etcd members \| 3 \|"),
        (
            {"failure": replace(CRASH, target="etcd_minority"), "deployment": {"etcd_members": 2}},
            "has no etcd cluster with such members",
        ),
        (
            {"failure": replace(CRASH, target="etcd"), "deployment": {"discovery": "kubernetes"}},
            r"has no etcd; write \| discovery \| etcd \|",
        ),
        ({"failure": Failure("xid", target="etcd", trigger_after_requests=1)}, "only a worker has a GPU, .* an etcd m"),
        ({"failure": Failure("random", trigger_after_requests=1, duration_seconds=9.0)}, "'random' with seed None"),
        ({"failure": Failure("random", trigger_after_requests=1, seed=1)}, "'random' has no duration_seconds"),
        ({"failure": replace(CRASH, seed=1)}, "'process_kill' with seed 1; only random takes one"),
        ({"busy_tokens": 0}, "busy_tokens is 0; expected 1 to the memory of a vllm worker"),
        ({"backend": "ruler", "busy_tokens": 9}, "busy_tokens is 9; expected 1 to the memory of a ruler worker"),
        ({"load": replace(LOAD, prompt_words=40000)}, "the model has room for 32768"),
    ],
)
def test_what_cannot_be_or_cannot_strike_is_refused(change: dict[str, Any], message: str) -> None:
    SOUND.check()
    with pytest.raises(ValueError, match=message):
        replace(SOUND, **change).check()


YAML = """\
- name: a worker is lost
  backend: vllm
  load: {clients: 4, requests_per_client: 10, max_tokens: [20, 40]}
  failure:
    - type: process_kill
      trigger_after_requests: 10
    - {type: hang, trigger_in_phase: OVERFLOW, duration_seconds: 2}
  deployment: {workers: 3}
  checks:
    success_rate: {at_least: 99}
    no_failures:
"""


def test_a_phase_may_bring_a_failure_that_brings_the_next_phase() -> None:
    chain = [Failure("hang", trigger_in_phase=phase, duration_seconds=1) for phase in ("OVERFLOW", "STANDARD")]
    replace(SOUND, failure=chain).check()
    replace(SOUND, failure=replace(CRASH, target="nats"), deployment={"request_plane": "nats"}).check()


def test_an_unknown_scenario_is_told_with_those_that_are_called_alike(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown ready scenario 'a worker crash'; expected one of: a worker crashes"):
        ready("a worker crash")
    (tmp_path / "s.yaml").write_text(YAML)
    assert scenario_of(tmp_path / "s.yaml", "a worker is lost").backend == "vllm"
    with pytest.raises(ValueError, match=r"unknown scenario of s.yaml 'x'; expected one of: a worker is lost"):
        scenario_of(tmp_path / "s.yaml", "x")
    with pytest.raises(ValueError, match="cannot be read"):
        scenario_of(tmp_path / "none.yaml", "x")


def test_scenarios_are_read_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(YAML)
    [scenario] = read_scenarios(tmp_path / "s.yaml")
    assert scenario == Scenario(
        "a worker is lost",
        "vllm",
        Load(clients=4, requests_per_client=10, max_tokens=[20, 40]),
        [CRASH, Failure("hang", trigger_in_phase="OVERFLOW", duration_seconds=2)],
        {"workers": 3},
        {"success_rate": {"at_least": 99}, "no_failures": None},
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "trigger_after_requests",
            "triger",
            "s.yaml, line 6: unknown key 'triger' of Failure; allowed are type,",
        ),
        ("clients: 4", "users: 4", "s.yaml, line 3: unknown key 'users' of Load; allowed are clients"),
        ("backend: vllm", "engine: vllm", "s.yaml, line 2: unknown key 'engine' of Scenario; allowed are name"),
        ("  backend: vllm\n", "", "s.yaml, line 1: backend missing"),
        ("clients: 4", "clients: 0", "s.yaml, line 3: clients is 0; expected a whole number, 1 or more"),
        (
            "[20, 40]",
            "{from: 9, to: 3}",
            "s.yaml, line 3: scenario 'a worker is lost': max_tokens is .* no larger than to",
        ),
        ("hang,", "hank,", "s.yaml, line 7: type is 'hank'; expected one of process_kill"),
        (
            "trigger_in_phase: OVERFLOW",
            "target: worker",
            "s.yaml, line 7: scenario 'a worker is lost': .*'hang' has 0 triggers",
        ),
        ("requests: 10", "requests: 40", "s.yaml, line 5: scenario 'a worker is lost': .* can never strike"),
        ("backend: vllm", "name: twice", "s.yaml, line 2: 'name' a second time"),
        ("{workers: 3}", "{worker: 3}", "s.yaml, line 8: .*unknown key 'worker' of deployment; allowed are workers"),
        ("{workers: 3}", "{workers: 3, workers: 2}", "s.yaml, line 8: 'workers' a second time"),
        ("{workers: 3}", "{2026-01-01: 3}", "s.yaml, line 1: keys must be str, .*not datetime.date"),
        ("{workers: 3}", "3", "s.yaml, line 8: deployment is 3; expected a mapping"),
        ("    no_failures:", "    luck:", "s.yaml, line 11: .*unknown check 'luck'; expected one of success_rate"),
        ("    no_failures:", "    success_rate:", "s.yaml, line 11: 'success_rate' a second time"),
        (
            "at_least: 99",
            "least: 99",
            "s.yaml, line 10: .*check 'success_rate': unknown key 'least' .* allowed are at_",
        ),
        ("{at_least: 99}", "99", "s.yaml, line 10: success_rate is 99; expected a mapping"),
        (
            "{clients: 4, requests_per_client: 10, max_tokens: [20, 40]}",
            "",
            "line 3: load is None; expected a mapping with keys clients",
        ),
        ("load: {", "load: [", "is not YAML"),
        (YAML, "# none yet", "s.yaml: expected a list, .* \\[\\] for none"),
        (YAML, "name: x", "s.yaml: expected a list, each entry with the keys of Scenario"),
        (YAML, "- x", "s.yaml, line 1: expected a mapping with keys name, backend"),
        (YAML, YAML + YAML, "s.yaml, line 12: a second Scenario 'a worker is lost'"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "s.yaml").write_text(YAML.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_scenarios(tmp_path / "s.yaml")


def test_the_library_is_sound_and_covers_all_that_can_break() -> None:
    ready = library()
    failures = [failure for scenario in ready.values() for failure in scenario.failures]
    for target in ("worker", "decode_worker", "prefill_worker", "frontend", "etcd"):
        assert {each.type for each in failures if each.target == target} >= {"process_kill", "hang", "terminate"}
    assert {each.type for each in failures} >= {"rolling_restart", "token_overflow", "overload"}
    assert any(not scenario.failures for scenario in ready.values())
    assert {scenario.backend for scenario in ready.values()} == {"vllm", "sglang", "trtllm"}
    assert {scenario.shape.workers for scenario in ready.values()} == {1, 2}
    assert all(scenario.checks for scenario in ready.values())
    assert {scenario.shape.disaggregated for scenario in ready.values()} == {True, False}


def test_a_lone_worker_has_time_to_come_back() -> None:
    lone = [each for each in library().values() if "single_worker" in each.checks]
    assert len(lone) > 30
    for each in lone:
        assert (each.recovery_seconds or 0.0) >= (each.shape.lease_seconds or 30.0) + 15


def test_the_feature_of_the_library_is_up_to_date() -> None:
    made = subprocess.run([sys.executable, "-m", "support.scenarios"], cwd=ROOT, capture_output=True, text=True)
    assert ((ROOT / "features" / "library.feature").read_text(), made.stderr) == (made.stdout, "")


def test_each_ready_scenario_is_played_by_default() -> None:
    played = {each.name for each in enumerate_scenarios(ROOT, [], [])}
    ready = {name for name in library() if not name.endswith(")")}
    assert set(ELSEWHERE) <= ready
    assert {ELSEWHERE.get(name, name) for name in ready} <= played


def test_the_same_seed_draws_the_same_faults() -> None:
    def drawn(seed: int) -> list[chaos.Drawn]:
        return list(islice(chaos.faults(seed), 12))

    assert drawn(7) == drawn(7) != drawn(8)
    assert len({each.failure.type for each in drawn(7)[:4]}) == 4
    assert {each.victim % 2 for each in drawn(7)} == {0, 1}
    only = list(islice(chaos.faults(7, ("process_kill", "hang")), 8))
    assert {each.failure.type for each in only} == {"process_kill", "hang"}


def test_a_worker_that_is_passed_over_once_more_does_not_serve_again_yet() -> None:
    """Two requests, none for 5 s, as from a frontend that has met a dead connection, then one each second."""
    steady = runner.Steady()
    counts = [None, 0, 1, 2, *[2] * 5, 3, 4, 5, 6]
    seen = [steady.look(count, float(at)) for at, count in enumerate(counts, start=100)]
    assert seen[:5] == [0, 0, 0, 1, 1]
    assert seen[6:10] == [0, 0, 0, 0]
    assert seen[10:] == [1, 2, 3]


def long_prompt(kind: str, status: int) -> LedgerEntry:
    """A request whose prompt has 50 words."""
    return replace(entry(1, 2, kind), prompt=" ".join(["word"] * 50), status_code=status)


@pytest.mark.parametrize(
    ("long", "parameters", "passed"),
    [
        (long_prompt("error", 400), {"statuses": (400,)}, True),
        (long_prompt("error", 500), {"statuses": (400,)}, False),
        (long_prompt("error", 500), {}, True),
        (long_prompt("complete", 200), {}, False),
        (long_prompt("broken", 200), {}, False),
    ],
)
def test_overlong_prompts_are_to_be_refused(long: LedgerEntry, parameters: dict[str, Any], passed: bool) -> None:
    played = context(*WHOLE, long, scenario=replace(SOUND, deployment={"max_model_len": 50}))
    assert run_check("overlong_refused", played, parameters).passed == passed
    assert not run_check("overlong_refused", replace(played, ledger=[long, entry(3, 4, "error")]), parameters).passed
    assert run_check("overlong_refused", replace(played, ledger=WHOLE), parameters).nothing


def looks(*samples: tuple[float, int]) -> list[dict[str, Any]]:
    """Looks at one process."""
    return [{"at": at, "process": "agent", "rss_mib": rss, "fds": fds} for at, (rss, fds) in enumerate(samples)]


@pytest.mark.parametrize(
    ("samples", "passed"),
    [
        ([(10.0, 5)] * 10 + [(40.0, 8)] * 30, True),
        ([(40.0 + at, 8) for at in range(40)], False),
        ([(40.0, 8 + at) for at in range(40)], False),
    ],
)
def test_a_footprint_is_flat_or_not(samples: list[tuple[float, int]], passed: bool) -> None:
    assert run_check("flat_footprint", context(footprint=looks(*samples))).passed == passed


def test_too_few_looks_and_a_dead_process_are_no_flat_footprint() -> None:
    assert run_check("flat_footprint", context(footprint=looks(*[(40.0, 8)] * 9))).nothing
    assert run_check("flat_footprint", context()).nothing
    dead = [*looks(*[(40.0, 8)] * 40), {"at": 40, "process": "agent", "rss_mib": None, "fds": None}]
    assert run_check("flat_footprint", context(footprint=dead)).message == "the agent has died"


def test_what_was_played_can_be_judged_again(tmp_path: Path) -> None:
    failures = [CRASH, Failure("overload", trigger_after_seconds=1.0, load=LOAD)]
    played = replace(SOUND, failure=failures, objectives=Objectives(ttft_ms=150), checks={"no_failures": None})
    create(tmp_path / "load", LoadPlan.of(LOAD, "http://h:1", "m"))
    with (tmp_path / "load" / "requests-0.jsonl").open("w") as stream:
        for attempt, kind in enumerate(("error", "complete")):
            line = {"number": 1, "attempt": attempt, "last": attempt == 1, "withdrawn": False}
            stream.write(json.dumps(line | {"entry": pack(entry(1.0 + attempt, 1.5 + attempt, kind))}) + "\n")
    seen = {"metrics": {"requests_total": 2.0}, "affected_workers": ["w-0"], "struck_at": 1.2, "overload_status": 529}
    first = keep(tmp_path, played, deployment={"nodes": []}, **seen)
    again = read_context(tmp_path)
    assert again == first
    assert again.scenario == played
    assert (len(again.ledger), [each.status_code for each in again.answers]) == (2, [200])
    assert {name: getattr(again, name) for name in seen} == seen
    assert again.results["goodput_rate"] == 0
    with pytest.raises(ValueError, match="holds no scenario that was played to its end"):
        read_context(tmp_path / "load")


def test_requests_without_an_end_are_not_accounted_for() -> None:
    well = phase(missing_ends=0, missing=[])
    assert run_check("all_accounted", context(results=well)).passed
    assert not run_check("all_accounted", context(results=well | {"missing_ends": 1})).passed
    assert not run_check("all_accounted", context(results=well | {"missing": ["client process 0 died"]})).passed


class Stage:
    """A stage whose workers are three names; the last one is the busiest."""

    def __init__(self, folder: Path) -> None:
        self.all = [Node(f"w-{n}", "worker", f"10.0.0.{n}", 1, None) for n in range(3)]
        self.deployment = SimpleNamespace(nodes=self.all, shape=Shape(engine="vllm", workers=3))
        self.fleet = SimpleNamespace(serving_worker=lambda role, but: [n for n in self.all if n not in but][-1])
        self.settings, self.folder, self.deployed = Settings(), folder, True

    def nodes(self, role: str) -> list[Node]:
        return [each for each in self.all if each.role == role]


def part(stage: Stage, strike: Any = None) -> runner._Play:
    nothing: Any = None
    faults: Any = SimpleNamespace(find=Victims(cast(Any, stage), nothing).find, strike=strike)
    return runner._Play(cast(Any, stage), nothing, faults, SOUND)


def test_failures_at_once_have_different_victims(tmp_path: Path) -> None:
    play = part(Stage(tmp_path))
    with play._victims(CRASH) as first, play._victims(CRASH) as second, play._victims(CRASH) as third:
        assert [node.name for node in (*first, *second, *third)] == ["w-2", "w-1", "w-0"]
        with (
            pytest.raises(Inconclusive, match="worker or decode to hit, but 3 that other"),
            play._victims(CRASH),
        ):
            pass
        with (
            pytest.raises(Inconclusive, match=r"every worker after .*: another failure hits w-0, w-1, w-2 already"),
            play._victims(replace(CRASH, target="every_worker")),
        ):
            pass
    with play._victims(CRASH) as again:
        assert again == first


def test_a_failure_lasts_for_as_long_as_it_says(tmp_path: Path) -> None:
    stage, struck = Stage(tmp_path), list[Fault]()

    def strike(fault: Fault) -> list[None]:
        struck.append(fault)
        return [None]

    play = part(stage, strike)
    for duration in (None, 2.0, 600.0):
        play._inject(replace(CRASH, duration_seconds=duration), stage.all[0])
    victim = Exactly(stage.all[0])
    assert struck == [Crash(victim, lease_seconds=lease) for lease in (3600.0, 62.0, 660.0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "sglang"}, "needs engine 'sglang', but the deployment has 'vllm'"),
        ({"deployment": {"workers": 2}}, "needs workers 2, but the deployment has 3"),
    ],
)
def test_a_scenario_for_another_deployment_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    nothing: Any = None
    with pytest.raises(ValueError, match=message):
        runner.play(cast(Any, Stage(tmp_path)), nothing, nothing, replace(SOUND, **change))
