"""What devices did in the windows of a group's cells: means, extremes, and how far counters grew.

Draws nothing, judges nothing. A column that older runs lack, or that no device told, is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from harness.contracts import throttle_names

if TYPE_CHECKING:
    from reports.cells import Group
    from reports.frames import Run


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
    masks = _known(windows, "throttle_reasons")
    reasons = [throttle_names(int(mask)) for mask in masks]
    temperatures = _known(windows, "temperature_c")
    return DeviceWindows(
        utilization_pct=_mean([_mean_of_devices(frame, "utilization_pct") for frame in windows]),
        power_w=_mean([_sum_of_devices(frame, "power_w") for frame in windows]),
        temperature_c=float(temperatures.max()) if len(temperatures) else None,
        sm_clock_mhz=_mean([_mean_of_devices(frame, "sm_clock_mhz") for frame in windows]),
        throttled_share=sum(map(bool, reasons)) / len(reasons) if reasons else None,
        throttled_by=tuple(dict.fromkeys(name for names in reasons for name in names)),
        ecc_errors=_counted(windows, "ecc_errors"),
        pcie_links=_links(windows),
        pcie_replays=_counted(windows, "pcie_replays"),
        samples=sum(map(len, windows)),
        starts=len(windows),
    )


def _by_device(frame: pd.DataFrame, column: str) -> pd.Series[float]:
    """A mean for each device, NaN where one told none."""
    if column not in frame:
        return pd.Series(dtype=float)
    return frame[["device", column]].astype(float).groupby("device")[column].mean()


def _mean_of_devices(frame: pd.DataFrame, column: str) -> float | None:
    mean = _by_device(frame, column).mean()
    return None if pd.isna(mean) else float(mean)


def _sum_of_devices(frame: pd.DataFrame, column: str) -> float | None:
    """None where one of the devices is not known."""
    each = _by_device(frame, column)
    return float(each.sum()) if len(each) and each.notna().all() else None


def _known(windows: Sequence[pd.DataFrame], column: str) -> pd.Series[float]:
    found = [frame[column].dropna().astype(float) for frame in windows if column in frame]
    return pd.concat(found) if found else pd.Series(dtype=float)


def _counted(windows: Sequence[pd.DataFrame], column: str) -> Counted | None:
    if not len(_known(windows, column)):
        return None
    total = grown = 0.0
    for frame in windows:
        if column in frame:
            counts = frame.sort_values("t_ns").dropna(subset=[column]).groupby("device")[column]
            total = max(total, float(counts.max().sum()))
            grown += float((counts.last() - counts.first()).clip(lower=0).sum())
    return Counted(int(total), int(grown))


def _links(windows: Sequence[pd.DataFrame]) -> tuple[str, ...]:
    columns = ["pcie_generation", "pcie_width"]
    seen = [frame[columns].dropna() for frame in windows if set(columns) <= set(frame)]
    pairs = dict.fromkeys(
        (int(generation), int(width))
        for frame in seen
        for generation, width in frame.drop_duplicates().itertuples(index=False)
    )
    return tuple(f"{generation} x{width}" for generation, width in sorted(pairs))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
