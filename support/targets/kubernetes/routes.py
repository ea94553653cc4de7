"""How requests and looks travel from here to the pods of a scenario.

Calls to ``http://NODE:PORT`` are carried to whatever pod has that name now, straight to its address where this machine
is on the pods' network, else by way of the API server. Clients' requests need a TCP connection: a URL that the user
names, the Service, a port of a node, or a port that is forwarded, the first that works.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from support import asking
from support.asking import NoAnswer, Order, Response, ask
from support.errors import DeploymentFailed
from support.targets.kubernetes.api import ApiServer
from support.targets.kubernetes.manifests import FRONTEND_PORT
from support.targets.kubernetes.names import Names
from support.targets.kubernetes.tunnels import Tunnel

# An answer within a cluster takes milliseconds; addresses that lead nowhere are silent.
REACH_SECONDS = 1.0
TUNNEL_SECONDS = 30.0
LOOKS = 5
"""How many looks tell what a way costs."""


class Routes:
    """The ways to the pods of one scenario.

    Args:
        namespace: of the pods.
        address: the current address of a node; None while it has none. ``names``: which pods the nodes are.

    Attributes:
        direct: whether this machine is on the pods' network.
        url: where clients send requests, once :meth:`open` has found out; ``way``: in words.
    """

    def __init__(self, cluster: ApiServer, namespace: str, address: Callable[[str], str | None], names: Names) -> None:
        self._cluster, self._namespace, self._address, self._names = cluster, namespace, address, names
        self._tunnel: Tunnel | None = None
        self._frontends: list[str] = []
        self.direct = False
        self.url = self.way = ""
        asking.carry_by(self.carry)

    def carry(self, scheme: str, netloc: str, timeout: float, order: Order) -> Response:
        """See :data:`support.asking.Carry`; a host that is not a node of the scenario is asked as ever."""
        host, _, port = netloc.partition(":")
        name = host.partition(".")[0]
        if self._tunnel is not None and netloc == self.url.removeprefix("http://"):
            name, port = self._running(), str(FRONTEND_PORT)  # the same process, without a way through the tunnel
        address = self._address(name)
        if address is None and ("." in host or not name.rpartition("-")[2].isdigit()):
            return asking.over_tcp(scheme, netloc, timeout, order)
        if address is None:
            raise ConnectionRefusedError(f"{name} has no pod with an address")
        if self.direct:
            return asking.over_tcp(scheme, f"{address}:{port}", timeout, order)
        return self._cluster.proxy(self._namespace, self._names.pod(name), int(port), order, timeout)

    def _running(self) -> str:
        return next((name for name in self._frontends if self._address(name)), self._frontends[0])

    def open(self, given: str | None, frontends: Sequence[str]) -> None:
        """Find the way for clients; all frontends are ready.

        Args:
            given: what the user says that it is.

        Raises:
            DeploymentFailed: there is none.
        """
        self._frontends = list(frontends)
        service = self._cluster.get("Service", self._namespace, "frontend") or {}
        address = self._address(frontends[0])
        self.direct = address is not None and _is_frontend(f"http://{address}:{FRONTEND_PORT}")
        inside = f"http://{service['spec']['clusterIP']}:{FRONTEND_PORT}"
        if given:
            self.url, self.way = given.rstrip("/"), "FRONTEND_URL"
            if not _is_frontend(self.url):
                raise DeploymentFailed(
                    f"FRONTEND_URL is {given}, where no Dynamo frontend answers; leave it out, or have it lead to the "
                    f"Service frontend in the namespace {self._namespace}"
                )
        elif self.direct and _is_frontend(inside):
            self.url, self.way = inside, "the Service"
        elif (port := self._node_port(service)) is not None:
            self.url, self.way = port, "a port of a node"
        else:
            self.url, self.way = self._forward(frontends), "a port that is forwarded through the API server"

    def _node_port(self, service: Any) -> str | None:
        port = next((each.get("nodePort") for each in service["spec"]["ports"]), None)
        if port is None or not self._cluster.may("list", "", "nodes"):
            return None
        for node in self._cluster.list("Node"):
            for each in node["status"].get("addresses", []):
                url = f"http://{each['address']}:{port}"
                if each["type"] != "Hostname" and _is_frontend(url):
                    return url
        return None

    def _forward(self, frontends: Sequence[str]) -> str:
        self._tunnel = Tunnel(self._cluster, self._namespace, frontends, FRONTEND_PORT)
        return self._tunnel.url

    def cost(self) -> float:
        """Seconds that a look takes on the way that clients' requests take: the least of a few."""
        took = []
        for _ in range(LOOKS):
            began = time.monotonic()
            host, _, port = self.url.partition("://")[2].partition("/")[0].partition(":")
            scheme = self.url.partition("://")[0]
            asking.over_tcp(scheme, f"{host}:{port or 80}", TUNNEL_SECONDS, ("GET", "/health", None, {}))
            took.append(time.monotonic() - began)
        return min(took)

    def close(self) -> None:
        """End what was begun here; calls go the usual way again."""
        asking.carry_by(asking.over_tcp)
        if self._tunnel is not None:
            self._tunnel.close()
            self._tunnel = None


def _is_frontend(url: str) -> bool:
    """Whether a Dynamo frontend answers there: where that address leads nowhere, somebody else may take connections."""
    try:
        answer = ask(f"{url}/health", REACH_SECONDS)
        return answer.status == 200 and "instances" in answer.json()
    except (NoAnswer, ValueError, TypeError):
        return False
