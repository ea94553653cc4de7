"""The GPU agent: real processes, real kills, a real journal; only the driver is not real (tests/fake_gpu.py)."""

import ctypes.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pynvml
import pytest

from agents.core import kernel
from agents.core.journal import read_journal
from agents.gpu.requests import TYPES
from agents.xid import kmsg
from support.observe.waiting import until
from support.settings import ROOT
from tests.fake_gpu import CLOCK_MHZ, POWER_MW, TOTAL_BYTES
from tests.gpu_machine import TOKEN, Machine
from tests.patience import PATIENCE

MIB = 1 << 20
LEASE = 8.0  # seconds: long enough for a load to begin, on a machine with other work


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    found = Machine(tmp_path)
    yield found
    found.end()


def runs(load: dict[str, Any]) -> bool:
    """Whether the process of a load is still there; one that is dead but not yet reaped is not."""
    now = kernel.stat_of(load["pid"])
    return now is not None and now[1] == load["start_time"] and now[0] != "Z"


def gone(load: dict[str, Any]) -> Callable[[], str | None]:
    return lambda: "it runs" if runs(load) else None


# -- memory and compute


def test_memory_is_taken_and_given_back(machine: Machine) -> None:
    machine.start()
    status, fault = machine.inject("MEMORY_PRESSURE", severity="MEDIUM", duration_seconds=60)
    evidence = fault["evidence"]
    taken = evidence["during"]["memory_used_mib"] - evidence["before"]["gpu"]["memory_used_mib"]
    assert (status, fault["state"], fault["fidelity"]) == (201, "active", "real")
    assert taken == evidence["load"]["bytes"] // MIB == TOTAL_BYTES // MIB // 2
    assert runs(evidence["load"])
    present = machine.fault(fault["id"])["evidence"]["now"]
    assert (present["load"], present["gpu"]["state"]) == (f"pid {evidence['load']['pid']} runs", "ok")
    assert TOKEN not in Path(f"/proc/{evidence['load']['pid']}/environ").read_text()
    status, ended = machine.ask("POST", f"/v1/faults/{fault['id']}/recover")
    assert (status, ended["state"], ended["evidence"]["differences"]) == (200, "recovered", [])
    assert ended["evidence"]["after"]["gpu"]["memory_used_mib"] == evidence["before"]["gpu"]["memory_used_mib"]
    assert kernel.stat_of(evidence["load"]["pid"]) is None


def test_memory_is_taken_as_far_as_it_is_free(machine: Machine) -> None:
    machine.start()
    fault = machine.inject("MEMORY_PRESSURE", parameters={"share": 0.95})[1]
    load = fault["evidence"]["load"]
    assert (fault["parameters"]["share"], fault["parameters"]["share_in_force"]) == (0.95, 0.875)
    assert load["bytes"] == 70 << 30  # of 80 GiB, 10 of which are in use
    assert load["wanted"] == int(TOTAL_BYTES * 0.95)


def test_a_gpu_is_kept_busy_until_the_deadline(machine: Machine) -> None:
    machine.start()
    _, fault = machine.inject("COMPUTE_OVERLOAD", severity="HIGH", duration_seconds=LEASE)
    assert (fault["state"], fault["fidelity"], fault["parameters"]["share"]) == ("active", "real", 0.75)
    assert fault["evidence"]["during"]["utilization_percent"] == 100
    over = until(
        lambda: None if machine.fault(fault["id"])["state"] == "recovered" else "no", LEASE + PATIENCE, "it is over"
    )
    assert over >= fault["deadline"]
    assert not runs(fault["evidence"]["load"])


def test_one_fault_for_a_gpu_at_a_time(machine: Machine) -> None:
    machine.start(FAKE_GPU_COUNT="2")
    assert machine.inject("MEMORY_PRESSURE", gpu_index=0)[0] == 201
    status, refusal = machine.inject("COMPUTE_OVERLOAD", gpu_index=0)
    assert (status, "GPU-fake-0 is already under fault" in refusal["detail"]) == (409, True)
    assert machine.inject("COMPUTE_OVERLOAD", gpu_index=1)[0] == 201


def test_without_the_machines_pids_the_memory_of_the_card_counts(machine: Machine) -> None:
    machine.start(FAKE_GPU_QUIRK="no-pids")
    _, fault = machine.inject("MEMORY_PRESSURE")
    assert (fault["state"], fault["evidence"]["load"]["named"]) == ("active", False)
    assert machine.ask("POST", f"/v1/faults/{fault['id']}/recover")[1]["state"] == "recovered"


def test_a_load_that_nvml_does_not_see_is_no_fault(machine: Machine) -> None:
    machine.start(FAKE_GPU_QUIRK="no-memory")
    status, refusal = machine.inject("MEMORY_PRESSURE")
    assert (status, "NVML shows neither pid" in refusal["detail"]) == (500, True)
    [fault] = machine.ask("GET", "/v1/faults")[1]
    assert fault["state"] == "failed"
    assert not runs(machine.fault(fault["id"])["evidence"]["load"])


# -- kills


def test_a_load_dies_with_its_agent_and_the_next_agent_takes_the_fault_up(machine: Machine) -> None:
    machine.start()
    fault = machine.inject("MEMORY_PRESSURE", duration_seconds=60)[1]
    first = fault["evidence"]["load"]
    machine.kill()
    until(gone(first), PATIENCE, "the load has died with its agent")
    machine.start()

    def resumed() -> str | None:
        load = machine.fault(fault["id"])["evidence"]["load"]
        return None if load["pid"] != first["pid"] and load.get("bytes") else "not yet"

    until(resumed, PATIENCE, "the memory is taken again")
    second = machine.fault(fault["id"])
    assert (second["state"], second["deadline"], runs(second["evidence"]["load"])) == (
        "active",
        fault["deadline"],
        True,
    )
    ended = machine.ask("POST", f"/v1/faults/{fault['id']}/recover")[1]
    assert (ended["state"], runs(second["evidence"]["load"])) == ("recovered", False)


def test_a_fault_that_cannot_be_taken_up_is_over(machine: Machine) -> None:
    machine.start()
    fault = machine.inject("MEMORY_PRESSURE", duration_seconds=60)[1]
    machine.kill()
    machine.start(FAKE_GPU_QUIRK="no-memory")
    until(lambda: None if machine.fault(fault["id"])["state"] == "recovered" else "no", PATIENCE, "it is over")
    ended = machine.fault(fault["id"])
    assert "NVML shows neither" in ended["evidence"]["resume"]
    assert [each["why"] for each in ended["history"] if "why" in each] == ["not resumed"]


def test_a_load_ends_at_its_deadline_while_its_agent_is_frozen(machine: Machine) -> None:
    machine.start()
    fault = machine.inject("MEMORY_PRESSURE", duration_seconds=LEASE)[1]
    machine.agents[-1].send_signal(signal.SIGSTOP)
    ended = until(gone(fault["evidence"]["load"]), LEASE + PATIENCE, "the load ends by itself")
    assert ended >= fault["deadline"]
    refused = machine.recover()
    assert (refused.returncode, "another agent uses" in refused.stderr) == (3, True)
    machine.agents[-1].send_signal(signal.SIGCONT)
    until(lambda: None if machine.fault(fault["id"])["state"] == "recovered" else "no", PATIENCE, "the agent says so")


def test_the_kernel_ends_a_load_that_is_stuck_in_the_driver(machine: Machine) -> None:
    argv = [sys.executable, "-m", "tests.fake_gpu", "load", "memory", "--share=0.5", f"--parent={os.getpid()}"]
    env = machine.environment(CUDA_VISIBLE_DEVICES="GPU-fake-0", FAKE_GPU_QUIRK="stuck")
    deadline = time.monotonic() + LEASE
    with subprocess.Popen([*argv, f"--until={deadline}"], cwd=ROOT, env=env, stdout=subprocess.PIPE) as load:
        assert load.wait(LEASE + PATIENCE) == -signal.SIGALRM
    assert time.monotonic() >= deadline + 1.0


def test_a_load_without_its_parent_holds_nothing(machine: Machine) -> None:
    argv = [sys.executable, "-m", "tests.fake_gpu", "load", "memory", "--share=0.5", "--parent=1"]
    env = machine.environment(CUDA_VISIBLE_DEVICES="GPU-fake-0")
    late = [*argv, f"--until={time.monotonic() + 60}"]
    done = subprocess.run(late, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, list(machine.folder.iterdir())) == (1, "", [])


def test_what_a_dead_agent_has_left_can_be_undone_without_one(machine: Machine) -> None:
    machine.start("--allow-clock-control", FAKE_GPU_COUNT="2")
    heat = machine.inject("OVERHEAT", gpu_index=0)[1]
    memory = machine.inject("MEMORY_PRESSURE", gpu_index=1)[1]
    machine.kill()
    assert machine.settings()["0"]["power"] == POWER_MW // 2
    done = machine.recover(FAKE_GPU_COUNT="2")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["id"], each["state"]) for each in lines] == [(memory["id"], "recovered"), (heat["id"], "recovered")]
    assert (done.returncode, machine.settings()["0"]["power"]) == (0, POWER_MW)
    again = machine.recover(FAKE_GPU_COUNT="2")
    assert (again.returncode, again.stdout) == (0, "")


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.03, 0.1, 0.3, 0.6])
def test_nothing_is_left_of_an_agent_that_is_killed_at_any_moment(machine: Machine, seconds: float) -> None:
    machine.start("--allow-clock-control", FAKE_GPU_COUNT="3")
    wanted = ("OVERHEAT", 0), ("THROTTLE", 1), ("MEMORY_PRESSURE", 2)
    with ThreadPoolExecutor() as clients:
        asked = [clients.submit(machine.inject, kind, gpu_index=index) for kind, index in wanted]
        wait(asked, seconds)
        machine.kill()
    done = machine.recover(FAKE_GPU_COUNT="3")
    assert done.returncode == 0, done.stdout + done.stderr
    settings = machine.settings()
    assert settings.get("0", {}).get("power", POWER_MW) == POWER_MW
    assert settings.get("1", {}).get("clock") is None
    loads = {int(file.name.partition("-")[2]) for file in machine.folder.glob("2-*")}
    states = {pid: kernel.stat_of(pid) for pid in loads}
    assert [pid for pid, state in states.items() if state and state[0] != "Z"] == []
    journal = read_journal(machine.state / "journal.jsonl")
    assert {fault.state for fault in journal.values()} <= {"recovered", "failed"}


def test_an_undo_that_does_not_come_off_is_said_and_tried_again(machine: Machine) -> None:
    machine.start("--allow-clock-control")
    machine.inject("OVERHEAT")
    machine.kill()
    refused = machine.recover(FAKE_GPU_QUIRK="not-root")
    assert (refused.returncode, "Insufficient Permissions" in refused.stdout) == (1, True)
    assert machine.recover().returncode == 0
    assert machine.settings()["0"]["power"] == POWER_MW


def test_whatever_was_live_before_a_reboot_is_over(machine: Machine) -> None:
    machine.start("--allow-clock-control")
    fault = machine.inject("THROTTLE", duration_seconds=3600)[1]
    machine.kill()
    (machine.state / "boot").write_text("another boot")
    journal = machine.state / "journal.jsonl"
    journal.write_text(re.sub(r'"boot": "[^"]*"', '"boot": "another boot"', journal.read_text()))
    machine.start("--allow-clock-control")
    assert machine.fault(fault["id"])["state"] == "recovered"
    assert machine.settings()["0"]["clock"] == CLOCK_MHZ // 2  # not ours any more: the reboot has reset the real one


def test_an_agent_that_is_told_to_go_undoes_everything(machine: Machine) -> None:
    machine.start("--allow-clock-control")
    machine.inject("THROTTLE")
    assert machine.settings()["0"]["clock"] == CLOCK_MHZ // 2
    machine.agents[-1].terminate()
    assert machine.agents[-1].wait(10) == 0
    assert machine.settings()["0"]["clock"] is None


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_the_watchdog_puts_settings_back_whatever_becomes_of_the_agent(machine: Machine, fate: signal.Signals) -> None:
    machine.supervised = False
    machine.start("--allow-clock-control")
    machine.inject("OVERHEAT", duration_seconds=1)
    assert machine.settings()["0"]["power"] == POWER_MW // 2
    machine.agents[-1].send_signal(fate)
    until(lambda: None if machine.settings()["0"]["power"] == POWER_MW else "low", PATIENCE, "the power limit is back")
    assert machine.agents[-1].wait(10) == -signal.SIGKILL
    until(lambda: "guarded" if list(machine.state.glob("*.guard.json")) else None, PATIENCE, "nothing is left to guard")


def test_two_agents_do_not_share_a_journal(machine: Machine) -> None:
    machine.start()
    argv = [sys.executable, "-m", "tests.fake_gpu", "agent", f"--state-dir={machine.state}"]
    second = subprocess.run(argv, cwd=ROOT, env=machine.environment(), capture_output=True, text=True)
    assert (second.returncode, "another agent uses" in second.stderr) == (3, True)


def test_a_lease_that_is_over_before_its_load_begins_is_a_refusal(machine: Machine) -> None:
    machine.start()
    status, refusal = machine.inject("MEMORY_PRESSURE", duration_seconds=0.001)
    assert (status, "ask for a longer one" in refusal["detail"]) == (500, True)


# -- settings


def test_settings_are_touched_only_where_the_operator_allows_it(machine: Machine) -> None:
    machine.start()
    for kind in ("THROTTLE", "OVERHEAT"):
        status, refusal = machine.inject(kind)
        assert (status, "--allow-clock-control" in refusal["detail"]) == (501, True)
        capability = machine.ask("GET", "/v1/capabilities")[1][f"gpu.{kind}"]
        assert (capability["available"], "--allow-clock-control" in capability["detail"]) == (False, True)
    assert machine.settings() == {}


def test_a_lock_of_clocks_that_stays_is_not_recovered(machine: Machine) -> None:
    machine.start("--allow-clock-control", FAKE_GPU_QUIRK="lock-stays")
    fault = machine.inject("THROTTLE", severity="MEDIUM")[1]
    ended = machine.ask("POST", f"/v1/faults/{fault['id']}/recover")[1]
    assert ended["state"] == "failed"
    assert f"the SM clock is {CLOCK_MHZ // 2} MHz, still locked" in ended["evidence"]["differences"][0]


def test_clocks_are_locked_and_released(machine: Machine) -> None:
    machine.start("--allow-clock-control")
    fault = machine.inject("THROTTLE", severity="LOW")[1]
    during = fault["evidence"]["during"]["sm_clock_mhz"]
    assert (fault["fidelity"], during, machine.settings()["0"]["clock"]) == ("real", 1485, 1485)
    assert machine.ask("POST", f"/v1/faults/{fault['id']}/recover")[1]["state"] == "recovered"
    assert machine.settings()["0"]["clock"] is None


def test_the_power_limit_that_was_read_before_comes_back(machine: Machine) -> None:
    (machine.folder / "settings").write_text(json.dumps({"0": {"power": 500_000}}))
    machine.start("--allow-clock-control")
    fault = machine.inject("OVERHEAT", severity="HIGH")[1]
    assert (fault["fidelity"], fault["parameters"]["power_limit_mw"]) == ("emulated", 200_000)  # the lowest there is
    assert fault["parameters"]["share"] == 0.6
    assert "no hotter" in fault["evidence"]["emulates"]
    assert fault["evidence"]["during"]["throttle_reasons"] == ["sw_power_cap"]
    ended = machine.ask("POST", f"/v1/faults/{fault['id']}/recover")[1]
    assert (ended["state"], machine.settings()["0"]["power"]) == ("recovered", 500_000)


def test_a_setting_that_may_not_be_touched_is_a_refusal(machine: Machine) -> None:
    machine.start("--allow-clock-control", FAKE_GPU_QUIRK="not-root")
    status, refusal = machine.inject("THROTTLE")
    assert (status, "Insufficient Permissions" in refusal["detail"]) == (501, True)


# -- XID


@pytest.mark.skipif(bool(kmsg.missing()), reason=kmsg.missing())
def test_an_xid_error_is_reported_with_the_address_of_the_gpu_and_latches(machine: Machine) -> None:
    machine.start()
    fault = machine.inject("XID_ERROR", xid=79, parameters={"sequence": True})[1]
    pci = machine.ask("GET", "/v1/gpus")[1]["node-a"][0]["pci"]
    first, second = (line["text"] for line in fault["evidence"]["kernel_log"])
    assert (fault["state"], fault["fidelity"]) == ("active", "reported")
    assert first.startswith(f"kernel: NVRM: Xid (PCI:{pci}): 79, pid='<unknown>', name=<unknown>, GPU has fallen off")
    assert f"GPU {pci}.0" in second
    ended = machine.ask("POST", f"/v1/faults/{fault['id']}/recover")[1]
    assert (ended["state"], "kernel log stays" in ended["repair"]) == ("latched", True)


# -- refusals


@pytest.mark.skipif(bool(ctypes.util.find_library("cuda")), reason="there is an NVIDIA driver here")
def test_without_a_gpu_every_type_is_refused_in_words(machine: Machine) -> None:
    machine.start(program="agents.gpu")
    capabilities = machine.ask("GET", "/v1/capabilities")[1]
    for kind in [each.name for each in TYPES]:
        status, refusal = machine.inject(kind)
        assert (status, "no NVIDIA driver: libnvidia-ml.so.1 not found" in refusal["detail"]) == (501, True), kind
        assert capabilities[f"gpu.{kind}"] == {"available": False, "detail": refusal["detail"]}
    [node] = machine.ask("GET", "/v1/topology")[1]["nodes"]
    assert (node["name"], node["gpus"]) == ("node-a", [])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"type": "MELT"}, 422, "allowed: XID_ERROR, THROTTLE"),
        ({"target": "node-b"}, 404, "known: node-a"),
        ({"gpu_index": 2}, 422, "'node-a' has 0, 1"),
        ({"gpu_index": None}, 422, "choose one with gpu_index: 0, 1"),
        ({"gpu_index": "0"}, 422, "expected a whole number"),
        ({"parameters": {"share": 1.5}}, 422, "between 0 and 1"),
        ({"parameters": [1]}, 422, "expected an object"),
        ({"parameters": {"colour": 1}}, 422, "allowed: share"),
        ({"severity": "WORST"}, 422, "allowed: LOW, MEDIUM, HIGH"),
        ({"duration_seconds": 0}, 422, "at most 3600"),
        ({"kind": "weather"}, 422, "allowed: gpu"),
    ],
)
def test_bad_requests_are_refused_in_words(two_gpus: Machine, body: dict[str, Any], status: int, words: str) -> None:
    good = {"kind": "gpu", "type": "MEMORY_PRESSURE", "target": "node-a", "gpu_index": 0}
    seen, refusal = two_gpus.ask("POST", "/v1/faults?dry_run=true", good | body)
    assert (seen, words in refusal["detail"]) == (status, True), refusal


@pytest.fixture(scope="module")
def two_gpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    found = Machine(tmp_path_factory.mktemp("machine"))
    found.start(FAKE_GPU_COUNT="2")
    yield found
    found.end()


def test_a_dry_run_takes_nothing(two_gpus: Machine) -> None:
    body = {"kind": "gpu", "type": "MEMORY_PRESSURE", "target": "node-a", "gpu_index": 1}
    status, plan = two_gpus.ask("POST", "/v1/faults?dry_run=true", body)
    touches = ["GPU 1 (GPU-fake-1): 50% of its memory, as far as free, by a process of its own"]
    assert (status, plan["touches"], list(two_gpus.folder.iterdir())) == (200, touches, [])


def test_who_may_ask(two_gpus: Machine) -> None:
    assert two_gpus.client.ask("GET", "/health")[0] == 200
    assert two_gpus.client.ask("GET", "/v1/topology")[0] == 401
    assert two_gpus.client.ask("GET", "/v1/topology", token="wrong")[0] == 401


def test_without_a_token_it_does_not_start(machine: Machine) -> None:
    argv = [sys.executable, "-m", "agents.gpu", f"--state-dir={machine.state}"]
    done = subprocess.run(argv, cwd=ROOT, env=machine.environment(FT_AGENT_TOKEN=""), capture_output=True, text=True)
    assert (done.returncode, "--token-file" in done.stderr) == (2, True)


def test_what_is_called_of_nvml_is_in_nvml() -> None:
    called: set[str] = set()
    for name in ("nvml.py", "real_gpu.py"):
        text = (ROOT / "agents" / "gpu" / name).read_text()
        called |= set(re.findall(r"\b(?:nvml[A-Z]\w+|NVML_[A-Z]\w+|NVMLError\w*)\b", text))
    assert len(called) > 15
    # named in a comment: the C function
    assert {name for name in called if not hasattr(pynvml, name)} == set()


def test_what_the_agent_does_not_break_is_501_and_among_the_capabilities(machine: Machine) -> None:
    machine.start()
    status, refusal = machine.ask("POST", "/v1/faults", {"kind": "network", "type": "drop", "targets": ["node-a"]})
    assert (status, refusal["detail"]) == (501, "the agent of 'node-a' makes faults of kind gpu only, not network")
    capabilities = machine.ask("GET", "/v1/capabilities")[1]
    assert [capabilities[f"{kind}.*"]["available"] for kind in ("network", "process")] == [False, False]
    assert machine.ask("POST", "/v1/faults", {"kind": "weather"})[0] == 422


@pytest.mark.parametrize(("content", "said"), [("\n", "is empty"), ("two words", "one token")])
def test_a_token_file_without_a_token_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "token").write_text(content)
    argv = [sys.executable, "-m", "agents.gpu", "--port=0", f"--state-dir={tmp_path}"]
    done = subprocess.run(
        [*argv, f"--token-file={tmp_path / 'token'}"],
        cwd=ROOT,
        env=os.environ | {"FT_AGENT_TOKEN": "another"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, said in done.stderr) == (2, True)
