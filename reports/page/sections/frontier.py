"""Throughput against latency: a line per deployment through its loads, and the front that no point beats."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.metrics import metric_of
from reports.measures.over_starts import aggregate, span
from reports.measures.written import several
from reports.page.cells import mean_cell
from reports.page.drawing import kinds
from reports.page.drawing.charts import Chart
from reports.page.drawing.kinds import Limit, Point
from reports.page.looks import looks
from reports.page.markup import Of, Row
from reports.page.sections.by_load import families, point
from reports.words.titles import frontier_title, title_by_load
from reports.words.verdict_words import objective_words, title_of

_SPEED = "output_tokens_per_s"
_LEVELS = (95, 90, 50)
# By what the speed is drawn against, and how high.
_HEIGHTS_PX = {"ttft_s": 430, "tpot_s": 360}


def frontier_charts(run: Run) -> Iterator[Chart]:
    """Yield a chart against TTFT and one against TPOT for each scenario and family of loads."""
    for number, (suffix, groups) in enumerate(families(run)):
        for metric in _HEIGHTS_PX:
            if level := _level(run, metric, groups):
                yield _chart(run, f"{metric}.p{level}", groups, suffix, number)


def _level(run: Run, metric: str, groups: Sequence[Group]) -> int | None:
    """Return the percentile of the SLO on this latency if most points have it; else the highest that all
    have; else the one that most have. None if no point has one."""
    asked = [round(100 * each.share) for each in run.record.slo if each.metric == metric and each.limit_s]
    fast = [group for group in groups if aggregate(run, group, _SPEED).mean is not None]
    levels = dict.fromkeys([*(level for level in asked if level in (50, 90, 95, 99)), *_LEVELS])
    counts = {
        level: sum(aggregate(run, group, f"{metric}.p{level}").mean is not None for group in fast)
        for level in levels
    }
    if not any(counts.values()):
        return None
    wanted = next((level for level in asked if counts.get(level, 0) > len(fast) / 2), None)
    whole = next((level for level in _LEVELS if counts[level] == len(fast)), None)
    return wanted or whole or max(_LEVELS, key=lambda level: (counts[level], level))


def _chart(run: Run, name: str, groups: Sequence[Group], suffix: str, number: int) -> Chart:
    points = {group.key: found for group in groups if (found := _point(run, group, name))}
    metric = name.partition(".")[0]
    words = " ".join(reversed(title_of(name).split(" ")))
    asked = next((each for each in run.record.slo if each.name == name and each.limit_s), None)
    limit = None
    if asked and asked.limit_s:
        limit = Limit(1e3 * asked.limit_s, f"SLO: {objective_words(asked)} {1e3 * asked.limit_s:g} ms")
    series = [
        (look, own)
        for label, look in looks(run).items()
        if (own := [found for (deployment, *_), found in points.items() if deployment == label])
    ]
    titles = f"{words}, ms, lower is better", "output tokens/s, higher is better"
    front = kinds.on_front(list(points.values()))
    rows = [
        Row(
            [
                group.deployment,
                group.load,
                mean_cell(run, group, name),
                mean_cell(run, group, _SPEED),
                str(aggregate(run, group, _SPEED).k),
                "on it" if points.get(group.key) in front else "",
            ],
            Of(group.deployment, group.load),
        )
        for group in groups
    ]
    finding = frontier_title(run, groups) if metric == "ttft_s" else title_by_load(run, name, groups)
    quantity = f"Output tokens/s against {words}{suffix}"
    missing = [f"{group.deployment} at {group.load}" for group in groups if group.key not in points]
    said = [_why_level(run, name)]
    said += [f"Not drawn, with no value of both: {several(missing, '; ')}."] if missing else []
    return Chart(
        f"frontier-{metric}-{number}".replace("_", "-"),
        quantity,
        *kinds.frontier(series, *titles, limit),
        ["deployment", "load", f"{title_of(name)} ms", "output tokens/s", "starts", "front"],
        rows,
        " ".join(filter(None, said)),
        height_px=_HEIGHTS_PX[metric],
        finding=finding,
        names_ends=True,
        is_wide=number == 0,
    )


def _point(run: Run, group: Group, name: str) -> Point | None:
    latency, speed = aggregate(run, group, name), aggregate(run, group, _SPEED)
    if latency.mean is None or speed.mean is None:
        return None
    scale, ends = metric_of(name).shown_scale, span(latency)
    at = point(run, group, _SPEED, speed)
    x_ends = (ends[0] * scale, ends[1] * scale) if ends else None
    return replace(at, x=latency.mean * scale, x_ends=x_ends, by_start={})


def _why_level(run: Run, name: str) -> str:
    """Say why this percentile is drawn; nothing of p95 if the SLO asks for no other."""
    metric, _, level = name.partition(".p")
    asked = [f"p{100 * each.share:g}" for each in run.record.slo if each.metric == metric and each.limit_s]
    lacking = asked[0] if asked else "p95"
    if lacking == f"p{level}":
        return ""
    asks = ", which the SLO asks for" if asked else ""
    return f"p{level}: too few points have requests enough for {lacking}{asks}."
