"""The whole suite on the target in memory: every sentence, every fault and the judge, with no Dynamo and no wait."""

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from support import releases, targets
from support.events import EventLog
from support.judge.verdict import Verdict
from support.report.reading import read_verdict
from support.requests.load_clients import ThisProcess
from support.run.selection import enumerate_scenarios
from support.settings import ROOT, Settings
from support.targets.fake.clock import VirtualClock
from support.targets.fake.faults import FaultServer
from support.targets.fake.kind import SIMULATED, FakeKind
from support.targets.fake.network import FakeNetwork
from support.targets.fake.worker import LIES
from support.targets.needs import NEEDS

FEATURES = sorted(
    str(file.relative_to(ROOT / "features").with_suffix("")) for file in (ROOT / "features").rglob("*.feature")
)
EXAMPLES = "features/examples/loads.feature"
SIMULATED_FEATURES = [name for name in FEATURES if name != "kubernetes"]
"""Memory has no pods."""
LONG = ("soak", "deployment", "etcd_ha")
"""Features that take longest; each is played in a process of its own, all others in one."""
LIMIT_SECONDS = 600
"""For a machine with every core busy many times over; alone the longest of them takes 20 s."""
WITNESSES = {
    "cancellation": "A complete answer is not cancelled (streamed chat)",
    "deployment": "Nothing breaks and every answer is whole",
    "etcd_ha": "Two of five etcd members crash",
    "examples/faults": "A worker crashes and no other worker is touched",
    "examples/loads": "Five times as many clients are served as well",
    "gpu_faults": "A non-fatal error moves no request (XID 13)",
    "library": "a decode worker is shut down",
    "migration": "Every token comes once and in order when the worker crashes mid-answer",
    "network_faults": "Nobody notices a cut that no request crosses",
    "overload": "Overlong prompts are rejected cleanly and other requests are unharmed (vllm)",
    "rolling_restart": "The workers are restarted one after the other under load (ruler)",
    "soak": "Random faults strike for three minutes",
}
"""Feature -> one of its scenarios that has to turn red when its workers lie."""


class Play:
    """One behave on the target in memory; begins at once.

    Args:
        lie: what is broken on purpose, as ``FT_SABOTAGE`` has it.
    """

    def __init__(self, folder: Path, *selection: str, lie: str = "") -> None:
        (folder / "scenarios").mkdir(parents=True)
        self.folder = folder
        env = os.environ | {"FT_RUN_DIR": str(folder), "FT_SABOTAGE": lie}
        argv = [sys.executable, "-m", "behave", "-D", "target=fake", "-f", "plain", *selection]
        with (folder / "console.txt").open("w") as console:
            self._process = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=console, stderr=subprocess.STDOUT)
        self._until = time.monotonic() + LIMIT_SECONDS

    def verdicts(self) -> list[Verdict]:
        """Those of its scenarios, once it is over.

        Raises:
            AssertionError: behave ended otherwise than its verdicts say.
        """
        status = self._process.wait(max(0.0, self._until - time.monotonic()))
        found = [read_verdict(file) for file in self.folder.glob("scenarios/*/verdict.json")]
        good = all(each.verdict in ("passed", "skipped") for each in found)
        assert (status == 0) == good, f"behave ended with status {status}; see {self.folder / 'console.txt'}"
        return found

    def end(self) -> None:
        """End it, if it runs still."""
        self._process.kill()
        self._process.wait()


def verdicts_of(*plays: Play) -> list[Verdict]:
    """All verdicts of plays that run beside each other; none of them outlives this, whatever becomes of another."""
    try:
        return [verdict for play in plays for verdict in play.verdicts()]
    finally:
        for play in plays:
            play.end()


def feature(verdict: Verdict) -> str:
    """``migration`` of a scenario in features/migration.feature."""
    return verdict.location.rpartition(":")[0].removeprefix("features/").removesuffix(".feature")


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> list[Verdict]:
    """The verdicts on all scenarios of the default selection, on a Dynamo that keeps its promises."""
    folder = tmp_path_factory.mktemp("fake")
    groups = [[name] for name in LONG] + [[name for name in FEATURES if name not in LONG]]
    return verdicts_of(*(Play(folder / group[0], *(f"features/{name}.feature" for name in group)) for group in groups))


def test_every_scenario_passes_or_is_skipped_for_what_memory_does_not_simulate(truth: list[Verdict]) -> None:
    lacking = tuple(f"needs {NEEDS[name].words}: not simulated" for name, here in SIMULATED.items() if not here)
    wrong = {each.location: (each.verdict, each.reason) for each in truth if each.verdict != "passed"}
    assert {at: said for at, said in wrong.items() if said[0] != "skipped" or said[1] not in lacking} == {}


def test_every_feature_is_played(truth: list[Verdict]) -> None:
    assert sorted({feature(each) for each in truth if each.verdict == "passed"}) == SIMULATED_FEATURES
    assert {each.location for each in truth} == {each.location for each in enumerate_scenarios(ROOT, [], [])}
    assert len([each for each in truth if each.verdict == "passed"]) >= 200, "scenarios have become skipped"


def test_a_lost_token_turns_a_scenario_of_every_feature_red(tmp_path: Path, truth: list[Verdict]) -> None:
    assert sorted(WITNESSES) == SIMULATED_FEATURES
    good = {(feature(each), each.name) for each in truth if each.verdict == "passed"}
    assert set(WITNESSES.items()) <= good, "what is red without a lie shows nothing"
    plays = []
    for group in (["soak"], [name for name in SIMULATED_FEATURES if name != "soak"]):
        names = [f"--name=^{_escaped(WITNESSES[name])}$" for name in group]
        plays.append(
            Play(tmp_path / group[0], *names, *(f"features/{name}.feature" for name in group), lie=f"answers={LIES[0]}")
        )
    red = {feature(each): each.verdict for each in verdicts_of(*plays) if _played(each)}
    assert red == dict.fromkeys(SIMULATED_FEATURES, "failed")


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_told_apart_from_the_truth(lie: str, tmp_path: Path) -> None:
    name = f"--name=^{_escaped(WITNESSES['migration'])}$"
    [verdict] = verdicts_of(Play(tmp_path / "run", name, "features/migration.feature", lie=f"answers={lie}"))
    assert verdict.verdict == "failed"
    assert {finding.blame for finding in verdict.findings} == {"dynamo"}


@pytest.mark.parametrize(
    ("lie", "names"),
    [
        (
            "drops-token",
            [
                "One client gives up and every other one has its answer",
                "A crash without migration hurts nobody but who was on that worker",
                "A crash without migration ends in clean errors",
                "A client keeps asking while a worker crashes",
                "A worker hangs while three times as many clients ask",
            ],
        ),
        # By then a RECOVERY of eight seconds, as it is unless a sentence wants more, is over.
        ("drops-later", ["Requests succeed for ten seconds after a worker has hung"]),
        (
            "slows-later",
            [
                "Nobody is served more slowly with one worker less",
                "Users wait no longer than before, nine seconds on end",
                "Users wait no longer while etcd hangs",
            ],
        ),
        ("never-idle", ["The deployment is idle two seconds after a load"]),
        ("stays-listed", ["A crashed worker is off the list two seconds after a load"]),
    ],
)
def test_each_sentence_about_loads_and_times_tells_a_lie(lie: str, names: list[str], tmp_path: Path) -> None:
    chosen = [f"--name=^{_escaped(name)}$" for name in names]
    found = {
        each.name: each
        for each in verdicts_of(Play(tmp_path / "run", *chosen, EXAMPLES, lie=f"answers={lie}"))
        if _played(each)
    }
    assert {name: each.verdict for name, each in found.items()} == dict.fromkeys(names, "failed")
    silent = [name for name, each in found.items() if "sentence" not in {finding.rule for finding in each.findings}]
    assert silent == [], "red for what the judge says, and not for its sentence"


@pytest.mark.parametrize(
    ("lie", "name", "word", "seen"),
    [
        ("faults=hits-two", "A worker hangs once its client has some tokens", "failed", "is gone"),
        ("faults=names-nobody", "A fault on a worker that does not exist is refused", "inconclusive", "does not name"),
        ("faults=obeys", "A fault on a worker that does not exist is refused", "inconclusive", "took an order"),
        (
            "router=takes-turns",
            "With the least-loaded router a slow worker gets less than half of the new requests",
            "failed",
            "new requests; expected less than 50 %",
        ),
    ],
)
def test_what_is_said_of_those_that_no_fault_was_for_can_be_wrong(
    lie: str, name: str, word: str, seen: str, tmp_path: Path
) -> None:
    [verdict] = verdicts_of(Play(tmp_path / "run", f"--name=^{name}$", "features/examples/faults.feature", lie=lie))
    assert (verdict.verdict, seen in verdict.reason) == (word, True), verdict.reason


BEFORE_THE_FIRST_TOKEN = """
Feature: Before the first token
  Scenario: The GPU of the only prefill worker is lost while it reads a prompt
    Given a disaggregated Dynamo deployment with 1 prefill and 2 decode vllm workers
    And a client is waiting for the first token of a streamed chat answer of 40 tokens
      | setting      | value |
      | prompt words | 6000  |
    When the GPU of the busiest prefill worker reports XID 79
    And the GPU is repaired
    Then within 30 seconds the deployment serves
"""


def test_an_error_of_a_gpu_waits_for_no_token(tmp_path: Path) -> None:
    """Its proof is in the kernel log; whoever reads a prompt for a client has sent no token yet."""
    (ROOT / "reports").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "reports") as folder:  # where behave finds the steps
        (Path(folder) / "x.feature").write_text(BEFORE_THE_FIRST_TOKEN)
        [verdict] = verdicts_of(Play(tmp_path / "run", os.path.relpath(folder, ROOT)))
    assert verdict.verdict == "passed", verdict.reason


def _played(verdict: Verdict) -> bool:
    return verdict.verdict != "skipped"


def _escaped(name: str) -> str:
    return name.replace("(", r"\(").replace(")", r"\)")


def test_what_is_needed_is_simulated_or_not() -> None:
    kind = FakeKind(Settings(target="fake"))
    found = kind.capabilities(kind.needs)
    lacking = {name for name, each in found.items() if not each.available}
    assert lacking == {"netem", "cgroups", "gpu", "cluster", "pods", "drains"}
    with pytest.raises(ValueError, match="no capability 'warp'; allowed: namespaces, "):
        kind.capabilities(["warp"])


# -- the clock


def test_time_passes_only_when_all_wait() -> None:
    clock, seen = VirtualClock(), list[tuple[str, float]]()
    began = clock.now()

    def work(name: str, *pauses: float) -> None:
        for pause in pauses:
            clock.sleep(pause)
            seen.append((name, round(clock.now() - began, 3)))

    threads = [clock.thread(work, args, None, True) for args in (("a", 3600.0, 3600.0), ("b", 1800.0, 5399.0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [("b", 1800.0), ("a", 3600.0), ("b", 7199.0), ("a", 7200.0)]


def test_who_waits_for_another_goes_on_at_that_very_time() -> None:
    clock = VirtualClock()
    event, condition, lock = clock.event(), clock.condition(), clock.lock()
    began, count = clock.now(), [0]

    def work() -> None:
        with lock:
            clock.sleep(5)
        event.set()
        for _ in range(3):
            clock.sleep(1)
            with condition:
                count[0] += 1
                condition.notify_all()

    thread = clock.thread(work, (), None, True)
    thread.start()
    clock.sleep(1)
    with lock:
        assert clock.now() - began == pytest.approx(5)
    assert event.wait(100)
    with condition:
        assert condition.wait_for(lambda: count[0] == 2, 100)
    assert clock.now() - began == pytest.approx(7)
    with condition:
        assert not condition.wait_for(lambda: count[0] == 4, 10)
    assert clock.now() - began == pytest.approx(17)
    thread.join()


def test_threads_that_would_wait_for_ever_are_told_so() -> None:
    clock = VirtualClock()
    with pytest.raises(RuntimeError, match="all threads wait for each other"):
        clock.event().wait()
    never = clock.event()

    def work() -> None:
        never.wait()

    clock.thread(work, (), None, True).start()
    with pytest.raises(RuntimeError, match="all threads wait for each other"):
        never.wait()


def test_a_coroutine_lives_on_the_clock_too() -> None:
    clock = VirtualClock()
    loop, over = clock.loop(), threading.Event()
    began = clock.now()

    async def work() -> None:
        await asyncio.sleep(30)
        over.set()

    loop.run_until_complete(work())
    assert over.is_set()
    assert clock.now() - began == pytest.approx(30)


def test_releases_differ_in_memory_as_they_do_elsewhere(tmp_path: Path) -> None:
    """What a release cannot do skips the scenario, whatever the target."""
    assert "trtllm" not in releases.get("1.2.1").engines
    name = "--name=The worker crashes in the middle of a stream .trtllm, completions, tcp."
    play = Play(tmp_path / "run", "-D", "dynamo=1.2.1", name, "features/migration.feature")
    reasons = {each.reason for each in verdicts_of(play)}
    assert reasons <= {"Dynamo 1.2.1 has no simulated trtllm", ""}
    assert "Dynamo 1.2.1 has no simulated trtllm" in reasons


@pytest.mark.parametrize(("kind", "target"), [("ruler=drops-token", "fake"), ("answers=drops-token", "local")])
def test_a_sabotage_that_a_target_does_not_know_is_refused(
    kind: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FT_SABOTAGE", kind)
    settings = Settings(target=target)
    with pytest.raises(ValueError, match=f"FT_SABOTAGE is {kind.partition('=')[0]}="):
        targets.kind(settings).make(releases.get(settings.dynamo), tmp_path, EventLog())


def test_a_fault_that_is_not_simulated_is_refused() -> None:
    clock = VirtualClock()
    network = FakeNetwork(clock, clock.loop())
    order = ("POST", "/api/v1/faults/process/inject", '{"type": "slow_disk"}', dict[str, str]())
    answer = FaultServer({}, network).call(order)
    assert (answer.status, answer.json()["detail"]) == (501, "process slow_disk is not simulated in memory")


def test_clients_that_break_in_memory_say_why_where_others_do(tmp_path: Path) -> None:
    crew = ThisProcess(tmp_path, 0)

    async def broken() -> None:
        raise ValueError("odd")

    async def run() -> None:
        task = asyncio.create_task(broken())
        await asyncio.wait([task])
        crew._end(task)

    asyncio.run(run())
    assert "ValueError: odd" in (tmp_path / "client-0.txt").read_text()
