"""How fast the tokens of an answer came, told in a way that no bundling of tokens can make better.

Both figures are those of the field (GenAI-Perf, AIPerf and vLLM's benchmark: the time from the first token to the last
over the tokens between) for an answer whose first event has one token. An event with several tokens hides when each of
them was ready. Those of the first event may have taken up to all the time since the request was due, so that time
counts.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise


def inter_token(due: float, times: Sequence[float]) -> float:
    """Seconds per token of an answer, on average: 4 tokens every 80 ms are 20 ms per token.

    Args:
        due: when the request was due.
        times: ascending arrivals of its tokens, at least one; tokens of one event have the same.
    """
    return (times[-1] - _since(due, times)) / max(1, len(times) - 1)


def pause(due: float, times: Sequence[float], holds: Sequence[Sequence[float]] = ()) -> tuple[float, float]:
    """Begin and end of the longest time in which no token came; arguments as for :func:`inter_token`.

    Args:
        holds: begin and end of the spells in which the suite itself held the answer back; they do not count.
    """
    return max(pairwise([_since(due, times), *times]), key=lambda gap: gap[1] - gap[0] - held_between(holds, *gap))


def held_between(holds: Sequence[Sequence[float]], begin: float, end: float) -> float:
    """Seconds of these spells that lie between two times."""
    return sum(max(0.0, min(end, until) - max(begin, since)) for since, until in holds)


def _since(due: float, times: Sequence[float]) -> float:
    """From when on the pace of an answer counts; of one token alone as well, for it has no other pace."""
    first = bisect_right(times, times[0])
    return times[0] if first == 1 and len(times) > 1 else min(due, times[0])
