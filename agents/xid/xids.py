"""XID errors: the catalogue (``xids.yaml``) and the lines that stand for them in the kernel log."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Xid:
    """One kind of error; the attributes are explained in ``xids.yaml``."""

    number: int
    meaning: str
    action: str
    fatal: str
    workload: str
    consequence: str
    body: str
    second: str = ""
    sequence: list[int] = field(default_factory=list)


@functools.cache
def _content() -> dict[str, Any]:
    text = (Path(__file__).parent / "xids.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.load(text, Loader=yaml.CSafeLoader)
    return content


CATALOGUE: dict[int, Xid] = {number: Xid(number, **entry) for number, entry in _content()["xids"].items()}
API: list[int] = _content()["api"]
"""Those that have a path of their own in the service's API."""


def lines(xid: int, pci: str, pid: int | str, comm: str, nonce: str, sequence: bool = False) -> list[str]:
    """What is written to the kernel log for an error.

    A line that user space writes loses its leading ``ident:`` in journald; only ``kernel: NVRM: Xid (...): N, text`` is
    then still recognised by NVSentinel and by gpud, which also want no PCI function and a comma behind the number.

    Args:
        pci: ``dddd:bb:dd``.
        pid: of the process on the GPU; ``comm``: its name, in the kernel's notation (:func:`agents.xid.kmsg.escape`),
            as the line is. Where none is known the driver has ``'<unknown>'`` with quotation marks, and ``<unknown>``.
        nonce: six hex digits, unique per injection.
        sequence: also what follows such an error in real logs, errors and second lines.
    """
    found = []
    for number in [xid, *(CATALOGUE[xid].sequence if sequence else [])]:
        entry = CATALOGUE[number]
        words = {"pid": pid, "comm": comm, "nonce": nonce, "pci": pci}
        found.append(f"kernel: NVRM: Xid (PCI:{pci}): {number}, {entry.body.format(**words)}")
        if entry.second and sequence:
            found.append(f"kernel: {entry.second.format(**words)}")
    return found


def api_table() -> list[dict[str, Any]]:
    """The whole catalogue for readers."""
    shown = ("meaning", "action", "fatal", "workload", "consequence")
    return [
        {"xid": number, "injectable": number in API} | {name: getattr(entry, name) for name in shown}
        for number, entry in sorted(CATALOGUE.items())
    ]
