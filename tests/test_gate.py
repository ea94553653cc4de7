"""Answers are held in their middle until the fault is proven, however long that takes."""

from pathlib import Path

import pytest

from agents.sabotage.injector import DAWDLE_SECONDS
from support.contract.deployment import Node
from support.events import EventLog, read_events
from support.judge.history import History
from support.judge.invariants import check
from support.observe import journal
from support.requests.ledger import Chunk, LedgerEntry, read_ledger
from support.world.gate import LAST_TOKENS, Gates
from tests.scenarios import run

CRASH = "Every token comes once and in order when the worker crashes mid-answer"
EARLY_CRASH = "The worker crashes before the first token (streamed chat)"


class Workers:
    """A deployment of workers, of which the first alone has a gate."""

    def __init__(self, gate_url: str | None) -> None:
        self.workers = [
            Node("ruler-worker-0", "worker", "127.0.0.1", 1, None, gate_url),
            Node("vllm-worker-1", "worker", "127.0.0.1", 1, None),
        ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which each fault is made seconds late, when answers that nobody holds are long over."""
    folder = tmp_path_factory.mktemp("gate") / "run"
    names = ["--name", CRASH, "--name", EARLY_CRASH.replace("(", r"\(").replace(")", r"\)")]
    verdicts = run(folder, "features/migration.feature", *names, sabotage="injector=dawdles")
    assert {verdict.name: (verdict.verdict, verdict.reason) for verdict in verdicts if verdict.seconds} == {
        CRASH: ("passed", ""),
        EARLY_CRASH: ("passed", ""),
    }
    return folder


def scenario(folder: Path, tokens: int) -> Path:
    """The folder of the scenario whose answer has so many tokens."""
    ledgers = {file.parent: read_ledger(file) for file in folder.glob("scenarios/*/ledger.jsonl")}
    return next(where for where, entries in ledgers.items() if any(entry.max_tokens == tokens for entry in entries))


def test_an_answer_is_held_before_its_end_until_a_late_fault_has_struck(folder: Path) -> None:
    where = scenario(folder, 200)
    (entry,) = read_ledger(where / "ledger.jsonl")
    struck_at = next(event.at for event in read_events(where / "events.jsonl") if event.kind == "proof" and event.data)
    first, second = journal.read(where / "logs")
    (hold,) = first["holds"]
    assert hold["until"] is None  # it died with the answer in hand
    assert struck_at - hold["from"] > DAWDLE_SECONDS / 2
    assert second["start"] - first["start"] == 200 - LAST_TOKENS
    widest = max(after.at - before.at for before, after in zip(entry.chunks, entry.chunks[1:], strict=False))
    assert widest > DAWDLE_SECONDS / 2
    assert entry.longest_pause < widest - DAWDLE_SECONDS / 2, "the time for which it was held is no pause"
    assert any(event.kind == "gate" for event in read_events(where / "events.jsonl"))


def test_an_answer_is_held_before_its_first_token_until_a_late_fault_has_struck(folder: Path) -> None:
    first, second = journal.read(scenario(folder, 50) / "logs")
    assert (first["produced"], first["holds"][0]["until"]) == (None, None)
    assert second["start"] == first["start"]


def test_a_gate_that_is_not_there_is_not_waited_for_and_said(tmp_path: Path) -> None:
    events = EventLog(tmp_path / "events.jsonl")
    gate = Gates(Workers("http://127.0.0.1:1"), events)  # type: ignore[arg-type]
    gate.hold_end({200, 10})
    states = [gate.closed]
    gate.open()
    assert [*states, gate.closed] == [True, False]
    told = [event.text for event in events.all()]
    assert "answers of 200 tokens are held after 180" in told
    assert "answers of 10 tokens are held after 5" in told
    assert any("gate of the ruler does not answer" in text for text in told)


def test_a_deployment_without_gates_holds_nothing(tmp_path: Path) -> None:
    gate = Gates(Workers(None), EventLog(tmp_path / "events.jsonl"))  # type: ignore[arg-type]
    gate.hold_start(200)
    assert not gate.closed


def test_pauses_that_are_ours_count_for_nobody() -> None:
    chunks = [Chunk(at, "token", tokens=["p"]) for at in (1.0, 1.1, 4.1, 4.9)]
    entry = LedgerEntry(1, "completions", True, "m", "p", 4, chunks=chunks, holds=[[1.2, 3.9]])
    assert entry.longest_pause == pytest.approx(0.8)
    assert entry.pause == (4.1, 4.9)
    entry.holds = []
    assert entry.longest_pause == pytest.approx(3.0)


def test_an_answer_that_nobody_lets_go_voids_what_was_seen() -> None:
    hold = {"from": 1.0, "until": 61.0, "expired": True}
    note = {"worker": "ruler-worker-0", "request_id": "x", "at": 0.5, "start": 3, "max_tokens": 9, "holds": [hold]}
    (finding,) = check(History(worker_journal=[note]))
    assert (finding.rule, finding.blame) == ("gate", "suite")
    assert "never told to release it" in finding.message
