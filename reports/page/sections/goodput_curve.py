"""A search's goodput against the load, and where the answers are."""

from collections.abc import Iterator, Sequence
from typing import Any

from reports.checks.examine import marks_of
from reports.data.cells import Group, level_axis
from reports.data.run import Run
from reports.measures.over_starts import BARS, Aggregate, aggregate, span
from reports.page.charts import Chart, about, axis, line, spread
from reports.page.charts import label as text_of
from reports.page.log_axis import log_axis
from reports.page.looks import Look, looks
from reports.page.marks import marked_cell
from reports.page.markup import Of, Row
from reports.page.sections.points import point_text, points_by_start
from reports.verdicts.searches import Capacity

_GOODPUT = "goodput_per_s"
_LOG_FROM = 8.0


def goodput_curves(run: Run, capacities: Sequence[Capacity]) -> Iterator[Chart]:
    """Goodput against the load, a chart per scenario; nothing where it is not offered."""
    scenarios = list(dict.fromkeys(each.scenario for each in capacities))
    for place, scenario in enumerate(scenarios):
        mine = [each for each in capacities if each.scenario == scenario]
        points = [(each, _points(run, each)) for each in mine]
        if drawn := [(each, found) for each, found in points if found]:
            yield _curve(run, drawn, f": {scenario}" if len(scenarios) > 1 else "", place)


def _points(run: Run, each: Capacity) -> list[tuple[Group, Aggregate]]:
    """Goodput over the starts that tried a load, by the load: starts try others."""
    key = (each.deployment, each.scenario)
    groups = [group for group in run.groups if (group.deployment, group.scenario) == key]
    found = [(group, aggregate(run, group, _GOODPUT)) for group in groups]
    return [(group, value) for group, value in found if value.mean is not None]


def _curve(
    run: Run, drawn: Sequence[tuple[Capacity, list[tuple[Group, Aggregate]]]], suffix: str, place: int
) -> Chart:
    found = looks(run)
    levels = sorted({group.level for _, points in drawn for group, _ in points})
    shapes = [
        shape
        for each, _ in drawn
        if each.estimate is not None and not each.is_least
        for shape in _beyond(
            each.estimate.shown, levels[-1], found[each.deployment], is_shaded=len(drawn) == 1
        )
    ]
    rows = [
        Row(
            [
                each.deployment,
                group.load,
                marked_cell(run, group, _GOODPUT),
                str(value.k),
                str(len(group.counted)),
            ],
            Of(each.deployment, group.load),
        )
        for each, points in drawn
        for group, value in points
    ]
    is_log = levels[-1] > _LOG_FROM * levels[0]
    title = level_axis(drawn[0][0].family)
    x = log_axis(title, levels[0], levels[-1]) if is_log else axis(title)
    ends = "the shade begins" if len(drawn) == 1 else "a dashed line in its colour stands"
    doubted = any(marks_of(run, group, _GOODPUT) for _, points in drawn for group, _ in points)
    return Chart(
        f"goodput-search-{place}",
        f"Goodput: requests per second that met every objective{suffix}",
        [_trace(run, found[each.deployment], points) for each, points in drawn],
        {"xaxis": x, "yaxis": axis("requests/s", rangemode="tozero"), "shapes": shapes},
        ["deployment", "load", "requests/s", "starts", "windows"],
        rows,
        f"Points are means over the starts that tried a load. {BARS} Where the answer is, {ends}."
        + (" Some points are doubtful: the table has their marks." if doubted else ""),
        names_ends=True,
    )


def _trace(run: Run, look: Look, points: Sequence[tuple[Group, Aggregate]]) -> dict[str, Any]:
    means = [value.mean or 0.0 for _, value in points]
    ends = [span(value) for _, value in points]
    # Nobody has less than none, whatever an interval says; one start has no bar.
    lows, highs = [pair and max(pair[0], 0.0) for pair in ends], [pair and pair[1] for pair in ends]
    trace = line(
        look,
        [group.level for group, _ in points],
        means,
        error_y=spread(means, lows, highs),
        customdata=[text_of(group.load) for group, _ in points],
        text=[point_text(run, group, _GOODPUT, value) for group, value in points],
        hovertemplate="%{fullData.name}<br>%{customdata}: %{y:.4~g} requests/s<br>%{text}<extra></extra>",
    )
    groups = [group for group, _ in points]
    loads = [Of(load=group.load) for group in groups]
    return about(trace, Of(look.label), points=loads, by_start=points_by_start(run, _GOODPUT, groups))


def _beyond(answer: float, last: float, look: Look, *, is_shaded: bool) -> list[dict[str, Any]]:
    """What marks the loads beyond an answer."""
    if is_shaded:
        return [
            {
                "type": "rect", "x0": answer, "x1": max(last, answer), "yref": "paper", "y0": 0, "y1": 1,
                "fillcolor": "--shade", "line": {"width": 0}, "layer": "below",
            }
        ]  # fmt: skip
    return [
        {
            "type": "line", "x0": answer, "x1": answer, "yref": "paper", "y0": 0, "y1": 1,
            "line": {"color": look.colour, "dash": "dash", "width": 1}, "of": Of(look.label).to_builtins(),
        }
    ]  # fmt: skip
