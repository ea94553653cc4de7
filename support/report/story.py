"""A scenario told from what lies in its folder: what broke, what its users felt, what the metrics did."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from prometheus_client.parser import text_string_to_metric_families

from support.amounts import amount
from support.events import read_events
from support.judge.recovery import Band
from support.judge.samples import NEVER
from support.judge.verdict import Verdict
from support.report import wording
from support.report.results import process_overflow_recovery_test
from support.report.self_tests import Trial
from support.requests.ledger import LedgerEntry, Opinion, read_ledger
from support.requests.load_log import find_loads
from support.requests.outcomes import outcome, shorten

SHOWN_REQUESTS = 8
"""Up to so many requests are told one by one; of more only the sums and the broken ones."""
SHOWN_FAULTS = 12
"""Faults and proofs that are told."""
TABLE_ROWS = 300
"""Requests in the table; of more, those without a whole answer come first into it."""


def story(folder: Path, verdict: Verdict, trials: Sequence[Trial] = ()) -> str:
    """A few lines of HTML and the timeline that answer: what broke, what did users feel, is it Dynamo or us, and can
    the scenario fail at all, by the ``trials`` of it that are known.
    """
    entries = read_ledger(folder / "ledger.jsonl")
    return "".join(
        [
            f"<p><b>Verdict: {wording.CATEGORIES[wording.category(verdict)]}.</b> {escape(verdict.reason)}</p>",
            *(f"<p>{escape(words)}</p>" for words in _warnings(folder)),
            f"<p><b>Left running</b></p>{_bullets(verdict.kept)}" if verdict.kept else "",
            _worth(verdict),
            _trials([each for each in trials if (each.feature, each.scenario) == (verdict.feature, verdict.name)]),
            f"<p><b>What broke</b></p>{_bullets(_faults(folder, entries))}",
            f"<p><b>What users felt</b></p>{_bullets(_felt(entries) + _phases(folder))}",
            _picture(folder / "timeline.svg"),
            f"<p>Everything in full, logs and ledger too: {'/'.join(folder.parts[-5:])}/</p>",
        ]
    )


def _worth(verdict: Verdict) -> str:
    """How many invariants had evidence, how many things each looked at, which were not judged and why, and how busy the
    machine was.
    """
    busy = f"; the suite ran {verdict.slowness:g} times slower than alone"
    looked_at = ", ".join(f"{rule} {count}" for rule, count in verdict.evidence.items())
    left_out = "".join(f"; {rule} was not judged: {why}" for rule, why in verdict.not_judged.items())
    told = looked_at + left_out + busy
    return f"<p>{escape(wording.invariants(verdict))}: {escape(told)}</p>" if looked_at else ""


def _trials(trials: Sequence[Trial]) -> str:
    """What became of the scenario with something broken on purpose."""
    told = [f"{each.sabotage or 'a defect of Dynamo itself'} {each.outcome}" for each in trials]
    when = max((each.at for each in trials), default="").partition("T")[0]
    return f"<p>With something broken on purpose ({when}): {escape(', '.join(told))}</p>" if told else ""


def requests_table(folder: Path) -> str:
    """One line per request of the ledger, as text, of at most :data:`TABLE_ROWS`; empty when no request was sent."""
    every = read_ledger(folder / "ledger.jsonl")
    if not every:
        return ""
    telling = sorted(every, key=lambda entry: outcome(entry).kind == "complete")[:TABLE_ROWS]
    entries = sorted(telling, key=lambda entry: entry.number)
    left_out = f"{amount(len(every) - len(entries), 'more request')} in ledger.jsonl of the run's folder\n"
    zero = min((entry.sent_at for entry in entries if entry.sent_at is not None), default=0.0)
    rows = [("no", "api", "sent", "status", "tokens", "first", "pause", "ended", "client", "outcome")]
    for entry in entries:
        first = entry.token_times[0] - entry.sent_at if entry.token_times and entry.sent_at is not None else None
        end = outcome(entry)
        rows.append(
            (
                str(entry.number),
                f"{entry.api}{' stream' if entry.stream else ''}{f' n={entry.n}' if entry.n > 1 else ''}",
                _seconds(None if entry.sent_at is None else entry.sent_at - zero),
                str(entry.status_code or "-"),
                f"{len(entry.tokens)}/{entry.max_tokens}",
                _seconds(first),
                _seconds(entry.longest_pause),
                _seconds(None if entry.ended_at is None else entry.ended_at - zero),
                entry.opinion.kind if entry.opinion else "-",
                f"{end.kind} {shorten(end.why, 120)}".rstrip(),
            )
        )
    legend = "seconds: sent and ended since the first request, first = to the first token, pause = longest without one"
    table = _columns(rows) + f"\n{legend}\n" + (left_out if len(every) > len(entries) else "")
    told: dict[str, list[str]] = {}
    for entry in entries:
        if entry.opinion:
            told.setdefault(_second(entry.opinion), []).append(str(entry.number))
    if not told:
        return table
    words = (
        "client = what the client library of users makes of the same bytes: whole (an answer), error (an API error), "
    )
    words += (
        "crash (another exception), silent (neither answer nor exception); outcome = by our rules and by the client"
    )
    said = [f"{opinion} (request {', '.join(numbers)})" for opinion, numbers in told.items()]
    return "\n".join([f"{table}{words}", "", *said, ""])


def metrics_table(folder: Path, *, unchanged: bool = True) -> str:
    """Every series of every node that changed, before and after. No histograms.

    Args:
        folder: of the scenario.
        unchanged: tell also what stayed as it was.
    """
    parts = []
    for file in sorted((folder / "metrics" / "after").glob("*.txt")):
        before, after = _lines(folder / "metrics" / "before" / file.name), _lines(file)
        # Parsing is what costs, so only lines that differ are parsed.
        was = _series([line for line in before if line not in after])
        now = _series([line for line in after if line not in before])
        rows = [("before", "after", "series")]
        rows += [(_number(was.get(name)), _number(value), name) for name, value in now.items() if value]
        part = [file.stem, _columns(rows)]
        if unchanged:
            same = [line for line in after if line in before and not line.endswith((" 0", " 0.0"))]
            part += ["", "as before:", *same]
        parts.append("\n".join(part))
    return "\n\n\n".join(parts)


def _warnings(folder: Path) -> list[str]:
    notes = (event.text for event in read_events(folder / "events.jsonl") if event.kind == "note")
    return [text.capitalize() for text in notes if text.startswith("warning: ")]


def _faults(folder: Path, entries: list[LedgerEntry]) -> list[str]:
    events = read_events(folder / "events.jsonl")
    zero = min((entry.sent_at for entry in entries if entry.sent_at is not None), default=None)
    told = []
    for event in events:
        if event.kind in ("fault", "proof"):
            since = "" if zero is None else f" ({event.at - zero:+.2f} s from the first request)"
            told.append(f"{event.kind}: {event.text}{since}")
    if len(told) > SHOWN_FAULTS:
        told[SHOWN_FAULTS:] = [f"and {len(told) - SHOWN_FAULTS} more"]
    return told or ["nothing: no fault was injected"]


def _felt(entries: list[LedgerEntry]) -> list[str]:
    if not entries:
        return ["nothing: no request was sent"]
    ends = [outcome(entry) for entry in entries]
    counts = Counter(end.kind for end in ends)
    kinds = ", ".join(f"{number} {kind}" for kind, number in counts.most_common())
    told = [f"{amount(len(entries), 'request')}: {kinds}"]
    if len(entries) <= SHOWN_REQUESTS:
        told = []
    for entry, end in zip(entries, ends, strict=True):
        if len(entries) <= SHOWN_REQUESTS or end.kind == "broken":
            why = f" ({shorten(end.why)})" if end.why else ""
            client = f"; {_second(entry.opinion)}" if entry.opinion else ""
            seen = f"{end.kind}, {len(entry.tokens)} of {amount(entry.max_tokens, 'token')}{why}{client}"
            told.append(f"request {entry.number}: {seen}")
    told = told[: SHOWN_REQUESTS + 1]
    if pause := max(entry.longest_pause for entry in entries):
        told.append(f"longest pause between two tokens: {pause:.2f} s")
    return told


def _second(opinion: Opinion) -> str:
    """The client's opinion, with its version."""
    return f"{opinion.client} says {opinion.kind}: {shorten(opinion.says)}"


def _phases(folder: Path) -> list[str]:
    """A load, phase by phase, and how long it took to come back."""
    if not find_loads(folder):
        return []
    results = process_overflow_recovery_test(folder)
    told = []
    for name, phase in results["phases"].items():
        rate = "nothing to succeed" if phase["success_rate"] is None else f"{phase['success_rate']:.2f} % succeeded"
        times = {"time to first token": phase["p99_ttft_ms"], "latency": phase["p99_latency_ms"]}
        shown = [f"p99 {what} {_spell(value)}" for what, value in times.items() if value is not None]
        if not results["latency_valid"]:
            shown = ["times are void, the clients lagged"]
        told.append(", ".join([f"{name}: {amount(phase['planned'], 'request')}", rate, *shown]))
    back = results["recovery"]
    if "RECOVERY" in results["phases"]:
        told.append(Band(**back["band"]).describe() if back["band"] else f"no band: {back['no_band']}")
        stable, relapses = back["to_stable_seconds"], back["relapses"]
        after = "never" if stable == NEVER else f"{stable:g} s after the failure was over"
        again = f", then out of it in {amount(relapses, 'window')}" if relapses else ""
        told.append(f"in that band again: {after}{again}")
    return told


def _spell(milliseconds: float) -> str:
    return "never" if milliseconds == NEVER else f"{milliseconds:.0f} ms"


def _lines(file: Path) -> dict[str, None]:
    """The samples of a scrape, a line each, in order and quick to look up; no comments, no buckets of histograms."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return dict.fromkeys(line for line in text.splitlines() if line and line[0] != "#" and "_bucket{" not in line)


def _series(lines: list[str]) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def _picture(file: Path) -> str:
    if not file.exists():
        return ""
    # Not in base64: percent signs compress as well as the picture itself.
    picture = quote(file.read_text(encoding="utf-8"), safe=" =:/.,;()'-")
    return f'<p><img alt="timeline" src="data:image/svg+xml,{picture}"/></p>'


def _bullets(lines: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
