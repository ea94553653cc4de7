"""Server-sent events from a byte stream that may be cut anywhere (https://html.spec.whatwg.org/#event-stream-interpretation)."""

import re
from typing import NamedTuple

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """One event.

    Attributes:
        name: value of its ``event:`` line, empty if it had none.
        data: its ``data:`` lines joined by newlines; None if it had none. The standard drops such an event; it is kept
            here because Dynamo sends errors and annotations as ``event: error`` followed by nothing but a comment.
        comments: its comment lines without the colon.
    """

    name: str
    data: str | None
    comments: tuple[str, ...]


class EventParser:
    """Feed it bytes as they come; each call hands back the events that are complete by then."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._first = True
        self._clear()

    def _clear(self) -> None:
        self._name = ""
        self._data: list[str] = []
        self._comments: list[str] = []

    def feed(self, data: bytes) -> list[ServerEvent]:
        """The events that ``data`` completes, oldest first."""
        if self._between_events and data.startswith(b"data: ") and data.endswith(b"\n\n") and b"\r" not in data:
            blocks = data[6:-2].split(b"\n\ndata: ")
            if not any(b"\n" in block for block in blocks):
                # Whole events of one line each, as they nearly always come: no need to look at every line.
                return [ServerEvent("", block.decode("utf-8", "replace"), ()) for block in blocks]
        if self._after_cr and data:
            # The line ended with the CR that closed the last piece; this LF belongs to the same line end.
            self._after_cr = False
            data = data.removeprefix(b"\n")
        lines = _LINE_END.split(self._rest + data)
        self._after_cr = self._after_cr or data.endswith(b"\r")
        self._rest = lines.pop()
        events = []
        if self._first and lines:
            self._first = False
            lines[0] = lines[0].removeprefix(_BOM)
        for line in lines:
            if line:
                self._line(line)
            elif self._name or self._data:
                events.append(self._take())
            else:
                self._clear()
        return events

    @property
    def _between_events(self) -> bool:
        pending = self._rest or self._name or self._data or self._comments
        return not pending and not self._first and not self._after_cr

    def flush(self) -> list[ServerEvent]:
        """What was left unfinished at the end of the stream, as an event: the standard drops it, a judge wants it."""
        events = self.feed(b"\n\n")
        self._rest = b""
        return events

    def _line(self, line: bytes) -> None:
        field, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif not field:
            self._comments.append(value)

    def _take(self) -> ServerEvent:
        event = ServerEvent(
            self._name,
            "\n".join(self._data) if self._data else None,
            tuple(self._comments),
        )
        self._clear()
        return event
