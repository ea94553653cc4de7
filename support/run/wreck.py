"""``KEEP=failed``: the wreck of a scenario that has failed goes on, to be looked at.

Its cell leaves the run (:mod:`support.run.keeping`), with everything that is broken in it, and ends after
:data:`KEEP_SECONDS`, with ``make down``, or with the next run that is to keep one. There is one wreck at most, that of
the first scenario that fails: a wreck keeps the memory of a whole deployment, and works on beside the scenarios that
are still to come, whose times it would spoil.
"""

import signal
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from support import targets
from support.clock import now
from support.run.keeping import WRECK, Door, serve
from support.settings import ROOT, Settings
from support.world.world import World

KEEP_SECONDS = 900.0


@dataclass(frozen=True)
class _Kept:
    world: World
    location: str
    ends_at: float
    until: str


_kept: _Kept | None = None


def check(settings: Settings) -> None:
    """Refuse to keep what cannot be kept.

    Raises:
        ValueError: the target runs in this process, and ends with it.
    """
    if settings.keep == "failed" and not targets.kind(settings).in_cells:
        source = settings.sources.get("keep", "default")
        raise ValueError(f"keep is 'failed' ({source}), but target {settings.target} ends with its run; leave keep out")


def open_door(settings: Settings) -> Door | None:
    """The door for the wreck of a run that begins, which ends that of the one before; None where none is to be kept.

    Raises:
        ValueError: see :func:`check`.
        SystemExit: the wreck of the run before does not end.
    """
    check(settings)
    if settings.keep != "failed":
        return None
    WRECK.end()
    frontend, service = socket.socket(), socket.socket()
    for each in (frontend, service):
        each.bind(("127.0.0.1", 0))  # nobody listens before there is a wreck: connections are refused
    return Door(frontend, service)


def keep(world: World, location: str) -> list[str]:
    """Have the world of the scenario at ``location``, which is over, go on after the program of this process.

    Returns:
        how to look at it, line by line; nothing where there is a wreck already, or no way to keep one.
    """
    global _kept
    door = Door.of_this_cell()
    if door is None or not WRECK.claim():
        return []
    until = f"{datetime.now().astimezone() + timedelta(seconds=KEEP_SECONDS):%H:%M:%S %Z}"
    _kept = _Kept(world, location, now() + KEEP_SECONDS, until)
    urls, worker = door.urls, world.deployment.workers[0].name
    return [
        f"left running until {until}, or until `make down`; `make watch` shows it",
        f"its frontend: curl {urls['frontend']}/v1/models",
        f"its faults: curl {urls['service']}/api/v1/faults (each ends with its lease; the API: /docs)",
        f"its logs: {_short(world.stage.logs)}",
        f"its network: `make enter`, or `make enter NODE={worker}` for that of a node",
    ]


def hold(status: int) -> int:
    """The end of a program of this process, with ``status``: returns that, or goes on with the wreck that was kept."""
    if _kept is None:
        return status
    door = Door.of_this_cell()
    assert door is not None
    # Whatever becomes of our code, the kernel ends this process then, and that ends the cell.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, _kept.ends_at - now()))
    serve(WRECK, _kept.world, door, status, f"wreck of {_kept.location}", _kept.until)
    return status


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
