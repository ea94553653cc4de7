"""What workers and frontend say of requests, from their metrics pages."""

import re
from collections.abc import Mapping

from support import slowness
from support.contract.deployment import Node
from support.observe.metrics import Exposition, ScrapeError, scrape

ENDPOINT = "generate"
# An answer takes milliseconds; a hung worker gives none, and every look at the fleet waits this long for it.
SCRAPE_SECONDS = 0.5


def try_scrape(node: Node) -> Exposition | None:
    """A node's metrics; None when it has none or does not answer (dead, hung, cut off)."""
    if node.metrics_url is None:
        return None
    try:
        return scrape(node.metrics_url, SCRAPE_SECONDS * slowness.factor())
    except ScrapeError:
        return None


def _count(node: Node, name: str) -> float | None:
    metrics = try_scrape(node)
    return None if metrics is None else metrics.value(name, dynamo_endpoint=ENDPOINT)


def worker_id(node: Node) -> str | None:
    """What Dynamo calls the worker, in hex as etcd has it: the id of its lease and of its instance; None when it does
    not answer or has no endpoint yet.
    """
    metrics = try_scrape(node)
    named = re.search(r'worker_id="(?P<id>[0-9a-f]+)"', metrics.text) if metrics else None
    return named["id"] if named else None


def requests_served(node: Node, names: Mapping[str, str]) -> float | None:
    """Requests that the worker has been given since it started; None when it does not tell."""
    return _count(node, names["worker_requests"])


def in_flight(node: Node, names: Mapping[str, str]) -> float | None:
    """Requests that the worker says it is working on; None when it does not tell."""
    return _count(node, names["worker_inflight"])


def produced_bytes(node: Node, names: Mapping[str, str]) -> float | None:
    """Bytes of answers that the worker has sent since it started; None when it does not tell."""
    return _count(node, names["worker_response_bytes"])
