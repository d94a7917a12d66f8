"""What devices did in the windows of a group's cells: means, extremes, and how far counters grew.

Draws nothing, judges nothing. A column that no device told is None.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.contracts import throttle_names
from reports.data.cells import Group
from reports.data.run import Run


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
