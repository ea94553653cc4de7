"""The rooms of agents/: none leads back to itself, and only sabotage knows of sabotage."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from support.settings import ROOT


def rooms_imported(file: Path) -> set[str]:
    """Rooms, or lone modules, of agents/ that a module imports from."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{each.name}".split(".")[1] for each in node.names if "agents" in node.module)
    return found


def test_rooms_need_each_other_in_one_direction() -> None:
    rooms: dict[str, set[str]] = {}
    for file in (ROOT / "agents").rglob("*.py"):
        room = file.relative_to(ROOT / "agents").with_suffix("").parts[0]
        rooms.setdefault(room, set()).update(rooms_imported(file) - {room})
    TopologicalSorter(rooms).prepare()
    assert rooms["core"] == set()
    assert {room for room, others in rooms.items() if "sabotage" in others} == set()
    assert {room: others for room, others in rooms.items() if others} == {
        "cell": {"core"},
        "gpu": {"core", "watchdog", "xid"},
        "node": {"core", "gpu", "xid"},
        "sabotage": {"core", "node"},
        "service": {"core", "xid"},
        "watchdog": {"core"},
    }
