"""What must hold after every scenario, asked for or not. Pure functions: a history in, findings out.

The rules are those of the field: a token stream is an append-only log with unique values (Jepsen's words: lost,
duplicate, reordered, never-written), every request reaches exactly one outcome, and what the system counts agrees with
what its users saw.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from typing import Any

from support.judge.history import History
from support.judge.outcomes import TOOL_ENDS, choices, describe, of_choice, outcome, passes_for_answer, shorten
from support.judge.verdict import Finding
from support.requests.ledger import Chunk, LedgerEntry

LAG_BOUND = 0.5
"""Seconds that the client's own event loop may lag before its times mean nothing."""

CANCEL_BOUND = 0.25
"""Seconds that a cancel may take to get through; a migration that had begun before it may arrive until then."""


GIVE_BACK_BOUND = 2.0
"""Seconds by which a holder may outlive the lease that it gives back when it shuts down by itself."""

LEADING_SECONDS = 1.0
"""How long a member has to lead before the term that it shows is its own."""

DYNAMO_ROLES = ("frontend", "worker", "decode", "prefill")
"""Roles of the nodes that run Dynamo itself; etcd, for one, ends by the signal that it is told to shut down with."""

ETCD_DIVERGES = {"3.5.0", "3.5.1", "3.5.2"}
"""Releases of etcd whose members can diverge when they are killed under load."""


def one_outcome(history: History) -> Iterator[Finding]:
    """Each request reaches exactly one of: a whole answer, a clean error, our own cancel. An answer that is none of
    these and passes for a whole one is told by the rule of that name.
    """
    for entry in history.entries:
        end = outcome(entry)
        if end.kind == "broken" and not passes_for_answer(entry):
            yield Finding("one-outcome", _request(entry), f"{end.why} ({describe(entry)})")


def passes_for_an_answer(history: History) -> Iterator[Finding]:
    """No broken answer is a whole one for the client library that users have: its program would never know."""
    for entry in history.entries:
        if passes_for_answer(entry) and entry.opinion is not None:
            message = f"passes for an answer: {outcome(entry).why}; yet {entry.opinion.client} has {entry.opinion.says}"
            yield Finding("passes-for-an-answer", _request(entry), f"{message} ({describe(entry)})")


def token_count(history: History) -> Iterator[Finding]:
    """An answer that ends by length has exactly max_tokens tokens in each choice, and no answer has more. One that
    calls tools is not counted: servers hand out a call in other pieces than its tokens.
    """
    for entry in history.entries:
        for index in choices(entry):
            chunks = of_choice(entry.chunks, index)
            count = sum(len(chunk.tokens) for chunk in chunks)
            by_length = any(chunk.finish_reason == "length" for chunk in chunks)
            if any(chunk.finish_reason in TOOL_ENDS for chunk in chunks):
                continue
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
    """Every ``data:`` of a stream and every answer is a JSON object, and a piece of an answer: it has choices, usage or
    an error. Events without data (annotations) are neither.
    """
    for entry in history.entries:
        for chunk in entry.chunks:
            if chunk.kind != "other" or chunk.raw.startswith("event:"):
                continue
            if not chunk.raw.startswith("{"):
                yield Finding("well-formed", _request(entry), f"not a JSON object: {shorten(chunk.raw)}")
            elif chunk.index is None and '"choices"' not in chunk.raw:
                message = f"neither a piece of an answer nor an error: {shorten(chunk.raw)}"
                yield Finding("well-formed", _request(entry), message)


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


def etcd_leader(history: History) -> Iterator[Finding]:
    """No two etcd members lead in one term, by what they say of themselves.

    etcd tells the term of the last entry that it has applied, so a new leader shows the old term for a moment: a spell
    of leading counts for the last term that is shown in it, and one too short to tell not at all.
    """
    leaders: dict[int, dict[str, None]] = {}
    by_node: dict[str, list[dict[str, Any]]] = {}
    for record in _of_kind(history, "status"):
        by_node.setdefault(record["node"], []).append(record)
    end = max((record["at"] for record in history.etcd), default=0.0)
    for node, records in by_node.items():
        for leads, spell in groupby(records, lambda record: bool(record["leader"] == record["member"])):
            told = list(spell)
            after = next((record["at"] for record in records if record["at"] > told[-1]["at"]), end)
            if leads and after - told[0]["at"] >= LEADING_SECONDS:
                leaders.setdefault(told[-1]["term"], {})[node] = None
    for term, seen in leaders.items():
        if len(seen) > 1:
            yield Finding("etcd-leader", "etcd", f"term {term} has had {len(seen)} leaders: {', '.join(seen)}")


def etcd_revision(history: History) -> Iterator[Finding]:
    """The revision of a member never goes back, restarts included."""
    last: dict[tuple[str, str], int] = {}
    for record in _of_kind(history, "status"):
        member = record["node"], record["member"]
        if record["revision"] < last.get(member, 0):
            message = f"its revision went back from {last[member]} to {record['revision']}"
            yield Finding("etcd-revision", record["node"], message)
        last[member] = record["revision"]


def etcd_lease(history: History) -> Iterator[Finding]:
    """No lease is gone before its time, unless its holder ended or was told to end while it had the lease, and so gave
    it back itself.
    """
    ends: dict[str, list[float]] = {}
    for event in history.events:
        told = event.kind == "fault" and event.text.startswith("terminate")
        if told or (event.kind == "state" and event.text.startswith("stopped")):
            ends.setdefault(event.subject, []).append(event.at)
    frontends = [node["name"] for node in history.topology.get("nodes", []) if node.get("role") == "frontend"]
    for record in _of_kind(history, "lease"):
        early = record["at"] + record["left"] - record["gone_at"]
        # With no keys, and hence no name, it is a frontend's, or that of a worker which has yet to register.
        holders = [record["holder"]] if record["holder"] else [*frontends, *ends]
        latest = record["gone_at"] + GIVE_BACK_BOUND
        given_back = any(record["since"] <= at <= latest for name in holders for at in ends.get(name, ()))
        if early > 0 and not given_back:
            whose = record["holder"] or "a frontend or an unknown process"
            yield Finding("etcd-lease", "etcd", f"the lease of {whose} was gone {early:.1f} s too early")


def etcd_agreement(history: History) -> Iterator[Finding]:
    """In the end all members that answer, if they are a majority, follow one leader and have the same hash of their
    store at the same revision.
    """
    for record in _of_kind(history, "hash"):
        if len(set(record["hashes"].values())) <= 1:
            if record.get("disagreement"):
                yield Finding("etcd-agreement", "etcd", f"the members do not agree: {record['disagreement']}")
        else:
            message = f"the members disagree about the store: {record['hashes']}"
            # A known defect of etcd itself says nothing about Dynamo (etcd.io, "Data inconsistency" in 3.5.0 to 3.5.2).
            own = set(record["versions"]) & ETCD_DIVERGES
            if own:
                message += f"; etcd {', '.join(sorted(own))} is known for that, choose another with etcd_binary"
            yield Finding("etcd-agreement", "etcd", message, blame="suite" if own else "dynamo")


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


def leftovers(history: History) -> Iterator[Finding]:
    """The machine is as it was before: that is the suite's own duty."""
    for line in history.leftovers:
        yield Finding("leftovers", "machine", f"left behind: {line}", blame="suite")


def gate(history: History) -> Iterator[Finding]:
    """No answer is held so long that the gate opens by itself: it would be late, or given up, by our own doing."""
    for note in history.worker_journal:
        if any(hold["expired"] for hold in note.get("holds", ())):
            message = f"{note['worker']} was told to hold it and never to let it go"
            yield Finding("gate", _about_id(history, note["request_id"]), message, blame="suite")


def not_undone(history: History) -> Iterator[Finding]:
    """The end of a scenario undoes what is left of its faults: that is the suite's own duty."""
    for line in history.not_undone:
        yield Finding("not-undone", "the end of the scenario", line, blame="suite")


def records_lost(history: History) -> Iterator[Finding]:
    """What was seen has been kept: where it was not, what is left may look like a defect, or hide one."""
    for line in history.records_lost:
        yield Finding("records-lost", "the end of the scenario", line, blame="suite")


def client_lag(history: History) -> Iterator[Finding]:
    """A client that lags is a ruler that bends: its times prove nothing."""
    for entry in history.entries:
        if entry.lag_seconds > LAG_BOUND:
            message = f"the client itself lagged {entry.lag_seconds:.2f} s (bound {LAG_BOUND} s)"
            yield Finding("client-lag", _request(entry), message, blame="suite")


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
    "not-undone": not_undone,
    "records-lost": records_lost,
    "client-lag": client_lag,
}


def _nodes(history: History, role: str) -> list[str]:
    return [node["name"] for node in history.topology.get("nodes", []) if node.get("role") == role]


def _migrated(history: History) -> int:
    return sum(len(attempts) > 1 for attempts in _attempts(history).values())


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
    "migration-limit": lambda history: 0 if history.migration_limit is None else len(_attempts(history)),
    "cancel-stays": lambda history: sum(
        (entry := _entry(history, each)) is not None and entry.cancelled_at is not None for each in _attempts(history)
    ),
    "gauges": lambda history: len(history.metrics_after),
    "counters": lambda history: sum(name in history.metrics_after for name in _nodes(history, "frontend")),
    "etcd-leader": lambda history: sum(1 for _ in _of_kind(history, "status")),
    "etcd-revision": lambda history: sum(1 for _ in _of_kind(history, "status")),
    "etcd-lease": lambda history: sum(1 for _ in _of_kind(history, "lease")),
    "etcd-agreement": lambda history: sum(len(record["hashes"]) > 1 for record in _of_kind(history, "hash")),
    "shutdown": lambda history: sum(event.text.startswith("terminate ") for event in history.events),
    "panics": lambda history: len(history.panics),
    "leftovers": lambda history: len(history.topology.get("nodes", [])),
    "gate": _holding,
    "not-undone": lambda history: len(history.topology.get("nodes", [])),
    "records-lost": lambda history: len(history.events),
    "client-lag": lambda history: len(history.entries),
}
"""Rule -> how many things in a history it could have objected to; with none it holds and says nothing."""


def evidence(history: History) -> dict[str, int]:
    """Rule -> how many things it has looked at, of all rules that the history does not opt out of."""
    return {name: count(history) for name, count in EVIDENCE.items() if name not in history.not_judged}


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


def _of_kind(history: History, kind: str) -> Iterator[dict[str, Any]]:
    return (record for record in history.etcd if record["kind"] == kind)


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
    return next((entry for entry in history.entries if is_answer_to(entry, request_id)), None)


def is_answer_to(entry: LedgerEntry, request_id: str) -> bool:
    """Whether the workers know this request by ``request_id``."""
    return (entry.completion_id or "").endswith(request_id) or request_id in entry.headers_sent.values()
