"""How often a scenario shows a defect: the evidence that a record in support/judge/known_defects.yaml needs.

Usage: ``python -m tests.reproduce DEFECT RELEASE[,RELEASE...] NAME [--times 5] [--jobs 3]`` where NAME is behave's
``--name``. Prints ``k/n`` and what was seen for each scenario and release, keeps the ledgers in
``docs/defects/DEFECT/``, and the findings that a record explains in ``docs/defects/findings.jsonl``, one line of each
record and release.
"""

import argparse
import gzip
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agents.core import scratch
from support.judge.verdict import Verdict
from support.settings import ROOT
from tests import evidence
from tests.scenarios import run


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.reproduce")
    parser.add_argument("defect", help="id of the record")
    parser.add_argument("releases", help="Dynamo releases, separated by commas")
    parser.add_argument("names", nargs="+", help="names of scenarios, as behave's --name takes them")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=3)
    options = parser.parse_args()
    kept = ROOT / "docs" / "defects" / options.defect
    selection = [part for name in options.names for part in ("--name", name)]
    runs = [(release, time) for release in options.releases.split(",") for time in range(1, options.times + 1)]

    def one(which: tuple[str, int]) -> tuple[tuple[str, int], list[tuple[Verdict, Path]]]:
        release, time = which
        folder = place / f"{release}-{time}"
        verdicts = run(folder, *selection, "-D", f"dynamo={release}")
        if not verdicts:
            raise SystemExit(f"nothing ran on {release}: {(folder / 'console.txt').read_text()}")
        files = sorted(folder.glob("scenarios/*/verdict.json"))
        return which, [(verdict, file.parent) for verdict, file in zip(verdicts, files, strict=True)]

    seen: dict[tuple[str, str], list[str]] = defaultdict(list)
    with scratch.folder(ROOT / "reports", "reproduce-") as place, ThreadPoolExecutor(options.jobs) as pool:
        for (release, time), results in pool.map(one, runs):
            for verdict, folder in results:
                seen[release, verdict.name].append(f"{verdict.verdict}: {verdict.reason}")
                if verdict.verdict in ("failed", "known_defect"):
                    keep(folder / "ledger.jsonl", kept / f"{release}-{folder.name}-{time}.ledger.jsonl.gz")
                    evidence.add(release, verdict)
    for (release, name), reasons in sorted(seen.items()):
        shown = sum(reason.startswith(("failed", "known_defect")) for reason in reasons)
        print(f"{release}  {shown}/{len(reasons)}  {name}")
        for reason in sorted(set(reasons)):
            print(f"        {reason[:300]}")


def keep(ledger: Path, target: Path) -> None:
    """Compress a ledger; the same ledger gives the same bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(ledger.read_bytes(), mtime=0))


if __name__ == "__main__":
    main()
