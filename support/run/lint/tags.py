"""The tags of a feature file: those that mean something to the suite, those of its topics, and the user's own."""

from collections.abc import Iterator

from support.errors import Mistake, nearest
from support.judge.judge import OPT_OUT, opt_outs
from support.run.tags import tags

TOPICS = {
    "cancellation": "Clients give up.",
    "deployment": "A deployment under load loses a part of itself.",
    "etcd_ha": "etcd fails.",
    "examples": "Sentences to copy.",
    "gpu_faults": "GPUs fail.",
    "hardware": "What breaks is hardware: GPUs and networks.",
    "migration": "A request moves to another worker.",
    "network": "Networks fail.",
    "overload": "More load than the deployment has room for.",
    "rolling_restart": "The workers are restarted one after the other.",
}
"""Tag of a feature -> what it is about."""
OWN = "own."
"""What tags of your own begin with: they mean nothing to the suite, and choose scenarios as any tag does."""


def mistakes(tag: str) -> Iterator[Mistake]:
    """What is wrong with a tag, if anything."""
    known = [*TOPICS, *(each for each in tags() if not each.startswith(OPT_OUT))]
    if tag.startswith(OPT_OUT):
        try:
            opt_outs([tag])
        except Mistake as mistake:
            yield mistake
    elif tag not in known and not (tag.startswith(OWN) and tag != OWN):
        allowed = [*known, f"{OPT_OUT}RULE.the_reason_in_words", f"{OWN}ANYTHING"]
        meant = nearest(tag, known)
        yield Mistake(f"unknown tag @{tag}", [f"@{each}" for each in allowed], f"@{meant}" if meant else "")
