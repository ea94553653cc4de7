"""``python -m tests.sabotage [--name GLOB] [--sabotage GLOB] [--jobs N] [--again] [--plan]``: run the table, or a part.

Trials that are in ``reports/sabotage.json`` and are as they would be now (same suite, same row, same release) are not
run again, so a run that was broken off goes on where it was. Exit 1 when one that was chosen is not caught.
"""

import argparse
import sys
from collections import Counter
from fnmatch import fnmatchcase

from support.amounts import amount
from support.report.self_tests import OUTCOMES, Trial, read_trials, sabotage_line, score, write_trials
from support.run.schedule import costs_file, read_costs, usual_costs
from support.settings import ROOT, Settings
from tests.sabotage import scenarios, table
from tests.sabotage.trials import Estimate, Pair, play_all, row_of, sources

REPORTS = ROOT / "reports"


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.sabotage")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--name", default="*", help="only scenarios whose name matches this glob")
    parser.add_argument("--sabotage", default="*", help="only sabotages that match this glob, such as 'injector=*'")
    parser.add_argument("--again", action="store_true", help="run also what is known already")
    parser.add_argument("--plan", action="store_true", help="say what would run and how long it takes, and run nothing")
    options = parser.parse_args()
    settings = Settings.load()
    if not settings.kubeconfig:
        print("KUBECONFIG is not set: scenarios that need a cluster are left out")
    rows, all_scenarios = table(), scenarios(bool(settings.kubeconfig))
    every = [(scenario, row) for scenario in all_scenarios for row in rows if row.matches(scenario.name)]
    chosen = [
        (scenario, row)
        for scenario, row in every
        if fnmatchcase(scenario.name, options.name) and fnmatchcase(row.sabotage, options.sabotage)
    ]
    in_table = {row_of(pair) for pair in every}
    known = {each.row: each for each in read_trials(REPORTS) if each.row in in_table}
    now = sources(), settings.dynamo
    fresh = {row for row, each in known.items() if (each.sources, each.dynamo) == now and not options.again}
    waiting = [pair for pair in chosen if row_of(pair) not in fresh]
    costs, done = usual_costs("local") | read_costs(costs_file(REPORTS, "local")), list[Pair]()
    estimate = Estimate(list(known.values()), costs, options.jobs)
    print(
        f"{amount(len(every), 'trial')} in the table, {len(chosen)} chosen, {len(chosen) - len(waiting)} of them known"
    )
    print(f"{len(waiting)} to run, {options.jobs} at a time: {_spell(estimate.left(waiting, []))}", flush=True)
    if options.plan:
        for pair in waiting:
            print(f"{estimate.seconds(pair):6.0f} s  {pair[1].sabotage or '(none)':<28} {pair[0].name}")
        return 0
    by_row = {row_of(pair): pair for pair in chosen}

    def tell(trial: Trial) -> None:
        known[trial.row] = trial
        write_trials(REPORTS, list(known.values()), len(every))
        pair = by_row[trial.row]
        done.append(pair)
        waiting.remove(pair)
        left = f"{len(waiting)} left, {_spell(estimate.left(waiting, done))}" if waiting else "the last"
        print(_line(trial), f"({left})", flush=True)

    play_all(list(waiting), REPORTS / "sabotage", options.jobs, costs, tell)
    told = [known[row_of(pair)] for pair in chosen]
    counts = Counter(each.outcome for each in told)
    print(", ".join(f"{counts[name]} {name}" for name in OUTCOMES if counts[name]) or "nothing was chosen")
    found = score(list(known.values()), len(every))
    print(f"of the whole table: {sabotage_line(REPORTS)}")
    idle = found["sabotages that nobody caught"], found["scenarios that caught nobody"]
    for name, each in zip(("caught by nobody", "caught nobody"), idle, strict=True):
        print(*(f"{name}: {one}" for one in each), sep="\n", end="\n" if each else "")
    whole = len(chosen) == len(every) and any(idle)
    return 1 if counts["caught"] < len(chosen) or not chosen or whole else 0


def _line(trial: Trial) -> str:
    word = trial.outcome if trial.outcome == "caught" else trial.outcome.upper()
    line = f"{word:<12}  {trial.sabotage or '(none)':<28} {trial.verdict:<13} {trial.scenario}"
    if trial.outcome == "caught":
        return line
    proof = f"{trial.marks} marks, first: {trial.proof}" if trial.marks else "no mark"
    wanted = f"expected {trial.expected} with {trial.wanted!r}, got: {trial.reason}"
    return f"{line}\n              {wanted}\n              {proof}\n             "


def _spell(seconds: float) -> str:
    return f"about {seconds / 60:.0f} minutes" if seconds >= 90 else f"about {seconds:.0f} seconds"


if __name__ == "__main__":
    sys.exit(main())
