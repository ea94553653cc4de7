"""A running Dynamo, live on the terminal: who is listed, what is in flight, what was moved, given up or refused.

``python -m support.run.watch``
    the deployment of ``make up`` and the wreck that ``KEEP=failed`` has left, or, with the setting ``frontend_url``
    (``FRONTEND_URL=http://host:8000 make watch``), any frontend; until Ctrl-C, or until nothing is left of what is
    watched. Into a file or a pipe it looks once.

It asks the frontend for its list and its metrics once a second. Of what the suite runs it also shows every process,
what is registered of it, and the faults that are on.
"""

import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from support import releases
from support.amounts import amount
from support.contract.fault_service import FaultService
from support.errors import Refused
from support.observe.health import Instance, instances, models
from support.observe.metrics import ScrapeError, scrape
from support.run.keeping import UP, WRECK, Stay
from support.settings import Settings

WORKERS = ("worker", "prefill", "decode")
PERIOD_SECONDS = 1.0
WIDTH = 120
"""Of what goes into a file or a pipe."""
ANSWER_SECONDS = 2.0
COUNTS = {
    "in flight": "frontend_inflight",
    "queued": "frontend_queued",
    "done": "frontend_requests",
    "migrated": "frontend_migrations",
    "cancelled": "frontend_cancellations",
    "rejected": "frontend_rejections",
}
"""What is shown of a frontend -> the name of its metric in the release table; all but the first two only grow."""


@dataclass(frozen=True)
class Look:
    """What one look has shown.

    Attributes:
        at: when, on the clock of :func:`time.monotonic`.
        url: of the frontend.
        title: of a deployment that stays, and until when it does, in words.
        counts: name in :data:`COUNTS` -> its value; None where the frontend does not answer.
        failed: requests that ended in an error and were not cancelled.
        listed: workers in the frontend's list; None where it does not answer.
        models: what it serves.
        nodes: of a deployment that stays, as :meth:`support.run.keeping.Stay.ask` has them.
        faults: those that are on, as the fault service has them.
        missing: what did not answer, in words.
    """

    at: float
    url: str
    title: str = ""
    counts: Mapping[str, float] | None = None
    failed: float = 0.0
    listed: Sequence[Instance] | None = None
    models: Sequence[str] = ()
    nodes: Sequence[Mapping[str, Any]] = ()
    faults: Sequence[Mapping[str, Any]] = ()
    missing: list[str] = field(default_factory=list)


def look_at(frontend_url: str, names: Mapping[str, str]) -> Look:
    """One look at a frontend; it takes a few seconds at the most where it does not answer.

    Args:
        frontend_url: its base URL.
        names: key -> name of a metric in the release under test.
    """
    url = frontend_url.rstrip("/")
    try:
        page = scrape(f"{url}/metrics", ANSWER_SECONDS)
    except ScrapeError as error:
        return Look(time.monotonic(), url, missing=[str(error)])
    counts = {title: page.value(names[key]) or 0.0 for title, key in COUNTS.items()}
    errors = page.series(names["frontend_requests"], status="error")
    failed = sum(each.value for each in errors if each.labels.get("error_type") != "cancelled")
    return Look(time.monotonic(), url, "", counts, failed, instances(url), models(url) or ())


def look_into(stay: Stay) -> Look:
    """One look at a deployment that stays: at its frontend, its processes and its faults."""
    try:
        told = stay.ask()
    except (OSError, ValueError) as error:
        return Look(time.monotonic(), "", stay.called, missing=[f"it says nothing about itself: {error}"])
    until = f", until {told['until']}" if told["until"] else ""
    seen = look_at(told["frontend"], releases.get(told["dynamo"]).metrics)
    seen = replace(seen, title=f"{told['title']}{until}", nodes=told["nodes"])
    try:
        return replace(seen, faults=FaultService(told["service"]).faults(active=True))
    except Refused as error:
        return replace(seen, missing=[*seen.missing, f"its faults cannot be listed: {error}"])


def picture(seen: Look, before: Look | None) -> RenderableType:
    """What is shown of a look; rates come from the one before."""
    head = Text(f"{seen.title}\n" if seen.title else "", no_wrap=True, overflow="ellipsis")
    head.append(seen.url, style="bold").append(f"  {', '.join(seen.models) or 'no model'}")
    if seen.listed is not None:
        head.append(f"  {amount(len(seen.listed), 'worker')} listed", style="" if seen.listed else "bold red")
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
    table.add_column("process", no_wrap=True, min_width=max(len(node["name"]) for node in seen.nodes))
    for title in ("role", "address", "state", "restarts", "in flight", "registered as"):
        table.add_column(title, no_wrap=True)
    registered = {f"{each.number:x}" for each in seen.listed or ()}
    for node in seen.nodes:
        silent = node["in_flight"] is None and node["role"] in (*WORKERS, "frontend")
        flight = "no answer" if silent else "" if node["in_flight"] is None else f"{node['in_flight']:g}"
        there = [number for number in node["numbers"] if number in registered]
        # With no frontend that answers nobody knows; a dead worker stays registered until its lease is over.
        said = "unknown" if seen.listed is None and node["numbers"] else ", ".join(there)
        row = [node["name"], node["role"], node["address"], node["state"], str(node["restarts"]), flight, said]
        table.add_row(*row, style="bold red" if silent or node["state"] != "running" else "")
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

    def looks() -> list[Look]:
        if settings.frontend_url:
            return [look_at(settings.frontend_url, releases.get(settings.dynamo).metrics)]
        return [look_into(stay) for stay in (UP, WRECK) if stay.owner()]

    seen = looks()
    if not seen:
        message = "watch: nothing is up; start a deployment with make up, or name a frontend: "
        raise SystemExit(message + "FRONTEND_URL=http://localhost:8000 make watch")
    console = Console()
    if not console.is_terminal:
        Console(width=WIDTH).print(_pictures(seen, []))
        sys.exit(1 if any(each.missing for each in seen) else 0)
    with Live(_pictures(seen, []), console=console, auto_refresh=False) as live, contextlib.suppress(KeyboardInterrupt):
        while seen:
            time.sleep(PERIOD_SECONDS)
            before, seen = seen, looks()
            live.update(_pictures(seen, before), refresh=True)
        console.print("watch: nothing is up any more")


def _pictures(seen: Sequence[Look], before: Sequence[Look]) -> RenderableType:
    earlier = {each.url: each for each in before}
    return Group(*(picture(each, earlier.get(each.url)) for each in seen))


if __name__ == "__main__":
    main()
