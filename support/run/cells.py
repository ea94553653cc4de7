"""Cells: a world of its own for one command, which the kernel takes down as a whole."""

import functools
import gc
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping

from agents import cell
from agents.core.forks import fork, run_module
from support import sabotage
from support.settings import ROOT
from support.targets.local import namespaces

BYTECODE = "PYTHONDONTWRITEBYTECODE"
NO_CELL = "none"
"""The mode of a program whose target is somewhere else: a fork of this process, and nothing around it."""
PRELOADED = (
    "behave.__main__",
    "behave.formatter.plain",
    "behave.formatter.pretty",
    "steps.allure_formatter",
    "support.run.runtime",
    "support.targets.local.target",
    "support.words",
    "support.requests.user_client",
    "openai.resources.chat",
    "openai.resources.completions",
    "agents.node.__main__",
    "agents.service.__main__",
    "pydantic.v1",
    "uvicorn.lifespan.on",
    "uvicorn.loops.asyncio",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
)
"""What the programs in a cell import that are forks of a process of ours, some of it only when they need it."""


def world(mode: str) -> str:
    """``namespaces`` or ``loopback``: what a cell is made of.

    Args:
        mode: ``on`` wants namespaces, ``off`` wants none (everything on loopback addresses), ``auto`` takes them where
            they can be had.

    Raises:
        ValueError: ``mode`` is none of these.
        PermissionError: ``on`` was asked for where namespaces cannot be had.
    """
    if mode not in ("auto", "on", "off"):
        raise ValueError(f"cells is {mode!r}; expected auto, on or off")
    reason = namespaces.missing() if mode != "off" else "switched off"
    if mode == "on" and reason:
        refused = f"cells=on, but this machine allows no namespaces: {reason}"
        raise PermissionError(f"{refused}; use cells=auto to run on loopback")
    return "loopback" if reason else "namespaces"


def command(argv: list[str], mode: str = "auto", environ: Mapping[str, str] = os.environ) -> list[str]:
    """Wrap ``argv`` so that it runs as the one command of a cell and everything in the cell ends with it.

    Args:
        argv: the command and its arguments.
        mode: see :func:`world`, which says what is raised as well.
        environ: what the cell will be started with; it may want sabotage.
    """
    agent = f"--agent={sabotage.node_agent(environ) or cell.AGENT}"
    return [sys.executable, "-m", "agents.cell", "--world", world(mode), agent, "--", *argv]


class Cell:
    """A cell that is a fork of this process; with :data:`NO_CELL`, the program alone.

    Attributes:
        pid: of its outermost process, the leader of a process group if ``prepare`` made it one.
        status: its exit status once :meth:`poll` has seen its end, negative when a signal ended it; that with which its
            program has left (:func:`agents.cell.leave`), which is an end as well, for us.
        cpu_seconds: what its processes have had of the processors, once :meth:`poll` has seen its end.
    """

    def __init__(
        self,
        module: str,
        arguments: list[str],
        mode: str,
        prepare: Callable[[], None],
        way_out: cell.WayOut | None = None,
        then: Callable[[int], int] = int,
    ) -> None:
        """Run ``python -m MODULE ARGUMENTS`` in it; see :func:`world` for ``mode`` and what is raised.

        Args:
            prepare: called first of all in the new process.
            way_out: lets the program leave.
            then: called in the program's process with its status, at its end; returns the one to end with.
        """
        kind = mode if mode == NO_CELL else world(mode)
        preload()
        prepared, tell = os.pipe()

        def outermost() -> int:
            prepare()
            for end in (prepared, tell):
                os.close(end)
            os.environ.pop(BYTECODE, None)
            sys.dont_write_bytecode = False
            if kind == NO_CELL:
                return then(run_module(module, arguments))
            agent = sabotage.node_agent(os.environ) or cell.AGENT
            return cell.run(kind, lambda: then(run_module(module, arguments)), agent, way_out)

        self.pid = fork(outermost)
        self.status: int | None = None
        self.cpu_seconds = 0.0
        os.close(tell)
        os.read(prepared, 1)  # nothing comes; it ends with what the new process has of it
        os.close(prepared)

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        if self.status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                self.cpu_seconds = usage.ru_utime + usage.ru_stime
        return self.status


@functools.cache
def preload() -> None:
    """Import what programs in cells need, so that their forks have it already; done once."""
    for name in PRELOADED:
        importlib.import_module(name)
        if name.endswith(".__main__"):  # it is run by that name, and what it imports is there; runpy warns of the rest
            del sys.modules[name]
    gc.collect()
    gc.freeze()  # forks would else copy each page on which the collector leaves its marks


def environment() -> dict[str, str]:
    """The environment for a cell's command: ours, but with bytecode cached.

    Each process would else compile the suite and its packages again, for half a second.
    """
    return {name: value for name, value in os.environ.items() if name != BYTECODE}


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
    argv = command(["sh", "-c", tell], "off")
    pipe = subprocess.PIPE
    beside = subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, process_group=0)
    assert beside.stdout
    names = ("FT_AGENT", "FT_FAULTS", "FT_AGENT_TOKEN", "FT_SCRATCH")
    return dict(zip(names, beside.stdout.readline().split(), strict=True)) | {"FT_CELL": "loopback"}


def main() -> None:
    """``python -m support.run.cells FILE [ARG...]``: replace this process by a Python program in a cell of its own."""
    if len(sys.argv) < 2:
        raise SystemExit("usage: python -m support.run.cells FILE [ARG...]")
    argv = command([sys.executable, *sys.argv[1:]])
    path = os.pathsep.join(filter(None, [".", os.environ.get("PYTHONPATH")]))
    os.execvpe(argv[0], argv, environment() | {"PYTHONPATH": path})


if __name__ == "__main__":
    main()
