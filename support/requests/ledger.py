"""The request ledger: every request that the suite sent in a scenario, token by token, on one clock."""

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from support import clock
from support.clock import now
from support.requests.pace import held_between, pause


@dataclass(slots=True)
class Chunk:
    """One ``data:`` event of a stream, or the whole body of a unary answer.

    Attributes:
        at: when the client read it, seconds on :mod:`support.clock`.
        kind: ``token`` (carries something that the model wrote: text, reasoning, a refusal, a tool call), ``role`` (an
            empty delta that opens a chat answer), ``finish`` (an empty delta with a finish reason), ``usage``,
            ``error`` (whatever the status), ``done`` (``[DONE]``), ``body`` (unary), ``other``.
        index: the choice that it belongs to; None where it belongs to none.
        tokens: the tokens of what the model wrote. The suite's tokenizer makes each whitespace-separated word one
            token; white space alone is one token.
        positions: absolute positions of those tokens where the ruler engine wrote them (``p17`` is position 17), else
        [].
        finish_reason: as the server sent it, else None.
        completion_id, created, model: as the server sent them, else None.
        raw: the payload as text, kept for everything that is not a plain token chunk.
    """

    at: float
    kind: str
    index: int | None = None
    tokens: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    completion_id: str | None = None
    created: int | None = None
    model: str | None = None
    raw: str = ""


@dataclass(frozen=True)
class Opinion:
    """What the client library that users have makes of an answer (:mod:`support.requests.user_client`).

    Attributes:
        client: its name and version.
        kind: ``whole`` (no exception, and a finish reason for each choice that came), ``error`` (one of its API
            errors), ``crash`` (another exception, which a program that handles API errors does not catch), ``silent``
            (no exception and no whole answer: the program goes on with what it has).
        says: the exception, or what the program has in its hands; one line.
        played: number of the request whose bytes it was given; another one than the entry's own where one of several
            answers of the same shape was asked about.
    """

    client: str
    kind: str
    says: str
    played: int


@dataclass
class LedgerEntry:
    """All that the client saw of one request.

    Times are seconds on :mod:`support.clock`; None means that it did not happen. ``end`` is None while the request is
    in flight, then one of ``complete`` (the server closed the answer in an orderly way: the HTTP body ended),
    ``cancelled`` (by us), ``lost`` (connection reset or closed mid-body), ``refused`` (no connection), ``timeout``
    (our own deadline).
    ``complete`` says nothing about the content: that is for the judge. ``holds`` are the spells, each its begin and its
    end, in which the suite itself held the answer back (:mod:`support.world.gate`).


    ``received`` is the body as it came, without the framing of HTTP, and ``received_size`` its length; ``received`` is
    empty where the bytes were not kept (over :data:`support.requests.reader.KEPT_BYTES`, or one of many of its shape in
    a load). ``opinion`` is given after the scenario. ``exact_tokens``: whether its tokens can be counted as they come,
    which is not so with another tokenizer than ours.
    """

    number: int
    api: str
    stream: bool
    model: str
    prompt: str
    max_tokens: int
    n: int = 1
    usage_asked: bool = False
    url: str = ""
    body: dict[str, Any] = field(default_factory=dict)
    headers_sent: dict[str, str] = field(default_factory=dict)
    intended_at: float = 0.0
    sent_at: float | None = None
    connected_at: float | None = None
    headers_at: float | None = None
    status_code: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    cancelled_at: float | None = None
    cancelled_by: str | None = None
    ended_at: float | None = None
    end: str | None = None
    exception: str | None = None
    lag_seconds: float = 0.0
    holds: list[list[float]] = field(default_factory=list)
    received: bytes = b""
    received_size: int = 0
    opinion: Opinion | None = None
    exact_tokens: bool = True

    @property
    def tokens(self) -> list[str]:
        """All tokens of choice 0 in the order in which they came."""
        return [token for chunk in self.chunks if chunk.index in (0, None) for token in chunk.tokens]

    @property
    def positions(self) -> list[int]:
        """All ruler positions of choice 0 in the order in which they came; [] on other engines."""
        return [position for chunk in self.chunks if chunk.index in (0, None) for position in chunk.positions]

    @property
    def finish_reasons(self) -> list[str]:
        """Every finish reason of choice 0; a sound answer has exactly one."""
        return [chunk.finish_reason for chunk in self.chunks if chunk.index in (0, None) and chunk.finish_reason]

    @property
    def errors(self) -> list[str]:
        """Payloads of the error objects inside the answer, whatever its status."""
        return [chunk.raw for chunk in self.chunks if chunk.kind == "error"]

    @property
    def done_count(self) -> int:
        """How often the stream said ``[DONE]``."""
        return sum(chunk.kind == "done" for chunk in self.chunks)

    @property
    def completion_id(self) -> str | None:
        """The id of the answer (``cmpl-UUID``); its UUID part is what the workers log as the request id."""
        return next((chunk.completion_id for chunk in self.chunks if chunk.completion_id), None)

    @property
    def token_times(self) -> list[float]:
        """Arrival time of every token of choice 0, one entry per token."""
        return [chunk.at for chunk in self.chunks if chunk.index in (0, None) for _ in chunk.tokens]

    @property
    def pause(self) -> tuple[float, float] | None:
        """Begin and end of the longest time in which a choice got no token, see :mod:`support.requests.pace`; None
        without tokens.
        """
        times: dict[int, list[float]] = {}
        for chunk in self.chunks:
            times.setdefault(chunk.index or 0, []).extend([chunk.at] * len(chunk.tokens))
        due = self.intended_at if self.sent_at is None else self.sent_at
        pauses = [pause(due, each, self.holds) for each in times.values() if each]
        return max(pauses, key=lambda gap: gap[1] - gap[0] - self.held_between(*gap), default=None)

    @property
    def longest_pause(self) -> float:
        """Length of :attr:`pause` in seconds, less what the suite itself held the answer back in it; 0.0 where there is
        none.
        """
        begin, end = self.pause or (0.0, 0.0)
        return end - begin - self.held_between(begin, end)

    def held_between(self, begin: float, end: float) -> float:
        """Seconds between two times in which the suite held the answer back."""
        return held_between(self.holds, begin, end)


class Ledger:
    """Thread-safe collection of entries with conditions to wait on.

    Args:
        first_number: number of its first entry.
    """

    def __init__(self, first_number: int = 1) -> None:
        self._changed = clock.condition()
        self._first_number = first_number
        self._entries: list[LedgerEntry] = []

    def open(self, **fields: Any) -> LedgerEntry:
        """Add an entry; ``fields`` are those of :class:`LedgerEntry` except ``number``, which is given here in turn."""
        with self._changed:
            entry = LedgerEntry(number=self._first_number + len(self._entries), **fields)
            self._entries.append(entry)
            self._changed.notify_all()
        return entry

    def adopt(self, entries: Iterable[LedgerEntry]) -> None:
        """Take up entries of another ledger; they are numbered again."""
        with self._changed:
            for entry in entries:
                entry.number = self._first_number + len(self._entries)
                self._entries.append(entry)
            self._changed.notify_all()

    def update(self, change: Callable[[], None]) -> None:
        """Run ``change``, which edits an entry, and wake whoever waits on the ledger."""
        with self._changed:
            change()
            self._changed.notify_all()

    def entries(self) -> list[LedgerEntry]:
        """The entries so far in the order of their numbers."""
        with self._changed:
            return list(self._entries)

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``condition()`` holds; it is asked again after every change. False when ``timeout`` seconds
        passed first.
        """
        deadline = now() + timeout
        with self._changed:
            while not condition():
                left = deadline - now()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def write(self, path: Path) -> None:
        """Write all entries as JSON lines; what stood there before stays until they are whole."""
        with self._changed:
            lines = [json.dumps(pack(entry)) for entry in self._entries]
        draft = path.with_name(f".{path.name}")
        draft.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        draft.replace(path)


def _defaults(of: type[Chunk] | type[LedgerEntry]) -> dict[str, Any]:
    """Field -> its default; MISSING, which equals nothing else, where it has none."""
    return {
        each.name: each.default if each.default_factory is MISSING else each.default_factory() for each in fields(of)
    }


_CHUNK_FIELDS, _ENTRY_FIELDS = _defaults(Chunk), _defaults(LedgerEntry)
_SHARED = ("kind", "index", "completion_id", "created", "model")


def pack(entry: LedgerEntry) -> dict[str, Any]:
    """An entry as plain data, small and quickly written: plain tokens in a row become one ``run``, and fields
    that say nothing are left out; the bytes of the answer are deflated and in base 64. :func:`unpack` gives back the
    very same entry.
    """
    packed = _telling(entry, _ENTRY_FIELDS)
    chunks: list[dict[str, Any]] = []
    run: dict[str, Any] | None = None
    for chunk in entry.chunks:
        tokens, positions = chunk.tokens, chunk.positions
        plain = chunk.kind == "token" and len(tokens) == 1 and not chunk.raw and chunk.finish_reason is None
        if not plain or len(positions) > 1:
            run = None
            chunks.append(_telling(chunk, _CHUNK_FIELDS))
            continue
        if (
            run is None
            or run["completion_id"] != chunk.completion_id
            or run["index"] != chunk.index
            or run["created"] != chunk.created
            or run["model"] != chunk.model
            or bool(run["positions"]) != bool(positions)
        ):
            run = {name: getattr(chunk, name) for name in _SHARED} | {"run": [], "tokens": [], "positions": []}
            chunks.append(run)
        run["run"].append(chunk.at)
        run["tokens"].append(tokens[0])
        if positions:
            run["positions"].append(positions[0])
    packed["chunks"] = chunks
    # Last, so that a reader of the file meets what he can read first.
    if entry.received:
        packed["received"] = base64.b64encode(zlib.compress(packed.pop("received"), 1)).decode()
    if entry.opinion:
        packed["opinion"] = asdict(entry.opinion)
    return packed


def _telling(of: object, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``of`` that are not as they are by default."""
    return {name: value for name, default in defaults.items() if (value := getattr(of, name)) != default}


def unpack(packed: Mapping[str, Any]) -> LedgerEntry:
    """The entry that :func:`pack` was given."""
    chunks: list[Chunk] = []
    for each in packed["chunks"]:
        if "run" not in each:
            chunks.append(Chunk(**each))
            continue
        shared = {name: each[name] for name in _SHARED}
        positions = [[position] for position in each["positions"]] or [[] for _ in each["run"]]
        chunks += [
            Chunk(at=at, tokens=[token], positions=position, **shared)
            for at, token, position in zip(each["run"], each["tokens"], positions, strict=True)
        ]
    entry = LedgerEntry(**{**packed, "chunks": chunks})
    if "received" in packed:
        entry.received = zlib.decompress(base64.b64decode(packed["received"]))
    if "opinion" in packed:
        entry.opinion = Opinion(**packed["opinion"])
    return entry


def read_ledger(path: Path) -> list[LedgerEntry]:
    """The entries of an earlier run; a file that is not there is an empty ledger."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            entries.append(unpack(json.loads(line)))
    return entries
