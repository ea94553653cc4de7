"""A port of this machine that leads to a pod, through the API server (``pods/portforward``).

A process of its own, so that it costs the clients whose times are taken none of their time. It reads one line of JSON
(how the cluster is reached, which pods may answer at which port), says the port that it listens on, and ends with its
standard input. A client's end, a close or a reset, closes the pod's connection; a reset arrives there as a close.
"""

import asyncio
import json
import ssl
import sys
from functools import partial
from typing import Any

import aiohttp

from agents.core.kernel import die_with_parent
from support.priority import take_right_of_way

PROTOCOL = "v4.channel.k8s.io"
"""Each message begins with the number of its channel: 0 for data, 1 for what went wrong; the first of each names the
port.
"""
DATA, ERROR = 0, 1
PIECE_BYTES = 64 * 1024
# The other side reads that we close at once; whether it says so as well is nobody's concern.
FAREWELL = aiohttp.ClientWSTimeout(ws_close=0.1)


async def _dial(session: aiohttp.ClientSession, told: dict[str, Any]) -> aiohttp.ClientWebSocketResponse | None:
    """A connection to the first pod that takes one."""
    for pod in told["pods"]:
        url = f"{told['host']}/api/v1/namespaces/{told['namespace']}/pods/{pod}/portforward?ports={told['port']}"
        try:
            return await session.ws_connect(url, protocols=(PROTOCOL,), max_msg_size=0, timeout=FAREWELL)
        except aiohttp.ClientError as error:
            print(f"{pod}: {error}", file=sys.stderr, flush=True)
    return None


async def _up(reader: asyncio.StreamReader, there: aiohttp.ClientWebSocketResponse) -> None:
    try:
        while data := await reader.read(PIECE_BYTES):
            await there.send_bytes(bytes([DATA]) + data)
    except (ConnectionError, aiohttp.ClientError):
        pass
    finally:
        await there.close()


async def _down(there: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    named = set()
    async for message in there:
        if message.type != aiohttp.WSMsgType.BINARY:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel not in named:
            named.add(channel)
        elif channel == DATA:
            writer.write(data)
            await writer.drain()
        elif channel == ERROR and data:
            print(data.decode("utf-8", "replace").strip(), file=sys.stderr, flush=True)
            writer.transport.abort()
            return


async def _carry(
    session: aiohttp.ClientSession,
    told: dict[str, Any],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    there = await _dial(session, told)
    if there is None:
        writer.transport.abort()
        return
    up = asyncio.create_task(_up(reader, there))
    try:
        await _down(there, writer)
    except ConnectionError:
        pass
    finally:
        writer.close()
        up.cancel()
        await there.close()


async def _serve(told: dict[str, Any]) -> None:
    context = ssl.create_default_context(cafile=told["authority"])
    if not told["verify"]:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if told["certificate"]:
        context.load_cert_chain(told["certificate"], told["key"])
    headers = {"Authorization": told["token"]} if told["token"] else {}
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        server = await asyncio.start_server(partial(_carry, session, told), "127.0.0.1", 0, backlog=512)
        async with server:
            print(server.sockets[0].getsockname()[1], flush=True)
            await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Serve until standard input ends."""
    die_with_parent()
    take_right_of_way()  # else a client that closes is heard of late, and its answer comes late
    told = json.loads(sys.stdin.readline())
    try:
        asyncio.run(_serve(told))
    except OSError as error:
        print(f"the tunnel cannot begin: {error}", flush=True)


if __name__ == "__main__":
    main()
