"""The lives of pods: what the kubelets say of their containers, as it is said, and what the containers write."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Hashable
from pathlib import Path

from support.clock import now
from support.contract.deployment import Change, Life
from support.targets.kubernetes.api import ApiServer, ClusterError, Object, place
from support.targets.kubernetes.manifests import MAIN
from support.targets.kubernetes.names import Names

WATCH_SECONDS = 300
LEAVING = "deletionTimestamp"
"""What the metadata of a pod have that is on its way out."""
RETRY_SECONDS = 0.5
# The log of a container that has ended comes to its end at once; one of a pod that is gone may never.
LAST_LINES_SECONDS = 5.0


Identity = tuple[str, str | None]
"""UID of a pod and ID of its container, ``identity`` of :class:`support.contract.deployment.Life`."""


def main_status(pod: Object) -> Object:
    """What the kubelet says of the container with the program; empty while it says nothing."""
    found = pod.get("status", {}).get("containerStatuses") or []
    return next((dict(each) for each in found if each["name"] == MAIN), {})


def is_ready(pod: Object) -> bool:
    """Whether the kubelet says that a pod can serve."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def is_up(pod: Object) -> bool:
    """Whether a pod's program runs or is still to come; its phase says so a moment after its container has ended."""
    ended = "terminated" in main_status(pod).get("state", {})
    return pod["status"].get("phase") in ("Pending", "Running") and not ended and not pod["metadata"].get(LEAVING)


def _container(state: Object, status: Object) -> str | None:
    return state.get("containerID") or status.get("containerID") or None


def exit_code(terminated: Object) -> int | None:
    """Of a container that has ended: its exit status, negative for the signal that ended it; None: nobody knows."""
    code = terminated.get("exitCode")
    if code is None or terminated.get("reason") == "ContainerStatusUnknown":
        return None
    return 128 - int(code) if 128 < int(code) <= 128 + signal.NSIG else int(code)


def how_ended(terminated: Object) -> str:
    """The end of a container in words."""
    code = exit_code(terminated)
    if code is None:
        return "ended in an unknown way"
    return f"exited with status {code}" if code >= 0 else f"was ended by signal {-code}"


def words(uid: str, container: str | None) -> str:
    """What a person calls a life."""
    short = (container or "").rpartition("/")[2][:12] or "none yet"
    return f"container {short} of pod {uid[:8]}"


def life_of(name: str, pod: Object | None, before: Life | None, restarts: int) -> Life:
    """The life of a node now, or the last one.

    Args:
        pod: as the API server has it; None: there is none of that name.
        before: the last life that was seen.
        restarts: how many lives there were before this one.
    """
    if pod is None:
        if before is None:
            return Life(name, ("", None), "no pod", "waiting", 0)
        return Life(name, before.identity, before.words, "ended", before.restarts)
    uid, status = pod["metadata"]["uid"], main_status(pod)
    state = status.get("state", {})
    if "running" in state:
        container, word = status.get("containerID"), "running"
    elif "terminated" in state:
        container = _container(state["terminated"], status)
        word = "waiting" if pod["spec"].get("restartPolicy") == "Always" else "ended"
        if pod["spec"].get("restartPolicy") == "OnFailure" and state["terminated"].get("exitCode"):
            word = "waiting"
    else:
        last = status.get("lastState", {}).get("terminated", {})
        container, word = _container(last, status) if last else None, "waiting"
    if pod["metadata"].get(LEAVING) and word == "waiting":
        word = "ended"
    return Life(name, (uid, container), words(uid, container), word, restarts)


class Watcher:
    """Follows all pods of a scenario; keeps each as it was last seen, its changes, and what its containers write.

    Args:
        selector: finds the pods.
        names: which pod is which node.
        logs: folder that gets ``NAME.log``, and ``NAME.journal.jsonl`` of a worker of the ruler engine.
    """

    def __init__(self, cluster: ApiServer, namespace: str, selector: str, logs: Path, names: Names) -> None:
        self._cluster, self._namespace, self._selector, self._logs = cluster, namespace, selector, logs
        self._names = names
        self._lock = threading.Lock()
        self._pods: dict[str, Object] = {}
        self._lives: dict[str, list[Identity]] = {}
        self._ended: set[Identity] = set()
        self._changes: list[Change] = []
        self._followers: dict[Identity, threading.Thread] = {}
        self._over = False
        threading.Thread(target=self._watch, name="pods", daemon=True).start()

    # -- what is asked of it

    def pod(self, name: str) -> Object | None:
        """A pod as it was last seen; None: there is none."""
        with self._lock:
            return self._pods.get(name)

    def life(self, name: str) -> Life:
        """The life of a node as the API server has it right now, or its last one."""
        pod = self._cluster.get("Pod", self._namespace, self._names.pod(name))
        with self._lock:
            if pod is not None:
                self._see(name, pod)
            seen = self._lives.get(name, [])
            before = None
            if seen:
                before = Life(name, seen[-1], words(*seen[-1]), "ended", len(seen) - 1)
            return life_of(name, pod, before, max(0, len(seen) - 1))

    def changes(self) -> list[Change]:
        """All so far, oldest first."""
        with self._lock:
            return sorted(self._changes, key=lambda each: each.at)

    def note(self, name: str, which: Hashable, state: str, detail: str) -> None:
        """Add a change that no kubelet tells of: a process that was stopped, or goes on."""
        with self._lock:
            self._changes.append(Change(now(), name, which, state, detail))

    def close(self) -> None:
        """Have the last lines written, and look no more."""
        self._over = True
        until = time.monotonic() + LAST_LINES_SECONDS
        for follower in list(self._followers.values()):
            follower.join(max(0.0, until - time.monotonic()))

    # -- how it knows

    def _watch(self) -> None:
        while not self._over:
            try:
                self._watch_once()
            except (ClusterError, ValueError):  # it breaks off now and then; the list tells what was missed
                time.sleep(RETRY_SECONDS)

    def _watch_once(self) -> None:
        path = place("Pod", self._namespace)
        found = self._cluster.call("GET", path, query={"labelSelector": self._selector})
        with self._lock:
            there = {self._names.node(each): each for each in found["items"]}
            for name in [name for name in self._pods if name not in there]:
                self._gone(name, self._pods[name])
            for name, pod in there.items():
                self._see(name, pod)
        query = {
            "labelSelector": self._selector,
            "watch": "true",
            "resourceVersion": found["metadata"]["resourceVersion"],
            "timeoutSeconds": WATCH_SECONDS,
        }
        for line in self._cluster.lines(path, query):
            event = json.loads(line)
            if event["type"] == "ERROR" or self._over:
                return
            with self._lock:
                name = self._names.node(event["object"])
                self._see(name, event["object"])
                if event["type"] == "DELETED":
                    self._gone(name, event["object"])

    def _see(self, name: str, pod: Object) -> None:
        known = self._pods.get(name)
        uid = pod["metadata"]["uid"]
        if known and known["metadata"]["uid"] == uid and _version(pod) < _version(known):
            return
        if known and known["metadata"]["uid"] != uid:
            self._gone(name, known)
        self._pods[name] = pod
        status = main_status(pod)
        last = status.get("lastState", {}).get("terminated")
        if last:
            self._born(name, uid, _container(last, status))
            self._dead(name, (uid, _container(last, status)), last)
        state = status.get("state", {})
        if "running" in state or "terminated" in state:
            container = _container(state.get("terminated", {}), status)
            self._born(name, uid, container)
            if "terminated" in state:
                self._dead(name, (uid, container), state["terminated"])

    def _born(self, name: str, uid: str, container: str | None) -> None:
        which: Identity = (uid, container)
        if container is None or which in self._lives.setdefault(name, []):
            return
        self._lives[name].append(which)
        told = words(uid, container)
        self._changes += [Change(now(), name, which, "starting", told), Change(now(), name, which, "running", told)]
        self._followers[which] = threading.Thread(target=self._follow, args=(name, which), name="log", daemon=True)
        self._followers[which].start()

    def _dead(self, name: str, which: Identity, terminated: Object) -> None:
        if which in self._ended:
            return
        self._ended.add(which)
        code = exit_code(terminated)
        detail = f"{how_ended(terminated)} ({terminated.get('reason', 'no reason given')})"
        state = "stopped" if code is not None and code >= 0 else "dead"
        self._changes.append(Change(now(), name, which, state, detail, code))

    def _gone(self, name: str, pod: Object) -> None:
        if self._pods.get(name, {}).get("metadata", {}).get("uid") == pod["metadata"]["uid"]:
            del self._pods[name]
        for which in self._lives.get(name, []):
            if which not in self._ended and which[0] == pod["metadata"]["uid"]:
                self._ended.add(which)
                self._changes.append(Change(now(), name, which, "dead", "its pod is gone"))

    # -- what containers write

    def _follow(self, name: str, which: Identity) -> None:
        uid, container = which
        path = f"{place('Pod', self._namespace, self._names.pod(name))}/log"
        with contextlib.suppress(ClusterError):
            previous = self._is_previous(name, uid, container)
            query = {"container": MAIN, "previous": "true"} if previous else {"container": MAIN, "follow": "true"}
            with (self._logs / f"{name}.log").open("ab", buffering=0) as log:
                for line in self._cluster.lines(path, query):
                    if line.startswith(b'{"at": ') and b'"event": ' in line:
                        with (self._logs / f"{name}.journal.jsonl").open("ab") as journal:
                            journal.write(line + b"\n")
                    else:
                        log.write(line + b"\n")

    def _is_previous(self, name: str, uid: str, container: str | None) -> bool:
        pod = self._cluster.get("Pod", self._namespace, self._names.pod(name))
        if pod is None or pod["metadata"]["uid"] != uid:
            return False
        return main_status(pod).get("containerID") != container


def _version(pod: Object) -> int:
    """Versions are numbers of one store, which rise."""
    return int(pod["metadata"].get("resourceVersion", 0))
