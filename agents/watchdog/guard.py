"""Guards: what an agent outside a cell leaves in its state folder for its watchdog, and which of it is trusted.

A watchdog may run as root. It kills and starts nothing for what somebody else could have put there: the folder has to
be its user's own and closed to all others (0700), a guard a plain file of that user.
"""

import json
import os
import signal
import stat
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from agents.core.kernel import boot_id, signal_process, stat_of
from agents.core.leases import JOURNAL

GUARDS = "*.guard.json"


def private(folder: Path) -> None:
    """Make sure that nobody else can put anything into a folder, or put another one in its place.

    Raises:
        PermissionError: it is not a folder (but a link, say), belongs to another user, or is not closed to all others.
    """
    seen = folder.lstat()
    if not stat.S_ISDIR(seen.st_mode):
        why = "is not a folder"
    elif seen.st_uid != os.geteuid():
        why = f"belongs to user {seen.st_uid}, not to {os.geteuid()}"
    elif seen.st_mode & 0o077:
        why = f"has mode {seen.st_mode & 0o777:04o}; expected 0700: chmod 0700 {folder}"
    else:
        return
    raise PermissionError(0, why, str(folder))


def read_own(folder: Path, name: str) -> str:
    """The text of a plain file of this user in a private folder; never that of what a link leads to.

    Raises:
        FileNotFoundError: there is none any more.
        ValueError: it is not such a file, or not in UTF-8.
    """
    try:
        handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"no file of its own: {error.strerror}") from None
    try:
        seen = os.fstat(handle)
        if not stat.S_ISREG(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
            raise ValueError(f"no file of its own: user {seen.st_uid}, mode {seen.st_mode & 0o777:04o}")
        with open(handle, encoding="utf-8", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Guard:
    """One agent outside a cell, as it has left it in ``NAME.guard.json``.

    Attributes:
        pid: of the agent, with its ``start_time`` (clock ticks since boot) and the machine's ``boot`` id.
        journal: name of its journal, which lies beside the guard.
    """

    pid: int
    start_time: int
    boot: str
    journal: str = JOURNAL

    @classmethod
    def of_this_process(cls) -> "Guard":
        """The guard of the process that calls."""
        pid = os.getpid()
        _, start_time = stat_of(pid) or ("", 0)
        return cls(pid, start_time, boot_id())

    def write(self, path: Path) -> None:
        """Put it in its place, whole or not at all."""
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(self)), encoding="utf-8")
        draft.replace(path)

    def alive(self) -> bool:
        """Whether the agent lives, frozen or not."""
        state, start_time = stat_of(self.pid) or ("X", 0)
        return state not in "ZX" and (self.boot, self.start_time) == (boot_id(), start_time)

    @classmethod
    def parse(cls, text: str) -> "Guard":
        """Of another version's guard, what this one knows; of a journal's path, which older ones had, the name.

        Raises:
            ValueError: it is none.
        """
        content = json.loads(text)
        try:
            guard = cls(**{each.name: content[each.name] for each in fields(cls)})
        except (LookupError, TypeError) as error:
            raise ValueError(f"no guard: {error!r}") from None
        sound = all(isinstance(each, int) and each > 0 for each in (guard.pid, guard.start_time))
        if not sound or not isinstance(guard.boot, str) or not isinstance(guard.journal, str):
            raise ValueError(f"no guard: {guard!r}")
        return replace(guard, journal=Path(guard.journal).name)

    def kill(self) -> None:
        """SIGKILL the agent, and no other process that may have its pid."""
        if self.boot == boot_id():
            signal_process(self.pid, self.start_time, signal.SIGKILL)
