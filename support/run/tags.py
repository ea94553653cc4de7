"""Every tag that a scenario may have, and what it means."""

from collections.abc import Iterator

from support.contract.shape import SIMULATED
from support.errors import Mistake, nearest
from support.judge.judge import OPT_OUT, opt_outs
from support.run.runtime import RELEASE_FACTS
from support.targets.needs import NEEDS

TOPICS = {
    "cancellation": "clients give up",
    "deployment": "a deployment under load",
    "disaggregated": "prefill and decode run on workers of their own",
    "etcd_ha": "etcd fails",
    "gpu_faults": "GPUs fail",
    "hardware": "what breaks is hardware: GPUs, networks",
    "migration": "a request moves to another worker",
    "nats": "the request plane is NATS",
    "network": "networks fail",
    "overload": "more load than the deployment has room for",
    "rolling_restart": "workers are restarted one after the other",
}
TIMES = {
    "smoke": "part of `make test`",
    "timed": "measures the times of a load: nothing else boots beside it",
    "slow": "takes over 5 minutes: may take an hour, and is left out by default",
    "soak": "takes half an hour: may take an hour, and is left out by default",
    "matrix": "one of the whole library; left out by default",
    "chance": "what it shows is a matter of chance; left out by default",
}
OWN = "own."
"""What tags of your own begin with: they mean nothing to the suite, and choose scenarios as any tag does."""


def known() -> dict[str, str]:
    """Tag, without its ``@`` -> what it means; those with :data:`OWN` or the prefix of an opt-out are not listed."""
    engines = {engine: f"simulated {engine} workers" for engine in SIMULATED} | {"ruler": "workers of the ruler"}
    needs = {need.tag: f"needs {need.words}; skipped where the target has none" for need in NEEDS.values() if need.tag}
    facts = {tag: f"skipped on a release that lacks it: {lack}" for tag, lack in RELEASE_FACTS.items()}
    return {**TOPICS, **engines, **TIMES, **needs, **facts}


def mistakes(tag: str) -> Iterator[Mistake]:
    """What is wrong with a tag, if anything."""
    if tag.startswith(OPT_OUT):
        try:
            opt_outs([tag])
        except Mistake as mistake:
            yield mistake
    elif tag not in known() and not (tag.startswith(OWN) and tag != OWN):
        allowed = [*known(), f"{OPT_OUT}RULE.the_reason_in_words", f"{OWN}ANYTHING"]
        meant = nearest(tag, known())
        yield Mistake(f"unknown tag @{tag}", [f"@{each}" for each in allowed], f"@{meant}" if meant else "")
