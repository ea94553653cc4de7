"""What the suite raises when it cannot do or cannot tell something, in one tree; and the one that blames Dynamo.

Every message names what was wanted, what was found instead and, where somebody can do something, what to do.
"""


class SuiteError(Exception):
    """The suite cannot go on with what it was told to do. Not an AssertionError on purpose: behave then reports an
    error, not a failure."""


class Inconclusive(SuiteError):
    """The history proves nothing about Dynamo: the fault was not proven, nothing was in flight, the client lagged, or
    the surroundings failed."""


class Unsupported(SuiteError):
    """The chosen Dynamo release cannot do what a scenario wants; the scenario is skipped with this reason."""


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


class TooLate(AssertionError):
    """Something that Dynamo has promised within a time did not come within it.

    Attributes:
        bound: the promise, in seconds.
        since, until: the time that was given for it, on :mod:`support.clock`.
    """

    def __init__(self, message: str, bound: float, since: float, until: float) -> None:
        super().__init__(message)
        self.bound, self.since, self.until = bound, since, until
