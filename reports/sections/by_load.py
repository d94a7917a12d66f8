"""One metric against the number of users, a line per deployment: the chart that several sections draw."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from reports.charts import Chart, axis, line, spread
from reports.charts import label as text_of
from reports.frames import Aggregate, Group, Run
from reports.looks import Look, looks
from reports.markup import NOTHING, Html, aggregate_cell, several
from reports.metrics import counted, metric_of


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
    users = sorted({group.concurrency for group, _ in found})
    is_log = max(users) > 8 * min(users)
    labels = list(dict.fromkeys(group.deployment for group, _ in found))
    traces = []
    for label in labels:
        pairs = [pair for pair in found if pair[0].deployment == label]
        shift = labels.index(label) - (len(labels) - 1) / 2
        if trace := _trace(looks(run)[label], name, pairs, aside(users, len(labels), shift, is_log)):
            traces.append(trace)
    rows: list[Sequence[Html | str]] = [
        [
            group.deployment,
            group.load,
            aggregate_cell(name, value),
            counted(value.n, value.requests) if value.k else NOTHING,
            str(value.k),
        ]
        for group, value in found
    ]
    layout = {
        "xaxis": axis("users (log scale)", type="log", tickvals=users, ticktext=[f"{u:,}" for u in users])
        if is_log
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
    absent = [
        f"{group.deployment} at {group.load}{_why_partial(value)}"
        for group, value in found
        if value.mean is None
    ]
    failed = [
        f"{cell.label} at {cell.load_label}, start {cell.planned.repeat + 1}: {cell.status}"
        for group, _ in found
        for cell in group.cells
        if cell.status != "completed"
    ]
    said = [f"No value: {several(absent, '; ')}."] if absent else []
    return " ".join([*said, f"Left out: {several(failed, '; ')}."] if failed else said)


def _why_partial(value: Aggregate) -> str:
    """The reason where some starts have a value and others do not; the tooltip has the other reasons."""
    is_partial = any(each is not None for each in value.values)
    return f" ({value.why})" if is_partial and value.why else ""


def aside(users: Sequence[int], deployments: int, shift: float, is_log: bool) -> dict[int, float]:
    """Where each number of users is drawn for a deployment that stands `shift` steps beside the middle one:
    side by side, so that error bars do not cover each other."""
    places = [math.log10(count) if is_log else float(count) for count in users]
    if len(places) > 1:
        nearest = min(b - a for a, b in itertools.pairwise(places))
        whole = places[-1] - places[0]
        step = min(0.018 * whole, 0.14 * whole / deployments, 0.4 * nearest / deployments)
    else:
        step = min(0.06, 0.6 / deployments)
    moved = [place + shift * step for place in places]
    return {
        count: round(10**place if is_log else place, 4) for count, place in zip(users, moved, strict=True)
    }


def _room(users: Sequence[int]) -> list[float]:
    margin = max(0.08 * (users[-1] - users[0]), 0.4)
    return [users[0] - margin, users[-1] + margin]


def _trace(
    look: Look, name: str, pairs: Sequence[tuple[Group, Aggregate]], places: Mapping[int, float]
) -> dict[str, Any] | None:
    known = [(group, value) for group, value in pairs if value.mean is not None]
    if not known:
        return None
    scale = metric_of(name).shown_scale
    means, lows, highs = (
        [getattr(value, which) * scale for _, value in known] for which in ("mean", "low", "high")
    )
    return line(
        look,
        [places[group.concurrency] for group, _ in known],
        means,
        error_y=spread(means, lows, highs),
        customdata=[text_of(group.load) for group, _ in known],
        hovertemplate="%{fullData.name}<br>%{customdata}: %{y:.4~g}<extra></extra>",
    )
