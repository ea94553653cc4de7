"""Folders for what is needed for a while: each is removed by its maker or, if that was killed, by the next one."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in ``parent``, which is made if missing; it is removed in the end, and so are those with the same
    ``prefix`` that were made here and whose makers are dead. ``parent`` has to be one of ours.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for stale in parent.glob(f"{prefix}*"):
        with _held(stale) as held:
            if held:
                shutil.rmtree(stale, ignore_errors=True)
    while True:
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with _held(made) as held:
            if held:
                try:
                    yield made
                finally:
                    shutil.rmtree(made, ignore_errors=True)
                return


@contextlib.contextmanager
def _held(place: Path) -> Iterator[bool]:
    """Whether the folder is ours: it is there, and nobody else has it; the kernel knows, by a lock on it."""
    try:
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # no folder, or no longer there
        yield False
        return
    try:
        yield _locked(handle) and _is_that(place, handle)
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_that(place: Path, handle: int) -> bool:
    """Whether it is still there: another one may have swept it between its making and our lock."""
    try:
        return os.path.samestat(place.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
