import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from support.observe.metrics import Exposition, ScrapeError, scrape

# As the frontend of Dynamo 1.6.1 serves them.
TEXT = """\
# HELP dynamo_frontend_requests_total Total number of LLM requests processed
# TYPE dynamo_frontend_requests_total counter
dynamo_frontend_requests_total{endpoint="chat_completions",model="Qwen3-0.6B",request_type="stream",status="success"} 3
dynamo_frontend_requests_total{endpoint="completions",model="Qwen3-0.6B",request_type="stream",status="success"} 4
dynamo_frontend_requests_total{endpoint="completions",model="Qwen3-0.6B",request_type="unary",status="error"} 1
# TYPE dynamo_frontend_requests_total_created gauge
dynamo_frontend_requests_total_created 1.795447037e9
# TYPE dynamo_frontend_disconnected_clients gauge
dynamo_frontend_disconnected_clients 0
# TYPE dynamo_frontend_time_to_first_token_seconds histogram
dynamo_frontend_time_to_first_token_seconds_bucket{model="a\\"b\\\\n} 9",le="0.1"} 1
dynamo_frontend_time_to_first_token_seconds_bucket{model="a\\"b\\\\n} 9",le="+Inf"} 2
dynamo_frontend_time_to_first_token_seconds_sum{model="a\\"b\\\\n} 9"} 0.25
dynamo_frontend_time_to_first_token_seconds_count{model="a\\"b\\\\n} 9"} 2
"""


def test_value_sums_the_matching_series() -> None:
    metrics = Exposition(TEXT)
    name = "dynamo_frontend_requests_total"
    assert metrics.value(name) == 8
    assert metrics.value(name, endpoint="completions") == 5
    assert metrics.value(name, endpoint="completions", request_type="unary") == 1
    assert metrics.text == TEXT


def test_an_absent_series_is_not_a_zero() -> None:
    metrics = Exposition(TEXT)
    assert metrics.value("dynamo_frontend_disconnected_clients") == 0
    assert metrics.value("dynamo_frontend_model_migration_total") is None
    assert metrics.value("dynamo_frontend_requests_total", endpoint="embeddings") is None
    assert metrics.value("dynamo_frontend_requests_total", no_such_label="x") is None
    assert metrics.value("dynamo_frontend_requests") is None
    assert Exposition("").value("x") is None


def test_series_of_a_histogram() -> None:
    metrics = Exposition(TEXT)
    buckets = metrics.series("dynamo_frontend_time_to_first_token_seconds_bucket")
    assert [(sample.labels["le"], sample.value) for sample in buckets] == [("0.1", 1), ("+Inf", 2)]
    assert buckets[0].labels["model"] == 'a"b\\n} 9'
    assert metrics.value("dynamo_frontend_time_to_first_token_seconds_sum") == 0.25


def test_a_line_that_is_not_in_the_format() -> None:
    with pytest.raises(ValueError, match="nine"):
        Exposition("x_total nine\n").value("x_total")


@pytest.fixture
def base() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(TEXT.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_scrape(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert scrape(base + "/metrics").text == TEXT


def test_scrape_of_a_wrong_path(base: str) -> None:
    with pytest.raises(ScrapeError, match=r"/nope answered 404; expected metrics with status 200"):
        scrape(base + "/nope")


def test_scrape_where_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
    with pytest.raises(ScrapeError, match=r"no metrics from http://127\.0\.0\.1:.*refused"):
        scrape(url)


def test_scrape_of_a_hung_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
        with pytest.raises(ScrapeError, match="timed out"):
            scrape(url, timeout=0.1)


def test_scrape_of_something_else() -> None:
    with pytest.raises(ValueError, match="cannot ask 'localhost:8000/metrics'; expected an http"):
        scrape("localhost:8000/metrics")
