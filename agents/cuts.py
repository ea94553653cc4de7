"""Faults of kind ``network``: real cuts between nodes, in the kernel of this machine.

Each fault has an nftables table of its own, ``ft_ID`` with the fault's id, in the network namespace of every victim.
Its rules look the other side up in a set whose elements expire in the kernel at the fault's deadline, so a cut ends in
time even when every process of the suite is dead. Undo drops that table; no other rule is ever touched.

Bandwidth is a tbf queueing discipline, which cannot expire: its end depends on the agent, which PID 1 of the cell keeps
running, and on the cell, which takes it along.
"""

import asyncio
import contextlib
import errno
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from agents.faults import Fault, Plan, Problem
from agents.kernel import enter_network_namespace
from agents.network import Network

TYPES = ("drop", "reject", "reset", "loss", "bandwidth", "delay")
DIRECTIONS = ("both", "to", "from")
LEAST_KBIT = 8
# pyroute2 waits for ever where the kernel refuses nftables.
KERNEL_SECONDS = 5.0
# By which our queueing discipline is told from anybody else's.
HANDLE = 0xF7A10000
SET, CHAINS = "peers", {"to": ("in", "input", 12), "from": ("out", "output", 16)}
"""Direction -> name and hook of its chain at the victim, and offset of the other side's address in the IPv4 header."""

IPV4, REGISTER, NETWORK_HEADER, TRANSPORT_HEADER = 2, 1, 1, 2
ANSWERS = {"reject": b"\x01", "reset": b"\x06"}
"""Type -> IP protocol of what the kernel answers: ICMP, TCP."""
REJECT_UNREACHABLE, REJECT_RESET, PORT_UNREACHABLE = 0, 1, 3


class Bench:
    """A thread that stays in one network namespace and works there; what it is given is done one after the other."""

    def __init__(self, fd: int) -> None:
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._fd = os.dup(fd)
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        enter_network_namespace(self._fd)
        os.close(self._fd)
        while (job := self._jobs.get()) is not None:
            function, done = job
            try:
                done.put((function(), None))
            except BaseException as error:  # noqa: BLE001 - handed over to the one who asked
                done.put((None, error))

    def do(self, function: Callable[[], Any]) -> Any:
        """Its result; :class:`Problem` 500 when the kernel does not answer within :data:`KERNEL_SECONDS`."""
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._jobs.put((function, done))
        try:
            result, error = done.get(timeout=KERNEL_SECONDS)
        except queue.Empty:
            raise Problem(500, "No answer", f"the kernel did not answer within {KERNEL_SECONDS:g} s") from None
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End the thread, hence its hold on the namespace."""
        self._jobs.put(None)


class CutDriver:
    """Cuts between nodes.

    Args:
        network: the nodes.
        roles: node name -> role, of all nodes there are now.
    """

    def __init__(self, network: Network, roles: Callable[[], Mapping[str, str]]) -> None:
        self._network, self._roles = network, roles
        self._benches: dict[str, Bench] = {}
        self._netem: str | None = None

    # -- what is asked for

    def plan(self, body: dict[str, Any]) -> Plan:
        """See :class:`agents.faults.Driver`; ``sources``, ``targets``, ``direction`` and ``parameters`` with
        ``percent`` (loss), ``rate_kbit`` (bandwidth) or ``delay_ms`` (delay).
        """
        kind, direction = body.get("type"), body.get("direction") or "both"
        if kind not in TYPES:
            raise Problem(422, "Unknown fault type", f"type {kind!r}; allowed: {', '.join(TYPES)}")
        if direction not in DIRECTIONS:
            raise Problem(422, "Unknown direction", f"direction {direction!r}; allowed: {', '.join(DIRECTIONS)}")
        if not self._network.namespaces:
            raise Problem(501, "Not here", "nodes share one network here (loopback); cuts need network namespaces")
        if kind == "delay":
            raise Problem(501, "Not here", self._netem_missing())
        roles, sources, targets = self._roles(), _names(body, "sources"), _names(body, "targets")
        for name in [*sources, *targets]:
            if name not in roles:
                known = ", ".join(sorted(roles)) or "none"
                raise Problem(404, "Unknown target", f"no node {name!r}; known: {known}")
        # Within one group both directions of a pair are to be cut once.
        order = sorted if direction == "both" else list
        pairs = {tuple(order((target, source))): (target, source) for target in targets for source in sources}
        cuts: dict[str, list[str]] = {}
        for target, source in pairs.values():
            if target != source:
                cuts.setdefault(target, []).append(source)
        if not cuts:
            raise Problem(422, "Nothing to cut", f"between {', '.join(sources)} and {', '.join(targets)} is no link")
        sides = ["to", "from"] if direction == "both" else [direction]
        parameters = {"direction": direction, "label": body.get("label")} | _strength(
            kind, body.get("parameters") or {}
        )
        addresses = self._network.addresses
        peers = {target: [addresses[source] for source in others] for target, others in cuts.items()}
        undo = {"type": kind, "nodes": sorted(cuts), "peers": peers, "sides": sides, "links": {}}
        if kind == "bandwidth":
            undo["links"] = {target: self._network.links[target] for target in cuts}
            touches = [
                f"queueing discipline tbf for {target}, {', '.join(sides)} it (all of its traffic)" for target in cuts
            ]
            touches.append(
                "a queueing discipline does not expire in the kernel; it ends with the agent's lease or the cell"
            )
            conflicts = [f"bandwidth of {target}" for target in cuts]
        else:
            touches = [
                f"{target}: table ip ft_ID, set {SET} ({', '.join(others)}, expiring), chain "
                + " and chain ".join(f"{CHAINS[side][0]} (hook {CHAINS[side][1]}, {kind})" for side in sides)
                + (", open TCP connections between them (SOCK_DESTROY)" if kind == "reset" else "")
                for target, others in cuts.items()
            ]
            conflicts = [
                f"packets {a} > {b}"
                for target, others in cuts.items()
                for source in others
                for side in sides
                for a, b in ([(source, target)] if side == "to" else [(target, source)])
            ]
        return Plan("network", kind, sorted(cuts), touches, undo, parameters, conflicts=conflicts)

    def _netem_missing(self) -> str:
        if self._netem is None:
            self._netem = "this kernel has no netem; a delay cannot be made"
        return self._netem

    # -- the kernel

    def _bench(self, node: str) -> Bench | None:
        """None when the node is gone."""
        if node not in self._network.files:
            return None
        if node not in self._benches:
            self._benches[node] = Bench(self._network.files[node])
        return self._benches[node]

    async def _at(self, node: str, function: Callable[[], Any]) -> Any:
        bench = self._bench(node)
        if bench is None:
            return None
        try:
            return await asyncio.to_thread(bench.do, function)
        except Problem:
            raise
        except Exception as error:  # noqa: BLE001 - whatever netlink says is the answer
            code = getattr(error, "code", None)
            words = os.strerror(code) if code else f"{type(error).__name__}: {error}"
            raise Problem(500, "The kernel refused", f"{node}: {words}") from None

    async def snapshot(self, fault: Fault) -> dict[str, Any]:
        """Our tables and the queueing disciplines at each victim."""
        found: dict[str, Any] = {}
        for node in fault.undo["nodes"]:
            tables = await self._at(node, lambda: [name for name in _tables() if name == f"ft_{fault.id}"])
            found[node] = {"tables": tables or []}
            if fault.type == "bandwidth":
                found[node]["queues"] = [await self._at(node, lambda: _queue("eth0"))]
                found[node]["queues"].append(await asyncio.to_thread(_queue, fault.undo["links"][node]))
        return found

    async def apply(self, fault: Fault) -> None:
        """See :class:`agents.faults.Driver`."""
        began = time.monotonic()
        for node in fault.undo["nodes"]:
            if fault.type == "bandwidth":
                rate = int(fault.parameters["rate_kbit"])
                if "from" in fault.undo["sides"]:
                    await self._at(node, lambda rate=rate: _limit("eth0", rate))  # type: ignore[misc]
                if "to" in fault.undo["sides"]:
                    await asyncio.to_thread(_limit, fault.undo["links"][node], rate)
            else:
                await self._at(node, lambda node=node: _cut(fault, node))  # type: ignore[misc]
        fault.evidence |= {
            "applied_in_seconds": round(time.monotonic() - began, 4),
            "counters": await self._counters(fault),
        }

    async def undo(self, fault: Fault) -> None:
        """See :class:`agents.faults.Driver`."""
        if fault.type != "bandwidth" and fault.state != "pending":
            fault.evidence["counters"] = await self._counters(fault)
        for node in fault.undo["nodes"]:
            if fault.type == "bandwidth":
                await self._at(node, lambda: _unlimit("eth0"))
                if node in self._network.files:
                    await asyncio.to_thread(_unlimit, fault.undo["links"][node])
            else:
                await self._at(node, lambda: _uncut(fault.id))

    def differences(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """See :class:`agents.faults.Driver`."""
        return [
            f"{node}: was {before[node]}, is {after.get(node)}" for node in before if before[node] != after.get(node)
        ]

    async def _counters(self, fault: Fault) -> dict[str, Any]:
        if fault.type == "bandwidth":
            return {}
        return {node: await self._at(node, lambda: _counts(fault.id)) or {} for node in fault.undo["nodes"]}

    async def look(self, fault: Fault) -> None:
        """Put the present counts of the fault's rules into its evidence."""
        fault.evidence["counters"] = await self._counters(fault)

    def capabilities(self) -> dict[str, dict[str, Any]]:
        """See :class:`agents.faults.Driver`."""
        shared = "" if self._network.namespaces else "nodes share one network here (loopback); needs network namespaces"
        how = {"bandwidth": "tbf on the node's cable", "loss": "nftables, numgen random"}
        found = {
            f"network.{kind}": {"available": not shared, "detail": shared or how.get(kind, "nftables, expiring set")}
            for kind in TYPES
        }
        found["network.delay"] = {"available": False, "detail": shared or self._netem_missing()}
        return found

    def warm(self) -> None:
        """Load what the first cut needs (0.3 s of CPU); for a thread."""
        import pyroute2.nftables.main  # noqa: F401

    def close(self) -> None:
        """Let go of the namespaces."""
        for bench in self._benches.values():
            bench.close()
        self._benches.clear()


def _names(body: Mapping[str, Any], key: str) -> list[str]:
    given = body.get(key)
    if not isinstance(given, list) or not given or not all(isinstance(each, str) for each in given):
        raise Problem(422, "Bad nodes", f"{key} is {given!r}; expected a list of node names")
    return list(dict.fromkeys(given))


def _strength(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    wanted = {"loss": ("percent", 1, 100), "bandwidth": ("rate_kbit", LEAST_KBIT, 10_000_000)}.get(kind)
    unknown = sorted(set(given) - ({wanted[0]} if wanted else set()))
    if unknown:
        allowed = wanted[0] if wanted else "none"
        raise Problem(422, "Unknown parameter", f"parameter {unknown[0]!r} of {kind}; allowed: {allowed}")
    if not wanted:
        return {}
    name, least, most = wanted
    value = given.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Problem(422, "Bad parameter", f"{name} is {value!r}; expected a whole number from {least} to {most}")
    return {name: value}


# -- in the network namespace of a node


def _nft() -> Any:
    from pyroute2.nftables.main import NFTables  # 0.3 s of CPU: only where it is used

    return NFTables(nfgen_family=IPV4)


def _tables() -> list[str]:
    with _nft() as nft:
        return [str(each.get_attr("NFTA_TABLE_NAME")) for each in nft.get_tables()]


def _expression(name: str, **values: Any) -> Any:
    from pyroute2.nftables.expressions import genex

    return genex(name, values)


def _rule(kind: str, offset: int, percent: int) -> list[Any]:
    from pyroute2.nftables.expressions import verdict

    parts = [
        _expression("payload", dreg=REGISTER, base=NETWORK_HEADER, offset=offset, len=4),
        _expression("lookup", set=SET, sreg=REGISTER),
    ]
    if kind == "loss":
        draw = _expression("ng", dreg=REGISTER, modulus=100, type=1, offset=0)
        draw["attrs"][0] = ("NFTA_EXPR_NAME", "numgen")  # its attributes are called NFTA_NG_
        # cmp compares byte by byte, hence in network order
        value = {"attrs": [("NFTA_DATA_VALUE", percent.to_bytes(4, "big"))]}
        parts.append(draw)
        parts.append(_expression("byteorder", sreg=REGISTER, dreg=REGISTER, op=1, len=4, size=4))
        parts.append(_expression("cmp", sreg=REGISTER, op=2, data=value))  # less than
    parts.append(_expression("counter", bytes=0, packets=0))
    if kind in ANSWERS:
        way = REJECT_RESET if kind == "reset" else REJECT_UNREACHABLE
        parts.append(_expression("reject", type=way, icmp_code=PORT_UNREACHABLE))
        return parts
    return [*parts, *verdict(code=0)]


def _pass_on(kind: str) -> list[Any]:
    """Let through what the kernel answers for a rejected packet: TCP resets, or ICMP."""
    from pyroute2.nftables.expressions import verdict

    def match(value: bytes) -> Any:
        return _expression("cmp", sreg=REGISTER, op=0, data={"attrs": [("NFTA_DATA_VALUE", value)]})

    protocol, flags, reset = 9, 13, b"\x04"
    parts = [_expression("payload", dreg=REGISTER, base=NETWORK_HEADER, offset=protocol, len=1), match(ANSWERS[kind])]
    if kind == "reject":
        unreachable, kind_of_message = b"\x03", 0
        parts.append(_expression("payload", dreg=REGISTER, base=TRANSPORT_HEADER, offset=kind_of_message, len=1))
        parts.append(match(unreachable))
    if kind == "reset":
        mask, none = ({"attrs": [("NFTA_DATA_VALUE", each)]} for each in (reset, b"\x00"))
        parts.append(_expression("payload", dreg=REGISTER, base=TRANSPORT_HEADER, offset=flags, len=1))
        parts.append(_expression("bitwise", sreg=REGISTER, dreg=REGISTER, len=1, mask=mask, xor=none))
        parts.append(match(reset))
    return [*parts, *verdict(code=1)]


def _cut(fault: Fault, node: str) -> None:
    table, left = f"ft_{fault.id}", fault.deadline - time.monotonic()
    milliseconds = max(1, int(left * 1000))
    if fault.type == "reset":
        # Before the rules: they would answer the victim's own next packet, and its peer would never be told.
        fault.evidence.setdefault("connections_reset", {})[node] = _destroy_open(fault.undo["peers"][node])
    with _nft() as nft:
        nft.table("create", name=table)
        nft.sets("add", table=table, name=SET, key_type="ipv4_addr", timeout=milliseconds)
        elements = [{"value": address, "timeout": milliseconds} for address in fault.undo["peers"][node]]
        nft.set_elems("add", table=table, set=SET, elements=elements)
        for side in fault.undo["sides"]:
            name, hook, offset = CHAINS[side]
            nft.chain("add", table=table, name=name, hook=hook, type="filter", policy=1)
            if fault.type in ANSWERS:
                # The kernel's own answers pass through the same chains.
                nft.rule("add", table=table, chain=name, expressions=(_pass_on(fault.type),))
            rule = _rule(fault.type, offset, int(fault.parameters.get("percent", 0)))
            nft.rule("add", table=table, chain=name, expressions=(rule,))
    if fault.type == "reset":
        # Those that were made meanwhile.
        fault.evidence["connections_reset"][node] += _destroy_open(fault.undo["peers"][node])


def _open_connections() -> list[Any]:
    from pyroute2 import DiagSocket

    # ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING (tcp_states.h); no listener
    states = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11))
    with DiagSocket() as diag:
        diag.bind()
        return list(diag.get_sock_stats(family=socket.AF_INET, states=states))


def _destroy_open(peers: list[str]) -> int:
    """End the open TCP connections to ``peers`` as a reset ends them, for both sides; returns how many there were.

    A rule answers the packet that it rejects, so the side that only listens would wait for ever. SOCK_DESTROY
    (sock_diag(7)) aborts a socket, which sends a reset to the other side.
    """
    count = 0
    kind, flags = 21, 0x5  # SOCK_DESTROY; NLM_F_REQUEST and NLM_F_ACK
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diag:  # NETLINK_SOCK_DIAG
        diag.settimeout(KERNEL_SECONDS)
        for each in _open_connections():
            if each["idiag_dst"] not in peers:
                continue
            ports = struct.pack("!HH", each["idiag_sport"], each["idiag_dport"])
            ends = b"".join(socket.inet_aton(each[end]).ljust(16, b"\0") for end in ("idiag_src", "idiag_dst"))
            request = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
            # The cookie names this very socket; without it a listener on that port would do as well.
            request += ports + ends + struct.pack("=IQ", each["idiag_if"], each["idiag_cookie"])
            diag.send(struct.pack("=IHHII", 16 + len(request), kind, flags, 0, 0) + request)
            code = struct.unpack_from("=i", diag.recv(4096), 16)[0]
            if code not in (0, -errno.ENOENT, -errno.ESTALE):  # one that has ended meanwhile is as good
                raise OSError(-code, f"SOCK_DESTROY: {os.strerror(-code)}")
            count += code == 0
    return count


def _uncut(fault_id: str) -> None:
    if f"ft_{fault_id}" in _tables():
        with _nft() as nft:
            nft.table("del", name=f"ft_{fault_id}")


def _counts(fault_id: str) -> dict[str, Any]:
    found = {}
    with _nft() as nft:
        for rule in nft.get_rules():
            if rule.get_attr("NFTA_RULE_TABLE") == f"ft_{fault_id}":
                for each in rule.get_attr("NFTA_RULE_EXPRESSIONS"):
                    if each.get_attr("NFTA_EXPR_NAME") == "counter":
                        data = each.get_attr("NFTA_EXPR_DATA")
                        found[str(rule.get_attr("NFTA_RULE_CHAIN"))] = {
                            "packets": data.get_attr("NFTA_COUNTER_PACKETS"),
                            "bytes": data.get_attr("NFTA_COUNTER_BYTES"),
                        }
    return found


def _queue(link: str) -> str:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        index = route.link_lookup(ifname=link)
        kinds = [each.get_attr("TCA_KIND") for each in route.get_qdiscs(index=index[0])] if index else []
    return ", ".join(kinds) or "none"


def _limit(link: str, rate_kbit: int) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        index = route.link_lookup(ifname=link)[0]
        if any(each.get_attr("TCA_KIND") not in ("noqueue", "pfifo_fast") for each in route.get_qdiscs(index=index)):
            raise Problem(409, "Conflicting queue", f"{link} has a queueing discipline of somebody else's")
        route.tc("add", "tbf", index, handle=HANDLE, rate=f"{rate_kbit}kbit", latency="400ms", burst=16000)


def _unlimit(link: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as route, contextlib.suppress(Exception):
        for index in route.link_lookup(ifname=link):
            if any(each["handle"] == HANDLE for each in route.get_qdiscs(index=index)):
                route.tc("del", index=index, root=True)
