"""GPUs for a machine without any: NVML and the CUDA driver as far as the GPU agent calls them.

The processes around them are real. What a load takes is a file with its pid in the folder ``FAKE_GPU``, and it counts
as taken for as long as the kernel knows that process: as with a driver, nobody else gives it back. Settings are a file
as well, for they outlive every process.

Usage: ``python -m tests.fake_gpu agent|load OPTIONS``. Environment: ``FAKE_GPU`` (folder), ``FAKE_GPU_COUNT``,
``FAKE_GPU_QUIRK``: ``no-pids`` (NVML names no process), ``no-memory`` (what a load takes is not seen either),
``stuck`` (a call into the CUDA driver does not come back), ``not-root`` (settings may not be touched), ``lock-stays``
(a lock of clocks is not reset, and NVML says that it is);
``FAKE_ACCOUNT``: folder of a service account.
"""

import ctypes
import fcntl
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml

from agents.core import kernel
from agents.gpu import __main__ as command
from agents.gpu import load
from agents.host import pods
from agents.xid import kmsg

TOTAL_BYTES, OTHERS_BYTES = 80 << 30, 10 << 30
POWER_MW, LOWEST_MW, CLOCK_MHZ = 700_000, 200_000, 1980


def quirk() -> str:
    return os.environ.get("FAKE_GPU_QUIRK", "")


class World:
    """What the driver of the machine would know."""

    def __init__(self) -> None:
        self.folder = Path(os.environ["FAKE_GPU"])

    def taken(self, index: int) -> dict[int, int]:
        found = {}
        for file in self.folder.glob(f"{index}-*"):
            pid = int(file.name.partition("-")[2])
            now = kernel.stat_of(pid)
            if now is not None and now[0] not in "ZX":
                found[pid] = int(file.read_text())
        return found

    def settings(self) -> dict[str, dict[str, Any]]:
        file = self.folder / "settings"
        found: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
        return found

    def set(self, index: int, **what: Any) -> None:
        if quirk() == "not-root":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        # As a driver's: whole or not at all, whoever is killed meanwhile, and one change at a time.
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            settings = self.settings()
            settings[str(index)] = settings.get(str(index), {}) | what
            (self.folder / "draft").write_text(json.dumps(settings))
            (self.folder / "draft").replace(self.folder / "settings")


class FakeNvml:
    """The functions of ``pynvml`` that are called; a handle is the index."""

    NVMLError = pynvml.NVMLError
    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = pynvml.NVML_CLOCK_SM, pynvml.NVML_TEMPERATURE_GPU

    def __init__(self) -> None:
        self.world = World()
        self.pci = [kmsg.reserve_pci("f00d00", index) for index in range(8)]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("NVMLError_"):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return int(os.environ.get("FAKE_GPU_COUNT", "1"))

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, index: int) -> str:
        return f"GPU-fake-{index}"

    def nvmlDeviceGetPciInfo(self, index: int) -> Any:
        domain, bus, device = (int(each, 16) for each in self.pci[index].split(":"))
        return SimpleNamespace(domain=domain, bus=bus, device=device)

    def nvmlDeviceGetMemoryInfo(self, index: int) -> Any:
        taken = 0 if quirk() == "no-memory" else sum(self.world.taken(index).values())
        return SimpleNamespace(total=TOTAL_BYTES, used=OTHERS_BYTES + taken)

    def nvmlDeviceGetUtilizationRates(self, index: int) -> Any:
        return SimpleNamespace(gpu=100 * bool(self.world.taken(index)))

    def nvmlDeviceGetCurrentClocksEventReasons(self, index: int) -> int:
        return 4 if self.nvmlDeviceGetPowerManagementLimit(index) < POWER_MW else 0

    def nvmlDeviceGetMaxClockInfo(self, _: int, kind: int) -> int:
        assert kind == pynvml.NVML_CLOCK_SM
        return CLOCK_MHZ

    def nvmlDeviceGetClockInfo(self, index: int, kind: int) -> int:
        assert kind == pynvml.NVML_CLOCK_SM
        return int(self.world.settings().get(str(index), {}).get("clock") or CLOCK_MHZ)

    def nvmlDeviceGetTemperature(self, _: int, __: int) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetComputeRunningProcesses(self, index: int) -> list[Any]:
        shown = {} if quirk() in ("no-pids", "no-memory") else self.world.taken(index)
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in shown.items()]

    def nvmlDeviceGetPowerManagementLimit(self, index: int) -> int:
        return int(self.world.settings().get(str(index), {}).get("power", POWER_MW))

    def nvmlDeviceGetPowerManagementLimitConstraints(self, _: int) -> list[int]:
        return [LOWEST_MW, POWER_MW]

    def nvmlDeviceSetPowerManagementLimit(self, index: int, limit: int) -> None:
        self.world.set(index, power=limit)

    def nvmlDeviceSetGpuLockedClocks(self, index: int, lowest: int, highest: int) -> None:
        assert lowest <= highest
        self.world.set(index, clock=highest)

    def nvmlDeviceResetGpuLockedClocks(self, index: int) -> None:
        if quirk() != "lock-stays":
            self.world.set(index, clock=None)


class FakeCuda:
    """The functions of libcuda that are called, on the card that ``CUDA_VISIBLE_DEVICES`` names."""

    def __init__(self) -> None:
        self.world = World()
        self.index = int(os.environ["CUDA_VISIBLE_DEVICES"].rpartition("-")[2])
        self.mine: dict[int, int] = {}

    def _hold(self) -> None:
        file = self.world.folder / f"{self.index}-{os.getpid()}"
        fresh = file.with_name(f"new-{file.name}")
        fresh.write_text(str(sum(self.mine.values())))
        fresh.rename(file)

    def _free(self) -> int:
        return TOTAL_BYTES - OTHERS_BYTES - sum(self.world.taken(self.index).values())

    def cuInit(self, flags: int) -> int:
        return 0 if flags == 0 else 1

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        device._obj.value = ordinal
        return 0 if ordinal == 0 else 101

    def cuCtxCreate_v2(self, context: Any, _: int, __: Any) -> int:
        context._obj.value = 1
        self._hold()
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:
        free._obj.value, total._obj.value = self._free(), TOTAL_BYTES
        return 0

    def cuMemAlloc_v2(self, pointer: Any, size: Any) -> int:
        if quirk() == "stuck":
            ctypes.CDLL(None).pause()
        if size.value > self._free():
            return 2
        pointer._obj.value = len(self.mine) + 1
        self.mine[pointer._obj.value] = size.value
        self._hold()
        return 0

    def cuMemFree_v2(self, pointer: Any) -> int:
        del self.mine[pointer.value]
        self._hold()
        return 0

    def cuModuleLoadData(self, module: Any, text: bytes) -> int:
        module._obj.value = 1
        return 0 if b".entry burn" in text else 218

    def cuModuleGetFunction(self, function: Any, _: Any, name: bytes) -> int:
        function._obj.value = 1
        return 0 if name == b"burn" else 500

    def cuDeviceGetAttribute(self, value: Any, _: int, __: Any) -> int:
        value._obj.value = 132
        return 0

    def cuLaunchKernel(self, *arguments: Any) -> int:
        return 0 if len(arguments) == 11 else 1

    def cuCtxSynchronize(self) -> int:
        ctypes.CDLL(None).usleep(1000)
        return 0

    def cuGetErrorName(self, code: int, name: Any) -> int:
        known = {2: b"CUDA_ERROR_OUT_OF_MEMORY", 218: b"CUDA_ERROR_INVALID_PTX"}
        if code not in known:
            return 1
        name._obj.value = known[code]
        return 0


if __name__ == "__main__":
    program, *options = sys.argv[1:]
    if program == "load":
        load.main(options, FakeCuda())
    else:
        pods.ACCOUNT = Path(os.environ.get("FAKE_ACCOUNT", pods.ACCOUNT))
        loads = (sys.executable, "-m", "tests.fake_gpu", "load")
        command.main(options, FakeNvml(), loads, ("tests.fake_gpu", "agent"))
