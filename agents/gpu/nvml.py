"""The NVIDIA GPUs of this machine as NVML (the driver's management library) shows them."""

import threading
from dataclasses import dataclass
from typing import Any

from agents.core.faults import Problem

# Bits of nvmlDeviceGetCurrentClocksEventReasons by the names of nvidia-smi, from nvml.h.
REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
MIB = 1 << 20


@dataclass(frozen=True)
class Card:
    """What of a GPU does not change; ``pci`` is ``dddd:bb:dd``, as the driver prints it in an XID line."""

    index: int
    uuid: str
    pci: str
    handle: Any


class Cards:
    """All GPUs of the machine. Every method but :meth:`missing` raises :class:`Problem` where NVML refuses.

    Args:
        nvml: the module ``pynvml``, or something with functions of the same names.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._cards: list[Card] = []
        self._lock = threading.Lock()

    def missing(self) -> str:
        """Why there is no GPU here, in words; empty when there is. Asked again until there is one."""
        with self._lock:
            if self._cards:
                return ""
            try:
                self._nvml.nvmlInit()
                self._cards = [self._card(index) for index in range(self._nvml.nvmlDeviceGetCount())]
            except self._nvml.NVMLError_LibraryNotFound:
                return "no NVIDIA driver: libnvidia-ml.so.1 not found; on a GPU node the container runtime mounts it"
            except self._nvml.NVMLError as error:
                return f"the NVIDIA driver does not answer: {error}"
            return "" if self._cards else "the NVIDIA driver shows no GPU to this process"

    def _card(self, index: int) -> Card:
        handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
        place = self._nvml.nvmlDeviceGetPciInfo(handle)
        pci = f"{place.domain:04x}:{place.bus:02x}:{place.device:02x}"
        return Card(index, str(self._nvml.nvmlDeviceGetUUID(handle)), pci, handle)

    def all(self) -> list[Card]:
        """The GPUs by index; none without a driver."""
        return [] if self.missing() else self._cards

    def by_uuid(self, uuid: str) -> Card:
        """The GPU with this name; its index may have changed since."""
        for card in self.all():
            if card.uuid == uuid:
                return card
        raise Problem(501, "No such GPU", self.missing() or f"GPU {uuid} is no longer on this machine")

    def call(self, card: Card, name: str, *arguments: Any) -> Any:
        """A function of NVML on a GPU; 501 when the GPU or the driver's permissions do not have it, else 500."""
        try:
            return getattr(self._nvml, name)(card.handle, *arguments)
        except (self._nvml.NVMLError_NotSupported, self._nvml.NVMLError_NoPermission) as error:
            raise Problem(501, "Not here", f"GPU {card.index}: {name}: {error}") from None
        except self._nvml.NVMLError as error:
            raise Problem(500, "NVML refused", f"GPU {card.index}: {name}: {error}") from None

    def max_clock(self, card: Card) -> int:
        """The highest SM clock, MHz."""
        return int(self.call(card, "nvmlDeviceGetMaxClockInfo", self._nvml.NVML_CLOCK_SM))

    def processes(self, card: Card) -> dict[int, int]:
        """Pid (of the machine, not of this container) -> MiB, for all that compute on the GPU."""
        listed = self.call(card, "nvmlDeviceGetComputeRunningProcesses")
        return {each.pid: (each.usedGpuMemory or 0) // MIB for each in listed}

    def _maybe(self, card: Card, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, name)(card.handle, *arguments)
        except self._nvml.NVMLError_NotSupported:  # under MIG or on a virtual GPU
            return None

    def reading(self, card: Card) -> dict[str, Any]:
        """Telemetry, with the names that simulated GPUs have too; None for what the GPU does not tell."""
        found: dict[str, Any] = {"index": card.index, "uuid": card.uuid, "pci": card.pci}
        try:
            memory = self._maybe(card, "nvmlDeviceGetMemoryInfo")
            used = self._maybe(card, "nvmlDeviceGetUtilizationRates")
            reasons = self._maybe(card, "nvmlDeviceGetCurrentClocksEventReasons") or 0
            found |= {
                "memory_total_mib": memory and memory.total // MIB,
                "memory_used_mib": memory and memory.used // MIB,
                "sm_clock_mhz": self._maybe(card, "nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM),
                "temperature_c": self._maybe(card, "nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU),
                "utilization_percent": used and used.gpu,
                "throttle_reasons": [name for bit, name in REASONS.items() if reasons & bit],
                "state": "ok",
            }
        except self._nvml.NVMLError_GpuIsLost:
            found["state"] = "lost"
        except self._nvml.NVMLError as error:
            raise Problem(500, "NVML refused", f"GPU {card.index}: {error}") from None
        return found
