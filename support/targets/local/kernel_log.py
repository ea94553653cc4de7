"""The kernel log as every reader of the machine has it."""

import os
import re
from typing import Any

DEVICE = "/dev/kmsg"


class LocalKernelLog:
    """Lines from now on."""

    def __init__(self) -> None:
        self._file = os.open(DEVICE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._file, 0, os.SEEK_END)
        self._lines: list[str] = []

    def close(self) -> None:
        """Read no more."""
        os.close(self._file)

    def xids(self, pci: str) -> list[int]:
        """Numbers of the XID errors of the GPU at ``pci`` (``dddd:bb:dd``) so far."""
        while True:
            try:
                self._lines.append(os.read(self._file, 8192).decode("utf-8", "replace").partition(";")[2])
            except BlockingIOError:
                break
            except BrokenPipeError:  # overwritten before it was read
                continue
        pattern = re.compile(rf"NVRM: Xid \(PCI:{re.escape(pci)}\): (\d+), ")
        found: list[Any] = [pattern.search(line) for line in self._lines]
        return [int(match[1]) for match in found if match]
