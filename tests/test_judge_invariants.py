"""The invariants on synthetic histories: each rule is shown a sound history and one that breaks it."""

import signal
from dataclasses import fields, replace
from typing import Any

import pytest

from support.contract.deployment import Facts
from support.events import Event
from support.judge.history import History
from support.judge.invariants import RULES, check, evidence, unjudged
from support.judge.rules.answers import misplaced
from support.requests.ledger import Chunk, LedgerEntry
from support.requests.outcomes import describe, outcome

PROMPT = "three words here"
ID = "cmpl-0000-1111"


class Scrape:
    """Metrics of one node, by name."""

    def __init__(self, **values: float) -> None:
        self.values = values

    def value(self, name: str, **labels: str) -> float | None:
        return self.values.get(name)


def token(position: int, **fields: Any) -> Chunk:
    fields = dict[str, Any](index=0, completion_id=ID, created=7, model="m") | fields
    return Chunk(1.0 + position / 100, "token", tokens=[f"p{position}"], positions=[position], **fields)


def answer(tokens: int = 4, **fields: Any) -> LedgerEntry:
    """A sound streamed answer of the ruler engine."""
    chunks = [token(3 + number) for number in range(tokens)]
    chunks += [Chunk(2.0, "finish", index=0, finish_reason="length", completion_id=ID, created=7, model="m")]
    chunks += [Chunk(2.0, "usage"), Chunk(2.0, "done", raw="[DONE]")]
    usage = {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens}
    entry = LedgerEntry(
        1, "completions", True, "m", PROMPT, tokens, usage_asked=True, sent_at=1.0, connected_at=1.0, status_code=200
    )
    entry.chunks, entry.usage, entry.end, entry.ended_at = chunks, usage, "complete", 2.0
    return replace(entry, **fields)


def without(entry: LedgerEntry, kind: str) -> LedgerEntry:
    return replace(entry, chunks=[chunk for chunk in entry.chunks if chunk.kind != kind])


def rules(entry: LedgerEntry) -> set[str]:
    return {finding.rule for finding in check(History(entries=[entry]))}


def test_a_sound_answer_breaks_no_rule() -> None:
    assert outcome(answer()).kind == "complete"
    assert check(History(entries=[answer()])) == []


ERROR = Chunk(1.5, "error", raw='{"error": {"message": "worker gone"}}')
DONE = Chunk(1.6, "done", raw="[DONE]")


@pytest.mark.parametrize(
    ("entry", "kind", "why"),
    [
        (answer(end=None), "broken", "had not ended"),
        (answer(end="lost"), "broken", "connection was lost after 4 of 4 tokens"),
        (answer(end="timeout"), "broken", "deadline passed"),
        (answer(end="cancelled"), "cancelled", ""),
        (answer(end="refused", status_code=None, chunks=[]), "error", "refused"),
        (without(answer(), "finish"), "broken", "no finish_reason"),
        (without(answer(), "done"), "broken", "no [DONE]"),
        (answer(chunks=[*answer().chunks, DONE]), "broken", "[DONE] 2 times"),
        (answer(chunks=[*answer().chunks[:5], *answer().chunks[4:]]), "broken", "2 finish reasons"),
        (answer(chunks=[token(3), ERROR, DONE]), "error", "worker gone"),
        (answer(chunks=[token(3), ERROR]), "error", "worker gone"),
        (answer(chunks=[token(3), ERROR, ERROR]), "broken", "2 errors"),
        (answer(chunks=[ERROR, token(3), DONE]), "broken", "went on after its error"),
        (answer(chunks=[token(3, finish_reason="length"), ERROR]), "broken", "a finish_reason and an error"),
        (answer(status_code=503, chunks=[ERROR]), "error", "HTTP 503"),
        (answer(status_code=503, chunks=[]), "broken", "without saying what is wrong"),
        (answer(status_code=503, chunks=[token(3)]), "broken", "came with tokens"),
        (answer(status_code=301, chunks=[]), "broken", "HTTP 301"),
        (answer(stream=False, chunks=[ERROR]), "broken", "an error inside an HTTP 200"),
        (answer(stream=False, chunks=[]), "broken", "empty body"),
    ],
)
def test_every_end_is_told_apart(entry: LedgerEntry, kind: str, why: str) -> None:
    assert outcome(entry).kind == kind
    assert why in outcome(entry).why


def test_a_choice_without_an_end_is_broken_although_the_other_has_one() -> None:
    assert "choice 1 ended" in outcome(answer(n=2)).why


def test_what_a_request_got_is_told_in_one_line() -> None:
    told = describe(answer(max_tokens=200, chunks=[token(3), ERROR, DONE]))
    assert told == "HTTP 200, 1 of 200 tokens, no finish_reason, error 'worker gone'"


@pytest.mark.parametrize(
    ("rule", "entry"),
    [
        ("one-outcome", without(answer(), "finish")),
        ("token-count", answer(max_tokens=5)),
        ("token-count", answer(max_tokens=3)),
        ("identity", answer(chunks=[token(3, completion_id="cmpl-other"), *answer().chunks])),
        ("identity", answer(chunks=[token(3, created=8), *answer().chunks])),
        ("order", answer(chunks=[*answer().chunks[:5], token(7), *answer().chunks[5:]])),
        ("order", answer(chunks=[*answer().chunks, token(7)])),
        ("well-formed", answer(chunks=[Chunk(1.0, "other", raw="not json"), *answer().chunks])),
        ("positions", answer(chunks=[token(4), *answer().chunks])),
        ("positions", answer(chunks=[Chunk(1.0, "token", index=0, tokens=["what"]), *answer().chunks])),
        ("usage", answer(usage=None)),
        ("usage", answer(usage={"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11})),
        ("usage", answer(usage={"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6})),
        ("client-lag", answer(lag_seconds=0.6)),
    ],
)
def test_a_broken_answer_breaks_its_rule(rule: str, entry: LedgerEntry) -> None:
    assert rule in rules(entry)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ([3, 4, 5], ""),
        ([3, 4, 6], "lost 5"),
        ([4, 5, 6], "lost 3"),
        ([3, 4, 4, 5], "repeated 4"),
        ([3, 5, 4, 6], "reordered from 4 on"),
        ([3, 4, 0, 1], "invented 0-1"),
        ([3, 4, 5, 6, 7, 8, 9], "invented 9"),
    ],
)
def test_misplaced_positions_are_named(seen: list[int], said: str) -> None:
    wrong = misplaced(seen, start=3, budget=6)
    assert (said in wrong) if said else (wrong == "")


def attempt(worker: str, start: int, budget: int, at: float = 1.1) -> dict[str, Any]:
    return {
        "worker": worker,
        "request_id": "0000-1111",
        "at": at,
        "start": start,
        "max_tokens": budget,
        "produced": None,
    }


def journal(*attempts: dict[str, Any], **entry: Any) -> list[str]:
    history = History(entries=[answer(**entry)], worker_journal=list(attempts), migration_limit=1)
    return [f"{finding.rule} {finding.about}" for finding in check(history)]


def test_a_replay_with_what_was_left_is_sound() -> None:
    assert journal(attempt("w-0", 3, 4), attempt("w-1", 5, 2, at=1.2)) == []


def test_a_replay_with_the_whole_budget_is_found() -> None:
    assert journal(attempt("w-0", 3, 4), attempt("w-1", 5, 4, at=1.2)) == ["replay request 1"]


def test_a_replay_that_forgets_the_prompt_is_found() -> None:
    assert "replay request 1" in journal(attempt("w-0", 3, 4), attempt("w-1", 2, 5, at=1.2))


def test_more_workers_than_the_limit_allows_are_found() -> None:
    moves = [attempt("w-0", 3, 4), attempt("w-1", 4, 3, at=1.2), attempt("w-2", 5, 2, at=1.3)]
    assert journal(*moves) == ["migration-limit request 1"]


def test_a_cancelled_request_that_reaches_a_further_worker_is_found() -> None:
    moves = [attempt("w-0", 3, 4), attempt("w-1", 5, 2, at=3.0)]
    assert journal(*moves, end="cancelled", cancelled_at=1.15) == ["cancel-stays request 1"]
    assert journal(*moves[:1], end="cancelled", cancelled_at=1.15) == []


NAMES = {"frontend_requests": "requests", "frontend_inflight": "inflight", "worker_inflight": "busy"}
TOPOLOGY = {"nodes": [{"name": "frontend-0", "role": "frontend"}, {"name": "w-0", "role": "worker"}]}


def fleet(before: float = 10, after: float = 11, **worker: float) -> History:
    return History(
        entries=[answer()],
        topology=TOPOLOGY,
        metrics_before={"frontend-0": Scrape(requests=before, inflight=0)},
        metrics_after={"frontend-0": Scrape(requests=after, inflight=0), "w-0": Scrape(**worker)},
        metric_names=NAMES,
    )


def test_counters_and_gauges_that_agree_with_the_ledger_are_sound() -> None:
    assert check(fleet(busy=0)) == []


def test_a_leaked_slot_is_found() -> None:
    assert [(finding.rule, finding.about) for finding in check(fleet(busy=1))] == [("gauges", "w-0")]


@pytest.mark.parametrize("after", [10, 12])
def test_a_counter_that_disagrees_with_the_ledger_is_found(after: float) -> None:
    assert [finding.rule for finding in check(fleet(after=after))] == ["counters"]


def test_counters_are_not_judged_when_the_frontend_was_restarted_or_is_gone() -> None:
    assert check(fleet(before=10, after=1)) == []
    assert check(replace(fleet(), metrics_after={})) == []


def test_a_request_given_up_early_may_or_may_not_have_been_counted() -> None:
    given_up = answer(number=2, status_code=None, chunks=[], end="cancelled")
    for after in (11, 12):
        assert check(replace(fleet(after=after), entries=[answer(), given_up])) == []


def test_panics_blame_dynamo_and_leftovers_blame_us() -> None:
    found = check(History(panics={"frontend-0": ["panicked at x.rs:1"] * 2}, leftovers=["namespace n1"]))
    assert [(f.rule, f.blame, f.about) for f in found] == [
        ("panics", "dynamo", "frontend-0"),
        ("leftovers", "suite", "machine"),
    ]
    assert found[0].message == "panicked at x.rs:1 (2 times)"


def test_a_rule_that_is_opted_out_of_is_not_judged() -> None:
    history = History(entries=[without(answer(), "finish")], not_judged=dict.fromkeys(RULES, "why"))
    assert check(history) == []


@pytest.mark.parametrize("fact", [each.name for each in fields(Facts)])
def test_what_a_target_cannot_know_is_not_judged(fact: str) -> None:
    """Every fact has rules that need it, and a rule that is left out says why."""
    left_out = unjudged(replace(Facts(), **{fact: False}))
    assert left_out
    assert set(left_out) <= set(RULES)
    assert all(left_out.values())
    assert unjudged(Facts()) == {}


def test_tokens_are_not_counted_with_the_tokenizer_of_another_model() -> None:
    billed = {"prompt_tokens": 99, "completion_tokens": 1, "total_tokens": 100}
    history = History(entries=[answer(usage=billed)])
    assert "usage" in {finding.rule for finding in check(history)}
    told = replace(history, facts=Facts(exact_tokens=False))
    assert "usage" not in {finding.rule for finding in check(told)}
    assert "usage" not in evidence(told)
    shorter = replace(answer(3), max_tokens=4)
    assert rules(shorter) >= {"one-outcome", "token-count"}
    assert rules(replace(shorter, exact_tokens=False)) == {"token-count"}
    assert check(History(entries=[replace(shorter, exact_tokens=False)], facts=Facts(exact_tokens=False))) == []


TOLD = Event(10.0, "state", "w-0", "shutting down: told to", {"state": "leaving"})


def ended(code: int | None, node: str = "w-0", at: float = 10.2) -> Event:
    state = "stopped" if code is not None and code >= 0 else "dead"
    return Event(at, "state", node, "it is over", {"state": state, "exit_code": code})


def leaving(**data: float) -> Event:
    return Event(10.2, "state", "w-0", "it leaves", {"state": "leaving"} | data)


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([TOLD, ended(0)], ""),
        ([TOLD, ended(-signal.SIGTERM)], "it was shut down and ended by signal SIGTERM after 0.2 s"),
        ([TOLD, ended(-signal.SIGABRT)], "and ended by signal SIGABRT"),
        ([TOLD, ended(1)], "and exited with status 1"),
        # a lease that ran out with the process still there
        ([TOLD, ended(-signal.SIGKILL, at=310)], "and ended by signal SIGKILL after 300.0 s"),
        # the second process of a node has not been told anything
        ([TOLD, ended(0), ended(-signal.SIGSEGV, at=11)], ""),
        ([TOLD, ended(-signal.SIGTERM, node="etcd-0")], ""),
        ([replace(TOLD, subject="etcd-0"), ended(-signal.SIGTERM, node="etcd-0")], ""),
        # killed by what came after, or its end was seen by nobody who knows how
        ([TOLD, Event(10.1, "fault", "w-0", "crash w-0", {"order": "crash"}), ended(-signal.SIGKILL)], ""),
        (
            [
                TOLD,
                Event(10.1, "fault", "w-0", "terminate of w-0 undone", {"undo": "terminate"}),
                ended(-signal.SIGKILL),
            ],
            "",
        ),
        ([TOLD, ended(None)], ""),
        ([TOLD, leaving(seconds=10.0)], "it was shut down and is still there after 10.0 s with nothing in flight"),
        ([TOLD, leaving()], ""),
        ([leaving(seconds=10.0)], ""),
        ([TOLD], ""),
    ],
)
def test_a_process_that_is_told_to_shut_down_ends_cleanly(events: list[Event], found: str) -> None:
    topology = {"nodes": [{"name": "w-0", "role": "worker"}, {"name": "etcd-0", "role": "etcd"}]}
    findings = [each for each in check(History(topology=topology, events=events)) if each.rule == "shutdown"]
    assert len(findings) == bool(found)
    assert all(found in each.message and each.about == "w-0" for each in findings)


def status(at: float, node: str, leader: str, term: int, revision: int = 5) -> dict[str, Any]:
    fields = {"member": node, "leader": leader, "term": term, "revision": revision, "version": "3.5.1"}
    return {"kind": "status", "at": at, "node": node} | fields


def lease(
    holder: str = "worker-0", left: int = 4, gone_at: float = 15.0, keys: int = 2, since: float = 9.0
) -> dict[str, Any]:
    names = [f"key {number}" for number in range(keys)]
    fields = {"left": left, "granted": 5, "keys": names, "holder": holder, "missed": 2, "since": since}
    return {"kind": "lease", "id": "77", "at": 10.0, "gone_at": gone_at} | fields


def hashes(version: str = "3.5.9", **values: int) -> dict[str, Any]:
    return {"kind": "hash", "at": 30.0, "hashes": values, "versions": [version]}


ELECTION = [status(1, "a", "a", 2), status(1, "b", "a", 2), status(5, "b", "b", 2), status(5.2, "b", "b", 3)]
END = hashes(a=1, b=1)
BACK_TO_4 = "etcd-revision: its revision went back from 6 to 4"
TWO_LEAD = ["etcd-leader: term 2 has had 2 leaders: a, b"]


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([*ELECTION, END], []),  # the new leader shows the old term until its first entry is applied
        ([*ELECTION[:3], END], TWO_LEAD),
        ([*ELECTION[:3], status(5.5, "b", "0", 2), END], []),  # too short to tell
        # a second of leading is enough, of all the time that it shows one term
        ([*ELECTION[:3], status(6.0, "b", "0", 2), END], TWO_LEAD),
        ([*ELECTION[:3], status(5.9, "b", "b", 2), status(6.1, "b", "0", 2), END], TWO_LEAD),
        ([*ELECTION[:3], status(5.9, "b", "0", 2), status(9.0, "b", "b", 3), END], []),
        # each leads once, in one term of its own
        ([status(1, "a", "a", 2), status(5, "a", "b", 3), status(1, "b", "a", 2), status(5, "b", "b", 3), END], []),
        # the last look at all is when a spell of leading ends that nothing follows
        ([status(1, "a", "a", 2), status(8, "b", "b", 2), status(8.9, "c", "a", 2)], []),
        ([status(1, "a", "a", 2), status(8, "b", "b", 2), status(9.1, "c", "a", 2)], TWO_LEAD),
        ([status(1, "a", "a", 2), status(1, "b", "c", 2), END], []),  # what followers say may be old
        ([status(1, "a", "a", 2, 5), status(2, "a", "a", 2, 6)], []),
        ([status(1, "a", "a", 2, 6), status(2, "a", "a", 2, 5)], ["etcd-revision: its revision went back from 6 to 5"]),
        # another member, or another life of it, has a revision of its own
        ([status(1, "a", "a", 2, 6), status(2, "b", "a", 2, 5)], []),
        ([status(1, "a", "a", 2, 6), status(2, "a", "a", 2, 5) | {"member": "a again"}], []),
        ([status(1, "a", "a", 2, 6), status(2, "a", "a", 2, 6)], []),
        ([status(1, "a", "a", 2, 6), status(2, "a", "a", 2, 4), status(3, "a", "a", 2, 5)], [BACK_TO_4]),
        ([lease()], []),
        ([lease(gone_at=14.0)], []),
        ([lease(gone_at=13.9)], ["etcd-lease: the lease of worker-0 was gone 0.1 s too early"]),
        (
            [lease("", gone_at=12.0)],
            ["etcd-lease: the lease of a frontend or an unknown process was gone 2.0 s too early"],
        ),
        ([lease(gone_at=12.0)], ["etcd-lease: the lease of worker-0 was gone 2.0 s too early"]),
        ([hashes(a=1, b=1)], []),
        ([hashes(a=1, b=2)], ["etcd-agreement: the members disagree about the store: {'a': 1, 'b': 2}"]),
        ([hashes() | {"disagreement": "b stays behind"}], ["etcd-agreement: the members do not agree: b stays behind"]),
    ],
)
def test_etcd(records: list[dict[str, Any]], found: list[str]) -> None:
    assert [f"{each.rule}: {each.message}" for each in check(History(etcd=records))] == found


@pytest.mark.parametrize(
    ("event", "holder", "excused"),
    [
        (replace(TOLD, at=11.0, subject="worker-0"), "worker-0", True),
        (Event(11.0, "fault", "worker-0", "terminate undone", {"undo": "terminate"}), "worker-0", False),
        (ended(0, "worker-0", 13.0), "worker-0", True),
        (ended(0, "worker-0", 14.0), "worker-0", True),
        (ended(0, "worker-0", 14.1), "worker-0", False),
        (ended(0, "worker-0", 9.0), "worker-0", True),
        # an end that is not its own doing, or no end
        (Event(11.0, "fault", "worker-0", "crash worker-0", {"order": "crash"}), "worker-0", False),
        (replace(ended(0, "worker-0", 11.0), kind="note"), "worker-0", False),
        (ended(0, "frontend-0", 11.0), "", True),
        (ended(-signal.SIGKILL, "worker-0", 11.0), "worker-0", False),
        (ended(0, "worker-1", 11.0), "worker-0", False),
        # of a process that nobody could name
        (ended(0, "worker-1", 11.0), "", True),
        # an end before the lease was granted says nothing of it
        (ended(0, "worker-0", 8.0), "worker-0", False),
    ],
)
def test_a_lease_may_be_given_back_by_its_holder(event: Event, holder: str, excused: bool) -> None:
    topology = {"nodes": [{"name": "frontend-0", "role": "frontend"}]}
    history = History(etcd=[lease(holder, gone_at=12.0)], events=[event], topology=topology)
    assert [each.rule for each in check(history)] == ([] if excused else ["etcd-lease"])


def test_an_etcd_that_is_known_to_diverge_says_nothing_about_dynamo() -> None:
    [finding] = check(History(etcd=[hashes("3.5.1", a=1, b=2)]))
    assert (finding.blame, "choose another with etcd_binary" in finding.message) == ("suite", True)
    [finding] = check(History(etcd=[hashes("3.5.3", a=1, b=2)]))
    assert (finding.blame, "choose another" in finding.message) == ("dynamo", False)
