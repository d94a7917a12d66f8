"""Latency: percentiles by load, distributions, and medians by turn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports.cells import Group
from reports.frames import Run
from reports.metrics import (
    LATENCIES,
    Value,
    counted,
    is_supported,
    metric_of,
    needed,
    percentile_values,
)
from reports.page.charts import Chart, Section, axis, cumulative, grid, line
from reports.page.looks import key, looks
from reports.page.markup import Html, details, join, number, paragraph, several, tag
from reports.sections.by_load import by_load_charts
from reports.spans import BARS

_OPEN_TURNS = "turns-ttft_s"
_SHORT = {"ttft_s": "TTFT", "itl_s": "ITL", "tpot_s": "TPOT", "e2e_s": "E2E"}


def section(run: Run) -> Section | None:
    """None where no request gave a latency."""
    levels = ("p50", "p95")
    by_load = [chart for m in LATENCIES for level in levels for chart in by_load_charts(run, f"{m}.{level}")]
    cases = list(dict.fromkeys((g.scenario, g.load, g.family, g.level) for g in run.groups))
    cases.sort(key=lambda case: (case[0], case[2], -case[3]))
    spreads = [(case, _distributions(run, *case[:2], index)) for index, case in enumerate(cases)]
    spreads = [(case, charts) for case, charts in spreads if charts]
    turns = [(case, _turn_charts(run, *case[:2], index)) for index, case in enumerate(cases)]
    turns = [(case, found) for case, found in turns if found]
    charts = [*by_load, *(c for _, found in (*spreads, *turns) for c in found)]
    if not charts:
        return None
    note = paragraph(
        f"Lower is better. Points are means over starts of each start's percentile. {BARS} A "
        "point is missing where a start had too few requests for that percentile (see Method). "
        + _origins(run)
    )
    parts = [note, key(run), grid(by_load), *_spread_parts(run, spreads), *_turn_parts(run, turns)]
    return Section("Latency", join(parts), charts)


def _origins(run: Run) -> str:
    """Where TTFT and E2E count from, for the loads that this run has."""
    kinds = {cell.load.kind for cell in run.planned_cells}
    said = "TTFT and E2E count from the moment a request was {}."
    if "closed" not in kinds:
        return said.format("due: a late sending is part of them (see Method)")
    if kinds == {"closed"}:
        return said.format("sent")
    return said.format("sent (users), or was due (rates and traces)")


def _spread_parts(run: Run, spreads: Sequence[tuple[Any, list[Chart]]]) -> list[Html]:
    """The highest load open, the others folded."""
    if not spreads:
        return []
    note = paragraph(
        "Share of requests (ITL: of gaps) at or below each value, all starts that count together; "
        "at most 500 "
        "steps of a line are drawn, evenly by rank."
    )
    parts = [tag("h3", "Distributions"), note, key(run)]
    first_of: set[str] = set()
    for (scenario, load, *_), charts in spreads:
        title = f"At {load}, {scenario}"
        if scenario in first_of:
            parts.append(details(title, grid(charts)))
        else:
            parts += [paragraph(title), grid(charts)]
        first_of.add(scenario)
    return parts


def _turn_parts(run: Run, turns: Sequence[tuple[Any, list[Chart]]]) -> list[Html]:
    """TTFT open, the others folded."""
    if not turns:
        return []
    parts: list[Html] = [tag("h3", "By turn of the conversation"), key(run)]
    parts.append(grid([c for _, charts in turns for c in charts if c.id.startswith(_OPEN_TURNS)]))
    for (scenario, load, *_), charts in turns:
        others = [chart for chart in charts if not chart.id.startswith(_OPEN_TURNS)]
        if others:
            names = ", ".join(chart.title.partition(",")[0] for chart in others)
            parts.append(details(f"{names} by turn at {load}, {scenario}", grid(others)))
    return parts


def _pooled(run: Run, group: Group, name: str) -> tuple[np.ndarray, int | None]:
    """The starts' observations together; for gaps, how many requests they come from."""
    if name == "itl_s":
        gaps = [run.gaps(cell.number) for cell in group.counted]
        seconds = [found.seconds for found in gaps]
        return np.concatenate([np.empty(0), *seconds]), sum(found.requests for found in gaps)
    return np.concatenate(
        [np.empty(0), *(run.observations(cell.number, name) for cell in group.counted)]
    ), None


def _at(run: Run, scenario: str, load: str, name: str) -> list[Group]:
    """The groups whose values of a latency may stand side by side."""
    groups = [group for group in run.groups if (group.scenario, group.load) == (scenario, load)]
    return [group for group in groups if not run.withheld(group.key, name)]


def _distributions(run: Run, scenario: str, load: str, index: int) -> list[Chart]:
    charts = []
    for name in LATENCIES:
        pooled = [(group, *_pooled(run, group, name)) for group in _at(run, scenario, load, name)]
        if any(is_supported(50, len(values), requests) for _, values, requests in pooled):
            charts.append(_distribution(run, name, load, pooled, f"ecdf-{name}-{index}"))
    return charts


def _distribution(
    run: Run, name: str, load: str, pooled: Sequence[tuple[Group, np.ndarray, int | None]], chart_id: str
) -> Chart:
    metric, found = metric_of(name), looks(run)
    traces: list[dict[str, Any]] = []
    rows: list[Sequence[Html | str]] = []
    drawn = [values for _, values, requests in pooled if is_supported(50, len(values), requests)]
    low, high = (
        _on_log(np.array([end(float(end(v)) for v in drawn)]), metric.shown_scale)[0] for end in (min, max)
    )
    left, right = low / _edge(low, high), high * _edge(low, high)
    for group, values, requests in pooled:
        levels = percentile_values(name, values, requests)
        shown = [None if v.value is None else v.value * metric.shown_scale for v in levels.values()]
        rows.append([group.deployment, counted(len(values), requests), *(number(value) for value in shown)])
        if not is_supported(50, len(values), requests):
            continue
        x, share = cumulative(values)
        look = found[group.deployment]
        steps = {"color": look.colour, "dash": look.dash, "width": 2, "shape": "hv"}
        x_ms, y = [left, *_on_log(x, metric.shown_scale)], [0.0, *share]
        traces.append(line(look, _rounded(x_ms), _rounded(y), mode="lines", line=steps))
    layout = {
        "xaxis": axis(
            f"{metric.shown_unit} (log scale)",
            type="log",
            range=[math.log10(left), math.log10(right)],
            **_log_ticks(left, right),
        ),
        "yaxis": axis("share", range=[-0.02, 1.04], tickformat=".0%"),
    }
    columns = ["deployment", "n", *(f"p{level} {metric.shown_unit}" for level in (50, 90, 95, 99))]
    return Chart(chart_id, f"{_SHORT[name]} at {load}", traces, layout, columns, rows)


def _on_log(values: np.ndarray, scale: float) -> np.ndarray:
    """Values to draw on a log axis, which has no zero."""
    return np.maximum(values * scale, 1e-3)


def _edge(low: float, high: float) -> float:
    """Factor by which an axis reaches beyond its values, so that no line lies on the frame."""
    return max(math.pow(high / low, 0.03), 1.02)


# Fewer do not show how far apart values are.
FEWEST_TICKS = 3


def _log_ticks(low: float, high: float) -> dict[str, Any]:
    """Ticks at 1, 2, 5 of each decade, or closer where the values span less; plotly's own lack the decade."""
    steps: tuple[float, ...] = (1, 2, 5) if high > 8 * low else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    if high > 1000 * low:
        steps = (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [step * 10.0**decade for decade in decades for step in steps]
    places = None
    if low < high and sum(low <= value <= high for value in values) < FEWEST_TICKS:
        step = 10.0 ** math.floor(math.log10((high - low) / FEWEST_TICKS))
        step *= next(factor for factor in (10, 5, 2, 1) if (high - low) / (factor * step) >= FEWEST_TICKS)
        values = [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
        places = max(0, -math.floor(math.log10(step)))
    return {
        "tickvals": values,
        "ticktext": [_tick(value, places) for value in values],
    }


def _tick(value: float, places: int | None) -> str:
    if places is not None:
        return f"{value:,.{places}f}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.4g}"


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _turn_charts(run: Run, scenario: str, load: str, index: int) -> list[Chart]:
    return [chart for name in LATENCIES for chart in _by_turn(run, scenario, load, name, index)]


def _by_turn(run: Run, scenario: str, load: str, name: str, index: int) -> list[Chart]:
    """Medians of a latency by turn, where there is more than one."""
    found, short, scale = looks(run), _SHORT[name], metric_of(name).shown_scale
    traces, rows, absent = [], [], []
    for group in _at(run, scenario, load, name):
        medians = _turn_medians(run, group, name)
        shown = [(turn, v.value * scale if v.value is not None else None) for turn, v in medians.items()]
        rows += [
            [group.deployment, str(turn), number(ms), counted(medians[turn].n, medians[turn].requests)]
            for turn, ms in shown
        ]
        known = [(turn, ms) for turn, ms in shown if ms is not None]
        if known:
            traces.append(line(found[group.deployment], [t for t, _ in known], [ms for _, ms in known]))
        else:
            absent.append(group.deployment)
    turns = {turn for trace in traces for turn in trace["x"]}
    if len(turns) < 2:
        return []
    layout = {
        "xaxis": axis("turn of the conversation", dtick=1 if len(turns) < 15 else None),
        "yaxis": axis("ms", rangemode="tozero"),
    }
    columns = ["deployment", "turn", f"median {short} ms", "n"]
    note = f"Median over the starts' requests together, from {needed(50)} values up."
    if absent:
        note += f" No value: {several(absent, '; ')}."
    return [
        Chart(f"turns-{name}-{index}", f"{short}, median, at {load}", traces, layout, columns, rows, note)
    ]


def _turn_medians(run: Run, group: Group, name: str) -> dict[int, Value]:
    """By the turn as a person counts, from 1."""
    frames = [run.by_turn(cell.number, name).assign(cell=cell.number) for cell in group.counted]
    if not frames:
        return {}
    medians = {}
    for turn, frame in pd.concat(frames).groupby("turn"):
        requests = len(frame[["cell", "request"]].drop_duplicates()) if name == "itl_s" else None
        values = percentile_values(name, frame["seconds"].to_numpy(dtype=float), requests)
        medians[int(str(turn)) + 1] = values[f"{name}.p50"]
    return medians
