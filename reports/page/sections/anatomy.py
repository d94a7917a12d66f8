"""What each server's memory is made of: a bar per deployment, the bytes with their sources, the KV cache that
was needed beside the one reserved, memory at each stage, and what `bench fit` expected."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reports.data.run import Run
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
)
from reports.measures.written import several
from reports.page.charts import Chart, Section, about, axis, figure, label
from reports.page.looks import looks, named
from reports.page.markup import Html, Of, Row, join, paragraph, tag
from reports.page.sections.anatomy_tables import (
    GIB,
    SOURCES,
    TITLES,
    Starts,
    expected_parts,
    gib,
    kv_parts,
    parts_table,
    stages_note,
    stages_table,
)
from reports.page.swatches import swatch
from reports.words.said import capital

# A bar's pieces in order: title, colour and pattern.
_RESERVED = "KV cache reserved, not needed"
_PIECES = {
    "weights": ("--s-1", ""),
    "KV cache needed": ("--s-2", "/"),
    "KV cache": ("--s-2", "/"),
    "graphs and workspace": ("--s-3", ""),
    "program": ("--s-4", "\\"),
    "KV copies": ("--s-5", "."),
    "the rest": ("--s-6", ""),
    _RESERVED: ("--mut", "/"),
}
_ROW_PX = 48
_BAR = 0.34
# Of what a server holds, as much as it does not need: less is not worth a title. One that is named has so
# much more of it than the next.
_MUCH_SHARE = 0.1
_AHEAD_SHARE = 0.05


def section(run: Run) -> Section | None:
    """None where of no server's memory any part is known."""
    each_found = anatomies(run)
    found = {name: alike(each)[0] for name, each in each_found.items()}
    if all(set(a.parts) == {REST} for each in found.values() for a in each):
        return None
    names = looks(run)
    # What is marked is said of the work that was done, not of memory.
    shown = {name: named(replace(names[name], marks=())) for name in found}
    chart = _chart(found)
    parts = [
        paragraph(_measured(found) + _left_out(each_found)),
        _key(chart),
        figure(chart),
        tag("h3", "The parts and where they are known from"),
        SOURCES,
        parts_table(found, shown),
        *kv_parts(found, shown),
        tag("h3", "Memory at each stage"),
        stages_note(found),
        stages_table(found, shown),
        *expected_parts(found, shown),
    ]
    return Section(_title(found), join(parts), [chart])


def _title(found: Mapping[str, Starts]) -> str:
    """What one deployment holds and does not need, where that is much; else what all are mostly made of."""
    sizes = {name: (mean_total(each), mean([a.needed_bytes for a in each])) for name, each in found.items()}
    spare = {name: 1.0 - needed / total for name, (total, needed) in sizes.items() if needed is not None}
    full = _with_all_loads(found)
    spare = {name: share for name, share in spare.items() if name in full}
    ranked = sorted(spare, key=lambda name: spare[name], reverse=True)
    if ranked and spare[most := ranked[0]] > _MUCH_SHARE:
        if all(spare[most] - spare[name] > _AHEAD_SHARE for name in ranked[1:2]):
            return f"{most} holds {gib(sizes[most][0])} GiB and needs {gib(sizes[most][1])}"
        return f"Up to {100 * spare[most]:.0f} % of a server's memory is KV cache that no request needed"
    largest = {max(PARTS, key=lambda part: mean_size(each, part)) for each in found.values()}
    if len(largest) == 1 and (part := largest.pop()) != REST:
        whose = "each server's" if len(found) > 1 else "the server's"
        verb = "is" if part in (KV_CACHE, PROGRAM, WORKSPACE) else "are"
        title = TITLES[part]
        return f"{capital(title)} {verb} the largest part of {whose} memory"
    return "What the servers' memory is made of"


def _with_all_loads(found: Mapping[str, Starts]) -> list[str]:
    """The deployments of which all loads count that count of any: a lighter load needs less."""
    loads = {
        name: {(scenario, load) for scenario, load, counts in each[0].measured if counts}
        for name, each in found.items()
    }
    everything = set().union(*loads.values())
    return [name for name in loads if loads[name] == everything]


def _measured(found: Mapping[str, Starts]) -> str:
    whats = several([a.what for each in found.values() for a in each], "; ")
    starts = sum(map(len, found.values()))
    return (
        f"Measured: {whats}. GiB at its highest, means over the starts of each deployment ({starts} in all). "
        "Needed: with the KV cache that the requests held at once instead of the one that the server "
        "reserved by its settings."
    )


def _left_out(found: Mapping[str, Starts]) -> str:
    names = [a.record.name for each in found.values() for a in alike(each)[1]]
    return f" Left out, as other cells were measured on them: {', '.join(names)}." if names else ""


def _other_peaks(found: Mapping[str, Starts]) -> str:
    """Why other sections have other peaks of the same servers."""
    hows = {a.how for each in found.values() for a in each}
    said = ["A tick is one start. Values has the peak in the cells, Memory over time that of a whole life"]
    if "PSS at marks" in hows:
        said.append(
            ", both of RSS, which is sampled all the time and counts a page that processes share for each of "
            "them; here it is PSS, which counts it once and is read at marks only"
        )
    return "".join([*said, "."])


# --- the chart -------------------------------------------------------------------------------------


def _pieces(found: Starts) -> dict[str, float]:
    """A bar: bytes by piece; they add up to the total."""
    kv, needed = mean_size(found, KV_CACHE), mean([a.kv_needed_bytes for a in found])
    is_split = needed is not None
    pieces = {
        "weights": mean_size(found, WEIGHTS),
        "KV cache needed" if is_split else "KV cache": needed if needed is not None else kv,
        "graphs and workspace": mean_size(found, GRAPHS) + mean_size(found, WORKSPACE),
        "program": mean_size(found, PROGRAM),
        "KV copies": mean_size(found, KV_COPIES),
        "the rest": mean_size(found, REST),
        _RESERVED: kv - needed if needed is not None else 0.0,
    }
    return {name: size for name, size in pieces.items() if size > 0}


def _key(chart: Chart) -> Html:
    drawn = [trace["name"] for trace in chart.traces if trace["type"] == "bar"]
    swatches = []
    for name in drawn:
        colour, pattern = _PIECES[name]
        swatches.append(tag("span", swatch(colour, pattern, is_hollow=name == _RESERVED), name))
    return tag("p", *swatches, class_="key")


def _chart(found: Mapping[str, Starts]) -> Chart:
    bars = {name: _pieces(each) for name, each in found.items()}
    traces = [_bar(piece, bars) for piece in _PIECES if any(piece in each for each in bars.values())]
    top = max(a.total_bytes for each in found.values() for a in each) * GIB
    ticks = [(name, a) for name, each in found.items() for a in each]
    marks = {
        "type": "scatter", "mode": "markers", "hovertemplate": "a start: %{x:.2f} GiB<extra></extra>",
        "y": [label(name) for name, _ in ticks], "x": [round(a.total_bytes * GIB, 4) for _, a in ticks],
        "cliponaxis": False,
        "marker": {"color": "--fg", "symbol": "line-ns-open", "size": 14, "line": {"width": 2}},
    }  # fmt: skip
    starts = about(marks, points=[Of(name, start=a.record.repeat + 1) for name, a in ticks])
    columns = ["deployment", *(piece for piece in _PIECES if any(piece in each for each in bars.values()))]
    rows = [
        Row([name, *(gib(each.get(piece), 3) for piece in columns[1:])], Of(name))
        for name, each in bars.items()
    ]
    return Chart(
        "anatomy",
        "Memory at its highest, by what it is for",
        [*traces, starts],
        _layout(found, top),
        columns,
        rows,
        _other_peaks(found),
        height_px=80 + _ROW_PX * len(found),
    )


def _bar(piece: str, bars: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    colour, shape = _PIECES[piece]
    pattern = {"shape": shape, "fillmode": "overlay", "fgcolor": "--card", "size": 7, "solidity": 0.2}
    if piece == _RESERVED:  # lines alone: it is not needed
        pattern |= {"fillmode": "replace", "fgcolor": colour, "bgcolor": "--card"}
    trace = {
        "type": "bar", "orientation": "h", "name": label(piece), "y": [label(name) for name in bars],
        "x": [round(each.get(piece, 0.0) * GIB, 4) for each in bars.values()], "width": _BAR,
        "marker": {"color": colour, "line": {"color": "--card", "width": 1}, "pattern": pattern},
        "hovertemplate": "%{y}<br>%{fullData.name}: %{x:.2f} GiB<extra></extra>",
    }  # fmt: skip
    return about(trace, points=[Of(name) for name in bars])


def _layout(found: Mapping[str, Starts], top: float) -> dict[str, Any]:
    """Names and totals stand above their bars: beside them they would leave a narrow screen no room."""
    above = [
        {"xref": "paper", "x": 0, "xanchor": "left", "y": label(name), "yshift": 20,
         "showarrow": False, "text": f"{label(name)}: {_totals(each)}", "font": {"size": 11.5},
         "of": Of(name).to_builtins()}
        for name, each in found.items()
    ]  # fmt: skip
    return {
        "xaxis": axis("GiB", range=[0, 1.02 * top]),
        "yaxis": {"autorange": "reversed", "type": "category", "title": {"text": ""}, "showticklabels": False,
                  "showgrid": False, "automargin": False},
        "margin": {"l": 4, "r": 4, "t": 10, "b": 8},
        "annotations": above,
        "barmode": "stack",
    }  # fmt: skip


def _totals(found: Starts) -> str:
    needed = mean([a.needed_bytes for a in found])
    return gib(mean_total(found)) if needed is None else f"{gib(mean_total(found))}, needed {gib(needed)}"
