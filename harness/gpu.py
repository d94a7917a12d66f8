"""NVIDIA devices: what there is, and their memory, utilization and power over time. The only pynvml import.

Knows no engine. A machine without card, driver or library is a Reason, never an exception; a field that a
device does not tell is None, with the reason kept once. Indices are NVML's (as nvidia-smi shows them);
CUDA_VISIBLE_DEVICES does not change them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from harness import sampling
from harness.contracts import Reason
from harness.errors import UserError
from harness.sampling import BaselineReturn, Sampling

Value = TypeVar("Value")


@dataclass(frozen=True)
class DeviceFacts:
    """A device as NVML describes it. `notes`: why a field is None."""

    index: int
    name: str | None
    uuid: str | None
    memory_bytes: int | None
    compute_capability: str | None
    power_limit_w: float | None
    sm_clock_max_mhz: int | None
    driver: str | None
    cuda: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceSample:
    """A device's state at `t_ns` (CLOCK_MONOTONIC, before the first field was read).

    `used_bytes` is of all processes, without the driver's reserve. `process_bytes`: of the watched processes
    together; None where NVML lists none of them, which in a container may be all the time. `energy_j` counts
    since the driver was loaded. The utilizations are NVML's own averages over up to a second.
    """

    t_ns: int
    device: int
    used_bytes: int | None
    process_bytes: int | None
    utilization_pct: int | None
    memory_utilization_pct: int | None
    power_w: float | None
    energy_j: float | None
    temperature_c: int | None
    sm_clock_mhz: int | None


class _AbsentError(Exception):
    """No NVML here; the sentence says what is missing."""


@contextmanager
def _session() -> Iterator[Any]:
    """The pynvml module, initialised; raises _AbsentError where that cannot be."""
    try:
        import pynvml
    except ImportError as error:
        raise _AbsentError("the Python package nvidia-ml-py is not installed") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        what = {
            pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "there is no NVIDIA driver (no libnvidia-ml.so.1)",
            pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is installed but not loaded",
        }.get(error.value, f"NVML does not start: {error}")
        raise _AbsentError(what) from error
    try:
        yield pynvml
    finally:
        with suppress(pynvml.NVMLError):  # a device that was lost may refuse; there is nothing left to free
            pynvml.nvmlShutdown()


def devices() -> tuple[DeviceFacts, ...] | Reason:
    """All devices in NVML's order; the Reason where there is none."""
    try:
        with _session() as nvml:
            notes: dict[str, str] = {}
            count = _value(nvml, notes, "count", nvml.nvmlDeviceGetCount)
            if count is None:
                return Reason(f"NVML does not count its devices: {notes['count']}")
            found = tuple(_facts(nvml, index) for index in range(count))
            return found or Reason("the NVIDIA driver is loaded but has no device")
    except _AbsentError as absent:
        return Reason(str(absent))


def select(device: str) -> tuple[int, ...]:
    """The device indices that `device` (`0`, `0,1`, `cpu`) names; none for cpu. Raises UserError where it
    names none that is here."""
    if device == "cpu":
        return ()
    parts = [part.strip() for part in device.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len(set(parts)) != len(parts):
        raise UserError(f'device={device}: not a device; use cpu, 0, or "0,1"')
    found = devices()
    if isinstance(found, Reason):
        raise UserError(f"device={device}: {found.text}; use device=cpu")
    names = {str(facts.index): facts.name for facts in found}
    if missing := [part for part in parts if part not in names]:
        here = ", ".join(f"{index} ({name})" for index, name in names.items())
        raise UserError(f"device={device}: there is no device {missing[0]}; this machine has {here}")
    return tuple(int(part) for part in parts)


@contextmanager
def sample_devices(
    indices: Sequence[int], pids: Callable[[], set[int]], hz: float = 10.0
) -> Iterator[Sampling[DeviceSample]]:
    """Sample while the `with` block runs; each sample is one row per device.

    `pids` gives the processes whose memory to attribute (host.ProcessTree.pids). Raises UserError where
    there is no NVML (ask `select` first).
    """
    notes: dict[str, str] = {}
    with _session_or_user_error() as nvml:

        def read() -> list[DeviceSample]:
            return [_sample(nvml, notes, index, pids()) for index in indices]

        with Sampling(read, hz, notes=notes) as running:
            yield running


def baseline_bytes(indices: Sequence[int], hz: float = 10.0, duration_s: float = 1.0) -> int | None:
    """Used memory of the devices together, median over duration_s; None where NVML does not tell. Blocks."""
    with _session_or_user_error() as nvml:
        return sampling.median_bytes(lambda: _used_bytes(nvml, indices), hz, duration_s)


def wait_for_baseline(
    indices: Sequence[int], baseline: int | None, tolerance_bytes: int, timeout_s: float
) -> BaselineReturn:
    """Wait until the devices' used memory is back at the baseline. Blocks for up to timeout_s."""
    with _session_or_user_error() as nvml:
        return sampling.wait_until_back(
            lambda: _used_bytes(nvml, indices), baseline, tolerance_bytes, timeout_s
        )


@contextmanager
def _session_or_user_error() -> Iterator[Any]:
    try:
        with _session() as nvml:
            yield nvml
    except _AbsentError as absent:
        raise UserError(f"no device can be read: {absent}") from absent


def _value(nvml: Any, notes: dict[str, str], field: str, read: Callable[[], Value]) -> Value | None:
    """`read()`, or None with NVML's reason noted the first time."""
    try:
        return read()
    except nvml.NVMLError as error:
        notes.setdefault(field, str(error))
        return None


@dataclass(frozen=True)
class _Device:
    """A device's handle (None: NVML gave none) and where the reasons for missing fields go."""

    nvml: Any
    notes: dict[str, str]
    prefix: str
    handle: Any

    def value(self, field: str, read: Callable[[Any], Value]) -> Value | None:
        if self.handle is None:
            return None
        return _value(self.nvml, self.notes, self.prefix + field, lambda: read(self.handle))


def _device(nvml: Any, notes: dict[str, str], index: int, prefix: str) -> _Device:
    handle = _value(nvml, notes, f"{prefix}handle", lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    return _Device(nvml, notes, prefix, handle)


def _facts(nvml: Any, index: int) -> DeviceFacts:
    notes: dict[str, str] = {}
    value = _device(nvml, notes, index, "").value
    memory = value("memory", lambda h: nvml.nvmlDeviceGetMemoryInfo(h, version=nvml.nvmlMemory_v2))
    capability = value("compute_capability", nvml.nvmlDeviceGetCudaComputeCapability)
    limit_mw = value("power_limit", nvml.nvmlDeviceGetEnforcedPowerLimit)
    cuda = _value(nvml, notes, "cuda", nvml.nvmlSystemGetCudaDriverVersion)
    return DeviceFacts(
        index=index,
        name=value("name", nvml.nvmlDeviceGetName),
        uuid=value("uuid", nvml.nvmlDeviceGetUUID),
        memory_bytes=None if memory is None else int(memory.total),
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        power_limit_w=None if limit_mw is None else limit_mw / 1000,
        sm_clock_max_mhz=value(
            "sm_clock_max", lambda h: nvml.nvmlDeviceGetMaxClockInfo(h, nvml.NVML_CLOCK_SM)
        ),
        driver=_value(nvml, notes, "driver", nvml.nvmlSystemGetDriverVersion),
        cuda=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        notes=tuple(f"{field}: {reason}" for field, reason in notes.items()),
    )


def _sample(nvml: Any, notes: dict[str, str], index: int, pids: set[int]) -> DeviceSample:
    t_ns = time.monotonic_ns()
    device = _device(nvml, notes, index, f"device {index} ")
    value = device.value
    utilization = value("utilization", nvml.nvmlDeviceGetUtilizationRates)
    power_mw = value("power", nvml.nvmlDeviceGetPowerUsage)
    energy_mj = value("energy", nvml.nvmlDeviceGetTotalEnergyConsumption)
    return DeviceSample(
        t_ns=t_ns,
        device=index,
        used_bytes=value("memory", lambda handle: _memory_used(nvml, handle)),
        process_bytes=_process_bytes(device, pids),
        utilization_pct=None if utilization is None else int(utilization.gpu),
        memory_utilization_pct=None if utilization is None else int(utilization.memory),
        power_w=None if power_mw is None else power_mw / 1000,
        energy_j=None if energy_mj is None else energy_mj / 1000,
        temperature_c=value(
            "temperature", lambda h: nvml.nvmlDeviceGetTemperature(h, nvml.NVML_TEMPERATURE_GPU)
        ),
        sm_clock_mhz=value("sm_clock", lambda h: nvml.nvmlDeviceGetClockInfo(h, nvml.NVML_CLOCK_SM)),
    )


def _process_bytes(device: _Device, pids: set[int]) -> int | None:
    """Memory of NVML's processes that are among pids; None where it lists none of them or hides their use."""
    field = "process_memory"
    processes = device.value(field, device.nvml.nvmlDeviceGetComputeRunningProcesses)
    ours = [process.usedGpuMemory for process in processes or () if process.pid in pids]
    if ours and None not in ours:
        return sum(map(int, ours))
    reason = (
        "NVML lists the processes without their memory"
        if ours
        else "NVML listed processes, but none of the server's (in a container the pids differ)"
    )
    if processes:
        device.notes.setdefault(device.prefix + field, reason)
    return None


def _memory_used(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2).used)


def _used_bytes(nvml: Any, indices: Sequence[int]) -> int | None:
    try:
        return sum(_memory_used(nvml, nvml.nvmlDeviceGetHandleByIndex(index)) for index in indices)
    except nvml.NVMLError:
        return None
