"""Every lie leaves a mark when it is told, and none before."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agents.sabotage import injector, marks, proxy, signs
from agents.sabotage.injector import LyingDriver
from agents.sabotage.proxy import Proxy


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(marks.VARIABLE, str(tmp_path / "marks.jsonl"))
    return tmp_path / "marks.jsonl"


def left(file: Path) -> list[str]:
    return [json.loads(line)["what"] for line in file.read_text().splitlines()] if file.exists() else []


def test_who_is_not_asked_leaves_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(marks.VARIABLE)
    marks.leave("a lie")
    assert not file.exists()


# -- the injector


class Honest:
    """A driver that does what it is told."""

    kind = "process"

    def plan(self, body: dict[str, Any]) -> Any:
        return SimpleNamespace(targets=[body["target"]], undo={})

    async def apply(self, fault: Any) -> None:
        pass

    async def undo(self, fault: Any) -> None:
        pass

    def adopt(self, fault: Any) -> None:
        pass


async def end(*of_whom: Any, held: bool) -> None:
    pass


def lie(scratch: Path, kind: str, fault_type: str = "crash", roles: dict[str, str] | None = None, **body: Any) -> None:
    """All of a fault's life under an injector that lies, beside another fault."""
    real, undo = Honest(), {"node": "w-0", "identity": [1, 2], "lines": ["a", "b"], "consequence": "crash"}
    fault: Any = SimpleNamespace(type=fault_type, undo=undo, parameters={"percent": 40.0}, evidence={})
    other: Any = SimpleNamespace(type="hang", kind="process", undo={}, parameters={}, evidence={})
    agent: Any = SimpleNamespace(
        network=SimpleNamespace(roles=lambda: roles or {"w-0": "worker", "w-1": "worker"}),
        table=SimpleNamespace(signal=lambda *of_whom: None, end=end),
        book=SimpleNamespace(owed=lambda: [fault, other]),
        real={"process": real},
        scratch=scratch,
    )
    (scratch / signs.CUE).touch()

    async def live() -> None:
        driver = LyingDriver(real, kind, agent)  # type: ignore[arg-type]
        driver.plan({"target": "w-0"} | body)
        await driver.apply(fault)
        await driver.undo(fault)
        await asyncio.gather(*driver._tasks)

    asyncio.run(live())


OF_THE_AGENT = {"swallows-line", "spares-children", "cuts-one-family"}
"""Lies that are told below the drivers; the table of lies sees that they are told (tests/lies)."""
TYPES = {"starts-nothing": "restart", "kills-at-shutdown": "terminate"}


@pytest.mark.parametrize("kind", sorted(set(injector.KINDS) - OF_THE_AGENT))
def test_an_injector_that_lies(kind: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(injector, "DAWDLE_SECONDS", 0.0)
    lie(file.parent, kind, TYPES.get(kind, "crash"), direction="both")
    assert len(left(file)) == 1


def test_an_injector_that_finds_nothing_to_lie_about(file: Path) -> None:
    lie(file.parent, "kills-at-shutdown")
    lie(file.parent, "starts-nothing")
    lie(file.parent, "cuts-one-way", direction="to")
    lie(file.parent, "hits-another", roles={"w-0": "worker", "f-0": "frontend"})
    assert left(file) == []


def test_a_line_that_is_swallowed(file: Path) -> None:
    assert injector._swallow("NVRM: Xid 79")["text"] == "NVRM: Xid 79"
    assert left(file) == ["a line is swallowed"]


# -- the bad neighbour

WORDS = [f"w{number}" for number in range(20)]


def events(error: bool) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = [{"choices": [{"text": f" {word}"}]} for word in WORDS]
    if error:
        return [*told[:5], {"error": {"message": "gone"}}]
    return [*told, {"choices": [{"text": "", "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}]


async def upstream(request: web.Request) -> web.StreamResponse:
    asked = await request.json()
    if not asked["stream"]:
        whole = {"choices": [{"text": " ".join(WORDS), "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
        return web.json_response(whole, status=asked["status"])
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for event in events(asked["error"]):
        await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await asyncio.sleep(asked["pace"])
    await response.write(b"data: [DONE]\n\n")
    return response


async def ask(kind: str, *asked: dict[str, Any], leave_after: int | None = None) -> AsyncIterator[str]:
    """Send requests through the bad neighbour, one after the other; yields what came of each."""
    honest, bad = web.Application(), web.Application()
    honest.router.add_post("/v1/completions", upstream)
    async with TestServer(honest) as server:
        between = Proxy(str(server.make_url("")).rstrip("/"), kind)
        bad.router.add_route("*", "/{path:.*}", between.handle)
        async with TestServer(bad) as neighbour, aiohttp.ClientSession() as session:
            for each in asked:
                body = {"model": "m", "stream": True, "status": 200, "error": False, "pace": 0.0} | each
                async with session.post(neighbour.make_url("/v1/completions"), json=body) as answer:
                    if leave_after is None:
                        yield await answer.text()
                    else:
                        for _ in range(leave_after):
                            await answer.content.readline()
            while between.background:
                await asyncio.wait(between.background)


async def gather(kind: str, *asked: dict[str, Any], leave_after: int | None = None) -> list[str]:
    return [text async for text in ask(kind, *asked, leave_after=leave_after)]


PLAIN: dict[str, Any] = {}
BODY: dict[str, Any] = {"stream": False}
BUSY: dict[str, Any] = {"stream": False, "status": 503}
BROKEN: dict[str, Any] = {"error": True}
TOLD = {
    "cancels-another": [PLAIN],
    "drops-token": [PLAIN],
    "repeats-token": [PLAIN],
    "swallows-finish": [PLAIN],
    "truncates": [PLAIN],
    "two-ends": [PLAIN],
    "hides-errors": [BROKEN],
    "comments-errors": [BROKEN],
    "empties-later": [PLAIN, PLAIN],
    "stalls": [PLAIN],
    "overcharges": [PLAIN],
    "refuses-later": [PLAIN, PLAIN],
    "slows-later": [PLAIN, PLAIN],
    "mistakes-overload": [BUSY],
}
"""Kind -> requests of which the last one is spoiled."""


def test_every_bad_neighbour_is_tried() -> None:
    assert set(TOLD) | {"cancel-not-passed-on"} == set(proxy.KINDS)


@pytest.mark.parametrize("kind", TOLD)
def test_a_bad_neighbour_leaves_one_mark(kind: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "STALL_SECONDS", 0.0)
    monkeypatch.setattr(proxy, "LATER_SECONDS", 0.0)
    asyncio.run(gather(kind, *TOLD[kind]))
    assert len(left(file)) == 1
    assert left(file)[0].startswith(f"{kind}: ")


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        *((kind, PLAIN) for kind in ("hides-errors", "comments-errors", "mistakes-overload")),
        *((kind, PLAIN) for kind in ("empties-later", "refuses-later", "slows-later", "cancel-not-passed-on")),
        *((kind, BODY) for kind in ("two-ends", "stalls", "repeats-token", "hides-errors", "mistakes-overload")),
        *((kind, BROKEN) for kind in ("drops-token", "truncates", "repeats-token", "overcharges", "swallows-finish")),
    ],
)
def test_a_bad_neighbour_that_finds_nothing_to_spoil(kind: str, asked: dict[str, Any], file: Path) -> None:
    asyncio.run(gather(kind, asked))
    assert left(file) == []


def test_a_body_is_spoiled_too(file: Path) -> None:
    assert "w19" not in asyncio.run(gather("drops-token", BODY))[0]
    assert left(file) == ["drops-token: the last word of a body"]


def test_a_client_that_leaves_is_not_passed_on_and_its_request_runs_to_its_end(file: Path) -> None:
    asyncio.run(gather("cancel-not-passed-on", {"pace": 0.01}, leave_after=3))
    assert left(file) == ["cancel-not-passed-on: a client has given up, and its request runs on"]
