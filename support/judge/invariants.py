"""What must hold after every scenario, asked for or not. Pure functions: a history in, findings out.

The rules are those of the field: a token stream is an append-only log with unique values (Jepsen's words: lost,
duplicate, reordered, never-written), every request reaches exactly one outcome, and what the system counts agrees with
what its users saw.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from support.judge.history import History
from support.judge.outcomes import choices, describe, of_choice, outcome, shorten
from support.judge.verdict import Finding
from support.requests.ledger import Chunk, LedgerEntry

LAG_BOUND = 0.5
"""Seconds that the client's own event loop may lag before its times mean nothing."""

CANCEL_BOUND = 0.25
"""Seconds that a cancel may take to get through; a migration that had begun before it may arrive until then."""


def one_outcome(history: History) -> Iterator[Finding]:
    """Each request reaches exactly one of: a whole answer, a clean error, our own cancel."""
    for entry in history.entries:
        end = outcome(entry)
        if end.kind == "broken":
            yield Finding("one-outcome", _request(entry), f"{end.why} ({describe(entry)})")


def token_count(history: History) -> Iterator[Finding]:
    """An answer that ends by length has exactly max_tokens tokens in each choice, and no answer has more."""
    for entry in history.entries:
        for index in choices(entry):
            chunks = of_choice(entry.chunks, index)
            count = sum(len(chunk.tokens) for chunk in chunks)
            by_length = any(chunk.finish_reason == "length" for chunk in chunks)
            if count > entry.max_tokens or (by_length and count != entry.max_tokens):
                end = "by length " if by_length else ""
                message = f"ended {end}with {count} tokens; {entry.max_tokens} were asked for"
                yield Finding("token-count", _request(entry, index), message)


def identity(history: History) -> Iterator[Finding]:
    """``id``, ``created`` and ``model`` stay the same from the first chunk to the last."""
    for entry in history.entries:
        for name, attribute in (("id", "completion_id"), ("created", "created"), ("model", "model")):
            seen = list(dict.fromkeys(value for c in entry.chunks if (value := getattr(c, attribute)) is not None))
            if len(seen) > 1:
                yield Finding("identity", _request(entry), f"{name} changed from {seen[0]} to {seen[1]} in one answer")


def order(history: History) -> Iterator[Finding]:
    """Nothing of a choice comes after its finish_reason, only usage after the last one, and nothing after [DONE]."""
    for entry in history.entries:
        if not entry.stream:
            continue
        finished: set[int] = set()
        done = False
        for chunk in entry.chunks:
            index = chunk.index or 0
            if done:
                yield Finding("order", _request(entry), f"{_what(chunk)} came after [DONE]")
                break
            if index in finished and (chunk.tokens or chunk.kind in ("token", "role", "finish", "other")):
                yield Finding("order", _request(entry, index), f"{_what(chunk)} came after the finish_reason")
                break
            if chunk.finish_reason:
                finished.add(index)
            done = chunk.kind == "done"


def well_formed(history: History) -> Iterator[Finding]:
    """Every ``data:`` of a stream and every answer is a JSON object; events without data (annotations) are not."""
    for entry in history.entries:
        for chunk in entry.chunks:
            if chunk.kind == "other" and not chunk.raw.startswith(("event:", "{")):
                yield Finding("well-formed", _request(entry), f"not a JSON object: {shorten(chunk.raw)}")


def positions(history: History) -> Iterator[Finding]:
    """On the ruler engine: every position once, in order, from the prompt's length on."""
    for entry in history.entries:
        for index in choices(entry):
            chunks = of_choice(entry.chunks, index)
            seen = [position for chunk in chunks for position in chunk.positions]
            if not seen:
                continue
            tokens = [token for chunk in chunks for token in chunk.tokens]
            if len(tokens) != len(seen):
                message = f"{len(tokens) - len(seen)} of {len(tokens)} tokens carry no position: invented"
                yield Finding("positions", _request(entry, index), message)
            wrong = misplaced(seen, prompt_tokens(entry), entry.max_tokens)
            if wrong:
                yield Finding("positions", _request(entry, index), wrong)


def usage(history: History) -> Iterator[Finding]:
    """``usage`` is there when it was asked for and agrees with what was sent and what the client counted."""
    for entry in history.entries:
        if outcome(entry).kind != "complete":
            continue
        if entry.usage is None:
            if entry.usage_asked or not entry.stream:
                yield Finding("usage", _request(entry), "the answer has no usage although one was due")
            continue
        counted = sum(len(chunk.tokens) for chunk in entry.chunks)
        prompt = prompt_tokens(entry)
        expected = {"prompt_tokens": prompt, "completion_tokens": counted, "total_tokens": prompt + counted}
        wrong = [
            f"{name} {entry.usage.get(name)} instead of {value}"
            for name, value in expected.items()
            if entry.usage.get(name) != value
        ]
        if wrong:
            yield Finding("usage", _request(entry), "usage says " + ", ".join(wrong))


def replay(history: History) -> Iterator[Finding]:
    """A worker that takes a request over is given prompt + delivered tokens, and a budget of what was left."""
    for request_id, attempts in _attempts(history).items():
        about = _about_id(history, request_id)
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
    for request_id, attempts in _attempts(history).items():
        if len(attempts) > history.migration_limit + 1:
            workers = ", ".join(attempt["worker"] for attempt in attempts)
            message = (
                f"was given to {len(attempts)} workers ({workers}) with a migration limit of {history.migration_limit}"
            )
            yield Finding("migration-limit", _about_id(history, request_id), message)


def cancel_stays(history: History) -> Iterator[Finding]:
    """A cancelled request is not taken for one that lost its worker: no further worker is given it."""
    for request_id, attempts in _attempts(history).items():
        entry = _entry(history, request_id)
        if entry is None or entry.cancelled_at is None:
            continue
        for attempt in attempts[1:]:
            late = attempt["at"] - entry.cancelled_at
            if late > CANCEL_BOUND:
                message = f"{attempt['worker']} was given it {late:.2f} s after it had been cancelled"
                yield Finding("cancel-stays", _request(entry), message)


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
    Not judged where a frontend's metrics are missing or its counter fell back (it was restarted).
    """
    name = history.metric_names.get("frontend_requests")
    frontends = [node["name"] for node in history.topology.get("nodes", []) if node.get("role") == "frontend"]
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


def panics(history: History) -> Iterator[Finding]:
    """No process of Dynamo panics."""
    for node, messages in history.panics.items():
        for message, times in Counter(messages).items():
            yield Finding("panics", node, message + (f" ({times} times)" if times > 1 else ""))


def leftovers(history: History) -> Iterator[Finding]:
    """The machine is as it was before: that is the suite's own duty."""
    for line in history.leftovers:
        yield Finding("leftovers", "machine", f"left behind: {line}", blame="suite")


def client_lag(history: History) -> Iterator[Finding]:
    """A client that lags is a ruler that bends: its times prove nothing."""
    for entry in history.entries:
        if entry.lag_seconds > LAG_BOUND:
            message = f"the client itself lagged {entry.lag_seconds:.2f} s (bound {LAG_BOUND} s)"
            yield Finding("client-lag", _request(entry), message, blame="suite")


RULES: dict[str, Callable[[History], Iterator[Finding]]] = {
    "one-outcome": one_outcome,
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
    "panics": panics,
    "leftovers": leftovers,
    "client-lag": client_lag,
}


def check(history: History) -> list[Finding]:
    """All findings of all rules that the history does not opt out of, in the order of :data:`RULES`."""
    return [finding for name, rule in RULES.items() if name not in history.not_judged for finding in rule(history)]


def prompt_tokens(entry: LedgerEntry) -> int:
    """Tokens of the prompt under the suite's tokenizer (``support/targets/tokenizer.py``): one per word.

    Its chat template puts the role and a colon before each message, and one more such pair for the answer.
    """
    if entry.api == "completions":
        return len(entry.prompt.split())
    return sum(2 + len(str(message["content"]).split()) for message in entry.body["messages"]) + 2


def misplaced(seen: list[int], start: int, budget: int) -> str:
    """What is wrong with positions that should run from ``start`` by one, ``budget`` at most; empty when nothing is."""
    if seen == list(range(start, start + len(seen))) and len(seen) <= budget:
        return ""
    inside = [position for position in seen if start <= position < start + budget]
    wrong = {
        "invented": sorted(set(seen) - set(inside)),
        "repeated": sorted(position for position, times in Counter(inside).items() if times > 1),
        "lost": sorted(set(range(start, max(inside, default=start - 1) + 1)) - set(inside)),
    }
    parts = [f"{kind} {_ranges(which)}" for kind, which in wrong.items() if which]
    if not parts:
        first = next(after for before, after in pairwise(seen) if after < before)
        parts = [f"reordered from {first} on"]
    return f"positions {', '.join(parts)} (expected {start} upwards by one, {len(seen)} came)"


def _ranges(values: list[int]) -> str:
    """``[3, 4, 5, 9]`` as ``3-5, 9``, the first five of them."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1][1:] = [value]
        else:
            runs.append([value])
    shown = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs[:5]]
    return ", ".join(shown) + (f" and {len(runs) - 5} more" if len(runs) > 5 else "")


def _attempts(history: History) -> dict[str, list[dict[str, Any]]]:
    """Request id -> what each worker was given of it, in the order of time; several notes on one attempt count once."""
    found: dict[str, dict[tuple[object, ...], dict[str, Any]]] = {}
    for note in sorted(history.worker_journal, key=lambda note: float(note["at"])):
        attempts = found.setdefault(note["request_id"], {})
        attempts.setdefault((note["worker"], note["start"], note["max_tokens"]), note)
    return {request_id: list(attempts.values()) for request_id, attempts in found.items()}


def _request(entry: LedgerEntry, index: int = 0) -> str:
    return f"request {entry.number}" + (f" choice {index}" if entry.n > 1 else "")


def _what(chunk: Chunk) -> str:
    return f"a {chunk.kind} chunk" + (f" ({' '.join(chunk.tokens[:3])})" if chunk.tokens else "")


def _about_id(history: History, request_id: str) -> str:
    entry = _entry(history, request_id)
    return _request(entry) if entry else f"request id {request_id}"


def _entry(history: History, request_id: str) -> LedgerEntry | None:
    """The request that the workers know by this id: it is the end of the answer's id, or was sent as a header."""
    for entry in history.entries:
        if (entry.completion_id or "").endswith(request_id) or request_id in entry.headers_sent.values():
            return entry
    return None
