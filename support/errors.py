"""What the suite raises when it cannot do or cannot tell something, in one tree; and those that blame Dynamo.

Every message names what was wanted, what was found instead and, where anything helps, what to do.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from support.amounts import amount
from support.seen import Seen, told

LACKS = {
    "simulated vllm": "has no simulated vllm",
    "simulated sglang": "has no simulated sglang",
    "simulated trtllm": "has no simulated trtllm",
    "disaggregated vllm": "simulates no disaggregated vllm",
    "disaggregated sglang": "simulates no disaggregated sglang",
    "disaggregated trtllm": "simulates no disaggregated trtllm",
    "sequence cap": "has no cap on the length of migrated sequences",
    "sequence limit": "simulates no limit on the length of a sequence",
    "stream timeout": "has no timeout for silent workers",
    "cancel count": "has no count of cancelled requests",
    "drain deadline": "has no drain deadline",
    "busy threshold": "rejects nothing when its workers are busy",
    "least-loaded router": "is not known to have the router least-loaded",
    "Kubernetes discovery": "is not known to work with its own Kubernetes discovery",
}
"""What a release of Dynamo may lack, as support/judge/skips.yaml names it -> the same in words."""


class SuiteError(Exception):
    """The suite cannot go on with what it was told to do. Not an AssertionError on purpose: behave then reports an
    error, not a failure."""


class Mistake(SuiteError, ValueError):
    """What somebody wrote makes no sense: a sentence, a table, a tag, a YAML file. It says nothing about Dynamo, and
    the verdict on the scenario is *mistake*.

    Attributes:
        wrong: what is wrong.
        allowed: the right words, where they can be listed.
        write: what to write instead; empty where nobody can know.
    """

    def __init__(self, wrong: str, allowed: Iterable[str] = (), write: str = "") -> None:
        self.wrong, self.allowed, self.write = wrong, tuple(allowed), write
        expected = f"; expected one of: {', '.join(self.allowed)}" if self.allowed else ""
        super().__init__(f"{wrong}{expected}{f'; write {write}' if write else ''}")

    def inside(self, of: str) -> "Mistake":
        """The same of a part ``of`` something, with which the message begins."""
        return Mistake(f"{of}: {self.wrong}", self.allowed, self.write)


class Inconclusive(SuiteError):
    """The history proves nothing about Dynamo: the fault was not proven, nothing was in flight, the client lagged, or
    the surroundings failed."""


class Unsupported(SuiteError):
    """The chosen Dynamo release cannot do what a scenario wants; the scenario is skipped with this reason.

    Attributes:
        lack: what it lacks, one of :data:`LACKS`.
    """

    def __init__(self, release: str, lack: str) -> None:
        super().__init__(f"Dynamo {release} {LACKS[lack]}")
        self.lack = lack


class DeploymentFailed(SuiteError):
    """The deployment did not come up; the message has the last lines of the log of the process to blame."""


class Refused(SuiteError):
    """A program that was asked over HTTP refused or is gone.

    Attributes:
        status: the HTTP status; 0 when there was no answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotKept(AssertionError):
    """A promise of Dynamo was not kept.

    Args:
        seen: what was seen instead, one for each process, request or load that it is about.
        message: empty: the words of ``seen``.
    """

    def __init__(self, *seen: Seen, message: str = "") -> None:
        super().__init__(message or told(seen))
        self.seen = seen


@dataclass(frozen=True)
class Since:
    """From when a time in a sentence counts.

    Attributes:
        at: on :mod:`support.clock`.
        words: what happened then, ``the last fault``; empty in a wait that no sentence names.
    """

    at: float
    words: str = ""


class TooLate(NotKept):
    """Something that Dynamo has promised within a time did not come within it; the message says from when it counts.

    Attributes:
        what: that did not come, and what was seen instead.
        bound: the promise, in seconds.
        origin: from when it counts; ``until``: when the time was over, or it came after all, on :mod:`support.clock`.
    """

    def __init__(self, what: str, bound: float, since: Since, until: float, seen: Sequence[Seen] = ()) -> None:
        origin = f" of {since.words}" if since.words else ""
        super().__init__(*seen, message=f"not within {amount(bound, 'second')}{origin}: {what}")
        self.what, self.bound, self.origin, self.until = what, bound, since, until

    @property
    def since(self) -> float:
        """When the time began that was given for it, on :mod:`support.clock`."""
        return self.origin.at


def nearest(word: str, words: Iterable[str]) -> str:
    """The one of ``words`` that was meant, as far as its letters tell; empty where none is close."""
    by_lower_case = {each.lower(): each for each in words}
    found = difflib.get_close_matches(word.lower(), by_lower_case, 1)
    return by_lower_case[found[0]] if found else ""


def unknown(what: str, word: str, words: Iterable[str]) -> Mistake:
    """That ``word`` is none of ``words``, with the one that was meant."""
    allowed = list(words)
    return Mistake(f"unknown {what} {word!r}", allowed, nearest(word, allowed))
