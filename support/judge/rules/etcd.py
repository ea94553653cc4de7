"""Rules on the etcd cluster behind a deployment."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from support.amounts import amount
from support.judge.history import History
from support.judge.rules.lookup import etcd_records, told_to_leave
from support.judge.verdict import Finding
from support.seen import EtcdSeen

GIVE_BACK_BOUND = 2.0
"""Seconds by which a holder may outlive the lease that it gives back when it shuts down by itself."""
LEADING_SECONDS = 1.0
"""How long a member has to lead before the term that it shows is its own."""
ETCD_DIVERGES = {"3.5.0", "3.5.1", "3.5.2"}
"""Releases of etcd whose members can diverge when they are killed under load."""


def etcd_leader(history: History) -> Iterator[Finding]:
    """No two etcd members lead in one term, by what they say of themselves.

    etcd tells the term of the last entry that it has applied, so a new leader shows the old term for a moment: a spell
    of leading counts for the last term that is shown in it, and one too short to tell not at all.
    """
    leaders: dict[int, dict[str, None]] = {}
    by_node: dict[str, list[dict[str, Any]]] = {}
    for record in etcd_records(history, "status"):
        by_node.setdefault(record["node"], []).append(record)
    end = max((record["at"] for record in history.etcd), default=0.0)
    for node, records in by_node.items():
        for leads, spell in groupby(records, lambda record: bool(record["leader"] == record["member"])):
            told = list(spell)
            after = next((record["at"] for record in records if record["at"] > told[-1]["at"]), end)
            if leads and after - told[0]["at"] >= LEADING_SECONDS:
                leaders.setdefault(told[-1]["term"], {})[node] = None
    for term, seen in leaders.items():
        if len(seen) > 1:
            message = f"term {term} has had {amount(len(seen), 'leader')}: {', '.join(seen)}"
            yield Finding.of("etcd-leader", "etcd", EtcdSeen("", "two-leaders", len(seen), message))


def etcd_revision(history: History) -> Iterator[Finding]:
    """The revision of a member never goes back, restarts included."""
    last: dict[tuple[str, str], int] = {}
    for record in etcd_records(history, "status"):
        member = record["node"], record["member"]
        if record["revision"] < last.get(member, 0):
            message = f"its revision went back from {last[member]} to {record['revision']}"
            seen = EtcdSeen(record["node"], "revision-back", last[member] - record["revision"], message)
            yield Finding.of("etcd-revision", record["node"], seen)
        last[member] = record["revision"]


def etcd_lease(history: History) -> Iterator[Finding]:
    """No lease is gone before its time, unless its holder ended or was told to end while it had the lease, and so gave
    it back itself.
    """
    ends: dict[str, list[float]] = {}
    for event in history.events:
        if told_to_leave(event) or event.state == "stopped":
            ends.setdefault(event.subject, []).append(event.at)
    for record in etcd_records(history, "lease"):
        early = record["at"] + record["left"] - record["gone_at"]
        # With no keys, and hence no name, it is a frontend's, or that of a worker which has yet to register.
        holders = [record["holder"]] if record["holder"] else list(ends)
        latest = record["gone_at"] + GIVE_BACK_BOUND
        given_back = any(record["since"] <= at <= latest for name in holders for at in ends.get(name, ()))
        if early > 0 and not given_back:
            whose = record["holder"] or "a frontend or an unknown process"
            message = f"the lease of {whose} was gone {early:.1f} s too early"
            yield Finding.of("etcd-lease", "etcd", EtcdSeen(record["holder"], "lease-early", early, message))


def etcd_agreement(history: History) -> Iterator[Finding]:
    """In the end all members that answer, if they are a majority, follow one leader and have the same hash of their
    store at the same revision.
    """
    for record in etcd_records(history, "hash"):
        if len(set(record["hashes"].values())) <= 1:
            if record.get("disagreement"):
                message = f"the members do not agree: {record['disagreement']}"
                yield Finding.of("etcd-agreement", "etcd", EtcdSeen("", "disagreement", 0, message))
        else:
            message = f"the members disagree about the store: {record['hashes']}"
            # A known defect of etcd itself says nothing about Dynamo (etcd.io, "Data inconsistency" in 3.5.0 to 3.5.2).
            own = set(record["versions"]) & ETCD_DIVERGES
            if own:
                message += f"; etcd {', '.join(sorted(own))} is known for that, choose another with etcd_binary"
            seen = EtcdSeen("", "hashes", len(set(record["hashes"].values())), message)
            yield Finding.of("etcd-agreement", "etcd", seen, blame="suite" if own else "dynamo")
