"""A deployment that stays: its record outlives `make clean`, and the lines of curl in the documents work."""

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agents.xid import kmsg
from support.run import stay
from support.settings import ROOT
from support.targets.local import namespaces


def test_clean_leaves_the_record_of_what_is_up(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("up/cell.json", "runs/1/verdicts.json", "costs-local.json"):
        (tmp_path / "reports" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "reports" / name).touch()
    for _ in range(2):
        subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
        left = [str(path.relative_to(tmp_path)) for path in (tmp_path / "reports").rglob("*")]
        assert sorted(left) == ["reports/up", "reports/up/cell.json"]


def lines_of_curl(document: str) -> list[str]:
    """The commands of a document's blocks, up to what needs a GPU, continued lines joined."""
    text = (ROOT / document).read_text().partition("## Real GPUs")[0]
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    whole = re.sub(r"\\\n\s*", " ", "\n".join(blocks))
    return [line for line in whole.splitlines() if line.startswith("curl ")]


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


@pytest.mark.skipif(bool(namespaces.missing() or kmsg.missing()), reason=f"{namespaces.missing()}; {kmsg.missing()}")
@pytest.mark.skipif(stay._running() is not None, reason="`make up` is in use here")
def test_smoke_of_a_deployment_that_stays() -> None:
    frontend, service = free_port(), free_port()
    argv = [sys.executable, "-m", "support.run.stay"]
    ports = [f"--frontend-port={frontend}", f"--service-port={service}"]
    try:
        began = subprocess.run([*argv, "up", *ports], cwd=ROOT, capture_output=True, text=True)
        assert began.returncode == 0, began.stdout + began.stderr
        for document in ("README.md", "docs/fault-service.md"):
            lines = lines_of_curl(document)
            assert len(lines) >= 2, document
            # Each document is for a deployment without faults.
            for line in ["curl -s -X POST localhost:8080/api/v1/faults/recover", *lines]:
                asked = line.replace("localhost:8080", f"localhost:{service}").replace("curl -s", "curl -sS --fail", 1)
                done = subprocess.run(["bash", "-o", "pipefail", "-c", asked], capture_output=True, text=True)
                assert (done.returncode, bool(done.stdout.strip())) == (0, True), f"{line}: {done.stderr}"
        log = [json.loads(line) for line in (stay.FOLDER / stay.AUDIT).read_text().splitlines()]
        assert log[-1]["path"] == "/api/v1/capabilities"
        seen = subprocess.run([sys.executable, "-m", "support.run.watch"], cwd=ROOT, capture_output=True, text=True)
        assert seen.returncode == 0, seen.stdout + seen.stderr
        assert f"http://localhost:{frontend}  Qwen/Qwen3-0.6B" in seen.stdout
        rows = {row.split()[0]: row.split()[1:] for row in seen.stdout.splitlines() if "worker-" in row}
        assert {name: (row[0], row[2]) for name, row in rows.items()} == {
            "vllm-worker-0": ("worker", "running"),
            "vllm-worker-1": ("worker", "running"),
        }
    finally:
        ended = subprocess.run([*argv, "down"], cwd=ROOT, capture_output=True, text=True)
    assert "the deployment is gone" in ended.stdout, ended.stdout + ended.stderr
    for port in (frontend, service):
        with socket.create_server(("127.0.0.1", int(port))):
            pass
