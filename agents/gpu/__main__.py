"""Command line of the GPU agent: ``python -m agents.gpu --state-dir DIR [--token-file FILE]``.

When the agent is gone for good, ``--recover --state-dir DIR`` undoes what its journal lists as live, prints one line
of JSON for each fault and ends: 0 when all is undone, 1 when something is not, 3 when an agent still holds the journal
(it is its only writer: ask that one, or end it first, also when it is frozen).
"""

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pynvml

from agents.core.journal import JournalInUse
from agents.core.tokens import read_token
from agents.gpu.agent import AgentSettings, GpuAgent, recover, serve
from agents.gpu.pods import Api
from agents.gpu.real_gpu import LOAD
from agents.watchdog.guard import private
from agents.watchdog.watchdog import PROGRAM


def _make_private(state: Path) -> None:
    """Close the folder to others, which the kubelet or an older version may have left open to readers.

    What stands in the journal is done with the rights of the agent: a folder that others may write to is refused.

    Raises:
        PermissionError: it is somebody else's, or others could have written to it.
    """
    seen = state.stat()
    if seen.st_uid == os.geteuid() and not seen.st_mode & 0o022:
        state.chmod(0o700)
    private(state)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agents.gpu",
        description="Faults of this machine's NVIDIA GPUs. Environment: FT_AGENT_TOKEN (bearer token), NODE_NAME.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback)")
    parser.add_argument("--port", type=int, default=8081, help="0: any free one (default 8081)")
    parser.add_argument("--name", default=os.environ.get("NODE_NAME") or socket.gethostname(), help="of this machine")
    parser.add_argument("--state-dir", type=Path, required=True, help="journal; has to outlive the agent")
    parser.add_argument("--token-file", type=Path, help="file with the bearer token; else FT_AGENT_TOKEN")
    parser.add_argument(
        "--allow-namespace", action="append", default=[], metavar="NAMESPACE", help="whose pods may be targets"
    )
    parser.add_argument("--allow-clock-control", action="store_true", help="let THROTTLE and OVERHEAT touch settings")
    parser.add_argument(
        "--supervised", action="store_true", help="start no watchdog: kubelet or systemd restart a dead or frozen agent"
    )
    parser.add_argument("--recover", action="store_true", help="undo what the journal lists as live, and end")
    return parser


def main(
    argv: Sequence[str] | None = None,
    nvml: Any = pynvml,
    load: Sequence[str] = LOAD,
    program: Sequence[str] = PROGRAM,
) -> None:
    """Entry point; ``nvml`` and ``load`` as for :class:`GpuAgent`, ``program`` what to run this as after ``python -m``.

    Raises:
        SystemExit: 2 for options that make no sense, 1 when the address cannot be had or something is not undone, 3
            when another agent holds the journal.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    state = options.state_dir.resolve()
    try:
        given = read_token(options.token_file, "FT_AGENT_TOKEN")
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_private(state)
        api = None if options.recover else Api.of_this_cluster()
        namespaces, guarded_by = tuple(options.allow_namespace), () if options.supervised else tuple(program)
        settings = AgentSettings(options.name, state, given, namespaces, options.allow_clock_control, guarded_by)
        agent = GpuAgent(settings, nvml, load, api)
        agent.book.journal.hold()
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        parser.error(str(error))
    except JournalInUse:
        print(f"gpu agent: another one holds {state}; ask it, or end it first", file=sys.stderr)
        raise SystemExit(3) from None
    if options.recover:
        raise SystemExit(0 if asyncio.run(recover(agent)) else 1)
    if not given:
        parser.error("no token: name a file with --token-file, or set FT_AGENT_TOKEN")
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family, backlog=64)
    except OSError as error:
        print(f"gpu agent: {options.host}:{options.port}: {error.strerror}", file=sys.stderr)
        raise SystemExit(1) from None
    asyncio.run(serve(agent, listener))


if __name__ == "__main__":
    main()
