"""A program that stands for a worker or a frontend of Dynamo: it listens, answers, works, and is shut down.

``python marker.py --address A --port N --registry FOLDER [--worker NUMBER] [--child] [--lingers] [--list none|stale]``

``GET /metrics`` has the counter ``work_total``; ``GET /health`` lists the workers that are registered; ``POST`` streams
tokens, 100 a second, until the client leaves: a frontend passes it on to the first worker.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

TICK_SECONDS = 0.01
LONGEST_ASK = 2.0
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: "
TOKEN = {"id": "m", "object": "text_completion", "created": 1, "model": "m"}


class Marker:
    """One worker or frontend.

    Args:
        registry: folder with a file for each worker that serves: its name is the number, its text the address.
        number: of the worker; None: a frontend.
        told: what a frontend says of the registry: nothing is wrong with it if empty, ``none`` or ``stale``.
    """

    def __init__(self, address: str, port: int, registry: Path, number: int | None, told: str) -> None:
        self._registry, self._number, self._told, self._work = registry, number, told, 0
        self._first: list[dict[str, object]] = []
        self._listener = socket.create_server((address, port), backlog=64)
        if number is not None:
            (registry / str(number)).write_text(address)

    def serve(self) -> None:
        """Answer for ever."""
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += (more := connection.recv(4096))
                if not more:
                    return
            if asked.startswith(b"POST"):
                self._work_for(connection) if self._number is not None else self._pass_on(connection, asked)
            elif b" /metrics" in asked:
                text = f'# TYPE work counter\nwork_total{{worker_id="{self._number or 0:x}"}} {self._work}\n'
                self._answer(connection, b"text/plain", text)
            elif b" /health" in asked and self._told != "none":
                self._answer(connection, b"application/json", json.dumps({"instances": self._instances()}))

    @staticmethod
    def _answer(connection: socket.socket, kind: bytes, text: str) -> None:
        connection.sendall(HEAD + kind + b"\r\nContent-Length: %d\r\n\r\n" % len(text) + text.encode())

    def _instances(self) -> list[dict[str, object]]:
        same = {"component": "backend", "endpoint": "generate"}
        found: list[dict[str, object]] = [
            same | {"instance_id": int(each.name), "transport": each.read_text()}
            for each in sorted(self._registry.iterdir())
        ]
        self._first = self._first or found
        return self._first if self._told == "stale" else found

    def _work_for(self, connection: socket.socket) -> None:
        connection.sendall(HEAD + b"text/event-stream\r\n\r\n")
        text = json.dumps(TOKEN | {"choices": [{"index": 0, "text": " a", "finish_reason": None}]})
        while True:
            # on a grid, so that a busy machine makes it little slower
            time.sleep(TICK_SECONDS - time.monotonic() % TICK_SECONDS)
            self._work += 1
            connection.sendall(f"data: {text}\n\n".encode())

    def _pass_on(self, connection: socket.socket, asked: bytes) -> None:
        first = min(self._registry.iterdir(), key=lambda each: int(each.name))
        port = self._listener.getsockname()[1]
        with socket.create_connection((first.read_text(), port), LONGEST_ASK) as worker:
            worker.settimeout(None)
            worker.sendall(asked)
            while data := worker.recv(65536):
                connection.sendall(data)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="marker.py")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--registry", type=Path, required=True)
    parser.add_argument("--worker", type=int)
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--lingers", action="store_true")
    parser.add_argument("--list", default="")
    options = parser.parse_args()
    with contextlib.suppress(PermissionError):  # a worker that has to wait for a processor looks throttled
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    child = os.fork() if options.child else 0
    if child:  # the engine itself is a process of its own, as that of vLLM; when its parent goes nobody tells it
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        _, status = os.waitpid(child, 0)
        sys.exit(os.waitstatus_to_exitcode(status) and 1)

    def leave(*_: object) -> None:
        if options.worker is not None:
            (options.registry / str(options.worker)).unlink(missing_ok=True)
        if not options.lingers:
            os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    Marker(options.address, options.port, options.registry, options.worker, options.list).serve()


if __name__ == "__main__":
    main()
