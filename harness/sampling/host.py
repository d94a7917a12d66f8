"""Sample memory, CPU and energy of the machine and of a server's process tree over time."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from serving_bench.harness.contracts import Reason
from serving_bench.harness.sampling.process_tree import ProcessTree
from serving_bench.harness.sampling.sampling import Memory, Use

_POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class HostSample:
    """The state of the process tree and the machine at `t_ns` (CLOCK_MONOTONIC).

    The tree's fields are None without a tree or once it has gone. `cpu_s` and the faults never decrease.
    `rss_bytes` counts shared memory once for each process; `pss_bytes` is read at marks only.
    `machine_cpu_pct` and `machine_steal_pct` cover all cores since the sample before, None at marks.
    `machine_swapped_bytes` went in or out of swap since boot. `package_energy_j` is the CPU packages' energy.
    """

    t_ns: int
    rss_bytes: int | None
    cpu_s: float | None
    threads: int | None
    processes: int | None
    major_faults: int | None
    pss_bytes: int | None
    machine_available_bytes: int
    machine_cpu_pct: float | None
    minor_faults: int | None = None
    machine_steal_pct: float | None = None
    machine_swap_used_bytes: int | None = None
    machine_swapped_bytes: int | None = None
    package_energy_j: float | None = None


class PackageEnergy:
    """The sum of the energy counters of the CPU's packages (Linux's RAPL), which on most systems only root
    may read.

    `reason` says why there is no value. A counter wraps around after minutes at full power, so it must be
    read more often.
    """

    def __init__(self, root: Path = _POWERCAP) -> None:
        self.reason: str | None = None
        self._ranges_uj: dict[Path, int] = {}
        try:
            self._ranges_uj = _package_counters(root)
            if not self._ranges_uj:
                self.reason = f"this system shows no energy counter of the CPU ({root} has no package)"
        except (OSError, ValueError) as error:  # Docker hides what the links of `root` point to
            self.reason = _why_unread(error)
        self._last_uj = dict.fromkeys(self._ranges_uj, 0)
        self._total_uj = 0

    def read_j(self) -> float | None:
        try:
            for counter, range_uj in self._ranges_uj.items():
                now_uj = int(counter.read_text())
                self._total_uj += (now_uj - self._last_uj[counter]) % range_uj
                self._last_uj[counter] = now_uj
        except (OSError, ValueError) as error:
            self.reason = _why_unread(error)
        return self._total_uj / 1e6 if self.reason is None else None


def _package_counters(root: Path) -> dict[Path, int]:
    """Return the counter of each package, and where it wraps around, in microjoules."""
    # A package is a zone of the first level. It includes its parts (intel-rapl:0:0). `psys` is the whole
    # machine, and intel-rapl-mmio has the same package once more.
    zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1]
    packages = [zone for zone in zones if (zone / "name").read_text().startswith("package")]
    return {zone / "energy_uj": int((zone / "max_energy_range_uj").read_text()) for zone in packages}


def _why_unread(error: OSError | ValueError) -> str:
    if isinstance(error, PermissionError):
        return f"{error.filename} may be read by root only"
    return f"the energy counter of the CPU cannot be read: {error}"


class HostReader:
    """A reader of a process tree and the machine. `notes` collects the reasons why a field is None."""

    def __init__(self, tree: ProcessTree) -> None:
        self._tree = tree
        self._lock = threading.Lock()
        self._times: tuple[float, float, float] | None = None
        self._energy = PackageEnergy()
        self.notes: dict[str, str] = {}

    def read(self, *, is_mark: bool = False) -> list[HostSample]:
        """Take one sample. At a mark, PSS makes it 10 ms longer per GiB of the tree's memory."""
        pss = self._tree.pss_bytes() if is_mark else None
        if isinstance(pss, Reason):
            self.notes["pss"] = str(pss)
        with self._lock:
            t_ns = time.monotonic_ns()
            used = self._tree.read()
            # A mark comes at any moment, perhaps one tick of the kernel's clock after the last sample.
            cpu_pct, steal_pct = (None, None) if is_mark else self._cpu_pct()
            energy_j, swap = self._energy.read_j(), psutil.swap_memory()
        if self._energy.reason is not None:
            self.notes["package_energy"] = self._energy.reason
        return [
            HostSample(
                t_ns=t_ns,
                pss_bytes=None if isinstance(pss, Reason) else pss,
                machine_available_bytes=int(psutil.virtual_memory().available),
                machine_cpu_pct=cpu_pct,
                machine_steal_pct=steal_pct,
                machine_swap_used_bytes=swap.used,
                machine_swapped_bytes=swap.sin + swap.sout,
                package_energy_j=energy_j,
                **asdict(used),
            )
        ]

    def _cpu_pct(self) -> tuple[float | None, float | None]:
        # psutil's cpu_times_percent takes a tenth of a second for a whole one: an idle machine would be 80 %
        # busy.
        idle_s, stolen_s, total_s = _times_s()
        before, self._times = self._times, (idle_s, stolen_s or 0.0, total_s)
        if before is None or (passed_s := total_s - before[2]) <= 0:
            return None, None
        stolen_pct = None if stolen_s is None else 100.0 * (stolen_s - before[1]) / passed_s
        return max(0.0, 100.0 * (1.0 - (idle_s - before[0]) / passed_s)), stolen_pct


def memory() -> Memory:
    energy = PackageEnergy()

    def read() -> list[Use]:
        now = psutil.virtual_memory()
        energy_j = energy.read_j()
        return [Use(int(now.total - now.available), None, energy.reason, energy_j)]

    return Memory("host", read)


def _times_s() -> tuple[float, float | None, float]:
    """Return the seconds of all processors since boot: idle, stolen by other guests, all."""
    times = psutil.cpu_times()
    # Linux counts a guest's time in `user` as well.
    total_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return times.idle + getattr(times, "iowait", 0.0), getattr(times, "steal", None), total_s


def foreign_use() -> Callable[[], float | None]:
    """Return a function that returns the share of the processor which others have used since now.

    Everything counts as theirs except what this process used, and what its ended children used.
    """
    idle_s, _, total_s = _times_s()
    own_s = sum(os.times()[:4])

    def share() -> float | None:
        now_idle_s, _, now_total_s = _times_s()
        if now_total_s <= total_s:
            return None
        busy_s = (now_total_s - total_s) - (now_idle_s - idle_s)
        return max(0.0, busy_s - (sum(os.times()[:4]) - own_s)) / (now_total_s - total_s)

    return share
