"""Nodes of a cell: network namespaces on one bridge, or addresses of the loopback where namespaces cannot be had."""

import contextlib
import json
import os
import re
import secrets
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.core.faults import Problem

FOLDER = Path("/run/netns")


@dataclass(frozen=True)
class NodeEntry:
    """One node; ``link`` is the name of its cable's end at the bridge, empty without namespaces."""

    name: str
    role: str
    address: str
    link: str


class Network:
    """Makes and removes nodes.

    Args:
        namespaces: one network namespace per node on one bridge, else loopback addresses.
        record: file that lets the agent's successor find the nodes again.
    """

    BRIDGE, PREFIX, GROUP = "cell0", "10.77.0.", 77
    bridge: int | None = None

    def __init__(self, namespaces: bool, record: Path) -> None:
        self.namespaces, self._record = namespaces, record
        self.nodes: dict[str, NodeEntry] = {}
        self.files: dict[str, int] = {}
        # Runs side by side on one loopback keep out of each other's way by a random /24 of 127/8.
        self._prefix = self.PREFIX if namespaces else f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(254) + 1}."

    @property
    def addresses(self) -> dict[str, str]:
        """Node name -> IPv4 address."""
        return {name: node.address for name, node in self.nodes.items()}

    def link(self, name: str) -> str:
        """Name of the end at the bridge of a node's cable."""
        return self.nodes[name].link

    def roles(self) -> dict[str, str]:
        """Node name -> role."""
        return {name: node.role for name, node in self.nodes.items()}

    def adopt(self) -> None:
        """Take over the nodes that an agent before this one has made."""
        if not self._record.exists():
            return
        content: dict[str, Any] = json.loads(self._record.read_text())
        self._prefix = content["prefix"]
        for entry in content["nodes"]:
            node = NodeEntry(**entry)
            if self.namespaces:
                self.files[node.name] = os.open(FOLDER / node.name, os.O_RDONLY | os.O_CLOEXEC)
            self.nodes[node.name] = node

    def _save(self) -> None:
        draft = self._record.with_suffix(".new")
        nodes = [asdict(node) for node in self.nodes.values()]
        draft.write_text(json.dumps({"prefix": self._prefix, "nodes": nodes}))
        draft.replace(self._record)

    def add(self, name: str, role: str) -> NodeEntry:
        """Make a node.

        Raises:
            Problem: 422 for a bad name, 409 when it is taken.
        """
        # It becomes the name of a namespace and a part of paths and rules: what needs no escape in any of them.
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9-]*", name):
            raise Problem(422, "Bad name", f"node name {name!r}; expected letters and digits of ASCII, and dashes")
        if name in self.nodes:
            raise Problem(409, "Node exists", f"there is already a node {name!r}")
        number = 10 + len(self.nodes)
        node = NodeEntry(name, role, f"{self._prefix}{number}", f"node{number}" if self.namespaces else "")
        if self.namespaces:
            self._add_namespace(node)
        self.nodes[name] = node
        self._save()
        return node

    def _add_namespace(self, node: NodeEntry) -> None:
        from pyroute2 import IPRoute, netns  # 0.5 s of CPU: only where it is used

        netns.create(node.name)
        self.files[node.name] = os.open(FOLDER / node.name, os.O_RDONLY | os.O_CLOEXEC)
        with IPRoute() as route:
            if not route.link_lookup(ifname=self.BRIDGE):
                route.link("add", ifname=self.BRIDGE, kind="bridge")
                index = route.link_lookup(ifname=self.BRIDGE)[0]
                route.addr("add", index=index, address=f"{self.PREFIX}1", prefixlen=24)
                route.link("set", index=index, state="up", group=self.GROUP)
            bridge = route.link_lookup(ifname=self.BRIDGE)[0]
            peer = {"ifname": "eth0", "net_ns_fd": node.name}
            route.link("add", ifname=node.link, kind="veth", peer=peer)
            index = route.link_lookup(ifname=node.link)[0]
            route.link("set", index=index, master=bridge, state="up", group=self.GROUP)
        netns.pushns(node.name)
        try:
            # Nobody else can have its address of IPv6: without a second or two of looking for them (duplicate address
            # detection) that way between nodes is there from the beginning, for Dynamo, for cuts and for their proofs.
            with contextlib.suppress(OSError):
                Path("/proc/sys/net/ipv6/conf/eth0/accept_dad").write_text("0")
            with IPRoute() as route:
                for interface in ("lo", "eth0"):
                    index = route.link_lookup(ifname=interface)[0]
                    if interface == "eth0":
                        route.addr("add", index=index, address=node.address, prefixlen=24)
                    route.link("set", index=index, state="up")
                # Dynamo before 1.3 finds its own address through the default route and fails without one.
                route.route("add", gateway=f"{self.PREFIX}1")
            # The kernel sends one host at most one refusal (ICMP) per second after the first six: a cut that rejects
            # would turn silent. Without root that limit cannot be changed.
            for limit in ("ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"):
                with contextlib.suppress(OSError):
                    Path("/proc/sys/net", limit).write_text("0")
        finally:
            netns.popns()

    def remove_all(self) -> None:
        """Remove every node and the bridge."""
        if self.namespaces and self.nodes:
            from pyroute2 import IPRoute, netns

            with IPRoute() as route:
                # All links of the group in one go; one by one the kernel waits for each.
                route.link("del", index=0, group=self.GROUP)
            for name, fd in self.files.items():
                os.close(fd)
                netns.remove(name)
        self.nodes.clear()
        self.files.clear()
        self._record.unlink(missing_ok=True)

    def kernel_view(self) -> dict[str, list[str]]:
        """Named network namespaces and links of this cell as the kernel lists them."""
        if not self.namespaces:
            return {"namespaces": [], "links": []}
        links = sorted(name for _, name in socket.if_nameindex())
        return {"namespaces": sorted(entry.name for entry in FOLDER.iterdir()), "links": links}
