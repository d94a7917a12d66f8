"""Samples of starts and windows: start-up steps, memory, cores, devices, and the servers' own metrics.

A start-up step is named by the stage that ends it. A stage that was not seen is part of the next step. The
servers' metrics are in Run.server, with the terms of harness.contracts.ServerTerm as columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from serving_bench.harness.contracts import LOOK_S, ServerTerm, at, number
from serving_bench.harness.store.store import StartRecord, phase_of
from serving_bench.reports.data.cells import Cell, Group
from serving_bench.reports.data.run import Run, SampleKind, once
from serving_bench.reports.data.tables import floats

# Ten samples a second: over 0.2 s the processor time, in ticks of 10 ms, is within 0.05 of a core.
IDLE_SAMPLES = 3
# A counter is not interpolated between samples this far apart (they are due each second).
GAP_S = 5.0
STAGES = {
    "process_up": "process up",
    "weights_begin": "programs loaded, weights begin",
    "weights_loaded": "weights loaded",
    "engine_ready": "graphs and KV cache ready",
    "listening": "listening",
    "first_token": "first token",
    "ready": "first good generation",
    "steady_token": "first steady token",
}
FIRST, LATER = "first start", "later starts"


# --- starts ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launch:
    """A deployment's first start, or its later ones, of those that became ready. The first may compile and
    read files that are not cached.

    `steps_s`: the mean seconds from the stage before (or the spawn) to each stage that all of them have.
    """

    label: str
    which: str
    records: tuple[StartRecord, ...]
    steps_s: Mapping[str, float]


def launches_of(run: Run) -> list[Launch]:
    """Return each deployment's first start, then its later ones, without servers that were running already.

    If the first start never became ready, the next one still counts as a later one: the first may have
    compiled.
    """
    launches = []
    for label in run.deployments:
        records = run.starts_of(label)
        for which, chosen in ((FIRST, records[:1]), (LATER, records[1:])):
            if ready := tuple(record for record in chosen if record.launch_s is not None):
                means = pd.DataFrame(map(instants_s, ready)).dropna(axis=1).mean().sort_values()
                steps_s = means.diff().fillna(means)  # the first is from the spawn
                launches.append(Launch(label, which, ready, {str(k): float(v) for k, v in steps_s.items()}))
    return [launch for launch in launches if launch.steps_s]


def stage_titles(run: Run) -> dict[str, str]:
    """Return the titles of all stages by name, in order, then those that only this run's servers have."""
    seen = {stage for launch in launches_of(run) for each in launch.records for stage in instants_s(each)}
    return STAGES | {stage: stage.replace("_", " ") for stage in sorted(seen - STAGES.keys())}


def instants_s(record: StartRecord) -> dict[str, float]:
    """Return seconds from the spawn to each stage that was seen, in order of time. The first good generation
    is included only if the first token was not seen."""
    stages = dict(record.stages)
    if "first_token" not in stages and record.ready_ns is not None:
        stages["ready"] = record.ready_ns
    if (spawned_ns := record.spawned_ns) is None:
        return {}
    return {name: (at - spawned_ns) / 1e9 for name, at in sorted(stages.items(), key=lambda pair: pair[1])}


def start_title(run: Run, record: StartRecord) -> str:
    """Return a start's number among its deployment's starts: `2`. If two have the same number, as after
    --resume, the directory's number is added: `2 (08)`."""
    number = str(record.repeat + 1)
    same = [other for other in run.starts_of(record.deployment.label) if other.repeat == record.repeat]
    return number if len(same) < 2 else f"{number} ({record.name.partition('-')[0]})"


# --- memory ----------------------------------------------------------------------------------------


_MEMORY = {
    "rss_bytes": "host memory (RSS of the server's process tree)",
    "process_bytes": "device memory of the server's processes",
    "used_bytes": "device memory in use (all processes)",
}


@dataclass(frozen=True)
class Memory:
    """A server's memory over time, known samples only. `what` names in words what was measured.
    `is_attributed`: the memory is the server's own, not that of all programs on the device."""

    what: str
    t_ns: np.ndarray
    size_bytes: np.ndarray
    is_attributed: bool = True


@once
def memory_over_time(run: Run, start: StartRecord) -> Memory:
    """Return a start's memory, empty if nothing was sampled.

    On a device it is the server's own memory if NVML ever attributes it (samples without are left out),
    otherwise all memory in use there.
    """
    is_host = start.memory_kind == "host"
    samples = run.start_samples("host" if is_host else "device", start.name)
    is_attributed = is_host or not len(samples) or bool(samples["process_bytes"].notna().any())
    column = "rss_bytes" if is_host else "process_bytes" if is_attributed else "used_bytes"
    levels = samples.reindex(columns=["t_ns", column]).astype(float)
    if "device" in samples and samples["device"].nunique() > 1:
        # A server on several devices: add the samples that were read together.
        levels = (
            levels.dropna().groupby(samples.groupby("device").cumcount()).agg({"t_ns": "min", column: "sum"})
        )
    levels = levels.dropna()
    return Memory(_MEMORY[column], levels["t_ns"].to_numpy(), levels[column].to_numpy(), is_attributed)


# --- the processor ---------------------------------------------------------------------------------


@once
def server_cores(run: Run, cell: Cell) -> float | None:
    """Return how many cores the server's processes kept busy in the window (mean); None if not sampled."""
    if cell.record is None or cell.window_ns is None:
        return None
    return _cores_between(run, cell.record.start, *cell.window_ns, 2)


def foreign_share(run: Run, cell: Cell) -> float | None:
    """Return the share of the machine's processor that programs other than server and client used in the
    window; None if the use of one of them, or the number of cores, is not known."""
    cores, used = _count(run.record.environment, "cores_logical"), server_cores(run, cell)
    client_cores = cell.summary.cores_here if cell.summary else None
    if not cores or used is None or client_cores is None:
        return None
    machine = run.window_samples("host", cell)["machine_cpu_pct"].dropna().astype(float)
    return max(float(machine.mean()) / 100 - (used + client_cores) / cores, 0.0) if len(machine) else None


@once
def idle_cores(run: Run, record: StartRecord) -> float | None:
    """Return how many cores the server's processes kept busy without a request, since some servers spin while
    they wait.

    It is the least of the times after its cells and of the guard's looks before them; None if none was
    sampled.
    """
    cells = [cell for cell in run.planned_cells if run.start_of(cell) is record]
    summaries = [cell.summary for cell in cells if cell.summary]
    begins = [*(summary.started_ns for summary in summaries), record.stopped_ns or 0]
    times = [(s.ended_ns, min((ns for ns in begins if ns > s.ended_ns), default=0)) for s in summaries]
    guarded = {phase_of(each.number, "warm-up") for each in cells if each.record and each.record.guard_mode}
    looks = [phase.t_ns for phase in record.phases if phase.name in guarded]
    times += [(end_ns - round(LOOK_S * 1e9), end_ns) for end_ns in looks]
    busy_cores = [_cores_between(run, record.name, begin, end, IDLE_SAMPLES) for begin, end in times]
    return min((cores for cores in busy_cores if cores is not None), default=None)


def usable_cores(run: Run) -> int | None:
    """Return how many of the machine's cores bench, and so the server, may use; None if not recorded."""
    return _count(run.record.environment, "cores_usable") or _count(run.record.environment, "cores_logical")


def _count(environment: Mapping[str, Any], name: str) -> int | None:
    numbers = (number(at(topic, name)) for topic in environment.values())
    return next((int(each) for each in numbers if each and each >= 1), None)


def _cores_between(run: Run, start: str, begin_ns: int, end_ns: int, samples: int) -> float | None:
    t_ns, cpu_s = _course(run, "host", start, "cpu_s")
    first, last = np.searchsorted(t_ns, [begin_ns, end_ns])
    if last - first < samples:
        return None
    return float((cpu_s[last - 1] - cpu_s[first]) / ((t_ns[last - 1] - t_ns[first]) / 1e9))


@once
def _course(run: Run, kind: SampleKind, start: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a column of a start's samples as instants, ascending, and values, where it is known."""
    samples = run.start_samples(kind, start)
    if column not in samples:
        return np.empty(0, dtype=np.int64), np.empty(0)
    t_ns, values = samples["t_ns"].to_numpy(dtype=np.int64), floats(samples[column])
    order = np.argsort(t_ns, kind="stable")
    order = order[~np.isnan(values[order])]
    return t_ns[order], values[order]


# --- devices ---------------------------------------------------------------------------------------


def read_roof(run: Run, start: StartRecord) -> float | None:
    """Return the highest memory bandwidth of a start's device in bytes/s; None if not known.

    On a host it was measured when the run began. On cards it is computed from NVML's memory clock and bus
    width, at two transfers per clock, over all of them together.
    """
    environment = run.record.environment
    if start.memory_kind == "host":
        is_here = start.deployment.terms.base_url is None
        return number(at(environment, "memory", "read_bytes_per_s")) if is_here else None
    devices = environment.get("devices")
    by_index = {str(at(each, "index")): each for each in devices} if isinstance(devices, list) else {}
    roofs = [
        2e6 * clock * bits / 8
        for index in start.devices
        if (clock := number(at(by_index, str(index), "memory_clock_max_mhz")))
        and (bits := number(at(by_index, str(index), "memory_bus_bits")))
    ]
    return sum(roofs) if roofs and len(roofs) == len(start.devices) else None


@once
def device_samples(run: Run, group: Group) -> pd.DataFrame:
    """Return the device samples in the windows of a group's counted cells; empty if there are none."""
    frames = (run.window_samples("device", cell) for cell in group.counted)
    sampled = [each for each in frames if len(each)]
    return pd.concat(sampled).drop(columns="start").astype(float) if sampled else pd.DataFrame()


# --- the servers' own metrics ----------------------------------------------------------------------


def mean_gauge(run: Run, group: Group, term: ServerTerm) -> tuple[float, float] | None:
    """Return a gauge's mean over the windows of a group's counted cells, and its peak; None if no server has
    it."""
    windows = (run.window_samples("server", cell) for cell in group.counted)
    gauges = [each for frame in windows if len(frame) and len(each := frame[term].dropna().astype(float))]
    return (float(np.mean([each.mean() for each in gauges])), max(map(max, gauges))) if gauges else None


def growth(run: Run, cell: Cell, term: ServerTerm) -> float | None:
    """Return how much a counter grew in the window.

    Its values at both ends are interpolated between the samples around them. None if one of these is missing
    or the counter fell, as when a server restarts.
    """
    if cell.record is None or cell.window_ns is None:
        return None
    t_ns, counts = _course(run, "server", cell.record.start, term)
    first, last = np.searchsorted(t_ns, cell.window_ns).tolist()
    if first == 0 or last == len(t_ns):
        return None
    if max(t_ns[first] - t_ns[first - 1], t_ns[last] - t_ns[last - 1]) > GAP_S * 1e9:
        return None
    begun, ended = np.interp(cell.window_ns, t_ns, counts)
    return None if (np.diff(counts[first - 1 : last + 1]) < 0).any() else float(ended - begun)


def grown_in_cell(run: Run, cell: Cell, term: ServerTerm) -> float | None:
    """Return how much a counter grew over a whole cell, from the warm-up to the last answer.

    It takes the last sample before the cell's load and the last one before the next cell, both without
    requests in flight. None if one is missing or the counter fell.
    """
    record = run.start_of(cell)
    if cell.record is None or cell.summary is None or record is None:
        return None
    names = {phase_of(each.number, "reset") for each in run.planned_cells}
    resets = (phase.t_ns for phase in record.phases if phase.name in names)
    next_ns = min((ns for ns in resets if ns >= cell.summary.ended_ns), default=np.inf)
    t_ns, counts = _course(run, "server", record.name, term)
    first = int(np.searchsorted(t_ns, cell.summary.started_ns, side="right")) - 1
    last = int(np.searchsorted(t_ns, next_ns)) - 1
    if first < 0 or last < 0 or t_ns[last] < cell.summary.ended_ns:
        return None
    return None if (np.diff(counts[first : last + 1]) < 0).any() else float(counts[last] - counts[first])


def pooled(run: Run, group: Group, above: ServerTerm, below: ServerTerm) -> float | None:
    """Return the growth of one counter divided by that of another, over the windows of a group's counted
    cells that have both; None if the second did not grow."""
    both = [(growth(run, cell, above), growth(run, cell, below)) for cell in group.counted]
    grown, per = pd.DataFrame(both, columns=["grown", "per"], dtype=float).dropna().sum()
    return float(grown / per) if per else None
