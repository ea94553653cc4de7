"""First process of a cell: prepares it, runs the agents and one program in it, and ends with that program.

``python -m agents.cell --world namespaces|loopback [--agent MODULE] -- COMMAND [ARG...]`` makes a cell for a command;
:mod:`support.run.cells` makes cells for programs of the suite in forks of its own process.

With ``namespaces`` the cell has PID, mount and network namespaces of its own, whose first process is the one here; its
end is then the kernel's signal to end every process and namespace of the cell. With ``loopback`` there are no
namespaces: every process is tied to its parent's life instead (PR_SET_PDEATHSIG).

The node agent and the fault service are started again whenever they die, and a node agent that is frozen when a fault
has to end is killed for it; their listening sockets are kept here, so that a request which comes meanwhile waits.

A program of the suite may :func:`leave` those who made the cell, if it was given a way out: the cell goes on without
them and ends with the program alone. From then on the fault service listens on a socket of the world outside as well,
asks for no token, and keeps its audit log in ``FT_RUN_DIR``.

The program finds in its environment ``FT_CELL`` (``namespaces`` or ``loopback``), ``FT_AGENT`` and ``FT_FAULTS`` (URLs
of the node agent and the fault service), ``FT_AGENT_TOKEN`` (bearer token of both) and ``FT_SCRATCH`` (a folder that
vanishes with the cell).
"""

import argparse
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from agents.core import namespaces
from agents.core.forks import Leave, attend, close_all_but, fork, run_module, use_files
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
AGENT = "agents.node"


class WayOut(NamedTuple):
    """What a cell needs to go on without those who made it; open files, by their numbers.

    Attributes:
        service: a socket that is bound, for the fault service.
        log: where its agents write to, and from then on all of it.
    """

    service: int
    log: int


_leaving: tuple[int, WayOut] | None = None
"""In a tenant that may leave: where it says so, and its way out."""


def _make_private_run() -> Path:
    mount_tmpfs("/run")
    Path("/run/netns").mkdir()
    scratch = Path("/run/cell")
    scratch.mkdir()
    return scratch


class Program:
    """A program of the suite that is kept running on a listening socket."""

    def __init__(self, module: str, fds: list[int], environment: dict[str, str], log: int | None) -> None:
        self._module, self._fds, self._environment, self._log = module, fds, environment, log
        self._options: list[str] = []
        self.handle: int | None = None
        self.start()

    def serve_outside(self, fd: int, environment: dict[str, str], *options: str) -> None:
        """Start it again, to serve one more socket, in another environment."""
        self._fds, self._environment, self._options = [*self._fds, fd], environment, list(options)
        if self.handle is not None:
            _kill(self.handle)

    def start(self) -> None:
        """Start it, for the first time or again."""
        self._started = time.monotonic()
        self.pid = fork(self._main)
        before, self.handle = self.handle, os.pidfd_open(self.pid)
        if before is not None:
            os.close(before)

    def start_again(self) -> None:
        """Start it after its death."""
        if time.monotonic() - self._started < SHORT_LIFE_SECONDS:
            time.sleep(RESTART_DELAY_SECONDS)
        self.start()

    def _main(self) -> int:
        die_with_parent()
        use_files(os.open(os.devnull, os.O_RDONLY), self._log)
        close_all_but(self._fds)
        os.environ.clear()
        os.environ.update(self._environment)
        return run_module(self._module, [*(f"--listen-fd={fd}" for fd in self._fds), *self._options])


def _kill(handle: int) -> None:
    """SIGKILL to the process of a pidfd, one that has been reaped meanwhile excepted."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)


def _guard(agent: Program, leases: Leases) -> None:
    """Kill the agent when a fault is overdue: the one that is started in its place reads the journal and undoes it."""

    killed_at = 0.0

    def look(*_: object) -> None:
        nonlocal killed_at
        with contextlib.suppress(OSError):
            stopped = is_stopped(agent.pid)
            if time.monotonic() > killed_at + TAKE_UP_SECONDS and leases.overdue(stopped):
                killed_at = time.monotonic()
                assert agent.handle is not None
                _kill(agent.handle)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)


_AWAITED = {signal.SIGCHLD, signal.SIGUSR1}
"""What the first process waits for: the end of a child, and a tenant that leaves. Blocked, so that none is lost."""


def _wait_for(tenant: int, programs: list[Program], let_go: Callable[[], None]) -> int:
    """Reap whatever ends until the process ``tenant`` does; orphans of the cell end up here too."""
    while True:
        for pid, status in _ended():
            if pid == tenant:
                return os.waitstatus_to_exitcode(status)
            for program in programs:
                if pid == program.pid:
                    program.start_again()
        if signal.sigwaitinfo(_AWAITED).si_signo == signal.SIGUSR1:
            let_go()


def _ended() -> Iterator[tuple[int, int]]:
    """Pid and status of each child that has ended."""
    with contextlib.suppress(ChildProcessError):
        while (seen := os.waitpid(-1, os.WNOHANG))[0]:
            yield seen


def _end_all() -> None:
    """End every process of the cell and wait for it: what one has used of the processors is known of those alone that
    were waited for (getrusage(2)), and a scenario is planned by that.
    """
    with contextlib.suppress(ChildProcessError):
        while True:  # one may just have made another
            for child in children_of(os.getpid()):
                signal_process(*child, signal.SIGKILL)
            os.wait()


def leave(status: int) -> None:
    """In the tenant of a cell that has a way out: go on without those who made the cell, who are told that it has ended
    with ``status``. From now on nothing ends the cell but the end of this process, which writes to the log as well.
    """
    assert _leaving is not None, "this cell has no connection to the outside"
    tell, way_out = _leaving
    use_files(os.open(os.devnull, os.O_RDONLY), way_out.log)
    os.write(tell, bytes([status]))
    signal.pidfd_send_signal(os.pidfd_open(os.getppid()), signal.SIGUSR1)


def run(world: str, tenant: Callable[[], int], agent: str = AGENT, way_out: WayOut | None = None) -> int:
    """Run ``tenant``, in a fork, in a cell that is made for it here.

    Args:
        world: ``namespaces`` or ``loopback``.
        tenant: the program; what is open here is open to it as well.
        agent: module of the node agent.
        way_out: lets the tenant :func:`leave`.

    Returns:
        its status, 128 + N when signal N ended it, or the one that it has left with.

    Raises:
        OSError: the namespaces are not permitted.
    """

    def live(leave_outside: Leave) -> int:
        return _live(world, tenant, agent, way_out, leave_outside)

    return namespaces.run(live) if world == "namespaces" else attend(live)


def _live(world: str, tenant: Callable[[], int], agent: str, way_out: WayOut | None, leave_outside: Leave) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    with _scratch(world) as scratch:
        status = _play(world, tenant, agent, way_out, leave_outside, scratch)
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _scratch(world: str) -> Iterator[Path]:
    if world == "namespaces":
        bring_loopback_up()
        yield _make_private_run()
        return
    from agents.core.scratch import folder  # it takes as long to load as all the rest, and only this case needs it

    with folder(Path(os.environ.get("FT_RUN_DIR", "reports")).absolute(), "cell-") as scratch:
        yield scratch


def _play(
    world: str,
    tenant: Callable[[], int],
    agent: str,
    way_out: WayOut | None,
    leave_outside: Leave,
    scratch: Path,
) -> int:
    token = os.urandom(16).hex()
    agent_socket, service_socket = (socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(2))
    environment = os.environ | {
        "FT_CELL": world,
        "FT_AGENT": f"http://127.0.0.1:{agent_socket.getsockname()[1]}",
        "FT_FAULTS": f"http://127.0.0.1:{service_socket.getsockname()[1]}",
        "FT_AGENT_TOKEN": token,
        "FT_SCRATCH": str(scratch),
    }
    log = None if way_out is None else way_out.log
    service_environment = environment | {"FT_SERVICE_TOKEN": token}
    service = Program("agents.service", [service_socket.fileno()], service_environment, log)
    programs = [Program(agent, [agent_socket.fileno()], environment, log), service]
    said, tell = os.pipe()

    def let_go() -> None:
        assert way_out is not None
        use_files(os.open(os.devnull, os.O_RDONLY), way_out.log)
        with socket.socket(fileno=os.dup(way_out.service)) as outside:
            outside.listen(64)  # whoever comes before the service does waits
        service.serve_outside(way_out.service, environment, f"--state-dir={os.environ['FT_RUN_DIR']}")
        leave_outside(os.read(said, 1)[0])

    def move_in() -> int:
        global _leaving
        die_with_parent()
        for each in (agent_socket, service_socket):
            each.close()
        os.environ.update(environment)
        _leaving = None if way_out is None else (tell, way_out)
        return tenant()

    pid = fork(move_in)
    # Whoever ends the run signals the whole process group, the tenant included; passed on, it would arrive twice.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    _guard(programs[0], Leases(scratch / JOURNAL))
    status = _wait_for(pid, programs, let_go)
    signal.setitimer(signal.ITIMER_REAL, 0)  # at its end Python takes its handler away, and the signal would kill us
    _end_all()
    return status


def main() -> int:
    """Run a command in a cell; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m agents.cell")
    parser.add_argument("--world", choices=("namespaces", "loopback"), required=True)
    parser.add_argument("--agent", default=AGENT, metavar="MODULE", help="node agent, as after `python -m`")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    def command() -> int:
        try:
            os.execvp(options.command[0], options.command)
        except OSError as error:
            raise SystemExit(f"{options.command[0]}: {error.strerror}") from None

    return run(options.world, command, options.agent)


if __name__ == "__main__":
    sys.exit(main())
