"""What must hold after every scenario, asked for or not. Pure functions: a history in, findings out.

The rules are those of the field: every request reaches exactly one outcome, and what the system counts agrees with what
its users saw.
"""

from collections.abc import Callable, Iterator

from support.contract.deployment import Facts
from support.judge.history import History
from support.judge.rules.answers import (
    identity,
    one_outcome,
    order,
    passes_for_an_answer,
    positions,
    token_count,
    usage,
    well_formed,
)
from support.judge.rules.deployment import cancel_stays, counters, gauges, migration_limit, panics, replay, shutdown
from support.judge.rules.etcd import etcd_agreement, etcd_leader, etcd_lease, etcd_revision
from support.judge.rules.lookup import attempts_of, entry_of, etcd_records, told_to_leave
from support.judge.rules.suite import client_lag, gate, lapsed, leftovers, not_undone, records_lost
from support.judge.verdict import Finding
from support.requests.outcomes import outcome

RULES: dict[str, Callable[[History], Iterator[Finding]]] = {
    "one-outcome": one_outcome,
    "passes-for-an-answer": passes_for_an_answer,
    "token-count": token_count,
    "identity": identity,
    "order": order,
    "well-formed": well_formed,
    "positions": positions,
    "usage": usage,
    "replay": replay,
    "migration-limit": migration_limit,
    "cancel-stays": cancel_stays,
    "gauges": gauges,
    "counters": counters,
    "etcd-leader": etcd_leader,
    "etcd-revision": etcd_revision,
    "etcd-lease": etcd_lease,
    "etcd-agreement": etcd_agreement,
    "shutdown": shutdown,
    "panics": panics,
    "leftovers": leftovers,
    "gate": gate,
    "lapsed": lapsed,
    "not-undone": not_undone,
    "records-lost": records_lost,
    "client-lag": client_lag,
}


def _nodes(history: History, role: str) -> list[str]:
    return [node["name"] for node in history.topology.get("nodes", []) if node.get("role") == role]


def _migrated(history: History) -> int:
    return sum(len(attempts) > 1 for attempts in attempts_of(history).values())


def _holding(history: History) -> int:
    return sum(bool(note.get("holds")) for note in history.worker_journal)


EVIDENCE: dict[str, Callable[[History], int]] = {
    "one-outcome": lambda history: len(history.entries),
    "passes-for-an-answer": lambda history: sum(entry.opinion is not None for entry in history.entries),
    "token-count": lambda history: sum(any(chunk.tokens for chunk in entry.chunks) for entry in history.entries),
    "identity": lambda history: sum(entry.completion_id is not None for entry in history.entries),
    "order": lambda history: sum(entry.stream and bool(entry.chunks) for entry in history.entries),
    "well-formed": lambda history: sum(bool(entry.chunks) for entry in history.entries),
    "positions": lambda history: sum(bool(entry.positions) for entry in history.entries),
    "usage": lambda history: sum(outcome(entry).kind == "complete" for entry in history.entries),
    "replay": _migrated,
    "migration-limit": lambda history: 0 if history.migration_limit is None else len(attempts_of(history)),
    "cancel-stays": lambda history: sum(
        (entry := entry_of(history, each)) is not None and entry.cancelled_at is not None
        for each in attempts_of(history)
    ),
    "gauges": lambda history: len(history.metrics_after),
    "counters": lambda history: sum(name in history.metrics_after for name in _nodes(history, "frontend")),
    "etcd-leader": lambda history: sum(1 for _ in etcd_records(history, "status")),
    "etcd-revision": lambda history: sum(1 for _ in etcd_records(history, "status")),
    "etcd-lease": lambda history: sum(1 for _ in etcd_records(history, "lease")),
    "etcd-agreement": lambda history: sum(len(record["hashes"]) > 1 for record in etcd_records(history, "hash")),
    "shutdown": lambda history: sum(map(told_to_leave, history.events)),
    "panics": lambda history: len(history.panics),
    "leftovers": lambda history: len(history.topology.get("nodes", [])),
    "gate": _holding,
    "lapsed": lambda history: sum(event.kind == "fault" for event in history.events),
    "not-undone": lambda history: len(history.topology.get("nodes", [])),
    "records-lost": lambda history: len(history.events),
    "client-lag": lambda history: len(history.entries),
}
"""Rule -> how many things in a history it could have objected to; with none it holds and says nothing."""


FACTS: dict[str, tuple[str, ...]] = {
    "token-count": ("exact_tokens",),
    "positions": ("exact_tokens",),
    "usage": ("exact_tokens",),
    "replay": ("exact_tokens", "one_clock"),
    "gauges": ("only_user",),
    "counters": ("only_user",),
    "cancel-stays": ("one_clock",),
    "etcd-lease": ("one_clock",),
    "shutdown": ("one_clock",),
}
"""Rule -> the facts (:class:`support.contract.deployment.Facts`) without which it would judge what it cannot know."""
LACKS = {
    "exact_tokens": "tokens cannot be counted exactly there",
    "only_user": "other clients send requests too",
    "one_clock": "its clocks differ from ours",
}
"""Fact -> what it means that it does not hold, in words."""


def unjudged(facts: Facts) -> dict[str, str]:
    """Rule -> why it cannot be judged of a deployment of which no more than ``facts`` hold."""
    lacking = {rule: [LACKS[fact] for fact in needed if not getattr(facts, fact)] for rule, needed in FACTS.items()}
    return {rule: " and ".join(words) for rule, words in lacking.items() if words}


def left_out(history: History) -> dict[str, str]:
    """Rule -> why it is not judged: a fact of the deployment is missing, a tag of the scenario switches it off, or the
    wreck of the scenario goes on.
    """
    return unjudged(history.facts) | dict(history.not_judged)


def evidence(history: History) -> dict[str, int]:
    """Rule -> how many things it has looked at, of all rules that are to be judged."""
    without = left_out(history)
    return {name: count(history) for name, count in EVIDENCE.items() if name not in without}


def check(history: History) -> list[Finding]:
    """All findings of all rules that are to be judged, in the order of :data:`RULES`."""
    without = left_out(history)
    return [finding for name, rule in RULES.items() if name not in without for finding in rule(history)]
