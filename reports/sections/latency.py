"""Latency: percentiles by users, distributions, and the time to first token by turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from reports.charts import Chart, Section, axis, cumulative, grid, line
from reports.frames import Group, Run
from reports.looks import key, looks
from reports.markup import Html, details, join, number, paragraph, tag
from reports.metrics import LATENCIES, metric_of, needed, percentile_values
from reports.sections.by_load import by_load_charts

_SHORT = {"ttft_s": "TTFT", "itl_s": "ITL", "tpot_s": "TPOT", "e2e_s": "E2E"}


def section(run: Run) -> Section | None:
    """None where no request gave a latency."""
    levels = ("p50", "p95")
    by_load = [chart for m in LATENCIES for level in levels for chart in by_load_charts(run, f"{m}.{level}")]
    cases = list(dict.fromkeys((g.scenario, g.load, g.concurrency) for g in run.groups))
    cases.sort(key=lambda case: (case[0], -case[2]))
    spreads = [(case, _distributions(run, *case[:2], index)) for index, case in enumerate(cases)]
    spreads = [(case, charts) for case, charts in spreads if charts]
    turns = [c for index, case in enumerate(cases) for c in _by_turn(run, *case[:2], index)]
    charts = [*by_load, *(c for _, found in spreads for c in found), *turns]
    if not charts:
        return None
    note = paragraph(
        "Lower is better. Points are means over starts of each start's percentile; bars span the starts. A "
        "point is missing where the starts had too few requests for that percentile (see Method)."
    )
    parts = [note, key(run), grid(by_load), *_spread_parts(run, spreads), *_turn_parts(run, turns)]
    return Section("Latency", join(parts), charts)


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
    for (scenario, load, _), charts in spreads:
        title = f"At {load}, {scenario}"
        if scenario in first_of:
            parts.append(details(title, grid(charts)))
        else:
            parts += [paragraph(title), grid(charts)]
        first_of.add(scenario)
    return parts


def _turn_parts(run: Run, turns: Sequence[Chart]) -> list[Html]:
    if not turns:
        return []
    return [tag("h3", "By turn of the conversation"), key(run), grid(turns)]


def _pooled(run: Run, group: Group, name: str) -> np.ndarray:
    found = [run.observations(cell.number, name) for cell in group.counted]
    return np.concatenate(found) if found else np.empty(0)


def _at(run: Run, scenario: str, load: str) -> list[Group]:
    return [group for group in run.groups if group.scenario == scenario and group.load == load]


def _distributions(run: Run, scenario: str, load: str, index: int) -> list[Chart]:
    charts = []
    for name in LATENCIES:
        pooled = [(group, _pooled(run, group, name)) for group in _at(run, scenario, load)]
        if any(len(values) >= needed(50) for _, values in pooled):
            charts.append(_distribution(run, name, load, pooled, f"ecdf-{name}-{index}"))
    return charts


def _distribution(
    run: Run, name: str, load: str, pooled: Sequence[tuple[Group, np.ndarray]], chart_id: str
) -> Chart:
    metric, found = metric_of(name), looks(run)
    traces: list[dict[str, Any]] = []
    rows: list[Sequence[Html | str]] = []
    for group, values in pooled:
        levels = percentile_values(name, values)
        shown = [None if v.value is None else v.value * metric.shown_scale for v in levels.values()]
        rows.append([group.deployment, f"{len(values):,}", *(number(value) for value in shown)])
        if len(values) < needed(50):
            continue
        x, share = cumulative(values)
        look = found[group.deployment]
        steps = {"color": look.colour, "dash": look.dash, "width": 2, "shape": "hv"}
        x_ms = np.maximum(x * metric.shown_scale, 1e-3)  # a log axis has no zero
        traces.append(line(look, _rounded(x_ms), _rounded(share), mode="lines", line=steps))
    layout = {
        "xaxis": axis(f"{metric.shown_unit} (log scale)", type="log", **_log_ticks(traces)),
        "yaxis": axis("share", range=[0, 1.02], tickformat=".0%"),
    }
    columns = ["deployment", "n", *(f"p{level} {metric.shown_unit}" for level in (50, 90, 95, 99))]
    return Chart(chart_id, f"{_SHORT[name]} at {load}", traces, layout, columns, rows)


def _log_ticks(traces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Ticks at 1, 2, 5 of each decade, or closer where the values span less; plotly's own lack the decade."""
    low = min(min(trace["x"]) for trace in traces)
    high = max(max(trace["x"]) for trace in traces)
    steps: tuple[float, ...] = (1, 2, 5) if high > 8 * low else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    if high > 1000 * low:
        steps = (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [step * 10.0**decade for decade in decades for step in steps]
    return {
        "tickvals": values,
        "ticktext": [f"{value:,.0f}" if value >= 10 else f"{value:.4g}" for value in values],
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _by_turn(run: Run, scenario: str, load: str, index: int) -> list[Chart]:
    """Median TTFT by turn, where there is more than one."""
    found = looks(run)
    traces, rows = [], []
    for group in _at(run, scenario, load):
        medians = _turn_medians(run, group)
        rows += [[group.deployment, str(turn), number(ms), f"{n:,}"] for turn, ms, n in medians]
        known = [(turn, ms) for turn, ms, _ in medians if ms is not None]
        if known:
            traces.append(line(found[group.deployment], [t for t, _ in known], [ms for _, ms in known]))
    turns = {turn for trace in traces for turn in trace["x"]}
    if len(turns) < 2:
        return []
    layout = {
        "xaxis": axis("turn of the conversation", dtick=1 if len(turns) < 15 else None),
        "yaxis": axis("ms", rangemode="tozero"),
    }
    columns = ["deployment", "turn", "median TTFT ms", "n"]
    note = f"Median over the starts' requests together, from {needed(50)} requests up."
    return [Chart(f"turns-{index}", f"TTFT, median, at {load}", traces, layout, columns, rows, note)]


def _turn_medians(run: Run, group: Group) -> list[tuple[int, float | None, int]]:
    """Turn as a person counts, from 1; median in ms; n."""
    by_turn: dict[int, list[float]] = {}
    for cell in group.counted:
        sent = run.window_requests(cell.number)
        ok = sent[(sent["outcome"] == "ok") & sent["ttft_s"].notna()]
        for turn, ttft_s in zip(ok["turn"], ok["ttft_s"], strict=True):
            by_turn.setdefault(int(turn), []).append(float(ttft_s))
    return [
        (turn + 1, float(np.median(values)) * 1e3 if len(values) >= needed(50) else None, len(values))
        for turn, values in sorted(by_turn.items())
    ]
