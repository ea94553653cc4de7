"""Proofs and looks speak of their own victim, worker and request, and no answer is never a number."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from support import releases
from support.clock import now
from support.contract.deployment import Life, Node
from support.errors import Inconclusive, NotKept
from support.events import EventLog
from support.faults import network, processes
from support.faults.fault import Ground, Ordered, ProvenFault
from support.faults.network import Cut, Loss
from support.faults.processes import Crash, Hang, ProcessFault, Terminate
from support.faults.victims import Exactly
from support.observe import fleet as fleets
from support.observe.fleet import Fleet
from support.observe.health import Instance
from support.observe.metrics import Exposition
from support.requests.ledger import Chunk, LedgerEntry
from support.world import answers, lifetimes, runner, takeovers
from support.world.answers import Answers
from support.world.lifetimes import Lifetimes
from support.world.takeovers import Takeovers

WORKERS = [Node(f"w-{number}", "worker", "127.0.0.1", 1, None) for number in range(3)]
FRONTEND = Node("frontend-0", "frontend", "127.0.0.1", 2, None)
NUMBERS = {"w-0": "a0", "w-1": "a1", "w-2": "a2"}
RELEASE = releases.get("1.6.1")
NOT_PROVEN = "the fault was not proven"


# -- a shutdown


class Leaving:
    """A deployment whose workers are listed by :data:`NUMBERS`, before and after somebody was told to leave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: set[str] | None, after: set[str] | None) -> None:
        self.listed = before
        self.states = {node.name: "alive" for node in [*WORKERS, FRONTEND]}
        self._after = after
        monkeypatch.setattr(processes, "numbers", lambda url: self.listed)
        monkeypatch.setattr(processes, "worker_id", lambda node: NUMBERS[node.name])
        monkeypatch.setattr(Terminate, "shown_seconds", 0.05)
        deployment = SimpleNamespace(
            workers=WORKERS, frontend_url="http://127.0.0.1:2", life=lambda node: Life(node.name, 1, "pid 1", "running")
        )
        witness = SimpleNamespace(state=lambda life: self.states[life.node])
        self.ground: Ground = cast(Any, SimpleNamespace(deployment=deployment, witness=witness, events=EventLog()))

    def tell(self, node: Node) -> str:
        fault = Terminate(Exactly(node))
        before = fault.look(self.ground, [node], cast(Any, None))
        self.listed = self._after
        return fault.prove(self.ground, Ordered([node], before, {"id": "f"}, now(), now())).words


@pytest.mark.parametrize(
    ("before", "after", "proven"),
    [
        ({"a0", "a1"}, {"a1"}, True),
        ({"a0"}, set(), True),
        ({"a0", "a1"}, None, False),  # the frontend does not answer
        (None, {"a1"}, False),  # it did not before
        ({"a0", "a1"}, {"a0"}, False),  # another one has left
        ({"a1"}, {"a1"}, False),  # it was not there before
    ],
)
def test_a_shutdown_is_proven_by_the_victims_own_registration(
    monkeypatch: pytest.MonkeyPatch, before: set[str] | None, after: set[str] | None, proven: bool
) -> None:
    with nullcontext() if proven else pytest.raises(Inconclusive, match=NOT_PROVEN):
        assert "w-0 (a0) has left the frontend's list" in Leaving(monkeypatch, before, after).tell(WORKERS[0])


def test_a_shutdown_is_proven_by_the_victims_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    leaving = Leaving(monkeypatch, {"a0", "a1"}, None)
    leaving.states["w-1"] = "gone"
    with pytest.raises(Inconclusive, match=NOT_PROVEN):
        leaving.tell(WORKERS[0])
    leaving.states["w-0"] = "gone"
    assert "is gone" in leaving.tell(WORKERS[0])


@pytest.mark.parametrize("refused", [True, False])
def test_a_frontend_has_left_when_it_refuses_and_not_when_it_is_silent(
    monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    monkeypatch.setattr(processes, "refuses", lambda url: refused)
    with nullcontext() if refused else pytest.raises(Inconclusive, match=NOT_PROVEN):
        assert "accepts no more connections" in Leaving(monkeypatch, None, None).tell(FRONTEND)


@pytest.mark.parametrize(("kind", "shown"), [(Crash, "gone"), (Hang, "stopped")])
def test_what_a_fault_of_a_process_hit_is_known_by_its_number(
    monkeypatch: pytest.MonkeyPatch, kind: type[ProcessFault], shown: str
) -> None:
    leaving = Leaving(monkeypatch, None, None)
    fault, node = kind(Exactly(WORKERS[1])), WORKERS[1]
    before = fault.look(leaving.ground, [node], cast(Any, None))
    leaving.states["w-1"] = shown
    proof = fault.prove(leaving.ground, Ordered([node], before, {"id": "f"}, now(), now()))
    assert (proof.details, proof.life) == ({"number": "a1"}, Life("w-1", 1, "", ""))


# -- packets


class Wire:
    """A witness of a network in which these ways lose all packets, or are closed to connections."""

    def __init__(self, lost: Sequence[str], met: dict[str, str], share: float = 1.0) -> None:
        self.lost, self.met, self.share, self.asked = lost, met, share, list[str]()

    def lost_between(self, peer: Node, victim: Node, packets: int = 1) -> dict[str, int]:
        self.asked.append(peer.name)
        ways = ("to", "from", "to over IPv6", "from over IPv6")
        return {way: round(packets * self.share) if way in self.lost else 0 for way in ways}

    def connects(self, source: Node, destination: Node) -> dict[str, str]:
        return self.met


EVERY_WAY = ("to", "from", "to over IPv6", "from over IPv6")


def ground_of(wire: Wire, counters: dict[str, dict[str, int]]) -> Ground:
    service = SimpleNamespace(get=lambda fault: {"evidence": {"counters": {"w-0": counters}}})
    return cast(Ground, SimpleNamespace(service=service, witness=wire, deployment=SimpleNamespace(nodes=WORKERS)))


@pytest.mark.parametrize(
    ("lost", "met", "seen"),
    [
        (EVERY_WAY, {"IPv4": "silent", "IPv6": "silent"}, None),
        (("to", "from"), {"IPv4": "silent", "IPv6": "silent"}, "'to over IPv6': False"),
        (EVERY_WAY, {"IPv4": "silent", "IPv6": "open"}, "new connections over IPv6 are open"),
        (EVERY_WAY, {"IPv4": "open", "IPv6": "silent"}, "new connections over IPv4 are open"),
    ],
)
def test_a_cut_is_of_both_families(
    monkeypatch: pytest.MonkeyPatch, lost: Sequence[str], met: dict[str, str], seen: str | None
) -> None:
    monkeypatch.setattr(network, "PROOF_SECONDS", 0.05)
    ordered = Ordered(WORKERS[:1], [(FRONTEND, WORKERS[0])], {"id": "f"}, now(), now())
    with nullcontext() if seen is None else pytest.raises(Inconclusive, match=f"{NOT_PROVEN}.*{seen}"):
        proof = Cut(Exactly(WORKERS[0])).prove(ground_of(Wire(lost, met), {"in": {"packets": 3}}), ordered)
        assert "are lost over IPv4 and IPv6, new connections silent" in proof.words


def test_a_loss_is_measured_with_everybody_on_the_other_side() -> None:
    wire = Wire(EVERY_WAY, {}, share=0.2)
    ground = ground_of(wire, {"in": {"drawn": 1000, "packets": 200}})
    fault = Loss(Exactly(WORKERS[0]), "WORKER_WORKER", 20)
    pairs = fault.look(ground, WORKERS[:1], cast(Any, None))
    proof = fault.prove(ground, Ordered(WORKERS[:1], pairs, {"id": "f"}, now(), now()))
    assert wire.asked == ["w-1", "w-2"]
    assert "80 of 400 probes to w-0 from w-2 over IPv6" in proof.words
    wire.lost = ("to", "from")
    with pytest.raises(Inconclusive, match="0 of 400 probes to w-0 from w-1 over IPv6"):
        fault.prove(ground, Ordered(WORKERS[:1], pairs, {"id": "f"}, now(), now()))


# -- what the fleet tells


class Pages:
    """A fleet whose nodes have these counts on their pages; None: no answer. ``ended`` run no more."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, counts: dict[str, float | None], nodes: list[Node]
    ) -> None:
        self.counts, self.ended = counts, set[str]()
        monkeypatch.setattr(fleets, "try_scrape", self._page)
        monkeypatch.setattr("support.observe.workers.try_scrape", self._page)
        monkeypatch.setattr(fleets, "SETTLE_SECONDS", 0.05)
        monkeypatch.setattr(fleets, "ARRIVAL_SECONDS", 0.05)
        monkeypatch.setattr(fleets, "QUIET_SECONDS", 0.05)
        deployment: Any = SimpleNamespace(
            nodes=nodes,
            workers=[node for node in nodes if node.role != "frontend"],
            life=lambda node: Life(node.name, 1, "", "ended" if node.name in self.ended else "running"),
        )
        self.fleet = Fleet(deployment, RELEASE, EventLog(), tmp_path)

    def _page(self, node: Node) -> Exposition | None:
        count = self.counts[node.name]
        names = RELEASE.metrics
        lines = [f'{names[key]}{{dynamo_endpoint="generate"}} {count}' for key in ("worker_response_bytes",)]
        lines += [
            f'{names["worker_inflight"]}{{dynamo_endpoint="generate"}} 0',
            f"{names['frontend_migrations']} {count}",
        ]
        return None if count is None else Exposition("\n".join([*lines, ""]))


def test_a_worker_that_gives_no_answer_is_not_idle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pages = Pages(monkeypatch, tmp_path, {"w-0": 5, "w-1": None}, WORKERS[:2])
    with pytest.raises(AssertionError, match="w-1 does not answer"):
        pages.fleet.expect_idle(0.1, victims=[])
    pages.fleet.expect_idle(0.1, victims=["w-1"])
    pages.ended.add("w-1")
    pages.fleet.expect_idle(0.1, victims=[])


def test_a_metric_that_is_not_there_is_no_zero(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pages = Pages(monkeypatch, tmp_path, {"w-0": 5}, WORKERS[:1])
    monkeypatch.setattr("support.observe.workers.try_scrape", lambda node: Exposition("another 1\n"))
    assert pages.fleet.in_flight() == {"w-0": None}
    with pytest.raises(AssertionError, match="w-0 does not answer"):
        pages.fleet.expect_idle(0.1, victims=[])


def test_old_bytes_are_no_production(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pages = Pages(monkeypatch, tmp_path, {"w-0": 5}, WORKERS[:1])
    answers = iter([None, 5.0])
    monkeypatch.setattr(fleets, "produced_bytes", lambda node, names: next(answers, 5.0))
    with pytest.raises(Inconclusive, match="the worker was not producing"):
        pages.fleet.see_production(WORKERS[0])


def test_bytes_count_from_when_the_deployment_was_ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pages = Pages(monkeypatch, tmp_path, {"w-0": 100, "w-1": None}, WORKERS[:2])
    assert pages.fleet.grown_bytes(["w-0", "w-1"]) == {"w-0": 0}
    pages.counts["w-0"] = 30  # another life of it, which counts from 0
    assert pages.fleet.grown_bytes(["w-0"]) == {"w-0": 30}
    pages.counts["w-1"] = 7  # of which nobody knows how many are new
    with pytest.raises(Inconclusive, match="w-1 did not report what it had sent when the deployment was ready"):
        pages.fleet.grown_bytes(["w-0", "w-1"])
    assert pages.fleet.producing(["w-0"]) == ["w-0"]


def test_a_frontend_that_gives_no_answer_has_not_counted_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fronts = [FRONTEND, Node("frontend-1", "frontend", "127.0.0.1", 2, None)]
    pages = Pages(monkeypatch, tmp_path, {"frontend-0": 4, "frontend-1": 1}, fronts)
    pages.counts["frontend-0"] = 6
    assert pages.fleet.frontend_count("frontend_migrations") == 2
    pages.counts["frontend-1"] = None
    with pytest.raises(Inconclusive, match=r"what frontends have counted is unknown.*frontend-1"):
        pages.fleet.frontend_count("frontend_migrations")
    pages.ended.add("frontend-1")
    assert pages.fleet.frontend_count("frontend_migrations") == 2
    pages.ended.add("frontend-0")
    with pytest.raises(AssertionError, match="no frontend runs"):
        pages.fleet.frontend_count("frontend_migrations")


def test_the_dead_worker_that_is_listed_is_the_one_that_was_hit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pages = Pages(monkeypatch, tmp_path, {"w-0": 5}, WORKERS[:1])
    pages.fleet.deployment.frontend_url = "http://127.0.0.1:2"  # type: ignore[misc]
    monkeypatch.setattr(fleets, "numbers", lambda url: {"a1", "a2"})
    for dead in ({"w-0": "a0"}, {"w-0": None}, {}):
        with pytest.raises(Inconclusive, match="no dead worker is listed"):
            pages.fleet.expect_dead_listed(cast(Any, dead))
    pages.fleet.expect_dead_listed({"w-0": "a0", "w-1": "a1"})
    monkeypatch.setattr(fleets, "numbers", lambda url: None)
    with pytest.raises(Inconclusive, match="the frontend does not answer"):
        pages.fleet.expect_dead_listed({"w-0": None})


# -- who has had a request


class Moves:
    """A deployment with these journals and logs of workers, in which these have sent bytes."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, engine: str = "ruler", roles: Sequence[str] = ()
    ) -> None:
        monkeypatch.setattr(takeovers, "SETTLE_SECONDS", 0.05)
        self.folder, self.bytes = folder, set[str]()
        kinds = [*roles, "worker", "worker", "worker"][:3]
        workers = [Node(f"w-{number}", role, "127.0.0.1", 1, None) for number, role in enumerate(kinds)]
        self.watched: list[Any] = []
        self.events = EventLog()
        fleet = SimpleNamespace(
            producing=lambda names: sorted(self.bytes & set(names)),
            expect_production=self._expect_production,
            expect_lone_production=lambda victims: None,
        )
        stage: Any = SimpleNamespace(
            deployment=SimpleNamespace(workers=workers), logs=folder, engine=engine, events=self.events, fleet=fleet
        )
        self.takeovers = Takeovers(stage, cast(Any, SimpleNamespace(watched=self.watched)))

    def _expect_production(self, names: Sequence[str]) -> None:
        assert self.bytes & set(names), "no worker took over"

    def ask(self, number: str, ended_at: float | None = None) -> None:
        chunks = [Chunk(0.5, "token", completion_id=f"cmpl-{number}")]
        entry = LedgerEntry(len(self.watched) + 1, "completions", True, "m", "p", 9, chunks=chunks, ended_at=ended_at)
        self.watched.append(SimpleNamespace(entry=entry))

    def note(self, worker: str, number: str, produced: int | None) -> None:
        lines = [{"event": "received", "request_id": number, "at": 1.0, "start": 3, "max_tokens": 9}]
        if produced is not None:
            lines.append(
                {"event": "left", "request_id": number, "at": 2.0, "produced": produced, "outcome": "finished"}
            )
        with (self.folder / f"{worker}.journal.jsonl").open("a") as stream:
            stream.write("".join(json.dumps(line) + "\n" for line in lines))

    def log(self, worker: str, number: str) -> None:
        with (self.folder / f"{worker}.log").open("a") as stream:
            stream.write(f"request received \x1b[3mrequest_id\x1b[0m={number}\n")


def hit(name: str, at: float = 5.0) -> ProvenFault:
    node = Node(name, "worker", "127.0.0.1", 1, None)
    return ProvenFault("f", Crash(Exactly(node)), node, at, at, at, at, at)


def test_who_takes_over_has_written_of_the_very_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    moves = Moves(monkeypatch, tmp_path)
    moves.ask("req-1")
    moves.note("w-0", "req-1", None)
    moves.note("w-1", "req-2", 4)  # of somebody else
    with pytest.raises(AssertionError, match=r"another worker has written the rest of request 1; .*given to w-0"):
        moves.takeovers.expect_takeover([hit("w-0")])
    moves.note("w-1", "req-1", 0)
    with pytest.raises(AssertionError, match="given to w-0, w-1"):
        moves.takeovers.expect_takeover([hit("w-0")])
    moves.note("w-2", "req-1", 4)
    moves.takeovers.expect_takeover([hit("w-0")])
    with pytest.raises(AssertionError, match="given to w-0, w-1, w-2"):  # w-2 was hit as well
        moves.takeovers.expect_takeover([hit("w-0"), hit("w-2")])


def test_each_request_that_a_victim_had_is_taken_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    moves = Moves(monkeypatch, tmp_path)
    moves.ask("req-1", ended_at=4.0)  # before the fault
    moves.ask("req-2", ended_at=9.0)
    for number in ("req-1", "req-2"):
        moves.note("w-0", number, 9)
    with pytest.raises(AssertionError, match="the rest of request 2"):
        moves.takeovers.expect_takeover([hit("w-0")])
    moves.note("w-1", "req-2", 4)
    moves.takeovers.expect_takeover([hit("w-0")])
    with pytest.raises(Inconclusive, match="w-2 had none of the requests"):
        moves.takeovers.expect_takeover([hit("w-2")])


def test_engines_without_a_journal_name_requests_in_their_logs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    moves = Moves(monkeypatch, tmp_path, "vllm", ("decode", "decode", "prefill"))
    moves.ask("req-1")
    moves.bytes = {"w-1", "w-2"}
    moves.log("w-0", "req-1")
    moves.log("w-2", "req-1")  # the prefill worker, which had it before
    with pytest.raises(AssertionError, match="given to w-0, w-2"):
        moves.takeovers.expect_takeover([hit("w-0")])
    moves.log("w-1", "req-1")
    moves.takeovers.expect_takeover([hit("w-0")])
    moves.bytes = {"w-2"}
    with pytest.raises(AssertionError, match="given to w-0, w-1, w-2"):
        moves.takeovers.expect_takeover([hit("w-0")])
    assert not moves.events.all()


def test_where_nobody_names_a_request_bytes_have_to_do_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    moves = Moves(monkeypatch, tmp_path, "vllm", ("decode", "decode", "prefill"))
    moves.ask("req-1")
    moves.bytes = {"w-2"}
    with pytest.raises(AssertionError, match="no worker took over"):
        moves.takeovers.expect_takeover([hit("w-0")])
    moves.bytes = {"w-1"}
    moves.takeovers.expect_takeover([hit("w-0")])
    assert moves.events.all()[-1].text == takeovers.UNNAMED


@pytest.mark.parametrize(
    ("roles", "given", "victims", "moved"),
    [
        ((), ["w-0"], [], ""),
        ((), ["w-0", "w-1"], [], "w-0, w-1"),
        ((), ["w-0", "w-1"], ["w-0"], "w-1"),
        ((), ["w-1"], ["w-0"], "w-1"),
        (("decode", "decode", "prefill"), ["w-0", "w-2"], ["w-0"], ""),
        (("decode", "decode", "prefill"), ["w-0", "w-1", "w-2"], [], "w-0, w-1"),
    ],
)
def test_a_request_that_two_workers_of_a_kind_were_given_was_moved(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    roles: Sequence[str],
    given: list[str],
    victims: list[str],
    moved: str,
) -> None:
    moves = Moves(monkeypatch, tmp_path, roles=roles)
    moves.ask("req-1")
    for worker in given:
        moves.note(worker, "req-1", 0)
    if not moved:
        moves.takeovers.expect_no_takeover(victims)
        return
    with pytest.raises(NotKept, match=f"request 1 was given to {moved}$") as caught:
        moves.takeovers.expect_no_takeover(victims)
    [seen] = caught.value.seen
    wanted = {"request_id": "req-1", "node": moved.split(",")[0], "flaw": "moved", "workers": len(given), "late": None}
    assert (seen.kind, seen.facts) == ("given", wanted)


# -- a worker that comes back


@pytest.mark.parametrize(
    ("number", "listed", "seen"),
    [
        ("b0", {"b0", "a1"}, None),
        ("b0", None, "b0 is not in None"),  # no answer
        ("b0", {"b1", "a1"}, "b0 is not in"),  # another one is new
        ("a0", {"a0", "b1"}, "w-0 is a0"),  # what it was called before
        (None, {"b0"}, "w-0 is None"),
    ],
)
def test_a_worker_is_back_when_it_is_listed_by_its_new_number(
    monkeypatch: pytest.MonkeyPatch, number: str | None, listed: set[str] | None, seen: str | None
) -> None:
    monkeypatch.setattr(runner, "BACK_SECONDS", 0.05)
    monkeypatch.setattr(runner, "worker_id", lambda node: number)
    monkeypatch.setattr(runner, "numbers", lambda url: listed)
    stage: Any = SimpleNamespace(deployment=SimpleNamespace(frontend_url="http://127.0.0.1:2"))
    play = runner._Play(stage, cast(Any, None), cast(Any, None), cast(Any, None))
    with pytest.raises(AssertionError, match=seen) if seen else nullcontext():
        play._await_new_worker(WORKERS[0], "a0")


def test_a_list_names_workers_as_their_pages_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from support.observe import health

    monkeypatch.setattr(health, "instances", lambda url: [Instance("backend", 0x5732A21EFB975F0D, "")])
    assert health.numbers("http://127.0.0.1:2") == {"5732a21efb975f0d"}
    monkeypatch.setattr(health, "instances", lambda url: None)
    assert health.numbers("http://127.0.0.1:2") is None


# -- lives


class Lives:
    """A scenario whose last victim was hit in its life 1 and has, as target and witness see it, these now."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, life: Life, seen: str) -> None:
        monkeypatch.setattr(lifetimes, "OUT_SECONDS", 0.05)
        monkeypatch.setattr(lifetimes, "LOOK_SECONDS", 0.02)
        monkeypatch.setattr(lifetimes, "try_scrape", lambda node: Exposition(""))
        struck = ProvenFault(
            "f", Crash(Exactly(WORKERS[0])), WORKERS[0], 1, 1, 1, 1, 1, life=Life("w-0", 1, "", "running")
        )
        stage: Any = SimpleNamespace(
            deployment=SimpleNamespace(life=lambda node: life),
            target=SimpleNamespace(witness=SimpleNamespace(state=lambda each: seen)),
        )
        nobody: Any = None
        faults: Any = SimpleNamespace(last=struck)
        self.lifetimes = Lifetimes(stage, nobody, nobody, nobody, faults, nobody)


@pytest.mark.parametrize(
    ("state", "seen", "out"), [("fenced", "gone", True), ("fenced", "alive", False), ("running", "gone", False)]
)
def test_who_stays_out_has_no_process_for_the_witness_either(
    monkeypatch: pytest.MonkeyPatch, state: str, seen: str, out: bool
) -> None:
    lives = Lives(monkeypatch, Life("w-0", 1, "pid 1", state, 1), seen)
    with nullcontext() if out else pytest.raises(AssertionError, match=f"w-0 is {state}, its process {seen}"):
        lives.lifetimes.expect_out(WORKERS[0])


@pytest.mark.parametrize(
    ("number", "state", "back"), [(2, "running", True), (1, "running", False), (2, "ended", False)]
)
def test_who_runs_again_has_another_life_than_the_one_that_was_hit(
    monkeypatch: pytest.MonkeyPatch, number: int, state: str, back: bool
) -> None:
    lives = Lives(monkeypatch, Life("w-0", number, f"pid {number}", state, 3), "alive")
    with nullcontext() if back else pytest.raises(AssertionError, match=f"last seen: pid {number}, {state}"):
        lives.lifetimes.expect_restarted(0.1)


# -- the engine's own word


class Journals:
    """Answers of one watched request, ``req-1``, with these journals."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        monkeypatch.setattr(answers, "ARRIVAL_SECONDS", 0.05)
        self.moves = Moves(monkeypatch, folder)
        self.moves.ask("req-1")
        watched = self.moves.watched
        clients: Any = SimpleNamespace(watched=watched, request=watched[0])
        stage: Any = SimpleNamespace(logs=folder, events=EventLog())
        self.answers = Answers(stage, clients, cast(Any, SimpleNamespace(victims=set())), cast(Any, None))


def test_the_request_is_being_moved_when_two_workers_name_that_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    journals = Journals(monkeypatch, tmp_path)
    journals.moves.note("w-0", "req-1", None)
    journals.moves.note("w-1", "req-2", None)  # of somebody else
    with pytest.raises(Inconclusive, match="the request was not being moved"):
        journals.answers.see_moving()
    journals.moves.note("w-1", "req-1", None)
    journals.answers.see_moving()


def test_the_engine_that_was_told_to_stop_had_the_watched_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    journals = Journals(monkeypatch, tmp_path)
    journals.moves.note("w-1", "req-2", 9)  # of somebody else, whom nobody told
    with pytest.raises(Inconclusive, match="no living worker has been given a watched request"):
        journals.answers.expect_engine_stopped()
    journals.moves.note("w-0", "req-1", 4)
    with pytest.raises(AssertionError, match="w-0 was not told to stop"):
        journals.answers.expect_engine_stopped()
