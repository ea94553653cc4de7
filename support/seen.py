"""What was seen instead of what was promised: small values with typed fields, whose words are made from them.

A rule of the judge, a checker and a sentence that does not hold report what they have seen as one of these. Records of
known defects, the table of sabotages and reports look at kind and fields, never at the words.
"""

import signal
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import ClassVar

from support.amounts import amount

Fact = str | int | float | bool | None

NO_ANSWER = "the frontend does not answer"

KINDS: dict[str, type["Seen"]] = {}
"""Name of a kind -> its class."""


@dataclass(frozen=True)
class Seen:
    """Something that was seen; subclasses are the kinds.

    Attributes:
        kind: what it is called; ``template``: its words, with its fields.
        prose: its fields that are words for people, which nothing may compare.
    """

    kind: ClassVar[str] = ""
    template: ClassVar[str] = ""
    prose: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, kind: str, words: str = "", prose: tuple[str, ...] = ()) -> None:
        cls.kind, cls.template, cls.prose = kind, words, prose
        KINDS[kind] = cls

    @property
    def facts(self) -> dict[str, Fact]:
        """Field -> value, of those that may be compared."""
        return {name: getattr(self, name) for name in comparable(self.kind)}

    @property
    def words(self) -> str:
        """One line for people."""
        return self.template.format(**vars(self))


def comparable(kind: str) -> list[str]:
    """The fields of a kind that may be compared."""
    return [each.name for each in fields(KINDS[kind]) if each.name not in KINDS[kind].prose]


def told(seen: Iterable[Seen]) -> str:
    """Several in one line."""
    return ", ".join(each.words for each in seen)


@dataclass(frozen=True)
class Told(Seen, kind="told", words="{said}", prose=("said",)):
    """What has no fields: words of an exception, of the machine, or of a program."""

    said: str


# -- answers


@dataclass(frozen=True)
class AnswerSeen(Seen, kind="answer", prose=("opinion", "why", "error")):
    """An answer that is not what it had to be.

    Attributes:
        request: its number.
        wanted: ``complete`` or ``error``; empty: any sound outcome.
        outcome: as :class:`support.requests.outcomes.Outcome` has it, and its ``flaw``; ``why``: the same in words.
        status: of HTTP; None where none came.
        choices: how many were asked for.
        tokens: how many came (of choice 0); ``asked``: how many were asked for.
        finish_reason: of all choices, with commas; empty for none.
        error: the first error in it, as it was sent; ``error_code`` and ``error_says``: its fields ``code`` and
            ``message``, where it is an object with such.
        end: as the ledger has it.
        opinion: what the client library that users have makes of it; empty where it was not asked.
    """

    request: int
    wanted: str
    outcome: str
    flaw: str
    status: int | None
    choices: int
    tokens: int
    asked: int
    finish_reason: str
    error_code: int | None
    error_says: str
    end: str
    opinion: str
    why: str
    error: str

    @property
    def described(self) -> str:
        """What came: status, tokens, finish reason, error, end."""
        parts = [
            f"HTTP {self.status}" if self.status is not None else "no HTTP status",
            f"{self.tokens} of {amount(self.asked, 'token')}",
            f"finish_reason {self.finish_reason}" if self.finish_reason else "no finish_reason",
        ]
        if self.error:
            parts.append(f"error {self.error_says!r}" if self.error_says else f"error {self.error}")
        if self.end != "complete":
            parts.append(self.end or "still in flight")
        return ", ".join(parts)

    @property
    def words(self) -> str:
        """See :class:`Seen`."""
        if self.wanted == "complete":
            told = not self.why or (self.error and self.error in self.why)  # which is told with the rest
            why = self.outcome if told else f"{self.outcome}: {self.why}"
            whole = f"{amount(self.asked, 'token')} and a finish_reason"
            wanted = f"request {self.request} should have completed with {whole}"
            return f"{wanted}, but got {self.described} ({why})"
        if self.wanted == "error":
            seen = self.why or self.described
            return f"request {self.request} should have ended in a clean error, but is {self.outcome}: {seen}"
        return f"{self.why} ({self.described})"


@dataclass(frozen=True)
class AnswerFlaw(Seen, kind="answer-flaw", words="{said}", prose=("said",)):
    """Something inside of an answer that no answer may have.

    Attributes:
        request: its number; ``choice``: which of its choices.
        flaw: what is wrong: ``token-count``, ``no-position``, of positions one or several of ``invented``,
            ``repeated``, ``lost`` and ``reordered``, ``after-done``, ``after-finish``, ``changed`` (id, created or
            model), ``no-json``, ``no-piece``, ``no-usage``.
        tokens: how many came; ``asked``: how many were asked for.
    """

    request: int
    choice: int
    flaw: str
    tokens: int
    asked: int
    said: str


@dataclass(frozen=True)
class Handed(Seen, kind="given", words="{said}", prose=("said",)):
    """What a worker was given of a request, and should not have been.

    Attributes:
        request_id: as workers know it.
        node: the worker.
        flaw: ``budget``, ``fewer-tokens``, ``too-many-workers``, ``after-cancel``, ``never-let-go``,
            ``not-stopped``, ``moved`` (it should have stayed where it was).
        workers: how many were given it; ``late``: seconds after it was cancelled; None: no matter.
    """

    request_id: str
    node: str
    flaw: str
    workers: int
    late: float | None
    said: str


@dataclass(frozen=True)
class EtcdSeen(Seen, kind="etcd", words="{said}", prose=("said",)):
    """Something that an etcd cluster must not show.

    Attributes:
        node: whose doing or lease it is; empty: the whole cluster's, or unknown.
        flaw: ``two-leaders``, ``revision-back``, ``lease-early``, ``disagreement``, ``hashes``, ``no-leader``,
            ``registered``, ``no-answer``.
        amount: how many leaders, revisions or seconds.
    """

    node: str
    flaw: str
    amount: float
    said: str


@dataclass(frozen=True)
class BillSeen(Seen, kind="bill"):
    """A usage that differs from what was sent and what the client counted; None: it does not say.

    Attributes:
        request: number of the request.
        prompt_tokens, completion_tokens, total_tokens: as billed; ``..._over``: less what is right.
    """

    request: int
    prompt_tokens: int | None
    prompt_over: int | None
    completion_tokens: int | None
    completion_over: int | None
    total_tokens: int | None
    total_over: int | None

    @property
    def wrong(self) -> bool:
        """Whether it differs at all."""
        return any(over != 0 for over in (self.prompt_over, self.completion_over, self.total_over))

    @property
    def words(self) -> str:
        """See :class:`Seen`."""
        bill = {
            "prompt_tokens": (self.prompt_tokens, self.prompt_over),
            "completion_tokens": (self.completion_tokens, self.completion_over),
            "total_tokens": (self.total_tokens, self.total_over),
        }
        wrong = [
            f"{name} {billed}" if billed is None or over is None else f"{name} {billed} instead of {billed - over}"
            for name, (billed, over) in bill.items()
            if over != 0
        ]
        return f"usage says {', '.join(wrong)}"


@dataclass(frozen=True)
class TooSlow(Seen, kind="time", words="{what} {seconds:.2f} s; at most {allowed:g} s is allowed", prose=("what",)):
    """Something of a request took longer than it may.

    Attributes:
        request: its number; ``part``: ``first-token``, ``pause`` or ``end``.
        seconds: that it took; ``allowed``: that it may take.
    """

    request: int
    part: str
    seconds: float
    allowed: float
    what: str


# -- processes


@dataclass(frozen=True)
class ProcessEnd(Seen, kind="process-end"):
    """How a process ended that should have exited with status 0.

    Attributes:
        node, role: whose it was.
        status: its exit status; None where a signal ended it. ``signal``: that signal's name, else empty.
        after: seconds from when it was shut down; None: no matter.
    """

    node: str
    role: str
    status: int | None
    signal: str
    after: float | None = None

    @classmethod
    def of(cls, node: str, role: str, code: int, after: float | None = None) -> "ProcessEnd":
        """That of an exit code, negative for a signal."""
        return cls(node, role, None if code < 0 else code, signal.Signals(-code).name if code < 0 else "", after)

    @property
    def words(self) -> str:
        """See :class:`Seen`."""
        how = f"ended by signal {self.signal}" if self.signal else f"exited with status {self.status}"
        if self.after is None:
            return f"{self.node} {how}"
        return f"it was shut down and {how} after {self.after:.1f} s; expected exit status 0"


@dataclass(frozen=True)
class ProcessThere(Seen, kind="process-there", words="{node} still there ({state})"):
    """A process that should be gone and is still there.

    Attributes:
        node, role: whose it is.
        state: as the witness has it, ``alive`` or ``stopped``.
        seconds: for how long it had been time to go.
    """

    node: str
    role: str
    state: str
    seconds: float


@dataclass(frozen=True)
class ProcessLeft(Seen, kind="process-late", words="{node} exited after {seconds:.1f} s; {allowed:g} s are allowed"):
    """A process that exited later than it may."""

    node: str
    role: str
    seconds: float
    allowed: float


@dataclass(frozen=True)
class ProcessGone(Seen, kind="process-gone", words="{node} ended although nothing was done to it"):
    """A process that has ended by itself."""

    node: str
    role: str


@dataclass(frozen=True)
class NotHandedOver(
    Seen, kind="not-handed-over", words="{node} handed nothing over: the frontend has moved no request in flight"
):
    """A worker that should have handed over its requests, and did not."""

    node: str
    role: str


@dataclass(frozen=True)
class Moved(Seen, kind="moved", words="the frontend has moved requests in flight, {times:g} times"):
    """Requests were moved that should have stayed where they were."""

    times: float


@dataclass(frozen=True)
class Busy(Seen, kind="in-flight", words="{node} has {requests:g}"):
    """A worker that still has requests, with none to work on."""

    node: str
    role: str
    requests: float


@dataclass(frozen=True)
class Silent(Seen, kind="silent", words="{node} does not answer"):
    """A process that runs, that nothing was done to, and that does not answer."""

    node: str
    role: str


@dataclass(frozen=True)
class Took(Seen, kind="produced", words="{node} {bytes:g} bytes"):
    """What a worker has produced of answers that were not, or were, its to write."""

    node: str
    role: str
    bytes: float


@dataclass(frozen=True)
class PanicSeen(Seen, kind="panic", prose=("text",)):
    """Rust code of a process has panicked.

    Attributes:
        node, role: whose process.
        file: where in Dynamo's sources; ``line``: 0 where the log does not say.
        says: its message; ``times``: how often; ``text``: as the log has it.
    """

    node: str
    role: str
    file: str
    line: int
    says: str
    times: int
    text: str

    @property
    def words(self) -> str:
        """See :class:`Seen`."""
        return self.text + (f" ({self.times} times)" if self.times > 1 else "")


# -- what the deployment says of itself


@dataclass(frozen=True)
class GaugeSeen(Seen, kind="gauge", words="{metric} is {value:g} after the last request ended; expected 0"):
    """A gauge of a node that is not back at zero."""

    node: str
    role: str
    metric: str
    value: float


@dataclass(frozen=True)
class WorkersListed(Seen, kind="workers-listed"):
    """How many workers the frontend lists.

    Attributes:
        wanted: how many it has to list; ``listed``: how many it does, None where it does not answer.
        dead: how many of those are there no more.
        after: seconds for which it was looked at; None: no matter.
    """

    wanted: int
    listed: int | None
    dead: int = 0
    after: float | None = None

    @property
    def words(self) -> str:
        """See :class:`Seen`."""
        seen = NO_ANSWER if self.listed is None else f"the frontend lists {amount(self.listed, 'worker')}"
        if self.dead:
            seen += f", {self.dead} of them no longer there"
        return f"{seen} after {self.after:.1f} s; expected {self.wanted}" if self.after is not None else seen


@dataclass(frozen=True)
class ModelsListed(Seen, kind="models-listed"):
    """How many models the frontend lists, where it has to list another number; None: it does not answer."""

    listed: int | None

    @property
    def words(self) -> str:
        """See :class:`Seen`."""
        return NO_ANSWER if self.listed is None else f"the frontend lists {amount(self.listed, 'model')}"


@dataclass(frozen=True)
class CounterSeen(Seen, kind="counter", words="{metric} rose by {grown:g}; expected {least} to {most}"):
    """A counter that has not grown as it had to."""

    metric: str
    grown: float
    least: float
    most: float


@dataclass(frozen=True)
class Touched(Seen, kind="touched", words="{node}, which no fault was for, {said}", prose=("said",)):
    """Harm to a node that no fault was for.

    Attributes:
        flaw: ``process``, ``gpu`` or ``packets``.
    """

    node: str
    role: str
    flaw: str
    said: str


@dataclass(frozen=True)
class ShareSeen(Seen, kind="share", words="{node} got {requests} of {of} new requests; expected less than {most:g} %"):
    """How many of the new requests a worker got."""

    node: str
    requests: int
    of: int
    most: float


# -- loads


@dataclass(frozen=True)
class LoadSeen(Seen, kind="load", prose=("said",)):
    """What a checker holds against a load.

    Attributes:
        check: its name.
        requests: that were asked and not given up; ``failed``: those without a whole answer; ``broken``: those of
            them that did not end cleanly.
        statuses: the HTTP statuses of those that failed, in order, with commas; ``none`` for one that got none.
        error_codes: the field ``code`` of the errors that they got, likewise.
        flaws: what made the broken ones broken, likewise (:class:`support.requests.outcomes.Outcome`).
        failing_seconds: from when the first request that failed was due to when the last one was; 0.0: none, or one.
        silence: the longest time without a token, in seconds, where the checker measures it; None: it does not.
        recovered: percentage of requests that succeeded in the phase RECOVERY; None where there is none.
        last_succeeded: whether the last request that was due did.
        said: in the checker's words.
    """

    check: str
    requests: int
    failed: int
    broken: int
    statuses: str
    error_codes: str
    flaws: str
    failing_seconds: float
    silence: float | None
    recovered: float | None
    last_succeeded: bool
    said: str

    @property
    def words(self) -> str:
        """See :class:`Seen`."""
        return f"{self.check.replace('_', ' ')}: {self.said}"
