"""What sentences say of single answers: each holds for the right answer and fails, in words, for each wrong one."""

from dataclasses import replace
from typing import Any

import pytest

from support.errors import Inconclusive
from support.judge.expectations import (
    expect_clean_error,
    expect_complete,
    expect_no_pause,
    expect_positions,
    expect_prompt,
    expect_usage,
)
from support.requests.ledger import Chunk, LedgerEntry


def answer(positions: list[int], finish: str | None = "length", error: str = "", done: int = 1) -> LedgerEntry:
    """A streamed answer to a prompt of three words, a token every 10 ms."""
    chunks = [
        Chunk(1 + 0.01 * number, "token", 0, [f"p{position}"], [position]) for number, position in enumerate(positions)
    ]
    if finish:
        chunks.append(Chunk(9.0, "finish", 0, finish_reason=finish))
    if error:
        chunks.append(Chunk(9.0, "error", raw=error))
    chunks += [Chunk(9.1, "done")] * done
    return LedgerEntry(
        1,
        "completions",
        True,
        "m",
        "one two three",
        max_tokens=10,
        status_code=200,
        chunks=chunks,
        end="complete",
        ended_at=9.2,
    )


WHOLE = list(range(3, 13))


def test_a_whole_answer() -> None:
    expect_complete(answer(WHOLE), 10)
    expect_positions(answer(WHOLE))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (answer(WHOLE[:6], finish=None), "6 of 10 tokens, no finish_reason"),
        (answer(WHOLE, done=2), r"\[DONE\] 2 times"),
        (answer(WHOLE[:6], finish=None, error='{"error": "gone"}'), "error"),
        (replace(answer(WHOLE), end="lost"), "lost"),
        (answer(WHOLE[:9]), "9 of 10 tokens"),
    ],
)
def test_no_whole_answer(entry: LedgerEntry, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        expect_complete(entry, 10)


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ([3, 4, 5, 5, 6, 7, 8, 9, 10, 11], "repeated 5"),
        ([3, 4, 6, 7, 8, 9, 10, 11, 12, 12], "lost 5"),
        ([3, 4, 5, 99, 7, 8, 9, 10, 11, 12], "invented 99"),
        ([4, 5, 6, 7, 8, 9, 10, 11, 12, 13], "lost 3"),
        ([4, 3, 5, 6, 7, 8, 9, 10, 11, 12], "reordered"),
        (WHOLE[:7], "7 of 10 positions came"),
    ],
)
def test_positions_out_of_place(positions: list[int], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        expect_positions(answer(positions))


def test_positions_cannot_be_asked_of_another_engine() -> None:
    entry = answer([])
    entry.chunks.insert(0, Chunk(1.0, "token", 0, ["w17"]))
    with pytest.raises(ValueError, match="only the ruler engine"):
        expect_positions(entry)


def test_clean_errors() -> None:
    expect_clean_error(answer(WHOLE[:6], finish=None, error='{"error": "gone"}'))
    refusal = Chunk(1.0, "error", raw='{"message": "no"}')
    expect_clean_error(replace(answer([]), status_code=503, chunks=[refusal]))
    with pytest.raises(AssertionError, match="but is complete"):
        expect_clean_error(answer(WHOLE))
    with pytest.raises(AssertionError, match="but is broken"):
        expect_clean_error(answer(WHOLE[:6], finish=None))


def test_usage() -> None:
    right = {"prompt_tokens": 3, "completion_tokens": 10, "total_tokens": 13}
    expect_usage(replace(answer(WHOLE), usage=right))
    for wrong in (right | {"prompt_tokens": 9}, right | {"completion_tokens": 4}, None):
        with pytest.raises(AssertionError, match="was billed differently from one without the fault: usage says"):
            expect_usage(replace(answer(WHOLE), usage=wrong))


def test_usage_of_a_chat_counts_what_the_template_adds() -> None:
    body = {"messages": [{"role": "user", "content": "one two three"}]}
    billed = {"prompt_tokens": 7, "completion_tokens": 10, "total_tokens": 17}
    expect_usage(replace(answer(WHOLE), api="chat", body=body, usage=billed))


def test_pauses() -> None:
    entry = answer(WHOLE)
    for chunk in entry.chunks[5:]:
        chunk.at += 3
    expect_no_pause(entry, 3.5)
    with pytest.raises(AssertionError, match=r"paused for 3\.01 s; at most 2 s"):
        expect_no_pause(entry, 2)
    with pytest.raises(AssertionError, match="too few"):
        expect_no_pause(answer([3]), 2)


def test_a_wait_for_several_tokens_at_once_may_hide_a_pause() -> None:
    for chunks in ([Chunk(9.0, "token", 0, ["w"] * 10)], [Chunk(9.0, "token", 0, ["w"]) for _ in range(10)]):
        entry = replace(answer(WHOLE), chunks=chunks, intended_at=1.0, sent_at=1.0)
        with pytest.raises(AssertionError, match=r"paused for 8\.00 s; at most 2 s"):
            expect_no_pause(entry, 2)


def test_a_client_that_lagged_by_more_than_a_fifth_of_a_claim_proves_nothing() -> None:
    for late in ({"lag_seconds": 0.21}, {"intended_at": 0.79, "sent_at": 1.0}):
        for claim in (expect_no_pause, expect_prompt):
            times: dict[str, Any] = {"intended_at": 1.0, "sent_at": 1.0}
            entry = replace(answer(WHOLE), **(times | late))
            with pytest.raises(Inconclusive, match="request 1: the client itself lagged 210 ms; at most 200 ms"):
                claim(entry, 1.0)
            claim(entry, 1.1)
