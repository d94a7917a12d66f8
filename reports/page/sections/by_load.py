"""One metric against the load, a line per deployment: the chart that several sections draw."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from reports.data.cells import Group, level_axis, level_text
from reports.data.run import Run
from reports.measures.metrics import SEVERAL_TOKENS, counted, is_percentile, metric_of
from reports.measures.over_starts import Aggregate, aggregate, span, unit_of, withheld
from reports.measures.written import NOTHING, several, shown
from reports.page.charts import Chart, about, axis, line, spread
from reports.page.charts import label as text_of
from reports.page.drawn.thinned import significant
from reports.page.log_axis import log_ticks
from reports.page.looks import Look, looks
from reports.page.marks import marked_cell
from reports.page.markup import Of, Row
from reports.page.sections.points import by_turn, marked_points, point_text, points_by_start
from reports.words.said import capital
from reports.words.titles import title_by_load

# Latencies of two deployments at one load, from which factor on they stand on a log scale.
_LOG_FROM = 5.0
# What a token takes falls with the load as much as it differs between deployments.
_OF_A_TOKEN = {
    "energy_j_per_output_token": " per output token",
    "cost_per_million_output_tokens": " per million output tokens",
}
# An SLO's limit further above all values would press them together.
_REACH = 1.5


def by_load_charts(run: Run, name: str) -> list[Chart]:
    """A chart per scenario and family of loads (users, rates of one arrival process, a trace) of a value by
    its name (`ttft_s.p50`); none where no start has the value."""
    axes = list(dict.fromkeys((group.scenario, group.family) for group in run.groups))
    charts = []
    for number, (scenario, family) in enumerate(axes):
        groups = [group for group in run.groups if (group.scenario, group.family) == (scenario, family)]
        found = [(group, aggregate(run, group, name)) for group in groups]
        if any(aggregate.mean is not None for _, aggregate in found):
            charts.append(_chart(run, name, found, axes_suffix(axes, scenario, family), number))
    return charts


def axes_suffix(axes: Sequence[tuple[str, str]], scenario: str, family: str) -> str:
    """What tells a chart's title from the others' of the same value."""
    scenarios, families = ({pair[at] for pair in axes} for at in (0, 1))
    said = ([scenario] if len(scenarios) > 1 else []) + ([family] if len(families) > 1 else [])
    return f": {', '.join(said)}" if said else ""


def _chart(run: Run, name: str, found: Sequence[tuple[Group, Aggregate]], suffix: str, number: int) -> Chart:
    metric = metric_of(name)
    level = name.partition(".")[2]
    quantity = capital(f"{metric.title}{f', {level}' if level else ''}{suffix}")
    finding = title_by_load(run, name, [group for group, _ in found])
    family = found[0][0].family
    levels = sorted({group.level for group, _ in found})
    is_log = max(levels) > 8 * min(levels) > 0
    labels = list(dict.fromkeys(group.deployment for group, _ in found))
    traces = []
    for label in labels:
        pairs = [pair for pair in found if pair[0].deployment == label]
        shift = labels.index(label) - (len(labels) - 1) / 2
        if trace := _trace(run, looks(run)[label], name, pairs, aside(levels, len(labels), shift, is_log)):
            traces.append(trace)
    y, room = _value_axis(run, name, found)
    layout = {"xaxis": _level_axis(family, levels, is_log), "yaxis": y, **_limit(run, name, found, y)}
    said = (
        "Some bars reach beyond the frame; the table has their ends." if room else "",
        _several_tokens(run, name, found),
        marked_points(run, [group for group, value in found if value.mean is not None], [name]),
        _missing(run, name, found),
    )
    word = "starts" if all(value.is_of_starts for _, value in found) else "blocks"
    return Chart(
        f"{name}-{number}".replace(".", "-"),
        finding or quantity,
        traces,
        layout,
        ["deployment", "load", unit_of(run, name), "n", word],
        _rows(run, name, found),
        " ".join(part for part in said if part),
        quantity=quantity if finding else "",
        names_ends=True,
    )


def _rows(run: Run, name: str, found: Sequence[tuple[Group, Aggregate]]) -> list[Row]:
    """What the chart draws, as a table."""
    return [
        Row(
            [
                group.deployment,
                group.load,
                marked_cell(run, group, name),
                counted(value.n, value.requests) if value.k else NOTHING,
                str(value.k),
            ],
            Of(group.deployment, group.load),
        )
        for group, value in found
    ]


def _value_axis(run: Run, name: str, found: Sequence[tuple[Group, Aggregate]]) -> tuple[dict[str, Any], bool]:
    """From 0 on; on a log scale where latencies of deployments at one load, or what a token takes at all
    loads, lie so far apart that the lower ones would be one line. Whether bars are cut."""
    metric = metric_of(name)
    unit = f"{text_of(unit_of(run, name))}{_OF_A_TOKEN.get(name, '')}"
    room = _cut([aggregate for _, aggregate in found], metric.shown_scale)
    low, high = _ends([value.mean * metric.shown_scale for _, value in found if value.mean])
    is_latency = is_percentile(name) and not metric.is_additive
    if low > 0 and (
        (is_latency and _widest(found) > _LOG_FROM) or (name in _OF_A_TOKEN and high > _LOG_FROM * low)
    ):
        ticks = log_ticks(low / 2, 2 * high)
        ends = {"range": [math.log10(low / 2), math.log10(2 * high)]} if room else {}
        return axis(f"{unit} (log scale)", type="log", **ticks, **ends), bool(room)
    return axis(unit, rangemode="tozero", **({"range": room} if room else {})), bool(room)


def _limit(
    run: Run, name: str, found: Sequence[tuple[Group, Aggregate]], y: Mapping[str, Any]
) -> dict[str, Any]:
    """The SLO's limit on this value as a line, where it is not far above all values."""
    limits = [each.limit_s for each in run.record.slo if each.name == name and each.limit_s]
    _, high = _ends([value.mean for _, value in found if value.mean])
    if not limits or limits[0] > _REACH * high:
        return {}
    at = limits[0] * metric_of(name).shown_scale
    line_at = {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": at, "y1": at, "layer": "below",
        "line": {"color": "--mut", "width": 1, "dash": "dash"},
    }  # fmt: skip
    said = {
        "xref": "paper", "x": 0, "xanchor": "left", "y": math.log10(at) if y.get("type") == "log" else at,
        "yanchor": "bottom", "showarrow": False, "font": {"color": "--mut", "size": 11},
        "text": f"SLO: {at:g} {metric_of(name).shown_unit}",
    }  # fmt: skip
    return {"shapes": [line_at], "annotations": [said]}


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (0.0, 0.0)


def _widest(found: Sequence[tuple[Group, Aggregate]]) -> float:
    """The greatest value over the least at one load, the most of all loads."""
    by_level: dict[float, list[float]] = {}
    for group, value in found:
        if value.mean and value.mean > 0:
            by_level.setdefault(group.level, []).append(value.mean)
    return max((max(values) / min(values) for values in by_level.values()), default=1.0)


def _cut(found: Sequence[Aggregate], scale: float) -> list[float] | None:
    """The frame from 0 to twice the greatest start's value, where an interval reaches beyond it, so that the
    points stay apart; None where none does. What can be negative is never cut."""
    lows, highs = ([getattr(each, end) for each in found if each.mean is not None] for end in ("low", "high"))
    ends = [ends for each in found if (ends := span(each))]
    if not ends or min(lows) < 0:
        return None
    top = 2 * max(highs)
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    if not top or (low >= 0 and high <= top):
        return None
    return [0.0, scale * min(1.05 * max(high, *highs), top)]


def _several_tokens(run: Run, name: str, found: Sequence[tuple[Group, Aggregate]]) -> str:
    """For gaps between chunks: of how many tokens a chunk is, where it is clearly more than one."""
    if not name.startswith("itl_s"):
        return ""
    each = [(group, aggregate(run, group, "tokens_per_chunk").mean) for group, _ in found]
    most: dict[str, float] = {}
    for group, tokens in each:
        if tokens is not None and tokens > SEVERAL_TOKENS:
            most[group.deployment] = max(tokens, most.get(group.deployment, 0.0))
    said = [f"{deployment}: {shown('tokens_per_chunk', tokens)}" for deployment, tokens in most.items()]
    return f"Gaps are between chunks of several tokens ({several(said)})." if said else ""


def _missing(run: Run, name: str, found: Sequence[tuple[Group, Aggregate]]) -> str:
    """Which points are not drawn, whose are no comparison, and which cells behind the drawn ones failed."""
    absent = [
        f"{group.deployment} at {group.load}{_why_partial(value)}"
        for group, value in found
        if value.mean is None and not withheld(run, group.key, name)
    ]
    kept_back: dict[str, list[str]] = {}
    for group, _ in found:
        if why := withheld(run, group.key, name):
            kept_back.setdefault(group.deployment, []).append(why)
    failed = [
        f"{cell.label} at {cell.load_label}, start {cell.planned.repeat + 1}: {cell.status}"
        for group, _ in found
        for cell in group.cells
        if cell.status != "completed"
    ]
    said = [f"No value: {several(absent, '; ')}."] if absent else []
    if kept_back:
        whys = [f"{deployment} ({several(found)})" for deployment, found in kept_back.items()]
        said.append(f"Not compared: {several(whys, '; ')}.")
    return " ".join([*said, f"Left out: {several(failed, '; ')}."] if failed else said)


def _why_partial(value: Aggregate) -> str:
    """The reason where some starts have a value and others do not; the tooltip has the other reasons."""
    is_partial = any(each is not None for each in value.values)
    return f" ({value.why})" if is_partial and value.why else ""


def _level_axis(family: str, levels: Sequence[float], is_log: bool) -> dict[str, Any]:
    title, ticks = level_axis(family), [level_text(family, level) for level in levels]
    if is_log:
        return axis(f"{title} (log scale)", type="log", tickvals=levels, ticktext=ticks)
    return axis(title, tickvals=levels, ticktext=ticks, range=_room(levels))


def aside(levels: Sequence[float], deployments: int, shift: float, is_log: bool) -> dict[float, float]:
    """Where each level of the load is drawn for a deployment that stands `shift` steps beside the middle one:
    side by side, so that error bars do not cover each other."""
    places = [math.log10(level) if is_log else level for level in levels]
    if len(places) > 1:
        nearest = min(b - a for a, b in itertools.pairwise(places))
        whole = places[-1] - places[0]
        step = min(0.018 * whole, 0.14 * whole / deployments, 0.4 * nearest / deployments)
    else:
        step = _alone(levels) * min(0.06, 0.6 / deployments)
    moved = [place + shift * step for place in places]
    return {
        level: significant(10**place if is_log else place, 6)
        for level, place in zip(levels, moved, strict=True)
    }


def _alone(levels: Sequence[float]) -> float:
    """The length that stands for one unit where there is a single level."""
    return min(1.0, levels[0]) if len(levels) == 1 else 1.0


def _room(levels: Sequence[float]) -> list[float]:
    margin = max(0.08 * (levels[-1] - levels[0]), 0.4 * _alone(levels) if len(levels) == 1 else 0.0)
    return [levels[0] - margin, levels[-1] + margin]


def _trace(
    run: Run, look: Look, name: str, pairs: Sequence[tuple[Group, Aggregate]], places: Mapping[float, float]
) -> dict[str, Any] | None:
    known = [(group, value) for group, value in pairs if value.mean is not None]
    if not known:
        return None
    metric, groups = metric_of(name), [group for group, _ in known]
    means = [(value.mean or 0.0) * metric.shown_scale for _, value in known]
    ends = [span(value) for _, value in known]
    lows, highs = ([pair[at] * metric.shown_scale if pair else None for pair in ends] for at in (0, 1))
    trace = line(
        look,
        [places[group.level] for group in groups],
        means,
        error_y=spread(means, lows, highs),
        customdata=[text_of(group.load) for group in groups],
        text=[point_text(run, group, name, value) for group, value in known],
        hovertemplate=f"%{{fullData.name}}<br>%{{customdata}}: %{{y:,.4~g}} {text_of(unit_of(run, name))}"
        "<br>%{text}<extra></extra>",
    )
    points = [Of(load=group.load) for group in groups]
    starts, turns = points_by_start(run, name, groups), by_turn(run, name, groups)
    return about(trace, Of(look.label), points=points, by_start=starts, by_turn=turns)
