"""One kind of chart: the memory of a deployment's starts against time, with their stages and windows."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from harness.store.store import StartRecord
from reports.data.run import Run
from reports.data.samples import Memory, start_title
from reports.measures.written import NOTHING, number
from reports.page.drawing.axes import downsample, significant
from reports.page.drawing.charts import Chart, about, axis, label, line
from reports.page.listed import Columns, filled
from reports.page.looks import Look
from reports.page.markup import Of

# A chart is some 500 pixels wide.
_POINTS = 400
# Room above the highest value, for its label and those of the loads.
_HEADROOM = 1.18
_GIB = 2.0**-30
_MARKED = {"weights_loaded": "weights loaded", "engine_ready": "engine ready"}
_Start = tuple[StartRecord, Memory]


def over_time(run: Run, id_: str, look: Look, starts: Sequence[_Start], top_bytes: float) -> Chart:
    """Draw a line per start on an axis up to `top_bytes`, with the highest value and, of the first one, the
    stages and the windows; the others are faint. The table has a row per start."""
    first = starts[0]
    highest = max(starts, key=lambda start: float(start[1].size_bytes.max()))
    peak = float(highest[1].size_bytes.max()) * _GIB
    over = {"yref": "y", "y": peak, "yanchor": "bottom", "font": {"color": "--fg", "size": 12}}
    notes = [_note(_of(highest), _peak_s(highest), f"peak {number(peak)}", **over)]
    shapes = []
    for cell in run.planned_cells:
        if cell.summary and run.start_of(cell) is first[0]:
            ends = cell.summary.window_start_ns, cell.summary.window_end_ns
            x0, x1 = (_seconds(first, ns) for ns in ends)
            of = Of(cell.label, cell.load_label, _of(first).start)
            box = {"type": "rect", "x0": x0, "x1": x1, "yref": "paper", "y0": 0, "y1": 1}
            shade = {"fillcolor": "--shade", "line": {"width": 0}, "of": of.to_builtins()}
            shapes.append({**box, **shade})
            notes.append(_note(of, (x0 + x1) / 2, cell.load_label, yanchor="top", y=1))
    # One stage stands left of its instant and the next one right of it, so that they stay apart.
    stages = [(words, first[0].stages[name]) for name, words in _MARKED.items() if name in first[0].stages]
    for side, (words, t_ns) in zip(("right", "left"), stages, strict=False):
        upright = {"xanchor": side, "y": 0.02, "yanchor": "bottom", "textangle": -90}
        notes.append(_note(_of(first), _seconds(first, t_ns), words, **upright))
    began = "since spawn" if first[0].spawned_ns is not None else "sampled"
    layout = {
        "xaxis": axis(f"seconds {began}", rangemode="tozero"),
        "yaxis": axis("GiB", range=[0, top_bytes * _GIB * _HEADROOM]),
        "shapes": shapes,
        "annotations": notes,
    }
    columns: Columns[_Start] = {
        "deployment": lambda start: start[0].deployment.label,
        "start": lambda start: start_title(run, start[0]),
        **{words: partial(_at_stage, name) for name, words in _MARKED.items()},
        "peak GiB": lambda start: number(float(start[1].size_bytes.max()), 2, _GIB),
        "at s": lambda start: number(_peak_s(start)),
        "end GiB": lambda start: number(float(start[1].size_bytes[-1]), 2, _GIB),
    }
    traces = [
        _trace(look, f"start {start_title(run, start[0])}", start, is_faint=start is not first)
        for start in starts
    ]
    of = _of(first) if len(starts) == 1 else Of(look.label)
    return Chart(id_, look.label, traces, layout, *filled(columns, starts, _of), height_px=240, of=of)


def _of(start: _Start) -> Of:
    return Of(start[0].deployment.label, start=start[0].repeat + 1)


def _seconds(start: _Start, t_ns: float) -> float:
    """Return an instant in seconds since the server's spawn, or since the first sample."""
    spawned_ns = start[0].spawned_ns
    return float(t_ns - (start[1].t_ns[0] if spawned_ns is None else spawned_ns)) / 1e9


def _peak_s(start: _Start) -> float:
    return _seconds(start, float(start[1].t_ns[start[1].size_bytes.argmax()]))


def _note(of: Of, x: float, text: str, **place: Any) -> dict[str, Any]:
    small = {"yref": "paper", "showarrow": False, "font": {"color": "--mut", "size": 10.5}}
    return {**small, "x": x, "text": text, "of": of.to_builtins(), **place}


def _at_stage(name: str, start: _Start) -> str:
    """Return the first value after a stage, in GiB."""
    record, memory = start
    at = int(np.searchsorted(memory.t_ns, record.stages.get(name, np.inf)))
    return number(float(memory.size_bytes[at]), 2, _GIB) if at < len(memory.t_ns) else NOTHING


def _trace(look: Look, name: str, start: _Start, *, is_faint: bool) -> dict[str, Any]:
    memory = start[1]
    x, y = downsample((memory.t_ns - memory.t_ns[0]) / 1e9, memory.size_bytes * _GIB, _POINTS)
    drawn = line(
        look,
        [round(_seconds(start, memory.t_ns[0]) + float(at), 2) for at in x],
        [significant(float(value)) for value in y],
        mode="lines",
        name=label(name),
        line={"color": look.colour, "dash": "solid", "width": 1 if is_faint else 2},
        opacity=0.55 if is_faint else 1,
        hovertemplate=f"{label(name)}, %{{x:.1f}} s: %{{y:.4~g}}<extra></extra>",
    )
    return about(drawn, _of(start))
