"""Rules on the suite itself: a scenario that breaks one has proven nothing about Dynamo."""

from collections.abc import Iterator

from support.judge.history import History
from support.judge.rules.lookup import about_request, about_request_id
from support.judge.verdict import Finding
from support.seen import Handed, Told, TooSlow

LAG_BOUND = 0.5
"""Seconds that the client's own event loop may lag before its times mean nothing."""


def leftovers(history: History) -> Iterator[Finding]:
    """The machine is as it was before: that is the suite's own duty."""
    for line in history.leftovers:
        yield Finding.of("leftovers", "machine", Told(f"left behind: {line}"), blame="suite")


def gate(history: History) -> Iterator[Finding]:
    """No answer is held so long that the gate opens by itself: it would be late, or given up, by our own doing."""
    for note in history.worker_journal:
        if any(hold["expired"] for hold in note.get("holds", ())):
            message = f"{note['worker']} was told to hold the answer and never told to release it"
            seen = Handed(note["request_id"], note["worker"], "never-let-go", 1, None, message)
            yield Finding.of("gate", about_request_id(history, note["request_id"]), seen, blame="suite")


def lapsed(history: History) -> Iterator[Finding]:
    """A fault lasts as long as ordered: what was seen after its end was seen of a healthy system."""
    for line in history.lapsed:
        yield Finding.of("lapsed", "the end of the scenario", Told(line), blame="suite")


def not_undone(history: History) -> Iterator[Finding]:
    """The end of a scenario undoes what is left of its faults: that is the suite's own duty."""
    for line in history.not_undone:
        yield Finding.of("not-undone", "the end of the scenario", Told(line), blame="suite")


def records_lost(history: History) -> Iterator[Finding]:
    """What was seen has been kept: where it was not, what is left may look like a defect, or hide one."""
    for line in history.records_lost:
        yield Finding.of("records-lost", "the end of the scenario", Told(line), blame="suite")


def client_lag(history: History) -> Iterator[Finding]:
    """A client that lags is a ruler that bends: its times prove nothing."""
    for entry in history.entries:
        if entry.lag_seconds > LAG_BOUND:
            seen = TooSlow(entry.number, "client", entry.lag_seconds, LAG_BOUND, "the client itself lagged")
            yield Finding.of("client-lag", about_request(entry), seen, blame="suite")
