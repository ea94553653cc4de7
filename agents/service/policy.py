"""Who may do what: callers by token, name and site, targets by name and namespace."""

import contextlib
import fnmatch
import hashlib
import hmac
import ipaddress
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import Request
from fastapi.responses import JSONResponse

from agents.core.faults import Problem
from agents.service.problems import problem

PAGE = "/page"
"""Where the scripts and styles of the page at /docs lie."""
OPEN = ("/health", "/docs", "/openapi.json")
"""What wants no token: whether the service is there, and what it could do for those who have one."""


@dataclass
class Policy:
    """Who may do what.

    Attributes:
        token: bearer token that callers have to send; empty: none.
        nodes: names that may be targets; namespaces: those of targets ``NAMESPACE/POD`` that may be hit, with ``*``
            and ``?`` as in a shell. A target has to be in the one or the other; both empty: all may.
        max_active: faults, of all agents, that may be live or have an undo that is owed at once.
        max_share: share of the nodes of a role that may be under such faults at once; one may in any case.
        hosts: names of this service that callers may use, beside ``localhost`` and addresses.
        audit: the append-only log.
        urgent: whether to be scheduled before everything else, as in a cell, where an order may not wait for boots.
    """

    audit: Path
    token: str = field(default="", repr=False)
    nodes: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    max_active: int = 10
    max_share: float = 1.0
    urgent: bool = False
    hosts: frozenset[str] = frozenset()

    @property
    def principal(self) -> str:
        """What the audit log calls whoever has the token, without telling it; anybody where there is none."""
        if not self.token:
            return "anybody"
        return f"token {hashlib.sha256(f'principal {self.token}'.encode()).hexdigest()[:8]}"

    def knows(self, request: Request) -> bool:
        """Whether the caller has the token, or none is wanted."""
        given = request.headers.get("authorization", "")
        return not self.token or hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode())

    def refusal(self, request: Request) -> JSONResponse | None:
        """None when the caller may go on.

        The name that a call comes under counts too: a page of another site can have its own name lead to this machine
        (DNS rebinding), but has no control over an address.
        """
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        name = _host_of(f"//{host}")
        if not _is_address(name) and name not in ("localhost", *self.hosts):
            detail = f"Host {host!r}; expected localhost, an address or a name of --allow-host"
            return problem(421, "Unknown name", detail)
        if origin is not None and origin.partition("://")[2] != host:
            return problem(421, "Another site", f"Origin {origin!r}; expected none, or this service's own")
        if request.state.known or request.url.path in OPEN or request.url.path.startswith(f"{PAGE}/"):
            return None
        if "authorization" not in request.headers:
            return problem(401, "No token", "send 'Authorization: Bearer' with the token of this service")
        return problem(403, "Wrong token", "the token in 'Authorization' is not that of this service")

    def check_target(self, name: str) -> None:
        """Refuse a target that is not allowed.

        Raises:
            Problem: 403.
        """
        nodes, namespaces = self.nodes, self.namespaces
        namespace = name.partition("/")[0] if "/" in name else None
        if not (nodes or namespaces) or name in nodes:
            return
        if namespace is not None and any(fnmatch.fnmatchcase(namespace, each) for each in namespaces):
            return
        if namespaces and namespace is not None:
            raise Problem(403, "Not allowed", f"the namespace of {name!r} is not among the allowed ones")
        raise Problem(403, "Not allowed", f"{name!r} is not among the allowed nodes")


def _host_of(url: str) -> str:
    """In lower case, without port and brackets; empty where there is none to make out."""
    with contextlib.suppress(ValueError):
        return urllib.parse.urlsplit(url).hostname or ""
    return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
