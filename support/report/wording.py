"""The words in which reports speak of verdicts: the same on the console, in Allure and in the summary."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping

from support.amounts import amount
from support.judge.verdict import Finding, Verdict

MARKS = {
    "passed": "passed",
    "failed": "FAILED",
    "mistake": "MISTAKE",
    "inconclusive": "INCONCLUSIVE",
    "known_defect": "known defect",
    "skipped": "skipped",
}
"""How a verdict is written on the console."""

CATEGORIES = {
    "dynamo": "Dynamo defect",
    "mistake": "Mistake in the scenario (says nothing about Dynamo)",
    "record": "Known Dynamo defect that did not show",
    "unproven": "Not proven (says nothing about Dynamo)",
    "suite": "Suite or surroundings (says nothing about Dynamo)",
    "known": "Known Dynamo defect",
    "skipped": "Skipped",
    "passed": "Passed",
}
"""Category of a verdict -> its name in the report, the most urgent first."""

OWNERS = {
    "dynamo": "Dynamo",
    "known": "Dynamo",
    "mistake": "whoever wrote the scenario",
    "record": "the suite",
    "unproven": "the suite",
    "suite": "the suite",
}
"""Category -> who has to do something about it; nobody about the others."""

JUDGEMENTS = {
    "dynamo": "Dynamo broke the promise, in a way not on record yet.",
    "known": "Dynamo broke the promise, in a known and recorded way.",
    "record": "A defect that is recorded for this release did not show: its record has to be corrected.",
    "mistake": "This says nothing about Dynamo: the scenario has a mistake.",
    "unproven": "This says nothing about Dynamo: the fault was not proven.",
    "suite": "This says nothing about Dynamo: the suite or the machine under it failed.",
    "skipped": "This did not run here.",
    "passed": "The promise is kept.",
}
"""Category -> the first sentence of a scenario's page."""

OUTCOMES = {
    "complete": ("whole answer", "whole answers"),
    "error": ("error", "errors"),
    "cancelled": ("given up by client", "given up by clients"),
    "broken": ("broken", "broken"),
    "missing": ("left without an end", "left without an end"),
    "withdrawn": ("never sent", "never sent"),
}
"""Outcome of a request -> what one of them is called, and several."""

_UNPROVEN_RULES = {"unproven", "lapsed", "client-lag", "starved"}


def category(verdict: Verdict) -> str:
    """Key of :data:`CATEGORIES` that a verdict belongs to."""
    if verdict.verdict == "failed":
        return "dynamo" if any(finding.blame == "dynamo" for finding in verdict.findings) else "record"
    if verdict.verdict == "known_defect":
        return "known"
    if verdict.verdict == "inconclusive":
        ours = [finding.rule for finding in verdict.findings if finding.blame == "suite"]
        return "unproven" if ours and ours[0] in _UNPROVEN_RULES else "suite"
    return verdict.verdict


def headline(verdict: Verdict) -> str:
    """One line that says who is to blame and what was seen; the bare reason of a skip; empty for a plain pass."""
    if verdict.verdict in ("passed", "skipped"):
        return verdict.reason
    return f"{CATEGORIES[category(verdict)]}: {verdict.reason}"


def invariants(verdict: Verdict) -> str:
    """How much a pass is worth: invariants that had something to look at; empty where none was judged."""
    if not verdict.evidence:
        return ""
    return f"{sum(map(bool, verdict.evidence.values()))} of {amount(len(verdict.evidence), 'invariant')} had evidence"


def listing(findings: list[Finding]) -> str:
    """All findings, one a line; empty when there are none."""
    return "\n".join(f"[{finding.rule}] {finding.about}: {finding.message}" for finding in findings)


def lead(verdict: Verdict) -> Finding | None:
    """The finding that the verdict's reason begins with; None where it tells of none."""
    told = (each for each in verdict.findings if f"{each.about}: {each.message}".lstrip(": ") in verdict.reason)
    return next(told, None)


def promised(verdict: Verdict) -> tuple[str, str]:
    """What was expected, without its keyword, and what was seen instead; empty where the reason tells no such thing."""
    finding = lead(verdict)
    if finding is None:
        return "", verdict.reason
    if finding.rule != "sentence":
        return "", f"{finding.about}: {finding.message}".lstrip(": ")
    return finding.about.partition(" ")[2], finding.message


def again(location: str, settings: Mapping[str, str]) -> str:
    """The command that runs one scenario again, with these settings, whatever is usual."""
    given = [f"{name.upper()}={value}" for name, value in settings.items()]
    return shlex.join(["make", "acceptance", f"FEATURES={location}", *given])


def outcomes(kinds: Iterable[str]) -> str:
    """How many requests came to which end, the most frequent first: ``3 whole answers, 1 error``."""
    return ", ".join(f"{number} {OUTCOMES[kind][number > 1]}" for kind, number in Counter(kinds).most_common())
