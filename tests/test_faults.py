"""Leases whose driver has trouble: nothing is forgotten, nothing is said to be undone that is not."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agents import faults
from agents.faults import Fault, FaultBook, Plan, Problem, read_journal
from agents.watchdog import JOURNAL, Leases

ORDER = {"kind": "gpu", "duration_seconds": 60}


class Driver:
    """A switch; each of ``trouble`` fails as often as it is named there."""

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
        book = FaultBook(folder / JOURNAL, {"gpu": driver})
        await work(book)
        book.close()

    asyncio.run(run())


def test_undo_that_fails_is_owed_stands_in_the_way_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "FIRST_PAUSE_SECONDS", 0.05)
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
