"""Two kinds of chart of requests: how a latency is distributed, and the same ones on two servers."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from harness.contracts import Objective
from reports.measures.distributions import LEAST_S, Paired, Spread
from reports.measures.metrics import metric_of
from reports.page.drawing.charts import about, axis, line, log_axis, significant
from reports.page.drawing.kinds import QUIET, Drawn, Looks
from reports.page.markup import Of

# Of a line: a page of many loads stays small.
_STEPS_AT_MOST = 150
# Dots of a deployment.
_DOTS_AT_MOST = 400
# A limit further from the values than this factor would press their curves together.
_REACH = 4.0
_DOTTED = {"color": "--mut", "width": 1, "dash": "dot"}


def distribution(looks: Looks, spreads: Sequence[Spread], name: str, slo: Sequence[Objective]) -> Drawn:
    """Draw a rising line on a log axis for each deployment with enough observations of a latency (`ttft_s`),
    and a dotted corner for each objective of it that is near: a line above it keeps it."""
    metric = metric_of(name)
    curves = [_curve(looks, each, metric.shown_scale) for each in spreads if each.whole.is_enough]
    ends = [x for curve in curves for x in (curve["x"][0], curve["x"][-1])]
    low, high = min(ends) / _REACH, max(ends) * _REACH
    asked = [(each.share, 1e3 * each.limit_s) for each in slo if each.metric == name and each.limit_s]
    near = [(share, limit_ms) for share, limit_ms in asked if low <= limit_ms <= high]
    ends += [limit_ms for _, limit_ms in near]
    x_axis = log_axis(metric.shown_unit, min(ends), max(ends))
    left, right = (significant(10**end) for end in x_axis["range"])
    y_axis = axis("share at or below", range=[-0.02, 1.14 if near else 1.04], tickformat=".0%")
    # Each line begins at 0, at the left end of the axis.
    whole = [{**curve, "x": [left, *curve["x"][1:]]} for curve in curves]
    return [*whole, *_corners(near, left, right)], {"xaxis": x_axis, "yaxis": y_axis}


def _curve(looks: Looks, spread: Spread, scale: float) -> dict[str, Any]:
    look, at_s = looks[spread.group.deployment], spread.whole.drawn(_STEPS_AT_MOST)
    x = [significant(each, 4) for each in (np.maximum(at_s, LEAST_S) * scale).tolist()]
    made = line(
        look,
        # From where it rises first.
        [x[0], *x],
        [0.0, *spread.whole.shares(at_s)],
        mode="lines",
        line={"color": look.colour, "dash": look.dash, "width": 2, "shape": "hv"},
        text=f"n = {spread.whole.counted}",
        hovertemplate="%{fullData.name}<br>%{y:.1%} at or below %{x:.4~g} ms<br>%{text}<extra></extra>",
    )
    starts = {start: ([0.0, *own.shares(at_s)], [own.counted]) for start, own in spread.starts.items()}
    return about(made, Of(look.label, spread.group.load), by_start=starts)


def _corners(limits: Iterable[tuple[float, float]], left: float, right: float) -> list[dict[str, Any]]:
    made = []
    for share, limit_ms in limits:
        said = f"SLO: {100 * share:g} % within {limit_ms:,.6g} ms"
        corner = {
            "type": "scatter", "mode": "lines+text", "x": [left, limit_ms, limit_ms, limit_ms],
            "y": [share, share, 0.0, 1.08], "line": _DOTTED, "textfont": QUIET,
            # The words stand above all lines, on the side where there is room.
            "text": ["", "", "", f" {said} "],
            "textposition": f"middle {'right' if limit_ms**2 < left * right else 'left'}",
            "hovertemplate": f"{said}<extra></extra>",
        }  # fmt: skip
        made.append(corner)
    return made


def pairs(looks: Looks, found: Sequence[Paired]) -> Drawn:
    """Draw a dot per request on two log axes; on the dotted line it took as long as on the baseline."""
    traces = []
    for each in found:
        look, step = looks[each.group.deployment], -(-len(each.own) // _DOTS_AT_MOST)
        marker = {"color": look.colour, "symbol": look.symbol, "size": 5, "opacity": 0.5}
        hover = "%{fullData.name}<br>%{y:.4~g} against %{x:.4~g} ms<extra></extra>"
        x, y = ([significant(value, 4) for value in own.iloc[::step]] for own in (each.base, each.own))
        made = line(look, x, y, mode="markers", marker=marker, hovertemplate=hover)
        traces.append(about(made, Of(look.label)))
    (left, right), (bottom, top) = (
        (min(min(trace[xy]) for trace in traces), max(max(trace[xy]) for trace in traces)) for xy in "xy"
    )
    low, high = min(left, bottom), max(right, top)
    same = {"type": "line", "x0": low, "y0": low, "x1": high, "y1": high, "line": _DOTTED, "layer": "below"}
    x_axis = log_axis(f"TTFT on {found[0].baseline}, ms", left, right)
    y_axis = log_axis("TTFT, ms", bottom, top)
    return traces, {"height": 380, "xaxis": x_axis, "yaxis": y_axis, "shapes": [same]}
