"""What a run says on the console: a line per finished scenario, and a table that is read in ten seconds."""

import os
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from support.amounts import amount
from support.judge.verdict import BAD, VERDICTS, Verdict
from support.observe.logs import last_trouble
from support.report.story import waited
from support.report.wording import MARKS, again, headline, invariants
from support.requests.outcomes import shorten

LOG_LINES, MOST_FINDINGS, WIDEST = 3, 3, 240
_COLOURS = {"passed": "32", "failed": "31;1", "mistake": "34;1", "inconclusive": "33;1"}
_COLOURS |= {"known_defect": "35", "skipped": "36"}


def line(verdict: Verdict, stream: TextIO = sys.stdout) -> str:
    """One finished scenario; its reason on a second line where there is one."""
    mark = _paint(f"{MARKS[verdict.verdict]:<12}", verdict.verdict, stream)
    worth = f" ({invariants(verdict)})" if verdict.verdict == "passed" and verdict.evidence else ""
    first = f"{mark} {verdict.seconds:6.1f} s  {verdict.feature}: {verdict.name}{worth}"
    return first + (f"\n{'':23}{headline(verdict)}" if headline(verdict) else "")


def failure(verdict: Verdict, folder: Path, settings: Mapping[str, str]) -> str:
    """What helps to find out about a scenario that did not pass: how long it waited, every finding but the one that its
    line has told, the last troubles in the logs, how to look at what was left running, and how to run it again.

    Args:
        folder: of the scenario.
        settings: those of its run that were given.
    """
    told = [finding.message for finding in verdict.findings if finding.message not in verdict.reason]
    # No log of Dynamo has to do with a mistake of the scenario's author.
    logged = [] if verdict.verdict == "mistake" else last_trouble(folder / "logs", LOG_LINES)
    rows = [f"waited: {time}" for time in [waited(folder, verdict)] if time]
    rows += [f"also: {shorten(each, WIDEST)}" for each in told[:MOST_FINDINGS]]
    rows += [f"and {amount(len(told) - MOST_FINDINGS, 'more finding')}"] * (len(told) > MOST_FINDINGS)
    rows += [f"log: {shorten(each, WIDEST)}" for each in logged]
    rows += [f"wreck: {each}" for each in verdict.kept]
    rows += [f"again: {again(verdict.location, settings)}"]
    return "\n".join(f"{'':23}{row}" for row in rows)


def table(
    verdicts: Sequence[Verdict], title: str, seconds: float, complaints: Sequence[str], stream: TextIO = sys.stdout
) -> str:
    """Verdicts per feature, then every scenario that did not plainly pass, then what the exit status is and why.

    Args:
        title: what was tested, e.g. ``Dynamo 1.6.1 on target local``.
        seconds: wall time of the run.
        complaints: why the run is red (:func:`support.judge.judge.complaints`); empty for a green one.
    """
    features = list(dict.fromkeys(verdict.feature for verdict in verdicts))
    width = max([len(feature) for feature in features] + [len("all")])
    heads = "".join(f"{MARKS[name]:>14}" for name in VERDICTS)
    rows = ["", f"{title}: {amount(len(verdicts), 'scenario')} in {seconds:.0f} s", f"{'':{width}}{heads}"]
    for feature in features:
        rows.append(f"{feature:{width}}" + _counts([v for v in verdicts if v.feature == feature], stream))
    if len(features) > 1:
        rows.append(f"{'all':{width}}" + _counts(verdicts, stream))
    for name in ("skipped", "known_defect", *reversed(BAD)):
        rows += ["", *(f"{line(v, stream)}\n{'':23}{v.location}" for v in verdicts if v.verdict == name)]
    rows += ["", _machine(verdicts)]
    if complaints:
        rows += ["", _paint(f"RED (exit status 1): {'; '.join(complaints)}", "failed", stream)]
        rows += ["again:  make rerun"] * any(each.verdict in BAD for each in verdicts)
    else:
        rows += ["", _paint("GREEN (exit status 0)", "passed", stream)]
    return "\n".join(row for before, row in zip(["x", *rows], rows, strict=False) if row or before)


def _machine(verdicts: Sequence[Verdict]) -> str:
    """How busy the machine was: the suite's own waits grew with it."""
    seen = [verdict.slowness for verdict in verdicts if verdict.verdict != "skipped"]
    if not seen:
        return ""
    typical, worst = statistics.median(seen), max(seen)
    return (
        f"the suite ran {typical:.1f} times slower than alone (median of its scenarios; the slowest {worst:.1f} times)"
    )


def _counts(verdicts: Sequence[Verdict], stream: TextIO) -> str:
    counted = Counter(verdict.verdict for verdict in verdicts)
    return "".join(_paint(f"{counted[name] or '-':>14}", name if counted[name] else "", stream) for name in VERDICTS)


def _paint(text: str, verdict: str, stream: TextIO) -> str:
    colour = _COLOURS.get(verdict)
    if not colour or not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"
