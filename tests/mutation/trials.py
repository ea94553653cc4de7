"""Runs tests against mutants, each in a fork of a process that has loaded everything already.

A function is given the code of its mutant, wherever it is known by then. What runs when a module is imported, constants
and defaults, cannot be changed afterwards: such a mutant has a fork of a process that has loaded nothing of ours yet.
"""

import contextlib
import gc
import importlib.abc
import importlib.util
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import pytest

from agents.core.kernel import die_with_parent
from tests.mutation import DESELECTED, ROOT
from tests.mutation.mutants import Mutant

KILLED, SURVIVED, BROKEN = 1, 0, 3
"""How a fork ends; by a signal: it ran into a limit, which counts as killed."""
CPU_SECONDS, WALL_SECONDS = 20, 300
"""What a fork may take beyond twice what its tests took without a mutant: a loop that never ends has to."""


Measured = dict[str, tuple[float, dict[str, list[int]]]]
"""Of each test without a mutant: its CPU seconds, and by file where the functions begin that it came through."""


class Loop:
    """A plugin of pytest in the place of its own loop over the tests.

    Attributes:
        loaded: whether all modules with tests could be imported.
    """

    def __init__(self, work: Callable[[Sequence[pytest.Item]], None]) -> None:
        self._work = work
        self.loaded = True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Called for each module and class."""
        self.loaded = self.loaded and not report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Called once all tests are collected."""
        if session.testsfailed:
            raise session.Interrupted("tests could not be collected")
        self._work(session.items)
        return True


def with_tests(tests: Iterable[str], loop: Loop) -> int:
    """Have pytest collect tests and hand them over; returns its exit status."""
    options = ["-q", "-s", "-n0", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "not gpu"]
    options += (f"--deselect={test}" for test in DESELECTED)
    return int(pytest.main([*options, "--rootdir", str(ROOT), *tests], plugins=[loop]))


def passes(item: pytest.Item) -> bool:
    """Run one test, with all its fixtures."""
    from _pytest.runner import runtestprotocol

    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def in_fork(work: Callable[[], int], cpu_seconds: float) -> int:
    """Start a fork that ends with what ``work`` returns, and says nothing; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = BROKEN
    try:
        die_with_parent()
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        limit = int(2 * cpu_seconds + CPU_SECONDS)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(limit + WALL_SECONDS)
        status = work()
    finally:
        os._exit(status)


class Reached:
    """A trace function that keeps where the functions of some files begin that are called.

    Args:
        paths: of the files, below the root of the checkout.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._files = {str(ROOT / path): path for path in paths}
        self._lines = {path: set[int]() for path in self._files.values()}

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """As sys.settrace wants it; called once for each call of a function."""
        path = self._files.get(frame.f_code.co_filename)
        if path:
            self._lines[path].add(frame.f_code.co_firstlineno)

    def told(self) -> dict[str, list[int]]:
        """The lines by file."""
        return {path: sorted(lines) for path, lines in self._lines.items()}

    def add(self, told: Mapping[str, Iterable[int]]) -> None:
        """Those that another one has told, of a fork."""
        for path, lines in told.items():
            self._lines[path].update(lines)


def measure(items: Sequence[pytest.Item], paths: Sequence[str]) -> Measured | dict[str, None]:
    """What each test reaches of some files, or those that do not pass. To be called in a fork."""
    found: Measured = {}
    failed: dict[str, None] = {}
    for item in items:
        reached, began = Reached(paths), _cpu_seconds()
        threading.settrace(reached)
        sys.settrace(reached)
        try:
            good = passes(item)
        finally:
            sys.settrace(None)
            threading.settrace(None)
        found[item.nodeid] = _cpu_seconds() - began, reached.told()
        if not good:
            failed[item.nodeid] = None
    return failed or found


def _cpu_seconds() -> float:
    """Of this process and of its forks that are over."""
    return sum(os.times()[:4])


# -- the code of a mutant


def at_import(original: str, mutated: str) -> bool:
    """Whether the two differ in what runs when the module is imported."""
    return _changed(*(compile(text, "m", "exec") for text in (original, mutated))) is None


def _changed(old: CodeType, new: CodeType) -> list[tuple[CodeType, CodeType]] | None:
    """Code of functions that differs, before and after; None where that of the module or of a class does."""
    if _own(old) != _own(new):
        return None
    found = []
    inner = [[each for each in code.co_consts if isinstance(each, CodeType)] for code in (old, new)]
    for before, after in zip(*inner, strict=True):
        deeper = _changed(before, after)
        if before.co_flags & 0x2:  # CO_NEWLOCALS: a function
            if deeper is None or deeper:
                found.append((before, after))
        elif deeper is None:
            return None
        else:
            found += deeper
    return found


def _own(code: CodeType) -> tuple[Any, ...]:
    """What code is made of, but for other code in it."""
    consts = [(type(each), each) if not isinstance(each, CodeType) else each.co_name for each in code.co_consts]
    return code.co_code, consts, code.co_names, code.co_varnames, code.co_freevars


def put(module: ModuleType, original: str, mutated: str) -> None:
    """Give the functions of a module the code that they have in the mutant.

    Raises:
        ValueError: it is not one of functions, or one of them is not to be found.
    """
    changed = _changed(*(compile(text, str(module.__file__), "exec") for text in (original, mutated)))
    if not changed:
        raise ValueError("nothing differs, or what runs at import does")
    known: dict[tuple[str, int], list[FunctionType]] = {}
    for each in gc.get_objects():
        if type(each) is FunctionType and each.__globals__ is vars(module):
            known.setdefault((each.__code__.co_qualname, each.__code__.co_firstlineno), []).append(each)
    for before, after in changed:
        functions = known.get((before.co_qualname, before.co_firstlineno))
        if not functions:
            raise ValueError(f"{before.co_qualname} is nowhere")
        for function in functions:
            function.__code__ = after


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Has a module imported with the source of its mutant."""

    def __init__(self, path: str, source: str) -> None:
        self._path, self._source = ROOT / path, source
        self._name = ".".join(Path(path).with_suffix("").parts)

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """As the import system asks."""
        return importlib.util.spec_from_file_location(name, self._path, loader=self) if name == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        """As the import system asks."""
        exec(compile(self._source, str(self._path), "exec"), vars(module))


# -- the runs


def first_failure(items: Sequence[pytest.Item]) -> int:
    """How a fork ends that runs these tests against its mutant."""
    return KILLED if any(not passes(item) for item in items) else SURVIVED


def fresh(path: str, source: str, tests: Sequence[str]) -> int:
    """Run tests by their ids with a module imported as ``source`` has it; to be called in a fork."""
    ended = [BROKEN]

    def work(items: Sequence[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in order]
        ended[0] = first_failure(sorted(chosen, key=lambda item: order[item.nodeid])) if chosen else BROKEN

    order = {test: number for number, test in enumerate(tests)}
    sys.meta_path.insert(0, Mutated(path, source))
    loop = Loop(work)
    with_tests(dict.fromkeys(test.partition("[")[0] for test in tests), loop)
    return ended[0] if loop.loaded else KILLED


Trial = tuple[Mutant, Callable[[], int], float]
"""A mutant, what its fork does, and the CPU seconds of its tests without a mutant."""


def side_by_side(trials: Iterable[Trial], jobs: int) -> Iterator[tuple[Mutant, int]]:
    """Run each in a fork, ``jobs`` at a time; yields how they ended (negative: by that signal)."""
    running: dict[int, Mutant] = {}
    for mutant, work, seconds in trials:
        running[in_fork(work, seconds)] = mutant
        if len(running) >= jobs:
            yield _ended(running)
    while running:
        yield _ended(running)


def _ended(running: dict[int, Mutant]) -> tuple[Mutant, int]:
    pid, status = os.wait()
    return running.pop(pid), os.waitstatus_to_exitcode(status)


@contextlib.contextmanager
def told_by_fork(work: Callable[[Callable[[Any], None]], None]) -> Iterator[Iterator[Any]]:
    """What a fork tells, as it comes; everything that JSON can hold."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        status = BROKEN
        try:
            die_with_parent()
            os.close(read)
            with os.fdopen(write, "w", buffering=1) as stream:
                work(lambda content: print(json.dumps(content), file=stream))
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as stream:
        yield map(json.loads, stream)
    if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise RuntimeError(f"the tests could not be run; their process ended with {status}")
