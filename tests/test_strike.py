"""One path of a fault: what the kinds say of themselves, and what a strike does, in which order."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from pydantic import BaseModel

from agents.core.faults import DIRECTIONS, KINDS
from agents.node.access import NodeDriver
from agents.node.drivers import DRIVERS
from agents.registry import types
from agents.service import models
from agents.service.agents import PARTITIONS
from support.clock import now
from support.contract.deployment import Node
from support.errors import Inconclusive, Refused
from support.events import EventLog
from support.faults import network, registry
from support.faults.fault import Fault, Ground, Healing, Ordered, Proof, ProvenFault, strength
from support.faults.gpu import Throttle, XidError
from support.faults.network import Bandwidth, Cut, Loss
from support.faults.processes import Crash, Hang
from support.faults.victims import All, Exactly, Serving, Victim
from support.rows import COLUMNS
from support.scenarios import Failure
from support.scenarios.model import TYPES
from support.settings import ROOT
from support.targets.kubernetes.faults import TYPES as TYPES_OF_PODS
from support.world.faults import Faults

NODES = [Node(f"w-{number}", "worker", "127.0.0.1", 1, None) for number in range(3)]


@dataclass(frozen=True)
class Scratch(Fault):
    """A kind that only says what is asked of it."""

    name, family, types, did = "scratch", "process", ("scratch",), "was scratched"
    said: ClassVar[list[str]] = []
    shown_before: ClassVar[str | None] = None
    over: ClassVar[str | None] = None

    def look(self, ground: Ground, nodes: Any, until_proven: Any) -> Any:
        self.said.append("look")
        until_proven.callback(lambda: self.said.append("looked"))

    def unsound(self, ground: Ground, nodes: Any, before: Any) -> str | None:
        self.said.append("see sound")
        return self.shown_before

    def order(self, nodes: Any, before: Any) -> dict[str, Any]:
        self.said.append("order")
        return {"target_pod": nodes[0].name, "type": self.name}

    def prove(self, ground: Ground, ordered: Ordered) -> Proof:
        self.said.append("prove")
        return Proof(now(), f"{ordered.nodes[0].name} is scratched")

    def lapsed(self, ground: Ground, proven: ProvenFault) -> str | None:
        return self.over

    def healing(self, ground: Ground, proven: ProvenFault) -> Healing:
        return Healing(lambda: None, "it is whole", f"{proven.node.name} is whole")


class HeldScratch(Scratch):
    """One for which answers are held."""

    holds_answers = True


class World:
    """A world whose service and gate say when they are asked."""

    def __init__(self) -> None:
        Scratch.said.clear()
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.watched: list[Any] = []
        self.events, self.lasts = EventLog(), 60.0
        said = Scratch.said
        gate = SimpleNamespace(
            closed=False,
            hold_end=lambda sizes: said.append(f"hold {sorted(sizes)}"),
            move_to_end=lambda workers=None: said.append(f"move {[each.name for each in workers or ()]}"),
        )
        self.gate = gate
        service = SimpleNamespace(inject=self._inject, recover=lambda fault: said.append(f"recover {fault}"))
        deployment = SimpleNamespace(workers=NODES)
        stage = SimpleNamespace(
            gate=gate,
            events=self.events,
            deployment=deployment,
            target=SimpleNamespace(service=service, witness=None),
        )
        self.loads: list[Any] = []
        clients = SimpleNamespace(
            watched=self.watched,
            rate=lambda seconds: 0.0,
            loads=self.loads,
            see_asked=lambda: None,
        )
        self.clients = clients
        self.faults = Faults(cast(Any, stage), cast(Any, clients), cast(Any, SimpleNamespace(find=self._find)))

    def _find(self, victim: Victim, of: Any = (), but: Any = ()) -> list[Node]:
        Scratch.said.append("find")
        return NODES if isinstance(victim, All) else NODES[:1]

    def _inject(self, family: str, **order: Any) -> dict[str, Any]:
        self.orders.append((family, order))
        made = {"state": "active", "deadline": now() + self.lasts, "evidence": {"sent_at": 5.0}}
        return {"id": f"f-{len(self.orders)}"} | made

    def watch(self, ended_at: float | None, outcome: str = "complete") -> None:
        """Have a client watch an answer that came to this end then; None: it is under way."""
        entry = SimpleNamespace(ended_at=ended_at, max_tokens=50, outcome=outcome)
        self.watched.append(SimpleNamespace(entry=entry))


def test_a_strike_looks_orders_proves_and_records() -> None:
    world = World()
    [proven] = world.faults.strike(Scratch(Exactly(NODES[0]), lease_seconds=7))
    assert Scratch.said == ["find", "look", "see sound", "order", "prove", "looked"]
    assert world.orders == [("process", {"target_pod": "w-0", "type": "scratch", "duration_seconds": 7})]
    assert (proven.id, proven.node, proven.struck_at, world.faults.last) == ("f-1", NODES[0], 5.0, proven)
    told = [(event.kind, event.subject, event.text, event.data) for event in world.events.all()]
    assert told == [
        ("fault", "w-0", "w-0 was scratched", {"order": "scratch", "fault": "f-1", "until": proven.until}),
        ("proof", "w-0", "w-0 is scratched", {"fault": "f-1"}),
    ]


def test_what_serves_is_held_before_and_let_go_after() -> None:
    world = World()
    world.watch(None)
    world.faults.strike(HeldScratch(Serving()))
    others = "move ['w-1', 'w-2']"
    struck = ["look", "see sound", "order", "prove", "looked"]
    assert Scratch.said == ["hold [50]", "find", others, *struck, "move []"]
    world.gate.closed = True
    Scratch.said.clear()
    world.faults.strike(HeldScratch(Serving()))
    assert "hold [50]" not in Scratch.said
    assert others in Scratch.said


NOBODY = "no request was in flight any more when w-[0-9] was hit"


@pytest.mark.parametrize(
    ("victim", "felt"),
    [(Serving(), True), (Exactly(NODES[0]), True), (All(("worker",)), True), (Exactly(NODES[0], felt=False), False)],
)
def test_whoever_is_hit_somebody_has_to_notice(monkeypatch: pytest.MonkeyPatch, victim: Victim, felt: bool) -> None:
    monkeypatch.setattr("support.world.faults.outcome", lambda entry: SimpleNamespace(kind=entry.outcome))
    world = World()
    world.watch(now() - 1)
    with pytest.raises(Inconclusive, match=NOBODY) if felt else nullcontext():
        world.faults.strike(Scratch(victim))
    assert world.faults.made  # it was made, whoever has missed it


@pytest.mark.parametrize(("ended", "gave_up", "felt"), [(True, False, False), (False, False, True), (True, True, True)])
def test_under_load_somebody_has_to_be_asking_still_or_to_have_given_up(ended: bool, gave_up: bool, felt: bool) -> None:
    world = World()
    world.loads.append(SimpleNamespace(ended=ended, gave_up=gave_up))
    with nullcontext() if felt else pytest.raises(Inconclusive, match=NOBODY):
        world.faults.strike(Scratch(Exactly(NODES[0])))
    assert world.faults.last.loaded is not ended


@pytest.mark.parametrize(
    ("ends", "felt"),
    [
        ([], True),  # what is asked for later is to tell
        ([None], True),
        (["complete", None], True),
        (["complete", "broken"], True),  # for the judge, which an inconclusive strike would keep from it
        (["complete", "cancelled"], False),
        (["cancelled"], False),
    ],
)
def test_what_was_over_before_is_no_witness(
    monkeypatch: pytest.MonkeyPatch, ends: list[str | None], felt: bool
) -> None:
    monkeypatch.setattr("support.world.faults.outcome", lambda entry: SimpleNamespace(kind=entry.outcome))
    world = World()
    for each in ends:
        world.watch(now() - 1 if each else None, each or "")
    with nullcontext() if felt else pytest.raises(Inconclusive, match=NOBODY):
        world.faults.strike(Scratch(Serving()))


def test_what_is_refused_was_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(family: str, **order: Any) -> Any:
        raise Refused(409, "no")

    world = World()
    monkeypatch.setattr(world.faults._stage.target.service, "inject", refuse)
    with pytest.raises(Refused):
        world.faults.strike(Scratch(Exactly(NODES[0])))
    assert Scratch.said[-2:] == ["order", "looked"]
    assert (world.faults.made, world.events.all()) == ([], [])


def test_each_of_several_victims_is_hit_and_undone() -> None:
    world = World()
    proven = world.faults.strike(Scratch(All(("worker",))))
    assert [fault.node for fault in proven] == NODES
    assert world.faults.victims == {"w-0", "w-1", "w-2"}
    world.faults.recover(*proven)
    assert world.faults.undone.keys() == {"f-1", "f-2", "f-3"}
    texts = [event.text for event in world.events.all()][-6:]
    assert sorted(texts) == [
        *(f"scratch of {each.name} undone" for each in NODES),
        *(f"{each.name} is whole" for each in NODES),
    ]


def test_what_an_undo_does_to_its_victim_comes_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    killed: list[float] = []
    monkeypatch.setattr(world.faults._stage.target.service, "recover", lambda fault: killed.append(now()))
    [proven] = world.faults.strike(Scratch(Exactly(NODES[0])))
    world.faults.recover(proven)
    [undone] = [event for event in world.events.all() if event.text == "scratch of w-0 undone"]
    assert undone.at < killed[0]


def test_what_shows_the_fault_before_it_is_ordered_is_not_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.world.faults.SOUND_SECONDS", 0.01)
    monkeypatch.setattr(Scratch, "shown_before", "it is scratched")
    world = World()
    with pytest.raises(Inconclusive, match=r"before it: .*w-0 is sound; last seen: it is scratched"):
        world.faults.strike(Scratch(Exactly(NODES[0])))
    assert (world.orders, world.faults.made) == ([], [])


def test_a_fault_that_is_over_too_early_is_told_and_one_whose_time_is_up_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    [proven] = world.faults.strike(Scratch(Exactly(NODES[0])))
    assert world.faults.lapsed() == []
    monkeypatch.setattr(Scratch, "over", "it is whole")
    early = "the fault scratch of w-0 was over too early: it is whole"
    assert world.faults.lapsed() == [early]
    with pytest.raises(Inconclusive, match=early):
        world.faults.recover(proven)
    assert "recover f-1" not in Scratch.said
    with pytest.raises(Inconclusive, match=r"scratch of w-0 was over [56][0-9.]+ s too early"):
        world.faults.see_healed(1.0)
    world.lasts = 0.0
    [brief] = world.faults.strike(Scratch(Exactly(NODES[1])))
    world.faults.made = [brief]
    assert world.faults.lapsed() == []
    world.faults.see_healed(1.0)
    world.faults.recover(brief)
    assert Scratch.said[-1] == "recover f-2"


def test_orders_of_one_cut_and_of_several() -> None:
    ground: Any = SimpleNamespace(
        deployment=SimpleNamespace(nodes=[*NODES, Node("frontend-0", "frontend", "127.0.0.1", 2, None)])
    )
    until: Any = None
    cut = Cut(Serving(), mode="reset")
    pairs = cut.look(ground, NODES[:1], until)
    assert cut.order(NODES[:1], pairs) == {
        "partition_type": "FRONTEND_WORKER",
        "target_pod": "w-0",
        "mode": "reset",
        "direction": "both",
    }
    assert (cut.kind, cut.groups(NODES)) == ("reset", [NODES])
    members = Cut(All(("worker",)), "DYNAMO", direction="from")
    pairs = members.look(ground, NODES[:2], until)
    assert members.order(NODES[:2], pairs) == {
        "partition_type": "CUSTOM",
        "source": ["w-2", "frontend-0"],
        "target": ["w-0", "w-1"],
        "mode": "drop",
        "direction": "from",
    }
    frontend = ground.deployment.nodes[-1]
    between = Loss(Exactly(frontend), "WORKER_WORKER", 20)
    assert between.order([frontend], between.look(ground, [frontend], until))["source"] == ["w-0", "w-1", "w-2"]
    with pytest.raises(Inconclusive, match="nobody is left on the other side of frontend-0; choose fewer victims"):
        cut.look(ground, [frontend], until)


def test_a_narrow_cable_is_measured_against_nobody_who_has_one_as_well() -> None:
    """A member of etcd against another member, all others against a frontend."""
    members = [Node(f"etcd-{number}", "etcd", "127.0.0.1", 1, None) for number in range(3)]
    frontend = Node("frontend-0", "frontend", "127.0.0.1", 2, None)
    asked: list[str] = []

    @contextmanager
    def line(source: Node, destination: Node, timeout: float) -> Iterator[None]:
        asked.append(f"{source.name} {destination.name}")
        yield

    deployment = SimpleNamespace(nodes=[*members, *NODES, frontend])
    ground: Any = SimpleNamespace(deployment=deployment, witness=SimpleNamespace(line=line))
    narrow = Bandwidth(Exactly(members[0]), 50)
    for nodes in (*narrow.groups(members[:2]), NODES[:1]):
        with ExitStack() as until:
            before = narrow.look(ground, nodes, until)
    assert asked[::2] == ["etcd-2 etcd-0", "etcd-2 etcd-1", "frontend-0 w-0"]
    assert narrow.order(NODES[:1], before) == {
        "partition_type": "FRONTEND_WORKER",
        "target_pod": "w-0",
        "parameters": {"rate_kbit": 50},
        "mode": "bandwidth",
    }


def test_every_kind_says_all_that_there_is_to_say() -> None:
    assert {Crash, Hang, Cut, Loss, Bandwidth, XidError, Throttle} <= set(registry.KINDS.values())
    names = [kind.name for kind in registry.KINDS.values()]
    assert sorted(set(names)) == sorted(names)
    for kind in registry.KINDS.values():
        assert kind.family in registry.FAMILIES
        assert kind.types, kind
        assert kind.failure in TYPES
        assert not str(kind.__doc__).startswith(f"{kind.__name__}("), f"{kind} has no docstring"
        for hook in ("unsound", "order", "prove", "lapsed", "healing"):
            assert getattr(kind, hook) is not getattr(Fault, hook), (kind, hook)
        assert registry.named(kind.name) is kind
    assert set(registry.drawn()) == {"crashes", "hangs", "cuts", "GPU errors"}
    with pytest.raises(ValueError, match="unknown fault 'melt'; expected one of: crash, terminate"):
        registry.named("melt")


def test_what_a_strike_heeds_is_said_of_each_kind() -> None:
    """Losing one of these would make a proof weaker, and nothing else would show it."""
    process, xid = (True, True, True), (True, False, False)
    heeded = {kind.name: (kind.urgent, kind.holds_answers, kind.side_by_side) for kind in registry.KINDS.values()}
    deleted, unready = ("delete_pod", "force_delete_pod"), (False, True, False)
    said = dict.fromkeys(("crash", "terminate", "hang", "restart", *deleted), process)
    said |= {"xid": xid, "unready": unready}
    assert heeded == {name: said.get(name, (False, False, False)) for name in heeded}
    ending = {kind.name for kind in registry.KINDS.values() if kind.ends_process}
    assert ending == {"crash", "terminate", "restart", *deleted, "rollout", "scale_to_zero"}
    assert [each.name for each in fields(Victim) if each.default is True] == ["felt"]


def test_two_kinds_may_not_mean_two_things_by_one_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Other(Scratch):
        name, failure = "other", "other"
        percent: int = field(default=50, metadata=strength("percent", "Count"))

    monkeypatch.setitem(registry.KINDS, "other", Other)
    with pytest.raises(TypeError, match=r"Other\.percent: a strength has a default, and is the same in all kinds"):
        registry.all_strengths()


def test_a_driver_that_lacks_a_part_is_none() -> None:
    class Half(NodeDriver):
        kind, types = "process", ()

    with pytest.raises(TypeError, match="abstract"):
        Half(cast(Any, None))  # type: ignore[abstract]


def test_strengths_are_fields_of_a_failure_and_columns_of_a_table() -> None:
    own = {each.name for each in fields(cast(Any, Failure))}
    assert set(registry.all_strengths()) <= own
    columns = {each.metadata["column"] for _, each in registry.all_strengths().values() if each.metadata["column"]}
    of_kinds = {"xid", "follow-up errors", "share", "percent", "rate kbit", "between it and", "packets are", "only"}
    assert of_kinds == columns
    assert columns <= set(COLUMNS)
    failure = Failure("network_loss", percent=7, trigger_after_seconds=1.0)
    victim = Exactly(NODES[0])
    assert failure.fault(victim, 60.0) == Loss(victim, percent=7, lease_seconds=60.0)


UNPROVEN = {("network", "delay")}
"""What agents make and nobody has seen bite: no machine of ours has netem."""


def test_the_kinds_of_the_suite_and_the_types_of_the_agents_agree() -> None:
    ours = {(kind.family, each) for kind in registry.KINDS.values() for each in kind.types if kind.family != "pod"}
    theirs = {(kind, each.name) for kind in KINDS for each in types(kind).values() if not each.nowhere}
    assert ours | UNPROVEN == theirs
    of_clusters = {each for kind in registry.KINDS.values() for each in kind.types if kind.family == "pod"}
    assert {*TYPES_OF_PODS["pod"]} == of_clusters
    assert set(registry.FAMILIES) == {*KINDS, "pod"}
    fields_of: dict[str, type[BaseModel]] = {
        "network": models.NetworkInjection,
        "process": models.ProcessInjection,
        "gpu": models.GpuInjection,
    }
    said = {"partition": "partition_type"}
    for kind in [each for each in registry.KINDS.values() if each.family != "pod"]:
        options = {option for each in kind.types for option in types(kind.family)[each].options}
        taken = options | set(fields_of[kind.family].model_fields)
        assert {said.get(each.name, each.name) for each in registry.strengths(kind)} <= taken, kind
    assert (network.DIRECTIONS, set(network.OWN_SIDES) - set(PARTITIONS)) == (DIRECTIONS, set())


def test_no_type_is_named_by_two_drivers() -> None:
    names = [(driver.kind, each.name) for driver in DRIVERS for each in driver.types]
    assert sorted(set(names)) == sorted(names)


def test_every_kind_says_what_it_did() -> None:
    """In a sentence about its victim, for events and reports."""
    silent = [name for name, kind in registry.KINDS.items() if not kind.did and kind.describe is Fault.describe]
    assert silent == []
    crash = Crash(Exactly(NODES[0]))
    assert crash.describe(Ordered(NODES[:1], None, {}, 0.0, 0.0)) == "w-0 crashed"


def test_no_other_module_lists_kinds() -> None:
    """A new kind has to need no second place: the types of failures are named in ``support/faults`` alone. Targets may
    have drivers of their own, which refuse what they cannot do.
    """
    known = {*registry.KINDS, *(kind.name for kind in registry.KINDS.values())}
    rooms = [
        each for each in (ROOT / "support").rglob("*.py") if each.parent.name not in ("faults", "fake", "kubernetes")
    ]
    listed = {
        str(each): found
        for each in rooms
        if len(found := {word for word in known if f'"{word}"' in each.read_text()}) > 1
    }
    assert listed == {}
