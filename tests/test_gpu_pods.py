"""The pods of a node as targets: asked from an API server that wants the right token and shows a certificate."""

import http.server
import json
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agents.gpu.agent import GpuAgent
from agents.host import pods
from agents.host.agent import HostSettings
from tests.fake_gpu import FakeNvml
from tests.gpu_machine import Machine

UID = "0c8b6f2e-8f2c-4a57-9d8e-2b1d3f4a5b6c"
NODE = "spec.nodeName=node-a"


def pod(name: str, uid: str, gpus: int) -> dict[str, Any]:
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    return {
        "metadata": {"namespace": "inference", "name": name, "uid": uid},
        "spec": {"containers": [{"resources": {"limits": limits}}, {}]},
        "status": {"phase": "Running", "podIP": "10.0.0.7"},
    }


PODS = [pod("vllm-worker-0", UID, 1), pod("frontend-0", "11111111-2222-3333-4444-555555555555", 0)]


class ApiServer(http.server.BaseHTTPRequestHandler):
    """Lists the pods of one namespace to who has the token and asks for one node."""

    token = "first"

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        wanted = address.path == "/api/v1/namespaces/inference/pods" and parse_qs(address.query)
        right = wanted == {"fieldSelector": [NODE]} and self.headers["Authorization"] == f"Bearer {ApiServer.token}"
        body = json.dumps({"items": PODS} if right else {"message": "no"}).encode()
        self.send_response(200 if right else 403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def account(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An API server on loopback and the service account that it knows, as environment of an agent."""
    if not shutil.which("openssl"):
        pytest.skip("a certificate wants the command openssl, which is not here")
    folder = tmp_path / "account"
    folder.mkdir()
    certificate, key = folder / "ca.crt", tmp_path / "key"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=test"]
    argv += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "keyUsage=critical,keyCertSign,digitalSignature"]
    subprocess.run([*argv, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    (folder / "token").write_text("first\n")
    ApiServer.token = "first"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), ApiServer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    place = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.server_port)}
    yield place | {"FAKE_ACCOUNT": str(folder)}
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    found = Machine(tmp_path)
    yield found
    found.end()


def test_pods_of_the_node_are_targets(machine: Machine, account: dict[str, str]) -> None:
    machine.start("--allow-namespace=inference", FAKE_GPU_COUNT="2", **account)
    topology = machine.ask("GET", "/v1/topology")[1]
    seen = {node["name"]: [gpu["index"] for gpu in node["gpus"]] for node in topology["nodes"]}
    assert seen == {"node-a": [0, 1], "inference/vllm-worker-0": [0, 1], "inference/frontend-0": []}
    assert topology["nodes"][1]["address"] == "10.0.0.7"
    target = "inference/vllm-worker-0"
    status, refusal = machine.inject("MEMORY_PRESSURE", target=target)
    assert (status, f"'{target}' has several GPUs" in refusal["detail"]) == (422, True)
    status, fault = machine.inject("MEMORY_PRESSURE", target=target, gpu_index=1)
    assert (status, fault["targets"], fault["state"]) == (201, [target], "active")
    status, refusal = machine.inject("MEMORY_PRESSURE", target="inference/frontend-0")
    assert (status, "has no GPU" in refusal["detail"]) == (422, True)
    status, refusal = machine.inject("MEMORY_PRESSURE", target="vllm-worker-0")
    assert (status, "known: node-a, inference/vllm-worker-0" in refusal["detail"]) == (404, True)


def test_a_dry_run_knows_the_pods_of_now(machine: Machine, account: dict[str, str]) -> None:
    machine.start("--allow-namespace=inference", **account)
    body = {"kind": "gpu", "type": "MEMORY_PRESSURE", "target": "inference/vllm-worker-0"}
    assert machine.ask("POST", "/v1/faults?dry_run=true", body)[0] == 200


def test_an_exchanged_token_is_read_anew(machine: Machine, account: dict[str, str]) -> None:
    machine.start("--allow-namespace=inference", **account)
    ApiServer.token = "second"
    topology = machine.ask("GET", "/v1/topology")[1]
    assert ([node["name"] for node in topology["nodes"]], "answers 403" in topology["trouble"]) == (["node-a"], True)
    status, refusal = machine.inject("MEMORY_PRESSURE", target="inference/vllm-worker-0")
    assert (status, "answers 403" in refusal["detail"]) == (404, True)
    (Path(account["FAKE_ACCOUNT"]) / "token").write_text("second")
    assert len(machine.ask("GET", "/v1/topology")[1]["nodes"]) == 3


def test_a_server_with_another_certificate_is_not_asked(
    machine: Machine, account: dict[str, str], tmp_path: Path
) -> None:
    other = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=other"]
    files = ["-keyout", f"{tmp_path}/other", "-out", f"{account['FAKE_ACCOUNT']}/ca.crt"]
    subprocess.run([*other, *files], check=True, capture_output=True)
    machine.start("--allow-namespace=inference", **account)
    assert "certificate verify failed" in machine.ask("GET", "/v1/topology")[1]["trouble"]


def test_only_pods_of_allowed_namespaces(machine: Machine, account: dict[str, str]) -> None:
    machine.start(**account)
    topology = machine.ask("GET", "/v1/topology")[1]
    assert ([node["name"] for node in topology["nodes"]], "trouble" in topology) == (["node-a"], False)


@pytest.mark.parametrize(
    ("cgroup", "found"),
    [
        (f"0::/kubepods/burstable/pod{UID}/5d1e", True),
        (f"0::/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/cri-containerd-5d1e.scope", True),
        ("0::/kubepods/burstable/pod0c8b6f2e-8f2c-4a57-9d8e-000000000000/5d1e", False),
        ("0::/user.slice", False),
    ],
)
def test_a_process_is_known_by_its_cgroup(cgroup: str, found: bool) -> None:
    assert pods.names(cgroup, pods.Pod("inference/vllm-worker-0", UID, "", "Running")) is found


def test_the_gpus_of_a_pod_are_those_that_its_processes_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GPU", str(tmp_path))
    monkeypatch.setenv("FAKE_GPU_COUNT", "2")
    agent = GpuAgent(HostSettings("node-a", tmp_path, "token"), nvml=FakeNvml())
    own = Path("/proc/self/cgroup").read_text().strip()
    mine, other = (
        pods.Pod(f"n/{name}", uid, "", "Running", wants_gpu=True) for name, uid in (("mine", own), ("other", UID))
    )
    monkeypatch.setattr(agent, "pods", {"n/mine": mine, "n/other": other})
    assert agent.places("n/mine") == [0, 1]
    (tmp_path / f"1-{os.getpid()}").write_text("1000")
    assert (agent.places("n/mine"), agent.places("n/other")) == ([1], [0, 1])
