"""Which workers have had a request: by the ruler's journals and by the logs of all of them, which name it by its id."""

import re
from collections.abc import Sequence
from pathlib import Path

from support.contract.deployment import Node
from support.judge.rules.lookup import is_answer_to
from support.observe import journal
from support.observe.logs import poll_for_pattern
from support.requests.ledger import LedgerEntry

ID_HEADER = "x-request-id"
"""By which a client names its request; else Dynamo does, and the answer's id ends with it."""


def given_to(entry: LedgerEntry, workers: Sequence[Node], logs: Path) -> list[str]:
    """Names of the workers that were given a request, whatever they have made of it; none where nobody names it."""
    noted = {note["worker"] for note in journal.read(logs) if is_answer_to(entry, note["request_id"])}
    return [node.name for node in workers if node.name in noted or _logged(entry, logs / f"{node.name}.log")]


def all_given(entries: Sequence[LedgerEntry], workers: Sequence[Node], logs: Path) -> list[list[str]]:
    """The same of each of many requests, for which every file is read once."""
    noted = {(note["worker"], note["request_id"]) for note in journal.read(logs)}
    texts = {node.name: _text(logs / f"{node.name}.log") for node in workers}

    def had(entry: LedgerEntry) -> list[str]:
        number = name_of(entry)
        return [worker for worker, text in texts.items() if number and ((worker, number) in noted or number in text)]

    return [had(entry) for entry in entries]


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def written_by(entry: LedgerEntry, logs: Path) -> set[str]:
    """Names of the workers of the ruler engine that have written tokens of the answer, as far as they know how many."""
    notes = [note for note in journal.read(logs) if is_answer_to(entry, note["request_id"])]
    return {note["worker"] for note in notes if note["produced"]}


def name_of(entry: LedgerEntry) -> str:
    """What workers call a request; empty where it was given no name, and has no answer yet that tells it."""
    sent = {name.lower(): value for name, value in entry.headers_sent.items()}
    return sent.get(ID_HEADER) or (entry.completion_id or "").partition("-")[2]


def _logged(entry: LedgerEntry, log: Path) -> bool:
    number = name_of(entry)
    return bool(number) and poll_for_pattern(log, re.escape(number), 0) is not None
