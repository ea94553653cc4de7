"""What the streaming reader costs, how late it reads, and how fast a cancel is.

Run it as ``python -m tests.bench.bench_client``; exits 1 where a bound is broken, which other load on the machine can
do as well. The server is a process of its own and writes each token with the time at which it was sent.
"""

import asyncio
import contextlib
import json
import multiprocessing
import os
import statistics
import sys
import time
from multiprocessing.connection import Connection

from support.clock import now
from support.requests.client import start_request
from support.requests.ledger import Ledger

TOKENS_PER_SECOND = 200
LOADS = ((1, 400), (20, 1000), (100, 400))  # streams, tokens of each
CANCELS = 50
BOUND_CPU = 100e-6  # CPU-seconds per token with 20 streams
BOUND_LATE = 0.050  # seconds from sending to reading, 99th percentile with 20 streams
BOUND_CANCEL = 0.020  # seconds from cancel() to the end seen by the server, worst


def chunk(content: str) -> bytes:
    """One event as a chunk of a chunked body."""
    data = f"data: {content}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: Connection) -> None:
    """Answer as Dynamo's frontend does, at TOKENS_PER_SECOND; report when the client goes away."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    max_tokens = json.loads(await reader.readexactly(length))["max_tokens"]
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    async def produce() -> None:
        begin = now()
        for position in range(max_tokens):
            choice = {"text": f" p{position}", "index": 0, "finish_reason": None}
            content = {"id": str(now()), "choices": [choice], "created": 1, "model": "m", "object": "text_completion"}
            writer.write(chunk(json.dumps(content)))
            await asyncio.sleep(max(0.0, begin + (position + 1) / TOKENS_PER_SECOND - now()))
        writer.write(chunk("[DONE]") + b"0\r\n\r\n")

    producer = asyncio.create_task(produce())
    with contextlib.suppress(ConnectionResetError):
        await reader.read()
    ends.send(now())
    producer.cancel()
    writer.close()


def serve(ports: Connection, ends: Connection) -> None:
    """Serve until killed."""

    async def run() -> None:
        server = await asyncio.start_server(lambda r, w: handle(r, w, ends), "127.0.0.1", 0, backlog=1000)
        ports.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def main() -> int:
    """Print the figures; the exit status."""
    ports, give_port = multiprocessing.Pipe()
    ends, give_end = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(give_port, give_end), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ports.recv()}"
    broken = False
    print(f"{os.cpu_count()} cores, {TOKENS_PER_SECOND} tokens/s per stream")
    for streams, tokens in LOADS:
        ledger = Ledger()
        begin, cpu = now(), time.process_time()
        pending = [start_request(url, "m", "a", tokens, stream=True, ledger=ledger) for _ in range(streams)]
        entries = [each.join().entry for each in pending]
        seconds, cpu = now() - begin, time.process_time() - cpu
        total = sum(len(entry.tokens) for entry in entries)
        chunks = [chunk for entry in entries for chunk in entry.chunks]
        late = [chunk.at - float(chunk.completion_id) for chunk in chunks if chunk.completion_id]
        p99 = statistics.quantiles(late, n=100)[98]
        lag = max(entry.lag_seconds for entry in entries)
        print(
            f"{streams:4} streams: {total / seconds:6.0f} tokens/s, {cpu / total * 1e6:4.0f} us CPU per token,"
            f" read {statistics.median(late) * 1e3:.1f} ms after sending (p99 {p99 * 1e3:.1f}), lag {lag * 1e3:.1f} ms"
        )
        broken |= total != streams * tokens
        broken |= streams == 20 and (cpu / total > BOUND_CPU or p99 > BOUND_LATE)
        for _ in entries:
            ends.recv()
    for how in ("close", "reset"):
        delays = []
        for _ in range(CANCELS):
            one = start_request(url, "m", "a", 10_000, stream=True)
            one.wait_tokens(2, 5)
            begin = now()
            one.cancel(how)
            delays.append(ends.recv() - begin)
        print(f"cancel by {how}: seen after {statistics.median(delays) * 1e3:.2f} ms, worst {max(delays) * 1e3:.2f} ms")
        broken |= max(delays) > BOUND_CANCEL
    server.kill()
    print("a bound is broken" if broken else "all bounds kept")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
