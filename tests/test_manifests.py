"""The image and the DaemonSet of the GPU agent: linted, accepted by the program itself, installed and started."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import agents.observer.__main__
import agents.pods.__main__
import agents.service.__main__
from agents.gpu.__main__ import parser
from support.settings import ROOT
from tests.plain_http import Client

FOLDER = ROOT / "agents" / "manifests"
DOCKERFILE = FOLDER / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with their arguments, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in whole.splitlines() if line]


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    """Kind -> object of the manifest."""
    text = (FOLDER / "gpu-fault-injector.yaml").read_text()
    return {each["kind"]: each for each in yaml.load_all(text, Loader=yaml.CSafeLoader)}


@pytest.fixture(scope="module")
def pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = objects["DaemonSet"]["spec"]["template"]["spec"]
    return found


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    [found] = pod["containers"]
    assert isinstance(found, dict)
    return found


# -- the manifest


def test_the_service_account_may_look_at_pods_of_its_namespace_and_no_more(
    objects: dict[str, dict[str, Any]], container: dict[str, Any]
) -> None:
    account, role, binding = objects["ServiceAccount"], objects["Role"], objects["RoleBinding"]
    [namespace] = [each.partition("=")[2] for each in container["args"] if each.startswith("--allow-namespace")]
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == namespace
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    subject = {"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": "fault-injection"}
    assert binding["subjects"] == [subject]
    assert objects["Namespace"]["metadata"]["name"] == account["metadata"]["namespace"] == "fault-injection"


def test_the_daemonset_selects_its_own_pods(objects: dict[str, dict[str, Any]], pod: dict[str, Any]) -> None:
    daemonset = objects["DaemonSet"]
    assert daemonset["metadata"]["name"] == "gpu-fault-injector"
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    assert daemonset["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert pod["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert (pod["hostPID"], pod.get("hostNetwork", False)) == (True, False)


def test_devices_journal_and_token_are_where_the_program_looks(pod: dict[str, Any], container: dict[str, Any]) -> None:
    volumes = {each["name"]: each for each in pod["volumes"]}
    places = {each["mountPath"]: volumes[each["name"]] for each in container["volumeMounts"]}
    assert len(places) == len(volumes)
    options = parser().parse_args(container["args"][1:])
    assert places["/dev/kmsg"]["hostPath"] == {"path": "/dev/kmsg", "type": "CharDevice"}
    assert places[str(options.state_dir)]["hostPath"]["type"] == "DirectoryOrCreate"
    assert places[str(options.token_file.parent)]["secret"]["defaultMode"] == 0o400
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert set(environment["NVIDIA_DRIVER_CAPABILITIES"].split(",")) == {"compute", "utility"}
    assert "nvidia.com/gpu" not in str(container["resources"])  # it would take a GPU from those that it tests


def test_its_options_are_the_programs_own(container: dict[str, Any]) -> None:
    program, *arguments = container["args"]
    options = parser().parse_args(arguments)
    assert program == "agents.gpu"
    assert (options.host, options.name, options.allow_clock_control) == ("0.0.0.0", "$(NODE_NAME)", False)
    known = {each["name"] for each in container["env"]}
    assert set(re.findall(r"\$\((\w+)\)", " ".join(arguments))) <= known
    [port] = container["ports"]
    probe = container["readinessProbe"]["httpGet"]
    live = container["livenessProbe"]
    longest = live["periodSeconds"] * live["failureThreshold"] + live["terminationGracePeriodSeconds"]
    assert (live["httpGet"], longest < 20) == (probe, True)  # seconds that a frozen agent is left alive
    assert (options.port, probe) == (port["containerPort"], {"path": "/health", "port": port["name"]})


def test_it_is_no_more_than_it_says(container: dict[str, Any]) -> None:
    assert container["securityContext"] == {"privileged": True, "runAsUser": 0, "readOnlyRootFilesystem": True}
    assert {"requests", "limits"} <= container["resources"].keys()
    assert re.fullmatch(r"[\w./-]+:(?!latest$)[\w.-]+", container["image"])


# -- what runs in a cluster beside it


def documents(name: str) -> list[dict[str, Any]]:
    return [each for each in yaml.load_all((FOLDER / name).read_text(), Loader=yaml.CSafeLoader) if each]


OTHERS = {
    "pod-fault-injector.yaml": (
        agents.pods.__main__.parser,
        "DaemonSet",
        {"KILL", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"},
    ),
    "pod-observer.yaml": (agents.observer.__main__.parser, "DaemonSet", {"SYS_ADMIN", "SYS_PTRACE"}),
    "fault-service.yaml": (agents.service.__main__.parser, "Deployment", set[str]()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_each_starts_with_options_of_its_own_and_no_more_rights_than_it_says(name: str) -> None:
    parser_of, kind, capabilities = OTHERS[name]
    [workload] = [each for each in documents(name) if each["kind"] == kind]
    spec = workload["spec"]["template"]["spec"]
    [container] = spec["containers"]
    options = parser_of().parse_args(container["args"][1:])
    assert container["args"][0] == parser_of.__module__.removesuffix(".__main__")
    assert (options.host, options.port) == ("0.0.0.0", container["ports"][0]["containerPort"])
    context = container["securityContext"]
    assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
    assert set(context["capabilities"].get("add", [])) == capabilities
    assert context["capabilities"]["drop"] == ["ALL"]
    assert spec.get("hostPID", False) == bool(capabilities)
    assert "hostNetwork" not in spec
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}
    secrets = {each["name"] for each in spec["volumes"] if "secret" in each}
    [mount] = [each for each in container["volumeMounts"] if each["name"] in secrets]
    assert str(options.token_file.parent) == mount["mountPath"]


@pytest.mark.parametrize("name", OTHERS)
def test_a_policy_says_who_may_reach_it(name: str) -> None:
    [workload] = [each for each in documents(name) if each["kind"] in ("DaemonSet", "Deployment")]
    [policy] = [each for each in documents(name) if each["kind"] == "NetworkPolicy"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["spec"]["ingress"][0]["from"]


@pytest.mark.parametrize("name", OTHERS)
def test_its_account_may_look_at_pods_and_no_more(name: str) -> None:
    rules = [rule for each in documents(name) if each["kind"] in ("Role", "ClusterRole") for rule in each["rules"]]
    allowed = [] if "observer" in name else [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    assert rules == allowed


# -- the image


def test_the_dockerfile_is_linted() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_finds_what_it_should() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    text = DOCKERFILE.read_text().replace(":3.12.8-slim-bookworm", ":latest").replace(" --no-cache-dir", "")
    done = subprocess.run([hadolint, "--no-color", "-"], input=text, capture_output=True, text=True)
    assert {"DL3007", "DL3042"} <= set(re.findall(r"DL\d+", done.stdout))


def test_the_image_is_pinned_and_runs_as_nobody() -> None:
    found = dict(instructions())
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", found["FROM"])
    assert found["USER"] == "65532:65532"


def test_the_image_holds_the_versions_that_are_tested() -> None:
    def pins(file: Path) -> set[str]:
        return {line for line in file.read_text().splitlines() if line and not line.startswith("#")}

    assert pins(ROOT / "agents" / "requirements.txt") <= pins(ROOT / "requirements-constraints.txt")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the Dockerfile makes: a folder with the files that it copies, and an environment from its RUN lines."""
    folder = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    for instruction, arguments in instructions():
        if instruction == "COPY":
            *sources, target = arguments.split()
            for source in sources:
                place = folder / target
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    place = place / Path(source).name if target.endswith("/") else place
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, place)
        if instruction == "RUN":
            done = subprocess.run(
                arguments, shell=True, cwd=folder, env=environment(folder), capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    yield folder
    shutil.rmtree(folder)


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FT_", "PYTHON", "VIRTUAL"))}
    return kept | {"PATH": f"{folder}/venv/bin:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}


def entrypoint() -> list[str]:
    found: list[str] = yaml.safe_load(dict(instructions())["ENTRYPOINT"])
    return found


@pytest.mark.parametrize(
    "program", ["agents.gpu", "agents.gpu.load", "agents.observer", "agents.pods", "agents.service"]
)
def test_the_programs_of_the_image_start(image: Path, program: str) -> None:
    argv = [*entrypoint(), program, "--help"]
    done = subprocess.run(argv, cwd=image, env=environment(image), capture_output=True, text=True)
    assert (done.returncode, f"python -m {program}" in done.stdout) == (0, True), done.stderr


def test_an_agent_of_the_image_answers(image: Path, container: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    others = [each for each in container["args"] if not each.startswith(("--host", "--port", "--state", "--token"))]
    own = ["--port=0", f"--state-dir={tmp_path / 'state'}", f"--token-file={tmp_path / 'token'}"]
    argv = [*entrypoint(), *others, *own]
    with subprocess.Popen(argv, cwd=image, env=environment(image), stdout=subprocess.PIPE, text=True) as agent:
        try:
            assert agent.stdout is not None
            found = re.search(r"http://\S+", agent.stdout.readline())
            assert found is not None
            status, content = Client(found.group()).ask("GET", "/v1/capabilities", token="s3cret")
            assert (status, "gpu.MEMORY_PRESSURE" in content) == (200, True)
        finally:
            agent.terminate()
    assert agent.returncode == 0
