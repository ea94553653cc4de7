"""The book of an agent's faults: leases, which every agent keeps alike, whatever it breaks.

A fault is written to the journal before the first change, ends at its deadline unless it is ended before, and is
called ``recovered`` only after the state before has been compared with the state after. What is broken and how is the
business of a :class:`agents.core.faults.Driver`.
"""

import asyncio
import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agents.core.faults import DEFAULT_SECONDS, KINDS, LIVE, LONGEST_SECONDS, Driver, Fault, Plan, Problem, Type
from agents.core.journal import Journal

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 60.0
"""Between attempts of an undo that fails."""
ENDED_KEPT = 1000
"""Faults that are over, the newest ones, that a journal keeps when it is rewritten."""
WRITE_AGAIN_SECONDS = 5.0


class FaultBook:
    """All faults of one agent: its journal, its leases, its drivers.

    Args:
        journal: file, see :class:`agents.core.journal.Journal`.
        drivers: of different types of faults each.
        deployment: name of the deployment that the agent belongs to.
    """

    def __init__(self, journal: Path, drivers: Sequence[Driver], deployment: str = "local") -> None:
        self.journal, self.drivers, self.deployment = Journal(journal), drivers, deployment
        self.faults: dict[str, Fault] = {}
        self._leases: dict[str, asyncio.TimerHandle] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._texts: dict[str, tuple[int, str]] = {}
        self._changes: Counter[str] = Counter()
        self._later: asyncio.TimerHandle | None = None

    # -- what is written down

    def _write(self, fault: Fault) -> None:
        self.journal.write(fault)
        if self.journal.has_grown():
            self._compact()

    def _compact(self) -> None:
        """Have the journal rewritten, without most of what is over."""
        ended = [fault.id for fault in self.faults.values() if not fault.owed]
        for fault_id in ended[: max(0, len(ended) - ENDED_KEPT)]:
            self._drop(fault_id)
        self.journal.rewrite(self.faults.values())

    def _drop(self, fault_id: str) -> None:
        for records in (self.faults, self._locks, self._texts, self._changes):
            records.pop(fault_id, None)
        self.journal.forget(fault_id)

    def _note(self, fault: Fault, state: str, seen: dict[str, Any]) -> None:
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"at": time.monotonic(), "time": moment, "state": state} | seen
        fault.state = state
        fault.attempts += state == "failed"
        fault.add_history([entry])
        self.journal.note(fault.id, entry)
        self._changes[fault.id] += 1

    def _begin(self, fault: Fault) -> None:
        """Write down that a fault is about to be made.

        Raises:
            Problem: 507, there is no room for that, or none would be left for its end.
        """
        self._note(fault, "pending", {})
        try:
            self.journal.take_ballast()
            self._write(fault)
        except OSError as error:
            self.journal.drop_half_a_ballast()
            detail = f"{self.journal.path}: {error.strerror}; nothing was done"
            raise Problem(507, "No room for the journal", detail) from None

    def _move(self, fault: Fault, state: str, **seen: Any) -> bool:
        """Note the next state of a fault that the journal knows; a disk that is full keeps none from its end.

        Returns:
            whether the journal has it; else it will as soon as there is room.
        """
        self._note(fault, state, seen)
        try:
            try:
                self._write(fault)
            except OSError:
                self.journal.drop_ballast()
                self._write(fault)
        except OSError as error:
            print(f"{self.journal.path}: {error.strerror}: {fault.id} is {state}", file=sys.stderr, flush=True)
            self._write_later()
            return False
        return True

    def _write_later(self) -> None:
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(WRITE_AGAIN_SECONDS, self._catch_up)

    def _catch_up(self) -> None:
        """Write down what there was no room for."""
        self._later = None
        for fault_id in self.journal.behind():
            try:
                self._write(self.faults[fault_id])
            except OSError:
                self._write_later()
                return

    def replay(self) -> None:
        """Take up what an agent before this one has left: live faults are armed again, half-made ones undone.

        Raises:
            JournalInUse: that agent is still alive.
        """
        self._take_over()
        for fault in self.faults.values():
            # Monotonic time begins again when the machine does.
            fault.deadline = min(fault.deadline, time.monotonic() + fault.duration_seconds)
            if fault.state == "active":
                self._arm(fault)
                self._spawn(self._resume(fault))
            elif fault.owed:
                self._spawn(self.recover(fault.id, "again" if fault.state == "failed" else "call"))

    def _take_over(self) -> None:
        self.faults = self.journal.take_up()
        self._compact()

    async def _resume(self, fault: Fault) -> None:
        resume = getattr(self._driver(fault.kind, fault.type), "resume", None)
        if resume is None:
            return
        try:
            async with self._locks.setdefault(fault.id, asyncio.Lock()):
                if fault.state == "active":
                    await resume(fault)
        except (Problem, OSError) as error:
            fault.evidence["resume"] = str(error)
            await self.recover(fault.id, "not resumed")

    # -- leases

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _arm(self, fault: Fault) -> None:
        loop = asyncio.get_running_loop()
        # asyncio's clock is CLOCK_MONOTONIC, the deadline's own.
        self._leases[fault.id] = loop.call_at(fault.deadline, lambda: self._spawn(self.recover(fault.id, "deadline")))

    def _retry(self, fault: Fault) -> None:
        """Try a failed undo again, each time after a longer pause."""
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(fault.attempts, 10))
        loop = asyncio.get_running_loop()
        again = lambda: self._spawn(self.recover(fault.id, "again"))  # noqa: E731
        self._leases[fault.id] = loop.call_later(pause, again)

    def _disarm(self, fault: Fault) -> None:
        timer = self._leases.pop(fault.id, None)
        if timer:
            timer.cancel()

    # -- what can be asked

    def owed(self) -> list[Fault]:
        """Faults that are not over, or whose undo has failed."""
        return [fault for fault in self.faults.values() if fault.owed]

    def live(self) -> list[Fault]:
        """Faults that are not over."""
        return [fault for fault in self.faults.values() if fault.state in LIVE]

    def listing(self, which: str = "all") -> str:
        """Faults in short, as a JSON array: ``all``, ``active`` (live) or ``owed``; what has not changed is reused."""
        texts = []
        for fault in {"active": self.live, "owed": self.owed}.get(which, self.faults.values)():
            if not fault.history:
                continue  # not written down yet
            changes, text = self._texts.get(fault.id, (0, ""))
            if not text or changes != self._changes[fault.id]:
                text = json.dumps(fault.summary())
                self._texts[fault.id] = (self._changes[fault.id], text)
            texts.append(text)
        return f"[{','.join(texts)}]"

    def get(self, fault_id: str) -> Fault:
        """One fault; :class:`Problem` 404 when there is none."""
        if fault_id not in self.faults:
            raise Problem(404, "Unknown fault", f"no fault {fault_id!r}; GET /api/v1/faults lists them")
        return self.faults[fault_id]

    def _driver(self, kind: str, type_: Any) -> Driver:
        drivers = [each for each in self.drivers if each.kind == kind]
        if not drivers:
            if kind in KINDS:
                raise Problem(501, "Not here", self.not_here(kind))
            raise Problem(422, "Unknown kind of fault", f"kind {kind!r}; allowed: {', '.join(self.kinds)}")
        for driver in drivers:
            if type_ in [each.name for each in driver.types]:
                return driver
        allowed = ", ".join(each.name for driver in drivers for each in driver.types)
        raise Problem(422, "Unknown fault type", f"type {type_!r}; allowed: {allowed}")

    @property
    def kinds(self) -> list[str]:
        """The kinds of faults that it makes."""
        return list(dict.fromkeys(each.kind for each in self.drivers))

    def not_here(self, kind: str) -> str:
        """Why a kind of fault cannot be had of this agent."""
        return f"the agent of {self.deployment!r} makes faults of kind {', '.join(self.kinds)} only, not {kind}"

    async def view(self, fault_id: str) -> dict[str, Any]:
        """One fault, whole; while it is active with what its driver sees right now."""
        fault = self.get(fault_id)
        look = getattr(self._driver(fault.kind, fault.type), "look", None)
        if look and fault.state == "active":
            await look(fault)
        return fault.view()

    @staticmethod
    def duration(body: Mapping[str, Any]) -> float:
        """Seconds that a request wants its fault to last; :class:`Problem` 422 when that cannot be."""
        given = body.get("duration_seconds")
        seconds = DEFAULT_SECONDS if given is None else given
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_SECONDS:
            detail = f"duration_seconds {seconds!r}; expected a number above 0 and at most {LONGEST_SECONDS:g}"
            raise Problem(422, "Bad duration", detail)
        return float(seconds)

    def plan(self, body: dict[str, Any]) -> Plan:
        """What a request would do, all checks included; changes nothing.

        Raises:
            Problem: 409 when a live fault is in the way; 422 or 501 when there is no such type; what its driver raises.
        """
        self.duration(body)
        driver = self._driver(str(body.get("kind")), body.get("type"))
        _check_options(next(each for each in driver.types if each.name == body["type"]), body)
        plan = driver.plan(body)
        for other in self.owed():
            if shared := set(plan.conflicts) & set(other.conflicts):
                what = ", ".join(sorted(shared))
                detail = f"{what} is already under fault {other.id} ({other.type}); recover that one first"
                raise Problem(409, "Conflicting fault", detail)
        return plan

    async def inject(self, body: dict[str, Any]) -> Fault:
        """Make a fault; returns when the damage is done, with the raw evidence.

        Raises:
            Problem: it was refused, or failed; then what was half done has been undone.
        """
        plan, seconds = self.plan(body), self.duration(body)
        now = datetime.now(UTC)
        fault = Fault(
            **{each.name: getattr(plan, each.name) for each in fields(plan)},
            id=f"f-{secrets.token_hex(4)}",
            deployment=self.deployment,
            duration_seconds=seconds,
            deadline=time.monotonic() + seconds,
            created_at=now.isoformat(timespec="milliseconds"),
            expires_at=(now + timedelta(seconds=seconds)).isoformat(timespec="milliseconds"),
        )
        self.faults[fault.id] = fault
        self._locks[fault.id] = asyncio.Lock()
        driver = self._driver(fault.kind, fault.type)
        async with self._locks[fault.id]:
            try:
                fault.evidence["before"] = await driver.snapshot(fault)
                self._begin(fault)
            except BaseException:
                self._drop(fault.id)  # nothing is done yet, and nothing written down
                raise
            self._arm(fault)
            try:
                await driver.apply(fault)
                if not self._move(fault, "active"):
                    raise Problem(507, "No room for the journal", f"{self.journal.path}: {fault.id} was undone")
            except BaseException as error:
                self._disarm(fault)
                try:
                    await driver.undo(fault)
                except (Problem, OSError) as trouble:
                    fault.evidence |= {"after": {}, "differences": [str(trouble)]}
                    self._retry(fault)
                self._move(fault, "failed", error=str(error))
                raise
        return await self.recover(fault.id, "over") if fault.momentary else fault

    async def recover(self, fault_id: str, why: str = "call") -> Fault:
        """Undo a fault and compare before with after; a second call changes nothing, a failed undo is tried again.

        Args:
            why: ``call``, ``deadline``, ``over``, ``again`` (an undo has failed before) or ``not resumed`` (a new agent
                could not take it up).
        """
        fault = self.get(fault_id)
        async with self._locks.setdefault(fault_id, asyncio.Lock()):
            if not fault.owed:
                return fault
            driver = self._driver(fault.kind, fault.type)
            self._move(fault, "recovering", why=why)
            try:
                await driver.undo(fault)
                after = await driver.snapshot(fault)
                wrong = driver.differences(fault.evidence.get("before", {}), after)
            except (Problem, OSError) as error:
                after, wrong = {}, [str(error)]
            self._disarm(fault)
            fault.evidence |= {"after": after, "differences": wrong}
            if wrong:
                self._move(fault, "failed", differences=wrong)
                self._retry(fault)
            else:
                self._move(fault, "latched" if fault.repair else "recovered")
        return fault

    async def end_journal(self) -> list[Fault]:
        """Undo whatever an agent that is gone has left, failed undos included, without a lease or a server.

        Returns:
            the faults that were touched, the newest first.

        Raises:
            JournalInUse: the agent is not gone.
        """
        self._take_over()
        found = [await self.recover(fault_id) for fault_id in reversed(list(self.faults))]
        return [fault for fault in found if self._changes[fault.id]]

    async def recover_all(self) -> list[Fault]:
        """Undo every fault that is not over, failed undos included, the newest first, and return them."""
        return [await self.recover(fault.id) for fault in reversed(self.owed())]

    def close(self) -> None:
        """Undo nothing any more; for an agent whose world is about to end as a whole."""
        for timer in self._leases.values():
            timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        self._leases.clear()
        if self._later:
            self._later.cancel()

    def forget(self, why: str, left: list[str]) -> None:
        """Forget all faults; those whose undo was owed are over if all that they touched is gone.

        Args:
            left: in words, what of it the kernel still shows.
        """
        for fault in self.owed():
            fault.evidence |= {"after": {}, "differences": left}
            self._move(fault, "failed" if left else "recovered", why=why, differences=left)
        for fault_id in list(self.faults):
            self._drop(fault_id)


def _check_options(asked: Type, body: Mapping[str, Any]) -> None:
    if asked.nowhere:
        raise Problem(501, "Not here", asked.nowhere)
    given = body.get("parameters") or {}
    if not isinstance(given, dict):
        raise Problem(422, "Bad parameters", f"parameters is {given!r}; expected an object")
    if unknown := sorted(set(given) - set(asked.options)):
        allowed = ", ".join(asked.options) or "none"
        raise Problem(422, "Unknown parameter", f"parameter {unknown[0]!r} of {asked.name}; allowed: {allowed}")
