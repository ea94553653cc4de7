"""Random faults of workers, drawn from a seed: which, on whom, how long, and how long it is quiet after it."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from support.faults.network import MODES
from support.faults.registry import KINDS
from support.scenarios.model import Failure

# A stream that is silent this long is a delay for its user and no loss.
SHORTEST_SECONDS, LONGEST_SECONDS = 0.5, 2.0
LONGEST_PAUSE_SECONDS = 4.0
XIDS = (79, 119)
"""One that ends the worker, one that hangs it."""


@dataclass(frozen=True)
class Drawn:
    """One random fault.

    Attributes:
        failure: what happens, and for how long.
        victim: of the deployment's workers the one with this number, modulo their count.
        pause_seconds: from the end of this fault to the next one.
    """

    failure: Failure
    victim: int
    pause_seconds: float


def faults(seed: int, only: Sequence[str] = ()) -> Iterator[Drawn]:
    """Without end; the same seed gives the same faults.

    Each kind comes once, in an order of its own, before any comes again: a short run has met them all.

    Args:
        only: types of failures; without any, all that may be drawn.
    """
    chance = random.Random(seed)
    kinds = [name for name, kind in KINDS.items() if kind.drawn and name in (only or KINDS)]
    while True:
        for kind in chance.sample(kinds, len(kinds)):
            failure = Failure(
                kind,
                trigger_after_seconds=0.0,
                duration_seconds=round(chance.uniform(SHORTEST_SECONDS, LONGEST_SECONDS), 2),
                xid=chance.choice(XIDS),
                mode=chance.choice(MODES),
            )
            yield Drawn(failure, chance.randrange(1000), round(chance.uniform(1.0, LONGEST_PAUSE_SECONDS), 2))
