"""Memory: what was needed; then over time, a chart per deployment, a line per start, the windows shaded."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.store.store import StartRecord
from reports.data.cells import Group
from reports.data.machine import foreign_share, group_cores
from reports.data.run import Run
from reports.data.starts import Memory, memory_over_time, start_title
from reports.measures.anatomy import shared_reasons
from reports.measures.metrics import BY_NAME
from reports.measures.written import number
from reports.page.axes import downsample, significant
from reports.page.charts import Chart, Section, about, axis, grid, line
from reports.page.looks import Look, looks
from reports.page.markup import Html, Of, Row, join, long_table, note, paragraph, tag
from reports.page.sections.devices import device_parts
from reports.page.sections.memory_needed import needed_parts
from reports.page.shades import window_shades
from reports.words.said import capital

# A chart is some 500 pixels wide.
_POINTS = 500
_GIB = BY_NAME["memory_peak_bytes"].shown_scale
# Room above the highest sample, for its label.
_HEADROOM = 1.18
_MARKED = {"weights_loaded": "weights loaded", "engine_ready": "engine ready"}
# Lines nearer to each other than this share of the axis have one label.
_NEAR_SHARE = 0.04


def section(run: Run) -> Section | None:
    """None where no start has samples of its server's memory, or a reason why not."""
    by_label: dict[str, list[tuple[StartRecord, Memory]]] = {}
    for record in run.start_records:
        memory = memory_over_time(run, record)
        if len(memory.t_ns):
            by_label.setdefault(record.deployment.label, []).append((record, memory))
    missing = _missing(run)
    overview, needed = needed_parts(run)
    if not by_label:
        parts = [*overview, *missing]
        return Section("Memory", join(parts), needed) if parts else None
    top = max(memory.size_bytes.max() for starts in by_label.values() for _, memory in starts) * _GIB
    found = looks(run)
    charts = [
        _chart(run, found[label], starts, top, index)
        for index, (label, starts) in enumerate(by_label.items())
    ]
    kinds = dict.fromkeys(memory.what for starts in by_label.values() for _, memory in starts)
    about = note(
        f"{capital('; '.join(kinds))}, GiB against seconds since the server's spawn. A line per start "
        "(the first is bold), the same GiB in every chart.",
        "Shaded: the windows that were measured in the first start, with their loads (u: users, "
        "/s: conversations per second, x: speed of a trace); thin lines: stages "
        "of its start; dotted: its first good generation. At most 500 points per line; lows and highs are "
        "kept.",
    )
    over_time = [tag("h3", "Over time"), about, grid(charts)]
    body = [*overview, *over_time, *missing, *device_parts(run), *_processor_parts(run)]
    return Section("Memory", join(body), [*needed, *charts])


def _missing(run: Run) -> list[Html]:
    """What could not be sampled, why, and of which starts: equal ones once."""
    items = [
        tag("li", f"{_whose(run, starts)}: {', '.join(what).replace('_', ' ')}: {why}")
        for what, why, starts in shared_reasons(run.start_records)
    ]
    return [tag("h3", "What could not be read"), tag("ul", *items, class_="note")] if items else []


def _whose(run: Run, starts: Sequence[StartRecord]) -> str:
    if len(starts) == len(run.start_records):
        return "all starts"
    by_label: dict[str, list[str]] = {}
    for record in starts:
        by_label.setdefault(record.deployment.label, []).append(start_title(run, record))
    return "; ".join(
        name if len(numbers) == len(run.starts_of(name)) else f"{name}, start {', '.join(numbers)}"
        for name, numbers in by_label.items()
    )


def _processor_parts(run: Run) -> list[Html]:
    """Cores by deployment and load, where the servers ran on the processor."""
    if any(record.memory_kind != "host" for record in run.start_records):
        return []
    each = [(group, group_cores(run, group)) for group in run.groups]
    rows = [
        Row(
            [
                group.deployment,
                group.load,
                number(_mean(cores), 1),
                number(_foreign_pct(run, group), 0),
                str(len(cores)),
            ],
            Of(group.deployment, group.load),
        )
        for group, cores in each
        if cores
    ]
    if not rows:
        return []
    note = paragraph(
        "Cores that the server's processes kept busy in the windows, and the share of the machine that went "
        "to neither the server nor the client; means over starts."
    )
    columns = ["deployment", "load", "server's cores", "others %", "starts"]
    return [
        tag("h3", "Processor in the windows"),
        note,
        long_table(columns, rows, "plain loads", "Processor in the windows"),
    ]


def _foreign_pct(run: Run, group: Group) -> float | None:
    shares = [foreign_share(run, cell) for cell in group.counted]
    return _mean([None if share is None else 100 * max(share, 0.0) for share in shares])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _chart(
    run: Run, look: Look, starts: Sequence[tuple[StartRecord, Memory]], top: float, index: int
) -> Chart:
    traces = [_trace(run, look, *each, is_first=position == 0) for position, each in enumerate(starts)]
    shapes, notes = _phases(run, *starts[0])
    lines, names = _stages(starts, top)
    layout = {
        "xaxis": axis("seconds since spawn", rangemode="tozero"),
        "yaxis": axis("GiB", range=[0, top * _HEADROOM]),
        "shapes": [*shapes, *lines],
        "annotations": [*notes, *names, _peak(starts)],
    }
    rows = [
        Row(row, _of(record))
        for record, memory in starts
        for row in _rows(start_title(run, record), record, memory)
    ]
    columns = ["start", "instant", "seconds since spawn", "GiB"]
    return Chart(
        f"memory-{index}",
        look.label,
        traces,
        layout,
        columns,
        rows,
        height_px=250,
        of=Of(look.label),
    )


def _trace(run: Run, look: Look, record: StartRecord, memory: Memory, *, is_first: bool) -> dict[str, Any]:
    """A start's memory against time; of the first start a strong line."""
    x, y = downsample((memory.t_ns - _zero_ns(record, memory)) / 1e9, memory.size_bytes * _GIB, _POINTS)
    title = start_title(run, record)
    drawn = line(
        look,
        [round(float(v), 2) for v in x],
        [significant(float(v)) for v in y],
        mode="lines",
        line={"color": look.colour, "dash": "solid", "width": 2 if is_first else 1},
        opacity=1 if is_first else 0.55,
        hovertemplate=f"start {title}, %{{x:.1f}} s: %{{y:.2f}} GiB<extra></extra>",
    )
    return about(drawn, _of(record))


def _of(record: StartRecord) -> Of:
    return Of(record.deployment.label, start=record.repeat + 1)


def _zero_ns(record: StartRecord, memory: Memory) -> float:
    return float(record.spawned_ns if record.spawned_ns is not None else memory.t_ns[0])


def _peak(starts: Sequence[tuple[StartRecord, Memory]]) -> dict[str, Any]:
    """The highest sample of all starts, labelled where it is."""
    record, memory = max(starts, key=lambda pair: float(pair[1].size_bytes.max()))
    at = memory.peak
    return {
        "x": (float(memory.t_ns[at]) - _zero_ns(record, memory)) / 1e9,
        "y": float(memory.size_bytes[at]) * _GIB,
        "text": f"peak {number(float(memory.size_bytes[at]) * _GIB, 2)}",
        "showarrow": False,
        "yshift": 9,
        "font": {"color": "--fg", "size": 12},
        "of": _of(record).to_builtins(),
    }


def _phases(
    run: Run, record: StartRecord, memory: Memory
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    zero_ns = _zero_ns(record, memory)
    shapes: list[dict[str, Any]] = []
    tall = {"yref": "paper", "y0": 0, "y1": 1}
    if record.ready_ns is not None and record.spawned_ns is not None:
        x = (record.ready_ns - zero_ns) / 1e9
        dotted = {"color": "--mut", "dash": "dot", "width": 1}
        shapes.append(
            {"type": "line", "x0": x, "x1": x, "line": dotted, "of": _of(record).to_builtins(), **tall}
        )
    windows, loads = window_shades(run, record, zero_ns)
    return [*shapes, *windows], loads


def _stages(
    starts: Sequence[tuple[StartRecord, Memory]], top: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A line at each stage of the first start, and their labels: a row for each, so that none is in the way
    of another, above a low curve and below a high one."""
    record, memory = starts[0]
    of = _of(record).to_builtins()
    last_s = max((float(m.t_ns[-1]) - _zero_ns(r, m)) / 1e9 for r, m in starts)
    at_s = [(name, (t_ns - _zero_ns(record, memory)) / 1e9) for name, t_ns in record.stages.items()]
    marked = sorted(((x, _MARKED[name]) for name, x in at_s if name in _MARKED), key=lambda pair: pair[0])
    thin = {"color": "--mut", "width": 1}
    shapes = [
        {"type": "line", "x0": x, "x1": x, "line": thin, "yref": "paper", "y0": 0, "y1": 1, "of": of}
        for x, _ in marked
    ]
    is_low = float(memory.size_bytes.max()) * _GIB < 0.5 * top * _HEADROOM
    notes = []
    for row, (x, text) in enumerate(_near_joined(marked, _NEAR_SHARE * last_s)):
        notes.append(
            {
                "x": x,
                "xanchor": "left" if x < 0.5 * last_s else "right",
                "yref": "paper",
                "y": 0.9 - 0.09 * row if is_low else 0.01 + 0.09 * row,
                "yanchor": "top" if is_low else "bottom",
                "showarrow": False,
                "text": text,
                "font": {"color": "--mut", "size": 10.5},
                "of": of,
            }
        )
    return shapes, notes


def _near_joined(marked: Sequence[tuple[float, str]], near_s: float) -> list[tuple[float, str]]:
    """Labels in their order; those of lines that are near each other as one, at the last line."""
    joined: list[tuple[float, str]] = []
    for x, text in marked:
        if joined and x - joined[-1][0] < near_s:
            joined[-1] = (x, f"{joined[-1][1]}, {text}")
        else:
            joined.append((x, text))
    return joined


def _rows(title: str, record: StartRecord, memory: Memory) -> list[Sequence[Html | str]]:
    """Memory at each named instant (the nearest sample within a second), and the peak."""
    zero_ns = _zero_ns(record, memory)
    rows: list[Sequence[Html | str]] = []
    for phase in record.phases:
        away = np.abs(memory.t_ns - phase.t_ns)
        near = float(memory.size_bytes[away.argmin()]) * _GIB if away.min() < 1e9 else None
        seconds = number((phase.t_ns - zero_ns) / 1e9)
        rows.append([title, phase.name, seconds, number(near, 2)])
    at = memory.peak
    seconds = number((float(memory.t_ns[at]) - zero_ns) / 1e9)
    return [*rows, [title, "peak", seconds, number(float(memory.size_bytes[at]) * _GIB, 2)]]
