"""How long a deployment takes to serve, next to what its processes need when started by hand, and what the suite adds.

Bounds: a boot through the suite takes at most 1.3 times as long as by hand (median of the ratios of runs in turn); a
scenario of a run costs at most 0.4 s beyond boot and waiting.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agents.core import scratch
from agents.core.forks import use_files
from support import binaries, releases
from support.clock import now
from support.contract.shape import Shape
from support.events import EventLog, read_events
from support.observe.health import get_json, instances, serves
from support.run import cells
from support.settings import ROOT, Settings
from support.targets.local.target import LocalTarget
from support.targets.local.tokenizer import MODEL, ensure

RUNS, WORKERS = 5, 2
BOOT_RATIO, ADDED_SECONDS = 1.3, 0.4


def by_hand(settings: Settings, folder: Path) -> float:
    """Start etcd, a frontend and two workers as a person would, on loopback; returns seconds until they serve."""
    python = str(binaries.dynamo_python(settings.dynamo))
    etcd, frontend = "http://127.0.0.1:2379", "http://127.0.0.1:8000"
    env = cells.environment() | {
        "HF_HOME": str(ensure(ROOT / ".envs" / "model")),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(folder),
    }
    env |= {"TMPDIR": str(folder)}  # Dynamo leaves files in it
    env |= {"ETCD_ENDPOINTS": etcd, "DYN_TCP_RPC_HOST": "127.0.0.1", "DYN_LOG": "info"}
    started: list[subprocess.Popen[bytes]] = []

    def start(argv: list[str], **more: str) -> None:
        with (folder / "log").open("ab") as log:
            started.append(subprocess.Popen(argv, env=env | more, stdout=log, stderr=log))

    began = now()
    start([str(binaries.etcd(settings)), "--data-dir", str(folder / f"etcd-{began}")])
    while get_json(f"{etcd}/health") is None:
        time.sleep(0.02)
    start([python, "-m", "dynamo.frontend", "--http-host", "127.0.0.1", "--http-port", "8000"])
    for number in range(WORKERS):
        start([python, "-m", "dynamo.mocker", "--model-path", MODEL], DYN_SYSTEM_PORT=str(9090 + number))
    while not (len(instances(frontend) or []) == WORKERS and serves(frontend, MODEL)):
        time.sleep(0.02)
    took = now() - began
    for process in reversed(started):
        process.kill()
        process.wait()
    return took


def by_suite(settings: Settings, folder: Path) -> float:
    """The same through the local target."""
    target = LocalTarget(settings, releases.get(settings.dynamo), folder, EventLog())
    began = now()
    deployment = target.deploy(Shape(engine="vllm", workers=WORKERS))
    took = now() - began
    deployment.remove()
    return took


def boots() -> int:
    """Inside a cell: both kinds of boot in turn; prints their seconds as JSON."""
    settings = Settings.load()
    with tempfile.TemporaryDirectory(dir=os.environ["FT_SCRATCH"]) as folder:
        by_suite(settings, Path(folder))  # warms caches of files
        pairs = [(by_hand(settings, Path(folder)), by_suite(settings, Path(folder))) for _ in range(RUNS)]
    print(json.dumps(pairs))
    return 0


def added() -> float:
    """Seconds that one smoke scenario takes in a cell as the launcher makes it, less its boot and the time from there
    to its end.
    """
    with scratch.folder(ROOT / "reports", "bench-") as folder, open(os.devnull, "r+b") as nothing:
        (folder / "scenarios").mkdir()

        def prepare() -> None:
            os.environ["FT_RUN_DIR"] = str(folder)
            use_files(nothing.fileno(), nothing.fileno())

        began = now()
        cell = cells.Cell("behave", ["--tags=@smoke", "features/cancellation.feature"], "auto", prepare)
        while (status := cell.poll()) is None:
            time.sleep(0.005)
        wall = now() - began
        assert status == 0
        (events,) = folder.glob("scenarios/*/events.jsonl")
        notes = [event for event in read_events(events) if event.kind == "note"]
    ready = next(note for note in notes if "boot_seconds" in note.data)
    over = next(note for note in notes if note.data.get("steps") == "over")
    return wall - float(ready.data["boot_seconds"]) - (over.at - ready.at)


def main() -> int:
    """Print both figures and their bounds; returns 1 when one is out of bounds."""
    argv = cells.command([sys.executable, "-m", "tests.bench.bench_boot", "inside"])
    answer = subprocess.run(
        argv, cwd=ROOT, env=cells.environment() | {"FT_RUN_DIR": str(ROOT / "reports")}, capture_output=True
    )
    pairs = json.loads(answer.stdout)
    hand, suite = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for other, one in pairs)
    added()  # a run loads the modules of all its scenarios once
    extra = statistics.median(added() for _ in range(RUNS))
    print(f"boot by hand {hand:.2f} s, through the suite {suite:.2f} s, ratio {ratio:.2f} (bound {BOOT_RATIO})")
    print(f"a scenario adds {extra:.2f} s beyond boot and waiting (bound {ADDED_SECONDS})")
    return 1 if ratio > BOOT_RATIO or extra > ADDED_SECONDS else 0


if __name__ == "__main__":
    sys.exit(boots() if sys.argv[1:] == ["inside"] else main())
