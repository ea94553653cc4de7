"""The client's own lag: a clock that errs by more than a fifth of the bound proves nothing, either way."""

from support.errors import Inconclusive
from support.requests.ledger import LedgerEntry

LAG_SHARE = 5
"""A claim about a time stands as long as the client lagged no more than this part of it: a fifth."""


def own_lag(entry: LedgerEntry) -> float:
    """Seconds by which the client was late, in sending a request or in reading its answer."""
    late = entry.sent_at - entry.intended_at if entry.sent_at is not None else 0.0
    return max(late, entry.lag_seconds)


def see_keen(lag: float, bound: float, what: str) -> None:
    """Make sure that the client kept up well enough to tell whether ``what`` took ``bound``; both in seconds.

    Raises:
        Inconclusive: it did not.
    """
    if lag > bound / LAG_SHARE:
        allowed = f"{1000 * bound / LAG_SHARE:.0f} ms, a fifth of the {1000 * bound:.0f} ms checked"
        raise Inconclusive(f"{what}: the client itself lagged {1000 * lag:.0f} ms; at most {allowed}, is allowed")
