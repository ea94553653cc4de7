"""All that a scenario makes on a cluster is in one place, carries its labels, has a lease, and is removed as a whole.

The place is a namespace of its own, or a namespace that the user names; there everything is owned by one ConfigMap, and
goes with it. The lease is an annotation of the namespace or the ConfigMap, by the API server's clock. The scenario
renews it; the next scenario removes what is past its lease: its owner has been killed.
"""

import contextlib
import os
import re
import secrets
import threading
import time
from datetime import UTC, datetime

from support.errors import DeploymentFailed
from support.targets.kubernetes.api import MANAGED, MANAGER, ApiServer, ClusterError, Object

PREFIX = "fault-tolerance.dynamo"
RUN, SCENARIO, LEASE = f"{PREFIX}/run", f"{PREFIX}/scenario", f"{PREFIX}/lease-until"
LEASE_SECONDS, RENEW_SECONDS = 120.0, 30.0
# A namespace goes once its pods have ended, which may take their whole grace period.
GONE_SECONDS, USABLE_SECONDS = 90.0, 30.0
QUOTA = {"pods": "40", "services": "24", "requests.cpu": "32", "requests.memory": "64Gi"}
"""Most of what a scenario may have in a namespace of its own; far more than any needs."""


def stamp(at: float) -> str:
    """A time in seconds since the epoch, as an annotation has it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def overdue(thing: Object, now: float) -> bool:
    """Whether the lease of a namespace or a ConfigMap has run out; what has none, or none that can be read, is not
    ours to remove.
    """
    until = thing["metadata"].get("annotations", {}).get(LEASE, "")
    try:
        return datetime.fromisoformat(until).timestamp() < now
    except ValueError:
        return False


def label(text: str) -> str:
    """A text as the value of a label: at most 63 letters, digits, ``-``, ``_`` and ``.``."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[-63:].strip("-_.")


class Scope:
    """The place of one scenario; it is there from :meth:`open` to :meth:`close`.

    Args:
        cluster: where.
        run: name of the run; ``scenario``: what the scenario is called.
        namespace: the user's; None: a new one.

    Attributes:
        namespace: its name; labels: on everything in it; owner: to be named as owner by everything in it, if any.
    """

    def __init__(self, cluster: ApiServer, run: str, scenario: str, namespace: str | None) -> None:
        self.cluster = cluster
        self.own = namespace is None
        self.namespace = namespace or f"dynamo-ft-{secrets.token_hex(4)}"
        self.labels = {MANAGED: MANAGER, RUN: label(run), SCENARIO: label(scenario)}
        self.owner: list[Object] = []
        self._name = self.namespace if self.own else "dynamo-ft"
        self._kind = "Namespace" if self.own else "ConfigMap"
        self._over = threading.Event()
        self._ahead = 0.0
        self._opened = False

    @property
    def selector(self) -> str:
        """Finds what belongs to this scenario."""
        return ",".join(f"{name}={value}" for name, value in self.labels.items())

    def open(self) -> None:
        """Make it, and keep its lease alive from now on.

        Raises:
            ClusterError: the account may not.
            DeploymentFailed: another scenario has the namespace that the user named.
        """
        self._ahead = self.cluster.server_time() - time.time()
        if not self.own:
            self._see_free()
        made = self.cluster.apply(self._holder(), self.namespace)
        self._opened = True
        if self.own:
            quota = {"kind": "ResourceQuota", "apiVersion": "v1", "spec": {"hard": QUOTA}}
            self.cluster.apply(quota | {"metadata": {"name": "dynamo-ft", "labels": self.labels}}, self.namespace)
            self._see_usable()
        else:
            about = {"apiVersion": "v1", "kind": "ConfigMap", "name": self._name, "uid": made["metadata"]["uid"]}
            self.owner = [about | {"controller": False, "blockOwnerDeletion": False}]
        threading.Thread(target=self._renew, name="lease", daemon=True).start()

    def _see_usable(self) -> None:
        """Wait until pods are no longer refused for lack of an account or of a quota count."""
        until = time.monotonic() + USABLE_SECONDS
        while True:
            quota = self.cluster.get("ResourceQuota", self.namespace, "dynamo-ft") or {}
            if quota.get("status", {}).get("hard") and self.cluster.get("ServiceAccount", self.namespace, "default"):
                return
            if time.monotonic() > until:
                raise DeploymentFailed(
                    f"the namespace {self.namespace} has no account or no counted quota after {USABLE_SECONDS:g} s; "
                    "see that the cluster's controllers run"
                )
            time.sleep(0.05)

    def _see_free(self) -> None:
        found = self.cluster.get("ConfigMap", self.namespace, self._name)
        if found is None:
            return
        labels = found["metadata"].get("labels", {})
        if not overdue(found, self.cluster.server_time()):
            raise DeploymentFailed(
                f"the namespace {self.namespace} is taken by the run {labels.get(RUN, '?')}; wait for its end, or for "
                f"its lease: {found['metadata'].get('annotations', {}).get(LEASE, 'none')}"
            )
        self.cluster.delete("ConfigMap", self.namespace, self._name)
        until = time.monotonic() + GONE_SECONDS
        while left := self.cluster.list("Pod", self.namespace, f"{MANAGED}={MANAGER}"):
            if time.monotonic() > until:
                names = ", ".join(each["metadata"]["name"] for each in left)
                raise DeploymentFailed(f"pods of an earlier run are still in the namespace {self.namespace}: {names}")
            time.sleep(0.2)

    def _holder(self) -> Object:
        notes = {LEASE: self._lease()}
        about = {"name": self._name, "labels": self.labels, "annotations": notes}
        return {"kind": self._kind, "apiVersion": "v1", "metadata": about}

    def _lease(self) -> str:
        return stamp(time.time() + self._ahead + LEASE_SECONDS)

    def _renew(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            with contextlib.suppress(ClusterError):  # the next one may come through; what is there is told at the end
                self.cluster.annotate(self._kind, self.namespace, self._name, {LEASE: self._lease()})

    def place(self, manifests: list[Object]) -> None:
        """Apply manifests here, in their order, with the labels of the scenario and its owner."""
        for each in manifests:
            about, spec = each["metadata"], each.get("spec", {})
            whole = about | {"labels": self.labels | about.get("labels", {}), "namespace": self.namespace}
            owned = {"ownerReferences": self.owner} if self.owner else {}
            made = each | {"metadata": whole | owned}
            if template := spec.get("template"):
                inner = {"labels": self.labels | template["metadata"]["labels"]}
                made["spec"] = spec | {"template": template | {"metadata": inner}}
            self.cluster.apply(made, self.namespace)

    def close(self) -> list[str]:
        """Remove everything and see it gone; returns what is still there, one line each."""
        self._over.set()
        if not self._opened:
            return []
        # Before the namespace, which would else wait for their grace periods.
        for kind in ("StatefulSet", "Deployment", "Pod"):
            for each in self.cluster.list(kind, self.namespace, self.selector):
                self.cluster.delete(kind, self.namespace, each["metadata"]["name"], grace=0)
        self.cluster.delete(self._kind, self.namespace, self._name)
        until, left = time.monotonic() + GONE_SECONDS, self._left()
        while left and time.monotonic() < until:
            time.sleep(0.2)
            left = self._left()
        return left

    def _left(self) -> list[str]:
        if self.own:
            found = self.cluster.get("Namespace", "", self.namespace)
            return [f"namespace {self.namespace}: {found['status'].get('phase', '?')}"] if found else []
        kinds = ("Pod", "StatefulSet", "Deployment", "Service", "ConfigMap")
        things = {kind: self.cluster.list(kind, self.namespace, self.selector) for kind in kinds}
        return [f"{kind} {each['metadata']['name']}" for kind, found in things.items() for each in found]


def reap(cluster: ApiServer, namespace: str | None, everything: bool = False) -> list[str]:
    """Remove what is past its lease, whoever made it; returns what was removed.

    Args:
        namespace: the one that the user may use; None: look at all namespaces.
        everything: whether what still has a lease goes as well.
    """
    now = cluster.server_time()
    removed = _uncordon_overdue(cluster, now, everything)
    if namespace:
        found = cluster.get("ConfigMap", namespace, "dynamo-ft")
        things = [found] if found else []
        kind = "ConfigMap"
    else:
        things, kind = cluster.list("Namespace", labels=f"{MANAGED}={MANAGER}"), "Namespace"
    for each in things:
        about = each["metadata"]
        leased = LEASE in about.get("annotations", {})
        if not about.get("deletionTimestamp") and leased and (everything or overdue(each, now)):
            cluster.delete(kind, namespace or "", about["name"])
            removed.append(f"{kind.lower()} {about['name']} of the run {about.get('labels', {}).get(RUN, '?')}")
    return removed


def cordon(cluster: ApiServer, machine: str, seconds: float) -> None:
    """Have a machine take no new pods, under a lease."""
    until = stamp(cluster.server_time() + seconds)
    cluster.patch("Node", "", machine, {"metadata": {"annotations": {LEASE: until}}, "spec": {"unschedulable": True}})


def uncordon(cluster: ApiServer, machine: str) -> None:
    """Have it take pods again."""
    cluster.patch("Node", "", machine, {"metadata": {"annotations": {LEASE: None}}, "spec": {"unschedulable": None}})


def _uncordon_overdue(cluster: ApiServer, now: float, everything: bool) -> list[str]:
    removed = list[str]()
    with contextlib.suppress(ClusterError):  # who may not see nodes has cordoned none
        for each in cluster.list("Node"):
            leased, name = LEASE in each["metadata"].get("annotations", {}), each["metadata"]["name"]
            if leased and (everything or overdue(each, now)):
                uncordon(cluster, name)
                removed.append(f"the cordon of {name}")
    return removed


def run_name() -> str:
    """What the run of this process is called: its folder's name, where the launcher has made one."""
    return os.path.basename(os.environ.get("FT_RUN_DIR", "")) or f"pid-{os.getpid()}"
