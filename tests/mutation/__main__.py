"""``python -m tests.mutation [--only GLOB] [--jobs N]``: changes modules in one place at a time and runs the tests.

Prints the score and what survived, writes ``reports/mutation.json``. Exit 1 when fewer than ``LEAST_PERCENT`` are
killed, when one survives that ``survivors.yaml`` does not name, and when that names one that does not survive.
"""

import argparse
import hashlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from support.amounts import amount
from tests.mutation import ENVIRONMENT, LEAST_PERCENT, ROOMS, ROOT, mutants
from tests.mutation.mutants import Mutant
from tests.mutation.survivors import read_survivors, unknown, unneeded
from tests.mutation.trials import (
    BROKEN,
    SURVIVED,
    Loop,
    Measured,
    Trial,
    at_import,
    first_failure,
    fresh,
    in_fork,
    measure,
    put,
    side_by_side,
    told_by_fork,
    with_tests,
)

REPORTS = ROOT / "reports"
THIRD_PARTIES = ("aiohttp", "openai", "packaging", "prometheus_client", "psutil", "pydantic", "yaml")
"""What forks would else import one by one."""


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--only", default="*", metavar="GLOB", help="only modules such as support/judge/*")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    # A counterexample is enough, the smallest is not needed.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutation", phases=phases, database=None, deadline=None, derandomize=True)
    hypothesis.settings.load_profile("mutation")
    for name in THIRD_PARTIES:
        importlib.import_module(name)
    began, outcomes = time.monotonic(), list[tuple[Mutant, str]]()
    for room, (modules, tests) in ROOMS.items():
        chosen = [path for path in modules if fnmatchcase(path, options.only)]
        if chosen:
            found = [mutant for path in chosen for mutant in made(path)]
            print(f"{room}: {amount(len(found), 'mutant')} of {amount(len(chosen), 'module')}", flush=True)
            outcomes += room_outcomes(found, tests, options.jobs)
    if not outcomes:
        print(f"no module is called {options.only}", file=sys.stderr)
        return 2
    return tell(outcomes, time.monotonic() - began, whole=options.only == "*")


def made(path: str) -> list[Mutant]:
    """All mutants of a module; made once for each version of it."""
    told = hashlib.sha256((ROOT / path).read_bytes() + Path(mutants.__file__).read_bytes()).hexdigest()[:12]
    kept = REPORTS / "mutation" / f"{Path(path).stem}-{told}.jsonl"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        maker = [str(ENVIRONMENT / "bin" / "python"), mutants.__file__, path]
        text = subprocess.run(maker, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        draft = kept.with_suffix(".draft")
        draft.write_text(text, encoding="utf-8")
        draft.replace(kept)
    return [Mutant(**json.loads(line)) for line in kept.read_text(encoding="utf-8").splitlines()]


def room_outcomes(found: Sequence[Mutant], tests: Sequence[str], jobs: int) -> Iterator[tuple[Mutant, str]]:
    """What became of each mutant: ``killed``, ``ended`` (by a limit), ``survived``, or ``unreached`` by any test.

    Raises:
        RuntimeError: a test fails without a mutant, or nobody can tell.
    """
    sources = {path: (ROOT / path).read_text(encoding="utf-8") for path in {each.path for each in found}}
    imported = {
        number for number, each in enumerate(found) if at_import(sources[each.path], each.source(sources[each.path]))
    }
    measured: Measured = {}
    inside = [(number, each) for number, each in enumerate(found) if number not in imported]
    with told_by_fork(partial(_inside, inside, sources, tests, jobs)) as told:
        for content in told:
            if "measured" in content:
                measured = content["measured"]
            else:
                yield found[content["number"]], _word(content["ended"])
    whole = {path: _quickest(measured, path, 0) for path in sources}

    def trials() -> Iterator[Trial]:
        for number in sorted(imported):
            mutant = found[number]
            names, seconds = whole[mutant.path]
            if names:
                yield mutant, partial(fresh, mutant.path, mutant.source(sources[mutant.path]), names), seconds

    for path, (names, seconds) in whole.items():
        if names and _control(partial(fresh, path, sources[path], names), seconds) != SURVIVED:
            raise RuntimeError(f"the tests of {path} do not pass in a process of their own")
    yield from ((found[number], "unreached") for number in imported if not whole[found[number].path][0])
    for mutant, ended in side_by_side(trials(), jobs):
        yield mutant, _word(ended)


def _control(work: Callable[[], int], seconds: float) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(in_fork(work, seconds), 0)[1])


def _inside(
    numbered: Sequence[tuple[int, Mutant]],
    sources: dict[str, str],
    tests: Sequence[str],
    jobs: int,
    say: Callable[[Any], None],
) -> None:
    """In a fork: load the tests, measure them, and try the mutants that are changes of functions."""

    def work(items: Sequence[pytest.Item]) -> None:
        with told_by_fork(lambda tell: tell(measure(items, list(sources)))) as told:
            measured = next(told)
        if failed := [name for name, each in measured.items() if each is None]:
            raise RuntimeError(f"without a mutant: {', '.join(failed)} fail")
        say({"measured": measured})
        by_name = {item.nodeid: item for item in items}
        numbers = {id(each): number for number, each in numbered}
        unreached = [number for number, each in numbered if not _quickest(measured, each.path, each.function)[0]]
        for number in unreached:
            say({"number": number, "ended": None})

        def trials() -> Iterator[Trial]:
            for _, mutant in numbered:
                names, seconds = _quickest(measured, mutant.path, mutant.function)
                if names:
                    chosen = [by_name[name] for name in names]
                    yield mutant, partial(_swapped, mutant, sources[mutant.path], chosen), seconds

        for mutant, ended in side_by_side(trials(), jobs):
            say({"number": numbers[id(mutant)], "ended": ended})

    status = with_tests(tests, Loop(work))
    if status:
        raise RuntimeError(f"pytest ended with {status}")


def _swapped(mutant: Mutant, source: str, items: Sequence[pytest.Item]) -> int:
    """In a fork: change the functions and run the tests that come through them."""
    module = importlib.import_module(".".join(Path(mutant.path).with_suffix("").parts))
    put(module, source, mutant.source(source))
    return first_failure(items)


def _quickest(measured: Measured, path: str, function: int) -> tuple[list[str], float]:
    """The tests that come through a function (0: any of the file), the quickest first, and their CPU seconds."""
    reaching = {
        name: seconds
        for name, (seconds, reached) in measured.items()
        if (function in reached[path] if function else reached[path])
    }
    return sorted(reaching, key=lambda name: reaching[name]), sum(reaching.values())


def _word(ended: int | None) -> str:
    if ended is None:
        return "unreached"
    if ended == BROKEN:
        raise RuntimeError("a fork broke down before its tests were over")
    return "ended" if ended < 0 else "killed" if ended else "survived"


def tell(outcomes: Sequence[tuple[Mutant, str]], seconds: float, whole: bool) -> int:
    """Print and write what came out; returns the exit status."""
    counts = Counter(word for _, word in outcomes)
    killed = counts["killed"] + counts["ended"]
    percent = 100 * killed / len(outcomes)
    left = [each for each, word in outcomes if word in ("survived", "unreached")]
    accepted = read_survivors()
    paths = {each.path for each, _ in outcomes}
    new, old = unknown(left, accepted), unneeded(left, [each for each in accepted if each.path in paths])
    for each in new:
        print(
            f"SURVIVED  {each.path}:{each.line} {each.where} {each.operator}",
            f"          {each.was}",
            f"          {each.now}",
            sep="\n",
        )
    for record in old:
        print(f"NOT NEEDED  {record.path} {record.where}: {record.now}")
    for path in sorted(paths):
        its = [word for each, word in outcomes if each.path == path]
        dead = sum(word in ("killed", "ended") for word in its)
        print(f"{100 * dead / len(its):5.1f} %  {dead:4} of {len(its):4}  {path}")
    print(
        f"{percent:.1f} % of {amount(len(outcomes), 'mutant')} killed in {seconds / 60:.1f} minutes; "
        f"{len(left)} survived, {len(left) - len(new)} of them accepted"
    )
    content = {
        "mutants": len(outcomes),
        "killed": killed,
        "percent": round(percent, 1),
        "accepted": len(left) - len(new),
        "whole": whole,
        "seconds": round(seconds),
        "trials": [{**_told(each), "outcome": word} for each, word in outcomes],
    }
    (REPORTS / "mutation.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 1 if new or old or percent < LEAST_PERCENT else 0


def _told(mutant: Mutant) -> dict[str, Any]:
    fields = asdict(mutant)
    return {name: fields[name] for name in ("path", "where", "line", "operator", "was", "now")}


if __name__ == "__main__":
    sys.exit(main())
