"""A deployment that stays: ``make up`` starts one, ``make down`` ends it.

``python -m support.run.stay up [--engine vllm] [--workers 2] [--plane tcp] [--frontend-port 8000] [--service-port N]``
    starts a Dynamo deployment in a cell of its own and comes back once it serves. Its frontend is on
    http://localhost:8000, the fault service on http://localhost:8080.
``python -m support.run.stay down``
    ends it, and the wreck of a scenario (:mod:`support.run.wreck`); the kernel takes every process, rule and namespace
    of a cell along.
``python -m support.run.stay enter [--node NAME]``
    a shell in the network of the wreck, or else of the deployment, or in that of one of its nodes.

Records and logs lie in ``reports/up``, the fault service's audit log among them.
"""

import argparse
import os
import signal
import socket
from pathlib import Path

from agents.core.forks import use_files
from agents.core.kernel import die_with_parent
from support.contract.shape import ENGINES, REQUEST_PLANES
from support.observe.logs import tail
from support.observe.waiting import until
from support.run import bootstrap, cells
from support.run.keeping import AUDIT, UP, WRECK, Door, family, see_gone, serve
from support.settings import ROOT, Settings
from support.world.world import World

BOOT_SECONDS = 120.0
NAMES = "run/netns"
"""Where a cell has the network namespaces of its nodes, by their names; see ip-netns(8)."""


def _listen(port: int, what: str) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=64)
    except OSError as error:
        raise SystemExit(
            f"up: port {port} for the {what} is not available: {error.strerror}; choose another one"
        ) from None


def up(options: argparse.Namespace) -> None:
    """Start the deployment and wait until it serves.

    Raises:
        SystemExit: there is one already, a port is taken, or it did not come up; with the last lines of its log.
    """
    if UP.owner():
        raise SystemExit("up: a deployment is already up; `make down` ends it")
    settings = Settings.load()
    bootstrap.ensure(("dynamo",), settings.dynamo)
    door = Door(_listen(options.frontend_port, "frontend"), _listen(options.service_port, "fault service"))
    UP.clear()
    log = UP.folder / "console.txt"
    boot(options, settings, door, log)
    told = UP.ask()
    print(told["title"])
    for node in told["nodes"]:
        print(f"  {node['name']:20} {node['role']:10} {node['address']}")
    print(f"frontend       {told['frontend']}")
    print(f"fault service  {told['service']}  (the API: /docs; every call: {UP.folder / AUDIT})")
    print("`make watch` shows it, `make down` ends it")


def boot(options: argparse.Namespace, settings: Settings, door: Door, log: Path) -> None:
    """Start it, and wait until it has left this process.

    Raises:
        SystemExit: it did not come up, or somebody did not want to wait for it.
    """
    hold_it = [f"--engine={options.engine}", f"--workers={options.workers}", f"--plane={options.plane}"]
    with log.open("ab") as output:

        def prepare() -> None:
            die_with_parent()
            os.setsid()
            os.chdir(ROOT)
            os.environ.update({"FT_RUN_DIR": str(UP.folder), **door.environment})
            use_files(os.open(os.devnull, os.O_RDONLY), output.fileno())

        way_out = door.way_out(output.fileno())
        cell = cells.Cell("support.run.stay", ["hold", *hold_it], settings.cells, prepare, way_out)

    def booting() -> str | None:
        status = cell.poll()
        if status:
            raise SystemExit(f"up: the deployment did not come up; last lines of {log}:\n{tail(log, 20)}")
        return "not ready" if status is None else None

    try:
        until(booting, BOOT_SECONDS, "the deployment serves")
    except (AssertionError, KeyboardInterrupt) as error:
        everything = family(cell.pid)
        os.killpg(cell.pid, signal.SIGKILL)
        see_gone(everything)
        raise SystemExit(f"up: {error or 'interrupted'}; the deployment was taken down again") from None


def down() -> None:
    """End the deployment, and the wreck of a scenario; says so when there is neither.

    Raises:
        SystemExit: a process of one is still there after a while.
    """
    ended = [stay.called for stay in (UP, WRECK) if stay.end()]
    print("\n".join(f"down: {called} is gone" for called in ended) or "down: nothing is up")


def hold(options: argparse.Namespace) -> None:
    """Inside the cell: make the deployment, then pass connections on to its frontend until the cell ends."""
    door = Door.of_this_cell()
    if door is None or not UP.claim():
        raise SystemExit("another deployment is coming up right now")
    world = World(Settings.load(), UP.folder)
    deployment = world.deploy(
        engine=options.engine, workers=options.workers, request_plane=options.plane, restart_policy="Always"
    )
    serve(UP, world, door, 0, f"{deployment.shape.describe()}, model {deployment.model}")


def enter(options: argparse.Namespace) -> None:
    """Become a shell in the network, and among the processes, of the wreck, or else of the deployment.

    Raises:
        SystemExit: there is none, it has no such node or no network of its own, or nsenter(1) is not there.
    """
    pids = [pid for stay in (WRECK, UP) if (pid := stay.owner())]
    if not pids:
        raise SystemExit("enter: nothing is up; start a deployment with make up, or keep a wreck with KEEP=failed")
    inside = Path(f"/proc/{pids[0]}")
    if os.readlink(inside / "ns/net") == os.readlink("/proc/self/ns/net"):
        raise SystemExit("enter: its nodes are addresses of this machine (no namespaces); `make watch` shows them")
    networks = inside / "root" / NAMES
    there = sorted(each.name for each in networks.iterdir())
    if options.node and options.node not in there:
        raise SystemExit(f"enter: it has no node {options.node!r}; choose one of {', '.join(there)}")
    network = f"--net={networks / options.node}" if options.node else "--net"
    user = ["--user", "--preserve-credentials"] if os.geteuid() else []
    argv = ["nsenter", f"--target={pids[0]}", *user, "--mount", "--pid", network, "--wd"]
    try:
        os.execvp(argv[0], [*argv, os.environ.get("SHELL", "sh")])
    except FileNotFoundError:
        raise SystemExit("enter: nsenter is not installed; it is part of util-linux") from None


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m support.run.stay", description="A deployment that stays.")
    modes = parser.add_subparsers(dest="mode", required=True)
    modes.add_parser("down", help="end it")
    entered = modes.add_parser("enter", help="a shell in its network")
    entered.add_argument("--node", default="", metavar="NAME", help="in that of one of its nodes")
    for mode in ("up", "hold"):
        each = modes.add_parser(mode, help="start it" if mode == "up" else argparse.SUPPRESS)
        each.add_argument("--engine", choices=ENGINES, default="vllm")
        each.add_argument("--workers", type=int, default=2)
        each.add_argument("--plane", choices=REQUEST_PLANES, default="tcp")
        if mode == "up":
            each.add_argument("--frontend-port", type=int, default=8000)
            each.add_argument("--service-port", type=int, default=8080)
    options = parser.parse_args()
    if options.mode == "down":
        down()
    else:
        {"up": up, "hold": hold, "enter": enter}[options.mode](options)


if __name__ == "__main__":
    main()
