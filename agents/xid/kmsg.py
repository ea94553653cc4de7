"""The kernel log: lines that are written to it and seen to have arrived.

Lines are in the kernel's notation here, as every reader of ``/dev/kmsg`` sees them: a backslash and each byte that is
no printable ASCII is ``\\xNN`` (kernel/printk/printk.c, ``msg_print_ext_body``).
"""

import errno
import os
import re
import time
from pathlib import Path
from typing import Any

DEVICE = "/dev/kmsg"
SWITCH = Path("/proc/sys/kernel/printk_devkmsg")
READ_BACK_SECONDS = 0.4


class KernelLogError(Exception):
    """A line could not be written, or did not arrive."""


def missing() -> str:
    """Why lines cannot be written here; empty when they can."""
    if SWITCH.exists() and SWITCH.read_text().strip() == "off":
        return "/dev/kmsg drops what user space writes (printk.devkmsg=off)"
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{DEVICE}: {error.strerror}"
    return ""


def escape(data: bytes) -> str:
    """What the kernel makes of bytes in a line."""
    return "".join(chr(byte) if 32 <= byte < 127 and byte != 0x5C else f"\\x{byte:02x}" for byte in data)


def unescape(line: str) -> bytes:
    """The bytes that a line in the kernel's notation stands for."""
    raw = line.encode("utf-8", "surrogateescape")
    return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), raw)


def reserve_pci(token: str, index: int) -> str:
    """A PCI address ``dddd:bb:dd`` that no card of this machine has, another one for every token and index.

    The kernel log is shared by the whole machine. Domains from 0xa000 on are beyond what firmware assigns; what is in
    ``/sys/bus/pci/devices`` is left out all the same.
    """
    number = int(token[:6], 16) + index
    while True:
        address = f"{0xA000 + (number >> 13 & 0xFFF):04x}:{number >> 5 & 0xFF:02x}:{number & 0x1F:02x}"
        if not list(Path("/sys/bus/pci/devices").glob(f"{address}.*")):
            return address
        number += 1


def write(line: str) -> dict[str, Any]:
    """Write one line, in the kernel's notation, and see it in the log.

    The kernel limits the rate of writers per open file and says nothing when it drops a line: so each line has a file
    of its own and is read back.

    Returns:
        ``sequence``, ``timestamp_us`` (CLOCK_MONOTONIC as printk has it) and ``text`` as the log has them.

    Raises:
        KernelLogError: no permission, too long, or it did not arrive.
    """
    try:
        reader = os.open(DEVICE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise KernelLogError(f"{DEVICE}: {error.strerror}") from None
    try:
        os.lseek(reader, 0, os.SEEK_END)
        try:
            writer = os.open(DEVICE, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(writer, unescape(line) + b"\n")
            finally:
                os.close(writer)
        except OSError as error:
            why = "the line is too long" if error.errno == errno.EINVAL else error.strerror
            raise KernelLogError(f"{DEVICE}: {why}") from None
        deadline = time.monotonic() + READ_BACK_SECONDS
        while time.monotonic() < deadline:
            for entry in _read(reader):
                if entry["text"] == line:
                    return entry
            time.sleep(0.005)
        raise KernelLogError("the line did not arrive in the kernel log (rate limit, or printk.devkmsg=off)")
    finally:
        os.close(reader)


def _read(reader: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        try:
            record = os.read(reader, 8192).decode("ascii", "replace")
        except BlockingIOError:
            return found
        except BrokenPipeError:  # overwritten before it was read; the next one is whole again
            continue
        head, _, text = record.partition(";")
        _, sequence, stamp, *_ = head.split(",")
        found.append({"sequence": int(sequence), "timestamp_us": int(stamp), "text": text.split("\n")[0]})
