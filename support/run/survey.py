"""``make releases``: the default selection on one release of Dynamo after the other; the tables of docs/releases.md.

What came out is kept in ``docs/results.json`` and committed with the tables, so a release can be looked at by itself.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from packaging.version import Version

from support import releases
from support.judge.verdict import VERDICTS, Verdict
from support.report import publish, runs
from support.settings import ROOT

FILE = ROOT / "docs" / "results.json"
PAGE = ROOT / "docs" / "releases.md"
BEGIN, END = "<!-- results: written by make releases -->\n", "<!-- end of results -->\n"
GOOD = ("passed", "known_defect", "skipped")
WORDS = {
    "passed": "kept",
    "known_defect": "broken",
    "skipped": "skipped",
    "failed": "FAILED",
    "inconclusive": "INCONCLUSIVE",
    "mistake": "MISTAKE",
}
"""Verdict -> what a cell of the table calls it."""


@dataclass(frozen=True)
class Result:
    """What came out on one release.

    Attributes:
        date: day of the run (UTC), such as ``2026-11-28``.
        target: where it ran.
        promises: name of a feature -> verdict -> number of its scenarios.
        defects: id of a record -> number of scenarios that showed it.
    """

    date: str
    target: str
    promises: Mapping[str, Mapping[str, int]]
    defects: Mapping[str, int]


def result(verdicts: Iterable[Verdict], date: str, target: str) -> Result:
    """What the verdicts of a run come to."""
    promises, defects = dict[str, Counter[str]](), Counter[str]()
    for each in verdicts:
        promises.setdefault(each.feature, Counter())[each.verdict] += 1
        defects.update(each.known_defects)
    return Result(date, target, {name: dict(counts) for name, counts in promises.items()}, dict(defects))


def read(file: Path = FILE) -> dict[str, Result]:
    """Release -> what came out on it, as kept; empty where nothing is."""
    if not file.exists():
        return {}
    return {release: Result(**fields) for release, fields in json.loads(file.read_text(encoding="utf-8")).items()}


def in_order(names: Iterable[str]) -> list[str]:
    """Releases, the oldest first."""
    return sorted(names, key=Version)


def tables(results: Mapping[str, Result]) -> str:
    """Promise by release, then defect by release, in Markdown."""
    columns = in_order(results)
    features = sorted({feature for each in results.values() for feature in each.promises})
    defects = sorted({defect for each in results.values() for defect in each.defects})
    days = ["day of the run", *(results[release].date for release in columns)]
    promised = [[name, *(_cell(results[release].promises.get(name, {})) for release in columns)] for name in features]
    shown = [[f"`{name}`", *(str(results[release].defects.get(name, "")) for release in columns)] for name in defects]
    return f"{_table(['promise', *columns], [*promised, days])}\n{_table(['defect, by scenarios', *columns], shown)}"


def _cell(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[verdict]} {WORDS[verdict]}" for verdict in WORDS if counts.get(verdict))


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(results: Mapping[str, Result], file: Path = FILE, page: Path = PAGE) -> None:
    """Keep results, and write their tables into the page.

    Raises:
        ValueError: the page has no place for them.
    """
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page} needs the lines {BEGIN.strip()} and {END.strip()}, each once; put them back")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    runs.write_json(file, {release: asdict(results[release]) for release in in_order(results)})
    page.write_text(f"{before}{BEGIN}\n{tables(results)}\n{END}{after}", encoding="utf-8")


def newest_of_each_line() -> list[str]:
    """The last known release of each 1.x, oldest first."""
    return list({Version(each).release[:2]: each for each in in_order(releases.known())}.values())


def run(release: str) -> Result | None:
    """Run the default selection on a release; None when not all of it ran."""
    before = set(runs.history(ROOT / "reports"))
    argv = [sys.executable, "-m", "support.run.launcher", "acceptance", f"-Ddynamo={release}"]
    subprocess.run(argv, cwd=ROOT, check=False)  # what it found is in its folder
    for folder in set(runs.history(ROOT / "reports")) - before:
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        verdicts = publish.collect(folder)
        if about["dynamo"] == release and len(verdicts) == len(about["planned"]):
            return result(verdicts, f"{datetime.now(UTC):%Y-%m-%d}", about["target"])
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the status is 1 when not all of a release ran, or anything on it is failed or inconclusive."""
    parser = argparse.ArgumentParser(prog="make releases", description=__doc__)
    parser.add_argument("releases", nargs="*", help="such as 1.4.2; default: the last one of each 1.x")
    chosen = parser.parse_args(arguments).releases or newest_of_each_line()
    try:
        for release in chosen:
            releases.get(release)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    red = []
    for release in chosen:
        found = run(release)
        if found is None:
            red.append(f"{release}: not all of it ran")
            continue
        write(read() | {release: found})
        counts = sum((Counter(each) for each in found.promises.values()), Counter[str]())
        if bad := [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict] and verdict not in GOOD]:
            red.append(f"{release}: {', '.join(bad)}")
    print(f"tables: {PAGE.relative_to(ROOT)}")
    print("\n".join(red) or "every scenario is passed, a known defect, or skipped as the release allows")
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
