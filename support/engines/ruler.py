"""The ruler engine: a Dynamo worker whose token at absolute position *p* is the word ``p<p>``, whatever came before.

A client can then tell a lost, repeated, reordered or invented token to the position, across migrations too: the second
worker is sent prompt + delivered tokens and must go on at exactly that length.

It runs in the environment of the Dynamo release under test and is set up by environment variables:

``RULER_MODEL``                model name, as the other workers are given it
``RULER_FIRST_ID``             token id of the word ``p0``
``RULER_TOKENS_PER_SECOND``    speed of one stream
``RULER_PREFILL_SECONDS``      time before the first token
``RULER_JOURNAL``              file that gets one JSON line for each request received and each request left
``RULER_GATE``                 ``ADDRESS:PORT`` where the gate is worked, see :class:`Gate`
``RULER_LEAVING``              how it leaves when it is shut down, one of :data:`LEAVINGS`
``RULER_SABOTAGE``             deliberate defect for the suite's own tests, see :data:`SABOTAGES`; empty: none
``RULER_MARKS``                file that gets one JSON line each time that the defect shows; empty: none
"""

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

import dynamo.llm
import dynamo.llm.exceptions
from dynamo.common.utils.graceful_shutdown import install_signal_handlers
from dynamo.llm import ModelInput, ModelType, register_model
from dynamo.runtime import DistributedRuntime, dynamo_worker

SABOTAGES = (
    "forgets-position",
    "repeats-token",
    "drops-token",
    "swallows-finish",
    "invents-token",
    "dies-at-shutdown",
    "ignores-shutdown",
    "stays-after-shutdown",
)
MOVED = ("forgets-position", "repeats-token", "drops-token", "invents-token")
"""Those of them that show in an answer which another worker has begun."""
LEAVINGS = ("draining", "handing-over")
"""``draining``: finish what is in flight, as dynamo.mocker does, for as long as the runtime's own deadline allows.
``handing-over``: as the release's workers for vllm, sglang and trtllm do: leave the list, go on for a grace period,
then give up what is in flight, for another worker to go on with.
"""

FIRST_ID = int(os.environ["RULER_FIRST_ID"])
PERIOD = 1 / float(os.environ["RULER_TOKENS_PER_SECOND"])
PREFILL = float(os.environ.get("RULER_PREFILL_SECONDS", "0"))
# What the release's own workers raise then: GeneratorExit in 1.0.
EngineShutdown: type[BaseException] = getattr(dynamo.llm.exceptions, "EngineShutdown", GeneratorExit)
LEAVING = os.environ.get("RULER_LEAVING", "draining")
SABOTAGE = os.environ.get("RULER_SABOTAGE", "")
# Short against the time of a token.
GATE_LOOK_SECONDS = 0.002
giving_up = asyncio.Event()
"""Set by the release's own shutdown sequence once its grace period is over."""


def write_journal(**line: Any) -> None:
    """Append one line; opened per line so that a SIGKILL loses nothing that was written."""
    with open(os.environ["RULER_JOURNAL"], "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"at": time.monotonic(), **line}) + "\n")


def leave_mark() -> None:
    """Say that the deliberate defect shows now."""
    if file := os.environ.get("RULER_MARKS"):
        with open(file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"at": time.time(), "what": f"a ruler worker {SABOTAGE}"}) + "\n")


def positions(token_ids: list[int], budget: int) -> list[int]:
    """Positions to write for a request that brings ``token_ids`` and may have ``budget`` tokens more."""
    start = len(token_ids)
    migrated = any(token >= FIRST_ID for token in token_ids)
    if migrated and SABOTAGE in MOVED:
        leave_mark()
    if migrated and SABOTAGE == "forgets-position":
        start = sum(token < FIRST_ID for token in token_ids)
    if migrated and SABOTAGE == "repeats-token":
        start -= 1
    if migrated and SABOTAGE == "drops-token":
        start += 1
    found = list(range(start, start + budget))
    if migrated and SABOTAGE == "invents-token":
        found[0] = 0
    return found


class Gate:
    """Holds answers at a token until it is opened, so that a fault strikes mid-answer however slow the machine is.

    ``PUT /gate`` with ``{"holds": {"200": 180}, "seconds": 60}`` holds every answer of 200 tokens once 180 are written,
    for 60 s at most; after the last token it holds the end of the stream. ``DELETE /gate`` lets all go on. Tokens that
    a worker before this one has written count, so an answer that is moved is held at the same token. Each hold is in
    the journal.
    """

    def __init__(self) -> None:
        self.holds: dict[int, int] = {}
        self.expires_at = 0.0

    def close(self, holds: dict[str, int], seconds: float) -> None:
        """Hold answers from now on, in the place of what was held before."""
        self.expires_at = time.monotonic() + seconds
        self.holds = {int(tokens): int(at) for tokens, at in holds.items()}

    def open(self) -> None:
        """Let all answers go on."""
        self.holds = {}

    def holds_back(self, tokens: int, written: int) -> bool:
        """Whether an answer of ``tokens`` tokens has to wait now that ``written`` of them are there."""
        return written >= self.holds.get(tokens, tokens + 1) and time.monotonic() < self.expires_at

    async def pass_through(self, tokens: int, written: int, context: Any) -> None:
        """Wait while the answer is held, or until its client or the worker itself has given up."""
        if not self.holds_back(tokens, written):
            return
        write_journal(event="held", request_id=context.id(), written=written)
        while self.holds_back(tokens, written) and not (
            context.is_stopped() or context.is_killed() or giving_up.is_set()
        ):
            await asyncio.sleep(GATE_LOOK_SECONDS)
        expired = bool(self.holds) and time.monotonic() >= self.expires_at
        write_journal(event="released", request_id=context.id(), expired=expired)

    def serve(self, address: str) -> None:
        """Be worked over HTTP at ``ADDRESS:PORT``, in a thread of its own."""
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                gate.close(body["holds"], body["seconds"])
                self.answer()

            def do_DELETE(self) -> None:
                gate.open()
                self.answer()

            def answer(self) -> None:
                said = json.dumps({"holds": gate.holds}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: Any) -> None:
                """The journal says what was held; a line per order says nothing more."""

        class Server(ThreadingTCPServer):
            """http.server's own asks for the name of its address first, which takes 10 s where no name server is."""

            allow_reuse_address = daemon_threads = True

        host, _, port = address.rpartition(":")
        server = Server((host, int(port)), Handler)
        threading.Thread(target=server.serve_forever, name="gate", daemon=True).start()


GATE = Gate()


async def generate(request: dict[str, Any], context: Any) -> AsyncIterator[dict[str, Any]]:
    """Answer one request; journals what was asked and how it ended."""
    token_ids, budget = request["token_ids"], request["stop_conditions"]["max_tokens"]
    write_journal(event="received", request_id=context.id(), start=len(token_ids), max_tokens=budget)
    written = sum(token >= FIRST_ID for token in token_ids)
    tokens, produced, outcome = written + budget, 0, "abandoned"
    try:
        if budget < 1:
            outcome = "refused"
            raise ValueError(f"max_tokens must be at least 1, got {budget}")  # as vLLM does, in those words
        due = time.monotonic() + PREFILL
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(giving_up.wait(), PREFILL)
        for position in positions(token_ids, budget):
            await GATE.pass_through(tokens, written + produced, context)
            if context.is_stopped() or context.is_killed():
                outcome = "stopped"
                return
            if giving_up.is_set():
                outcome = "given up"
                raise EngineShutdown("Engine was shut down during generation.")
            answer: dict[str, Any] = {"token_ids": [FIRST_ID + position]}
            produced += 1
            if produced == budget and SABOTAGE == "swallows-finish":
                leave_mark()
            elif produced == budget:
                answer["finish_reason"] = "length"
            yield answer
            # A late token is made up for at once, a whole pause never: no more than a GPU catches up after one.
            due = max(due + PERIOD, time.monotonic() - PERIOD)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await GATE.pass_through(tokens, written + produced, context)
        outcome = "finished"
    finally:
        write_journal(event="left", request_id=context.id(), produced=produced, outcome=outcome)


def die() -> None:
    """End as a process does that knows nothing of SIGTERM."""
    leave_mark()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)


def prepare_to_leave(runtime: DistributedRuntime, endpoint: Any) -> None:
    """Have SIGTERM end this worker in good order; :func:`dynamo_worker` leaves it to kill the process."""
    loop = asyncio.get_running_loop()
    if SABOTAGE == "dies-at-shutdown":
        loop.add_signal_handler(signal.SIGTERM, die)
    elif SABOTAGE == "ignores-shutdown":
        loop.add_signal_handler(signal.SIGTERM, leave_mark)
    elif LEAVING == "handing-over":
        install_signal_handlers(loop, runtime, [endpoint], giving_up)
    else:
        loop.add_signal_handler(signal.SIGTERM, runtime.shutdown)


@dynamo_worker()
async def main(runtime: DistributedRuntime) -> None:
    """Register the model and serve until told to stop."""
    GATE.serve(os.environ["RULER_GATE"])
    endpoint = runtime.endpoint("dynamo.backend.generate")
    # WorkerType came between 1.2 and 1.3 and is required since.
    worker_type = {"worker_type": dynamo.llm.WorkerType.Aggregated} if hasattr(dynamo.llm, "WorkerType") else {}
    prepare_to_leave(runtime, endpoint)
    kinds = ModelType.Chat | ModelType.Completions
    await register_model(ModelInput.Tokens, kinds, endpoint, os.environ["RULER_MODEL"], **worker_type)
    await endpoint.serve_endpoint(generate, graceful_shutdown=True)
    if SABOTAGE == "stays-after-shutdown":
        leave_mark()
        await asyncio.Event().wait()


if __name__ == "__main__":
    if SABOTAGE and SABOTAGE not in SABOTAGES:
        raise SystemExit(f"RULER_SABOTAGE is {SABOTAGE!r}; expected one of {', '.join(SABOTAGES)}")
    if LEAVING not in LEAVINGS:
        raise SystemExit(f"RULER_LEAVING is {LEAVING!r}; expected one of {', '.join(LEAVINGS)}")
    asyncio.run(main())
