"""``make doctor``: what the target of the settings can do, what that is needed for, and what is therefore skipped."""

import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from support import binaries, targets
from support.settings import ROOT, Settings


class Row(NamedTuple):
    """A line of the table; ``skipped`` is empty where nothing is lost."""

    what: str
    found: str
    needed_for: str
    skipped: str


def rows(settings: Settings) -> list[Row]:
    """The table for these settings."""
    table = [Row("Python", f"{platform.python_version()}, {sys.executable}", "the suite", "")]
    kind = targets.kind(settings)
    programs = (
        ("etcd", binaries.etcd, "every deployment", "everything"),
        ("NATS", binaries.nats, "@nats, and releases before 1.4", "@nats"),
        ("Node.js", binaries.node, "the HTML report", "the HTML report"),
    )
    for what, locate, needed_for, without in programs if kind.real else programs[-1:]:
        table.append(_program(what, partial(locate, settings), needed_for, without))
    if kind.real:
        table.append(Row(f"Dynamo {settings.dynamo}", _dynamo(settings), "the system under test", ""))
    table.append(Row("target", f"{settings.target}: {kind.description}", "where Dynamo runs", ""))
    for name, capability in kind.capabilities(kind.needs).items():
        need, found = kind.needs[name], f"{'yes' if capability.available else 'no'}: {capability.detail}"
        skipped = f"@{need.tag}" if need.tag and not capability.available else ""
        table.append(Row(need.title, found, need.needed_for, skipped))
    return table


def _dynamo(settings: Settings) -> str:
    try:
        return f"installed in {binaries.dynamo_python(settings.dynamo).parent.parent.relative_to(ROOT)}"
    except FileNotFoundError:
        return "not installed yet, make acceptance does it"


def _program(what: str, locate: Callable[[], Path], needed_for: str, without: str) -> Row:
    try:
        program = locate()
        origin = "from pip" if program.is_relative_to(sys.prefix) else str(program)
        return Row(what, f"{binaries.version(program)}, {origin}", needed_for, "")
    except (FileNotFoundError, RuntimeError) as error:
        return Row(what, f"no: {error}", needed_for, without)


def table(lines: list[Row]) -> str:
    """``lines`` as text in columns, with a heading."""
    lines = [
        Row("what", "found", "needed for", "therefore skipped"),
        *(row._replace(skipped=row.skipped or "-") for row in lines),
    ]
    widths = [max(len(row[column]) for row in lines) for column in range(3)]
    return "\n".join("  ".join([*map(str.ljust, row[:3], widths), row.skipped]) for row in lines)


def main() -> None:
    """Print the table. Exit status 1 when the settings are wrong or no scenario at all could run."""
    try:
        settings = Settings.load()
    except ValueError as error:
        sys.exit(f"doctor: {error}")
    lines = rows(settings)
    print(table(lines))
    if any(row.skipped == "everything" for row in lines):
        sys.exit("doctor: no scenario can run here")


if __name__ == "__main__":
    main()
