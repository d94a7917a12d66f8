"""Memory: what each server held and needed of it, over time, as predicted, and its start-up."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from harness.store.store import StartRecord
from reports.data.run import Run
from reports.data.starts import Memory, memory_over_time, start_title
from reports.measures.anatomy import (
    GRAPHS,
    KV_CACHE,
    KV_COPIES,
    PARTS,
    PROGRAM,
    REST,
    WEIGHTS,
    WORKSPACE,
    alike,
    anatomies,
    mean,
    mean_size,
    mean_total,
    shared_reasons,
)
from reports.measures.over_starts import aggregate
from reports.measures.written import number, plural, several, span_text
from reports.page.drawing.bars import BAR_PX, Bar, Fill, draw_bars, key_of
from reports.page.drawing.charts import Block, Chart, Part, Section, axis
from reports.page.drawing.over_time import Course, above, over_time
from reports.page.looks import Look, looks, named
from reports.page.markup import Of, tag
from reports.page.sections.memory_tables import (
    GIB,
    SOURCES,
    TITLES,
    Found,
    Starts,
    expected_parts,
    gib,
    kv_parts,
    parts_rows,
    stages_parts,
)
from reports.verdicts.decisions import decisions_of
from reports.words.said import capital

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
# Less than this share of what a server holds is not worth a title.
_MUCH_SHARE = 0.1
# Room above the highest sample, for its label.
_HEADROOM = 1.18
_PEAK = "memory_peak_bytes"
_MARKED = {"weights_loaded": "weights loaded", "engine_ready": "engine ready"}
# Lines nearer to each other than this share of the axis have one label.
_NEAR_SHARE = 0.04


def held(run: Run) -> Section:
    """Return what servers held and needed at their highest, where a part of any memory is known."""
    found = {name: alike(each)[0] for name, each in anatomies(run).items()}
    if all(set(a.parts) == {REST} for each in found.values() for a in each):
        return Section("Memory")
    # What is marked is said of the work that was done, not of memory.
    shown = {name: named(replace(looks(run)[name], marks=())) for name in found}
    left_out = [a.record.name for each in anatomies(run).values() for a in alike(each)[1]]
    whats = several([a.what for each in found.values() for a in each], "; ")
    claim = (
        f"{capital(whats)}: means over {plural(sum(map(len, found.values())), 'start')}. Needed: with the KV "
        "cache that requests held at once instead of the one reserved."
    )
    claim += f" Left out, as other cells were measured on them: {', '.join(left_out)}." if left_out else ""
    tables = [*expected_parts(found, shown), *kv_parts(found, shown), *stages_parts(found, shown)]
    return Section(_title(found), claim, [_bars(run, found), *tables], SOURCES)


def course(run: Run) -> Section:
    """Return memory over time, a chart per deployment, and what could not be read."""
    parts = [*_over_time(run), *_missing(run)]
    seen = [memory_over_time(run, record) for record in run.start_records]
    kinds_of = capital("; ".join(dict.fromkeys(memory.what for memory in seen if len(memory.t_ns))))
    claim = f"{kinds_of}. A line per start, the first bold; all charts have the same scale."
    how = (
        "Shaded: the windows of the first start, with their loads (u: users, /s: conversations per second, "
        "x: speed of a trace). Lines are thinned; lows and highs are kept."
    )
    return Section("Over time", claim if kinds_of else "", parts, how if kinds_of else "")


# --- what it is made of ----------------------------------------------------------------------------


def _bars(run: Run, found: Found) -> Chart:
    bars = [
        Bar(Of(name), f"{name} {_said(each)}", _pieces(each), _ticks(each)) for name, each in found.items()
    ]
    drawn = {name for bar in bars for name, _, _ in bar.pieces}
    fills = {name: fill for name, fill in _FILLS.items() if name in drawn}
    return Chart(
        "memory-parts",
        "Memory at its highest, by what it is for, GiB",
        *draw_bars(bars, fills, "GiB", "GiB"),
        *parts_rows(found),
        "A tick is one start; the table says where each part is known from.",
        height_px=80 + BAR_PX * len(found),
        finding=_least(run),
        key=key_of(fills),
        is_wide=True,
    )


def _ticks(starts: Starts) -> list[tuple[float, Of]]:
    return [(a.total_bytes * GIB, _of(a.record)) for a in starts]


def _of(record: StartRecord) -> Of:
    return Of(record.deployment.label, start=record.repeat + 1)


def _said(starts: Starts) -> str:
    needed, total = mean([a.needed_bytes for a in starts]), gib(mean_total(starts))
    return f"held {total}" if needed is None else f"needs {gib(needed)} of {total}"


def _pieces(starts: Starts) -> list[tuple[str, float, float]]:
    """Return name, begin and length of each piece in GiB; they add up to the total."""
    kv, needed = mean_size(starts, KV_CACHE), mean([a.kv_needed_bytes for a in starts])
    pieces = {
        "weights": mean_size(starts, WEIGHTS),
        "KV cache that requests held": needed or 0.0,
        "KV cache": kv if needed is None else 0.0,
        "graphs and workspace": mean_size(starts, GRAPHS) + mean_size(starts, WORKSPACE),
        "program": mean_size(starts, PROGRAM),
        "KV copies": mean_size(starts, KV_COPIES),
        "the rest": mean_size(starts, REST),
        "KV cache reserved, not needed": 0.0 if needed is None else kv - needed,
    }
    known = {name: size * GIB for name, size in pieces.items() if size > 0}
    begins = itertools.accumulate(known.values(), initial=0.0)
    return [(name, begin, size) for (name, size), begin in zip(known.items(), begins, strict=False)]


def _title(found: Found) -> str:
    """Return how much no request needed, where that is much; else what most of the memory is."""
    loads = {
        name: {(scenario, load) for scenario, load, counts in each[0].measured if counts}
        for name, each in found.items()
    }
    # A deployment whose heavier load does not count needed less than it would.
    full = [each for name, each in found.items() if loads[name] == set().union(*loads.values())]
    needed = [(mean([a.needed_bytes for a in each]), mean_total(each)) for each in full]
    spare = max((1.0 - size / total for size, total in needed if size is not None), default=0.0)
    if spare > _MUCH_SHARE:
        return f"Up to {100 * spare:.0f} % of a server's memory is KV cache that no request needed"
    largest = {max(PARTS, key=lambda part: mean_size(each, part)) for each in found.values()}
    if len(largest) == 1 and (part := largest.pop()) != REST:
        return f"Most of {'each' if len(found) > 1 else 'the'} server's memory is {TITLES[part]}"
    return "What the servers' memory is made of"


def _least(run: Run) -> str | None:
    """Return which deployment holds the least, where that is decided."""
    for made in decisions_of(run):
        for group in made.groups:
            if made.leaders.get(_PEAK) == group.deployment:
                held = aggregate(run, group, _PEAK)
                return f"{group.deployment} holds the least: {gib(held.mean)} GiB {span_text(_PEAK, held)}"
    return None


# --- over time -------------------------------------------------------------------------------------


def _over_time(run: Run) -> list[Chart]:
    """Return a chart per deployment with a line for each of its starts."""
    by_label: dict[str, list[tuple[StartRecord, Memory]]] = {}
    for record in run.start_records:
        memory = memory_over_time(run, record)
        if len(memory.t_ns):
            by_label.setdefault(record.deployment.label, []).append((record, memory))
    if not by_label:
        return []
    top = max(memory.size_bytes.max() for starts in by_label.values() for _, memory in starts) * GIB
    return [
        _chart(run, looks(run)[label], starts, top, f"memory-{index}")
        for index, (label, starts) in enumerate(by_label.items())
    ]


def _chart(run: Run, look: Look, starts: Sequence[tuple[StartRecord, Memory]], top: float, id_: str) -> Chart:
    courses = [
        Course(
            f"start {start_title(run, record)}", record, memory.t_ns, memory.size_bytes * GIB, is_faint=at > 0
        )
        for at, (record, memory) in enumerate(starts)
    ]
    notes = [_peak(courses), *_stages(courses)]
    y = axis("GiB", range=[0, top * _HEADROOM])
    return over_time(run, id_, look.label, look, courses, y, notes)


def _peak(courses: Sequence[Course]) -> dict[str, object]:
    """Label the highest sample of all starts where it is."""
    course = max(courses, key=lambda each: float(each.values.max()))
    at = int(course.values.argmax())
    peak = {"y": float(course.values[at]), "yref": "y", "yanchor": "bottom", "of": course.of.to_builtins()}
    said = above(course.seconds(course.t_ns[at]), f"peak {number(float(course.values[at]), 2)}")
    return {**said, **peak, "font": {"color": "--fg", "size": 12}}


def _stages(courses: Sequence[Course]) -> list[dict[str, object]]:
    """Name the stages of the first start, upright at the bottom; those near each other have one label."""
    first = courses[0]
    near_s = _NEAR_SHARE * max(each.seconds(each.t_ns[-1]) for each in courses)
    marked: list[tuple[float, str]] = []
    for name, t_ns in sorted(first.record.stages.items(), key=lambda pair: pair[1]):
        if name in _MARKED:
            at_s, said = first.seconds(t_ns), _MARKED[name]
            if marked and at_s - marked[-1][0] < near_s:
                said = f"{marked.pop()[1]}, {said}"
            marked.append((at_s, said))
    upright = {"y": 0.02, "yanchor": "bottom", "xanchor": "right", "textangle": -90}
    return [{**above(at_s, said), **upright, "of": first.of.to_builtins()} for at_s, said in marked]


# --- what is missing -------------------------------------------------------------------------------


def _missing(run: Run) -> list[Part]:
    """Return what could not be sampled, why, and of which starts: equal ones once."""
    items = [
        tag("li", f"{_whose(run, starts)}: {', '.join(what).replace('_', ' ')}: {why}")
        for what, why, starts in shared_reasons(run.start_records)
    ]
    return [Block("What could not be read", [tag("ul", *items, class_="note")])] if items else []


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
