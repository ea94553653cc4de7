"""How much slower than alone this process runs on the machine as it is now.

Deadlines of the suite's own waits (a proof, a boot, a request that has to arrive) grow with it; deadlines that a
sentence names, which are Dynamo's promises, do not.
"""

from pathlib import Path

from support import clock

MOST = 10.0
"""A machine that is slower than this is of no use, and waits have to end some time."""
LONGEST_ANSWER = 4.0
"""Answers do not get longer than this many times what they are on an idle machine: a scenario has to end."""
# With less than this there is little to tell from, and the whole life of the process tells more.
LEAST_RUN_SECONDS = 0.05
LONGEST_MEASURE_SECONDS = 1.0

Times = tuple[float, float]
"""Seconds that a thread ran, and seconds that it was runnable and did not run."""

UNKNOWN: Times = (0.0, 0.0)
"""Where the kernel does not tell."""

_began = UNKNOWN


def parse(schedstat: str) -> Times:
    """``/proc/PID/schedstat``: nanoseconds on a processor, nanoseconds runnable without one, number of time slices
    (kernel.org, "Scheduler Statistics").
    """
    ran, waited = (int(word) / 1e9 for word in schedstat.split()[:2])
    return ran, waited


def between(before: Times, after: Times) -> float:
    """Time from wanting to run to having run, in multiples of the time that it ran: from 1 to :data:`MOST`."""
    ran, waited = after[0] - before[0], after[1] - before[1]
    return min(MOST, (ran + waited) / ran) if ran > 0 else 1.0


def begin() -> None:
    """Count from now on: a new scenario begins, or its boot is over, which keeps the machine busy as nothing else."""
    global _began
    _began = _read()


def factor() -> float:
    """How many times longer this process's main thread takes for what it does; 1 where the kernel does not tell."""
    if not clock.of_the_machine():
        return 1.0  # time waits for whoever takes long
    seen = _read()
    return between(_began if seen[0] - _began[0] >= LEAST_RUN_SECONDS else (0.0, 0.0), seen)


def lengthened(seconds: float) -> float:
    """How long an answer has to take that on an idle machine is to take ``seconds``.

    Where this process has hardly run since :func:`begin` it works for some milliseconds, to have something to tell
    from.
    """
    if not clock.of_the_machine():
        return seconds
    deadline = clock.now() + LONGEST_MEASURE_SECONDS
    while (seen := _read()) != UNKNOWN and seen[0] - _began[0] < LEAST_RUN_SECONDS and clock.now() < deadline:
        pass
    return seconds * min(factor(), LONGEST_ANSWER)


def _read() -> Times:
    try:
        return parse(Path("/proc/self/schedstat").read_text(encoding="ascii"))
    except OSError:
        return UNKNOWN
