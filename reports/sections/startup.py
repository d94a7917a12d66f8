"""Start-up: from the spawn of each server to its first good generation."""

from __future__ import annotations

from reports.charts import Chart, Section, axis, figure, label
from reports.frames import Run
from reports.looks import looks
from reports.markup import join, number, paragraph


def section(run: Run) -> Section | None:
    """None where no server was started by us, or none became ready."""
    found = {
        look: [r for r in run.start_records if r.deployment.label == name and r.launch_s is not None]
        for name, look in looks(run).items()
    }
    found = {look: records for look, records in found.items() if records}
    if not found:
        return None
    names = [label(look.label) for look in found]
    means = [sum(r.launch_s or 0.0 for r in records) / len(records) for records in found.values()]
    colours = [look.colour for look in found]
    bars = {
        "type": "bar", "orientation": "h", "y": names, "x": means,
        "marker": {"color": colours, "opacity": 0.75},
        "text": [number(mean, 2) for mean in means], "textposition": "inside", "insidetextanchor": "start",
        "textfont": {"color": "--bg"}, "width": 0.6, "hovertemplate": "mean %{x:.2f} s<extra></extra>",
    }  # fmt: skip
    each = {
        "type": "scatter", "mode": "markers", "hovertemplate": "a start: %{x:.2f} s<extra></extra>",
        "y": [label(look.label) for look, records in found.items() for _ in records],
        "x": [r.launch_s for records in found.values() for r in records],
        "marker": {"color": "--fg", "symbol": "line-ns-open", "size": 12, "line": {"width": 2}},
    }  # fmt: skip
    layout = {
        "xaxis": axis("seconds", rangemode="tozero"),
        "yaxis": {"autorange": "reversed", "type": "category", "title": {"text": ""}},
    }
    rows = [
        [look.label, str(r.repeat + 1), number(r.launch_s, 2), r.status]
        for look, records in found.items()
        for r in records
    ]
    chart = Chart(
        "startup", "Launch time: spawn to first good generation", [bars, each], layout,
        ["deployment", "start", "seconds", "status"], rows,
        "Bars are means over starts; a tick is one start.",
        height_px=90 + 38 * len(found),
    )  # fmt: skip
    note = paragraph("Files may be in the system's cache from the second start on.")
    return Section("Start-up", join([note, figure(chart)]), [chart])
