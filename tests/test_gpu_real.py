"""The GPU agent on a real card; only when asked for: ``.venv/bin/python -m pytest -m gpu``.

It takes a quarter of the first GPU's memory, and half of its time, for some seconds. It touches no clock and no power
limit and writes nothing to the kernel log. Proof is what this process reads from NVML itself.
"""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from agents.core import kernel
from agents.gpu.nvml import MIB, Cards
from support.observe.waiting import until
from tests.gpu_machine import Machine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(Cards(pynvml).missing()), reason=Cards(pynvml).missing() or "there is a GPU"),
]
SLACK_MIB = 64  # what other processes of an otherwise idle GPU may come and go with
QUARTER = {"gpu_index": 0, "parameters": {"share": 0.25}}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    found = Machine(tmp_path)
    found.start(program="agents.gpu")
    yield found
    found.end()


def used() -> int:
    """MiB of the first GPU that are in use."""
    pynvml.nvmlInit()
    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used) // MIB


def busy() -> int:
    """Percent of the driver's last sampling period in which the first GPU worked."""
    pynvml.nvmlInit()
    return int(pynvml.nvmlDeviceGetUtilizationRates(pynvml.nvmlDeviceGetHandleByIndex(0)).gpu)


def expect_back(before: int) -> float:
    return until(lambda: None if used() <= before + SLACK_MIB else f"{used()} MiB", 10, f"down to {before} MiB again")


def test_memory_is_taken_and_given_back(machine: Machine) -> None:
    before = used()
    status, fault = machine.inject("MEMORY_PRESSURE", **QUARTER)
    assert status == 201, fault
    load: dict[str, Any] = fault["evidence"]["load"]
    total = fault["evidence"]["before"]["gpu"]["memory_total_mib"]
    assert load["wanted"] // MIB == pytest.approx(total / 4, rel=0.05)
    assert used() - before >= load["bytes"] // MIB
    ended = machine.ask("POST", f"/v1/faults/{fault['id']}/recover")[1]
    assert (ended["state"], ended["evidence"]["differences"]) == ("recovered", [])
    expect_back(before)


def test_compute_is_held_and_ended(machine: Machine) -> None:
    until(lambda: None if busy() <= 5 else f"{busy()} %", 10, "the GPU is idle")
    status, fault = machine.inject("COMPUTE_OVERLOAD", gpu_index=0, parameters={"share": 0.5})
    assert status == 201, fault
    until(lambda: None if busy() >= 40 else f"{busy()} %", 10, "the GPU is busy")
    ended = machine.ask("POST", f"/v1/faults/{fault['id']}/recover")[1]
    assert ended["state"] == "recovered"
    until(lambda: None if busy() <= 5 else f"{busy()} %", 10, "the GPU is idle again")


def test_memory_comes_back_when_the_agent_is_killed(machine: Machine) -> None:
    before = used()
    assert machine.inject("MEMORY_PRESSURE", **QUARTER)[0] == 201
    machine.kill()
    expect_back(before)
    done = machine.recover(program="agents.gpu")
    assert (done.returncode, '"state": "recovered"' in done.stdout) == (0, True), done.stdout + done.stderr


def test_memory_comes_back_at_the_deadline_while_the_agent_is_frozen(machine: Machine) -> None:
    before = used()
    fault = machine.inject("MEMORY_PRESSURE", **QUARTER, duration_seconds=10)[1]
    assert fault["state"] == "active", fault
    machine.agents[-1].send_signal(signal.SIGSTOP)
    assert used() > before + SLACK_MIB
    until(lambda: None if used() <= before + SLACK_MIB else f"{used()} MiB", 20, "the load ends by itself")
    now = kernel.stat_of(fault["evidence"]["load"]["pid"])
    assert now is None or now[0] == "Z"


def test_settings_are_not_touched_unless_allowed(machine: Machine) -> None:
    for kind in ("THROTTLE", "OVERHEAT"):
        status, refusal = machine.inject(kind, gpu_index=0)
        assert (status, "--allow-clock-control" in refusal["detail"]) == (501, True)
