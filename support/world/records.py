"""The end of a scenario: everything that was seen is kept, and everything is taken down."""

from collections import Counter
from typing import Any

from support import slowness
from support.contract.deployment import Facts
from support.contract.target import Wait
from support.faults.registry import ordered_as
from support.judge.history import WAITS, History
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


class Records:
    """Keeps what is seen of a scenario, and ends it."""

    def __init__(self, stage: Stage, clients: Clients, faults: Faults, lifetimes: Lifetimes) -> None:
        self._stage, self._clients, self._faults, self._lifetimes = stage, clients, faults, lifetimes
        slowness.begin()
        self._waits = stage.target.watch_waits(stage.folder / WAITS)

    def close(self, give_up: bool) -> History:
        """See all requests end, write the records, read everything once more and take the deployment down.

        Safe to call in every state, also after a failure half-way. Records are on disk before anybody is called who may
        refuse, every step is taken whatever became of those before, and what went wrong is in the history.

        Args:
            give_up: whether to cancel what is still under way, as after a failure; else each request has until its own
                deadline, and the judge will speak of one that needed it.
        """
        self._clients.stop_sending()
        end = Closing()
        topology = self._plain_topology()
        self._write_records(topology, end)  # as far as they go: who is waited for below may never come
        with end.recording("timeline"):
            self._stage.events.add("note", "", "the steps are over", steps="over")
        self._stage.let_go()
        self._clients.end(give_up, end)
        if self._stage.has_fleet:
            with end.recording("shutdowns"):
                self._lifetimes.shutdowns.see_gone(self._faults.made, self._stage.events)
        after: dict[str, Exposition] = {}
        records: list[dict[str, Any]] = []
        left: list[str] = []
        if self._stage.deployed:
            with end.recording("topology"):
                topology = self._stage.deployment.topology()
        self._write_records(topology, end)
        lapsed: list[str] = []
        if self._stage.deployed:
            with end.recording("faults in force"):
                lapsed = self._faults.lapsed()
            self._undo_faults(end)
        if self._stage.recorder:
            with end.recording("etcd"):
                records = self._stage.recorder.close(self._stage.folder / "etcd.jsonl", look=self._stage.deployed)
            end.records_lost += self._stage.recorder.problems
        if self._stage.has_fleet:
            with end.recording("metrics"):
                after = self._stage.fleet.last_look()
        if self._stage.deployed:
            with end.recording("states of processes"):
                self._add_states()
            with end.undoing("deployment"):
                left = self._stage.deployment.remove()
        worker_journal: list[dict[str, Any]] = []
        panics: dict[str, list[str]] = {}
        waits = self._machine(end)
        with end.recording("second opinions"):
            self._ask_for_second_opinions()
        self._write_records(topology, end)
        logs = self._stage.logs
        with end.recording("journals of the workers"):
            worker_journal = journal.read(logs)
        for log in sorted(logs.glob("*.log")):
            with end.recording(f"log of {log.stem}"):
                panics[log.stem] = find_panics(log)
        return History(
            entries=self._stage.ledger.entries(),
            events=self._stage.events.all(),
            topology=topology,
            metrics_before=self._stage.fleet.before if self._stage.has_fleet else {},
            metrics_after=after,
            panics=panics,
            worker_journal=worker_journal,
            etcd=records,
            waits=waits,
            leftovers=left,
            lapsed=lapsed,
            not_undone=end.not_undone,
            records_lost=end.records_lost,
            facts=self._stage.deployment.facts if self._stage.deployed else Facts(),
            migration_limit=self._stage.deployment.shape.migration_limit if self._stage.deployed else None,
            metric_names=self._stage.release.metrics,
        )

    def _ask_for_second_opinions(self) -> None:
        """Of each watched answer, and of one of each shape of the others. Not before all requests are over and the
        deployment is gone: it takes a second of CPU.
        """
        found = opinions(self._stage.ledger.entries(), {pending.entry.number for pending in self._clients.watched})
        for entry in self._stage.ledger.entries():
            entry.opinion = found.get(entry.number)
        if found:
            counts = Counter(each.kind for each in found.values())
            told = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
            client = next(iter(found.values())).client
            played = len({each.played for each in found.values()})
            text = f"{client} was given {played} answers, which stand for {len(found)}: {told}"
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

    def _write_records(self, topology: dict[str, Any], end: Closing) -> None:
        with end.recording("ledger"):
            self._stage.ledger.write(self._stage.folder / "ledger.jsonl")
        with end.recording("topology"):
            write_json(self._stage.folder / "topology.json", topology)

    def _undo_faults(self, end: Closing) -> None:
        live: list[dict[str, Any]] = []
        with end.undoing("faults"):
            live = self._stage.target.service.faults(active=True)
        for fault in live:
            kind = ordered_as(fault["kind"], fault["type"])
            if not (kind and kind.ends_process):  # those would only be started again to be ended
                with end.undoing(f"fault {fault['id']} ({fault['type']})"):
                    self._stage.target.service.recover(fault["id"])

    def _add_states(self) -> None:
        for change in self._stage.deployment.changes():
            if change.state != "fenced":
                text, more = f"{change.state}: {change.detail}", {"state": change.state, "exit_code": change.exit_code}
                self._stage.events.add("state", change.node, text, at=change.at, **more)
