"""Rules on what Dynamo does behind an answer: what it moves, counts, and how its processes end."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from support.judge.history import History
from support.judge.rules.lookup import about_request, about_request_id, attempts_of, entry_of
from support.judge.verdict import Finding

CANCEL_BOUND = 0.25
"""Seconds that a cancel may take to get through; a migration that had begun before it may arrive until then."""
DYNAMO_ROLES = ("frontend", "worker", "decode", "prefill")
"""Roles of the nodes that run Dynamo itself; etcd, for one, ends by the signal that it is told to shut down with."""


def replay(history: History) -> Iterator[Finding]:
    """A worker that takes a request over is given prompt + delivered tokens, and a budget of what was left."""
    for request_id, attempts in attempts_of(history).items():
        about = about_request_id(history, request_id)
        first = attempts[0]
        end = first["start"] + first["max_tokens"]
        for before, after in pairwise(attempts):
            given, budget = after["start"], after["max_tokens"]
            if given + budget != end:
                message = f"{after['worker']} was given {given} tokens and a budget of {budget}: together not {end}"
                yield Finding("replay", about, message)
            if given < before["start"]:
                message = f"{after['worker']} was given {given} tokens, fewer than the {before['start']} before it"
                yield Finding("replay", about, message)


def migration_limit(history: History) -> Iterator[Finding]:
    """A request is seen by at most migration limit + 1 workers."""
    if history.migration_limit is None:
        return
    for request_id, attempts in attempts_of(history).items():
        if len(attempts) > history.migration_limit + 1:
            workers = ", ".join(attempt["worker"] for attempt in attempts)
            message = (
                f"was given to {len(attempts)} workers ({workers}) with a migration limit of {history.migration_limit}"
            )
            yield Finding("migration-limit", about_request_id(history, request_id), message)


def cancel_stays(history: History) -> Iterator[Finding]:
    """A cancelled request is not taken for one that lost its worker: no further worker is given it."""
    for request_id, attempts in attempts_of(history).items():
        entry = entry_of(history, request_id)
        if entry is None or entry.cancelled_at is None:
            continue
        for attempt in attempts[1:]:
            late = attempt["at"] - entry.cancelled_at
            if late > CANCEL_BOUND:
                message = f"{attempt['worker']} was given it {late:.2f} s after it had been cancelled"
                yield Finding("cancel-stays", about_request(entry), message)


def gauges(history: History) -> Iterator[Finding]:
    """When all requests are over, nobody counts one as in flight or queued."""
    for key in ("frontend_inflight", "frontend_queued", "worker_inflight"):
        name = history.metric_names.get(key)
        for node, metrics in history.metrics_after.items() if name else ():
            value = metrics.value(name or "")
            if value:
                yield Finding("gauges", node, f"{name} is {value:g} after the last request ended; expected 0")


def counters(history: History) -> Iterator[Finding]:
    """The frontends counted the requests that reached them, no more and no fewer.

    A request that was given up before the answer's headers may or may not have been counted, and so may a refusal.
    Not judged where a frontend's metrics are missing or it was restarted, hence counts from 0.
    """
    name = history.metric_names.get("frontend_requests")
    nodes = [node for node in history.topology.get("nodes", []) if node.get("role") == "frontend"]
    frontends = [node["name"] for node in nodes]
    if any(node.get("restarts") for node in nodes):
        return
    if not name or not frontends or any(node not in history.metrics_after for node in frontends):
        return
    counted = 0.0
    for node in frontends:
        before = history.metrics_before[node].value(name) if node in history.metrics_before else None
        grown = (history.metrics_after[node].value(name) or 0.0) - (before or 0.0)
        if grown < 0:
            return
        counted += grown
    least = sum(entry.status_code is not None and entry.status_code < 300 for entry in history.entries)
    most = sum(entry.connected_at is not None or entry.status_code is not None for entry in history.entries)
    if not least <= counted <= most:
        expected = str(most) if least == most else f"{least} to {most}"
        message = f"{name} rose by {counted:g} while {expected} requests reached the frontend"
        yield Finding("counters", ", ".join(frontends), message)


def shutdown(history: History) -> Iterator[Finding]:
    """A process of Dynamo that is told to shut down (SIGTERM) ends with exit status 0: it neither fails at that, nor
    dies by the signal, which finishes nothing, nor stays when there is nothing left to finish.

    One that is killed afterwards, by another fault or by what undoes this one, is not judged, and neither is one whose
    end nobody saw.
    """
    nodes = [node["name"] for node in history.topology.get("nodes", []) if node.get("role") in DYNAMO_ROLES]
    for name in nodes:
        told_at: float | None = None
        for event in (each for each in history.events if each.subject == name):
            if event.kind == "fault":
                told_at = event.at if event.text == f"terminate {name}" else None
            elif event.kind == "state" and event.text.startswith(("stopped", "dead")):
                how = event.text.partition(": ")[2]
                if told_at is not None and how not in ("exited with status 0", "ended"):
                    message = f"told to shut down, it {how} after {event.at - told_at:.1f} s; expected exit status 0"
                    yield Finding("shutdown", name, message)
                told_at = None
            elif event.kind == "state" and event.text.startswith("leaving: still") and told_at is not None:
                message = f"told to shut down, it is {event.text.removeprefix('leaving: ')}"
                yield Finding("shutdown", name, message)


def panics(history: History) -> Iterator[Finding]:
    """No process of Dynamo panics."""
    for node, messages in history.panics.items():
        for message, times in Counter(messages).items():
            yield Finding("panics", node, message + (f" ({times} times)" if times > 1 else ""))
