"""The target kubernetes without a cluster: manifests, the words for what is wrong, lives, leases, what a shell does."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import releases
from support.contract.shape import Shape
from support.contract.target import Need
from support.errors import Inconclusive, Refused, Unsupported
from support.run import capabilities
from support.run.runtime import Run
from support.settings import ROOT, Settings
from support.targets.kubernetes import happenings, images, lives, manifests, scope, shell, troubles
from support.targets.kubernetes.api import ApiServer, ClusterError, explain, place
from support.targets.kubernetes.faults import PodFaults
from support.targets.kubernetes.kind import KubernetesKind
from support.targets.kubernetes.manifests import Blueprint, Programs
from support.targets.kubernetes.names import Names
from support.targets.kubernetes.target import DISCOVERIES, discovery
from support.targets.kubernetes.witness import PodWitness, over
from support.targets.needs import NEEDS

HOST = "https://cluster:6443"
IMAGES = Programs("dynamo:1", "suite:1")
NAMESPACED = ROOT / "support" / "targets" / "kubernetes" / "one-namespace.yaml"


def plan(discovery: str = "etcd", programs: Programs = IMAGES, **shape: Any) -> Blueprint:
    return Blueprint(Shape(**shape), releases.get("1.6.1"), programs, discovery)


def named(plan: Blueprint) -> dict[str, Any]:
    """``Kind/name`` -> the manifest."""
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in manifests.everything(plan, "here")}


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    return dict(manifest["spec"]["containers"][0])


def env(manifest: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(manifest)["env"]}


# -- manifests


def test_a_worker_is_one_pod_with_the_restart_policy_of_the_sentence() -> None:
    made = named(plan(engine="vllm", workers=2, restart_policy="OnFailure"))
    pods = {name: each for name, each in made.items() if name.startswith("Pod/")}
    assert sorted(pods) == ["Pod/frontend-0", "Pod/vllm-worker-0", "Pod/vllm-worker-1"]
    assert {each["spec"]["restartPolicy"] for each in pods.values()} == {"OnFailure"}
    assert {each["spec"]["shareProcessNamespace"] for each in pods.values()} == {True}
    assert container(pods["Pod/vllm-worker-1"])["command"][:3] == ["python3", "-m", "dynamo.mocker"]


def test_dynamo_is_told_of_every_member_of_etcd() -> None:
    made = named(plan(etcd_members=3))
    assert made["StatefulSet/etcd"]["spec"]["replicas"] == 3
    told = env(made["Pod/ruler-worker-0"])["ETCD_ENDPOINTS"]
    assert told == "http://etcd-0.etcd:2379,http://etcd-1.etcd:2379,http://etcd-2.etcd:2379"
    command = made["StatefulSet/etcd"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[command.index("--initial-cluster") + 1].count("http://") == 3


def test_dynamos_own_discovery_needs_no_etcd_but_an_account_and_labels() -> None:
    made = named(plan("kubernetes"))
    assert not [name for name in made if "etcd" in name]
    worker = made["Pod/ruler-worker-0"]
    assert env(worker)["DYN_DISCOVERY_BACKEND"] == "kubernetes"
    assert "ETCD_ENDPOINTS" not in env(worker)
    assert env(worker)["POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert worker["spec"]["serviceAccountName"] == made["RoleBinding/dynamo"]["subjects"][0]["name"]
    for each in (worker, made["Service/workers"]):
        assert manifests.DISCOVERY.items() <= each["metadata"]["labels"].items()
    assert made["RoleBinding/dynamo"]["subjects"][0]["namespace"] == "here"


def test_a_service_finds_the_pods_that_it_is_for() -> None:
    made = named(plan(engine="vllm", workers=1, prefill_workers=1, frontends=2))
    for service, pods in (
        ("frontend", ["frontend-0", "frontend-1"]),
        ("workers", ["vllm-decode-worker-0", "vllm-prefill-worker-0"]),
    ):
        wanted = made[f"Service/{service}"]["spec"]["selector"].items()
        found = [
            each["metadata"]["name"]
            for each in made.values()
            if each["kind"] == "Pod" and wanted <= each["metadata"]["labels"].items()
        ]
        assert sorted(found) == pods


def test_probes_are_those_of_the_operator() -> None:
    made = named(plan())
    worker, front = container(made["Pod/ruler-worker-0"]), container(made["Pod/frontend-0"])
    assert worker["livenessProbe"] == {
        "httpGet": {"path": "/live", "port": 9090},
        "periodSeconds": 5,
        "timeoutSeconds": 4,
        "failureThreshold": 1,
    }
    assert (front["readinessProbe"]["periodSeconds"], front["readinessProbe"]["failureThreshold"]) == (10, 3)
    assert made["Pod/frontend-0"]["spec"]["terminationGracePeriodSeconds"] == 60


def test_what_a_shape_says_reaches_its_programs() -> None:
    shape: dict[str, Any] = {
        "migration_limit": 0,
        "sequence_cap": 99,
        "stream_timeout_seconds": 2.5,
        "drain_seconds": 3,
    }
    made = named(plan(engine="vllm", request_plane="nats", speed=0.5, max_model_len=64, **shape))
    front, worker = made["Pod/frontend-0"], made["Pod/vllm-worker-0"]
    argv = container(front)["command"]
    assert argv[argv.index("--migration-limit") + 1] == "0"
    assert argv[argv.index("--migration-max-seq-len") + 1] == "99"
    assert env(front)["DYN_HTTP_BACKEND_STREAM_TIMEOUT_SECS"] == "2.5"
    assert env(worker)["DYN_RUNTIME_GRACEFUL_SHUTDOWN_TIMEOUT_SECS"] == "3"
    assert env(worker)["NATS_SERVER"] == "nats://nats:4222"
    argv = container(worker)["command"]
    assert (argv[argv.index("--speedup-ratio") + 1], argv[argv.index("--max-model-len") + 1]) == ("0.5", "64")


def test_the_model_and_the_ruler_come_with_a_config_map_that_a_cluster_takes() -> None:
    made = named(plan())
    data = made["ConfigMap/suite"]["data"]
    volumes = {each["name"]: each for each in made["Pod/ruler-worker-0"]["spec"]["volumes"]}
    paths = {each["key"]: each["path"] for each in volumes["suite"]["configMap"]["items"]}
    assert set(paths) == set(data)
    assert paths["ruler.py"] == "ruler.py"
    assert any(path.startswith("model/hub/models--") and path.endswith("/tokenizer.json") for path in paths.values())
    assert sum(map(len, data.values())) < 1_000_000, "a ConfigMap holds 1 MiB"


def test_folders_of_the_node_are_mounted_where_they_are() -> None:
    programs = replace(IMAGES, folders=("/usr", "/opt/x"), user=7)
    spec = named(plan(programs=programs))["Pod/frontend-0"]["spec"]
    mounts = {each["name"]: each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
    there = {each["hostPath"]["path"]: mounts[each["name"]] for each in spec["volumes"] if "hostPath" in each}
    assert there == {"/usr": "/usr", "/opt/x": "/opt/x"}
    assert spec["securityContext"] == {"runAsUser": 7}


def test_every_manifest_has_a_place() -> None:
    for chosen in ("etcd", "kubernetes"):
        for each in manifests.everything(plan(chosen, request_plane="nats"), "here"):
            assert place(each["kind"], "here", each["metadata"]["name"]).startswith(("/api/", "/apis/"))


def test_an_administrators_manifest_allows_what_the_account_of_dynamo_is_given() -> None:
    things = list(yaml.safe_load_all(NAMESPACED.read_text()))
    role = next(each for each in things if each["kind"] == "Role")
    allowed = {(group, name, verb) for rule in role["rules"] for group, name, verb in _triples(rule)}
    given = next(each for each in manifests.account("team-a") if each["kind"] == "Role")
    assert {triple for rule in given["rules"] for triple in _triples(rule)} <= allowed
    definition = next(each for each in things if each["kind"] == "CustomResourceDefinition")
    assert definition == manifests.definition()


def _triples(rule: dict[str, list[str]]) -> list[tuple[str, str, str]]:
    parts = rule["apiGroups"], rule["resources"], rule["verbs"]
    return [(group, name, verb) for group in parts[0] for name in parts[1] for verb in parts[2]]


def test_manifests_can_be_seen_without_a_cluster(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "support.targets.kubernetes", "render", "--engine", "vllm", "--workers", "3"]
    given = {"PATH": "/usr/bin:/bin", "DYNAMO_IMAGE": "dynamo:1", "SUITE_IMAGE": "suite:1"}
    shown = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True, env=given).stdout
    names = [each["metadata"]["name"] for each in yaml.safe_load_all(shown)]
    assert [name for name in names if "worker-" in name] == [f"vllm-worker-{number}" for number in range(3)]


# -- which discovery


@pytest.mark.parametrize(
    ("shape", "setting", "release", "found"),
    [
        ({}, "auto", "1.6.1", "kubernetes"),
        ({}, "auto", "1.5.1", "etcd"),
        ({}, "etcd", "1.6.1", "etcd"),
        ({"discovery": "etcd"}, "kubernetes", "1.6.1", "etcd"),
        ({"etcd_members": 3}, "auto", "1.6.1", "etcd"),
        ({"lease_seconds": 4.0}, "auto", "1.6.1", "etcd"),
    ],
)
def test_discovery_is_what_the_sentence_says_else_the_settings_else_the_release(
    shape: dict[str, Any], setting: str, release: str, found: str
) -> None:
    assert discovery(Shape(**shape), Settings(discovery=setting), releases.get(release)) == found


def test_a_discovery_that_cannot_be_had_is_refused() -> None:
    shape = Shape(discovery="kubernetes")
    with pytest.raises(ValueError, match="discovery is 'kubernetes', which needs the target kubernetes"):
        shape.check(releases.get("1.6.1"))
    with pytest.raises(Unsupported, match=r"1\.4\.2 is not known to work with its own Kubernetes discovery"):
        shape.check(releases.get("1.4.2"), DISCOVERIES)
    shape.check(releases.get("1.6.1"), DISCOVERIES)


# -- what is wrong, in words


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (401, "Unauthorized", ["rejects the credentials", "expired", "KUBECONFIG"]),
        (
            403,
            'pods is forbidden: User "x" cannot create resource "pods"',
            ["may not", 'cannot create resource "pods"'],
        ),
        (
            403,
            'pods "a" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2',
            ["the quota small", "too small", "limited: pods=2", "raise it"],
        ),
        (404, 'namespaces "gone" not found', ['namespaces "gone" not found', "make that namespace first"]),
        (500, "boom", ["refuses (500)", "boom", HOST]),
    ],
)
def test_a_refusal_is_one_sentence(status: int, message: str, words: list[str]) -> None:
    said = explain(status, json.dumps({"kind": "Status", "message": message}), HOST)
    assert [word for word in words if word not in said] == []
    assert "\n" not in said


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config"
    about = {"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}
    used = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    content = {"apiVersion": "v1", "kind": "Config", "current-context": "x", "clusters": [about], "contexts": [used]}
    file.write_text(yaml.safe_dump(content | {"users": [{"name": "x", "user": {}}]}))
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:1 does not answer: .*refused") as failed:
        ApiServer(str(file)).version()
    assert failed.value.status == 0


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    with pytest.raises(ClusterError, match=f"KUBECONFIG={missing}: .*; name a kubeconfig file"):
        ApiServer(missing)


def test_a_user_without_a_kubeconfig_is_told_what_to_set() -> None:
    found = KubernetesKind(Settings(target="kubernetes")).capabilities(["cluster"])["cluster"]
    assert not found.available
    assert "KUBECONFIG is not set" in found.detail


def test_a_run_on_a_cluster_that_is_not_there_begins_nothing(tmp_path: Path) -> None:
    given = {"target": "kubernetes", "kubeconfig": str(tmp_path / "none")}
    with pytest.raises(SystemExit, match=r"target kubernetes: KUBECONFIG=.*; name a kubeconfig file"):
        Run.begin(given)


def pod(state: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": more.pop("phase", "Running"), "conditions": more.pop("conditions", [])}
    if state is not None:
        about = {"name": "main", "state": state, "image": "dynamo:1", "containerID": more.pop("container", "c://1")}
        status["containerStatuses"] = [about | {"lastState": more.pop("last", {})}]
    spec = {"restartPolicy": more.pop("policy", "Never"), "containers": [{"image": "dynamo:1"}]}
    return {"metadata": {"name": "w", "uid": "u1", "resourceVersion": "5", **more}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("state", "phase", "words"),
    [
        (
            {"waiting": {"reason": "ErrImagePull", "message": "not found"}},
            "Pending",
            ["dynamo:1", "pulled"],
        ),
        (
            {"waiting": {"reason": "CreateContainerError", "message": "no such file"}},
            "Pending",
            ["made", "no such file"],
        ),
        ({"terminated": {"exitCode": 3, "reason": "Error"}}, "Failed", ["w exited with status 3", "Error"]),
        ({"waiting": {"reason": "ContainerCreating"}}, "Pending", []),
    ],
)
def test_what_no_wait_mends_is_told_at_once(state: dict[str, Any], phase: str, words: list[str]) -> None:
    said = troubles.hopeless({"w": pod(state, phase=phase)})
    assert bool(said) == bool(words)
    assert [word for word in words if word not in said] == []


def test_a_pod_that_no_node_takes_says_why() -> None:
    conditions = [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available: Insufficient cpu."}]
    assert troubles.waits("w", pod(conditions=conditions)) == (
        "no node takes w: 0/2 nodes are available: Insufficient cpu."
    )
    assert troubles.waits("w", None) == "w is not there"
    assert troubles.waits("w", pod({"running": {}}, conditions=[{"type": "Ready", "status": "True"}])) == ""


# -- lives


def test_a_life_is_a_container_of_a_pod() -> None:
    first = lives.life_of("w", pod({"running": {}}), None, 0)
    assert (first.identity, first.state) == (("u1", "c://1"), "running")
    assert lives.life_of("w", pod({"running": {}}, container="c://2"), None, 1) != first
    assert lives.life_of("w", pod({"running": {}}, uid="u2"), None, 1) != first
    gone = lives.life_of("w", None, first, 0)
    assert (gone, gone.state) == (first, "ended")


@pytest.mark.parametrize(
    ("policy", "code", "state"),
    [("Never", 137, "ended"), ("Always", 0, "waiting"), ("OnFailure", 137, "waiting"), ("OnFailure", 0, "ended")],
)
def test_a_container_that_has_ended_waits_where_its_policy_starts_it_again(policy: str, code: int, state: str) -> None:
    ended = pod({"terminated": {"exitCode": code, "containerID": "c://1"}}, policy=policy)
    assert lives.life_of("w", ended, None, 0).state == state


@pytest.mark.parametrize(("told", "code"), [(0, 0), (3, 3), (137, -9), (143, -15), (255, 255)])
def test_a_status_above_128_is_a_signal(told: int, code: int) -> None:
    assert lives.exit_code({"exitCode": told}) == code


def test_an_end_of_which_nobody_knows_has_no_status() -> None:
    assert lives.exit_code({"exitCode": 137, "reason": "ContainerStatusUnknown"}) is None


@pytest.mark.parametrize(
    ("now", "is_over"),
    [
        (pod({"running": {}}), False),
        (pod({"running": {}}, deletionTimestamp="2026-01-01T00:00:00Z"), False),
        (pod({"terminated": {"exitCode": 0}}), True),
        (pod({"running": {}}, container="c://2"), True),
        (pod({"running": {}}, uid="u2"), True),
        (pod({"waiting": {}}), True),
        (None, True),
    ],
)
def test_the_kubelet_says_whether_a_life_is_over(now: dict[str, Any] | None, is_over: bool) -> None:
    assert over(lives.life_of("w", pod({"running": {}}), None, 0), now) is is_over


class Told(ApiServer):
    """A cluster that tells of pods what it is given, keeps what is applied, and lets a log be read."""

    def __init__(self, *events: tuple[str, dict[str, Any]], log: bytes = b"") -> None:
        self.events, self.log, self.applied = events, log, list[dict[str, Any]]()
        self.over = threading.Event()

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        if method == "PATCH":
            self.applied.append(body)
            return body
        if not path.endswith("/pods"):
            raise ClusterError(404, f"{path} is not there")
        return {"items": [], "metadata": {"resourceVersion": "1"}}

    def lines(self, path: str, query: Any, timeout: float | None = None) -> Iterator[bytes]:
        if path.endswith("/log"):
            yield from self.log.splitlines()
            return
        for kind, thing in self.events:
            yield json.dumps({"type": kind, "object": thing}).encode()
        self.over.set()
        threading.Event().wait(60)


def watched(tmp_path: Path, *events: tuple[str, dict[str, Any]], log: bytes = b"") -> lives.Watcher:
    cluster = Told(*events, log=log)
    watcher = lives.Watcher(cluster, "here", "", tmp_path, Names())
    assert cluster.over.wait(10)
    return watcher


def test_changes_are_those_that_the_kubelet_tells_of(tmp_path: Path) -> None:
    ended = {"terminated": {"exitCode": 137, "reason": "Error", "containerID": "c://1"}}
    watcher = watched(
        tmp_path,
        ("ADDED", pod({"waiting": {}}, resourceVersion="2")),
        ("MODIFIED", pod({"running": {}}, resourceVersion="3")),
        ("MODIFIED", pod(ended, resourceVersion="4")),
        ("MODIFIED", pod({"running": {}}, container="c://2", last=ended, resourceVersion="5")),
        ("DELETED", pod({"running": {}}, container="c://2", last=ended, resourceVersion="6")),
        ("ADDED", pod({"running": {}}, uid="u2", container="c://3", resourceVersion="7")),
    )
    seen = [(each.identity, each.state, each.exit_code) for each in watcher.changes()]
    first, second, third = ("u1", "c://1"), ("u1", "c://2"), ("u2", "c://3")
    assert seen == [
        *((first, "starting", None), (first, "running", None), (first, "dead", -9)),
        *((second, "starting", None), (second, "running", None), (second, "dead", None)),
        *((third, "starting", None), (third, "running", None)),
    ]


def test_a_look_that_is_older_than_the_last_one_changes_nothing(tmp_path: Path) -> None:
    ended = {"terminated": {"exitCode": 0, "containerID": "c://1"}}
    watcher = watched(
        tmp_path, ("ADDED", pod(ended, resourceVersion="9")), ("MODIFIED", pod({"running": {}}, resourceVersion="3"))
    )
    assert [each.state for each in watcher.changes()] == ["starting", "running", "stopped"]
    assert lives.main_status(watcher.pod("w") or {})["state"] == ended


def test_what_the_ruler_notes_comes_with_its_log_and_is_told_apart(tmp_path: Path) -> None:
    note = b'{"at": 1.0, "event": "received"}'
    watcher = watched(tmp_path, ("ADDED", pod({"running": {}})), log=b"up\n" + note + b"\nat work\n")
    watcher.close()
    assert (tmp_path / "w.log").read_bytes() == b"up\nat work\n"
    assert (tmp_path / "w.journal.jsonl").read_bytes() == note + b"\n"


@pytest.mark.parametrize(
    ("now", "is_up"),
    [
        (pod({"running": {}}), True),
        (pod(phase="Pending"), True),
        (pod({"terminated": {"exitCode": 137}}, phase="Running"), False),
        (pod({"terminated": {"exitCode": 137}}, phase="Failed"), False),
        (pod({"running": {}}, deletionTimestamp="2026-01-01T00:00:00Z"), False),
    ],
)
def test_a_pod_whose_program_has_ended_is_not_kept(now: dict[str, Any], is_up: bool) -> None:
    assert lives.is_up(now) is is_up


# -- leases


def test_everything_in_a_scope_has_its_labels_pods_of_a_stateful_set_too() -> None:
    cluster = Told()
    place = scope.Scope(cluster, "run", "scenario", "team-a")
    place.owner = [{"uid": "o"}]
    place.place(manifests.etcd(plan()))
    for each in cluster.applied:
        assert place.labels.items() <= each["metadata"]["labels"].items()
        assert (each["metadata"]["namespace"], each["metadata"]["ownerReferences"]) == ("team-a", [{"uid": "o"}])
    template = cluster.applied[1]["spec"]["template"]["metadata"]["labels"]
    assert place.labels.items() <= template.items()
    assert template[manifests.ROLE] == "etcd"


def test_a_lease_is_over_once_its_time_is_up_and_what_has_none_is_not_ours() -> None:
    def holder(until: str | None) -> dict[str, Any]:
        return {"metadata": {"annotations": {} if until is None else {scope.LEASE: until}}}

    assert scope.overdue(holder(scope.stamp(1000.0)), 1001.0)
    assert not scope.overdue(holder(scope.stamp(1000.0)), 999.0)
    assert not scope.overdue(holder(None), 1e12)
    assert not scope.overdue(holder("soon"), 1e12)


def test_labels_are_what_a_cluster_takes() -> None:
    assert scope.label("2026-11-28T01:02:03.004 run/7") == "2026-11-28T01-02-03.004-run-7"
    assert scope.label("_" + "x" * 80) == "x" * 63


# -- programs


def node(name: str, **images_of: int) -> dict[str, Any]:
    held = [{"names": [f"{each}:1", f"{each}@sha256:0"], "sizeBytes": size} for each, size in images_of.items()]
    return {"metadata": {"name": name}, "spec": {}, "status": {"images": held}}


def test_the_smallest_image_of_all_nodes_holds_the_folders_of_this_machine() -> None:
    nodes = [node("a", big=9, small=2, tiny=1), node("b", big=9, small=2)]
    assert images.smallest_common(nodes) == "small:1"
    assert images.smallest_common([node("a", big=9), node("b")]) is None
    assert images.smallest_common([]) is None


def test_nodes_that_take_nobodys_pods_are_left_alone() -> None:
    tainted, cordoned = node("t"), node("c")
    tainted["spec"] = {"taints": [{"key": "control-plane", "effect": "NoSchedule"}]}
    cordoned["spec"] = {"unschedulable": True}
    assert images.schedulable([tainted, cordoned, plain := node("p")]) == [plain]


def test_one_image_without_the_other_is_refused() -> None:
    assert images.from_settings(Settings()) is None
    both = images.from_settings(Settings(dynamo_image="d:1", suite_image="s:1"))
    assert both == Programs("d:1", "s:1")
    with pytest.raises(ValueError, match="suite_image is not set"):
        images.from_settings(Settings(dynamo_image="d:1"))


# -- what breaks, and who sees it


@pytest.mark.parametrize(
    ("said", "is_stopped"), [("T T", True), ("T S", False), ("S", False), ("", False), ("t", True)]
)
def test_a_program_is_stopped_when_nothing_of_it_may_run(said: str, is_stopped: bool) -> None:
    assert shell.stopped(said) is is_stopped


@pytest.mark.parametrize("script", [shell.LOOK, shell.send("KILL", hold=True), shell.send("TERM", alone=True)])
def test_scripts_are_such_that_any_shell_reads_them(script: str) -> None:
    assert subprocess.run(["sh", "-n", "-c", script], capture_output=True, text=True).stderr == ""


class Nowhere(ApiServer):
    """A cluster that nobody may ask."""

    def __init__(self) -> None:
        pass


def test_what_needs_an_agent_is_refused_and_never_said_to_be_done() -> None:
    faults = PodFaults(Nowhere())
    with pytest.raises(Refused, match="network drop needs an agent on the node; it can crash, terminate"):
        faults.inject("network", type="drop", target_pod="w")
    with pytest.raises(Refused, match="there is no node w"):
        faults.inject("process", type="crash", target_pod="w")
    assert faults.faults() == []
    with pytest.raises(Inconclusive, match="cannot see packets between pods"):
        PodWitness(Nowhere(), "here", Names()).lost_between(None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("tag", ["needs.namespaces", "needs.nftables", "needs.kmsg", "needs.strain", "needs.tbf"])
def test_scenarios_whose_faults_cannot_be_had_are_skipped_with_the_reason(tag: str, tmp_path: Path) -> None:
    settings = Settings(target="kubernetes")
    lack, reason = capabilities.lacking("features/x.feature:3", [tag], settings, tmp_path)
    need: Need = next(each for each in NEEDS.values() if each.tag == tag)
    assert lack == tag
    assert reason.startswith(f"needs {need.words}: ")
    assert capabilities.allowed_skips(settings)(tag)


# -- what the cluster tells


def test_warnings_and_ends_are_told_and_what_comes_up_as_it_should_is_not() -> None:
    assert happenings.worth_telling({"type": "Warning", "reason": "FailedScheduling"})
    assert happenings.worth_telling({"type": "Normal", "reason": "Killing"})
    assert not happenings.worth_telling({"type": "Normal", "reason": "Started"})


def test_a_time_is_read_wherever_an_event_has_it() -> None:
    assert happenings.happened_at({"lastTimestamp": "1970-01-01T00:00:10Z"}) == 10.0
    assert happenings.happened_at({"lastTimestamp": None, "eventTime": "1970-01-01T00:00:10.500000Z"}) == 10.5
    assert happenings.happened_at({}) is None
