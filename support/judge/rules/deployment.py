"""Rules on what Dynamo does behind an answer: what it moves, counts, and how its processes end."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from support.amounts import amount
from support.events import ENDED
from support.judge.history import History
from support.judge.rules.lookup import about_request, about_request_id, attempts_of, entry_of, role_of, told_to_leave
from support.judge.verdict import Finding
from support.seen import CounterSeen, GaugeSeen, Handed, PanicSeen, ProcessEnd, ProcessThere

CANCEL_BOUND = 0.25
"""Seconds that a cancel may take to get through; a migration that had begun before it may arrive until then."""
_PANIC = re.compile(r"panicked at (?P<file>[^\s:]+):(?P<line>\d+):\d+:(?P<says>.*)", re.DOTALL)
DYNAMO_ROLES = ("frontend", "worker", "decode", "prefill")
"""Roles of the nodes that run Dynamo itself; etcd, for one, ends by the signal that it is shut down with."""


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
                seen = Handed(request_id, after["worker"], "budget", len(attempts), None, message)
                yield Finding.of("replay", about, seen)
            if given < before["start"]:
                message = f"{after['worker']} was given {given} tokens, fewer than the {before['start']} before it"
                fewer = Handed(request_id, after["worker"], "fewer-tokens", len(attempts), None, message)
                yield Finding.of("replay", about, fewer)


def migration_limit(history: History) -> Iterator[Finding]:
    """A request is seen by at most migration limit + 1 workers."""
    if history.migration_limit is None:
        return
    for request_id, attempts in attempts_of(history).items():
        if len(attempts) > history.migration_limit + 1:
            workers = ", ".join(attempt["worker"] for attempt in attempts)
            given = f"was given to {amount(len(attempts), 'worker')} ({workers})"
            message = f"{given} with a migration limit of {history.migration_limit}"
            last = attempts[-1]["worker"]
            seen = Handed(request_id, last, "too-many-workers", len(attempts), None, message)
            yield Finding.of("migration-limit", about_request_id(history, request_id), seen)


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
                seen = Handed(request_id, attempt["worker"], "after-cancel", len(attempts), late, message)
                yield Finding.of("cancel-stays", about_request(entry), seen)


def gauges(history: History) -> Iterator[Finding]:
    """When all requests are over, nobody counts one as in flight or queued."""
    for key in ("frontend_inflight", "frontend_queued", "worker_inflight"):
        name = history.metric_names.get(key)
        for node, metrics in history.metrics_after.items() if name else ():
            value = metrics.value(name or "")
            if value:
                yield Finding.of("gauges", node, GaugeSeen(node, role_of(history, node), name or "", value))


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
        yield Finding.of("counters", ", ".join(frontends), CounterSeen(name, counted, least, most))


def shutdown(history: History) -> Iterator[Finding]:
    """A process of Dynamo that is shut down (SIGTERM) ends with exit status 0: it neither fails at that, nor
    dies by the signal, which finishes nothing, nor stays when there is nothing left to finish.

    One that is killed afterwards, by another fault or by what undoes this one, is not judged, and neither is one whose
    end nobody saw.
    """
    nodes = [node["name"] for node in history.topology.get("nodes", []) if node.get("role") in DYNAMO_ROLES]
    for name in nodes:
        told_at: float | None = None
        for event in (each for each in history.events if each.subject == name):
            if told_to_leave(event):
                told_at = event.at
            elif event.kind == "fault":
                told_at = None
            elif event.state in ENDED:
                code = event.data.get("exit_code")
                if told_at is not None and code:
                    end = ProcessEnd.of(name, role_of(history, name), code, event.at - told_at)
                    yield Finding.of("shutdown", name, end)
                told_at = None
            elif event.state == "leaving" and told_at is not None:
                there = ProcessThere(name, role_of(history, name), "alive", event.data["seconds"])
                words = f"it was shut down and is still there after {there.seconds:.1f} s with nothing in flight"
                yield Finding.of("shutdown", name, there, words=words)


def panics(history: History) -> Iterator[Finding]:
    """No process of Dynamo panics."""
    for node, messages in history.panics.items():
        for text, times in Counter(messages).items():
            file, line, says = _of_panic(text)
            yield Finding.of("panics", node, PanicSeen(node, role_of(history, node), file, line, says, times, text))


def _of_panic(text: str) -> tuple[str, int, str]:
    """File, line and message of a panic as Rust writes it: ``panicked at FILE:LINE:COLUMN: MESSAGE``; older compilers
    put the message first.
    """
    found = _PANIC.search(text)
    return (found["file"], int(found["line"]), found["says"].strip()) if found else ("", 0, text)
