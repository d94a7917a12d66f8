"""A value against the load or the turn of the conversation: a line per deployment, with its table."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from reports.data.cells import Group, level_axis, level_text
from reports.data.run import Run
from reports.measures.metrics import SEVERAL_TOKENS, Value, counted, is_percentile, metric_of
from reports.measures.over_starts import (
    Aggregate,
    aggregate,
    aggregate_of,
    by_start,
    has_interval,
    span,
    turn_values,
    unit_of,
    withheld,
)
from reports.measures.written import NOTHING, plural, several, shown, span_text
from reports.page.cells import aggregate_cell, mean_cell
from reports.page.drawing import kinds
from reports.page.drawing.charts import Chart
from reports.page.drawing.kinds import Limit, Point
from reports.page.looks import looks
from reports.page.markup import Of, Row
from reports.verdicts.load_cases import LoadCase
from reports.words.titles import title_by_load
from reports.words.verdict_words import capital, title_of

# Conversations of hundreds of turns are drawn at so many of them.
TURNS_AT_MOST = 20
# What a token takes falls with the load as much as it differs between deployments.
_OF_A_TOKEN = {
    "energy_j_per_output_token": " per output token",
    "cost_per_million_output_tokens": " per million output tokens",
}


def by_load_charts(run: Run, name: str, more: Mapping[str, Any] | None = None) -> Iterator[Chart]:
    """Yield a chart of a value by its name (`ttft_s.p50`) per scenario and family of loads (users, rates of
    one arrival process, a trace); none if no start has the value. `more` is put into its layout."""
    for number, (suffix, groups) in enumerate(families(run)):
        found = [(group, aggregate(run, group, name)) for group in groups]
        if any(value.mean is not None for _, value in found):
            yield _chart(run, name, found, suffix, number, more or {})


def families(run: Run) -> Iterator[tuple[str, list[Group]]]:
    """Yield the groups that belong on one axis of loads, with what tells their chart's title from others'."""
    axes = list(dict.fromkeys((group.scenario, group.family) for group in run.groups))
    has_several = [len({axis[at] for axis in axes}) > 1 for at in (0, 1)]
    for axis in axes:
        said = [name for name, is_said in zip(axis, has_several, strict=True) if is_said]
        groups = [group for group in run.groups if (group.scenario, group.family) == axis]
        yield f": {', '.join(said)}" if said else "", groups


def _chart(
    run: Run,
    name: str,
    found: Sequence[tuple[Group, Aggregate]],
    suffix: str,
    number: int,
    more: Mapping[str, Any],
) -> Chart:
    metric, level = metric_of(name), name.partition(".")[2]
    quantity = capital(f"{metric.title}{f', {level}' if level else ''}{suffix}")
    finding = title_by_load(run, name, [group for group, _ in found])
    family, levels = found[0][0].family, sorted({group.level for group, _ in found})
    ticks = [level_text(family, level) for level in levels]
    points = [point(run, group, name, value) for group, value in found if value.mean is not None]
    traces, layout = kinds.lines(
        [
            (look, own)
            for label, look in looks(run).items()
            if (own := [each for each in points if each.of.deployment == label])
        ],
        kinds.place_axis(level_axis(family), levels, ticks),
        unit_of(run, name) + _OF_A_TOKEN.get(name, ""),
        may_be_log=(is_percentile(name) and not metric.is_additive) or name in _OF_A_TOKEN,
        limit=_limit(run, name),
    )
    rows = [
        Row(
            [
                group.deployment,
                group.load,
                mean_cell(run, group, name),
                counted(value.n, value.requests) if value.k else NOTHING,
                str(value.k),
            ],
            Of(group.deployment, group.load),
        )
        for group, value in found
    ]
    word = "starts" if all(value.is_of_starts for _, value in found) else "blocks"
    return Chart(
        f"{name}-{number}".replace(".", "-"),
        quantity,
        traces,
        {**layout, **more},
        ["deployment", "load", unit_of(run, name), "n", word],
        rows,
        " ".join(filter(None, [_several_tokens(run, name, found), _missing(run, name, found)])),
        finding=finding,
        names_ends=True,
    )


def point(run: Run, group: Group, name: str, value: Aggregate) -> Point:
    """Return a group's mean at its load as it is drawn."""
    starts = {repeat + 1: each for repeat, each in by_start(run, group, name).items()}
    return _point(name, Of(group.deployment, group.load), group.load, group.level, value, starts)


def _point(name: str, of: Of, at: str, x: float, value: Aggregate, starts: Mapping[int, Value]) -> Point:
    scale, ends = metric_of(name).shown_scale, span(value)
    what = "95 % interval" if has_interval(value) else "range"
    said = [f"{what} {span_text(name, value)}"] if ends else []
    said += [plural(value.k, "start" if value.is_of_starts else "block")]
    said += [f"n = {counted(value.n, value.requests)}"]
    return Point(
        of,
        at,
        x,
        (value.mean or 0.0) * scale,
        (ends[0] * scale, ends[1] * scale) if ends else None,
        ", ".join(said),
        {
            start: (None if each.value is None else each.value * scale, counted(each.n, each.requests))
            for start, each in starts.items()
        },
    )


def _limit(run: Run, name: str) -> Limit | None:
    metric = metric_of(name)
    limits = [
        each.limit_s * metric.shown_scale for each in run.record.slo if each.name == name and each.limit_s
    ]
    return Limit(limits[0], f"SLO: {limits[0]:g} {metric.shown_unit}") if limits else None


def _several_tokens(run: Run, name: str, found: Sequence[tuple[Group, Aggregate]]) -> str:
    """Say of how many tokens a chunk is, where gaps are drawn and it is clearly more than one."""
    if not name.startswith("itl_s"):
        return ""
    most: dict[str, float] = {}
    for group, _ in found:
        tokens = aggregate(run, group, "tokens_per_chunk").mean
        if tokens is not None and tokens > SEVERAL_TOKENS:
            most[group.deployment] = max(tokens, most.get(group.deployment, 0.0))
    said = [f"{deployment}: {shown('tokens_per_chunk', tokens)}" for deployment, tokens in most.items()]
    return f"Gaps are between chunks of several tokens ({several(said)})." if said else ""


def _missing(run: Run, name: str, found: Sequence[tuple[Group, Aggregate]]) -> str:
    """Say which points are not drawn, and why."""
    absent: list[str] = []
    kept_back: list[str] = []
    for group, value in found:
        if why := withheld(run, group.key, name):
            kept_back.append(f"{group.deployment} ({why})")
        elif value.mean is None:
            is_partial = any(each is not None for each in value.values)
            why = f" ({value.why})" if is_partial and value.why else ""
            absent.append(f"{group.deployment} at {group.load}{why}")
    said = [f"No value: {several(absent, '; ')}."] if absent else []
    return " ".join([*said, f"Not compared: {several(kept_back, '; ')}."] if kept_back else said)


# --- by turn ---------------------------------------------------------------------------------------


def turn_chart(run: Run, at: LoadCase, name: str, index: int) -> Chart | None:
    """Return a value by its name (`ttft_s.p50`, `cached_share`) against the turn at one load; None if fewer
    than two turns have it."""
    known: list[tuple[Group, dict[int, tuple[dict[int, Value], Aggregate]]]] = []
    for group in at.groups:
        if not withheld(run, group.key, name):
            found = turn_values(run, group, name).items()
            each = {turn: (own, aggregate_of(run, group, name, list(own.values()))) for turn, own in found}
            known.append((group, {turn: pair for turn, pair in each.items() if pair[1].mean is not None}))
    turns = sorted({turn for _, each in known for turn in each})
    if len(turns) < 2:
        return None
    places = np.linspace(0, len(turns) - 1, min(len(turns), TURNS_AT_MOST)).round().astype(int)
    drawn = [turns[place] for place in places]
    series = []
    for group, each in known:
        points = [_turn_point(name, group, turn, *pair) for turn, pair in each.items() if turn in drawn]
        series += [(looks(run)[group.deployment], points)] if points else []
    numbers = [turn + 1.0 for turn in drawn]
    axis = kinds.place_axis("turn of the conversation", numbers, [f"{number:g}" for number in numbers])
    rows = [
        Row(
            [
                group.deployment,
                str(turn + 1),
                aggregate_cell(name, mean),
                counted(mean.n, mean.requests),
                str(mean.k),
            ],
            Of(group.deployment, group.load),
        )
        for group, each in known
        for turn, (_, mean) in each.items()
    ]
    unit = metric_of(name).shown_unit
    absent = [group.deployment for group, each in known if not each]
    left_out = len(turns) - len(drawn)
    said = [f"{left_out:,} of {len(turns):,} turns are not drawn."] if left_out else []
    said += [f"No value: {several(absent, '; ')}."] if absent else []
    return Chart(
        f"turns-{name.partition('.')[0]}-{index}",
        f"{capital(title_of(name))} by turn at {at.load}",
        *kinds.lines(series, axis, "% of the prompt" if unit == "%" else unit),
        ["deployment", "turn", unit, "n", "starts"],
        rows,
        " ".join(said),
        of=Of(load=at.load),
        names_ends=True,
    )


def _turn_point(name: str, group: Group, turn: int, values: Mapping[int, Value], mean: Aggregate) -> Point:
    starts = {repeat + 1: value for repeat, value in values.items()}
    of = Of(group.deployment, group.load)
    return _point(name, of, f"turn {turn + 1}", turn + 1.0, mean, starts)
