"""What a load run came to, from its folder alone: per phase and as a whole.

``python -m support.report.results DIR`` prints a table and leaves ``results.json`` and ``results.svg`` in the folder.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from support.amounts import amount
from support.judge.figures import figures
from support.judge.recovery import Band, recovery
from support.judge.rules.suite import LAG_BOUND
from support.judge.samples import NEVER, NO_OBJECTIVES, LoadHistory, Objectives, Sample, milliseconds, percentile
from support.report.reading import read_load_history
from support.report.timeline import draw
from support.requests.load_log import PHASE_NAMES


def process_overflow_recovery_test(log_dir: str | Path, objectives: Objectives = NO_OBJECTIVES) -> dict[str, Any]:
    """Figures of a run, as a whole and under ``phases`` for STANDARD, OVERFLOW and RECOVERY.

    ``success_rate`` is in percent, names with ``_ms`` are milliseconds: None where there is nothing to measure,
    ``math.inf`` where so many requests had no whole answer that the percentile is one of them. ``missing`` says what
    was lost of the run ([] for one that is whole), ``notes`` what it was not meant to have, ``latency_valid`` whether
    the clients kept up, ``recovery`` how long it took to the first success and to stable.

    Args:
        log_dir: folder of a load, or of several with ``phases.jsonl`` and ``events.jsonl`` beside them.
        objectives: what a request has to keep for goodput.

    Raises:
        ValueError: there is no load in ``log_dir``.
    """
    run = read_load_history(log_dir)
    spans = run.spans()
    phases = {
        name: figures([each for each in run.samples if each.phase == name], *spans[name], objectives)
        for name in PHASE_NAMES
        if name in spans
    }
    found = figures(run.samples, run.begin, run.end, objectives)
    found["phases"] = phases
    found["loads"] = {
        name: figures([each for each in run.samples if each.load == name], run.begin, run.end, objectives)
        for name in dict.fromkeys(each.load for each in run.samples)
    }
    found["recovery"] = recovery(run, objectives)
    found["lag"] = _lag(run.samples)
    found["latency_valid"] = max(found["lag"]["p99_send_ms"] or 0.0, found["lag"]["loop_ms"]) <= LAG_BOUND * 1000
    found["missing"] = missing(run)
    found["notes"] = notes(run)
    return found


def missing(run: LoadHistory) -> list[str]:
    """What should be there and is not, in words: clients that died, requests without an end, an end after OVERFLOW."""
    several = len(run.loads) > 1
    found = [f"{load.folder.name}: {each}" if several else each for load in run.loads for each in load.problems]
    marks = {phase for phase, _ in run.phases}
    if "OVERFLOW" in marks and "RECOVERY" not in marks:
        found.append("no phase RECOVERY: the run ended in OVERFLOW")
    if not run.samples:
        found.append("no request")
    return found


def notes(run: LoadHistory) -> list[str]:
    """Phases that the run does not have, or in which no request was due; a run in which nothing breaks has one."""
    spans = run.spans()
    empty = [name for name in spans if not any(each.phase == name for each in run.samples)]
    lacking = [f"no phase {name}" for name in PHASE_NAMES if name not in spans]
    return lacking + [f"no request in phase {name}" for name in empty]


def _lag(samples: Iterable[Sample]) -> dict[str, float | None]:
    seen = list(samples)
    sends = sorted(each.send_lag for each in seen if each.send_lag is not None)
    loop = max((each.loop_lag for each in seen), default=0.0)
    return {"p99_send_ms": milliseconds(percentile(sends, 0.99)), "loop_ms": loop * 1000}


ROWS = (
    *("planned", "succeeded", "refused", "broken", "missing_ends", "cancelled", "withdrawn"),
    *("success_rate", "goodput_rate", "requests_per_second", "tokens_per_second"),
    *(f"p{share}_{name}_ms" for name in ("latency", "ttft", "itl", "pause", "lag") for share in (50, 99)),
)


def table(results: dict[str, Any]) -> str:
    """The results for a reader."""
    columns = {**results["phases"], "whole": results}
    lines = ["".join([" " * 22, *(f"{name:>12}" for name in columns)])]
    for row in ROWS:
        void = row.endswith("_ms") and not row.endswith("lag_ms") and not results["latency_valid"]
        cells = ["void" if void else _cell(column[row]) for column in columns.values()]
        lines.append(f"{row:<22}" + "".join(f"{cell:>12}" for cell in cells))
    back = results["recovery"]
    lines.append(Band(**back["band"]).describe() if back["band"] else f"no band: {back['no_band']}")
    if back["since"] is not None:
        lines.append(f"first success after {_cell(back['to_first_success_seconds'])} s")
        relapses = f", then out of it in {amount(back['relapses'], 'window')}" if back["relapses"] else ""
        lines.append(f"stable after {_cell(back['to_stable_seconds'])} s{relapses}")
    if not results["latency_valid"]:
        lines.append(f"times are void: the clients lagged ({results['lag']})")
    lines += [f"{word}: {each}" for word in ("missing", "notes") for each in results[word]]
    return "\n".join(lines)


def _cell(value: float | int | None) -> str:
    if value == NEVER:
        return "never"
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def _for_json(value: Any) -> Any:
    """``value`` with ``never`` for what is infinite, which JSON cannot say."""
    if isinstance(value, dict):
        return {key: _for_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_for_json(each) for each in value]
    return "never" if value == NEVER else value


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="What a load run came to: a table, results.json and results.svg.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    for each in fields(Objectives):
        flag = f"--{each.name.replace('_', '-')}"
        parser.add_argument(flag, type=float, metavar="N", help="what a request has to keep to count for goodput")
    options = vars(parser.parse_args())
    folder = options.pop("folder")
    try:
        results = process_overflow_recovery_test(folder, Objectives(**options))
    except ValueError as error:
        raise SystemExit(str(error)) from None
    (folder / "results.json").write_text(json.dumps(_for_json(results), indent=1) + "\n", encoding="utf-8")
    picture = draw(folder, "results.svg")
    print(table(results))
    print(f"{folder / 'results.json'}  {picture}")


if __name__ == "__main__":
    main()
