"""Read NVIDIA devices through NVML, by its indices; CUDA_VISIBLE_DEVICES changes nothing.

A missing card, driver or library gives a Reason or a UserError. A field that NVML does not tell is None with
a note, and a driver that hangs costs a bounded time.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

from serving_bench.harness.contracts import Reason
from serving_bench.harness.errors import UserError
from serving_bench.harness.sampling.sampling import Memory, Use, within

Value = TypeVar("Value")

# Without the persistence daemon the driver wakes each device at first use, which takes a second or two.
ANSWER_LIMIT_S = 45.0
# The names of functions in drivers before 535.
_FORMER = {"DeviceGetCurrentClocksEventReasons": "DeviceGetCurrentClocksThrottleReasons"}


@cache
def opened() -> Any:
    """Return the pynvml module, with NVML open until bench exits. Raises UserError without it.

    Without the persistence daemon the driver wakes every device each time that NVML is opened.
    """
    # pynvml takes a tenth of a second to import, which a machine without a driver is spared.
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        raise UserError("there is no NVIDIA driver (no libnvidia-ml.so.1)") from error
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise UserError(f"NVML does not start: {error}") from error
    return pynvml


def answer(question: Callable[[], Value]) -> Value:
    """Return `question()`, asked in a thread of its own. Raises UserError if the driver hangs."""
    try:
        return within(ANSWER_LIMIT_S, question)
    except TimeoutError as hung:
        raise UserError(f"the NVIDIA driver does not answer ({hung})") from hung


class Device:
    """One device during one reading. `notes` has the first reason for each missing value, by field."""

    def __init__(self, nvml: Any, index: int, notes: dict[str, str], label: str = "") -> None:
        self._nvml = nvml
        self._notes = notes
        self._label = label
        self.handle = self.ask("handle", "DeviceGetHandleByIndex", index)

    def value(self, field: str, name: str, *arguments: Any) -> Any:
        """Return what nvmlDeviceGet`name` answers, or None after noting NVML's reason."""
        return None if self.handle is None else self.ask(field, f"DeviceGet{name}", self.handle, *arguments)

    def thousandth(self, field: str, name: str) -> float | None:
        value = self.value(field, name)
        return None if value is None else value / 1000

    def computed(self, since_us: int) -> Sequence[Any] | None:
        """Return NVML's samples of the processes that computed since then (its clock, in microseconds)."""
        if self.handle is None:
            return None
        try:
            samples: Sequence[Any] = self._nvml.nvmlDeviceGetProcessUtilization(self.handle, since_us)
            return samples
        except self._nvml.NVMLError as error:
            if error.value in (self._nvml.NVML_SUCCESS, self._nvml.NVML_ERROR_NOT_FOUND):
                return ()  # no process did
            self.note("process_utilization", str(error))
            return None

    def memory(self) -> Any:
        return self.value("memory", "MemoryInfo", self._nvml.nvmlMemory_v2)

    def ask(self, field: str, name: str, *arguments: Any) -> Any:
        """Return what the function nvml`name` answers, or None after noting NVML's reason."""
        try:
            return getattr(self._nvml, f"nvml{name}")(*arguments)
        except self._nvml.NVMLError as error:
            if name in _FORMER and error.value == self._nvml.NVML_ERROR_FUNCTION_NOT_FOUND:
                return self.ask(field, _FORMER[name], *arguments)
            gone = ("GPU_IS_LOST", "RESET_REQUIRED", "DRIVER_NOT_LOADED", "UNINITIALIZED")
            if error.value in [getattr(self._nvml, f"NVML_ERROR_{each}") for each in gone]:
                self.handle, field = None, "handle"
            self.note(field, str(error))
            return None

    def note(self, field: str, reason: str) -> None:
        self._notes.setdefault(self._label + field, reason)


@dataclass(frozen=True)
class DeviceFacts:
    """One device as NVML describes it. `notes` say why a field is None."""

    index: int
    name: str | None
    uuid: str | None
    memory_bytes: int | None
    compute_capability: str | None
    power_limit_w: float | None
    sm_clock_max_mhz: int | None
    memory_clock_max_mhz: int | None
    memory_bus_bits: int | None
    ecc_enabled: bool | None
    mig_enabled: bool | None
    pcie_generation_max: int | None
    pcie_width_max: int | None
    driver: str | None
    cuda: str | None
    notes: tuple[str, ...] = ()


def devices() -> tuple[DeviceFacts, ...] | Reason:
    """Return all devices in NVML's order, or why there is none. Blocks for ANSWER_LIMIT_S if it hangs."""

    def describe() -> tuple[DeviceFacts, ...]:
        nvml = opened()
        return tuple(_facts(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))

    try:
        return answer(describe) or Reason("the NVIDIA driver is loaded but has no device")
    except UserError as error:
        return Reason(str(error))


def listed(device: str) -> list[str]:
    """Return the indices in `0` or `0,1`, as they were written. Raises UserError for another text."""
    parts = [part.strip() for part in device.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len(set(parts)) != len(parts):
        raise UserError(f'device={device}: not a device; use cpu, 0, or "0,1"')
    return parts


def select(device: str) -> tuple[int, ...]:
    """Return the indices that `device` (`0`, `0,1`, `cpu`) names; raise UserError if one is not here."""
    if device == "cpu":
        return ()
    parts = listed(device)
    present = devices()
    if isinstance(present, Reason):
        raise UserError(f"device={device}: {present}; use device=cpu")
    names = {str(facts.index): facts.name for facts in present}
    if missing := [part for part in parts if part not in names]:
        here = ", ".join(f"{index} ({name})" for index, name in names.items())
        raise UserError(f"device={device}: there is no device {missing[0]}; this machine has {here}")
    return tuple(int(part) for part in parts)


def smallest_bytes(indices: Sequence[int]) -> int | None:
    """Return the memory of the smallest of these devices; None if one does not tell it."""
    here = devices() if indices else ()
    sizes = {} if isinstance(here, Reason) else {each.index: each.memory_bytes for each in here}
    sizes_known = [size for index in indices if (size := sizes.get(index))]
    return min(sizes_known) if sizes_known and len(sizes_known) == len(indices) else None


def _facts(nvml: Any, index: int) -> DeviceFacts:
    notes: dict[str, str] = {}
    device = Device(nvml, index, notes)
    value, memory = device.value, device.memory()
    capability = value("compute_capability", "CudaComputeCapability")
    ecc = value("ecc_mode", "EccMode")
    mig = value("mig_mode", "MigMode")
    cuda = device.ask("cuda", "SystemGetCudaDriverVersion")
    if mig is not None and mig[0]:
        notes["mig"] = "it is on, and samples are of the whole card, all its instances together"
    return DeviceFacts(
        index=index,
        name=value("name", "Name"),
        uuid=value("uuid", "UUID"),
        memory_bytes=memory and int(memory.total),
        compute_capability=capability and f"{capability[0]}.{capability[1]}",
        power_limit_w=device.thousandth("power_limit", "EnforcedPowerLimit"),
        sm_clock_max_mhz=value("sm_clock_max", "MaxClockInfo", nvml.NVML_CLOCK_SM),
        memory_clock_max_mhz=value("memory_clock_max", "MaxClockInfo", nvml.NVML_CLOCK_MEM),
        memory_bus_bits=value("memory_bus", "MemoryBusWidth"),
        ecc_enabled=ecc and bool(ecc[0]),  # now; the second is what it is after a reboot
        mig_enabled=mig and bool(mig[0]),
        pcie_generation_max=value("pcie_generation_max", "MaxPcieLinkGeneration"),
        pcie_width_max=value("pcie_width_max", "MaxPcieLinkWidth"),
        driver=device.ask("driver", "SystemGetDriverVersion"),
        cuda=cuda and f"{cuda // 1000}.{cuda % 1000 // 10}",
        notes=tuple(f"{what}: {reason}" for what, reason in notes.items()),
    )


def memory(indices: Sequence[int]) -> Memory:
    return Memory("device", partial(answer, lambda: [_use(opened(), index) for index in indices]))


def _use(nvml: Any, index: int) -> Use:
    notes: dict[str, str] = {}
    device = Device(nvml, index, notes, f"device {index} ")
    memory = device.memory()
    return Use(
        used_bytes=memory and int(memory.used),
        energy_j=device.thousandth("energy", "TotalEnergyConsumption"),
        power_w=device.thousandth("power", "PowerUsage"),
        note="; ".join(f"{what}: {reason}" for what, reason in notes.items()) or None,
    )
