"""The tags that a scenario may carry, and what each does."""

from collections.abc import Iterator

from support.contract.shape import ENGINES, SIMULATED
from support.judge.invariants import RULES
from support.judge.judge import OPT_OUT
from support.run.runtime import RELEASE_FACTS
from support.targets.needs import NEEDS

FREE = {
    "smoke": "Played on real Dynamo by `make test`.",
    "slow": "Takes more than 5 minutes; may take an hour.",
    "soak": "Goes on for half an hour.",
    "matrix": "One of the ready scenarios on all engines and sizes, which take hours together.",
    "chance": "What it shows on the default release is a matter of chance.",
    "timed": "Measures the times of a load; no other scenario boots beside it.",
    "nats": "Frontend and workers talk over NATS.",
    "disaggregated": "Prefill and decode run on workers of their own.",
}
"""Tag -> what it says; the rest follows from what targets and releases lack."""


def tags() -> dict[str, str]:
    """Tag, without its ``@`` -> what it does, in a sentence."""
    return FREE | dict(_that_skip()) | {f"{OPT_OUT}RULE.REASON": _opt_out()}


def _that_skip() -> Iterator[tuple[str, str]]:
    for engine in ENGINES:
        what = f"simulated {engine}" if engine in SIMULATED else f"the engine {engine}"
        yield engine, f"Its workers are {what}; skipped on releases that have none."
    for need in NEEDS.values():
        if need.tag:
            yield need.tag, f"Needs {need.words} ({need.needed_for}); skipped where the target has none."
    for tag, lack in RELEASE_FACTS.items():
        yield tag, f"Needs a release that has a {lack}; skipped on others."


def _opt_out() -> str:
    rules = ", ".join(f"`{rule}`" for rule in RULES)
    return f"The invariant RULE is not judged; REASON says why, with `_` for spaces. Rules are {rules}."
