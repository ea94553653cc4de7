"""First process of a cell: prepares it, runs the agents and one command in it, and ends with that command.

Usage: ``python -m agents.cell --world namespaces|loopback [--agent MODULE] [--service-fd N] -- COMMAND [ARG...]``

With ``namespaces`` it expects to be PID 1 of fresh PID, mount and network namespaces (``support.cells`` makes them with
unshare); its end is then the kernel's signal to end every process and namespace of the cell. With ``loopback`` there
are no namespaces: every process is tied to its parent's life instead (PR_SET_PDEATHSIG).

The node agent and the fault service are started again whenever they die, and a node agent that is frozen when a fault
has to end is killed for it; their listening sockets are kept here, so that a request which comes meanwhile waits. With
``--service-fd`` the fault service listens on that socket of the world outside as well, asks for no token, and keeps its
audit log in ``FT_RUN_DIR``, where that is set, which outlives the cell.

The command finds in its environment ``FT_CELL`` (``namespaces`` or ``loopback``), ``FT_AGENT`` and ``FT_FAULTS`` (URLs
of the node agent and the fault service), ``FT_AGENT_TOKEN`` (bearer token of both) and ``FT_SCRATCH`` (a folder that
vanishes with the cell).
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from agents.core.kernel import (
    bring_loopback_up,
    children_of,
    die_with_parent,
    is_stopped,
    mount_tmpfs,
    signal_process,
)
from agents.core.leases import JOURNAL, LOOK_SECONDS, Leases

# A program that dies sooner than this after its start is broken rather than killed: it may not take the machine.
SHORT_LIFE_SECONDS, RESTART_DELAY_SECONDS = 0.2, 0.2
# Longer than an agent needs to start and take up its faults on a loaded machine.
TAKE_UP_SECONDS = 30.0


def _make_private_run() -> Path:
    mount_tmpfs("/run")
    Path("/run/netns").mkdir()
    scratch = Path("/run/cell")
    scratch.mkdir()
    return scratch


class Program:
    """A program of the suite that is kept running on a listening socket."""

    def __init__(self, module: str, fds: list[int], environment: dict[str, str], *options: str) -> None:
        self._argv = [sys.executable, "-m", module, *(f"--listen-fd={fd}" for fd in fds), *options]
        self._fds, self._environment = fds, environment
        self.handle: int | None = None
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again."""
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            self._argv,
            env=self._environment,
            pass_fds=self._fds,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads here
        )
        before, self.handle = self.handle, os.pidfd_open(self.process.pid)
        if before is not None:
            os.close(before)

    def start_again(self) -> None:
        """Start it after its death."""
        if time.monotonic() - self._started < SHORT_LIFE_SECONDS:
            time.sleep(RESTART_DELAY_SECONDS)
        self.start()


def _kill(handle: int) -> None:
    """SIGKILL to the process of a pidfd, one that has been reaped meanwhile excepted. Popen's own method looks first
    whether it has ended and then reaps it, behind wait's back.
    """
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)


def _guard(agent: Program, leases: Leases) -> None:
    """Kill the agent when a fault is overdue: the one that is started in its place reads the journal and undoes it."""

    killed_at = 0.0

    def look(*_: object) -> None:
        nonlocal killed_at
        with contextlib.suppress(OSError):
            stopped = is_stopped(agent.process.pid)
            if time.monotonic() > killed_at + TAKE_UP_SECONDS and leases.overdue(stopped):
                killed_at = time.monotonic()
                assert agent.handle is not None
                _kill(agent.handle)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)


def _wait_for(command: subprocess.Popen[bytes], programs: list[Program]) -> int:
    """Reap whatever ends until ``command`` does; orphans of the cell end up here too."""
    while True:
        try:
            pid, status = os.wait()
        except InterruptedError:
            continue
        if pid == command.pid:
            return os.waitstatus_to_exitcode(status)
        for program in programs:
            if pid == program.process.pid:
                program.start_again()


def main() -> int:
    """Run the command in the prepared cell; returns its exit status, 128 + N when signal N ended it."""
    parser = argparse.ArgumentParser(prog="python -m agents.cell")
    parser.add_argument("--world", choices=("namespaces", "loopback"), required=True)
    parser.add_argument("--agent", default="agents.node", metavar="MODULE", help="node agent, as after `python -m`")
    parser.add_argument("--service-fd", type=int)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if options.world == "namespaces":
        bring_loopback_up()
        scratch = _make_private_run()
    else:
        import tempfile  # these two take as long to load as all the rest, and only this case needs them

        scratch = Path(tempfile.mkdtemp(prefix="cell-", dir=os.environ.get("FT_RUN_DIR")))

    token = os.urandom(16).hex()
    agent_socket, service_socket = (socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(2))
    environment = os.environ | {
        "FT_CELL": options.world,
        "FT_AGENT": f"http://127.0.0.1:{agent_socket.getsockname()[1]}",
        "FT_FAULTS": f"http://127.0.0.1:{service_socket.getsockname()[1]}",
        "FT_AGENT_TOKEN": token,
        "FT_SCRATCH": str(scratch),
    }
    service_fds = [service_socket.fileno()]
    service_environment = environment | {"FT_SERVICE_TOKEN": token}
    service_options = []
    if options.service_fd is not None:
        service_fds.append(options.service_fd)
        del service_environment["FT_SERVICE_TOKEN"]
        if "FT_RUN_DIR" in os.environ:
            service_options = [f"--state-dir={os.environ['FT_RUN_DIR']}"]
    programs = [
        Program(options.agent, [agent_socket.fileno()], environment),
        Program("agents.service", service_fds, service_environment, *service_options),
    ]
    # What the cell was started with open is meant for the command; our own sockets close by themselves.
    command = subprocess.Popen(
        options.command,
        env=environment,
        close_fds=False,
        preexec_fn=die_with_parent,  # noqa: PLW1509
    )
    # Whoever ends the run signals the whole process group, the command included; passed on, it would arrive twice.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    _guard(programs[0], Leases(scratch / JOURNAL))
    status = _wait_for(command, programs)
    signal.setitimer(signal.ITIMER_REAL, 0)  # at its end Python takes its handler away, and the signal would kill us
    if options.world == "loopback":
        for child in children_of(os.getpid()):
            signal_process(*child, signal.SIGKILL)
        for program in programs:
            program.process.wait()
        import shutil

        shutil.rmtree(scratch, ignore_errors=True)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
