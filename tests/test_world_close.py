"""The end of a scenario in which everything refuses: the records are there, and every refusal is a finding."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from support.contract.deployment import Facts, Node
from support.contract.shape import Shape
from support.contract.target import Target
from support.errors import Refused
from support.judge.history import History
from support.judge.invariants import check, evidence
from support.judge.judge import decide, judge_scenario
from support.judge.verdict import Finding
from support.observe import etcd
from support.observe.etcd import EtcdError
from support.observe.etcd_recorder import EtcdRecorder
from support.requests.load import LoadRun
from support.settings import Settings
from support.targets.local.deployment import LocalDeployment
from support.world.world import World

RECORD = {"kind": "seen before", "at": 1.0, "node": "e-0"}
RECORDS = ("ledger.jsonl", "topology.json", "etcd.jsonl", "events.jsonl")


class Service:
    """A fault service with three live faults, the first of which cannot be undone."""

    def __init__(self) -> None:
        self.undone: list[str] = []

    def faults(self, active: bool = False) -> list[dict[str, Any]]:
        return [{"id": f"f-{number}", "kind": "network", "type": "drop"} for number in range(3)]

    def recover(self, fault_id: str) -> None:
        if fault_id == "f-0":
            raise Refused(502, "Not undone: the undo of f-0 has failed")
        self.undone.append(fault_id)


def refuse(*_: Any, **__: Any) -> Any:
    raise Refused(0, "the node agent does not answer")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with a request that has ended and a deployment of one frontend and one etcd member, watched."""
    target = SimpleNamespace(service=Service(), witness=None, watch_waits=lambda _: SimpleNamespace(close=list))
    found = World(Settings(), tmp_path / "scenario", cast(Target, target))
    found.stage.logs.mkdir()
    nodes = [Node(name, role, "127.0.0.1", 9, None) for name, role in (("f-0", "frontend"), ("e-0", "etcd"))]
    deployment = SimpleNamespace(nodes=nodes, shape=Shape(), topology=lambda: {"nodes": []}, remove=list)
    deployment.facts, deployment.changes = Facts(), list
    found.stage._deployment = cast(Any, deployment)
    found.stage._fleet = cast(Any, SimpleNamespace(before={}, last_look=dict))
    found.stage.recorder = EtcdRecorder([], found.stage.events, dict)
    found.stage.recorder.records.append(RECORD)
    found.stage.ledger.open(api="completions", stream=True, model="m", prompt="a", max_tokens=1, end="refused")
    return found


def written(world: World) -> dict[str, str]:
    return {name: file.read_text() for name in RECORDS if (file := world.stage.folder / name).exists()}


def test_a_refused_undo_costs_no_record_and_no_other_undo(world: World) -> None:
    history = world.close(give_up=False)
    assert set(written(world)) == set(RECORDS)
    assert [entry.end for entry in history.entries] == ["refused"]
    assert RECORD in history.etcd
    assert cast(Any, world.stage.target.service).undone == ["f-1", "f-2"]
    [finding] = [each for each in check(history) if each.rule == "not-undone"]
    assert (finding.blame, "f-0 (drop)" in finding.message) == ("suite", True)


@pytest.mark.parametrize("broken", ["topology", "faults", "states", "recorder", "metrics", "remove", "journal", "load"])
def test_whatever_refuses_the_records_are_written_and_the_deployment_is_taken_down(world: World, broken: str) -> None:
    removed: list[str] = []
    whole: Any = world.stage

    def remove() -> list[str]:
        removed.append("it")
        return []

    whole._deployment.remove = remove
    if broken == "topology":
        whole._deployment.topology = refuse
    elif broken == "faults":
        whole.target.service.faults = refuse
    elif broken == "states":
        whole._deployment.changes = refuse
    elif broken == "recorder":
        whole.recorder.stop = refuse
    elif broken == "metrics":
        whole._fleet.last_look = refuse
    elif broken == "remove":
        whole._deployment.remove = refuse
    elif broken == "journal":
        (world.stage.folder / "logs" / "w.journal.jsonl").mkdir()
    else:
        load = SimpleNamespace(folder=world.stage.folder / "load", ended=False, stop=refuse, kill=refuse, join=refuse)
        world.clients.loads = [cast(LoadRun, load)]
    history = world.close(give_up=True)
    topology = json.loads(written(world)["topology.json"])
    assert {"ledger.jsonl", "topology.json"} <= set(written(world))
    assert (broken != "topology") or [node["name"] for node in topology["nodes"]] == ["f-0", "e-0"]
    assert [entry.end for entry in history.entries] == ["refused"]
    assert removed == ([] if broken == "remove" else ["it"])
    told = history.not_undone[1 if broken != "faults" else 0 :] + history.records_lost
    assert told, "what refused is told"


def test_the_ledger_is_on_disk_before_anybody_is_called(world: World) -> None:
    seen: list[set[str]] = []
    whole: Any = world.stage

    def watch(place: Any, name: str) -> None:
        real = getattr(place, name)

        def call(*given: Any, **named: Any) -> Any:
            seen.append(set(written(world)))
            return real(*given, **named)

        setattr(place, name, call)

    for place, name in (
        (whole._deployment, "topology"),
        (whole.target.service, "faults"),
        (whole.recorder, "stop"),
        (whole._fleet, "last_look"),
        (whole._deployment, "remove"),
        (whole._deployment, "changes"),
    ):
        watch(place, name)
    world.close(give_up=False)
    assert len(seen) == 6
    assert all({"ledger.jsonl", "topology.json"} <= each for each in seen)


def test_a_wreck_is_judged_before_it_is_kept_and_is_left_as_it_is(world: World) -> None:
    whole: Any = world.stage
    whole._deployment.remove = whole._fleet.last_look = refuse
    asked: list[History] = []

    def keep(history: History) -> bool:
        asked.append(history)
        return True

    kept = world.close(give_up=True, keep=keep)
    assert asked == [kept]
    assert whole.target.service.undone == []
    assert (kept.not_undone, kept.records_lost, set(written(world))) == ([], [], set(RECORDS))
    assert {"gauges", "etcd-lease", "leftovers", "not-undone"} <= set(kept.not_judged)
    assert not set(evidence(kept)) & set(kept.not_judged)


def test_one_that_only_the_last_look_shows_to_have_failed_is_kept_without_its_faults(world: World) -> None:
    whole: Any = world.stage
    whole._deployment.remove = refuse
    kept = world.close(give_up=False, keep=lambda _: True)
    assert whole.target.service.undone == ["f-1", "f-2"]
    assert set(kept.not_judged) == {"leftovers", "not-undone"}
    assert RECORD in kept.etcd


def test_what_is_not_to_be_kept_ends_as_ever(world: World) -> None:
    asked: list[History] = []

    def keep(history: History) -> bool:
        asked.append(history)
        return False

    history = world.close(give_up=True, keep=keep)
    assert len(asked) == 2
    assert (dict(history.not_judged), history.not_undone[0].startswith("fault f-0")) == ({}, True)
    notes = [event.text for event in history.events if "slower than alone" in event.text]
    assert len(notes) == 1, "what is looked at twice is told once"


def test_a_boot_that_fails_keeps_what_was_seen_of_etcd(world: World) -> None:
    world.stage._deployment = world.stage._fleet = None
    assert RECORD in world.close(give_up=True).etcd
    assert "e-0" in written(world)["etcd.jsonl"]


def test_what_was_lost_voids_all_and_what_was_not_undone_only_the_last_look() -> None:
    broken = Finding("one-outcome", "request 1", "cut off")
    gauge = Finding("gauges", "frontend-0", "1 in flight")
    lost, left = History(records_lost=["ledger: OSError"]), History(not_undone=["fault f-0: refused"])
    found = {name: check(each) for name, each in (("lost", lost), ("left", left))}
    assert decide([broken, *found["lost"]], [], "1.6.1", "s")[0] == "inconclusive"
    assert decide([broken, *found["left"]], [], "1.6.1", "s")[0] == "failed"
    assert decide([gauge, *found["left"]], [], "1.6.1", "s")[0] == "inconclusive"
    assert judge_scenario(left, None)[0].blame == "suite"


def test_a_watch_that_breaks_down_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(_: Node) -> Any:
        raise KeyError("header")

    monkeypatch.setattr(etcd, "status", odd)
    recorder = EtcdRecorder([world.deployment.nodes[1]], world.stage.events, dict)
    recorder._threads[0].join(20)
    world.stage.recorder = recorder
    told, *_ = world.close(give_up=False).records_lost
    assert ("e-0" in told, "KeyError" in told) == (True, True)


def test_members_that_answer_no_last_question_leave_the_records_so_far(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Any) -> Any:
        raise EtcdError("no answer")

    monkeypatch.setattr(etcd, "statuses", away)
    history = world.close(give_up=False)
    assert history.etcd == [RECORD]
    assert ["no last look" in each for each in history.records_lost] == [True]


def test_a_deployment_that_cannot_be_removed_is_looked_at_all_the_same() -> None:
    view = {"processes": [7], "namespaces": ["f-0"], "links": []}
    deployment: Any = LocalDeployment.__new__(LocalDeployment)
    deployment._agent = SimpleNamespace(remove_deployment=refuse, world=lambda: view)
    deployment._world_before = {"processes": [], "namespaces": [], "links": []}
    assert deployment.remove()[1:] == ["process 7", "namespace f-0"]
