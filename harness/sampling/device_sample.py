"""The state of one device at one moment, read again and again through NVML.

Knows handles and pids, and nothing of threads, rates or engines. PCIe throughput is left out: NVML measures
it for 20 ms in each call (nvml.h, nvmlDeviceGetPcieThroughput), a fifth of the time between two samples.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.sampling import nvml
from harness.sampling.nvml import Device

Number = TypeVar("Number", int, float)
# Returns those of the pids that are the server's, or None if its processes are not known here.
Ours = Callable[[set[int]], set[int] | None]

_SLOW_NS = 1_000_000_000
# A list of processes costs ten times as much as another call, and memory may change in each sample.
_LIST_NS = 500_000_000
_NEVER_NS = 1 << 62
# What a machine boots with (PROC_PID_INIT_INO in Linux's include/linux/proc_ns.h).
_FIRST_PID_NAMESPACE = "pid:[4026531836]"
_NONE_OF_OURS = "NVML listed processes, but none of the server's (in a container the pids differ)"


@dataclass(frozen=True)
class DeviceSample:
    """One device at `t_ns` (CLOCK_MONOTONIC, before the first field was read).

    `used_bytes` is of all processes, without the driver's reserve. `process_bytes` is of the watched
    processes together; None if NVML lists none of them, which in a container may be all the time. `energy_j`
    counts since the driver was loaded. The utilizations are NVML's own averages over up to a second.

    `throttle_reasons` are NVML's bits (contracts.throttle_names). `ecc_errors` are the uncorrected
    ones since the driver was loaded, `pcie_replays` the packets that were sent again. `foreign_processes` are
    on the device and not the server's, with `foreign_bytes` of memory (None if NVML hides that of one); None
    if the two cannot be told apart.

    Processes are listed when `used_bytes` changes, at most twice a second and at marks, else once a second.
    ECC and PCIe are read once a second. Rows between repeat them: `process_bytes` may be half a second older
    than `used_bytes`.
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
    memory_clock_mhz: int | None = None
    throttle_reasons: int | None = None
    ecc_errors: int | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_replays: int | None = None
    foreign_processes: int | None = None
    foreign_bytes: int | None = None


class DeviceReader:
    """Reads one device again and again, and keeps what it does not read each time. `notes` takes the reasons
    why a field is None."""

    def __init__(self, library: Any, notes: dict[str, str], index: int, ours: Ours) -> None:
        self._nvml = library
        self._notes = notes
        self._index = index
        self._ours = ours
        self._lock = threading.Lock()
        # When the fields below were read last.
        self._slow_ns = self._listed_ns = -_NEVER_NS
        self._slow: dict[str, int | None] = {}
        self._graphics: dict[int, int | None] = {}
        self._owned: dict[str, int | None] = {"process_bytes": None}
        self._listed_used_bytes: int | None = None

    def read(self, *, is_mark: bool = False) -> DeviceSample:
        """Return one sample; at a mark, with whose the memory is at that moment.

        Waits for one that another thread reads.
        """
        with self._lock:
            t_ns = time.monotonic_ns()
            library = self._nvml
            device = nvml.device(library, self._notes, self._index, f"device {self._index} ")
            value = device.value
            used_bytes = value("memory", lambda handle: memory_used(library, handle))
            self._read_processes(device, used_bytes, is_mark)
            utilization = value("utilization", library.nvmlDeviceGetUtilizationRates)
            sample = DeviceSample(
                t_ns=t_ns,
                device=self._index,
                used_bytes=used_bytes,
                utilization_pct=None if utilization is None else int(utilization.gpu),
                memory_utilization_pct=None if utilization is None else int(utilization.memory),
                power_w=device.thousandth("power", library.nvmlDeviceGetPowerUsage),
                energy_j=device.thousandth("energy", library.nvmlDeviceGetTotalEnergyConsumption),
                temperature_c=value(
                    "temperature", lambda h: library.nvmlDeviceGetTemperature(h, library.NVML_TEMPERATURE_GPU)
                ),
                sm_clock_mhz=value(
                    "sm_clock", lambda h: library.nvmlDeviceGetClockInfo(h, library.NVML_CLOCK_SM)
                ),
                memory_clock_mhz=value(
                    "memory_clock", lambda h: library.nvmlDeviceGetClockInfo(h, library.NVML_CLOCK_MEM)
                ),
                throttle_reasons=value("throttle_reasons", lambda h: _throttle_reasons(library, h)),
                **self._slow,
                **self._owned,
            )
            if device.handle is None:  # what was kept is not known of a device that is lost
                return DeviceSample(t_ns, self._index, *[None] * 8)
            return sample

    def _read_processes(self, device: Device, used_bytes: int | None, is_mark: bool) -> None:
        now_ns = time.monotonic_ns()
        is_slow_due = now_ns - self._slow_ns >= _SLOW_NS
        if is_slow_due:
            self._slow_ns = now_ns
            library = self._nvml
            self._slow = {
                "ecc_errors": device.value(
                    "ecc_errors",
                    lambda h: library.nvmlDeviceGetTotalEccErrors(
                        h, library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, library.NVML_VOLATILE_ECC
                    ),
                ),
                "pcie_generation": device.value(
                    "pcie_generation", library.nvmlDeviceGetCurrPcieLinkGeneration
                ),
                "pcie_width": device.value("pcie_width", library.nvmlDeviceGetCurrPcieLinkWidth),
                "pcie_replays": device.value("pcie_replays", library.nvmlDeviceGetPcieReplayCounter),
            }
            graphics = device.value("graphics_processes", self._nvml.nvmlDeviceGetGraphicsRunningProcesses)
            self._graphics = _memory_by_pid(graphics or ())
        has_changed = used_bytes != self._listed_used_bytes
        if is_slow_due or (has_changed and (is_mark or now_ns - self._listed_ns >= _LIST_NS)):
            self._listed_ns, self._listed_used_bytes = now_ns, used_bytes
            compute = device.value("process_memory", self._nvml.nvmlDeviceGetComputeRunningProcesses)
            self._owned = {"process_bytes": None}
            if compute is not None:  # a process with both contexts has one amount of memory
                self._owned = _owned(device, self._graphics | _memory_by_pid(compute), self._ours)


def _owned(device: Device, listed: dict[int, int | None], ours: Ours) -> dict[str, int | None]:
    """Return whose the device's processes are, by the fields of a sample: the server's, and others'.

    The fields of others are left out if they cannot be told from the server's.
    """
    own = ours(set(listed))
    process_bytes = total(listed[pid] for pid in own) if own else None
    if own is None:
        device.note("process_memory", "the server's processes are out of sight, so none is said to be its")
    elif own and process_bytes is None:
        device.note("process_memory", "NVML lists the processes without their memory")
    elif listed and not own:
        device.note("process_memory", _NONE_OF_OURS)
    if not own and not _sees_all_pids():
        device.note("foreign_processes", "in a container, others cannot be told from the server's")
        return {"process_bytes": process_bytes}
    if own is None and listed:
        device.note("foreign_processes", "others cannot be told from the server's, which are out of sight")
        return {"process_bytes": process_bytes}
    foreign = set(listed) - (own or set())
    return {
        "process_bytes": process_bytes,
        "foreign_processes": len(foreign),
        "foreign_bytes": total(listed[pid] for pid in foreign),
    }


def _sees_all_pids() -> bool:
    """Return whether a pid here is what the driver means by it."""
    try:
        return os.readlink("/proc/self/ns/pid") == _FIRST_PID_NAMESPACE
    except OSError:
        return False


def _memory_by_pid(processes: Iterable[Any]) -> dict[int, int | None]:
    """Add up the memory of each process. One may be listed more than once, by its GPU instances."""
    found: dict[int, int | None] = {}
    for process in processes:
        found[process.pid] = total((found.get(process.pid, 0), process.usedGpuMemory))
    return found


def _throttle_reasons(library: Any, handle: Any) -> int:
    try:
        return int(library.nvmlDeviceGetCurrentClocksEventReasons(handle))
    except library.NVMLError_FunctionNotFound:  # its name in drivers before 535
        return int(library.nvmlDeviceGetCurrentClocksThrottleReasons(handle))


def memory_used(library: Any, handle: Any) -> int:
    """Read the bytes in use, without the driver's reserve. Raises NVML's error."""
    return int(library.nvmlDeviceGetMemoryInfo(handle, version=library.nvmlMemory_v2).used)


def total(values: Iterable[Number | None]) -> Number | None:
    """Return the sum, or None if one of the values is not known."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if len(known) == len(found) else None
