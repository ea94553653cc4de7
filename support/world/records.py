"""The end of a scenario: everything that was seen is kept, and everything is taken down."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from support import slowness
from support.amounts import amount
from support.contract.deployment import Facts
from support.contract.target import Wait
from support.faults.registry import ordered_as
from support.judge.history import WAITS, History
from support.judge.judge import LAST_LOOK
from support.observe import journal
from support.observe.logs import find_panics
from support.observe.metrics import Exposition
from support.report.runs import write_json
from support.requests.second_opinion import opinions
from support.world.clients import Clients
from support.world.closing import Closing
from support.world.faults import Faults
from support.world.lifetimes import Lifetimes
from support.world.stage import Stage

GOES_ON = dict.fromkeys(("leftovers", "not-undone"), "its wreck goes on")
"""Rules on what a scenario leaves, of one whose deployment is to be kept -> why they are not judged."""


class Records:
    """Keeps what is seen of a scenario, and ends it."""

    def __init__(self, stage: Stage, clients: Clients, faults: Faults, lifetimes: Lifetimes) -> None:
        self._stage, self._clients, self._faults, self._lifetimes = stage, clients, faults, lifetimes
        slowness.begin()
        self._waits = stage.target.watch_waits(stage.folder / WAITS)
        self._topology: dict[str, Any] = {}
        self._metrics: dict[str, Exposition] = {}
        self._etcd: list[dict[str, Any]] = []
        self._waited: list[Wait] | None = None
        self._lapsed: list[str] = []
        self._left: list[str] = []
        self._changes = 0

    def close(self, give_up: bool, keep: Callable[[History], bool] | None = None) -> History:
        """See all requests end, write the records, read everything once more and take the deployment down.

        Safe to call in every state, also after a failure half-way. Records are on disk before anybody is called who may
        refuse, every step is taken whatever became of those before, and what went wrong is in the history.

        Args:
            give_up: whether to cancel what is still in flight, as after a failure; else each request has until its own
                deadline, and the judge will speak of one that needed it.
            keep: is given the history as far as it goes and says whether the deployment is to go on as it is. Asked
                after a failure before its faults are undone, of what can be judged then; and again before the
                deployment goes.
        """
        end = Closing()
        self._see_requests_end(give_up, end)
        if self._stage.deployed:
            with end.recording("faults in force"):
                self._lapsed = self._faults.lapsed()
            if keep and give_up:
                self._add_states(end)
                wreck = self._history(end, GOES_ON | dict.fromkeys(LAST_LOOK, "its wreck goes on with its faults"))
                if keep(wreck):
                    self._stop_watching()
                    return wreck
            self._undo_faults(end)
        self._look_last(end)
        if keep and self._stage.deployed and keep(wreck := self._history(end, GOES_ON)):
            return wreck
        if self._stage.deployed:
            with end.undoing("deployment"):
                self._left = self._stage.deployment.remove()
        return self._history(end, {})

    def _see_requests_end(self, give_up: bool, end: Closing) -> None:
        self._clients.stop_sending(end)
        self._topology = self._plain_topology()
        self._write_records(end)  # as far as they go: who is waited for below may never come
        with end.recording("timeline"):
            self._stage.events.add("note", "", "the steps are over", steps="over")
        self._stage.let_go()
        self._clients.end(give_up, end)
        if self._stage.has_fleet:
            with end.recording("shutdowns"):
                self._lifetimes.shutdowns.see_gone(self._faults.made, self._stage.events)
        if self._stage.deployed:
            with end.recording("topology"):
                self._topology = self._stage.deployment.topology()
        self._write_records(end)

    def _look_last(self, end: Closing) -> None:
        """At etcd, the metrics and the processes, once nothing is broken any more."""
        if self._stage.recorder:
            with end.recording("etcd"):
                file = self._stage.folder / "etcd.jsonl"
                self._etcd = self._stage.recorder.close(file, look=self._stage.deployed)
            end.records_lost += self._stage.recorder.problems
        if self._stage.has_fleet:
            with end.recording("metrics"):
                self._metrics = self._stage.fleet.last_look()
        if self._stage.deployed:
            self._add_states(end)

    def _stop_watching(self) -> None:
        """Of a deployment that goes on; what was seen of its etcd is kept."""
        if self._stage.recorder:
            self._stage.recorder.close(self._stage.folder / "etcd.jsonl", look=False)

    def _history(self, end: Closing, not_judged: Mapping[str, str]) -> History:
        """What was seen so far."""
        worker_journal: list[dict[str, Any]] = []
        panics: dict[str, list[str]] = {}
        if self._waited is None:
            self._waited = self._machine(end)
            with end.recording("second opinions"):
                self._ask_for_second_opinions()
        self._write_records(end)
        logs = self._stage.logs
        with end.recording("journals of the workers"):
            worker_journal = journal.read(logs)
        for log in sorted(logs.glob("*.log")):
            with end.recording(f"log of {log.stem}"):
                panics[log.stem] = find_panics(log)
        return History(
            entries=self._stage.ledger.entries(),
            events=self._stage.events.all(),
            topology=self._topology,
            metrics_before=self._stage.fleet.before if self._stage.has_fleet else {},
            metrics_after=self._metrics,
            panics=panics,
            worker_journal=worker_journal,
            etcd=self._etcd,
            waits=self._waited,
            leftovers=self._left,
            lapsed=self._lapsed,
            not_undone=end.not_undone,
            records_lost=end.records_lost,
            facts=self._stage.deployment.facts if self._stage.deployed else Facts(),
            migration_limit=self._stage.deployment.shape.migration_limit if self._stage.deployed else None,
            metric_names=self._stage.release.metrics,
            not_judged=not_judged,
        )

    def _ask_for_second_opinions(self) -> None:
        """Of each watched answer, and of one of each shape of the others. Not before all requests are over and, unless
        a wreck may be kept, the deployment is gone: it takes a second of CPU.
        """
        found = opinions(self._stage.ledger.entries(), {pending.entry.number for pending in self._clients.watched})
        for entry in self._stage.ledger.entries():
            entry.opinion = found.get(entry.number)
        if found:
            counts = Counter(each.kind for each in found.values())
            told = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
            client = next(iter(found.values())).client
            played = len({each.played for each in found.values()})
            text = f"{client} was given {amount(played, 'answer')}, which stand for {len(found)}: {told}"
            self._stage.events.add("note", "client", text)

    def _machine(self, end: Closing) -> list[Wait]:
        """How busy the machine was: spells in which somebody waited for a processor."""
        waits: list[Wait] = []
        with end.recording("waits for a processor"):
            waits = self._waits.close()
        factor = slowness.factor()
        with end.recording("timeline"):
            self._stage.events.add("note", "", f"the suite ran {factor:.1f} times slower than alone", slowness=factor)
        return waits

    def _plain_topology(self) -> dict[str, Any]:
        """The deployment without what only its target knows."""
        if not self._stage.deployed:
            return {}
        nodes = [
            {"name": node.name, "role": node.role, "address": node.address} for node in self._stage.deployment.nodes
        ]
        return {"shape": self._stage.deployment.shape.describe(), "nodes": nodes}

    def _write_records(self, end: Closing) -> None:
        with end.recording("ledger"):
            self._stage.ledger.write(self._stage.folder / "ledger.jsonl")
        with end.recording("topology"):
            write_json(self._stage.folder / "topology.json", self._topology)

    def _undo_faults(self, end: Closing) -> None:
        live: list[dict[str, Any]] = []
        with end.undoing("faults"):
            live = self._stage.target.service.faults(active=True)
        for fault in live:
            kind = ordered_as(fault["kind"], fault["type"])
            if not (kind and kind.ends_process):  # those would only be started again to be ended
                with end.undoing(f"fault {fault['id']} ({fault['type']})"):
                    self._stage.target.service.recover(fault["id"])

    def _add_states(self, end: Closing) -> None:
        """Those that are not among the events yet."""
        with end.recording("states of processes"):
            changes = self._stage.deployment.changes()
            for change in changes[self._changes :]:
                if change.state != "fenced":
                    text = f"{change.state}: {change.detail}"
                    more = {"state": change.state, "exit_code": change.exit_code}
                    self._stage.events.add("state", change.node, text, at=change.at, **more)
            self._changes = len(changes)
