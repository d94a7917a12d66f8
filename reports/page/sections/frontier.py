"""Throughput against latency: a line per deployment through its loads, with its intervals as a band."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.contracts import Objective
from reports.data.cells import Group, level_axis, level_text
from reports.data.run import Run
from reports.measures.metrics import PERCENTILES, metric_of
from reports.measures.over_starts import Aggregate, aggregate, span
from reports.measures.written import several
from reports.page.charts import Chart, Section, about, axis, figure, line
from reports.page.charts import label as text_of
from reports.page.drawn.thinned import significant
from reports.page.log_axis import log_frame, log_ticks
from reports.page.looks import Look, key, looks
from reports.page.marks import marked_cell
from reports.page.markup import Of, Row, join, paragraph
from reports.page.sections.by_load import axes_suffix
from reports.page.sections.points import marked_points, point_text
from reports.stats.hulls import Box, Point, hull
from reports.words.decision_words import objective_words
from reports.words.titles import frontier_title, title_by_load
from reports.words.verdict_words import title_of

_SPEED = "output_tokens_per_s"
_LATENCIES = ("ttft_s", "tpot_s")
_LEVELS = (95, 90, 50)
# Latencies that span more than this factor stand on a log axis.
_LOG_FROM = 20.0
# More of them are not named below a chart.
_LEVELS_NAMED = 8
_BETWEEN = "between two points they only join the intervals of both"
_HEIGHTS_PX = {"ttft_s": 430, "tpot_s": 360}


@dataclass(frozen=True)
class Place:
    """A deployment's point at a load: its latency and its speed over starts."""

    group: Group
    latency: Aggregate
    speed: Aggregate

    @property
    def is_whole(self) -> bool:
        return self.latency.mean is not None and self.speed.mean is not None

    @property
    def box(self) -> Box:
        """The intervals of both in ms and tokens/s; where there is none, the value itself."""
        x, y = (span(value) or (value.mean or 0.0,) * 2 for value in (self.latency, self.speed))
        return Box((x[0] * 1e3, x[1] * 1e3), y)

    @property
    def has_ends(self) -> bool:
        """Whether both have an interval or a range, so that a band may be drawn; one start has none."""
        return span(self.latency) is not None and span(self.speed) is not None


@dataclass(frozen=True)
class Frame:
    """The axis of the latency, from `low` to `high` ms, and the SLO's limit on it, if it has one there."""

    low: float
    high: float
    is_log: bool
    asked: Objective | None

    def layout(self, words: str) -> dict[str, Any]:
        title, ends = f"{words}, ms, lower is better", (self.low, self.high)
        x = axis(title, range=list(ends))
        if self.is_log:
            logs = [math.log10(end) for end in ends]
            x = axis(f"{title} (log scale)", type="log", range=logs, **log_ticks(*ends))
        y = axis("output tokens/s, higher is better", rangemode="tozero")
        return {"xaxis": x, "yaxis": y, **self._beyond()}

    def _beyond(self) -> dict[str, Any]:
        """The region beyond the SLO, and what it is."""
        if self.asked is None or self.asked.limit_s is None:
            return {}
        limit = self.asked.limit_s * 1e3
        shape = {
            "type": "rect", "x0": limit, "x1": self.high, "yref": "paper", "y0": 0, "y1": 1,
            "fillcolor": "--shade", "line": {"width": 0}, "layer": "below",
        }  # fmt: skip
        logs = [math.log10(at) if self.is_log else at for at in (self.low, limit, self.high)]
        # Its words take two thirds of a narrow chart.
        is_early = logs[1] < logs[0] + 0.33 * (logs[2] - logs[0])
        note = {
            "x": logs[1] if is_early else logs[2], "yref": "paper", "y": 1, "showarrow": False,
            "xanchor": "left" if is_early else "right", "yanchor": "bottom",
            "font": {"color": "--mut", "size": 11.5},
            "text": f"beyond the SLO: {objective_words(self.asked)} {limit:g} ms",
        }  # fmt: skip
        margin = {"l": 8, "r": 12, "t": 22, "b": 8}
        return {"shapes": [shape], "annotations": [note], "margin": margin}


def section(run: Run) -> Section | None:
    """None where no deployment has both values at any load, and of a search, whose starts try other loads."""
    if run.record.search is not None:
        return None
    charts = list(_charts(run))
    if not charts:
        return None
    note = paragraph(
        "Up and to the left is better. A line is a deployment, its points are the loads from the lowest to "
        f"the highest, each a mean over starts. {_bands(run)}"
    )
    parts = [note, key(run), *(figure(chart) for chart in charts)]
    return Section("Throughput against latency", join(parts), charts)


def _bands(run: Run) -> str:
    found = [aggregate(run, group, _SPEED) for group in run.groups]
    if any(value.k > 2 and value.is_of_starts for value in found):
        return f"Bands: the 95 % intervals of both, by how much starts differ; {_BETWEEN}."
    if any(value.k > 1 for value in found):
        return f"Bands: the range of both; {_BETWEEN}."
    return "One start: no intervals."


def _starts(places: Sequence[Place]) -> str:
    return "starts" if all(place.speed.is_of_starts for place in places) else "blocks"


def _charts(run: Run) -> Iterator[Chart]:
    """Of each scenario and family of loads, against TTFT and against TPOT."""
    axes = list(dict.fromkeys((group.scenario, group.family) for group in run.groups))
    for number, (scenario, family) in enumerate(axes):
        groups = [group for group in run.groups if (group.scenario, group.family) == (scenario, family)]
        suffix = axes_suffix(axes, scenario, family)
        for metric in _LATENCIES:
            if chart := _chart(run, metric, groups, suffix, number):
                yield chart


def _chart(run: Run, metric: str, groups: Sequence[Group], suffix: str, number: int) -> Chart | None:
    level = _level(run, metric, groups)
    if level is None:
        return None
    name = f"{metric}.p{level}"
    places = [Place(g, aggregate(run, g, name), aggregate(run, g, _SPEED)) for g in groups]
    drawn = [place for place in places if place.is_whole]
    if not drawn:
        return None
    frame = _frame(run, drawn, name)
    by_label = {
        label: [place for place in drawn if place.group.deployment == label]
        for label in dict.fromkeys(place.group.deployment for place in drawn)
    }
    found = looks(run)
    bands = [_band(found[label], own, frame) for label, own in by_label.items()]
    lines = [_line(run, found[label], own, name) for label, own in by_label.items()]
    quantity = f"Output tokens/s against {_words(name)}{suffix}"
    finding = frontier_title(run, groups) if metric == "ttft_s" else title_by_load(run, name, groups)
    return Chart(
        f"frontier-{metric}-{number}".replace("_", "-"),
        finding or quantity,
        [*filter(None, bands), *lines],
        frame.layout(_words(name)),
        ["deployment", "load", f"{title_of(name)} ms", "output tokens/s", _starts(drawn)],
        [_row(run, place, name) for place in places],
        _note(run, places, name),
        height_px=_HEIGHTS_PX[metric],
        quantity=quantity if finding else "",
        names_ends=True,
    )


def _words(name: str) -> str:
    """`p95 TTFT`."""
    metric, _, level = title_of(name).partition(" ")
    return f"{level} {metric}"


def _level(run: Run, metric: str, groups: Sequence[Group]) -> int | None:
    """The percentile of the SLO on this latency where most points have it; else the highest that all have;
    else the one that most have. None where no point has one."""
    asked = [round(100 * each.share) for each in run.record.slo if each.metric == metric and each.limit_s]
    fast = [group for group in groups if aggregate(run, group, _SPEED).mean is not None]
    counts = {
        level: sum(aggregate(run, group, f"{metric}.p{level}").mean is not None for group in fast)
        for level in dict.fromkeys([*(level for level in asked if level in (50, 90, 95, 99)), *_LEVELS])
    }
    if not any(counts.values()):
        return None
    wanted = next((level for level in asked if counts.get(level, 0) > len(fast) / 2), None)
    whole = next((level for level in _LEVELS if counts[level] == len(fast)), None)
    return wanted or whole or max(_LEVELS, key=lambda level: (counts[level], level))


# --- what is drawn ---------------------------------------------------------------------------------


def _frame(run: Run, drawn: Sequence[Place], name: str) -> Frame:
    """All intervals, and the SLO's limit where it is not far beyond them."""
    ends = [end for place in drawn for end in place.box.x]
    low, high = min(ends), max(ends)
    is_log = high > _LOG_FROM * low > 0
    asked = next((each for each in run.record.slo if each.name == name and each.limit_s), None)
    limit = asked.limit_s * 1e3 if asked and asked.limit_s else 0.0
    if high < limit < 1.5 * high:
        high = limit * 1.05
    if is_log:
        low, high = log_frame(low, high)
    else:
        # Equal values may differ by their last bit.
        margin = 0.04 * (high - low) if high - low > 1e-6 * high else 0.1 * high
        low, high = max(0.0, low - margin), high + margin
    return Frame(low, high, is_log, asked if low < limit < high else None)


def _line(run: Run, look: Look, places: Sequence[Place], name: str) -> dict[str, Any]:
    scale = metric_of(name).shown_scale
    trace = line(
        look,
        [significant((place.latency.mean or 0.0) * scale, 6) for place in places],
        [significant(place.speed.mean or 0.0, 6) for place in places],
        customdata=[text_of(place.group.load) for place in places],
        text=[_hover(run, place, name) for place in places],
        hovertemplate=f"%{{fullData.name}}<br>%{{customdata}}: %{{y:,.4~g}} tokens/s at %{{x:,.4~g}} ms"
        f" {_words(name)}<br>%{{text}}<extra></extra>",
    )
    return about(trace, Of(look.label), points=[Of(load=place.group.load) for place in places])


def _hover(run: Run, place: Place, name: str) -> str:
    each = (("tokens/s", _SPEED, place.speed), ("ms", name, place.latency))
    return "<br>".join(f"{unit}: {point_text(run, place.group, of, value)}" for unit, of, value in each)


def _band(look: Look, places: Sequence[Place], frame: Frame) -> dict[str, Any] | None:
    """Along the line, what the intervals of its points span; each stretch by itself, so that a load can be
    left out. None without an interval."""
    if not any(place.has_ends and not place.box.is_point for place in places):
        return None
    x: list[float | None] = []
    y: list[float | None] = []
    of: list[Of] = []
    stretches: list[Sequence[Place]] = [*itertools.pairwise(places)] or [places]
    for stretch in ([place for place in each if place.has_ends] for each in stretches):
        if not stretch:
            continue
        loads = {point: place.group.load for place in stretch for point in place.box.corners}
        around = _hull(list(loads), frame.is_log)
        x += [*(significant(point[0], 6) for point in around), None]
        y += [*(significant(point[1], 6) for point in around), None]
        of += [*(Of(load=loads[point]) for point in around), Of()]
    trace = {
        "type": "scatter", "mode": "lines", "name": text_of(look.label), "x": x, "y": y, "fill": "toself",
        "fillcolor": look.colour, "line": {"width": 0}, "opacity": 0.22, "hoverinfo": "skip",
    }  # fmt: skip
    return about(trace, Of(look.label), points=of)


def _hull(points: Sequence[Point], is_log: bool) -> list[Point]:
    """As it looks on the axis."""
    if not is_log:
        return hull(points)
    placed = {(math.log10(x), y): (x, y) for x, y in points}
    return [placed[point] for point in hull(list(placed))]


def _row(run: Run, place: Place, name: str) -> Row:
    group = place.group
    latency, speed = (marked_cell(run, group, each) for each in (name, _SPEED))
    cells = (group.deployment, group.load, latency, speed, str(place.speed.k))
    return Row(cells, Of(group.deployment, group.load))


def _note(run: Run, places: Sequence[Place], name: str) -> str:
    whole = [place for place in places if place.is_whole]
    missing = [f"{each.group.deployment} at {each.group.load}" for each in places if not each.is_whole]
    family, levels = places[0].group.family, sorted({each.group.level for each in whole})
    points = ", ".join(level_text(family, level) for level in levels)
    said = [f"Points: {points} {level_axis(family)}."] if len(levels) <= _LEVELS_NAMED else []
    said.append(marked_points(run, [place.group for place in whole], [name, _SPEED]))
    said.append(_why_level(run, name))
    if missing:
        said.append(f"Not drawn, with no value of both: {several(missing, '; ')}.")
    return " ".join(filter(None, said))


def _why_level(run: Run, name: str) -> str:
    """Why this percentile is drawn; empty of p95 where the SLO asks for no other."""
    metric, _, level = name.partition(".p")
    asked = [f"p{100 * each.share:g}" for each in run.record.slo if each.metric == metric and each.limit_s]
    if f"p{level}" in asked:
        return "" if level == "95" else f"p{level}, as the SLO asks."
    lacking = asked[0] if asked else "p95"
    if lacking not in [f"p{each}" for each in PERCENTILES]:
        return f"p{level}: {lacking}, which the SLO asks for, is not among the percentiles that are kept."
    if asked:
        return f"p{level}, as too few points have requests enough for {lacking}, which the SLO asks for."
    return "" if level == "95" else f"p{level}, as not every point has requests enough for p95."
