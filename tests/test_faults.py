"""Leases whose driver has trouble: nothing is forgotten, nothing is said to be undone that is not."""

import asyncio
import errno
import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agents.core import book as books
from agents.core.book import FaultBook
from agents.core.faults import Fault, Plan, Problem, Type
from agents.core.journal import BALLAST_BYTES, COMPACT_BYTES, read_journal
from agents.core.leases import JOURNAL, Leases
from agents.node import processes
from agents.node.network import Network
from agents.node.process import Spec
from agents.node.processes import ProcessTable

ORDER = {"kind": "gpu", "type": "switch", "duration_seconds": 60}


class Driver:
    """A switch; each of ``trouble`` fails as often as it is named there."""

    kind, types = "gpu", (Type("switch"),)

    def __init__(self, *trouble: str) -> None:
        self.trouble, self.on = list(trouble), False

    def _do(self, what: str) -> None:
        if what in self.trouble:
            self.trouble.remove(what)
            raise Problem(500, "Trouble", f"cannot {what}")

    def plan(self, body: dict[str, Any]) -> Plan:
        return Plan("gpu", "switch", ["here"], ["the switch"], {}, conflicts=["switch"])

    async def snapshot(self, fault: Fault) -> dict[str, Any]:
        self._do("look")
        return {"on": self.on}

    async def apply(self, fault: Fault) -> None:
        self.on = True
        self._do("apply")

    async def undo(self, fault: Fault) -> None:
        self._do("undo")
        self.on = False

    def differences(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        return [] if before == after else [f"{before} became {after}"]

    def capabilities(self) -> dict[str, dict[str, Any]]:
        return {}


def play(folder: Path, driver: Driver, work: Callable[[FaultBook], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        book = FaultBook(folder / JOURNAL, [driver])
        await work(book)
        book.close()

    asyncio.run(run())


def test_undo_that_fails_is_owed_stands_in_the_way_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "FIRST_PAUSE_SECONDS", 0.05)
    driver = Driver("undo", "undo")

    async def work(book: FaultBook) -> None:
        fault = await book.inject(ORDER)
        assert (await book.recover(fault.id)).state == "failed"
        assert (driver.on, Leases(tmp_path / JOURNAL).owed()) == (True, [fault.id])
        with pytest.raises(Problem, match=f"under fault {fault.id}"):
            book.plan(ORDER)
        async with asyncio.timeout(10):
            while fault.state != "recovered":
                await asyncio.sleep(0.02)
        assert [entry["why"] for entry in fault.history if "why" in entry] == ["call", "again", "again"]
        assert (driver.on, Leases(tmp_path / JOURNAL).owed()) == (False, [])

    play(tmp_path, driver, work)


def test_half_made_fault_that_cannot_be_undone_is_owed(tmp_path: Path) -> None:
    driver = Driver("apply", "undo")

    async def work(book: FaultBook) -> None:
        with pytest.raises(Problem, match="cannot apply"):
            await book.inject(ORDER)
        [fault] = book.owed()
        assert (fault.state, driver.on) == ("failed", True)
        assert read_journal(tmp_path / JOURNAL)[fault.id].owed
        assert (await book.recover_all())[0].state == "recovered"
        assert not driver.on

    play(tmp_path, driver, work)


def test_half_made_fault_that_is_undone_is_over(tmp_path: Path) -> None:
    driver = Driver("apply")

    async def work(book: FaultBook) -> None:
        with pytest.raises(Problem, match="cannot apply"):
            await book.inject(ORDER)
        assert (book.owed(), driver.on) == ([], False)

    play(tmp_path, driver, work)


def test_target_that_cannot_be_looked_at_is_left_alone(tmp_path: Path) -> None:
    driver = Driver("look")

    async def work(book: FaultBook) -> None:
        with pytest.raises(Problem, match="cannot look"):
            await book.inject(ORDER)
        assert (book.faults, driver.on) == ({}, False)
        assert (await book.inject(ORDER)).state == "active"

    play(tmp_path, driver, work)


@pytest.mark.parametrize(("left", "state"), [([], "recovered"), (["process 7"], "failed")])
def test_a_fault_is_forgotten_as_recovered_only_if_nothing_is_left(tmp_path: Path, left: list[str], state: str) -> None:
    async def work(book: FaultBook) -> None:
        fault = await book.inject(ORDER)
        book.forget("the deployment is gone", left)
        assert book.faults == {}
        found = read_journal(tmp_path / JOURNAL)[fault.id]
        assert (found.state, found.evidence["differences"]) == (state, left)

    play(tmp_path, Driver(), work)


def test_a_failed_undo_is_listed_as_owed(tmp_path: Path) -> None:
    async def work(book: FaultBook) -> None:
        fault = await book.inject(ORDER)
        await book.recover(fault.id)
        listed = {which: [each["id"] for each in json.loads(book.listing(which))] for which in ("active", "owed")}
        assert listed == {"active": [], "owed": [fault.id]}

    play(tmp_path, Driver("undo"), work)


def test_a_fault_that_is_not_written_down_yet_spoils_no_list(tmp_path: Path) -> None:
    driver, lists = Driver(), []

    async def work(book: FaultBook) -> None:
        look = driver.snapshot

        async def snapshot(fault: Fault) -> dict[str, Any]:
            lists.append(json.loads(book.listing()))
            return await look(fault)

        first = await book.inject(ORDER)
        await book.recover(first.id)
        driver.snapshot = snapshot  # type: ignore[method-assign]
        await book.inject(ORDER)
        lists.append(json.loads(book.listing()))

    play(tmp_path, driver, work)
    assert [len(each) for each in lists] == [1, 2]


# -- the journal

RETRIES = 2_000
"""Of an undo that cannot succeed: the journal is written anew several times over, and what is left after the last time
is the same after a year.
"""


def test_a_year_of_retries_fills_neither_the_disk_nor_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    journal, driver, largest = tmp_path / JOURNAL, Driver(*["undo"] * (RETRIES + 1)), 0

    async def work(book: FaultBook) -> None:
        nonlocal largest
        leases = Leases(journal)
        fault = await book.inject(ORDER)
        for count in range(RETRIES):
            await book.recover(fault.id, "again")
            largest = max(largest, journal.stat().st_size)
            if count % 1000 == 0:
                assert leases.owed() == [fault.id]
        assert (fault.state, fault.attempts, len(fault.history)) == ("failed", RETRIES, 32)
        # Every state counts, pending and active at the beginning and two of each attempt.
        assert 31 + next(each["left_out"] for each in fault.history if "left_out" in each) + 1 == 2 + 2 * RETRIES
        assert len(json.dumps(fault.view())) < 10_000
        found = read_journal(journal)[fault.id]
        assert found.view() == fault.view()
        driver.trouble.clear()
        assert (await book.recover(fault.id)).state == "recovered"
        assert leases.owed() == []

    play(tmp_path, driver, work)
    assert largest < COMPACT_BYTES + 10_000
    before = journal.stat().st_size
    play(tmp_path, Driver(), replay)
    assert journal.stat().st_size < 10_000 < before


async def replay(book: FaultBook) -> None:
    book.replay()


def test_a_line_has_what_has_changed_and_no_more(tmp_path: Path) -> None:
    async def work(book: FaultBook) -> None:
        fault = await book.inject(ORDER)
        await book.recover(fault.id)

    play(tmp_path, Driver(), work)
    lines = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert [line["state"] for line in lines] == ["pending", "active", "recovering", "recovered"]
    assert [len(line["history"]) for line in lines] == [1, 1, 1, 1]
    assert [sorted(line["evidence"]) for line in lines] == [["before"], [], [], ["after", "differences"]]
    assert all("touches" not in line for line in lines[1:])


def test_a_journal_of_an_older_version_is_taken_up_and_becomes_small(tmp_path: Path) -> None:
    driver, journal = Driver("undo"), tmp_path / JOURNAL

    async def begin(book: FaultBook) -> None:
        await book.recover((await book.inject(ORDER)).id)

    play(tmp_path, driver, begin)
    [fault] = read_journal(journal).values()
    old = {name: value for name, value in fault.view().items() if name not in ("attempts", "owed")}
    history = [old["history"][-1] | {"differences": ["cannot undo"]}] * 400
    lines = [json.dumps(old | {"history": history[: count + 1]}) for count in range(400)]
    journal.write_text("\n".join(lines) + "\n" + lines[0][:70])
    before = journal.stat().st_size

    async def take_up(book: FaultBook) -> None:
        assert Leases(journal).owed() == [fault.id]
        book.replay()
        assert (book.get(fault.id).attempts, journal.stat().st_size < before / 100) == (400, True)
        assert Leases(journal).owed() == [fault.id]
        assert (await book.recover(fault.id)).state == "recovered"
        assert Leases(journal).owed() == []

    play(tmp_path, driver, take_up)


def test_at_any_byte_a_crash_leaves_a_journal_that_can_be_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)

    async def work(book: FaultBook) -> None:
        await book.recover((await book.inject(ORDER)).id)
        await book.inject(ORDER)

    play(tmp_path, Driver(), work)
    whole = (tmp_path / JOURNAL).read_bytes()
    ends = [place for place, letter in enumerate(whole) if letter == ord("\n")]
    for cut in {*range(0, len(whole), 17), *ends, *(end + 1 for end in ends)}:
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / JOURNAL).write_bytes(whole[:cut])
        found = read_journal(folder / JOURNAL)
        assert sum(len(fault.history) for fault in found.values()) == sum(end < cut for end in ends)

        async def go_on(book: FaultBook) -> None:
            await book.end_journal()
            await book.recover((await book.inject(ORDER)).id)

        play(folder, Driver(), go_on)
        after = read_journal(folder / JOURNAL)
        assert {fault.state for fault in after.values()} == {"recovered"}
        assert len(after) == len(found) + 1


# -- a disk that is full


class Disk:
    """Writes to a journal's folder fail for want of room while it is ``full``; with a ballast that is there to be given
    up there is room again.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self._ballast = False, (folder / JOURNAL).with_suffix(".ballast")
        fsync = os.fsync

        def full(handle: int) -> None:
            if self.full and not (self.freed and not self._ballast.exists()):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(handle)

        monkeypatch.setattr(os, "fsync", full)
        self.freed = True


def test_a_full_disk_refuses_a_fault_and_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, driver = Disk(tmp_path, monkeypatch), Driver()

    async def work(book: FaultBook) -> None:
        await book.recover((await book.inject(ORDER)).id)
        disk.full = True
        before = (tmp_path / JOURNAL).read_bytes()
        with pytest.raises(Problem, match="nothing was done") as refusal:
            await book.inject(ORDER)
        assert (refusal.value.status, driver.on) == (507, False)
        assert ((tmp_path / JOURNAL).read_bytes(), len(json.loads(book.listing()))) == (before, 1)
        disk.full = False
        assert (await book.inject(ORDER)).state == "active"

    play(tmp_path, driver, work)


def test_the_end_of_a_fault_has_room_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, driver = Disk(tmp_path, monkeypatch), Driver()
    ballast = (tmp_path / JOURNAL).with_suffix(".ballast")

    async def work(book: FaultBook) -> None:
        fault = await book.inject(ORDER)
        assert ballast.stat().st_size == BALLAST_BYTES
        assert ballast.stat().st_blocks * 512 >= BALLAST_BYTES
        disk.full = True
        await book.recover(fault.id)
        assert (driver.on, read_journal(tmp_path / JOURNAL)[fault.id].state) == (False, "recovered")
        disk.freed = False
        with pytest.raises(Problem, match="No space left"):
            await book.inject(ORDER)
        disk.full = False
        await book.inject(ORDER)
        assert ballast.exists()

    play(tmp_path, driver, work)


def test_a_fault_that_is_made_and_cannot_be_written_down_is_listed_undone_and_written_down_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "WRITE_AGAIN_SECONDS", 0.05)
    disk, driver = Disk(tmp_path, monkeypatch), Driver()
    disk.freed = False

    async def work(book: FaultBook) -> None:
        apply = driver.apply

        async def fill(fault: Fault) -> None:
            await apply(fault)
            disk.full = True

        driver.apply = fill  # type: ignore[method-assign]
        with pytest.raises(Problem, match="was undone") as refusal:
            await book.inject(ORDER)
        assert (refusal.value.status, driver.on) == (507, False)
        [listed] = json.loads(book.listing())
        assert (listed["state"], read_journal(tmp_path / JOURNAL)[listed["id"]].state) == ("failed", "pending")
        disk.full = False
        async with asyncio.timeout(10):
            while read_journal(tmp_path / JOURNAL)[listed["id"]].state != "failed":
                await asyncio.sleep(0.02)
        assert read_journal(tmp_path / JOURNAL)[listed["id"]].view() == book.get(listed["id"]).view()

    play(tmp_path, driver, work)


def test_a_full_disk_keeps_no_undo_from_being_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, driver = Disk(tmp_path, monkeypatch), Driver()
    disk.freed = False

    async def work(book: FaultBook) -> None:
        fault = await book.inject(ORDER)
        disk.full = True
        assert ((await book.recover(fault.id)).state, driver.on) == ("recovered", False)

    play(tmp_path, driver, work)


# -- the processes of nodes


def test_a_process_that_ends_over_and_over_fills_neither_the_disk_nor_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LONGEST_HISTORY", 100)
    table, largest = ProcessTable(Network(False, tmp_path / "nodes"), tmp_path), 0
    for count in range(1000):
        table.note("node-0", "dead", f"for the {count}. time")
        largest = max(largest, sum(file.stat().st_size for file in tmp_path.iterdir()))
    assert largest < 30_000

    async def heir() -> list[dict[str, Any]]:
        found = ProcessTable(Network(False, tmp_path / "nodes"), tmp_path)
        found.adopt()
        return found.history

    assert asyncio.run(heir())[:-1] == table.history[1:]
    assert len(table.history) == 100


def test_a_full_disk_refuses_a_process_and_stops_none(tmp_path: Path) -> None:
    table = ProcessTable(Network(False, tmp_path / "nodes"), tmp_path)
    table.network.add("node-0", "worker")
    (tmp_path / "processes.new").mkdir()  # cannot be written
    (tmp_path / "history.jsonl").mkdir()
    with pytest.raises(Problem, match=r"processes\.json") as refusal:
        table.add(Spec("node-0", ["true"], {}, str(tmp_path / "log")))
    assert (refusal.value.status, table.processes) == (507, {})
    table.note("node-0", "dead")
    assert table.history[-1]["state"] == "dead"
