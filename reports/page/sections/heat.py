"""Latencies over the window: a small map per deployment, on the same axes and in the same colours for all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.metrics import counted, metric_of
from reports.measures.written import number, plural
from reports.page.charts import Chart, about, axis, figure
from reports.page.drawn.thinned import significant
from reports.page.drawn.time_maps import EDGES_S, TimeMap, time_map
from reports.page.log_axis import log_axis
from reports.page.markup import Html, Of, tag
from reports.page.swatches import swatch
from reports.verdicts.load_cases import LoadPoint
from reports.words.verdict_words import title_of

NAMES = ("ttft_s", "itl_s")
ROWS_AT_MOST = 30
# Of the loads that are folded.
FEWER_PARTS = 20
# Up to which share of a column each colour goes; more has the last one.
_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
_COLOURS = ("--s-6", "--s-5", "--s-4", "--s-3", "--s-2", "--s-1")
_CLEAR = "rgba(0,0,0,0)"
# Below any share of a column.
_NONE = 1e-9
_LEAST_S = 1e-6
# Windows are of one length where the longest is so many times the shortest at most.
_ALIKE = 1.02
_HEIGHT_PX = 210


def maps(run: Run, point: LoadPoint, name: str, index: int, most_parts: int) -> list[Chart]:
    """A map for each deployment that has the latency at this load."""
    found = [
        (group, each) for group in point.groups if (each := time_map(run, group.counted, name, most_parts))
    ]
    if not found:
        return []
    frame = _frame([each for _, each in found], metric_of(name).shown_scale)
    return [
        _chart(group, each, name, frame, f"map-{name}-{index}-{place}")
        for place, (group, each) in enumerate(found)
    ]


def small(charts: Sequence[Chart]) -> Html:
    """Small charts side by side."""
    return tag("div", *(figure(chart) for chart in charts), class_="grid small")


def key() -> Html:
    """What a map's colours mean."""
    names = [f"up to {100 * share:g} %" for share in _SHARES] + ["more"]
    parts = [tag("span", swatch(colour, ""), name) for colour, name in zip(_COLOURS, names, strict=True)]
    return tag("p", tag("span", "Share of a column:", class_="caption"), *parts, class_="key")


@dataclass(frozen=True)
class _Frame:
    """What the maps of one latency at one load have in common. A row is `per_row` of EDGES_S' bins from the
    bin `first` on, between successive `edges` (as shown). `length_s`: of the windows; None where they are
    unlike, and lie on each other as shares."""

    first: int
    per_row: int
    edges: np.ndarray
    length_s: float | None

    @property
    def length(self) -> float:
        return self.length_s or 100.0

    def counts(self, found: TimeMap) -> np.ndarray:
        """Rows x parts of time."""
        begins = np.arange(len(self.edges) - 1) * self.per_row
        return np.asarray(np.add.reduceat(found.counts[:, self.first :], begins, axis=1).T)


def _frame(found: Sequence[TimeMap], scale: float) -> _Frame:
    """The rows from the least value to the greatest of all the maps, ROWS_AT_MOST of them."""
    used = np.flatnonzero(np.sum([each.counts.sum(axis=0) for each in found], axis=0))
    first, bins = int(used[0]), int(used[-1] - used[0]) + 1
    per_row = -(-bins // ROWS_AT_MOST)
    ends = np.minimum(first + per_row * np.arange(-(-bins // per_row) + 1), len(EDGES_S) - 1)
    lengths = [each.window_s for each in found]
    length_s = max(lengths) if max(lengths) <= _ALIKE * min(lengths) else None
    return _Frame(first, per_row, np.maximum(EDGES_S[ends], _LEAST_S) * scale, length_s)


def _chart(group: Group, found: TimeMap, name: str, frame: _Frame, chart_id: str) -> Chart:
    unit, of = metric_of(name).shown_unit, Of(group.deployment, group.load)
    since = "seconds into the window" if frame.length_s else "% of the window"
    layout = {
        "xaxis": axis(since, range=[0, frame.length], showgrid=False),
        "yaxis": log_axis(unit, float(frame.edges[0]), float(frame.edges[-1]), showgrid=False),
    }
    starts = plural(len(group.counted_by_start), "start")
    return Chart(
        chart_id,
        f"{title_of(name)}, {group.deployment}",
        [about(_trace(found, frame, unit), of)],
        layout,
        [since, "n", f"median {unit}", f"p95 {unit}"],
        list(_rows(found, name, frame)),
        quantity=f"n = {counted(found.n, found.requests)}, {starts}",
        height_px=_HEIGHT_PX,
        of=of,
    )


def _trace(found: TimeMap, frame: _Frame, unit: str) -> dict[str, Any]:
    counts = frame.counts(found)
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    what = "requests" if found.requests is None else "gaps"
    time = "%{x:.3~g} s" if frame.length_s else "%{x:.0f} % of the window"
    said = f"%{{text}} {what}, %{{z:.1%}} of the column"
    return {
        "type": "heatmap",
        "x": _rounded(found.edges_share * frame.length),
        "y": _rounded(frame.edges),
        # Short, as a map has a thousand of them.
        "z": [[float(f"{share:.3g}") if share else 0 for share in row] for row in shares],
        "text": counts.tolist(),
        "zmin": 0,
        "zmax": 1,
        "colorscale": _scale(),
        "showscale": False,
        "hovertemplate": f"{time}, %{{y:.3~g}} {unit}<br>{said}<extra></extra>",
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [significant(float(value), 4) for value in values]


def _scale() -> list[tuple[float, str]]:
    """Nothing for no observation, else one colour between two of _SHARES."""
    ends = [_NONE, *_SHARES, 1.0]
    steps = [(end, colour) for k, colour in enumerate(_COLOURS) for end in (ends[k], ends[k + 1])]
    return [(0.0, _CLEAR), (_NONE, _CLEAR), *steps]


def _rows(found: TimeMap, name: str, frame: _Frame) -> Iterator[Sequence[str]]:
    """A row per part of time."""
    scale, edges = metric_of(name).shown_scale, found.edges_share * frame.length
    totals = found.counts.sum(axis=1)
    for k, (median, p95) in enumerate(zip(found.medians_s, found.p95s_s, strict=True)):
        shown = [number(None if value is None else value * scale) for value in (median, p95)]
        n = counted(int(totals[k]), found.requests_by_part[k] if found.requests_by_part else None)
        yield [f"{number(edges[k])} to {number(edges[k + 1])}", n, *shown]
