"""What a scenario is. Wrong ones are refused before anything starts, with the place and the allowed words."""

import difflib
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import support.judge.checkers  # noqa: F401 - with it every checker is known by its name
from support.amounts import amount
from support.contract.shape import ENGINES, SIMULATED, Shape
from support.data import read_list
from support.errors import Mistake
from support.faults.fault import Fault
from support.faults.network import SIDES
from support.faults.registry import KINDS, all_strengths, drawn, strengths
from support.faults.victims import ROLES, VICTIMS, WORKERS, Victim, lacking
from support.judge.checker import CHECKERS
from support.judge.samples import Objectives
from support.requests.load_log import PHASE_NAMES
from support.requests.plan import Load, bounds
from support.schema import (
    Expected,
    Invalid,
    NonNegativeFloat,
    NonNegativeInt,
    OneOf,
    PositiveFloat,
    inside,
    read,
)

T = TypeVar("T")

LIBRARY = Path(__file__).with_name("library.yaml")

LOAD_TYPES = {
    "token_overflow": "More clients ask with overlong prompts.",
    "overload": "More clients ask.",
}
"""Failures that are nothing but a second load -> what happens."""
MORE_TYPES = {
    "rolling_restart": "Each worker is shut down and started again, one after the other.",
    **LOAD_TYPES,
    "random": "Workers crash, hang, are cut off and lose their GPUs, one by one, as a seed draws it.",
}
"""Failures that are more than one fault, or none -> what happens."""
TYPES = (*KINDS, *MORE_TYPES)
LONGEST_SECONDS = 3600.0
"""Longest lease of the fault service."""
Duration = Annotated[
    float, Expected(f"a number, more than 0 and less than {LONGEST_SECONDS:g}", gt=0, lt=LONGEST_SECONDS)
]
TRIGGERS = ("trigger_after_requests", "trigger_after_tokens", "trigger_after_seconds", "trigger_in_phase")


def _with_strengths(cls: type[T]) -> type[T]:
    """Give a class that is to be a dataclass a field for each strength that some kind of fault has."""
    for name, (kind, each) in all_strengths().items():
        cls.__annotations__[name] = kind
        setattr(cls, name, each.default)
    return cls


# For the type checker, which cannot see those fields: a class that may have others, too.
_Open: Any = object


@dataclass(frozen=True)
@_with_strengths
class Failure(_Open):  # type: ignore[misc]
    """One thing that goes wrong in mid-flight. Its further fields are the strengths of the kinds of faults, such as
    ``xid`` or ``percent`` (:mod:`support.faults`); those of other kinds than its own do not matter.

    Attributes:
        type: one of :data:`TYPES`. ``pod_kill`` is SIGKILL and a fresh start at once, ``process_kill`` SIGKILL alone.
        target: key of :data:`support.faults.victims.VICTIMS`; no matter for ``rolling_restart``, which takes each
            worker in turn, for ``random``, and for a load.
        trigger_after_requests: strikes when this many requests have ended; or
        trigger_after_tokens: this many tokens have come; or
        trigger_after_seconds: this long after the first request was due; or
        trigger_in_phase: as soon as that phase begins. Exactly one of the four in a scenario.
        duration_seconds: undone after this long; None: not undone, but by the end of the scenario or, as nothing is
            left broken for ever, of the longest lease. Of ``random``: no new fault begins after this long.
        load: of ``token_overflow`` and ``overload``: the requests that come on top.
        times: of ``overload``, instead: for ``duration_seconds`` there are so many times the clients of the load.
        seed: of ``random``, which draws one fault after the other (:mod:`support.scenarios.chaos`); the same seed, the
            same faults.
        kinds: of ``random``: types of the faults that are drawn; empty: of all that may be.
        every_seconds: of ``random``: from one fault to the next, or longer where a victim does not serve again sooner;
            None: as the seed draws it.
    """

    type: Annotated[str, OneOf(TYPES)]
    target: Annotated[str, OneOf(VICTIMS)] = "worker"
    trigger_after_requests: NonNegativeInt | None = None
    trigger_after_tokens: NonNegativeInt | None = None
    trigger_after_seconds: NonNegativeFloat | None = None
    trigger_in_phase: Annotated[str, OneOf(PHASE_NAMES)] | None = None
    duration_seconds: Duration | None = None
    load: Load | None = None
    times: Annotated[int, Expected("a whole number, 2 or more", ge=2)] | None = None
    seed: int | None = None
    kinds: tuple[Annotated[str, OneOf(lambda: drawn().values())], ...] = ()
    every_seconds: PositiveFloat | None = None

    def fault(self, victim: Victim, lease_seconds: float) -> Fault:
        """The fault that it orders, of a failure whose type is a kind of them."""
        kind = KINDS[self.type]
        strength = {each.name: getattr(self, each.name) for each in strengths(kind)}
        return kind(victim, lease_seconds=lease_seconds, **strength)

    def describe(self) -> str:
        """One phrase: ``hang of the busiest worker after 20 requests``."""
        name, amount = self.trigger
        when = (
            f"in {amount}" if name == "trigger_in_phase" else f"after {amount:g} {name.removeprefix('trigger_after_')}"
        )
        victim = f" of {VICTIMS[self.target].words}" if self.type in KINDS else ""
        return f"{self.type.replace('_', ' ')}{victim} {when}"

    @property
    def at_once(self) -> bool:
        """Whether it has no trigger, as a fault that strikes when its sentence says so."""
        return all(getattr(self, name) is None for name in TRIGGERS)

    @property
    def trigger(self) -> tuple[str, Any]:
        """Name of the trigger and its amount.

        Raises:
            ValueError: there is none, or more than one.
        """
        given = [(name, value) for name in TRIGGERS if (value := getattr(self, name)) is not None]
        if len(given) != 1:
            raise ValueError(
                f"failure {self.type!r} has {amount(len(given), 'trigger')}; expected one of {', '.join(TRIGGERS)}"
            )
        return given[0]

    def check(self, scenario: "Scenario") -> None:
        """Refuse what does not go together, or cannot strike, in ``scenario``, whose fields have been checked.

        Raises:
            ValueError: says what and why.
        """
        self._check_trigger(scenario)
        if (self.seed is None) == (self.type == "random"):
            raise ValueError(f"failure {self.type!r} with seed {self.seed!r}; only random takes one")
        if (self.kinds or self.every_seconds is not None) and self.type != "random":
            raise ValueError(f"failure {self.type!r} has kinds or every_seconds; only random takes them")
        if self.type == "random" and self.duration_seconds is None:
            raise ValueError("failure 'random' has no duration_seconds; expected for how long new faults may begin")
        if self.times is not None and (self.type != "overload" or self.load or self.duration_seconds is None):
            raise ValueError("times is for overload alone, with duration_seconds and without a load")
        if (self.load is None and self.times is None) == (self.type in LOAD_TYPES):
            raise ValueError(f"failure {self.type!r} with load {self.load!r}; {' and '.join(LOAD_TYPES)} have one")
        if self.load is not None:
            with inside("load"):
                self.load.check()
        self.check_place(scenario.shape)

    def extra(self, load: Load) -> Load:
        """The requests that come on top of those of ``load``, of a failure that is nothing else."""
        if self.times is None:
            assert self.load is not None
            return self.load
        return replace(load, clients=(self.times - 1) * load.clients, duration_seconds=self.duration_seconds)

    def check_place(self, shape: Shape) -> None:
        """Refuse what cannot strike in a deployment.

        Raises:
            ValueError: says what and why.
        """
        kind = KINDS.get(self.type)
        if kind is None:
            return
        if kind.workers_only and self.target not in WORKERS:
            if kind.family == "gpu":
                raise Mistake(f"only a worker has a GPU, and the victim is {VICTIMS[self.target].words}")
            raise Mistake(f"only a worker can be hit by this, and the victim is {VICTIMS[self.target].words}")
        never = f"this can never happen to {VICTIMS[self.target].words}: the deployment ({shape.describe()}) has no"
        what, write = lacking(self.target, shape)
        if what:
            raise Mistake(f"{never} {what}", write=write)
        role, (setting, value) = ROLES.get(self.target, "worker"), kind.setting
        if kind.dynamo_only and role in ("etcd", "nats"):
            raise Mistake(f"only pods of Dynamo can be hit by this, and the victim is {VICTIMS[self.target].words}")
        if setting and not getattr(shape, setting.replace(" ", "_")):
            write = f"| {setting} | {value} | in the table below the deployment"
            raise Mistake(f"this can never happen: the deployment ({shape.describe()}) has no {setting}", write=write)
        parted = SIDES[self.partition] if "partition" in [each.name for each in strengths(kind)] else ()
        if len(parted) == 1 and parted[0] in ("nats", "etcd"):
            what, write = lacking(parted[0], shape)
            if what:
                raise Mistake(f"{never} {what} to be parted from", write=write)
        lone = {"frontend": shape.frontends, "etcd": shape.etcd_members, "nats": 1}
        if parted == (role,) and lone[role] < 2:
            other = VICTIMS[role].words.partition(" ")[2]
            raise Mistake(f"{never} other {other} to be parted from", write="another side")

    def _check_trigger(self, scenario: "Scenario") -> None:
        name, amount = self.trigger
        if name == "trigger_in_phase":
            # A phase is brought by a failure that waits for none, or for an earlier one.
            before = [each.trigger for each in scenario.failures if each is not self]
            earlier = PHASE_NAMES[: PHASE_NAMES.index(amount)]
            brought = any(other != name or phase in earlier for other, phase in before)
            if amount != "STANDARD" and not brought:
                raise ValueError(f"failure {self.type!r} can never strike: no other failure begins the phase {amount}")
            return
        load = scenario.load
        most, unit = {
            "trigger_after_requests": (load.most_requests, "requests"),
            "trigger_after_tokens": (load.most_tokens, "tokens"),
            "trigger_after_seconds": (load.most_seconds, "seconds"),
        }[name]
        if most is not None and amount >= most:
            raise ValueError(
                f"failure {self.type!r} can never strike: {name} is {amount:g}, the load has {most:g} {unit}"
            )


@dataclass(frozen=True)
class Scenario:
    """A deployment under load, and what happens to it.

    Attributes:
        name: in words.
        backend: engine of the workers, one of :data:`support.contract.shape.ENGINES`.
        load: the load that goes on through all phases.
        failure: None, one, or several, at once or in a row as their triggers say.
        deployment: further fields of :class:`support.contract.shape.Shape`, such as ``workers``.
        checks: names of checkers with their parameters, see :mod:`support.judge.checkers`.
        busy_tokens: tokens in the memory of a simulated worker from which the frontend treats it as busy; with all
            busy it rejects requests. None: it never does.
        recovery_seconds: how long the load goes on after the last failure is over; None: as the load says.
        objectives: what a request has to keep to count for goodput.
    """

    name: str
    backend: Annotated[str, OneOf(ENGINES)]
    load: Load
    failure: Failure | Sequence[Failure] | None = None
    deployment: Mapping[str, Any] = field(default_factory=dict)
    checks: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    busy_tokens: int | None = None
    recovery_seconds: PositiveFloat | None = None
    objectives: Objectives = field(default_factory=Objectives)

    @property
    def busy_percent(self) -> float | None:
        """``busy_tokens`` as a share of a worker's memory."""
        return None if self.busy_tokens is None else 100 * self.busy_tokens / MEMORY_TOKENS[self.backend]

    @property
    def failures(self) -> list[Failure]:
        """The failures as a list."""
        if self.failure is None:
            return []
        return [self.failure] if isinstance(self.failure, Failure) else list(self.failure)

    @property
    def shape(self) -> Shape:
        """The deployment that it wants."""
        return Shape(engine=self.backend, **self.deployment)

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: names the scenario and what is wrong with it.
        """
        with inside(of=f"scenario {self.name!r}"):
            read(Scenario, self)
            for key in self.deployment:
                if key not in SHAPE_KEYS:
                    allowed = ", ".join(SHAPE_KEYS)
                    raise Invalid(f"unknown key {key!r} of deployment; allowed are {allowed}", "deployment", key)
            with inside("deployment"):
                read(Shape, self.shape)
                if self.shape.workers < 1:
                    raise Invalid(f"workers is {self.shape.workers}; expected a whole number of workers", "workers")
            for name, parameters in self.checks.items():
                if name not in CHECKERS:
                    known = ", ".join(CHECKERS)
                    raise Invalid(f"unknown check {name!r}; expected one of {known}", "checks", name)
                with inside("checks", name, of=f"check {name!r}"):
                    read(CHECKERS[name], parameters or {})
            with inside("load"):
                self.load.check()
            for index, failure in enumerate(self.failures):
                with inside("failure", index):
                    failure.check(self)
            if self.busy_tokens is not None and not 0 < self.busy_tokens <= MEMORY_TOKENS.get(self.backend, 0):
                raise ValueError(
                    f"busy_tokens is {self.busy_tokens!r}; expected 1 to the memory of a {self.backend} worker"
                )
            if self.shape.engine != "ruler":
                longest = (
                    bounds("max_tokens", self.load.max_tokens)[1] + bounds("prompt_words", self.load.prompt_words)[1]
                )
                if longest > CONTEXT_TOKENS:
                    raise ValueError(f"the load asks for {longest} tokens; the model has room for {CONTEXT_TOKENS}")


MEMORY_TOKENS = {"vllm": 16384 * 64, "sglang": 16384, "trtllm": 16384 * 32}
"""What a simulated worker can hold: the mocker's default count of blocks, of 64, 1 and 32 tokens."""
LEASE_SECONDS, LONGER_SECONDS = 5.0, 20.0
"""Of variants with one replica: how long the registration of a dead worker lives where a release lets us say so (it is
10 seconds in others), and for how long the load goes on, which has to outlast it and the start of a new worker.
"""
SHAPE_KEYS = [each.name for each in fields(Shape) if each.name != "engine"]
CONTEXT_TOKENS = 32768
"""Longest prompt and answer together of the simulated model (support/targets/local/tokenizer.py)."""


def ready(name: str) -> Scenario:
    """The ready scenario with this name.

    Raises:
        ValueError: there is none; the message names those that are called much the same.
    """
    return _named(name, library(), "ready scenario")


def scenario_of(file: Path, name: str) -> Scenario:
    """The scenario with this name of a YAML file.

    Raises:
        ValueError: there is none, or the file cannot be read or is wrong.
    """
    try:
        found = {each.name: each for each in read_scenarios(file)}
    except OSError as error:
        raise Mistake(f"the scenarios of {file} cannot be read: {error}") from None
    return _named(name, found, f"scenario of {file.name}")


def _named(name: str, found: Mapping[str, Scenario], what: str) -> Scenario:
    if name not in found:
        like = difflib.get_close_matches(name, found, 5)
        raise Mistake(f"unknown {what} {name!r}", like or list(found)[:30], f'"{like[0]}"' if like else "")
    return found[name]


@functools.cache
def library() -> Mapping[str, Scenario]:
    """The ready scenarios by name: each of ``library.yaml`` on every simulated engine, aggregated and disaggregated,
    with 2 and with 1 replica.

    ``a worker crashes`` is that of the file, ``a worker crashes (sglang, 1 replica)`` and ``a worker crashes (sglang,
    disaggregated, 2 replicas)`` are variants. With one replica a worker that is lost is started again, and what is
    checked is that requests succeed again then; the load goes on until its old registration has run out as well, for
    until then requests may still be sent there.
    """
    found = {scenario.name: scenario for scenario in read_scenarios(LIBRARY)}
    for scenario in list(found.values()):
        always = "prefill_workers" in scenario.deployment
        for engine, replicas, split in itertools.product(SIMULATED, (1, 2), (True,) if always else (False, True)):
            size = {"workers": replicas} | ({"prefill_workers": replicas} if split else {})
            deployment, checks, after = {**scenario.deployment, **size}, scenario.checks, scenario.recovery_seconds
            if replicas == 1 and any(each.target in WORKERS for each in scenario.failures if not each.load):
                deployment |= {"restart_policy": "Always", "lease_seconds": LEASE_SECONDS}
                checks, after = {"single_worker": None}, LONGER_SECONDS
            shape = "disaggregated, " if split else ""
            name = f"{scenario.name} ({engine}, {shape}{replicas} replica{'s' if replicas > 1 else ''})"
            found[name] = replace(
                scenario, name=name, backend=engine, deployment=deployment, checks=checks, recovery_seconds=after
            )
            found[name].check()
    return found


def read_scenarios(file: Path) -> list[Scenario]:
    """The scenarios of a YAML file: a list of mappings with the fields of :class:`Scenario`, ``load`` with those of
    :class:`Load`, ``failure`` with those of :class:`Failure` or a list of such.

    Raises:
        ValueError: names the file, the line, what is wrong and what is allowed.
        OSError: the file cannot be read.
    """
    return read_list(file, Scenario, key="name", check=Scenario.check)
