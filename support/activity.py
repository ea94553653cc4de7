"""What a scenario is doing right now, for whoever watches its run: the sentence it is at, and what it waits for.

One small file in the scenario's folder, replaced as a whole at each change. It is a view of the run, not a record:
if it cannot be written, nobody sees it and nothing else changes.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from support import clock

FILE = "activity.json"


@dataclass(frozen=True)
class Awaited:
    """A condition that is waited for.

    Attributes:
        what: the condition in words.
        until: when the wait gives up, on :mod:`support.clock`; None where something else ends it.
    """

    what: str
    until: float | None


@dataclass(frozen=True)
class Activity:
    """What a scenario is doing.

    Attributes:
        step: its sentence with the keyword; empty before the first one.
        since: when that began, on :mod:`support.clock`.
        awaited: what it waits for; several parts of a step may wait at once.
    """

    step: str = ""
    since: float = 0.0
    awaited: list[Awaited] = field(default_factory=list)


class _Teller:
    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, threading.Lock()
        self._seen = Activity()

    def begin_step(self, step: str) -> None:
        with self._lock:
            self._tell(Activity(step, clock.now(), self._seen.awaited))

    def change(self, come: Awaited | None = None, gone: Awaited | None = None) -> None:
        with self._lock:
            left = [each for each in self._seen.awaited if each is not gone]
            self._tell(Activity(self._seen.step, self._seen.since, [*left, come] if come else left))

    def _tell(self, seen: Activity) -> None:
        self._seen = seen
        draft = self._file.with_name(f".{FILE}")
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps(asdict(seen)), encoding="utf-8")
            draft.replace(self._file)


_teller: _Teller | None = None


def begin(folder: Path) -> None:
    """Tell from now on what the scenario with this folder does, unless its clock is one that nobody else can read."""
    global _teller
    _teller = _Teller(folder / FILE) if clock.of_the_machine() else None


def begin_step(step: str) -> None:
    """The scenario has come to a sentence."""
    if _teller:
        _teller.begin_step(step)


@contextlib.contextmanager
def waiting(what: str, until: float | None = None) -> Iterator[None]:
    """Within this the scenario waits for ``what``; the arguments are those of :class:`Awaited`."""
    teller, awaited = _teller, Awaited(what, until)
    if not teller:
        yield
        return
    teller.change(come=awaited)
    try:
        yield
    finally:
        teller.change(gone=awaited)


def read(folder: Path) -> Activity:
    """What the scenario with this folder does; an empty one where nothing is told."""
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return Activity(told["step"], told["since"], [Awaited(**each) for each in told["awaited"]])
    except (OSError, ValueError, LookupError, TypeError):
        return Activity()
