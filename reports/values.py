"""A cell's values of all metrics, and how steady its window was, from one reading of its chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from reports import energy, goodput, tables
from reports.cells import Cell, arrival_cv
from reports.memory_samples import memory_over_time
from reports.metrics import METRICS, Value, mean_value, percentile_values
from reports.steadiness import Series, Steadiness, edges_of, occupancy, only_grew, rate

if TYPE_CHECKING:
    from reports.frames import Run


@dataclass(frozen=True)
class Measured:
    """What a completed cell came to. `chunk_rate_per_s`: content chunks per second of one stream while it
    runs. `steadiness` is None without a window."""

    values: dict[str, Value]
    chunk_rate_per_s: float | None
    steadiness: Steadiness | None


def measured(run: Run, cell: Cell) -> Measured:
    """All values of a completed cell."""
    chunks = tables.read_chunks(run.path, cell.number)
    gaps = tables.chunk_gaps(chunks)
    steadiness = _steadiness(run, cell, chunks)
    values = _distributions(run, cell, gaps) | _means(run, cell) | _rates(steadiness)
    values["tokens_per_chunk"] = _tokens_per_chunk(chunks)
    start = run.start_of(cell)
    launch_s = start.launch_s if start else None
    values["launch_s"] = Value(launch_s, int(launch_s is not None))
    values["memory_peak_bytes"] = _peak_in(run, cell)
    values |= _energy_and_cost(run, cell, values["output_tokens_per_s"]) | goodput.slo_values(run, cell)
    streamed_s = float(gaps.seconds.sum())
    return Measured(values, len(gaps.seconds) / streamed_s if streamed_s > 0 else None, steadiness)


def known(series: pd.Series[Any]) -> np.ndarray:
    """The values of a column that are there."""
    values = series.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    return np.asarray(values[~np.isnan(values)])


def _distributions(run: Run, cell: Cell, gaps: tables.Gaps) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for metric in METRICS:
        if metric.name == "itl_s":
            values |= percentile_values(metric.name, gaps.seconds, gaps.requests)
        elif metric.is_distribution:
            values |= percentile_values(metric.name, run.observations(cell.number, metric.name))
    return values


def _means(run: Run, cell: Cell) -> dict[str, Value]:
    sent = run.window_requests(cell.number)
    ok = sent[sent["outcome"] == "ok"]
    names = ("input_tokens", "output_tokens", "cached_tokens")
    values = {name: mean_value(known(ok[name])) for name in names}
    return values | {"success_share": Value(len(ok) / len(sent) if len(sent) else None, len(sent))}


def _tokens_per_chunk(chunks: tables.Chunks) -> Value:
    kept = chunks.is_ok & chunks.in_window & ~np.isnan(chunks.tokens) & (chunks.per_request > 0)
    count = int(chunks.per_request[kept].sum())
    share = float(chunks.tokens[kept].sum()) / count if count else None
    return Value(share, count, int(kept.sum()))


def _steadiness(run: Run, cell: Cell, chunks: tables.Chunks) -> Steadiness | None:
    summary = cell.summary
    if summary is None or cell.window_s is None:
        return None
    edges = edges_of(summary.window_start_ns, summary.window_end_ns)
    frame = run.cell_requests(cell.number)
    sent = frame[frame["sent_ns"].notna()]
    sent_ns, left_ns = (sent[name].to_numpy(dtype=float) for name in ("sent_ns", "end_ns"))
    in_flight = occupancy(sent_ns, left_ns, edges)
    ended_ns = frame.loc[frame["outcome"] == "ok", "end_ns"].to_numpy(dtype=float)
    ended = rate(ended_ns[ended_ns < edges[-1]], edges)
    requests = round(ended.mean * cell.window_s)
    tokens = tables.tokens_arrived(chunks, edges)
    arrived = None if tokens is None else Series(tokens / (np.diff(edges) / 1e9))
    grew = only_grew(frame, cell.load, summary)
    return Steadiness(in_flight, arrived, ended, requests, arrival_cv(cell.load), grew)


def _rates(found: Steadiness | None) -> dict[str, Value]:
    if found is None:
        return {"output_tokens_per_s": Value(None, 0), "requests_per_s": Value(None, 0)}
    return {
        "output_tokens_per_s": Value(found.tokens.mean if found.tokens else None, found.requests),
        # Where none ended in it, the window was too short to say how many do.
        "requests_per_s": Value(found.ended.mean if found.requests else None, found.requests),
    }


def _energy_and_cost(run: Run, cell: Cell, tokens_per_s: Value) -> dict[str, Value]:
    price, devices = energy.price_of(run), energy.devices_of(run, cell)
    return {
        "energy_j_per_output_token": energy.energy_per_token(energy.power_in(run, cell), tokens_per_s.value),
        "cost_per_million_output_tokens": energy.cost_per_million(
            price, devices, tokens_per_s.value, tokens_per_s.n
        ),
    }


def _peak_in(run: Run, cell: Cell) -> Value:
    summary, start = cell.summary, run.start_of(cell)
    if summary is None or start is None:
        return Value(None, 0)
    memory = memory_over_time(run, start)
    inside = memory.size_bytes[(memory.t_ns >= summary.started_ns) & (memory.t_ns <= summary.ended_ns)]
    return Value(float(inside.max()) if len(inside) else None, len(inside))
