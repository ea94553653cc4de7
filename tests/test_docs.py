"""What the documentation says can be typed: every command and every snippet of it. What would need a GPU, a cluster or
somebody's CI, takes hours, or has a gap for the reader to fill, is checked for its form. ``make test-docs``.
"""

import ast
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.xid import kmsg
from support import sabotage
from support.data import read_list
from support.report.reading import read_verdict
from support.run import keeping
from support.settings import NAMES, ROOT
from support.targets.local import namespaces
from tests.sabotage import Sabotage
from tests.test_prose import MESSAGES, PAGES

pytestmark = pytest.mark.docs

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(?:make|behave|python3?|\.venv/bin/\w+|curl|git|docker|kubectl|zcat) \S")
"""How a piece of code in a sentence begins that is a command; the name of a program alone is none."""
SHELLS = ("", "bash", "sh", "console")
LIMIT_SECONDS = 600
READERS: dict[str, Callable[[str], Any]] = {
    "python": ast.parse,
    "yaml": yaml.safe_load,
    "json": json.loads,
    "text": str,
}
"""Language of a snippet that is not run as it is -> what reads it, or raises."""
SHORT = "FEATURES=features/rolling_restart.feature"
"""What a command that would run everything runs instead."""


@dataclass(frozen=True)
class Block:
    """A piece of code on a page, with the heading above it."""

    page: str
    heading: str
    language: str
    text: str


@cache
def blocks() -> list[Block]:
    """All of them, in the order of the pages."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            above = re.findall(r"^#+ .*$", BLOCK.sub("", text[: match.start()]), re.MULTILINE)
            found.append(Block(page.name, above[-1] if above else "", match[1], match[2]))
    return found


def commands(page: Path) -> Iterator[str]:
    """Those in its blocks, a line each, continued lines joined; and those in its sentences and tables."""
    text = page.read_text()
    for language, block in BLOCK.findall(text):
        if language in SHELLS:
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                if command := re.sub(r"(^|\s+)# .*$", "", line).strip():
                    yield command
    # What stands in the first column of a table of messages is printed, and nobody types it.
    said = MESSAGES.sub(lambda table: re.sub(r"^\| `.*?` \|", "|", table[0], flags=re.MULTILINE), BLOCK.sub("", text))
    for code in re.findall(r"`([^`\n]+)`", said):
        if COMMAND.match(code):
            yield code


TREATMENTS = {
    "form": (
        # the reader has to fill in something
        r"<|\.\.\.|\b(HOST|POD|DIR)\b",
        # a cluster, a GPU, another Python
        r"^(docker|kubectl|ask\b|export (FT_|KUBECONFIG))|agents\.(gpu|service --agent)|-m gpu|PYTHON=",
        r"TARGET=kubernetes",
        # a terminal, or a failure that is kept; tests/test_stay.py tries both
        r"^make enter|KEEP=",
        # hours
        r"^make (test|bench|lies|mutation|releases|crash-trials|sabotage(?!.*PLAN=))|^python -m tests\.reproduce",
        # a browser
        r"^SCREENSHOTS=",
        # the copy of the checkout would be gone
        r"^make (clean|distclean)",
        # another program of the same package does it in a test of its own: tests/test_results.py and others
        r"^python -m (support\.report\.\w+|agents\.(service|watchdog))$",
    ),
    "up": (r"^(curl|make (up|watch|down))\b",),
    "script": (r"^python .*my_script\.py$",),
    "red": (r"^FT_SABOTAGE=",),
    "dynamo": (r"^python -m dynamo\.",),
    "copy": (
        r"\bmake (acceptance|rerun|report|doctor|new|catalogue|sabotage|lint-features)\b",
        r"^((\.venv/bin/)?behave|zcat|python -m (support|agents)\.|\. \.venv/bin/activate)",
    ),
}
"""What is done with a command that one of the patterns is found in; the first one counts."""


def treatment(command: str) -> str:
    """The name of what is done with a command; empty: nobody has said."""
    named = ((name, each) for name, patterns in TREATMENTS.items() for each in patterns)
    return next((name for name, pattern in named if re.search(pattern, command)), "")


def treated(name: str) -> list[str]:
    """The commands of all pages with this treatment, each once."""
    return list(dict.fromkeys(each for page in PAGES for each in commands(page) if treatment(each) == name))


def test_every_command_is_known() -> None:
    unknown = {(page.name, each) for page in PAGES for each in commands(page) if not treatment(each)}
    assert unknown == set(), "say in TREATMENTS what this test is to do with them"
    assert {name: bool(treated(name)) for name in TREATMENTS} == dict.fromkeys(TREATMENTS, True)


# -- a copy of the checkout, in which reports and features may be written


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout once more, with the same environments and a run to go on with."""
    place = tmp_path_factory.mktemp("docs") / "checkout"
    left_out = shutil.ignore_patterns(".git", ".venv", ".envs", "reports", "*_cache", "__pycache__", "settings.toml")
    shutil.copytree(ROOT, place, ignore=left_out)
    for name in (".venv", ".envs"):
        (place / name).symlink_to(ROOT / name)
    begun = run(shortened("make acceptance", place), place, TARGET="fake")
    assert begun.returncode == 0, begun.stdout + begun.stderr
    return place


def run(command: str, place: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command line as a reader would, in the suite's environment."""
    clean = {name: value for name, value in os.environ.items() if name.lower() not in NAMES and name != "TAGS"}
    env = clean | {"PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"} | environ
    argv = ["bash", "-o", "pipefail", "-c", command]
    return subprocess.run(argv, cwd=place, env=env, capture_output=True, text=True, timeout=LIMIT_SECONDS)


def shortened(command: str, place: Path) -> str:
    """The command, so that it makes no environment, and neither takes hours nor writes elsewhere."""
    command = command.replace("/var/tmp/logs", str(place / "logs"))
    command = command.replace("FILE", str(next((ROOT / "docs" / "defects").rglob("*.ledger.jsonl.gz"))))
    if "make acceptance" in command and not re.search("FEATURES=|TAGS=", command):
        command += f" {SHORT}"
    return f"{command} BOOTSTRAP=true" if "make " in command else command


TUTORIAL = "writing-scenarios.md"
"""The page that makes a feature, a step at a time."""


def steps_of_the_tutorial(language: str) -> list[str]:
    """Its snippets in one language, in their order; the first one in gherkin is the feature."""
    return [each.text for each in blocks() if (each.page, each.language) == (TUTORIAL, language)]


def with_features(command: str, place: Path) -> None:
    """Have the features of the checkout there alone, with that of the tutorial where the command names it."""
    for file in (place / "features").glob("*.feature"):
        if not (ROOT / "features" / file.name).exists():
            file.unlink()
    for name in re.findall(r"features/\w+\.feature", command):
        if not (place / name).exists():
            (place / name).write_text(steps_of_the_tutorial("gherkin")[0])


@pytest.mark.parametrize("command", treated("copy"))
def test_a_command_does_what_it_says(command: str, copy: Path) -> None:
    with_features(command, copy)
    done = run(shortened(command, copy), copy, TARGET="fake")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_snippets_of_features_run(copy: Path) -> None:
    folder = copy / "features" / "snippets"
    folder.mkdir()
    snippets = [each for each in blocks() if each.language == "gherkin"]
    for number, block in enumerate(snippets):
        begin = "" if "Feature:" in block.text else f"Feature: {block.page}, {number}\n"
        middle = "" if "Scenario" in block.text else "Scenario: a snippet\n"
        (folder / f"snippet_{number}.feature").write_text(begin + middle + block.text)
    runs = copy / "snippets"
    (runs / "scenarios").mkdir(parents=True)
    done = run("behave -D target=fake features/snippets", copy, FT_RUN_DIR=str(runs))
    shutil.rmtree(folder)  # the tutorial's feature is played by other tests as well
    verdicts = [read_verdict(file).verdict for file in sorted(runs.glob("scenarios/*/verdict.json"))]
    assert (verdicts, done.returncode) == (["passed"] * len(verdicts), 0), done.stdout + done.stderr
    assert len(verdicts) >= len(snippets) > 0


def test_the_mistake_of_the_tutorial_is_answered_as_it_says(tmp_path: Path) -> None:
    feature, (wrong, answer) = steps_of_the_tutorial("gherkin")[0], steps_of_the_tutorial("text")
    right = re.findall(r"^    write: +(.*)$", answer, re.MULTILINE)
    first = next(line for line in feature.splitlines(keepends=True) if line.strip().startswith("When"))
    name = answer.partition(":")[0]
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(feature.replace(first, wrong))
    argv = [sys.executable, "-m", "steps.lint", str(tmp_path / name)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert (done.stderr.replace(f"{os.path.relpath(tmp_path, ROOT)}/", ""), done.returncode) == (answer, 2)
    [word] = re.findall("'(.*)'", answer)
    (tmp_path / name).write_text(feature.replace(first, wrong.replace(word, right[0])))
    assert subprocess.run(argv, cwd=ROOT, capture_output=True).returncode == 0


def test_the_row_that_keeps_the_scenario_of_the_tutorial_can_be_read(tmp_path: Path) -> None:
    rows = [each.text for each in blocks() if each.language == "yaml" and "sabotage:" in each.text]
    for row in rows:
        (tmp_path / "table.yaml").write_text(row)
        [read] = read_list(tmp_path / "table.yaml", Sabotage, check=Sabotage.check)
        assert f"Scenario: {read.scenario}\n" in steps_of_the_tutorial("gherkin")[0]
    assert rows


def test_a_sabotage_by_hand_is_red(copy: Path) -> None:
    for command in treated("red"):
        kind = command.partition("=")[2].partition("=")[0]
        assert kind in sabotage.KINDS
        with_features(command, copy)
        done = run(command, copy)
        assert done.returncode == 1, done.stdout + done.stderr
        assert re.search(r"of [23]00 tokens", done.stdout)


def test_programs_of_dynamo_are_there(tmp_path: Path) -> None:
    release = next((ROOT / ".envs").glob("dynamo-*"))
    for command in treated("dynamo"):
        # They leave the configuration of their logs where temporary files go.
        done = run(command.replace("python", str(release / "bin" / "python"), 1), ROOT, TMPDIR=str(tmp_path))
        assert done.returncode == 0, done.stdout + done.stderr


# -- what is checked for its form


@pytest.mark.parametrize("command", treated("form"))
def test_the_form_of_what_cannot_be_run_here(command: str) -> None:
    command = re.sub(r"<[^>]*>", "GAP", command.replace("...", ""))
    parsed = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
    assert parsed.returncode == 0, parsed.stderr
    words = shlex.split(command)
    variables = [name for word in words if (name := re.match(r"[A-Z_]+(?==)", word))]
    assert [each[0] for each in variables if each[0] not in _variables()] == []
    if "make" in words:
        argv = ["make", "-n", *words[words.index("make") + 1 :]]
        plan = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
        assert (plan.returncode, bool(plan.stdout)) == (0, True), plan.stderr
    if "-m" in words and "python" in command:
        _check_program(words[words.index("-m") + 1 :])
    for option, value in pairwise(words):
        if option in ("-f", "--file"):
            assert (ROOT / value).is_file(), value
        elif option == "-d":
            json.loads(value)


def _variables() -> set[str]:
    """Those that make, the suite's settings and its programs know."""
    makefile = set(re.findall(r"\$\(?\$?([A-Z_]+)\b", (ROOT / "Makefile").read_text()))
    return (
        makefile
        | {name.upper() for name in NAMES}
        | {"FT_AGENT_TOKEN", "FT_SERVICE_TOKEN", "FT_SABOTAGE", "SCREENSHOTS"}
    )


def _check_program(words: list[str]) -> None:
    module, *rest = words
    assert find_spec(module), module
    options = [word for word in rest if word.startswith("--")]
    if options and not module.startswith("pytest"):
        told = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
        assert [each for each in options if each not in told.stdout] == [], told.stdout + told.stderr


@pytest.mark.parametrize("block", [each for each in blocks() if each.language not in (*SHELLS, "gherkin")], ids=str)
def test_other_snippets_can_be_read(block: Block) -> None:
    assert block.language in READERS, f"say in READERS how a snippet in {block.language} is to be checked"
    READERS[block.language](block.text)


# -- the files for somebody's CI

CI: dict[str, Callable[[Any], list[str]]] = {
    "github.yml": lambda file: [step["run"] for step in file["jobs"]["acceptance"]["steps"] if "run" in step],
    "gitlab.yml": lambda file: file["acceptance"]["script"],
}
"""File in docs/ci -> the commands in it."""
OF_THE_MACHINE = ("sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",)
"""What prepares a machine of a CI, before the commands of the page."""


def test_every_file_for_a_ci_is_known() -> None:
    assert {file.name for file in (ROOT / "docs" / "ci").iterdir()} == set(CI)


@pytest.mark.parametrize("name", CI)
def test_a_file_for_a_ci_runs_what_its_page_says(name: str) -> None:
    text = (ROOT / "docs" / "ci" / name).read_text()
    said = [each for each in CI[name](yaml.safe_load(text)) if each not in OF_THE_MACHINE]
    assert said == list(commands(ROOT / "docs" / "ci.md"))[:3]
    for command in said:
        plan = subprocess.run(f"make -n {command.removeprefix('make ')}".split(), cwd=ROOT, capture_output=True)
        assert plan.returncode == 0, plan.stderr
    kept = set(re.findall(r"\breports/[\w./-]+", text))
    page = (ROOT / "docs" / "ci.md").read_text()
    assert kept == set(re.findall(r"`(reports/[\w./-]+)`", page))
    assert set(re.findall(r"^ +([A-Z_]+):", text, re.MULTILINE)) == {"DYNAMO"}


def test_a_file_for_github_names_the_version_of_each_action() -> None:
    [job] = yaml.safe_load((ROOT / "docs" / "ci" / "github.yml").read_text())["jobs"].values()
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert [each for each in used if not re.fullmatch(r"actions/[\w-]+@v\d+", each)] == []
    assert [step for step in job["steps"] if ("uses" in step) == ("run" in step)] == []


# -- the Python API

FIRST = "# Python API"
PARTS = ("## Scenarios and checkers", "## Load", "## Results", "## Requests to any frontend", "## Logs and metrics")
"""Headings of its page whose snippets are run one after the other, as one program."""
LIVING = "world().stage.nodes('frontend')[0].metrics_url"


def test_the_snippet_of_the_python_api_runs(tmp_path: Path) -> None:
    for command in treated("script"):
        said = _run_snippets(command, tmp_path, FIRST)
        status, tokens, pause = said[0].split()
        assert (status, tokens) == ("200", "300")
        assert float(pause) < 2
        assert said[1] == "[]"


def test_the_other_snippets_of_the_python_api_run(tmp_path: Path) -> None:
    glue = f"""
from pathlib import Path
logs = Path({str(tmp_path / "logs")!r})
url, model = world().deployment.frontend_url, world().deployment.model
"""
    log = "Path('worker.log').write_text('request 7 received')"
    told = "print(answer.status_code, len(answer.tokens), match[1])"
    parts = [*PARTS[:1], glue, *PARTS[1:4], log, *PARTS[4:], told]
    said = _run_snippets("python -m support.run.cells my_script.py", tmp_path, *parts)
    assert said[0] == "True True"
    assert said[1].startswith("CheckResult(name='high_availability', passed=True")
    assert said[2:4] == ["[] 20", "[]"]
    assert said[4].startswith("100.0 ")
    assert said[5:] == ["200 200 7"]


def test_every_snippet_of_the_python_api_is_run() -> None:
    assert {each.heading for each in blocks() if each.language == "python"} == {FIRST, *PARTS}


def _run_snippets(command: str, folder: Path, *parts: str) -> list[str]:
    """Run code and snippets of the page of the Python API, named by the headings above them; the lines they print."""
    named = {each.heading: each.text for each in blocks() if each.page == "python-api.md"}
    code = "\n".join(named[part] if part.startswith("#") else part for part in parts)
    script = folder / "my_script.py"
    script.write_text(code.replace('"http://127.0.0.1:9090/metrics"', LIVING))
    done = run(command.replace("my_script.py", str(script)), folder, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# -- a deployment that stays


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


@pytest.mark.skipif(bool(namespaces.missing() or kmsg.missing()), reason=f"{namespaces.missing()}; {kmsg.missing()}")
@pytest.mark.skipif(bool(keeping.UP.owner() or keeping.WRECK.owner()), reason="`make up` or a wreck is in use here")
def test_a_deployment_that_stays_and_what_is_asked_of_it() -> None:
    frontend, service = free_port(), free_port()
    argv = [sys.executable, "-m", "support.run.stay"]
    ports = [f"--frontend-port={frontend}", f"--service-port={service}"]
    try:
        began = subprocess.run([*argv, "up", *ports], cwd=ROOT, capture_output=True, text=True)
        assert began.returncode == 0, began.stdout + began.stderr
        for page in PAGES:
            # Each page is for a deployment without faults.
            lines = [each for each in commands(page) if each.startswith("curl ")]
            healing = ["curl -s -X POST localhost:8080/api/v1/faults/recover"] if lines else []
            for line in [*healing, *lines]:
                asked = line.replace("localhost:8080", f"localhost:{service}").replace("curl -s", "curl -sS --fail", 1)
                done = run(asked, ROOT)
                assert (done.returncode, bool(done.stdout.strip())) == (0, True), f"{line}: {done.stderr}"
        log = [json.loads(line) for line in (keeping.UP.folder / keeping.AUDIT).read_text().splitlines()]
        assert log[-1]["path"] == "/api/v1/capabilities"
    finally:
        ended = subprocess.run([*argv, "down"], cwd=ROOT, capture_output=True, text=True)
    assert "the deployment is gone" in ended.stdout, ended.stdout + ended.stderr
    for port in (frontend, service):
        with socket.create_server(("127.0.0.1", int(port))):
            pass
