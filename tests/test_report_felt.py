"""What users felt: requests counted, in a scenario and in a run."""

from pathlib import Path

import pytest

from support.judge.verdict import Finding, Verdict
from support.report import felt, runs
from support.report.felt import Felt
from support.requests.ledger import Chunk, Ledger
from support.requests.load_log import read_load
from tests.test_results import Case, steady, write


def verdict(word: str, line: int) -> Verdict:
    found = [Finding("sentence", "Then it ends", "it did not")] if word == "failed" else []
    return Verdict("F", f"scenario {line}", f"features/x.feature:{line}", [], word, 1.0, findings=found)


@pytest.mark.parametrize(
    ("users", "sentence"),
    [
        (Felt(given_up=3), "nobody waited for an answer"),
        (Felt(whole=1), "no request was lost: the only request was answered whole"),
        (
            Felt(whole=9, given_up=1, wait=1.26),
            "no request was lost: all 9 requests were answered whole; the longest wait for a token was 1.3 s",
        ),
        (Felt(broken=1, seconds=4), "the only request got a broken answer or none"),
        (Felt(whole=8, errors=1, seconds=4), "1 of 9 requests got an error instead of an answer"),
        (Felt(whole=8, errors=2, seconds=4), "2 of 10 requests got an error instead of an answer, within 4.0 s"),
        (
            Felt(whole=8, errors=2, broken=1, seconds=0.01),
            "2 of 11 requests got an error instead of an answer, 1 got a broken answer or none, within 0.1 s",
        ),
    ],
)
def test_what_users_felt_is_a_sentence(users: Felt, sentence: str) -> None:
    assert users.sentence == sentence


def test_requests_and_loads_are_counted_once_each(tmp_path: Path) -> None:
    failing = [Case(3.0, status=500), Case(3.5, status=500, latency=1.0), Case(4.0, closed=False)]
    write(tmp_path / "load", [*steady(0, 2, latency=0.7), *failing])
    ledger = Ledger()
    for end in ("complete", "cancelled", "lost"):
        entry = ledger.open(api="chat", stream=True, model="m", prompt="a", max_tokens=2, sent_at=100.0)
        entry.chunks = [Chunk(at, "token", 0, ["w"], completion_id="c") for at in (101.0, 103.5)]
        entry.chunks += [Chunk(103.5, "finish", 0, finish_reason="length"), Chunk(103.5, "done")]
        entry.status_code, entry.end, entry.ended_at = 200, end, 103.5
    ledger.adopt(read_load(tmp_path / "load").entries())
    ledger.write(tmp_path / "ledger.jsonl")
    found = felt.read_felt(tmp_path)
    assert (found.whole, found.errors, found.broken, found.given_up) == (1 + len(steady(0, 2)), 2, 2, 1)
    assert [found.seconds, found.wait] == pytest.approx([4.5, 2.5])
    assert felt.read_felt(tmp_path / "nowhere") == Felt()


def test_the_worst_is_where_answers_broke() -> None:
    broken = [verdict("failed", line) for line in (1, 2, 3)]
    users = dict(zip([each.location for each in broken], [Felt(9), Felt(9, 8), Felt(9, 0, 1)], strict=True))
    assert felt.worst(users, broken) is broken[2]
    assert felt.worst(users, broken[:2]) is broken[1]


def test_the_users_of_a_run_are_added_up() -> None:
    verdicts = [verdict(word, line) for line, word in enumerate(("passed", "failed", "known_defect", "inconclusive"))]
    locations = [each.location for each in verdicts]
    assert felt.of_run({}, verdicts) == "Nobody waited for an answer."
    whole = {locations[0]: Felt(whole=5, wait=1.5), locations[2]: Felt(whole=4, given_up=2)}
    told = "Every request was answered whole: 9 of 9. The longest wait for a token was 1.5 s. "
    assert felt.of_run(whole, verdicts) == f"{told}Clients gave up 2 more requests on purpose."
    parts = [Felt(5, errors=4), Felt(1, broken=3), Felt(1, broken=2), Felt(0, broken=1, given_up=1)]
    assert felt.of_run(dict(zip(locations, parts, strict=True)), verdicts) == (
        "7 of 17 requests were answered whole. The others: 4 where the promise allows it, "
        "3 where a promise was broken, 2 in scenarios with known defects, 1 in scenarios that prove nothing. "
        "Clients gave up 1 more request on purpose."
    )


def test_records_that_make_no_sense_tell_of_nobody(tmp_path: Path) -> None:
    each, skipped = verdict("passed", 1), verdict("skipped", 2)
    folder = runs.scenario_folder(tmp_path, each.location)
    folder.mkdir(parents=True)
    (folder / "ledger.jsonl").write_text('{"number": 3, "ap')
    assert felt.read_all(tmp_path, [each, skipped]) == {each.location: Felt()}
