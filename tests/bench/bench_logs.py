"""How fast ``poll_for_pattern`` finds a line in a 1 GB log that grows at 50 MB/s, and in how much memory.

Run it as ``python -m tests.bench.bench_logs``; exits 1 where a bound is broken, which other load on the machine can do
as well.
"""

import math
import multiprocessing
import os
import resource
import statistics
import sys
import time
from multiprocessing.synchronize import Semaphore
from pathlib import Path

from agents.core import scratch
from support.clock import now
from support.observe.logs import poll_for_pattern
from support.settings import ROOT

SIZE = 1_000_000_000
RATE = 50_000_000
NEEDLES = 20
NEEDLE_EVERY = 0.37
BOUND_SECONDS = 0.050
BOUND_MEMORY = 50_000_000
TICK = 0.01

# Dynamo's own lines, colours included; plain ones are read three times as fast.
LINE = (
    b"\x1b[2m2026-11-23T15:41:47.653667Z\x1b[0m \x1b[32m INFO\x1b[0m \x1b[2mdynamo_runtime::pipeline::network::manager"
    b"\x1b[0m\x1b[2m:\x1b[0m Initializing NetworkManager with TCP request plane \x1b[3mmode\x1b[0m\x1b[2m=\x1b[0mtcp\n"
)


def grow(path: Path, found: Semaphore, first_needle: float) -> None:
    """Write at RATE, with a numbered needle that tells its time now and then; ends when all needles are found."""
    block = LINE * (int(RATE * TICK) // len(LINE))
    begin = now()
    due = begin + first_needle
    ticks = needles = 0
    with path.open("ab", buffering=0) as log:
        while True:
            log.write(block)
            ticks += 1
            if now() > due:
                log.write(f"needle {needles} at {now():.6f}\n".encode())
                needles += 1
                due = math.inf
            if due == math.inf and found.acquire(block=False):
                if needles == NEEDLES:
                    return
                due = now() + NEEDLE_EVERY
            time.sleep(max(0.0, begin + ticks * TICK - now()))


def main() -> int:
    """Print the figures; the exit status."""
    with scratch.folder(ROOT / "reports", "bench-") as folder:
        path = folder / "worker.log"
        with path.open("wb") as log:
            block = LINE * (1_000_000 // len(LINE))
            while log.tell() < SIZE:
                log.write(block)
        begin = now()
        poll_for_pattern(path, "no such line", timeout=0)
        scan = now() - begin
        # The first needle is waited for from offset 0 on, so let the gigabyte be read before it is written.
        first_needle = 3 * scan
        found = multiprocessing.Semaphore(0)
        writer = multiprocessing.Process(target=grow, args=(path, found, first_needle))
        writer.start()
        begin, cpu = now(), time.process_time()
        latencies = []
        for needle in range(NEEDLES):
            offset = path.stat().st_size if needle else 0
            match = poll_for_pattern(path, rf"needle {needle} at (\S+)", first_needle + 30, offset=offset)
            if match is None:
                print(f"needle {needle} was not found", file=sys.stderr)
                writer.kill()
                return 1
            latencies.append(now() - float(match[1]))
            found.release()
        writer.join()
        grown = path.stat().st_size
        share = (time.process_time() - cpu) / (now() - begin)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"log {SIZE / 1e9:.1f} GB, grown to {grown / 1e9:.2f} GB at {RATE / 1e6:.0f} MB/s, {os.cpu_count()} cores")
    print(f"read from offset 0 at {SIZE / scan / 1e6:.0f} MB/s")
    print(f"found after: first (from offset 0) {latencies[0] * 1000:.1f} ms, ", end="")
    print(f"median {statistics.median(latencies) * 1000:.1f} ms, worst {max(latencies) * 1000:.1f} ms", end="")
    print(f" (bound {BOUND_SECONDS * 1000:.0f} ms); {share:.0%} of a core")
    print(f"memory of the process at most {memory / 1e6:.0f} MB (bound {BOUND_MEMORY / 1e6:.0f} MB)")
    return 0 if max(latencies) <= BOUND_SECONDS and memory <= BOUND_MEMORY else 1


if __name__ == "__main__":
    sys.exit(main())
