"""What a load is to be: checked before anything starts, and the same requests each time for the same seed."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated

from support.schema import (
    Expected,
    Invalid,
    NonNegativeFloat,
    NonNegativeInt,
    OneOf,
    PositiveFloat,
    PositiveInt,
    read,
)

ENDPOINTS = {"completions": "completions", "chat/completions": "chat"}
"""Endpoint below ``/v1/`` -> name of the API in the ledger."""
ARRIVALS = ("closed", "constant", "poisson", "ramp")

Lengths = Annotated[
    PositiveInt | Sequence[PositiveInt] | Mapping[str, PositiveInt],
    Expected("whole numbers, 1 or more: one, a list, or such as {from: 50, to: 400}"),
]
"""A length, several of which each is as likely, or ``{"from": 50, "to": 400}`` with all between."""


@dataclass(frozen=True)
class Planned:
    """One request that a load is to send.

    Attributes:
        number: unique in the load, from 1 up.
        client: which client sends it, from 0 up; ``process`` which of the load's processes does.
        offset: seconds from the start of the load to its intended time; None in a closed loop, where a request is due
            when the one before it has ended.
        cancel_after: tokens after which the client gives up; None: never.
    """

    number: int
    client: int
    process: int
    offset: float | None
    prompt_words: int
    max_tokens: int
    cancel_after: int | None


@dataclass(frozen=True)
class Load:
    """A load, on whatever deployment.

    Attributes:
        clients: in a closed loop each sends its next request when its last one has ended.
        requests_per_client: how many each sends; or else
        duration_seconds: for how long new requests are begun.
        endpoint: key of :data:`ENDPOINTS`.
        stream: server-sent events, or one body.
        prompt_words, max_tokens: :data:`Lengths` of prompts and answers.
        arrival: ``closed``, or an open loop that waits for nobody: ``constant``, ``poisson``, or ``ramp`` from ``rate``
            to ``rate_end``.
        rate: requests per second of an open loop; ``rate_end`` at the end of a ramp.
        cancel_share: share of the requests that are given up mid-answer, from 0 to 1: streams after some of their
            tokens, those in one body after ``cancel_seconds``.
        deadline_seconds: of each request.
        retries: further attempts after one that brought no whole answer; each is recorded.
        retry_seconds: a client that got no whole answer waits this long before it tries again, and in a closed loop
            before its next request; else rejections, which take no time, would make up nearly all of its requests.
        gives_up: a client that got no whole answer asks no more; in a closed loop that asks for a time.
        stagger_seconds: in a closed loop, from the start of one client to that of the next.
        processes: how many processes share the clients.
        seed: the same seed, the same requests.
    """

    clients: PositiveInt = 1
    requests_per_client: PositiveInt | None = None
    duration_seconds: PositiveFloat | None = None
    endpoint: Annotated[str, OneOf(ENDPOINTS)] = "completions"
    stream: bool = True
    prompt_words: Lengths = 10
    max_tokens: Lengths = 100
    arrival: Annotated[str, OneOf(ARRIVALS)] = "closed"
    rate: PositiveFloat | None = None
    rate_end: PositiveFloat | None = None
    cancel_share: Annotated[float, Expected("0 to 1", ge=0, le=1)] = 0.0
    cancel_seconds: PositiveFloat | None = None
    deadline_seconds: PositiveFloat = 60.0
    retries: NonNegativeInt = 0
    retry_seconds: NonNegativeFloat = 0.2
    gives_up: bool = False
    stagger_seconds: NonNegativeFloat = 0.005
    processes: PositiveInt = 1
    seed: int = 0

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: names the field, what was expected and what was given.
        """
        read(type(self), self)
        if (self.requests_per_client is None) == (self.duration_seconds is None):
            raise ValueError("expected one of requests_per_client and duration_seconds, and not both")
        if (self.cancel_seconds is None) == (self.cancel_share > 0 and not self.stream):
            what = f"cancel_share {self.cancel_share:g} with stream {self.stream} and cancel_seconds"
            raise ValueError(f"{what} {self.cancel_seconds!r}; requests given up before their one body have it alone")
        if (self.rate is None) != (self.arrival == "closed"):
            raise ValueError(
                f"arrival {self.arrival!r} with rate {self.rate!r}; an open loop has a rate, a closed one has none"
            )
        if (self.rate_end is None) != (self.arrival != "ramp"):
            raise ValueError(f"arrival {self.arrival!r} with rate_end {self.rate_end!r}; a ramp has one, others none")
        if self.gives_up and (self.arrival != "closed" or self.requests_per_client is not None):
            raise ValueError("gives_up is true; only a closed loop with duration_seconds may have it")
        if self.processes > self.clients and self.arrival == "closed":
            raise ValueError(f"{self.processes} processes for {self.clients} clients; expected no more than clients")
        bounds("prompt_words", self.prompt_words)
        bounds("max_tokens", self.max_tokens)

    @property
    def most_requests(self) -> int | None:
        """How many requests there will be; None where that depends on how fast answers come."""
        if self.requests_per_client is not None:
            return self.clients * self.requests_per_client
        return None if self.arrival == "closed" else sum(1 for _ in self._offsets())

    @property
    def most_tokens(self) -> int | None:
        """No more tokens than these can be asked for; None where that depends on how fast answers come."""
        return None if self.most_requests is None else self.most_requests * bounds("max_tokens", self.max_tokens)[1]

    @property
    def most_seconds(self) -> float:
        """No new request is begun later, however slowly answers come."""
        if self.duration_seconds is not None:
            return self.duration_seconds
        if self.arrival != "closed":
            return max(self._offsets())
        each = self.deadline_seconds + self.retries * (self.retry_seconds + self.deadline_seconds)
        return self.stagger_seconds * self.clients + (self.requests_per_client or 0) * (each + self.retry_seconds)

    def request(self, client: int, turn: int, offset: float | None = None, process: int | None = None) -> Planned:
        """The request that ``client`` (from 0) sends as its ``turn``-th (from 0), by its own process unless told."""
        chance = random.Random(f"{self.seed}/{client}/{turn}")
        words, tokens = _draw(chance, self.prompt_words), _draw(chance, self.max_tokens)
        cancelled = chance.random() < self.cancel_share
        return Planned(
            number=turn * self.clients + client + 1,
            client=client,
            process=client % self.processes if process is None else process,
            offset=offset,
            prompt_words=words,
            max_tokens=tokens,
            cancel_after=chance.randint(1, max(1, tokens - 1)) if cancelled else None,
        )

    def requests(self) -> Iterator[Planned]:
        """All requests in the order of their numbers, as far as they are known before the load has begun."""
        if self.arrival != "closed":
            for index, offset in enumerate(self._offsets()):
                yield self.request(index % self.clients, index // self.clients, offset, index % self.processes)
        else:
            for turn in range(self.requests_per_client or 0):
                for client in range(self.clients):
                    yield self.request(client, turn)

    def _offsets(self) -> Iterator[float]:
        assert self.rate is not None
        chance = random.Random(f"{self.seed}/arrivals")
        limit = self.clients * self.requests_per_client if self.requests_per_client else None
        # The length of a ramp that is given by a count is what that count takes at the mean of both rates.
        length = self.duration_seconds or (limit or 0) / ((self.rate + (self.rate_end or self.rate)) / 2)
        at, sent = 0.0, 0
        while sent < limit if limit is not None else at < length:
            yield at
            share = min(1.0, at / length)
            rate = self.rate + ((self.rate_end or self.rate) - self.rate) * share
            sent += 1
            if self.arrival == "constant":
                at = sent / self.rate  # and no sum, whose rounding errors add up
            else:
                at += chance.expovariate(rate) if self.arrival == "poisson" else 1 / rate


@dataclass(frozen=True, kw_only=True)
class LoadPlan(Load):
    """A load on a deployment.

    Attributes:
        base_url: ``http://HOST:PORT`` of the frontend.
        phase: name of the phase that all of its requests belong to; empty where marks tell (:mod:`support.requests.
            load_log`).
        exact_tokens: whether the tokens of its answers can be counted as they come.
    """

    base_url: str
    model: str
    phase: str = ""
    exact_tokens: bool = True

    @classmethod
    def of(cls, load: Load, base_url: str, model: str, phase: str = "", exact_tokens: bool = True) -> "LoadPlan":
        """``load`` on the deployment at ``base_url``."""
        return cls(
            base_url=base_url,
            model=model,
            phase=phase,
            exact_tokens=exact_tokens,
            **{each.name: getattr(load, each.name) for each in fields(Load)},
        )

    def check(self) -> None:
        """As :meth:`Load.check`, and the model has a name."""
        super().check()
        if not self.model:
            raise ValueError("model is empty; expected the name that the frontend's /v1/models lists")


def bounds(name: str, lengths: Lengths) -> tuple[int, int]:
    """The smallest and the largest of some lengths.

    Raises:
        Invalid: there is none, or a range has no such ends.
    """
    if isinstance(lengths, Mapping):
        if set(lengths) != {"from", "to"} or lengths["from"] > lengths["to"]:
            wanted = "such as {from: 50, to: 400}, from no larger than to"
            raise Invalid(f"{name} is {lengths!r}; expected {wanted}", name)
        return lengths["from"], lengths["to"]
    values = [lengths] if isinstance(lengths, int) else lengths
    if not values:
        raise Invalid(f"{name} is {lengths!r}; expected at least one length", name)
    return min(values), max(values)


def _draw(chance: random.Random, lengths: Lengths) -> int:
    if isinstance(lengths, int):
        return lengths
    if isinstance(lengths, Mapping):
        return chance.randint(lengths["from"], lengths["to"])
    return chance.choice(lengths)
