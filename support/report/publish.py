"""After a run: attachments to the Allure results, the single-file report, the summary."""

import contextlib
import fcntl
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from allure_commons.logger import AllureFileLogger
from allure_commons.types import AttachmentType
from attr import asdict

from support import binaries, sabotage
from support.judge import defects
from support.judge.defects import KnownDefect
from support.judge.verdict import VERDICTS, Finding, Verdict
from support.observe.logs import tail
from support.report import allure, felt, frontpage, page, promises, runs, story, timeline, wording
from support.report.reading import read_verdict
from support.report.self_tests import Trial, read_trials, self_tests
from support.seen import Told
from support.settings import ROOT, Settings

TAIL_LINES, PASSED_TAIL_LINES = 150, 25
"""Lines of each log that are attached; the whole logs stay in the run's folder."""
LEDGER_BYTES = 200_000
"""A ledger above this is attached without its middle; on disk it is whole."""
PASSED_BYTES = 30_000
"""No attachment of a passed scenario is larger: most scenarios pass, and one page has to carry them all."""

AGAIN = ("target", "dynamo")
"""Parameters of a result that a scenario is run again with."""

_RECEIVED = re.compile(r', "received": "[A-Za-z0-9+/=]*"')
"""The bytes of an answer as :func:`support.requests.ledger.pack` writes them; quotes within a text are escaped."""

_OWN = "published-"
"""Begins the file names of attachments made here, so that publishing a run again replaces them."""


def collect(run: Path) -> list[Verdict]:
    """All verdicts of a run, by location.

    A scenario whose result tells of a failed hook or cleanup, which came before or after the verdict, is inconclusive.
    """
    verdicts = {}
    for file in (run / "scenarios").glob("*/verdict.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError):  # cut short: its result tells of it
            verdict = read_verdict(file)
            verdicts[verdict.location] = verdict
    for result in _results(run).values():
        location = _label(result, "location")
        verdict_so_far = verdicts[location].verdict if location in verdicts else ""
        belied = result["status"] == "broken" and verdict_so_far in ("passed", "skipped", "known_defect")
        if location and (belied or not verdict_so_far):
            verdicts[location] = verdict = _verdict_of(result, location)
            write_verdict(run, verdict)
    return sorted(verdicts.values(), key=_by_location)


def said(run: Path, location: str) -> str:
    """First line of what the scenario's own result says went wrong; empty when it left no result or says nothing."""
    own = next((result for result in _results(run).values() if _label(result, "location") == location), {})
    message: str = (own.get("statusDetails") or {}).get("message") or ""
    return message.strip().partition("\n")[0]


def write_verdict(run: Path, verdict: Verdict) -> None:
    """Put ``verdict.json`` into the scenario's folder."""
    folder = runs.scenario_folder(run, verdict.location)
    folder.mkdir(exist_ok=True)
    runs.write_json(folder / "verdict.json", verdict.as_dict())


def publish(
    run: Path, reports: Path, verdicts: Sequence[Verdict], settings: Settings, complaints: Sequence[str]
) -> list[str]:
    """Make a run's results, report and summary the published ones; whoever finishes last wins, never half of each.

    Args:
        run: the run's folder; its ``run.json`` says what ran.
        reports: gets ``allure-results``, ``allure-report/index.html`` and ``summary.json``, and keeps Allure's history.
        verdicts: those of :func:`collect`.
        settings: say where Node.js is.
        complaints: why the run is red; empty for a green one.

    Returns:
        What could not be made, one sentence each: a missing picture or report does not change a verdict.
    """
    about = _read(run / "run.json")
    results = run / "allure-results"
    trials, records = read_trials(reports), defects.load()
    trouble = _attach(run, verdicts, {"target": about["target"], "dynamo": about["dynamo"]}, trials, records)
    tested = self_tests(reports)
    _write_environment(results, about, tested)
    _make_private(results, reports.resolve().parent)
    summary = summarize(about, verdicts, complaints)
    runs.write_json(run / "summary.json", summary)
    pages = {_label(result, "location"): page.page_id(result["uuid"]) for result in _results(run).values()}
    front = frontpage.render(_facts(run, reports, about, summary, verdicts, pages, records, tested))
    history = reports / "history.jsonl"
    with _lock(reports / ".publish.lock"):
        try:
            page.forget(history, pages.values())
            node, made, kept = binaries.node(settings), run / "allure-report", not sabotage.asked()[0]
            page.generate(results, made, node, _title(summary), front, history, kept=kept)
            _replace(run / "allure-report", reports / "allure-report")
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            shutil.rmtree(reports / "allure-report", ignore_errors=True)  # it would tell of another run
            trouble.append(f"no HTML report: {error}")
        _replace(results, reports / "allure-results")
        runs.write_json(reports / "summary.json", summary)
    return trouble


def _title(summary: Mapping[str, Any]) -> str:
    told = ", ".join(f"{number} {wording.MARKS[name]}" for name, number in summary["verdicts"].items() if number)
    return f"Dynamo {summary['dynamo']} on target {summary['target']}: {told or 'no scenario ran'}"


def _facts(
    run: Path,
    reports: Path,
    about: Mapping[str, Any],
    summary: Mapping[str, Any],
    verdicts: Sequence[Verdict],
    pages: Mapping[str, str],
    records: Sequence[KnownDefect],
    tested: Mapping[str, str],
) -> frontpage.Front:
    chosen = {"selection": " and ".join(about["tags"])} if about.get("tags") else {}
    started = promises.moment(about["started"])
    users, broken = felt.read_all(run, verdicts), promises.broken(verdicts)
    hurt = felt.worst(users, broken) if broken else None
    return frontpage.Front(
        release=about["dynamo"],
        target=about["target"],
        versions={"started": started, "run": run.name, **chosen, **about.get("versions", {}), **tested},
        promises=promises.judged(features(ROOT / "features"), verdicts),
        complaints=summary["complaints"],
        worst=frontpage.Worst(hurt, users[hurt.location].sentence) if hurt else None,
        felt=felt.of_run(users, verdicts),
        struck=promises.struck(run, verdicts),
        changes=promises.changes(run, reports, about, verdicts),
        causes=promises.causes(run, verdicts),
        ids=pages,
        records=records,
    )


def features(folder: Path) -> list[str]:
    """Names of all features in a folder, by file name; what lies deeper are examples."""
    texts = (file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.feature")))
    return [found[1] for text in texts if (found := re.search(r"^\s*Feature: *(.+?)\s*$", text, re.MULTILINE))]


def _make_private(results: Path, checkout: Path) -> None:
    """Take out of all that goes into the report where on this machine it was made."""
    places = {str(checkout).encode(): b"CHECKOUT", str(ROOT).encode(): b"CHECKOUT", str(Path.home()).encode(): b"~"}
    names = {place: name for place, name in places.items() if place.count(b"/") and len(place) > 1}
    pattern = re.compile(b"(?:" + b"|".join(re.escape(each) for each in names) + rb")(?![\w.-])")
    for file in results.iterdir():
        content = file.read_bytes()
        private = pattern.sub(lambda found: names[found[0]], content)
        if private != content:
            file.write_bytes(private)


def summarize(about: Mapping[str, Any], verdicts: Sequence[Verdict], complaints: Sequence[str]) -> dict[str, Any]:
    """The content of ``summary.json``."""
    counts = Counter(verdict.verdict for verdict in verdicts)
    fields = ("feature", "name", "tags", "verdict", "seconds", "reason")
    return {
        "dynamo": about["dynamo"],
        "target": about["target"],
        "verdicts": {name: counts[name] for name in VERDICTS},
        "complaints": list(complaints),
        "scenarios": [{name: getattr(verdict, name) for name in fields} for verdict in verdicts],
    }


def _attach(
    run: Path,
    verdicts: Sequence[Verdict],
    parameters: Mapping[str, str],
    trials: Sequence[Trial],
    records: Sequence[KnownDefect],
) -> list[str]:
    for stale in (run / "allure-results").glob(f"{_OWN}*"):
        stale.unlink()
    files = {_label(result, "location"): file for file, result in _results(run).items()}
    trouble = []
    for number, verdict in enumerate(verdicts):
        if verdict.location not in files:
            before = [(each.feature, each.name) for each in verdicts[:number]]
            twin = 1 + before.count((verdict.feature, verdict.name))
            AllureFileLogger(run / "allure-results").report_result(allure.synthetic(verdict, parameters, twin))
            found = _results(run).items()
            files[verdict.location] = next(file for file, each in found if _label(each, "location") == verdict.location)
        file = files[verdict.location]
        result = _read(file)
        _settle(result, verdict)
        _place(result, parameters)
        _link(result, verdict, records)
        try:
            _tell(run, verdict, result, trials, records)
        except Exception as error:  # noqa: BLE001 - records that make no sense cost their own page, never the report
            trouble.append(f"the page of {verdict.location} is not whole: {type(error).__name__}: {error}")
        runs.write_json(file, result)
    return trouble


def _tell(
    run: Path, verdict: Verdict, result: dict[str, Any], trials: Sequence[Trial], records: Sequence[KnownDefect]
) -> None:
    """Put story, picture and attachments into a scenario's result."""
    folder = runs.scenario_folder(run, verdict.location)
    kept = [entry for entry in result.get("attachments", []) if not entry["source"].startswith(_OWN)]
    result["attachments"] = kept
    passed = verdict.verdict == "passed"
    try:
        timeline.draw(folder)
        result["descriptionHtml"] = story.story(folder, verdict, records)
    finally:
        settings = {each["name"]: each["value"] for each in result["parameters"] if each["name"] in AGAIN}
        proof = _table(lambda: story.evidence(folder, verdict, trials, settings))
        kept.extend(_attachments(folder, run / "allure-results", result["uuid"], passed, proof))


def _settle(result: dict[str, Any], verdict: Verdict) -> None:
    """Make the result say what the verdict says; they differ where the process failed after it or left none."""
    category = wording.category(verdict)
    if _label(result, "category") == category and result["status"] == allure.STATUSES[verdict.verdict]:
        return
    trace = (result.get("statusDetails") or {}).get("trace", "")
    result["status"] = allure.STATUSES[verdict.verdict]
    result["statusDetails"] = asdict(allure.details(verdict, trace), filter=lambda _, value: value is not None)
    fresh = [asdict(label) for label in allure.blame_labels(category)]
    stale = ("category", "parentSuite", "owner")
    result["labels"] = [label for label in result.get("labels", []) if label["name"] not in stale] + fresh


def _place(result: dict[str, Any], parameters: Mapping[str, str]) -> None:
    """Say what a scenario ran on also where it broke down before it could say so itself: its history goes by that."""
    said = {parameter["name"] for parameter in result.get("parameters", [])}
    missing = [{"name": name, "value": value} for name, value in parameters.items() if name not in said]
    result["parameters"] = [*result.get("parameters", []), *missing]


def _link(result: dict[str, Any], verdict: Verdict, records: Sequence[KnownDefect]) -> None:
    """Link the records of the known defects that showed, and the threads upstream of those that have one."""
    shown = [each for each in records if each.id in verdict.known_defects]
    threads = dict.fromkeys(each.upstream for each in shown if each.upstream.startswith("https://"))
    own = [("link", frontpage.record_address(each.id), f"What is known: {each.id}") for each in shown]
    own += [("issue", url, f"Upstream: {frontpage.upstream_name(url)}") for url in threads]
    links = [link for link in result.get("links", []) if link["url"] not in {url for _, url, _ in own}]
    result["links"] = links + [{"type": kind, "url": url, "name": name} for kind, url, name in own]


def _attachments(folder: Path, results: Path, uuid: str, passed: bool, proof: str) -> Iterator[dict[str, str]]:
    """Whatever helps to find out what happened; a pass has each attachment within :data:`PASSED_BYTES`.

    Args:
        proof: what the verdict rests on.
    """

    def attach(name: str, content: bytes, kind: AttachmentType = AttachmentType.TEXT) -> dict[str, str]:
        source = f"{_OWN}{uuid}-{re.sub(r'[^a-z0-9]+', '-', name.lower())}.{kind.extension}"
        (results / source).write_bytes(content)
        return {"name": name, "source": source, "type": kind.mime_type}

    most = PASSED_BYTES if passed else None
    yield attach("Evidence: findings, faults and proofs", _shortened(proof, most, "events.jsonl"))
    if requests := _table(lambda: story.requests_table(folder)):
        yield attach("Requests", _shortened(requests, most, "ledger.jsonl"))
    if (ledger := folder / "ledger.jsonl").exists():
        content = _RECEIVED.sub("", ledger.read_text(encoding="utf-8"))
        yield attach("Request ledger (JSON lines)", _shortened(content, most or LEDGER_BYTES, ledger.name))
    if (events := folder / "events.jsonl").exists():
        content = events.read_text(encoding="utf-8", errors="replace")
        yield attach("Faults, proofs and states (JSON lines)", _shortened(content, most, events.name))
    if metrics := _table(lambda: story.metrics_table(folder, unchanged=not passed)):
        yield attach("Metrics before and after", _shortened(metrics, most, "metrics"))
    yield from (attach(name, text.encode()) for name, text in _logs(folder, passed))


def _logs(folder: Path, passed: bool) -> Iterator[tuple[str, str]]:
    """The ends of all logs by name: one after the other, those of a pass together."""
    logs = sorted((folder / "logs").glob("*.log"))
    console = list(folder.glob("console.txt"))
    if not passed:
        yield from ((f"Log of {log.stem}, last {TAIL_LINES} lines", tail(log, TAIL_LINES)) for log in logs)
        yield from (("Console of behave", tail(each, TAIL_LINES)) for each in console)
    elif logs or console:
        share = PASSED_BYTES // len(logs + console)
        ends = [_end(log, PASSED_TAIL_LINES, share) for log in logs + console]
        yield f"Ends of all logs, up to {PASSED_TAIL_LINES} lines each", "\n".join(ends)


def _end(log: Path, lines: int, most: int) -> str:
    """The last lines of a log under its name, in ``most`` bytes."""
    head = f"==> {log.name} <==\n"
    end = f"{tail(log, lines)}\n".encode()
    room = most - len(head.encode()) - 1
    if len(end) > room:
        cut = end[-room:]
        end = cut.partition(b"\n")[2] or cut
    return head + end.decode(errors="ignore")


def _table(draw: Callable[[], str]) -> str:
    try:
        return draw()
    except Exception as error:  # noqa: BLE001 - the records themselves, which come beside it, are worth more
        return f"the records make no sense: {type(error).__name__}: {error}"


def _shortened(content: str, most: int | None, source: str) -> bytes:
    """A text of more than ``most`` bytes without its middle; ``source`` is what has it whole in the run's folder."""
    whole = content.encode()
    if most is None or len(whole) <= most:
        return whole
    note = f"\n... {{}} bytes left out; {source} in the run's folder has them ...\n"
    half = (most - len(note) - len(str(len(whole)))) // 2
    begin, end = whole[:half].decode(errors="ignore"), whole[-half:].decode(errors="ignore")
    return (begin + note.format(len(whole) - 2 * half) + end).encode()


def _write_environment(results: Path, about: Mapping[str, Any], tested: Mapping[str, str]) -> None:
    facts = {
        "Dynamo": about["dynamo"],
        "target": about["target"],
        **about.get("versions", {}),
        "started": about["started"],
        **tested,
    }
    lines = "".join(f"{name}={value}\n" for name, value in facts.items())
    (results / "environment.properties").write_text(lines, encoding="utf-8")
    categories = [
        {
            "name": name,
            "messageRegex": f"(?s)^{re.escape(name)}: .*",
            "matchedStatuses": ["failed", "broken", "unknown"],
        }
        for key, name in wording.CATEGORIES.items()
        if key not in ("passed", "skipped")
    ]
    runs.write_json(results / "categories.json", categories)


def _verdict_of(result: Mapping[str, Any], location: str) -> Verdict:
    said = (result.get("statusDetails") or {}).get("message") or "the scenario left no verdict"
    skipped = result["status"] == "skipped"
    finding = Finding.of("step-error", result["name"], Told(said), blame="suite")
    return Verdict(
        feature=_label(result, "feature"),
        name=result["name"],
        location=location,
        tags=[label["value"] for label in result["labels"] if label["name"] == "tag"],
        verdict="skipped" if skipped else "inconclusive",
        seconds=(result["stop"] - result["start"]) / 1000,
        reason=said.strip().splitlines()[0],
        findings=[] if skipped else [finding],
    )


def _results(run: Path) -> dict[Path, dict[str, Any]]:
    """The results of scenarios by file; one that was cut short is left out."""
    found = {}
    for file in sorted((run / "allure-results").glob("*-result.json")):
        with contextlib.suppress(ValueError):
            found[file] = _read(file)
    return found


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _label(result: Mapping[str, Any], name: str) -> str:
    return next((label["value"] for label in result.get("labels", []) if label["name"] == name), "")


def _by_location(verdict: Verdict) -> tuple[str, int]:
    path, _, line = verdict.location.rpartition(":")
    return path, int(line) if line.isdigit() else 0


def _replace(source: Path, target: Path) -> None:
    """Put a copy of the folder ``source`` in the place of ``target``; readers see the old one or the whole new one."""
    fresh, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, fresh)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _lock(file: Path) -> Iterator[None]:
    with file.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _complaints(run: Path) -> list[str]:
    """Why a run that is over was red."""
    with contextlib.suppress(OSError, ValueError, LookupError):
        return list(_read(run / "summary.json")["complaints"])
    return ["the run was not judged as a whole"]


def main() -> int:
    """Publish the newest run again: ``python -m support.report.publish``."""
    reports = Path.cwd() / "reports"
    past = [run for run in runs.history(reports) if (run / "run.json").exists()]
    if not past:
        print(f"there is no run to report on in {reports / 'runs'}; run `make acceptance` first", file=sys.stderr)
        return 2
    trouble = publish(past[-1], reports, collect(past[-1]), Settings.load(), _complaints(past[-1]))
    print("\n".join(trouble) or f"report of run {past[-1].name}: {reports.name}/allure-report/index.html")
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
