"""The observer of pods, which are processes of this machine: whose each is, a mark in its environment says."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.core.faults import Problem
from agents.network import netlink
from agents.observer import look
from support.observe.waiting import until
from support.settings import ROOT
from support.targets.local import namespaces
from tests.plain_http import Client

UID, CONTAINER = "0c8b6f2e-8f2c-4a57-9d8e-2b1d3f4a5b6c", "5d1e" * 16
PROGRAM = """
import socket, sys, time
from agents.core.kernel import bring_loopback_up, enter_new_namespaces
enter_new_namespaces("net")
bring_loopback_up()
listener = socket.create_server(("127.0.0.1", 9090))
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def pid(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The process of a pod with a network of its own, in which somebody listens at port 9090."""
    if reason := namespaces.missing():
        pytest.skip(f"needs network namespaces: {reason}")

    def cgroups() -> dict[int, str]:
        found = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                lines = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            marks = [os.fsdecode(each[7:]) for each in lines if each.startswith(b"CGROUP=")]
            found[int(name)] = marks[0] if marks else ""
        return found

    monkeypatch.setattr(look, "_cgroups", cgroups)
    env = os.environ | {"CGROUP": f"/kubepods/pod{UID.replace('-', '_')}/{CONTAINER}"}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process.pid
        process.kill()


def state() -> str:
    return str(look.container_state(CONTAINER)["state"])


def test_a_container_is_alive_stopped_or_gone(pid: int) -> None:
    assert look.container_state(CONTAINER) == {"state": "alive", "pids": [pid]}
    os.kill(pid, signal.SIGSTOP)
    until(lambda: None if state() == "stopped" else state(), 10, "it is stopped")
    os.kill(pid, signal.SIGCONT)
    until(lambda: None if state() == "alive" else state(), 10, "it goes on")
    os.kill(pid, signal.SIGKILL)
    until(lambda: None if state() == "gone" else state(), 10, "it is gone")


def arriving(packets: int) -> int:
    receivers = look.Receivers()
    name, port = receivers.open(UID, "127.0.0.1")
    look.send(UID, "127.0.0.1", port, packets)
    count = receivers.count(name, packets)
    with pytest.raises(Problem, match="each counts once"):
        receivers.count(name, packets)
    return count


def test_packets_arrive_in_the_pod_or_are_lost(pid: int) -> None:
    assert (arriving(1), arriving(50)) == (1, 50)
    rules = ("trial", "drop", ["127.0.0.1"], ["to"], 60_000, 0)
    look.in_pod(UID, lambda: netlink.cut(*rules))
    assert (arriving(50), look.connects(UID, "127.0.0.1", 9090)) == (0, "silent")
    look.in_pod(UID, lambda: netlink.uncut("trial"))
    assert arriving(50) == 50


def test_a_connection_meets_what_is_there(pid: int) -> None:
    assert look.connects(UID, "127.0.0.1", 9090) == "open"
    assert look.connects(UID, "127.0.0.1", 9) == "refused"


def test_a_pod_that_is_not_here_is_unknown(pid: int) -> None:
    with pytest.raises(Problem, match="no process of pod 'elsewhere' runs on this machine"):
        look.connects("elsewhere", "127.0.0.1", 9)


@pytest.fixture
def client() -> Iterator[Client]:
    """The program, with the token ``s``."""
    env = os.environ | {"FT_AGENT_TOKEN": "s"}
    argv = [sys.executable, "-m", "agents.observer", "--port=0"]
    with subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Client(process.stdout.readline().split()[-1], "s")
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (
            "/v1/connect",
            {"uid": "u", "address": "10.0.0.300", "port": 1},
            "address is '10.0.0.300'; expected an address",
        ),
        ("/v1/connect", {"uid": "u", "address": "10.0.0.3", "port": 0}, "port is 0; expected a whole number from 1 to"),
        ("/v1/receivers", {"address": "::1"}, "uid is None; expected a text"),
        ("/v1/receivers/x", {"packets": 10**6}, "packets is 1000000; expected a whole number from 1 to 5000"),
        ("/v1/send", [], "uid is None; expected a text"),
    ],
)
def test_what_makes_no_sense_is_refused(client: Client, path: str, body: object, said: str) -> None:
    status, page = client.ask("POST", path, body)
    assert (status, said in page["detail"]) == (422, True), page


def test_it_answers_those_who_have_the_token(client: Client) -> None:
    assert client.ask("GET", f"/v1/containers/{CONTAINER}")[0] == 200
    assert client.ask("GET", f"/v1/containers/{CONTAINER}", token="other")[0] == 401
    assert client.ask("GET", "/health", token="")[0] == 200
    assert client.ask("POST", "/v1/connect", {"uid": "none", "address": "127.0.0.1", "port": 9})[0] == 404
