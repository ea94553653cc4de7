"""What the local target finds out about this machine."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from support.contract.target import Capability
from support.settings import ROOT, Settings
from support.targets.local import machine, namespaces
from support.targets.needs import NEEDS


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def _command(file: Path, script: str) -> None:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def probe(names: Iterable[str] = NEEDS, **settings: Any) -> dict[str, Capability]:
    return machine.probe(Settings(**settings), names)


def test_every_name_is_answered_for() -> None:
    found = probe()
    assert tuple(found) == tuple(NEEDS)
    assert all(found[name].name == name and found[name].detail for name in found)


def test_looking_changes_nothing() -> None:
    def world() -> tuple[list[str], list[str], str]:
        return (
            sorted(os.listdir("/sys/class/net")),
            sorted(os.listdir("/sys/fs/cgroup")),
            os.readlink("/proc/self/ns/net"),
        )

    before = world()
    probe()
    assert world() == before


def test_root_of_a_user_namespace_is_not_root() -> None:
    ask = (
        "from support.settings import Settings; from support.targets.local.machine import probe; "
        "print(probe(Settings(), ['root'])['root'])"
    )
    mapped = ["unshare", "--user", "--map-root-user", "--", sys.executable, "-c", ask]
    done = subprocess.run(mapped, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert done.stdout.strip() == str(Capability("root", False, "root in a user namespace only"))


def test_a_refusal_is_quoted(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _command(commands / "python", "echo 'unshare (net): Operation not permitted' >&2; exit 1")
    monkeypatch.setattr(sys, "executable", str(commands / "python"))
    for found in probe(["nftables", "netem"]).values():
        assert (found.available, found.detail) == (False, "cannot be tried: unshare (net): Operation not permitted")


def test_the_trials_need_no_command(commands: Path) -> None:
    if reason := namespaces.missing():
        pytest.skip(f"no namespaces to try in: {reason}")
    assert all("cannot be tried" not in each.detail for each in probe(["nftables", "tbf", "netem"]).values())


def test_a_gpu_is_what_nvidia_smi_lists(commands: Path) -> None:
    _command(
        commands / "nvidia-smi", "echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'; echo 'GPU 1: NVIDIA H100 (UUID: GPU-2)'"
    )
    assert probe(["gpu"])["gpu"] == ("gpu", True, "GPU 0: NVIDIA H100, GPU 1: NVIDIA H100")


def test_a_cluster_needs_the_file_that_is_named(tmp_path: Path) -> None:
    named = str(tmp_path / "config")
    assert not probe(["cluster"])["cluster"].available
    assert probe(["cluster"], kubeconfig=named)["cluster"] == ("cluster", False, f"no file {named}")
    (tmp_path / "config").touch()
    assert probe(["cluster"], kubeconfig=named)["cluster"].available


def test_namespaces_that_are_switched_off_are_none() -> None:
    off = probe(["namespaces"], cells="off")["namespaces"]
    assert off == ("namespaces", False, "the nodes of this run are on loopback (cells=off)")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no capability 'gpus'; allowed: root, namespaces"):
        probe(["gpus"])


def test_a_kernel_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "TRIAL_SECONDS", 1)
    monkeypatch.setitem(machine._TRIALS, "nftables", lambda: str(threading.Event().wait(30)))
    machine._main(["nftables"])
    assert json.loads(capsys.readouterr().out) == {"nftables": [False, "TimeoutError: no answer within 1 seconds"]}
