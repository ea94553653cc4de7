"""Mutants are what they are said to be, and whoever does not notice one is told of it."""

import ast
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from tests.mutation import ROOMS, ROOT
from tests.mutation.mutants import Mutant, _around, _difference, _is_python, _spared, _without_statements
from tests.mutation.survivors import Survivor, read_survivors, unknown, unneeded
from tests.mutation.trials import KILLED, SURVIVED, at_import, fresh, in_fork, put, side_by_side

SOURCE = """
import contextlib

BOUND = 3


def plain(value, least=1):
    return value > BOUND


class Thing:
    size: int = 2

    @property
    def double(self):
        return [each * 2 for each in [self.size]][0]

    @contextlib.contextmanager
    def held(self):
        yield self.size
"""


def loaded(name: str = "thing") -> ModuleType:
    module = ModuleType(name)
    module.__file__ = f"{name}.py"
    exec(compile(SOURCE, module.__file__, "exec"), vars(module))
    return module


@pytest.mark.parametrize(
    ("was", "now", "imported"),
    [
        ("value > BOUND", "value >= BOUND", False),
        ("each * 2", "each / 2", False),
        ("BOUND = 3", "BOUND = 4", True),
        ("size: int = 2", "size: int = 3", True),
        ("least=1", "least=2", True),
    ],
)
def test_what_runs_at_import_is_told_from_what_does_not(was: str, now: str, imported: bool) -> None:
    assert at_import(SOURCE, SOURCE.replace(was, now)) is imported


def test_functions_properties_and_what_is_wrapped_get_the_code_of_the_mutant() -> None:
    module = loaded()
    kept = module.plain
    put(module, SOURCE, SOURCE.replace("value > BOUND", "value >= BOUND"))
    assert kept(3)
    put(module, SOURCE, SOURCE.replace("each * 2", "each * 5"))
    assert module.Thing().double == 10
    put(module, SOURCE, SOURCE.replace("yield self.size", "yield -self.size"))
    with module.Thing().held() as size:
        assert size == -2


def test_a_mutant_that_cannot_be_put_is_no_survivor() -> None:
    with pytest.raises(ValueError, match="at import"):
        put(loaded(), SOURCE, SOURCE.replace("BOUND = 3", "BOUND = 4"))
    with pytest.raises(ValueError, match="nothing differs"):
        put(loaded(), SOURCE, SOURCE)
    module = loaded()
    del module.plain
    with pytest.raises(ValueError, match="plain is nowhere"):
        put(module, SOURCE, SOURCE.replace("value > BOUND", "value >= BOUND"))


def mutant(was: str = "a", where: str = "f") -> Mutant:
    return Mutant("support/x.py", where, 1, "AddNot", 1, was, "not a", 0, 1, "not a\n")


def test_how_a_fork_ends_is_told_of_its_mutant() -> None:
    def loop() -> int:
        while True:
            pass

    one, two, three = mutant("one"), mutant("two"), mutant("three")
    trials = [(one, lambda: KILLED, 0.0), (two, lambda: SURVIVED, 0.0), (three, loop, -9.5)]
    ended = {each.was: status for each, status in side_by_side(trials, 2)}
    assert (ended["one"], ended["two"]) == (1, 0)
    assert ended["three"] < 0


def test_tests_of_a_module_that_is_imported_changed_notice_it() -> None:
    path = "support/judge/chance.py"
    source = (ROOT / path).read_text()
    names = ("no_hit_at_all_lies_outside[1]", "what_is_certain_has_no_room")
    tests = [f"tests/test_chance.py::test_{name}" for name in names]
    for name in ("support.judge.chance", "tests.test_chance"):  # of other tests in this process
        sys.modules.pop(name, None)

    def ended(text: str) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(in_fork(lambda: fresh(path, text, tests), 60), 0)[1])

    assert ended(source) == SURVIVED
    assert ended(source.replace("RISK = 1e-6", "RISK = -1.0")) == KILLED
    assert ended(source.replace("import math", "import maths")) == KILLED
    tests[:] = ["tests/test_chance.py::test_no_such"]
    assert ended(source) not in (KILLED, SURVIVED)


def test_a_mutant_is_the_file_with_its_lines_in_the_place_of_others() -> None:
    before, after = "a\nb\nc\nd\n", "a\nx\ny\nz\nd\n"
    first, last, text = _difference(before, after)
    assert (first, last, text) == (1, 3, "x\ny\nz\n")
    assert Mutant("p", "", 0, "o", 1, "", "", first, last, text).source(before) == after
    assert _difference("a\na\n", "a\n") == (1, 2, "")


def test_annotations_and_texts_are_spared() -> None:
    tree = ast.parse("def f(a: int | None) -> str | None:\n    return f'{a + 1} of {a}' if a > 2 else None\n")
    assert _spared(tree, (1, 13))
    assert _spared(tree, (1, 28))
    assert _spared(tree, (2, 16))
    assert not _spared(tree, (2, 37))


def test_calls_and_yields_are_left_out() -> None:
    source = 'def f():\n    "What it does."\n    print(\n        1)\n    yield 2\n'
    left = [text for _, _, text in _without_statements(source, ast.parse(source))]
    assert left == [
        'def f():\n    "What it does."\n    pass\n    yield 2\n',
        'def f():\n    "What it does."\n    print(\n        1)\n    yield from ()\n',
    ]


def test_a_mutant_is_in_the_innermost_function_whose_body_it_is_in() -> None:
    tree = ast.parse(
        "class A:\n    @property\n    def b(self, c=1):\n        def d():\n            return 1\n        return d\n"
    )
    assert _around(tree, 5) == ("A.b.d", 4)
    assert _around(tree, 6) == ("A.b", 2)
    assert _around(tree, 3) == ("A.b", 0)


def test_only_what_is_named_may_survive_and_only_as_long_as_it_does() -> None:
    known = Survivor("support/x.py", "f", "a", "not a", "equivalent")
    other = Survivor("support/x.py", "g", "a", "not a", "equivalent")
    assert unknown([mutant(), mutant("b")], [known]) == [mutant("b")]
    assert unneeded([mutant()], [known, other]) == [other]


def test_every_record_of_a_survivor_is_of_a_module_that_is_tried_and_says_why() -> None:
    tried = {path for modules, _ in ROOMS.values() for path in modules}
    records: Sequence[Survivor] = read_survivors()
    assert {each.path for each in records} <= tried
    assert [each.now for each in records if len(each.why) < len("equivalent")] == []
    assert [path for path in tried if not Path(ROOT, path).is_file()] == []


def test_what_is_no_python_is_no_mutant() -> None:
    assert _is_python("if not (found := look()):\n    pass\n")
    assert not _is_python("if not found := look():\n    pass\n")
