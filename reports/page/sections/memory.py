"""Memory: what each server held and needed of it, as predicted and as measured, and over time."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from harness.store.store import StartRecord
from reports.data.cells import grouped
from reports.data.run import Run
from reports.data.samples import Memory, memory_over_time, start_title
from reports.measures.anatomy import (
    KV_CACHE,
    PARTS,
    REST,
    Anatomy,
    alike,
    anatomies,
    expectations,
    mean_parts,
    mean_total,
)
from reports.measures.kv_need import KvCache
from reports.measures.metrics import mean
from reports.measures.written import NOTHING, number, plural, several
from reports.page.drawing.bars import Bar, Fill, bar_chart
from reports.page.drawing.charts import Chart, Part, Section, about, axis, downsample, line, significant
from reports.page.listed import Columns, Shown, below, filled, listed
from reports.page.looks import Look, looks, named
from reports.page.markup import Of, escaped
from reports.verdicts.load_cases import load_cases_of, opened
from reports.words.titles import title_at
from reports.words.verdict_words import capital

_GIB = 2.0**-30
_SOURCES = (
    "Said: by the server, in its log or on its pages. Measured step: what the memory grew by between two "
    "stages of the start. Reckoned: from the model's shape, else from the size of the weights' files. "
    "Workspace is what the first answers took beyond all other parts. KV copies are conversations that the "
    "server saves beside its KV cache. The rest is growth under load, which nothing explains."
)
_KV_CACHE = (
    "Reserved: as the server says. Needed: prompts and answers so far of all requests at once, the most in "
    "any window of any start. Users that fit: reserved tokens / the 95th percentile of conversations at "
    "their longest."
)
_OVER_TIME = (
    "Shaded: the windows of the first start, with their loads. Lines are thinned; lows and highs are kept."
)
_FILLS: dict[str, Fill] = {
    "weights": ("--s-1", ""),
    "KV cache that requests held": ("--s-2", "/"),
    "KV cache": ("--s-2", "/"),
    "graphs and workspace": ("--s-3", ""),
    "program": ("--s-4", "\\"),
    "KV copies": ("--s-5", "."),
    "the rest": ("--s-6", ""),
    "KV cache reserved, not needed": ("--line", "/"),
}
# A chart over time is some 500 pixels wide; above its highest value is room for labels.
_POINTS, _HEADROOM = 400, 1.18
_MARKED = {"weights_loaded": "weights loaded", "engine_ready": "engine ready"}
# A deployment and its starts on which the same cells were measured.
_Held = tuple[Look, Sequence[Anatomy]]
_Start = tuple[StartRecord, Memory]


def held(run: Run) -> Section:
    """Return what servers held and needed at their highest; empty where no part of any memory is known."""
    kept = {name: alike(each) for name, each in anatomies(run).items()}
    # What is marked is said of the work that was done, not of memory.
    found = [(replace(looks(run)[name], marks=()), each) for name, each in kept.items()]
    starts = [a for _, each in found for a in each]
    if all(set(a.parts) == {REST} for a in starts):
        return Section("")
    claim = (
        f"{capital(several([a.what for a in starts], '; '))}: means over {plural(len(starts), 'start')}. "
        "Needed: with the KV cache that requests held at once, not the one reserved."
    )
    every = [(a, a in kept[name]) for name, each in anatomies(run).items() for a in each]
    if left_out := [a.record.name for a, is_kept in every if not is_kept]:
        claim += f" Left out, as other cells were measured on them: {', '.join(left_out)}."
    # A deployment whose heavier load does not count needed less than it would.
    loads = frozenset[tuple[str, str]]().union(*(each[0].loads for _, each in found))
    whole = [each for _, each in found if each[0].loads == loads]
    spare = [1.0 - needed / mean_total(each) for each in whole if (needed := _needed(each)) is not None]
    title = "What the servers' memory is made of"
    if max(spare, default=0.0) > 0.1:
        title = f"Up to {100 * max(spare):.0f} % of a server's memory is KV cache that no request needed"
    return Section(title, claim, [_parts_chart(run, found), *_predicted(found), *_kv_cache(found)], _SOURCES)


def course(run: Run) -> Section:
    """Return memory over time, a chart per deployment, and what could not be read."""
    every = [(record, memory_over_time(run, record)) for record in run.start_records]
    seen = [(record, memory) for record, memory in every if len(memory.t_ns)]
    top_bytes = max((memory.size_bytes.max() for _, memory in seen), default=0.0)
    by_label = {name: [each for each in seen if each[0].deployment.label == name] for name in looks(run)}
    parts: list[Part] = [
        _over_time(run, f"memory-{index}", looks(run)[name], starts, top_bytes)
        for index, (name, starts) in enumerate(by_label.items())
        if starts
    ]
    # What a server's page lacks stands in the section on what servers told.
    notes = [
        (f"{what.replace('_', ' ')}: {why}", record.name)
        for record in run.start_records
        for what, why in record.memory_notes.items()
        if not what.startswith("server ")
    ]
    unread = grouped(notes, lambda pair: pair[0])
    columns: Columns[str] = {
        "what": lambda note: note,
        "starts": lambda note: several([name for _, name in unread[note]]),
    }
    parts += listed("What could not be read", "", columns, list(unread), look="words")
    kinds = capital("; ".join(dict.fromkeys(memory.what for _, memory in seen)))
    claim = f"{kinds}. A line per start, the first bold; all charts have the same scale."
    return Section("Over time", claim if seen else "", parts, _OVER_TIME if seen else "")


# --- what it is made of ----------------------------------------------------------------------------


def _parts_chart(run: Run, found: Sequence[_Held]) -> Chart:
    bars = []
    for look, starts in found:
        means = pd.DataFrame(map(_pieces, starts)).mean() * _GIB
        needed, total = _needed(starts), _gib(mean_total(starts), 2)
        said = f"held {total}" if needed is None else f"needs {_gib(needed, 2)} of {total}"
        ticks = [(a.total_bytes * _GIB, Of(look.label, start=a.record.repeat + 1)) for a in starts]
        pieces = {str(name): float(size) for name, size in means.items() if size > 0}
        bars.append(Bar(Of(look.label), f"{look.label} {said}", pieces, ticks))
    columns: Columns[_Held] = {
        "deployment": lambda held: held[0].label,
        **{name.replace("kv_", "KV "): partial(_part, name) for name in PARTS},
        "total GiB": lambda held: below(_gib(mean_total(held[1])), _range(held[1])),
        "needed GiB": lambda held: _gib(_needed(held[1])),
    }
    return bar_chart(
        "memory-parts",
        "Memory at its highest, by what it is for, GiB",
        _least(run),
        bars,
        _FILLS,
        "GiB",
        "GiB",
        filled(columns, found, lambda held: Of(held[0].label)),
        "A tick is one start; the table says where each part is known from.",
    )


def _pieces(of: Anatomy) -> dict[str, float]:
    """Return the bytes of a bar's pieces, which add up to the total."""
    size = {name: of.parts[name].size_bytes if name in of.parts else 0.0 for name in PARTS}
    spare = of.spare_bytes
    return {
        "weights": size["weights"],
        "KV cache that requests held": 0.0 if spare is None else size[KV_CACHE] - spare,
        "KV cache": size[KV_CACHE] if spare is None else 0.0,
        "graphs and workspace": size["graphs"] + size["workspace"],
        "program": size["program"],
        "KV copies": size["kv_copies"],
        "the rest": size[REST],
        "KV cache reserved, not needed": spare or 0.0,
    }


def _least(run: Run) -> str | None:
    found = (title_at(run, "memory_peak_bytes", case.groups) for case in opened(run, load_cases_of(run)))
    return next(filter(None, found), None)


def _needed(starts: Sequence[Anatomy]) -> float | None:
    """Return the mean total without the KV cache that no request needed."""
    spare = mean([a.spare_bytes for a in starts])
    return None if spare is None else mean_total(starts) - spare


def _gib(size_bytes: float | None, digits: int = 3) -> str:
    return number(size_bytes, digits, _GIB)


def _range(starts: Sequence[Anatomy]) -> str:
    low, high = (_gib(end(a.total_bytes for a in starts)) for end in (min, max))
    return "" if low == high else f"{low}–{high}"


def _part(name: str, held: _Held) -> Shown:
    """Return a part's mean and its sources."""
    part = mean_parts(held[1]).get(name)
    return below(_gib(part.size_bytes), *part.sources) if part else NOTHING


def _predicted(found: Sequence[_Held]) -> list[Part]:
    return listed(
        "Predicted by bench fit",
        "GiB. Predicted from the model's shape alone, before anything is started; the total has what it "
        "assumes for all else. Error: predicted / measured - 1.",
        {
            "deployment": lambda row: named(row[0]),
            "part": lambda row: row[1].replace("kv_", "KV "),
            "predicted": lambda row: _gib(row[2]),
            "measured": lambda row: _gib(row[3]),
            "error": lambda row: f"{round(100 * (row[2] / row[3] - 1.0), 1) + 0.0:+.1f} %",  # no -0.0
        },
        [(look, name, *ends) for look, starts in found for name, ends in expectations(starts).items()],
        lambda row: Of(row[0].label),
        "plain expected",
    )


def _kv_cache(found: Sequence[_Held]) -> list[Part]:
    needs = [(look, max(starts, key=lambda a: a.kv.peak_tokens or 0.0).kv) for look, starts in found]
    columns: Columns[tuple[Look, KvCache]] = {
        "deployment": lambda pair: named(pair[0]),
        "reserved GiB": lambda pair: below(_gib(pair[1].size_bytes), _tokens(pair[1].tokens)),
        "needed GiB": lambda pair: below(_gib(pair[1].needed_bytes), _tokens(pair[1].peak_tokens)),
        "users that fit": lambda pair: number(pair[1].users, 0),
    }
    pools = [(look, kv) for look, kv in needs if kv.tokens is not None or kv.size_bytes is not None]
    title = "KV cache: reserved and needed"
    return listed(title, _KV_CACHE, columns, pools, lambda pair: Of(pair[0].label), "plain anatomy")


def _tokens(count: float | None) -> str:
    return "" if count is None else f"{count:,.0f} tokens"


# --- over time -------------------------------------------------------------------------------------


def _over_time(run: Run, id_: str, look: Look, starts: Sequence[_Start], top_bytes: float) -> Chart:
    """Draw a line per start on an axis up to `top_bytes`, with the highest value and, of the first one, the
    stages and the windows; the others are faint."""
    first, highest = starts[0], max(starts, key=_peak)
    at_s = _seconds(highest, highest[1].t_ns[highest[1].size_bytes.argmax()])
    over = {
        "y": _peak(highest) * _GIB,
        "yref": "y",
        "yanchor": "bottom",
        "font": {"color": "--fg", "size": 12},
    }
    notes = [_note(_of(highest), at_s, f"peak {number(_peak(highest), scale=_GIB)}", **over)]
    windows = []
    for cell in run.planned_cells:
        if cell.summary and run.start_of(cell) is first[0]:
            ends = cell.summary.window_start_ns, cell.summary.window_end_ns
            x0, x1 = (_seconds(first, ns) for ns in ends)
            of = Of(cell.label, cell.load_label, first[0].repeat + 1)
            windows.append(
                {"type": "rect", "x0": x0, "x1": x1, "yref": "paper", "y0": 0, "y1": 1,
                 "fillcolor": "--shade", "line": {"width": 0}, "of": of.to_builtins()}
            )  # fmt: skip
            notes.append(_note(of, (x0 + x1) / 2, cell.load_label, yanchor="top", y=1))
    # One stage stands left of its instant and the next one right of it, so that they stay apart.
    upright = {"y": 0.02, "yanchor": "bottom", "textangle": -90}
    notes += [
        _note(_of(first), _seconds(first, first[0].stages[name]), words, xanchor=side, **upright)
        for side, (name, words) in zip(("right", "left"), _MARKED.items(), strict=True)
        if name in first[0].stages
    ]
    layout = {
        "xaxis": axis(
            "seconds since spawn" if first[0].spawned_ns else "seconds sampled", rangemode="tozero"
        ),
        "yaxis": axis("GiB", range=[0, top_bytes * _GIB * _HEADROOM]),
        "shapes": windows,
        "annotations": notes,
    }
    columns: Columns[_Start] = {
        "deployment": lambda start: start[0].deployment.label,
        "start": lambda start: start_title(run, start[0]),
        "peak GiB": lambda start: number(_peak(start), 2, _GIB),
        "end GiB": lambda start: number(float(start[1].size_bytes[-1]), 2, _GIB),
    }
    traces = [_trace(run, look, start, is_faint=start is not first) for start in starts]
    of = _of(first) if len(starts) == 1 else Of(look.label)
    return Chart(id_, look.label, traces, layout, *filled(columns, starts, _of), height_px=240, of=of)


def _of(start: _Start) -> Of:
    return Of(start[0].deployment.label, start=start[0].repeat + 1)


def _seconds(start: _Start, t_ns: float) -> float:
    """Return an instant in seconds since the server's spawn, or since the first sample."""
    spawned_ns = start[0].spawned_ns
    return float(t_ns - (start[1].t_ns[0] if spawned_ns is None else spawned_ns)) / 1e9


def _peak(start: _Start) -> float:
    return float(start[1].size_bytes.max())


def _note(of: Of, x: float, text: str, **place: Any) -> dict[str, Any]:
    small = {"yref": "paper", "showarrow": False, "font": {"color": "--mut", "size": 10.5}}
    return {**small, "x": x, "text": text, "of": of.to_builtins(), **place}


def _trace(run: Run, look: Look, start: _Start, *, is_faint: bool) -> dict[str, Any]:
    t_ns, size_bytes = downsample(start[1].t_ns, start[1].size_bytes, _POINTS)
    name = escaped(f"start {start_title(run, start[0])}")
    drawn = line(
        look,
        [round(_seconds(start, float(at)), 2) for at in t_ns],
        [significant(float(value) * _GIB) for value in size_bytes],
        mode="lines",
        name=name,
        line={"color": look.colour, "dash": "solid", "width": 1 if is_faint else 2},
        opacity=0.55 if is_faint else 1,
        hovertemplate=f"{name}, %{{x:.1f}} s: %{{y:.4~g}}<extra></extra>",
    )
    return about(drawn, _of(start))
