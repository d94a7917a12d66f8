"""The windows of one start on a chart against time: shaded, with their loads. Reads no samples."""

from typing import Any

from harness.store.store import StartRecord
from reports.data.cells import short_load
from reports.data.run import Run
from reports.page.markup import Of


def window_shades(
    run: Run, record: StartRecord, zero_ns: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Shapes and annotations of the windows that were measured on a start; x is in seconds since zero_ns."""
    shapes, notes = [], []
    for cell in run.planned_cells:
        summary = cell.summary if cell.record and cell.record.start == record.name else None
        if summary is None:
            continue
        of = Of(cell.label, cell.load_label, start=record.repeat + 1).to_builtins()
        x0, x1 = ((ns - zero_ns) / 1e9 for ns in (summary.window_start_ns, summary.window_end_ns))
        shapes.append(
            {
                "type": "rect", "x0": x0, "x1": x1, "yref": "paper", "y0": 0, "y1": 1, "fillcolor": "--shade",
                "line": {"width": 0}, "of": of,
            }
        )  # fmt: skip
        notes.append(
            {
                "x": (x0 + x1) / 2, "yref": "paper", "y": 1, "yanchor": "top", "showarrow": False,
                "text": short_load(cell.load), "font": {"color": "--mut", "size": 10.5},
                "hovertext": cell.load_label, "of": of,
            }
        )  # fmt: skip
    return shapes, notes
