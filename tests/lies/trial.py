"""One cell of the table: a scenario with markers in which somebody lies, played and judged as all scenarios are.

``python -m tests.lies.trial ROW LIE NUMBER FOLDER``, in a cell whose ``FT_SABOTAGE`` is that of the way; leaves
``outcome.json`` in the folder.
"""

import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from agents.sabotage import marks
from agents.sabotage.signs import CUE, DONE
from support import releases
from support.clock import now
from support.contract.deployment import Node
from support.events import EventLog
from support.faults.fault import ProvenFault
from support.faults.processes import Hang
from support.faults.victims import Exactly
from support.judge.judge import decide, judge_scenario
from support.observe.waiting import until
from support.report.runs import write_json
from support.settings import Settings
from support.targets.local.agent import Agent
from support.targets.local.witness import LocalWitness
from support.world.world import World
from tests.lies import HONEST, Row, Way, rows, ways
from tests.lies.target import MarkerTarget

CUE_SECONDS = 30.0
ON_CUE = ("injector=comes-too-late", "injector=ends-early", "witness=sees-no-end")


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        verdict: of the scenario; ``reason``: its first finding.
        lied: whether the lie was told.
        seconds: how long it took, its cell not counted.
    """

    verdict: str
    reason: str
    lied: bool
    seconds: float


class Trial:
    """One scenario: somebody is hit, users see what the fault wants, it is undone, all is well again."""

    def __init__(self, row: Row, lie: str, way: Way, folder: Path) -> None:
        self._row, self._lie, self._way = row, lie, way
        self._scratch = Path(os.environ["FT_SCRATCH"])
        settings = Settings()
        target = MarkerTarget(settings, releases.get(settings.dynamo), folder, EventLog())
        target.options = self._options()
        self._world = World(settings, folder, target)

    def play(self) -> Outcome:
        """All of it, with its verdict."""
        began, failure = now(), None
        try:
            self._act()
        except Exception as error:  # noqa: BLE001 - as behave takes whatever a step raises
            failure = error
            if self._way.sabotage == "injector=comes-too-late":
                self._cue()
        history = self._world.close(give_up=failure is not None)
        findings = judge_scenario(history, failure, "the scenario of the lie")
        verdict, reason, _ = decide(findings, [], self._world.stage.release.version, self._row.name)
        told = self._way.sabotage.startswith("list=") or Path(os.environ[marks.VARIABLE]).exists()
        return Outcome(verdict, reason, told, round(now() - began, 2))

    def _act(self) -> None:
        made = self._world.deploy(engine="ruler", workers=3)
        victim, bystander = made.workers[0], made.workers[1]
        assert self._row.make is not None
        fault = self._row.make(Exactly(victim))
        others: list[ProvenFault] = []
        if self._lie in (HONEST, "undoes another's"):
            others = self._world.faults.strike(Hang(Exactly(bystander)))
        if getattr(fault, "slows", False):
            self._ask_for_tokens()
        proven = self._world.faults.strike(fault)
        if self._way.sabotage in ON_CUE:
            self._cue()
        self._see("the fault is felt", proven)
        self._world.faults.recover(*proven)
        self._see("the other fault is felt", others)
        for each in others:
            self._world.faults.recover(each)
        self._see_whole([victim, bystander])
        for pending in self._world.clients.watched:
            self._world.clients.cancel(pending)

    def _options(self) -> tuple[list[str], list[str]]:
        child = ["--child"] if self._way.sabotage == "injector=spares-children" else []
        kind, _, value = self._way.sabotage.partition("=")
        told = value if kind == "list" else "stale" if value == "is-stale" else ""  # all who look are of that time
        return child + (["--lingers"] if self._row.lingers else []), ["--list", told]

    def _ask_for_tokens(self) -> None:
        clients, sabotage = self._world.clients, self._way.sabotage
        clients.send(max_tokens=100_000, timeout=600.0)
        if sabotage in ("witness=is-blind", "witness=is-stale"):
            real, rates = clients.rate, list[float]()

            def rate(seconds: float) -> float:
                """Nobody counts, or nobody counts again once tokens have come."""
                marks.leave("the rate of tokens is a lie")
                if sabotage == "witness=is-blind":
                    return 0.0
                if not rates and (seen := real(seconds)):
                    rates.append(seen)
                return rates[0] if rates else 0.0

            clients.rate = rate  # type: ignore[method-assign]

    def _cue(self) -> None:
        (self._scratch / CUE).touch()
        if self._way.sabotage.startswith("injector="):
            until(lambda: None if (self._scratch / DONE).exists() else "not yet", CUE_SECONDS, "the lie is told")

    def _honest(self) -> Any:
        ground = self._world.faults._ground()
        return replace(ground, witness=LocalWitness(Agent.of_this_cell(), str(self._scratch)))

    def _see(self, what: str, faults: list[ProvenFault]) -> None:
        """A sentence about what a fault does to its victims."""
        for each in faults if self._way.noticed else ():
            if each.until > now() and (seen := each.fault.lapsed(self._honest(), each)):
                raise AssertionError(f"{what}: {seen}")

    def _see_whole(self, nodes: list[Node]) -> None:
        """A sentence about what becomes of them afterwards."""
        for node in nodes if self._way.noticed else ():
            broken = Hang(Exactly(node)).unsound(self._honest(), [node], None)
            if broken:
                raise AssertionError(f"{node.name} is whole again: {broken}")


def main(arguments: list[str]) -> None:
    """Entry point."""
    name, lie, number, folder = arguments
    row = next(each for each in rows() if each.name == name)
    outcome = Trial(row, lie, ways(row, lie)[int(number)], Path(folder)).play()
    write_json(Path(folder) / "outcome.json", asdict(outcome))


if __name__ == "__main__":
    main(sys.argv[1:])
