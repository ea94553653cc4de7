"""What is published of a run: attachments, story, picture, summary, console; with no Node.js."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from allure_commons.logger import AllureFileLogger
from packaging.specifiers import SpecifierSet

from support import binaries
from support.events import EventLog
from support.judge.defects import KnownDefect
from support.judge.samples import NEVER
from support.judge.verdict import Finding, Verdict
from support.report import allure, console, frontpage, publish, runs, story, timeline
from support.report.self_tests import Trial, write_trials
from support.requests.ledger import Chunk, Ledger, Opinion, read_ledger
from support.requests.load_log import read_load
from support.settings import Settings
from tests.test_results import steady, three_phases

RAN_ON = {"target": "local", "dynamo": "1.6.1"}
WHY = Finding("sentence", "Then it ends", "37 of 200 tokens, no finish_reason")


def verdict(word: str = "passed", line: int = 12, **fields: Any) -> Verdict:
    return Verdict("Migration", f"scenario {line}", f"features/m.feature:{line}", ["smoke"], word, 1.5, **fields)


def fill(folder: Path, requests: int = 2, faults: int = 1, pause: float = 0.5) -> None:
    """A scenario's folder as a world leaves it: a crash mid-answer."""
    folder.mkdir(parents=True, exist_ok=True)
    ledger, events = Ledger(), EventLog(folder / "events.jsonl")
    for node in ("frontend-0", "vllm-worker-0"):
        events.add("state", node, "running: pid 7", at=99.0, state="running")
    for number in range(faults):
        events.add("fault", "vllm-worker-0", f"fault <number> {number}", at=100.4, fault=f"f-{number}", order="odd")
        events.add("proof", "vllm-worker-0", f"pid {number} is gone", at=100.5, fault=f"f-{number}")
    events.add("state", "vllm-worker-0", "dead: SIGKILL", at=100.45, state="dead")
    for _ in range(requests):
        entry = ledger.open(api="completions", stream=True, model="m", prompt="a b", max_tokens=20, sent_at=100.0)
        for number in range(20):
            at = 100.1 + number / 100 + (pause if number > 10 else 0)
            entry.chunks.append(Chunk(at, "token", 0, [f"w{number}"], completion_id="cmpl-1"))
        entry.chunks += [Chunk(at, "finish", 0, finish_reason="length"), Chunk(at, "done")]
        entry.status_code, entry.end, entry.ended_at = 200, "complete", at
    ledger.write(folder / "ledger.jsonl")
    (folder / "topology.json").write_text(json.dumps({"nodes": [{"name": "frontend-0"}, {"name": "vllm-worker-0"}]}))
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "logs" / "frontend-0.log").write_text("".join(f"\x1b[31mline {number}\x1b[0m\n" for number in range(500)))
    for when, count in (("before", 1), ("after", 4)):
        (folder / "metrics" / when).mkdir(parents=True, exist_ok=True)
        text = (
            f'# TYPE n counter\nn_total{{api="chat"}} {count}\nsame_total 5\nzero_total 0\nh_bucket{{le="1"}} {count}\n'
        )
        (folder / "metrics" / when / "frontend-0.txt").write_text(text)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = runs.create(tmp_path / "reports")
    about = {
        "dynamo": "1.6.1",
        "target": "local",
        "started": "2026-11-28T00:21:35+01:00",
        "argv": [],
        "versions": {"etcd": "3.5.1"},
    }
    runs.write_json(folder / "run.json", about)
    return folder


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    def missing(settings: Settings) -> Path:
        raise FileNotFoundError("Node.js is not here")

    monkeypatch.setattr(binaries, "node", missing)
    return Settings()


def results(reports: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(file.read_text()) for file in (reports / "allure-results").glob("*-result.json")]
    return {result["name"]: result for result in found}


def evidence(reports: Path, of: Verdict) -> str:
    """What is attached to a scenario as that on which its verdict rests."""
    name = "Evidence: findings, faults and proofs"
    [source] = [each["source"] for each in results(reports)[of.name]["attachments"] if each["name"] == name]
    return Path(reports / "allure-results" / source).read_text()


def test_a_run_is_published(run: Path, settings: Settings) -> None:
    reports = run.parents[1]
    for each in (verdict(), verdict("failed", 20, reason="cut off", findings=[WHY])):
        fill(runs.scenario_folder(run, each.location))
        publish.write_verdict(run, each)
    verdicts = publish.collect(run)
    assert [each.location for each in verdicts] == ["features/m.feature:12", "features/m.feature:20"]

    assert publish.publish(run, reports, verdicts, settings, []) == ["no HTML report: Node.js is not here"]

    summary = json.loads((reports / "summary.json").read_text())
    counts = {"passed": 1, "failed": 1, "mistake": 0, "inconclusive": 0, "known_defect": 0, "skipped": 0}
    assert summary["verdicts"] == counts
    assert summary["scenarios"][1] == {
        "feature": "Migration",
        "name": "scenario 20",
        "tags": ["smoke"],
        "verdict": "failed",
        "seconds": 1.5,
        "reason": "cut off",
    }
    failed = results(reports)["scenario 20"]
    assert failed["status"] == "failed"
    names = [attachment["name"] for attachment in failed["attachments"]]
    assert names == [
        "Evidence: findings, faults and proofs",
        "Requests",
        "Request ledger (JSON lines)",
        "Faults, proofs and states (JSON lines)",
        "Metrics before and after",
        "Log of frontend-0, last 150 lines",
    ]
    assert all((reports / "allure-results" / attachment["source"]).exists() for attachment in failed["attachments"])
    assert "etcd=3.5.1" in (reports / "allure-results" / "environment.properties").read_text()


def test_the_report_tells_whether_its_scenarios_can_fail(run: Path, settings: Settings) -> None:
    reports, known = run.parents[1], ("failed", "", 1, "", 30.0, "2026-11-27T22:00:00+00:00", "1.6.1", "abc")
    trials = [
        Trial("Migration", "scenario 12", "proxy=drops-token", "failed", "x", "caught", *known),
        Trial("Migration", "scenario 12", "", "known_defect", "x", "missed", *known),
        Trial("Migration", "scenario 20", "proxy=<stalls>", "failed", "x", "not reached", *known),
        Trial("Etcd", "scenario 12", "proxy=two-ends", "failed", "x", "caught", *known),
    ]
    write_trials(reports, trials, 9)
    verdicts = [verdict(line=line) for line in (12, 20, 30)]
    for each in verdicts:
        fill(runs.scenario_folder(run, each.location))
    publish.publish(run, reports, verdicts, settings, [])
    pages = [evidence(reports, each) for each in verdicts]
    lines = ["With something broken on purpose", "2026-11-27  proxy=drops-token: caught"]
    assert "\n".join([*lines, "2026-11-27  a defect of Dynamo itself: missed", ""]) in pages[0]
    assert "2026-11-27  proxy=<stalls>: not reached\n" in pages[1]
    assert "broken on purpose" not in pages[2]
    environment = (reports / "allure-results" / "environment.properties").read_text()
    assert "sabotage=2 of 9 caught, 1 missed, 1 not reached, 5 not run\n" in environment


def test_publishing_again_replaces_what_was_attached(run: Path, settings: Settings) -> None:
    fill(runs.scenario_folder(run, verdict().location))
    for _ in range(2):
        publish.publish(run, run.parents[1], [verdict()], settings, [])
    assert len(results(run.parents[1])["scenario 12"]["attachments"]) == 6
    assert len(list((run.parents[1] / "allure-results").glob("published-*"))) == 6


def test_a_report_of_another_run_does_not_stay(run: Path, settings: Settings) -> None:
    page = run.parents[1] / "allure-report" / "index.html"
    page.parent.mkdir()
    page.write_text("old")
    publish.publish(run, run.parents[1], [verdict()], settings, [])
    assert not page.exists()


def test_a_verdict_changed_after_the_result_was_written_is_shown(run: Path, settings: Settings) -> None:
    logger = AllureFileLogger(run / "allure-results")
    logger.report_result(allure.synthetic(verdict(), {}))
    publish.publish(run, run.parents[1], [verdict("inconclusive", reason="it hung", findings=[])], settings, [])
    result = results(run.parents[1])["scenario 12"]
    assert result["status"] == "broken"
    assert result["statusDetails"]["message"].endswith("says nothing about Dynamo): it hung")
    assert {"name": "category", "value": "suite"} in result["labels"]


def test_a_result_without_a_verdict_becomes_inconclusive(run: Path) -> None:
    AllureFileLogger(run / "allure-results").report_result(allure.synthetic(verdict("inconclusive", reason="hook"), {}))
    [found] = publish.collect(run)
    assert (found.verdict, found.location) == ("inconclusive", "features/m.feature:12")
    assert publish.said(run, found.location) == "Suite or surroundings (says nothing about Dynamo): hook"
    assert publish.collect(run) == [found]


def attached(run: Path, settings: Settings, word: str = "passed") -> dict[str, bytes]:
    """Attachments by name, as a scenario with this verdict gets them."""
    publish.publish(run, run.parents[1], [verdict(word)], settings, [])
    files = run.parents[1] / "allure-results"
    result = results(run.parents[1])["scenario 12"]
    return {each["name"]: (files / each["source"]).read_bytes() for each in result["attachments"]}


LEDGER = "Request ledger (JSON lines)"


@pytest.mark.parametrize("word", ["passed", "failed"])
def test_the_ledger_is_attached_as_it_was_written(run: Path, settings: Settings, word: str) -> None:
    folder = runs.scenario_folder(run, verdict().location)
    fill(folder, requests=1)
    written = (folder / "ledger.jsonl").read_bytes()
    assert attached(run, settings, word)[LEDGER] == written
    assert len(written) < 2000


def with_opinion(folder: Path) -> None:
    """The first request of :func:`fill` with the bytes of its answer and what the client of users made of them."""
    fill(folder)
    entries = read_ledger(folder / "ledger.jsonl")
    entries[0].received, entries[0].received_size = b'data: {"error": {}}', 19
    entries[0].opinion = Opinion("openai 3.57.0", "whole", "0 words of text, finish_reason <stop>", 1)
    ledger = Ledger()
    ledger.adopt(entries)
    ledger.write(folder / "ledger.jsonl")


def test_the_attached_ledger_is_without_bytes(run: Path, settings: Settings) -> None:
    folder = runs.scenario_folder(run, verdict().location)
    with_opinion(folder)
    assert '"received": "' in (folder / "ledger.jsonl").read_text()
    entries = [json.loads(line) for line in attached(run, settings)[LEDGER].splitlines()]
    assert ["received" in each for each in entries] == [False, False]
    assert [each.get("opinion", {}).get("kind") for each in entries] == ["whole", None]


def test_both_opinions_are_told(tmp_path: Path) -> None:
    with_opinion(tmp_path)
    table = story.requests_table(tmp_path)
    lines = table.splitlines()[:3]
    assert [line.split()[-2:] for line in lines] == [["client", "outcome"], ["whole", "complete"], ["-", "complete"]]
    assert "openai 3.57.0 says whole: 0 words of text, finish_reason <stop> (request 1)" in table


def crowded(folder: Path) -> None:
    """A scenario that leaves more than any real one: requests, faults, nodes, series, and endless lines in its logs."""
    fill(folder, requests=200, faults=100)
    for node in range(10):
        (folder / "logs" / f"node-{node}.log").write_text(f"{'word ' * 1000}\n" * 200)
        for when, count in (("before", 1), ("after", 2)):
            series = (f'n_total{{api="completions",place="{number}"}} {count}\n' for number in range(400))
            (folder / "metrics" / when / f"node-{node}.txt").write_text("".join(series))
    (folder / "console.txt").write_text("a step\n" * 1000)


def test_a_pass_costs_the_page_little_however_much_it_left(run: Path, settings: Settings) -> None:
    folder = runs.scenario_folder(run, verdict().location)
    crowded(folder)
    sizes = {name: len(content) for name, content in attached(run, settings).items()}
    assert list(sizes) == [
        "Evidence: findings, faults and proofs",
        "Requests",
        LEDGER,
        "Faults, proofs and states (JSON lines)",
        "Metrics before and after",
        "Ends of all logs, up to 25 lines each",
    ]
    assert max(sizes.values()) <= publish.PASSED_BYTES
    assert len(results(run.parents[1])["scenario 12"]["descriptionHtml"]) <= 4 * publish.PASSED_BYTES


def test_what_is_left_out_of_a_pass_is_said(run: Path, settings: Settings) -> None:
    folder = runs.scenario_folder(run, verdict().location)
    crowded(folder)
    found = attached(run, settings)
    for name, source in {LEDGER: "ledger.jsonl", "Metrics before and after": "metrics"}.items():
        assert f" bytes left out; {source} in the run's folder has them ".encode() in found[name]
    assert b"as before:" not in found["Metrics before and after"]
    ends = found["Ends of all logs, up to 25 lines each"].decode()
    assert [line for line in ends.splitlines() if line.startswith("==>")] == [
        f"==> {name} <==" for name in ("frontend-0.log", *(f"node-{number}.log" for number in range(10)), "console.txt")
    ]
    assert "line 499\n" in ends
    proof = found["Evidence: findings, faults and proofs"].decode()
    assert proof.endswith(f"Everything in full, logs and ledger too\nreports/runs/{run.name}/scenarios/m-12/\n")
    assert "data:image/svg+xml," in results(run.parents[1])["scenario 12"]["descriptionHtml"]


@pytest.mark.parametrize("word", ["failed", "inconclusive", "known_defect"])
def test_nothing_is_left_out_of_what_did_not_pass(run: Path, settings: Settings, word: str) -> None:
    folder = runs.scenario_folder(run, verdict().location)
    crowded(folder)
    found = attached(run, settings, word)
    assert found["Faults, proofs and states (JSON lines)"] == (folder / "events.jsonl").read_bytes()
    assert found["Evidence: findings, faults and proofs"].decode() == story.evidence(
        folder, verdict(word), settings=RAN_ON
    )
    assert found["Requests"].decode() == story.requests_table(folder)
    assert found["Metrics before and after"].decode() == story.metrics_table(folder)
    assert len(found["Log of node-9, last 150 lines"].splitlines()) == 150
    assert len(found["Console of behave"].splitlines()) == 150
    assert len([name for name in found if name.startswith("Log of ")]) == 11


def test_a_long_ledger_loses_its_middle(run: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "LEDGER_BYTES", 1000)
    fill(runs.scenario_folder(run, verdict().location))
    text = attached(run, settings, "failed")[LEDGER].decode()
    assert 900 < len(text) <= 1000
    assert "bytes left out; ledger.jsonl in the run's folder has them" in text


def test_the_story_tells_what_broke_and_what_users_felt(tmp_path: Path) -> None:
    fill(tmp_path)
    EventLog(tmp_path / "events.jsonl").add("note", "", "warning: an even number of members", at=99.0)
    told = story.story(tmp_path, verdict("failed", reason=f"Then it ends: {WHY.message}", findings=[WHY]))
    assert "<p>Warning: an even number of members</p>" in told
    assert "in a way not on record yet.</b></p><ul><li>Expected: it ends.</li><li>Seen: " in told
    broke = "Fault &lt;number&gt; 0, 0.40 s after the first request; proven on its victim; it lasted to the end."
    assert broke in told
    assert "<li>2 requests: 2 whole answers.</li>" in told
    assert "Request 2 has its whole answer after 0.79 s, 20 of 20 tokens." in told
    assert "The longest wait for its first token was 0.10 s, in request 1." in told
    assert "The longest wait for the next token was 0.51 s, in request 1." in told
    assert "pid" not in told
    assert "data:image" not in told
    timeline.draw(tmp_path)
    assert "data:image/svg+xml," in story.story(tmp_path, verdict())


def test_a_failure_says_how_long_it_waited_since_when_what_logs_say_and_how_to_try_again(tmp_path: Path) -> None:
    fill(tmp_path)
    line = "2026-11-27T23:21:35.000000Z ERROR dynamo: no worker left\n"
    (tmp_path / "logs" / "frontend-0.log").write_text(line)
    late = Finding(
        "sentence", "Then within 2 seconds it ends", "not within 2 seconds: it ends", since=100.6, until=102.6
    )
    found = verdict("failed", reason=f"{late.about}: {late.message}", findings=[late, WHY])
    time = "2.00 s, from 0.60 s after the first request and 0.20 s after the fault"
    assert console.failure(found, tmp_path, {"target": "fake"}).split("\n") == [
        f"{'':23}waited: {time}",
        f"{'':23}also: {WHY.message}",
        f"{'':23}log: frontend-0: {line.strip()}",
        f"{'':23}again: make acceptance FEATURES=features/m.feature:12 TARGET=fake",
    ]
    told = story.story(tmp_path, found)
    for words in ("Expected: within 2 seconds it ends.", f"Seen: {late.message}", f"Waited: {time}."):
        assert f"<li>{words}</li>" in told
    assert "<li>And 1 more finding.</li>" in told
    evidence = story.evidence(tmp_path, found, settings={"dynamo": "1.6.1"})
    assert f"\n\nWaited\n{time}\n\n" in evidence
    assert f"\n\nLast trouble in the logs\nfrontend-0: {line}" in evidence
    assert "\n\nRun it again\nmake acceptance FEATURES=features/m.feature:12 DYNAMO=1.6.1\n" in evidence


def test_the_records_and_threads_of_known_defects_are_linked() -> None:
    def record(id_: str, upstream: str) -> KnownDefect:
        return KnownDefect(id_, "s", SpecifierSet(">=1.6"), [], "always", "5/5", "It ends late.", upstream)

    thread = "https://github.com/ai-dynamo/dynamo/issues/13691"
    records = [record("slow-end", thread), record("late-end", thread), record("no-end", "none found"), record("x", "")]
    found = verdict("known_defect", known_defects=["slow-end", "late-end", "no-end"])
    result: dict[str, Any] = {"links": [{"type": "issue", "url": "https://other", "name": "other"}]}
    for _ in range(2):  # published again, it has them once
        publish._link(result, found, records)
        told = [(each["type"], each["name"], each["url"]) for each in result["links"]]
        assert told == [
            ("issue", "other", "https://other"),
            *(
                ("link", f"What is known: {name}", f"{frontpage.HERE}#known-{name}")
                for name in ("slow-end", "late-end", "no-end")
            ),
            ("issue", "Upstream: dynamo #13691", thread),
        ]


def test_a_known_defect_is_told_with_its_record(tmp_path: Path) -> None:
    fill(tmp_path)
    record = KnownDefect(
        *("slow-end", "scenario *", SpecifierSet(">=1.6"), [], "always", "5/5", "It <ends> late.", "none found")
    )
    found = verdict("known_defect", reason=f"slow-end: Then it ends: {WHY.message}", findings=[WHY])
    found.known_defects = ["slow-end"]
    told = story.story(tmp_path, found, [record])
    assert "in a known and recorded way.</b></p><ul><li>Expected: it ends.</li>" in told
    assert "<p>Known as <b>slow-end</b>: It &lt;ends&gt; late.</p>" in told


def test_the_evidence_has_what_the_verdict_rests_on(tmp_path: Path) -> None:
    fill(tmp_path)
    found = verdict("failed", reason="cut off", findings=[WHY], evidence={"usage": 2, "replay": 0})
    found.not_judged = {"etcd-lease": "no etcd"}
    told = story.evidence(tmp_path, found).split("\n\n")
    assert told[:4] == [
        "Verdict\nFAILED cut off",
        "Findings\n[sentence] Then it ends: 37 of 200 tokens, no finish_reason",
        "Faults and proofs (seconds since the first request)\n"
        "   +0.40 s  fault: fault <number> 0\n   +0.50 s  proof: pid 0 is gone",
        "Invariants\n1 of 2 invariants had evidence\nusage: 2\nreplay: 0\netcd-lease was not judged: no etcd\n"
        "the suite ran 1 times slower than alone",
    ]


def test_the_story_of_many_requests_gives_sums(tmp_path: Path) -> None:
    fill(tmp_path, requests=30, faults=20)
    told = story.story(tmp_path, verdict())
    assert "<li>30 requests: 30 whole answers.</li>" in told
    assert "<li>And 8 more.</li>" in told
    assert "Request 2 " not in told


def test_the_table_of_many_requests_keeps_those_that_have_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "TABLE_ROWS", 5)
    fill(tmp_path, requests=8)
    entries = read_ledger(tmp_path / "ledger.jsonl")
    entries[6].end = "lost"
    (tmp_path / "ledger.jsonl").unlink()
    ledger = Ledger()
    ledger.adopt(entries)
    ledger.write(tmp_path / "ledger.jsonl")
    lines = story.requests_table(tmp_path).splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["1", "2", "3", "4", "7"]
    assert lines[-1] == "3 more requests in ledger.jsonl of the run's folder"


def test_a_load_is_told_by_its_phases(tmp_path: Path) -> None:
    three_phases(tmp_path / "load", [*steady(0, 10), *steady(10, 20, status=529), *steady(20, 40, latency=1.0)])
    (tmp_path / "load" / "phases.jsonl").rename(tmp_path / "phases.jsonl")
    ledger = Ledger()
    ledger.adopt(read_load(tmp_path / "load").entries())
    ledger.write(tmp_path / "ledger.jsonl")
    told = story.story(tmp_path, verdict())
    assert (
        "Before the fault<small> (STANDARD):</small> 40 of 40 requests got a whole answer, "
        "99 of 100 had their first token within 100 ms, 99 of 100 had their whole answer within 500 ms."
    ) in told
    assert "During the fault<small> (OVERFLOW):</small> 0 of 40 requests got a whole answer.</li>" in told
    assert "<li>160 requests: 120 whole answers, 40 errors.</li>" in told
    assert "<li>40 of 160 requests got an error instead of an answer, within 10.2 s.</li>" in told
    within = "half had their first token within 120 ms, 99 of 100 within 180 ms"
    assert f"As before means: {within} (measured on the 39 requests that were over before anything broke)." in told
    assert "served as before again as soon as it was over" in told


def test_a_load_that_shows_no_band_does_not_say_when_users_were_served_as_before(tmp_path: Path) -> None:
    three_phases(tmp_path / "load", [*steady(0, 2), *steady(20, 40)])
    assert "<li>No request was lost: all 88 requests were answered whole; " in story.story(tmp_path, verdict())
    (tmp_path / "load" / "phases.jsonl").rename(tmp_path / "phases.jsonl")
    told = story.story(tmp_path, verdict())
    assert "Whether users were served as before again is not known: STANDARD had " in told
    assert "never" not in told


@pytest.mark.parametrize(
    ("stable", "relapses", "words"),
    [
        (2.5, 0, "again 2.5 s after the end of it"),
        (0.0, 3, "again as soon as it was over, then not for 3 s"),
        (NEVER, 0, "never again"),
    ],
)
def test_a_recovery_is_told_in_seconds(stable: float, relapses: int, words: str) -> None:
    assert story._again(stable, relapses) == words


def test_the_story_of_nothing(tmp_path: Path) -> None:
    told = story.story(tmp_path, verdict("skipped", reason="needs a GPU"))
    assert "<b>This did not run here.</b></p><ul><li>Needs a GPU</li></ul>" in told
    assert "nothing was broken on purpose" in told
    assert "no request was sent" in told
    assert story.requests_table(tmp_path) == story.metrics_table(tmp_path) == ""


def test_the_metrics_table_shows_what_changed(tmp_path: Path) -> None:
    fill(tmp_path)
    lines = story.metrics_table(tmp_path).splitlines()
    assert lines[2].split() == ["1", "4", "n_total{api=chat}"]
    assert lines[-1] == "same_total 5"
    assert not [line for line in lines if "bucket" in line or "zero" in line]


def test_the_console_table_says_it_in_ten_seconds() -> None:
    broken = verdict("failed", 20, reason="cut off", findings=[WHY])
    verdicts = [verdict(), broken, verdict("skipped", 30, reason="needs a GPU")]
    lines = console.table(verdicts, "Dynamo 1.6.1 on target local", 12.3, ["1 failed"]).splitlines()
    assert lines[1] == "Dynamo 1.6.1 on target local: 3 scenarios in 12 s"
    assert lines[3].split() == ["Migration", "1", "1", "-", "-", "-", "1"]
    assert lines[-2:] == ["RED (exit status 1): 1 failed", "again:  make rerun"]
    assert lines[-8:-5] == [
        "FAILED          1.5 s  Migration: scenario 20",
        "                       Dynamo defect: cut off",
        "                       features/m.feature:20",
    ]
    assert console.table([verdict()], "x", 1, []).endswith("GREEN (exit status 0)")


def test_the_newest_runs_are_kept(tmp_path: Path) -> None:
    for day in range(12):
        (tmp_path / "runs" / f"202501{day + 10}-000000-999999{day}").mkdir(parents=True)
    running = tmp_path / "runs" / "20240101-000000-1"
    running.mkdir()
    created = runs.create(tmp_path)
    kept = runs.history(tmp_path)
    assert created in kept
    assert running in kept
    assert len(kept) == runs.KEEP + 1
    assert not (tmp_path / "runs" / "20250110-000000-9999990").exists()


def test_logs_go_where_they_are_wanted(tmp_path: Path) -> None:
    run = runs.create(tmp_path / "reports", tmp_path / "logs")
    (run / "scenarios" / "x").mkdir()
    assert (tmp_path / "logs" / run.name / "x").is_dir()


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("features/migration.feature:12", "migration-12"),
        ("features/deep/a b.feature:3", "deep-a-b-ce9a56e5-3"),
        ("features/a-b.feature:3", "a-b-3"),
        ("x.feature:1", "x-1"),
    ],
)
def test_a_scenario_folder_is_named_after_its_place(location: str, name: str) -> None:
    assert runs.slug(location) == name


def test_records_that_make_no_sense_cost_their_own_page_and_nothing_else(run: Path, settings: Settings) -> None:
    for line in (12, 20):
        fill(runs.scenario_folder(run, verdict(line=line).location))
        publish.write_verdict(run, verdict(line=line))
    with (runs.scenario_folder(run, verdict().location) / "ledger.jsonl").open("a") as stream:
        stream.write('{"number": 3, "ap')
    trouble = publish.publish(run, run.parents[1], publish.collect(run), settings, [])
    assert [each.split(" is ")[0] for each in trouble] == [
        "the page of features/m.feature:12",
        "no HTML report: Node.js",
    ]
    found = results(run.parents[1])
    assert "Request ledger (JSON lines)" in [each["name"] for each in found["scenario 12"]["attachments"]]
    assert "data:image/svg+xml," in found["scenario 20"]["descriptionHtml"]


def test_a_verdict_or_result_that_was_cut_short_spoils_no_other(run: Path, settings: Settings) -> None:
    for line in (12, 20):
        publish.write_verdict(run, verdict(line=line))
    publish.publish(run, run.parents[1], publish.collect(run), settings, [])
    (runs.scenario_folder(run, verdict().location) / "verdict.json").write_text('{"feature": "M')
    (run / "allure-results" / "cut-result.json").write_text('{"name": "sc')
    assert {each.name: each.verdict for each in publish.collect(run)} == {
        "scenario 12": "inconclusive",
        "scenario 20": "passed",
    }


def test_several_write_one_file_at_a_time_and_none_is_in_anothers_way(tmp_path: Path) -> None:
    """As the scenarios of a run do that begin together: in its cell each of them has the same pid."""
    file = tmp_path / "capability.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: runs.write_json(file, {"number": number}), range(400)))
    assert json.loads(file.read_text())["number"] in range(400)
    assert list(tmp_path.iterdir()) == [file]
