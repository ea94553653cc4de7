"""All types of faults that some driver makes, as the fault service offers them. Drivers name them, nobody else does."""

import functools

from agents.core.faults import Type
from agents.gpu.real_gpu import RealGpuDriver
from agents.node.access import NodeDriver
from agents.node.drivers import DRIVERS


@functools.cache
def types(kind: str) -> dict[str, Type]:
    """Name -> type, of one kind of fault."""
    drivers: list[type[NodeDriver] | type[RealGpuDriver]] = [*DRIVERS, RealGpuDriver]
    return {each.name: each for driver in drivers if driver.kind == kind for each in driver.types}


def options(kind: str) -> str:
    """In words, which ``parameters`` there are and which types take them."""
    found: dict[str, list[str]] = {}
    for each in types(kind).values():
        for option in each.options:
            found.setdefault(option, []).append(each.name)
    return ", ".join(f"{option} ({', '.join(names)})" for option, names in found.items()) or "none"
