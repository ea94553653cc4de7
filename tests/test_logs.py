import os
import random
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support import clock
from support.clock import now
from support.observe import logs
from support.observe.logs import find_panics, find_tracebacks, last_trouble, poll_for_pattern, tail
from tests.patience import PATIENCE


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


def soon(action: Callable[[], object], delay: float = 0.1) -> threading.Timer:
    timer = threading.Timer(delay, action)
    timer.start()
    return timer


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)


def found(log: Path, pattern: str | re.Pattern[str], timeout: float = 0.0, offset: int = 0) -> str | None:
    match = poll_for_pattern(log, pattern, timeout, offset=offset)
    return match.string if match else None


def test_the_first_matching_line_is_found(log: Path) -> None:
    log.write_text("starting\nworker 1 ready\nworker 2 ready\n")
    match = poll_for_pattern(log, r"worker (\d+) ready", 0)
    assert match is not None
    assert (match[0], match[1], match.string) == ("worker 1 ready", "1", "worker 1 ready")


def test_a_line_that_is_written_later(log: Path) -> None:
    log.write_text("starting\n")
    timer = soon(lambda: append(log, "ready\n"))
    begin = now()
    assert found(log, "ready", PATIENCE) == "ready"
    assert now() - begin < PATIENCE / 2
    timer.join()


def test_a_file_that_appears_later(log: Path) -> None:
    timer = soon(lambda: log.write_text("ready\n"))
    assert found(log, "ready", PATIENCE) == "ready"
    timer.join()


def test_nothing_found_in_time(log: Path) -> None:
    log.write_text("starting\n")
    begin = now()
    assert found(log, "ready", 0.15) is None
    assert 0.15 <= now() - begin < PATIENCE
    assert found(log.with_name("none.log"), "ready") is None


def test_what_is_before_the_offset_is_not_seen(log: Path) -> None:
    log.write_text("ready 1\n")
    offset = log.stat().st_size
    assert found(log, "ready", offset=offset) is None
    append(log, "ready 2\n")
    assert found(log, "ready", offset=offset) == "ready 2"


def test_an_offset_past_the_end_means_that_the_file_was_truncated(log: Path) -> None:
    log.write_text("ready\n")
    assert found(log, "ready", offset=100) == "ready"


def test_rotation(log: Path) -> None:
    log.write_text("old\n")

    def rotate() -> None:
        append(log, "the last of the old file")
        log.rename(log.with_suffix(".1"))
        log.write_text("ready in the new one\n")

    timer = soon(rotate)
    assert found(log, "new", 5) == "ready in the new one"
    timer.join()


def test_what_is_written_just_before_the_rotation_is_not_lost(log: Path) -> None:
    with log.open("w") as old:
        old.write("old\n")
        old.flush()

        def rotate() -> None:
            log.rename(log.with_suffix(".1"))
            old.write("needle without line end")
            old.flush()
            log.write_text("new\n")

        timer = soon(rotate)
        assert found(log, "needle", 5) == "needle without line end"
        timer.join()


def test_lines_of_two_files_are_not_glued_together(log: Path) -> None:
    log.write_text("rea")

    def rotate() -> None:
        log.rename(log.with_suffix(".1"))
        log.write_text("dy\n")

    timer = soon(rotate, 0.05)
    assert found(log, "ready", 0.3) is None
    timer.join()


def test_truncation(log: Path) -> None:
    log.write_text("a long line that is gone soon\n" * 10)

    def truncate() -> None:
        with log.open("w") as stream:
            stream.write("ready\n")

    timer = soon(truncate)
    assert found(log, "ready", PATIENCE) == "ready"
    timer.join()


def test_colours_are_taken_out(log: Path) -> None:
    log.write_text("\x1b[2m2026\x1b[0m \x1b[32m INFO\x1b[0m work\x1b[1;31mer\x1b[0m \x1b]0;title\x07ready\r\n")
    assert found(log, r"^2026  INFO worker ready$") == "2026  INFO worker ready"
    assert tail(log, 1) == "2026  INFO worker ready"


def test_many_different_colours_and_a_lone_escape(log: Path) -> None:
    log.write_text(
        "".join(f"\x1b[38;5;{number}m{number} \x1b[0m" for number in range(40)) + "\n\x1b\x01 ready\x1b[0m\n"
    )
    assert tail(log, 2) == " ".join(str(number) for number in range(40)) + " \n\x1b\x01 ready"


def test_bytes_that_are_not_utf8(log: Path) -> None:
    log.write_bytes(b"\xff\xfe ready\n")
    assert found(log, "ready") == "\ufffd\ufffd ready"


def test_a_last_line_without_line_end_counts_once_it_is_quiet(log: Path) -> None:
    log.write_text("a\nEnter password: ")
    begin = now()
    assert found(log, "password: $", PATIENCE) == "Enter password: "
    assert now() - begin < PATIENCE / 2


def test_a_half_written_line_is_not_taken_for_a_whole_one(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write_text("count=1")
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            append(log, "2\n")

    monkeypatch.setattr(clock, "sleep", sleep)
    match = poll_for_pattern(log, r"count=(\d+)", 5)
    assert match is not None
    assert match[1] == "12"


def test_each_byte_is_read_once_whatever_the_cuts(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "".join(f"line {number} Grüße\n" for number in range(50)) + "needle\n"
    log.write_text(content, encoding="utf-8")
    read = os.read
    for block in range(1, 40):
        taken: list[bytes] = []

        def counting(file: int, size: int, taken: list[bytes] = taken) -> bytes:
            taken.append(read(file, size))
            return taken[-1]

        monkeypatch.setattr(logs, "_BLOCK", block)
        monkeypatch.setattr(os, "read", counting)
        assert found(log, "^needle$") == "needle"
        monkeypatch.setattr(os, "read", read)
        assert b"".join(taken).decode() == content


def test_a_line_without_end_does_not_fill_the_memory(log: Path) -> None:
    with log.open("wb") as stream:
        for _ in range(64):
            stream.write(b"x" * 1024 * 1024)
        stream.write(b"\nready\n")
    pieces = []
    first = logs._Searcher.first

    def noting(self: logs._Searcher, content: bytes) -> re.Match[str] | None:
        pieces.append(len(content))
        return first(self, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs._Searcher, "first", noting)
        assert found(log, "ready") == "ready"
    assert max(pieces) < 2 * 1024 * 1024


def test_the_search_in_whole_texts_agrees_with_the_search_line_by_line() -> None:
    patterns = [
        *(r"b$", r"^a", r"^$", r"a\s", r"[^a]+b", r"a.*b", r"(?:a|b){2}", r"(?i)AB", r"a(?!\s)", r"(?<!a)b", r"\Ab"),
        *(
            r"b\Z",
            r"(?s)a.b",
            r"(?P<x>a)(?P=x)",
            r"a++b",
            r"\bb\b",
            r"\B",
            r"\s+a",
            r"a\n",
            r"[(?]b",
            r"b|^a$",
            r"(?=b)",
        ),
    ]
    random_source = random.Random(7)
    texts = ["".join(random_source.choices("ab \n(", k=12)) for _ in range(300)]
    for pattern in patterns:
        compiled = re.compile(pattern)
        searcher = logs._Searcher(compiled)
        for text in texts:
            expected = next((line for line in text.removesuffix("\n").split("\n") if compiled.search(line)), None)
            match = searcher.first(text.encode())
            assert (match.string if match else None) == expected, (pattern, text)


@pytest.mark.parametrize(
    "pattern", ["ready", r"worker \d+", r"^\[x\] \w+$", r"(?:a|b)+", "(?i)error", r"took (?P<s>\d+) s"]
)
def test_usual_patterns_take_the_fast_path(pattern: str) -> None:
    assert logs._Searcher(re.compile(pattern))._in_text is not None


def test_misuse(log: Path) -> None:
    with pytest.raises(ValueError, match="interval is 0"):
        poll_for_pattern(log, "a", 1, interval=0)
    with pytest.raises(ValueError, match="offset is -1"):
        poll_for_pattern(log, "a", 1, offset=-1)
    with pytest.raises(ValueError, match="last 0 lines"):
        tail(log, 0)
    with pytest.raises(re.error):
        poll_for_pattern(log, "(", 1)


def test_tail(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tail(log, 3) == ""
    lines = [f"line {number} ü" for number in range(100)]
    for end in ("", "\n"):
        log.write_text("\n".join(lines) + end, encoding="utf-8")
        for block in (7, 100, 100_000):
            monkeypatch.setattr(logs, "_BLOCK", block)
            assert tail(log, 3) == "\n".join(lines[-3:])
            assert tail(log, 1000) == "\n".join(lines)


def test_panics(log: Path) -> None:
    log.write_text(
        "ok\nthread 'tokio' panicked at lib/x.rs:10:5:\nindex out of bounds\nnote: run with RUST_BACKTRACE=1\n"
        "thread 'main' panicked at 'old style', src/main.rs:2:5\nok\n"
    )
    assert find_panics(log) == [
        "thread 'tokio' panicked at lib/x.rs:10:5: index out of bounds",
        "thread 'main' panicked at 'old style', src/main.rs:2:5",
    ]
    assert find_panics(log.with_name("none.log")) == []


def test_tracebacks(log: Path) -> None:
    one = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n    boom()\nValueError: boom'
    two = "2026 ERROR Traceback (most recent call last):\n  File x\nKeyError"
    cut = "Traceback (most recent call last):\n  File y"
    log.write_text(f"ok\n{one}\nok\n{two}\n\nok\n{cut}")
    assert find_tracebacks(log) == [one, two, cut]
    assert find_panics(log) == []


def test_the_last_trouble_of_all_logs_comes_in_its_order(tmp_path: Path) -> None:
    """Errors, panics and exceptions before warnings; what carries no time happened when the line before it did."""

    def stamp(second: int, level: str, text: str) -> str:
        return f"2026-11-27T22:28:{second:02}.359419Z {level:>5} dynamo_llm::http: {text}\n"

    worker = stamp(1, "WARN", "odd") + stamp(4, "ERROR", "bad") + stamp(9, "WARN", "odd again") + stamp(9, "INFO", "x")
    frontend = stamp(3, "INFO", "fine") + 'Traceback (most recent call last):\n  File "x.py"\nOSError: gone\n'
    (tmp_path / "worker.log").write_text(worker)
    (tmp_path / "frontend.log").write_text(frontend + stamp(6, "INFO", "y") + "thread 'main' panicked at src/a.rs:1\n")
    first, second, third = last_trouble(tmp_path, 3)
    assert first == "frontend: OSError: gone"
    assert (second.partition(":")[0], second.endswith("dynamo_llm::http: bad")) == ("worker", True)
    assert third == "frontend: thread 'main' panicked at src/a.rs:1"
    assert [line[-9:] for line in last_trouble(tmp_path, 4)][-1] == "odd again"
    assert last_trouble(tmp_path / "none", 3) == []
