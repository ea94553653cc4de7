"""What sentences expect of single answers. Pure: a ledger entry in, an AssertionError with what was seen out.

The always-on invariants (``invariants.py``) judge every request anyway; these say which sound outcome it had to be.
"""

from support.amounts import amount
from support.errors import NotKept, Since, TooLate
from support.judge.lag import own_lag, see_keen
from support.judge.rules.answers import bill_of, flaw_of_positions, misplaced, prompt_tokens
from support.requests.ledger import LedgerEntry
from support.requests.outcomes import outcome, seen_of
from support.seen import AnswerFlaw, TooSlow


def expect_complete(entry: LedgerEntry, tokens: int) -> None:
    """A whole answer with exactly ``tokens`` tokens and one finish reason."""
    if outcome(entry).kind != "complete" or len(entry.tokens) != tokens:
        raise NotKept(seen_of(entry, "complete", tokens))


def expect_clean_error(entry: LedgerEntry) -> None:
    """An error that says so and that nobody can take for an answer."""
    if outcome(entry).kind != "error":
        raise NotKept(seen_of(entry, "error"))


def expect_positions(entry: LedgerEntry) -> None:
    """Every position of the ruler engine once and in order, beginning right after the prompt.

    Raises:
        ValueError: the answer has no positions at all: its engine is not the ruler.
    """
    if not entry.positions:
        raise ValueError(f"request {entry.number} carries no positions; only the ruler engine writes them")
    where = entry.positions, prompt_tokens(entry), entry.max_tokens
    wrong = misplaced(*where)
    if wrong or len(entry.positions) != entry.max_tokens:
        count = f"{len(entry.positions)} of {amount(entry.max_tokens, 'position')} came"
        said = f"request {entry.number}: {count}; {wrong or 'the rest is missing'}"
        raise NotKept(
            AnswerFlaw(entry.number, 0, flaw_of_positions(*where), len(entry.positions), entry.max_tokens, said)
        )


def expect_usage(entry: LedgerEntry) -> None:
    """The usage that the same request has without a fault: what was sent and what was asked for."""
    bill = bill_of(entry, entry.max_tokens)
    if bill.wrong:
        message = f"request {entry.number} was billed differently from one without the fault: {bill.words}"
        raise NotKept(bill, message=message)


def expect_prompt(entry: LedgerEntry, seconds: float) -> None:
    """The client waits no longer than ``seconds``, be it for the first token or between two.

    Raises:
        Inconclusive: it lagged itself.
    """
    expect_no_pause(entry, seconds)
    first = entry.token_times[0] - entry.intended_at
    if first > seconds:
        what = f"request {entry.number} waited for its first token for"
        seen = TooSlow(entry.number, "first-token", first, seconds, what)
        due = Since(entry.intended_at, "the moment at which it was due")
        raise TooLate(seen.words, seconds, due, entry.token_times[0], [seen])


def expect_no_pause(entry: LedgerEntry, seconds: float) -> None:
    """No pause between two tokens longer than ``seconds``; the answer has at least two tokens. Where several come
    first, all at once, the wait for them counts: it may hide a pause.

    Raises:
        Inconclusive: the client lagged itself.
    """
    if len(entry.token_times) < 2:
        few = f"request {entry.number} has {amount(len(entry.token_times), 'token')}, too few for a pause between them"
        raise NotKept(seen_of(entry, "complete"), message=few)
    see_keen(own_lag(entry), seconds, f"request {entry.number}")
    if entry.longest_pause > seconds:
        what = f"request {entry.number} paused for"
        seen = TooSlow(entry.number, "pause", entry.longest_pause, seconds, what)
        begin, end = entry.pause or (0.0, 0.0)
        raise TooLate(seen.words, seconds, Since(begin, "the token before"), end, [seen])
