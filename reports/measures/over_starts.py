"""Values of a group over its starts: the mean, what is shown beside it, and whether it may be compared.

The mean of three starts or more has its 95 % interval. A t interval of two starts would be 13 times as wide
as their distance, so two show their range. Blocks on a server that was not restarted also show their range:
they do not say how starts differ.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from serving_bench.harness.contracts import Fact, Precision, because
from serving_bench.harness.errors import StoreError
from serving_bench.reports.data import Cell, Group, Run, once, open_run, quantile, together
from serving_bench.reports.measures.equal_work import disturbed_repeats, work_of
from serving_bench.reports.measures.metrics import (
    Value,
    is_supported,
    metric_of,
    value_names,
    value_of_start,
    why_missing,
)
from serving_bench.reports.measures.values import measured_of, observations_of, request_values, values_of
from serving_bench.reports.stats.intervals import STARTS_NEEDED, may_be_logged, of_values

_NONE = Value(None, 0)
BARS = (
    "Bars: the mean's 95 % interval over starts. Two starts, and blocks on a server that was not restarted, "
    "show their range; one start has no bar."
)


@dataclass(frozen=True)
class Aggregate:
    """One metric over a group's starts.

    A percentile, or another metric that needs every start, has a mean only if every start that counts has a
    value. A slow start is the one with few requests, and leaving it out would favour the fast ones.
    """

    mean: float | None  # geometric unless the metric is additive or a value is 0
    low: float | None  # the least value
    high: float | None
    k: int  # how many starts have a value, or 0 without a mean
    n: int  # their observations together
    values: tuple[float | None, ...]
    requests: int | None = None  # how many requests the observations come from, if one gives several
    why: Fact | None = None  # why there is no mean; None without a start
    interval: tuple[float, float] | None = None  # the mean's, at 95 %
    is_of_starts: bool = True  # otherwise the values are of blocks on one server
    # Without a mean: the percentile over the requests of all starts, if they are enough. It has no interval,
    # since it does not say how starts differ.
    pooled: Value | None = None

    @property
    def pooled_over(self) -> str:
        """The label of a pooled percentile: `pooled over 3 starts`."""
        return f"pooled over {len(self.values)} {'starts' if self.is_of_starts else 'blocks'}"


def aggregate(run: Run, group: Group, name: str, repeats: Collection[int] = ()) -> Aggregate:
    """Return a metric over the group's starts that count, or over these repeats of them. It is withheld if it
    needs equal lengths and the answers differ in length."""
    if why := withheld(run, group.key, name):
        return Aggregate(None, None, None, 0, 0, (), why=why)
    starts = by_start(run, group, name)
    of_chosen = aggregate_of(run, group, name, [starts[k] for k in starts if not repeats or k in repeats])
    may_be_pooled = metric_of(name).is_distribution and not any(start.why for start in starts.values())
    if of_chosen.mean is None and len(of_chosen.values) > 1 and may_be_pooled:
        whole = pooled(run, group, name, repeats)
        return of_chosen if whole.value is None else replace(of_chosen, pooled=whole)
    return of_chosen


@once
def compared_metrics(run: Run) -> tuple[str, ...]:
    """Return compare.metrics. Raises StoreError if the record has none, or one that does not exist."""
    names, names_known = run.record.compare.metrics, value_names()
    if wrong := [name for name in names or [""] if name not in names_known]:
        raise StoreError(f"{run.path / 'run.json'}: damaged (compare.metrics: no metric {wrong[0]!r:.99})")
    return names


def aggregate_of(run: Run, group: Group, name: str, values_of_starts: Sequence[Value]) -> Aggregate:
    """Return a metric over these values, one of each start of the group that counts."""
    values = tuple(value.value for value in values_of_starts)
    used = [value for value in values_of_starts if value.value is not None]
    is_restarted = run.is_restarted(group.deployment)
    metric = metric_of(name)
    needs_all = metric.is_distribution or metric.needs_every_start
    if not used or (needs_all and len(used) < len(values_of_starts)):
        most = max(values_of_starts, key=lambda value: value.n, default=_NONE)
        why = why_missing(name, most) if values_of_starts else None
        if used:
            kind = "few_have_requests" if metric.is_distribution else "few_have_value"
            why = because(kind, k=len(used), starts=len(values_of_starts))
        return Aggregate(None, None, None, 0, 0, values, why=why, is_of_starts=is_restarted)
    present = [value for value in values if value is not None]
    # A value of 0 has no logarithm, so the mean is then arithmetic.
    is_log = not metric.is_additive and may_be_logged(present)
    estimate = of_values(present, is_log=is_log)
    return Aggregate(
        mean=estimate.shown,
        low=min(present),
        high=max(present),
        k=len(used),
        n=sum(value.n for value in used),
        values=values,
        requests=sum(value.requests or 0 for value in used) or None,
        interval=estimate.interval() if len(present) > 1 else None,
        is_of_starts=is_restarted,
    )


def pooled(run: Run, group: Group, name: str, repeats: Collection[int] = ()) -> Value:
    """Return a percentile over all requests of the starts that a group's values come from, or of these
    repeats of them; None if they are too few. Gaps are counted in bins up to 1.6 % wide."""
    base, _, level = name.partition(".p")
    share, requests, cells = int(level) / 100, None, value_cells(run, group, repeats)
    if base == "itl_s":
        gaps = together(measured_of(run)[cell.number].gaps for cell in cells)
        n, requests, value = gaps.n, gaps.requests, quantile(gaps.counts, share)
    else:
        seconds = np.concatenate([np.empty(0), *(observations_of(run, cell, base) for cell in cells)])
        n, value = len(seconds), float(np.quantile(seconds, share)) if len(seconds) else None
    return Value(value if is_supported(int(level), n, requests) else None, n, requests)


@once
def by_start(run: Run, group: Group, name: str) -> dict[int, Value]:
    """Return a metric's value of each start that counts, by repeat, over all windows of the start.

    Repeats in which the machine was disturbed are left out if enough others remain.
    """
    measured = values_of(run)
    return {
        repeat: value_of_start([measured[cell.number].get(name, _NONE) for cell in cells])
        for repeat, cells in calm_starts(run, group).items()
    }


def calm_starts(run: Run, group: Group) -> dict[int, list[Cell]]:
    """Return the cells that `by_start` uses, by repeat."""
    starts = {cells[0].planned.repeat: cells for cells in group.counted_by_start}
    busy = disturbed_repeats(run, group)
    calm = {repeat: cells for repeat, cells in starts.items() if repeat not in busy}
    return calm if len(calm) >= STARTS_NEEDED else starts


def value_cells(run: Run, group: Group, repeats: Collection[int] = ()) -> list[Cell]:
    """Return the cells that a group's values come from, or those of these repeats."""
    starts = calm_starts(run, group)
    return [cell for repeat in starts if not repeats or repeat in repeats for cell in starts[repeat]]


# --- by turn of the conversation -------------------------------------------------------------------


_OF_TURNS = ("ttft_s", "tpot_s", "input_tokens", "cached_tokens")


@once
def turn_values(run: Run, group: Group, name: str) -> dict[int, dict[int, Value]]:
    """Return a value by turn (from 0) and repeat, over the starts that the group's values come from.

    `name`: the median of TTFT or TPOT (`ttft_s.p50`), the mean of `input_tokens`, or `cached_share`.
    """
    by_repeat = {
        repeat: [_by_turn(run, cell.number) for cell in cells]
        for repeat, cells in calm_starts(run, group).items()
    }
    return {
        turn: {
            repeat: value_of_start([by_turn.get(turn, {}).get(name, _NONE) for by_turn in windows])
            for repeat, windows in by_repeat.items()
        }
        for turn in sorted(
            {turn for windows in by_repeat.values() for by_turn in windows for turn in by_turn}
        )
    }


@once
def _by_turn(run: Run, number: int) -> dict[int, dict[str, Value]]:
    turns = run.ok_values(number, "turn")
    columns = {name: run.ok_values(number, name) for name in _OF_TURNS}
    return {
        int(turn): request_values({name: each[turns == turn] for name, each in columns.items()})
        for turn in np.unique(turns[~np.isnan(turns)])
    }


# Prompts at least this many times as long as their answers are most of the work.
_LONG_PROMPTS = 10


def read_rates(run: Run, groups: Sequence[Group]) -> list[str]:
    """Return the name of the rate at which prompts are read if prompts are most of the work in any of these
    groups, otherwise nothing."""
    counts = [
        [aggregate(run, group, f"{way}_tokens").mean for way in ("input", "output")] for group in groups
    ]
    is_most = any(inputs and outputs and inputs >= _LONG_PROMPTS * outputs for inputs, outputs in counts)
    return ["input_tokens_per_s"] if is_most else []


# --- what is offered, in which unit ----------------------------------------------------------------


def withheld(run: Run, key: tuple[str, str, str], name: str) -> Fact | None:
    """Return why a value is not offered for the group of this key; None if it is."""
    return work_of(run).per_token_only.get(key) if metric_of(name).needs_equal_lengths else None


def unit_of(run: Run, name: str) -> str:
    """Return a value's unit as it is shown. The unit of a cost is the currency of the run's price."""
    metric, price = metric_of(name), run.record.price
    return price.currency if metric.unit == "price.currency" and price else metric.shown_unit


# --- what is shown beside a mean -------------------------------------------------------------------


def has_interval(aggregate: Aggregate) -> bool:
    """Return whether enough starts have a value for an interval to be shown."""
    return aggregate.is_of_starts and aggregate.k >= STARTS_NEEDED and aggregate.interval is not None


def span(aggregate: Aggregate) -> tuple[float, float] | None:
    """Return the interval or range that is shown beside the mean; None for fewer than two values."""
    if has_interval(aggregate):
        return aggregate.interval
    return (
        None
        if aggregate.k < 2 or aggregate.low is None or aggregate.high is None
        else (aggregate.low, aggregate.high)
    )


def shorter_half(aggregate: Aggregate) -> float:
    """Return the distance from the mean to the nearer end of its interval, which limits the shown digits; 0
    without an interval."""
    if not has_interval(aggregate) or aggregate.interval is None or aggregate.mean is None:
        return 0.0
    low, high = aggregate.interval
    return min(aggregate.mean - low, high - aggregate.mean)


# --- how sure a mean is, for `until` ---------------------------------------------------------------


def precisions(run_dir: Path, metric: str) -> tuple[Precision, ...]:
    """Return how precise a metric is for each deployment, scenario and load: the widest interval first, those
    without a mean last.

    Raises StoreError if the directory cannot be read.
    """
    run, each_case = open_run(run_dir), []
    for group in run.groups:
        value = aggregate(run, group, metric)
        share, why = half_width_share(value), None
        if share is None:
            errors = [cell.reason for cell in group.cells if cell.reason and not cell.counts]
            unmeasured = value.why or (errors or [because("no_cell_counts")])[-1]
            why = unmeasured if value.mean is None else because("mean_is_0")
        case = [group.deployment, *([group.scenario] if run.has_scenarios else []), group.load]
        each_case.append(Precision(", ".join(case), share, why))
    return tuple(
        sorted(each_case, key=lambda e: math.inf if e.half_width_share is None else -e.half_width_share)
    )


def half_width_share(aggregate: Aggregate) -> float | None:
    """Return the larger side of a mean's 95 % interval, divided by the mean.

    Infinite for a single start; None without a mean, or if the mean is 0 and the interval is not.
    """
    if aggregate.mean is None or aggregate.interval is None:
        return None if aggregate.mean is None else math.inf
    side = max(aggregate.mean - aggregate.interval[0], aggregate.interval[1] - aggregate.mean)
    return 0.0 if side == 0 else abs(side / aggregate.mean) if aggregate.mean else None
