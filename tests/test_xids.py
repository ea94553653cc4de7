"""XID errors: the lines that are written are taken for what they are by those who read the kernel log for a living."""

import json
import re

import pytest

from agents import kmsg, xids
from support.faults.gpu import SEQUENCES
from support.observe.kernel_log import KernelLog
from support.observe.waiting import until
from support.settings import ROOT

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
    log, pci = KernelLog(), kmsg.reserve_pci("7e57ed", 0)
    line = xids.lines(31, pci, 7, "python3", "abc123")[0]
    assert kmsg.write(line)["text"] == line
    until(lambda: None if log.xids(pci) == [31] else str(log.xids(pci)), 2, "the observer sees it")
    log.close()


@pytest.mark.skipif(bool(kmsg.missing()), reason=kmsg.missing() or "-")
def test_a_line_that_is_too_long_is_refused_in_words() -> None:
    with pytest.raises(kmsg.KernelLogError, match="too long"):
        kmsg.write("x" * 5000)
