"""The one clock of a scenario.

Linux's CLOCK_MONOTONIC is the same for every process of a machine, inside and outside of namespaces, so times
written by the client, the node agent and the ruler engine can be compared without any offset.
"""

import time


def now() -> float:
    """Seconds on CLOCK_MONOTONIC; only differences and comparisons on the same machine mean anything."""
    return time.monotonic()
