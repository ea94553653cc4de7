"""How long the scenarios of the last runs take on machines with more processors, by what each has needed here.

A model, not a measurement: the schedule is the real one, processors are shared evenly by those that want them, and a
scenario is a boot, which takes its CPU seconds and never less than :data:`BOOT_SECONDS`, and then the rest of its time,
which takes longer where there are too few processors. Bound: twice the processors take at most 0.8 of the time, as long
as the longest scenario does not take most of it.
"""

import sys
from dataclasses import dataclass

from support.run.schedule import BOOT, BOOT_SECONDS, Cost, Schedule, costs_file, read_costs, usual_costs
from support.run.selection import Selected, enumerate_scenarios
from support.settings import ROOT

STEP_SECONDS = 0.1
BOUND = 0.8


@dataclass
class Simulated:
    """A scenario under way; ``boot`` and ``rest`` are seconds that it still needs on an idle machine."""

    scenario: Selected
    cost: Cost
    boot: float
    rest: float

    @property
    def wanted(self) -> float:
        """Processors that it could use now."""
        return BOOT if self.boot > 0 else self.cost.need


def simulate(scenarios: list[Selected], costs: dict[str, Cost], processors: int) -> tuple[float, float]:
    """Seconds that all of them take, and the share of the processors that is used."""
    schedule = Schedule(scenarios, costs, 4 * processors, processors)
    under_way: list[Simulated] = []
    seconds = used = 0.0
    while schedule.waiting or under_way:
        for scenario in schedule.due([(each.scenario, each.boot <= 0) for each in under_way]):
            cost = costs[scenario.key]
            under_way.append(Simulated(scenario, cost, BOOT_SECONDS, max(0.0, cost.seconds - BOOT_SECONDS)))
        wanted = sum(each.wanted for each in under_way)
        pace = min(1.0, processors / wanted) * STEP_SECONDS
        used += min(wanted, processors) * STEP_SECONDS
        seconds += STEP_SECONDS
        for each in under_way:
            if each.boot > 0:
                each.boot -= pace
            else:
                each.rest -= pace
        under_way = [each for each in under_way if each.boot > 0 or each.rest > 0]
    return seconds, used / (seconds * processors)


def main() -> int:
    """Print the simulated times; returns 1 when more processors do not help, or nothing is known of most scenarios."""
    costs = usual_costs("local") | read_costs(costs_file(ROOT / "reports", "local"))
    everything = enumerate_scenarios(ROOT, [], [])
    known = [each for each in everything if each.key in costs]
    if len(known) < len(everything) / 2:
        print(f"of {len(everything)} scenarios {len(known)} have run here; `make acceptance` first")
        return 1
    longest = max(costs[each.key].seconds for each in known)
    cpu = sum(costs[each.key].cpu_seconds for each in known)
    print(f"{len(known)} scenarios, {cpu:.0f} s of CPU, the longest {longest:.0f} s")
    broken = False
    before = 0.0
    for processors in (2, 4, 8):
        seconds, share = simulate(known, costs, processors)
        print(f"{processors} processors: {seconds / 60:.1f} min, {share:.0%} of them used")
        broken = broken or (before > 0 and longest < before / 2 and seconds > BOUND * before)
        before = seconds
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
