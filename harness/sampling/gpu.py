"""NVIDIA devices: what there is, and their state over time.

A machine without card, driver or library is a Reason, never an exception. A field that a device does not tell
is None, and the reason is kept once. A driver that hangs costs a bounded time. Indices are NVML's (as
nvidia-smi shows them); CUDA_VISIBLE_DEVICES does not change them. Settings of a card are read, never changed.
Knows no engine.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.contracts import Reason, mean_power_w
from harness.errors import UserError
from harness.sampling import nvml, sampling
from harness.sampling.device_sample import (
    DeviceReader,
    DeviceSample,
    Ours,
    memory_used,
    total,
)
from harness.sampling.sampling import BaselineReturn, Idle, Sampling

Value = TypeVar("Value")


@dataclass(frozen=True)
class DeviceFacts:
    """One device as NVML describes it. `notes` say why a field is None, and what else a reader must know."""

    index: int
    name: str | None
    uuid: str | None
    memory_bytes: int | None
    compute_capability: str | None
    power_limit_w: float | None
    sm_clock_max_mhz: int | None
    memory_clock_max_mhz: int | None
    ecc_enabled: bool | None
    mig_enabled: bool | None
    pcie_generation_max: int | None
    pcie_width_max: int | None
    driver: str | None
    cuda: str | None
    notes: tuple[str, ...] = ()


def devices() -> tuple[DeviceFacts, ...] | Reason:
    """Return all devices in NVML's order, or why there is none. Block for INIT_LIMIT_S if it hangs."""

    def ask(library: Any) -> tuple[DeviceFacts, ...] | Reason:
        notes: dict[str, str] = {}
        count = nvml.value_of(library, notes, "count", library.nvmlDeviceGetCount)
        if count is None:
            return Reason(f"NVML does not count its devices: {notes['count']}")
        found = tuple(_facts(library, index) for index in range(count))
        return found or Reason("the NVIDIA driver is loaded but has no device")

    try:
        return _answer(0.0, ask)
    except nvml.AbsentError as absent:
        return Reason(str(absent))


def listed(device: str) -> list[str]:
    """Return the indices in `0` or `0,1`, as they were written. Raises UserError for another text."""
    parts = [part.strip() for part in device.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len(set(parts)) != len(parts):
        raise UserError(f'device={device}: not a device; use cpu, 0, or "0,1"')
    return parts


def select(device: str) -> tuple[int, ...]:
    """Return the indices of the devices that `device` (`0`, `0,1`, `cpu`) names; none for cpu.

    Raises UserError if one of them is not here.
    """
    if device == "cpu":
        return ()
    parts = listed(device)
    found = devices()
    if isinstance(found, Reason):
        raise UserError(f"device={device}: {found.text}; use device=cpu")
    names = {str(facts.index): facts.name for facts in found}
    if missing := [part for part in parts if part not in names]:
        here = ", ".join(f"{index} ({name})" for index, name in names.items())
        raise UserError(f"device={device}: there is no device {missing[0]}; this machine has {here}")
    return tuple(int(part) for part in parts)


def sample_devices(indices: Sequence[int], ours: Ours, hz: float = 10.0) -> Sampling[DeviceSample]:
    """Return a sampler to be entered with `with`. Each of its samples is one row per device.

    `ours` tells which processes are the server's (ProcessTree.among). Raises UserError if there is no NVML
    (ask `select` first). Leaving blocks for some seconds if the driver hangs.
    """
    notes: dict[str, str] = {}
    try:
        library = nvml.library()
    except nvml.AbsentError as absent:
        raise UserError(f"no device can be read: {absent}") from absent
    readers = [DeviceReader(library, notes, index, ours) for index in indices]
    return Sampling(
        lambda: [reader.read() for reader in readers],
        hz,
        read_at_mark=lambda: [reader.read(is_mark=True) for reader in readers],
        notes=notes,
    )


def measure_idle(indices: Sequence[int], duration_s: float = 1.0) -> Idle:
    """Return what the devices use together over duration_s: memory as median, power by their energy counters.

    The power of a card without a counter is the mean of NVML's. A card takes some seconds to lower its clocks
    after work, and that counts as idle here. Blocks. Raises UserError if there is no NVML or it hangs.
    """

    def ask(library: Any) -> Idle:
        notes: dict[str, str] = {}
        # At 100 Hz, a step of the counter is seen within 1 % of a second.
        seen = sampling.observe(lambda: _read_idle(library, notes, indices), 100.0, duration_s)
        used = sampling.median_bytes([total(device.used_bytes for device in row) for _, row in seen])
        mean_w = total(_mean_power_w([(t_ns, row[k]) for t_ns, row in seen]) for k in range(len(indices)))
        said = "; ".join(f"{what}: {reason}" for what, reason in notes.items())
        return Idle(used, mean_w, None if mean_w is not None else said or "its power is not known")

    try:
        return _answer(duration_s, ask)
    except nvml.AbsentError as absent:
        raise UserError(f"no device can be read: {absent}") from absent


@dataclass(frozen=True)
class _IdleReading:
    used_bytes: int | None
    energy_j: float | None
    power_w: float | None


def _read_idle(library: Any, notes: dict[str, str], indices: Sequence[int]) -> list[_IdleReading]:
    found = [nvml.device(library, notes, index, f"device {index} ") for index in indices]
    return [
        _IdleReading(
            device.value("memory", lambda handle: memory_used(library, handle)),
            device.thousandth("energy", library.nvmlDeviceGetTotalEnergyConsumption),
            device.thousandth("power", library.nvmlDeviceGetPowerUsage),
        )
        for device in found
    ]


def _mean_power_w(seen: Sequence[tuple[int, _IdleReading]]) -> float | None:
    counted = mean_power_w([(t_ns, reading.energy_j) for t_ns, reading in seen])
    if counted is not None:
        return counted
    known = [reading.power_w for _, reading in seen if reading.power_w is not None]
    return statistics.mean(known) if len(known) == len(seen) else None


def wait_for_baseline(
    indices: Sequence[int], baseline: int, tolerance_bytes: int, timeout_s: float
) -> BaselineReturn:
    """Wait until the devices' used memory is back at the baseline. Devices that cannot be read are not back.

    Blocks for up to timeout_s, and for INIT_LIMIT_S more if the driver hangs.
    """

    def ask(library: Any) -> BaselineReturn:
        def used_bytes() -> int | None:
            return total(reading.used_bytes for reading in _read_idle(library, {}, indices))

        return sampling.wait_until_back(used_bytes, baseline, tolerance_bytes, timeout_s)

    try:
        return _answer(timeout_s, ask)
    except nvml.AbsentError:
        return BaselineReturn(False, None)


def _answer(expected_s: float, ask: Callable[[Any], Value]) -> Value:
    """Return `ask(library)`, which takes expected_s if the driver answers; raise AbsentError if it hangs."""
    try:
        return sampling.within(expected_s + nvml.INIT_LIMIT_S, lambda: ask(nvml.library()))
    except TimeoutError as hung:
        raise nvml.AbsentError(f"the NVIDIA driver does not answer ({hung})") from hung


def _facts(library: Any, index: int) -> DeviceFacts:
    notes: dict[str, str] = {}
    device = nvml.device(library, notes, index, "")
    value = device.value
    memory = value("memory", lambda h: library.nvmlDeviceGetMemoryInfo(h, version=library.nvmlMemory_v2))
    capability = value("compute_capability", library.nvmlDeviceGetCudaComputeCapability)
    ecc = value("ecc_mode", library.nvmlDeviceGetEccMode)
    mig = value("mig_mode", library.nvmlDeviceGetMigMode)
    cuda = nvml.value_of(library, notes, "cuda", library.nvmlSystemGetCudaDriverVersion)
    if mig is not None and mig[0]:
        notes["mig"] = "it is on, and all that is sampled is of the whole card, all its instances together"
    return DeviceFacts(
        index=index,
        name=value("name", library.nvmlDeviceGetName),
        uuid=value("uuid", library.nvmlDeviceGetUUID),
        memory_bytes=None if memory is None else int(memory.total),
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        power_limit_w=device.thousandth("power_limit", library.nvmlDeviceGetEnforcedPowerLimit),
        sm_clock_max_mhz=value(
            "sm_clock_max", lambda h: library.nvmlDeviceGetMaxClockInfo(h, library.NVML_CLOCK_SM)
        ),
        memory_clock_max_mhz=value(
            "memory_clock_max", lambda h: library.nvmlDeviceGetMaxClockInfo(h, library.NVML_CLOCK_MEM)
        ),
        ecc_enabled=None if ecc is None else bool(ecc[0]),  # now; the second is what it is after a reboot
        mig_enabled=None if mig is None else bool(mig[0]),
        pcie_generation_max=value("pcie_generation_max", library.nvmlDeviceGetMaxPcieLinkGeneration),
        pcie_width_max=value("pcie_width_max", library.nvmlDeviceGetMaxPcieLinkWidth),
        driver=nvml.value_of(library, notes, "driver", library.nvmlSystemGetDriverVersion),
        cuda=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        notes=tuple(f"{what}: {reason}" for what, reason in notes.items()),
    )
