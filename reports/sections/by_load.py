"""One metric against the number of users, a line per deployment: the chart that several sections draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.charts import Chart, axis, line, spread
from reports.frames import Aggregate, Group, Run
from reports.looks import looks
from reports.markup import Html, aggregate_cell
from reports.metrics import metric_of


def by_load_charts(run: Run, name: str) -> list[Chart]:
    """A chart per scenario of a value by its name (`ttft_s.p50`); none where no start has the value."""
    scenarios = list(dict.fromkeys(group.scenario for group in run.groups))
    charts = []
    for scenario in scenarios:
        groups = [group for group in run.groups if group.scenario == scenario]
        found = [(group, run.aggregate(group, name)) for group in groups]
        if any(aggregate.mean is not None for _, aggregate in found):
            suffix = f": {scenario}" if len(scenarios) > 1 else ""
            charts.append(_chart(run, name, found, suffix, scenarios.index(scenario)))
    return charts


def _chart(run: Run, name: str, found: Sequence[tuple[Group, Aggregate]], suffix: str, number: int) -> Chart:
    metric = metric_of(name)
    level = name.partition(".")[2]
    quantity = f"{metric.title}{f', {level}' if level else ''}"
    traces = [
        trace
        for label, look in looks(run).items()
        if (trace := _trace(look, name, [pair for pair in found if pair[0].deployment == label]))
    ]
    users = sorted({group.concurrency for group, _ in found})
    rows: list[Sequence[Html | str]] = [
        [group.deployment, group.load, aggregate_cell(name, value), f"{value.n:,}", str(value.k)]
        for group, value in found
    ]
    layout = {
        "xaxis": axis("users (log scale)", type="log", tickvals=users, ticktext=[f"{u:,}" for u in users])
        if max(users) > 8 * min(users)
        else axis("users", tickvals=users, range=_room(users)),
        "yaxis": axis(metric.shown_unit, rangemode="tozero"),
    }
    note = _missing(name, found)
    columns = ["deployment", "load", metric.shown_unit, "n", "starts"]
    return Chart(
        f"{name}-{number}".replace(".", "-"),
        quantity[:1].upper() + quantity[1:] + suffix,
        traces,
        layout,
        columns,
        rows,
        note,
    )


def _missing(name: str, found: Sequence[tuple[Group, Aggregate]]) -> str:
    """Which points are not drawn, and which cells behind the drawn ones failed."""
    absent = [f"{group.deployment} at {group.load}" for group, value in found if value.mean is None]
    failed = [
        f"{cell.label} at {cell.load_label}, start {cell.planned.repeat + 1}: {cell.status}"
        for group, _ in found
        for cell in group.cells
        if cell.status != "completed"
    ]
    said = [f"No value: {_names(absent)}."] if absent else []
    return " ".join([*said, f"Left out: {_names(failed)}."] if failed else said)


def _names(names: Sequence[str]) -> str:
    return "; ".join(names[:4]) + (f"; {len(names) - 4} more" if len(names) > 4 else "")


def _room(users: Sequence[int]) -> list[float]:
    margin = max(0.08 * (users[-1] - users[0]), 0.4)
    return [users[0] - margin, users[-1] + margin]


def _trace(look: Any, name: str, pairs: Sequence[tuple[Group, Aggregate]]) -> dict[str, Any] | None:
    known = [(group.concurrency, value) for group, value in pairs if value.mean is not None]
    if not known:
        return None
    scale = metric_of(name).shown_scale
    means, lows, highs = (
        [getattr(value, which) * scale for _, value in known] for which in ("mean", "low", "high")
    )
    return line(look, [users for users, _ in known], means, error_y=spread(means, lows, highs))
