"""What stays: the deployment of `make up` and the wreck of a scenario: they are found, work and end."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agents.xid import kmsg
from support.judge.verdict import Verdict
from support.observe.waiting import until
from support.report import console, story
from support.report.reading import read_verdict
from support.run import wreck
from support.run.keeping import UP, WRECK, Door
from support.settings import ROOT, Settings
from support.targets.local import namespaces
from tests.patience import PATIENCE
from tests.plain_http import Client
from tests.test_smoke import MIGRATION


def test_clean_leaves_the_record_of_what_is_up(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("up/lock", "wreck/lock", "runs/1/verdicts.json", "costs-local.json"):
        (tmp_path / "reports" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "reports" / name).touch()
    for _ in range(2):
        subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
        left = [str(path.relative_to(tmp_path)) for path in (tmp_path / "reports").rglob("*")]
        assert sorted(left) == ["reports/up", "reports/up/lock", "reports/wreck", "reports/wreck/lock"]


def watched() -> str:
    """What `make watch` shows."""
    seen = subprocess.run([sys.executable, "-m", "support.run.watch"], cwd=ROOT, capture_output=True, text=True)
    return seen.stdout


def registered(shown: str) -> set[str]:
    """What Dynamo calls the workers that are shown to be registered."""
    return set(re.findall(r"^vllm-worker-\d .* ([0-9a-f]{8,}) *$", shown, re.MULTILINE))


def inside(command: str, *options: str) -> str:
    """What a shell in the cell says to a command."""
    argv = [sys.executable, "-m", "support.run.stay", "enter", *options]
    env = os.environ | {"SHELL": "sh"}
    done = subprocess.run(argv, cwd=ROOT, env=env, input=f"{command}\n", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(bool(namespaces.missing() or kmsg.missing()), reason=f"{namespaces.missing()}; {kmsg.missing()}")
@pytest.mark.skipif(bool(UP.owner() or WRECK.owner()), reason="`make up` or a wreck is in use here")
def test_smoke_of_a_deployment_that_stays() -> None:
    argv = [sys.executable, "-m", "support.run.stay"]
    ports = ["--frontend-port=0", "--service-port=0"]  # any that are free
    try:
        began = subprocess.run([*argv, "up", *ports], cwd=ROOT, capture_output=True, text=True)
        assert began.returncode == 0, began.stdout + began.stderr
        frontend, service = (re.findall(r"http://localhost:(\d+)", began.stdout)[each] for each in (0, 1))
        assert Client(f"http://localhost:{service}").ask("GET", "/health")[0] == 200
        until(lambda: None if len(registered(watched())) == 2 else watched(), PATIENCE, "both workers are registered")
        seen = watched()
        assert f"http://localhost:{frontend}  Qwen/Qwen3-0.6B" in seen
        rows = {row.split()[0]: row.split()[1:] for row in seen.splitlines() if "worker-" in row.split(" ")[0]}
        assert {name: (row[0], row[2]) for name, row in rows.items()} == {
            "vllm-worker-0": ("worker", "running"),
            "vllm-worker-1": ("worker", "running"),
        }
        assert inside("ls /run/netns").split() == sorted(["etcd-0", "frontend-0", *rows])
        assert "eth0" in inside("cat /proc/net/dev", "--node=vllm-worker-0")
        refused = subprocess.run([*argv, "enter", "--node=nobody"], cwd=ROOT, capture_output=True, text=True)
        assert "no node 'nobody'; choose one of etcd-0, frontend-0" in refused.stderr
    finally:
        ended = subprocess.run([*argv, "down"], cwd=ROOT, capture_output=True, text=True)
    assert "the deployment is gone" in ended.stdout, ended.stdout + ended.stderr
    for port in (frontend, service):
        with socket.create_server(("127.0.0.1", int(port))):
            pass


# A run of plain behave that keeps a wreck, in a folder of its own.
PLAY = """
import sys
from pathlib import Path
from support.report import runs
from support.run import wreck
from support.run.launcher import Launcher
from support.settings import ROOT, Settings

folder = Path(sys.argv[1])
settings = Settings.load({"keep": "failed"})
made = Launcher(ROOT, settings, [], runs.create(folder), wreck.open_door(settings))
sys.exit(made.behave(["-f", "plain", "-Dkeep=failed", *sys.argv[2:]]))
"""


@pytest.mark.skipif(bool(namespaces.missing()), reason=str(namespaces.missing()))
@pytest.mark.skipif(bool(UP.owner() or WRECK.owner()), reason="`make up` or a wreck is in use here")
def test_the_wreck_of_a_scenario_that_fails_goes_on_until_it_is_ended(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", PLAY, str(tmp_path), "--tags=@smoke", "--name", MIGRATION]
    env = os.environ | {"FT_SABOTAGE": "migration-limit=0"}
    done = subprocess.run(argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    try:
        assert done.returncode == 1, done.stdout + done.stderr
        (file,) = tmp_path.glob("runs/*/scenarios/*/verdict.json")
        verdict = read_verdict(file)
        assert (verdict.verdict, "of 200 tokens" in verdict.reason) == ("failed", True)
        assert verdict.not_judged["gauges"] == "its wreck goes on with its faults"
        told = WRECK.ask()
        assert told["title"] == f"wreck of {verdict.location}"
        lines = "\n".join(verdict.kept)
        for needed in (told["frontend"], told["service"], told["until"], "make down", "make watch", "make enter"):
            assert needed in lines
        assert "/logs" in lines
        states = {node["name"]: node["state"] for node in told["nodes"] if node["role"] == "worker"}
        assert sorted(states.values()) == ["ended", "running"], "one has crashed, and nothing was undone"
        status, models = Client(told["frontend"]).ask("GET", "/v1/models")
        assert (status, len(json.loads(models)["data"])) == (200, 1)
        _, faults = Client(told["service"]).ask("GET", "/api/v1/faults?active=true")
        (fault,) = json.loads(faults)
        assert (fault["type"], bool(fault["expires_at"])) == ("crash", True)
        seen = watched()
        assert f"wreck of {verdict.location}, until {told['until']}" in seen
        assert f"on  {fault['id']}" in seen
        assert "frontend-0" in inside("ls /run/netns")
    finally:
        down = [sys.executable, "-m", "support.run.stay", "down"]
        ended = subprocess.run(down, cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == "down: the wreck is gone\n", ended.stdout + ended.stderr
    assert WRECK.owner() is None
    for url in (told["frontend"], told["service"]):
        with socket.socket() as line:
            assert line.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


def test_no_wreck_is_kept_where_there_is_no_way_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="target fake ends with its run; leave keep out"):
        wreck.check(Settings.load({"keep": "failed", "target": "fake"}, {}))
    assert wreck.open_door(Settings.load({}, {})) is None
    monkeypatch.setattr(Door, "of_this_cell", lambda: None)
    assert wreck.keep(None, "features/x.feature:1") == []  # type: ignore[arg-type]
    assert wreck.hold(7) == 7


def test_how_to_look_at_a_wreck_is_told_with_the_failure_and_in_the_report(tmp_path: Path) -> None:
    failed = Verdict("F", "s", "features/x.feature:1", [], "failed", 1.0, "why", kept=["look <here>"])
    assert "wreck: look <here>\n" in console.failure(failed, tmp_path, {})
    told = story.story(tmp_path, failed)
    assert "<b>Left running</b></p><ul><li>look &lt;here&gt;</li></ul>" in told
    assert "Left running" not in story.story(tmp_path, Verdict("F", "s", "features/x.feature:1", [], "failed", 1.0))
