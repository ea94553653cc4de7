"""First process of a cell: prepares it, runs the node agent and one command in it, and ends with that command.

Usage: ``python -m agents.cell --world namespaces|loopback -- COMMAND [ARG...]``

With ``namespaces`` it expects to be PID 1 of fresh PID, mount and network namespaces (``support.cells`` makes them with
unshare); its end is then the kernel's signal to end every process and namespace of the cell. With ``loopback`` there
are no namespaces: every process is tied to its parent's life instead (PR_SET_PDEATHSIG).

The command finds in its environment ``FT_CELL`` (``namespaces`` or ``loopback``), ``FT_AGENT`` (URL of the node agent),
``FT_AGENT_TOKEN`` (bearer token) and ``FT_SCRATCH`` (a folder that vanishes with the cell).
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from agents.kernel import bring_loopback_up, children_of, die_with_parent, mount_tmpfs


def _make_private_run() -> Path:
    mount_tmpfs("/run")
    Path("/run/netns").mkdir()
    scratch = Path("/run/cell")
    scratch.mkdir()
    return scratch


def _wait_for(command: subprocess.Popen[bytes]) -> int:
    """Reap whatever ends until ``command`` does; orphans of the cell end up here too."""
    while True:
        try:
            pid, status = os.wait()
        except InterruptedError:
            continue
        if pid == command.pid:
            return os.waitstatus_to_exitcode(status)


def main() -> int:
    """Run the command in the prepared cell; returns its exit status, 128 + N when signal N ended it."""
    parser = argparse.ArgumentParser(prog="python -m agents.cell")
    parser.add_argument("--world", choices=("namespaces", "loopback"), required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if options.world == "namespaces":
        bring_loopback_up()
        scratch = _make_private_run()
    else:
        import tempfile  # these two take as long to load as all the rest, and only this case needs them

        scratch = Path(tempfile.mkdtemp(prefix="cell-", dir=os.environ.get("FT_RUN_DIR")))

    lying = os.environ.get("FT_SABOTAGE", "").startswith("injector=")
    agent_module = "agents.sabotage_injector" if lying else "agents.node_agent"
    token = os.urandom(16).hex()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        environment = os.environ | {
            "FT_CELL": options.world,
            "FT_AGENT": f"http://127.0.0.1:{listener.getsockname()[1]}",
            "FT_AGENT_TOKEN": token,
            "FT_SCRATCH": str(scratch),
        }
        agent = subprocess.Popen(
            [sys.executable, "-m", agent_module, "--listen-fd", str(listener.fileno())],
            env=environment,
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads here
        )
    command = subprocess.Popen(options.command, env=environment, preexec_fn=die_with_parent)  # noqa: PLW1509
    # Whoever ends the run signals the whole process group, the command included; passed on, it would arrive twice.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    status = _wait_for(command)
    if options.world == "loopback":
        for pid in children_of(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        agent.wait()
        import shutil

        shutil.rmtree(scratch, ignore_errors=True)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
