"""The fault service in front of a real node agent: who may do what, targets, limits, words of refusals, fuzzing."""

import contextlib
import http.client
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.service.agents import FIND_SECONDS, AgentAddress
from agents.service.policy import Policy
from support.clock import now
from support.observe.waiting import until
from support.run import cells
from support.settings import ROOT
from support.targets.local import namespaces
from support.targets.local.agent import Agent
from tests.gpu_machine import Machine
from tests.patience import PATIENCE
from tests.plain_http import Client

FUZZ_CASES = 2000
TOKEN = "of-the-service"


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
    until(lambda: None if all(each["ready"] for each in agent.processes().values()) else "no", PATIENCE, "all run")
    yield found
    agent.remove_deployment()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the audit log."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def service(start: Any) -> Client:
    """A service that lets all nodes be hit."""
    client: Client = start("--max-share=1")
    return client


@pytest.fixture(scope="module")
def start(cell: dict[str, str], state: Path) -> Iterator[Any]:
    """Start a service with options in front of the cell's agent; returns a client."""

    def run(*options: str, token: str = TOKEN) -> Client:
        agents = [] if "--agent" in " ".join(options) else [f"--agent=local={cell['FT_AGENT']}"]
        env = os.environ | {"FT_AGENT_TOKEN": cell["FT_AGENT_TOKEN"], "FT_SERVICE_TOKEN": token}
        with socket.create_server(("127.0.0.1", 0)) as listener:
            argv = [sys.executable, "-m", "agents.service", f"--listen-fd={listener.fileno()}", f"--state-dir={state}"]
            descriptors = [listener.fileno()]
            started.append(subprocess.Popen([*argv, *agents, *options], cwd=ROOT, env=env, pass_fds=descriptors))
            client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", token)
        client.ask("GET", "/health")  # who asks before it serves waits
        return client

    yield run
    for process in started:
        process.terminate()
        process.wait(10)


started: list["subprocess.Popen[bytes]"] = []
"""The services so far, the newest last."""
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
        ("process/inject", HANG | {"type": "melt"}, 422, "'crash', 'terminate', 'hang', 'restart' or 'slow_disk'"),
        ("process/inject", HANG | {"type": "slow_disk"}, 501, "memory (tmpfs)"),
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
        ("made-up/recover", None, 404, "no fault 'made-up'"),
        ("f-0%3Factive=true/recover", None, 404, "no fault"),
    ],
)
def test_bad_requests_are_refused_in_words(service: Client, path: str, body: Any, status: int, words: str) -> None:
    seen, refusal = service.ask("POST", f"/api/v1/faults/{path}", body)
    assert (seen, words in json.dumps(refusal)) == (status, True), refusal


def test_who_may_and_who_may_not(start: Any) -> None:
    service = start("--allow-node=vllm-worker-1", token="secret")
    assert service.ask("GET", "/health", token="")[0] == 200
    assert service.ask("GET", "/api/v1/faults", token="")[0] == 401
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


def test_limits_hold_for_dry_runs_and_partitions(start: Any) -> None:
    service = start("--max-share=0.5")
    fault = json.loads(service.ask("POST", "/api/v1/faults/process/inject", HANG)[1])
    other = HANG | {"target_pod": "vllm-worker-1"}
    status, refusal = service.ask("POST", "/api/v1/faults/process/inject?dry_run=true", other)
    assert (status, refusal["title"]) == (409, "Too many targets")
    service.ask("POST", f"/api/v1/faults/{fault['id']}/recover")
    status, refusal = service.ask("POST", "/api/v1/faults/network/inject", {"partition_type": "FRONTEND_WORKER"})
    assert (status, "of 2 with role worker" in refusal["detail"]) == (409, True)
    narrow = {"partition_type": "FRONTEND_WORKER", "target_pod": "vllm-worker-0"}
    assert service.ask("POST", "/api/v1/faults/network/inject", narrow)[0] == 501  # allowed, and this cell has none


def test_faults_of_all_agents_count_for_the_limit(start: Any, cell: dict[str, str], tmp_path: Path) -> None:
    machine = Machine(tmp_path, cell["FT_AGENT_TOKEN"])
    try:
        machine.start()
        agents = f"--agent=local={cell['FT_AGENT']}", f"--agent=node-a={machine.client.url}"
        service = start(*agents, "--max-active=1")
        fault = json.loads(service.ask("POST", "/api/v1/faults/process/inject", HANG)[1])
        memory = {"node_name": "node-a", "fault_type": "MEMORY_PRESSURE"}
        status, refusal = service.ask("POST", "/api/v1/faults/gpu/inject", memory)
        assert (status, "the limit is 1" in refusal["detail"]) == (409, True)
        service.ask("POST", f"/api/v1/faults/{fault['id']}/recover")
        assert service.ask("POST", "/api/v1/faults/gpu/inject", memory)[0] == 201
    finally:
        machine.end()


def test_a_target_is_allowed_by_its_name_or_by_its_namespace(start: Any) -> None:
    service = start("--allow-node=vllm-worker-0", "--allow-namespace=dynamo")
    path = "/api/v1/faults/process/inject?dry_run=true"
    assert service.ask("POST", path, HANG | {"node_name": "vllm-worker-0"})[0] == 200
    status, refusal = service.ask("POST", path, HANG | {"target_pod": "vllm-worker-1"})
    assert (status, "not among the allowed nodes" in refusal["detail"]) == (403, True)


class Stuck(http.server.BaseHTTPRequestHandler):
    """An agent with one node, whose injections do not end and whose undo fails."""

    def _answer(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        node = {"name": "stuck-0", "role": "worker"}
        self._answer({"nodes": [node]} if self.path == "/v1/topology" else [])

    def do_POST(self) -> None:
        if self.path.endswith("f-5/recover"):
            fault = {"id": "f-5", "type": "hang", "targets": ["stuck-0"], "owed": True, "state": "failed"}
            self._answer(fault | {"evidence": {"differences": ["the process was running and is stopped"]}})
        elif self.path == "/v1/faults":
            threading.Event().wait(60)
        else:
            self.send_error(404)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def stuck() -> Iterator[str]:
    """URL of a stuck agent."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stuck)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_an_agent_that_is_silent_costs_the_others_nothing(start: Any, cell: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes the connection, and nobody answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        service = start(f"--agent=local={cell['FT_AGENT']}", f"--agent=mute={url}")
        began = now()
        health = json.loads(service.ask("GET", "/health")[1])
        assert (health["status"], health["agents"]) == ("degraded", {"local": "ok", "mute": "does not answer"})
        status, text = service.ask("POST", "/api/v1/faults/process/inject", HANG)
        fault = json.loads(text)
        assert status == 201
        connection = http.client.HTTPConnection(service.url.removeprefix("http://"))
        connection.request("GET", "/api/v1/faults?active=true", headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        assert [each["id"] for each in json.loads(answer.read())] == [fault["id"]]
        assert answer.headers["X-Agents-Missing"] == "mute"
        assert 'fault_agent_up{agent="mute"} 0.0' in service.ask("GET", "/metrics")[1]
        recovering_at = now()
        assert service.ask("POST", f"/api/v1/faults/{fault['id']}/recover")[0] == 200
        assert now() - recovering_at < FIND_SECONDS, "nobody waited for the mute one"
        status, refusal = service.ask("POST", "/api/v1/faults/recover")
        assert (status, "'mute'" in refusal["detail"]) == (503, True)
        status, refusal = service.ask("POST", "/api/v1/faults/process/inject", HANG | {"target_pod": "vllm-worker-9"})
        assert (status, "'mute'" in refusal["detail"]) == (503, True)
        assert now() - began < 60


def test_capabilities_of_an_agent_that_is_away_are_none(start: Any, cell: dict[str, str]) -> None:
    service = start(f"--agent=local={cell['FT_AGENT']}", "--agent=gone=http://127.0.0.1:9")
    found = json.loads(service.ask("GET", "/api/v1/capabilities")[1])
    assert found["local"]["process.crash"]["available"]
    assert (found["gone"]["*"]["available"], "'gone'" in found["gone"]["*"]["detail"]) == (False, True)


def test_an_injection_that_does_not_end_keeps_nobody_from_another_agent(
    start: Any, cell: dict[str, str], stuck: str, tmp_path: Path
) -> None:
    service = start(f"--agent=local={cell['FT_AGENT']}", f"--agent=stuck={stuck}", f"--state-dir={tmp_path}")

    def inject() -> None:
        with pytest.raises((OSError, http.client.HTTPException)):  # the service is killed meanwhile
            service.ask("POST", "/api/v1/faults/process/inject", HANG | {"target_pod": "stuck-0"})

    client = threading.Thread(target=inject)
    client.start()

    def lines() -> list[dict[str, Any]]:
        """Those that are whole: it is being written."""
        log = tmp_path / "audit.jsonl"
        text = log.read_text() if log.exists() else ""
        return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]

    def begun() -> str | None:
        return None if any(line["target"] == ["stuck-0"] for line in lines()) else "no line"

    until(begun, PATIENCE, "the audit log has the call before it has ended")
    status, text = service.ask("POST", "/api/v1/faults/process/inject", HANG)
    assert status == 201
    assert service.ask("POST", f"/api/v1/faults/{json.loads(text)['id']}/recover")[0] == 200
    started[-1].kill()
    client.join()
    [line] = [line for line in lines() if line["target"] == ["stuck-0"]]
    assert (line["status"], line["path"], line["caller"]) == (None, "/api/v1/faults/process/inject", "127.0.0.1")


def test_an_undo_that_has_failed_is_no_success(start: Any, stuck: str) -> None:
    status, refusal = start(f"--agent=stuck={stuck}").ask("POST", "/api/v1/faults/f-5/recover")
    assert (status, "the process was running and is stopped" in refusal["detail"]) == (502, True)


def test_the_audit_log_says_what_was_asked_for(service: Client, state: Path) -> None:
    lost, fault = (
        HANG | {"target_pod": "nobody"},
        json.loads(service.ask("POST", "/api/v1/faults/process/inject", HANG)[1]),
    )
    service.ask("POST", "/api/v1/faults/process/inject", lost)
    service.ask("POST", "/api/v1/faults/process/inject?dry_run=true", HANG | {"target_pod": "vllm-worker-1"})
    service.ask("POST", "/api/v1/faults/recover")
    *_, unknown, dry, begun, ended = [json.loads(line) for line in (state / "audit.jsonl").read_text().splitlines()]
    assert (unknown["target"], unknown["status"]) == (["nobody"], 404)
    assert (dry["target"], dry["dry_run"], dry["status"]) == (["vllm-worker-1"], True, 200)
    assert (begun["call"], begun["status"]) == (ended["call"], None)
    assert (ended["fault"], ended["target"], ended["status"]) == ([fault["id"]], ["vllm-worker-0"], 200)


def test_a_body_that_does_not_say_how_large_it_is_is_not_read(service: Client) -> None:
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=20)
    connection.putrequest("POST", "/api/v1/faults/process/inject")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    answer = connection.getresponse()  # before a byte of the body
    assert (answer.status, "Content-Length" in json.loads(answer.read())["detail"]) == (411, True)
    connection.close()


def test_the_page_for_people_needs_nothing_from_elsewhere_and_no_token(start: Any) -> None:
    service = start(token="s3cret")
    status, page = service.ask("GET", "/docs", token="")
    assert status == 200
    assert not re.search(r"https?://", page)
    parts = re.findall(r'"(/page/[^"]+\.(?:js|css))"', page)
    assert len(parts) >= 2
    assert {service.ask("GET", part, token="")[0] for part in [*parts, "/openapi.json"]} == {200}
    assert service.ask("GET", "/api/v1/faults", token="")[0] == 401


def test_a_name_that_fits_two_deployments_is_an_error_that_lists_them(start: Any, cell: dict[str, str]) -> None:
    service = start(f"--agent=blue={cell['FT_AGENT']}", f"--agent=green={cell['FT_AGENT']}")
    status, refusal = service.ask("POST", "/api/v1/faults/process/inject", HANG)
    assert (status, "blue, green" in refusal["detail"]) == (409, True)
    dry = "/api/v1/faults/process/inject?dry_run=true"
    assert service.ask("POST", dry, HANG | {"deployment": "green"})[0] == 200


def test_gpus_of_a_machine_and_a_deployment_behind_one_service(
    start: Any, cell: dict[str, str], tmp_path: Path
) -> None:
    machine = Machine(tmp_path, cell["FT_AGENT_TOKEN"])
    try:
        machine.start(FAKE_GPU_COUNT="2")
        agents = f"--agent=local={cell['FT_AGENT']}", f"--agent=node-a={machine.client.url}"
        service = start(*agents, "--max-share=1")
        memory = {"node_name": "node-a", "fault_type": "MEMORY_PRESSURE", "gpu_index": 1}
        status, text = service.ask("POST", "/api/v1/faults/gpu/inject", memory)
        fault = json.loads(text)
        assert (status, fault["deployment"], fault["fidelity"]) == (201, "node-a", "real")
        status, refusal = service.ask("POST", "/api/v1/faults/gpu/inject", memory | {"gpu_index": None})
        assert (status, "choose one with gpu_index" in refusal["detail"]) == (422, True)
        local = {"target_pod": "vllm-worker-0", "fault_type": "MEMORY_PRESSURE"}
        assert json.loads(service.ask("POST", "/api/v1/faults/gpu/inject", local)[1])["fidelity"] == "emulated"
        deployments = {each["deployment"] for each in json.loads(service.ask("GET", "/api/v1/faults?active=true")[1])}
        assert deployments == {"local", "node-a"}
        status, refusal = service.ask("POST", "/api/v1/faults/network/inject", {"partition_type": "FRONTEND_WORKER"})
        assert (status, "need network namespaces" in refusal["detail"]) == (501, True)  # meant for the cell, and there
        status, refusal = service.ask("POST", "/api/v1/faults/network/inject", {"partition_type": "WORKER_NATS"})
        assert (status, "'local' has no nats; deployment 'node-a' has no nats" in refusal["detail"]) == (404, True)
        machine.kill()
        assert service.ask("POST", f"/api/v1/faults/{fault['id']}/recover")[0] == 503
        status, refusal = service.ask("POST", "/api/v1/faults/recover")
        assert (status, "'node-a'" in refusal["detail"]) == (503, True)
        left = Client(cell["FT_AGENT"]).ask("GET", "/v1/faults?active=true", token=cell["FT_AGENT_TOKEN"])
        assert left == (200, "[]")  # what could be undone was
    finally:
        machine.end()


def test_an_agent_that_is_away_is_named(start: Any) -> None:
    status, refusal = start("--agent=gone=http://127.0.0.1:9").ask("GET", "/api/v1/faults")
    assert (status, "'gone'" in refusal["detail"]) == (503, True)


def test_outside_of_loopback_it_wants_a_token() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("FT_")}
    argv = [sys.executable, "-m", "agents.service", "--host=0.0.0.0"]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, "give a token" in done.stderr) == (2, True)
    with socket.create_server(("0.0.0.0", 0)) as listener:
        argv = [sys.executable, "-m", "agents.service", f"--listen-fd={listener.fileno()}"]
        descriptors = [listener.fileno()]
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, pass_fds=descriptors)
    assert (done.returncode, "give a token" in done.stderr) == (2, True)


def test_tokens_are_not_printed(tmp_path: Path) -> None:
    shown = repr(Policy(tmp_path, token="s3cret")) + repr(AgentAddress("local", "http://127.0.0.1:1", "s3cret"))
    assert "s3cret" not in shown


def test_fuzzing_finds_no_server_error() -> None:
    argv = cells.command([sys.executable, "-m", "tests.fuzz", "--cases", str(FUZZ_CASES)])
    done = subprocess.run(argv, cwd=ROOT, env=cells.environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d{4,} cases, .*faults made: .*process", done.stdout, re.MULTILINE), done.stdout


# -- nobody gets in


def refusal(*options: str, **env: str) -> str:
    """What the service says to options that make no sense."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("FT_")}
    argv = [sys.executable, "-m", "agents.service", "--port=0", *options]
    done = subprocess.run(argv, cwd=ROOT, env=own | env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    return done.stderr


def test_whoever_is_given_an_agent_is_given_a_token() -> None:
    agent = "--agent=node-a=http://127.0.0.1:9"
    assert "every user of this machine" in refusal(agent, FT_AGENT_TOKEN="t")
    assert "every user of this machine" in refusal(agent, FT_AGENT_TOKEN="t", FT_SERVICE_TOKEN=" ")
    assert "every user of this machine" in refusal(FT_AGENT="http://127.0.0.1:9", FT_AGENT_TOKEN="t")


@pytest.mark.parametrize("option", ["--token-file", "--agent-token-file"])
@pytest.mark.parametrize(
    ("content", "said"), [("", "is empty"), ("\n", "is empty"), ("two words", "one token"), ("schlüssel", "one token")]
)
def test_a_token_file_without_a_token_is_refused(tmp_path: Path, option: str, content: str, said: str) -> None:
    (tmp_path / "token").write_text(content, encoding="utf-8")
    text = refusal(f"{option}={tmp_path / 'token'}", FT_SERVICE_TOKEN="t", FT_AGENT_TOKEN="t")
    assert f"{tmp_path / 'token'} " in text
    assert said in text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("127.0.0.1:1", 200),
        ("10.1.2.3:8080", 200),
        ("[::1]:8080", 200),
        ("faults.example:8080", 200),
        ("attacker.example", 421),
        ("127.0.0.1.attacker.example:8080", 421),
        ("localhost.attacker.example", 421),
        ("[", 421),
        ("", 421),
    ],
)
def test_a_name_that_is_not_the_services_own_is_refused(start: Any, host: str, status: int) -> None:
    service = named(start)
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=20)
    for path in ("/api/v1/faults", "/health", "/docs"):
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", host)
        connection.putheader("Authorization", f"Bearer {TOKEN}")
        connection.endheaders()
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status, path
    connection.close()


_named: list[Client] = []


def named(start: Any) -> Client:
    """One service for all names."""
    if not _named:
        _named.append(start("--allow-host=Faults.example"))
    return _named[0]


def test_a_page_of_another_site_is_refused(service: Client) -> None:
    for site in ("http://attacker.example", "null", "http://127.0.0.1:1"):
        status, refused = service.ask("POST", "/api/v1/faults/recover", origin=site)
        assert (status, refused["title"]) == (421, "Another site")
    assert service.ask("POST", "/api/v1/faults/recover", origin=service.url)[0] == 200


def test_with_agents_half_of_a_role_may_be_hit_and_one_in_any_case(start: Any) -> None:
    service = start()
    for name in ("frontend-0", "vllm-worker-0"):
        status, text = service.ask("POST", "/api/v1/faults/process/inject", HANG | {"target_pod": name})
        assert status == 201, text
    status, refused = service.ask("POST", "/api/v1/faults/process/inject", HANG | {"target_pod": "vllm-worker-1"})
    assert (status, "the limit is 0.5" in refused["detail"]) == (409, True)
    service.ask("POST", "/api/v1/faults/recover")


def test_a_line_of_the_audit_log_tells_who_did_what_how_long(start: Any, tmp_path: Path) -> None:
    service = start(f"--state-dir={tmp_path}")
    throttle = {"target_pod": "vllm-worker-0", "fault_type": "MEMORY_PRESSURE", "severity": "LOW"}
    fault = json.loads(service.ask("POST", "/api/v1/faults/gpu/inject", throttle | {"duration_seconds": 7})[1])
    service.ask("POST", "/api/v1/faults/process/inject?dry_run=true", HANG | {"duration_seconds": None})
    cut = {"partition_type": "FRONTEND_WORKER", "mode": "loss", "parameters": {"percent": 30}}
    service.ask("POST", "/api/v1/faults/network/inject", cut | {"target_pod": "vllm-worker-1"})
    service.ask("POST", "/api/v1/faults/recover")
    text = (tmp_path / "audit.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    begun, ended, dry, *others, _, _ = [line for line in lines if line["path"] != "/health"]
    shown = ("kind", "type", "duration_seconds")
    assert [begun[name] for name in shown] == ["gpu", "MEMORY_PRESSURE", 7.0]
    assert begun["parameters"] == {"severity": "LOW"}
    assert (ended["fault"], ended["parameters"]) == (fault["id"], {"share": 0.25, "gpu_index": 0})
    assert [dry[name] for name in shown] == ["process", "hang", 300.0]
    assert [others[-1][name] for name in shown] == ["network", "loss", 300.0]
    assert others[-1]["parameters"]["percent"] == 30
    assert {line["principal"] for line in (begun, ended, dry)} == {Policy(tmp_path, token=TOKEN).principal}
    assert TOKEN not in text


def test_callers_without_the_token_reach_no_agent_and_fill_no_log(start: Any, tmp_path: Path) -> None:
    asked: list[str] = []

    class Counting(Stuck):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        service = start(f"--agent=stuck=http://127.0.0.1:{server.server_address[1]}", f"--state-dir={tmp_path}")
        asked.clear()
        for number in range(50):
            for path in ("/health", "/api/v1/faults", "/metrics", f"/made-up-{number}"):
                service.ask("GET", path, token="wrong" if number % 2 else "")
            service.ask("POST", "/api/v1/faults/recover", token="")
            service.ask("POST", "/api/v1/faults/process/inject", HANG, token="wrong")
        assert asked == []
        lines = (tmp_path / "audit.jsonl").read_text().splitlines()
        assert len(lines) < 5, lines
        assert json.loads(service.ask("GET", "/health", token="")[1])["agents"] == {}
        assert json.loads(service.ask("GET", "/health")[1])["agents"] == {"stuck": "ok"}
        assert asked
        started[-1].terminate()
        started[-1].wait(20)
        told = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
        counts = [line["calls_by_status"] for line in told if "calls_by_status" in line]
        assert sum(each.get("401", 0) + each.get("403", 0) for each in counts) == 250
    finally:
        server.shutdown()
        server.server_close()


# -- a disk that is full


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to fill a disk of its own")
def test_a_full_disk_refuses_new_faults_and_loses_none(cell: dict[str, str], tmp_path: Path) -> None:
    """The audit log lies on a small disk of the service alone; its mount ends with the service."""
    if namespaces.missing():
        pytest.skip(f"no disk of its own: {namespaces.missing()}")
    state = tmp_path / "state"
    state.mkdir()
    argv = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs "$0"; exec "$@"', str(state)]
    env = os.environ | {"FT_AGENT_TOKEN": cell["FT_AGENT_TOKEN"], "FT_SERVICE_TOKEN": TOKEN}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        argv += [sys.executable, "-m", "agents.service", f"--listen-fd={listener.fileno()}", f"--state-dir={state}"]
        argv += [f"--agent=local={cell['FT_AGENT']}"]
        fds = [listener.fileno()]
        process = subprocess.Popen(argv, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, pass_fds=fds)
        service = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", TOKEN)
    try:
        fault = json.loads(service.ask("POST", "/api/v1/faults/process/inject", HANG)[1])
        disk = Path(f"/proc/{process.pid}/root{state}")
        whole = (disk / "audit.jsonl").read_bytes()
        with contextlib.suppress(OSError), (disk / "fill").open("wb", buffering=0) as stream:
            while True:
                stream.write(b"0" * 512)
        # There may be room left for half a line: none of that may stay.
        with contextlib.suppress(OSError), (disk / "audit.jsonl").open("ab", buffering=0) as stream:
            while True:
                stream.write(b"\n")
        other = HANG | {"target_pod": "frontend-0"}
        status, refused = service.ask("POST", "/api/v1/faults/process/inject", other)
        assert (status, "nothing was done" in refused["detail"]) == (507, True)
        live = [each["id"] for each in json.loads(service.ask("GET", "/api/v1/faults?active=true")[1])]
        assert live == [fault["id"]]
        assert service.ask("POST", f"/api/v1/faults/{fault['id']}/recover")[0] == 200
        assert "fault_audit_lines_lost_total 0.0" not in service.ask("GET", "/metrics")[1]
        (disk / "fill").unlink()
        assert service.ask("POST", "/api/v1/faults/process/inject?dry_run=true", other)[0] == 200
        log = (disk / "audit.jsonl").read_bytes()
        assert log.startswith(whole)
        assert json.loads(log.splitlines()[-1])["dry_run"]
    finally:
        process.terminate()
        assert process.stderr
        process.stderr.close()
        process.wait(20)
