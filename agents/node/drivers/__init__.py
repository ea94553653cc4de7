"""What breaks in a cell. All modules of this package are looked through: a new driver is one class, no entry here."""

import importlib
import pkgutil
from typing import Any

from agents.core.faults import KINDS
from agents.node.access import NodeDriver

for _each in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_each.name}")


def _below(driver: type[Any]) -> list[type[NodeDriver]]:
    return [found for each in driver.__subclasses__() for found in (each, *_below(each))]


DRIVERS = sorted(_below(NodeDriver), key=lambda driver: KINDS.index(driver.kind))
"""Every kind of driver that there is."""
