"""How long a three-member etcd cluster takes from its first process to healthy members that follow one leader.

Bound: 2 s (median).
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from support import releases
from support.contract.shape import Shape
from support.events import EventLog
from support.run import cells
from support.settings import ROOT, Settings
from support.targets.local.target import LocalTarget

RUNS, MEMBERS, BOUND = 7, 3, 2.0


def clusters() -> int:
    """Inside a cell: clusters one after the other; prints their seconds as JSON."""
    took = []
    settings = Settings.load()
    with tempfile.TemporaryDirectory(dir=os.environ["FT_SCRATCH"]) as folder:
        for _ in range(RUNS):
            events = EventLog()
            target = LocalTarget(settings, releases.get(settings.dynamo), Path(folder), events)
            target.deploy(Shape(workers=1, etcd_members=MEMBERS)).remove()
            took += [event.data["seconds"] for event in events.all() if "etcd" in event.data]
    print(json.dumps(took))
    return 0


def main() -> int:
    """Print the figure and its bound; returns 1 when it is out of bounds."""
    argv = cells.command([sys.executable, "-m", "tests.bench.bench_etcd", "inside"])
    env = cells.environment() | {"FT_RUN_DIR": str(ROOT / "reports")}
    answer = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, check=True)
    took = sorted(json.loads(answer.stdout))
    median = statistics.median(took)
    print(f"{MEMBERS} etcd members have a leader after {median:.2f} s, at most {took[-1]:.2f} s (bound {BOUND} s)")
    return 1 if median > BOUND else 0


if __name__ == "__main__":
    sys.exit(clusters() if sys.argv[1:] == ["inside"] else main())
