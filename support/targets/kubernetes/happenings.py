"""What the cluster itself tells of a scenario's pods and of its nodes, for the timeline."""

import contextlib
import time
from datetime import datetime

from support.clock import now
from support.events import EventLog
from support.targets.kubernetes.api import ApiServer, ClusterError, Object

TOLD = ("Killing", "BackOff", "Unhealthy", "Evicted", "Preempted", "NodeNotReady", "NodeReady", "NodeNotSchedulable")
"""Reasons that are told although their event is not a warning; warnings all are."""


def happened_at(event: Object) -> float | None:
    """When, in seconds since the epoch by the cluster's clocks; None where it does not say."""
    told = event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp")
    with contextlib.suppress(ValueError, TypeError):
        return datetime.fromisoformat(str(told)).timestamp()
    return None


def worth_telling(event: Object) -> bool:
    """Whether it is more than a pod that comes up as it should."""
    return event.get("type") == "Warning" or event.get("reason") in TOLD


def tell(cluster: ApiServer, namespace: str, events: EventLog) -> None:
    """Note what happened to pods, and since then to nodes; times are to the second, as the cluster has them.

    Raises:
        ClusterError: the events cannot be read.
    """
    found = cluster.list("Event", namespace)
    began = min((at for each in found if (at := happened_at(each)) is not None), default=time.time())
    with contextlib.suppress(ClusterError):  # nodes may be nobody's affair here
        nodes = cluster.list("Event", "default", fields="involvedObject.kind=Node")
        found += [each for each in nodes if (happened_at(each) or 0.0) >= began]
    ours, theirs = now(), cluster.server_time()
    for each in found:
        at = happened_at(each)
        if at is None or not worth_telling(each):
            continue
        about = each.get("involvedObject", {})
        kind, message = about.get("kind", "?"), each.get("message", "").strip()
        text = f"{kind} {about.get('name', '?')}: {each.get('reason')}: {message}"
        more = {"reason": each.get("reason"), "count": each.get("count") or 1}
        events.add("note", str(about.get("name", "")), text, at=ours - (theirs - at), **more)
