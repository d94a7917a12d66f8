"""Whose processor time a window's was: the server's, the client's, or that of other programs.

Draws nothing and judges nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd

from harness.contracts import LOOK_S, throttle_names
from harness.store.store import StartRecord
from reports.data.cells import Cell, Group
from reports.data.run import Run, itself, of_start, once_for

# At ten a second: over 0.2 s the processor's clock, which counts in 10 ms, is within 0.05 of a core.
IDLE_SAMPLES = 3


def foreign_share(run: Run, cell: Cell) -> float | None:
    """Share of the machine's processor that neither the server's processes nor the load process used in the
    window; None where one of the three, or the number of cores, is not known."""
    cores, used = _cores(run.record.environment), server_cores(run, cell)
    if not cores or used is None or cell.client_cores_here is None:
        return None
    machine = run.window_samples(run.host, cell)["machine_cpu_pct"].dropna().astype(float)
    if not len(machine):
        return None
    return float(machine.mean()) / 100 - (used + cell.client_cores_here) / cores


@once_for(attrgetter("number"))
def server_cores(run: Run, cell: Cell) -> float | None:
    """Cores that the server's processes kept busy in the window, on average; None where not sampled."""
    samples = run.window_samples(run.host, cell)
    if not len(samples):
        return None
    t_ns, cpu_s = (samples[name].to_numpy(dtype=float, na_value=np.nan) for name in ("t_ns", "cpu_s"))
    t_ns, cpu_s = t_ns[~np.isnan(cpu_s)], cpu_s[~np.isnan(cpu_s)]
    return float((cpu_s[-1] - cpu_s[0]) / ((t_ns[-1] - t_ns[0]) / 1e9)) if len(cpu_s) > 1 else None


def idle_cores(run: Run, record: StartRecord) -> float | None:
    """Cores that the server's processes kept busy while nothing was asked, in the guard's look before each
    cell or after it: the least of such times; None where none was sampled. Some servers spin while they
    wait."""
    ended = [cell for cell in run.planned_cells if cell.summary and run.start_of(cell) is record]
    begins = [cell.summary.started_ns for cell in ended if cell.summary]
    found = []
    for cell in ended:
        assert cell.summary is not None
        after_ns = cell.summary.ended_ns
        before_ns = min((ns for ns in [*begins, record.stopped_ns or after_ns] if ns > after_ns), default=0)
        if (cores := _cores_between(run, record.name, after_ns, before_ns)) is not None:
            found.append(cores)
    for end_ns in _looked_until_ns(ended, record):
        if (cores := _cores_between(run, record.name, end_ns - round(LOOK_S * 1e9), end_ns)) is not None:
            found.append(cores)
    return min(found, default=None)


def _looked_until_ns(cells: Sequence[Cell], record: StartRecord) -> list[int]:
    """When the guard ended its look before each of a start's cells; none where there was no guard."""
    guarded = {f"cell {cell.number:03d} warm-up" for cell in cells if cell.record and cell.record.guard_mode}
    return [phase.t_ns for phase in record.phases if phase.name in guarded]


def _cores_between(run: Run, start: str, begin_ns: int, end_ns: int) -> float | None:
    if run.host is None:
        return None
    t_ns, cpu_s = _course(run, start)
    first, last = np.searchsorted(t_ns, [begin_ns, end_ns])
    if last - first < IDLE_SAMPLES:
        return None
    return float((cpu_s[last - 1] - cpu_s[first]) / ((t_ns[last - 1] - t_ns[first]) / 1e9))


@once_for(itself)
def _course(run: Run, start: str) -> tuple[np.ndarray, np.ndarray]:
    """Instants of a start's samples in order, and the server's processor time at each, where it is known."""
    assert run.host is not None
    own = of_start(run.host, start)
    t_ns, cpu_s = own["t_ns"].to_numpy(dtype=np.int64), own["cpu_s"].to_numpy(dtype=float, na_value=np.nan)
    order = np.argsort(t_ns, kind="stable")
    order = order[~np.isnan(cpu_s[order])]
    return t_ns[order], cpu_s[order]


def group_cores(run: Run, group: Group) -> list[float]:
    """The same of each start of a group that counts, where it was sampled."""
    return [cores for cell in group.counted if (cores := server_cores(run, cell)) is not None]


def usable_cores(run: Run) -> int | None:
    """Cores that bench, and so the server, may use of the machine's; None where not recorded."""
    return _count(run.record.environment, "cores_usable") or _cores(run.record.environment)


def _cores(environment: Mapping[str, Any]) -> int | None:
    """The machine's logical cores, which `machine_cpu_pct` is of; None where not recorded."""
    return _count(environment, "cores_logical")


def _count(environment: Mapping[str, Any], name: str) -> int | None:
    topics = [topic for topic in environment.values() if isinstance(topic, Mapping)]
    return next((int(topic[name]) for topic in topics if topic.get(name)), None)


@dataclass(frozen=True)
class Counted:
    """A counter of all devices together: its highest value, and how far it grew in the windows."""

    total: int
    grown: int


@dataclass(frozen=True)
class DeviceWindows:
    """Means are over a window's samples, then over devices, then over starts; `power_w` is of all devices of
    a start together. `throttled_share` of the samples, for `throttled_by`. `pcie_links`: the generations and
    widths that were seen."""

    utilization_pct: float | None
    power_w: float | None
    temperature_c: float | None
    sm_clock_mhz: float | None
    throttled_share: float | None
    throttled_by: tuple[str, ...]
    ecc_errors: Counted | None
    pcie_links: tuple[str, ...]
    pcie_replays: Counted | None
    samples: int
    starts: int


def device_windows(run: Run, group: Group) -> DeviceWindows | None:
    """Of the cells that count; None where no device was sampled."""
    found = [run.window_samples(run.device, cell) for cell in group.counted]
    windows = [frame for frame in found if len(frame)]
    if not windows:
        return None
    masks = pd.Series(_known(windows, "throttle_reasons")).value_counts(sort=False)
    reasons = [throttle_names(int(mask)) for mask in masks.index]
    throttled = sum(int(count) for names, count in zip(reasons, masks, strict=True) if names)
    temperatures = _known(windows, "temperature_c")
    return DeviceWindows(
        utilization_pct=_mean([_mean_of_devices(frame, "utilization_pct") for frame in windows]),
        power_w=_mean([_sum_of_devices(frame, "power_w") for frame in windows]),
        temperature_c=float(temperatures.max()) if len(temperatures) else None,
        sm_clock_mhz=_mean([_mean_of_devices(frame, "sm_clock_mhz") for frame in windows]),
        throttled_share=throttled / int(masks.sum()) if reasons else None,
        throttled_by=tuple(dict.fromkeys(name for names in reasons for name in names)),
        ecc_errors=_counted(windows, "ecc_errors"),
        pcie_links=_links(windows),
        pcie_replays=_counted(windows, "pcie_replays"),
        samples=sum(map(len, windows)),
        starts=len(windows),
    )


def _by_device(frame: pd.DataFrame, column: str) -> list[np.ndarray]:
    """What each device told, in the order of its samples; empty where one told nothing."""
    device = frame["device"].to_numpy(dtype=int)
    values = frame[column].to_numpy(dtype=float, na_value=np.nan)
    is_known = ~np.isnan(values)
    return [values[is_known & (device == each)] for each in np.unique(device)]


def _mean_of_devices(frame: pd.DataFrame, column: str) -> float | None:
    return _mean([float(values.mean()) for values in _by_device(frame, column) if len(values)])


def _sum_of_devices(frame: pd.DataFrame, column: str) -> float | None:
    """None where one of the devices is not known."""
    each = _by_device(frame, column)
    return sum(float(values.mean()) for values in each) if each and all(map(len, each)) else None


def _known(windows: Sequence[pd.DataFrame], column: str) -> np.ndarray:
    found = [frame[column].to_numpy(dtype=float, na_value=np.nan) for frame in windows]
    values = np.concatenate([np.empty(0), *found])
    return np.asarray(values[~np.isnan(values)])


def _counted(windows: Sequence[pd.DataFrame], column: str) -> Counted | None:
    if not len(_known(windows, column)):
        return None
    total = grown = 0.0
    for frame in windows:
        each = [values for values in _by_device(_in_time(frame), column) if len(values)]
        total = max(total, sum(float(values.max()) for values in each))
        grown += sum(max(float(values[-1] - values[0]), 0.0) for values in each)
    return Counted(int(total), int(grown))


def _in_time(frame: pd.DataFrame) -> pd.DataFrame:
    t_ns = frame["t_ns"].to_numpy(dtype=np.int64)
    return frame if (t_ns[1:] >= t_ns[:-1]).all() else frame.sort_values("t_ns")


def _links(windows: Sequence[pd.DataFrame]) -> tuple[str, ...]:
    columns = ["pcie_generation", "pcie_width"]
    seen = [frame[columns].dropna() for frame in windows if set(columns) <= set(frame)]
    pairs = dict.fromkeys(
        (int(generation), int(width))
        for frame in seen
        for generation, width in np.unique(frame.to_numpy(dtype=int), axis=0).tolist()
    )
    return tuple(f"{generation} x{width}" for generation, width in sorted(pairs))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
