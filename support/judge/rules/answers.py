"""Rules on single answers, as their users got them.

A token stream is an append-only log with unique values (Jepsen's words: lost, duplicate, reordered, never-written), and
every request reaches exactly one outcome.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from support.judge.history import History
from support.judge.rules.lookup import about_request
from support.judge.verdict import Finding
from support.requests.ledger import Chunk, LedgerEntry
from support.requests.outcomes import TOOL_ENDS, choices, describe, of_choice, outcome, passes_for_answer, shorten


def one_outcome(history: History) -> Iterator[Finding]:
    """Each request reaches exactly one of: a whole answer, a clean error, our own cancel. An answer that is none of
    these and passes for a whole one is told by the rule of that name.
    """
    for entry in history.entries:
        end = outcome(entry)
        if end.kind == "broken" and not passes_for_answer(entry):
            yield Finding("one-outcome", about_request(entry), f"{end.why} ({describe(entry)})")


def passes_for_an_answer(history: History) -> Iterator[Finding]:
    """No broken answer is a whole one for the client library that users have: its program would never know."""
    for entry in history.entries:
        if passes_for_answer(entry) and entry.opinion is not None:
            message = f"passes for an answer: {outcome(entry).why}; yet {entry.opinion.client} has {entry.opinion.says}"
            yield Finding("passes-for-an-answer", about_request(entry), f"{message} ({describe(entry)})")


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
                yield Finding("token-count", about_request(entry, index), message)


def identity(history: History) -> Iterator[Finding]:
    """``id``, ``created`` and ``model`` stay the same from the first chunk to the last."""
    for entry in history.entries:
        for name, attribute in (("id", "completion_id"), ("created", "created"), ("model", "model")):
            seen = list(dict.fromkeys(value for c in entry.chunks if (value := getattr(c, attribute)) is not None))
            if len(seen) > 1:
                yield Finding(
                    "identity", about_request(entry), f"{name} changed from {seen[0]} to {seen[1]} in one answer"
                )


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
                yield Finding("order", about_request(entry), f"{_what(chunk)} came after [DONE]")
                break
            if index in finished and (chunk.tokens or chunk.kind in ("token", "role", "finish", "other")):
                yield Finding("order", about_request(entry, index), f"{_what(chunk)} came after the finish_reason")
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
                yield Finding("well-formed", about_request(entry), f"not a JSON object: {shorten(chunk.raw)}")
            elif chunk.index is None and '"choices"' not in chunk.raw:
                message = f"neither a piece of an answer nor an error: {shorten(chunk.raw)}"
                yield Finding("well-formed", about_request(entry), message)


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
                yield Finding("positions", about_request(entry, index), message)
            wrong = misplaced(seen, prompt_tokens(entry), entry.max_tokens)
            if wrong:
                yield Finding("positions", about_request(entry, index), wrong)


def usage(history: History) -> Iterator[Finding]:
    """``usage`` is there when it was asked for and agrees with what was sent and what the client counted."""
    for entry in history.entries:
        if outcome(entry).kind != "complete":
            continue
        if entry.usage is None:
            if entry.usage_asked or not entry.stream:
                yield Finding("usage", about_request(entry), "the answer has no usage although one was due")
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
            yield Finding("usage", about_request(entry), "usage says " + ", ".join(wrong))


def prompt_tokens(entry: LedgerEntry) -> int:
    """Tokens of the prompt under the suite's tokenizer (``support/targets/local/tokenizer.py``): one per word.

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


def _what(chunk: Chunk) -> str:
    return f"a {chunk.kind} chunk" + (f" ({' '.join(chunk.tokens[:3])})" if chunk.tokens else "")
