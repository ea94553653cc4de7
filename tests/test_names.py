"""A name means one thing: no class of the suite or of its agents has the name of another one."""

import ast
from collections import defaultdict

from tests.test_layers import MODULES

TWICE = {
    "Capability": "what a target answers for a need, and what the fault service answers for a type of fault",
    "Fault": "what is to break, and what an agent has broken",
}
"""Names that two programs may have in common, which do not import each other, and what each means by it."""


def test_no_two_classes_have_one_name() -> None:
    found = defaultdict(list)
    for module, file in MODULES.items():
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(module)
    twice = {name: modules for name, modules in found.items() if len(modules) > 1}
    assert {name: modules for name, modules in twice.items() if name not in TWICE} == {}
    assert set(twice) == set(TWICE), "these need no exception any more"
    assert all(sorted(module.partition(".")[0] for module in twice[name]) == ["agents", "support"] for name in TWICE)
