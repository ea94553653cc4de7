"""What happened in a scenario, and the picture of it."""

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from support.events import Event, EventLog
from support.judge.verdict import Finding
from support.report import svg, timeline
from support.report.moments import Strike, read_happenings, strikes
from support.requests.ledger import Chunk, Ledger
from tests.test_report_publish import fill, verdict
from tests.test_results import steady, three_phases

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture: Path) -> list[str]:
    return [element.text or "" for element in ElementTree.parse(picture).iter(f"{SVG}text")]


def stripes(picture: Path) -> dict[str, tuple[float, float]]:
    """Words of each strike -> where its stripes begin and end, in percent of the width."""
    found = {}
    for box in ElementTree.parse(picture).iter(f"{SVG}rect"):
        if box.get("fill") == "url(#stripes)":
            left, width = (float((box.get(name) or "").rstrip("%")) for name in ("x", "width"))
            found[box.findtext(f"{SVG}title") or ""] = (left, left + width)
    return found


def fault(at: float, **data: Any) -> Event:
    return Event(at, "fault", "w-0", "something odd", {"fault": "f-1", "order": "odd", "until": 400.0, **data})


def proof(at: float) -> Event:
    return Event(at, "proof", "w-0", "so it is", {"fault": "f-1"})


def undo(at: float) -> Event:
    return Event(at, "fault", "w-0", "undone", {"fault": "f-1", "undo": "odd"})


def state(at: float, name: str, node: str = "w-0") -> Event:
    return Event(at, "state", node, f"{name}: so it is", {"state": name})


SOUND, UP = "w-0 works again", "the fault on w-0 is over"
LATER = Event(60.0, "note", "", "the steps are over", {"steps": "over"})


@pytest.mark.parametrize(
    ("events", "phases", "proven", "end", "over"),
    [
        ([fault(10)], {}, None, None, ""),
        ([fault(10), proof(11)], {}, 11, None, ""),
        ([fault(10), proof(11), undo(20), proof(21)], {}, 11, 21, SOUND),
        ([fault(10), proof(11), undo(20)], {}, 11, 20, SOUND),
        ([fault(10), undo(20), proof(21)], {}, None, 21, SOUND),
        ([fault(10, until=15.0), proof(11)], {}, 11, 15, UP),
        ([fault(10, until=15.0), proof(11), proof(15.2)], {}, 11, 15, UP),
        # nobody undid it, and its victim was started again
        (
            [fault(10), state(10.5, "dead"), proof(11), state(12, "starting"), state(13, "running")],
            {},
            11,
            13,
            "w-0 runs again",
        ),
        # another node that starts is no end of it, nor is a process that never ended
        ([fault(10), state(10.5, "dead"), proof(11), state(13, "running", "w-1")], {}, 11, None, ""),
        ([fault(10), proof(11), state(13, "running")], {}, 11, None, ""),
        # the service is back when the load says so, not when a process runs
        ([fault(10), state(10.5, "dead"), proof(11), state(12, "running")], {"RECOVERY": 14.0}, 11, 14, ""),
        ([fault(10), proof(11), undo(12), proof(13)], {"RECOVERY": 14.0}, 11, 13, SOUND),
        ([fault(20), proof(21)], {"RECOVERY": 14.0}, 21, None, ""),
    ],
)
def test_a_fault_lasts_until_it_is_over(
    events: Sequence[Event], phases: dict[str, float], proven: float | None, end: float | None, over: str
) -> None:
    [found] = strikes([*events, LATER], phases)
    begin = events[0].at
    assert found == Strike("w-0", "something odd", begin, proven, end, ordered=True, over=over)


def test_what_clients_do_needs_no_proof_and_is_over_at_once() -> None:
    gives_up = Event(5.0, "fault", "client", "client cancels request 1 by close")
    floods = Event(7.0, "fault", "client", "overload: a second load begins")
    assert strikes([gives_up, LATER], {}) == [Strike("client", gives_up.text, 5.0, None, 5.0, ordered=False)]
    assert strikes([floods, LATER], {"RECOVERY": 9.0})[0].end == 9.0


def test_a_proof_before_any_fault_is_of_none() -> None:
    assert strikes([proof(3), LATER], {}) == []


def test_whoever_leaves_without_being_struck_is_told(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    left, killed = state(20, "stopped", "frontend-0"), state(70, "dead", "w-1")
    for event in (fault(10, order="crash"), state(10.5, "dead"), left, LATER, killed):
        log.add(event.kind, event.subject, event.text, event.at, **event.data)
    told = [(each.at, each.about, each.words) for each in read_happenings(tmp_path).moments()]
    assert told == [
        (10, "strike", "something odd"),
        (20, "left", "frontend-0 exited by itself (so it is)"),
    ]


@pytest.mark.parametrize(("counts", "moves"), [((None, 2.0), 2), ((1.0, 3.0), 2), ((None, None), None)])
def test_migrations_are_those_that_frontends_counted(
    tmp_path: Path, counts: tuple[float | None, float | None], moves: int | None
) -> None:
    for when, count in zip(("before", "after"), counts, strict=True):
        (tmp_path / "metrics" / when).mkdir(parents=True)
        line = f'dynamo_frontend_model_migration_total{{model="m"}} {count}\n' if count is not None else "other 1\n"
        (tmp_path / "metrics" / when / "frontend-0.txt").write_text(line)
    assert read_happenings(tmp_path).migrations == moves


LOAD_SECONDS = 40.75
"""From when the first request of the load is due to when its last one ends."""


def load_folder(folder: Path) -> dict[str, tuple[float, float]]:
    """A load with faults of every kind of end, which are returned: words -> begin and end."""
    three_phases(folder / "load", [*steady(0, 10), *steady(10, 20, status=529), *steady(20, 40, latency=1.0)])
    (folder / "load" / "phases.jsonl").rename(folder / "phases.jsonl")
    events = EventLog(folder / "events.jsonl")
    for name, at, until in (("undone", 110.0, 400.0), ("expired", 112.0, 114.0), ("stays", 125.0, 400.0)):
        events.add("fault", "w", f"{name} fault", at=at, fault=name, until=until, order="odd")
        events.add("proof", "w", "it bites", at=at + 0.1, fault=name)
    events.add("fault", "w", "it is undone", at=115.0, fault="undone", undo="odd")
    events.add("proof", "w", "all is well", at=115.5, fault="undone")
    return {"undone fault": (10, 15.5), "expired fault": (12, 14), "stays fault": (25, LOAD_SECONDS)}


def test_the_timeline_of_a_load_shows_its_phases_its_rates_and_when_faults_were_on(tmp_path: Path) -> None:
    spans = load_folder(tmp_path)
    picture = timeline.draw(tmp_path)
    assert picture
    told = texts(picture)
    assert {"before", "during", "after", "160 requests: 120 whole answers, 40"} <= set(told)
    assert [words for words in told if words.startswith("tokens per second: up to ")]
    second = (timeline.RIGHT - timeline.LEFT) / LOAD_SECONDS
    places = {name: [timeline.LEFT + at * second for at in span] for name, span in spans.items()}
    assert {name: list(span) for name, span in stripes(picture).items()} == {
        name: pytest.approx(span, abs=0.1) for name, span in places.items()
    }


def test_recovery_has_neither_the_colour_nor_the_stripes_of_a_fault(tmp_path: Path) -> None:
    load_folder(tmp_path)
    (tmp_path / "events.jsonl").unlink()
    events = EventLog(tmp_path / "events.jsonl")
    events.add("fault", "w", "it hurts", at=110.0, fault="f", until=4000.0, order="odd")
    events.add("proof", "w", "it bites", at=110.1, fault="f")
    picture = timeline.draw(tmp_path)
    assert picture
    [(_, end)] = stripes(picture).values()
    recovery = timeline.LEFT + 20 * (timeline.RIGHT - timeline.LEFT) / LOAD_SECONDS
    assert end == pytest.approx(recovery, abs=0.1)


def test_the_timeline_shows_requests_faults_and_nodes(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "verdict.json").write_text(json.dumps(verdict("failed").as_dict()))
    picture = timeline.draw(tmp_path)
    assert picture
    told = texts(picture)
    assert "scenario 12: FAILED" in told
    assert "0.40 s: fault <number> 0" in told
    assert "\N{CHECK MARK} request 1: 20/20 tokens, paused 0.5 s" in told
    assert {"vllm-worker-0", "runs", "down"} <= set(told)


def test_a_request_that_was_moved_says_so(tmp_path: Path) -> None:
    fill(tmp_path)
    for when, count in (("before", 0), ("after", 2)):
        line = f"dynamo_frontend_model_migration_total {count}\n"
        (tmp_path / "metrics" / when / "frontend-0.txt").write_text(line)
    picture = timeline.draw(tmp_path)
    assert picture
    assert sum(text.endswith("20/20 tokens, moved") for text in texts(picture)) == 2
    (tmp_path / "metrics" / "after" / "frontend-0.txt").write_text("dynamo_frontend_model_migration_total 1\n")
    timeline.draw(tmp_path)
    assert not [text for text in texts(picture) if text.endswith("moved")]  # one of the two: nobody knows which


def test_tokens_are_drawn_in_columns_however_many_there_are() -> None:
    path = timeline._token_path([number / 10 for number in range(10_000)], 12)
    assert path.startswith("M0 0v12M2.5 0v12")
    assert path.count("M") == timeline.COLUMNS + 1


def test_a_crowded_timeline_stays_readable(tmp_path: Path) -> None:
    fill(tmp_path, requests=70, faults=30, pause=0)
    picture = timeline.draw(tmp_path)
    assert picture
    told = texts(picture)
    assert "70 requests: 70 whole answers" in told
    assert "60 of 70 requests are drawn" in told
    assert sum(text.endswith(" fault <number> 7") for text in told) == 1
    assert sum("fault <number>" in text for text in told) == timeline.WORDED - 1
    assert [text for text in told if text.startswith("and 22 more until")]
    assert not [text for text in told if text.startswith("pause")]


def test_words_have_room_on_a_phone(tmp_path: Path) -> None:
    """However long the names are: a picture is as wide as the screen, and its words do not shrink with it."""
    fill(tmp_path)
    long = verdict("failed")
    long.name = "A very long name of a scenario that goes on and on and on (sglang, streamed chat, NATS, two replicas)"
    (tmp_path / "verdict.json").write_text(json.dumps(long.as_dict()))
    events = EventLog(tmp_path / "events.jsonl")
    nodes = ", ".join(f"worker-{number}" for number in range(20))
    events.add("fault", "w", f"packets between {nodes} were dropped", at=100.6, fault="f")
    picture = timeline.draw(tmp_path)
    assert picture
    for element in ElementTree.parse(picture).iter(f"{SVG}text"):
        words, anchor = element.text or "", element.get("text-anchor", "start")
        left = float((element.get("x") or "").rstrip("%")) / 100 * svg.NARROW + float(element.get("dx", "0"))
        width = len(words) * 5.6 * float(element.get("font-size", "12")) / 12
        begin = {"start": left, "middle": left - width / 2, "end": left - width}[anchor]
        assert begin > -6, words
        assert begin + width < svg.NARROW + 6, words


def test_every_colour_has_one_for_the_dark_and_nothing_is_told_by_colour_alone(tmp_path: Path) -> None:
    fill(tmp_path)
    picture = timeline.draw(tmp_path)
    assert picture
    drawn = picture.read_text()
    used = set(re.findall(r"var\(--([a-z]+)\)", drawn))
    assert used <= set(svg.PALETTE)
    assert not re.findall(r'(?:fill|stroke)="#', drawn), "a colour that dark mode does not change"
    light, dark = drawn.partition("@media (prefers-color-scheme:dark)")[::2]
    for name in used:
        assert f"--{name}:{svg.PALETTE[name][0]}" in light
        assert f"--{name}:{svg.PALETTE[name][1]}" in dark
    signs = [sign for _, sign in timeline.OUTCOMES.values()]
    assert len(set(signs)) == len(signs)
    words = [word for _, word in timeline.STATES.values()]
    assert len(set(words)) == len(words)


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 has it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)] if len(colour) == 7 else []
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("night", [0, 1])
@pytest.mark.parametrize("name", ["ink", "soft", "good", "fault", "warn", "first"])
def test_words_stand_out_from_the_paper(name: str, night: int) -> None:
    """By 4.5 to 1, as WCAG 2 AA asks of text."""
    lighter, darker = sorted((luminance(svg.PALETTE[each][night]) for each in (name, "paper")), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_the_picture_reaches_as_far_as_what_did_not_hold(tmp_path: Path) -> None:
    fill(tmp_path)
    late = Finding("sentence", "Then within 9 seconds it ends", "it did not", since=101.0, until=110.0)
    missed = verdict("known_defect", reason=f"slow-end: {late.about}: {late.message}", findings=[late])
    (tmp_path / "verdict.json").write_text(json.dumps(missed.as_dict()))
    picture = timeline.draw(tmp_path)
    assert picture
    assert "not so from 1.00 s to 10.00 s: within" in texts(picture)
    drawn = ElementTree.parse(picture)
    [bar] = [
        each for each in drawn.iter(f"{SVG}rect") if each.get("fill") == "var(--fault)" and each.get("height") == "4"
    ]
    second = (timeline.RIGHT - timeline.LEFT) / (10 * (1 + timeline.BEFORE))
    assert float((bar.get("width") or "").rstrip("%")) == pytest.approx(9 * second, abs=1)
    invariant = verdict("failed", reason="request 1: bill", findings=[Finding("usage", "request 1", "bill")])
    (tmp_path / "verdict.json").write_text(json.dumps(invariant.as_dict()))
    timeline.draw(tmp_path)
    assert "request 1: bill" in texts(picture)


def test_no_stripes_lie_over_words_and_no_sign_over_another(tmp_path: Path) -> None:
    three_phases(tmp_path / "load", steady(0, 40))
    (tmp_path / "load" / "phases.jsonl").rename(tmp_path / "phases.jsonl")
    events = EventLog(tmp_path / "events.jsonl")
    events.add("fault", "w", "it hurts", at=110.0, fault="f", until=4000.0, order="odd")
    picture = timeline.draw(tmp_path)
    assert picture
    drawn = list(ElementTree.parse(picture).getroot())
    striped = max(place for place, each in enumerate(drawn) if each.get("fill") == "url(#stripes)")
    named = [place for place, each in enumerate(drawn) if (each.text or "").startswith(("tokens per second", "before"))]
    assert min(named) > striped
    signs = [each for each in drawn if each.tag == f"{SVG}text" and each.get("font-size") == "11"]
    places = {
        each.text: float((each.get("x") or "").rstrip("%")) / 100 * svg.NARROW + float(each.get("dx", "0"))
        for each in signs[-4:]
    }
    assert set(places) == {"B", "1", "D", "A"}
    ordered = sorted(places.values())
    assert min(after - before for before, after in pairwise(ordered)) > 16


def test_no_timeline_without_anything_to_draw(tmp_path: Path) -> None:
    assert timeline.draw(tmp_path) is None
    EventLog(tmp_path / "events.jsonl").add("note", "", "hello", at=5.0)
    assert timeline.draw(tmp_path) == tmp_path / "timeline.svg"


def test_a_request_without_a_token_has_a_bar_all_the_same(tmp_path: Path) -> None:
    ledger = Ledger()
    entry = ledger.open(api="chat", stream=True, model="m", prompt="a", max_tokens=5, sent_at=100.0)
    entry.chunks.append(Chunk(100.2, "error", raw='{"error": "busy"}'))
    entry.status_code, entry.end, entry.ended_at = 503, "complete", 100.2
    ledger.write(tmp_path / "ledger.jsonl")
    picture = timeline.draw(tmp_path)
    assert picture
    assert "! request 1: error, 0/5 tokens" in texts(picture)
