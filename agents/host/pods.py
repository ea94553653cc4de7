"""The pods of a cluster, asked from the Kubernetes API with the service account of the pod that asks."""

import fnmatch
import os
import ssl
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ANSWER_SECONDS = 5.0
MAIN_CONTAINER = "kubectl.kubernetes.io/default-container"
"""Annotation that names the container that is meant where none is named."""


class PodsError(Exception):
    """The API cannot be asked, or refuses."""


@dataclass(frozen=True)
class Pod:
    """A pod.

    Attributes:
        name: ``NAMESPACE/POD``.
        node: name of the machine that it is on.
        wants_gpu: whether its containers ask for one.
        main: the container that is meant where none is named: that of :data:`MAIN_CONTAINER`, ``main``, or the first.
        containers: name -> id of each that runs, as the container runtime and the cgroups of its processes have it.
        labels: those of the pod.
    """

    name: str
    uid: str
    address: str
    phase: str
    node: str = ""
    wants_gpu: bool = False
    main: str = ""
    containers: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


class Api:
    """The API server.

    Args:
        url: where it is.
        account: folder with ``token`` and ``ca.crt``; read for each request, for tokens are exchanged every hour.
    """

    def __init__(self, url: str, account: Path) -> None:
        self._url, self._account = url, account

    @classmethod
    def of_this_cluster(cls) -> "Api | None":
        """The one whose service account this process has been given; None outside of a cluster."""
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
        if not host or not port or not (ACCOUNT / "token").exists():
            return None
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}", ACCOUNT)

    async def pods(self, namespace: str, node: str = "") -> list[Pod]:
        """The pods of a namespace, or of all whose names match a pattern with ``*`` or ``?``.

        Args:
            node: the machine that they are on; empty: wherever they are.

        Raises:
            PodsError: no answer, no trust in it, or it refuses.
        """
        pattern = any(sign in namespace for sign in "*?[")
        scope = "" if pattern else f"/namespaces/{urllib.parse.quote(namespace, safe='')}"
        query = {"fieldSelector": f"spec.nodeName={node}"} if node else {}
        found = [_pod(each) for each in await self._items(f"/api/v1{scope}/pods", query)]
        return [pod for pod in found if fnmatch.fnmatchcase(pod.name.partition("/")[0], namespace) or not pattern]

    async def _items(self, path: str, query: dict[str, str]) -> list[dict[str, Any]]:
        try:
            trust = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
            headers = {"Authorization": f"Bearer {(self._account / 'token').read_text().strip()}"}
            timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
            connector = aiohttp.TCPConnector(ssl=trust)
            async with (
                aiohttp.ClientSession(timeout=timeout, connector=connector, headers=headers) as session,
                session.get(self._url + path, params=query) as answer,
            ):
                if answer.status != 200:
                    raise PodsError(f"the Kubernetes API answers {answer.status} to {path}")
                content = await answer.json()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise PodsError(f"the Kubernetes API does not answer: {type(error).__name__}: {error}") from None
        items: list[dict[str, Any]] = content["items"]
        return items


def _pod(item: dict[str, Any]) -> Pod:
    about, spec, status = item["metadata"], item["spec"], item.get("status", {})
    containers = spec.get("containers", [])
    resources = [container.get("resources", {}) for container in containers]
    asked = [name for each in resources for name in (each.get("limits") or {})]
    wants = any(name.startswith("nvidia.com/") for name in asked) or any(each.get("claims") for each in resources)
    names = [str(each.get("name", "")) for each in containers]
    named = (about.get("annotations") or {}).get(MAIN_CONTAINER) or ("main" if "main" in names else "")
    running = {
        each["name"]: each["containerID"].rpartition("://")[2]
        for each in status.get("containerStatuses") or []
        if each.get("containerID") and "running" in each.get("state", {})
    }
    return Pod(
        name=f"{about['namespace']}/{about['name']}",
        uid=about["uid"],
        address=status.get("podIP", ""),
        phase=status.get("phase", "Unknown"),
        node=spec.get("nodeName", ""),
        wants_gpu=wants,
        main=named or (names[0] if names else ""),
        containers=running,
        labels=about.get("labels") or {},
    )


def names(cgroup: str, pod: Pod) -> bool:
    """Whether a process with this ``/proc/PID/cgroup`` runs in the pod: the path has the pod's uid."""
    return pod.uid in cgroup or pod.uid.replace("-", "_") in cgroup  # systemd wants no dash in the name of a slice


def is_of(pid: int, pod: Pod) -> bool:
    """Whether a process of this machine runs in the pod; not when it is gone."""
    return names(cgroup_of(pid), pod)


def cgroup_of(pid: int) -> str:
    """``/proc/PID/cgroup``; empty when the process is gone."""
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cgroup").read_bytes())
    except OSError:
        return ""
