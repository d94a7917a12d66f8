"""Judge whether the machine is fit to measure: before each start and cell, and over each cell's window.

What it finds makes a cell suspect; guard=strict refuses the cell, or makes it invalid if it is from outside.
What bench cannot know, such as the load of others beside a server that is out of sight, is no finding.
"""

import os
import resource
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Literal, NamedTuple, Protocol

import psutil

from serving_bench.harness.contracts import (
    FROM_OUTSIDE,
    LOOK_S,
    Fact,
    GuardFinding,
    GuardMode,
    Load,
    LoadSummary,
    Unfit,
    Validity,
    because,
    throttle_names,
)
from serving_bench.harness.errors import UnfitError
from serving_bench.harness.sampling import programs
from serving_bench.harness.sampling.device_sample import DeviceSample
from serving_bench.harness.sampling.host import HostSample
from serving_bench.harness.sampling.sampling import Memory, Use, tolerance_bytes

# The longest wait as a share of all that a run may wait; and the longest one after a wait in vain, so that a
# lasting cause does not delay every cell.
WAIT_SHARE = 0.25
WAIT_AGAIN_S = 2.0
STEAL_PCT = 5.0
SWAPPED_BYTES = 16 << 20
# The machine is short of memory if less than this share is free, or if programs waited for memory for more
# than this share of the last 10 s (the `some` line of Linux's pressure stall information).
FREE_SHARE = 0.05
PRESSURE_PCT = 5.0
MEMORY_PRESSURE = Path("/proc/pressure/memory")
LOW_DISK_BYTES = 1 << 30
LOW_FILES = 4096
# The share of a window's samples in which NVML gave a reason for lower clocks.
THROTTLED_SHARE = 0.05
# Clocks are low below this share of their median in earlier windows of the same deployment and load.
LOW_CLOCK_SHARE = 0.95
# A desktop that only draws uses less of a device.
FOREIGN_BUSY_PCT = 5
# A device that told its memory before is lost after this many samples without it.
_LOST_AFTER = 3

# What may end by itself, and disturbs measurements until then.
_PASSING = ("foreign_load", "foreign_process", "steal", "swap", "throttled")


class Cause(NamedTuple):
    """What makes the machine unfit; `share`: of the processor or of the samples, 0 where there is none."""

    kind: Unfit
    fact: Fact
    share: float = 0.0


@dataclass(frozen=True)
class Seen:
    """The samples of one span of time, in order, the cores of this machine, and the server's pids."""

    host: Sequence[HostSample]
    device: Sequence[DeviceSample]
    cores: int = os.cpu_count() or 1
    server: frozenset[int] = frozenset()


class Start(Protocol):
    """A start whose server runs."""

    def seen(self, since_ns: int, until_ns: int) -> Seen:
        """Return the samples from `since_ns` to before `until_ns`."""

    def check(self) -> None:
        """Raise ServerError if the server has exited."""


class Show(Protocol):
    """Shows a warning, and what waits for the machine to become fit."""

    def line(self, text: str) -> None: ...
    def waits(self, what: str, unfit: str) -> None: ...


class Guard:
    """The guard of one run. It remembers what is usual: the memory before the first start, and the clocks."""

    def __init__(self, mode: GuardMode, wait_s: float, show: Show) -> None:
        self.mode = mode
        self._show = show
        self._longest_s = WAIT_SHARE * wait_s
        self._left_s = wait_s  # of all waits of the run
        self._was_in_vain = {"machine": False, "memory": False}  # whether the last wait for it was
        self._first_bytes: dict[str, int] = {}
        self._clocks_mhz: dict[tuple[str, int], list[float]] = {}
        self._of_start: tuple[GuardFinding, ...] = ()
        self._devices: tuple[int, ...] = ()
        self._told: set[int] = set()  # devices that have told their memory
        self._standing: dict[int, int] = {}  # how many other processes a device had at the first look
        self._at_work: set[int] = set()  # devices that computed in the last look, when the server was idle
        self._scan: programs.Scan | None = None  # at the beginning of the last look
        self._again = ""  # the command that continues the run
        self._has_warned = False

    def before_run(self, again: str, *, is_attached: bool = False) -> None:
        """Warn before anything is started if other programs are busy, and say what to do. Blocks for a look.

        `again`: the command that continues the run; if it is empty, the warning gives no advice. With
        `is_attached` it does not look: the busy program may be the server.
        """
        self._again = again
        if self.mode == "off" or is_attached:
            return
        busy = programs.busy_now()
        if busy and (warning := self.warning(self._findings([Cause("foreign_load", busy)], "before"))):
            self._show.line(warning)

    def warning(self, findings: Sequence[GuardFinding]) -> str | None:
        """Return, once in a run, what disturbs it, what that leads to and what to do; else None."""
        kinds = _PASSING if self.mode == "strict" else FROM_OUTSIDE
        words = "; ".join(str(each.fact) for each in findings if each.kind in kinds)
        if not words or self._has_warned:
            return None
        self._has_warned = True
        leads = "A verdict is unlikely while that lasts, since disturbed repeats name no winner"
        goes_on, then = "bench goes on anyway", "then measures anyway"
        if self.mode == "strict":
            leads = "While that lasts guard=strict refuses to measure"
            goes_on, then = "What is refused fails", "only then refuses"
        warning = f"the machine is not fit: {words}. {leads}"
        if not self._again:
            return warning
        return (
            f"{warning}. {goes_on}: press Ctrl-C now, and {self._again} once it is idle; or begin with "
            f"guard.wait=20min, so that bench waits for up to {WAIT_SHARE * 20:.0f} min at a time and {then}"
        )

    def before_start(
        self, name: str, memory: Memory, devices: Sequence[int], *, is_attached: bool = False
    ) -> Use:
        """Return what is in use before the start with this name.

        If a device's memory is not freed, or the machine is short of its own, wait for a while. If it
        stays so, mark all cells of the start, or with guard=strict raise UnfitError. With `is_attached`
        do not wait: the memory of a running server is in use all the time.
        """
        self._of_start, self._devices = (), tuple(devices)
        idle = memory.measure()
        if self.mode == "off" or is_attached or idle.used_bytes is None:
            return idle
        first = self._first_bytes.setdefault(memory.kind, idle.used_bytes)
        cause = short_of_memory() if memory.kind == "host" else not_freed(idle.used_bytes, first)
        if cause is None:
            return idle
        wait_s, began_s = self._next_wait_s("memory"), time.monotonic()
        self._show.waits(name, f"up to {wait_s:.0f} s: {cause.fact}")
        is_back = wait_for_host(wait_s) if memory.kind == "host" else memory.wait(first, wait_s)[0]
        self._has_waited("memory", began_s, in_vain=not is_back)
        if is_back:
            return memory.measure()
        self._of_start = self._findings([cause], "before")
        if refusal := self.refusal(self._of_start):
            raise UnfitError(str(refusal), self._of_start)
        return idle

    def before_cell(self, name: str, start: Start, load: Load, directory: Path) -> tuple[GuardFinding, ...]:
        """Return what is unfit before the cell with this name. Raises what start.check raises.

        Blocks for one look, and then for a while if something is unfit that may pass.
        """
        if self.mode == "off":
            return ()
        lasting = (*self._of_start, *self._findings(system_causes(load, directory), "before"))
        if lasting and self.mode == "strict":
            return lasting
        return (*lasting, *self._findings(self._wait_for(name, start), "before"))

    def refusal(self, findings: Sequence[GuardFinding]) -> Fact | None:
        """Return why what was found before a cell forbids measuring it; None if it does not."""
        refused = tuple(finding.fact for finding in findings if finding.validity == "invalid")
        return because("not_fit", facts=refused) if refused else None

    def during(self, start: Start, summary: LoadSummary, traffic: str) -> tuple[GuardFinding, ...]:
        """Return what made the machine unfit in a cell's window.

        `traffic` names its deployment and load: windows with the same name should have the same clocks.
        """
        if self.mode == "off":
            return ()
        seen = start.seen(summary.window_start_ns, summary.window_end_ns)
        causes = self._named(host_causes(seen, summary.cores_here), seen.server)
        causes += self._device_causes(seen)
        for device, clock in clocks_mhz(seen.device).items():
            earlier = self._clocks_mhz.setdefault((traffic, device), [])
            if earlier and clock < LOW_CLOCK_SHARE * median(earlier):
                fact = because("clocks_low", device=device, mhz=clock, usual_mhz=median(earlier))
                causes.append(Cause("clocks_low", fact))
            earlier.append(clock)
        return self._findings(causes, "during")

    def _next_wait_s(self, what: str) -> float:
        return min(WAIT_AGAIN_S if self._was_in_vain[what] else self._longest_s, self._left_s)

    def _has_waited(self, what: str, began_s: float, *, in_vain: bool) -> None:
        self._was_in_vain[what] = in_vain
        self._left_s = max(0.0, self._left_s - (time.monotonic() - began_s))

    def _wait_for(self, name: str, start: Start) -> list[Cause]:
        wait_s = self._next_wait_s("machine")
        began_s: float | None = None  # of the wait, which follows the first look
        while True:
            self._scan = programs.scan()
            since_ns = time.monotonic_ns()
            time.sleep(LOOK_S)
            start.check()
            seen = start.seen(since_ns, time.monotonic_ns())
            self._look_at(seen.device)
            causes = [*self._named(host_causes(seen, 0.0), seen.server), *self._device_causes(seen)]
            now_s, passing = time.monotonic(), [cause for cause in causes if cause.kind != "idle_process"]
            if not passing or wait_s == 0.0 or (began_s is not None and now_s >= began_s + wait_s):
                if began_s is not None:
                    self._has_waited("machine", began_s, in_vain=bool(passing))
                return causes
            if began_s is None:
                unfit = "; ".join(str(cause.fact) for cause in passing)
                self._show.waits(name, f"up to {wait_s:.0f} s: {unfit}")
                began_s = now_s

    def _named(self, causes: Iterable[Cause], server: frozenset[int]) -> list[Cause]:
        """Return the causes, a foreign load with the programs that were busiest since the look."""
        by_kind = {cause.kind: cause for cause in causes}
        if self._scan and (cause := by_kind.get("foreign_load")):
            fact = programs.named(cause.share, self._scan, programs.scan(), server)
            by_kind["foreign_load"] = cause._replace(fact=fact)
        return [*by_kind.values()]

    def _device_causes(self, seen: Seen) -> Iterator[Cause]:
        for device in self._devices:
            rows = [row for row in seen.device if row.device == device]
            tells = [row.used_bytes is not None for row in rows]
            if any(tells):
                self._told.add(device)
            if not rows:
                yield Cause("device_lost", because("no_sample", device=device))
            elif device in self._told and not any(tells[-_LOST_AFTER:]):
                yield Cause("device_lost", because("memory_untold", device=device))
            else:
                yield from others_on(
                    device, rows, self._standing.get(device, 0), may_work=device in self._at_work
                )
                yield from throttled(device, rows)

    def _look_at(self, rows: Sequence[DeviceSample]) -> None:
        """Remember what the devices have and do while the server is idle."""
        for row in rows:
            self._standing.setdefault(row.device, row.foreign_processes or 0)
        last = {row.device: row.utilization_pct or 0 for row in rows}
        self._at_work = {device for device, busy_pct in last.items() if busy_pct > FOREIGN_BUSY_PCT}

    def _findings(
        self, causes: Iterable[Cause], when: Literal["before", "during"]
    ) -> tuple[GuardFinding, ...]:
        validity: Mapping[bool, Validity] = {True: "invalid", False: "suspect"}
        return tuple(
            GuardFinding(*cause[:2], when, validity[self._refuses(cause, when)], cause.share)
            for cause in causes
        )

    def _refuses(self, cause: Cause, when: Literal["before", "during"]) -> bool:
        is_refused = cause.kind in FROM_OUTSIDE or (when == "before" and cause.kind != "idle_process")
        return self.mode == "strict" and is_refused


def not_freed(used_bytes: int, first_bytes: int) -> Cause | None:
    """Return that clearly more memory of the devices is in use than before the first start."""
    above_gib = (used_bytes - first_bytes) / 2**30
    is_freed = used_bytes <= first_bytes + tolerance_bytes(first_bytes)
    fact = because("memory_not_back", above_gib=above_gib, memory="device")
    return None if is_freed else Cause("memory_not_back", fact)


def short_of_memory() -> Cause | None:
    """Return that the machine's own memory is short; what else is in use of it changes no result."""
    memory = psutil.virtual_memory()
    if memory.available < FREE_SHARE * memory.total:
        sizes = {"free_gib": memory.available / 2**30, "of_gib": memory.total / 2**30}
        return Cause("memory_not_back", because("memory_short", **sizes))
    with suppress(OSError, ValueError, IndexError):  # Linux 4.20 and later, where it is on
        waited_pct = float(MEMORY_PRESSURE.read_text().split("avg10=")[1].split()[0])
        if waited_pct > PRESSURE_PCT:
            return Cause("memory_not_back", because("memory_pressure", percent=waited_pct))
    return None


def wait_for_host(limit_s: float) -> bool:
    """Wait until the machine is no longer short of memory. Return whether that came within the limit."""
    deadline_s = time.monotonic() + limit_s
    while short_of_memory():
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(0.1)
    return True


def system_causes(load: Load, directory: Path) -> Iterator[Cause]:
    """Yield what no waiting cures: a full disk, a low limit of open files."""
    free = shutil.disk_usage(directory).free
    if free < LOW_DISK_BYTES:
        yield Cause("disk_low", because("disk_low", free_mib=free / 2**20, directory=str(directory)))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Whether they suffice for a closed loop is known before the run (harness/load/limits.py).
    if load.concurrency is None and hard != resource.RLIM_INFINITY and hard < LOW_FILES:
        yield Cause("few_files", because("few_files", files=hard))


def host_causes(seen: Seen, client: float | None) -> Iterator[Cause]:
    """Yield what is wrong with the machine: others' load, stolen time, swapping.

    `client`: the cores that the load processes used; None: not known.
    """
    share = foreign_share(seen, client)
    if fact := programs.too_much(share):
        yield Cause("foreign_load", fact, share or 0.0)
    stolen = [row.machine_steal_pct for row in seen.host if row.machine_steal_pct is not None]
    if stolen and mean(stolen) > STEAL_PCT:
        yield Cause("steal", because("stolen", percent=mean(stolen)), mean(stolen) / 100)
    swapped = [row.machine_swapped_bytes for row in seen.host if row.machine_swapped_bytes is not None]
    if swapped and swapped[-1] - swapped[0] > SWAPPED_BYTES:
        yield Cause("swap", because("swapped", mib=(swapped[-1] - swapped[0]) / 2**20))


def foreign_share(seen: Seen, client: float | None) -> float | None:
    """Return the share of the processor that neither the server nor the load used, None if not known."""
    # The first row's share is of the time before it, when the server may have been at work.
    busy = [row.machine_cpu_pct for row in seen.host[1:] if row.machine_cpu_pct is not None]
    server = [(row.t_ns, row.cpu_s) for row in seen.host if row.cpu_s is not None]
    if client is None or not busy or len(server) < 2 or server[0][0] == server[-1][0]:
        return None
    (begin_ns, begin_s), (end_ns, end_s) = server[0], server[-1]
    server_cores = (end_s - begin_s) / ((end_ns - begin_ns) / 1e9)
    return mean(busy) / 100 - (server_cores + client) / seen.cores


def others_on(device: int, rows: Sequence[DeviceSample], standing: int, *, may_work: bool) -> Iterator[Cause]:
    """Yield the processes of others, without as many as were `standing` there at the first look and are idle.

    `may_work`: the device computed while the server was idle. It counts if NVML does not tell who computes.
    """
    most = max(rows, key=lambda row: row.foreign_processes or 0)
    shares_pct = [row.foreign_busy_pct for row in rows if row.foreign_busy_pct is not None]
    is_busy = mean(shares_pct) > FOREIGN_BUSY_PCT if shares_pct else may_work
    is_new = (most.foreign_processes or 0) > standing
    if not most.foreign_processes or not (is_new or is_busy or not shares_pct):
        return
    about = {
        "were": "another process was" if most.foreign_processes == 1 else "other processes were",
        "device": device,
        "holding": f" with {most.foreign_bytes / 2**30:.2f} GiB" if most.foreign_bytes is not None else "",
    }
    if shares_pct and is_busy:
        yield Cause("foreign_process", because("foreign_at_work", **about, percent=mean(shares_pct)))
    else:
        kind: Unfit = "foreign_process" if is_new or is_busy else "idle_process"
        yield Cause(kind, because(kind, **about))


def throttled(device: int, rows: Sequence[DeviceSample]) -> Iterator[Cause]:
    reasons = [throttle_names(row.throttle_reasons) for row in rows if row.throttle_reasons is not None]
    throttles = [names for names in reasons if names]
    if len(throttles) > THROTTLED_SHARE * len(reasons):
        names = ", ".join(dict.fromkeys(name for each in throttles for name in each))
        share = len(throttles) / len(reasons)
        yield Cause(
            "throttled", because("throttled", device=device, causes=names, percent=100 * share), share
        )


def clocks_mhz(rows: Sequence[DeviceSample]) -> dict[int, float]:
    """Return each device's mean SM clock over the samples in which it computed."""
    by_device: dict[int, list[int]] = {}
    for row in rows:
        if row.sm_clock_mhz is not None and (row.utilization_pct or 0) > 0:
            by_device.setdefault(row.device, []).append(row.sm_clock_mhz)
    return {device: mean(clocks) for device, clocks in by_device.items()}
