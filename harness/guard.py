"""Is the machine fit to measure: before each start and cell, and over each cell's window.

Looks at what the samplers of a start have seen, the disk and the limit of open files; reads no device itself.
What it finds makes a cell suspect, or with guard=strict refuses it or makes it invalid. What cannot be known
(the load of others beside a server that is out of sight) is no finding.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Literal, Protocol

from harness.contracts import (
    GuardFinding,
    GuardMode,
    Load,
    LoadSummary,
    throttle_names,
)
from harness.device_sample import DeviceSample
from harness.errors import UnfitError
from harness.host import HostSample

# The longest wait after one that was in vain, until a look finds nothing: what lasts is not waited for each
# time.
WAIT_AGAIN_S = 3.0
# A look before a cell: this long, with server and load idle.
LOOK_S = 0.5
# Of all the machine's cores. Half a server's core on 8 is 6 %; 15 % change a result by as much.
FOREIGN_SHARE = 0.15
STEAL_PCT = 5.0
SWAPPED_BYTES = 16 << 20
LOW_DISK_BYTES = 1 << 30
LOW_FILES = 4096
# Of a window's samples with a reason of NVML's that lowers the clocks.
THROTTLED_SHARE = 0.05
# Of the median over this run's other windows on that device.
LOW_CLOCK_SHARE = 0.95

When = Literal["before", "during"]


class Samples(Protocol):
    """Who has the samples of a start so far (harness/watch.py)."""

    def host_rows(self, since_ns: int, until_ns: int) -> Sequence[HostSample]: ...
    def device_rows(self, since_ns: int, until_ns: int) -> Sequence[DeviceSample]: ...


@dataclass(frozen=True)
class Seen:
    """Samples of one span of time, in order, and the cores of this machine."""

    host: Sequence[HostSample]
    device: Sequence[DeviceSample]
    cores: int


class Guard:
    """Looks after one run. Keeps what is usual on this machine: memory before the first start, clocks of the
    windows so far. `wait_s`: see GuardTerms."""

    def __init__(self, mode: GuardMode, wait_s: float) -> None:
        self.mode = mode
        self.wait_s = wait_s
        self._was_in_vain = False
        self._cores = os.cpu_count() or 1
        self._first_bytes: dict[str, int] = {}
        self._clocks_mhz: dict[int, list[float]] = {}
        self._of_start: tuple[GuardFinding, ...] = ()

    def is_memory_back(self, kind: str, used_bytes: int | None) -> bool:
        """Whether no more is in use than before the run's first start of that kind (`host`, `device`); the
        first call of a kind sets that."""
        if used_bytes is None:
            return True
        first = self._first_bytes.setdefault(kind, used_bytes)
        return used_bytes <= first + memory_tolerance_bytes(first)

    def first_bytes(self, kind: str) -> int | None:
        return self._first_bytes.get(kind)

    def before_start(self, kind: str, used_bytes: int | None) -> None:
        """Judge the memory in use before a server is started, after it was waited for. What is found marks
        all cells of the start; raises UnfitError with guard=strict."""
        self._of_start = ()
        if self.mode == "off" or self.is_memory_back(kind, used_bytes) or used_bytes is None:
            return
        above = used_bytes - self._first_bytes[kind]
        text = f"{above / 2**30:.2f} GiB more {kind} memory was in use than before the run's first start"
        self._of_start = (self._finding("memory_not_back", text, "before"),)
        if self.mode == "strict":
            raise UnfitError(_refusal(self._of_start))

    def before_cell(
        self, samples: Samples, load: Load, directory: Path, tell: Callable[[str], None]
    ) -> tuple[GuardFinding, ...]:
        """What is unfit before a cell that is stored in `directory`. Blocks: for one look, and for up to
        wait_s while what may pass has not. `tell` gets what is waited for, once."""
        if self.mode == "off":
            return ()
        lasting = [*self._of_start, *self._of_system(load, directory)]
        passing = self._wait_for(samples, tell) if not (lasting and self.mode == "strict") else []
        return (*lasting, *passing)

    def refusal(self, found: Sequence[GuardFinding]) -> str | None:
        """A sentence where what was found before a cell keeps it from being measured."""
        return _refusal(found) if found and self.mode == "strict" else None

    def during(self, samples: Samples, summary: LoadSummary) -> tuple[GuardFinding, ...]:
        """What made the machine unfit in a cell's window."""
        if self.mode == "off":
            return ()
        span = (summary.window_start_ns, summary.window_end_ns)
        seen = Seen(samples.host_rows(*span), samples.device_rows(*span), self._cores)
        usual = {device: median(clocks) for device, clocks in self._clocks_mhz.items()}
        found = [
            *host_findings(seen, client_cores(summary), "during"),
            *device_findings(seen.device, "during"),
            *clock_findings(seen.device, usual),
        ]
        for device, clock in clocks_mhz(seen.device).items():
            self._clocks_mhz.setdefault(device, []).append(clock)
        return tuple(self._finding(each.kind, each.text, each.when) for each in found)

    def _of_system(self, load: Load, directory: Path) -> list[GuardFinding]:
        free = shutil.disk_usage(directory).free
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        found = []
        if free < LOW_DISK_BYTES:
            text = f"{free / 2**20:.0f} MiB are free for {directory}"
            found.append(self._finding("disk_low", text, "before"))
        # Of a closed loop it is known before the run whether they suffice (harness/limits.py).
        if load.concurrency is None and hard != resource.RLIM_INFINITY and hard < LOW_FILES:
            text = f"a process may have {hard} open files, so an open loop no more connections"
            found.append(self._finding("few_files", text, "before"))
        return found

    def _wait_for(self, samples: Samples, tell: Callable[[str], None]) -> list[GuardFinding]:
        wait_s = min(WAIT_AGAIN_S, self.wait_s) if self._was_in_vain else self.wait_s
        deadline = time.monotonic() + wait_s
        told = False
        while True:
            since_ns = time.monotonic_ns()
            time.sleep(LOOK_S)
            span = (since_ns, time.monotonic_ns())
            seen = Seen(samples.host_rows(*span), samples.device_rows(*span), self._cores)
            found = [*host_findings(seen, 0.0, "before"), *device_findings(seen.device, "before")]
            if not found or time.monotonic() >= deadline:
                self._was_in_vain = bool(found)
                return [self._finding(each.kind, each.text, each.when) for each in found]
            if not told:
                tell(f"up to {wait_s:.0f} s: {sentence(found)}")
                told = True

    def _finding(self, kind: str, text: str, when: When) -> GuardFinding:
        return GuardFinding(kind, text, when, "invalid" if self.mode == "strict" else "suspect")


def memory_tolerance_bytes(baseline_bytes: int) -> int:
    """What memory may be above a baseline and count as back there: 2 %, 128 MiB at least."""
    return max(128 << 20, int(0.02 * baseline_bytes))


def _refusal(found: Sequence[GuardFinding]) -> str:
    return f"the machine was not fit: {sentence(found)}; guard=mark measures all the same"


def sentence(found: Sequence[GuardFinding]) -> str:
    return "; ".join(finding.text for finding in found)


def client_cores(summary: LoadSummary) -> float:
    """Cores that the load processes of this machine kept busy, on average over the load."""
    away_s = sum(worker.cpu_s for worker in summary.workers if worker.offset_uncertainty_ns)
    return (summary.cpu_s - away_s) / max((summary.ended_ns - summary.started_ns) / 1e9, 1e-9)


def host_findings(seen: Seen, client: float, when: When) -> Iterator[GuardFinding]:
    """Of the machine: others' load, stolen time, swapping. `client`: cores that the load used."""
    share = foreign_share(seen, client)
    if share is not None and share > FOREIGN_SHARE:
        text = f"other programs used {100 * share:.0f} % of the processor"
        yield GuardFinding("foreign_load", text, when, "suspect")
    stolen = [row.machine_steal_pct for row in seen.host if row.machine_steal_pct is not None]
    if stolen and mean(stolen) > STEAL_PCT:
        text = f"{mean(stolen):.0f} % of the processor went to other guests of its host"
        yield GuardFinding("steal", text, when, "suspect")
    swapped = [row.machine_swapped_bytes for row in seen.host if row.machine_swapped_bytes is not None]
    if swapped and swapped[-1] - swapped[0] > SWAPPED_BYTES:
        text = f"{(swapped[-1] - swapped[0]) / 2**20:.0f} MiB went in or out of swap"
        yield GuardFinding("swap", text, when, "suspect")


def foreign_share(seen: Seen, client: float) -> float | None:
    """Share of the processor that neither the server's processes nor the load used; None where the server's
    are not seen."""
    busy = [row.machine_cpu_pct for row in seen.host if row.machine_cpu_pct is not None]
    server = [(row.t_ns, row.cpu_s) for row in seen.host if row.cpu_s is not None]
    if not busy or len(server) < 2:
        return None
    (begin_ns, begin_s), (end_ns, end_s) = server[0], server[-1]
    server_cores = (end_s - begin_s) / ((end_ns - begin_ns) / 1e9)
    return mean(busy) / 100 - (server_cores + client) / seen.cores


def device_findings(rows: Sequence[DeviceSample], when: When) -> Iterator[GuardFinding]:
    """Of the devices: others on it, throttling, and whether one was lost."""
    for device in sorted({row.device for row in rows}):
        own = [row for row in rows if row.device == device]
        if all(row.used_bytes is None for row in own[-3:]):
            yield GuardFinding("device_lost", f"device {device} no longer tells its memory", when, "suspect")
            continue
        yield from _others_on(device, own, when)
        yield from _throttled(device, own, when)


def _others_on(device: int, rows: Sequence[DeviceSample], when: When) -> Iterator[GuardFinding]:
    most = max(rows, key=lambda row: row.foreign_processes or 0)
    if most.foreign_processes:
        held = f" with {most.foreign_bytes / 2**30:.2f} GiB" if most.foreign_bytes is not None else ""
        were = "another process was" if most.foreign_processes == 1 else "other processes were"
        text = f"{were} on device {device}{held}"
        yield GuardFinding("foreign_process", text, when, "suspect")


def _throttled(device: int, rows: Sequence[DeviceSample], when: When) -> Iterator[GuardFinding]:
    known = [throttle_names(row.throttle_reasons) for row in rows if row.throttle_reasons is not None]
    throttled = [names for names in known if names]
    if known and len(throttled) > THROTTLED_SHARE * len(known):
        names = ", ".join(dict.fromkeys(name for each in throttled for name in each))
        share = 100 * len(throttled) / len(known)
        text = f"device {device} was throttled ({names}) in {share:.0f} % of the samples"
        yield GuardFinding("throttled", text, when, "suspect")


def clocks_mhz(rows: Sequence[DeviceSample]) -> dict[int, float]:
    """Mean SM clock of each device's samples in which it computed."""
    found: dict[int, list[int]] = {}
    for row in rows:
        if row.sm_clock_mhz is not None and (row.utilization_pct or 0) > 0:
            found.setdefault(row.device, []).append(row.sm_clock_mhz)
    return {device: mean(clocks) for device, clocks in found.items()}


def clock_findings(rows: Sequence[DeviceSample], usual_mhz: dict[int, float]) -> Iterator[GuardFinding]:
    """Devices whose clock in a window was below the usual one."""
    for device, clock in clocks_mhz(rows).items():
        usual = usual_mhz.get(device)
        if usual is not None and clock < LOW_CLOCK_SHARE * usual:
            text = f"device {device} ran at {clock:.0f} MHz, in this run's other windows at {usual:.0f} MHz"
            yield GuardFinding("clocks_low", text, "during", "suspect")
