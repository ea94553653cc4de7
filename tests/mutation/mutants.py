"""``python mutants.py FILE ...``: all mutants of Python files, as JSON lines; run in the environment of cosmic-ray.

It makes those that change what the program does: comparisons, arithmetic, conditions, loops, numbers, truth values,
whom an ``except`` catches, and, which cosmic-ray has none for, statements that are left out. Annotations and the texts
of messages (all that is in an f-string) stay as they are.
"""

import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

OPERATORS = (
    *("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is"),
    *("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt"),
    *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul", "BitAnd_BitOr", "BitOr_BitAnd"),
    *("Delete_USub", "Delete_Not", "AddNot", "TrueWithFalse", "FalseWithTrue", "AndWithOr", "OrWithAnd"),
    *("BreakWithContinue", "ContinueWithBreak", "ExceptionReplacer", "NumberReplacer", "ZeroIterationForLoop"),
)
"""How the names of cosmic-ray's operators end that are used; of those that put one for another, the nearest."""


@dataclass(frozen=True)
class Mutant:
    """One change to one file.

    Attributes:
        path: of the file, as it was given.
        where: qualified name of the innermost function or class that it is in; empty: of none.
        function: line where that function's code begins, decorators included; 0: it runs when the module is imported.
        operator: what was done.
        line: where; ``was`` and ``now``: the lines that differ, without what is around them.
        first, last: lines of the file for which ``text`` is put, counted from 0, ``last`` not included.
    """

    path: str
    where: str
    function: int
    operator: str
    line: int
    was: str
    now: str
    first: int
    last: int
    text: str

    def source(self, original: str) -> str:
        """The whole file with the change."""
        lines = original.splitlines(keepends=True)
        return "".join([*lines[: self.first], self.text, *lines[self.last :]])


def mutants(path: str) -> Iterator[Mutant]:
    """All mutants of a file."""
    original = Path(path).read_text(encoding="utf-8")
    tree = ast.parse(original)
    seen = set()
    for operator, place, mutated in [*_of_cosmic_ray(original), *_without_statements(original, tree)]:
        if mutated in seen or _spared(tree, place) or not _is_python(mutated):
            continue
        seen.add(mutated)
        first, last, text = _difference(original, mutated)
        was = "".join(original.splitlines(keepends=True)[first:last])
        where, function = _around(tree, place[0])
        yield Mutant(path, where, function, operator, place[0], _flat(was), _flat(text), first, last, text)


def _is_python(text: str) -> bool:
    """Not all is that: cosmic-ray writes ``if not found := look()``."""
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _flat(text: str) -> str:
    return " ".join(text.split())


def _of_cosmic_ray(original: str) -> Iterator[tuple[str, tuple[int, int], str]]:
    """Name of the operator, line and column (from 0) of what it changes, and the changed file."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    nodes = list(ast_nodes(get_ast(original)))
    for name in plugins.operator_names():
        if name.endswith(OPERATORS):
            operator = plugins.get_operator(name)()
            places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
            for number, place in enumerate(places):
                mutated = mutate_code(original, operator, number)
                if mutated is not None:
                    yield name.removeprefix("core/"), place, mutated


def _without_statements(original: str, tree: ast.Module) -> Iterator[tuple[str, tuple[int, int], str]]:
    """The file without one of its calls and yields whose value nobody uses, for each of them."""
    lines = original.splitlines(keepends=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant) and node.end_lineno is not None:
            yields = isinstance(node.value, ast.Yield | ast.YieldFrom)
            blank = " " * node.col_offset + ("yield from ()" if yields else "pass") + "\n"
            mutated = "".join([*lines[: node.lineno - 1], blank, *lines[node.end_lineno :]])
            yield "LeaveOut", (node.lineno, node.col_offset), mutated


def _spared(tree: ast.Module, place: tuple[int, int]) -> bool:
    """Whether it lies in an annotation or in an f-string."""
    for node in ast.walk(tree):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        parts += [node] if isinstance(node, ast.JoinedStr) else []
        if any(part is not None and _holds(part, place) for part in parts):
            return True
    return False


def _holds(node: ast.AST, place: tuple[int, int]) -> bool:
    return (node.lineno, node.col_offset) <= place < (node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]


def _around(tree: ast.Module, line: int) -> tuple[str, int]:
    """Name of what is around a line, and where the code of the innermost function begins whose body it is in."""
    names, function, level = [], 0, [tree.body]
    while level:
        body = level.pop()
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                begin = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                if begin <= line <= (node.end_lineno or 0):
                    names.append(node.name)
                    if not isinstance(node, ast.ClassDef) and line >= node.body[0].lineno:
                        function = begin
                    level.append(node.body)
            elif node.lineno <= line <= (node.end_lineno or 0):
                level += [inner for name in ("body", "orelse", "finalbody") if (inner := getattr(node, name, None))]
    return ".".join(names), function


def _difference(before: str, after: str) -> tuple[int, int, str]:
    """The lines of ``before`` that differ, first and last, and what is in their place."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    first = 0
    while first < min(len(old), len(new)) and old[first] == new[first]:
        first += 1
    same = 0
    while same < min(len(old), len(new)) - first and old[-1 - same] == new[-1 - same]:
        same += 1
    return first, len(old) - same, "".join(new[first : len(new) - same])


if __name__ == "__main__":
    for file in sys.argv[1:]:
        for mutant in mutants(file):
            print(json.dumps(asdict(mutant)))
