"""The local target: real Dynamo, etcd and NATS on nodes of this machine, in the cell that this process runs in."""

import contextlib
import functools
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from support import binaries
from support.clock import now
from support.events import EventLog
from support.observe.health import accepts_requests, instances, models
from support.observe.logs import tail
from support.observe.workers import requests_served
from support.releases import Release
from support.requests.client import send_completion_request
from support.settings import ROOT, Settings
from support.targets.agent import Agent
from support.targets.base import DeploymentFailed, Node, Shape
from support.targets.tokenizer import FIRST_POSITION_ID, MODEL, ensure

FRONTEND_PORT, SYSTEM_PORT, BOOTSTRAP_PORT = 8000, 9090, 12345
ETCD_PORT, PEER_PORT, NATS_PORT, MONITOR_PORT = 2379, 2380, 4222, 8222
# A boot costs 1 to 6 s and up to 4 CPU-seconds by release; many of them may share two cores.
BOOT_SECONDS = 90.0
POLL_SECONDS = 0.02
# The mocker's own pace for one stream of simulated vLLM, measured on 1.6.1 (docs/engines.md).
TOKENS_PER_SECOND = 170.0
RULER = ROOT / "agents" / "ruler.py"


class LocalTarget:
    """Makes deployments through the node agent of this cell; implements :class:`support.targets.base.Target`.

    Args:
        settings: programs to use, release.
        release: what differs in that release.
        folder: of the scenario; process logs go to ``logs/`` below it.
        events: gets a note per step of a boot.
        agent: the node agent.
    """

    def __init__(self, settings: Settings, release: Release, folder: Path, events: EventLog, agent: Agent) -> None:
        self.settings, self.release, self.events, self.agent = settings, release, events, agent
        self.logs = folder / "logs"
        self.scratch = Path(os.environ["FT_SCRATCH"])

    def deploy(self, shape: Shape) -> "LocalDeployment":
        """Make a deployment and wait until it serves; see :class:`support.targets.base.Target`."""
        shape = _sabotaged(shape)
        shape.check(self.release)
        self.logs.mkdir(parents=True, exist_ok=True)
        deployment = LocalDeployment(self, shape)
        try:
            deployment.start()
        except BaseException:
            deployment.remove()
            raise
        return deployment

    def base_env(self) -> dict[str, str]:
        """The whole environment of a process on a node, but for what its role adds."""
        home = ensure(ROOT / ".envs" / "model")
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.scratch),
            "TMPDIR": str(self.scratch),
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
            "DYN_LOG": "info",
        }


def _sabotage() -> tuple[str, str]:
    """``FT_SABOTAGE`` breaks deployments on purpose, for the tests that prove that scenarios can fail
    (tests/sabotage).
    """
    kind, _, value = os.environ.get("FT_SABOTAGE", "").partition("=")
    if kind not in ("", "ruler", "migration-limit", "proxy", "injector"):
        raise ValueError(f"FT_SABOTAGE is {kind!r}; expected ruler=, proxy= or injector=KIND, or migration-limit=N")
    return kind, value


def _sabotaged(shape: Shape) -> Shape:
    kind, value = _sabotage()
    if kind == "ruler":
        return replace(shape, worker_env=shape.worker_env | {"RULER_SABOTAGE": value})
    if kind == "migration-limit":
        return replace(shape, migration_limit=int(value))
    return shape


def _port(address: str, usual: int) -> int:
    """The usual port on a node of our own; without namespaces a free one, for strangers may listen on all addresses."""
    if os.environ["FT_CELL"] == "namespaces":
        return usual  # nobody else is on that node, and its address cannot be tried from here
    # Dynamo reads DYN_SYSTEM_PORT as a signed 16-bit number.
    for port in random.sample(range(20000, 2**15), 50):
        with contextlib.suppress(OSError), socket.create_server((address, port)):
            return port
    raise DeploymentFailed(f"none of 50 ports between 20000 and 32767 is free on {address}; see what listens there")


class LocalDeployment:
    """One running Dynamo on the local target; implements :class:`support.targets.base.Deployment`."""

    def __init__(self, target: LocalTarget, shape: Shape) -> None:
        self.target, self.shape, self.model = target, shape, MODEL
        self.nodes: list[Node] = []
        self._agent = target.agent
        self._nats = shape.request_plane == "nats" or target.release.nats_always
        self._world_before = self._agent.world()

    # -- what it is made of

    @functools.cached_property
    def _python(self) -> str:
        return str(binaries.dynamo_python(self.target.release.version))

    def _node(self, name: str, role: str, usual_port: int, metrics: bool = True) -> Node:
        address = self._agent.add_node(name, role)
        port = _port(address, usual_port)
        url = f"http://{address}:{port}/metrics" if metrics else None
        node = Node(name, role, address, port, url, self.target.logs / f"{name}.log")
        self.nodes.append(node)
        return node

    def _only(self, role: str) -> Node:
        return next(node for node in self.nodes if node.role == role)

    @property
    def frontend_url(self) -> str:
        """Where its users send requests."""
        proxy = [node for node in self.nodes if node.role == "proxy"]
        return f"http://{(proxy or [self._only('frontend')])[0].endpoint}"

    @property
    def workers(self) -> list[Node]:
        """Nodes that answer requests, then prefill workers."""
        return [node for node in self.nodes if node.role in ("worker", "decode")] + [
            node for node in self.nodes if node.role == "prefill"
        ]

    # -- start

    def start(self) -> None:
        """Start everything and wait until it serves."""
        began = now()
        self._start_etcd()
        if self._nats:
            self._start_nats()
        self._start_frontend()
        decode = "decode" if self.shape.disaggregated else "worker"
        for _ in range(self.shape.workers):
            self._start_worker(decode)
        for _ in range(self.shape.prefill_workers):
            self._start_worker("prefill")
        kind, value = _sabotage()
        if kind == "proxy":
            self._start_proxy(value)
        ready_at = self.wait_until_serving(self.workers, BOOT_SECONDS)
        if self.shape.disaggregated:
            ready_at = self._wait_until_prefill_is_used()
        text = f"{self.shape.describe()}: serving after {ready_at - began:.2f} s"
        self.target.events.add("note", "", text, boot_seconds=ready_at - began)

    def _run(
        self, node: Node, argv: list[str], env: dict[str, str], ready: str | None, after: list[str], **more: Any
    ) -> None:
        self._agent.run(
            node=node.name,
            argv=argv,
            env=self.target.base_env() | env,
            log=str(node.log),
            after=after,
            ready=ready,
            restart_policy=self.shape.restart_policy,
            **more,
        )

    def _start_etcd(self) -> None:
        node = self._node("etcd-0", "etcd", ETCD_PORT)
        client, peer = f"http://{node.endpoint}", f"http://{node.address}:{_port(node.address, PEER_PORT)}"
        argv = [str(binaries.etcd(self.target.settings)), "--name", node.name]
        argv += ["--data-dir", str(self.target.scratch / f"{node.name}-{time.monotonic_ns()}")]
        argv += ["--listen-client-urls", client, "--advertise-client-urls", client]
        argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        argv += ["--initial-cluster", f"{node.name}={peer}"]
        self._run(node, argv, {}, ready=f"{client}/health", after=[])

    def _start_nats(self) -> None:
        node = self._node("nats-0", "nats", NATS_PORT, metrics=False)
        monitor = _port(node.address, MONITOR_PORT)
        argv = [str(binaries.nats(self.target.settings)), "--addr", node.address, "--port", str(node.port)]
        argv += ["--http_port", str(monitor), "--jetstream"]
        argv += ["--store_dir", str(self.target.scratch / f"{node.name}-{time.monotonic_ns()}")]
        self._run(node, argv, {}, ready=f"http://{node.address}:{monitor}/healthz", after=[])

    def _dynamo_env(self, node: Node) -> dict[str, str]:
        env = {
            "ETCD_ENDPOINTS": f"http://{self._only('etcd').endpoint}",
            "DYN_REQUEST_PLANE": self.shape.request_plane,
            "DYN_TCP_RPC_HOST": node.address,
            "DYN_HTTP_RPC_HOST": node.address,
            "DYN_EVENT_PLANE_HOST": node.address,
            "DYN_HEALTH_CHECK_ENABLED": str(self.shape.health_checks).lower(),
        }
        if self._nats:
            env["NATS_SERVER"] = f"nats://{self._only('nats').endpoint}"
        if self.shape.lease_seconds is not None and self.target.release.lease_setting:
            env[self.target.release.lease_setting] = f"{self.shape.lease_seconds:g}"
        return env

    def _infrastructure(self) -> list[str]:
        return [node.name for node in self.nodes if node.role in ("etcd", "nats")]

    def _start_frontend(self) -> None:
        node = self._node("frontend-0", "frontend", FRONTEND_PORT)
        argv = [self._python, "-m", "dynamo.frontend", "--http-host", node.address, "--http-port", str(node.port)]
        argv += ["--migration-limit", str(self.shape.migration_limit)]
        if self.shape.sequence_cap is not None:
            argv += ["--migration-max-seq-len", str(self.shape.sequence_cap)]
        env = self._dynamo_env(node)
        if self.shape.stream_timeout_seconds is not None:
            env[str(self.target.release.stream_timeout)] = f"{self.shape.stream_timeout_seconds:g}"
        self._run(node, argv, env, ready=None, after=self._infrastructure())

    def _start_worker(self, role: str) -> Node:
        kind = self.shape.engine if role == "worker" else f"{self.shape.engine}-{role}"
        number = sum(node.role == role for node in self.nodes)
        node = self._node(f"{kind}-worker-{number}", role, SYSTEM_PORT)
        env = self._dynamo_env(node) | {"DYN_SYSTEM_HOST": node.address, "DYN_SYSTEM_PORT": str(node.port)}
        if self.shape.drain_seconds is not None:
            env[str(self.target.release.drain_deadline)] = f"{self.shape.drain_seconds:g}"
        if self.shape.engine == "ruler":
            argv = [self._python, str(RULER)]
            env |= {
                "RULER_MODEL": self.model,
                "RULER_FIRST_ID": str(FIRST_POSITION_ID),
                "RULER_TOKENS_PER_SECOND": str(TOKENS_PER_SECOND * self.shape.speed),
                "RULER_PREFILL_SECONDS": str(self.shape.prefill_seconds),
                "RULER_JOURNAL": str(self.target.logs / f"{node.name}.journal.jsonl"),
            }
        else:
            argv = [self._python, "-m", "dynamo.mocker", *self._mocker_flags(role)]
        work = {"url": str(node.metrics_url), "metric": self.target.release.metrics["worker_response_bytes"]}
        env |= self.shape.worker_env
        self._run(node, argv, env, ready=None, after=self._infrastructure(), gpus=1, progress=work)
        return node

    def _mocker_flags(self, role: str) -> list[str]:
        flags = ["--model-path", self.model, "--speedup-ratio", f"{self.shape.speed:g}"]
        if self.target.release.engine_type_flag:
            flags += ["--engine-type", self.shape.engine]
        if role != "worker":
            flags += ["--disaggregation-mode", role]
        if role == "prefill":
            flags += [
                "--bootstrap-ports",
                str(_port("0.0.0.0", BOOTSTRAP_PORT)),
            ]  # the mocker binds it on all addresses
        return flags

    def _start_proxy(self, kind: str) -> None:
        upstream = self.frontend_url
        node = self._node("sabotage-0", "proxy", FRONTEND_PORT, metrics=False)
        argv = [sys.executable, "-m", "agents.sabotage_proxy", "--listen", node.endpoint]
        argv += ["--upstream", upstream, "--kind", kind]
        self._run(node, argv, {"PYTHONPATH": str(ROOT)}, ready=None, after=[])

    # -- while it runs

    def process(self, node: Node) -> dict[str, Any]:
        """State of the node's process, as the node agent has it."""
        return self._agent.processes()[node.name]

    def wait_until_serving(self, workers: list[Node], timeout: float) -> float:
        """See :class:`support.targets.base.Deployment`."""
        wanted = len(workers)

        def serving() -> bool:
            url = self.frontend_url
            return len(instances(url) or []) == wanted and self.model in models(url) and accepts_requests(url)

        waiting_for = [self._only("frontend"), *workers]
        return self._wait(serving, timeout, waiting_for, f"frontend lists {wanted} workers and serves {self.model}")

    def _wait_until_prefill_is_used(self) -> float:
        """Up to 1.4 the frontend serves a disaggregated model with decode workers alone at first."""
        prefill = [node for node in self.nodes if node.role == "prefill"]

        def used() -> bool:
            answer = send_completion_request(self.frontend_url, self.model, "ready", 1, timeout=BOOT_SECONDS)
            served = any(requests_served(node, self.target.release.metrics) for node in prefill)
            return answer.status_code == 200 and served

        return self._wait(
            used, BOOT_SECONDS, [self._only("frontend"), *self.workers], "a prefill worker gets a request"
        )

    def _wait(self, condition: Callable[[], bool], timeout: float, needed: list[Node], what: str) -> float:
        deadline = now() + timeout
        names = {node.name: node for node in [*needed, *(node for node in self.nodes if node.role in ("etcd", "nats"))]}
        while not condition():
            for name, process in self._agent.processes().items():
                if name in names and process["state"] in ("exited", "failed"):
                    why = process["detail"] or f"ended with status {process['exit_code']}"
                    raise DeploymentFailed(
                        f"{name} {why} while it was needed; last lines of its log:\n{self._tail(names[name])}"
                    )
            if now() > deadline:
                logs = "\n".join(f"--- {node.name}\n{self._tail(node)}" for node in needed)
                listed = instances(self.frontend_url)
                raise DeploymentFailed(
                    f"not within {timeout:g} s: {what}; the frontend lists {listed}; last lines:\n{logs}"
                )
            time.sleep(POLL_SECONDS)
        return now()

    def _tail(self, node: Node) -> str:
        return tail(node.log, 15) if node.log.exists() else "(no log)"

    def add_worker(self) -> Node:
        """Start one more worker and wait until the frontend lists it."""
        before = instances(self.frontend_url) or []
        node = self._start_worker("decode" if self.shape.disaggregated else "worker")

        def listed() -> bool:
            known = instances(self.frontend_url) or []
            return bool({each.number for each in known} - {each.number for each in before}) and self.model in models(
                self.frontend_url
            )

        self._wait(listed, BOOT_SECONDS, [node], f"frontend lists {node.name}")
        return node

    def topology(self) -> dict[str, Any]:
        """The published document."""
        processes = self._agent.processes()
        nodes = [
            {"name": node.name, "role": node.role, "address": node.address, "metrics_url": node.metrics_url}
            | {key: processes.get(node.name, {}).get(key) for key in ("pid", "start_time", "state", "restarts")}
            for node in self.nodes
        ]
        return {"deployment": "local", "shape": self.shape.describe(), "nodes": nodes}

    def remove(self) -> list[str]:
        """Take everything down; returns what the kernel shows now and did not show before."""
        self._agent.remove_deployment()
        world = self._agent.world()
        return [
            f"{kind[:-1] if kind != 'processes' else 'process'} {each}"
            for kind, things in world.items()
            for each in things
            if each not in self._world_before[kind]
        ]
