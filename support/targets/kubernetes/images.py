"""Where pods get their programs from: images that the user names, or this machine's folders, where nodes see them."""

import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from support import binaries
from support.errors import DeploymentFailed
from support.settings import ROOT, Settings
from support.targets.kubernetes.api import ApiServer, Object
from support.targets.kubernetes.manifests import Programs
from support.targets.kubernetes.scope import Scope

SYSTEM_FOLDERS = ("/usr", "/lib", "/lib64", "/bin")
PROBE_SECONDS = 60.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
WANTED = (
    "name images with -D dynamo_image=IMAGE (Dynamo of the release under test) and -D suite_image=IMAGE (etcd, "
    "nats-server); docs/kubernetes.md says what has to be in them"
)


def from_settings(settings: Settings) -> Programs | None:
    """The programs of images; None when the settings name none.

    Raises:
        ValueError: they name one of the two.
    """
    given = settings.dynamo_image, settings.suite_image
    if not any(given):
        return None
    if not all(given):
        missing = "suite_image" if given[0] else "dynamo_image"
        raise ValueError(f"{missing} is not set, and the other image is: {WANTED}")
    return Programs(str(given[0]), str(given[1]))


def smallest_common(nodes: list[Object]) -> str | None:
    """The name of the smallest image that all of these nodes have; None where there is none."""
    held: list[dict[str, int]] = []
    for node in nodes:
        images = node["status"].get("images") or []
        sizes = {name: int(each.get("sizeBytes", 0)) for each in images for name in each["names"]}
        held.append({name: size for name, size in sizes.items() if "@" not in name})
    common = set.intersection(*(set(each) for each in held)) if held else set()
    return min(common, key=lambda name: (held[0][name], name), default=None)


def schedulable(nodes: list[Object]) -> list[Object]:
    """The nodes that take pods of anybody."""

    def closed(node: Object) -> bool:
        taints = node.get("spec", {}).get("taints") or []
        return bool(node.get("spec", {}).get("unschedulable")) or any(
            taint.get("effect") in ("NoSchedule", "NoExecute") for taint in taints
        )

    return [node for node in nodes if not closed(node)]


def of_this_machine(settings: Settings, image: str) -> Programs:
    """The programs of this checkout's environments, in containers that see this machine's folders.

    Args:
        image: any; what it has is covered by this machine's system.

    Raises:
        FileNotFoundError: they are not installed.
    """
    python = binaries.dynamo_python(settings.dynamo)
    prefix = str(python.resolve().parent.parent)
    folders = [each for each in SYSTEM_FOLDERS if Path(each).exists()]
    needed = [str(ROOT / ".envs"), sys.prefix, prefix]
    programs = binaries.etcd(settings), binaries.nats(settings)
    needed += [str(program.parent) for program in programs if not program.is_relative_to(sys.prefix)]
    for each in needed:
        if not any(Path(each).is_relative_to(folder) for folder in folders):
            folders.append(each)
    etcd, nats = map(str, programs)
    return Programs(image, image, str(python), etcd, nats, tuple(folders), os.getuid())


def probe(programs: Programs, node: str, secret: Path) -> Object:
    """A pod that tells what a node sees of this machine: the secret, and the kernel's boot."""
    script = f"import sys; sys.stdout.write(open({str(secret)!r}).read() + ' ' + open({str(BOOT_ID)!r}).read())"
    folders = list(enumerate(programs.folders))
    container = {
        "name": "main",
        "image": programs.dynamo_image,
        "imagePullPolicy": "IfNotPresent",
        "command": [programs.python, "-c", script],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "volumeMounts": [{"name": f"node-{n}", "mountPath": path, "readOnly": True} for n, path in folders],
    }
    spec = {
        "nodeName": node,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": f"node-{n}", "hostPath": {"path": path, "type": "Directory"}} for n, path in folders],
        "securityContext": {"runAsUser": programs.user},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"probe-{node}"[:63].rstrip(".-")}, "spec": spec}


def find(settings: Settings, cluster: ApiServer, scope: Scope, memory: Path) -> tuple[Programs, bool]:
    """Where programs come from, and whether all nodes have the clock of this machine.

    Args:
        memory: a file that keeps the answer for the other scenarios of the run.

    Raises:
        DeploymentFailed: no images are named, and the nodes do not see this machine's environments.
    """
    if (given := from_settings(settings)) is not None:
        return given, False
    if memory.exists():
        kept = json.loads(memory.read_text(encoding="utf-8"))
        return of_this_machine(settings, kept["image"]), kept["one_clock"]
    nodes = schedulable(cluster.list("Node"))
    image = smallest_common(nodes)
    if image is None:
        raise DeploymentFailed(f"no images are named, and its nodes have none in common: {WANTED}")
    programs = of_this_machine(settings, image)
    names = [node["metadata"]["name"] for node in nodes]
    boots = _ask(programs, cluster, scope, names)
    one_clock = set(boots) == {BOOT_ID.read_text().strip()}
    draft = memory.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"image": image, "one_clock": one_clock}), encoding="utf-8")
    os.replace(draft, memory)
    return programs, one_clock


def _ask(programs: Programs, cluster: ApiServer, scope: Scope, nodes: list[str]) -> list[str]:
    """What each node says of its kernel's boot."""
    secret, word = ROOT / ".envs" / f".probe-{secrets.token_hex(4)}", secrets.token_hex(8)
    secret.write_text(word)
    try:
        pods = {node: probe(programs, node, secret) for node in nodes}
        scope.place(list(pods.values()))
        names = {node: str(pod["metadata"]["name"]) for node, pod in pods.items()}
        boots = []
        for node, name in names.items():
            said = _said(cluster, scope, name)
            if said[:1] != [word]:
                raise DeploymentFailed(
                    f"no images are named, and the node {node} does not see {ROOT / '.envs'} of this machine "
                    f"({' '.join(said) or 'its probe says nothing'}): {WANTED}"
                )
            boots.append(said[-1])
        for name in names.values():
            cluster.delete("Pod", scope.namespace, name, grace=0)
        return boots
    finally:
        secret.unlink(missing_ok=True)


def _said(cluster: ApiServer, scope: Scope, name: str) -> list[str]:
    """The words of a probe, or why there are none."""
    until, status = time.monotonic() + PROBE_SECONDS, dict[str, Any]()
    while time.monotonic() < until:
        pod = cluster.get("Pod", scope.namespace, name) or {}
        status = pod.get("status", {})
        if status.get("phase") in ("Succeeded", "Failed"):
            path = f"/api/v1/namespaces/{scope.namespace}/pods/{name}/log"
            return b" ".join(cluster.lines(path, {"container": "main"})).decode("utf-8", "replace").split()
        for each in status.get("containerStatuses") or []:
            waiting = each.get("state", {}).get("waiting", {})
            if waiting.get("message"):
                return str(waiting["message"]).split()
        time.sleep(0.2)
    return f"its probe is {status.get('phase', 'not there')} after {PROBE_SECONDS:g} s".split()
