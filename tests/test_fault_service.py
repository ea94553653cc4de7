"""The fault service in front of a real node agent: who may do what, targets, limits, words of refusals, fuzzing."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import cells
from support.observe.waiting import until
from support.settings import ROOT
from support.targets.agent import Agent

EXAMPLES = 20


class Client:
    """Plain HTTP, so that nothing of ours stands between the test and the service."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """Status and content."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            refusal = error
        assert refusal.headers["Content-Type"] == "application/problem+json", path
        return refusal.code, json.loads(refusal.read())


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cell with two workers and a frontend that do nothing."""
    found = cells.start_loopback()
    agent = Agent(found["FT_AGENT"], found["FT_AGENT_TOKEN"])
    log = str(tmp_path_factory.mktemp("logs") / "log")
    for name, role in (("frontend-0", "frontend"), ("vllm-worker-0", "worker"), ("vllm-worker-1", "worker")):
        agent.add_node(name, role)
        env = {"PATH": os.environ["PATH"]}
        agent.run(node=name, argv=["sleep", "600"], env=env, log=log, gpus=int(role == "worker"))
    until(lambda: None if all(each["ready"] for each in agent.processes().values()) else "no", 10, "all run")
    yield found
    agent.remove_deployment()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the audit log."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def service(start: Any) -> Client:
    """A service with default options."""
    client: Client = start()
    return client


@pytest.fixture(scope="module")
def start(cell: dict[str, str], state: Path) -> Iterator[Any]:
    """Start a service with options in front of the cell's agent; returns a client."""
    running = []

    def run(*options: str, token: str = "") -> Client:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        agents = [] if "--agent" in " ".join(options) else [f"--agent=local={cell['FT_AGENT']}"]
        argv = [sys.executable, "-m", "agents.fault_service", f"--port={port}", f"--state-dir={state}"]
        env = os.environ | {"FT_AGENT_TOKEN": cell["FT_AGENT_TOKEN"], "FT_SERVICE_TOKEN": token}
        running.append(subprocess.Popen([*argv, *agents, *options], cwd=ROOT, env=env))
        client = Client(f"http://127.0.0.1:{port}")

        def away() -> str | None:
            try:
                client.ask("GET", "/health")
            except urllib.error.URLError as error:
                return str(error)
            return None

        until(away, 20, "the service answers")
        return client

    yield run
    for process in running:
        process.terminate()
        process.wait(10)


HANG = {"target_pod": "vllm-worker-0", "type": "HANG", "duration_seconds": 60}


def test_a_fault_from_its_beginning_to_its_end(service: Client, state: Path) -> None:
    status, text = service.ask("POST", "/api/v1/faults/process/inject?dry_run=true", HANG)
    assert (status, "SIGSTOP to pid" in text) == (200, True)
    assert json.loads(service.ask("GET", "/api/v1/faults?active=true")[1]) == []
    status, text = service.ask("POST", "/api/v1/faults/process/inject", HANG)
    fault = json.loads(text)
    assert (status, fault["state"], fault["targets"]) == (201, "active", ["vllm-worker-0"])
    assert [each["id"] for each in json.loads(service.ask("GET", "/api/v1/faults?active=true")[1])] == [fault["id"]]
    status, refusal = service.ask("POST", "/api/v1/faults/process/inject", HANG)
    assert (status, fault["id"] in refusal["detail"]) == (409, True)
    ended = json.loads(service.ask("POST", f"/api/v1/faults/{fault['id']}/recover")[1])
    assert (ended["state"], ended["evidence"]["differences"]) == ("recovered", [])
    assert 'fault_injections_total{kind="process",outcome="done",type="hang"} 1.0' in service.ask("GET", "/metrics")[1]
    lines = [json.loads(line) for line in (state / "audit.jsonl").read_text().splitlines()]
    assert next(line["target"] for line in lines if line["fault"] == fault["id"]) == ["vllm-worker-0"]
    assert 409 in [line["status"] for line in lines]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("process/inject", HANG | {"type": "melt"}, 422, "'crash', 'terminate', 'hang' or 'restart'"),
        ("process/inject", HANG | {"target_pod": "vllm-worker-9"}, 404, "known: frontend-0, vllm-worker-0"),
        ("process/inject", HANG | {"node_name": "frontend-0"}, 422, "exactly one of target_pod and node_name"),
        ("process/inject", HANG | {"colour": "red"}, 422, "colour"),
        ("process/inject", HANG | {"duration_seconds": 3601}, 422, "3600"),
        ("process/inject", HANG | {"deployment": "other"}, 404, "known: local"),
        ("network/inject", {"partition_type": "WORKER_NATS"}, 404, "has no nats"),
        ("network/inject", {"partition_type": "frontend_worker"}, 501, "need network namespaces"),
        ("network/inject", {"partition_type": "CUSTOM", "source": "frontend-0"}, 422, "source and target"),
        ("gpu/inject", {"target_pod": "frontend-0", "fault_type": "THROTTLE"}, 422, "has no GPU"),
        ("gpu/inject", {"target_pod": "vllm-worker-0", "fault_type": "THROTTLE", "gpu_index": 3}, 422, "0 to 0"),
        ("gpu/inject/xid-7", {"target_pod": "vllm-worker-0"}, 422, "allowed: 43, 48"),
        ("process/inject", b'{"target_pod": "\xff"}', 422, "body"),
        ("process/inject", b'{"target_pod": NaN}', 422, "target_pod"),
        ("f-0/recover", None, 404, "no fault 'f-0'"),
    ],
)
def test_bad_requests_are_refused_in_words(service: Client, path: str, body: Any, status: int, words: str) -> None:
    seen, refusal = service.ask("POST", f"/api/v1/faults/{path}", body)
    assert (seen, words in json.dumps(refusal)) == (status, True), refusal


def test_who_may_and_who_may_not(start: Any) -> None:
    service = start("--allow-node=vllm-worker-1", token="secret")
    assert service.ask("GET", "/health")[0] == 200
    assert service.ask("GET", "/api/v1/faults")[0] == 401
    assert service.ask("GET", "/api/v1/faults", token="wrong")[0] == 403
    assert service.ask("GET", "/api/v1/faults", token="secret")[0] == 200
    status, refusal = service.ask("POST", "/api/v1/faults/process/inject", HANG, token="secret")
    assert (status, "not among the allowed nodes" in refusal["detail"]) == (403, True)


def test_limits(start: Any) -> None:
    service = start("--max-share=0.5")
    fault = json.loads(service.ask("POST", "/api/v1/faults/process/inject", HANG)[1])
    status, refusal = service.ask("POST", "/api/v1/faults/process/inject", HANG | {"target_pod": "vllm-worker-1"})
    assert (status, "the limit is 0.5" in refusal["detail"]) == (409, True)
    service.ask("POST", f"/api/v1/faults/{fault['id']}/recover")


def test_a_name_that_fits_two_deployments_is_an_error_that_lists_them(start: Any, cell: dict[str, str]) -> None:
    service = start(f"--agent=blue={cell['FT_AGENT']}", f"--agent=green={cell['FT_AGENT']}")
    status, refusal = service.ask("POST", "/api/v1/faults/process/inject", HANG)
    assert (status, "blue, green" in refusal["detail"]) == (409, True)
    dry = "/api/v1/faults/process/inject?dry_run=true"
    assert service.ask("POST", dry, HANG | {"deployment": "green"})[0] == 200


def test_an_agent_that_is_away_is_named(start: Any) -> None:
    status, refusal = start("--agent=gone=http://127.0.0.1:9").ask("GET", "/api/v1/faults")
    assert (status, "'gone'" in refusal["detail"]) == (503, True)


def test_outside_of_loopback_it_wants_a_token() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("FT_")}
    argv = [sys.executable, "-m", "agents.fault_service", "--host=0.0.0.0"]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, "give a token" in done.stderr) == (2, True)


def test_fuzzing_finds_no_server_error(service: Client, tmp_path: Path) -> None:
    """schemathesis over the OpenAPI page; some 500 cases, under a fixed seed."""
    # 501 is how the API says that this machine cannot do it.
    allowed = 'expected-statuses = ["2xx", "3xx", "4xx", "501"]'
    (tmp_path / "schemathesis.toml").write_text(f"[checks.not_a_server_error]\n{allowed}\n")
    argv = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.url}/openapi.json"]
    checks = "--checks=not_a_server_error,response_schema_conformance"
    phases = "--phases=examples,coverage,fuzzing"
    argv += [f"--max-examples={EXAMPLES}", "--seed=1", checks, phases]
    argv += ["--exclude-path=/metrics", "--generation-database=none", "--no-color"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
