"""What may be asked of a GPU, simulated or real, and the report of an error, which is the same for both."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agents.core.faults import SEVERITIES, Fault, Problem, Type
from agents.xid import kmsg, xids

TYPES = (
    Type("XID_ERROR", options=("sequence",)),
    *(Type(name, options=("share",)) for name in ("THROTTLE", "MEMORY_PRESSURE", "OVERHEAT", "COMPUTE_OVERLOAD")),
)
"""Of a GPU, simulated or real: the types that both drivers make."""
USUAL_XID, USUAL_SHARE = 79, 0.5
LINE_STAYS = "a line in the kernel log stays; what a monitor did because of it (cordon, drain) has to be reversed there"


@dataclass(frozen=True)
class GpuRequest:
    """A request that makes sense.

    Attributes:
        type: name of one of :data:`TYPES`.
        index: of the GPU; None when none was named.
        share: of speed, memory or load that is taken, 0 to 1.
        xid: number of the error; ``sequence``: whether that which follows it in real logs comes too. XID_ERROR only.
    """

    type: str
    index: int | None
    severity: str | None
    share: float
    xid: int
    sequence: bool


def parse(body: dict[str, Any]) -> GpuRequest:
    """Read a request; ``parameters``: ``share`` (0 to 1), of an XID error ``sequence`` instead.

    Raises:
        Problem: 422, with what is allowed; 501 when an XID error is asked for and the kernel log cannot be written.
    """
    kind, severity, index = str(body["type"]), body.get("severity"), body.get("gpu_index")
    if severity is not None and severity not in SEVERITIES:
        raise Problem(422, "Unknown severity", f"severity {severity!r}; allowed: {', '.join(SEVERITIES)}")
    if index is not None and (isinstance(index, bool) or not isinstance(index, int)):
        raise Problem(422, "Bad index", f"gpu_index {index!r}; expected a whole number")
    given = body.get("parameters") or {}
    number = body.get("xid") or USUAL_XID
    if not isinstance(number, int) or number not in xids.CATALOGUE:
        known = ", ".join(str(each) for each in xids.CATALOGUE)
        raise Problem(422, "Unknown XID", f"xid {number!r}; allowed: {known}")
    sequence = given.get("sequence", False)
    if not isinstance(sequence, bool):
        raise Problem(422, "Bad parameter", f"sequence is {sequence!r}; expected true or false")
    share = given.get("share", SEVERITIES.get(severity or "", USUAL_SHARE))
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise Problem(422, "Bad share", f"share {share!r}; expected a number between 0 and 1")
    if kind == "XID_ERROR" and (reason := kmsg.missing()):
        raise Problem(501, "Not here", f"no line can be written to the kernel log: {reason}")
    return GpuRequest(kind, index, severity, float(share), number, sequence)


async def report(fault: Fault, write: Callable[[str], dict[str, Any]]) -> None:
    """Write the fault's lines to the kernel log with ``write``; what has arrived is its evidence.

    Raises:
        Problem: 500, a line did not arrive.
    """
    try:
        fault.evidence["kernel_log"] = [await asyncio.to_thread(write, each) for each in fault.undo["lines"]]
    except kmsg.KernelLogError as error:
        raise Problem(500, "Kernel log", str(error)) from None
