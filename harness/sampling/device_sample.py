"""Read the state of devices over time through NVML.

PCIe throughput is left out: NVML measures it for 20 ms in each call (nvmlDeviceGetPcieThroughput).
"""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from serving_bench.harness.processes.watchdog import pid_namespace
from serving_bench.harness.sampling import gpu
from serving_bench.harness.sampling.gpu import Device
from serving_bench.harness.sampling.process_tree import ProcessTree
from serving_bench.harness.sampling.sampling import total

# How often to make the slow calls. A list of processes costs ten times as much as any other call.
_SLOW_S = 0.5
# The namespace that a machine boots with (PROC_PID_INIT_INO in Linux's include/linux/proc_ns.h).
_FIRST_PID_NAMESPACE = "pid:[4026531836]"


@dataclass(frozen=True)
class DeviceSample:
    """One device at `t_ns` (CLOCK_MONOTONIC, before the first field was read).

    `used_bytes` counts all processes, without the driver's reserve; `process_bytes` the watched ones, None if
    NVML lists none (often in a container). `energy_j` and `ecc_errors` (uncorrected) count since the driver
    was loaded. Utilizations are NVML's averages over up to a second. `throttle_reasons` are NVML's bits
    (contracts.throttle_names). `foreign_processes` and `foreign_bytes` belong to programs other than the
    server, `foreign_busy_pct` is the most that one of them computed since the last reading; None if bench
    cannot tell. Processes, ECC and PCIe are read twice a second and at marks, and repeated in between.
    """

    t_ns: int
    device: int
    used_bytes: int | None = None
    process_bytes: int | None = None
    utilization_pct: int | None = None
    memory_utilization_pct: int | None = None
    power_w: float | None = None
    energy_j: float | None = None
    temperature_c: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttle_reasons: int | None = None
    ecc_errors: int | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_replays: int | None = None
    foreign_processes: int | None = None
    foreign_bytes: int | None = None
    foreign_busy_pct: int | None = None


class DeviceReader:
    """A reader of devices. `notes` collects the reasons why a field is None. `tree`: the server's processes.

    Raises UserError if there is no NVML.
    """

    def __init__(self, indices: Sequence[int], tree: ProcessTree) -> None:
        self.notes: dict[str, str] = {}
        self._nvml = gpu.answer(gpu.opened)
        self._indices = indices
        self._tree = tree
        self._lock = threading.Lock()
        self._slow_due_s = 0.0
        self._slow: dict[int, dict[str, int | None]] = {}
        self._computed_us = dict.fromkeys(indices, time.time_ns() // 1000)  # by NVML, which tells wall time

    def read(self, *, is_mark: bool = False) -> list[DeviceSample]:
        """Return a sample of each device; at a mark, with the owners of the memory at that moment."""
        with self._lock:
            is_slow = is_mark or time.monotonic() >= self._slow_due_s
            if is_slow:
                self._slow_due_s = time.monotonic() + _SLOW_S
            return [self._read(index, is_slow=is_slow) for index in self._indices]

    def _read(self, index: int, *, is_slow: bool) -> DeviceSample:
        t_ns, nvml = time.monotonic_ns(), self._nvml
        device = Device(nvml, index, self.notes, f"device {index} ")
        value, memory = device.value, device.memory()
        used_bytes = memory and int(memory.used)
        if is_slow:
            self._slow[index] = self._read_slow(device, index)
        utilization = value("utilization", "UtilizationRates")
        sample = DeviceSample(
            t_ns=t_ns,
            device=index,
            used_bytes=used_bytes,
            utilization_pct=utilization and int(utilization.gpu),
            memory_utilization_pct=utilization and int(utilization.memory),
            power_w=device.thousandth("power", "PowerUsage"),
            energy_j=device.thousandth("energy", "TotalEnergyConsumption"),
            temperature_c=value("temperature", "Temperature", nvml.NVML_TEMPERATURE_GPU),
            sm_clock_mhz=value("sm_clock", "ClockInfo", nvml.NVML_CLOCK_SM),
            memory_clock_mhz=value("memory_clock", "ClockInfo", nvml.NVML_CLOCK_MEM),
            throttle_reasons=value("throttle_reasons", "CurrentClocksEventReasons"),
            **self._slow.get(index, {}),
        )
        # The kept fields no longer hold if the device is lost.
        return sample if device.handle is not None else DeviceSample(t_ns, index)

    def _read_slow(self, device: Device, index: int) -> dict[str, int | None]:
        value, nvml = device.value, self._nvml
        ecc = (nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
        values = {
            "ecc_errors": value("ecc_errors", "TotalEccErrors", *ecc),
            "pcie_generation": value("pcie_generation", "CurrPcieLinkGeneration"),
            "pcie_width": value("pcie_width", "CurrPcieLinkWidth"),
            "pcie_replays": value("pcie_replays", "PcieReplayCounter"),
        }
        graphics = value("graphics_processes", "GraphicsRunningProcesses")
        compute = value("process_memory", "ComputeRunningProcesses")
        if compute is None:
            return values
        # A process with both contexts has one amount of memory.
        listed = _memory_by_pid(graphics or ()) | _memory_by_pid(compute)
        return values | _owned(device, listed, self._tree, self._busy_pct(device, index))

    def _busy_pct(self, device: Device, index: int) -> dict[int, int] | None:
        """Return the most that each process computed since the last reading, in % of the device."""
        samples = device.computed(self._computed_us[index])
        if samples is None:
            return None
        self._computed_us[index] = max([self._computed_us[index], *(each.timeStamp for each in samples)])
        most: dict[int, int] = {}
        for each in samples:
            most[each.pid] = max(most.get(each.pid, 0), int(each.smUtil))
        return most


def _owned(
    device: Device, listed: dict[int, int | None], tree: ProcessTree, busy: dict[int, int] | None
) -> dict[str, int | None]:
    """Return the fields of a sample on the device's processes: the server's, and those of others.

    The fields of others are left out if bench cannot distinguish them from the server's.
    """
    ours = tree.among(listed.keys() | (busy or {}).keys())
    ours_among = None if ours is None else ours & listed.keys()
    process_bytes = total(listed[pid] for pid in ours_among) if ours_among else None
    if ours_among is None:
        device.note("process_memory", "the server's processes are out of sight, so none counts as its own")
    elif ours_among and process_bytes is None:
        device.note("process_memory", "NVML lists the processes without their memory")
    elif listed and not ours_among:
        note = "NVML listed processes, but none of the server's (in a container the pids differ)"
        device.note("process_memory", note)
    # In a pid namespace of its own, bench's pids are not the driver's.
    if not ours_among and pid_namespace() != _FIRST_PID_NAMESPACE:
        note = "in a container, other programs' processes cannot be told from the server's"
        device.note("foreign_processes", note)
        return {"process_bytes": process_bytes}
    if ours_among is None and listed:
        note = "other programs' processes cannot be told from the server's, which are out of sight"
        device.note("foreign_processes", note)
        return {"process_bytes": process_bytes}
    foreign = listed.keys() - (ours_among or set())
    foreign_bytes = total(listed[pid] for pid in foreign)
    at_work = None if busy is None else max((busy[pid] for pid in busy.keys() - (ours or set())), default=0)
    return {
        "process_bytes": process_bytes,
        "foreign_processes": len(foreign),
        "foreign_bytes": foreign_bytes,
        "foreign_busy_pct": at_work,
    }


def _memory_by_pid(processes: Iterable[Any]) -> dict[int, int | None]:
    """Add up the memory of each process, which may be listed once for each of its GPU instances."""
    bytes_by_pid: dict[int, int | None] = {}
    for process in processes:
        bytes_by_pid[process.pid] = total((bytes_by_pid.get(process.pid, 0), process.usedGpuMemory))
    return bytes_by_pid
