"""The target kubernetes on a real cluster: that of KUBECONFIG, or one that the command in FT_CLUSTER_UP brings up and
tells of in a line ``KUBECONFIG=FILE``. Where there is neither, these tests are skipped.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import releases
from support.contract.shape import Shape
from support.errors import DeploymentFailed
from support.events import EventLog
from support.observe.waiting import until
from support.report.reading import read_verdict
from support.settings import ROOT, Settings
from support.targets.kubernetes.api import MANAGED, MANAGER, ApiServer, ClusterError
from support.targets.kubernetes.scope import LEASE, RUN, Scope, reap, stamp
from support.targets.kubernetes.target import KubernetesTarget

UP_SECONDS, GONE_SECONDS = 600, 90.0


@pytest.fixture(scope="module")
def kubeconfig() -> str:
    given, command = os.environ.get("KUBECONFIG"), os.environ.get("FT_CLUSTER_UP")
    if given:
        return given
    if not command:
        pytest.skip("no cluster: neither KUBECONFIG nor FT_CLUSTER_UP is set")
    up = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=UP_SECONDS, check=True)
    return next(line.partition("=")[2] for line in up.stdout.splitlines() if line.startswith("KUBECONFIG="))


@pytest.fixture
def run(kubeconfig: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[ApiServer, str]]:
    """The cluster, and the name of a run that leaves nothing there."""
    name = f"test-{secrets.token_hex(4)}"
    (tmp_path / name).mkdir()
    monkeypatch.setenv("FT_RUN_DIR", str(tmp_path / name))
    cluster = ApiServer(kubeconfig)
    yield cluster, name
    until(lambda: " ".join(namespaces(cluster, name)) or None, GONE_SECONDS, "nothing is left of the test")


def namespaces(cluster: ApiServer, run: str) -> list[str]:
    found = cluster.list("Namespace", labels=f"{MANAGED}={MANAGER},{RUN}={run}")
    return [each["metadata"]["name"] for each in found]


def target(kubeconfig: str, folder: Path, **settings: Any) -> KubernetesTarget:
    given = Settings(target="kubernetes", kubeconfig=kubeconfig, **settings)
    return KubernetesTarget(given, releases.get(given.dynamo), folder, EventLog())


def test_a_scenario_passes_and_leaves_nothing(kubeconfig: str, run: tuple[ApiServer, str], tmp_path: Path) -> None:
    cluster, name = run
    (tmp_path / name / "scenarios").mkdir()
    argv = [sys.executable, "-m", "behave", "-D", "target=kubernetes", "-D", f"kubeconfig={kubeconfig}", "-f", "plain"]
    argv += ["--name=^The engine itself is told to stop$", "features/cancellation.feature"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    verdicts = [read_verdict(file) for file in (tmp_path / name).glob("scenarios/*/verdict.json")]
    assert [each.verdict for each in verdicts] == ["passed"], done.stdout + done.stderr
    assert namespaces(cluster, name) == []


def test_what_a_killed_runner_leaves_goes_once_its_lease_is_over(run: tuple[ApiServer, str]) -> None:
    cluster, name = run
    left = Scope(cluster, name, "one", None)
    left.open()
    assert reap(cluster, None) == []
    cluster.annotate("Namespace", "", left.namespace, {LEASE: stamp(time.time() - 60)})
    assert [each for each in reap(cluster, None) if left.namespace in each]


def test_an_image_that_cannot_be_pulled_is_named(kubeconfig: str, run: tuple[ApiServer, str], tmp_path: Path) -> None:
    made = target(kubeconfig, tmp_path, dynamo_image="localhost/none:1", suite_image="localhost/none:1")
    with pytest.raises(DeploymentFailed, match="the image localhost/none:1 of etcd-0 cannot be pulled"):
        made.deploy(Shape(discovery="etcd"))


def test_a_namespace_that_is_not_there_is_named(kubeconfig: str, run: tuple[ApiServer, str], tmp_path: Path) -> None:
    made = target(kubeconfig, tmp_path, namespace="is-not-there")
    with pytest.raises(ClusterError, match='namespaces "is-not-there" not found; make that namespace first'):
        made.deploy(Shape())


def test_a_quota_that_is_too_small_is_named(kubeconfig: str, run: tuple[ApiServer, str], tmp_path: Path) -> None:
    cluster, name = run
    namespace = Scope(cluster, name, "quota", None)
    namespace.open()
    hard = {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "1"}}}
    cluster.apply({"kind": "ResourceQuota", "apiVersion": "v1", **hard}, namespace.namespace)
    made = target(kubeconfig, tmp_path, namespace=namespace.namespace, dynamo_image="none:1", suite_image="none:1")
    with pytest.raises(ClusterError, match=r"the quota small of the namespace is too small .*; raise it"):
        made.deploy(Shape(discovery="kubernetes"))
    left = cluster.list("Pod", namespace.namespace) + cluster.list("Service", namespace.namespace)
    assert (left, namespace.close()) == ([], [])
