"""Real Dynamo, etcd and NATS on nodes of this machine, in the cell that this process runs in."""

import contextlib
import functools
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from support import activity, binaries, slowness
from support.amounts import amount
from support.clock import now
from support.contract.deployment import Change, Facts, Life, Node
from support.contract.shape import Shape
from support.errors import DeploymentFailed, Refused
from support.events import EventLog
from support.observe import etcd
from support.observe.health import numbers, serves
from support.observe.logs import tail
from support.observe.waiting import pause, until
from support.observe.workers import requests_served, worker_id
from support.releases import Release
from support.requests.client import send_completion_request
from support.settings import ROOT, Settings
from support.targets.local import process
from support.targets.local.agent import Agent
from support.targets.local.tokenizer import FIRST_POSITION_ID, MODEL, ensure

FRONTEND_PORT, SYSTEM_PORT, GATE_PORT, BOOTSTRAP_PORT = 8000, 9090, 9091, 12345
ETCD_PORT, PEER_PORT, NATS_PORT, MONITOR_PORT = 2379, 2380, 4222, 8222
# A boot costs 1 to 6 s and up to 4 CPU-seconds by release; many of them may share two cores.
BOOT_SECONDS = 90.0
# A cluster elects a leader within 0.3 to 2 s with etcd's own heartbeat and election timeouts, which are left alone.
ETCD_SECONDS = 30.0
OLDEST_ETCD = Version("3.4")
STATES = ("starting", "running", "hung", "stopped", "dead", "fenced")
"""Changes of lives; the others that the node agent notes are its own affair."""
RULER = ROOT / "support" / "engines" / "ruler.py"
GRACE_PERIOD = "DYN_GRACEFUL_SHUTDOWN_GRACE_PERIOD_SECS"
"""Seconds that ``dynamo.common.utils.graceful_shutdown`` lets a worker go on after it has left the list."""


@dataclass(frozen=True)
class Site:
    """What a deployment is made with.

    Attributes:
        settings: programs to use.
        release: what differs in the release under test.
        logs: folder for what its processes write.
        scratch: folder in memory for their data and homes.
        events: gets a note per step of a boot.
        agent: the node agent.
    """

    settings: Settings
    release: Release
    logs: Path
    scratch: Path
    events: EventLog
    agent: Agent

    def base_env(self) -> dict[str, str]:
        """The whole environment of a process on a node, except for what its role adds."""
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


@functools.cache
def _etcd_version(settings: Settings) -> str:
    """Of the etcd program; :class:`DeploymentFailed` when it is too old."""
    program = binaries.etcd(settings)
    text = binaries.version(program)
    try:
        old = Version(text) < OLDEST_ETCD
    except InvalidVersion:
        raise DeploymentFailed(f"{program} says that its version is {text!r}; expected etcd {OLDEST_ETCD}+") from None
    if old:
        raise DeploymentFailed(
            f"{program} is etcd {text}; {OLDEST_ETCD} or newer is needed: see the setting etcd_binary"
        )
    return text


def _refusal(member: Node, peer: str) -> str | None:
    try:
        etcd.call(member, "/v3/cluster/member/add", {"peerURLs": [peer]}, ETCD_SECONDS)
    except etcd.EtcdError as error:
        return str(error)
    return None


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
    """One running Dynamo on the local target; implements :class:`support.contract.deployment.Deployment`.

    Args:
        watch: called as soon as the members of its etcd cluster start.
    """

    facts = Facts()

    def __init__(self, site: Site, shape: Shape, watch: Callable[["LocalDeployment"], None]) -> None:
        self.site, self.shape, self.model, self._watch = site, shape, MODEL, watch
        self.nodes: list[Node] = []
        self._peers: dict[str, str] = {}
        self._agent = site.agent
        self._nats = shape.request_plane == "nats" or site.release.nats_always
        self._world_before = self._agent.world()

    # -- what it is made of

    @functools.cached_property
    def _python(self) -> str:
        return str(binaries.dynamo_python(self.site.release.version))

    def _node(self, name: str, role: str, usual_port: int, metrics: bool = True, gate: bool = False) -> Node:
        address = self._agent.add_node(name, role)
        port = _port(address, usual_port)
        url = f"http://{address}:{port}/metrics" if metrics else None
        gate_url = f"http://{address}:{_port(address, GATE_PORT)}" if gate else None
        node = Node(name, role, address, port, url, gate_url)
        self.nodes.append(node)
        return node

    def _only(self, role: str) -> Node:
        return next(node for node in self.nodes if node.role == role)

    def _all(self, role: str) -> list[Node]:
        return [node for node in self.nodes if node.role == role]

    @property
    def frontend_url(self) -> str:
        """Where its users send requests; with several frontends the first that runs, as a service would choose."""
        fronts = self._all("frontend")
        if len(fronts) > 1:
            processes = self._agent.processes()
            fronts = [node for node in fronts if processes[node.name]["state"] == "running"] or fronts
        return f"http://{fronts[0].endpoint}"

    @property
    def dynamo(self) -> list[Node]:
        """Frontends, then workers."""
        return self._all("frontend") + self.workers

    @property
    def workers(self) -> list[Node]:
        """Nodes that answer requests, then prefill workers."""
        return [node for node in self.nodes if node.role in ("worker", "decode")] + [
            node for node in self.nodes if node.role == "prefill"
        ]

    # -- start

    def start(self) -> None:
        """Start everything and wait until it serves."""
        for warning in self.shape.warnings():
            # behave captures sys.stderr and shows it of failures alone.
            print(f"warning: {warning}", file=sys.__stderr__, flush=True)
            self.site.events.add("note", "", f"warning: {warning}")
        began = now()
        members = [self._etcd_node() for _ in range(self.shape.etcd_members)]
        if not self.shape.etcd_delay_seconds:
            self._start_etcd(members)
        if self._nats:
            self._start_nats()
        self._start_dynamo()
        if self.shape.etcd_delay_seconds:
            time.sleep(max(0.0, began + self.shape.etcd_delay_seconds - now()))
            self._start_etcd(members)
            return  # whether and when it serves then is what the scenario is about
        ready_at = self._wait_until_serving()
        if self.shape.disaggregated:
            ready_at = self._wait_until_prefill_is_used()
        text = f"{self.shape.describe()}: serving after {ready_at - began:.2f} s"
        self.site.events.add("note", "", text, boot_seconds=ready_at - began)

    def _start_dynamo(self) -> None:
        for number in range(self.shape.frontends):
            self._start_frontend(number)
        decode = "decode" if self.shape.disaggregated else "worker"
        for _ in range(self.shape.workers):
            self._start_worker(decode)
        for _ in range(self.shape.prefill_workers):
            self._start_worker("prefill")

    def _run(
        self, node: Node, argv: list[str], env: dict[str, str], ready: str | None, after: list[str], **more: Any
    ) -> None:
        self._agent.run(
            node=node.name,
            argv=argv,
            env=self.site.base_env() | env,
            log=str(self._log(node)),
            after=after,
            ready=ready,
            **more,
        )

    def _etcd_node(self) -> Node:
        node = self._node(f"etcd-{len(self._all('etcd'))}", "etcd", ETCD_PORT)
        self._peers[node.name] = f"http://{node.address}:{_port(node.address, PEER_PORT)}"
        return node

    def _start_etcd(self, members: list[Node]) -> None:
        """Start a new cluster of these members, and wait until all are healthy and follow one leader."""
        began, version = now(), _etcd_version(self.site.settings)
        for node in members:
            self._start_member(node, members, "new")
        self._watch(self)

        def formed() -> bool:
            return all(etcd.healthy(node) for node in members) and etcd.leader(members) is not None

        what = f"all etcd members ({len(members)}) are healthy and have a leader"
        at = self._wait(formed, ETCD_SECONDS, members, what)
        leader = etcd.leader(members)
        who = leader.name if leader else "none"
        text = f"etcd {version} with {amount(len(members), 'member')} has a leader, {who}, after "
        self.site.events.add("note", "", f"{text}{at - began:.2f} s", etcd=version, seconds=at - began)

    def _start_member(self, node: Node, cluster: list[Node], state: str) -> None:
        data = self.site.scratch / f"{node.name}-{time.monotonic_ns()}"
        try:
            data.mkdir()
        except FileExistsError:
            raise DeploymentFailed(f"{data} for the data of {node.name} is there already and is not ours") from None
        # Ready as soon as it runs: whether the cluster is healthy is asked of the cluster, and a member that comes back
        # alone has to wait for the others.
        self._run(node, self._member_argv(node, cluster, state, data), {}, ready=None, after=[])

    def _member_argv(self, node: Node, cluster: list[Node], state: str, data: Path) -> list[str]:
        client, peer = f"http://{node.endpoint}", self._peers[node.name]
        argv = [str(binaries.etcd(self.site.settings)), "--name", node.name, "--data-dir", str(data)]
        argv += ["--listen-client-urls", client, "--advertise-client-urls", client]
        argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster-state", state]
        return [*argv, "--initial-cluster", ",".join(f"{each.name}={self._peers[each.name]}" for each in cluster)]

    def replace_etcd_member(self, lost: Node) -> Node:
        """See :class:`support.contract.deployment.Deployment`."""
        living = [node for node in self._all("etcd") if node.name != lost.name]
        answering = etcd.leader(living)
        if answering is None:
            raise DeploymentFailed(f"without {lost.name} the etcd cluster has no leader that could remove it")
        new = self._etcd_node()
        try:
            found = etcd.call(answering, "/v3/cluster/member/list", {}, ETCD_SECONDS)["members"]
            number = next(each["ID"] for each in found if each.get("name") == lost.name)
            etcd.call(answering, "/v3/cluster/member/remove", {"ID": number}, ETCD_SECONDS)
            # Refused until the others have been connected for 5 s on end (etcd's strict-reconfig-check).
            until(lambda: _refusal(answering, self._peers[new.name]), ETCD_SECONDS, f"etcd takes {new.name} in")
        except (etcd.EtcdError, AssertionError) as error:
            raise DeploymentFailed(f"{lost.name} cannot be replaced: {error}") from None
        self._start_member(new, [*living, new], "existing")
        self._wait(lambda: etcd.healthy(new), ETCD_SECONDS, [new], f"{new.name} is healthy in the place of {lost.name}")
        return new

    def _start_nats(self) -> None:
        node = self._node("nats-0", "nats", NATS_PORT, metrics=False)
        monitor = _port(node.address, MONITOR_PORT)
        argv = [str(binaries.nats(self.site.settings)), "--addr", node.address, "--port", str(node.port)]
        argv += ["--http_port", str(monitor), "--jetstream"]
        argv += ["--store_dir", str(self.site.scratch / f"{node.name}-{time.monotonic_ns()}")]
        self._run(node, argv, {}, ready=f"http://{node.address}:{monitor}/healthz", after=[])

    def _dynamo_env(self, node: Node) -> dict[str, str]:
        env = {
            "ETCD_ENDPOINTS": ",".join(f"http://{member.endpoint}" for member in self._endpoints()),
            "DYN_REQUEST_PLANE": self.shape.request_plane,
            "DYN_TCP_RPC_HOST": node.address,
            "DYN_HTTP_RPC_HOST": node.address,
            "DYN_EVENT_PLANE_HOST": node.address,
            "DYN_HEALTH_CHECK_ENABLED": str(self.shape.health_checks).lower(),
        }
        if self._nats:
            env["NATS_SERVER"] = f"nats://{self._only('nats').endpoint}"
        if self.shape.lease_seconds is not None and self.site.release.lease_setting:
            env[self.site.release.lease_setting] = f"{self.shape.lease_seconds:g}"
        return env

    def _endpoints(self) -> list[Node]:
        """The members of etcd that Dynamo is told of."""
        return self._all("etcd")

    def _run_dynamo(self, node: Node, argv: list[str], env: dict[str, str], **more: Any) -> None:
        nats = [each.name for each in self._all("nats")]
        self._run(node, argv, env, ready=None, after=nats, restart_policy=self.shape.restart_policy, **more)

    def _start_frontend(self, number: int) -> None:
        node = self._node(f"frontend-{number}", "frontend", FRONTEND_PORT)
        argv = [self._python, "-m", "dynamo.frontend", "--http-host", node.address, "--http-port", str(node.port)]
        argv += ["--migration-limit", str(self.shape.migration_limit), "--router-mode", self.shape.router_mode]
        if self.shape.sequence_cap is not None:
            argv += ["--migration-max-seq-len", str(self.shape.sequence_cap)]
        env = self._dynamo_env(node)
        if self.shape.stream_timeout_seconds is not None:
            env[str(self.site.release.stream_timeout)] = f"{self.shape.stream_timeout_seconds:g}"
        self._run_dynamo(node, argv, env)

    def _start_worker(self, role: str) -> Node:
        kind = self.shape.engine if role == "worker" else f"{self.shape.engine}-{role}"
        number = sum(node.role == role for node in self.nodes)
        node = self._node(f"{kind}-worker-{number}", role, SYSTEM_PORT, gate=self.shape.engine == "ruler")
        env = self._dynamo_env(node) | {"DYN_SYSTEM_HOST": node.address, "DYN_SYSTEM_PORT": str(node.port)}
        if self.shape.drain_seconds is not None:
            env[str(self.site.release.drain_deadline)] = f"{self.shape.drain_seconds:g}"
        if self.shape.grace_seconds is not None:
            env[GRACE_PERIOD] = f"{self.shape.grace_seconds:g}"
        if self.shape.engine == "ruler":
            # -P: nothing of the suite is to be found from within the environment of Dynamo.
            argv = [self._python, "-P", str(RULER)]
            env |= {
                "RULER_MODEL": self.model,
                "RULER_FIRST_ID": str(FIRST_POSITION_ID),
                "RULER_TOKENS_PER_SECOND": str(self.shape.pace),
                "RULER_PREFILL_SECONDS": str(self.shape.prefill_seconds),
                "RULER_GATE": str(node.gate_url).removeprefix("http://"),
                "RULER_LEAVING": self.shape.leaving.replace(" ", "-"),
                "RULER_JOURNAL": str(self.site.logs / f"{node.name}.journal.jsonl"),
            }
        else:
            argv = [self._python, "-m", "dynamo.mocker", *self._mocker_flags(role)]
        work = {"url": str(node.metrics_url), "metric": self.site.release.metrics["worker_response_bytes"]}
        env |= self.shape.worker_env
        self._run_dynamo(node, argv, env, gpus=1, progress=work)
        return node

    def _mocker_flags(self, role: str) -> list[str]:
        flags = ["--model-path", self.model, "--speedup-ratio", f"{self.shape.speed:g}"]
        if self.site.release.engine_type_flag:
            flags += ["--engine-type", self.shape.engine]
        if self.shape.max_model_len is not None:
            flags += ["--max-model-len", str(self.shape.max_model_len)]
        if role != "worker":
            flags += ["--disaggregation-mode", role]
        if role == "prefill":
            flags += [
                "--bootstrap-ports",
                str(_port("0.0.0.0", BOOTSTRAP_PORT)),
            ]  # the mocker binds it on all addresses
        return flags

    # -- while it runs

    def life(self, node: Node) -> Life:
        """See :class:`support.contract.deployment.Deployment`; a life is a process."""
        return self._life(node, self._agent.processes()[node.name])

    @staticmethod
    def _life(node: Node, seen: Mapping[str, Any]) -> Life:
        state = {"backoff": "waiting", "exited": "ended", "failed": "ended"}.get(seen["state"], seen["state"])
        identity = process.identity(seen["pid"], seen["start_time"])
        return Life(node.name, identity, f"pid {seen['pid']}", state, seen["restarts"])

    def changes(self) -> list[Change]:
        """See :class:`support.contract.deployment.Deployment`; as the node agent has them."""
        found, identities = list[Change](), dict[str, Hashable]()
        for seen in self._agent.history():
            node, state = seen["node"], seen["state"]
            if state == "starting":
                identities[node] = process.identity(seen["pid"], seen["start_time"])
            if state in STATES:
                change = Change(seen["at"], node, identities.get(node), state, seen["detail"], seen.get("exit_code"))
                found.append(change)
        return found

    def _wait_until_serving(self) -> float:
        """Until the frontend lists exactly the workers and serves the model; returns when that was."""
        wanted = len(self.workers)

        def serving() -> bool:
            urls = {self.frontend_url, *(f"http://{node.endpoint}" for node in self._all("frontend"))}
            listed = [numbers(url) for url in urls]
            whole = all(each is not None and len(each) == wanted for each in listed)
            return whole and all(serves(url, self.model) for url in urls)

        waiting_for = [node for node in self.nodes if node.role in ("etcd", "nats", "frontend")] + self.workers
        return self._wait(
            serving, BOOT_SECONDS, waiting_for, f"frontend lists {amount(wanted, 'worker')} and serves {self.model}"
        )

    def _wait_until_prefill_is_used(self) -> float:
        """Up to 1.4 the frontend serves a disaggregated model with decode workers alone at first."""
        prefill = [node for node in self.nodes if node.role == "prefill"]

        def used() -> bool:
            answer = send_completion_request(self.frontend_url, self.model, "ready", 1, timeout=BOOT_SECONDS)
            served = any(requests_served(node, self.site.release.metrics) for node in prefill)
            return answer.status_code == 200 and served

        return self._wait(
            used, BOOT_SECONDS, [*self._all("frontend"), *self.workers], "a prefill worker gets a request"
        )

    def _wait(self, condition: Callable[[], bool], timeout: float, needed: list[Node], what: str) -> float:
        began = now()
        with activity.waiting(what, began + timeout):
            while not condition():
                self._see_running(needed)
                if now() > began + timeout * slowness.factor():
                    logs = "\n".join(f"--- {node.name}\n{self._tail(node)}" for node in needed)
                    raise DeploymentFailed(f"not within {now() - began:.0f} s: {what}; last lines of the logs:\n{logs}")
                time.sleep(pause(now() - began))
        return now()

    def _see_running(self, needed: list[Node]) -> None:
        names = {node.name: node for node in needed}
        for name, seen in self._agent.processes().items():
            if name in names and seen["state"] in ("exited", "failed"):
                why = seen["detail"] or f"ended with status {seen['exit_code']}"
                raise DeploymentFailed(
                    f"{name} {why} while it was needed; last lines of its log:\n{self._tail(names[name])}"
                )

    def _log(self, node: Node) -> Path:
        return self.site.logs / f"{node.name}.log"

    def _tail(self, node: Node) -> str:
        return tail(self._log(node), 15) or "(no log)"

    def start_worker(self) -> Node:
        """Start one more worker and come back at once."""
        return self._start_worker("decode" if self.shape.disaggregated else "worker")

    def add_worker(self) -> Node:
        """Start one more worker and wait until the frontend lists it."""
        node = self.start_worker()

        def listed() -> bool:
            known = numbers(self.frontend_url)
            return known is not None and worker_id(node) in known and serves(self.frontend_url, self.model)

        self._wait(listed, BOOT_SECONDS, [node], f"frontend lists {node.name}")
        return node

    def topology(self) -> dict[str, Any]:
        """The published document."""
        processes = self._agent.processes()
        nodes = [
            {"name": node.name, "role": node.role, "address": node.address, "metrics_url": node.metrics_url}
            | self._published(node, processes.get(node.name))
            for node in self.nodes
        ]
        return {"deployment": "local", "shape": self.shape.describe(), "nodes": nodes}

    def _published(self, node: Node, seen: Mapping[str, Any] | None) -> dict[str, Any]:
        if seen is None:  # nothing has been started on it
            return {"life": None, "state": "waiting", "restarts": 0}
        life = self._life(node, seen)
        return {"life": life.words, "state": life.state, "restarts": life.restarts}

    def remove(self) -> list[str]:
        """Take everything down; returns what the kernel shows now and did not show before."""
        trouble = []
        try:
            self._agent.remove_deployment()
        except Refused as error:  # what is left has to be told all the more
            trouble = [f"the deployment: {error}"]
        world = self._agent.world()
        return trouble + [
            f"{kind[:-1] if kind != 'processes' else 'process'} {each}"
            for kind, things in world.items()
            for each in things
            if each not in self._world_before[kind]
        ]
