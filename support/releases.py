"""The Dynamo releases that the suite knows, and what differs between them (``releases.yaml``)."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

from support.data import read_yaml

TABLE = Path(__file__).with_name("releases.yaml")


@dataclass(frozen=True)
class Release:
    """One Dynamo release; the fields are the facts of ``releases.yaml``, each explained there."""

    version: str
    engines: tuple[str, ...]
    disaggregated_engines: tuple[str, ...]
    engine_type_flag: bool
    sequence_cap: bool
    max_model_len: bool
    nats_always: bool
    counts_cancellations: bool
    drain_deadline: str | None
    stream_timeout: str | None
    lease_seconds: float
    lease_setting: str | None
    refuses_when_busy: bool
    overload_status: int
    kubernetes_discovery: bool
    least_loaded: bool
    metrics: Mapping[str, str]


@functools.cache
def _table() -> Any:
    return read_yaml(TABLE)


def known() -> list[str]:
    """Versions that can be chosen, oldest first."""
    return [str(version) for version in _table()["versions"]]


def default() -> str:
    """The version that is taken when none is chosen."""
    return str(_table()["default"])


def get(version: str) -> Release:
    """The release ``version``.

    Raises:
        ValueError: the suite does not know it; the message lists those that it knows.
    """
    if version not in known():
        raise ValueError(f"unknown Dynamo release {version!r}; known: {', '.join(known())}")
    facts = {name: _row(rows, version) for name, rows in _table()["facts"].items()}
    for name in ("engines", "disaggregated_engines"):
        facts[name] = tuple(facts[name])
    return Release(version=version, **facts)


def _row(rows: list[dict[str, Any]], version: str) -> Any:
    return [row["value"] for row in rows if Version(str(row["from"])) <= Version(version)][-1]
