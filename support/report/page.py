"""The report as one HTML file: Allure makes it, here it gets its first page and becomes small and silent."""

import contextlib
import hashlib
import json
import re
import shutil
import subprocess
import zlib
from base64 import b64decode, b64encode
from collections.abc import Collection
from pathlib import Path

from support import binaries
from support.report import frontpage, runs, wording

HISTORY_LIMIT = 20
"""Runs that Allure's history keeps."""
CHARTS = [
    {"type": "statusDynamics", "title": "The last runs"},
    {"type": "statusTransitions", "title": "What changed from run to run"},
    {"type": "stabilityDistribution", "title": "How often each promise held", "groupBy": "feature"},
    {"type": "durations", "title": "How long scenarios took"},
]
"""Of Allure's charts those that say something about a release."""

_STORED = re.compile(r'\bd\(("[^"\\]+"),"([A-Za-z0-9+/=]*)"\)')
"""A file that Allure has put into its page: its name and its content in base64."""
_APP = re.compile(r'(<script +src="data:text/javascript;base64,)([A-Za-z0-9+/=]+)"')
"""Allure's own program in its page."""
_WORDS = {
    r'("statuses":\{[^{}]*"unknown":)"[^"]*"': "known defect",
    r'("environments":"Environments","error":)"Error"': "What was seen",
}
"""Where the program has a word, and ours for it: the status that known defects have, and the head of a message."""
_FIRST_STORED = re.compile(r"<script[^>]*>\s*Promise\.allSettled\(\[")
"""Begins the script with all of them; the app waits for its end, then asks for each file when it is to be shown."""
_UNPACK = """<script>
      function z(name, packed){
        async function unpacked(){
          const stored = await fetch("data:application/octet-stream;base64," + packed);
          const content = await new Response(stored.body.pipeThrough(new DecompressionStream("deflate"))).blob();
          const reader = new FileReader();
          await new Promise(function(resolve, reject){
            reader.onload = resolve;
            reader.onerror = reject;
            reader.readAsDataURL(content);
          });
          return reader.result.slice(reader.result.indexOf(",") + 1);
        }
        Object.defineProperty(window.allureReportData, name, {get: unpacked});
      }
    </script>
    """
"""What ``d`` does, for content that is compressed: whoever asks for the file waits for a promise of the same base64."""


def generate(results: Path, output: Path, node: Path, title: str, front: str, history: Path, *, kept: bool) -> None:
    """Write ``index.html``, one file that needs nothing else and asks nobody.

    Args:
        results: a folder of Allure results.
        output: the folder that the page is put into; what it held is gone.
        node: the Node.js interpreter.
        title: of the page.
        front: the first page (:func:`support.report.frontpage.render`).
        history: Allure's file with what came of earlier runs.
        kept: whether what came of this one is put into it too.

    Raises:
        RuntimeError: Allure is not installed, or makes no page.
        OSError, subprocess.SubprocessError: Node.js does not run, or takes more than 300 seconds.
    """
    if not binaries.ALLURE.exists():
        raise RuntimeError("Allure is not installed; run `python3 support/run/bootstrap.py`")
    draft = output.with_name(f".{output.name}")
    shutil.rmtree(draft, ignore_errors=True)
    config = {
        "name": title,
        "output": str(draft),
        "historyPath": str(history),
        "historyLimit": HISTORY_LIMIT,
        "appendHistory": kept,
        "hideLabels": ["location", "host", "thread", "framework", "language"],
        "categories": [
            {"name": name, "matchers": {"labels": {"category": key}}, "expand": True, "groupByMessage": False}
            for key, name in wording.CATEGORIES.items()
            if key != "passed"
        ],
        "plugins": {
            "awesome": {
                "options": {
                    "singleFile": True,
                    "groupBy": ["parentSuite", "suite"],
                    "defaultSortBy": "status,asc",
                    "charts": CHARTS,
                }
            }
        },
    }
    file = output.with_name("allurerc.json")
    runs.write_json(file, config)
    command = [str(part) for part in (node, binaries.ALLURE, "generate", "--config", file, results)]
    done = subprocess.run(command, cwd=output.parent, capture_output=True, text=True, timeout=300, check=False)
    made = draft / "index.html"
    if done.returncode or not made.exists():
        raise RuntimeError(f"Allure ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    page = frontpage.insert(without_analytics(made.read_text(encoding="utf-8")), front)
    made.write_text(packed(in_our_words(page)), encoding="utf-8")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    made.rename(output / "index.html")
    shutil.rmtree(draft)


def page_id(uuid: str) -> str:
    """By which Allure calls the page of the result with this ``uuid``, behind the ``#`` of its address."""
    return hashlib.md5(uuid.encode(), usedforsecurity=False).hexdigest()


def forget(history: Path, pages: Collection[str]) -> None:
    """Take out of Allure's history what it has of the run with these pages, which else would count twice once it is
    published again, and what cannot be read.
    """
    if not history.exists():
        return
    kept = []
    for line in history.read_text(encoding="utf-8").splitlines(keepends=True):
        with contextlib.suppress(ValueError, LookupError):
            if not {each["id"] for each in json.loads(line)["testResults"].values()} & set(pages):
                kept.append(line)
    draft = history.with_name(f".{history.name}")
    draft.write_text("".join(kept), encoding="utf-8")
    draft.replace(history)


def without_analytics(page: str) -> str:
    """The report without the tag that Allure 3 puts in to report home."""
    tag = r"<script async src=\"https://www\.googletagmanager\.com/[^>]*></script>\s*<script>.*?</script>"
    return re.sub(tag, "", page, flags=re.DOTALL)


def in_our_words(page: str) -> str:
    """The report with our word for known defects in Allure's program, which has no status for them.

    Raises:
        RuntimeError: Allure's page has another shape.
    """

    def said(program: re.Match[str]) -> str:
        words = b64decode(program[2]).decode()
        for place, word in _WORDS.items():
            words, times = re.subn(place, rf'\1"{word}"', words)
            if not times:
                raise RuntimeError(f"Allure's program has no word at {place}; expected one, as in Allure 3.18")
        return f'{program[1]}{b64encode(words.encode()).decode()}"'

    found, times = _APP.subn(said, page)
    if times != 1:
        raise RuntimeError(f"Allure's page has {times} programs; expected one, as in Allure 3.18")
    return found


def packed(page: str) -> str:
    """The report with its files compressed, each for itself, so that a reader's browser unpacks only what is opened.

    Nothing is lost: the app gets the same bytes. A page of another shape stays as it is.
    """
    first = _FIRST_STORED.search(page)
    if first is None:
        return page
    return page[: first.start()] + _UNPACK + _STORED.sub(_pack, page[first.start() :])


def _pack(stored: re.Match[str]) -> str:
    name, content = stored.groups()
    small = b64encode(zlib.compress(b64decode(content), 9)).decode()
    return f'z({name},"{small}")' if len(small) < len(content) else stored[0]
