"""What `make watch` shows of a frontend and of a deployment that stays."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from rich.console import Console

from support import releases
from support.observe.health import Instance
from support.run.watch import COUNTS, Look, Watch, picture

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
COUNTED = {"in flight": 3, "queued": 0, "done": 10, "moved": 4, "cancelled": 2, "rejected": 5}


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
        console.print(picture("http://f:8000", seen, before))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_any_frontend_can_be_watched(frontend: str) -> None:
    seen = Watch(frontend, NAMES).look()
    assert (seen.counts, seen.failed, list(seen.models), seen.missing) == (COUNTED, 1.0, ["m"], [])
    head, titles, values, _, listed = shown(seen)
    assert head == "http://f:8000  m  1 worker listed"
    assert dict(zip(titles.replace("in flight", "in-flight").split(), values.split(), strict=True))["failed"] == "1"
    assert listed.split() == ["backend", "1f", "10.0.0.2:99/x"]


def test_rates_are_those_since_the_look_before() -> None:
    before = Look(10.0, dict.fromkeys(COUNTS, 2.0))
    seen = Look(12.0, dict.fromkeys(COUNTS, 2.0) | {"done": 12.0, "in flight": 9.0}, failed=1.0)
    values = shown(seen, before)[2]
    assert "12 +5.0/s" in values
    assert values.split()[-2:] == ["1", "+0.5/s"]
    assert "9 +" not in values


def test_a_frontend_that_does_not_answer_is_said_so() -> None:
    seen = Watch("http://127.0.0.1:9", NAMES).look()
    assert (seen.counts, seen.listed) == (None, None)
    assert "no metrics from http://127.0.0.1:9/metrics" in "\n".join(shown(seen))


def test_processes_are_told_with_what_is_wrong_with_them() -> None:
    node = {"role": "worker", "state": "running", "restarts": 0}
    nodes = [
        node | {"name": "w-0", "address": "10.0.0.2", "in_flight": 2.0},
        node | {"name": "w-1", "address": "10.0.0.20", "in_flight": None},
        node | {"name": "etcd-0", "role": "etcd", "address": "10.0.0.1", "in_flight": None, "state": "waiting"},
    ]
    fault = {"id": "f-1", "kind": "process", "type": "hang", "targets": ["w-1"], "expires_at": "2026-11-27T22:54:10.4"}
    listed = [Instance("backend", 31, '{"tcp": "10.0.0.2:99/x"}')]
    rows = shown(Look(1.0, None, 0.0, listed, ["m"], nodes, [fault]))[2:]
    assert rows[0].split() == ["w-0", "worker", "10.0.0.2", "running", "0", "2", "yes"]
    assert rows[1].split() == ["w-1", "worker", "10.0.0.20", "running", "0", "no", "answer"]
    assert rows[2].split() == ["etcd-0", "etcd", "10.0.0.1", "waiting", "0"]
    assert rows[3] == "on  f-1  process hang w-1  until 22:54:10 UTC"
