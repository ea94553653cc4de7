"""A running Dynamo, live on the terminal: who is listed, what is under way, what was moved, given up or refused.

``python -m support.run.watch``
    the deployment of ``make up``, or, with the setting ``frontend_url`` (``FRONTEND_URL=http://host:8000 make watch``),
    any frontend; until Ctrl-C. Into a file or a pipe it looks once.

It asks the frontend for its list and its metrics once a second. Of the deployment of ``make up`` it also shows every
process, and the faults that are on.
"""

import json
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from support import releases
from support.contract.fault_service import FaultService
from support.errors import Refused
from support.observe.health import Instance, instances, models
from support.observe.metrics import ScrapeError, scrape
from support.run import stay
from support.settings import Settings

WORKERS = ("worker", "prefill", "decode")
PERIOD_SECONDS = 1.0
ANSWER_SECONDS = 2.0
COUNTS = {
    "in flight": "frontend_inflight",
    "queued": "frontend_queued",
    "done": "frontend_requests",
    "moved": "frontend_migrations",
    "cancelled": "frontend_cancellations",
    "rejected": "frontend_rejections",
}
"""What is shown of a frontend -> the name of its metric in the release table; all but the first two only grow."""


@dataclass(frozen=True)
class Look:
    """What one look has shown.

    Attributes:
        at: when, on the clock of :func:`time.monotonic`.
        counts: name in :data:`COUNTS` -> its value; None where the frontend does not answer.
        failed: requests that ended in an error and were not cancelled.
        listed: workers in the frontend's list; None where it does not answer.
        models: what it serves.
        nodes: of a deployment of ``make up``: ``name``, ``role``, ``address``, ``state``, ``restarts``, ``in_flight``.
        faults: those that are on, as the fault service has them.
        missing: what did not answer, in words.
    """

    at: float
    counts: Mapping[str, float] | None = None
    failed: float = 0.0
    listed: Sequence[Instance] | None = None
    models: Sequence[str] = ()
    nodes: Sequence[Mapping[str, Any]] = ()
    faults: Sequence[Mapping[str, Any]] = ()
    missing: list[str] = field(default_factory=list)


class Watch:
    """Looks at a frontend, and at a deployment of ``make up`` where it is that.

    Args:
        frontend_url: its base URL.
        names: key -> name of a metric in the release under test.
        service: fault service to ask for the faults that are on; None: nobody is asked.
    """

    def __init__(self, frontend_url: str, names: Mapping[str, str], service: FaultService | None = None) -> None:
        self.frontend_url, self._names, self._service = frontend_url.rstrip("/"), names, service

    def look(self) -> Look:
        """One look; it takes a few seconds at the most where somebody does not answer."""
        missing, counts, failed = list[str](), None, 0.0
        try:
            page = scrape(f"{self.frontend_url}/metrics", ANSWER_SECONDS)
            counts = {title: page.value(self._names[key]) or 0.0 for title, key in COUNTS.items()}
            errors = page.series(self._names["frontend_requests"], status="error")
            failed = sum(each.value for each in errors if each.labels.get("error_type") != "cancelled")
        except ScrapeError as error:
            missing.append(str(error))
        listed = instances(self.frontend_url) if counts is not None else None
        found = models(self.frontend_url) if counts is not None else None
        nodes: Sequence[Mapping[str, Any]] = ()
        faults: Sequence[Mapping[str, Any]] = ()
        if self._service:
            try:
                nodes = ask_state()
                faults = self._service.faults(active=True)
            except (OSError, ValueError, Refused) as error:
                missing.append(f"the deployment of make up does not tell of itself: {error}")
        return Look(time.monotonic(), counts, failed, listed, found or (), nodes, faults, missing)


def ask_state() -> list[Mapping[str, Any]]:
    """The nodes of the deployment of ``make up``, as it sees them now.

    Raises:
        OSError, ValueError: it does not answer.
    """
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(ANSWER_SECONDS)
        line.connect(stay.STATE)
        with line.makefile("rb") as stream:
            return list(json.loads(stream.read()))


def picture(url: str, seen: Look, before: Look | None) -> RenderableType:
    """What is shown of a look; rates come from the one before."""
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(url, style="bold").append(f"  {', '.join(seen.models) or 'no model'}")
    if seen.listed is not None:
        count = len(seen.listed)
        head.append(f"  {count} worker{'s' * (count != 1)} listed", style="" if count else "bold red")
    parts: list[RenderableType] = [head]
    if seen.counts is not None:
        parts.append(_counts(seen, before))
    if seen.nodes or seen.listed:
        parts.append(_nodes(seen) if seen.nodes else _listed(seen.listed or ()))
    parts += [Text(f"on  {_fault(each)}", style="bold yellow") for each in seen.faults]
    parts += [Text(each, style="bold red") for each in seen.missing]
    return Group(*parts)


def _counts(seen: Look, before: Look | None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    cells = []
    assert seen.counts is not None
    shown = dict(seen.counts) | {"failed": seen.failed}
    for title, value in shown.items():
        table.add_column(title, justify="right", min_width=9)
        rate = ""
        if before and before.counts is not None and title not in ("in flight", "queued"):
            earlier = before.failed if title == "failed" else before.counts[title]
            rate = f" +{(value - earlier) / (seen.at - before.at):.1f}/s" if value > earlier else ""
        cells.append(f"{value:g}{rate}")
    table.add_row(*cells)
    return table


def _nodes(seen: Look) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("process", "role", "address", "state", "restarts", "in flight", "listed"):
        table.add_column(title)
    transports = [each.transport for each in seen.listed or ()]
    for node in seen.nodes:
        silent = node["in_flight"] is None and node["role"] in WORKERS
        flight = "no answer" if silent else "" if node["in_flight"] is None else f"{node['in_flight']:g}"
        listed = any(f"{node['address']}:" in each for each in transports)
        row = [node["name"], node["role"], node["address"], node["state"], str(node["restarts"]), flight]
        style = "bold red" if silent or node["state"] != "running" else ""
        table.add_row(*row, "yes" if listed else "", style=style)
    return table


def _listed(listed: Sequence[Instance]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("component", "instance", "transport"):
        table.add_column(title)
    for each in listed:
        how = json.loads(each.transport)
        table.add_row(each.component, f"{each.number:x}", ", ".join(map(str, how.values())) if how else "")
    return table


def _fault(fault: Mapping[str, Any]) -> str:
    where = ", ".join(fault.get("targets") or ())
    until = fault.get("expires_at") or ""
    return f"{fault['id']}  {fault['kind']} {fault['type']} {where}" + f"  until {until[11:19]} UTC" * bool(until)


def main() -> None:
    """Entry point.

    Raises:
        SystemExit: there is nothing to watch.
    """
    settings = Settings.load()
    names = releases.get(settings.dynamo).metrics
    if settings.frontend_url:
        watch = Watch(settings.frontend_url, names)
    elif addresses := stay.addresses():
        watch = Watch(addresses["frontend"], names, FaultService(addresses["service"]))
    else:
        message = "watch: nothing is up; start a deployment with make up, or name a frontend: "
        raise SystemExit(message + "FRONTEND_URL=http://localhost:8000 make watch")
    console = Console()
    seen = watch.look()
    if not console.is_terminal:
        console.print(picture(watch.frontend_url, seen, None))
        sys.exit(1 if seen.missing else 0)
    with Live(picture(watch.frontend_url, seen, None), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(PERIOD_SECONDS)
                before, seen = seen, watch.look()
                live.update(picture(watch.frontend_url, seen, before), refresh=True)
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
