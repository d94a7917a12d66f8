"""Start-up: from the spawn of each server to its first tokens, split by the stages that were seen."""

from collections.abc import Iterable, Sequence
from typing import Any

from harness.store.store import StartRecord
from reports.data.run import Run
from reports.data.starts import FIRST, STAGES, Launch, instants_s, launches_of, start_title
from reports.measures.written import number
from reports.page.charts import Chart, Section, about, axis, figure, label
from reports.page.looks import looks
from reports.page.markup import Html, Of, Row, join, paragraph, tag
from reports.page.swatches import swatch

# One hue from dark to light, and stripes in every other one: steps follow each other, whatever they are.
_FILLS = {
    "process_up": ("--s-1", ""),
    "weights_begin": ("--s-2", "."),
    "weights_loaded": ("--s-2", "/"),
    "engine_ready": ("--s-3", ""),
    "listening": ("--s-4", "\\"),
    "first_token": ("--s-5", ""),
    "ready": ("--s-5", "x"),
    "steady_token": ("--s-6", "."),
}
_OTHER_FILL = ("--mut", "-")
_ROW_PX = 48
_BAR = 0.34


def section(run: Run) -> Section | None:
    """None where no server was started by us, or none became ready."""
    found = launches_of(run)
    if not found:
        return None
    if not any(record.stages for launch in found for record in launch.records):
        chart = _whole(run, found)
        note = paragraph("Files may be in the system's cache from the second start on.")
        return Section("Start-up", join([note, figure(chart)]), [chart])
    chart = _split(run, found)
    note = paragraph(
        "Each step ends with the stage that it is named by; one that was not seen is part of the next. "
        "Stages come from the server's log, its port and its first answers. A first start may compile, and "
        "may read its files for the first time" + _later(found)
    )
    return Section("Start-up", join([note, _key(found), figure(chart)]), [chart])


def _later(found: Sequence[Launch]) -> str:
    if any(launch.which != FIRST for launch in found):
        return ": it stands apart from later ones, which find both done."
    return "; what an earlier run compiled, and what the system has read before, is not done again."


def _key(found: Sequence[Launch]) -> Html:
    steps = [step.stage for launch in found for step in launch.steps]
    named = (
        tag("span", swatch(*_FILLS.get(stage, _OTHER_FILL)), _title(stage)) for stage in _in_order(steps)
    )
    return tag("p", *named, class_="key")


def _title(stage: str) -> str:
    return STAGES.get(stage, stage.replace("_", " "))


def _in_order(stages: Iterable[str]) -> list[str]:
    """Each stage once, known ones first in their order."""
    seen = dict.fromkeys(stages)
    return [name for name in STAGES if name in seen] + [name for name in seen if name not in STAGES]


def _split(run: Run, found: Sequence[Launch]) -> Chart:
    """A bar per deployment and kind of start, of its steps one after the other."""
    names = [_name(launch, found) for launch in found]
    steps = [step.stage for launch in found for step in launch.steps]
    traces = [_steps(stage, found, names) for stage in _in_order(steps)]
    ends_s = [launch.steps[-1].end_s for launch in found]
    said = [f"{name}: {number(end_s, 2)} s" for name, end_s in zip(names, ends_s, strict=True)]
    starts = _starts(found, names)
    is_whole = all(launch.steps[-1].stage == "steady_token" for launch in found)
    columns, rows = _each_start(run, found)
    return Chart(
        "startup",
        "From the spawn to the first steady token" if is_whole else "From the spawn on, step by step",
        [*traces, starts],
        _layout(names, said, [launch.label for launch in found], 1.02 * max(*ends_s, *starts["x"])),
        columns,
        rows,
        "Steps and figures are means over a bar's starts; a tick is one start. The table has each start, in "
        "seconds since its spawn; launch: to the first good generation.",
        height_px=80 + _ROW_PX * len(found),
    )


def _each_start(run: Run, found: Sequence[Launch]) -> tuple[list[str], list[Row]]:
    records = [(launch, record, instants_s(record)) for launch in found for record in launch.records]
    stages = _in_order(stage for _, _, instants in records for stage in instants)
    rows = [
        Row(
            [
                record.deployment.label,
                start_title(run, record),
                launch.which,
                *(number(instants.get(stage), 2) for stage in stages),
                number(record.launch_s, 2),
                record.status,
            ],
            _of(record),
        )
        for launch, record, instants in records
    ]
    return ["deployment", "start", "which", *(f"{_title(s)} s" for s in stages), "launch s", "status"], rows


def _name(launch: Launch, found: Sequence[Launch]) -> str:
    """What a bar is called: with its kind of start where its deployment has both."""
    if sum(other.label == launch.label for other in found) == 1:
        return label(launch.label)
    count = len(launch.records)
    later = "later" if count == 1 else f"{count} later"
    return f"{label(launch.label)}, {'first' if launch.which == FIRST else later}"


def _steps(stage: str, found: Sequence[Launch], names: Sequence[str]) -> dict[str, Any]:
    pairs = [
        (name, step)
        for name, launch in zip(names, found, strict=True)
        for step in launch.steps
        if step.stage == stage
    ]
    points = [Of(launch.label) for launch in found for step in launch.steps if step.stage == stage]
    colour, pattern = _FILLS.get(stage, _OTHER_FILL)
    trace = {
        "type": "bar", "orientation": "h", "name": label(_title(stage)), "y": [name for name, _ in pairs],
        "x": [round(step.length_s, 4) for _, step in pairs],
        "base": [round(step.begin_s, 4) for _, step in pairs],
        "marker": {"color": colour, "line": {"color": "--card", "width": 1},
                   "pattern": {"shape": pattern, "fillmode": "overlay", "fgcolor": "--card", "size": 7,
                               "solidity": 0.18}},
        "width": _BAR, "customdata": [round(step.end_s, 2) for _, step in pairs],
        "hovertemplate": "%{fullData.name}: %{x:.2f} s, over after %{customdata} s<extra></extra>",
    }  # fmt: skip
    return about(trace, points=points)


def _starts(found: Sequence[Launch], names: Sequence[str]) -> dict[str, Any]:
    """A tick per start at its last stage."""
    pairs = [
        (name, max(instants_s(record).values()))
        for name, launch in zip(names, found, strict=True)
        for record in launch.records
    ]
    points = [_of(record) for launch in found for record in launch.records]
    ticks = _ticks([name for name, _ in pairs], [round(end_s, 4) for _, end_s in pairs])
    return about(ticks, points=points)


def _of(record: StartRecord) -> Of:
    return Of(record.deployment.label, start=record.repeat + 1)


def _ticks(names: Sequence[str], at_s: Sequence[float | None]) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "hovertemplate": "a start: %{x:.2f} s<extra></extra>",
        "y": list(names), "x": list(at_s),
        "marker": {"color": "--fg", "symbol": "line-ns-open", "size": 14, "line": {"width": 2}},
    }  # fmt: skip


def _layout(
    names: Sequence[str], said: Sequence[str], labels: Sequence[str], most_s: float
) -> dict[str, Any]:
    """What is said of each bar stands above it: beside it, it would leave a narrow screen no room. `labels`:
    the deployment of each."""
    above = [
        {"xref": "paper", "x": 0, "xanchor": "left", "y": name, "yshift": 20, "showarrow": False,
         "text": words, "font": {"size": 11.5}, "of": Of(whose).to_builtins()}
        for name, words, whose in zip(names, said, labels, strict=True)
    ]  # fmt: skip
    return {
        "xaxis": axis("seconds since the spawn", range=[0, most_s]),
        "yaxis": {"autorange": "reversed", "type": "category", "title": {"text": ""}, "showticklabels": False,
                  "showgrid": False, "automargin": False},
        "margin": {"l": 4, "r": 4, "t": 10, "b": 8},
        "annotations": above,
        "barmode": "overlay",
    }  # fmt: skip


def _whole(run: Run, found: Sequence[Launch]) -> Chart:
    """A bar per deployment, of runs whose stages were not recorded."""
    by_label: dict[str, list[StartRecord]] = {}
    for launch in found:
        by_label.setdefault(launch.label, []).extend(launch.records)
    names = [label(name) for name in by_label]
    means_s = [sum(r.launch_s or 0.0 for r in records) / len(records) for records in by_label.values()]
    longest_s = max(r.launch_s or 0.0 for records in by_label.values() for r in records)
    bars = {
        "type": "bar", "orientation": "h", "y": names, "x": means_s,
        "marker": {"color": [looks(run)[name].colour for name in by_label], "opacity": 0.75},
        "text": [number(mean_s, 2) for mean_s in means_s], "textposition": "inside",
        "insidetextanchor": "start", "textfont": {"color": "--bg"}, "width": _BAR,
        "hovertemplate": "mean %{x:.2f} s<extra></extra>",
    }  # fmt: skip
    each = [(label(name), r) for name, records in by_label.items() for r in records]
    ticks = _ticks([name for name, _ in each], [r.launch_s for _, r in each])
    rows = [
        Row([name, start_title(run, r), number(r.launch_s, 2), r.status], _of(r))
        for name, records in by_label.items()
        for r in records
    ]
    return Chart(
        "startup",
        "Launch time: spawn to first good generation",
        [
            about(bars, points=[Of(name) for name in by_label]),
            about(ticks, points=[_of(r) for _, r in each]),
        ],
        _layout(names, names, list(by_label), 1.05 * longest_s),
        ["deployment", "start", "seconds", "status"],
        rows,
        "Bars are means over starts; a tick is one start.",
        height_px=80 + _ROW_PX * len(names),
    )
