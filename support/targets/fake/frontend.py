"""Frontends in memory: an OpenAI-compatible server that chooses workers, and moves what they do not finish."""

import asyncio
import itertools
import json
import time
import uuid
from typing import Any

from agents.sabotage import marks
from support import sabotage
from support.releases import Release
from support.targets.fake.hosts import Host
from support.targets.fake.members import INSTANCES, DynamoProcess
from support.targets.fake.network import WIRE_SECONDS, Connection
from support.targets.fake.streams import Call, Work
from support.targets.fake.worker import Worker

CONNECT_SECONDS, AVOID_SECONDS, NOBODY_SECONDS, NATS_SECONDS = 1.0, 5.0, 3.0, 10.0
FINISH_SECONDS = 30.0
RETRY_SECONDS = 0.1
SLOT = "TOKEN"
"""Where a token stands in what is the same for all tokens of an answer."""
LIES = ("takes-turns",)
"""``FT_SABOTAGE=router=KIND``: who has most to do is given as much as others."""


class _Refused(Exception):
    """Attributes: ``status``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Exchange:
    """A client's request, and what it has been sent."""

    def __init__(self, connection: Connection, path: str, body: dict[str, Any], model: str) -> None:
        self.connection, self.body, self.model = connection, body, model
        self.chat = path.endswith("chat/completions")
        self.stream = bool(body.get("stream"))
        self.choices = int(body.get("n", 1))
        self.request_id = str(uuid.uuid4())
        self.tokens: list[list[str]] = [[] for _ in range(self.choices)]
        self.written = 0
        self.finished: dict[int, str] = {}
        self.created = int(time.time())
        self.headers_sent = False
        self._pieces: dict[tuple[int, str | None], tuple[str, str]] = {}

    @property
    def prompt(self) -> int:
        """Tokens of the prompt, each word one; a chat has two around each message and before the answer."""
        if not self.chat:
            return len(str(self.body["prompt"]).split())
        return sum(2 + len(str(each["content"]).split()) for each in self.body["messages"]) + 2

    @property
    def budget(self) -> int:
        return int(self.body["max_tokens"])

    @property
    def kind(self) -> dict[str, str]:
        """Labels that the frontend counts it under."""
        endpoint = "chat_completions" if self.chat else "completions"
        return {"endpoint": endpoint, "request_type": "stream" if self.stream else "unary", "model": self.model}

    def take(self, choice: int, token: str, last: bool) -> None:
        """A token from a worker."""
        if choice == 0:
            self.written += 1
        if token:
            self.tokens[choice].append(token)
        reason = "length" if last else None
        if last:
            self.finished[choice] = "length"
        if self.stream:
            self._event(self._piece(choice, token, reason))

    def _piece(self, choice: int, token: str, reason: str | None) -> str:
        if (choice, reason) not in self._pieces:
            text = {"delta": {"role": "assistant", "content": SLOT}} if self.chat else {"text": SLOT}
            content = self._document(
                [{"index": choice, **text, "finish_reason": reason}], ".chunk" if self.chat else ""
            )
            begin, _, end = json.dumps(content).partition(SLOT)
            self._pieces[choice, reason] = begin, end
        begin, end = self._pieces[choice, reason]
        return f"{begin}{token}{end}"

    def _document(self, choices: list[dict[str, Any]], suffix: str = "") -> dict[str, Any]:
        head = "chatcmpl-" if self.chat else "cmpl-"
        named = {"id": head + self.request_id, "created": self.created, "model": self.model}
        return {**named, "choices": choices, "object": ("chat.completion" if self.chat else "text_completion") + suffix}

    def _event(self, content: dict[str, Any] | str) -> None:
        if not self.headers_sent:
            self.headers_sent = True
            head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            self.connection.send(head.encode())
        text = content if isinstance(content, str) else json.dumps(content)
        frame = f"data: {text}\n\n".encode()
        self.connection.send(b"%x\r\n%b\r\n" % (len(frame), frame))

    def _usage(self) -> dict[str, int]:
        completion = self.choices * self.written
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": completion,
            "total_tokens": self.prompt + completion,
        }

    def complete(self) -> None:
        """The end of a whole answer."""
        if self.stream:
            if (self.body.get("stream_options") or {}).get("include_usage"):
                suffix = ".chunk" if self.chat else ""
                self._event(self._document([], suffix) | {"usage": self._usage()})
            self._event("[DONE]")
            self.connection.send(b"0\r\n\r\n")
            return
        choices = []
        for index, tokens in enumerate(self.tokens):
            text = "".join(tokens)
            part: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
            choices.append({"index": index, **part, "finish_reason": self.finished.get(index)})
        self.whole(200, self._document(choices) | {"usage": self._usage()})

    def fail(self, status: int, message: str) -> None:
        """An error that says what is wrong."""
        error = {"error": {"message": message, "type": "server_error" if status >= 500 else "invalid", "code": status}}
        if self.stream and self.headers_sent:
            self._event(error)
            self.connection.send(b"0\r\n\r\n")
        else:
            self.whole(status, error)

    def whole(self, status: int, content: dict[str, Any]) -> None:
        """An answer in one piece."""
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.connection.send(head.encode() + body)


class Frontend(DynamoProcess):
    """A frontend; it knows the workers that etcd has told it of last."""

    def __init__(self, host: Host, *of_all: Any, release: Release, model: str) -> None:
        super().__init__(host, *of_all)
        self._release, self._model = release, model
        self._model_label = {"model": model}
        self._known: dict[str, Worker] = {}
        self._avoided: dict[Worker, float] = {}
        self._turns = itertools.count()
        self._busy_percent: float | None = None
        self._connections: dict[Connection, _Exchange | None] = {}
        self._calls: dict[_Exchange, Call] = {}

    # -- what it knows

    def begin(self) -> None:
        """See :class:`support.targets.fake.hosts.FakeProgram`."""
        super().begin()
        for name in ("frontend_requests", "frontend_inflight", "frontend_queued", "frontend_migrations"):
            self.counts.add(self.names[name], 0, self._model_label)
        self.network.watchers.append(self._sync)
        self._sync()

    def _sync(self) -> None:
        if self.answering and self.cluster.member_of(self.name) is not None:
            self._known = self.cluster.registered(INSTANCES)

    def end(self) -> None:
        """See :class:`support.targets.fake.hosts.FakeProgram`."""
        super().end()
        if self._sync in self.network.watchers:
            self.network.watchers.remove(self._sync)
        for call in list(self._calls.values()):
            call.cancel()
        for connection in list(self._connections):
            connection.lose(ConnectionResetError(104, "Connection reset by peer"))

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """See :class:`support.targets.fake.hosts.FakeProgram`."""
        self._sync()
        if path == "/v1/models":
            served = [{"id": self._model}] if self._of("backend") else []
            return {"object": "list", "data": served}
        if path == "/health":
            listed = [
                {
                    "component": worker.component,
                    "endpoint": "generate",
                    "instance_id": worker.instance,
                    "transport": {"tcp": worker.host.node.endpoint},
                }
                for worker in self._known.values()
            ]
            return {"instances": listed}
        if path == "/busy_threshold":
            self._busy_percent = 100 * body["active_decode_blocks_threshold"]
            return body
        if path.endswith("completions"):
            return 400, {"error": {"message": "the body names no model", "type": "invalid", "code": 400}}
        return super().answer(method, path, body)

    def _of(self, component: str) -> list[Worker]:
        return [worker for worker in self._known.values() if worker.component == component]

    # -- requests

    def accept(self, connection: Connection) -> None:
        """See :class:`support.targets.fake.network.Server`."""
        self._connections[connection] = None
        read = bytearray()

        def on_data(data: bytes) -> None:
            read.extend(data)
            head, found, body = bytes(read).partition(b"\r\n\r\n")
            if found and len(body) == int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
                path = head.split(b" ", 2)[1].decode()
                exchange = _Exchange(connection, path, json.loads(body), self._model)
                self._connections[connection] = exchange
                self.do(self._serve(exchange))

        connection.read(on_data, lambda: self._lost(connection))

    def _lost(self, connection: Connection) -> None:
        exchange = self._connections.pop(connection, None)
        if exchange is not None and not self.gone:
            self.do(self._cancel(exchange))

    async def _cancel(self, exchange: _Exchange) -> None:
        await self.awake.wait()
        if (call := self._calls.get(exchange)) is not None:
            call.cancel()

    async def _serve(self, exchange: _Exchange) -> None:
        await self.awake.wait()
        inflight = self.names["frontend_inflight"]
        self.counts.add(self.names["frontend_requests"], 1, exchange.kind)
        self.counts.add(inflight, 1, self._model_label)
        self.took(1)
        try:
            self._check(exchange)
            await self._answer(exchange)
            if exchange.connection in self._connections:
                exchange.complete()
            elif "frontend_cancellations" in self.names:
                self.counts.add(self.names["frontend_cancellations"], 1, exchange.kind)
        except _Refused as refusal:
            exchange.fail(refusal.status, str(refusal))
        finally:
            if not self.gone:
                self._connections.pop(exchange.connection, None)
                self.counts.add(inflight, -1, self._model_label)
                self.took(-1)

    def _check(self, exchange: _Exchange) -> None:
        self._sync()
        room = self.shape.max_model_len
        if room is not None and exchange.prompt >= room:
            raise _Refused(400, f"the prompt has {exchange.prompt} tokens; there is room for {room}")
        workers = self._of("backend")
        if self._busy_percent is not None and workers and all(each.busy > self._busy_percent for each in workers):
            raise _Refused(self._release.overload_status, "all workers are busy, ask again later")

    async def _answer(self, exchange: _Exchange) -> None:
        if self.shape.disaggregated:
            await self._prefill(exchange)
        moves = 0
        while exchange.connection in self._connections:
            work = Work(
                exchange.request_id,
                exchange.prompt,
                exchange.written,
                exchange.budget - exchange.written,
                exchange.choices,
            )
            how = await self._attempt("backend", work, exchange)
            if how in ("finished", "cancelled"):
                return
            cap, length = self.shape.sequence_cap, exchange.prompt + exchange.written
            if exchange.choices > 1 or moves >= self.shape.migration_limit or (cap is not None and length > cap):
                raise _Refused(500, f"the worker was lost after {exchange.written} tokens, and it cannot be moved")
            moves += 1
            kind = "ongoing_request" if exchange.written else "new_request"
            self.counts.add(self.names["frontend_migrations"], 1, {"migration_type": kind, **self._model_label})

    async def _prefill(self, exchange: _Exchange) -> None:
        """Have the prompt read; where no prefill worker does, the decode worker has to."""
        work = Work(exchange.request_id, exchange.prompt, 0, 0, prefill=True)
        for _ in range(len(self._of("prefill"))):
            if await self._attempt("prefill", work, exchange) in ("finished", "cancelled"):
                return

    async def _attempt(self, component: str, work: Work, exchange: _Exchange) -> str:
        """Give the request to a worker, and see what becomes of it there."""
        worker = await self._find(component)
        call = self._calls[exchange] = Call(self, worker, work, exchange.take)
        if exchange.connection not in self._connections:
            call.over.set_result("cancelled")
            return "cancelled"
        worker.take(call)
        how = await self._watch(call)
        del self._calls[exchange]
        if how in ("broken", "silent"):
            self._avoided[worker] = self.now + AVOID_SECONDS
        return how

    async def _watch(self, call: Call) -> str:
        patience = self.shape.stream_timeout_seconds
        while True:
            left = None if patience is None else max(0.0, call.heard_at + patience - self.now)
            done, _ = await asyncio.wait({call.over}, timeout=left)
            await self.awake.wait()
            if done:
                return call.over.result()
            if patience is not None and self.now >= call.heard_at + patience:
                call.cancel()
                return "silent"

    async def _find(self, component: str) -> Worker:
        """The next worker that takes a connection."""
        until = self.now + NOBODY_SECONDS
        while True:
            self._sync()
            workers = [each for each in self._of(component) if self._avoided.get(each, 0.0) <= self.now]
            workers = workers or self._of(component)
            for each in self._in_turn(workers):
                if await self._reaches(each):
                    return each
                self._avoided[each] = self.now + AVOID_SECONDS
            if self.now >= until:
                raise _Refused(503, "no worker can be reached")
            await self.rest(RETRY_SECONDS)

    def _in_turn(self, workers: list[Worker]) -> list[Worker]:
        """The workers in the order in which they are tried, as the router has it."""
        turn = next(self._turns)
        ordered = [workers[(turn + number) % len(workers)] for number in range(len(workers))]
        if self.shape.router_mode != "least-loaded":
            return ordered
        if sabotage.asked() == ("router", LIES[0]):
            marks.leave("the router takes turns")
            return ordered
        given = [call.worker for call in self._calls.values()]
        return sorted(ordered, key=given.count)

    async def _reaches(self, worker: Worker) -> bool:
        await self.rest(WIRE_SECONDS)
        if self.shape.request_plane == "nats":
            return await self._reaches_by_nats(worker)
        to, back = (self.network.blocked(*way) for way in ((self.name, worker.name), (worker.name, self.name)))
        if "drop" in (to, back):
            await self.rest(CONNECT_SECONDS)
            return self.network.talk(self.name, worker.name) and worker.listening
        return not to and not back and worker.listening

    async def _reaches_by_nats(self, worker: Worker) -> bool:
        until = self.now + NATS_SECONDS
        nats = [(name, server) for (name, server) in self.nats() if server.listening and server.answering]
        while not nats or not all(self.network.talk(each, nats[0][0]) for each in (self.name, worker.name)):
            if self.now >= until or not worker.listening:
                return False
            await self.rest(RETRY_SECONDS)
            nats = [(name, server) for (name, server) in self.nats() if server.listening and server.answering]
        # The worker connects back to say its tokens.
        return worker.listening and self.network.blocked(worker.name, self.name) != "drop"

    def nats(self) -> list[tuple[str, Any]]:
        """The NATS servers of the deployment."""
        servers: list[Any] = list(self.network.servers.values())
        return [(server.name, server) for server in servers if getattr(server, "is_nats", False)]

    # -- leaving

    async def finish(self) -> None:
        """Take no more requests and see those through that it has."""
        self.listening = False
        await self.idle_within(FINISH_SECONDS)
