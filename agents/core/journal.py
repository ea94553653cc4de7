"""The journal of an agent: its faults on disk, each before the first change that it makes.

The first line of a fault is whole, and so is each line of an older version. Any other has what has changed since:
fields, keys of the evidence, new entries of the history.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, BinaryIO

from agents.core.faults import Fault

COMPACT_BYTES = 256 * 1024
"""Growth after which a journal is rewritten, one line per fault."""
BALLAST_BYTES = 256 * 1024
"""Kept free on the journal's disk for the ends of faults that have begun."""


class JournalInUse(RuntimeError):
    """A journal has another writer."""


def read_journal(path: Path) -> dict[str, Fault]:
    """Faults by id as a journal has them last; a line cut short by a crash is left out, and so is in a line what only
    an agent of another version knows.
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


class Journal:
    """A journal that this process writes. What a full disk keeps from being written is not forgotten: it is part of the
    next line of that fault.

    Args:
        path: file, made if missing; locked from the first use on, for a journal has one writer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: BinaryIO | None = None
        self._written: dict[str, dict[str, str]] = {}
        self._unwritten: dict[str, list[dict[str, Any]]] = {}
        self._compact_at = 0

    def hold(self) -> BinaryIO:
        """Become its one writer, as long as this process lives; done by the first use at the latest.

        Raises:
            JournalInUse: another process is.
        """
        while self._stream is None:
            stream = self.path.open("ab", buffering=0)
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.close()
                raise JournalInUse(f"{self.path} is in use: the agent that it belongs to is alive") from None
            if not self.path.exists() or not os.path.samestat(os.fstat(stream.fileno()), self.path.stat()):
                stream.close()  # rewritten between our opening and locking it
                continue
            self._stream = stream
            self._drop_half_a_line()
        return self._stream

    def _drop_half_a_line(self) -> None:
        """A crash has cut it short, before it could be relied on; the next one is not to be lost with it."""
        content = self.path.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(self.path, content.rfind(b"\n") + 1)

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

    def note(self, fault_id: str, entry: dict[str, Any]) -> None:
        """Have a new entry of a fault's history written with its next line."""
        self._unwritten.setdefault(fault_id, []).append(entry)

    def write(self, fault: Fault) -> None:
        """Append what has changed of a fault; on disk when this returns.

        Raises:
            OSError: there is no room for it; the journal is as it was.
        """
        line, parts = self._line(fault)
        self._append(line)
        self._written[fault.id] = parts
        self._unwritten.pop(fault.id, None)

    def has_grown(self) -> bool:
        """Whether it is time to rewrite it."""
        return os.fstat(self.hold().fileno()).st_size > self._compact_at

    def behind(self) -> list[str]:
        """Ids of the faults of which it lacks the newest states."""
        return [each for each in self._unwritten if each in self._written]

    def take_up(self) -> dict[str, Fault]:
        """The faults by id that the writer before this one has left.

        Raises:
            JournalInUse: that writer is still alive.
        """
        self.hold()
        found = read_journal(self.path)
        self._written = {fault.id: self._line(fault)[1] for fault in found.values()}
        return found

    def rewrite(self, faults: Iterable[Fault]) -> None:
        """Rewrite it, one line per fault; where there is no room for that the old one stays."""
        old = self.hold()
        draft = self.path.with_suffix(".new")
        try:
            with contextlib.ExitStack() as undo:
                draft.unlink(missing_ok=True)
                stream = undo.enter_context(draft.open("ab", buffering=0))
                fcntl.flock(stream, fcntl.LOCK_EX)  # whoever opens it under its final name finds it held
                # What is not written down yet (its state before is looked at) is not to be.
                kept = [fault for fault in faults if fault.id in self._written]
                view = memoryview(
                    b"".join(json.dumps(asdict(each) | {"owed": each.owed}).encode() + b"\n" for each in kept)
                )
                while view:
                    view = view[stream.write(view) :]
                os.fsync(stream.fileno())
                draft.replace(self.path)
                undo.pop_all()
        except OSError:
            draft.unlink(missing_ok=True)
        else:
            _sync_folder(self.path.parent)
            self._stream = stream
            old.close()
            for fault in kept:
                self._written[fault.id] = self._line(fault)[1]
                self._unwritten.pop(fault.id, None)
        self._compact_at = os.fstat(self.hold().fileno()).st_size + COMPACT_BYTES

    def forget(self, fault_id: str) -> None:
        """Know nothing of a fault any more; what is written of it goes when the journal is rewritten."""
        self._written.pop(fault_id, None)
        self._unwritten.pop(fault_id, None)

    # -- the ballast: room for the ends of faults that have begun

    @property
    def _ballast(self) -> Path:
        return self.path.with_suffix(".ballast")

    def take_ballast(self) -> None:
        """Set room aside, unless it is.

        Raises:
            OSError: there is none.
        """
        if not self._ballast.exists():
            with self._ballast.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, BALLAST_BYTES)

    def drop_ballast(self) -> None:
        """Give that room up."""
        self._ballast.unlink(missing_ok=True)

    def drop_half_a_ballast(self) -> None:
        """Take away what a full disk has let come of it."""
        if self._ballast.exists() and self._ballast.stat().st_size < BALLAST_BYTES:
            self.drop_ballast()
