"""What each server needed of the memory that it held: one bar per deployment, the first chart of memory."""

from collections.abc import Mapping
from typing import Any

from reports.data.run import Run
from reports.measures.anatomy import KV_CACHE, WEIGHTS, alike, anatomies, mean, mean_size, mean_total
from reports.measures.equal_work import work_of
from reports.measures.over_starts import Aggregate
from reports.measures.written import several, span_text
from reports.page.charts import Chart, about, axis, figure, label
from reports.page.markup import Html, Of, Row, paragraph, tag
from reports.page.sections.anatomy_tables import GIB, Starts, gib
from reports.page.swatches import swatch
from reports.verdicts.decision import by_pairs, needed_by_start, over_starts
from reports.words.titles import leader

_NEEDED, _REST, _RESERVED = "KV cache that requests held", "the rest", "KV cache reserved, not needed"
_COLOURS = {"weights": "--s-1", _NEEDED: "--s-3", _REST: "--s-5", _RESERVED: "--mut"}
_ROW_PX, _BAR = 48, 0.34
# As span_text writes sizes.
_AS = "memory_peak_bytes"


def needed_parts(run: Run) -> tuple[list[Html], list[Chart]]:
    """The chart with its key, of the deployments of which it is known; nothing where it is of none."""
    each_found = {name: alike(each)[0] for name, each in anatomies(run).items()}
    found = {name: each for name, each in each_found.items() if _is_known(each)}
    by_start = needed_by_start(found, list(found)) if found else {}
    if not by_start:
        return [], []
    needed = {name: over_starts(list(sizes.values())) for name, sizes in by_start.items()}
    chart = _chart(run, found, by_start, needed)
    drawn = [trace["name"] for trace in chart.traces]
    key = (tag("span", _swatch(name), name) for name in drawn)
    note = (
        "Needed: what the server held at its highest, less the KV cache that it had reserved and no request "
        "used. Means over starts; Anatomy has every part and where it is known from."
    )
    unknown = [name for name in run.deployments if name not in found]
    said = f" Not known of {several(unknown)}." if unknown else ""
    return [paragraph(note + said), tag("p", *key, class_="key"), figure(chart)], [chart]


def _is_known(each: Starts) -> bool:
    return all(WEIGHTS in a.parts and a.needed_bytes for a in each)


def _swatch(name: str) -> Html:
    return swatch(_COLOURS[name], "/" if name == _RESERVED else "", is_hollow=name == _RESERVED)


def _chart(
    run: Run,
    found: Mapping[str, Starts],
    by_start: Mapping[str, Mapping[int, float]],
    needed: Mapping[str, Aggregate],
) -> Chart:
    bars = {name: _pieces(each) for name, each in found.items()}
    traces = [_bar(piece, bars) for piece in _COLOURS if any(bar[piece] > 0 for bar in bars.values())]
    first = _smallest(run, found, by_start)
    finding = first and _finding(first, needed[first])
    quantity = "Memory needed and held at its highest, GiB"
    rows = [
        Row(
            [
                name,
                *(gib(bars[name][piece]) for piece in _COLOURS),
                gib(needed[name].mean),
                span_text(_AS, needed[name]) or "one start",
            ],
            Of(name),
        )
        for name in found
    ]
    return Chart(
        "memory-needed",
        finding or quantity,
        traces,
        _layout(found, needed),
        ["deployment", *_COLOURS, "needed GiB", "over starts"],
        rows,
        height_px=80 + _ROW_PX * len(found),
        quantity=quantity if finding else "",
    )


def _pieces(found: Starts) -> dict[str, float]:
    """Bytes by piece; they add up to what was held."""
    weights, kv_cache = mean_size(found, WEIGHTS), mean_size(found, KV_CACHE)
    used = mean([a.kv_needed_bytes for a in found]) or 0.0
    rest = mean_total(found) - weights - kv_cache
    return {"weights": weights, _NEEDED: used, _REST: max(rest, 0.0), _RESERVED: max(kv_cache - used, 0.0)}


def _smallest(
    run: Run, found: Mapping[str, Starts], by_start: Mapping[str, Mapping[int, float]]
) -> str | None:
    """The one that is proven to need less than every other, by verdicts on all pairs as those of
    the decision's smallest; None too where the deployments do not compare or one of them is not known."""
    if len(by_start) < len(run.deployments) or work_of(run).unlike:
        return None
    if len({deployment.model for deployment in run.deployments.values()}) > 1:
        return None
    if len({each.is_host for starts in found.values() for each in starts}) > 1:
        return None
    return leader(list(by_start), by_pairs(run, by_start, None))


def _finding(first: str, needed: Aggregate) -> str:
    return f"{first} needs the least memory: {gib(needed.mean)} GiB {span_text(_AS, needed)}"


def _bar(piece: str, bars: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    colour = _COLOURS[piece]
    pattern = {"shape": ""}
    if piece == _RESERVED:  # lines alone: it is not needed
        pattern = {"shape": "/", "fillmode": "replace", "fgcolor": colour, "bgcolor": "--card"}
    trace = {
        "type": "bar", "orientation": "h", "name": piece, "y": [label(name) for name in bars],
        "x": [round(each[piece] * GIB, 4) for each in bars.values()], "width": _BAR,
        "marker": {"color": colour, "line": {"color": "--card", "width": 1},
                   "pattern": pattern | {"size": 7, "solidity": 0.2}},
        "hovertemplate": "%{y}<br>%{fullData.name}: %{x:.2f} GiB<extra></extra>",
    }  # fmt: skip
    return about(trace, points=[Of(name) for name in bars])


def _layout(found: Mapping[str, Starts], needed: Mapping[str, Aggregate]) -> dict[str, Any]:
    """Names and figures stand above their bars: beside them they would leave a narrow screen no room."""
    top = max(mean_total(each) for each in found.values()) * GIB
    return {
        "xaxis": axis("GiB", range=[0, 1.02 * top]),
        "yaxis": {"autorange": "reversed", "type": "category", "title": {"text": ""}, "showticklabels": False,
                  "showgrid": False, "automargin": False},
        "margin": {"l": 4, "r": 4, "t": 10, "b": 8},
        "annotations": [_above(name, each, needed[name]) for name, each in found.items()],
        "barmode": "stack",
    }  # fmt: skip


def _above(name: str, found: Starts, needed: Aggregate) -> dict[str, Any]:
    text = f"<b>{label(name)}</b> needs {gib(needed.mean)} of {gib(mean_total(found))}"
    return {
        "xref": "paper", "x": 0, "xanchor": "left", "y": label(name), "yshift": 20, "showarrow": False,
        "text": text, "font": {"size": 11.5}, "of": Of(name).to_builtins(),
    }  # fmt: skip
