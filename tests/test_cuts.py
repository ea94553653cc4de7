"""Cuts between nodes, in real network namespaces: open connections and new ones, both directions and one."""

import json
import subprocess
import sys
from typing import Any

import pytest

from support import capabilities, cells
from support.settings import ROOT

MISSING = [found.detail for found in capabilities.probe(["namespaces", "nftables"]).values() if not found.available]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs namespaces and nftables: {MISSING}")

# Two nodes that listen, an open connection between them, and cuts of all sorts; tells what was seen as JSON.
SCRIPT = """
import asyncio, json, os, socket, sys, threading
from pathlib import Path
from agents.cuts import CutDriver, _nft, _tables
from agents.faults import FaultBook, Problem
from agents.network import Network
from support.observe.network import arriving, connects, on_node

scratch = Path(os.environ["FT_SCRATCH"]) / "apart"  # else the cell's own agent would adopt what is made here
scratch.mkdir()
network = Network(True, scratch / "nodes.json")
one, two = network.add("frontend-0", "frontend"), network.add("worker-0", "worker")
listeners = [on_node(node.name, lambda node=node: socket.create_server((node.address, 9090))) for node in (one, two)]

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

def look(connection):
    return {
        "to": arriving("frontend-0", "worker-0", two.address),
        "from": arriving("worker-0", "frontend-0", one.address),
        "new": [connects("frontend-0", two.address, 9090), connects("worker-0", one.address, 9090)],
        "open": answered(connection),
    }

async def main():
    driver = CutDriver(network, network.roles)
    book = FaultBook(scratch / "journal.jsonl", {"network": driver})
    on_node("worker-0", lambda: _nft().table("add", name="stranger"))
    seen = {}
    for kind, direction in json.loads(sys.argv[1]):
        connection = on_node("frontend-0", lambda: socket.create_connection((two.address, 9090), 1))
        order = {"kind": "network", "type": kind, "sources": ["frontend-0"], "targets": ["worker-0"]}
        fault = await book.inject(order | {"direction": direction, "duration_seconds": 20})
        during = await asyncio.to_thread(look, connection)
        await driver.look(fault)
        during["counters"] = fault.evidence["counters"]["worker-0"]
        connection.close()
        await book.recover(fault.id)
        connection = on_node("frontend-0", lambda: socket.create_connection((two.address, 9090), 1))
        after = await asyncio.to_thread(look, connection)
        seen[f"{kind} {direction}"] = {"during": during, "after": after, "state": fault.state}
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
    seen["tables"] = on_node("worker-0", _tables)
    refusals = {"type": {"type": "melt"}, "direction": {"direction": "up"}, "node": {"targets": ["worker-9"]},
                "percent": {"type": "loss", "parameters": {"percent": 0}}, "self": {"targets": ["frontend-0"]},
                "delay": {"type": "delay"}}
    seen["refused"] = {}
    for name, change in refusals.items():
        try:
            driver.plan(order | change)
        except Problem as problem:
            seen["refused"][name] = [problem.status, problem.detail]
    print(json.dumps(seen))

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


@pytest.mark.parametrize(("kind", "direction"), SORTS)
def test_packets_are_lost_in_the_directions_that_were_cut_and_in_no_other(
    seen: dict[str, Any], kind: str, direction: str
) -> None:
    during = seen[f"{kind} {direction}"]["during"]
    assert (during["to"], during["from"]) == (int(direction == "from"), int(direction == "to"))
    assert "open" not in during["new"]
    assert sum(chain["packets"] for chain in during["counters"].values()) > 0


@pytest.mark.parametrize(("kind", "direction"), SORTS)
def test_all_is_as_before_once_it_is_over(seen: dict[str, Any], kind: str, direction: str) -> None:
    after = {"to": 1, "from": 1, "new": ["open", "open"], "open": "answered"}
    assert (seen[f"{kind} {direction}"]["after"], seen[f"{kind} {direction}"]["state"]) == (after, "recovered")


@pytest.mark.parametrize("direction", ["both", "to", "from"])
def test_silence_refusal_and_reset_are_three_things(seen: dict[str, Any], direction: str) -> None:
    met = {kind: seen[f"{kind} {direction}"]["during"] for kind in ("drop", "reject", "reset")}
    assert {kind: each["open"] for kind, each in met.items()} == {
        "drop": "silent",
        "reject": "silent",
        "reset": "reset",
    }
    assert met["drop"]["new"] == ["silent", "silent"]
    assert "refused" in met["reject"]["new"]
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
        "delay": (501, "no netem"),
    }
    assert {name: status for name, (status, _) in seen["refused"].items()} == {n: s for n, (s, _) in words.items()}
    assert [name for name, (_, text) in words.items() if text not in seen["refused"][name][1]] == []
