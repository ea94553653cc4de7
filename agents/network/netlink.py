"""What cuts and narrow cables are made of: nftables, queueing disciplines and sockets of one network namespace.

All functions work in the network namespace of the thread that calls them, see :class:`Bench`, and change nothing that
is not their own: a table by its name, a queueing discipline by its handle, a socket by its cookie.
"""

import errno
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from agents.core.faults import Problem
from agents.core.kernel import bring_loopback_up, enter_network_namespace, enter_new_namespaces

# pyroute2 waits for ever where the kernel refuses nftables.
KERNEL_SECONDS = 5.0
# By which our queueing discipline is told from anybody else's.
HANDLE = 0xF7A10000
QUEUES = {"bandwidth": "tbf", "delay": "netem"}
"""Type of a fault -> the queueing discipline that makes it; the other types are nftables rules."""
# Two Ethernet frames, for tbf passes on nothing that is larger than its burst; and what a fast cable carries in 4 ms,
# or the kernel's timers would slow it down.
LEAST_BURST_BYTES, BURST_SECONDS = 3028, 0.004
# Packets that wait longer than this for a narrow cable are dropped, as a full buffer does.
QUEUE_LATENCY = "400ms"
# Packets on their way at once; more would be lost, which is another fault.
DELAYED_PACKETS = 100_000
CHAINS = {"to": ("in", "input"), "from": ("out", "output")}
"""Direction -> name and hook of its chain at the victim."""


@dataclass(frozen=True)
class Family:
    """One of the two sorts of packets, as rules tell them.

    Attributes:
        number: the kernel's, in one byte; ``key``: type of its addresses, of ``length`` bytes.
        peers: name of the set with those of the other side.
        offsets: direction -> where its header has the address of the other side; ``protocol``: what comes behind it.
        icmp: number of the protocol of its errors; ``unreachable``: type of the error that a rejection is.
    """

    number: bytes
    key: str
    length: int
    peers: str
    offsets: Mapping[str, int]
    protocol: int
    icmp: bytes
    unreachable: bytes


IPV4 = Family(b"\x02", "ipv4_addr", 4, "peers", {"to": 12, "from": 16}, 9, b"\x01", b"\x03")
IPV6 = Family(b"\x0a", "ipv6_addr", 16, "peers6", {"to": 8, "from": 24}, 6, b"\x3a", b"\x01")
NEIGHBOURS = b"\x85", b"\x89"
"""First and last type of what IPv6 finds its neighbours with, over ICMP: as ARP, which no rule of these ever meets."""
INET, REGISTER, NETWORK_HEADER, TRANSPORT_HEADER, NFPROTO = 1, 1, 1, 2, 15
EQUAL, LESS, AT_MOST, AT_LEAST = 0, 2, 3, 5
ANSWERED = ("reject", "reset")
"""Types for which the kernel answers: with an error over ICMP, over TCP with a reset."""
REJECT_RESET, REJECT_UNREACHABLE, PORT_UNREACHABLE = 1, 2, 1
TCP, FLAGS, RESET_FLAG = b"\x06", 13, b"\x04"


class Bench:
    """A thread that stays in one network namespace and works there; what it is given is done one after the other.

    Args:
        fd: open file of the namespace; None: that of the thread that makes the bench.
        fresh: a new namespace of its own instead, which ends with the thread.
    """

    def __init__(self, fd: int | None = None, fresh: bool = False) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._fd, self._fresh = None if fd is None else os.dup(fd), fresh
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        if self._fd is not None:
            enter_network_namespace(self._fd)
            os.close(self._fd)
        if self._fresh:
            enter_new_namespaces("net")
        while (job := self._jobs.get()) is not None:
            function, future = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:  # noqa: BLE001 - handed over to the one who asked
                    future.set_exception(error)

    def submit(self, function: Callable[[], Any]) -> "Future[Any]":
        """Have ``function`` called; a future that is cancelled before its turn is not."""
        future: Future[Any] = Future()
        self._jobs.put((function, future))
        return future

    def close(self) -> None:
        """End the thread, hence its hold on the namespace."""
        self._jobs.put(None)


def in_words(error: Exception) -> str:
    """What netlink answered."""
    code = getattr(error, "code", None)
    return os.strerror(code) if code else f"{type(error).__name__}: {error}"


# -- tables


def _nft() -> Any:
    from pyroute2.nftables.main import NFTables  # 0.3 s of CPU: only where it is used

    return NFTables(nfgen_family=INET)


def tables() -> list[str]:
    """Names of all tables for both families, IPv4 and IPv6."""
    with _nft() as nft:
        return [str(each.get_attr("NFTA_TABLE_NAME")) for each in nft.get_tables()]


def _expression(name: str, **values: Any) -> Any:
    from pyroute2.nftables.expressions import genex

    return genex(name, values)


def _is(value: bytes, operation: int = EQUAL) -> Any:
    # Bytes are compared one by one, hence numbers in network order.
    return _expression("cmp", sreg=REGISTER, op=operation, data={"attrs": [("NFTA_DATA_VALUE", value)]})


def _payload(header: int, offset: int, length: int = 1) -> Any:
    return _expression("payload", dreg=REGISTER, base=header, offset=offset, len=length)


def _of(family: Family) -> list[Any]:
    return [_expression("meta", dreg=REGISTER, key=NFPROTO), _is(family.number)]


def _rule(kind: str, family: Family, side: str, percent: int) -> list[Any]:
    from pyroute2.nftables.expressions import verdict

    parts = _of(family)
    parts.append(_payload(NETWORK_HEADER, family.offsets[side], family.length))
    parts.append(_expression("lookup", set=family.peers, sreg=REGISTER))
    if kind == "loss":
        parts.append(_expression("counter", bytes=0, packets=0))
        draw = _expression("ng", dreg=REGISTER, modulus=100, type=1, offset=0)
        draw["attrs"][0] = ("NFTA_EXPR_NAME", "numgen")  # its attributes are called NFTA_NG_
        parts.append(draw)
        parts.append(_expression("byteorder", sreg=REGISTER, dreg=REGISTER, op=1, len=4, size=4))
        parts.append(_is(percent.to_bytes(4, "big"), LESS))
    parts.append(_expression("counter", bytes=0, packets=0))
    if kind in ANSWERED:
        way = REJECT_RESET if kind == "reset" else REJECT_UNREACHABLE
        parts.append(_expression("reject", type=way, icmp_code=PORT_UNREACHABLE))
        return parts
    return [*parts, *verdict(code=0)]


def _pass_on(kind: str, family: Family) -> Iterator[list[Any]]:
    """Let through what is nobody's packet on the node: the kernel's own answers for rejected packets, which pass
    through the same chains, and what finds neighbours.
    """
    from pyroute2.nftables.expressions import verdict

    over = [*_of(family), _payload(NETWORK_HEADER, family.protocol)]
    icmp = [*over, _is(family.icmp), _payload(TRANSPORT_HEADER, 0)]
    if family is IPV6:
        first, last = NEIGHBOURS
        yield [*icmp, _is(first, AT_LEAST), _is(last, AT_MOST), *verdict(code=1)]
    if kind == "reject":
        yield [*icmp, _is(family.unreachable), *verdict(code=1)]
    if kind == "reset":
        mask, none = ({"attrs": [("NFTA_DATA_VALUE", each)]} for each in (RESET_FLAG, b"\x00"))
        only = _expression("bitwise", sreg=REGISTER, dreg=REGISTER, len=1, mask=mask, xor=none)
        yield [*over, _is(TCP), _payload(TRANSPORT_HEADER, FLAGS), only, _is(RESET_FLAG), *verdict(code=1)]


def addresses() -> list[str]:
    """Addresses of this namespace but those of its loopback, of both families; IPv6 has one for each link of itself."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        [loopback] = route.link_lookup(ifname="lo")
        found = [each.get_attr("IFA_ADDRESS") for each in route.get_addr() if each["index"] != loopback]
    return [str(each) for each in found]


def cut(table: str, kind: str, peers: list[str], sides: list[str], milliseconds: int, percent: int = 0) -> int:
    """Make the rules of a fault, in a table of their own whose set expires in the kernel.

    Args:
        kind: ``drop``, ``reject``, ``reset`` or ``loss`` (of ``percent``).
        peers: addresses of the other side, of both families.
        sides: keys of :data:`CHAINS`.

    Returns:
        How many open connections a reset has ended.
    """
    # Before the rules: they would answer the victim's own next packet, and its peer would hear of no reset.
    ended = destroy_open(peers) if kind == "reset" else 0
    with _nft() as nft:
        nft.table("create", name=table)
        for side in sides:
            name, hook = CHAINS[side]
            nft.chain("add", table=table, name=name, hook=hook, type="filter", policy=1)
        for family in (IPV4, IPV6):
            theirs = [each for each in peers if (":" in each) == (family is IPV6)]
            if not theirs:
                continue
            nft.sets("add", table=table, name=family.peers, key_type=family.key, timeout=milliseconds)
            elements = [{"value": address, "timeout": milliseconds} for address in theirs]
            nft.set_elems("add", table=table, set=family.peers, elements=elements)
            for side in sides:
                for rule in (*_pass_on(kind, family), _rule(kind, family, side, percent)):
                    nft.rule("add", table=table, chain=CHAINS[side][0], expressions=(rule,))
    # Those that were made meanwhile.
    return ended + (destroy_open(peers) if kind == "reset" else 0)


def uncut(table: str) -> None:
    """Drop a table; does nothing where there is none."""
    if table in tables():
        with _nft() as nft:
            nft.table("del", name=table)


def counts(table: str) -> dict[str, dict[str, int]]:
    """Chain -> ``packets`` that its rules have hit and, of a loss, ``drawn``: those that they have drawn them from."""
    found: dict[str, dict[str, int]] = {}
    with _nft() as nft:
        for rule in nft.get_rules():
            if rule.get_attr("NFTA_RULE_TABLE") != table:
                continue
            expressions = rule.get_attr("NFTA_RULE_EXPRESSIONS")
            counters = [
                each.get_attr("NFTA_EXPR_DATA").get_attr("NFTA_COUNTER_PACKETS")
                for each in expressions
                if each.get_attr("NFTA_EXPR_NAME") == "counter"
            ]
            if counters:
                chain = found.setdefault(str(rule.get_attr("NFTA_RULE_CHAIN")), {})
                drawn = {"drawn": counters[0]} if len(counters) > 1 else {}
                for name, count in ({"packets": counters[-1]} | drawn).items():
                    chain[name] = chain.get(name, 0) + count
    return found


# -- sockets


def _open_connections() -> list[Any]:
    from pyroute2 import DiagSocket

    # ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING (tcp_states.h); no listener
    states = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11))
    with DiagSocket() as diag:
        diag.bind()
        return [
            each
            for family in (socket.AF_INET, socket.AF_INET6)
            for each in diag.get_sock_stats(family=family, states=states)
        ]


def destroy_open(peers: list[str]) -> int:
    """End the open TCP connections to ``peers`` as a reset ends them, for both sides; returns how many there were.

    A rule answers the packet that it rejects, so the side that only listens would wait for ever. SOCK_DESTROY
    (sock_diag(7)) aborts a socket, which sends a reset to the other side. An IPv6 socket may speak IPv4: its addresses
    are then IPv4-mapped (RFC 4291, 2.5.5.2).
    """
    count = 0
    kind, flags = 21, 0x5  # SOCK_DESTROY; NLM_F_REQUEST and NLM_F_ACK
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diag:  # NETLINK_SOCK_DIAG
        diag.settimeout(KERNEL_SECONDS)
        for each in _open_connections():
            family = each["idiag_family"]
            if each["idiag_dst"].removeprefix("::ffff:") not in peers:
                continue
            ports = struct.pack("!HH", each["idiag_sport"], each["idiag_dport"])
            ends = b"".join(socket.inet_pton(family, each[end]).ljust(16, b"\0") for end in ("idiag_src", "idiag_dst"))
            request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
            # The cookie names this very socket; without it a listener on that port would do as well.
            request += ports + ends + struct.pack("=IQ", each["idiag_if"], each["idiag_cookie"])
            diag.send(struct.pack("=IHHII", 16 + len(request), kind, flags, 0, 0) + request)
            code = struct.unpack_from("=i", diag.recv(4096), 16)[0]
            if code not in (0, -errno.ENOENT, -errno.ESTALE):  # one that has ended meanwhile is as good
                raise OSError(-code, f"SOCK_DESTROY: {os.strerror(-code)}")
            count += code == 0
    return count


# -- queueing disciplines


def burst_bytes(rate_kbit: int) -> int:
    """What passes a limit of that rate at once after a pause."""
    return max(LEAST_BURST_BYTES, int(rate_kbit * 125 * BURST_SECONDS))


def queues(link: str) -> str | None:
    """Kinds of the queueing disciplines of a link; None when there is no such link."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        index = route.link_lookup(ifname=link)
        if not index:
            return None
        return ", ".join(each.get_attr("TCA_KIND") for each in route.get_qdiscs(index=index[0])) or "none"


def settings(kind: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the kernel is told about the queueing discipline of a fault."""
    if kind == "bandwidth":
        rate = int(parameters["rate_kbit"])
        return {"rate": f"{rate}kbit", "latency": QUEUE_LATENCY, "burst": burst_bytes(rate)}
    return {"delay": int(parameters["delay_ms"]) * 1000, "limit": DELAYED_PACKETS}


def shape(link: str, kind: str, parameters: Mapping[str, Any]) -> None:
    """Give a link the queueing discipline of a fault.

    Raises:
        Problem: 409, it has one of somebody else's.
    """
    from pyroute2 import IPRoute

    with IPRoute() as route:
        index = route.link_lookup(ifname=link)[0]
        kinds = [each.get_attr("TCA_KIND") for each in route.get_qdiscs(index=index)]
        if strange := [each for each in kinds if each not in ("noqueue", "pfifo_fast")]:
            detail = f"{link} already has a queueing discipline that is not ours: {', '.join(strange)}"
            raise Problem(409, "Conflicting queue", detail)
        route.tc("add", QUEUES[kind], index, handle=HANDLE, **settings(kind, parameters))


def unshape(link: str) -> None:
    """Take our queueing discipline off a link; does nothing where there is none of ours, or no link."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        for index in route.link_lookup(ifname=link):
            if any(each["handle"] == HANDLE for each in route.get_qdiscs(index=index)):
                route.tc("del", index=index, root=True)


# -- whether this kernel can


def try_out(kind: str) -> None:
    """Do all that a fault of this type does, on the loopback of a namespace that nobody else uses.

    Raises:
        Exception: the kernel's refusal, see :func:`in_words`.
    """
    bring_loopback_up()
    if kind in QUEUES:
        shape("lo", kind, {"rate_kbit": 1000, "delay_ms": 1})
        unshape("lo")
        return
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        ended = cut("trial", kind, ["127.0.0.1", "::1"], list(CHAINS), 1000, 50)
        if kind == "reset" and not ended:
            raise OSError(0, "SOCK_DESTROY has ended no connection")
    if set(counts("trial")) != {name for name, _ in CHAINS.values()}:
        raise OSError(0, "the rules were added but are not there")
    uncut("trial")
