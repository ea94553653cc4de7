"""The first page of the report: is this release safe, promise by promise, in ten seconds. Allure's own pages come after
it, in the same file.

Allure 3 has a dashboard, but none that can say this: it counts statuses, and takes a known defect for a failure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import urlparse

from support.amounts import amount
from support.judge.defects import KnownDefect
from support.judge.verdict import Verdict
from support.report import wording
from support.report.promises import Changes, Promise, Struck, answer, blame

SIGNS = {
    "broken": ("\N{MULTIPLICATION X}", "Broken"),
    "unproven": ("?", "Not proven"),
    "known": ("\N{ALMOST EQUAL TO}", "Kept, except for known defects"),
    "kept": ("\N{CHECK MARK}", "Kept"),
    "open": ("\N{EN DASH}", "Not judged"),
}
"""State of a promise -> its sign and its words: no colour says what they do not."""
NAMED = 6
"""Up to this many scenarios are named at once."""
WHERE = {
    "local": "on one machine",
    "kubernetes": "on a Kubernetes cluster",
    "fake": "on a Dynamo in memory, which says nothing about a release",
}
"""Target -> where a run on it was, in a reader's words."""
PLACE = '<div id="app">'
"""Where Allure's page has its app: this page stands before it, over Allure's own sign that it is loading."""


HERE = "https://this-report.invalid/"
"""What stands for this page itself in an address, up to its ``#``: of a whole address alone Allure makes a link, and a
page on disk does not know its own. ``frontpage.js`` takes it away again."""


@dataclass(frozen=True)
class Worst:
    """The broken promise that hurt users most.

    Attributes:
        verdict: on the scenario that broke it.
        felt: what its users felt, in words.
    """

    verdict: Verdict
    felt: str


@dataclass(frozen=True)
class Front:
    """What the page tells.

    Attributes:
        release, target: what ran where; ``versions``: further facts, name -> value.
        promises: all of them, judged or not; ``complaints``: why the run is red.
        worst: None where none is broken; ``felt``: what the users of all scenarios felt, in words.
        causes: location of a scenario that did not hold -> what was broken in it on purpose.
        ids: location of a scenario -> the id of its page in Allure's report.
        records: of the known defects.
    """

    release: str
    target: str
    versions: Mapping[str, str]
    promises: Sequence[Promise]
    complaints: Sequence[str]
    worst: Worst | None
    felt: str
    struck: Struck
    changes: Changes
    causes: Mapping[str, str]
    ids: Mapping[str, str]
    records: Sequence[KnownDefect]

    @property
    def verdicts(self) -> list[Verdict]:
        """All of the run."""
        return [verdict for promise in self.promises for verdict in promise.verdicts]


def insert(page: str, front: str) -> str:
    """Allure's page with ``front`` before it.

    Raises:
        RuntimeError: Allure's page has another shape.
    """
    if page.count(PLACE) != 1:
        raise RuntimeError(f"Allure's page has {page.count(PLACE)} times {PLACE}; expected once, as in Allure 3.18")
    return page.replace(PLACE, front + PLACE)


def render(front: Front) -> str:
    """The page, as HTML to :func:`insert`."""
    state, sentence = answer(front.release, front.promises, front.complaints)
    told = [promise for promise in front.promises if promise.state != "open"]
    untold = [promise.name for promise in front.promises if promise.state == "open"]
    parts = [
        f"<header><p>Is Dynamo {escape(front.release)} safe while parts of it fail? Tried "
        f"{escape(WHERE.get(front.target, f'on target {front.target}'))}.</p>",
        f'<h1 class="{state}"><span aria-hidden="true">{SIGNS[state][0]}</span> {escape(sentence)}</h1>',
        f'<dl class="lead">{_lead(front)}</dl></header>',
        f'<dl class="facts">{_facts(front)}</dl>',
        f'<h2>Promise by promise</h2><ul class="promises">{"".join(_promise(each, front) for each in told)}</ul>',
        f"<p>Not judged in this run: {escape('; '.join(untold))}.</p>" if untold else "",
        _known(front),
        f'<p><a class="all" href="#/">All {amount(len(front.verdicts), "scenario")}, with pictures and logs</a></p>',
        f"<footer><table>{_versions(front.versions)}</table></footer>",
    ]
    again = '<button id="front-again" type="button" hidden>Summary</button>'
    return f'<style>{STYLE}</style><main id="front">{"".join(parts)}</main>{again}<script>{SCRIPT}</script>'


def record_address(id_: str) -> str:
    """The address of a known defect's record, for links on Allure's pages."""
    return f"{HERE}#{_place(id_)}"


def _place(id_: str) -> str:
    return f"known-{id_}"


def _lead(front: Front) -> str:
    """The broken promise with what was broken on purpose before, and what users felt."""
    rows = {"What users felt": escape(front.felt)}
    if worst := front.worst:
        cause = front.causes.get(worst.verdict.location)
        when = f"after {cause}" if cause else "with nothing broken on purpose"
        named = f"<b>{escape(worst.verdict.feature)}</b>: {_link(worst.verdict, front.ids)}, {escape(when)}."
        rows = {"Broken promise": named, "What users felt": f"In that scenario {escape(worst.felt)}."}
    return "".join(f"<dt>{name}</dt><dd>{words}</dd>" for name, words in rows.items())


def _facts(front: Front) -> str:
    rows = {
        "Is it Dynamo or us?": blame(front.verdicts),
        "What we broke on purpose": front.struck.sentence,
        "Since the last run": front.changes.sentence,
    }
    differing = [(each, "did not pass") for each in front.changes.broke]
    differing += [(each, "passed again") for each in front.changes.holds]
    changed = "".join(f"<li>{_link(each, front.ids)} {what}</li>" for each, what in differing[:NAMED])
    told = [f"<div><dt>{name}</dt><dd>{escape(words)}" for name, words in rows.items()]
    return "</dd></div>".join([*told[:-1], f'{told[-1]}<ul class="scenarios">{changed}</ul>', ""])


def _promise(promise: Promise, front: Front) -> str:
    sign, words = SIGNS[promise.state]
    wrong = [each for each in promise.verdicts if each.verdict in ("failed", "inconclusive")]
    mark = f'<span class="mark" title="{words}" aria-hidden="true">{sign}</span>'
    told = f"<b>{escape(promise.name)}</b> <span>{escape(promise.sentence)}</span>{_links(wrong, front)}"
    return f'<li class="{promise.state}">{mark}<div>{told}</div></li>'


def _links(verdicts: Sequence[Verdict], front: Front) -> str:
    """The scenarios with what was seen in them, folded where they are many."""
    items = "".join(f"<li>{_link(each, front.ids)}{_why(each, front.causes)}</li>" for each in verdicts)
    if not items:
        return ""
    listed = f'<ul class="scenarios">{items}</ul>'
    return listed if len(verdicts) <= NAMED else f"<details><summary>Which {len(verdicts)}</summary>{listed}</details>"


def _link(verdict: Verdict, ids: Mapping[str, str]) -> str:
    name = escape(verdict.name)
    return f'<a href="#{ids[verdict.location]}">{name}</a>' if verdict.location in ids else name


def _why(verdict: Verdict, causes: Mapping[str, str]) -> str:
    """What was broken, what was expected and what was seen, a line each."""
    expected, seen = wording.promised(verdict)
    told = {"Broken on purpose": causes.get(verdict.location), "Expected": expected, "Seen": seen}
    lines = (f"{name}: {words}" for name, words in told.items() if words)
    return "".join(f"<br><small>{escape(line)}</small>" for line in lines)


def _known(front: Front) -> str:
    """A folded record for each known defect that showed, with where it did."""
    shown = {id_: [each for each in front.verdicts if id_ in each.known_defects] for id_ in _ids(front.verdicts)}
    records = {each.id: each for each in front.records}
    items = [_record(id_, records.get(id_), where, front.ids) for id_, where in shown.items()]
    return f'<h2>Known defects that showed</h2><ul class="known">{"".join(items)}</ul>' if items else ""


def _ids(verdicts: Sequence[Verdict]) -> list[str]:
    return list(dict.fromkeys(each for verdict in verdicts for each in verdict.known_defects))


def _record(id_: str, record: KnownDefect | None, where: Sequence[Verdict], ids: Mapping[str, str]) -> str:
    told = f"<p>{escape(record.evidence)}</p><p>{escape(_often(record))}</p>" if record else ""
    thread = ""
    if record and record.upstream.startswith("https://"):
        thread = f' <a href="{escape(record.upstream)}" target="_blank">{escape(upstream_name(record.upstream))}</a>'
    scenarios = "".join(f"<li>{_link(each, ids)}</li>" for each in where)
    words = escape(id_.replace("-", " "))
    count = f"{len(where)} scenario{'s' if len(where) > 1 else ''}"
    folded = f"<details><summary>{words} ({count})</summary>{told}<ul>{scenarios}</ul></details>"
    return f'<li id="{escape(_place(id_))}">{folded}{thread}</li>'


def _often(record: KnownDefect) -> str:
    """How often a defect shows, and in which releases, in a sentence."""
    shown, runs = record.reproductions.split("/")
    return f"Recorded for Dynamo {record.releases}; it showed in {shown} of {runs} runs."


def upstream_name(address: str) -> str:
    """What the thread at an address is called: ``dynamo #123``."""
    parts = [part for part in urlparse(address).path.split("/") if part]
    return f"{parts[1]} #{parts[-1]}" if len(parts) >= 4 else address


def _versions(versions: Mapping[str, str]) -> str:
    return "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in versions.items())


STYLE = Path(__file__).with_name("frontpage.css").read_text(encoding="utf-8")
SCRIPT = Path(__file__).with_name("frontpage.js").read_text(encoding="utf-8").replace("HERE", HERE)
