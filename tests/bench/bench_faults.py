"""From the order to the proof, and the list of many past faults.

Bounds, each with the median of its runs: processes and cuts 200 ms from the order to the proof on the victim, a line in
the kernel log 500 ms; the service lists 1,000 past faults in 20 ms.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.contract.fault_service import FaultService
from support.faults.fault import Fault
from support.faults.gpu import XidError
from support.faults.network import Cut
from support.faults.processes import Hang
from support.faults.victims import Exactly
from support.run import cells
from support.settings import ROOT, Settings
from support.world.world import World

RUNS, PAST_FAULTS = 15, 1000
# Not fatal: what is measured is the way of the line, not the death of a process.
XID = 13
BOUNDS_MS = {"hang of a process": 200, "cut": 200, "line in the kernel log": 500, "list of 1,000 past faults": 20}


def _proof_ms(world: World, fault: Fault) -> float:
    [proven] = world.faults.strike(fault)
    world.faults.recover(proven)
    return 1000 * (proven.proven_at - proven.injected_at)


def _list_ms(service: FaultService) -> float:
    began = time.monotonic()
    listed = service.faults()
    took = 1000 * (time.monotonic() - began)
    if len(listed) < PAST_FAULTS:
        raise RuntimeError(f"{len(listed)} faults were listed; {PAST_FAULTS} were made")
    return took


def inside() -> int:
    """In a cell; prints the medians in ms as JSON."""
    with tempfile.TemporaryDirectory(dir=os.environ["FT_SCRATCH"]) as folder:
        world = World(Settings.load(), Path(folder))
        world.deploy(engine="ruler", workers=2)
        victim = Exactly(world.deployment.workers[0])
        ways: dict[str, Fault] = {"hang of a process": Hang(victim), "line in the kernel log": XidError(victim, XID)}
        if os.environ["FT_CELL"] == "namespaces":
            ways["cut"] = Cut(victim)
        found = {name: [_proof_ms(world, fault) for _ in range(RUNS)] for name, fault in ways.items()}
        service = world.stage.target.service
        for _ in range(PAST_FAULTS - len(service.faults())):
            order = {"target_pod": victim.node.name, "type": "hang", "duration_seconds": 60}
            service.recover(service.inject("process", **order)["id"])
        found["list of 1,000 past faults"] = [_list_ms(service) for _ in range(RUNS)]
        world.close(give_up=True)
    print(json.dumps({name: statistics.median(times) for name, times in found.items()}))
    return 0


def main() -> int:
    """Print the figures and their bounds; returns 1 when one is out of bounds."""
    argv = cells.command([sys.executable, "-m", "tests.bench.bench_faults", "inside"])
    environment = cells.environment() | {"FT_RUN_DIR": str(ROOT / "reports")}
    answer = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, check=True)
    found = json.loads(answer.stdout)
    for name, took in found.items():
        print(f"{name}: {took:.0f} ms (bound {BOUNDS_MS[name]} ms)")
    return int(any(took > BOUNDS_MS[name] for name, took in found.items()))


if __name__ == "__main__":
    sys.exit(inside() if sys.argv[1:] == ["inside"] else main())
