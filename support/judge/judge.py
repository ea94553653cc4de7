"""From a history to a verdict: findings first, then what they mean for this scenario on this release."""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace

from support.errors import Inconclusive, Mistake, NotKept, TooLate, nearest
from support.judge.defects import KnownDefect
from support.judge.history import History
from support.judge.invariants import RULES, check
from support.judge.verdict import BAD, Finding, Verdict
from support.seen import Told

OPT_OUT = "not_judged."
"""Prefix of the tag that switches an invariant off: ``@not_judged.RULE.the_reason_in_words``."""

_EVERYTHING = frozenset({*RULES, "sentence"})
LAST_LOOK = frozenset({"gauges", "counters", "etcd-leader", "etcd-revision", "etcd-lease", "etcd-agreement"})
"""Rules on what is looked at in the end, which says nothing while a fault lasts."""
_VOIDS = {
    "unproven": _EVERYTHING,
    "step-error": _EVERYTHING,
    "gate": _EVERYTHING,
    "lapsed": _EVERYTHING,
    "records-lost": _EVERYTHING,
    "not-undone": LAST_LOOK,
    "client-lag": frozenset({"sentence"}),
    "starved": frozenset({"sentence"}),
}
"""Suite's own rule -> rules whose findings then prove nothing. Without a proven fault, when a step broke down half-way,
with a fault that was over too early, an answer that nobody let go or a record that is lost, whatever was seen may have
another cause; a lagging client spoils times, which only sentences speak of; things left behind on the machine spoil
nothing that was seen before, a fault that lasts only what is looked at in the end."""


def judge_scenario(history: History, step_failure: BaseException | None, step_name: str = "") -> list[Finding]:
    """Everything that speaks against a scenario: the step that did not hold, if any, then the broken invariants.

    Args:
        history: what is known of the scenario.
        step_failure: what ended its steps early. An AssertionError blames Dynamo; a :class:`TooLate` in a time in which
            a process got no processor has that beside it, which voids it; a :class:`Mistake` blames the author of the
            scenario; :class:`Inconclusive` and any other exception blame the suite.
        step_name: the sentence of that step.
    """
    findings = [] if step_failure is None else _of_step(step_failure, step_name)
    if isinstance(step_failure, TooLate):
        findings = [replace(each, since=step_failure.since, until=step_failure.until) for each in findings]
        excuse = history.starved(step_failure.since, step_failure.until, step_failure.bound)
        starved = Told(f"{step_failure}; {excuse}")
        findings += [Finding.of("starved", step_name, starved, blame="suite")] if excuse else []
    return findings + check(history)


def decide(
    findings: Sequence[Finding],
    records: Iterable[KnownDefect],
    release: str,
    scenario: str,
    feature: str = "",
    not_judged: Container[str] = (),
) -> tuple[str, str, list[str]]:
    """The verdict on a scenario, its reason in one line, and the ids of the known defects that explain it.

    - The scenario itself cannot be: *mistake*, whatever else was seen.
    - Nothing found and no defect expected: *passed*.
    - Something found that voids the rest, or that is ours alone: *inconclusive*. That a process got no processor counts
      for a missed deadline alone that no record explains.
    - A finding about Dynamo that no record explains: *failed*.
    - A defect that is recorded as ``always`` and did not show, though all its rules are judged (none of them is in
      ``not_judged``): *failed*, for the record is wrong by now.
    - Everything explained by records: *known_defect*.
    """
    if wrong := [finding for finding in findings if finding.rule == "mistake"]:
        return "mistake", _reason(wrong + [finding for finding in findings if finding not in wrong]), []
    expected = [record for record in records if record.applies(release, scenario, feature)]
    ours = [finding for finding in findings if finding.blame == "suite"]
    theirs = [finding for finding in findings if finding.blame != "suite"]
    void: set[str] = set().union(*(_VOIDS.get(finding.rule, frozenset()) for finding in ours))
    shown = {record.id: explained for record in expected if (explained := record.explained(theirs))}
    unexplained = [finding for finding in theirs if not any(finding in explained for explained in shown.values())]
    if not any(finding.rule == "sentence" for finding in unexplained):
        ours = [finding for finding in ours if finding.rule != "starved"]  # what is known needs no excuse
    solid = [finding for finding in unexplained if finding.rule not in void]
    hidden = [record for record in expected if record.must_show(not_judged) and record.id not in shown]
    if solid:
        return "failed", _reason(solid + [finding for finding in theirs if finding not in solid] + ours), []
    if ours:
        return "inconclusive", _reason(ours + theirs), []
    if hidden:
        names = ", ".join(record.id for record in hidden)
        return "failed", f"known defect {names} did not show on {release}: remove the record or narrow its releases", []
    if shown:
        return "known_defect", f"{', '.join(shown)}: {_reason(theirs)}", list(shown)
    return "passed", "", []


def complaints(verdicts: Sequence[Verdict], is_allowed_skip: Callable[[str], bool]) -> list[str]:
    """Why a run is red, one phrase each; empty for a green run.

    Green are *passed*, *known_defect* and skips for the want of what ``is_allowed_skip``; one scenario at least must
    have run.
    """
    found = []
    for name in BAD:
        if count := sum(verdict.verdict == name for verdict in verdicts):
            found.append(f"{count} {'with mistakes' if name == 'mistake' else name}")
    if count := sum(verdict.verdict == "skipped" and not is_allowed_skip(verdict.lack) for verdict in verdicts):
        found.append(f"{count} skipped for a reason that is not allowed here (docs/verdicts.md lists those that are)")
    if all(verdict.verdict == "skipped" for verdict in verdicts):
        found.append("no scenario ran")
    return found


def opt_outs(tags: Iterable[str]) -> dict[str, str]:
    """Invariants that the scenario's tags switch off -> the reason, from ``@not_judged.RULE.the_reason_in_words``.

    Raises:
        Mistake: the tag names no known rule or gives no reason.
    """
    found = {}
    for tag in tags:
        if not tag.startswith(OPT_OUT):
            continue
        rule, _, reason = tag.removeprefix(OPT_OUT).partition(".")
        if rule not in RULES:
            meant = nearest(rule, RULES)
            instead = f"@{OPT_OUT}{meant}.{reason or 'the_reason_in_words'}" if meant else ""
            raise Mistake(f"tag @{tag} names the unknown rule {rule!r}", RULES, instead)
        if not reason:
            raise Mistake(f"tag @{tag} gives no reason", write=f"@{OPT_OUT}{rule}.the_reason_in_words")
        found[rule] = reason.replace("_", " ")
    return found


def _of_step(failure: BaseException, step: str) -> list[Finding]:
    """One for each thing that the step has seen; the first has the words of the whole failure."""
    said = " ".join(str(failure).split())
    if isinstance(failure, NotKept) and failure.seen:
        words = [said, *(each.words for each in failure.seen[1:])]
        return [Finding.of("sentence", step, each, words=line) for each, line in zip(failure.seen, words, strict=True)]
    if isinstance(failure, AssertionError):
        return [Finding.of("sentence", step, Told(said or "did not hold"))]
    if isinstance(failure, Mistake):
        return [Finding.of("mistake", step, Told(said), blame="author")]
    if isinstance(failure, Inconclusive):
        return [Finding.of("unproven", step, Told(said or "not proven"), blame="suite")]
    told = Told(f"{type(failure).__name__}: {said}".rstrip(": "))
    return [Finding.of("step-error", step, told, blame="suite")]


def _reason(findings: Sequence[Finding]) -> str:
    first = findings[0]
    about = f"{first.about}: " if first.about else ""
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{about}{first.message}{more}"
