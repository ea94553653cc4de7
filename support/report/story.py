"""A scenario told from what lies in its folder: what broke, what its users felt, what the metrics did."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from support.events import read_events
from support.judge.outcomes import outcome, shorten
from support.judge.verdict import Verdict
from support.report import wording
from support.requests.ledger import LedgerEntry, read_ledger

SHOWN_REQUESTS = 8
"""Up to so many requests are told one by one; of more only the sums."""


def story(folder: Path, verdict: Verdict) -> str:
    """Markdown of a few lines that answers: what broke, what did users feel, is it Dynamo or us."""
    entries = read_ledger(folder / "ledger.jsonl")
    return "\n\n".join(
        [
            f"**Verdict: {wording.CATEGORIES[wording.category(verdict)]}.** {_plain(verdict.reason)}".rstrip(),
            "**What broke**\n\n" + _bullets(_faults(folder, entries)),
            "**What users felt**\n\n" + _bullets(_felt(entries)),
        ]
    )


def requests_table(folder: Path) -> str:
    """One line per request of the ledger, as text; empty when no request was sent."""
    entries = read_ledger(folder / "ledger.jsonl")
    if not entries:
        return ""
    zero = min((entry.sent_at for entry in entries if entry.sent_at is not None), default=0.0)
    rows = [("no", "api", "sent", "status", "tokens", "first", "pause", "ended", "outcome")]
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
                f"{end.kind} {shorten(end.why, 120)}".rstrip(),
            )
        )
    legend = (
        "seconds: sent and ended since the first request, first = to the first token, pause = longest between tokens"
    )
    return _columns(rows) + f"\n{legend}\n"


def metrics_table(folder: Path) -> str:
    """Every series of every node that changed, before and after; then those that stayed as they were. No histograms."""
    parts = []
    for file in sorted((folder / "metrics" / "after").glob("*.txt")):
        before, after = _series(folder / "metrics" / "before" / file.name), _series(file)
        changed = [name for name in after if after[name] != before.get(name, 0.0)]
        same = [name for name in after if name not in changed and after[name]]
        rows = [
            ("before", "after", "series"),
            *((_number(before.get(name)), _number(after[name]), name) for name in changed),
        ]
        rows += [(_number(after[name]), "same", name) for name in same]
        parts.append(f"{file.stem}\n{_columns(rows)}")
    return "\n\n".join(parts)


def _faults(folder: Path, entries: list[LedgerEntry]) -> list[str]:
    events = read_events(folder / "events.jsonl")
    zero = min((entry.sent_at for entry in entries if entry.sent_at is not None), default=None)
    told = []
    for event in events:
        if event.kind in ("fault", "proof"):
            since = "" if zero is None else f" ({event.at - zero:+.2f} s from the first request)"
            told.append(f"{event.kind}: {_plain(event.text)}{since}")
    told += [f"our own cancel of request {entry.number}" for entry in entries if entry.cancelled_at][:SHOWN_REQUESTS]
    return told or ["nothing: no fault was injected"]


def _felt(entries: list[LedgerEntry]) -> list[str]:
    if not entries:
        return ["nothing: no request was sent"]
    ends = [outcome(entry) for entry in entries]
    counts = Counter(end.kind for end in ends)
    told = [f"{len(entries)} requests: " + ", ".join(f"{number} {kind}" for kind, number in counts.most_common())]
    if len(entries) <= SHOWN_REQUESTS:
        told = []
    for entry, end in zip(entries, ends, strict=True):
        if len(entries) <= SHOWN_REQUESTS or end.kind == "broken":
            why = f" ({_plain(shorten(end.why))})" if end.why else ""
            told.append(f"request {entry.number}: {end.kind}, {len(entry.tokens)} of {entry.max_tokens} tokens{why}")
    told = told[: SHOWN_REQUESTS + 1]
    pause = max(entry.longest_pause for entry in entries)
    return [*told, f"longest pause between two tokens: {pause:.2f} s"]


def _series(file: Path) -> dict[str, float]:
    if not file.exists():
        return {}
    found = {}
    for family in text_string_to_metric_families(file.read_text(encoding="utf-8")):
        for sample in family.samples:
            if not sample.name.endswith(("_bucket", "_created")):
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def _plain(text: str) -> str:
    """``text`` with what Markdown and HTML would take for their own made harmless."""
    return "".join(f"\\{char}" if char in r"\`*_[]<>#|" else char for char in text)


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
