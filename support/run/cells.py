"""Cells: a world of its own for one command, which the kernel takes down as a whole."""

import functools
import os
import subprocess
import sys
from collections.abc import Mapping

from support import sabotage
from support.settings import ROOT

NAMESPACES = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--net"]


def _unshare() -> list[str]:
    return NAMESPACES if os.geteuid() == 0 else [*NAMESPACES, "--user", "--map-root-user"]


@functools.cache
def available() -> str | None:
    """None when this user may make cells here, else the reason why not, in words for a skip or a doctor's table."""
    probe = [*_unshare(), "sh", "-c", "mount -t tmpfs tmpfs /run"]
    try:
        result = subprocess.run(probe, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return "the command unshare (util-linux) is missing"
    except subprocess.TimeoutExpired:
        return "unshare did not come back within 10 seconds"
    return None if result.returncode == 0 else (result.stderr.strip() or "unshare failed").splitlines()[-1]


def command(
    argv: list[str],
    mode: str = "auto",
    service_fd: int | None = None,
    environ: Mapping[str, str] = os.environ,
) -> list[str]:
    """Wrap ``argv`` so that it runs as the one command of a cell and everything in the cell ends with it.

    Args:
        argv: the command and its arguments.
        mode: ``on`` wants namespaces, ``off`` wants none (everything on loopback addresses), ``auto`` takes them where
            they can be had.
        service_fd: a listening socket that the fault service is to serve as well, for callers outside of the cell.
        environ: what the cell will be started with; it may want sabotage.

    Raises:
        ValueError: ``mode`` is none of these.
        PermissionError: ``on`` was asked for where namespaces cannot be had.
    """
    if mode not in ("auto", "on", "off"):
        raise ValueError(f"cells is {mode!r}; expected auto, on or off")
    reason = available() if mode != "off" else "switched off"
    if mode == "on" and reason:
        raise PermissionError(f"cells=on, but namespaces cannot be had: {reason}; use cells=auto to run on loopback")
    world = "loopback" if reason else "namespaces"
    outside = [] if service_fd is None else [f"--service-fd={service_fd}"]
    first = [
        sys.executable,
        "-m",
        "agents.cell",
        "--world",
        world,
        *sabotage.cell_options(environ),
        *outside,
        "--",
        *argv,
    ]
    return first if reason else [*_unshare(), "--", *first]


def environment() -> dict[str, str]:
    """The environment for a cell's command: ours, but with bytecode cached.

    Each scenario is a process of its own, which would compile the suite and its packages anew, for half a second.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def entered() -> bool:
    """Whether this process runs in a cell."""
    return "FT_CELL" in os.environ


def join() -> None:
    """Unless this process runs in a cell, start one without namespaces beside it, which ends with it, however that
    ends.
    """
    if not entered():
        os.environ |= start_loopback()


def start_loopback() -> dict[str, str]:
    """Start a cell without namespaces beside this process; it ends with this process, however that ends.

    Returns:
        The environment variables by which the cell's node agent is found.
    """
    # cat ends when the pipe that only we hold is closed
    tell = 'echo "$FT_AGENT $FT_FAULTS $FT_AGENT_TOKEN $FT_SCRATCH"; exec cat'
    argv = [sys.executable, "-m", "agents.cell", "--world", "loopback", *sabotage.cell_options(os.environ)]
    argv += ["--", "sh", "-c", tell]
    cell = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0)
    assert cell.stdout
    names = ("FT_AGENT", "FT_FAULTS", "FT_AGENT_TOKEN", "FT_SCRATCH")
    return dict(zip(names, cell.stdout.readline().split(), strict=True)) | {"FT_CELL": "loopback"}


def main() -> None:
    """``python -m support.run.cells FILE [ARG...]``: replace this process by a Python program in a cell of its own."""
    if len(sys.argv) < 2:
        raise SystemExit("usage: python -m support.run.cells FILE [ARG...]")
    argv = command([sys.executable, *sys.argv[1:]])
    path = os.pathsep.join(filter(None, [".", os.environ.get("PYTHONPATH")]))
    os.execvpe(argv[0], argv, environment() | {"PYTHONPATH": path})


if __name__ == "__main__":
    main()
