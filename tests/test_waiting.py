"""A deadline that was missed says from when it counts."""

import ast

import pytest

from support.clock import now
from support.errors import Inconclusive, NotKept, Since, TooLate
from support.judge.expectations import expect_no_pause, expect_prompt
from support.observe.waiting import PERIOD_SECONDS, lasting, prove, this_sentence, throughout, until
from support.requests.ledger import Chunk, LedgerEntry
from support.seen import ModelsListed
from tests.test_layers import MODULES

WAITING = "support.observe.waiting"
ROOMS = ("support.world.", "support.observe.")
"""Where sentences wait."""


def _waits() -> list[tuple[str, ast.Call]]:
    """Module and call of each wait for what Dynamo has promised."""
    modules = {name: file for name, file in MODULES.items() if name.startswith(ROOMS) and name != WAITING}
    calls = [(name, node) for name, file in modules.items() for node in ast.walk(ast.parse(file.read_text()))]
    named = [(name, node) for name, node in calls if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return [(name, node) for name, node in named if isinstance(node.func, ast.Name) and node.func.id == "until"]


def test_each_wait_for_what_was_promised_knows_from_when_it_counts() -> None:
    waits = _waits()
    assert len(waits) > 15
    told = {id(node) for _, node in waits if len(node.args) > 3 or "since" in {each.arg for each in node.keywords}}
    assert [f"{name}:{node.lineno}" for name, node in waits if id(node) not in told] == []


def test_a_missed_deadline_says_from_when_it_counts() -> None:
    models = ModelsListed(1)
    with pytest.raises(TooLate) as late:
        until(lambda: [models], 0.05, "the frontend lists no model", this_sentence())
    said = (
        "not within 0.05 seconds of this sentence: the frontend lists no model; last seen: the frontend lists 1 model"
    )
    assert (str(late.value), late.value.seen) == (said, (models,))
    assert late.value.since < late.value.until
    said = r"not within 2 seconds of the last fault: it holds; the suite looked 3\.0 s too late"
    with pytest.raises(TooLate, match=said):
        until(lambda: None, 2.0, "it holds", Since(now() - 5.0, "the last fault"))


def test_a_wait_of_our_own_names_no_sentence() -> None:
    with pytest.raises(
        Inconclusive, match=r"nothing was in flight: not within [0-9.]+ seconds: a worker is busy; last"
    ):
        prove(lambda: "none", 0.05, "a worker is busy", "nothing was in flight")
    healed = Since(now(), "this sentence")
    with pytest.raises(Inconclusive, match=r"not within [0-9.]+ seconds of this sentence: packets arrive"):
        prove(lambda: "none", 0.05, "packets arrive", "the recovery was not proven", healed)


def test_what_does_not_last_says_from_when_and_for_how_long_it_did() -> None:
    until_then, models = now() + 3 * PERIOD_SECONDS, ModelsListed(0)

    def look() -> None:
        if now() > until_then:
            raise NotKept(models)

    with pytest.raises(NotKept) as broken:
        throughout(look, 5.0, "the frontend lists a model")
    begin = "not for 5 seconds from this sentence on: the frontend lists a model; after 0."
    assert str(broken.value).startswith(begin)
    assert str(broken.value).endswith("s: the frontend lists 0 models")
    assert broken.value.seen == (models,)
    with lasting(5.0, "nothing") as end:
        assert 4.9 < end - now() <= 5.0


def test_a_late_token_is_late_after_the_one_before() -> None:
    times = [(10.1, "a"), (10.2, "b"), (13.0, "c")]
    chunks = [Chunk(at, "token", 0, [token]) for at, token in times]
    entry = LedgerEntry(1, "completions", True, "m", "p", 3, intended_at=10.0, sent_at=10.0, chunks=chunks)
    with pytest.raises(TooLate, match=r"not within 2 seconds of the token before: request 1 paused for 2\.80 s"):
        expect_no_pause(entry, 2.0)
    entry.intended_at = entry.sent_at = 5.0
    with pytest.raises(TooLate, match=r"of the moment at which it was due: request 1 waited for its first token"):
        expect_prompt(entry, 4.0)
