"""The words in which reports speak of verdicts: the same on the console, in Allure and in the summary."""

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
    "unproven": "Not proven (says nothing about Dynamo)",
    "suite": "Suite or surroundings (says nothing about Dynamo)",
    "known": "Known Dynamo defect",
    "skipped": "Skipped",
    "passed": "Passed",
}
"""Category of a verdict -> its name in the report, the most urgent first."""

_UNPROVEN_RULES = {"unproven", "lapsed", "client-lag", "starved"}


def category(verdict: Verdict) -> str:
    """Key of :data:`CATEGORIES` that a verdict belongs to."""
    if verdict.verdict == "failed":
        return "dynamo"
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
