"""The report as one HTML file: Allure makes it, here it becomes small and silent."""

import re
import shutil
import subprocess
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support import binaries
from support.report import runs, wording

_STORED = re.compile(r'\bd\(("[^"\\]+"),"([A-Za-z0-9+/=]*)"\)')
"""A file that Allure has put into its page: its name and its content in base64."""
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


def generate(results: Path, output: Path, node: Path, summary: Mapping[str, Any]) -> None:
    """Write ``index.html``, one file that needs nothing else and asks nobody.

    Args:
        results: a folder of Allure results.
        output: the folder that the page is put into; what it held is gone.
        node: the Node.js interpreter.
        summary: content of ``summary.json``; the page's title counts its verdicts.

    Raises:
        RuntimeError: Allure is not installed, or makes no page.
        OSError, subprocess.SubprocessError: Node.js does not run, or takes more than 300 seconds.
    """
    if not binaries.ALLURE.exists():
        raise RuntimeError("Allure is not installed; run `python3 support/run/bootstrap.py`")
    told = ", ".join(f"{number} {wording.MARKS[name]}" for name, number in summary["verdicts"].items() if number)
    draft = output.with_name(f".{output.name}")
    shutil.rmtree(draft, ignore_errors=True)
    config = {
        "name": f"Dynamo {summary['dynamo']} on target {summary['target']}: {told or 'no scenario ran'}",
        "output": str(draft),
        "hideLabels": ["location", "host", "thread", "framework", "language"],
        "categories": [
            {"name": name, "matchers": {"labels": {"category": key}}, "expand": True, "groupByMessage": False}
            for key, name in wording.CATEGORIES.items()
            if key != "passed"
        ],
        "plugins": {
            "awesome": {
                "options": {"singleFile": True, "groupBy": ["parentSuite", "suite"], "defaultSortBy": "status,asc"}
            }
        },
    }
    file = output.with_name("allurerc.json")
    runs.write_json(file, config)
    command = [str(part) for part in (node, binaries.ALLURE, "generate", "--config", file, results)]
    done = subprocess.run(command, cwd=output.parent, capture_output=True, text=True, timeout=300, check=False)
    page = draft / "index.html"
    if done.returncode or not page.exists():
        raise RuntimeError(f"Allure ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    page.write_text(packed(without_analytics(page.read_text(encoding="utf-8"))), encoding="utf-8")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    page.rename(output / "index.html")
    shutil.rmtree(draft)


def without_analytics(page: str) -> str:
    """The report without the tag that Allure 3 puts in to report home."""
    tag = r"<script async src=\"https://www\.googletagmanager\.com/[^>]*></script>\s*<script>.*?</script>"
    return re.sub(tag, "", page, flags=re.DOTALL)


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
