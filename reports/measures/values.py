"""A cell's values of all metrics, and how steady its window was, from one reading of its chunks."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reports.data import tables
from reports.data.cells import Cell, arrival_cv
from reports.data.chunks import NO_GAPS, ChunkTotals, GapCounts, chunk_totals
from reports.data.run import Run, once
from reports.data.samples import server_cores
from reports.data.starts import memory_over_time
from reports.data.tables import floats
from reports.measures import energy, slo
from reports.measures.metrics import METRICS, PERCENTILES, Value, is_supported
from reports.stats.steadiness import Series, Steadiness, edges_of, occupancy, only_grew, rate

# Cells whose chunks are read side by side, each on a core, and in memory.
WORKERS = min(4, len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Measured:
    """What a completed cell came to. `chunk_rate_per_s`: content chunks per second of one running stream.
    `steadiness` is None without a window."""

    values: dict[str, Value]
    chunk_rate_per_s: float | None
    steadiness: Steadiness | None
    gap_counts: GapCounts


@once
def measured_of(run: Run) -> dict[int, Measured]:
    """Return what each completed cell came to, by its number. Reads their chunks side by side."""
    completed = [cell for cell in run.planned_cells if cell.status == "completed"]
    with ThreadPoolExecutor(WORKERS) as pool:
        totals = pool.map(lambda cell: _totals(run.path, cell), completed)
        return {
            cell.number: _measured(run, cell, found) for cell, found in zip(completed, totals, strict=True)
        }


@once
def values_of(run: Run) -> dict[int, dict[str, Value]]:
    """Return each completed cell's values, by its number and their names."""
    return {number: found.values for number, found in measured_of(run).items()}


def gap_counts_of(run: Run, number: int) -> GapCounts:
    """Return a cell's gaps between content chunks counted in bins; none of a cell not completed."""
    found = measured_of(run)
    return found[number].gap_counts if number in found else NO_GAPS


def _totals(run_dir: Path, cell: Cell) -> ChunkTotals:
    summary = cell.summary if cell.window_s is not None else None
    window_ns = (summary.window_start_ns, summary.window_end_ns) if summary else None
    return chunk_totals(tables.chunk_batches(run_dir, cell.number), window_ns, PERCENTILES)


def _measured(run: Run, cell: Cell, totals: ChunkTotals) -> Measured:
    steadiness = _steadiness(run, cell, totals)
    gaps = totals.gaps.n
    values = _percentiles("itl_s", totals.gap_percentiles_s, gaps, totals.gaps.requests)
    for name in (m.name for m in METRICS if m.is_distribution and m.name != "itl_s"):
        values |= percentile_values(name, run.observations(cell.number, name))
    values |= _means(run, cell) | _rates(steadiness)
    per_chunk = totals.tokens / totals.chunks if totals.chunks else None
    values["tokens_per_chunk"] = Value(per_chunk, totals.chunks, totals.counted_requests)
    values |= _of_server(run, cell, values["output_tokens_per_s"]) | slo.slo_values(run, cell)
    chunk_rate_per_s = gaps / totals.streamed_s if totals.streamed_s > 0 else None
    return Measured(values, chunk_rate_per_s, steadiness, totals.gaps)


def percentile_values(name: str, observations: np.ndarray) -> dict[str, Value]:
    """Return a distribution's percentiles (numpy's linear rule), None where n does not support one."""
    n = len(observations)
    levels = [level for level in PERCENTILES if is_supported(level, n)]
    found = np.percentile(observations, levels).tolist() if levels else []
    return _percentiles(name, dict(zip(levels, found, strict=True)), n)


def _percentiles(
    name: str, found: Mapping[int, float], n: int, requests: int | None = None
) -> dict[str, Value]:
    return {
        f"{name}.p{level}": Value(found[level] if is_supported(level, n, requests) else None, n, requests)
        for level in PERCENTILES
    }


def mean_value(observations: np.ndarray) -> Value:
    """Return the mean of the observations that are known, and their number."""
    known = observations[~np.isnan(observations)]
    return Value(float(known.mean()) if len(known) else None, len(known))


def share_of_tokens(cached: np.ndarray, given: np.ndarray) -> Value:
    """Return cached tokens per input token over the requests that have both (NaN: not told)."""
    both = ~np.isnan(cached) & ~np.isnan(given)
    total = float(given[both].sum())
    return Value(float(cached[both].sum()) / total if total else None, int(both.sum()))


def _means(run: Run, cell: Cell) -> dict[str, Value]:
    names = ("input_tokens", "output_tokens", "cached_tokens")
    found = {name: run.ok_values(cell.number, name) for name in names}
    sent, ok = len(run.window_requests(cell.number)), len(found["input_tokens"])
    return {
        **{name: mean_value(tokens) for name, tokens in found.items()},
        "cached_share": share_of_tokens(found["cached_tokens"], found["input_tokens"]),
        "success_share": Value(ok / sent if sent else None, sent),
    }


def _steadiness(run: Run, cell: Cell, totals: ChunkTotals) -> Steadiness | None:
    summary = cell.summary
    if summary is None or cell.window_s is None:
        return None
    edges = edges_of(summary.window_start_ns, summary.window_end_ns)
    frame = run.cell_requests(cell.number)
    sent_ns, left_ns = floats(frame["sent_ns"]), floats(frame["end_ns"])
    was_sent = ~np.isnan(sent_ns)
    in_flight = occupancy(sent_ns[was_sent], left_ns[was_sent], edges)
    ended_ns = left_ns[(frame["outcome"] == "ok").to_numpy(dtype=bool)]
    ended = rate(ended_ns[ended_ns < edges[-1]], edges)
    requests = round(ended.mean * cell.window_s)
    arrived = None if totals.arrived is None else Series(totals.arrived / (np.diff(edges) / 1e9))
    grew = only_grew(frame, cell.load, summary)
    return Steadiness(in_flight, arrived, ended, requests, arrival_cv(cell.load), grew)


def _rates(found: Steadiness | None) -> dict[str, Value]:
    tokens = found.tokens.mean if found and found.tokens else None
    # Where none ended in it, the window was too short to say how many do.
    requests = found.ended.mean if found and found.requests else None
    n = found.requests if found else 0
    return {"output_tokens_per_s": Value(tokens, n), "requests_per_s": Value(requests, n)}


def _of_server(run: Run, cell: Cell, tokens_per_s: Value) -> dict[str, Value]:
    """Return what the server took for it: start-up, memory, cores, energy and money."""
    start, speed = run.start_of(cell), tokens_per_s.value
    launch_s = start.launch_s if start else None
    cores = server_cores(run, cell)
    is_on_host = start is not None and start.memory_kind == "host"
    per_core = speed / cores if speed is not None and cores and is_on_host else None
    return {
        "launch_s": Value(launch_s, int(launch_s is not None)),
        "memory_peak_bytes": _peak(run, cell),
        "cores_used": Value(cores, len(run.window_samples(run.host, cell)) if cores is not None else 0),
        "output_tokens_per_s_per_core": Value(per_core, tokens_per_s.n if per_core is not None else 0),
        **energy.values_of(run, cell, tokens_per_s),
    }


def _peak(run: Run, cell: Cell) -> Value:
    summary, start = cell.summary, run.start_of(cell)
    if summary is None or start is None:
        return Value(None, 0)
    memory = memory_over_time(run, start)
    inside = memory.size_bytes[(memory.t_ns >= summary.started_ns) & (memory.t_ns <= summary.ended_ns)]
    return Value(float(inside.max()) if len(inside) else None, len(inside))
