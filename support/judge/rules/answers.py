"""Rules on single answers, as their users got them.

A token stream is an append-only log with unique values (Jepsen's words: lost, duplicate, reordered, never-written), and
every request reaches exactly one outcome.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from support.amounts import amount
from support.judge.history import History
from support.judge.rules.lookup import about_request
from support.judge.verdict import Finding
from support.requests.ledger import Chunk, LedgerEntry
from support.requests.outcomes import TOOL_ENDS, choices, of_choice, outcome, passes_for_answer, seen_of, shorten
from support.seen import AnswerFlaw, BillSeen


def one_outcome(history: History) -> Iterator[Finding]:
    """Each request reaches exactly one of: a whole answer, a clean error, our own cancel. An answer that is none of
    these and passes for a whole one is told by the rule of that name.
    """
    for entry in history.entries:
        if outcome(entry).kind == "broken" and not passes_for_answer(entry):
            yield Finding.of("one-outcome", about_request(entry), seen_of(entry))


def passes_for_an_answer(history: History) -> Iterator[Finding]:
    """No broken answer is a whole one for the client library that users have: its program would never know."""
    for entry in history.entries:
        if passes_for_answer(entry) and entry.opinion is not None:
            seen = seen_of(entry)
            words = f"looks like an answer ({seen.why}), but {entry.opinion.client} has {entry.opinion.says}"
            words += f" ({seen.described})"
            yield Finding.of("passes-for-an-answer", about_request(entry), seen, words=words)


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
                message = f"ended {end}with {amount(count, 'token')}; {entry.max_tokens} were asked for"
                seen = AnswerFlaw(entry.number, index, "token-count", count, entry.max_tokens, message)
                yield Finding.of("token-count", about_request(entry, index), seen)


def identity(history: History) -> Iterator[Finding]:
    """``id``, ``created`` and ``model`` stay the same from the first chunk to the last."""
    for entry in history.entries:
        for name, attribute in (("id", "completion_id"), ("created", "created"), ("model", "model")):
            told = list(dict.fromkeys(value for c in entry.chunks if (value := getattr(c, attribute)) is not None))
            if len(told) > 1:
                message = f"{name} changed from {told[0]} to {told[1]} in one answer"
                yield Finding.of("identity", about_request(entry), _flaw(entry, "changed", message))


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
                seen = _flaw(entry, "after-done", f"{_what(chunk)} came after [DONE]")
                yield Finding.of("order", about_request(entry), seen)
                break
            if index in finished and (chunk.tokens or chunk.kind in ("token", "role", "finish", "other")):
                seen = _flaw(entry, "after-finish", f"{_what(chunk)} came after the finish_reason", index)
                yield Finding.of("order", about_request(entry, index), seen)
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
                seen = _flaw(entry, "no-json", f"not a JSON object: {shorten(chunk.raw)}")
                yield Finding.of("well-formed", about_request(entry), seen)
            elif chunk.index is None and '"choices"' not in chunk.raw:
                message = f"neither a piece of an answer nor an error: {shorten(chunk.raw)}"
                yield Finding.of("well-formed", about_request(entry), _flaw(entry, "no-piece", message))


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
                message = f"{len(tokens) - len(seen)} of {amount(len(tokens), 'token')} carry no position: invented"
                yield Finding.of("positions", about_request(entry, index), _flaw(entry, "no-position", message, index))
            start = prompt_tokens(entry)
            if wrong := misplaced(seen, start, entry.max_tokens):
                flaw = _flaw(entry, flaw_of_positions(seen, start, entry.max_tokens), wrong, index)
                yield Finding.of("positions", about_request(entry, index), flaw)


def usage(history: History) -> Iterator[Finding]:
    """``usage`` is there when it was asked for and agrees with what was sent and what the client counted."""
    for entry in history.entries:
        if outcome(entry).kind != "complete":
            continue
        if entry.usage is None:
            if entry.usage_asked or not entry.stream:
                seen = _flaw(entry, "no-usage", "the answer has no usage, though it should")
                yield Finding.of("usage", about_request(entry), seen)
            continue
        bill = bill_of(entry, sum(len(chunk.tokens) for chunk in entry.chunks))
        if bill.wrong:
            yield Finding.of("usage", about_request(entry), bill)


def bill_of(entry: LedgerEntry, completion: int) -> BillSeen:
    """What was billed, beside what was sent and ``completion`` tokens of the answer."""
    billed, prompt = entry.usage or {}, prompt_tokens(entry)
    due = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    counts = {name: value if isinstance(value := billed.get(name), int) else None for name in due}
    over = {name: None if count is None else count - due[name] for name, count in counts.items()}
    pairs = (each for name in due for each in (counts[name], over[name]))
    return BillSeen(entry.number, *pairs)


def prompt_tokens(entry: LedgerEntry) -> int:
    """Tokens of the prompt under the suite's tokenizer (``support/targets/local/tokenizer.py``): one per word.

    Its chat template puts the role and a colon before each message, and one more such pair for the answer.
    """
    if entry.api == "completions":
        return len(entry.prompt.split())
    return sum(2 + len(str(message["content"]).split()) for message in entry.body["messages"]) + 2


def misplaced(seen: list[int], start: int, budget: int) -> str:
    """What is wrong with positions that should run from ``start`` by one, ``budget`` at most; empty when nothing is."""
    wrong = _wrong_positions(seen, start, budget)
    if not wrong:
        return ""
    parts = [
        f"reordered from {which[0]} on" if kind == "reordered" else f"{kind} {_ranges(which)}"
        for kind, which in wrong.items()
    ]
    return f"positions {', '.join(parts)} (expected {start} upwards by one, {len(seen)} came)"


def flaw_of_positions(seen: list[int], start: int, budget: int) -> str:
    """The same in a word or several: ``lost``, ``repeated, lost``; where none is wrong but the rest is missing,
    ``lost``.
    """
    return ", ".join(_wrong_positions(seen, start, budget)) or "lost"


def _wrong_positions(seen: list[int], start: int, budget: int) -> dict[str, list[int]]:
    """What is wrong -> with which positions."""
    if seen == list(range(start, start + len(seen))) and len(seen) <= budget:
        return {}
    inside = [position for position in seen if start <= position < start + budget]
    wrong = {
        "invented": sorted(set(seen) - set(inside)),
        "repeated": sorted(position for position, times in Counter(inside).items() if times > 1),
        "lost": sorted(set(range(start, max(inside, default=start - 1) + 1)) - set(inside)),
    }
    found = {kind: which for kind, which in wrong.items() if which}
    return found or {"reordered": [next(after for before, after in pairwise(seen) if after < before)]}


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


def _flaw(entry: LedgerEntry, flaw: str, said: str, choice: int = 0) -> AnswerFlaw:
    return AnswerFlaw(entry.number, choice, flaw, len(entry.tokens), entry.max_tokens, said)


def _what(chunk: Chunk) -> str:
    return f"a {chunk.kind} chunk" + (f" ({' '.join(chunk.tokens[:3])})" if chunk.tokens else "")
