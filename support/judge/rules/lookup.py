"""Finding in a history what a rule speaks of."""

from collections.abc import Iterator
from typing import Any

from support.events import Event
from support.judge.history import History
from support.requests.ledger import LedgerEntry


def etcd_records(history: History, kind: str) -> Iterator[dict[str, Any]]:
    """What was seen of etcd: its ``status``, each ``lease`` that was lost, each comparison of ``hash``."""
    return (record for record in history.etcd if record["kind"] == kind)


def role_of(history: History, node: str) -> str:
    """The role of a node; empty where the topology does not have it."""
    return next((each.get("role", "") for each in history.topology.get("nodes", []) if each["name"] == node), "")


def told_to_leave(event: Event) -> bool:
    """Whether a process was told to end (SIGTERM), by whichever fault."""
    return event.state == "leaving" and "seconds" not in event.data


def attempts_of(history: History) -> dict[str, list[dict[str, Any]]]:
    """Request id -> what each worker was given of it, in the order of time; several notes on one attempt count once."""
    found: dict[str, dict[tuple[object, ...], dict[str, Any]]] = {}
    for note in sorted(history.worker_journal, key=lambda note: float(note["at"])):
        attempts = found.setdefault(note["request_id"], {})
        attempts.setdefault((note["worker"], note["start"], note["max_tokens"]), note)
    return {request_id: list(attempts.values()) for request_id, attempts in found.items()}


def about_request(entry: LedgerEntry, index: int = 0) -> str:
    """What a finding is about: a request, and which of its choices where there are several."""
    return f"request {entry.number}" + (f" choice {index}" if entry.n > 1 else "")


def about_request_id(history: History, request_id: str) -> str:
    """The same for a request that workers know by ``request_id``, whether or not it is one of ours."""
    entry = entry_of(history, request_id)
    return about_request(entry) if entry else f"request id {request_id}"


def entry_of(history: History, request_id: str) -> LedgerEntry | None:
    """The request that the workers know by this id: it is the end of the answer's id, or was sent as a header."""
    return next((entry for entry in history.entries if is_answer_to(entry, request_id)), None)


def is_answer_to(entry: LedgerEntry, request_id: str) -> bool:
    """Whether the workers know this request by ``request_id``."""
    return (entry.completion_id or "").endswith(request_id) or request_id in entry.headers_sent.values()
