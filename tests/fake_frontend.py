"""A small OpenAI-compatible server on loopback, for tests of clients that need no Dynamo."""

import asyncio
import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Any


def _chunk(content: Any) -> bytes:
    text = f"data: {content if isinstance(content, str) else json.dumps(content)}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(text), text)


@dataclass
class FakeFrontend:
    """Serves model ``m``; how it answers can be changed while it runs.

    Attributes:
        pause: seconds before each token, or before an answer in one piece.
        refuse: HTTP status of the next requests; 0: answer them.
        refusals: how many more requests are refused; ``says``: with this plain text, or None for an error in JSON.
        cut: close the connection after so many tokens; None: never.
        raw: bytes of every answer, status line included, after which the connection is closed; empty: as above.
        reset: close it with a reset.
        bodies: what was asked for, in the order of arrival.
    """

    pause: float = 0.0
    refuse: int = 0
    refusals: int = 0
    says: str | None = None
    cut: int | None = None
    raw: bytes = b""
    reset: bool = False
    bodies: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self._open = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serve = asyncio.start_server(self._handle, "127.0.0.1", 0, backlog=500)
        self._server = asyncio.run_coroutine_threadsafe(serve, self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Stop serving."""

        async def end() -> None:
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if head.startswith("GET /v1/models"):
                self._whole(writer, "200 OK", {"data": [{"id": "m"}]})
            else:
                length = int(head.lower().partition("content-length:")[2].partition("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                self.bodies.append(body | {"path": head.split()[1]})
                self._open += 1
                self.most_at_once = max(self.most_at_once, self._open)
                try:
                    await self._answer(writer, body)
                finally:
                    self._open -= 1
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @staticmethod
    def _whole(writer: asyncio.StreamWriter, status: str, content: Any) -> None:
        data = json.dumps(content).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)

    async def _answer(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        if self.raw:
            writer.write(self.raw)
            await writer.drain()
            if self.reset:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                # A reset throws away what the client has not read yet.
                await asyncio.sleep(0.05)
            return
        if self.refuse and self.refusals > 0:
            self.refusals -= 1
            if self.says is not None:
                head = f"HTTP/1.1 {self.refuse} Busy\r\ncontent-length: {len(self.says)}\r\n\r\n"
                writer.write(head.encode() + self.says.encode())
                return
            self._whole(writer, f"{self.refuse} Busy", {"error": {"message": "busy"}})
            return
        identity = {"id": "cmpl-1", "created": 1, "model": "m", "object": "text_completion"}
        number = body["max_tokens"]
        if not body["stream"]:
            await asyncio.sleep(self.pause)
            text = " ".join(["w"] * number)
            usage = {"prompt_tokens": 1, "completion_tokens": number, "total_tokens": number + 1}
            choice = {"index": 0, "text": text, "finish_reason": "length"}
            self._whole(writer, "200 OK", identity | {"choices": [choice], "usage": usage})
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for index in range(number):
            if self.cut is not None and index >= self.cut:
                return
            if self.pause:
                await asyncio.sleep(self.pause)
            reason = "length" if index == number - 1 else None
            choice = {"index": 0, "text": f" w{index}", "finish_reason": reason}
            writer.write(_chunk(identity | {"choices": [choice]}))
            await writer.drain()
        writer.write(_chunk("[DONE]") + b"0\r\n\r\n")
