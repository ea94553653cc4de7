"""XID errors: the lines that are written are taken for what they are by those who read the kernel log for a living."""

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agents.core import kernel
from agents.core.book import FaultBook
from agents.core.faults import Fault, Problem
from agents.core.leases import JOURNAL
from agents.gpu.nvml import Card
from agents.gpu.real_gpu import RealGpuDriver
from agents.host import pods
from agents.node.network import Network
from agents.xid import kmsg, xids
from support.contract.fault_service import FaultService
from support.faults.gpu import SEQUENCES
from support.observe.waiting import until
from support.settings import ROOT
from support.targets.local import process
from support.targets.local.kernel_log import LocalKernelLog
from support.targets.local.machine import _mounts
from tests.patience import PATIENCE

CORPUS = json.loads((ROOT / "tests" / "data" / "kernel_log.json").read_text())
MONITORS = sorted(CORPUS["patterns"])


def as_journald_has_it(line: str) -> str:
    """journald takes a leading ``ident:`` off what user space wrote, for it is the SYSLOG_IDENTIFIER."""
    return re.sub(r"^[^\s:\[\]]+: ", "", line)


def seen(monitor: str, line: str) -> int | None:
    """The XID that a monitor finds in a line."""
    match = re.search(CORPUS["patterns"][monitor]["pattern"], line)
    return int(match["xid"]) if match else None


@pytest.mark.parametrize("monitor", MONITORS)
def test_monitors_know_real_lines(monitor: str) -> None:
    assert [line for xid, line in CORPUS["real"] if seen(monitor, line) != xid] == []


@pytest.mark.parametrize("monitor", MONITORS)
def test_monitors_leave_near_misses_alone(monitor: str) -> None:
    assert [line for line in CORPUS["near_misses"] if seen(monitor, line) is not None] == []


@pytest.mark.parametrize("monitor", MONITORS)
@pytest.mark.parametrize("xid", sorted(xids.CATALOGUE))
def test_every_line_of_ours_is_recognised_after_journald(xid: int, monitor: str) -> None:
    first = xids.lines(xid, "a123:45:06", 7, "python3", "abc123")[0]
    assert seen(monitor, as_journald_has_it(first)) == xid


def test_a_line_without_its_lead_would_lose_its_meaning() -> None:
    """Why our lines begin with ``kernel:``."""
    assert seen("nvsentinel", as_journald_has_it("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.")) is None


def test_each_injection_writes_something_of_its_own() -> None:
    for xid in xids.CATALOGUE:
        one, other = (xids.lines(xid, "a123:45:06", 7, "python3", nonce, True) for nonce in ("abc123", "abc124"))
        assert not set(one) & set(other), xid


def test_a_sequence_is_that_of_real_logs() -> None:
    numbers = [
        int(re.findall(r"\): (\d+), ", line)[0])
        for line in xids.lines(48, "a123:45:06", 7, "p", "abc123", sequence=True)
    ]
    assert numbers == [48, 63, 95, 154]
    assert len(xids.lines(79, "a123:45:06", 7, "p", "abc123")) == 1
    second = xids.lines(79, "a123:45:06", 7, "p", "abc123", sequence=True)[1]
    assert "GPU a123:45:06.0: GPU has fallen off the bus." in second


def test_the_suite_waits_for_the_whole_sequence() -> None:
    assert {xid: entry.sequence for xid, entry in xids.CATALOGUE.items() if entry.sequence} == SEQUENCES


def test_the_table_says_what_79_is() -> None:
    [row] = [row for row in xids.api_table() if row["xid"] == 79]
    assert (row["meaning"], row["action"], row["fatal"]) == ("GPU has fallen off the bus", "restart the machine", "yes")
    assert [row["xid"] for row in xids.api_table() if row["injectable"]] == [43, 48, 74, 79, 94, 95, 119, 120]


def test_pci_addresses_are_of_one_run() -> None:
    found = {kmsg.reserve_pci(token, index) for token in ("012345", "abcdef") for index in range(64)}
    assert len(found) == 128
    assert all(re.fullmatch(r"[ab][0-9a-f]{3}:[0-9a-f]{2}:[01][0-9a-f]", address) for address in found)


@pytest.mark.skipif(bool(kmsg.missing()), reason=kmsg.missing() or "-")
def test_a_line_is_read_back_and_seen_by_others() -> None:
    log, pci = LocalKernelLog(), kmsg.reserve_pci("7e57ed", 0)
    line = xids.lines(31, pci, 7, "python3", "abc123")[0]
    assert kmsg.write(line)["text"] == line
    until(lambda: None if log.xids(pci) == [31] else str(log.xids(pci)), PATIENCE, "the observer sees it")
    log.close()


@pytest.mark.skipif(bool(kmsg.missing()), reason=kmsg.missing() or "-")
def test_a_line_that_is_too_long_is_refused_in_words() -> None:
    with pytest.raises(kmsg.KernelLogError, match="too long"):
        kmsg.write("x" * 5000)


# -- names that the kernel writes in another way

NAMES = [
    b"b\xc3\xbcro",
    b"back\\slash",
    b"\\x41",
    b"\xff\xfe",
    b"tab\tand\nline",
    b" a ) S 1 (b ",
    b"{pid} %s",
    b"\x7f\x1b[1m",
]


@pytest.mark.parametrize("name", NAMES)
def test_what_the_kernel_escapes_is_told_and_taken_back(name: bytes) -> None:
    told = kmsg.escape(name)
    assert told.isascii()
    assert told.isprintable()
    assert kmsg.unescape(told) == name


@pytest.mark.skipif(bool(kmsg.missing()), reason=kmsg.missing() or "-")
@pytest.mark.parametrize("name", NAMES)
def test_a_line_with_any_name_arrives(name: bytes) -> None:
    log, pci = LocalKernelLog(), kmsg.reserve_pci("7e57ed", 1)
    [line] = xids.lines(31, pci, 7, kmsg.escape(name), secrets.token_hex(3))
    assert kmsg.write(line)["text"] == line
    assert log.xids(pci) == [31]
    log.close()


@pytest.fixture(params=[name for name in NAMES if len(name) < 16])
def odd(request: pytest.FixtureRequest) -> Iterator[tuple[int, bytes]]:
    """Pid and name of a process with an odd one."""
    program = (
        "import ctypes, sys; ctypes.CDLL(None).prctl(15, bytes.fromhex(sys.argv[1]), 0, 0, 0);"
        "print(flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", program, request.param.hex()]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process.pid, request.param


def test_a_process_with_any_name_is_told_from_others(odd: tuple[int, bytes]) -> None:
    pid, _ = odd
    found = kernel.stat_of(pid)
    assert found
    assert found[0] in "RS"
    assert found[1] > 0
    assert (pid, found[1]) in kernel.children_of(os.getpid())
    assert process.state(pid, found[1]) == "alive"


@pytest.mark.skipif(bool(kmsg.missing()), reason=kmsg.missing() or "-")
def test_an_error_of_a_process_with_any_name_is_reported(odd: tuple[int, bytes], tmp_path: Path) -> None:
    pid, name = odd
    card = Card(0, "GPU-0", kmsg.reserve_pci("7e57ed", 2), None)
    cards: Any = SimpleNamespace(missing=str, all=lambda: [card], by_uuid=lambda _: card, reading=lambda _: {})
    cards.processes = lambda _: {pid: 1}
    book = FaultBook(tmp_path / JOURNAL, [RealGpuDriver(cards, lambda _: [0])])

    async def inject() -> Fault:
        try:
            return await book.inject({"kind": "gpu", "type": "XID_ERROR", "xid": 31, "target": "node-a"})
        finally:
            book.close()

    fault = asyncio.run(inject())
    [line] = fault.evidence["kernel_log"]
    assert f"pid={pid}, name={kmsg.escape(name)}," in line["text"]
    json.dumps(fault.view(), ensure_ascii=False).encode()  # as every answer over HTTP is


def test_mounts_are_told_with_their_true_names() -> None:
    listing = b"a\\040b /sys/fs/c\\011g\\134roup cgroup2 rw 0 0\nx /\xff tmpfs rw 0 0\n"
    assert _mounts(listing) == [
        ["a b", "/sys/fs/c\tg\\roup", "cgroup2", "rw", "0", "0"],
        ["x", "/\udcff", "tmpfs", "rw", "0", "0"],
    ]


@pytest.mark.parametrize("name", ["b\u00fcro", "a/b", "a b", "-a", "\u0663", "", "a\n"])
def test_a_node_has_a_name_that_needs_no_escape_anywhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(Problem, match="of ASCII"):
        Network(False, tmp_path / "nodes").add(name, "worker")


def test_a_name_is_one_segment_of_a_path() -> None:
    asked: list[str] = []

    class Seen(FaultService):
        def call(self, method: str, path: str, body: Any = None) -> Any:
            asked.append(path)
            return {}

    Seen("http://127.0.0.1:9").get("f-1/../b\u00fcro?active=true#x")
    assert asked == ["/api/v1/faults/f-1%2F..%2Fb%C3%BCro%3Factive%3Dtrue%23x"]


def test_a_pod_of_any_cgroup_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = pods.Pod("dynamo/a", "1234-5678", "", "Running")
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"0::/kubepods\xff/pod1234_5678.slice\n")
    assert pods.is_of(1, pod)
