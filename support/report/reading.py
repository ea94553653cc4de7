"""Reading what a run has left in its folder, finished or broken off, now or years later."""

import json
from array import array
from collections.abc import Sequence
from pathlib import Path

from support.contract.target import Wait
from support.events import read_events
from support.judge.history import WAITS
from support.judge.samples import LoadHistory, Sample
from support.judge.verdict import Finding, Verdict
from support.requests.ledger import LedgerEntry
from support.requests.load_log import LoadLog, Record, find_loads, read_load, read_phases
from support.requests.outcomes import outcome


def read_load_history(log_dir: str | Path) -> LoadHistory:
    """The loads below ``log_dir`` with the phases and events that lie there.

    Raises:
        ValueError: there is no load in it.
    """
    folder = Path(log_dir)
    loads = [read_load(each) for each in find_loads(folder)]
    if not loads:
        raise ValueError(f"log_dir {folder} holds no load; expected what client() or run_load() has written there")
    phases = read_phases(folder)
    samples = [_sample(load, record, phases) for load in loads for record in load.records]
    return LoadHistory(folder, loads, phases, read_events(folder / "events.jsonl"), samples, read_waits(folder / WAITS))


def _sample(load: LoadLog, record: Record, phases: Sequence[tuple[str, float]]) -> Sample:
    attempts = record.attempts
    intended_at = attempts[0].intended_at if attempts else load.due(record)
    marks = [phase for phase, at in phases if at <= intended_at]
    last = attempts[-1] if attempts else None
    return Sample(
        phase=load.plan.phase or (marks[-1] if marks else phases[0][0] if phases else ""),
        load=load.folder.name,
        intended_at=intended_at,
        ended_at=last.ended_at if last else None,
        kind=_kind(record, last),
        status=last.status_code if last else None,
        attempts=len(attempts),
        stream=load.plan.stream,
        asked=record.planned.max_tokens,
        token_times=array("d", last.token_times if last else []),
        send_lag=last.sent_at - last.intended_at if last and last.sent_at is not None else None,
        loop_lag=last.lag_seconds if last else 0.0,
    )


def _kind(record: Record, last: LedgerEntry | None) -> str:
    if record.withdrawn:
        return "withdrawn"
    if not record.closed or last is None:
        return "missing"
    kind = outcome(last).kind
    # Who is slow must not gain by it that a request can still be given up before its end.
    if kind == "complete" and record.planned.cancel_after is not None:
        return "cancelled"
    return kind


def read_waits(path: Path) -> list[Wait]:
    """The waits of an earlier run, oldest first; a file that is not there holds none, and a last line that a kill has
    cut short is left out.
    """
    if not path.exists():
        return []
    return [Wait(**json.loads(line)) for line in path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()]


def read_verdict(path: Path) -> Verdict:
    """The verdict written by an earlier run.

    Raises:
        OSError, ValueError, TypeError: there is no such file, or it holds no verdict.
    """
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["findings"] = [Finding(**finding) for finding in fields["findings"]]
    return Verdict(**fields)
