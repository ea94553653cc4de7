"""A scenario told from what lies in its folder: what broke, what its users felt, what the verdict rests on."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from prometheus_client.parser import text_string_to_metric_families

from support.amounts import amount
from support.judge.defects import KnownDefect
from support.judge.figures import WINDOW_SECONDS
from support.judge.recovery import Band
from support.judge.samples import NEVER
from support.judge.verdict import Verdict
from support.observe.logs import last_trouble
from support.report import wording
from support.report.felt import read_felt
from support.report.moments import Happenings, Strike, read_happenings
from support.report.results import process_overflow_recovery_test
from support.report.self_tests import Trial
from support.requests.ledger import LedgerEntry, Opinion, read_ledger
from support.requests.load_log import find_loads
from support.requests.outcomes import Outcome, outcome, shorten

MARKS = ("fault", "proof")
"""Kinds of events that are evidence of what was broken."""
SHOWN_REQUESTS = 8
"""Up to this many requests are told one by one; of more only the sums and the broken ones."""
SHOWN_FAULTS = 12
"""Faults that are told."""
LOG_LINES = 12
"""Lines of logs that are told beside what the verdict rests on."""
TABLE_ROWS = 300
"""Requests in the table; of more, those without a whole answer come first into it."""


def story(folder: Path, verdict: Verdict, records: Sequence[KnownDefect] = ()) -> str:
    """HTML that a stakeholder reads: is it Dynamo or us, what broke, what did users feel, and the picture of it.

    Args:
        folder: of the scenario, with its picture if there is one.
        records: of the known defects.
    """
    entries = read_ledger(folder / "ledger.jsonl")
    happened = read_happenings(folder)
    category = wording.category(verdict)
    named = [each for each in records if each.id in verdict.known_defects]
    return "".join(
        [
            f"<p><b>{wording.JUDGEMENTS[category]}</b></p>{_bullets(_seen(folder, verdict))}",
            *(f"<p>Known as <b>{escape(each.id)}</b>: {escape(each.evidence)}</p>" for each in named),
            *(f"<p>{escape(words)}</p>" for words in _warnings(happened)),
            f"<p><b>Left running</b></p>{_bullets(verdict.kept)}" if verdict.kept else "",
            f"<p><b>What we broke on purpose</b></p>{_bullets(_broke(happened, _zero(entries, happened)))}",
            f"<p><b>What users felt</b></p>{_bullets(_felt(folder, entries, happened))}",
            _picture(folder / "timeline.svg"),
        ]
    )


def waited(folder: Path, verdict: Verdict) -> str:
    """For how long a sentence that did not hold was waited for, and from when on; empty where it was no matter of time.

    Args:
        folder: of the scenario.
    """
    given = [(each.since, each.until) for each in verdict.findings if each.since is not None and each.until is not None]
    if not given:
        return ""
    since, until = given[0]
    happened = read_happenings(folder)
    zero = _zero(read_ledger(folder / "ledger.jsonl"), happened)
    begin = [] if zero is None else [_after(since - zero)]
    begin += [f"{since - each.begin:.2f} s after the fault" for each in happened.strikes if each.begin <= since][-1:]
    return f"{until - since:.2f} s" + (f", from {' and '.join(begin)}" if begin else "")


def evidence(
    folder: Path, verdict: Verdict, trials: Sequence[Trial] = (), settings: Mapping[str, str] = MappingProxyType({})
) -> str:
    """What the verdict rests on, as text: findings, each fault with its proofs, what the invariants looked at, the last
    trouble in the logs, whether the scenario can fail at all, by the ``trials`` of it that are known, and how to run it
    again, by the ``settings`` that it ran with.
    """
    happened = read_happenings(folder)
    zero = _zero(read_ledger(folder / "ledger.jsonl"), happened)
    seen = [event for event in happened.events if event.kind in MARKS]
    told = [f"{_since(event.at, zero):>10}  {event.kind}: {event.text}" for event in seen]
    own = [each for each in trials if (each.feature, each.scenario) == (verdict.feature, verdict.name)]
    parts = {
        "Verdict": f"{wording.MARKS[verdict.verdict]} {verdict.reason}".rstrip(),
        "Findings": wording.listing(verdict.findings),
        "Waited": waited(folder, verdict),
        "Faults and proofs (seconds since the first request)": "\n".join(told),
        "Invariants": _worth(verdict),
        "Last trouble in the logs": "\n".join(last_trouble(folder / "logs", LOG_LINES)),
        "With something broken on purpose": _trials(own),
        "Run it again": wording.again(verdict.location, settings),
        "Everything in full, logs and ledger too": f"{'/'.join(folder.parts[-5:])}/",
    }
    return "\n\n".join(f"{name}\n{content}" for name, content in parts.items() if content) + "\n"


def _worth(verdict: Verdict) -> str:
    """How many invariants had evidence, how many things each looked at, which were not judged and why, and how busy the
    machine was.
    """
    if not verdict.evidence:
        return ""
    lines = [wording.invariants(verdict), *(f"{rule}: {count}" for rule, count in verdict.evidence.items())]
    lines += [f"{rule} was not judged: {why}" for rule, why in verdict.not_judged.items()]
    return "\n".join([*lines, f"the suite ran {verdict.slowness:g} times slower than alone"])


def _trials(trials: Sequence[Trial]) -> str:
    """What became of the scenario with something broken on purpose."""
    named = [(each, each.sabotage or "a defect of Dynamo itself") for each in trials]
    return "\n".join(f"{each.at[:10]}  {name}: {each.outcome}" for each, name in named)


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


def _seen(folder: Path, verdict: Verdict) -> list[str]:
    """What was expected, what was seen and how long it was waited for, or why it did not run, a line each; nothing for
    a plain pass.
    """
    if verdict.verdict == "skipped" or wording.lead(verdict) is None:
        return [_sentence(verdict.reason)] if verdict.reason else []
    expected, seen = wording.promised(verdict)
    others = len(verdict.findings) - 1
    told = [*([f"Expected: {expected}."] if expected else []), f"Seen: {seen}"]
    told += [f"And {amount(others, 'more finding')}."] if others else []
    return [*told, *(f"Waited: {time}." for time in [waited(folder, verdict)] if time)]


def _warnings(happened: Happenings) -> list[str]:
    notes = (event.text for event in happened.events if event.kind == "note")
    return [text.capitalize() for text in notes if text.startswith("warning: ")]


def _zero(entries: Sequence[LedgerEntry], happened: Happenings) -> float | None:
    """When the first request was sent, or the first phase of a load began; None where there was neither."""
    sent = [entry.sent_at for entry in entries if entry.sent_at is not None]
    return min([*sent, *(at for _, at in happened.phases)], default=None)


def _since(at: float, zero: float | None) -> str:
    return "" if zero is None else f"{at - zero:+.2f} s"


def _broke(happened: Happenings, zero: float | None) -> list[str]:
    """A sentence for each strike: what, when, proven or not, and for how long."""
    told = [_struck(each, zero) for each in happened.strikes]
    if len(told) > SHOWN_FAULTS:
        told[SHOWN_FAULTS:] = [f"And {len(told) - SHOWN_FAULTS} more."]
    told += [f"{each.words} at {_since(each.at, zero)}." for each in happened.moments() if each.about == "left"]
    return [_sentence(each) for each in told] or ["Nothing: nothing was broken on purpose."]


def _struck(strike: Strike, zero: float | None) -> str:
    when = "" if zero is None else f", {_after(strike.begin - zero)}"
    if not strike.ordered:
        return f"{strike.words}{when}."
    proven = "proven on its victim" if strike.proven is not None else "never proven"
    if strike.end is None:
        return f"{strike.words}{when}; {proven}; it lasted to the end."
    return f"{strike.words}{when}; {proven}; it lasted {strike.end - strike.begin:.2f} s."


def _after(seconds: float) -> str:
    if seconds < 0:
        return f"{-seconds:.2f} s before the first request"
    return f"{seconds:.2f} s after the first request"


def _felt(folder: Path, entries: Sequence[LedgerEntry], happened: Happenings) -> list[str]:
    """What users felt: all of them, then each request where they are few, then a load by its phases."""
    users, loads = read_felt(folder), _loads(folder, happened)
    if not entries:
        return loads or [f"{_sentence(users.sentence)}." if users.asked else "Nothing: no request was sent."]
    ends = [outcome(entry) for entry in entries]
    told = (
        [f"{amount(len(entries), 'request')}: {wording.outcomes(end.kind for end in ends)}."]
        if len(entries) > 1
        else []
    )
    told += [f"{users.sentence}."] if users.lost and users.asked > 1 else []
    for entry, end in zip(entries, ends, strict=True):
        if len(entries) <= SHOWN_REQUESTS or end.kind == "broken":
            told.append(_answered(entry, end))
    told = told[: SHOWN_REQUESTS + 2]
    sent = [(entry, entry.sent_at) for entry in entries if entry.sent_at is not None and entry.token_times]
    firsts = {entry.number: entry.token_times[0] - at for entry, at in sent}
    pauses = {entry.number: seconds for entry in entries if (seconds := entry.longest_pause)}
    for what, waits in {"its first token": firsts, "the next token": pauses}.items():
        if waits:
            slowest = max(waits, key=waits.__getitem__)
            told.append(f"The longest wait for {what} was {waits[slowest]:.2f} s, in request {slowest}.")
    if happened.migrations:
        moved = amount(happened.migrations, "request")
        told.append(f"The frontend moved {moved} in flight to another worker.")
    return told + loads


def _answered(entry: LedgerEntry, end: Outcome) -> str:
    """What the user who sent a request got."""
    took = "" if entry.ended_at is None or entry.sent_at is None else f" after {entry.ended_at - entry.sent_at:.2f} s"
    tokens = f"{len(entry.tokens)} of {amount(entry.max_tokens, 'token')}"
    said = f": {shorten(end.why)}" if end.why else ""
    return {
        "complete": f"Request {entry.number} has its whole answer{took}, {tokens}.",
        "error": f"Request {entry.number} ended in an error{took}, with {tokens}{said}.",
        "cancelled": f"Request {entry.number} was given up by its client, as planned, with {tokens}.",
        "broken": f"Request {entry.number} is broken, with {tokens}{said}.",
    }[end.kind]


def _second(opinion: Opinion) -> str:
    """The client's opinion, with its version."""
    return f"{opinion.client} says {opinion.kind}: {shorten(opinion.says)}"


def _loads(folder: Path, happened: Happenings) -> list[str]:
    """A load, phase by phase, and how long it took to come back."""
    if not find_loads(folder):
        return []
    results = process_overflow_recovery_test(folder)
    told = []
    for name, phase in results["phases"].items():
        judged = phase["planned"] - phase["cancelled"] - phase["withdrawn"]
        times = {"first token": phase["p99_ttft_ms"], "whole answer": phase["p99_latency_ms"]}
        shown = [
            f"99 of 100 had their {what} within {milliseconds:.0f} ms"
            for what, milliseconds in times.items()
            if milliseconds not in (None, NEVER)
        ]
        if not results["latency_valid"]:
            shown = ["times are void, the clients lagged"]
        rate = f"{phase['succeeded']} of {amount(judged, 'request')} got a whole answer" if judged else "none was due"
        told.append(f"{_sentence(happened.when(name))} ({name}): {', '.join([rate, *shown])}.")
    back = results["recovery"]
    if "RECOVERY" not in results["phases"]:
        return told
    if back["band"] is None:
        return [*told, f"Whether users were served as before again is not known: {back['no_band']}."]
    told.append(f"Users were served as before {_again(back['to_stable_seconds'], back['relapses'])}.")
    return [*told, f"As before means: {_as_before(Band(**back['band']))}."]


def _again(stable: float, relapses: int) -> str:
    """When users were served as before, and for how long not again after that."""
    if stable == NEVER:
        return "never again"
    after = f"again {stable:g} s after the end of it" if stable else "again as soon as it was over"
    return f"{after}, then not for {relapses * WINDOW_SECONDS:g} s" if relapses else after


def _as_before(band: Band) -> str:
    within = f"half had their first token within {band.p50_ms:.0f} ms, 99 of 100 within {band.p99_ms:.0f} ms"
    return f"{within} (measured on the {amount(band.requests, 'request')} that were over before anything broke)"


def _sentence(words: str) -> str:
    """With a capital, unless it begins with the name of a node."""
    return words if "-" in words.partition(" ")[0] else words[:1].upper() + words[1:]


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
    drawn = file.read_text(encoding="utf-8")
    found = re.search(r'height="([0-9.]+)"', drawn)
    height = found[1] if found else "0"
    # Not in base64: percent signs compress as well as the picture itself.
    picture, style = quote(drawn, safe=" =:/.,;()'-"), f"width:100%;max-width:900px;height:{height}px"
    return f'<p><img alt="what happened over time" style="{style}" src="data:image/svg+xml,{picture}"/></p>'


def _bullets(lines: list[str]) -> str:
    """Lines as a list, with our names of phases in small letters."""
    items = (re.sub(r" \((?:STANDARD|OVERFLOW|RECOVERY)\):", r"<small>\g<0></small>", escape(line)) for line in lines)
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>" if lines else ""


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
