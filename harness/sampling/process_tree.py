"""Find a process and its descendants, and measure what they use together.

It reads /proc on Linux, which takes a sixth of psutil's time, and uses psutil elsewhere. What cannot be read
is None.
"""

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import psutil

from serving_bench.harness.contracts import Reason
from serving_bench.harness.processes.watchdog import stat_fields

# How often to look for new descendants: the names in /proc, and the parents of the new ones.
_LOOK_S = 1.0
_IS_LINUX = sys.platform.startswith("linux")
# Counters that only grow while a process runs: CPU seconds, minor and major faults.
Counters = tuple[float, int, int]


class Reading(NamedTuple):
    """One process: its own counters, and those of its children that it has waited for."""

    started: float  # tells it from a later process with the same pid
    parent: int
    is_zombie: bool
    rss_bytes: int
    threads: int
    own: Counters
    children: Counters


@dataclass(frozen=True)
class TreeReading:
    """The sums over all members, as in HostSample. All but `processes` are None once no member is left."""

    processes: int | None = None
    rss_bytes: int | None = None
    threads: int | None = None
    cpu_s: float | None = None
    minor_faults: int | None = None
    major_faults: int | None = None


class ProcessTree:
    """A process and its descendants over time. They stay members when their parent ends before them.

    It looks for new members once a second, and when `among` gets a pid that it does not know.
    """

    def __init__(self, pid: int | None) -> None:
        self._lock = threading.Lock()
        self._members: dict[int, float | None] = {} if pid is None else {pid: None}  # when each one started
        self._ever = set(self._members)  # with those that have ended
        self._strangers: set[int] = set()
        self._last: dict[tuple[int, float], Reading] = {}  # with members that have ended
        self._most: Counters = (0.0, 0, 0)
        self._look_due_s = 0.0

    @property
    def ever(self) -> frozenset[int]:
        """Return the pids of all that are or were members, as far as it has looked."""
        with self._lock:
            return frozenset(self._ever)

    def among(self, pids: set[int]) -> set[int] | None:
        """Return which of the pids are or were members (drivers list dead processes for a moment)."""
        if not self._ever:
            return None
        with self._lock:
            if pids - self._ever - self._strangers:
                self._look()
            return pids & self._ever

    def read(self) -> TreeReading:
        """Return what the living members use now, and what all members have used so far."""
        if not self._ever:
            return TreeReading()
        with self._lock:
            if time.monotonic() >= self._look_due_s:
                self._look()
            alive = {
                pid: reading
                for pid, reading in readings(self._members)
                if not reading.is_zombie and self._members[pid] in (None, reading.started)
            }
            self._last |= {(pid, reading.started): reading for pid, reading in alive.items()}
            self._members = {pid: reading.started for pid, reading in alive.items()}
            if not alive:
                return TreeReading(processes=0)
            cpu_s, minor_faults, major_faults = self._most = self._counted(alive.values())
        return TreeReading(
            processes=len(alive),
            rss_bytes=sum(reading.rss_bytes for reading in alive.values()),
            threads=sum(reading.threads for reading in alive.values()),
            cpu_s=cpu_s,
            minor_faults=minor_faults if _IS_LINUX else None,
            major_faults=major_faults if _IS_LINUX else None,
        )

    def pss_bytes(self) -> int | Reason | None:
        """Return the memory, with shared pages counted once. Takes about 10 ms per GiB."""
        if not _IS_LINUX:
            return Reason("this system does not tell PSS")
        sizes = []
        for pid in list(self._members):
            try:
                sizes.append(int(psutil.Process(pid).memory_full_info().pss))
            except psutil.AccessDenied:
                return Reason(f"that of process {pid} may be read by its user and by root only")
            except (psutil.Error, OSError):
                continue  # it ended meanwhile
        return sum(sizes) if sizes else None

    def _look(self) -> None:
        self._look_due_s = time.monotonic() + _LOOK_S
        listed = set(psutil.pids())
        self._strangers &= listed
        born = dict(readings(listed - self._strangers - self._members.keys()))
        members = dict(self._members)
        while grown := [pid for pid in born.keys() - members.keys() if born[pid].parent in members]:
            members |= {pid: born[pid].started for pid in grown}
        self._strangers |= born.keys() - members.keys()
        self._ever |= members.keys()
        self._members = members

    def _counted(self, alive: Iterable[Reading]) -> Counters:
        """Return what the tree has used so far.

        A child that has ended is in its parent's counters if the parent waited for it, and in its own last
        reading. The larger of the two sums is the better one, and neither counts anything twice.
        """
        own_reading = _added(reading.own for reading in alive)
        waited = _added(reading.children for reading in alive)
        last = _added(reading.own for reading in self._last.values())
        cpu_s, minor, major = (
            max(most, of_alive + max(of_all - of_alive, of_waited))
            for most, of_alive, of_all, of_waited in zip(self._most, own_reading, last, waited, strict=True)
        )
        return cpu_s, int(minor), int(major)


def _added(counters: Iterable[Counters]) -> list[float]:
    return [sum(values) for values in zip((0.0, 0, 0), *counters, strict=True)]


def readings(pids: Iterable[int]) -> Iterator[tuple[int, Reading]]:
    """Yield each pid with what its process uses, without those that have ended or may not be read."""
    for pid in pids:
        with suppress(psutil.Error, OSError, ValueError):
            yield pid, _read_process(pid) if _IS_LINUX else _read_portable(psutil.Process(pid))


def _read_process(pid: int) -> Reading:
    fields = stat_fields(pid)
    ticks, page_bytes = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    return Reading(
        started=float(fields[19]),
        parent=int(fields[1]),
        is_zombie=fields[0] in "ZX",
        rss_bytes=int(fields[21]) * page_bytes,
        threads=int(fields[17]),
        own=((int(fields[11]) + int(fields[12])) / ticks, int(fields[7]), int(fields[9])),
        children=((int(fields[13]) + int(fields[14])) / ticks, int(fields[8]), int(fields[10])),
    )


def _read_portable(process: psutil.Process) -> Reading:
    with process.oneshot():
        times = process.cpu_times()
        waited_s = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        return Reading(
            started=process.create_time(),
            parent=process.ppid(),
            is_zombie=process.status() == psutil.STATUS_ZOMBIE,
            rss_bytes=process.memory_info().rss,
            threads=process.num_threads(),
            own=(times.user + times.system, 0, 0),
            children=(waited_s, 0, 0),
        )
