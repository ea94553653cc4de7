"""The pods on this node, asked from the Kubernetes API with the service account of the pod that asks."""

import os
import ssl
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ANSWER_SECONDS = 5.0


class PodsError(Exception):
    """The API cannot be asked, or refuses."""


@dataclass(frozen=True)
class Pod:
    """A pod; ``name`` is ``NAMESPACE/POD``, ``wants_gpu`` whether its containers ask for one."""

    name: str
    uid: str
    address: str
    phase: str
    wants_gpu: bool


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

    async def pods(self, namespace: str, node: str) -> list[Pod]:
        """The pods of a namespace that are on a node.

        Raises:
            PodsError: no answer, no trust in it, or it refuses.
        """
        path = f"/api/v1/namespaces/{urllib.parse.quote(namespace, safe='')}/pods"
        try:
            trust = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
            headers = {"Authorization": f"Bearer {(self._account / 'token').read_text().strip()}"}
            timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
            connector = aiohttp.TCPConnector(ssl=trust)
            async with (
                aiohttp.ClientSession(timeout=timeout, connector=connector, headers=headers) as session,
                session.get(self._url + path, params={"fieldSelector": f"spec.nodeName={node}"}) as answer,
            ):
                if answer.status != 200:
                    raise PodsError(f"the Kubernetes API answers {answer.status} to {path}")
                content = await answer.json()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise PodsError(f"the Kubernetes API cannot be asked: {type(error).__name__}: {error}") from None
        return [_pod(each) for each in content["items"]]


def _pod(item: dict[str, Any]) -> Pod:
    about, spec, status = item["metadata"], item["spec"], item.get("status", {})
    resources = [container.get("resources", {}) for container in spec.get("containers", [])]
    asked = [name for each in resources for name in (each.get("limits") or {})]
    wants = any(name.startswith("nvidia.com/") for name in asked) or any(each.get("claims") for each in resources)
    name = f"{about['namespace']}/{about['name']}"
    return Pod(name, about["uid"], status.get("podIP", ""), status.get("phase", "Unknown"), wants)


def names(cgroup: str, pod: Pod) -> bool:
    """Whether a process with this ``/proc/PID/cgroup`` runs in the pod: the path has the pod's uid."""
    return pod.uid in cgroup or pod.uid.replace("-", "_") in cgroup  # systemd wants no dash in the name of a slice


def is_of(pid: int, pod: Pod) -> bool:
    """Whether a process of this machine runs in the pod; not when it is gone."""
    try:
        return names(os.fsdecode(Path(f"/proc/{pid}/cgroup").read_bytes()), pod)
    except OSError:
        return False
