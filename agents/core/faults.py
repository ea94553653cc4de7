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
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Protocol

STATES = ("pending", "active", "recovering", "recovered", "failed", "latched")
KINDS = ("process", "network", "gpu")
LIVE = ("pending", "active", "recovering")
DEFAULT_SECONDS, LONGEST_SECONDS = 300.0, 3600.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 60.0
"""Between attempts of an undo that fails."""
FIRST_KEPT, LAST_KEPT = 8, 24
"""Entries of a fault's history that are kept of a longer one: an undo that cannot succeed is tried for ever."""
ENDED_KEPT = 1000
"""Faults that are over, the newest ones, that a journal keeps when it is written anew."""
COMPACT_BYTES = 256 * 1024
"""Growth after which a journal is written anew, one line per fault."""
BALLAST_BYTES = 256 * 1024
"""Kept free on the journal's disk for the ends of faults that have begun."""
WRITE_AGAIN_SECONDS = 5.0
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
        history: every state it has been in, with time and what was seen then; of a long one the first
            :data:`FIRST_KEPT` and the last :data:`LAST_KEPT`, with ``left_out``, a number, at the gap.
        attempts: undos of it that have failed.
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
    attempts: int = 0

    def add_history(self, entries: list[dict[str, Any]]) -> None:
        """Note new states; what is too old to matter is left out."""
        self.history += entries
        gap = len(self.history) - FIRST_KEPT - LAST_KEPT
        if gap > 0:
            out = self.history[FIRST_KEPT : FIRST_KEPT + gap]
            del self.history[FIRST_KEPT : FIRST_KEPT + gap]
            self.history[FIRST_KEPT]["left_out"] = sum(1 + entry.get("left_out", 0) for entry in out)

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

    The first line of a fault is whole, and so is each line of an older version. Any other has what has changed since:
    fields, keys of the evidence, new entries of the history.
    """
    found: dict[str, Fault] = {}
    if path.exists():
        with path.open("rb") as stream:
            for line in stream:
                with contextlib.suppress(ValueError):
                    if line.endswith(b"\n"):
                        _take_up(found, json.loads(line))
    return found


def _take_up(found: dict[str, Fault], entry: dict[str, Any]) -> None:
    known = {each.name for each in fields(Fault)}
    told = {name: value for name, value in entry.items() if name in known}
    if "kind" in told:
        fault = found[entry["id"]] = Fault(**told | {"history": []})
        fault.add_history(told.get("history", []))
        if "attempts" not in told:
            fault.attempts = sum(each["state"] == "failed" for each in told.get("history", []))
        return
    if entry["id"] not in found:
        return  # its first line was cut short: it has never been made
    fault = found[entry["id"]]
    fault.evidence |= told.pop("evidence", {})
    fault.add_history(told.pop("history", []))
    for name, value in told.items():
        setattr(fault, name, value)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
        self._stream: BinaryIO | None = None
        self._texts: dict[str, tuple[int, str]] = {}
        self._changes: Counter[str] = Counter()
        self._written: dict[str, dict[str, str]] = {}
        self._unwritten: dict[str, list[dict[str, Any]]] = {}
        self._compact_at = 0
        self._later: asyncio.TimerHandle | None = None

    # -- the journal

    def hold(self) -> BinaryIO:
        """Become the journal's one writer, as long as this process lives; done by the first use at the latest.

        Raises:
            JournalInUse: another process is.
        """
        while self._stream is None:
            stream = self.journal.open("ab", buffering=0)
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.close()
                raise JournalInUse(f"{self.journal} has a writer: the agent that it belongs to is alive") from None
            if not self.journal.exists() or not os.path.samestat(os.fstat(stream.fileno()), self.journal.stat()):
                stream.close()  # written anew between our opening and locking it
                continue
            self._stream = stream
            self._drop_half_a_line()
        return self._stream

    def _drop_half_a_line(self) -> None:
        """A crash has cut it short, before it could be relied on; the next one is not to be lost with it."""
        content = self.journal.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(self.journal, content.rfind(b"\n") + 1)

    def _append(self, line: bytes) -> None:
        """On disk when this returns; a line of which there is no room for all leaves none of it."""
        stream = self.hold()
        before = os.fstat(stream.fileno()).st_size
        try:
            view = memoryview(line)
            while view:
                view = view[stream.write(view) :]
            os.fsync(stream.fileno())
        except OSError:
            os.ftruncate(stream.fileno(), before)
            raise

    def _line(self, fault: Fault) -> tuple[bytes, dict[str, str]]:
        """What the journal does not have of a fault yet, and what it will have with that."""
        whole = asdict(fault)
        del whole["history"]
        evidence = whole.pop("evidence")
        parts = {name: json.dumps(value) for name, value in whole.items()}
        parts |= {f"evidence {name}": json.dumps(value) for name, value in evidence.items()}
        before = self._written.get(fault.id)
        if before is None:
            line = asdict(fault)
        else:
            always = ("id", "state", "deadline")
            line = {name: value for name, value in whole.items() if name in always or parts[name] != before.get(name)}
            news = {
                key: each for key, each in evidence.items() if parts[f"evidence {key}"] != before.get(f"evidence {key}")
            }
            line |= {"evidence": news, "history": self._unwritten.get(fault.id, [])}
        return json.dumps(line | {"owed": fault.owed}).encode() + b"\n", parts

    def _write(self, fault: Fault) -> None:
        line, parts = self._line(fault)
        self._append(line)
        self._written[fault.id] = parts
        self._unwritten.pop(fault.id, None)
        if os.fstat(self.hold().fileno()).st_size > self._compact_at:
            self._compact()

    def _compact(self) -> None:
        """Write the journal anew, one line per fault; where there is no room for that the old one stays."""
        old = self.hold()
        ended = [fault.id for fault in self.faults.values() if not fault.owed]
        for fault_id in ended[: max(0, len(ended) - ENDED_KEPT)]:
            for records in (self.faults, self._locks, self._texts, self._changes, self._written, self._unwritten):
                records.pop(fault_id, None)
        draft = self.journal.with_suffix(".new")
        try:
            with contextlib.ExitStack() as undo:
                draft.unlink(missing_ok=True)
                stream = undo.enter_context(draft.open("ab", buffering=0))
                fcntl.flock(stream, fcntl.LOCK_EX)  # whoever opens it under its final name finds it held
                # What is not written down yet (its state before is looked at) is not to be.
                kept = [fault for fault in self.faults.values() if fault.id in self._written]
                view = memoryview(
                    b"".join(json.dumps(asdict(each) | {"owed": each.owed}).encode() + b"\n" for each in kept)
                )
                while view:
                    view = view[stream.write(view) :]
                os.fsync(stream.fileno())
                draft.replace(self.journal)
                undo.pop_all()
        except OSError:
            draft.unlink(missing_ok=True)
        else:
            _sync_folder(self.journal.parent)
            self._stream = stream
            old.close()
            for fault in kept:
                self._written[fault.id] = self._line(fault)[1]
                self._unwritten.pop(fault.id, None)
        self._compact_at = os.fstat(self.hold().fileno()).st_size + COMPACT_BYTES

    def _note(self, fault: Fault, state: str, seen: dict[str, Any]) -> None:
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"at": time.monotonic(), "time": moment, "state": state} | seen
        fault.state = state
        fault.attempts += state == "failed"
        fault.add_history([entry])
        self._unwritten.setdefault(fault.id, []).append(entry)
        self._changes[fault.id] += 1

    def _begin(self, fault: Fault) -> None:
        """Write down that a fault is about to be made.

        Raises:
            Problem: 507, there is no room for that, or none would be left for its end.
        """
        self._note(fault, "pending", {})
        try:
            if not self._ballast.exists():
                with self._ballast.open("wb") as stream:
                    os.posix_fallocate(stream.fileno(), 0, BALLAST_BYTES)
            self._write(fault)
        except OSError as error:
            if not self._ballast.exists() or self._ballast.stat().st_size < BALLAST_BYTES:
                self._ballast.unlink(missing_ok=True)
            raise Problem(
                507, "No room for the journal", f"{self.journal}: {error.strerror}; nothing was done"
            ) from None

    @property
    def _ballast(self) -> Path:
        return self.journal.with_suffix(".ballast")

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
                self._ballast.unlink(missing_ok=True)
                self._write(fault)
        except OSError as error:
            print(f"{self.journal}: {error.strerror}: {fault.id} is {state}", file=sys.stderr, flush=True)
            self._write_later()
            return False
        return True

    def _write_later(self) -> None:
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(WRITE_AGAIN_SECONDS, self._catch_up)

    def _catch_up(self) -> None:
        """Write down what there was no room for."""
        self._later = None
        for fault_id in [each for each in self._unwritten if each in self._written]:
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
            # Monotonic time begins anew when the machine does.
            fault.deadline = min(fault.deadline, time.monotonic() + fault.duration_seconds)
            if fault.state == "active":
                self._arm(fault)
                self._spawn(self._resume(fault))
            elif fault.owed:
                self._spawn(self.recover(fault.id, "again" if fault.state == "failed" else "call"))

    def _take_over(self) -> None:
        self.hold()
        self.faults = read_journal(self.journal)
        self._written = {fault.id: self._line(fault)[1] for fault in self.faults.values()}
        self._compact()

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
        """Faults in short, as a JSON array: ``all``, ``active`` (live) or ``owed``; what has not changed is not written
        anew.
        """
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
                self._begin(fault)
            except BaseException:
                for records in (self.faults, self._unwritten, self._changes):
                    records.pop(fault.id, None)  # nothing is done yet, and nothing written down
                raise
            self._arm(fault)
            try:
                await driver.apply(fault)
                if not self._move(fault, "active"):
                    raise Problem(507, "No room for the journal", f"{self.journal}: {fault.id} is undone again")
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
        for records in (self.faults, self._locks, self._texts, self._changes, self._written, self._unwritten):
            records.clear()
