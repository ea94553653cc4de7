"""All that is applied to a cluster, built from the shape of a deployment; pure, and shown by ``render``.

A node is a bare pod with the sentence's restart policy, so that ``vllm-worker-0`` is one pod; etcd is a StatefulSet.
Containers share their pod's process namespace: else the kernel shields their first process from every signal that comes
from within.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from support.contract.shape import Shape
from support.releases import Release
from support.settings import ROOT
from support.targets.kubernetes import shell
from support.targets.kubernetes.api import Object
from support.targets.kubernetes.scope import PREFIX
from support.targets.local.tokenizer import FIRST_POSITION_ID, MODEL, contents

NODE, ROLE, SERVES = f"{PREFIX}/node", f"{PREFIX}/role", f"{PREFIX}/serves"
MAIN = "main"
FRONTEND_PORT, SYSTEM_PORT, GATE_PORT, BOOTSTRAP_PORT = 8000, 9090, 9091, 12345
ETCD_PORT, PEER_PORT, NATS_PORT, MONITOR_PORT = 2379, 2380, 4222, 8222
RULER = ROOT / "support" / "engines" / "ruler.py"
GRACE_SECONDS = 60
"""As Dynamo's operator has it: from SIGTERM to SIGKILL when a pod is deleted."""
GRACE_PERIOD = "DYN_GRACEFUL_SHUTDOWN_GRACE_PERIOD_SECS"
HELD = shell.HOLD
"""While this file is there the program of etcd or NATS does not start: what broke of them stays broken until then."""
WAIT_WHILE_HELD = f'while [ -e {HELD} ]; do sleep 0.1; done; exec "$@"'
UNREADY = "/scratch/unready"
"""While this file is there the readiness probe of a worker with a readiness switch fails."""
DISCOVERY = {"nvidia.com/dynamo-discovery-backend": "kubernetes", "nvidia.com/dynamo-discovery-enabled": "true"}
"""Labels by which Dynamo's own discovery finds Services, and so the slices of their endpoints."""
ACCOUNT = "dynamo"
CRD = "dynamoworkermetadatas.nvidia.com"


@dataclass(frozen=True)
class Programs:
    """Where the programs of pods come from.

    Attributes:
        dynamo_image: with Dynamo; ``suite_image``: with etcd and NATS.
        python: interpreter of Dynamo; ``etcd``, ``nats``: the two servers.
        folders: of the node, which containers see at the same place.
        user: whom containers run as; None: whom their image says.
    """

    dynamo_image: str
    suite_image: str
    python: str = "python3"
    etcd: str = "etcd"
    nats: str = "nats-server"
    folders: tuple[str, ...] = ()
    user: int | None = None


@dataclass(frozen=True)
class Blueprint:
    """What a deployment is built from; ``discovery`` is ``etcd`` or ``kubernetes``."""

    shape: Shape
    release: Release
    programs: Programs
    discovery: str

    @property
    def nats(self) -> bool:
        """Whether a NATS server is part of it."""
        return self.shape.request_plane == "nats" or self.release.nats_always


def _field(path: str) -> Object:
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


def _env(values: Mapping[str, Any]) -> list[Object]:
    return [
        {"name": name, **(value if isinstance(value, dict) else {"value": str(value)})}
        for name, value in values.items()
    ]


def _http(path: str, port: int, **times: int) -> Object:
    return {"httpGet": {"path": path, "port": port}, **times}


def _folders(folders: Sequence[str]) -> tuple[list[Object], list[Object]]:
    """Volumes and mounts of folders of the node."""
    volumes = [{"name": f"node-{n}", "hostPath": {"path": path}} for n, path in enumerate(folders)]
    mounts = [{"name": f"node-{n}", "mountPath": path, "readOnly": True} for n, path in enumerate(folders)]
    return volumes, mounts


def _pod_spec(programs: Programs, image: str, container: Object, volumes: Sequence[Object], **more: Any) -> Object:
    """That of a pod with one container; ``volumes`` are pairs of a volume and where it is mounted."""
    node_volumes, node_mounts = _folders(programs.folders)
    empty = [{"name": "scratch", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    mounts = [{"name": "scratch", "mountPath": "/scratch"}, {"name": "tmp", "mountPath": "/tmp"}]
    whole = {
        "name": MAIN,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": {"cpu": "150m", "memory": "192Mi"}},
        **container,
        "volumeMounts": [*node_mounts, *mounts, *container.get("volumeMounts", [])],
    }
    user = {} if programs.user is None else {"securityContext": {"runAsUser": programs.user}}
    return {
        "shareProcessNamespace": True,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "containers": [whole],
        "volumes": [*node_volumes, *empty, *volumes],
        **user,
        **more,
    }


def _pod(name: str, role: str, spec: Object, labels: Mapping[str, str] | None = None) -> Object:
    about = {"name": name, "labels": {NODE: name, ROLE: role, **(labels or {})}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}


def _service(name: str, selector: Mapping[str, str], ports: Mapping[str, int], **more: Any) -> Object:
    spec = {
        "selector": dict(selector),
        "ports": [{"name": each, "port": port, "targetPort": port} for each, port in ports.items()],
        **{key: value for key, value in more.items() if key != "labels"},
    }
    about = {"name": name, "labels": more.get("labels", {})}
    return {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": spec}


# -- etcd and NATS


def members(plan: Blueprint) -> list[str]:
    """Names of the etcd members."""
    return [f"etcd-{number}" for number in range(plan.shape.etcd_members)] if plan.discovery == "etcd" else []


def etcd(plan: Blueprint) -> list[Object]:
    """The cluster: a headless Service and a StatefulSet."""
    names = members(plan)
    peers = ",".join(f"{name}=http://{name}.etcd:{PEER_PORT}" for name in names)
    argv = [plan.programs.etcd, "--name", "$(POD_NAME)", "--data-dir", "/data/etcd"]
    argv += ["--listen-client-urls", f"http://0.0.0.0:{ETCD_PORT}"]
    argv += ["--advertise-client-urls", f"http://$(POD_NAME).etcd:{ETCD_PORT}"]
    argv += ["--listen-peer-urls", f"http://0.0.0.0:{PEER_PORT}"]
    argv += ["--initial-advertise-peer-urls", f"http://$(POD_NAME).etcd:{PEER_PORT}"]
    argv += ["--initial-cluster", peers, "--initial-cluster-state", "new"]
    container = {
        "command": ["sh", "-c", WAIT_WHILE_HELD, "etcd", *argv],
        "env": _env({"POD_NAME": _field("metadata.name")}),
        "ports": [{"containerPort": ETCD_PORT}, {"containerPort": PEER_PORT}],
        "readinessProbe": _http("/health", ETCD_PORT, periodSeconds=1, timeoutSeconds=2),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    data = [{"name": "data", "emptyDir": {}}]
    spec = _pod_spec(plan.programs, plan.programs.suite_image, container, data, terminationGracePeriodSeconds=5)
    template = {"metadata": {"labels": {ROLE: "etcd"}}, "spec": spec | _spread("etcd")}
    ports = {"client": ETCD_PORT, "peer": PEER_PORT}
    service = _service("etcd", {ROLE: "etcd"}, ports, clusterIP="None", publishNotReadyAddresses=True)
    stateful = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "etcd"},
        "spec": {
            "serviceName": "etcd",
            "replicas": len(names),
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {ROLE: "etcd"}},
            "template": template,
        },
    }
    return [service, stateful]


def nats(plan: Blueprint) -> list[Object]:
    """The NATS server: a Service and a pod."""
    argv = [plan.programs.nats, "--port", str(NATS_PORT), "--http_port", str(MONITOR_PORT), "--jetstream"]
    container = {
        "command": ["sh", "-c", WAIT_WHILE_HELD, "nats", *argv, "--store_dir", "/data/nats"],
        "ports": [{"containerPort": NATS_PORT}],
        "readinessProbe": _http("/healthz", MONITOR_PORT, periodSeconds=1),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    data = [{"name": "data", "emptyDir": {}}]
    spec = _pod_spec(plan.programs, plan.programs.suite_image, container, data, terminationGracePeriodSeconds=5)
    service = _service("nats", {ROLE: "nats"}, {"client": NATS_PORT}, publishNotReadyAddresses=True)
    return [service, _pod("nats-0", "nats", spec)]


# -- Dynamo


def _spread(role: str) -> Object:
    rule = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    return {"topologySpreadConstraints": [rule | {"labelSelector": {"matchLabels": {ROLE: role}}}]}


def files(plan: Blueprint) -> Object:
    """The generated model and the ruler engine, for whatever image."""
    data = {name.replace("/", "--"): text for name, text in contents().items()}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "suite"},
        "data": data | {"ruler.py": RULER.read_text(encoding="utf-8")},
    }


def _files_volume() -> Object:
    paths = [{"key": name.replace("/", "--"), "path": f"model/{name}"} for name in contents()]
    return {"name": "suite", "configMap": {"name": "suite", "items": [*paths, {"key": "ruler.py", "path": "ruler.py"}]}}


def _dynamo_env(plan: Blueprint) -> Object:
    shape = plan.shape
    env: Object = {
        "HOME": "/scratch",
        "TMPDIR": "/scratch",
        "HF_HOME": "/suite/model",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "DYN_LOG": "info",
        "POD_NAME": _field("metadata.name"),
        "POD_NAMESPACE": _field("metadata.namespace"),
        "POD_UID": _field("metadata.uid"),
        "DYN_REQUEST_PLANE": shape.request_plane,
        **{f"DYN_{plane}_HOST": _field("status.podIP") for plane in ("TCP_RPC", "HTTP_RPC", "EVENT_PLANE")},
        "DYN_HEALTH_CHECK_ENABLED": str(shape.health_checks).lower(),
        "DYN_SYSTEM_PORT": SYSTEM_PORT,
        # A mocker else never says that it is healthy, and its probes would end it.
        "DYN_SYSTEM_USE_ENDPOINT_HEALTH_STATUS": json.dumps(["generate"]),
    }
    if plan.discovery == "etcd":
        env["ETCD_ENDPOINTS"] = ",".join(f"http://{name}.etcd:{ETCD_PORT}" for name in members(plan))
    else:
        env |= {"DYN_DISCOVERY_BACKEND": "kubernetes", "DYN_NAMESPACE": "dynamo"}
        env |= {"DYN_PARENT_DGD_K8S_NAME": "suite", "DYN_PARENT_DGD_K8S_NAMESPACE": _field("metadata.namespace")}
    if plan.nats:
        env["NATS_SERVER"] = f"nats://nats:{NATS_PORT}"
    if shape.lease_seconds is not None and plan.release.lease_setting:
        env[plan.release.lease_setting] = f"{shape.lease_seconds:g}"
    return env


def _dynamo_pod(plan: Blueprint, name: str, role: str, argv: list[str], env: Object, **container: Any) -> Object:
    whole = {
        "command": argv,
        "env": _env(_dynamo_env(plan) | env),
        "volumeMounts": [{"name": "suite", "mountPath": "/suite", "readOnly": True}],
        **container,
    }
    more: Object = {"restartPolicy": plan.shape.restart_policy, "terminationGracePeriodSeconds": GRACE_SECONDS}
    labels = {} if role == "frontend" else {SERVES: "requests"}
    if plan.discovery == "kubernetes":
        more |= {"serviceAccountName": ACCOUNT, "automountServiceAccountToken": True}
        labels |= DISCOVERY
    spec = _pod_spec(plan.programs, plan.programs.dynamo_image, whole, [_files_volume()], **more, **_spread(role))
    return _pod(name, role, spec, labels)


def services(plan: Blueprint) -> list[Object]:
    """What clients and Dynamo find the pods by."""
    labels = DISCOVERY if plan.discovery == "kubernetes" else {}
    front = _service("frontend", {ROLE: "frontend"}, {"http": FRONTEND_PORT}, labels=labels, type="NodePort")
    workers = _service("workers", {SERVES: "requests"}, {"system": SYSTEM_PORT}, labels=labels)
    return [front, workers]


def frontend(plan: Blueprint, number: int) -> Object:
    """A frontend's pod; its probes are those that Dynamo's operator sets, except for a startup that is looked at each
    second.
    """
    shape = plan.shape
    argv = [plan.programs.python, "-m", "dynamo.frontend", "--http-host", "0.0.0.0"]
    argv += ["--http-port", str(FRONTEND_PORT), "--migration-limit", str(shape.migration_limit)]
    argv += ["--router-mode", shape.router_mode]
    if shape.sequence_cap is not None:
        argv += ["--migration-max-seq-len", str(shape.sequence_cap)]
    env = {}
    if shape.stream_timeout_seconds is not None:
        env[str(plan.release.stream_timeout)] = f"{shape.stream_timeout_seconds:g}"
    return _dynamo_pod(
        plan,
        f"frontend-{number}",
        "frontend",
        argv,
        env,
        ports=[{"name": "http", "containerPort": FRONTEND_PORT}, {"name": "system", "containerPort": SYSTEM_PORT}],
        startupProbe=_http("/health", FRONTEND_PORT, periodSeconds=1, timeoutSeconds=4, failureThreshold=120),
        livenessProbe=_http("/live", FRONTEND_PORT, periodSeconds=10, timeoutSeconds=4, failureThreshold=3),
        readinessProbe=_http("/health", FRONTEND_PORT, periodSeconds=10, timeoutSeconds=4, failureThreshold=3),
    )


def worker_name(plan: Blueprint, role: str, number: int) -> str:
    """``vllm-worker-0``, ``vllm-decode-worker-0``."""
    kind = plan.shape.engine if role == "worker" else f"{plan.shape.engine}-{role}"
    return f"{kind}-worker-{number}"


def worker(plan: Blueprint, role: str, number: int) -> Object:
    """A worker's pod; probes as for a frontend."""
    shape, name = plan.shape, worker_name(plan, role, number)
    env: Object = {}
    if shape.drain_seconds is not None:
        env[str(plan.release.drain_deadline)] = f"{shape.drain_seconds:g}"
    if shape.grace_seconds is not None:
        env[GRACE_PERIOD] = f"{shape.grace_seconds:g}"
    if shape.engine == "ruler":
        argv = [plan.programs.python, "-P", "/suite/ruler.py"]
        env |= {
            "RULER_MODEL": MODEL,
            "RULER_FIRST_ID": FIRST_POSITION_ID,
            "RULER_TOKENS_PER_SECOND": shape.pace,
            "RULER_PREFILL_SECONDS": shape.prefill_seconds,
            "RULER_GATE": f"0.0.0.0:{GATE_PORT}",
            "RULER_LEAVING": shape.leaving.replace(" ", "-"),
            "RULER_JOURNAL": "/dev/stdout",  # from where it comes with the log, also of a pod that is gone
        }
    else:
        argv = [plan.programs.python, "-m", "dynamo.mocker", *_mocker_flags(plan, role)]
    return _dynamo_pod(
        plan,
        name,
        role,
        argv,
        env | shape.worker_env,
        ports=[{"name": "system", "containerPort": SYSTEM_PORT}],
        startupProbe=_http("/live", SYSTEM_PORT, periodSeconds=1, timeoutSeconds=4, failureThreshold=120),
        livenessProbe=_http("/live", SYSTEM_PORT, periodSeconds=5, timeoutSeconds=4, failureThreshold=1),
        readinessProbe=_readiness(plan),
    )


def budget(plan: Blueprint) -> Object:
    """Of the workers of a Deployment no more than one at a time may be evicted."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": worker_name(plan, "worker", 0).rpartition("-")[0]},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {ROLE: "worker"}}},
    }


def controller(plan: Blueprint) -> Object:
    """A Deployment of all workers; its pods are those of :func:`worker` without a name of their own."""
    pod = worker(plan, "worker", 0)
    labels = {name: value for name, value in pod["metadata"]["labels"].items() if name != NODE}
    return {
        "apiVersion": "apps/v1",
        "kind": plan.shape.controller,
        "metadata": {"name": worker_name(plan, "worker", 0).rpartition("-")[0], "labels": {ROLE: "worker"}},
        "spec": {
            "replicas": plan.shape.workers,
            "selector": {"matchLabels": {ROLE: "worker"}},
            "template": {"metadata": {"labels": labels}, "spec": pod["spec"] | {"restartPolicy": "Always"}},
        },
    }


def _readiness(plan: Blueprint) -> Object:
    """As the operator sets it; with a readiness switch one that looks each second, and fails while it is off."""
    if not plan.shape.readiness_switch:
        return _http("/health", SYSTEM_PORT, periodSeconds=10, timeoutSeconds=4, failureThreshold=3)
    look = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{SYSTEM_PORT}/health', timeout=4)"
    script = f'[ ! -e {UNREADY} ] && exec {plan.programs.python} -c "{look}"'
    return {"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1, "timeoutSeconds": 4, "failureThreshold": 3}


def _mocker_flags(plan: Blueprint, role: str) -> list[str]:
    flags = ["--model-path", MODEL, "--speedup-ratio", f"{plan.shape.speed:g}"]
    if plan.release.engine_type_flag:
        flags += ["--engine-type", plan.shape.engine]
    if plan.shape.max_model_len is not None:
        flags += ["--max-model-len", str(plan.shape.max_model_len)]
    if role != "worker":
        flags += ["--disaggregation-mode", role]
    if role == "prefill":
        flags += ["--bootstrap-ports", str(BOOTSTRAP_PORT)]
    return flags


def workers(plan: Blueprint) -> list[tuple[str, int]]:
    """Role and number of each worker of the shape."""
    role = "decode" if plan.shape.disaggregated else "worker"
    found = [(role, number) for number in range(plan.shape.workers)]
    return found + [("prefill", number) for number in range(plan.shape.prefill_workers)]


# -- Dynamo's own discovery


def account(namespace: str) -> list[Object]:
    """Who Dynamo's pods are for the API server, and what they may do, where they find each other through it."""
    group = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": [""], "resources": ["pods", "endpoints"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
        {
            "apiGroups": ["nvidia.com"],
            "resources": ["dynamoworkermetadatas"],
            "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
        },
    ]
    about = {"name": ACCOUNT}
    bound = {"apiGroup": group, "kind": "Role", "name": ACCOUNT}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": about, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": about,
            "roleRef": bound,
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
        },
    ]


def definition() -> Object:
    """The kind of object in which workers tell what they are; of the whole cluster, so an administrator's to make."""
    data = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    spec = {"type": "object", "required": ["data"], "properties": {"data": data}}
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
    }
    plural, _, group = CRD.partition(".")
    names = {"kind": "DynamoWorkerMetadata", "listKind": "DynamoWorkerMetadataList", "plural": plural}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": CRD, "labels": {"nvidia.com/dynamo-discovery-backend": "kubernetes"}},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": names | {"singular": plural.removesuffix("s"), "shortNames": ["dwm"]},
            "versions": [version],
        },
    }


def everything(plan: Blueprint, namespace: str) -> list[Object]:
    """All of a deployment, in the order in which it is applied."""
    found = [files(plan), *services(plan)]
    found += [definition(), *account(namespace)] if plan.discovery == "kubernetes" else etcd(plan)
    found += nats(plan) if plan.nats else []
    found += [frontend(plan, number) for number in range(plan.shape.frontends)]
    if plan.shape.controller:
        return [*found, budget(plan), controller(plan)]
    return found + [worker(plan, role, number) for role, number in workers(plan)]
