"""Entry point of the fault service."""

import argparse
import ipaddress
import os
import re
import socket
import sys
from pathlib import Path

import uvicorn

from agents.core.tokens import read_token
from agents.host.pods import Api
from agents.service.agents import AgentAddress
from agents.service.api import application
from agents.service.finder import LABEL, Finder, Where
from agents.service.policy import Policy


def parser() -> argparse.ArgumentParser:
    """Its options."""
    found = argparse.ArgumentParser(
        prog="python -m agents.service",
        description="Injects faults into Dynamo deployments. Environment: FT_SERVICE_TOKEN (bearer token of this "
        "service), FT_AGENT and FT_AGENT_TOKEN (node agent of this cell, known as deployment 'local').",
    )
    found.add_argument("--host", default="127.0.0.1", help="address; any but loopback needs a token")
    found.add_argument("--port", type=int, default=8080)
    found.add_argument("--listen-fd", type=int, action="append", default=[], help="serve this socket instead")
    found.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a host name that callers use for this service, besides localhost and addresses",
    )
    found.add_argument("--token-file", type=Path, help="file with the bearer token; else FT_SERVICE_TOKEN")
    found.add_argument(
        "--agent", action="append", default=[], metavar="DEPLOYMENT=URL", help="a node or GPU agent; needs a token"
    )
    found.add_argument(
        "--agents-in",
        action="append",
        default=[],
        metavar="NAMESPACE/APP:PORT",
        help=f"agents that run as pods of this cluster, found by their label {LABEL}; needs a token",
    )
    found.add_argument("--agent-token-file", type=Path, help="token of the agents; else FT_AGENT_TOKEN")
    found.add_argument("--state-dir", type=Path, help="for the audit log")
    found.add_argument("--allow-node", action="append", default=[], metavar="NAME", help="the only targets allowed")
    found.add_argument("--allow-namespace", action="append", default=[], metavar="NAMESPACE", help="of NAMESPACE/POD")
    found.add_argument(
        "--max-active", type=int, default=10, help="most live faults at once, of all agents (default 10)"
    )
    found.add_argument(
        "--max-share",
        type=float,
        help="largest share of the nodes of a role under faults at once; one node is always allowed "
        "(default 1; 0.5 with --agent or --agents-in)",
    )
    return found


def _state_dir(given: Path | None) -> Path:
    if given or os.environ.get("FT_SCRATCH"):
        return given or Path(os.environ["FT_SCRATCH"])
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "dynamo-faults"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def main() -> None:
    """Serve until SIGTERM.

    Raises:
        SystemExit: 2 for options that make no sense, 1 when the address cannot be had.
    """
    own = parser()
    options = own.parse_args()
    try:
        token = read_token(options.token_file, "FT_SERVICE_TOKEN")
        agent_token = read_token(options.agent_token_file, "FT_AGENT_TOKEN")
    except OSError as error:
        own.error(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        own.error(str(error))
    if not token and (options.agent or options.agents_in or ("FT_AGENT" in os.environ and "FT_CELL" not in os.environ)):
        own.error("every user of this machine could break what the agents reach: give a token with --token-file")
    if not options.listen_fd and not _is_loopback(options.host) and not token:
        own.error(f"--host {options.host} can be reached from outside: give a token with --token-file")
    share = (0.5 if options.agent or options.agents_in else 1.0) if options.max_share is None else options.max_share
    if options.max_active < 1 or not 0 < share <= 1:
        own.error("--max-active has to be 1 or more, --max-share above 0 and at most 1")
    agents = []
    for each in options.agent:
        name, separator, url = each.partition("=")
        if not separator or not url.startswith("http"):
            own.error(f"--agent {each}: expected DEPLOYMENT=URL")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):  # it stands in headers and in lists with commas
            own.error(f"--agent {each}: DEPLOYMENT {name!r}; expected letters and digits of ASCII, '.', '_', '-'")
        agents.append(AgentAddress(name, url.rstrip("/"), agent_token))
    if os.environ.get("FT_AGENT") and "local" not in [agent.name for agent in agents]:
        agents.append(AgentAddress("local", os.environ["FT_AGENT"], agent_token))
    try:
        places = [Where.parse(each) for each in options.agents_in]
    except ValueError as error:
        own.error(f"--agents-in {error}")
    api = Api.of_this_cluster()
    if places and api is None:
        own.error("--agents-in: this is not a pod with a service account; outside a cluster, name agents with --agent")
    search = Finder(api, places, agent_token) if places and api else None
    policy = Policy(
        audit=_state_dir(options.state_dir) / "audit.jsonl",
        token=token,
        nodes=frozenset(options.allow_node),
        namespaces=frozenset(options.allow_namespace),
        max_active=options.max_active,
        max_share=share,
        hosts=frozenset(name.lower() for name in (options.host, *options.allow_host)),
        urgent="FT_CELL" in os.environ,
    )
    try:
        listeners = [socket.socket(fileno=fd) for fd in options.listen_fd] or [
            socket.create_server((options.host, options.port), backlog=64)
        ]
    except OSError as error:
        print(f"fault service: {options.host}:{options.port}: {error.strerror}", file=sys.stderr)
        raise SystemExit(1) from None
    for each in listeners if not token else ():
        if each.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(each.getsockname()[0]):
            own.error(f"{each.getsockname()[0]} can be reached from outside: give a token with --token-file")
    config = uvicorn.Config(application(agents, policy, search), log_level="warning", access_log=False, loop="asyncio")
    uvicorn.Server(config).run(sockets=listeners)


if __name__ == "__main__":
    main()
