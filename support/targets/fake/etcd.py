"""An etcd cluster in memory: members that follow a leader while a majority can talk, leases, and one store.

It is simpler than raft: there is one store, which a member has as long as it can talk to the leader.
"""

import base64
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from support.targets.fake.hosts import FakeProgram, Host
from support.targets.fake.network import FakeNetwork

VERSION = "3.6.0"
ELECTION_SECONDS, TICK_SECONDS = 1.0, 0.1
PEER_PORT = 2380
_ids = itertools.count(0x694D0001)


@dataclass
class FakeLease:
    """A lease of the cluster; ``holder``: whose it is."""

    number: int
    seconds: float
    expires_at: float
    holder: str
    keys: dict[str, Any] = field(default_factory=dict)


class Member(FakeProgram):
    """One member; what it says of itself is what it last heard."""

    def __init__(self, host: Host, cluster: "Cluster") -> None:
        super().__init__(host)
        self._cluster = cluster

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """The parts of etcd's JSON gateway that the suite asks."""
        cluster = self._cluster
        seen = cluster.views[self.name]
        if path == "/health":
            return (200 if cluster.serves(self.host) else 503), {}
        if path == "/metrics":
            return (
                f'grpc_server_started_total{{grpc_method="LeaseKeepAlive"}} {cluster.streams(self.name)}\n'
                'grpc_server_handled_total{grpc_method="LeaseKeepAlive"} 0\n'
            )
        if path == "/v3/maintenance/status":
            header = {"member_id": str(cluster.ids[self.name]), "revision": str(seen.revision)}
            numbers = {"leader": seen.leader, "raftTerm": seen.term, "raftIndex": seen.revision}
            texts = {key: str(value) for key, value in numbers.items()}
            return {"header": header, "version": VERSION, "raftAppliedIndex": str(seen.revision)} | texts
        if path == "/v3/cluster/member/list":
            peers = [(name, f"http://{host.node.address}:{PEER_PORT}") for name, host in cluster.hosts.items()]
            return {"members": [{"ID": str(cluster.ids[name]), "name": name, "peerURLs": [url]} for name, url in peers]}
        if path == "/members/hashkv":
            return {"hash": 7 * body["revision"], "compact_revision": 0}
        if path == "/v3/kv/range":
            return {"kvs": self._range(body)}
        if not cluster.serves(self.host):
            return 503, {"error": "etcdserver: no leader"}
        if path == "/v3/lease/leases":
            return {"leases": [{"ID": str(number)} for number in cluster.leases]}
        lease = cluster.leases.get(int(body["ID"]))
        if lease is None:
            return {"TTL": "-1"}
        left = int(max(0.0, lease.expires_at - self.now))
        keys = [_encoded(key) for key in lease.keys]
        return {"TTL": str(left), "grantedTTL": str(int(lease.seconds)), "keys": keys}

    def _range(self, body: dict[str, Any]) -> list[dict[str, str]]:
        begin, end = (base64.b64decode(body[name]).decode() for name in ("key", "range_end"))
        return [
            {"key": _encoded(key), "lease": str(lease.number)}
            for lease in self._cluster.leases.values()
            for key in lease.keys
            if begin <= key < end
        ]


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@dataclass
class _View:
    leader: int = 0
    term: int = 0
    revision: int = 1
    heard_at: float = 0.0


class Cluster:
    """The members, what they agree on, and the processes of Dynamo that keep leases."""

    def __init__(self, network: FakeNetwork) -> None:
        self._network = network
        self.hosts: dict[str, Host] = {}
        self.ids: dict[str, int] = {}
        self.views: dict[str, _View] = {}
        self.leases: dict[int, FakeLease] = {}
        self.attached: dict[str, str] = {}
        """Name of a process -> the member that it keeps its lease alive through."""
        self.leader: str | None = None
        self._term, self._revision = 1, 1
        self._alone_since: float | None = None

    def add(self, host: Host) -> None:
        """One more member."""
        name = host.node.name
        self.hosts[name], self.ids[name], self.views[name] = host, next(_ids), _View()

    def remove(self, name: str) -> None:
        """A member that is lost."""
        del self.hosts[name], self.ids[name], self.views[name]

    # -- who leads

    def _up(self, host: Host) -> bool:
        return host.program is not None and host.program.answering and host.program.listening

    def _group(self, name: str) -> list[str]:
        """The members that one can talk to, itself among them; none if it does not run."""
        if not self._up(self.hosts[name]):
            return []
        others = [each for each, host in self.hosts.items() if self._up(host) and each != name]
        return [name, *(each for each in others if self._network.talk(name, each))]

    def _may_lead(self, name: str) -> bool:
        return len(self._group(name)) > len(self.hosts) // 2

    def tick(self) -> None:
        """Look after elections and leases."""
        now = self._network.clock.now()
        if self.leader is not None and (self.leader not in self.hosts or not self._may_lead(self.leader)):
            self.leader, self._alone_since = None, now
        if self.leader is None and (self._alone_since is None or now >= self._alone_since + ELECTION_SECONDS):
            self.leader = next((name for name in self.hosts if self._may_lead(name)), None)
            if self.leader is not None:
                self._term += 1
                for lease in self.leases.values():  # a new leader gives each its whole time again
                    lease.expires_at = now + lease.seconds
                self._network.change()
        following = self._group(self.leader) if self.leader is not None else []
        for name, view in self.views.items():
            if name in following and self.leader is not None:
                self.views[name] = _View(self.ids[self.leader], self._term, self._revision, now)
            elif now > view.heard_at + ELECTION_SECONDS and self._up(self.hosts[name]):
                view.leader = 0
        if self.leader is not None:
            for lease in [each for each in self.leases.values() if each.expires_at <= now]:
                self.drop(lease)

    def serves(self, host: Host) -> bool:
        """Whether a member can have something agreed upon."""
        return self.leader is not None and host.node.name in self._group(self.leader)

    # -- for the processes of Dynamo

    def member_of(self, process: str) -> Host | None:
        """The member through which a process can have something agreed upon: the one that it has, else another."""
        known = self.attached.get(process)
        order: Sequence[str] = sorted(self.hosts, key=lambda name: name != known)
        for name in order:
            if self.serves(self.hosts[name]) and self._network.talk(process, name):
                self.attached[process] = name
                return self.hosts[name]
        return None

    def streams(self, member: str) -> int:
        """How many processes keep their leases alive through a member."""
        return sum(each == member for each in self.attached.values())

    def grant(self, process: str, seconds: float) -> FakeLease:
        """A new lease."""
        lease = FakeLease(next(_ids), seconds, self._network.clock.now() + seconds, process)
        self.leases[lease.number] = lease
        self._revision += 1
        return lease

    def put(self, lease: FakeLease, key: str, value: Any) -> None:
        """A key that ends with a lease."""
        lease.keys[key] = value
        self._changed()

    def withdraw(self, lease: FakeLease) -> None:
        """Take out what is registered with a lease, which lives on."""
        lease.keys.clear()
        self._changed()

    def drop(self, lease: FakeLease) -> None:
        """The lease is over."""
        if self.leases.pop(lease.number, None) is not None:
            self.attached.pop(lease.holder, None)
            self._changed()

    def _changed(self) -> None:
        self._revision += 1
        self._network.change()

    def registered(self, prefix: str) -> dict[str, Any]:
        """Key -> value of what is registered."""
        return {
            key: value for lease in self.leases.values() for key, value in lease.keys.items() if key.startswith(prefix)
        }
