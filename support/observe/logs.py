"""Log files: waiting for a line while the file is written, and reading what is left at the end.

ANSI colours are taken out everywhere; bytes that are not UTF-8 become U+FFFD. Memory does not grow with the file.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from support import clock
from support.clock import now

_ANSI = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z? +(?P<level>[A-Z]+) ")
"""How a line of Dynamo's begins."""
_USUAL_COLOURS = 16
_BLOCK = 256 * 1024
# A longer line is cut into pieces, each of them searched as a line of its own.
_LONGEST_LINE = 1024 * 1024
_LONGEST_TAIL = 8 * 1024 * 1024
# Patterns for which a match inside a line is also a match inside the text that holds the line: no lookaround, no atomic
# group, no possessive repetition, no anchor to the ends of the text.
_LOCAL_PATTERN = re.compile(r"(?:[^\\(*+?}]|\\[^AZz]|\((?!\?)|\(\?(?::|P<|i\))|[*+?}](?!\+))*")


def poll_for_pattern(
    log_file: str | os.PathLike[str],
    pattern: str | re.Pattern[str],
    timeout: float,
    interval: float = 0.01,
    offset: int = 0,
) -> re.Match[str] | None:
    """Wait for a line that ``pattern`` matches (``re.search`` within one line, without its line end).

    Follows the file through rotation (another file under the same name, read from its start once the old one is read
    out) and truncation (the file is shorter than what has been read: read again from its start). The file may appear
    later. A last line without line end counts once it has not grown for an interval.

    Args:
        timeout: seconds; what is in the file at the time of the call is searched in any case, even with 0.
        interval: seconds between two looks at a file that has been read out.
        offset: where to start in bytes, such as the size of the file before the step that causes the line; a file that
            is shorter has been truncated since and is read from its start.

    Returns:
        The first match (``match.string`` is its line), or None after ``timeout`` seconds.

    Raises:
        ValueError: ``interval`` is not above 0, or ``offset`` is negative.
        re.error: ``pattern`` is not a regular expression.
        OSError: the file is there but cannot be read.
    """
    if interval <= 0:
        raise ValueError(f"interval is {interval}; expected a number of seconds above 0")
    if offset < 0:
        raise ValueError(f"offset is {offset}; expected 0 or more bytes")
    deadline = now() + timeout
    searcher = _Searcher(re.compile(pattern))
    rest = b""
    quiet_looks = 0
    with _Follower(Path(log_file), offset) as follower:
        while True:
            block = follower.read()
            overdue = now() >= deadline
            if block:
                quiet_looks = 0
                whole, line_end, partial = block.rpartition(b"\n")
                if line_end or len(rest) > _LONGEST_LINE:
                    if match := searcher.first(rest + whole + line_end):
                        return match
                    rest = partial
                else:
                    rest += partial
                if overdue and follower.backlog <= 0:
                    return searcher.first(rest) if rest else None
                continue
            quiet_looks += 1
            if rest and (quiet_looks == 2 or overdue) and (match := searcher.first(rest)):
                return match
            if overdue:
                return None
            clock.sleep(max(0.0, min(interval, deadline - now())))


def tail(path: str | os.PathLike[str], lines: int) -> str:
    """The last ``lines`` lines of a file, at most some 8 MiB; empty if there is no such file.

    Raises:
        ValueError: ``lines`` is below 1.
    """
    if lines < 1:
        raise ValueError(f"cannot show the last {lines} lines; expected at least 1")
    try:
        with Path(path).open("rb") as stream:
            start = stream.seek(0, os.SEEK_END)
            content = b""
            while start > 0 and content.count(b"\n") <= lines and len(content) < _LONGEST_TAIL:
                size = min(_BLOCK, start)
                start = stream.seek(start - size)
                content = stream.read(size) + content
    except FileNotFoundError:
        return ""
    return "\n".join(_text(content).removesuffix("\n").split("\n")[-lines:])


def find_panics(path: str | os.PathLike[str]) -> list[str]:
    """Every panic of Rust code in a log: its line, with the message on the next line where Rust puts it there."""
    panics = []
    lines = _lines(path)
    for line in lines:
        if "panicked at" in line:
            panics.append(f"{line} {next(lines, '')}".rstrip() if line.endswith(":") else line)
    return panics


def find_tracebacks(path: str | os.PathLike[str]) -> list[str]:
    """Every Python traceback in a log, from its first line to the line that names the exception."""
    tracebacks = []
    block: list[str] = []
    for line in _lines(path):
        if line.endswith("Traceback (most recent call last):"):
            if block:
                tracebacks.append("\n".join(block))
            block = [line]
        elif block:
            block.append(line)
            if not line.startswith((" ", "\t")):
                tracebacks.append("\n".join(block))
                block = []
    if block:
        tracebacks.append("\n".join(block))
    return tracebacks


def last_trouble(folder: Path, count: int) -> list[str]:
    """The last errors and warnings in all logs of a folder, in the order of their times, as ``NODE: line``: errors,
    panics and exceptions first, warnings where there are fewer than ``count``.
    """
    found: list[tuple[bool, str, str]] = []
    for log in sorted(folder.glob("*.log")):
        stamp, in_traceback = "", False
        for line in _lines(log):
            if timed := _STAMP.match(line):
                stamp = timed[0]
            level = timed and timed["level"]
            raised = in_traceback and bool(line.strip()) and not line.startswith((" ", "\t"))
            in_traceback = (in_traceback and not raised) or line.endswith("Traceback (most recent call last):")
            if raised or "panicked at" in line or level in ("ERROR", "WARN"):
                found.append((level != "WARN", stamp, f"{log.stem}: {line}"))
    chosen = sorted(found, key=lambda each: each[:2])[-count:] if count else []
    return [line for _, _, line in sorted(chosen, key=lambda each: each[1])]


def _text(content: bytes) -> str:
    text = _without_ansi(content).decode("utf-8", "replace")
    return text.replace("\r\n", "\n") if "\r" in text else text


def _without_ansi(content: bytes) -> bytes:
    # Dynamo writes some ten escape sequences a line, but only a handful of different ones: taking them out one kind at
    # a time is more than twice as fast as one substitution for all.
    for _ in range(_USUAL_COLOURS):
        start = content.find(b"\x1b")
        if start < 0:
            return content
        sequence = _ANSI.match(content, start)
        if sequence is None:
            break
        content = content.replace(sequence[0], b"")
    return _ANSI.sub(b"", content)


def _lines(path: str | os.PathLike[str]) -> Iterator[str]:
    try:
        with Path(path).open("rb") as stream:
            while line := stream.readline(_LONGEST_LINE):
                yield _text(line).removesuffix("\n")
    except FileNotFoundError:
        return


class _Searcher:
    """Finds the first line that a pattern matches in a text of whole lines, fast where there is none."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._in_line = pattern.search
        local = _LOCAL_PATTERN.fullmatch(pattern.pattern) is not None
        self._in_text = re.compile(pattern.pattern, pattern.flags | re.MULTILINE).search if local else None

    def first(self, content: bytes) -> re.Match[str] | None:
        """``content`` is whole lines; the last one may lack its line end."""
        text = _text(content).removesuffix("\n")
        if self._in_text is not None:
            # One call for the whole text instead of one per line. The hit may reach over a line end, so it only says
            # that no line before it matches.
            hit = self._in_text(text)
            if hit is None:
                return None
            text = text[text.rfind("\n", 0, hit.start()) + 1 :]
        return next((match for line in text.split("\n") if (match := self._in_line(line))), None)


class _Follower:
    """Reads what is added to a file, each byte once, through rotation and truncation.

    Where one file ends and another begins a line end is put between them.

    Attributes:
        backlog: how many bytes that were there at the first look are still to be read.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self.backlog = 0
        self._path = path
        self._offset = offset
        self._file: int | None = None
        self._identity = (0, 0)
        self._position = 0

    def __enter__(self) -> "_Follower":
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)

    def read(self) -> bytes:
        """The next bytes; empty if there are none at the moment."""
        if self._file is None:
            self._open()
            if self._file is None:
                return b""
        block = os.read(self._file, _BLOCK)
        if block:
            return self._taken(block)
        if os.fstat(self._file).st_size < self._position:
            self._position = os.lseek(self._file, 0, os.SEEK_SET)
            self.backlog = 0
            return b"\n"
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return b""
        if (status.st_dev, status.st_ino) == self._identity:
            return b""
        # What was written to the old file between the two looks.
        block = os.read(self._file, _BLOCK)
        if block:
            return self._taken(block)
        os.close(self._file)
        self._file = None
        self._offset = 0
        return b"\n"

    def _open(self) -> None:
        try:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        status = os.fstat(self._file)
        self._identity = (status.st_dev, status.st_ino)
        start = self._offset if self._offset <= status.st_size else 0
        self._position = os.lseek(self._file, start, os.SEEK_SET)
        self.backlog = status.st_size - start

    def _taken(self, block: bytes) -> bytes:
        self._position += len(block)
        self.backlog -= len(block)
        return block
