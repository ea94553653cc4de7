"""A load on one GPU, held by a process of its own: its memory, or its time.

Usage: ``python -m agents.gpu.load memory|compute --share S --until T --parent PID``, with the card that
``CUDA_VISIBLE_DEVICES`` names. It prints one line of JSON once it holds what was asked for (``bytes``), or why it
cannot (``missing``: no driver; ``error``). The CUDA driver gives everything back when the process is gone; it goes

- at ``T`` (seconds on CLOCK_MONOTONIC), by itself;
- ``LATE_SECONDS`` after that by the kernel's timer, whatever call into the driver it is stuck in;
- with its parent, by the kernel (PR_SET_PDEATHSIG).

Only the driver API is used, by ctypes: no toolkit, no library but the driver's own is needed.
"""

import argparse
import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

from agents.core import kernel

LIBRARY = "libcuda.so.1"
LATE_SECONDS = 1.0
CHUNK_BYTES, SMALLEST_BYTES = 1 << 30, 1 << 21  # the driver maps memory in pages of 2 MiB
# CUDA_ERROR_OUT_OF_MEMORY, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, CU_CTX_SCHED_BLOCKING_SYNC of cuda.h; the last one
# so that waiting for the GPU costs no CPU.
OUT_OF_MEMORY, SM_COUNT, BLOCKING_SYNC = 2, 16, 4
# One launch lasts a few milliseconds at any clock, so that neither a display nor a neighbour waits for long.
CYCLES, PERIOD_SECONDS = 4_000_000, 0.05
BLOCKS_PER_SM, THREADS = 8, 256
PTX = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry burn(.param .u64 cycles)
{
    .reg .pred %p;
    .reg .u64 %wanted, %began, %now, %passed;
    ld.param.u64 %wanted, [cycles];
    mov.u64 %began, %clock64;
again:
    mov.u64 %now, %clock64;
    sub.u64 %passed, %now, %began;
    setp.lt.u64 %p, %passed, %wanted;
    @%p bra again;
    ret;
}
"""


class CudaError(Exception):
    """A call that the driver refused; ``code`` is its CUresult."""

    def __init__(self, call: str, code: int, name: str) -> None:
        super().__init__(f"{call}: {name}")
        self.code = code


class Cuda:
    """A context on the first card that the driver shows to this process.

    Args:
        library: libcuda, or something with functions of the same names.

    Raises:
        CudaError: by this and by every call.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self.device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self("cuInit", 0)
        self("cuDeviceGet", ctypes.byref(self.device), 0)
        self("cuCtxCreate_v2", ctypes.byref(self._context), BLOCKING_SYNC, self.device)

    def __call__(self, call: str, *arguments: Any) -> None:
        """Call a function of the driver and check its result."""
        code = getattr(self._library, call)(*arguments)
        if code != 0:
            name = ctypes.c_char_p()
            known = self._library.cuGetErrorName(code, ctypes.byref(name)) == 0 and name.value
            raise CudaError(call, code, known.decode() if known else f"CUresult {code}")


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def hold_memory(cuda: Cuda, share: float, until: float) -> None:
    """Take ``share`` of the card's memory, as far as free, and give it back at ``until``."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    cuda("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    wanted = left = int(total.value * share)
    chunk, taken = CHUNK_BYTES, []
    while min(chunk, left) >= SMALLEST_BYTES:
        size, pointer = min(chunk, left), ctypes.c_uint64()
        try:
            cuda("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        except CudaError as error:
            if error.code != OUT_OF_MEMORY:
                raise
            chunk = size // 2
        else:
            taken.append(pointer)
            left -= size
    if not taken:
        _say(error=f"no memory is free on this GPU ({free.value} of {total.value} bytes)")
        return
    _say(bytes=wanted - left, wanted=wanted)
    time.sleep(max(0.0, until - time.monotonic()))
    for pointer in taken:
        cuda("cuMemFree_v2", pointer)


def hold_compute(cuda: Cuda, share: float, until: float) -> None:
    """Keep the card busy for ``share`` of the time, in short launches, until ``until``."""
    module, burn, processors = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
    cuda("cuModuleLoadData", ctypes.byref(module), PTX)
    cuda("cuModuleGetFunction", ctypes.byref(burn), module, b"burn")
    cuda("cuDeviceGetAttribute", ctypes.byref(processors), SM_COUNT, cuda.device)
    cycles = ctypes.c_uint64(CYCLES)
    parameters = (ctypes.c_void_p * 1)(ctypes.addressof(cycles))
    shape = (processors.value * BLOCKS_PER_SM, 1, 1, THREADS, 1, 1)
    told = False
    while (began := time.monotonic()) < until:
        while time.monotonic() < min(until, began + share * PERIOD_SECONDS):
            cuda("cuLaunchKernel", burn, *shape, 0, None, parameters, None)
            cuda("cuCtxSynchronize")
        if not told:
            _say(bytes=0)
            told = True
        time.sleep(max(0.0, min(until, began + PERIOD_SECONDS) - time.monotonic()))


def main(argv: list[str] | None = None, library: Any = None) -> None:
    """Hold the load; see the module.

    Raises:
        SystemExit: 1 when there is no driver or it refuses.
    """
    parser = argparse.ArgumentParser(prog="python -m agents.gpu.load")
    parser.add_argument("kind", choices=("memory", "compute"))
    parser.add_argument("--share", type=float, required=True, help="0 to 1")
    parser.add_argument("--until", type=float, required=True, help="seconds on CLOCK_MONOTONIC")
    parser.add_argument("--parent", type=int, required=True, help="pid; without it there is no load")
    options = parser.parse_args(argv)
    kernel.die_with_parent()
    left = options.until - time.monotonic()
    if os.getppid() != options.parent:  # it ended before this could be tied to it
        raise SystemExit(1)
    if left <= 0:
        _say(error="the lease ended before the load could start; ask for a longer one")
        raise SystemExit(1)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, left + LATE_SECONDS)
    try:
        hold = {"memory": hold_memory, "compute": hold_compute}[options.kind]
        hold(Cuda(library or ctypes.CDLL(LIBRARY)), options.share, options.until)
    except OSError as error:
        _say(missing=f"no CUDA driver: {error}")
        raise SystemExit(1) from None
    except CudaError as error:
        print(f"gpu load: {error}", file=sys.stderr)
        _say(error=str(error))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
