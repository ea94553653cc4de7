"""Cuts between nodes, in real network namespaces: open connections and new ones, both directions and one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agents.network import netlink
from support.run import cells
from support.settings import ROOT, Settings
from support.targets.local import machine

CAN = machine.probe(Settings(), ["namespaces", "nftables", "netem"])
MISSING = [CAN[name].detail for name in ("namespaces", "nftables") if not CAN[name].available]
NETEM = CAN["netem"].available
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs namespaces and nftables: {MISSING}")

# Two nodes that listen, an open connection between them, and cuts of all sorts; tells what was seen as JSON.
SCRIPT = """
import asyncio, json, os, socket, sys, threading
from pathlib import Path
from pyroute2 import IPRoute, netns
from pyroute2.nftables.main import NFTables
from agents.network import netlink
from agents.network import cuts
from agents.network.cuts import CutDriver
from agents.core.book import FaultBook
from agents.core.faults import Problem
from agents.node.network import Network
from support.targets.local.network import LocalLine, arriving, connects, on_node, own_ipv6
from support.observe.waiting import until

scratch = Path(os.environ["FT_SCRATCH"]) / "apart"  # else the cell's own agent would adopt what is made here
scratch.mkdir()
network = Network(True, scratch / "nodes.json")
one, two = network.add("frontend-0", "frontend"), network.add("worker-0", "worker")
listeners = [on_node(node.name, lambda node=node: socket.create_server((node.address, 9090))) for node in (one, two)]
six = {}
if Path("/proc/sys/net/ipv6").exists():
    assert own_ipv6(one.name) and own_ipv6(two.name)  # at once: nobody looks for duplicates first
    six = {node.name: own_ipv6(node.name) for node in (one, two)}
    listeners += [on_node(name, lambda: socket.create_server(("::", 9090), family=socket.AF_INET6)) for name in six]

def echo(listener):
    def serve(connection):
        try:
            while data := connection.recv(100):
                connection.sendall(data)
        except OSError:
            pass
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

for listener in listeners:
    threading.Thread(target=echo, args=(listener,), daemon=True).start()

def answered(connection):
    connection.settimeout(0.15)
    try:
        connection.sendall(b"x")
        return "answered" if connection.recv(1) else "ended"
    except TimeoutError:
        return "silent"
    except OSError:
        return "reset"

def connect():
    addresses = [two.address, six["worker-0"]] if six else [two.address]
    return [on_node("frontend-0", lambda each=each: socket.create_connection((each, 9090), 1)) for each in addresses]

def look(connections):
    mine, theirs = {"IPv4": one.address}, {"IPv4": two.address}
    if six:
        mine, theirs = mine | {"IPv6": six["frontend-0"]}, theirs | {"IPv6": six["worker-0"]}
    return {
        family: {
            "to": arriving("frontend-0", "worker-0", theirs[family]),
            "from": arriving("worker-0", "frontend-0", mine[family]),
            "new": [connects("frontend-0", theirs[family], 9090), connects("worker-0", mine[family], 9090)],
            "open": answered(connection),
        }
        for family, connection in zip(mine, connections, strict=True)
    }

async def main():
    driver = CutDriver(network)
    book = FaultBook(scratch / "journal.jsonl", [driver])
    on_node("worker-0", lambda: NFTables(nfgen_family=1).table("add", name="stranger"))
    seen = {}
    for kind, direction in json.loads(sys.argv[1]):
        connections = connect()
        order = {"kind": "network", "type": kind, "sources": ["frontend-0"], "targets": ["worker-0"]}
        fault = await book.inject(order | {"direction": direction, "duration_seconds": 20})
        during = await asyncio.to_thread(look, connections)
        await driver.look(fault)
        counters = fault.evidence["counters"]["worker-0"]
        [each.close() for each in connections]
        await book.recover(fault.id)
        connections = connect()
        after = await asyncio.to_thread(look, connections)
        [each.close() for each in connections]
        seen[f"{kind} {direction}"] = {"during": during, "after": after, "state": fault.state, "counters": counters}
    half = {"kind": "network", "type": "loss", "sources": ["frontend-0"], "targets": ["worker-0"], "direction": "to"}
    fault = await book.inject(half | {"parameters": {"percent": 50}})
    seen["loss"] = await asyncio.to_thread(arriving, "frontend-0", "worker-0", two.address, 200)
    await book.recover(fault.id)
    order = {"kind": "network", "type": "drop", "sources": ["frontend-0"], "targets": ["worker-0"]}
    fault = await book.inject(order | {"duration_seconds": 0.5})
    book.close()  # from here on nobody but the kernel can end it
    seen["cut"] = await asyncio.to_thread(arriving, "frontend-0", "worker-0", two.address)
    await asyncio.sleep(0.6)  # its deadline
    seen["expired"] = await asyncio.to_thread(arriving, "frontend-0", "worker-0", two.address)
    await driver.undo(fault)
    seen["tables"] = on_node("worker-0", netlink.tables)
    refusals = {"type": {"type": "melt"}, "direction": {"direction": "up"}, "node": {"targets": ["worker-9"]},
                "percent": {"type": "loss", "parameters": {"percent": 0}}, "self": {"targets": ["frontend-0"]},
                "delay": {"type": "delay"}}
    seen["refused"] = {}
    for name, change in refusals.items():
        try:
            book.plan(order | change)
        except Problem as problem:
            seen["refused"][name] = [problem.status, problem.detail]
    await more(FaultBook(scratch / "more.jsonl", [driver]), driver, seen)
    print(json.dumps(seen))

def cable(book, **change):
    order = {"kind": "network", "type": "bandwidth", "sources": ["frontend-0"], "targets": ["worker-0"]}
    return book.inject(order | {"parameters": {"rate_kbit": 800}} | change)

def transfers(size):
    there = LocalLine("frontend-0", "worker-0", two.address, 5)
    with there as to, LocalLine("worker-0", "frontend-0", one.address, 5) as back:
        return {"to": to.seconds(size, 10), "from": back.seconds(size, 10)}

def queues():
    return [on_node("worker-0", lambda: netlink.queues("eth0")), netlink.queues(two.link)]

def mapped():
    # two ends of a connection over IPv4 of which both are IPv6 sockets, and the listener
    listener = on_node("worker-0", lambda: socket.create_server(("::", 9191), family=socket.AF_INET6,
                                                                dualstack_ipv6=True))
    client = on_node("frontend-0", lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
    client.settimeout(1)
    client.connect(("::ffff:" + two.address, 9191))
    return listener, client, listener.accept()[0]

def ended(connection):
    connection.settimeout(0.5)
    try:
        return repr(connection.recv(1))
    except OSError as error:
        return type(error).__name__

async def refusal(work):
    try:
        await work
    except Problem as problem:
        return [problem.status, problem.detail]

async def more(book, driver, seen):
    for direction in ("both", "to", "from"):
        fault = await cable(book, direction=direction)
        took = await asyncio.to_thread(transfers, 50_000)
        during = queues()
        await book.recover(fault.id)
        seen[f"bandwidth {direction}"] = {"took": took, "queues": [during, queues()], "state": fault.state,
                                          "burst": fault.parameters["burst_bytes"]}
    fault = await cable(book, direction="to")
    seen["same queue"] = await refusal(cable(book))
    seen["other queue"] = (await cable(book, direction="from")).state
    await book.recover_all()
    def strange():
        from pyroute2 import IPRoute
        with IPRoute() as route:
            route.tc("add", "tbf", route.link_lookup(ifname="eth0")[0], handle=0x50000, rate="1gbit", latency="50ms",
                     burst=20000)
    on_node("worker-0", strange)
    seen["strange queue"] = [await refusal(cable(book)), queues()]
    on_node("worker-0", lambda: __import__("pyroute2").IPRoute().tc("del", index=2, root=True))

    listener, client, server = await asyncio.to_thread(mapped)
    fault = await book.inject({"kind": "network", "type": "reset", "sources": ["frontend-0"], "targets": ["worker-0"]})
    seen["mapped"] = [ended(client), ended(server), fault.evidence["connections_reset"]]
    await book.recover(fault.id)
    seen["mapped listener"] = await asyncio.to_thread(connects, "frontend-0", two.address, 9191)

    # A connection of which the victim has lost its end while nothing got through: nobody but us tells its peer.
    client = on_node("frontend-0", lambda: socket.create_connection((two.address, 9090), 1))
    fault = await book.inject({"kind": "network", "type": "drop", "sources": ["frontend-0"], "targets": ["worker-0"]})
    on_node("worker-0", lambda: netlink.destroy_open([one.address]))
    await book.recover(fault.id)
    fault = await book.inject({"kind": "network", "type": "reset", "sources": ["frontend-0"], "targets": ["worker-0"]})
    seen["lone end"] = ended(client)
    await book.recover(fault.id)

    three = network.add("worker-1", "worker")
    group = ["frontend-0", "worker-0", "worker-1"]
    fault = await book.inject({"kind": "network", "type": "drop", "sources": group, "targets": group[1:]})
    pairs = [(a, b) for a in network.nodes.values() for b in network.nodes.values() if a != b]
    seen["group"] = [await asyncio.to_thread(arriving, a.name, b.name, b.address) for a, b in pairs]
    seen["group chains"] = sorted(sorted((a, b)) for b, others in fault.undo["peers"].items() for a in others)
    await book.recover(fault.id)
    seen["group after"] = [await asyncio.to_thread(arriving, a.name, b.name, b.address) for a, b in pairs]

    faults = [await cable(book, targets=["worker-0", "worker-1"]),
              await book.inject({"kind": "network", "type": "drop", "sources": ["frontend-0"],
                                 "targets": ["worker-0", "worker-1"]})]
    os.close(network.files.pop("worker-1"))
    with IPRoute() as route:
        route.link("del", index=route.link_lookup(ifname=three.link)[0])
    netns.remove("worker-1")
    await book.recover_all()
    seen["vanished"] = [[fault.state for fault in faults], queues(), on_node("worker-0", netlink.tables)]

    netlink.KERNEL_SECONDS = 0.2
    forever = threading.Event()
    seen["hung"] = await refusal(driver._at("worker-0", forever.wait))
    seen["after hung"] = (await cable(book)).state
    await book.recover_all()
    forever.set()
    late, done, shape = threading.Event(), threading.Event(), netlink.shape
    def slow(link, *rest):
        late.wait()
        shape(link, *rest)
        done.set()
    netlink.shape, cuts.OPPOSITES[slow] = slow, netlink.unshape
    seen["late"] = await refusal(cable(book, direction="from"))
    late.set()
    await asyncio.to_thread(done.wait, 5)
    await asyncio.to_thread(until, lambda: None if queues() == ["noqueue"] * 2 else str(queues()), 5, "it is undone")
    netlink.shape = shape
    driver._tried["delay"] = ""  # as if this kernel had netem: what it is told is all but the last step
    order = {"type": "delay", "parameters": {"delay_ms": 250}}
    seen["delay planned"] = driver.plan({"sources": ["frontend-0"], "targets": ["worker-0"]} | order).touches[0]
    seen["delay refused"] = [await refusal(cable(book, **order)), queues()]
    del driver._tried["delay"]
    seen["capabilities"] = driver.capabilities()

asyncio.run(main())
"""
SORTS = [[kind, direction] for kind in ("drop", "reject", "reset") for direction in ("both", "to", "from")]


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What the script saw, in a cell of its own."""
    argv = cells.command([sys.executable, "-c", SCRIPT, json.dumps(SORTS)], "on")
    done = subprocess.run(argv, cwd=ROOT, env=cells.environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


IPV6 = Path("/proc/sys/net/ipv6").exists()
FAMILIES = ["IPv4", "IPv6"] if IPV6 else ["IPv4"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("kind", "direction"), SORTS)
def test_packets_are_lost_in_the_directions_that_were_cut_and_in_no_other(
    seen: dict[str, Any], kind: str, direction: str, family: str
) -> None:
    during = seen[f"{kind} {direction}"]["during"][family]
    assert (during["to"], during["from"]) == (int(direction == "from"), int(direction == "to"))
    assert "open" not in during["new"]
    assert sum(chain["packets"] for chain in seen[f"{kind} {direction}"]["counters"].values()) > 0


@pytest.mark.parametrize(("kind", "direction"), SORTS)
def test_all_is_as_before_once_it_is_over(seen: dict[str, Any], kind: str, direction: str) -> None:
    after = {family: {"to": 1, "from": 1, "new": ["open", "open"], "open": "answered"} for family in FAMILIES}
    assert (seen[f"{kind} {direction}"]["after"], seen[f"{kind} {direction}"]["state"]) == (after, "recovered")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("direction", ["both", "to", "from"])
def test_silence_refusal_and_reset_are_three_things(seen: dict[str, Any], direction: str, family: str) -> None:
    met = {kind: seen[f"{kind} {direction}"]["during"][family] for kind in ("drop", "reject", "reset")}
    assert {kind: each["open"] for kind, each in met.items()} == {
        "drop": "silent",
        "reject": "silent",
        "reset": "reset",
    }
    assert met["drop"]["new"] == ["silent", "silent"]
    # Over IPv6 the refusal arrives (Icmp6InDestUnreachs) while the connecting thread still holds its socket, and then
    # counts with the next SYN only, a second later; how a new connection fares is told by IPv4.
    assert family == "IPv6" or "refused" in met["reject"]["new"]
    assert "refused" in met["reset"]["new"]


def test_loss_takes_its_share(seen: dict[str, Any]) -> None:
    # 200 draws of one half: outside of 60 to 140 once in 10^8
    assert 60 < seen["loss"] < 140


def test_the_kernel_ends_a_cut_without_any_process(seen: dict[str, Any]) -> None:
    assert (seen["cut"], seen["expired"]) == (0, 1)


def test_a_strangers_table_is_left_alone(seen: dict[str, Any]) -> None:
    assert seen["tables"] == ["stranger"]


def test_what_cannot_be_is_refused_in_words(seen: dict[str, Any]) -> None:
    words = {
        "type": (422, "allowed: drop, reject, reset"),
        "direction": (422, "allowed: both, to, from"),
        "node": (404, "known: frontend-0, worker-0"),
        "percent": (422, "from 1 to 100"),
        "self": (422, "no link"),
        "delay": (422, "delay_ms") if NETEM else (501, "this kernel has no netem"),
    }
    assert {name: status for name, (status, _) in seen["refused"].items()} == {n: s for n, (s, _) in words.items()}
    assert [name for name, (_, text) in words.items() if text not in seen["refused"][name][1]] == []


@pytest.mark.parametrize("direction", ["both", "to", "from"])
def test_a_narrow_cable_carries_no_more_than_its_rate_in_the_direction_that_was_asked_for(
    seen: dict[str, Any], direction: str
) -> None:
    found = seen[f"bandwidth {direction}"]
    least = (50_000 - found["burst"]) / 100_000  # 800 kbit/s are 100,000 bytes a second
    narrow = {side for side, took in found["took"].items() if took >= least}
    assert narrow == ({"to", "from"} if direction == "both" else {direction})
    assert found["queues"][1] == ["noqueue", "noqueue"]
    assert found["queues"][0] == ["tbf" if side in narrow else "noqueue" for side in ("from", "to")]
    assert found["state"] == "recovered"


def test_one_end_of_a_cable_bears_one_fault(seen: dict[str, Any]) -> None:
    assert (seen["same queue"][0], seen["other queue"]) == (409, "active")
    assert "queue to worker-0" in seen["same queue"][1]


def test_somebody_elses_queueing_discipline_is_refused_and_left_alone(seen: dict[str, Any]) -> None:
    (status, words), queues = seen["strange queue"]
    assert (status, queues) == (409, ["tbf", "noqueue"])
    assert "not ours: tbf" in words


def test_a_reset_ends_ipv4_connections_of_ipv6_sockets_and_spares_their_listener(seen: dict[str, Any]) -> None:
    client, server, counts = seen["mapped"]
    assert client == "ConnectionResetError"
    assert server.startswith("Connection")
    assert counts == {"worker-0": 1}
    assert seen["mapped listener"] == "open"


def test_a_reset_tells_a_peer_whose_connection_has_lost_its_other_end(seen: dict[str, Any]) -> None:
    assert seen["lone end"].startswith("Connection")


def test_groups_that_overlap_are_cut_once_between_each_pair(seen: dict[str, Any]) -> None:
    assert seen["group chains"] == [["frontend-0", "worker-0"], ["frontend-0", "worker-1"], ["worker-0", "worker-1"]]
    assert (seen["group"], seen["group after"]) == ([0] * 6, [1] * 6)


def test_what_no_longer_exists_is_undone(seen: dict[str, Any]) -> None:
    assert seen["vanished"] == [["recovered", "recovered"], ["noqueue", "noqueue"], ["stranger"]]


def test_a_kernel_that_does_not_answer_costs_one_fault_and_not_the_next(seen: dict[str, Any]) -> None:
    assert seen["hung"] == [500, "worker-0: the kernel did not answer within 0.2 s"]
    assert seen["after hung"] == "active"


def test_what_the_kernel_does_too_late_is_undone(seen: dict[str, Any]) -> None:
    # that it was done, and then undone, the script has waited for
    assert seen["late"] == [500, "worker-0: the kernel did not answer within 0.2 s"]


def test_each_type_has_been_tried(seen: dict[str, Any]) -> None:
    found = {name: each["available"] for name, each in seen["capabilities"].items()}
    types = ("drop", "reject", "reset", "loss", "bandwidth")
    assert found == {f"network.{kind}": True for kind in types} | {"network.delay": NETEM}


@pytest.mark.skipif(NETEM, reason="this kernel has netem")
def test_a_delay_goes_as_far_as_the_kernel_and_leaves_nothing_behind(seen: dict[str, Any]) -> None:
    assert seen["delay planned"].startswith("queueing discipline netem for worker-0, to, from it")
    assert seen["delay refused"] == [[500, "worker-0: No such file or directory"], ["noqueue", "noqueue"]]
    assert seen["capabilities"]["network.delay"]["detail"] == "this kernel has no netem"
    # 250 ms in microseconds
    assert netlink.settings("delay", {"delay_ms": 250}) == {"delay": 250_000, "limit": netlink.DELAYED_PACKETS}
