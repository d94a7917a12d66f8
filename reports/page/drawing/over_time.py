"""One kind of chart: what was sampled of a deployment against the seconds of a start, its windows shaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.store.store import StartRecord
from reports.data.cells import short_load
from reports.data.run import Run
from reports.measures.written import number
from reports.page.drawing.axes import downsample, significant
from reports.page.drawing.charts import Chart, about, axis, label, line
from reports.page.looks import Look
from reports.page.markup import Of, Row

# A chart is some 500 pixels wide.
_POINTS = 400


@dataclass(frozen=True)
class Course:
    """A line: what it is, and its known values in time. `is_faint`: of a start that is not the first."""

    name: str
    record: StartRecord
    t_ns: np.ndarray
    values: np.ndarray
    dash: str = "solid"
    is_faint: bool = False

    @property
    def of(self) -> Of:
        return Of(self.record.deployment.label, start=self.record.repeat + 1)

    def seconds(self, t_ns: float) -> float:
        """Return an instant in seconds since the server's spawn, or since the first sample."""
        zero_ns = self.record.spawned_ns if self.record.spawned_ns is not None else self.t_ns[0]
        return float(t_ns - zero_ns) / 1e9


def over_time(
    run: Run,
    id_: str,
    title: str,
    look: Look,
    courses: Sequence[Course],
    y: dict[str, Any],
    notes: Sequence[dict[str, Any]] = (),
) -> Chart:
    """Draw courses of one deployment. Shaded: the windows of the first one's start. `notes`: annotations."""
    first = courses[0]
    shapes, loads = _windows(run, first)
    began = "since spawn" if first.record.spawned_ns is not None else "sampled"
    layout = {
        "xaxis": axis(f"seconds {began}", rangemode="tozero"),
        "yaxis": y,
        "shapes": shapes,
        "annotations": [*loads, *notes],
    }
    traces = [_trace(look, each) for each in courses]
    starts = {each.record.name for each in courses}
    of = first.of if len(starts) == 1 else Of(look.label)
    return Chart(id_, title, traces, layout, *_points(traces, courses), height_px=240, of=of)


def _trace(look: Look, course: Course) -> dict[str, Any]:
    x, y = downsample((course.t_ns - course.t_ns[0]) / 1e9, course.values, _POINTS)
    drawn = line(
        look,
        [round(course.seconds(course.t_ns[0]) + float(at), 2) for at in x],
        [significant(float(value)) for value in y],
        mode="lines",
        name=label(course.name),
        line={"color": look.colour, "dash": course.dash, "width": 1 if course.is_faint else 2},
        opacity=0.55 if course.is_faint else 1,
        hovertemplate=f"{label(course.name)}, %{{x:.1f}} s: %{{y:.4~g}}<extra></extra>",
    )
    return about(drawn, course.of)


def _points(traces: Sequence[dict[str, Any]], courses: Sequence[Course]) -> tuple[list[str], list[Row]]:
    pairs = [
        (course, x, y)
        for trace, course in zip(traces, courses, strict=True)
        for x, y in zip(trace["x"], trace["y"], strict=True)
    ]
    rows = [Row([course.name, number(x), number(y)], course.of) for course, x, y in pairs]
    return ["what", "seconds", "value"], rows


def _windows(run: Run, course: Course) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a shade for each window that was measured on the course's start, and its load above it."""
    shapes, loads = [], []
    for cell in run.planned_cells:
        summary = cell.summary if cell.record and cell.record.start == course.record.name else None
        if summary is None:
            continue
        x0, x1 = (course.seconds(ns) for ns in (summary.window_start_ns, summary.window_end_ns))
        of = Of(cell.label, cell.load_label, start=course.record.repeat + 1).to_builtins()
        box = {"type": "rect", "x0": x0, "x1": x1, "yref": "paper", "y0": 0, "y1": 1, "of": of}
        shapes.append({**box, "fillcolor": "--shade", "line": {"width": 0}})
        loads.append({**above((x0 + x1) / 2, short_load(cell.load)), "hovertext": cell.load_label, "of": of})
    return shapes, loads


def above(x: float, text: str) -> dict[str, Any]:
    """Return a small annotation at the top of a chart."""
    return {"x": x, "yref": "paper", "y": 1, "yanchor": "top", "showarrow": False, "text": text,
            "font": {"color": "--mut", "size": 10.5}}  # fmt: skip
