"""``python -m support.scenarios``: the text of features/library.feature, which plays every variant of the library."""

from collections.abc import Iterator
from itertools import groupby

from support.faults.registry import KINDS
from support.scenarios.model import Scenario, library

HEAD = """\
# Made by `python -m support.scenarios > features/library.feature` from support/scenarios/library.yaml.
Feature: Every engine survives the usual failures, aggregated and disaggregated
  By default each ready scenario is played on one engine, here or in another feature. With @matrix all of them are
  played on all engines. With one replica a lost worker is started again, and requests have to succeed from then on.

  @<engine>
  Scenario Outline: <name>
    When the ready scenario "<name>" is played
    Then all of its checks hold
"""
ELSEWHERE = {
    "nothing breaks": "Nothing breaks and every answer is whole",
    "a worker crashes": "A worker is lost under load (vllm, crashes)",
    "a worker hangs": "A worker hangs for a while: its users wait but lose nothing",
    "a worker is shut down": "A worker is lost under load (vllm, is shut down)",
    "a decode worker crashes": "A decode worker of a disaggregated deployment crashes under load",
    "a prefill worker crashes": "A prefill worker of a disaggregated deployment crashes under load",
    "the frontend crashes": "The frontend crashes under load and comes back",
    "the etcd member crashes": "One of three etcd members crashes under load and comes back",
    "the etcd member hangs": "etcd hangs for a while and requests go on",
    "the workers are restarted one after the other": "The workers are restarted one after the other under load (vllm)",
    "overlong prompts": "Overlong prompts are rejected cleanly and other requests are unharmed (vllm)",
    "a GPU fails": "A GPU fails under load and is repaired",
    "the network fails": "The network fails under load and heals",
    "overload far past capacity": "An overload is rejected cleanly, and requests are accepted again afterwards (vllm)",
}
"""Ready scenario -> the scenario of another feature that plays it by default."""
CUT_OFF = "@not_judged.one-outcome.the_connections_end_with_the_frontend"


def feature() -> str:
    """The text of the file."""
    ready = library()
    base = [each for name, each in ready.items() if not name.endswith(")") and name not in ELSEWHERE]
    variants = [each for name, each in ready.items() if name.endswith(")")]
    parts = [*_examples("@deployment", base), *_examples("@matrix", variants)]
    return "\n".join([HEAD, *parts])


def _tags(scenario: Scenario) -> tuple[str, ...]:
    """What the machine has to have, and whether the answers in flight end with the process that brings them."""
    failures = scenario.failures
    kinds = [(KINDS[each.type], each.target) for each in failures if each.type in KINDS]
    ends = any(target == "frontend" and kind.ends_process for kind, target in kinds)
    needs = {f"@needs.{need}" for kind, _ in kinds for need in kind.needs}
    return (*sorted(needs), *([CUT_OFF] if ends else []))


# @timed: their checks speak of times that a boot next door would spoil.
def _examples(selection: str, scenarios: list[Scenario]) -> Iterator[str]:
    def kind(scenario: Scenario) -> tuple[str, tuple[str, ...]]:
        return scenario.backend, _tags(scenario)

    for (engine, tags), group in groupby(sorted(scenarios, key=kind), kind):
        rows = list(group)
        width = max(len(each.name) for each in rows)
        cells = [("name", "engine"), *((each.name, engine) for each in rows)]
        table = [f"      | {name:<{width}} | {cell:<6} |" for name, cell in cells]
        when = "by default" if selection == "@deployment" else "all"
        yield "\n".join(
            [f"    {' '.join([selection, '@timed', *tags])}", f"    Examples: {engine}, {when}", *table, ""]
        )


if __name__ == "__main__":
    print(feature(), end="")
