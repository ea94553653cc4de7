"""Injectors and witnesses that lie: the table is whole, some of its cells are caught; `make lies` plays them all."""

import json
import os
import signal
import subprocess
import sys
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from agents.core import scratch
from agents.core.faults import KINDS
from agents.registry import types
from agents.sabotage import injector
from agents.xid import kmsg
from support.observe.waiting import until
from support.run import cells, keeping
from support.settings import ROOT, Settings
from support.targets.local import machine
from support.targets.local.sabotage import WITNESSES
from tests.lies import HALVES, HONEST, IMPOSSIBLE, LIES, Row, impossible, rows, ways
from tests.lies.__main__ import select
from tests.patience import PATIENCE

CAN = machine.probe(Settings(), ["namespaces", "nftables"])
MISSING = [each.detail for each in CAN.values() if not each.available] + ([kmsg.missing()] if kmsg.missing() else [])
NO_LIES = {"dawdles", "kills-at-shutdown"}
"""Of the node agent under sabotage, and nothing for a proof: it is slow, and it stands for Dynamo's own death."""


def test_every_type_of_fault_has_a_row() -> None:
    names = [row.name for row in rows()]
    assert len(set(names)) == len(names)
    missing = [f"{kind} {type_}" for kind in KINDS for type_ in types(kind)]
    assert [each for each in missing if not any(name.split(" (")[0] == each for name in names)] == []


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_every_lie_can_be_told_of_every_fault_or_there_is_a_reason(row: Row) -> None:
    for lie in LIES:
        assert bool(ways(row, lie)) != bool(impossible(row, lie)), lie
    assert (len(ways(row, HONEST)) == 1) == (row.make is not None)


def test_every_part_of_the_table_is_about_something() -> None:
    names = [row.name for row in rows()]
    said = {(row.name, lie) for row in rows() for lie in LIES if impossible(row, lie)}
    for name, of, _ in IMPOSSIBLE:
        assert any(fnmatchcase(row, name) and fnmatchcase(lie, of) for row, lie in said), (name, of)
    stars = {each for each in HALVES if "*" in each}
    assert set(HALVES) - stars <= set(names)


def test_every_way_to_lie_is_in_the_table() -> None:
    told = {way.sabotage for row in rows() for lie in LIES for way in ways(row, lie)}
    known = {f"injector={kind}" for kind in set(injector.KINDS) - NO_LIES} | {f"witness={kind}" for kind in WITNESSES}
    assert {each for each in told if not each.startswith("list=")} == known


@pytest.mark.parametrize(
    ("outcome", "result"),
    [
        ({"verdict": "inconclusive", "reason": "a: the fault was not proven: x", "lied": True}, "caught"),
        ({"verdict": "inconclusive", "reason": "a: no such file", "lied": True}, "CAUGHT FOR ANOTHER REASON"),
        ({"verdict": "inconclusive", "reason": "a: the fault was not proven: x", "lied": False}, "NOT TOLD"),
        ({"verdict": "passed", "reason": "", "lied": True}, "PASSED"),
        ({"verdict": "failed", "reason": "a: the fault was not proven", "lied": True}, "BLAMED ON DYNAMO"),
        ({"reason": "Traceback", "lied": False}, "NO VERDICT"),
    ],
)
def test_what_a_cell_is_called(outcome: dict[str, Any], result: str) -> None:
    [square], _ = select("process crash", "does nothing")
    square.outcome = outcome
    assert (square.result, square.good) == (result, result == "caught")


@pytest.mark.parametrize(("verdict", "good"), [("passed", True), ("inconclusive", False), ("failed", False)])
def test_honesty_has_to_pass(verdict: str, good: bool) -> None:
    [square], _ = select("process crash", HONEST)
    square.outcome = {"verdict": verdict, "reason": "the fault was not proven", "lied": True}
    assert square.good == good


QUICK = {
    "process hang": ("nothing*", "ends early", "undoes another's", "witness: no answer"),
    "network drop": ("nothing*", "ends early", "witness: no answer"),
    "gpu XID_ERROR (hang)": ("nothing*", "ends early", "witness: no answer"),
}
"""Cells that need not wait for a proof that never comes."""


@pytest.mark.skipif(bool(MISSING), reason=f"needs namespaces, nftables and the kernel log: {MISSING}")
@pytest.mark.parametrize("kind", QUICK)
def test_a_lie_is_caught_and_honesty_passes(kind: str, tmp_path: Path) -> None:
    file, lies = tmp_path / "lies.json", [word for lie in QUICK[kind] for word in ("--lie", lie)]
    argv = [sys.executable, "-m", "tests.lies", "--kind", kind, *lies, "--out", str(file)]
    done = subprocess.run(argv, cwd=ROOT, env=cells.environment(), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())["cells"]
    assert len(found) == len(select(kind, *QUICK[kind])[0])
    assert {each["result"] for each in found} == {"caught", "passed"}


def folder_of(pid: int) -> Path:
    """The folder that a table has while it runs; others may play beside it."""
    open_ones = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()]
    return next(Path(each) for each in open_ones if each.startswith(f"{ROOT / 'reports' / 'lies-'}"))


@pytest.mark.skipif(bool(MISSING), reason=f"needs namespaces, nftables and the kernel log: {MISSING}")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_table_that_is_broken_off_leaves_no_cell_and_no_folder(number: signal.Signals, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.lies", "--kind", "process hang", "--out", str(tmp_path / "lies.json")]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(argv, cwd=ROOT, env=cells.environment(), stdout=quiet, stderr=quiet) as table:
        try:
            processes = partial(keeping.family, table.pid)
            until(lambda: None if len(processes()) > 2 else "no", PATIENCE, "a cell is played")
            everything = processes()
            own = folder_of(table.pid)
            table.send_signal(number)
        finally:
            table.wait(PATIENCE)
    assert psutil.wait_procs(everything, PATIENCE)[1] == []
    assert number == signal.SIGKILL or not own.exists()
    with scratch.folder(ROOT / "reports", "lies-"):  # as the next one does
        assert not own.exists()
