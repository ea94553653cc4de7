"""etcd as each of its members shows it, through the JSON gateway that every etcd from 3.4 on has; changes nothing.

Fields and paths are those of etcd's API (etcd.io, "gRPC gateway"): a member answers ``/v3/maintenance/status`` on
its own, with no quorum.
"""

import base64
import contextlib
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from support.asking import NoAnswer, ask
from support.clock import now
from support.contract.deployment import Node
from support.errors import SuiteError
from support.observe.metrics import ScrapeError, scrape
from support.observe.waiting import this_sentence, until

ANSWER_SECONDS = 0.5
REGISTRATIONS = ("v1/instances/", "v1/mdc/", "v1/event_channels/")
"""Prefixes below which Dynamo registers what it has: endpoints, models, sources of events."""


class EtcdError(SuiteError):
    """A member gave no answer, or a refusal; says which member and why."""


def call(node: Node, path: str, body: dict[str, Any], timeout: float = ANSWER_SECONDS) -> dict[str, Any]:
    """Ask a member, such as ``call(node, "/v3/maintenance/status", {})``; whole numbers of 64 bits come as texts.

    Raises:
        EtcdError: no connection, no answer within ``timeout`` seconds, or a status other than 200.
    """
    return _ask(node, "POST", node.endpoint, path, body, timeout)


def _ask(node: Node, method: str, endpoint: str, path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
    try:
        answer = ask(f"http://{endpoint}{path}", timeout, method, body)
        if answer.status != 200:
            raise EtcdError(f"{node.name} refuses {path}: {answer.status} {answer.text[:200]}")
        return dict(answer.json())
    except (NoAnswer, ValueError) as error:
        raise EtcdError(f"{node.name} does not answer {path}: {error}") from error


@dataclass(frozen=True)
class Status:
    """What a member says of itself.

    Attributes:
        name: of its node.
        member: its id in the cluster; ``leader``: the id of the one that it takes for the leader, 0 for none.
        term: raft's; ``index``: of the last entry in its raft log; ``applied``: of the last one that it has applied.
        revision: of its store.
        version: of its program.
    """

    name: str
    member: int
    leader: int
    term: int
    index: int
    applied: int
    revision: int
    version: str

    @property
    def leads(self) -> bool:
        """Whether it takes itself for the leader."""
        return self.leader == self.member


def status(node: Node) -> Status:
    """See :class:`Status`; :class:`EtcdError` when the member does not answer."""
    seen = call(node, "/v3/maintenance/status", {})
    header = seen["header"]
    number = {key: int(seen.get(key, 0)) for key in ("leader", "raftTerm", "raftIndex", "raftAppliedIndex")}
    return Status(
        name=node.name,
        member=int(header["member_id"]),
        leader=number["leader"],
        term=number["raftTerm"],
        index=number["raftIndex"],
        applied=number["raftAppliedIndex"],
        revision=int(header.get("revision", 0)),
        version=str(seen.get("version", "")),
    )


def healthy(node: Node) -> bool:
    """Whether the member can have a read agreed upon by a quorum, as ``/health`` says (200 or 503)."""
    with contextlib.suppress(NoAnswer):
        return ask(f"http://{node.endpoint}/health", ANSWER_SECONDS).status == 200
    return False


def hash_at(node: Node, revision: int) -> tuple[int, int]:
    """Hash of the member's keys up to ``revision`` (HashKV), and the revision that its store was compacted at.

    Asked at the address for its peers, where etcd's own corruption check asks; the gateway of 3.5 has no HashKV, its
    ``/v3/maintenance/hash`` is of everything there is now, whatever revision is named.

    Raises:
        EtcdError: it does not answer, or has not come to that revision.
    """
    members = call(node, "/v3/cluster/member/list", {})["members"]
    urls: list[str] = next((each["peerURLs"] for each in members if each.get("name") == node.name), [])
    if not urls:
        raise EtcdError(f"{node.name} does not know the address that its peers use")
    peer = urllib.parse.urlsplit(urls[0]).netloc
    seen = _ask(node, "GET", peer, "/members/hashkv", {"revision": revision}, ANSWER_SECONDS)
    return int(seen["hash"]), int(seen["compact_revision"])


def keep_alives(node: Node) -> int:
    """How many clients keep leases alive through this member: their open streams, which it may pass on to the leader.

    Raises:
        EtcdError: it does not answer.
    """
    try:
        metrics = scrape(node.metrics_url or "", ANSWER_SECONDS)
    except ScrapeError as error:
        raise EtcdError(str(error)) from error
    started, handled = (
        metrics.value(f"grpc_server_{name}_total", grpc_method="LeaseKeepAlive") or 0.0
        for name in ("started", "handled")
    )
    return int(started - handled)


@dataclass(frozen=True)
class Lease:
    """A lease as the leader has it; ``left`` and ``granted`` in whole seconds, ``left`` rounded down."""

    id: str
    left: int
    granted: int
    keys: tuple[str, ...]


def lease_ids(node: Node) -> list[str]:
    """Ids of every lease that the member knows.

    Raises:
        EtcdError: it does not answer, or finds no leader.
    """
    return [f"{int(each['ID']):x}" for each in call(node, "/v3/lease/leases", {}).get("leases", [])]


def lease(node: Node, number: str) -> Lease | None:
    """The lease with this id, with the time that is left as the leader has it; None when it has ended.

    Raises:
        EtcdError: it does not answer, or finds no leader.
    """
    seen = call(node, "/v3/lease/timetolive", {"ID": str(int(number, 16)), "keys": True})
    left = int(seen.get("TTL", 0))
    keys = tuple(sorted(base64.b64decode(key).decode(errors="replace") for key in seen.get("keys", [])))
    return None if left < 0 else Lease(number, left, int(seen.get("grantedTTL", 0)), keys)


@dataclass(frozen=True)
class Registration:
    """One key below :data:`REGISTRATIONS`.

    Attributes:
        key: whole key.
        lease: id of the lease that it ends with, ``0`` for none.
    """

    key: str
    lease: str


def registrations(node: Node, prefix: str = REGISTRATIONS[0]) -> list[Registration]:
    """What is registered below ``prefix``, as this member has it.

    Raises:
        EtcdError: it does not answer.
    """
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    body = {"key": _base64(prefix), "range_end": _base64(end), "serializable": True}
    found = []
    for each in call(node, "/v3/kv/range", body).get("kvs", []):
        key = base64.b64decode(each["key"]).decode(errors="replace")
        found.append(Registration(key, f"{int(each.get('lease', 0)):x}"))
    return found


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def statuses(members: Sequence[Node]) -> dict[str, Status]:
    """Node name -> what it says, of every member that answers."""
    found = {}
    for node in members:
        with contextlib.suppress(EtcdError):
            found[node.name] = status(node)
    return found


def leader(members: Sequence[Node]) -> Node | None:
    """The member that leads in the highest term and that a majority of ``members`` takes for the leader; or None."""
    seen = statuses(members)
    for node in members:
        own = seen.get(node.name)
        if own and own.leads:
            voters = [each for each in seen.values() if (each.leader, each.term) == (own.member, own.term)]
            if len(voters) > len(members) // 2:
                return node
    return None


def disagreement(members: Sequence[Node]) -> str | None:
    """Why these members do not agree, in words; None when all answer, follow one leader in one term and have the same
    hash at the same revision.
    """
    seen = statuses(members)
    if missing := [node.name for node in members if node.name not in seen]:
        return f"{', '.join(missing)} does not answer"
    if len({(each.leader, each.term) for each in seen.values()}) > 1 or not all(e.leader for e in seen.values()):
        return "; ".join(f"{e.name} follows {e.leader:x} in term {e.term}" for e in seen.values())
    if len({each.revision for each in seen.values()}) > 1:
        return "; ".join(f"{each.name} is at revision {each.revision}" for each in seen.values())
    found = hashes(members)
    return None if len(set(found.values())) == 1 else f"hashes {found}"


def hashes(members: Sequence[Node]) -> dict[str, int]:
    """Node name -> hash of the store, at the highest revision that all members which answer have come to.

    Two hashes can be compared only where the stores were compacted at the same revision; others are left out.
    """
    seen = statuses(members)
    if not seen:
        return {}
    revision = min(each.revision for each in seen.values())
    found: dict[str, tuple[int, int]] = {}
    for node in members:
        if node.name in seen:
            with contextlib.suppress(EtcdError):
                found[node.name] = hash_at(node, revision)
    compacted = {each[1] for each in found.values()}
    return {name: each[0] for name, each in found.items()} if len(compacted) == 1 else {}


def comparison(members: Sequence[Node]) -> dict[str, Any]:
    """A record for the judge: :func:`hashes` of the members, and the versions of their programs."""
    versions = sorted({each.version for each in statuses(members).values()})
    return {"kind": "hash", "at": now(), "hashes": hashes(members), "versions": versions}


def await_agreement(members: Sequence[Node], timeout: float) -> float:
    """Wait until :func:`disagreement` finds nothing; returns when that was.

    Raises:
        AssertionError: not within ``timeout`` seconds.
    """
    what = f"all etcd members ({len(members)}) follow one leader and have the same hash at the same revision"
    return until(lambda: disagreement(members), timeout, what, this_sentence())
