"""One kind of chart: a size over time, a line per start, with the windows shaded and the stages named."""

from collections.abc import Sequence
from typing import Any

from reports.measures.held import Course
from reports.measures.written import number
from reports.page.drawing.charts import about, axis, downsample, line, significant
from reports.page.drawing.kinds import Drawn
from reports.page.looks import Look
from reports.page.markup import Of, escaped

# A chart is some 500 pixels wide; above its highest value is room for labels.
_POINTS, _HEADROOM, _HEIGHT_PX = 400, 1.18, 240
_NAMED = ("weights_loaded", "engine_ready")
# As shares of the axis: what the words of a window need, and those of a stage.
_ROOM, _NARROW = 0.16, 0.07


def over_time(look: Look, courses: Sequence[Course], unit: str, scale: float, top: float) -> Drawn:
    """Draw a line per start on an axis up to `top`, with the highest value; the first, whose windows and
    stages are shown, is bold, the others are faint. `scale` makes bytes the unit."""
    first, highest = courses[0], max(courses, key=lambda each: each.peak_bytes)
    peak = highest.peak_bytes * scale
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
    stages = [(first.stages_s[name], name.replace("_", " ")) for name in _NAMED if name in first.stages_s]
    if len(stages) == 2 and stages[1][0] - stages[0][0] < _NARROW * end:
        stages = [(stages[1][0], ", ".join(words for _, words in stages))]
    upright = {"y": 0.02, "yanchor": "bottom", "textangle": -90, "xanchor": "left"}
    notes += [_note(of_start(first), at, words, **upright) for at, words in stages]
    line_of = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": {"color": "--mut", "width": 1}}
    marks = [{**line_of, "x0": at, "x1": at, "of": of_start(first).to_builtins()} for at, _ in stages]
    layout = {
        "height": _HEIGHT_PX,
        "xaxis": axis(
            f"seconds {'since spawn' if first.record.spawned_ns else 'sampled'}", rangemode="tozero"
        ),
        "yaxis": axis(unit, range=[0, top * scale * _HEADROOM]),
        "shapes": [*windows, *marks],
        "annotations": notes,
    }
    return [_line(look, each, scale, is_faint=each is not first) for each in courses], layout


def of_start(course: Course) -> Of:
    """Return what a start's line and row are about."""
    return Of(course.label, start=course.record.repeat + 1)


def _note(of: Of, x: float, text: str, **place: Any) -> dict[str, Any]:
    small = {"yref": "paper", "showarrow": False, "font": {"color": "--mut", "size": 10.5}}
    return {**small, "x": float(x), "text": text, "of": of.to_builtins(), **place}


def _line(look: Look, course: Course, scale: float, *, is_faint: bool) -> dict[str, Any]:
    t_s, sizes = downsample(course.t_s, course.size_bytes, _POINTS)
    name = escaped(f"start {course.title}")
    drawn = line(
        look,
        t_s.round(2).tolist(),
        [significant(float(size) * scale) for size in sizes],
        mode="lines",
        name=name,
        line={"color": look.colour, "dash": "solid", "width": 1 if is_faint else 2},
        opacity=0.55 if is_faint else 1,
        hovertemplate=f"{name}, %{{x:.1f}} s: %{{y:.4~g}}<extra></extra>",
    )
    return about(drawn, of_start(course))
