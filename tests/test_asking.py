"""The one client for control calls: what it sends, what it makes of what comes, and that it asks nobody in between."""

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Thread
from typing import Any

import pytest

from support.asking import NoAnswer, ask
from support.errors import Refused
from support.json_api import JsonApi


class Echo(BaseHTTPRequestHandler):
    """Says what it was asked; a path that is a number is answered with it as the status."""

    def answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        seen = {
            "method": self.command,
            "path": self.path,
            "body": self.rfile.read(size).decode(),
            "who": self.headers["Authorization"],
        }
        said = b"{cut" if self.path == "/broken" else json.dumps(seen | {"title": "No", "detail": "not here"}).encode()
        self.send_response(int(self.path[1:]) if self.path[1:].isdigit() else 200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_what_is_asked_arrives_with_its_query_and_its_body(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    seen = ask(f"{url}/a?b=c", 2, "POST", {"x": 1}, {"Authorization": "me"}).json()
    assert (seen["method"], seen["path"], json.loads(seen["body"]), seen["who"]) == ("POST", "/a?b=c", {"x": 1}, "me")
    assert ask(url, 2).json()["path"] == "/"
    assert ask(f"{url}/503", 2).status == 503


def test_whoever_gives_no_answer_is_told_from_one_who_refuses(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        there = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(NoAnswer, match="timed out"):
            ask(there, 0.1)
    with pytest.raises(NoAnswer, match="refused"):
        ask(there, 2)
    with pytest.raises(ValueError, match="cannot ask 'localhost:80/x'; expected an http:// or https:// URL"):
        ask("localhost:80/x", 2)


def test_an_api_refuses_in_words(url: str) -> None:
    class Api(JsonApi):
        WHO = "clock"

    with pytest.raises(Refused, match="No: not here") as refused:
        Api(url, "token").call("GET", "/404")
    assert refused.value.status == 404
    with pytest.raises(Refused, match=r"the clock does not answer \(GET /broken\)") as broken:
        Api(url).call("GET", "/broken")
    assert broken.value.status == 0
    assert Api(url, "token").call("DELETE", "/x")["who"] == "Bearer token"
