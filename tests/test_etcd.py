"""A real etcd as the observers see it, and what a deployment says about an etcd that cannot be used."""

import contextlib
import random
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from support import binaries, clock, releases
from support.clock import now
from support.contract.deployment import Node
from support.contract.shape import Shape
from support.errors import DeploymentFailed, Inconclusive, Since
from support.events import EventLog
from support.observe import etcd, etcd_recorder, waiting
from support.observe.etcd_recorder import EtcdRecorder
from support.observe.fleet import Fleet
from support.observe.waiting import until
from support.report import timeline
from support.settings import Settings
from support.targets.local import deployment as local_deployment
from support.targets.local.agent import Agent
from support.targets.local.deployment import LocalDeployment, Site
from support.world.clients import Clients
from support.world.etcd import EtcdCluster
from support.world.faults import Faults
from support.world.members import EtcdMembers
from support.world.victims import Victims
from tests.patience import PATIENCE


def free_port(address: str = "127.0.0.1") -> int:
    with socket.create_server((address, 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Node]:
    """A lone etcd on the loopback, on an address of its own: of 127.0.0.1 somebody else may take the port meanwhile."""
    address = f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(254) + 1}.{secrets.randbelow(254) + 1}"
    port, peer = free_port(address), f"http://{address}:{free_port(address)}"
    client = f"http://{address}:{port}"
    argv = [str(binaries.etcd(Settings())), "--name", "etcd-0", "--data-dir", str(tmp_path / "data")]
    argv += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
    argv += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"etcd-0={peer}"]
    node = Node("etcd-0", "etcd", address, port, f"{client}/metrics")
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            until(lambda: None if etcd.healthy(node) else "it is not", PATIENCE, "etcd is healthy")
            yield node
        finally:
            process.kill()


def put(node: Node, key: str, value: str, lease: str) -> None:
    coded = {name: etcd._base64(text) for name, text in (("key", key), ("value", value))}
    etcd.call(node, "/v3/kv/put", coded | {"lease": lease})


def test_a_member_is_seen_with_leader_leases_and_registrations(member: Node, tmp_path: Path) -> None:
    events, names = EventLog(), dict[str, str]()
    recorder = EtcdRecorder([member], events, lambda: names)
    lease = etcd.call(member, "/v3/lease/grant", {"TTL": 60})["ID"]
    names[f"{int(lease):x}"] = "worker-7"
    put(member, "v1/instances/a/b", "{}", lease)
    seen = etcd.status(member)
    assert (seen.leads, seen.revision, seen.term >= 2, seen.version[:2]) == (True, 2, True, "3.")
    assert etcd.leader([member]) == member
    assert etcd.disagreement([member]) is None
    [number] = etcd.lease_ids(member)
    found = etcd.lease(member, number)
    assert found
    assert number == found.id
    assert (found.granted, 55 <= found.left <= 60, found.keys) == (60, True, ("v1/instances/a/b",))
    assert [(each.key, each.lease) for each in etcd.registrations(member)] == [("v1/instances/a/b", found.id)]
    until(lambda: None if told(events, "1 key registered") else "not told", PATIENCE, "the registration is told")
    # As a worker does that shuts down: its address goes first, another key with the lease.
    put(member, "v1/event_channels/a", "{}", lease)
    until(lambda: None if told(events, "2 keys registered") else "not told", PATIENCE, "another key is told")
    etcd.call(member, "/v3/kv/deleterange", {"key": etcd._base64("v1/instances/a/b")})
    until(
        lambda: None if count(events, "worker-7 has 1 key") == 2 else "not told", PATIENCE, "it is still the worker's"
    )
    assert [event.data["gone"] for event in events.all() if " registered" in event.text] == [False, False, True]
    assert recorder.leases_of("worker-7") == {found.id}
    hashed = etcd.hash_at(member, 4)
    etcd.call(member, "/v3/lease/revoke", {"ID": lease})
    assert etcd.hash_at(member, 4) == hashed  # what comes later does not count
    assert etcd.hash_at(member, 5) != hashed
    with pytest.raises(etcd.EtcdError, match="required revision"):
        etcd.hash_at(member, 99)
    records = recorder.close(tmp_path / "etcd.jsonl")  # which looks a last time
    assert told(events, "the lease of worker-7 is gone with 1 key")
    assert told(events, "etcd-0 leads in term")
    assert [each["holder"] for each in records if each["kind"] == "lease"] == ["worker-7"]
    assert (list(records[-1]["hashes"]), records[-1]["disagreement"]) == (["etcd-0"], "")
    assert [name for _, name in recorder.leaders(0.0)] == ["etcd-0"]


def test_a_member_that_answers_late_makes_no_lease_end_early(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is asked at 10 s and 10.6 s; a second of the lease is left at first, and the last answer comes at 11.2 s."""
    times, answers = iter([10.0, 10.1, 10.6, 11.2, 11.4, 11.5]), iter([["a"], [], []])
    monkeypatch.setattr(etcd_recorder, "now", lambda: next(times))
    monkeypatch.setattr(etcd, "lease_ids", lambda _: next(answers))
    monkeypatch.setattr(etcd, "lease", lambda _, number: etcd.Lease(number, 1, 30, ("v1/mdc/x",)))
    recorder = EtcdRecorder([], EventLog(), dict)
    for _ in range(3):
        recorder._look_at_leases(cast(Node, None))
    [record] = recorder.records
    assert (record["at"], record["left"], record["gone_at"]) == (10.0, 1, 11.2)


def test_a_lease_is_asked_for_when_it_may_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look every 0.2 s: at first, at a new revision, and otherwise once a second."""
    looked, at, seen = list[float](), 10.0, etcd.Lease("a", 9, 10, ())

    def lease(*_: Any) -> etcd.Lease:
        looked.append(round(at, 1))
        return seen

    monkeypatch.setattr(etcd_recorder, "now", lambda: at)
    monkeypatch.setattr(etcd, "lease_ids", lambda _: ["a"])
    monkeypatch.setattr(etcd, "lease", lease)
    recorder = EtcdRecorder([], EventLog(), lambda: {"a": "worker-0"})
    for look in range(12):
        at = 10.0 + 0.2 * look
        if look == 2:
            seen = etcd.Lease("a", 9, 10, ("v1/mdc/x",))
        recorder._look_at_leases(cast(Node, None), 7 if look < 2 else 8)
    assert looked == [10.0, 10.4, 11.4]
    assert recorder.leases_of("worker-0") == {"a"}


def count(events: EventLog, words: str) -> int:
    return sum(words in event.text for event in events.all())


def told(events: EventLog, words: str) -> bool:
    return count(events, words) > 0


def test_a_member_that_is_not_there_is_said_so() -> None:
    nobody = Node("etcd-3", "etcd", "127.0.0.1", free_port(), None)
    with pytest.raises(etcd.EtcdError, match=r"etcd-3 does not answer /v3/maintenance/status"):
        etcd.status(nobody)
    assert etcd.leader([nobody]) is None
    assert etcd.disagreement([nobody]) == "etcd-3 does not answer"


class IdleAgent:
    """Takes every process and never runs one."""

    def __init__(self) -> None:
        self.argvs: list[list[str]] = []

    def world(self) -> dict[str, Any]:
        return {}

    def add_node(self, name: str, role: str) -> str:
        return f"127.88.{random.randrange(1, 250)}.{len(name)}"

    def run(self, **spec: Any) -> None:
        self.argvs.append(spec["argv"])
        Path(spec["log"]).write_text(f"{spec['node']} is campaigning\n")

    def processes(self) -> dict[str, Any]:
        return {}


def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings, members: int) -> LocalDeployment:
    monkeypatch.setenv("FT_CELL", "loopback")
    agent = cast(Agent, IdleAgent())
    logs = tmp_path / "logs"
    logs.mkdir()
    site = Site(settings, releases.get("1.6.1"), logs, tmp_path, EventLog(), agent)
    return LocalDeployment(site, Shape(etcd_members=members), lambda _: None)


def etcd_that_says(tmp_path: Path, version: str) -> Settings:
    program = tmp_path / "etcd"
    program.write_text(f"#!/bin/sh\necho etcd Version: {version}\n")
    program.chmod(0o755)
    return Settings(etcd_binary=program)


def test_a_cluster_without_leader_is_reported_with_the_members_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_deployment, "ETCD_SECONDS", 0.1)
    made = deployment(tmp_path, monkeypatch, Settings(), 3)
    with pytest.raises(DeploymentFailed) as failed:
        made.start()
    words = str(failed.value)
    assert "all etcd members (3) are healthy and have a leader" in words
    assert all(f"etcd-{number} is campaigning" in words for number in range(3))
    argv = cast(IdleAgent, made.site.agent).argvs[1]
    assert argv[argv.index("--initial-cluster") + 1].count("http://127.88.") == 3


@pytest.mark.parametrize(
    ("version", "words"), [("3.3.27", r"is etcd 3\.3\.27; 3\.4 or newer is needed"), ("none", "version is .*none")]
)
def test_an_etcd_that_is_too_old_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, words: str
) -> None:
    made = deployment(tmp_path, monkeypatch, etcd_that_says(tmp_path, version), 1)
    with pytest.raises(DeploymentFailed, match=words):
        made.start()


def test_a_data_folder_that_is_there_already_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic_ns", lambda: 5)
    (tmp_path / "etcd-0-5").mkdir()
    made = deployment(tmp_path, monkeypatch, Settings(), 1)
    with pytest.raises(DeploymentFailed, match=r"etcd-0-5 for the data of etcd-0 is there already and is not ours"):
        made.start()


@pytest.mark.parametrize(
    ("members", "role", "picked"),
    [
        (3, "leader", [1]),
        (3, "follower", [0]),
        (3, "minority", [0]),
        (3, "majority", [1, 0]),
        (4, "minority", [0]),
        (4, "majority", [1, 0, 2]),
        (5, "minority", [0, 2]),
        (5, "majority", [1, 0, 2]),
        (5, "all", [0, 1, 2, 3, 4]),
    ],
)
def test_members_are_picked_by_role(
    monkeypatch: pytest.MonkeyPatch, members: int, role: str, picked: list[int]
) -> None:
    nodes, cluster = cluster_of(monkeypatch, members)
    assert cluster._members.pick(role) == [nodes[number] for number in picked]


def test_the_busiest_member_keeps_a_lease_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, cluster = cluster_of(monkeypatch, 3)
    streams = {"etcd-0": 0, "etcd-1": 0, "etcd-2": 3}
    monkeypatch.setattr(etcd, "keep_alives", lambda node: streams[node.name])
    assert cluster._members.pick("busiest") == [nodes[2]]
    streams["etcd-2"] = 0
    with pytest.raises(Inconclusive, match="no etcd member has leases kept alive through it"):
        cluster._members.pick("busiest")


def test_what_was_never_broken_cannot_return_nor_be_led_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cluster = cluster_of(monkeypatch, 3)
    with pytest.raises(Inconclusive, match="no etcd member is broken"):
        cluster.bring_back()
    with pytest.raises(Inconclusive, match="so none can be new"):
        cluster.expect_new_leader(0.0, 5.0)


@pytest.mark.parametrize(("led_after", "found"), [(3.0, True), (6.0, False)])
def test_a_new_leader_has_to_lead_in_time(monkeypatch: pytest.MonkeyPatch, led_after: float, found: bool) -> None:
    nodes, cluster = cluster_of(monkeypatch, 3)
    since = now() - 8
    cluster._stage.etcd_recorder._led = [(since + led_after, "etcd-2")]
    cluster._members.pick("leader")
    monkeypatch.setattr(etcd, "leader", lambda _: nodes[2])
    late = pytest.raises(AssertionError, match=r"5 seconds of the fault: .*etcd-2 leads 6\.0 s after")
    with contextlib.nullcontext() if found else late:
        cluster.expect_new_leader(since, 5.0)


def test_a_worker_that_was_never_registered_cannot_be_registered_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cluster = cluster_of(monkeypatch, 1)
    worker = Node("worker-0", "worker", "10.0.0.9", 1, None)
    monkeypatch.setattr(etcd, "registrations", lambda _: [etcd.Registration("v1/instances/a", "7b")])
    with pytest.raises(Inconclusive, match="worker-0 was never seen registered"):
        cluster.registered(worker)
    cluster._stage.etcd_recorder._holders["7b"] = "worker-0"
    assert cluster.registered(worker)


@pytest.mark.parametrize(("version", "verdict"), [("3.5.1", Inconclusive), ("3.5.9", AssertionError)])
def test_an_etcd_that_is_known_to_diverge_is_not_held_against_dynamo(
    monkeypatch: pytest.MonkeyPatch, version: str, verdict: type[Exception]
) -> None:
    _, cluster = cluster_of(monkeypatch, 2)
    seen = {f"etcd-{number}": etcd.Status(f"etcd-{number}", number, 1, 2, 5, 5, 5, version) for number in range(2)}
    monkeypatch.setattr(etcd, "statuses", lambda _: seen)
    monkeypatch.setattr(etcd, "hashes", lambda _: {"etcd-0": 1, "etcd-1": 2})
    with pytest.raises(verdict, match="members disagree" if verdict is Inconclusive else "hashes .*last lines"):
        cluster.expect_agreement(0.1)


def test_a_lease_is_counted_in_whole_seconds() -> None:
    Shape(lease_seconds=5.0).check(releases.get("1.6.1"))
    for wrong in (2.5, 0.5, 0.0):
        with pytest.raises(ValueError, match=f"lease_seconds is {wrong}; expected whole seconds, 1 or more"):
            Shape(lease_seconds=wrong).check(releases.get("1.6.1"))


def test_nothing_is_seen_after_the_deadline() -> None:
    late = r"not within 2 seconds of the fault: it holds; the suite looked 3\.0 s too late"
    with pytest.raises(AssertionError, match=late):
        until(lambda: None, 2.0, "it holds", since=Since(now() - 5.0, "the fault"))


@pytest.mark.parametrize("holds_at", [0.0, 0.5, 4.9, 30.0, 59.9])
def test_who_waits_for_long_looks_less_often_and_is_hardly_late(
    monkeypatch: pytest.MonkeyPatch, holds_at: float
) -> None:
    """With a deadline of 60 s, before which it looks a last time."""
    time, looks = 0.0, 0

    def sleep(seconds: float) -> None:
        nonlocal time
        time += seconds

    def probe() -> str | None:
        nonlocal looks
        looks += 1
        return None if time >= holds_at else "not yet"

    monkeypatch.setattr(waiting, "now", lambda: time)
    monkeypatch.setattr(clock, "sleep", sleep)
    seen_at = until(probe, 60.0, "it holds")
    assert holds_at <= seen_at <= min(60.0, holds_at * (1 + waiting.LATER) + waiting.PERIOD_SECONDS)
    assert looks <= 100 + 4 * holds_at


def test_a_frontend_that_does_not_answer_lists_nothing(tmp_path: Path) -> None:
    nobody: Any = SimpleNamespace(frontend_url=f"http://127.0.0.1:{free_port()}", nodes=[], workers=[])
    fleet = Fleet(nobody, releases.get("1.6.1"), EventLog(), tmp_path)
    with pytest.raises(AssertionError, match="last seen: the frontend does not answer"):
        fleet.expect_listed(0, 0.1)
    with pytest.raises(AssertionError, match="last seen: the frontend does not answer"):
        fleet.expect_no_model(0.1)


def test_a_role_that_nobody_has_makes_the_scenario_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cluster = cluster_of(monkeypatch, 2)
    with pytest.raises(Inconclusive, match="a cluster with 2 members has no minority"):
        cluster._members.pick("minority")


def cluster_of(monkeypatch: pytest.MonkeyPatch, members: int) -> tuple[list[Node], EtcdCluster]:
    """A cluster whose second member leads."""
    nodes = [Node(f"etcd-{number}", "etcd", "127.0.0.1", 1, None) for number in range(members)]
    monkeypatch.setattr(etcd, "leader", lambda _: nodes[1])
    recorder = EtcdRecorder([], EventLog(), dict)
    stage: Any = SimpleNamespace(
        nodes=lambda role: nodes, events=EventLog(), etcd_recorder=recorder, tail=lambda node, lines: "campaigning"
    )
    of_it = EtcdMembers(stage)
    return nodes, EtcdCluster(stage, of_it, Faults(stage, Clients(stage), Victims(stage, of_it)))


def test_the_timeline_shows_leaders_and_leases(tmp_path: Path) -> None:
    events = EventLog(tmp_path / "events.jsonl")
    events.add("leader", "etcd", "etcd-1 leads in term 2", at=10.0, leader="etcd-1", term=2)
    events.add("lease", "etcd", "worker-0 has 2 keys registered", at=11.0, gone=False)
    events.add("leader", "etcd", "no leader is seen", at=13.0, leader="", term=2)
    events.add("lease", "etcd", "the lease of worker-0 is gone with 2 keys", at=16.0, gone=True)
    events.add("note", "", "the steps are over", at=20.0)
    picture = timeline.draw(tmp_path)
    assert picture is not None
    drawn = picture.read_text()
    words = ("etcd leader", "etcd-1 leads in term 2", "no leader is seen")
    assert [each for each in words if each not in drawn] == []
    assert drawn.count("\N{MULTIPLICATION SIGN}") == 2, "one says what it means, one is where the lease was lost"
