"""What sentences expect of single answers. Pure: a ledger entry in, an AssertionError with what was seen out.

The always-on invariants (``invariants.py``) judge every request anyway; these say which sound outcome it had to be.
"""

from support.errors import TooLate
from support.judge.lag import own_lag, see_keen
from support.judge.rules.answers import misplaced, prompt_tokens
from support.requests.ledger import LedgerEntry
from support.requests.outcomes import describe, outcome


def expect_complete(entry: LedgerEntry, tokens: int) -> None:
    """A whole answer with exactly ``tokens`` tokens and one finish reason."""
    seen = outcome(entry)
    if seen.kind != "complete" or len(entry.tokens) != tokens:
        why = f"{seen.kind}: {seen.why}" if seen.why else seen.kind
        wanted = f"request {entry.number} was to complete with {tokens} tokens and a finish_reason"
        raise AssertionError(f"{wanted}, but got {describe(entry)} ({why})")


def expect_clean_error(entry: LedgerEntry) -> None:
    """An error that says so and that nobody can take for an answer."""
    seen = outcome(entry)
    if seen.kind != "error":
        raise AssertionError(
            f"request {entry.number} was to end in a clean error, but is {seen.kind}: {seen.why or describe(entry)}"
        )


def expect_positions(entry: LedgerEntry) -> None:
    """Every position of the ruler engine once and in order, beginning right after the prompt.

    Raises:
        ValueError: the answer has no positions at all: its engine is not the ruler.
    """
    if not entry.positions:
        raise ValueError(f"request {entry.number} carries no positions; only the ruler engine writes them")
    wrong = misplaced(entry.positions, prompt_tokens(entry), entry.max_tokens)
    if wrong or len(entry.positions) != entry.max_tokens:
        count = f"{len(entry.positions)} of {entry.max_tokens} positions came"
        raise AssertionError(f"request {entry.number}: {count}; {wrong or 'the rest is missing'}")


def expect_usage(entry: LedgerEntry) -> None:
    """The usage that the same request has without a fault: what was sent and what was asked for."""
    prompt, completion = prompt_tokens(entry), entry.max_tokens
    wanted = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    seen = {key: entry.usage.get(key) for key in wanted} if entry.usage else None
    if seen != wanted:
        raise AssertionError(f"request {entry.number} was billed {seen}; without the fault it is {wanted}")


def expect_prompt(entry: LedgerEntry, seconds: float) -> None:
    """The client waits no longer than ``seconds``, be it for the first token or between two.

    Raises:
        Inconclusive: it lagged itself.
    """
    expect_no_pause(entry, seconds)
    first = entry.token_times[0] - entry.intended_at
    if first > seconds:
        message = f"request {entry.number} waited for {first:.2f} s for its first token"
        raise TooLate(f"{message}; at most {seconds:g} s is allowed", seconds, entry.intended_at, entry.token_times[0])


def expect_no_pause(entry: LedgerEntry, seconds: float) -> None:
    """No pause between two tokens longer than ``seconds``; the answer has at least two tokens. Where several come
    first, all at once, the wait for them counts: it may hide a pause.

    Raises:
        Inconclusive: the client lagged itself.
    """
    if len(entry.token_times) < 2:
        raise AssertionError(
            f"request {entry.number} has {len(entry.token_times)} tokens, too few for a pause between them"
        )
    see_keen(own_lag(entry), seconds, f"request {entry.number}")
    if entry.longest_pause > seconds:
        message = f"request {entry.number} paused for {entry.longest_pause:.2f} s; at most {seconds:g} s is allowed"
        raise TooLate(message, seconds, *(entry.pause or (0.0, 0.0)))
