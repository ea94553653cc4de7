"""``python -m tests.sabotage [--jobs N] [--name GLOB]``: run the table; exit 1 when a row does not turn red."""

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

from support.judge.verdict import Verdict
from support.run.selection import Selected
from tests.sabotage import Sabotage, scenarios, table
from tests.scenarios import run


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.sabotage")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--name", default="*", help="only scenarios whose name matches this glob")
    options = parser.parse_args()
    pairs = [
        (each, row)
        for each in scenarios()
        if fnmatchcase(each.name, options.name)
        for row in table()
        if row.matches(each.name)
    ]

    def one(pair: tuple[Selected, Sabotage]) -> tuple[Sabotage, Verdict]:
        scenario, row = pair
        with tempfile.TemporaryDirectory(prefix="sabotage-") as folder:
            verdicts = run(Path(folder) / "run", scenario.location, sabotage=row.sabotage)
        nothing = Verdict(scenario.feature, scenario.name, scenario.location, [], "no verdict", 0.0)
        return row, verdicts[0] if verdicts else nothing

    survived = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for row, seen in pool.map(one, pairs):
            caught = row.explains(seen)
            survived += not caught
            word = "caught  " if caught else "SURVIVED"
            print(f"{word}  {row.sabotage:<28} {seen.verdict:<13} {seen.name}", flush=True)
            if not caught:
                print(f"          expected {row.verdict} with {row.words or row.finds}, got: {seen.reason}")
                for each in seen.findings:
                    print(f"          {each.blame}: {each.rule}: {each.about} {each.message} {dict(each.facts)}")
    print(f"{len(pairs) - survived} caught, {survived} survived")
    return 1 if survived or not pairs else 0


if __name__ == "__main__":
    sys.exit(main())
