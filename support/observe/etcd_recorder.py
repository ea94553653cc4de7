"""What becomes of an etcd cluster over a scenario: who leads, which leases and registrations come and go.

Looks at every member a few times a second, in a thread per member, for a member that hangs keeps its caller waiting.
"""

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support import clock
from support.amounts import amount
from support.clock import now
from support.contract.deployment import Node
from support.events import EventLog
from support.observe import etcd
from support.observe.etcd import EtcdError, Lease, Status

PERIOD_SECONDS = 0.2
# Asking for one lease costs a member as much as the list of all. Keys change with the revision of the store; the
# time that is left changes whenever the lease is kept alive.
LEASE_PERIOD_SECONDS = 1.0
# A member that was away is sent what it missed within milliseconds of its return. After a cut TCP may
# wait for as long again as the cut has lasted.
CATCH_UP_SECONDS = 30.0
LANE = "etcd"
"""Subject of the events about the cluster as a whole."""


class EtcdRecorder:
    """Watches a cluster from the start of its members until :meth:`close`.

    Args:
        events: gets an event ``leader`` whenever another member leads, or none, and an event ``lease`` whenever a lease
            or a registration comes or goes.
        names: returns id of a lease -> node name of the workers that answer now.

    Attributes:
        records: what was seen, oldest first; ``problems``: what was not, in words.
    """

    def __init__(self, members: list[Node], events: EventLog, names: Callable[[], Mapping[str, str]]) -> None:
        self._events, self._names = events, names
        self._lock, self._over = threading.Lock(), clock.event()
        self.records: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self._last: dict[str, Status | None] = {}
        self._leader: str | None = None
        self._led: list[tuple[float, str]] = []
        self._leases: dict[str, dict[str, Any]] = {}
        self._revisions: dict[str, int | None] = {}
        self._holders: dict[str, str] = {}
        self._threads: list[threading.Thread] = []
        self._members: list[Node] = []
        for node in members:
            self.add(node)

    def add(self, node: Node) -> None:
        """Watch one more member."""
        self._members.append(node)
        thread = clock.thread(self._watch, (node,))
        self._threads.append(thread)
        thread.start()

    def _watch(self, node: Node) -> None:
        try:
            self._look_on(node)
        except Exception as error:  # noqa: BLE001 - a thread that ends in silence would leave a hole in the records
            self.problems.append(f"etcd: {node.name} was not watched to the end: {type(error).__name__}: {error}")

    def _look_on(self, node: Node) -> None:
        while not self._over.wait(PERIOD_SECONDS):
            try:
                seen: Status | None = etcd.status(node)
            except EtcdError:
                seen = None
            if self._over.is_set():
                return
            leads = self._note_status(node, seen)
            if leads and seen:
                self._look_at_leases(node, seen.revision)

    def _note_status(self, node: Node, seen: Status | None) -> bool:
        """Write down what has changed; whether this member leads in the highest term."""
        with self._lock:
            before = self._last.get(node.name)
            self._last[node.name] = seen
            if seen and (before is None or _matter(before) != _matter(seen)):
                self.records.append({"kind": "status", "at": now(), "node": node.name} | _matter(seen))
            known = [each for each in self._last.values() if each]
            term = max((each.term for each in known), default=0)
            chosen = {each.leader for each in known if each.term == term and each.leader}
            leader = next((each.name for each in known if each.member in chosen), "")
            if not known:
                leader = ""
            if leader != self._leader and (leader or not chosen):
                self._leader = leader
                self._led.append((now(), leader))
                text = f"{leader} leads in term {term}" if leader else "no leader is seen"
                self._events.add("leader", LANE, text, leader=leader, term=term)
            return bool(seen and seen.leads and seen.term == term)

    def _look_at_leases(self, node: Node, revision: int | None = None) -> None:
        """Look at every lease, or, with the ``revision`` of the store, at those that may have changed."""
        at = now()
        try:
            listed = etcd.lease_ids(node)
            asked = [each for each in listed if revision is None or self._is_due(each, revision, at)]
            seen = [found for each in asked if (found := etcd.lease(node, each))]
        except EtcdError:
            return
        # A member may take a while to answer. What a lease has left it had at the earliest when it was asked, and what
        # is gone was gone at the latest when it had answered: neither makes a lease end early that has not.
        answered_at = now()
        if any(lease.keys and lease.id not in self._holders for lease in seen):
            self._holders |= self._names()
        with self._lock:
            for lease in seen:
                self._note_lease(lease, at)
                self._revisions[lease.id] = revision
            there = {each.id for each in seen} | (set(listed) - set(asked))
            for number, entry in list(self._leases.items()):
                if number in there:
                    entry["missed"] = 0
                    entry.pop("gone_at", None)
                else:
                    self._miss_lease(number, entry, answered_at)

    def _is_due(self, number: str, revision: int, at: float) -> bool:
        entry = self._leases.get(number)
        if entry is None or entry["missed"] or self._revisions[number] != revision:
            return True
        unnamed = entry["keys"] and number not in self._holders
        return unnamed or at >= entry["at"] + LEASE_PERIOD_SECONDS

    def _miss_lease(self, number: str, entry: dict[str, Any], at: float) -> None:
        entry["missed"] += 1
        entry.setdefault("gone_at", at)
        # A new leader may not have applied the last entries yet: gone is what two looks in a row miss.
        if entry["missed"] == 2:
            del self._leases[number]
            self.records.append({"kind": "lease", "id": number} | entry)
            text = f"the lease of {_holder(entry)} is gone with {amount(len(entry['keys']), 'key')}"
            self._events.add("lease", LANE, text, at=entry["gone_at"], lease=number, gone=True)

    def _note_lease(self, lease: Lease, at: float) -> None:
        entry = self._leases.get(lease.id)
        if entry is None:
            entry = self._leases[lease.id] = {"keys": [], "holder": "", "since": at, "missed": 0}
            text = f"lease of {lease.granted} s granted"
            self._events.add("lease", LANE, text, at=at, lease=lease.id, gone=False)
        entry |= {"at": at, "left": lease.left, "granted": lease.granted}
        before, keys, named = entry["keys"], list(lease.keys), self._holders.get(lease.id, "")
        if keys != before or named != entry["holder"]:
            entry |= {"keys": keys, "holder": named}
            text = f"{_holder(entry)} has {amount(len(keys), 'key')} registered"
            fewer = bool(set(before) - set(keys))
            self._events.add("lease", LANE, text, at=at, lease=lease.id, gone=fewer, keys=keys)

    def leases_of(self, name: str) -> set[str]:
        """Ids of all leases that the worker on the node ``name`` was seen to hold."""
        return {lease for lease, holder in self._holders.items() if holder == name}

    def leaders(self, since: float) -> list[tuple[float, str]]:
        """When which member was seen to become leader, from ``since`` on."""
        return [(at, name) for at, name in self._led if at >= since and name]

    def stop(self) -> None:
        """End the watch; nothing more is asked of the members."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def close(self, path: Path, look: bool = True) -> list[dict[str, Any]]:
        """End the watch, write all records to ``path``, a JSONL file, look a last time, compare the members and add
        what has come of that.

        Where a majority answers they are given :data:`CATCH_UP_SECONDS` to agree; if they do not, the last record says
        why. What could not be seen to its end is in :attr:`problems`.

        Args:
            look: whether there is a last look; members that are gone would only be waited for.
        """
        self.stop()
        self._write(path)
        if look:
            try:
                self._compare()
            except Exception as error:  # noqa: BLE001 - the records so far stand
                self.problems.append(f"etcd: no last look: {type(error).__name__}: {error}")
            self._write(path)
        return self.records

    def _write(self, path: Path) -> None:
        path.write_text("".join(json.dumps(record) + "\n" for record in self.records), encoding="utf-8")

    def _compare(self) -> None:
        seen = etcd.statuses(self._members)
        answering = [node for node in self._members if node.name in seen]
        disagreement = ""
        self._look_from(answering)
        if len(answering) > len(self._members) // 2:
            try:
                etcd.await_agreement(answering, CATCH_UP_SECONDS)
            except AssertionError as error:
                disagreement = str(error)
        self._look_from(answering)  # what the leader had not applied yet it has by now
        self.records.append(etcd.comparison(answering) | {"disagreement": disagreement})

    def _look_from(self, answering: list[Node]) -> None:
        if leader := etcd.leader(answering):
            self._look_at_leases(leader)


def _holder(entry: Mapping[str, Any]) -> str:
    return str(entry["holder"] or ("an unknown process" if entry["keys"] else "a frontend"))


def _matter(seen: Status) -> dict[str, Any]:
    """What of a status is worth a record; ids in hex, as etcd's own tools show them."""
    return {
        "member": f"{seen.member:x}",
        "leader": f"{seen.leader:x}",
        "term": seen.term,
        "revision": seen.revision,
        "version": seen.version,
    }
