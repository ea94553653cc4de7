"""Faults as leases: what every agent does alike, whatever it breaks.

A fault is written to the journal before the first change, ends at its deadline unless it is ended before, and is
called ``recovered`` only after the state before has been compared with the state after. What is broken and how is the
business of a :class:`Driver`.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TextIO

STATES = ("pending", "active", "recovering", "recovered", "failed", "latched")
KINDS = ("process", "network", "gpu")
LIVE = ("pending", "active", "recovering")
DEFAULT_SECONDS, LONGEST_SECONDS = 300.0, 3600.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 60.0
"""Between attempts of an undo that fails."""
SEVERITIES = {"LOW": 0.25, "MEDIUM": 0.5, "HIGH": 0.75}
"""Severity -> share of speed, memory or load that is taken."""


class Problem(Exception):
    """A request that cannot be served; becomes an RFC 9457 problem+json answer."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail


class JournalInUse(RuntimeError):
    """A journal has another writer."""


@dataclass
class Plan:
    """What a fault would do, before anything is changed.

    Attributes:
        kind: ``process``, ``network`` or ``gpu``.
        type: which of its kind.
        targets: names of the nodes that suffer.
        touches: every object, rule and process that would be touched, one line each.
        undo: all that the undo needs, also after a restart of the agent; on disk before the first change.
        parameters: the strength and whatever else was asked for, with defaults filled in.
        severity: key of :data:`SEVERITIES` where one was given.
        fidelity: of a GPU fault: ``reported``, ``emulated`` or ``real``.
        conflicts: keys; a fault that has one in common with a live fault is refused.
        repair: what has to be repaired by other means; with it the fault ends as ``latched``.
        momentary: whether it is over as soon as it is done.
    """

    kind: str
    type: str
    targets: list[str]
    touches: list[str]
    undo: dict[str, Any]
    parameters: dict[str, Any] = field(default_factory=dict)
    severity: str | None = None
    fidelity: str | None = None
    conflicts: list[str] = field(default_factory=list)
    repair: str = ""
    momentary: bool = False


@dataclass
class Fault(Plan):
    """One deliberate damage; all of its plan and what has become of it.

    Attributes:
        deadline: when it ends, on CLOCK_MONOTONIC; ``created_at`` and ``expires_at`` are for readers (ISO 8601, UTC).
        evidence: what the agent did and saw. It proves nothing by itself; observers look at the victim.
        history: every state it has been in, with time and what was seen then.
    """

    id: str = ""
    deployment: str = ""
    state: str = "pending"
    duration_seconds: float = DEFAULT_SECONDS
    deadline: float = 0.0
    created_at: str = ""
    expires_at: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def owed(self) -> bool:
        """Whether its undo is still to be done: it is live, or an undo has failed."""
        return self.state in LIVE or (self.state == "failed" and "after" in self.evidence)

    def view(self) -> dict[str, Any]:
        """JSON form, whole."""
        return asdict(self) | {"owed": self.owed}

    def summary(self) -> dict[str, Any]:
        """JSON form for lists: no evidence, history, undo or touched objects."""
        left_out = ("evidence", "history", "undo", "touches", "conflicts")
        shown = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in left_out}
        return shown | {"owed": self.owed}


class Driver(Protocol):
    """How one kind of fault is made and undone. An agent may die at any moment: all methods but ``plan`` work from
    the fault alone. One more method, ``async resume(fault)``, is called after a restart of the agent where it exists.
    """

    def plan(self, body: dict[str, Any]) -> Plan:
        """Check a request and say what it would do; changes nothing.

        Raises:
            Problem: 404, 409, 422 or 501.
        """

    async def snapshot(self, fault: Fault) -> dict[str, Any]:
        """The state of what the fault touches, as the kernel has it."""

    async def apply(self, fault: Fault) -> None:
        """Do the damage; raw evidence goes to ``fault.evidence``."""

    async def undo(self, fault: Fault) -> None:
        """Undo it; a second call changes nothing."""

    def differences(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """In words, what is not as it was; [] when all is."""

    def capabilities(self) -> dict[str, dict[str, Any]]:
        """``KIND.TYPE`` -> ``available`` and ``detail``."""


def read_journal(path: Path) -> dict[str, Fault]:
    """Faults by id as a journal has them last; a line cut short by a crash is left out, and so is in a line what only
    an agent of another version knows.
    """
    found = {}
    known = {each.name for each in fields(Fault)}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                found[entry["id"]] = Fault(**{name: value for name, value in entry.items() if name in known})
    return found


class FaultBook:
    """All faults of one agent: its journal, its leases, its drivers.

    Args:
        journal: file, made if missing; locked from the first use on, for a journal has one writer.
        drivers: kind -> driver.
        deployment: name of the deployment that the agent belongs to.
    """

    def __init__(self, journal: Path, drivers: Mapping[str, Driver], deployment: str = "local") -> None:
        self.journal, self.drivers, self.deployment = journal, drivers, deployment
        self.faults: dict[str, Fault] = {}
        self._leases: dict[str, asyncio.TimerHandle] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stream: TextIO | None = None
        self._texts: dict[str, tuple[int, str]] = {}

    # -- the journal

    def hold(self) -> TextIO:
        """Become the journal's one writer, as long as this process lives; done by the first use at the latest.

        Raises:
            JournalInUse: another process is.
        """
        if self._stream is None:
            stream = self.journal.open("a", encoding="utf-8")
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.close()
                raise JournalInUse(f"{self.journal} has a writer: the agent that it belongs to is alive") from None
            if stream.tell() and not self.journal.read_bytes().endswith(b"\n"):
                stream.write("\n")  # a crash has cut the last line short; the next may not be lost with it
            self._stream = stream
        return self._stream

    def _write(self, fault: Fault) -> None:
        stream = self.hold()
        stream.write(json.dumps(asdict(fault)) + "\n")
        stream.flush()
        os.fsync(stream.fileno())

    def _move(self, fault: Fault, state: str, **seen: Any) -> None:
        fault.state = state
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        fault.history.append({"at": time.monotonic(), "time": moment, "state": state} | seen)
        self._write(fault)

    def replay(self) -> None:
        """Take up what an agent before this one has left: live faults are armed again, half-made ones undone.

        Raises:
            JournalInUse: that agent is still alive.
        """
        self.hold()
        self.faults = read_journal(self.journal)
        for fault in self.faults.values():
            # Monotonic time begins anew when the machine does.
            fault.deadline = min(fault.deadline, time.monotonic() + fault.duration_seconds)
            if fault.state == "active":
                self._arm(fault)
                self._spawn(self._resume(fault))
            elif fault.owed:
                self._spawn(self.recover(fault.id, "again" if fault.state == "failed" else "call"))

    async def _resume(self, fault: Fault) -> None:
        resume = getattr(self._driver(fault.kind), "resume", None)
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
        tries = sum(entry["state"] == "failed" for entry in fault.history)
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(tries, 10))
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
        """Faults in short, as a JSON array: ``all``, ``active`` (live) or ``owed``; what has not changed is not written
        anew.
        """
        texts = []
        for fault in {"active": self.live, "owed": self.owed}.get(which, self.faults.values)():
            if not fault.history:
                continue  # not written down yet
            changes, text = self._texts.get(fault.id, (0, ""))
            if changes != len(fault.history):
                text = json.dumps(fault.summary())
                self._texts[fault.id] = (len(fault.history), text)
            texts.append(text)
        return f"[{','.join(texts)}]"

    def get(self, fault_id: str) -> Fault:
        """One fault; :class:`Problem` 404 when there is none."""
        if fault_id not in self.faults:
            raise Problem(404, "Unknown fault", f"no fault {fault_id!r}; GET /api/v1/faults lists them")
        return self.faults[fault_id]

    def _driver(self, kind: str) -> Driver:
        if kind in self.drivers:
            return self.drivers[kind]
        if kind in KINDS:
            raise Problem(501, "Not here", self.not_here(kind))
        raise Problem(422, "Unknown kind of fault", f"kind {kind!r}; allowed: {', '.join(self.drivers)}")

    def not_here(self, kind: str) -> str:
        """Why a kind of fault cannot be had of this agent."""
        return f"the agent of {self.deployment!r} makes faults of kind {', '.join(self.drivers)} only, none of {kind}"

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
            Problem: 409 when a live fault is in the way, and what the driver raises.
        """
        self.duration(body)
        plan = self._driver(str(body.get("kind"))).plan(body)
        for other in self.owed():
            if shared := set(plan.conflicts) & set(other.conflicts):
                what = ", ".join(sorted(shared))
                detail = f"{what} is under fault {other.id} ({other.type}) already; recover that first"
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
        driver = self._driver(fault.kind)
        async with self._locks[fault.id]:
            try:
                fault.evidence["before"] = await driver.snapshot(fault)
            except BaseException:
                del self.faults[fault.id]  # nothing is done yet, and nothing written down
                raise
            self._move(fault, "pending")
            self._arm(fault)
            try:
                await driver.apply(fault)
            except BaseException as error:
                self._disarm(fault)
                try:
                    await driver.undo(fault)
                except (Problem, OSError) as trouble:
                    fault.evidence |= {"after": {}, "differences": [str(trouble)]}
                    self._retry(fault)
                self._move(fault, "failed", error=str(error))
                raise
            self._move(fault, "active")
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
            driver = self._driver(fault.kind)
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
        self.hold()
        self.faults = read_journal(self.journal)
        states = {fault.id: len(fault.history) for fault in self.faults.values()}
        found = [await self.recover(fault_id) for fault_id in reversed(states)]
        return [fault for fault in found if len(fault.history) > states[fault.id]]

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

    def forget(self, why: str, left: list[str]) -> None:
        """Forget all faults; those whose undo was owed are over if all that they touched is gone.

        Args:
            left: in words, what of it the kernel still shows.
        """
        for fault in self.owed():
            fault.evidence |= {"after": {}, "differences": left}
            self._move(fault, "failed" if left else "recovered", why=why, differences=left)
        for records in (self.faults, self._locks, self._texts):
            records.clear()
