"""The house: who may import whom. docs/architecture.md draws the same."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.settings import ROOT

LAYERS = (
    ("environment", "steps"),
    ("support.api", "support.run"),
    ("support.rows",),
    ("support.words",),
    ("support.world",),
    ("support.scenarios",),
    ("support.faults",),
    ("support.targets", "support.report"),
    ("support.observe",),
    ("support.judge",),
    ("support.requests",),
    ("support.contract",),
    ("support.engines", "support"),
)
"""Rooms, the highest first: one imports itself and what is below it. ``support`` stands for the modules that lie in no
room: what everything rests on. Rooms of one layer do not know each other, but for environment.py, which has features
looked through by steps.lint, the API, which starts cells, the start of a run, whose forks are programs of the agents,
and targets, which are made of them."""
SIDEWAYS = {("environment", "steps"), ("support.api", "support.run"), ("support.run", "agents")}
SIDEWAYS |= {("support.targets", "agents")}
AGENTS = {
    "cell": {"core"},
    "core": set(),
    "gpu": {"core", "host", "watchdog", "xid"},
    "host": {"core", "watchdog"},
    "network": {"core"},
    "node": {"core", "gpu", "network", "xid"},
    "observer": {"core"},
    "pods": {"core", "host", "network"},
    "registry": {"core", "gpu", "node"},
    "sabotage": {"core", "node"},
    "service": {"core", "host", "registry", "xid"},
    "watchdog": {"core"},
    "xid": set(),
}
"""Room of agents/ -> the rooms that it imports. Nobody imports sabotage, which wraps the others."""
LONGEST_LINES = 500
PURE = {
    *("collections", "dataclasses", "fnmatch", "itertools", "json", "math", "pathlib", "re", "statistics", "typing"),
    *("packaging", "yaml", "support"),
}
"""What the judge may import: nothing that looks at the machine, the clock or the network."""


def _modules(*folders: str) -> dict[str, Path]:
    found = {}
    for folder in folders:
        for file in (ROOT / folder).rglob("*.py"):
            found[".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = file
    return found


MODULES = _modules("support", "agents", "steps") | {"environment": ROOT / "environment.py"}


def _imports(file: Path) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it; of our own the module that a name is from."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            for each in node.names:
                inner = f"{node.module}.{each.name}"
                yield inner if inner in MODULES else str(node.module)


def _layer(module: str) -> tuple[int, str]:
    for number, rooms in enumerate(LAYERS):
        for room in rooms:
            if module == room or module.startswith(room + "."):
                if room == "support" and module.count(".") > 1:
                    raise AssertionError(f"{module} lies in a room that LAYERS does not name")
                return number, room
    raise AssertionError(f"{module} lies in no layer")


def test_a_room_imports_only_itself_and_what_is_below_it() -> None:
    wrong = []
    for module, file in MODULES.items():
        if module.startswith("agents"):
            continue
        layer, room = _layer(module)
        for name in _imports(file):
            if name not in MODULES or name == "support":
                continue
            other_layer, other = _layer(name) if not name.startswith("agents") else (-1, "agents")
            if other != room and other_layer <= layer and (room, other) not in SIDEWAYS:
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_rooms_of_agents_import_what_they_are_made_of() -> None:
    found: dict[str, set[str]] = {}
    for module, file in MODULES.items():
        top, _, room = module.partition(".")
        if top == "agents" and room:
            own = room.partition(".")[0]
            others = {name.split(".")[1] for name in _imports(file) if name.startswith("agents.")}
            found.setdefault(own, set()).update(others - {own})
    assert found == AGENTS


def test_no_modules_import_each_other_in_a_circle() -> None:
    below = {module: [name for name in _imports(file) if name in MODULES] for module, file in MODULES.items()}
    settled: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle: {' -> '.join((*way[way.index(module) :], module))}"
        if module not in settled:
            for name in below[module]:
                visit(name, (*way, module))
            settled.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize(("folder", "stranger"), [("agents", "support"), ("support", "behave"), ("support", "steps")])
def test_what_is_below_does_not_know_what_is_above(folder: str, stranger: str) -> None:
    modules = {name: file for name, file in MODULES.items() if name.partition(".")[0] == folder}
    assert [
        name for name, file in modules.items() if stranger in {each.partition(".")[0] for each in _imports(file)}
    ] == []


def test_the_judge_looks_at_a_history_and_at_nothing_else() -> None:
    modules = {name: file for name, file in MODULES.items() if name.startswith("support.judge")}
    strangers = {each.partition(".")[0] for file in modules.values() for each in _imports(file)} - PURE
    assert strangers == set()
    readers = ("open(", ".read_text(", ".read_bytes(", ".write_text(", ".iterdir(", ".glob(", ".exists(")
    lines = [(name, line.strip()) for name, file in modules.items() for line in file.read_text().splitlines()]
    assert [(name, line) for name, line in lines if any(each in line for each in readers)] == []


def test_what_blames_dynamo_in_a_scenario_says_what_was_seen() -> None:
    """Records of known defects and the table of sabotages compare fields; a bare AssertionError has none."""
    bare = []
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())) if module.startswith("support.world.") else ():
            if isinstance(node, ast.Raise) and node.exc is not None:
                raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                bare += [f"{module} line {node.lineno}"] if ast.unparse(raised) == "AssertionError" else []
    assert bare == []


LOCAL_NAMES = {"pid", "pids", "start_time", "getpid", "getppid", "pidfd_open", "setns", "psutil"}
LOCAL_WORDS = ("/proc", "/run/netns", "/dev/kmsg", "FT_")
MACHINE_ROOMS = ("support.targets", "support.run")
OWN = {
    "support.requests.load": "names the processes of its clients",
    "support.requests.load_clients": "processes of its own, where they run",
    "support.observe.footprint": "the suite's own processes",
    "support.world.background": "names these for their footprint",
    "support.contract.target": "hands these out",
    "support.signals": "signals a process only while it is the one that is meant",
    "support.slowness": "how busy the machine keeps this process",
    "support.sabotage": "what is to be broken on purpose",
    "support.report.runs": "which run is still going on",
    "support.report.allure": "which slot of the launcher a scenario has had",
}
"""Modules outside of :data:`MACHINE_ROOMS` that know of this machine all the same, and what of it."""


def _of_this_machine(file: Path) -> set[str]:
    """Names and strings of a module that speak of this machine's processes or of a cell; docstrings may."""
    found = set()
    tree = ast.parse(file.read_text())
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        names = {getattr(node, each, None) for each in ("id", "attr", "arg", "name")}
        found |= {name for name in names if name in LOCAL_NAMES}
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            found |= {word for word in LOCAL_WORDS if word in node.value} | ({node.value} & LOCAL_NAMES)
    return found | {name for name in _imports(file) if name.startswith("support.targets.local")}


def test_only_targets_and_the_start_of_a_run_know_of_this_machine() -> None:
    strangers = {
        name: found
        for name, file in MODULES.items()
        if not name.startswith(("agents", *MACHINE_ROOMS)) and name not in OWN and (found := _of_this_machine(file))
    }
    assert strangers == {}
    assert [name for name in OWN if not _of_this_machine(MODULES[name])] == [], "these need no exception any more"


def test_one_client_makes_all_control_calls() -> None:
    """Users' requests have their own reader, the second opinion the library's client, a cluster that of its API and a
    tunnel to its pods."""
    makers = {"http.client", "urllib.request", "httpx2", "requests", "aiohttp", "urllib3"}
    found = {name: set(_imports(file)) & makers for name, file in MODULES.items() if name.startswith("support")}
    assert {name: each for name, each in found.items() if each} == {
        "support.asking": {"http.client"},
        "support.requests.user_client": {"httpx2"},
        "support.targets.kubernetes.tunnel": {"aiohttp"},
    }


WAITERS = {
    "time": {"sleep", "monotonic"},
    "threading": {"Thread", "Event", "Condition", "Timer"},
    "asyncio": {"new_event_loop", "run"},
    "concurrent.futures": {"ThreadPoolExecutor"},
}
OWN_TIME = {
    "support.clock": "the clock itself",
    "support.engines.ruler": "runs in a process of Dynamo",
    "support.requests.load_clients": "threads for a disk and a pipe, for which no scenario waits",
}
"""Modules that the machine's own time is for, and why."""


def _waits_by_itself(file: Path) -> set[str]:
    """What a module calls, or imports by its name, that waits or tells the time."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = ast.unparse(node.func)
            module, _, what = name.rpartition(".")
            found |= {name} if what in WAITERS.get(module, ()) else set()
        elif isinstance(node, ast.ImportFrom):
            found |= {each.name for each in node.names if each.name in WAITERS.get(str(node.module), ())}
    return found


def test_whoever_waits_does_so_by_the_clock() -> None:
    """Else a target in memory waits for ever, or for as long as a real one: only targets and starts of runs may."""
    modules = {name: file for name, file in MODULES.items() if name.startswith(("support", "steps"))}
    others = {name: file for name, file in modules.items() if not name.startswith(MACHINE_ROOMS)}
    found = {name: waits for name, file in others.items() if (waits := _waits_by_itself(file))}
    assert {name: waits for name, waits in found.items() if name not in OWN_TIME} == {}
    assert [name for name in OWN_TIME if name not in found] == [], "these need no exception any more"


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    lengths = {name: len(file.read_text().splitlines()) for name, file in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_LINES} == {}
