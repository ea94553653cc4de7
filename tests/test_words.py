"""Words and tables of the sentences: right ones are understood, wrong ones named with the right ones."""

from typing import Any

import pytest

from support.words import REQUEST_OPTIONS, SHAPE_OPTIONS, TYPES, options


@pytest.mark.parametrize(
    ("word", "text", "value"),
    [
        ("Fate", "is told to shut down", "terminate"),
        ("Way", "resets", "reset"),
        ("Mode", "unary", False),
        ("Count", "20", 20),
        ("Time", "2 seconds", 2.0),
        ("Time", "1 second", 1.0),
        ("Time", "500 milliseconds", 0.5),
        ("Engine", "ruler", "ruler"),
    ],
)
def test_right_words(word: str, text: str, value: Any) -> None:
    assert TYPES[word](text) == value


@pytest.mark.parametrize(
    ("word", "text", "message"),
    [
        ("Engine", "tgi", "unknown engine 'tgi'; expected one of: vllm, sglang, trtllm, ruler"),
        ("Fate", "explodes", "expected one of: crashes, is told to shut down, hangs, is restarted"),
        ("Count", "-3", "'-3' is no count; expected a whole number, 0 or more"),
        ("Plane", "udp", "expected one of: tcp, nats"),
        ("Api", "responses", "expected one of: completions, chat"),
    ],
)
def test_wrong_words(word: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TYPES[word](text)


def test_tables() -> None:
    rows = [("migration limit", "0"), ("lease", "5 seconds"), ("health checks", "yes"), ("speed", "0.5")]
    read = {"migration_limit": 0, "lease_seconds": 5.0, "health_checks": True, "speed": 0.5}
    assert options(rows, SHAPE_OPTIONS) == read
    assert options(None, SHAPE_OPTIONS) == {}
    assert options([("usage", "yes"), ("choices", "2")], REQUEST_OPTIONS) == {"usage": True, "n": 2}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("colour", "red"), "unknown setting 'colour' in the table; expected one of: request plane, migration limit"),
        (("migration limit", "many"), "migration limit: 'many' is no count"),
        (("restart policy", "Perhaps"), "restart policy: .*expected one of: Never, OnFailure, Always"),
        (("health checks", "maybe"), "health checks: .*expected one of: yes, no"),
        (("lease", "soon"), "lease: 'soon' is no time; expected such as 2 seconds or 500 milliseconds"),
    ],
)
def test_wrong_tables(row: tuple[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options([row], SHAPE_OPTIONS)
