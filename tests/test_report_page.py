"""The page that Allure makes: its files compressed, and nobody told."""

import json
import re
import subprocess
import zlib
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from support import binaries
from support.report import page
from support.settings import Settings

FILES = {
    "widgets/tree.json": b'{"name": "a scenario"}' * 100,
    "data/attachments/ab.txt": "a worker died \N{EM DASH} an answer went on\n".encode() * 300,
    "widgets/quality-gate.json": b"{}",
}


def allure_page(files: dict[str, bytes]) -> str:
    """The end of a page as Allure 3.18 writes it."""
    stored = ",".join(f'd("{name}","{b64encode(content).decode()}")' for name, content in files.items())
    return f"""<body>
    <script src="data:text/javascript;base64,ZCgiYSIsImIiKQ=="></script>
    <script async>
      window.allureReportDataReady = false;
      window.allureReportData = window.allureReportData || {{}};

      function d(name, value){{
        return new Promise(function (resolve) {{
          window.allureReportData[name] = value;

          return resolve(true);
        }});
      }}
    </script>
    <script defer>
      Promise.allSettled([{stored}])
        .then(function(){{
          window.allureReportDataReady = true;
        }})
    </script>
</body>"""


def test_the_files_of_a_page_are_compressed_and_whole() -> None:
    small = page.packed(allure_page(FILES))
    found = {
        name: zlib.decompress(b64decode(content)) if call == "z" else b64decode(content)
        for call, name, content in re.findall(r'\b([dz])\("([^"]+)","([^"]+)"\)', small)
    }
    assert found == FILES
    assert len(small) < len(allure_page(FILES)) / 3
    assert 'd("widgets/quality-gate.json","e30=")' in small


def test_the_app_gets_the_same_files_as_before(tmp_path: Path) -> None:
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page.packed(allure_page(FILES)), re.DOTALL)
    program = tmp_path / "page.mjs"
    # Node.js has all that a browser brings for it but these two.
    program.write_text(
        """globalThis.window = globalThis;
        globalThis.FileReader = class {
          async readAsDataURL(blob){
            this.result = "data:x;base64," + Buffer.from(await blob.arrayBuffer()).toString("base64");
            this.onload();
          }
        };"""
        + "".join(scripts)
        + f"""
        const found = {{}};
        for (const name of {json.dumps(list(FILES))}) found[name] = await window.allureReportData[name];
        await new Promise((resolve) => setTimeout(resolve));
        console.log(JSON.stringify([window.allureReportDataReady, found]));"""
    )
    said = subprocess.run([binaries.node(Settings()), program], capture_output=True, text=True, timeout=60)
    ready, found = json.loads(said.stdout or "null") or pytest.fail(said.stderr)
    assert ready
    assert {name: b64decode(content) for name, content in found.items()} == FILES


PROGRAM = """a('{"statuses":{"passed":"passed","unknown":"unknown","total":"total"},"x":{"unknown":"unknown"}}')
b('{"statuses":{"passed":"r\u00e9ussi","unknown":"inconnu"}}')
c('{"ui":{"environments":"Environments","error":"Error","success":"Success"}}')"""


def with_program(program: str) -> str:
    return f'<script   src="data:text/javascript;base64,{b64encode(program.encode()).decode()}"></script>'


def test_allures_program_says_known_defect_where_it_said_unknown() -> None:
    ours = PROGRAM.replace('"unknown":"unknown","total"', '"unknown":"known defect","total"')
    ours = ours.replace('"inconnu"', '"known defect"').replace('"error":"Error"', '"error":"What was seen"')
    assert page.in_our_words(with_program(PROGRAM)) == with_program(ours)
    for other in (with_program(PROGRAM.replace("statuses", "states")), with_program(PROGRAM) * 2, "<script>"):
        with pytest.raises(RuntimeError, match="as in Allure 3"):
            page.in_our_words(other)


def test_a_page_of_another_shape_stays_as_it_is() -> None:
    other = allure_page(FILES).replace("Promise.allSettled", "Promise.all")
    assert page.packed(other) == other


def test_the_tag_that_reports_home_is_taken_out() -> None:
    tag = '<script async src="https://www.googletagmanager.com/gtag/js?id=G-1"></script>\n<script>\n gtag()\n</script>'
    assert page.without_analytics(f"<a>{tag}<b><script>stays</script>") == "<a><b><script>stays</script>"
