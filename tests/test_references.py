"""What texts refer to is there: modules and names in docstrings, files and modules in the docs."""

import ast
import re
from functools import cache
from pathlib import Path

from support.settings import ROOT

FOLDERS = ("support", "agents", "steps", "tests")
ROLE = re.compile(r":(?:mod|class|func|data|meth|attr):`~?((?:support|agents|steps|tests)\.[\w.]+)`")
PATH = re.compile(r"(?<![\w/.-])(?:support|agents|steps|tests|features|docs)/[\w./-]*\w")
MODULE = re.compile(r"(?<![\w/.-])(?:support|agents|tests)\.[a-z_]\w*(?:\.\w+)*")
OUTSIDE = (ROOT / "environment.py",)
SOURCES = [*OUTSIDE, *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))]
MADE = {("writing-scenarios.md", "features/two_workers_crash.feature")}
"""What a page has its reader make."""
TEXTS = [ROOT / "README.md", ROOT / "Makefile", ROOT / ".ci" / "run", *(ROOT / "docs").glob("*.md")]


@cache
def _names(file: Path) -> dict[str, set[str]]:
    """Names that a module has at its top, the members of each that is a class among them."""
    found: dict[str, set[str]] = {}
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = set().union(*(_assigned(each) for each in ast.walk(node)))
        else:
            found |= {name: set() for name in _assigned(node)}
    return found


def _assigned(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.ImportFrom | ast.Import):
        return {each.asname or each.name for each in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {
        each.id if isinstance(each, ast.Name) else each.attr
        for target in targets
        for each in (target.elts if isinstance(target, ast.Tuple) else [target])
        if isinstance(each, ast.Name | ast.Attribute)
    }


def _exists(dotted: str) -> bool:
    """Whether a dotted name leads to a module, to something in it, or to a member of a class in it."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        place, rest = ROOT.joinpath(*parts[:length]), parts[length:]
        file = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
        if not rest and (file.is_file() or place.is_dir()):
            return True
        if not file.is_file():
            continue
        names = _names(file)
        return rest[0] in names and (len(rest) == 1 or rest[1] in names[rest[0]])
    return False


def test_names_in_docstrings_are_there() -> None:
    dead = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in SOURCES
        for name in ROLE.findall(file.read_text())
        if not _exists(name)
    }
    assert dead == set()


def test_files_and_modules_in_the_docs_are_there() -> None:
    texts = {file: file.read_text() for file in TEXTS}
    paths = {(file.name, path) for file, text in texts.items() for path in PATH.findall(text)} - MADE
    assert {each for each in paths if not any((ROOT / each[1]).parent.glob(Path(each[1]).name + "*"))} == set()
    modules = {(file.name, name) for file, text in texts.items() for name in MODULE.findall(text)}
    assert {each for each in modules if not _exists(each[1].removesuffix(".py"))} == set()


def test_a_reference_that_leads_nowhere_is_seen() -> None:
    assert _exists("support.contract.shape.Shape.describe")
    assert not _exists("support.contract.shape.Shape.described")
    assert not _exists("support.contract.shap")
    assert not _exists("support.contract.shape.NOBODY")
