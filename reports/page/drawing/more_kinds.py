"""Kinds of chart that one place uses: distributions, same answers, memory, cache, start-up, decode.

Knows no run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving_bench.reports.checks.bounds import Decode
from serving_bench.reports.data import LATER, Launch, instants_s
from serving_bench.reports.measures import metric_of, number
from serving_bench.reports.measures.distributions import LEAST_S, Spread
from serving_bench.reports.measures.memory_parts import Course, Held
from serving_bench.reports.measures.traffic.cache import Served
from serving_bench.reports.page.drawing.charts import axis, downsample, line, log_axis, significant
from serving_bench.reports.page.drawing.kinds import Bar, Drawn, Limit, Looks, across, error_bars, stacked
from serving_bench.reports.page.looks import CACHE, MEMORY, STAGES, Look, Of, escaped
from serving_bench.reports.verdicts.race import RaceCourse
from serving_bench.reports.words.claims import GIB, held_words

# --- requests --------------------------------------------------------------------------------------

# The most steps of a line, so that a page with many loads stays small.
_STEPS_AT_MOST = 150


def distribution(looks: Looks, spreads: Sequence[Spread], name: str) -> Drawn:
    """Draw the distribution of a latency (`ttft_s`) for each deployment that has enough observations."""
    metric = metric_of(name)
    curves = [_curve(looks, each, metric.shown_scale) for each in spreads if each.whole.is_enough]
    ends = [x for curve in curves for x in (curve["x"][0], curve["x"][-1])]
    x_axis = log_axis(metric.shown_unit, min(ends, default=1.0), max(ends, default=1.0))
    left = significant(10 ** x_axis["range"][0])
    y_axis = axis("share at or below", range=[-0.02, 1.04], tickformat=".0%")
    # Each line starts at 0, at the left end of the axis.
    return [{**each, "x": [left, *each["x"][1:]]} for each in curves], {"xaxis": x_axis, "yaxis": y_axis}


def _curve(looks: Looks, spread: Spread, scale: float) -> dict[str, Any]:
    look, at_s = looks[spread.group.deployment], spread.whole.drawn(_STEPS_AT_MOST)
    x = [significant(each, 4) for each in (np.maximum(at_s, LEAST_S) * scale).tolist()]
    return line(
        look,
        # The line starts at 0 below its first step.
        [x[0], *x],
        [0.0, *spread.whole.shares(at_s)],
        Of(look.label, spread.group.load),
        by_start={
            start: ([0.0, *spread_of_start.shares(at_s)], [spread_of_start.counted])
            for start, spread_of_start in spread.starts.items()
        },
        mode="lines",
        line={"color": look.colour, "dash": look.dash, "width": 2, "shape": "hv"},
        text=f"n = {spread.whole.counted}",
        hovertemplate="%{fullData.name}<br>%{y:.1%} at or below %{x:.4~g} ms<br>%{text}<extra></extra>",
    )


# --- answers ---------------------------------------------------------------------------------------


def still_same(looks: Looks, shares: Mapping[str, Sequence[float]]) -> Drawn:
    """Draw for each deployment the share of answers that are the same for 0, 1, 2 ... tokens, as steps."""
    hover = "%{fullData.name}<br>%{y:.3~g} % of answers are the same for %{x} tokens<extra></extra>"
    traces = [
        line(
            looks[label],
            range(len(shares_of_run)),
            [significant(100 * share) for share in shares_of_run],
            mode="lines",
            line={"color": looks[label].colour, "dash": looks[label].dash, "width": 2, "shape": "hv"},
            hovertemplate=hover,
        )
        for label, shares_of_run in shares.items()
    ]
    x_axis = axis("tokens", dtick=max(1, max(map(len, shares.values()), default=0) // 8))
    return traces, {"xaxis": x_axis, "yaxis": axis("% of answers", rangemode="tozero")}


# --- a race ----------------------------------------------------------------------------------------


def to_leader(looks: Looks, courses: Sequence[RaceCourse]) -> Drawn:
    """Draw for each deployment its ratio to the leader after each look, with its interval; a cross at the
    last look of one that left."""
    traces = []
    for course in courses:
        of_label, own = looks[course.group.deployment], course.looks
        symbols = [of_label.symbol] * len(own)
        if course.left:
            symbols[-1] = "x"
        traces.append(
            line(
                of_label,
                [each.repeats for each in own],
                [significant(each.ratio) for each in own],
                error_y=error_bars((each.ratio, (each.low, each.high)) for each in own),
                marker={"color": of_label.colour, "symbol": symbols, "size": 9},
                hovertemplate="%{fullData.name}<br>after %{x} repeats: %{y:.3f}x<extra></extra>",
            )
        )
    shown = [each for course in courses for look in course.looks for each in (look.ratio, 1.0)]
    room = max(0.05, 1.5 * (max(shown) - min(shown)))
    y_axis = axis("ratio to the leader", range=[max(0.0, min(shown) - room), max(shown) + room])
    one = across([Limit(1.0, "the leader")])
    return traces, {"xaxis": axis("repeats", dtick=1), "yaxis": y_axis, **one}


# --- a size over time ------------------------------------------------------------------------------

# A chart is some 500 pixels wide and has room for labels above its highest value.
_POINTS, _HEADROOM, _HEIGHT_PX = 400, 1.18, 240
# The room that a window's label needs, as a share of the axis.
_ROOM = 0.16


def over_time(looks: Looks, courses: Sequence[Course], top_bytes: float) -> Drawn:
    """Draw a line per start of a deployment, in GiB on an axis up to `top_bytes`, and label the peak.

    The first start is bold and its windows are shaded; the others are faint.
    """
    first, highest = courses[0], max(courses, key=lambda each: each.peak_bytes)
    look, peak = looks[first.label], highest.peak_bytes * GIB
    over = {"y": peak, "yref": "y", "yanchor": "bottom", "font": {"color": "--fg", "size": 12}}
    notes = [
        _note(of_start(highest), highest.t_s[highest.size_bytes.argmax()], f"peak {number(peak)}", **over)
    ]
    shaded = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "fillcolor": "--shade", "line": {"width": 0}}
    end = float(max(each.t_s[-1] for each in courses))
    windows, last = [], -end
    for load, x0, x1 in first.windows:
        of, middle = Of(first.label, load, first.record.repeat + 1), (x0 + x1) / 2
        windows.append({**shaded, "x0": x0, "x1": x1, "of": of.to_builtins()})
        words = load if middle - last > _ROOM * end else load.partition(" ")[0]
        notes.append(_note(of, middle, words, yanchor="top", y=1))
        last = middle
    layout = {
        "height": _HEIGHT_PX,
        "xaxis": axis(
            f"seconds {'since spawn' if first.record.spawned_ns else 'sampled'}", rangemode="tozero"
        ),
        "yaxis": axis("GiB", range=[0, top_bytes * GIB * _HEADROOM]),
        "shapes": windows,
        "annotations": notes,
    }
    return [_line(look, each, is_faint=each is not first) for each in courses], layout


def of_start(course: Course) -> Of:
    return Of(course.label, start=course.record.repeat + 1)


def _note(of: Of, x: float, text: str, **place: Any) -> dict[str, Any]:
    small = {"yref": "paper", "showarrow": False, "font": {"color": "--mut", "size": 10.5}}
    return {**small, "x": float(x), "text": text, "of": of.to_builtins(), **place}


def _line(look: Look, course: Course, *, is_faint: bool) -> dict[str, Any]:
    t_s, sizes = downsample(course.t_s, course.size_bytes, _POINTS)
    name = escaped(f"start {course.title}")
    return line(
        look,
        t_s.round(2).tolist(),
        [significant(float(size) * GIB) for size in sizes],
        of_start(course),
        mode="lines",
        name=name,
        line={"color": look.colour, "dash": "solid", "width": 1 if is_faint else 2},
        opacity=0.55 if is_faint else 1,
        hovertemplate=f"{name}, %{{x:.1f}} s: %{{y:.4~g}}<extra></extra>",
    )


# --- what decode reads -----------------------------------------------------------------------------


def roofline(looks: Looks, decodes: Sequence[Decode]) -> Drawn:
    """Draw a line per deployment through the bandwidth of decode at each load, and the memory's bandwidth."""
    traces = [
        line(
            look,
            [significant(each.in_flight) for each in decodes_of_one],
            [significant(each.read_gb_per_s) for each in decodes_of_one],
            points=[Of(load=each.group.load) for each in decodes_of_one],
            customdata=[escaped(each.group.load) for each in decodes_of_one],
            hovertemplate="%{fullData.name}<br>%{customdata}: %{y:.3~g} GB/s<extra></extra>",
        )
        for name, look in looks.items()
        if (decodes_of_one := [each for each in decodes if each.group.deployment == name])
    ]
    roofs = sorted({each.roof_gb_per_s for each in decodes if each.roof_gb_per_s})
    return traces, {
        "xaxis": axis("requests in flight, mean"),
        "yaxis": axis("GB/s", rangemode="tozero"),
        **across([Limit(roof, f"memory: {roof:,.0f} GB/s") for roof in roofs]),
    }


# --- memory by use, and the steps of a start --------------------------------------------


def memory_bars(memories: Sequence[Held]) -> Drawn:
    """Draw each deployment's peak memory by use, in GiB."""
    bars = [
        Bar(
            memory.label,
            held_words(memory),
            {name: size_bytes * GIB for name, size_bytes in memory.pieces.items()},
            [(each.record.repeat + 1, each.total_bytes * GIB) for each in memory.starts],
        )
        for memory in memories
    ]
    return stacked(bars, MEMORY, "GiB", "GiB")


def cache_bars(served: Sequence[Served]) -> Drawn:
    """Draw the input tokens of each group's requests: cached, sent before but read again, and new."""
    bars = []
    for each in served:
        cached, cached_or_ideal = each.reported or 0.0, max(each.ideal, each.reported or 0.0)
        again = "sent before, not reported" if each.reported is None else "sent before, read again"
        pieces = {
            "cached, as reported": cached,
            again: cached_or_ideal - cached,
            "new": each.input_tokens - cached_or_ideal,
        }
        by_ttft = each.inferred and f"; cached by TTFT {number(each.inferred.tokens, 0)}"
        bars.append(Bar(each.group.deployment, f"{each.group.deployment}{by_ttft or ''}", pieces, []))
    return stacked(bars, CACHE, "input tokens", "tokens")


def start_up_bars(launches: Sequence[Launch], titles: Mapping[str, str]) -> Drawn:
    """Draw the steps of each deployment's first start and of its later ones. `titles`: of all stages."""
    bars = [
        Bar(
            launch.label,
            _launch_words(launch),
            {titles[stage]: length_s for stage, length_s in launch.steps_s.items()},
            [(each.repeat + 1, max(instants_s(each).values())) for each in launch.records],
        )
        for launch in launches
    ]
    fills = {title: STAGES.get(stage, ("--mut", "-")) for stage, title in titles.items()}
    return stacked(bars, fills, "seconds since the spawn", "s")


def _launch_words(launch: Launch) -> str:
    which = f"{len(launch.records)} later" if launch.which == LATER else launch.which
    return f"{launch.label}, {which}: {number(sum(launch.steps_s.values()), 2)} s"
