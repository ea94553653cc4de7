"""A victim is sound before it is hit, and suffers until its fault is undone: what each kind says of that."""

from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from support.clock import now
from support.contract.deployment import Life, Node
from support.errors import Inconclusive
from support.faults import gpu, network
from support.faults.fault import Fault, Ground, Ordered, ProvenFault
from support.faults.gpu import MemoryPressure, Throttle, XidError
from support.faults.network import Bandwidth, Cut, Loss
from support.faults.processes import Crash, Hang, Restart, Terminate
from support.faults.victims import Exactly

WORKERS = [Node(f"w-{number}", "worker", "127.0.0.1", 1, None) for number in range(2)]
VICTIM, FRONTEND = WORKERS[0], Node("frontend-0", "frontend", "127.0.0.1", 2, None)
PAIR = FRONTEND, VICTIM
EVERY_WAY = ("to", "from", "to over IPv6", "from over IPv6")
SOUND = {"state": "ok", "throttle_reasons": [], "temperature_c": 60, "utilization_percent": 40} | {
    "memory_used_mib": 600.0,
    "memory_total_mib": 1000,
}


class Place:
    """A victim and what is seen of it; sound as long as nothing is changed."""

    def __init__(self, policy: str = "Never") -> None:
        self.state, self.lives, self.lost = {1: "alive"}, [1], set[str]()
        self.took, self.telemetry = 0.01, dict(SOUND)
        shape = SimpleNamespace(restart_policy=policy)
        nodes = [*WORKERS, FRONTEND]
        deployment = SimpleNamespace(shape=shape, nodes=nodes, dynamo=nodes, workers=WORKERS, life=self.life)
        witness = SimpleNamespace(
            state=lambda life: self.state[life.identity],
            lost_between=self._lost_between,
            telemetry=lambda node: self.telemetry,
            line=self._line,
        )
        self.ground: Ground = cast(Any, SimpleNamespace(deployment=deployment, witness=witness, rate=lambda _: 0.0))

    def life(self, node: Node) -> Life:
        return Life(node.name, self.lives[-1], f"pid {self.lives[-1]}", "running")

    def _lost_between(self, peer: Node, victim: Node, packets: int = 1) -> dict[str, int]:
        return {way: packets if way in self.lost else 0 for way in EVERY_WAY}

    @contextmanager
    def _line(self, *_: Any) -> Any:
        yield SimpleNamespace(seconds=lambda size, timeout: self.took)

    def start_again(self) -> None:
        self.lives.append(len(self.lives) + 1)
        self.state |= {self.lives[-1]: "alive", 1: "gone"}

    def unsound(self, fault: Fault, before: Any = None) -> str | None:
        return fault.unsound(self.ground, [VICTIM], before)

    def lapsed(self, fault: Fault, **details: Any) -> str | None:
        return fault.lapsed(self.ground, self.proven(fault, **details))

    def proven(self, fault: Fault, **details: Any) -> ProvenFault:
        at, life = now(), Life("w-0", 1, "", "")
        return ProvenFault("f", fault, VICTIM, at, at, at, at, at + 60, life=life, details=details)


@pytest.mark.parametrize("kind", [Crash, Terminate, Hang, Restart, XidError, Throttle])
@pytest.mark.parametrize("state", ["gone", "stopped"])
def test_who_does_not_run_is_not_sound(kind: type[Fault], state: str) -> None:
    place = Place()
    assert place.unsound(kind(Exactly(VICTIM))) is None
    place.state[1] = state
    assert f"its process is {state}" in str(place.unsound(kind(Exactly(VICTIM))))


@pytest.mark.parametrize(
    "strain", [{"throttle_reasons": ["sw_power_cap"]}, {"memory_used_mib": 900.0}, {"state": "lost"}]
)
def test_a_gpu_under_strain_is_not_sound(strain: Mapping[str, Any]) -> None:
    place = Place()
    place.telemetry |= strain
    for kind in (XidError, Throttle, MemoryPressure):
        assert place.unsound(kind(Exactly(VICTIM)))


@pytest.mark.parametrize("way", EVERY_WAY)
def test_packets_arrive_before_they_are_lost(way: str) -> None:
    place = Place()
    place.lost = {way}
    assert "packets lost" in str(place.unsound(Cut(Exactly(VICTIM)), [PAIR]))
    assert "packets lost" in str(place.unsound(Loss(Exactly(VICTIM)), [PAIR]))
    one_way = Cut(Exactly(VICTIM), direction="to")
    assert (place.unsound(one_way, [PAIR]) is not None) == way.startswith("to")


def test_a_cable_is_fast_before_it_is_narrow() -> None:
    place, narrow = Place(), Bandwidth(Exactly(VICTIM))
    with ExitStack() as until:
        before = narrow.look(place.ground, [VICTIM], until)
        assert place.unsound(narrow, before) is None
        place.took = network.TRANSFER_SECONDS
        assert "already that slow" in str(place.unsound(narrow, before))


@pytest.mark.parametrize("seen", ["alive", "gone"])
def test_a_hang_that_is_none_has_lapsed(seen: str) -> None:
    place = Place()
    for fault in (Hang(Exactly(VICTIM)), XidError(Exactly(VICTIM), xid=119)):
        place.state[1] = "stopped"
        assert place.lapsed(fault, link_loss=0) is None
        place.state[1] = seen
        assert place.lapsed(fault, link_loss=0) == f"its process is {seen}"


@pytest.mark.parametrize(
    "fault", [Crash(Exactly(VICTIM)), Terminate(Exactly(VICTIM)), XidError(Exactly(VICTIM), xid=48)]
)
def test_who_runs_again_although_nobody_was_to_start_it_shows_a_lapse(fault: Fault) -> None:
    place, supervised = Place(), Place("Always")
    place.state[1] = "gone"
    assert place.lapsed(fault, link_loss=0) is None
    for each in (place, supervised):
        each.start_again()
    assert place.lapsed(fault, link_loss=0) == "pid 2 runs in its place"
    assert supervised.lapsed(fault, link_loss=0) is None
    assert supervised.lapsed(XidError(Exactly(VICTIM), xid=79), link_loss=0)  # which keeps it from being started


def test_an_etcd_member_is_started_by_nobody_else() -> None:
    place = Place("Always")
    place.ground.deployment.dynamo.clear()
    place.start_again()
    assert place.lapsed(Crash(Exactly(VICTIM)))


@pytest.mark.parametrize("way", EVERY_WAY)
def test_packets_that_arrive_again_show_a_lapse(way: str) -> None:
    place = Place()
    place.lost = set(EVERY_WAY)
    faults = (Cut(Exactly(VICTIM)), Loss(Exactly(VICTIM)), XidError(Exactly(VICTIM), xid=74))
    for fault in faults:
        assert place.lapsed(fault, pairs=[PAIR], link_loss=0.05) is None
    place.lost.remove(way)
    for fault in faults:
        assert "packets lost" in str(place.lapsed(fault, pairs=[PAIR], link_loss=0.05))


def test_a_cable_that_is_fast_again_shows_a_lapse() -> None:
    place, narrow = Place(), Bandwidth(Exactly(VICTIM))
    place.took = network.TRANSFER_SECONDS
    assert place.lapsed(narrow, pairs=[PAIR], size=1) is None
    place.took = 0.01
    assert place.lapsed(narrow, pairs=[PAIR], size=1)


def test_memory_that_is_free_shows_a_lapse_whether_or_not_its_worker_runs() -> None:
    place, taken = Place(), MemoryPressure(Exactly(VICTIM))
    place.telemetry["memory_used_mib"] = 900.0
    assert place.lapsed(taken) is None
    place.state[1], place.telemetry["memory_used_mib"] = "gone", 300.0
    assert place.lapsed(taken) is None
    place.telemetry["memory_used_mib"] = 0.0
    assert place.lapsed(taken)
    place.state[1], place.telemetry["memory_used_mib"] = "alive", 600.0
    assert place.lapsed(taken)


def test_peers_that_lose_packets_have_not_healed() -> None:
    place, link = Place(), XidError(Exactly(VICTIM), xid=74)
    healing = link.healing(place.ground, place.proven(link, link_loss=0.05))
    assert healing.broken() is None
    place.lost = {"from"}
    assert "packets lost between it and w-1" in str(healing.broken())


def test_who_was_told_to_leave_and_stays_has_not_healed() -> None:
    place, fault = Place(), Terminate(Exactly(VICTIM))
    healing = fault.healing(place.ground, place.proven(fault))
    assert healing.broken() == "pid 1 should be gone but still runs"
    place.state[1] = "gone"
    assert healing.broken() == "its process is gone"
    place.start_again()
    assert healing.broken() is None
    hang = Hang(Exactly(VICTIM))
    back = Place()
    assert hang.healing(back.ground, back.proven(hang)).broken() is None


def test_a_restart_that_starts_nothing_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Restart, "shown_seconds", 0.05)
    place, fault = Place(), Restart(Exactly(VICTIM))
    ordered = Ordered([VICTIM], (place.life(VICTIM), None), {"id": "f"}, now(), now())
    place.state[1] = "gone"
    with pytest.raises(Inconclusive, match="the one in its place is gone"):
        fault.prove(place.ground, ordered)
    place.start_again()
    assert fault.prove(place.ground, ordered).life == Life("w-0", 1, "", "")


@pytest.mark.parametrize(("used", "enough"), [(1000.0, True), (700.0, False), (600.0, False)])
def test_half_of_the_memory_that_was_to_be_taken_is_too_little(
    monkeypatch: pytest.MonkeyPatch, used: float, enough: bool
) -> None:
    monkeypatch.setattr(gpu, "SETTLE_SECONDS", 0.05)
    place, fault = Place(), MemoryPressure(Exactly(VICTIM), 0.5)
    with ExitStack() as until:
        before = fault.look(place.ground, [VICTIM], until)
    place.telemetry["memory_used_mib"] = used
    ordered = replace(Ordered([VICTIM], before, {"id": "f"}, now(), now()), loaded=False)
    if enough:
        assert fault.prove(place.ground, ordered).words
    else:
        with pytest.raises(Inconclusive, match="not proven"):
            fault.prove(place.ground, ordered)


@pytest.mark.parametrize(("short", "long", "even"), [(100.0, 100.0, True), (274.0, 137.0, False), (0.0, 0.0, False)])
def test_a_rate_is_taken_for_the_usual_one_only_if_it_lasts(
    monkeypatch: pytest.MonkeyPatch, short: float, long: float, even: bool
) -> None:
    monkeypatch.setattr(gpu, "SETTLE_SECONDS", 0.05)
    place, fault = Place(), Throttle(Exactly(VICTIM))
    ground = replace_rate(place.ground, lambda seconds: short if seconds == gpu.WINDOW_SECONDS else long)
    with ExitStack() as until:
        if even:
            assert fault.look(ground, [VICTIM], until) == long
        else:
            with pytest.raises(Inconclusive, match="tokens came at no steady rate before the fault"):
                fault.look(ground, [VICTIM], until)


def replace_rate(ground: Ground, rate: Any) -> Ground:
    """The same place, where clients get that."""
    return cast(Ground, SimpleNamespace(**(vars(ground) | {"rate": rate})))


@pytest.mark.parametrize("logged", ["0000:01:00", "0000:02:00"])
def test_an_error_of_another_gpu_is_not_the_victims(monkeypatch: pytest.MonkeyPatch, logged: str) -> None:
    """The injector names that GPU in its answer, and its line is in the log."""
    monkeypatch.setattr(gpu, "PROOF_SECONDS", 0.05)
    place, fault = Place(), XidError(Exactly(VICTIM), xid=13)
    place.telemetry["pci"] = "0000:01:00"

    @contextmanager
    def kernel_log(node: Node) -> Any:
        yield SimpleNamespace(xids=lambda pci: [13] if pci == logged else [])

    cast(Any, place.ground.witness).kernel_log = kernel_log
    made = {"parameters": {"pci": logged, "meaning": "graphics"}, "fidelity": "simulated"}
    with ExitStack() as until_proven:
        before = fault.look(place.ground, [VICTIM], until_proven)
        ordered = Ordered([VICTIM], before, made, now(), now(), False)
        if logged == "0000:01:00":
            assert "reported XID 13" in fault.prove(place.ground, ordered).words
        else:
            with pytest.raises(Inconclusive, match="does not show XID 13 of the GPU at 0000:01:00"):
                fault.prove(place.ground, ordered)
