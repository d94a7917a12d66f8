"""Memory and CPU of the machine and of a server's process tree, by psutil.

Knows processes by pid only, and nothing of engines or devices. What cannot be read is None.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from harness import sampling
from harness.contracts import Scalar
from harness.sampling import BaselineReturn, Sampling
from harness.watchdog import boot_id

# Finding new descendants reads every process of the machine (1 ms at 70 of them, 10 ms at several hundred).
_LOOK_FOR_CHILDREN_S = 1.0


@dataclass(frozen=True)
class HostSample:
    """The tree's and the machine's state at `t_ns` (CLOCK_MONOTONIC).

    The tree's fields are None without a tree or once it has gone (`processes` is 0 then). `cpu_s` and
    `major_faults` never decrease; what a child used within a sample's length of its end may be missing.
    `pss_bytes` is read at marks only. `machine_cpu_pct` is of all cores (100 = all busy) since the sample
    before.
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


@dataclass(frozen=True)
class _Usage:
    """What grows while a process runs: its own, and that of its children that it has waited for."""

    cpu_s: float
    children_cpu_s: float
    faults: int
    children_faults: int


@dataclass(frozen=True)
class _Reading:
    rss_bytes: int
    threads: int
    usage: _Usage


class ProcessTree:
    """A process and its descendants over time; without a pid, the machine alone.

    Descendants are looked for once a second, and stay members when their parent ends before them.
    """

    def __init__(self, pid: int | None) -> None:
        self._lock = threading.Lock()
        self._members: dict[int, psutil.Process] = {}
        self._last: dict[tuple[int, float], _Usage] = {}  # of the members that have gone, too
        self._most = (0.0, 0)
        self._has_pid = pid is not None
        self._looked_s = 0.0
        self._machine_times = (0.0, 0.0)
        if pid is not None:
            with suppress(psutil.NoSuchProcess):
                self._members[pid] = psutil.Process(pid)

    def pids(self) -> set[int]:
        """The members as last seen; cheap."""
        return set(self._members)

    def read(self, *, pss: bool = False) -> list[HostSample]:
        """One sample. With pss it takes about 10 ms per GiB of the tree's memory longer."""
        pss_bytes = self._pss_bytes() if pss else None
        with self._lock:
            return [replace(self._sample(), pss_bytes=pss_bytes)]

    def _sample(self) -> HostSample:
        t_ns = time.monotonic_ns()
        if time.monotonic() - self._looked_s >= _LOOK_FOR_CHILDREN_S:
            self._look_for_children()
        readings = self._read_members()
        if readings:
            self._most = self._total([reading.usage for reading in readings])
        return HostSample(
            t_ns=t_ns,
            rss_bytes=sum(r.rss_bytes for r in readings) if readings else None,
            cpu_s=self._most[0] if readings else None,
            threads=sum(r.threads for r in readings) if readings else None,
            processes=len(readings) if self._has_pid else None,
            major_faults=self._most[1] if readings and sys.platform.startswith("linux") else None,
            pss_bytes=None,
            machine_available_bytes=available_bytes(),
            machine_cpu_pct=self._machine_cpu_pct(),
        )

    def _look_for_children(self) -> None:
        self._looked_s = time.monotonic()
        found = dict(self._members)
        for process in self._members.values():
            with suppress(psutil.Error):
                found |= {child.pid: child for child in process.children(recursive=True)}
        self._members = found

    def _read_members(self) -> list[_Reading]:
        readings, alive = [], {}
        for pid, process in self._members.items():
            with suppress(psutil.Error, OSError, ValueError):
                reading = _read_process(process)
                if reading is None:
                    continue
                self._last[pid, process.create_time()] = reading.usage
                readings.append(reading)
                alive[pid] = process
        self._members = alive
        return readings

    def _total(self, alive: list[_Usage]) -> tuple[float, int]:
        """CPU seconds and major faults of the tree so far.

        An ended child is in its parent's sum if that one waited for it, and in our last reading of it; the
        larger of the two sums is the better account, and neither counts anything twice.
        """
        last = self._last.values()
        own_cpu_s, own_faults = sum(u.cpu_s for u in alive), sum(u.faults for u in alive)
        gone_cpu_s = sum(u.cpu_s for u in last) - own_cpu_s
        gone_faults = sum(u.faults for u in last) - own_faults
        return (
            max(self._most[0], own_cpu_s + max(gone_cpu_s, sum(u.children_cpu_s for u in alive))),
            max(self._most[1], own_faults + max(gone_faults, sum(u.children_faults for u in alive))),
        )

    def _pss_bytes(self) -> int | None:
        """None where the system does not tell, or a member ended meanwhile."""
        if not self._members or not sys.platform.startswith("linux"):
            return None
        try:
            return sum(int(p.memory_full_info().pss) for p in list(self._members.values()))
        except (psutil.Error, OSError):
            return None

    def _machine_cpu_pct(self) -> float | None:
        times = psutil.cpu_times()
        idle_s = times.idle + getattr(times, "iowait", 0.0)
        # Linux counts a guest's time in `user` as well.
        total_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        before_idle_s, before_total_s = self._machine_times
        self._machine_times = (idle_s, total_s)
        if not before_total_s or total_s <= before_total_s:
            return None
        return max(0.0, 100.0 * (1.0 - (idle_s - before_idle_s) / (total_s - before_total_s)))


def _read_process(process: psutil.Process) -> _Reading | None:
    """None for a zombie; raises psutil.NoSuchProcess where it has gone."""
    with process.oneshot():
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return None
        times = process.cpu_times()
        faults, children_faults = _major_faults(process.pid)
        usage = _Usage(
            cpu_s=times.user + times.system,
            children_cpu_s=times.children_user + times.children_system,
            faults=faults,
            children_faults=children_faults,
        )
        return _Reading(process.memory_info().rss, process.num_threads(), usage)


def _major_faults(pid: int) -> tuple[int, int]:
    """Of the process and of its waited-for children; 0 where the system does not tell (see HostSample)."""
    if not sys.platform.startswith("linux"):
        return 0, 0
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return int(fields[9]), int(fields[10])


def sample_host(tree: ProcessTree, hz: float = 10.0) -> Sampling[HostSample]:
    """A sampler of the tree and the machine, to be entered with `with`; its marks read PSS."""
    return Sampling(tree.read, hz, read_at_mark=lambda: tree.read(pss=True))


def available_bytes() -> int:
    """Memory that a new program could use without swapping, as the system estimates it."""
    return int(psutil.virtual_memory().available)


def used_bytes() -> int:
    """Total less available."""
    memory = psutil.virtual_memory()
    return int(memory.total - memory.available)


def baseline_bytes(hz: float = 10.0, duration_s: float = 1.0) -> int:
    """The machine's used memory, median over duration_s. Blocks."""
    return sampling.median_bytes(used_bytes, hz, duration_s) or 0


def wait_for_baseline(baseline: int, tolerance_bytes: int, timeout_s: float) -> BaselineReturn:
    """Wait until the machine's used memory is back at the baseline. Blocks for up to timeout_s."""
    return sampling.wait_until_back(used_bytes, baseline, tolerance_bytes, timeout_s)


def machine_facts() -> dict[str, Scalar]:
    """What the machine is, and its load now."""
    uname = platform.uname()
    return {
        "os": _os_name(),
        "kernel": f"{uname.system} {uname.release}",
        "architecture": uname.machine,
        "cpu_model": _cpu_model(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": psutil.cpu_count(logical=True),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": psutil.virtual_memory().total,
        "swap_bytes": psutil.swap_memory().total,
        "boot_id": boot_id(),
        "load_1min": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform()


def _cpu_model() -> str | None:
    with suppress(OSError):
        return _value_of("model name", Path("/proc/cpuinfo").read_text().splitlines())
    return platform.processor() or None


def _value_of(name: str, lines: Iterable[str]) -> str | None:
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
