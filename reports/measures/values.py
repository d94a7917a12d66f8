"""Compute a cell's values of all metrics, and how steady its window was, in one pass over its chunks.

Energy is what the devices drew beyond idle, per output token. Cost is the price of the devices' hours, or of
the tokens of a server that was already running.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from serving_bench.harness.contracts import Price, because, counter_fell, mean_power_w, quoted
from serving_bench.harness.plugins import reason
from serving_bench.reports.data import (
    Cell,
    ChunkTotals,
    GapCounts,
    Run,
    chunk_batches,
    chunk_totals,
    memory_over_time,
    once,
    server_cores,
)
from serving_bench.reports.measures import slo
from serving_bench.reports.measures.metric import TRAFFIC_METRICS, Metric
from serving_bench.reports.measures.metrics import (
    METRICS,
    PERCENTILES,
    Value,
    is_supported,
    metric_of,
    names_of,
)
from serving_bench.reports.measures.traffic.kv_waste import COLUMNS, kv_waste
from serving_bench.reports.measures.traffic.of_cells import traffic_values
from serving_bench.reports.stats.steadiness import Steadiness, edges_of, occupancy, only_grew, rate

# Columns with a value for each request.
_LATENCIES = ["ttft_s", "tpot_s", "e2e_s", "send_lag_s"]
_TOKENS = ["input_tokens", "output_tokens", "cached_tokens"]
OF_REQUESTS = (*_LATENCIES, *_TOKENS)
# How many cells' chunks are read at once, each on a core and in memory.
WORKERS = min(4, len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Measured:
    """The results of a completed cell. `chunk_rate_per_s`: content chunks per second of one stream.
    `steadiness`: None without a window."""

    values: dict[str, Value]
    chunk_rate_per_s: float | None
    steadiness: Steadiness | None
    gaps: GapCounts


@once
def measured_of(run: Run) -> dict[int, Measured]:
    """Return the results of each completed cell by its number. Reads the chunks in parallel."""
    completed = [cell for cell in run.planned_cells if cell.status == "completed"]
    with ThreadPoolExecutor(WORKERS) as pool:
        totals = pool.map(
            lambda cell: chunk_totals(chunk_batches(run.path, cell.number), cell.window_ns, PERCENTILES),
            completed,
        )
        return {
            cell.number: _measured(run, cell, total) for cell, total in zip(completed, totals, strict=True)
        }


@once
def values_of(run: Run) -> dict[int, dict[str, Value]]:
    return {number: measured.values for number, measured in measured_of(run).items()}


@once
def metrics_of(run: Run) -> list[Metric]:
    """Return the metrics of a run. Those of one scenario or load are included only if a cell has them."""
    have = {name for values in values_of(run).values() for name in values}
    return [each for each in METRICS if each not in TRAFFIC_METRICS or each.name in have]


def _measured(run: Run, cell: Cell, totals: ChunkTotals) -> Measured:
    steadiness = _steadiness(run, cell, totals)
    gaps = totals.gaps.n
    ok = {name: run.ok_values(cell.number, name) for name in (*OF_REQUESTS, *COLUMNS)}
    n, sent = len(ok["e2e_s"]), int(run.is_counted(cell.number).sum())
    ended = steadiness.requests if steadiness else 0
    tokens_per_s = _rate(cell, steadiness.tokens if steadiness else None, ended, "token arrived")
    per_chunk = totals.tokens / totals.chunks if totals.chunks else None
    values = {
        **_percentiles("itl_s", totals.gap_percentiles_s, gaps, totals.gaps.requests),
        **request_values({name: ok[name] for name in OF_REQUESTS}),
        "success_share": Value(n / sent if sent else None, sent),
        "output_tokens_per_s": tokens_per_s,
        "requests_per_s": _rate(cell, steadiness.ended if steadiness else None, ended, "request ended"),
        "input_tokens_per_s": _read_per_s(run, cell),
        "tokens_per_chunk": Value(per_chunk, totals.chunks, totals.counted_requests),
        **_of_server(run, cell, tokens_per_s),
        **_costs(run, cell, tokens_per_s),
        **kv_waste(ok, _context_tokens(run, cell)),
        **slo.slo_values(run, cell),
        **traffic_values(run, cell),
        **_of_other_packages(run, cell),
    }
    return Measured(values, gaps / totals.streamed_s if totals.streamed_s else None, steadiness, totals.gaps)


def _of_other_packages(run: Run, cell: Cell) -> dict[str, Value]:
    """Return the values of other packages' metrics; None, with the reason, if one raises an error."""
    values = dict[str, Value]()
    for metric in METRICS:
        try:
            if metric.value:
                value = metric.value(run, cell)
                values[metric.name] = value if isinstance(value, Value) else Value(value, 1)
            elif metric.observations:
                values |= percentile_values(metric.name, observations_of(run, cell, metric.name))
        except Exception as error:
            values |= dict.fromkeys(names_of(metric), Value(None, 0, why=quoted(reason(error))))
    return values


@once
def observations_of(run: Run, cell: Cell, name: str) -> np.ndarray:
    """Return the known values of a distribution other than ITL over a cell's requests that count and are ok.

    Raises what the code of another package raises.
    """
    compute = metric_of(name).observations
    if compute is None:
        return run.observations(cell.number, name)
    values = np.asarray(compute(run, cell), dtype=float)
    present: np.ndarray = values[~np.isnan(values)]
    return present


def request_values(ok: Mapping[str, np.ndarray]) -> dict[str, Value]:
    """Return the percentiles of ok requests' latencies, the means of their tokens, and their cached share.

    `ok`: columns of OF_REQUESTS, with both input_tokens and cached_tokens; NaN where unknown.
    """
    values: dict[str, Value] = {}
    for name, each in ok.items():
        present = each[~np.isnan(each)]
        if name in _LATENCIES:
            values |= percentile_values(name, present)
        else:
            values[name] = Value(float(present.mean()) if len(present) else None, len(present))
    both = ~np.isnan(ok["cached_tokens"] + ok["input_tokens"])
    cached, given = (float(ok[name][both].sum()) for name in ("cached_tokens", "input_tokens"))
    return {**values, "cached_share": Value(cached / given if given else None, int(both.sum()))}


def percentile_values(name: str, observations: np.ndarray) -> dict[str, Value]:
    """Return a distribution's percentiles (numpy's linear rule), None for one that n does not support."""
    percentiles = np.percentile(observations, PERCENTILES).tolist() if len(observations) else ()
    return _percentiles(name, dict(zip(PERCENTILES, percentiles, strict=False)), len(observations))


def _percentiles(
    name: str, percentiles: Mapping[int, float], n: int, requests: int | None = None
) -> dict[str, Value]:
    return {
        f"{name}.p{level}": Value(
            percentiles[level] if is_supported(level, n, requests) else None, n, requests
        )
        for level in PERCENTILES
    }


def _read_per_s(run: Run, cell: Cell) -> Value:
    if cell.window_ns is None or cell.window_s is None:
        return Value(None, 0)
    begin_ns, end_ns = cell.window_ns
    first_ns, tokens = (run.values(cell.number, name) for name in ("first_content_ns", "input_tokens"))
    read = tokens[_is_answered(run, cell) & (first_ns >= begin_ns) & (first_ns < end_ns)]
    is_known = len(read) and not np.isnan(read).any()
    return Value(float(read.sum()) / cell.window_s if is_known else None, len(read))


def _rate(cell: Cell, by_part: np.ndarray | None, ended: int, what: str) -> Value:
    """Return the mean of a rate over a window's parts; None if the counts are unknown.

    Also None if nothing came: a rate of 0 only says that the window was too short.
    """
    if by_part is None or by_part.any():
        return Value(None if by_part is None else float(by_part.mean()), ended)
    return Value(None, ended, why=because("nothing_in_window", what=what, window_s=cell.window_s))


def _is_answered(run: Run, cell: Cell) -> np.ndarray:
    """Return a mask of the ok requests whose user stays, whenever they were sent."""
    is_ok, stays = (run.holds(cell.number, *each) for each in (("outcome", "ok"), ("stays", True)))
    return np.asarray(is_ok & stays)


def _steadiness(run: Run, cell: Cell, totals: ChunkTotals) -> Steadiness | None:
    if cell.summary is None or cell.window_ns is None:
        return None
    edges = edges_of(*cell.window_ns)
    sent_ns, left_ns = (run.values(cell.number, name) for name in ("sent_ns", "end_ns"))
    was_sent = ~np.isnan(sent_ns)
    ended_ns = left_ns[_is_answered(run, cell)]
    ended = rate(ended_ns[ended_ns < edges[-1]], edges)
    return Steadiness(
        in_flight=occupancy(sent_ns[was_sent], left_ns[was_sent], edges),
        tokens=None if totals.arrived is None else totals.arrived / (np.diff(edges) / 1e9),
        ended=ended,
        requests=round(float(ended.mean()) * (cell.window_s or 0.0)),
        is_growing=only_grew(run.cell_requests(cell.number), cell.load, cell.summary),
    )


def _context_tokens(run: Run, cell: Cell) -> int | None:
    """Return the context length: as asked, otherwise as the server says."""
    start = run.start_of(cell)
    resolved = start.resolved.get("context_length") if start else None
    return cell.start.deployment.terms.context_length or (resolved if isinstance(resolved, int) else None)


def _of_server(run: Run, cell: Cell, tokens_per_s: Value) -> dict[str, Value]:
    start, speed = run.start_of(cell), tokens_per_s.value
    cores = server_cores(run, cell)
    launch_s = start.launch_s if start else None
    is_on_host = start is not None and start.memory_kind == "host"
    per_core = speed / cores if speed is not None and cores and is_on_host else None
    return {
        "launch_s": Value(launch_s, int(launch_s is not None)),
        "memory_peak_bytes": _peak(run, cell),
        "cores_used": Value(cores, len(run.window_samples("host", cell)) if cores is not None else 0),
        "output_tokens_per_s_per_core": Value(per_core, tokens_per_s.n if per_core is not None else 0),
        "energy_j_per_output_token": _energy(run, cell, tokens_per_s),
    }


def _peak(run: Run, cell: Cell) -> Value:
    summary, start = cell.summary, run.start_of(cell)
    if summary is None or start is None:
        return Value(None, 0)
    memory = memory_over_time(run, start)
    inside = memory.size_bytes[(memory.t_ns >= summary.started_ns) & (memory.t_ns <= summary.ended_ns)]
    return Value(float(inside.max()) if len(inside) else None, len(inside))


# --- energy and money ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Power:
    """Mean power in a window over all devices together, from n samples of each. `idle_w`: the power before
    the server was started; None if not known."""

    mean_w: float
    idle_w: float | None
    n: int


@once
def power_in(run: Run, cell: Cell) -> Power | None:
    """Return the power in a cell's window; None if not known, as for a server that was already running.

    On a device: of all the server's devices, by NVML's energy counters, otherwise by their mean power. On a
    host: of the CPU packages, if the system shows their counter, with every program that runs there.
    """
    start, devices = run.start_of(cell), devices_of(run, cell)
    if start is None or not devices:
        return None
    is_host = start.memory_kind == "host"
    each = [_power_of_packages(run, cell) if is_host else power_of_device(run, cell, at) for at in devices]
    watts = [power.mean_w for power in each if power and power.mean_w is not None]
    if len(watts) < len(devices):
        return None
    return Power(sum(watts), start.idle_power_w, min(power.n for power in each if power))


@dataclass(frozen=True)
class PowerRead:
    """Mean power in a window by an energy counter, and by n readings of power. One is None if it is not known
    throughout the window."""

    by_counter_w: float | None
    by_readings_w: float | None
    n: int

    @property
    def mean_w(self) -> float | None:
        return self.by_readings_w if self.by_counter_w is None else self.by_counter_w


def _power_of_packages(run: Run, cell: Cell) -> PowerRead:
    t_ns, energy_j = (run.window_values("host", cell, name) for name in ("t_ns", "package_energy_j"))
    return PowerRead(_by_counter_w(t_ns, energy_j), None, len(t_ns))


@once
def power_of_device(run: Run, cell: Cell, device: int) -> PowerRead | None:
    """Return a device's power in a cell's window; None if it was not sampled, or its counter fell."""
    is_own = run.window_values("device", cell, "device") == device
    names = ("t_ns", "energy_j", "power_w")
    t_ns, energy_j, power_w = (run.window_values("device", cell, name)[is_own] for name in names)
    if not len(t_ns) or counter_fell(energy_j[~np.isnan(energy_j)].tolist()):
        return None
    readings_w = None if np.isnan(power_w).any() else float(power_w.mean())
    return PowerRead(_by_counter_w(t_ns, energy_j), readings_w, len(t_ns))


def _by_counter_w(t_ns: np.ndarray, energy_j: np.ndarray) -> float | None:
    # From 104 days after boot on, a float rounds nanoseconds (to a few).
    at_ns, joules = map(int, t_ns.tolist()), energy_j.tolist()
    return None if np.isnan(energy_j).any() else mean_power_w(list(zip(at_ns, joules, strict=True)))


def price_of(run: Run) -> Price | None:
    """Return the prices that the user gave for a device's hour or a million tokens; None without any."""
    price = run.record.price
    return price if price is not None and (price.gpu_hour is not None or price.is_by_token) else None


def is_priced(run: Run, cell: Cell) -> bool:
    """Return whether what a cell's server is paid by has a price: its tokens if it was already running,
    otherwise its devices' hours."""
    price, start = price_of(run), run.start_of(cell)
    if price is None or start is None:
        return False
    return price.is_by_token if start.attached else price.gpu_hour is not None and bool(devices_of(run, cell))


def devices_of(run: Run, cell: Cell) -> Sequence[int]:
    """Return the devices that a cell's server was given, otherwise those that were sampled; (0,) for a host.
    Empty for a server that was already running."""
    start = run.start_of(cell)
    if start is None or start.attached:
        return ()
    if start.memory_kind == "host":
        return (0,)
    if start.devices or run.device is None:
        return start.devices
    return sorted(map(int, run.start_samples("device", start.name)["device"].unique()))


def _energy(run: Run, cell: Cell, tokens_per_s: Value) -> Value:
    power, speed = power_in(run, cell), tokens_per_s.value
    if power is None or power.idle_w is None or not speed:
        return Value(None, 0)
    return Value((power.mean_w - power.idle_w) / speed, power.n)


def _costs(run: Run, cell: Cell, tokens_per_s: Value) -> dict[str, Value]:
    price, devices, speed = price_of(run), devices_of(run, cell), tokens_per_s.value
    per_million, per_request = Value(None, 0), Value(None, 0)
    if price is not None and is_priced(run, cell):
        if not devices:
            per_million, per_request = _costs_of_tokens(price, run.ok_requests(cell.number, *_TOKENS))
        elif speed:
            hourly = (price.gpu_hour or 0.0) * len(devices)
            per_million = Value(hourly / (speed * 3600) * 1e6, tokens_per_s.n)
    return {"cost_per_million_output_tokens": per_million, "cost_per_request": per_request}


def _costs_of_tokens(price: Price, ok: pd.DataFrame) -> tuple[Value, Value]:
    """Return the cost per million output tokens and the mean cost of a request, over the ok requests whose
    tokens the server reported. Tokens that it does not report as cached have the full price."""
    tokens = ok[_TOKENS].astype(float).dropna(subset=["input_tokens", "output_tokens"])
    for_input = price.input_tokens or 0.0
    for_cached = for_input if price.cached_tokens is None else price.cached_tokens
    prices = {
        "input_tokens": for_input,
        "cached_tokens": for_cached - for_input,  # they are counted among the input as well
        "output_tokens": price.output_tokens or 0.0,
    }
    total = sum(float(tokens[name].sum()) * each for name, each in prices.items()) / 1e6
    n, outputs = len(tokens), float(tokens["output_tokens"].sum())
    return Value(1e6 * total / outputs if outputs else None, n), Value(total / n if n else None, n)
