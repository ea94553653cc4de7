"""What is known of a scenario once it is over: the only thing that the judge looks at."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from support.contract.deployment import Facts
from support.contract.target import Wait
from support.events import Event
from support.requests.ledger import LedgerEntry

WAITS = "waits.jsonl"
"""File of a scenario's folder with :class:`Wait`, one a line."""

LEAST_SECONDS = 0.02
"""Shorter waits are everyday life on a shared processor, and are not recorded."""

STARVED_SHARE = 0.2
"""Share of a bound; a process that waits longer for a processor may have broken the bound by that alone."""


class MetricsLike(Protocol):
    """One scrape of a node's Prometheus metrics, as ``support.observe.metrics.Exposition`` has it."""

    def value(self, name: str, **labels: str) -> float | None:
        """Sum over the series of ``name`` that carry ``labels``; None where there is none."""
        ...


@dataclass
class History:
    """Everything seen in one scenario; whatever is left out is not judged.

    Attributes:
        entries: the request ledger.
        events: faults, proofs and states of nodes, oldest first.
        topology: the document published by the target (``nodes``: list of ``name``, ``role``, ...).
        metrics_before: node name -> its metrics when the deployment was ready.
        metrics_after: node name -> its metrics after the last request ended; a node that does not answer is left out.
        panics: node name -> panic messages found in its log, [] where there is none.
        worker_journal: what the ruler engine's workers wrote, one dictionary per request that reached a worker
            (:func:`support.observe.journal.read`).
        etcd: what was seen of the etcd members (:class:`support.observe.etcd_recorder.EtcdRecorder`), oldest first.
        waits: spells in which processes of Dynamo and of the suite waited for a processor.
        leftovers: what was on the machine after the deployment went and had not been there before (namespaces, rules,
            processes, files), one line each.
        lapsed: faults that were over before their time, one line each.
        not_undone: steps of the scenario's end that should have put something back and failed, one line each.
        records_lost: what was seen and could not be kept or read, one line each.
        facts: what holds of the deployment; a rule that needs more than holds is not judged.
        migration_limit: how often one request may be moved to another worker; None where it is not known.
        metric_names: the release's names for ``frontend_requests`` (counter), ``frontend_inflight``,
            ``frontend_queued`` and ``worker_inflight`` (gauges); a name that is missing is not judged.
        not_judged: rules that are not judged -> why: a tag of the scenario switches them off
            (:func:`support.judge.judge.opt_outs`), or its wreck goes on.
    """

    entries: list[LedgerEntry] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    topology: dict[str, Any] = field(default_factory=dict)
    metrics_before: Mapping[str, MetricsLike] = field(default_factory=dict)
    metrics_after: Mapping[str, MetricsLike] = field(default_factory=dict)
    panics: Mapping[str, list[str]] = field(default_factory=dict)
    worker_journal: list[dict[str, Any]] = field(default_factory=list)
    etcd: list[dict[str, Any]] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    lapsed: list[str] = field(default_factory=list)
    not_undone: list[str] = field(default_factory=list)
    records_lost: list[str] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)
    migration_limit: int | None = None
    metric_names: Mapping[str, str] = field(default_factory=dict)
    not_judged: Mapping[str, str] = field(default_factory=dict)

    def starved(self, since: float, until: float, bound: float) -> str:
        """Which process waited longest for a processor between two times, in words; empty where none did for more than
        :data:`STARVED_SHARE` of ``bound`` seconds, so that the machine does not excuse it.
        """
        who, seconds = longest_wait(self.waits, since, until)
        return f"{who} {in_vain(seconds)}" if seconds > STARVED_SHARE * bound else ""


def longest_wait(waits: Iterable[Wait], since: float, until: float) -> tuple[str, float]:
    """Which process waited longest for a processor between two times, in words, and for how many seconds; empty and 0
    where none did.
    """
    seconds = {"": 0.0}
    for wait in waits:
        if wait.since < until and wait.until > since:
            seconds[wait.who] = seconds.get(wait.who, 0.0) + wait.seconds
    who = max(seconds, key=lambda each: seconds[each])
    return who, seconds[who]


def in_vain(seconds: float) -> str:
    """What is said of a process that has waited this long."""
    return f"was ready to run for {seconds:.2f} s of that time but got no processor"
