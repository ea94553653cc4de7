"""What chance allows: bounds for counts that are drawn at random. Pure."""

import math

RISK = 1e-6
"""How often a sound draw may fall outside of its bounds."""


def bounds(draws: int, share: float, risk: float = RISK) -> tuple[int, int]:
    """Least and greatest number of hits that ``draws`` independent draws with probability ``share`` may have.

    Exact: a binomial count is below the one in at most ``risk / 2`` of all cases, and as often above the other.
    """
    if not 0 < share < 1:
        return round(draws * share), round(draws * share)
    log_hit, log_miss = math.log(share), math.log1p(-share)

    def probability(hits: int) -> float:
        ways = math.lgamma(draws + 1) - math.lgamma(hits + 1) - math.lgamma(draws - hits + 1)
        return math.exp(ways + hits * log_hit + (draws - hits) * log_miss)

    least, below = 0, probability(0)
    while below <= risk / 2:
        least += 1
        below += probability(least)
    greatest, above = draws, probability(draws)
    while above <= risk / 2:
        greatest -= 1
        above += probability(greatest)
    return least, greatest


def draws_to_see(share: float, risk: float = RISK) -> int:
    """How many draws have at least one hit in all but ``risk / 2`` of all cases, so that none at all is not chance."""
    return 1 if share >= 1 else math.ceil(math.log(risk / 2) / math.log1p(-share))
