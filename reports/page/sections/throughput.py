"""Throughput against latency: the frontier, throughput by load, who keeps the SLO, and a search's answers."""

from collections.abc import Sequence
from dataclasses import replace

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.metrics import metric_of
from reports.measures.over_starts import BARS, aggregate
from reports.measures.written import several
from reports.page.cells import mean_cell
from reports.page.drawing import kinds
from reports.page.drawing.charts import Chart, Section, block
from reports.page.drawing.kinds import Limit, Point, ends_of
from reports.page.listed import filled
from reports.page.looks import looks
from reports.page.sections import service_levels
from reports.page.sections.by_load import at_load, by_load_charts, families, of_group
from reports.words.titles import title_by_load
from reports.words.verdict_words import slo_words, title_of

_SPEED = "output_tokens_per_s"
_LEVELS = (95, 90, 50)
# By what the speed is drawn against, and how high.
_HEIGHTS_PX = {"ttft_s": 430, "tpot_s": 360}


def section(run: Run) -> Section:
    """Return the section; of a search, whose starts try other loads, its answers and no frontier."""
    title = "Throughput against latency"
    if run.record.search is not None:
        return service_levels.of_search(run, title)
    goodput = ["goodput_per_s"] if run.record.slo else []
    kept = service_levels.levels(run)
    how = f"Points are means over starts. {BARS} The front goes by means and is no verdict."
    return Section(
        title,
        "Up and to the left is better. A line is a deployment, its points are loads from the lowest to the "
        "highest. The broad grey line is the front: no other point has more tokens/s at less latency.",
        [
            *frontier_charts(run),
            *kept,
            *block("Throughput by load", by_load_charts(run, _SPEED, "requests_per_s", *goodput)),
        ],
        f"{how} Goodput: requests per second that met every objective. {service_levels.HOW}" if kept else how,
    )


def frontier_charts(run: Run) -> list[Chart]:
    """Return a chart against TTFT and one against TPOT for each scenario and family of loads."""
    return [
        chart
        for number, (suffix, groups) in enumerate(families(run))
        for metric in _HEIGHTS_PX
        if (chart := _chart(run, metric, groups, suffix, number))
    ]


def _chart(run: Run, metric: str, groups: Sequence[Group], suffix: str, number: int) -> Chart | None:
    slo = [each for each in run.record.slo if each.metric == metric and each.limit_s]
    wanted = [level for each in slo if (level := round(100 * each.share)) in (50, 90, 95, 99)]
    points = {
        level: {group.key: point for group in groups if (point := _point(run, group, f"{metric}.p{level}"))}
        for level in (*wanted, *_LEVELS)
    }
    # The percentile that most points have: of several the SLO's, else the highest.
    level, found = max(points.items(), key=lambda each: len(each[1]))
    if not found:
        return None
    name = f"{metric}.p{level}"
    words = " ".join(reversed(title_of(name).split(" ")))
    asked = next((each for each in slo if each.name == name), None)
    limit = Limit(1e3 * (asked.limit_s or 0.0), f"SLO: {slo_words([asked])}") if asked else None
    first = [*wanted, 95][0]
    note = f"p{level}: too few points have requests enough for p{first}. " if level != first else ""
    absent = [f"{group.deployment} at {group.load}" for group in groups if group.key not in found]
    note += f"Not drawn, with no value of both: {several(absent, '; ')}." if absent else ""
    front = kinds.on_front(list(found.values()))
    return Chart(
        f"frontier-{metric}-{number}".replace("_", "-"),
        f"Output tokens/s against {words}{suffix}",
        *kinds.frontier(
            looks(run),
            list(found.values()),
            f"{words}, ms, lower is better",
            "output tokens/s, higher is better",
            limit,
        ),
        *filled(
            {
                "deployment": lambda group: group.deployment,
                "load": lambda group: group.load,
                f"{title_of(name)} ms": lambda group: mean_cell(run, group, name),
                "output tokens/s": lambda group: mean_cell(run, group, _SPEED),
                "starts": lambda group: str(aggregate(run, group, _SPEED).k),
                "front": lambda group: "on it" if found.get(group.key) in front else "",
            },
            groups,
            of_group,
        ),
        note.rstrip(),
        _HEIGHTS_PX[metric],
        finding=title_by_load(run, _SPEED if metric == "ttft_s" else name, groups),
        names_ends=True,
        is_wide=number == 0,
    )


def _point(run: Run, group: Group, name: str) -> Point | None:
    """Return the speed over a latency; None without either."""
    latency, speed = aggregate(run, group, name), at_load(run, group, _SPEED)
    if latency.mean is None or speed.value.mean is None:
        return None
    x = latency.mean * metric_of(name).shown_scale
    return replace(speed, x=x, x_ends=ends_of(name, latency), starts={})
