"""What `make watch` shows of a frontend and of a deployment that stays."""

import contextlib
import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from rich.console import Console

from support import releases
from support.observe.health import Instance
from support.run.keeping import Stay
from support.run.watch import COUNTS, Look, look_at, look_into, picture

NAMES = releases.get("1.6.1").metrics
PAGES = {
    "/metrics": """dynamo_frontend_requests_total{status="success",error_type=""} 7
dynamo_frontend_requests_total{status="error",error_type="cancelled"} 2
dynamo_frontend_requests_total{status="error",error_type="internal"} 1
dynamo_frontend_inflight_requests{model="m"} 3
dynamo_frontend_model_migration_total{model="m"} 4
dynamo_frontend_model_cancellation_total{model="m"} 2
dynamo_frontend_model_rejection_total{model="m"} 5
""",
    "/v1/models": '{"data": [{"id": "m"}]}',
    "/health": """{"instances": [{"component": "backend", "endpoint": "generate", "instance_id": 31,
        "transport": {"tcp": "10.0.0.2:99/x"}}]}""",
}
COUNTED = {"in flight": 3, "queued": 0, "done": 10, "migrated": 4, "cancelled": 2, "rejected": 5}


@pytest.fixture
def frontend() -> Iterator[str]:
    """Base URL of what answers as a frontend does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = PAGES[self.path].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def shown(seen: Look, before: Look | None = None) -> list[str]:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(picture(seen, before))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_any_frontend_can_be_watched(frontend: str) -> None:
    seen = look_at(f"{frontend}/", NAMES)
    assert (seen.counts, seen.failed, list(seen.models), seen.missing) == (COUNTED, 1.0, ["m"], [])
    head, titles, values, _, listed = shown(seen)
    assert head == f"{frontend}  m  1 worker listed"
    assert dict(zip(titles.replace("in flight", "in-flight").split(), values.split(), strict=True))["failed"] == "1"
    assert listed.split() == ["backend", "1f", "10.0.0.2:99/x"]


def test_rates_are_those_since_the_look_before() -> None:
    before = Look(10.0, "http://f:8000", counts=dict.fromkeys(COUNTS, 2.0))
    counts = dict.fromkeys(COUNTS, 2.0) | {"done": 12.0, "in flight": 9.0}
    seen = Look(12.0, "http://f:8000", counts=counts, failed=1.0)
    values = shown(seen, before)[2]
    assert "12 +5.0/s" in values
    assert values.split()[-2:] == ["1", "+0.5/s"]
    assert "9 +" not in values


def test_a_frontend_that_does_not_answer_is_said_so() -> None:
    seen = look_at("http://127.0.0.1:9", NAMES)
    assert (seen.counts, seen.listed) == (None, None)
    assert "no metrics from http://127.0.0.1:9/metrics" in "\n".join(shown(seen))


NODE = {"role": "worker", "state": "running", "restarts": 0, "in_flight": None, "numbers": []}
NODES = [
    NODE | {"name": "w-0", "address": "10.0.0.2", "in_flight": 2.0, "numbers": ["1f", "2f"]},
    NODE | {"name": "w-1", "address": "10.0.0.20", "numbers": ["3f"]},
    NODE | {"name": "w-2", "address": "10.0.0.21", "in_flight": 0.0, "numbers": ["4f"]},
    NODE | {"name": "f-0", "role": "frontend", "address": "10.0.0.3", "in_flight": 3.0},
    NODE | {"name": "etcd-0", "role": "etcd", "address": "10.0.0.1", "state": "waiting"},
]
FAULT = {"id": "f-1", "kind": "process", "type": "hang", "targets": ["w-1"], "expires_at": "2026-11-27T22:54:10.4"}


def test_processes_are_told_with_what_is_wrong_with_them() -> None:
    listed = [Instance("backend", 0x2F, '{"nats": "a subject"}'), Instance("backend", 0x3F, "{}")]
    seen = Look(1.0, "http://f:8000", "a wreck", None, 0.0, listed, ["m"], NODES, [FAULT])
    title, head, _, *rows = shown(seen)
    assert (title, head) == ("a wreck", "http://f:8000  m  2 workers listed")
    assert rows[0].split() == ["w-0", "worker", "10.0.0.2", "running", "0", "2", "2f"]
    # One that hangs is registered until its lease is over, whether it answers or not.
    assert rows[1].split() == ["w-1", "worker", "10.0.0.20", "running", "0", "no", "answer", "3f"]
    assert rows[2].split() == ["w-2", "worker", "10.0.0.21", "running", "0", "0"]
    assert rows[3].split() == ["f-0", "frontend", "10.0.0.3", "running", "0", "3"]
    assert rows[4].split() == ["etcd-0", "etcd", "10.0.0.1", "waiting", "0"]
    assert rows[5] == "on  f-1  process hang w-1  until 22:54:10 UTC"


def test_without_a_frontend_nobody_knows_who_is_registered() -> None:
    rows = shown(Look(1.0, "http://f:8000", nodes=NODES[:1], missing=["no answer"]))
    assert rows[-2].split() == ["w-0", "worker", "10.0.0.2", "running", "0", "2", "unknown"]


def test_a_deployment_that_stays_is_found_and_asked_by_its_folder(tmp_path: Path) -> None:
    stay = Stay(str(tmp_path / "stay"), "the deployment")
    assert (stay.owner(), stay.end()) == (None, False)
    assert stay.claim()
    assert not stay.claim(), "its place is taken"
    told = {"title": "2 workers", "until": "12:00:00", "dynamo": "1.6.1", "nodes": NODES}
    told |= {"frontend": "http://127.0.0.1:9", "service": "http://127.0.0.1:9"}
    listener = stay.listen()

    def answer() -> None:
        for _ in range(2):
            line, _ = listener.accept()
            with line, contextlib.suppress(ConnectionError):  # one only wants to know who we are
                line.sendall(json.dumps(told).encode())

    Thread(target=answer, daemon=True).start()
    assert stay.owner() == os.getpid()
    seen = look_into(stay)
    assert (seen.title, seen.nodes, len(seen.missing)) == ("2 workers, until 12:00:00", NODES, 2)
    listener.close()
    assert stay.owner() is None
    assert "says nothing about itself" in look_into(stay).missing[0]
