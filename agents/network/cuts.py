"""Faults of kind ``network``: real cuts between nodes, in the kernel of this machine.

A node is whatever has a network namespace of its own on it: that of a cell, or a pod.

Each fault has an nftables table of its own, ``ft_ID`` with the fault's id, in the network namespace of every victim.
Its rules look the other side up in sets whose elements expire in the kernel at the fault's deadline, so a cut ends in
time even when every process of the suite is dead. Undo drops that table; no other rule is ever touched. The sets have
all addresses that the other side has when the fault is made, of IPv4 and of IPv6, as its kernel lists them: a node has
one of IPv6 for its cable without being given any.

Bandwidth and delay are queueing disciplines (tbf, netem), which cannot expire: their end depends on the agent, which
PID 1 of the cell or the kubelet keeps running, and on the node, which takes them along.
"""

import asyncio
import contextlib
import errno
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from agents.core.faults import DIRECTIONS, Driver, Fault, Plan, Problem, Type
from agents.network import netlink
from agents.network.netlink import CHAINS, IPV4, IPV6, QUEUES, Bench

STRENGTHS = {
    "loss": ("percent", 1, 100),
    "bandwidth": ("rate_kbit", 8, 10_000_000),
    "delay": ("delay_ms", 1, 60_000),
}
"""Type -> its parameter, least and greatest value."""
# The node's end of its cable; the other end, at the bridge, has a name of its own.
CABLE = "eth0"
OPPOSITES: dict[Callable[..., Any], Callable[[str], None]] = {
    netlink.shape: netlink.unshape,
    netlink.cut: netlink.uncut,
}
"""What makes something -> what removes it, given the first of its arguments."""
NO_NAMESPACES = "all nodes share the loopback network here; faults of the network need network namespaces"
BRIDGE = ""
"""Stands for the namespace of the bridge where the name of a node would stand for the node's."""


class Links(Protocol):
    """The nodes that can be cut off, and how they hang together.

    Attributes:
        namespaces: whether each has a network namespace of its own.
        bridge: open file of the namespace where their cables end; None: that of this process.
    """

    namespaces: bool
    bridge: int | None

    @property
    def files(self) -> Mapping[str, int]:
        """Name -> open file of the namespace, of those nodes whose kernel is this one."""

    @property
    def addresses(self) -> Mapping[str, str]:
        """Name -> IPv4 address, of all nodes."""

    def roles(self) -> dict[str, str]:
        """Name -> role, of all nodes."""

    def link(self, name: str) -> str:
        """Name of the other end of a node's cable, in the namespace of the bridge."""


class CutDriver(Driver):
    """Cuts between nodes."""

    kind = "network"
    types = (
        Type("drop", "nftables, expiring set"),
        Type("reject", "nftables, expiring set"),
        Type("reset", "nftables, expiring set, SOCK_DESTROY"),
        Type("loss", "nftables, numgen random", ("percent",)),
        *(Type(name, f"{queue} on the node's cable", (STRENGTHS[name][0],)) for name, queue in QUEUES.items()),
    )

    def __init__(self, network: Links) -> None:
        self._network = network
        self._benches: dict[str, Bench] = {}
        self._tried: dict[str, str] = {}

    # -- what is asked for

    def plan(self, body: dict[str, Any]) -> Plan:
        """See :class:`agents.core.faults.Driver`; ``sources``, ``targets``, ``direction`` and ``parameters`` with
        ``percent`` (loss), ``rate_kbit`` (bandwidth) or ``delay_ms`` (delay).
        """
        kind, direction = str(body["type"]), body.get("direction") or "both"
        if direction not in DIRECTIONS:
            raise Problem(422, "Unknown direction", f"direction {direction!r}; allowed: {', '.join(DIRECTIONS)}")
        if not self._network.namespaces:
            raise Problem(501, "Not here", NO_NAMESPACES)
        if missing := self._missing(kind):
            raise Problem(501, "Not here", missing)
        roles, sources, targets = self._network.roles(), _names(body, "sources"), _names(body, "targets")
        for name in [*sources, *targets]:
            if name not in roles:
                known = ", ".join(sorted(roles)) or "none"
                raise Problem(404, "Unknown target", f"no node {name!r}; known: {known}")
        if away := [name for name in targets if name not in self._network.files]:
            raise Problem(409, "Not here", f"{away[0]!r} has no network of its own on this machine")
        # Within one group both directions of a pair are to be cut once.
        order = sorted if direction == "both" else list
        pairs = {tuple(order((target, source))): (target, source) for target in targets for source in sources}
        cuts: dict[str, list[str]] = {}
        for target, source in pairs.values():
            if target != source:
                cuts.setdefault(target, []).append(source)
        if not cuts:
            raise Problem(
                422, "Nothing to cut", f"there is no link between {', '.join(sources)} and {', '.join(targets)}"
            )
        sides = ["to", "from"] if direction == "both" else [direction]
        parameters = {"direction": direction, "label": body.get("label")} | _strength(
            kind, body.get("parameters") or {}
        )
        undo: dict[str, Any] = {"type": kind, "nodes": sorted(cuts), "peers": cuts, "sides": sides, "links": {}}
        if kind in QUEUES:
            undo["links"] = {target: self._network.link(target) for target in cuts}
            touches = [
                f"queueing discipline {QUEUES[kind]} for {target}, {', '.join(sides)} it (all of its traffic)"
                for target in cuts
            ]
            touches.append(
                "a queueing discipline does not expire in the kernel; it ends with the agent's lease or the cell"
            )
            conflicts = [f"queue {side} {target}" for target in cuts for side in sides]
        else:
            touches = [
                f"{target}: table inet ft_ID, sets {IPV4.peers}, {IPV6.peers} ({', '.join(others)}, expiring), chain "
                + " and chain ".join(f"{CHAINS[side][0]} (hook {CHAINS[side][1]}, {kind})" for side in sides)
                + (", open TCP connections between them, at both ends (SOCK_DESTROY)" if kind == "reset" else "")
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

    def _missing(self, kind: str) -> str:
        """Why this kernel cannot make a fault of that type, empty if it can; it is tried once."""
        if kind not in self._tried:
            rules = [each for each in self._tried if each not in QUEUES and self._tried[each]]
            # Where one sort of rule got no answer none will, and each would have to be waited for.
            self._tried[kind] = self._tried[rules[0]] if rules and kind not in QUEUES else _try(kind)
        return self._tried[kind]

    # -- the kernel

    def _bench(self, node: str) -> Bench | None:
        """None when the node is gone."""
        if node != BRIDGE and node not in self._network.files:
            if bench := self._benches.pop(node, None):
                bench.close()
            return None
        if node not in self._benches:
            self._benches[node] = Bench(self._network.bridge if node == BRIDGE else self._network.files[node])
        return self._benches[node]

    async def _at(self, node: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Its result in the namespace of a node or of :data:`BRIDGE`; None when that node is gone.

        Raises:
            Problem: 500, the kernel refused or did not answer within :data:`netlink.KERNEL_SECONDS`.
        """
        bench = self._bench(node)
        if bench is None:
            return None
        try:
            work = asyncio.wrap_future(bench.submit(lambda: function(*arguments)))
            return await asyncio.wait_for(work, netlink.KERNEL_SECONDS)
        except Problem:
            raise
        except TimeoutError:
            # Its thread may wait for ever, so the next fault gets another. What it does after all it has to undo.
            if function in OPPOSITES:
                bench.submit(lambda: OPPOSITES[function](arguments[0]))
            if self._benches.get(node) is bench:
                del self._benches[node]
            bench.close()
            detail = f"{node or 'bridge'}: the kernel did not answer within {netlink.KERNEL_SECONDS:g} s"
            raise Problem(500, "No answer", detail) from None
        except Exception as error:  # noqa: BLE001 - whatever netlink says is the answer
            raise Problem(500, "The kernel refused", f"{node or 'bridge'}: {netlink.in_words(error)}") from None

    @staticmethod
    def _ends(fault: Fault) -> list[tuple[str, str]]:
        """Where the links of a fault's queueing disciplines are: node or :data:`BRIDGE`, and name of the link."""
        sides = fault.undo["sides"]
        from_it = [(node, CABLE) for node in fault.undo["links"] if "from" in sides]
        return from_it + [(BRIDGE, link) for link in fault.undo["links"].values() if "to" in sides]

    async def snapshot(self, fault: Fault) -> dict[str, Any]:
        """Our tables and the queueing disciplines at each victim; what no longer exists is left out."""
        found: dict[str, Any] = {}
        for node in fault.undo["nodes"]:
            if (tables := await self._at(node, netlink.tables)) is not None:
                found[f"table at {node}"] = [name for name in tables if name == f"ft_{fault.id}"]
        for node, link in self._ends(fault):
            if (kinds := await self._at(node, netlink.queues, link)) is not None:
                found[f"queue of {node or 'bridge'} {link}"] = kinds
        return found

    async def apply(self, fault: Fault) -> None:
        """See :class:`agents.core.faults.Driver`."""
        began = time.monotonic()
        for node, link in self._ends(fault):
            await self._at(node, netlink.shape, link, fault.type, fault.parameters)
        if fault.type not in QUEUES:
            percent = int(fault.parameters.get("percent", 0))
            names = sorted({each for others in fault.undo["peers"].values() for each in others})
            known = {name: await self._addresses(name) for name in names}
            for node in fault.undo["nodes"]:
                peers = [each for name in fault.undo["peers"][node] for each in known[name]]
                milliseconds = max(1, int((fault.deadline - time.monotonic()) * 1000))
                rules = (fault.type, peers, fault.undo["sides"], milliseconds, percent)
                fault.evidence.setdefault("peers", {})[node] = peers
                ended = await self._at(node, netlink.cut, f"ft_{fault.id}", *rules)
                if fault.type == "reset":
                    fault.evidence.setdefault("connections_reset", {})[node] = ended
            if fault.type == "reset":
                await self._reset_lone_ends(fault)
        fault.evidence |= {
            "applied_in_seconds": round(time.monotonic() - began, 4),
            "counters": await self._counters(fault),
        }

    async def _reset_lone_ends(self, fault: Fault) -> None:
        """End what is still open at the peers of the victims: of a connection that was made while the rules came into
        force they have rejected the victim's next packet, which tells the victim alone.
        """
        peers = fault.undo["peers"]
        for name in sorted({each for others in peers.values() for each in others}):
            victims = [each for node in peers if name in peers[node] for each in await self._addresses(node)]
            await self._at(name, netlink.destroy_open, victims)

    async def _addresses(self, node: str) -> list[str]:
        """All that a node has, as its kernel lists them; of one elsewhere what is known; none when it is gone."""
        found: list[str] | None = await self._at(node, netlink.addresses)
        known = self._network.addresses.get(node)
        return found or ([known] if known else [])

    async def undo(self, fault: Fault) -> None:
        """See :class:`agents.core.faults.Driver`."""
        if fault.state != "pending":
            with contextlib.suppress(Problem):
                fault.evidence["counters"] = await self._counters(fault)
        work: list[tuple[Any, ...]] = [(node, netlink.unshape, link) for node, link in self._ends(fault)]
        if fault.type not in QUEUES:
            work = [(node, netlink.uncut, f"ft_{fault.id}") for node in fault.undo["nodes"]]
        # One that does not answer keeps none of the others from being undone.
        done = await asyncio.gather(*(self._at(*each) for each in work), return_exceptions=True)
        for each in done:
            if isinstance(each, BaseException):
                raise each

    def differences(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """See :class:`agents.core.faults.Driver`; what no longer exists is undone."""
        changed = [what for what in after if before.get(what) != after[what]]
        return [f"{what}: was {before.get(what)}, is {after[what]}" for what in changed]

    async def _counters(self, fault: Fault) -> dict[str, Any]:
        if fault.type in QUEUES:
            return {}
        return {node: await self._at(node, netlink.counts, f"ft_{fault.id}") or {} for node in fault.undo["nodes"]}

    async def look(self, fault: Fault) -> None:
        """Put the present counts of the fault's rules into its evidence."""
        fault.evidence["counters"] = await self._counters(fault)

    def capabilities(self) -> dict[str, dict[str, Any]]:
        """See :class:`agents.core.faults.Driver`; each type is tried, once."""
        found = {}
        for each in self.types:
            missing = self._missing(each.name) if self._network.namespaces else NO_NAMESPACES
            found[f"network.{each.name}"] = {"available": not missing, "detail": missing or each.how}
        return found

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
    if kind not in STRENGTHS:
        return {}
    name, least, most = STRENGTHS[kind]
    value = given.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Problem(422, "Bad parameter", f"{name} is {value!r}; expected a whole number from {least} to {most}")
    return {name: value} | ({"burst_bytes": netlink.burst_bytes(value)} if kind == "bandwidth" else {})


def _try(kind: str) -> str:
    """Why this kernel cannot make a fault of that type, empty if it can: it is made in a namespace of its own."""
    import pyroute2.nftables.main  # noqa: F401 - here, so that the kernel's time is not spent on it

    bench = Bench(fresh=True)
    try:
        bench.submit(lambda: netlink.try_out(kind)).result(netlink.KERNEL_SECONDS)
    except TimeoutError:
        return f"the kernel did not answer a trial {kind} within {netlink.KERNEL_SECONDS:g} s"
    except Exception as error:  # noqa: BLE001 - any refusal is an answer
        if kind in QUEUES and getattr(error, "code", None) == errno.ENOENT:
            return f"this kernel has no {QUEUES[kind]}"
        return f"the kernel refuses a trial {kind}: {netlink.in_words(error)}"
    finally:
        bench.close()
    return ""
