import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.clock import now
from support.priority import PRIORITY
from support.requests.client import (
    CancellableRequest,
    send_chat_completion_request,
    send_completion_request,
    start_request,
)
from support.requests.ledger import Ledger, read_ledger
from support.requests.reader import shared_reader
from tests.patience import PATIENCE

MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello big world"}]
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def event(data: object) -> bytes:
    """One event as a chunk of a chunked body."""
    text = f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(text), text)


def token(text: str, finish_reason: str | None = None, index: int = 0) -> bytes:
    choice = {"index": index, "text": text, "finish_reason": finish_reason}
    return event({"id": "cmpl-1", "created": 3, "model": "m", "choices": [choice]})


def answer(status: str, body: bytes, headers: bytes = b"content-type: application/json\r\n") -> bytes:
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status.encode(), headers, len(body), body)


@dataclass
class Server:
    """Answers each connection with what the test wrote for it.

    Attributes:
        seen: how each connection ended from the server's side (``FIN`` or ``RST``), where a test asks for it.
        requests: head and body of each request.
    """

    url: str
    handler: Callable[["Connection"], None]
    requests: list[tuple[list[str], Any]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)


class Connection:
    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self.send = sock.sendall

    def close_seen(self) -> None:
        """Wait until the client has closed the connection and note how."""
        try:
            data = self.sock.recv(1)
        except ConnectionResetError:
            self.server.seen.append("RST")
        else:
            assert data == b""
            self.server.seen.append("FIN")

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def serve(self) -> None:
        with self.sock:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head, body = b"", b""
            while b"\r\n\r\n" not in head:
                data = self.sock.recv(65536)
                if not data:
                    return
                head += data
            head, _, body = head.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
            while len(body) < length:
                body += self.sock.recv(65536)
            self.server.requests.append((lines, json.loads(body)))
            self.server.handler(self)


Serve = Callable[[Callable[[Connection], None]], Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(handler: Callable[[Connection], None]) -> Server:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}", handler)

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                thread = threading.Thread(target=Connection(server, sock).serve)
                thread.start()
                threads.append(thread)

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        threads.append(acceptor)
        return server

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = now() + PATIENCE
    while not condition():
        assert now() < deadline, "the condition did not come true in time"
        time.sleep(0.001)


def finish_stream(connection: Connection) -> None:
    connection.send(STREAM_HEAD + token("p1") + token(" p2"))
    connection.send(token("", "length") + event({"choices": [], "usage": {"completion_tokens": 2}}))
    connection.send(event("[DONE]") + END)


# What is sent and what comes back


def test_a_stream_in_full(serve: Serve) -> None:
    server = serve(finish_stream)
    ledger = Ledger()
    answer = send_completion_request(server.url, "m", "a b", 2, stream=True, usage=True, ledger=ledger)
    assert (answer.status_code, answer.tokens, answer.text) == (200, ["p1", "p2"], "p1 p2")
    entry = answer.entry
    assert ledger.entries() == [entry]
    assert (entry.number, entry.api, entry.stream, entry.model) == (1, "completions", True, "m")
    assert (entry.prompt, entry.max_tokens, entry.n) == ("a b", 2, 1)
    assert [chunk.kind for chunk in entry.chunks] == ["token", "token", "finish", "usage", "done"]
    assert (entry.positions, entry.finish_reasons, entry.done_count) == ([1, 2], ["length"], 1)
    assert (entry.usage, entry.usage_asked) == ({"completion_tokens": 2}, True)
    assert (entry.end, entry.exception, entry.cancelled_at, entry.cancelled_by) == ("complete", None, None, None)
    assert entry.headers["content-type"] == "text/event-stream"
    assert entry.url == server.url + "/v1/completions"
    stages = [entry.intended_at, entry.sent_at, entry.connected_at, entry.headers_at]
    stages += [chunk.at for chunk in entry.chunks] + [entry.ended_at]
    times = [time for time in stages if time is not None]
    assert len(times) == len(stages)
    assert times == sorted(times)


def test_the_reader_goes_before_those_whom_it_measures() -> None:
    reader = shared_reader()
    thread = reader.call(threading.get_native_id)
    probe = f"import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param({PRIORITY}))"
    allowed = subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode == 0
    assert bool(os.sched_getscheduler(thread) & os.SCHED_RR) == allowed
    assert not os.sched_getscheduler(os.getpid()) & os.SCHED_RR


def test_what_is_sent_to_the_completions_api(serve: Serve) -> None:
    server = serve(finish_stream)
    entry = send_completion_request(
        server.url + "/", "m", "a", 7, stream=True, n=2, usage=True, headers={"X-Request-Id": "r"}, extra={"seed": 1}
    ).entry
    ((lines, body),) = server.requests
    expected = {"model": "m", "prompt": "a", "max_tokens": 7, "stream": True, "n": 2, "seed": 1}
    assert body == {**expected, "stream_options": {"include_usage": True}} == entry.body
    assert lines[0] == "POST /v1/completions HTTP/1.1"
    assert lines[1:] == [f"{name}: {value}" for name, value in entry.headers_sent.items()]
    assert entry.headers_sent["x-request-id"] == "r"
    assert entry.headers_sent["accept"] == "text/event-stream"


def test_what_is_sent_to_the_chat_api(serve: Serve) -> None:
    server = serve(lambda connection: connection.send(answer("200 OK", b'{"choices": []}')))
    entry = send_chat_completion_request(server.url, "m", MESSAGES, 7, usage=True).entry
    ((lines, body),) = server.requests
    assert lines[0] == "POST /v1/chat/completions HTTP/1.1"
    assert body == {"model": "m", "messages": MESSAGES, "max_tokens": 7, "stream": False}
    assert (entry.api, entry.prompt) == ("chat", "be brief\nhello big world")


def test_a_unary_answer(serve: Serve) -> None:
    choice = {"index": 0, "finish_reason": "length", "message": {"content": "p7 p8"}}
    body = json.dumps({"id": "chatcmpl-1", "choices": [choice], "usage": {"completion_tokens": 2}}).encode()
    server = serve(lambda connection: connection.send(answer("200 OK", body)))
    result = send_chat_completion_request(server.url, "m", MESSAGES, 2)
    assert (result.tokens, result.text, result.entry.positions) == (["p7", "p8"], "p7 p8", [7, 8])
    assert [chunk.kind for chunk in result.entry.chunks] == ["body"]
    assert (result.entry.usage, result.entry.completion_id) == ({"completion_tokens": 2}, "chatcmpl-1")


def test_secrets_are_sent_but_not_kept(serve: Serve) -> None:
    server = serve(lambda connection: connection.send(answer("204 No Content", b"")))
    url = server.url.replace("http://", "http://user:pass%20word@")
    entry = send_completion_request(url, "m", "a", 1).entry
    assert "authorization: Basic dXNlcjpwYXNzIHdvcmQ=" in server.requests[0][0]
    token_entry = send_completion_request(server.url, "m", "a", 1, headers={"Authorization": "Bearer s3cret"}).entry
    assert "authorization: Bearer s3cret" in server.requests[1][0]
    assert not any(secret in repr((entry, token_entry)) for secret in ("pass", "dXNl", "s3cret"))


def test_a_stream_in_single_bytes(serve: Serve) -> None:
    def drip(connection: Connection) -> None:
        content = STREAM_HEAD + token("Grüße") + token(" p2", "length") + event("[DONE]") + END
        for at in range(len(content)):
            connection.send(content[at : at + 1])

    entry = send_completion_request(serve(drip).url, "m", "a", 2, stream=True).entry
    assert (entry.tokens, entry.finish_reasons) == (["Grüße", "p2"], ["length"])
    assert (entry.done_count, entry.end) == (1, "complete")


def test_choices_are_told_apart(serve: Serve) -> None:
    def two(connection: Connection) -> None:
        connection.send(STREAM_HEAD + token("a", index=1) + token("b") + token(" c", index=1) + END)

    result = send_completion_request(serve(two).url, "m", "a", 2, stream=True, n=2)
    assert (result.tokens, result.text) == (["b"], "b")
    assert [chunk.index for chunk in result.entry.chunks] == [1, 0, 1]


def test_an_interim_answer_is_not_the_answer(serve: Serve) -> None:
    server = serve(
        lambda connection: connection.send(
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + answer("200 OK", b'{"choices": []}')
        )
    )
    entry = send_completion_request(server.url, "m", "a", 1).entry
    assert (entry.status_code, entry.end, "link" in entry.headers) == (200, "complete", False)


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_by_status(serve: Serve, stream: bool) -> None:
    body = b'{"message": "Service temporarily unavailable", "code": 503}'
    server = serve(lambda connection: connection.send(answer("503 Service Unavailable", body)))
    result = send_completion_request(server.url, "m", "a", 1, stream=stream)
    assert (result.status_code, result.tokens, result.entry.end) == (503, [], "complete")
    assert result.entry.errors == [body.decode()]


def test_an_error_inside_a_stream(serve: Serve) -> None:
    error = {"error": {"message": "gone", "code": 503}}
    server = serve(lambda connection: connection.send(STREAM_HEAD + token("p1") + event(error) + event("[DONE]") + END))
    entry = send_completion_request(server.url, "m", "a", 9, stream=True).entry
    assert (entry.tokens, entry.errors, entry.done_count) == (["p1"], [json.dumps(error)], 1)
    assert (entry.finish_reasons, entry.end) == ([], "complete")


def test_a_body_that_ends_without_done_is_complete(serve: Serve) -> None:
    server = serve(lambda connection: connection.send(STREAM_HEAD + token("p1") + END))
    entry = send_completion_request(server.url, "m", "a", 9, stream=True).entry
    assert (entry.end, entry.done_count) == ("complete", 0)


def test_a_body_that_only_the_close_ends_is_complete(serve: Serve) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    server = serve(lambda connection: connection.send(head + b'data: {"choices": [{"text": "a"}]}\n\n'))
    entry = send_completion_request(server.url, "m", "a", 9, stream=True).entry
    assert (entry.end, entry.tokens) == ("complete", ["a"])


# Connections that fail


def free_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("url", ["", "http://no-such-host.invalid:80"], ids=["closed port", "unknown host"])
def test_refused(url: str) -> None:
    entry = send_completion_request(url or free_url(), "m", "a", 1).entry
    assert (entry.end, entry.connected_at, entry.status_code, entry.chunks) == ("refused", None, None, [])
    assert entry.sent_at is not None
    assert entry.exception


@pytest.mark.parametrize("how", ["close", "reset"])
def test_lost_before_the_headers(serve: Serve, how: str) -> None:
    server = serve(Connection.reset if how == "reset" else lambda connection: None)
    entry = send_completion_request(server.url, "m", "a", 1).entry
    assert (entry.end, entry.status_code) == ("lost", None)
    assert entry.exception
    assert ("reset" in entry.exception) == (how == "reset")


@pytest.mark.parametrize("how", ["close", "reset"])
def test_lost_in_the_middle_keeps_every_token_that_arrived(serve: Serve, how: str) -> None:
    def cut(connection: Connection) -> None:
        connection.send(STREAM_HEAD + token("p1") + token(" p2") + b'20\r\ndata: {"choices"')
        if how == "reset":
            # A reset takes what the client's kernel has not handed over yet, so let it be read first.
            wait_until(lambda: bool(ledger.entries()[0].tokens))
            connection.reset()

    ledger = Ledger()
    entry = send_completion_request(serve(cut).url, "m", "a", 9, stream=True, ledger=ledger).entry
    assert (entry.end, entry.status_code, entry.tokens) == ("lost", 200, ["p1", "p2"])
    assert [(chunk.kind, chunk.raw) for chunk in entry.chunks[2:]] == [("other", '{"choices"')]
    assert entry.exception


CHUNKED_BODY = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nf\r\n"


@pytest.mark.parametrize("head", [CHUNKED_BODY, answer("200 OK", b"x" * 15)[:-15]])
def test_lost_in_the_middle_of_a_unary_body(serve: Serve, head: bytes) -> None:
    server = serve(lambda connection: connection.send(head + b'{"choices": '))
    entry = send_completion_request(server.url, "m", "a", 9).entry
    assert entry.end == "lost"
    assert [(chunk.kind, chunk.raw) for chunk in entry.chunks] == [("other", '{"choices": ')]


def test_not_http(serve: Serve) -> None:
    entry = send_completion_request(serve(lambda connection: connection.send(b"SSH-2.0-x\r\n")).url, "m", "a", 9).entry
    assert entry.end == "lost"
    assert "Http" in (entry.exception or "")


@pytest.mark.parametrize("first", [b"", STREAM_HEAD + token("p1")])
def test_timeout(serve: Serve, first: bytes) -> None:
    def stall(connection: Connection) -> None:
        connection.send(first)
        connection.close_seen()

    server = serve(stall)
    begin = now()
    entry = send_completion_request(server.url, "m", "a", 9, stream=True, timeout=0.2).entry
    assert 0.2 <= now() - begin < PATIENCE
    assert (entry.end, entry.tokens, entry.cancelled_at) == ("timeout", ["p1"] if first else [], None)
    wait_until(lambda: server.seen == ["FIN"])


@pytest.fixture
def full_url() -> Iterator[str]:
    """A listener whose queue is full, so that a connection neither stands nor is refused."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        socket.socket() as first,
        socket.socket() as second,
    ):
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_timeout_of_the_connection(full_url: str) -> None:
    entry = send_completion_request(full_url, "m", "a", 9, timeout=0.2).entry
    assert (entry.end, entry.connected_at) == ("timeout", None)


# Cancellation


@pytest.mark.parametrize(("how", "seen"), [("close", "FIN"), ("reset", "RST")])
@pytest.mark.parametrize("stage", ["before the headers", "in a stream", "in a body"])
def test_cancel(serve: Serve, how: str, seen: str, stage: str) -> None:
    def stall(connection: Connection) -> None:
        if stage == "in a stream":
            connection.send(STREAM_HEAD + token("p1") + token(" p2"))
        if stage == "in a body":
            connection.send(answer("200 OK", b'{"choices": []}')[:-3])
        connection.close_seen()

    server = serve(stall)
    handle = CancellableRequest()
    pending = start_request(server.url, "m", "a", 9, stream=stage == "in a stream", cancellable_request=handle)
    if stage == "in a stream":
        assert pending.wait_tokens(2, PATIENCE)
    else:
        wait_until(lambda: bool(server.requests))
    before = now()
    assert handle.cancel(how)
    assert handle.cancelled
    entry = pending.join(0).entry
    assert (entry.end, entry.cancelled_by, entry.exception) == ("cancelled", how, None)
    assert entry.cancelled_at is not None
    assert entry.ended_at is not None
    assert before <= entry.cancelled_at <= entry.ended_at <= now()
    assert entry.tokens == (["p1", "p2"] if stage == "in a stream" else [])
    wait_until(lambda: server.seen == [seen])
    assert not handle.cancel()
    assert entry.cancelled_by == how


@pytest.mark.parametrize("how", ["close", "reset"])
def test_cancel_while_connecting(full_url: str, how: str) -> None:
    pending = start_request(full_url, "m", "a", 9)
    wait_until(lambda: pending.entry.sent_at is not None)
    assert pending.cancel(how)
    entry = pending.join(0).entry
    assert (entry.end, entry.cancelled_by, entry.connected_at) == ("cancelled", how, None)


def test_cancel_before_it_is_sent(serve: Serve) -> None:
    server = serve(finish_stream)
    handle = CancellableRequest()
    assert handle.cancel("reset")
    assert not handle.cancel()
    answer = send_completion_request(server.url, "m", "a", 9, cancellable_request=handle)
    entry = answer.entry
    assert (entry.end, entry.cancelled_by, entry.sent_at, answer.status_code) == ("cancelled", "reset", None, None)
    assert server.requests == []


def test_cancel_after_the_end_changes_nothing(serve: Serve) -> None:
    pending = start_request(serve(finish_stream).url, "m", "a", 2, stream=True)
    entry = pending.join().entry
    assert not pending.cancel("reset")
    assert (entry.end, entry.cancelled_at, entry.cancelled_by) == ("complete", None, None)


def test_a_close_with_unread_bytes_is_no_reset(serve: Serve) -> None:
    sent = threading.Event()

    go = threading.Event()

    def flood(connection: Connection) -> None:
        connection.send(STREAM_HEAD + token("p1"))
        assert go.wait(5)
        connection.send(token(" p2") * 100)
        sent.set()
        connection.close_seen()

    server = serve(flood)
    pending = start_request(server.url, "m", "a", 9, stream=True)
    assert pending.wait_tokens(1, 5)

    def cancel_before_reading() -> bool:
        go.set()
        assert sent.wait(5)
        return pending.cancel("close")

    assert shared_reader().call(cancel_before_reading)
    assert pending.join(PATIENCE).tokens == ["p1"]
    wait_until(lambda: server.seen == ["FIN"])


def test_one_of_many_is_cancelled_and_the_others_end_well(serve: Serve) -> None:
    go = threading.Event()

    def stall(connection: Connection) -> None:
        connection.send(STREAM_HEAD + token("p1"))
        assert go.wait(5)
        with contextlib.suppress(ConnectionError):  # of the one that is cancelled
            connection.send(token(" p2", "length") + event("[DONE]") + END)

    server = serve(stall)
    ledger = Ledger()
    pending = [start_request(server.url, "m", "a", 2, stream=True, ledger=ledger) for _ in range(20)]
    assert all(each.wait_tokens(1, 5) for each in pending)
    assert pending[7].cancel("reset")
    go.set()
    ends = [each.join(PATIENCE).entry.end for each in pending]
    assert ends == ["complete"] * 7 + ["cancelled"] + ["complete"] * 12
    assert [entry.number for entry in ledger.entries()] == list(range(1, 21))
    assert all(entry.tokens == ["p1", "p2"] for entry in ledger.entries() if entry.end == "complete")


def test_cancel_from_the_thread_of_the_reader_does_not_hang(serve: Serve) -> None:
    server = serve(Connection.close_seen)
    pending = start_request(server.url, "m", "a", 9)
    wait_until(lambda: bool(server.requests))
    assert shared_reader().call(pending.cancel)
    assert pending.join(PATIENCE).entry.end == "cancelled"


def test_sockets_are_closed_when_the_request_is_over(serve: Serve) -> None:
    server = serve(finish_stream)
    threads = threading.active_count()
    send_completion_request(server.url, "m", "a", 2, stream=True)

    def client_sockets() -> int:
        count = 0
        for name in os.listdir("/proc/self/fd"):
            try:
                count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
            except FileNotFoundError:
                continue
        return count

    # The reader's own may have begun and stay; those of other tests are not ours to wait for.
    wait_until(lambda: threading.active_count() <= threads + 2)
    before = client_sockets()
    for _ in range(20):
        send_completion_request(server.url, "m", "a", 2, stream=True)
        send_completion_request(free_url(), "m", "a", 2)
    wait_until(lambda: client_sockets() <= before)


# Waiting, lag, misuse


def test_wait_tokens_gives_up_when_the_answer_ends(serve: Serve) -> None:
    pending = start_request(serve(finish_stream).url, "m", "a", 9, stream=True)
    begin = now()
    assert not pending.wait_tokens(3, PATIENCE)
    assert now() - begin < PATIENCE / 2
    assert pending.wait_tokens(2, 0)


def test_wait_tokens_and_join_give_up_in_time(serve: Serve) -> None:
    server = serve(Connection.close_seen)
    pending = start_request(server.url, "m", "a", 9)
    assert not pending.wait_tokens(1, 0.05)
    with pytest.raises(TimeoutError, match=r"request 1 has not ended after 0\.05 s"):
        pending.join(0.05)
    assert not pending.ended
    pending.cancel()
    assert pending.ended


def test_other_threads_can_wait_on_the_ledger(serve: Serve) -> None:
    ledger = Ledger()
    server = serve(finish_stream)
    threading.Timer(0.05, lambda: start_request(server.url, "m", "a", 2, stream=True, ledger=ledger)).start()
    assert ledger.wait_for(lambda: [entry.end for entry in ledger.entries()] == ["complete"], PATIENCE)


def test_lag_is_noted_for_the_requests_that_it_hits(serve: Serve) -> None:
    quick = serve(finish_stream)
    slow = serve(Connection.close_seen)
    before = send_completion_request(quick.url, "m", "a", 2, stream=True).entry
    pending = start_request(slow.url, "m", "a", 9)
    wait_until(lambda: bool(slow.requests))
    shared_reader().call(time.sleep, 2.0)
    pending.cancel()
    assert pending.entry.lag_seconds > 1.9
    assert before.lag_seconds < 1.9


def test_the_intended_time_is_kept_and_the_ledger_can_be_read_back(serve: Serve, tmp_path: Any) -> None:
    ledger = Ledger()
    entry = send_completion_request(
        serve(finish_stream).url, "m", "a", 2, stream=True, ledger=ledger, intended_at=1.5
    ).entry
    assert entry.intended_at == 1.5
    ledger.write(tmp_path / "ledger.jsonl")
    assert read_ledger(tmp_path / "ledger.jsonl") == [entry]


def test_a_handle_is_for_one_request(serve: Serve) -> None:
    server = serve(finish_stream)
    handle = CancellableRequest()
    ledger = Ledger()
    send_completion_request(server.url, "m", "a", 2, cancellable_request=handle, ledger=ledger)
    with pytest.raises(ValueError, match="use a new one for each request"):
        send_completion_request(server.url, "m", "a", 2, cancellable_request=handle, ledger=ledger)
    assert len(ledger.entries()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; expected at least 1"),
        ({"n": -1}, "n is -1; expected at least 1"),
        ({"timeout": 0}, "timeout is 0; expected"),
        ({"model": ""}, "model is empty"),
        ({"base_url": ""}, "base_url is ''; expected http://HOST:PORT"),
        ({"base_url": "localhost:8000"}, "base_url is 'localhost:8000'"),
        ({"base_url": "http://h:port"}, "bad port"),
        ({"headers": {"a": "b\r\nc: d"}}, "header 'a' holds a line break"),
        ({"extra": {"max_tokens": 3}}, "extra names the field 'max_tokens'"),
        ({"extra": {"n": 3}}, "extra names the field 'n'"),
    ],
)
def test_misuse(change: dict[str, Any], message: str) -> None:
    ledger = Ledger()
    arguments: dict[str, Any] = {
        "base_url": "http://127.0.0.1:1",
        "model": "m",
        "prompt": "a",
        "max_tokens": 1,
        "ledger": ledger,
    }
    with pytest.raises(ValueError, match=message):
        start_request(**(arguments | change))
    assert ledger.entries() == []


def test_a_way_to_cancel_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="cannot cancel by 'kill'; expected one of close, reset"):
        CancellableRequest().cancel("kill")


def test_a_prompt_where_messages_belong() -> None:
    with pytest.raises(TypeError, match="expected a list of messages"):
        send_chat_completion_request("http://127.0.0.1:1", "m", "hello", 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a string"):
        send_completion_request("http://127.0.0.1:1", "m", MESSAGES, 1)  # type: ignore[arg-type]
