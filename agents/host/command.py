"""The command line that agents of a whole machine have in common: ``--state-dir DIR [--token-file FILE]``.

When the agent is gone for good, ``--recover --state-dir DIR`` undoes what its journal lists as live, prints one line
of JSON for each fault and ends: 0 when all is undone, 1 when something is not, 3 when an agent still holds the journal
(it is its only writer: ask that one, or end it first, also when it is frozen).
"""

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from agents.core.journal import JournalInUse
from agents.core.tokens import read_token
from agents.host.agent import HostAgent, HostSettings
from agents.host.pods import Api
from agents.watchdog.guard import private


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


def parser(prog: str, what: str, port: int) -> argparse.ArgumentParser:
    """The options that all have; ``port`` is the default one."""
    found = argparse.ArgumentParser(
        prog=f"python -m {prog}", description=f"{what} Environment: FT_AGENT_TOKEN (bearer token), NODE_NAME."
    )
    found.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback)")
    found.add_argument("--port", type=int, default=port, help=f"0: any free one (default {port})")
    found.add_argument("--name", default=os.environ.get("NODE_NAME") or socket.gethostname(), help="of this machine")
    found.add_argument("--state-dir", type=Path, required=True, help="folder of the journal; must outlive the agent")
    found.add_argument("--token-file", type=Path, help="file with the bearer token; else FT_AGENT_TOKEN")
    found.add_argument(
        "--allow-namespace",
        action="append",
        default=[],
        metavar="NAMESPACE",
        help="whose pods may be targets; * and ? as in a shell",
    )
    found.add_argument(
        "--supervised", action="store_true", help="start no watchdog: kubelet or systemd restart a dead or frozen agent"
    )
    found.add_argument("--recover", action="store_true", help="undo what the journal lists as live, then exit")
    return found


def run(
    options_of: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    program: Sequence[str],
    make: Callable[[HostSettings, argparse.Namespace, Api | None], HostAgent],
) -> None:
    """Serve, or recover, as the command line says.

    Args:
        program: what to run this agent as after ``python -m``.
        make: makes the agent.

    Raises:
        SystemExit: 2 for options that make no sense, 1 when the address cannot be had or something is not undone, 3
            when another agent holds the journal.
    """
    options = options_of.parse_args(argv)
    state = options.state_dir.resolve()
    try:
        given = read_token(options.token_file, "FT_AGENT_TOKEN")
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_private(state)
        guarded_by = () if options.supervised else tuple(program)
        settings = HostSettings(options.name, state, given, tuple(options.allow_namespace), guarded_by)
        agent = make(settings, options, Api.of_this_cluster())
        agent.book.journal.hold()
    except OSError as error:
        options_of.error(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        options_of.error(str(error))
    except JournalInUse:
        in_use = f"another agent uses {state}; send requests to that one, or stop it first"
        print(f"{options_of.prog}: {in_use}", file=sys.stderr)
        raise SystemExit(3) from None
    if options.recover:
        raise SystemExit(0 if asyncio.run(agent.end_all()) else 1)
    if not given:
        options_of.error("no token: name a file with --token-file, or set FT_AGENT_TOKEN")
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family, backlog=64)
    except OSError as error:
        print(f"{agent.called}: {options.host}:{options.port}: {error.strerror}", file=sys.stderr)
        raise SystemExit(1) from None
    asyncio.run(agent.serve(listener))
