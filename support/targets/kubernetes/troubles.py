"""Why pods do not become ready, in one sentence, from what the cluster says of them."""

import contextlib
from collections.abc import Mapping

from support.targets.kubernetes.api import ApiServer, ClusterError, Object
from support.targets.kubernetes.lives import how_ended, main_status

UNPULLABLE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError")
UNMAKEABLE = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
EVENTS = 3
"""So many of the last events of a pod are told."""


def hopeless(pods: Mapping[str, Object | None]) -> str:
    """What waiting will not fix, in a sentence; empty while there is hope."""
    for name, pod in pods.items():
        if pod is None:
            continue
        status = main_status(pod)
        waiting = status.get("state", {}).get("waiting", {})
        image = status.get("image") or pod["spec"]["containers"][0]["image"]
        if waiting.get("reason") in UNPULLABLE:
            return (
                f"the image {image} of {name} cannot be pulled ({waiting['reason']}: {waiting.get('message', '')}); "
                "name one that the nodes can have with -D dynamo_image=IMAGE and -D suite_image=IMAGE"
            )
        if waiting.get("reason") in UNMAKEABLE:
            return f"the container of {name} cannot be made ({waiting['reason']}: {waiting.get('message', '')})"
        if pod["status"].get("phase") == "Failed":
            ended = status.get("state", {}).get("terminated", {})
            why = pod["status"].get("message") or ended.get("message") or ended.get("reason") or "no reason is given"
            return f"{name} {how_ended(ended)} while it was needed: {why}"
    return ""


def waits(name: str, pod: Object | None) -> str:
    """What a pod that is not ready lacks, in words; empty for one that is ready."""
    if pod is None:
        return f"{name} is not there"
    conditions = {each["type"]: each for each in pod["status"].get("conditions", [])}
    scheduled, ready = conditions.get("PodScheduled", {}), conditions.get("Ready", {})
    if scheduled.get("status") == "False":
        return f"no node takes {name}: {scheduled.get('message', scheduled.get('reason', '?'))}"
    if ready.get("status") == "True":
        return ""
    waiting = main_status(pod).get("state", {}).get("waiting", {})
    why = waiting.get("message") or waiting.get("reason") or ready.get("message") or "no reason is given"
    return f"{name} is {pod['status'].get('phase', '?')} and not ready: {why}"


def seen(cluster: ApiServer, namespace: str, pods: Mapping[str, Object | None]) -> str:
    """What the cluster says of pods that are not ready, with the last events of each."""
    told = []
    for name, pod in pods.items():
        if lack := waits(name, pod):
            told.append(lack + _events(cluster, namespace, name if pod else name.rpartition("-")[0]))
    return "; ".join(told) or "every pod is ready"


def _events(cluster: ApiServer, namespace: str, name: str) -> str:
    with contextlib.suppress(ClusterError):
        found = cluster.list("Event", namespace, fields=f"involvedObject.name={name}")
        found.sort(key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or ""))
        told = [f"{each.get('reason')}: {str(each.get('message', '')).strip()}" for each in found[-EVENTS:]]
        return f" (events: {' | '.join(told)})" if told else ""
    return ""
