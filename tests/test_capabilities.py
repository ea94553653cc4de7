import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from support.run import capabilities, cells, doctor
from support.run.capabilities import probe
from support.settings import ROOT, Settings


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def _command(file: Path, script: str) -> None:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_every_name_is_answered_for() -> None:
    found = probe()
    assert tuple(found) == capabilities.NAMES
    assert all(found[name].name == name and found[name].detail for name in found)


def test_a_run_asks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def kmsg() -> capabilities.Capability:
        asked.append("kmsg")
        return capabilities.Capability("kmsg", False, "none here")

    monkeypatch.setitem(capabilities._LOOKS, "kmsg", kmsg)
    answers = [capabilities.of_run("kmsg", tmp_path) for _ in range(3)]
    assert answers == [capabilities.Capability("kmsg", False, "none here")] * 3
    assert asked == ["kmsg"]


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
    ask = "from support.run.capabilities import probe; print(probe(['root'])['root'])"
    mapped = ["unshare", "--user", "--map-root-user", "--", sys.executable, "-c", ask]
    done = subprocess.run(mapped, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert done.stdout.strip() == str(capabilities.Capability("root", False, "root in a user namespace only"))


def test_namespaces_are_what_cells_say() -> None:
    assert probe(["namespaces"])["namespaces"].available == (cells.available() is None)


def test_without_unshare_the_trials_say_why_not(commands: Path) -> None:
    found = probe(["nftables", "netem"])
    assert [each.available for each in found.values()] == [False, False]
    assert "unshare" in found["nftables"].detail


def test_a_refusal_is_quoted(commands: Path) -> None:
    _command(commands / "unshare", "echo 'unshare: Operation not permitted' >&2; exit 1")
    assert probe(["nftables"])["nftables"].detail == "cannot be tried: unshare: Operation not permitted"


def test_a_gpu_is_what_nvidia_smi_lists(commands: Path) -> None:
    _command(
        commands / "nvidia-smi", "echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'; echo 'GPU 1: NVIDIA H100 (UUID: GPU-2)'"
    )
    assert probe(["gpu"])["gpu"] == ("gpu", True, "GPU 0: NVIDIA H100, GPU 1: NVIDIA H100")


def test_a_cluster_needs_the_file_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert not probe(["cluster"])["cluster"].available
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    assert probe(["cluster"])["cluster"] == ("cluster", False, f"no file {tmp_path / 'config'}")
    (tmp_path / "config").touch()
    assert probe(["cluster"])["cluster"].available


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no capability 'gpus'; allowed: namespaces, root"):
        probe(["gpus"])


def test_the_doctors_table_has_a_line_for_each_thing_and_says_what_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {name: capabilities.Capability(name, False, "none") for name in capabilities.NAMES}
    monkeypatch.setattr(doctor, "probe", lambda names: {name: nothing[name] for name in names})
    rows = {row.what: row for row in doctor.rows(Settings())}
    assert rows["etcd"].found.startswith("3.")
    assert rows["NATS"].skipped == rows["Node.js"].skipped == ""
    assert [what for what, row in rows.items() if row.skipped] == [
        "namespaces",
        "nftables",
        "tbf",
        "netem",
        "kernel log",
        "cgroups",
        "GPU",
        "KUBECONFIG",
    ]
    assert rows["GPU"].skipped == "@gpu"


def test_a_program_that_does_not_work_skips_what_needs_it(tmp_path: Path) -> None:
    broken = tmp_path / "etcd"
    _command(broken, "exit 3")
    rows = {row.what: row for row in doctor.rows(Settings(etcd_binary=broken))}
    assert rows["etcd"].skipped == "everything"
    assert str(broken) in rows["etcd"].found


def test_the_columns_line_up() -> None:
    text = doctor.table([doctor.Row("a", "found it", "b", ""), doctor.Row("longer", "no", "much", "all")])
    assert text.splitlines() == [
        "what    found     needed for  therefore skipped",
        "a       found it  b           -",
        "longer  no        much        all",
    ]


def test_a_kernel_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(capabilities, "TRIAL_SECONDS", 1)
    monkeypatch.setitem(capabilities._TRIALS, "nftables", lambda: str(threading.Event().wait(30)))
    capabilities._main(["nftables"])
    assert json.loads(capsys.readouterr().out) == {"nftables": [False, "TimeoutError: no answer within 1 seconds"]}
