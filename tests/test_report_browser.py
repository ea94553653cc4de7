"""The report as its readers have it: made by Allure, opened from disk in Chromium.

``SCREENSHOTS=docs`` puts the pictures of the documentation where they belong.
"""

import os
import re
import shutil
import zlib
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from support.report import publish
from support.settings import ROOT, Settings
from tests.report_run import BROKEN, CANCEL, CRASH, DEFECT, GIVEN_UP, LOAD, MIGRATION, make_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "there is no Chromium on the PATH (Debian: apt-get install chromium)"
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
SIZES = {"phone": (390, 844), "desk": (1400, 900)}
OPENS_WITHIN_MS = 2000
REPORT_BYTES = 20_000_000


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reports of a green run and of the red one after it."""
    reports, found = tmp_path_factory.mktemp("reports"), {}
    for number, colour in enumerate(("green", "red"), 1):
        run, verdicts = make_run(reports, f"2026112{number}-120000-1", red=colour == "red")
        complaints = ["1 failed"] if colour == "red" else []
        assert publish.publish(run, reports, verdicts, Settings.load(), complaints) == []
        found[colour] = run / "allure-report" / "index.html"
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


class Watched:
    """A page of a report, with what its console said and what it asked for."""

    def __init__(self, browser: Browser, file: Path, size: str = "desk", colours: str = "light") -> None:
        width, height = SIZES[size]
        self.page: Page = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="dark" if colours == "dark" else "light"
        )
        self.trouble: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.trouble.append(said.text)

    def scenario(self, name: str, *groups: str) -> None:
        """Open the page of a scenario, by the list of all of them; ``groups`` are closed there."""
        self.page.get_by_role("link", name=re.compile("^All ")).click()
        self.page.get_by_test_id("search-input").fill(name.partition(" (")[0])  # brackets group words there
        for group in groups:
            self.page.get_by_test_id("tree-section").filter(has_text=group).first.click()
        self.page.get_by_test_id("tree-leaf").filter(has_text=name).first.click()
        expect(self.page.get_by_test_id("test-result-info-title")).to_contain_text(name)


def contents(file: Path) -> dict[str, bytes]:
    """All that a report has in it: its page, and each file that is packed there."""
    text = file.read_text()
    found = {"page": text.encode()}
    for call, name, content in re.findall(r'\b([dz])\("([^"]+)","([^"]+)"\)', text):
        found[name] = zlib.decompress(b64decode(content)) if call == "z" else b64decode(content)
    return found


@pytest.mark.parametrize("colour", ["green", "red"])
def test_a_report_does_not_tell_where_it_was_made(reports: dict[str, Path], colour: str) -> None:
    told = contents(reports[colour])
    assert len(told) > 40
    logs = [content for name, content in told.items() if b"in ~/.cache/y" in content and b"CHECKOUT/.envs" in content]
    assert logs, "no log is in the report: what would be looked for in vain?"
    places = {str(place).encode() for place in (ROOT, Path.home(), reports[colour].parents[3])}
    assert [(name, place) for name, content in told.items() for place in places if place in content] == []


def test_a_report_is_small(reports: dict[str, Path]) -> None:
    assert reports["red"].stat().st_size < REPORT_BYTES / 4


def test_the_history_has_each_run_once(reports: dict[str, Path]) -> None:
    folder = reports["red"].parents[3]
    lines = (folder / "history.jsonl").read_text().splitlines()
    assert len(lines) == 2
    run = reports["red"].parents[1]
    assert publish.publish(run, folder, publish.collect(run), Settings.load(), ["1 failed"]) == []
    assert len((folder / "history.jsonl").read_text().splitlines()) == 2


@in_chromium
@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("colour", ["green", "red"])
def test_the_first_page_is_read_at_a_glance(
    browser: Browser, reports: dict[str, Path], colour: str, size: str, colours: str, tmp_path: Path
) -> None:
    watched = Watched(browser, reports[colour], size, colours)
    page = watched.page
    front = page.locator("#front")
    expected = (
        "No. Dynamo 1.6.1 broke 1 of 4 promises"
        if colour == "red"
        else "Yes, apart from known defects. Nothing new broke"
    )
    expect(front.get_by_role("heading", level=1)).to_contain_text(expected)
    expect(front.get_by_role("heading", level=1)).to_be_in_viewport()
    felt = (
        "In that scenario 12 of 126 requests got an error instead of an answer, within 1.9 s."
        if colour == "red"
        else "Every request was answered whole: 123 of 123."
    )
    expect(front.get_by_text(felt)).to_be_in_viewport(ratio=1)
    broken = front.get_by_text(f"{LOAD}: {BROKEN}, after vllm-worker-0 crashed.")
    expect(broken).to_have_count(1 if colour == "red" else 0)
    expect(front.get_by_text("Is it Dynamo or us?")).to_be_in_viewport()
    for promise in (MIGRATION, LOAD, CANCEL):
        expect(front.locator(".promises").get_by_text(promise)).to_be_visible()
    wide = page.evaluate("[document.querySelector('#front').scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], "the page has to be scrolled sideways"
    sizes = page.evaluate(
        "[...document.querySelectorAll('#front *')].map((each) => parseFloat(getComputedStyle(each).fontSize))"
    )
    assert min(sizes) >= 12
    assert "ailed" not in front.inner_text()
    shot = page.screenshot(path=tmp_path / "front.png")
    if (colour, size, colours) == ("red", "desk", "light"):
        _keep(shot, "report.png")
    page.close()


@in_chromium
def test_a_report_opens_at_once(browser: Browser, reports: dict[str, Path]) -> None:
    """The first page is there to be read, whatever Allure's own pages still take."""
    page = browser.new_page()
    page.goto(reports["red"].as_uri())
    expect(page.locator("#front h1")).to_be_visible()
    [painted] = page.evaluate("performance.getEntriesByName('first-contentful-paint').map((each) => each.startTime)")
    assert painted < OPENS_WITHIN_MS
    page.close()


@in_chromium
def test_a_broken_promise_leads_to_its_scenario_and_back(browser: Browser, reports: dict[str, Path]) -> None:
    watched = Watched(browser, reports["red"])
    page = watched.page
    page.locator("#front .promises").get_by_role("link", name=BROKEN).click()
    expect(page.get_by_test_id("test-result-info-title")).to_contain_text(BROKEN)
    expect(page.locator("#front")).to_be_hidden()
    page.get_by_role("button", name="Summary").click()
    expect(page.locator("#front h1")).to_be_visible()
    page.locator("#front summary").filter(has_text=DEFECT.replace("-", " ")).click()
    expect(page.locator("#front").get_by_role("link", name=GIVEN_UP)).to_be_visible()
    page.close()


@in_chromium
def test_scenarios_are_found_and_nothing_is_asked_of_anybody(browser: Browser, reports: dict[str, Path]) -> None:
    watched = Watched(browser, reports["red"])
    page = watched.page
    watched.scenario(GIVEN_UP, "Known Dynamo defect", CANCEL)
    links = page.get_by_test_id("test-result-meta-link").get_by_role("link")
    upstream = "https://github.com/ai-dynamo/dynamo/issues/13691"
    expect(links.filter(has_text="Upstream: dynamo #13691")).to_have_attribute("href", upstream)
    expect(page.get_by_test_id("test-result-status-unknown")).to_have_text("Known defect")
    expect(page.get_by_text("Error", exact=True)).to_have_count(0)
    story = page.frame_locator("[data-testid=test-result-description-frame]")
    described, parameters = page.get_by_test_id("test-result-description"), page.get_by_text("Parameters", exact=True)
    tops = [box["y"] for each in (described, parameters) if (box := each.bounding_box())]
    assert tops == sorted(tops), "the story does not stand first"
    assert len(tops) == 2
    expect(story.get_by_text("in a known and recorded way")).to_be_visible()
    page.get_by_test_id("test-result-attachment-header").filter(has_text="Evidence").click()
    expect(page.get_by_test_id("code-attachment-content")).to_contain_text("the client gave up request 1 (close)")
    links.filter(has_text=f"What is known: {DEFECT}").click()
    record = page.locator("#front .known li").filter(has_text=DEFECT.replace("-", " "))
    expect(record.get_by_text("goes on to the end of the prompt of a client that has left")).to_be_in_viewport()
    page.go_back()
    expect(page.get_by_test_id("test-result-info-title")).to_contain_text(GIVEN_UP)
    expect(page.locator("#front")).to_be_hidden()
    assert watched.trouble == []
    assert [url for url in watched.asked if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
    page.close()


@in_chromium
@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_the_picture_is_as_wide_as_there_is_room_and_follows_the_dark(
    browser: Browser, reports: dict[str, Path], size: str, colours: str
) -> None:
    watched = Watched(browser, reports["red"], size, colours)
    watched.scenario(CRASH, "Passed", MIGRATION)
    picture = watched.page.frame_locator("[data-testid=test-result-description-frame]").get_by_role("img")
    expect(picture).to_be_visible()
    box = picture.bounding_box()
    assert box is not None
    assert 250 < box["width"] <= SIZES[size][0]
    shot = picture.screenshot()
    assert (_corner(browser, shot) < 128) == (colours == "dark")
    if (size, colours) == ("desk", "light"):
        _keep(shot, "timeline.png")
    watched.page.close()


def _corner(browser: Browser, shot: bytes) -> float:
    """Brightness of a picture's corner, 0 to 255."""
    page = browser.new_page()
    found = page.evaluate(
        """async (bytes) => {
          const map = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
          const canvas = new OffscreenCanvas(map.width, map.height).getContext("2d");
          canvas.drawImage(map, 0, 0);
          return canvas.getImageData(2, 2, 1, 1).data[0];
        }""",
        list(shot),
    )
    page.close()
    return float(found)


def _keep(shot: bytes, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        (ROOT / folder / name).write_bytes(shot)
