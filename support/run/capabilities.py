"""What scenarios need of the target of their run: read from tags, asked of the target, excused where it lacks it."""

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from support import targets
from support.contract.target import Capability, Need, TargetKind
from support.errors import Mistake
from support.judge import skips
from support.report.runs import write_json
from support.settings import Settings

PREFIX = "needs."
"""What tags begin with that name a need; a target may know others as well, such as ``gpu``."""


def needed(location: str, tags: Iterable[str], settings: Settings) -> list[Need]:
    """What a scenario needs, as the target of the settings has it, else as another one does.

    Raises:
        Mistake: a tag names what no kind of target knows; the message names ``location``, the tag, the known ones.
    """
    others = [make(settings) for make in targets.KINDS.values()]
    known = {need.tag: need for kind in (*others, targets.kind(settings)) for need in kind.needs.values() if need.tag}
    wanted = [tag for tag in tags if tag in known or tag.startswith(PREFIX)]
    if unknown := [tag for tag in wanted if tag not in known]:
        allowed = ", ".join(f"@{tag}" for tag in known)
        raise Mistake(f"{location}: no target knows the tag @{unknown[0]}; known are {allowed}")
    return [known[tag] for tag in wanted]


def lacking(location: str, tags: Iterable[str], settings: Settings, run: Path) -> tuple[str, str]:
    """The tag of a need that the target does not meet, and why the scenario cannot run therefore; empty when it can.

    Args:
        location: ``features/x.feature:12``.
        run: folder of the run, which asks its target once: the first process writes the answer down for the others.

    Raises:
        Mistake: a tag names what no kind of target knows.
    """
    kind = targets.kind(settings)
    names = {need: name for name, need in kind.needs.items()}
    for need in needed(location, tags, settings):
        if need not in names:
            return need.tag, _reason(need, f"the target {settings.target} knows of none")
        found = _of_run(kind, names[need], run)
        if not found.available:
            return need.tag, _reason(need, found.detail)
    return "", ""


def allowed_skips(settings: Settings) -> Callable[[str], bool]:
    """Whether a skip for the want of something is in order: the target lacks it, or the release."""
    kind, entries = targets.kind(settings), skips.load()

    @functools.cache
    def excused() -> set[str]:
        # Asked for only when something was skipped: trying nftables and netem takes half a second.
        return {kind.needs[name].tag for name, found in kind.capabilities(kind.needs).items() if not found.available}

    return lambda lack: bool(lack) and (skips.allowed(lack, settings.dynamo, entries) or lack in excused())


def _of_run(kind: TargetKind, name: str, run: Path) -> Capability:
    file = run / "capabilities" / f"{name}.json"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        write_json(file, kind.capabilities([name])[name])
    return Capability(*json.loads(file.read_text(encoding="utf-8")))


def _reason(need: Need, detail: str) -> str:
    return f"needs {need.words}: {detail}"
