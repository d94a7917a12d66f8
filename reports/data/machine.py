"""What the machine did in the windows: whose processor time it was, and what the devices told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.contracts import LOOK_S, throttle_names
from harness.store.store import StartRecord
from reports.data.cells import Cell, Group
from reports.data.run import Run, once
from reports.data.tables import of_start

# At ten a second: over 0.2 s the processor's clock, which counts in 10 ms, is within 0.05 of a core.
IDLE_SAMPLES = 3


@once
def server_cores(run: Run, cell: Cell) -> float | None:
    """Return the mean cores that the server's processes kept busy in the window; None if not sampled."""
    if cell.record is None or cell.summary is None:
        return None
    return _cores_between(run, cell.record.start, cell.summary.window_start_ns, cell.summary.window_end_ns, 2)


def group_cores(run: Run, group: Group) -> list[float]:
    """Return the same of each start of a group that counts, where it was sampled."""
    return [cores for cell in group.counted if (cores := server_cores(run, cell)) is not None]


def foreign_share(run: Run, cell: Cell) -> float | None:
    """Return the share of the machine's processor that neither server nor load process used in the window;
    None where one of the three, or the number of cores, is not known."""
    cores, used = _count(run.record.environment, "cores_logical"), server_cores(run, cell)
    if not cores or used is None or cell.client_cores_here is None:
        return None
    machine = run.window_samples(run.host, cell)["machine_cpu_pct"].dropna().astype(float)
    return float(machine.mean()) / 100 - (used + cell.client_cores_here) / cores if len(machine) else None


def idle_cores(run: Run, record: StartRecord) -> float | None:
    """Return the cores that the server's processes kept busy while nothing was asked: the least of the times
    after its cells, and of the guard's looks before them. None where none was sampled. Some servers spin
    while they wait."""
    cells = [cell for cell in run.planned_cells if run.start_of(cell) is record]
    summaries = [cell.summary for cell in cells if cell.summary]
    ends = [summary.started_ns for summary in summaries] + [record.stopped_ns or 0]
    times = [(s.ended_ns, min((ns for ns in ends if ns > s.ended_ns), default=0)) for s in summaries]
    guarded = {f"cell {cell.number:03d} warm-up" for cell in cells if cell.record and cell.record.guard_mode}
    looks = [phase.t_ns for phase in record.phases if phase.name in guarded]
    times += [(end_ns - round(LOOK_S * 1e9), end_ns) for end_ns in looks]
    found = [_cores_between(run, record.name, begin, end, IDLE_SAMPLES) for begin, end in times]
    return min((cores for cores in found if cores is not None), default=None)


def usable_cores(run: Run) -> int | None:
    """Return the cores that bench, and so the server, may use of the machine's; None where not recorded."""
    environment = run.record.environment
    return _count(environment, "cores_usable") or _count(environment, "cores_logical")


def _count(environment: Mapping[str, Any], name: str) -> int | None:
    topics = [topic for topic in environment.values() if isinstance(topic, Mapping)]
    return next((int(topic[name]) for topic in topics if topic.get(name)), None)


def _cores_between(run: Run, start: str, begin_ns: int, end_ns: int, samples: int) -> float | None:
    if run.host is None:
        return None
    t_ns, cpu_s = _course(run, start)
    first, last = np.searchsorted(t_ns, [begin_ns, end_ns])
    if last - first < samples:
        return None
    return float((cpu_s[last - 1] - cpu_s[first]) / ((t_ns[last - 1] - t_ns[first]) / 1e9))


@once
def _course(run: Run, start: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the instants of a start's samples in order, and the server's processor time at each."""
    assert run.host is not None
    own = of_start(run.host, start)
    t_ns, cpu_s = own["t_ns"].to_numpy(dtype=np.int64), own["cpu_s"].to_numpy(dtype=float, na_value=np.nan)
    order = np.argsort(t_ns, kind="stable")
    order = order[~np.isnan(cpu_s[order])]
    return t_ns[order], cpu_s[order]


def read_roof(run: Run, start: StartRecord) -> float | None:
    """Return the bytes per second that the memory of a start's device gives at most: of a host as measured
    when the run began, of cards together by NVML's clock and bus (two transfers a clock). None: not known."""
    environment = run.record.environment
    if start.memory_kind == "host":
        is_here = start.deployment.terms.base_url is None
        return environment.get("memory", {}).get("read_bytes_per_s") if is_here else None
    facts = environment.get("devices", ())
    known = {} if isinstance(facts, str) else {each.get("index"): each for each in facts}
    roofs = [
        2e6 * clock * bits / 8
        for index in start.devices
        if (clock := known.get(index, {}).get("memory_clock_max_mhz"))
        and (bits := known[index].get("memory_bus_bits"))
    ]
    return sum(roofs) if roofs and len(roofs) == len(start.devices) else None


# --- devices ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """A counter of all devices together: its highest value, and how far it grew in the windows."""

    total: int
    grown: int


@dataclass(frozen=True)
class DeviceWindows:
    """What devices did in a group's windows; a column that no device told is None.

    Means are over a window's samples, then over devices, then over starts; `power_w` is of all devices of a
    start together. `throttled_share` of the samples, for `throttled_by`. `pcie_links`: the generations and
    widths that were seen.
    """

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
    """Return what devices did in the windows of the cells that count; None where no device was sampled."""
    found = [run.window_samples(run.device, cell) for cell in group.counted]
    windows = [_numbers(frame) for frame in found if len(frame)]
    if not windows:
        return None
    every = pd.concat(windows)
    masks = every["throttle_reasons"].dropna()
    reasons = {mask: throttle_names(int(mask)) for mask in masks.unique()}
    throttled = masks.map(lambda mask: bool(reasons[mask]))
    links = every.reindex(columns=["pcie_generation", "pcie_width"]).dropna().astype(int).drop_duplicates()
    # Of a start's power nothing is known where one of its devices does not tell.
    power = [frame.groupby("device")["power_w"].mean().sum(skipna=False) for frame in windows]
    return DeviceWindows(
        utilization_pct=_mean(_of_devices(windows, "utilization_pct")),
        power_w=_mean(power),
        temperature_c=_known(every["temperature_c"].max()),
        sm_clock_mhz=_mean(_of_devices(windows, "sm_clock_mhz")),
        throttled_share=_known(throttled.mean()),
        throttled_by=tuple(dict.fromkeys(name for names in reasons.values() for name in names)),
        ecc_errors=_counted(windows, "ecc_errors"),
        pcie_links=tuple(f"{generation} x{width}" for generation, width in sorted(links.to_numpy().tolist())),
        pcie_replays=_counted(windows, "pcie_replays"),
        samples=len(every),
        starts=len(windows),
    )


def _numbers(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="start").astype(float).sort_values("t_ns", kind="stable")


def _of_devices(windows: Sequence[pd.DataFrame], column: str) -> list[float]:
    return [float(frame.groupby("device")[column].mean().mean()) for frame in windows]


def _mean(values: Sequence[float]) -> float | None:
    return _known(pd.Series(values, dtype=float).mean())


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _counted(windows: Sequence[pd.DataFrame], column: str) -> Counted | None:
    each = [frame.groupby("device")[column].agg(["first", "last", "max"]) for frame in windows]
    if not any(ends["max"].notna().any() for ends in each):
        return None
    total = max(float(ends["max"].sum()) for ends in each)
    grown = sum(float((ends["last"] - ends["first"]).clip(lower=0).sum()) for ends in each)
    return Counted(int(total), int(grown))
