"""Charts of a value against the load, the turn of the conversation or a latency: a line per deployment."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from serving_bench.reports.data import Group, Run, grouped, level_axis
from serving_bench.reports.measures import (
    NOTHING,
    aggregate,
    aggregate_of,
    by_start,
    counted,
    metric_of,
    several,
    turn_values,
    unit_of,
    withheld,
)
from serving_bench.reports.page.cells import aggregate_cell, mean_cell
from serving_bench.reports.page.drawing.kinds import (
    Drawn,
    Limit,
    Point,
    ends_of,
    frontier,
    lines,
    place_axis,
)
from serving_bench.reports.page.looks import Head, Of, Row, looks, named
from serving_bench.reports.page.parts import Block, Chart, Part, Shown, Table, of_group
from serving_bench.reports.verdicts import SPEED, LoadCase, load_cases_of, title_of_case
from serving_bench.reports.words.claims import not_drawn
from serving_bench.reports.words.verdict_words import capital, slo_words, title_at, title_of

# How many turns of a conversation are drawn at most.
TURNS_AT_MOST = 20


def at_load(run: Run, group: Group, name: str) -> Point:
    value, starts = aggregate(run, group, name), by_start(run, group, name)
    return Point(name, of_group(group), group.load, group.level, value, starts)


def in_plane(run: Run, groups: Sequence[Group], name: str) -> list[Point]:
    """Return the points of tokens/s against a percentile (`ttft_s.p95`), of the groups that have both."""
    scale = metric_of(name).shown_scale
    both = [(aggregate(run, group, name), at_load(run, group, SPEED)) for group in groups]
    return [
        replace(speed, x=latency.mean * scale, x_ends=ends_of(name, latency), starts={})
        for latency, speed in both
        if latency.mean is not None and speed.value.mean is not None
    ]


def most_drawn(run: Run, groups: Sequence[Group], metric: str) -> tuple[str, str]:
    """Return the percentile of a latency (`ttft_s.p95`) that most groups have, and the wanted one.

    That is the SLO's, else the 95th.
    """
    percents = [round(100 * each.share) for each in run.record.slo if each.metric == metric and each.limit_s]
    names = [f"{metric}.p{level}" for level in (*percents, 95, 90, 50) if level in (50, 90, 95, 99)]
    return max(names, key=lambda name: len(in_plane(run, groups, name))), names[0]


def slo_limit(run: Run, name: str) -> Limit | None:
    """Return the SLO's limit on a percentile, in ms; None if it has none."""
    objective = next((each for each in run.record.slo if each.name == name and each.limit_s), None)
    return Limit(1e3 * (objective.limit_s or 0.0), f"SLO: {slo_words([objective])}") if objective else None


def load_tables(
    run: Run, title: str, cells: Sequence[tuple[Group, Shown]], look: str = "words loads"
) -> list[Table]:
    """Return a table for each scenario: a row per deployment, a column per load."""
    tables, by_scenario = [], grouped(cells, lambda pair: pair[0].scenario)
    for scenario, pairs in by_scenario.items():
        cell_of = {group.key: cell for group, cell in pairs}
        heads = {load: Head(load, Of(load=load)) for load in dict.fromkeys(group.load for group, _ in pairs)}
        rows = [
            Row(
                {
                    "deployment": named(each),
                    **{head: cell_of.get((label, scenario, load), NOTHING) for load, head in heads.items()},
                },
                Of(label),
            )
            for label, each in looks(run).items()
            if any(group.deployment == label for group, _ in pairs)
        ]
        name = title + f", {scenario}" * (len(by_scenario) > 1)
        tables.append(Table(name, rows, look, is_bare=True))
    return tables


def case_block(run: Run, case: LoadCase, parts: Sequence[Part]) -> Block:
    """Return what is shown at one load, which is folded unless it is the load shown first."""
    return Block(title_of_case(run, case), parts, Of(load=case.load), is_folded=not case.is_open)


def families(run: Run) -> Iterator[tuple[str, list[Group]]]:
    """Yield the groups that share an axis of loads, each after the suffix of their chart's title."""
    by_axis = grouped(run.groups, lambda group: (group.scenario, group.family))
    has_several = [len(set(names)) > 1 for names in zip(*by_axis, strict=True)]
    for axis, groups in by_axis.items():
        varying = [name for name, is_said in zip(axis, has_several, strict=True) if is_said]
        yield f": {', '.join(varying)}" if varying else "", groups


# --- against the load or the turn ------------------------------------------------------------------


def load_charts(run: Run, *names: str) -> list[Chart]:
    """Return charts against the load of values by name (`ttft_s.p50`).

    There is one for each value, scenario and family of loads (users, rates of one arrival process) that has
    the value at two loads or more.
    """
    return [
        chart
        for name in names
        for number, (suffix, groups) in enumerate(families(run))
        for chart in _by_load(run, name, groups, suffix, f"{name}-{number}".replace(".", "-"))
    ]


def _by_load(run: Run, name: str, groups: Sequence[Group], suffix: str, id_: str) -> list[Chart]:
    points = [at_load(run, group, name) for group in groups]
    levels = sorted({each.x for each in points if each.value.mean is not None})
    if len(levels) < 2:
        return []
    title, ticks = level_axis(groups[0].family, levels)
    level = name.partition(".")[2]
    absent = [each for each in points if each.value.mean is None]
    why = [
        f"{several([f'{each.of.deployment} at {each.at}' for each in missing])} ({why})"
        for why, missing in grouped(absent, lambda each: each.value.why or "no cell counts").items()
    ]
    chart = Chart(
        id_,
        capital(f"{metric_of(name).title}{f', {level}' if level else ''}{suffix}"),
        *_drawn(run, name, points, place_axis(title, levels, ticks), slo_limit(run, name)),
        _rows(run, name, points, "load"),
        f"No value: {several(why, '; ')}." if why else "",
        title_at(run, name, groups),
        names_ends=True,
    )
    return [chart]


def turn_chart(run: Run, at: LoadCase, name: str) -> list[Chart]:
    """Return a chart against the turn, at one load, of a value by name (`ttft_s.p50`, `cached_share`).

    Empty if fewer than two turns have it.
    """
    points = [
        Point(name, of_group(group), f"turn {turn + 1}", turn + 1, value, starts)
        for group in at.groups
        if not withheld(run, group.key, name)
        for turn, starts in turn_values(run, group, name).items()
        if (value := aggregate_of(run, group, name, list(starts.values()))).mean is not None
    ]
    turns = sorted({each.x for each in points})
    if len(turns) < 2:
        return []
    drawn = turns[:: -(-len(turns) // TURNS_AT_MOST)]
    absent = [g.deployment for g in at.groups if g.deployment not in {e.of.deployment for e in points}]
    some = f"{len(drawn)} of {len(turns):,} turns are drawn. " if len(drawn) < len(turns) else ""
    points = [each for each in points if each.x in drawn]
    x_axis = place_axis("turn of the conversation", drawn, [f"{turn:g}" for turn in drawn])
    chart = Chart(
        f"turns-{name.partition('.')[0]}-{load_cases_of(run).index(at)}",
        f"{capital(title_of(name))} by turn at {at.load}",
        *_drawn(run, name, points, x_axis),
        _rows(run, name, points, "turn"),
        (some + (f"No value: {several(absent)}." if absent else "")).rstrip(),
        of=Of(load=at.load),
        names_ends=True,
    )
    return [chart]


def _drawn(
    run: Run, name: str, points: Sequence[Point], x_axis: dict[str, Any], limit: Limit | None = None
) -> Drawn:
    metric, with_mean = metric_of(name), [each for each in points if each.value.mean is not None]
    may_be_log = metric.better == "lower" and not metric.is_additive
    return lines(looks(run), with_mean, x_axis, unit_of(run, name), may_be_log=may_be_log, limit=limit)


def _rows(run: Run, name: str, points: Sequence[Point], place: str) -> list[Row]:
    of_starts = next(each.value.is_of_starts for each in points if each.value.mean is not None)
    return [
        Row(
            {
                "deployment": each.of.deployment or "",
                place: each.at,
                unit_of(run, name): aggregate_cell(name, each.value),
                "n": counted(each.value.n, each.value.requests) if each.value.k else NOTHING,
                "starts" if of_starts else "blocks": str(each.value.k),
            },
            each.of,
        )
        for each in points
    ]


# --- tokens/s against a latency --------------------------------------------------------------------


def frontier_charts(run: Run) -> list[Chart]:
    """Return a chart against TTFT and one against TPOT for each scenario and family of loads."""
    return [
        chart
        for at, (suffix, groups) in enumerate(families(run))
        for metric in ("ttft_s", "tpot_s")
        for chart in _against(run, metric, groups, suffix, at)
    ]


def _against(run: Run, metric: str, groups: Sequence[Group], suffix: str, at: int) -> list[Chart]:
    name, wanted = most_drawn(run, groups, metric)
    points, latency = in_plane(run, groups, name), " ".join(reversed(title_of(name).split(" ")))
    if not points:
        return []
    absent = [group for group in groups if of_group(group) not in {point.of for point in points}]
    rows = [
        Row(
            {
                "deployment": group.deployment,
                "load": group.load,
                f"{title_of(name)} ms": mean_cell(run, group, name),
                "output tokens/s": mean_cell(run, group, SPEED),
                "starts": str(aggregate(run, group, SPEED).k),
            },
            of_group(group),
        )
        for group in groups
    ]
    chart = Chart(
        f"frontier-{metric}-{at}".replace("_", "-"),
        f"Output tokens/s against {latency}{suffix}",
        *frontier(looks(run), points, latency, slo_limit(run, name)),
        rows,
        not_drawn(name, wanted, absent),
        title_at(run, SPEED if metric == "ttft_s" else name, groups),
        names_ends=True,
        is_wide=at == 0,
    )
    return [chart]
