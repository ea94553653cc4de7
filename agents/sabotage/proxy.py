"""A deliberately bad neighbour between clients and a real frontend: the suite's proof that its scenarios can fail.

Usage: ``python -m agents.sabotage.proxy --listen HOST:PORT --upstream URL --kind KIND``. It passes everything on
unharmed except for the one thing that its kind spoils, see :data:`KINDS`. Started by the local target under
``FT_SABOTAGE=proxy=KIND``, never otherwise.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any, TypeVar

import aiohttp
from aiohttp import web

from agents.sabotage import marks

T = TypeVar("T")

KINDS = {
    "cancel-not-passed-on": "a client that gives up goes unnoticed: the request runs on to its end",
    "cancels-another": "for each answer one more request is sent and given up",
    "drops-token": "one token in the middle of an answer is lost",
    "repeats-token": "one token in the middle of an answer comes twice",
    "swallows-finish": "no answer has a finish reason",
    "truncates": "an answer ends in its middle as if it were whole",
    "two-ends": "a stream says [DONE] twice",
    "hides-errors": "an error comes as an empty answer with status 200",
    "comments-errors": "an error in a stream is an event without data, its reason a comment, as in Dynamo 1.0 and 1.1",
    "empties-later": "every answer but the first is empty and says that it is whole",
    "stalls": "an answer pauses for six seconds in its middle",
    "overcharges": "usage names one prompt token too many",
    "refuses-later": "every request but the first is rejected",
    "slows-later": "requests that come later than some seconds after the first are passed on late, by little more than "
    "the first tokens were apart until then",
    "mistakes-overload": "a rejection says that the server has failed, not that it is busy",
}
VICTIM, STALL_SECONDS = 15, 6.0
OF_A_TOKEN = ("drops-token", "repeats-token", "stalls", "truncates")
"""What spoils the :data:`VICTIM` of each stream."""
# After the STANDARD of a scenario. Its band ends one step, that from the median to the slow first tokens, above the
# median: half of the requests must not be later than that. The client sees steps of up to twice the length that is seen
# from here, for its own way to the proxy is on top.
LATER_SECONDS, LATE_STEPS = 7.5, 3.0
# A step is 20 ms or more (RESOLUTION_MS of the judge).
LEAST_LATE_SECONDS = 0.03
# As long as it lasts in every scenario that speaks of its band.
STANDARD_SECONDS = 6.0


class Proxy:
    """One upstream, one kind of sabotage."""

    def __init__(self, upstream: str, kind: str) -> None:
        self.upstream, self.kind = upstream, kind
        self.requests = itertools.count(1)
        self.first_at: float | None = None
        self.first_tokens: list[float] = []
        self.late_seconds: float | None = None
        self.background: set[asyncio.Task[Any]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass one request on, spoiled."""
        if self.kind != "cancel-not-passed-on":
            return await self._pass_on(request)
        under_way = self._in_background(self._pass_on(request))
        try:
            return await asyncio.shield(under_way)
        except asyncio.CancelledError:
            self._spoils("a client has given up, and its request runs on")
            raise

    def _spoils(self, what: str) -> None:
        marks.leave(f"{self.kind}: {what}")

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        async with aiohttp.ClientSession() as session:
            if request.method == "GET":
                async with session.get(self.upstream + request.path_qs) as answer:
                    return web.Response(
                        body=await answer.read(), status=answer.status, content_type=answer.content_type
                    )
            # The target asks with an empty body whether the API is switched on; that is not a request.
            number = next(self.requests) if b'"model"' in body else 0
            if self.kind == "refuses-later" and number > 1:
                self._spoils(f"request {number}")
                return web.json_response({"message": "rejected by sabotage", "code": 503}, status=503)
            if self.kind == "empties-later" and number > 1:
                self._spoils(f"request {number}")
                return _empty(json.loads(body), chat="chat" in request.path)
            began = time.monotonic()
            self.first_at = self.first_at or began
            if self.kind == "slows-later" and began > self.first_at + LATER_SECONDS:
                self._spoils(f"request {number}")
                await asyncio.sleep(self._late())
            if self.kind == "cancels-another":
                self._spoils(f"beside request {number}")
                self._in_background(self._send_and_leave(request.path, body))
            async with session.post(
                self.upstream + request.path, data=body, headers={"Content-Type": "application/json"}
            ) as answer:
                if answer.content_type == "text/event-stream":
                    return await self._stream(request, answer, began)
                content = self._spoil_body(await answer.json())
                if self.kind in ("drops-token", "truncates") and _cut(content):
                    self._spoils("the last word of a body")
                status = answer.status
                if self.kind == "hides-errors" and status != 200:
                    self._spoils(f"status {status}")
                    status = 200
                if self.kind == "mistakes-overload" and status in (503, 529):
                    self._spoils(f"status {status}")
                    status = 500
                return web.json_response(content, status=status)

    def _late(self) -> float:
        """Seconds, settled when the first request is to be late and said in the proxy's log."""
        if self.late_seconds is None:
            step = max(self.first_tokens) - statistics.median(self.first_tokens)
            self.late_seconds = max(LATE_STEPS * step, LEAST_LATE_SECONDS)
            print(f"requests are late by {1000 * self.late_seconds:.0f} ms from now on", flush=True)
        return self.late_seconds

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)
        return task

    async def _send_and_leave(self, path: str, body: bytes) -> None:
        content = json.loads(body) | {"stream": True, "max_tokens": 2000}
        async with aiohttp.ClientSession() as session, session.post(self.upstream + path, json=content) as answer:
            await answer.content.readline()

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse, began: float) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": "text/event-stream"})
        there = await self._reached(response.prepare(request))
        first = True
        async for event in self._spoil(answer):
            if first and time.monotonic() < (self.first_at or 0.0) + STANDARD_SECONDS:
                self.first_tokens.append(time.monotonic() - began)
            first = False
            there = there and await self._reached(response.write(event))
        return response

    async def _reached(self, sending: Awaitable[Any]) -> bool:
        """Whether the client is there to get it; one that has left ends the request, unless that is not passed on."""
        try:
            await sending
        except (ConnectionError, aiohttp.ClientError):
            if self.kind != "cancel-not-passed-on":
                raise
            return False
        return True

    async def _spoil(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        tokens = 0
        async for line in answer.content:
            event = line + b"\n" if line.startswith(b"data:") else b""
            if not event:
                continue
            if b"[DONE]" in event:
                yield event
                if self.kind == "two-ends":
                    self._spoils("a stream")
                    yield event
                return
            content = json.loads(line.removeprefix(b"data:"))
            if "error" in content and self.kind == "hides-errors":
                self._spoils("an event")
                continue
            if "error" in content and self.kind == "comments-errors":
                self._spoils("an event")
                yield b"event: error\n: gone by sabotage\n\n"
                continue
            tokens += bool(_text(content))
            if tokens == VICTIM and _text(content):
                if self.kind in OF_A_TOKEN:
                    self._spoils(f"token {VICTIM} of a stream")
                if self.kind == "drops-token":
                    continue
                if self.kind == "repeats-token":
                    yield event
                if self.kind == "stalls":
                    await asyncio.sleep(STALL_SECONDS)
                if self.kind == "truncates":
                    yield b"data: [DONE]\n\n"
                    return
            yield b"data: " + json.dumps(self._spoil_body(content)).encode() + b"\n\n"

    def _spoil_body(self, content: dict[str, Any]) -> dict[str, Any]:
        if self.kind == "swallows-finish":
            reasons = [choice.pop("finish_reason", None) for choice in content.get("choices", [])]
            if any(reasons):
                self._spoils(", ".join(map(str, reasons)))
        if self.kind == "overcharges" and content.get("usage"):
            self._spoils("a bill")
            content["usage"]["prompt_tokens"] += 1
        return content


def _empty(asked: dict[str, Any], chat: bool) -> web.Response:
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    whole = {"id": "cmpl-sabotage", "created": 1, "model": asked["model"], "choices": [choice]}
    if asked["stream"]:
        choice |= {"delta": {"content": ""}} if chat else {"text": ""}
        return web.Response(text=f"data: {json.dumps(whole)}\n\ndata: [DONE]\n\n", content_type="text/event-stream")
    choice |= {"message": {"role": "assistant", "content": ""}} if chat else {"text": ""}
    return web.json_response(whole)


def _text(content: dict[str, Any]) -> str:
    """The text of an event or body, wherever the API puts it."""
    choices = content.get("choices") or [{}]
    delta = choices[0].get("delta") or choices[0].get("message") or choices[0]
    return delta.get("content") or delta.get("text") or ""


def _cut(content: dict[str, Any]) -> bool:
    """Take the last word off a whole answer; returns whether there is one."""
    for choice in content.get("choices", []):
        place, name = (choice["message"], "content") if "message" in choice else (choice, "text")
        place[name] = " ".join(place[name].split()[:-1])
    return bool(content.get("choices"))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m agents.sabotage.proxy")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--upstream", required=True, metavar="URL")
    parser.add_argument("--kind", choices=sorted(KINDS), required=True)
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    app = web.Application()
    proxy = Proxy(options.upstream, options.kind)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    # As a real server does when its client leaves.
    web.run_app(app, host=host, port=int(port), print=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
