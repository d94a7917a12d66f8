"""What the servers told of themselves: requests running and waiting and the KV cache against time, and rates
of their counters by load."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.contracts import ServerTerm
from harness.store.store import StartRecord
from reports.data.cells import Group
from reports.data.run import Run
from reports.data.served import TERMS, Gauge, mean_gauge, never_told, pooled, samples_of, total
from reports.measures.written import NOTHING, number, several
from reports.page.axes import downsample, significant
from reports.page.charts import Chart, Section, about, axis, grid, label, line
from reports.page.looks import Look, looks
from reports.page.markup import Html, Of, Row, join, long_table, note, paragraph, tag
from reports.page.shades import window_shades

_NAMES: dict[ServerTerm, str] = {
    "running": "running requests",
    "waiting": "waiting requests",
    "kv_cache_usage_share": "KV-cache usage",
    "prefix_hit_tokens": "prefix-cache hits",
    "preemptions": "preemptions",
    "generated_tokens": "generated tokens",
    "queue_s": "time in the queue",
}
_REQUESTS: tuple[tuple[ServerTerm, str, str], ...] = (
    ("running", "running", "solid"),
    ("waiting", "waiting", "dash"),
)

# Of a line, and so of its table.
_POINTS = 300
_NO_PAGE = "its engine is known to have no page of metrics, or it did not get ready"


def section(run: Run) -> Section | None:
    """None where no server told anything."""
    starts = {record.deployment.label: record for record in reversed(run.start_records)}
    told = {
        name: record for name, record in starts.items() if len(never_told(run, [record.name])) < len(TERMS)
    }
    if not told:
        return None
    charts = list(_charts(run, told))
    about = note(
        "From each server's own page of metrics, asked once a second. In the charts the first start of each "
        "deployment, the same scale for the same thing.",
        "Shaded: the windows that were measured (u: users, /s: conversations per second, x: speed of a "
        "trace). At most 300 points per line; lows and highs are kept.",
    )
    body = join([about, grid(charts), _by_load(run), *_untold(run)])
    return Section("What the servers told", body, charts)


def _charts(run: Run, told: dict[str, StartRecord]) -> Iterator[Chart]:
    """Requests and, where it is told, KV cache of each deployment's first start."""
    found, frames = looks(run), {name: samples_of(run, record.name) for name, record in told.items()}
    top = max((_most(frame[term]) for frame in frames.values() for term, _, _ in _REQUESTS), default=0.0)
    in_order = [name for name in run.deployments if name in told]
    for index, name in enumerate(in_order):
        record, frame = told[name], frames[name]
        drawn = [each for each in _REQUESTS if frame[each[0]].notna().any()]
        if drawn:
            y_axis = axis("requests", range=[0, max(top, 1.0) * 1.18])
            yield _chart(run, record, frame, found[name], f"serving-{index}", drawn, y_axis, 1.0)
        if frame["kv_cache_usage_share"].notna().any():
            usage: list[tuple[ServerTerm, str, str]] = [("kv_cache_usage_share", "KV cache in use", "solid")]
            y_axis = axis("% of the KV cache", range=[0, 118], tickvals=[0, 25, 50, 75, 100])
            yield _chart(run, record, frame, found[name], f"serving-kv-{index}", usage, y_axis, 100.0)


def _most(values: "pd.Series[float]") -> float:
    known = values.dropna()
    return float(known.max()) if len(known) else 0.0


def _chart(
    run: Run,
    record: StartRecord,
    frame: pd.DataFrame,
    look: Look,
    id_: str,
    drawn: Sequence[tuple[ServerTerm, str, str]],
    y_axis: dict[str, Any],
    scale: float,
) -> Chart:
    zero_ns = float(record.spawned_ns if record.spawned_ns is not None else frame["t_ns"].iloc[0])
    of = Of(look.label, start=record.repeat + 1)
    traces, rows = [], []
    for term, name, dash in drawn:
        known = frame[["t_ns", term]].dropna()
        t_s = ((known["t_ns"] - zero_ns) / 1e9).to_numpy()
        x, y = downsample(t_s, (known[term] * scale).to_numpy(), _POINTS)
        traces.append(about(_trace(look, name, dash, x, y), of))
        rows += [[name, number(float(a)), number(float(b))] for a, b in zip(x, y, strict=True)]
    shapes, notes = window_shades(run, record, zero_ns)
    layout = {
        "xaxis": axis(
            "seconds since spawn" if record.spawned_ns is not None else "seconds", rangemode="tozero"
        ),
        "yaxis": y_axis,
        "shapes": shapes,
        "annotations": notes,
    }
    dashes = {"dash": " (dashed)", "solid": " (solid)"} if len(drawn) > 1 else {}
    what = ", ".join(name + dashes.get(dash, "") for _, name, dash in drawn)
    columns = ["what", "seconds", "value"]
    return Chart(id_, f"{look.label}: {what}", traces, layout, columns, rows, height_px=230, of=of)


def _trace(look: Look, name: str, dash: str, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    return line(
        look,
        [round(float(v), 2) for v in x],
        [significant(float(v)) for v in y],
        mode="lines",
        name=label(name),
        line={"color": look.colour, "dash": dash, "width": 2},
        hovertemplate=f"%{{x:.1f}} s: %{{y:.4~g}} {label(name)}<extra></extra>",
    )


def _by_load(run: Run) -> Html:
    """Means and peaks of gauges, and rates of counters, in the windows."""
    rows: list[Row] = []
    for group in run.groups:
        if not group.counted:
            continue
        samples = sum(len(run.window_samples(run.server, cell)) for cell in group.counted)
        rows.append(
            Row(
                [
                    group.deployment,
                    group.load,
                    _gauge_cell(mean_gauge(run, group, "running"), 1.0),
                    _gauge_cell(mean_gauge(run, group, "waiting"), 1.0),
                    _gauge_cell(mean_gauge(run, group, "kv_cache_usage_share"), 100.0),
                    *_rates(run, group),
                    f"{samples:,}",
                    str(len(group.counted)),
                ],
                Of(group.deployment, group.load),
            )
        )
    columns = [
        "deployment", "load", "running requests", "waiting requests", "KV cache %", "prefix hits %",
        "preemptions", "output tokens/s", "queue ms", "samples", "starts",
    ]  # fmt: skip
    about = note(
        "In the windows. Running, waiting, KV cache: the mean of the samples, over starts, and the highest "
        "one.",
        "Prefix hits: tokens of prompts that were found in the cache. Output tokens/s: by the server's "
        "counter; where that grows with each request that ends, and not with each token, a short window may "
        "hold more or fewer than were generated in it. Queue: from arrival to the start of work, for each "
        "request. Preemptions are of all starts together.",
    )
    return join([tag("h3", "By load"), about, long_table(columns, rows, "plain loads", "Serving by load")])


def _rates(run: Run, group: Group) -> list[str]:
    hits = pooled(run, group, "prefix_hit_tokens", "prefix_query_tokens")
    queue_s = pooled(run, group, "queue_s", "queued_requests")
    return [
        number(None if hits is None else 100 * hits),
        number(total(run, group, "preemptions"), 0),
        number(pooled(run, group, "generated_tokens", None)),
        number(None if queue_s is None else 1000 * queue_s),
    ]


def _gauge_cell(found: Gauge | None, scale: float) -> Html | str:
    if found is None:
        return NOTHING
    peak = tag("span", f"peak {number(found.peak * scale)}", class_="range")
    return join([tag("span", number(found.mean * scale)), peak])


def _untold(run: Run) -> list[Html]:
    """What is missing of each deployment, and why."""
    said = []
    for name in run.deployments:
        records = run.starts_of(name)
        missing = [
            _NAMES[term] for term in never_told(run, [each.name for each in records]) if term in _NAMES
        ]
        reasons = _reasons(records)
        if len(missing) == len(_NAMES):
            said.append(f"{name} tells nothing: {reasons[0] if reasons else _NO_PAGE}")
            continue
        if missing:
            said.append(f"{name} does not tell: {', '.join(missing)}")
        if unread := [reason for reason in reasons if reason.startswith("samples: ")]:
            said.append(f"{name}, {several(unread, '; ')}")
    return [paragraph(f"{'; '.join(said)}.")] if said else []


def _reasons(records: Sequence[StartRecord]) -> list[str]:
    """Of what the starts' servers did not tell, that of pages that were not read first."""
    found = [
        f"{what.removeprefix('server ')}: {why}"
        for record in records
        for what, why in record.memory_notes.items()
        if what.startswith("server ")
    ]
    return sorted(found, key=lambda reason: not reason.startswith("samples: "))
