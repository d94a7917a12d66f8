"""What each server's memory is made of: a bar per deployment, the bytes with their sources, the KV cache that
was needed beside the one reserved, memory at each stage, and what `bench fit` expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from reports.anatomy import (
    GRAPHS,
    KV_CACHE,
    PARTS,
    PROGRAM,
    REST,
    STAGES,
    WEIGHTS,
    WORKSPACE,
    Anatomy,
    Part,
    anatomies,
    expectations,
    mean,
    mean_part,
)
from reports.charts import Chart, Section, axis, figure, label
from reports.frames import Run
from reports.looks import looks, named
from reports.markup import NOTHING, Html, join, number, paragraph, several, table, tag

_GIB = 2.0**-30
_TITLES = {
    WEIGHTS: "weights",
    KV_CACHE: "KV cache",
    GRAPHS: "graphs",
    WORKSPACE: "workspace",
    PROGRAM: "program",
    REST: "the rest",
}
# A bar's pieces in order: title, colour and pattern.
_RESERVED = "KV cache reserved, not needed"
_PIECES = {
    "weights": ("--s-1", ""),
    "KV cache needed": ("--s-2", "/"),
    "KV cache": ("--s-2", "/"),
    "graphs and workspace": ("--s-3", ""),
    "program": ("--s-4", "\\"),
    "other parts": ("--s-5", "-"),
    "the rest": ("--s-5", ""),
    _RESERVED: ("--mut", "/"),
}
_ROW_PX = 48
_BAR = 0.34
# Of what a server holds: less is not worth a title.
_MUCH_SHARE = 0.1
_Starts = Sequence[Anatomy]


def section(run: Run) -> Section | None:
    """None where of no server's memory any part is known."""
    found = anatomies(run)
    if all(set(a.parts) == {REST} for each in found.values() for a in each):
        return None
    names = looks(run)
    # What is marked is said of the work that was done, not of memory.
    shown = {name: named(replace(names[name], marks=())) for name in found}
    chart = _chart(found)
    parts = [
        paragraph(_measured(found)),
        _key(chart),
        figure(chart),
        tag("h3", "The parts and where they are known from"),
        paragraph(_SOURCES),
        _parts_table(found, shown),
        *_kv_parts(found, shown),
        tag("h3", "Memory at each stage"),
        paragraph(_stages_note(found)),
        _stages_table(found, shown),
        *_expected_parts(found, shown),
    ]
    return Section(_title(found), join(parts), [chart])


def _title(found: Mapping[str, _Starts]) -> str:
    """What one deployment holds and does not need, where that is much; else what all are mostly made of."""
    sizes = {name: (_total(each), mean([a.needed_bytes for a in each])) for name, each in found.items()}
    above = {name: total - needed for name, (total, needed) in sizes.items() if needed is not None}
    if above:
        most = max(above, key=lambda name: above[name])
        total, needed = sizes[most]
        if needed is not None and above[most] > _MUCH_SHARE * total:
            return f"{most} holds {_gib(total)} GiB and needs {_gib(needed)}"
    largest = {max(PARTS, key=lambda part: _size(each, part)) for each in found.values()}
    if len(largest) == 1 and (part := largest.pop()) != REST:
        whose = "each server's" if len(found) > 1 else "the server's"
        verb = "is" if part in (KV_CACHE, PROGRAM, WORKSPACE) else "are"
        title = _TITLES[part]
        return f"{title[:1].upper()}{title[1:]} {verb} the largest part of {whose} memory"
    return "What the servers' memory is made of"


def _total(found: _Starts) -> float:
    return sum(each.total_bytes for each in found) / len(found)


def _size(found: _Starts, name: str) -> float:
    part = mean_part(found, name)
    return part.size_bytes if part else 0.0


def _gib(size_bytes: float | None, digits: int = 2) -> str:
    return number(None if size_bytes is None else size_bytes * _GIB, digits)


def _measured(found: Mapping[str, _Starts]) -> str:
    whats = several([a.what for each in found.values() for a in each], "; ")
    starts = sum(map(len, found.values()))
    return (
        f"Measured: {whats}. GiB at its highest, means over the starts of each deployment ({starts} in all). "
        "Needed: with the KV cache that the requests held at once instead of the one that the server "
        "reserved by its settings."
    )


# --- the chart -------------------------------------------------------------------------------------


def _pieces(found: _Starts) -> dict[str, float]:
    """A bar: bytes by piece; they add up to the total."""
    kv, needed = _size(found, KV_CACHE), mean([a.kv_needed_bytes for a in found])
    is_split = needed is not None
    pieces = {
        "weights": _size(found, WEIGHTS),
        "KV cache needed" if is_split else "KV cache": needed if needed is not None else kv,
        "graphs and workspace": _size(found, GRAPHS) + _size(found, WORKSPACE),
        "program": _size(found, PROGRAM),
        "other parts": sum(_size(found, name) for name in _others({"": found})),
        "the rest": _size(found, REST),
        _RESERVED: kv - needed if needed is not None else 0.0,
    }
    return {name: size for name, size in pieces.items() if size > 0}


def _others(found: Mapping[str, _Starts]) -> list[str]:
    """Parts that a server has a name of its own for."""
    names = dict.fromkeys(name for each in found.values() for a in each for name in a.parts)
    return [name for name in names if name not in PARTS]


def _part_title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " ").replace("kv ", "KV "))


def _key(chart: Chart) -> Html:
    drawn = [trace["name"] for trace in chart.traces if trace["type"] == "bar"]
    swatches = []
    for name in drawn:
        colour, pattern = _PIECES[name]
        class_ = "swatch hollow" if name == _RESERVED else "swatch striped" if pattern else "swatch"
        swatches.append(tag("span", tag("i", class_=class_, style=f"--fill:var({colour})"), name))
    return tag("p", *swatches, class_="key")


def _chart(found: Mapping[str, _Starts]) -> Chart:
    bars = {name: _pieces(each) for name, each in found.items()}
    traces = [_bar(piece, bars) for piece in _PIECES if any(piece in each for each in bars.values())]
    top = max(a.total_bytes for each in found.values() for a in each) * _GIB
    ticks = [(label(name), a.total_bytes * _GIB) for name, each in found.items() for a in each]
    starts = {
        "type": "scatter", "mode": "markers", "hovertemplate": "a start: %{x:.2f} GiB<extra></extra>",
        "y": [name for name, _ in ticks], "x": [round(x, 4) for _, x in ticks], "cliponaxis": False,
        "marker": {"color": "--fg", "symbol": "line-ns-open", "size": 14, "line": {"width": 2}},
    }  # fmt: skip
    columns = ["deployment", *(piece for piece in _PIECES if any(piece in each for each in bars.values()))]
    rows = [[name, *(_gib(each.get(piece), 3) for piece in columns[1:])] for name, each in bars.items()]
    return Chart(
        "anatomy",
        "Memory at its highest, by what it is for",
        [*traces, starts],
        _layout(found, top),
        columns,
        rows,
        "A tick is one start.",
        height_px=80 + _ROW_PX * len(found),
    )


def _bar(piece: str, bars: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    colour, shape = _PIECES[piece]
    pattern = {"shape": shape, "fillmode": "overlay", "fgcolor": "--card", "size": 7, "solidity": 0.2}
    if piece == _RESERVED:  # lines alone: it is not needed
        pattern |= {"fillmode": "replace", "fgcolor": colour, "bgcolor": "--card"}
    return {
        "type": "bar", "orientation": "h", "name": label(piece), "y": [label(name) for name in bars],
        "x": [round(each.get(piece, 0.0) * _GIB, 4) for each in bars.values()], "width": _BAR,
        "marker": {"color": colour, "line": {"color": "--card", "width": 1}, "pattern": pattern},
        "hovertemplate": "%{fullData.name}: %{x:.2f} GiB<extra></extra>",
    }  # fmt: skip


def _layout(found: Mapping[str, _Starts], top: float) -> dict[str, Any]:
    """Names and totals stand above their bars: beside them they would leave a narrow screen no room."""
    above = [
        {"xref": "paper", "x": 0, "xanchor": "left", "y": label(name), "yshift": 20,
         "showarrow": False, "text": f"{label(name)}: {_totals(each)}", "font": {"size": 11.5}}
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


def _totals(found: _Starts) -> str:
    needed = mean([a.needed_bytes for a in found])
    return _gib(_total(found)) if needed is None else f"{_gib(_total(found))}, needed {_gib(needed)}"


# --- tables ----------------------------------------------------------------------------------------

_SOURCES = (
    "GiB. Said: by the server, in its log or on its pages. Measured step: what the memory grew by between "
    "two stages of the start; program is what was there when the weights began to be read, workspace (said "
    "or not) what was taken by the first answers beyond all other parts. Reckoned: from the weights' files "
    "or the model's shape. The rest is growth under load, which nothing explains."
)


def _parts_table(found: Mapping[str, _Starts], shown: Mapping[str, Html]) -> Html:
    others = _others(found)
    names = [name for name in (*PARTS[:-1], *others, REST) if any(mean_part(e, name) for e in found.values())]
    columns = ["deployment", *map(_part_title, names), "total", "needed", "all but the rest"]
    rows: list[Sequence[Html | str]] = []
    for name, each in found.items():
        explained = 1.0 - _size(each, REST) / _total(each)
        rows.append(
            [
                shown[name],
                *(_part_cell(mean_part(each, part), is_host=each[0].is_host) for part in names),
                join([_gib(_total(each), 3), _range([a.total_bytes for a in each])]),
                _gib(mean([a.needed_bytes for a in each]), 3),
                f"{100 * explained:.1f} %",
            ]
        )
    return table(columns, rows, "plain anatomy")


def _part_cell(part: Part | None, *, is_host: bool) -> Html | str:
    if part is None:
        return tag("span", NOTHING, class_="none")
    said = [_below(source, size, len(part.sources)) for source, size in part.sources.items()]
    if part.cut_bytes * _GIB >= 0.0005:
        word = "reserved, not yet touched" if is_host else "said, but not measured"
        said.append(tag("span", f"+ {_gib(part.cut_bytes, 3)} {word}", class_="range"))
    return join([_gib(part.size_bytes, 3), *said])


def _below(source: str, size: float, count: int) -> Html:
    return tag("span", source if count == 1 else f"{source} {_gib(size, 3)}", class_="range")


def _range(sizes: Sequence[float]) -> Html | str:
    low, high = _gib(min(sizes), 3), _gib(max(sizes), 3)
    return "" if low == high else tag("span", f"{low}–{high}", class_="range")


def _kv_parts(found: Mapping[str, _Starts], shown: Mapping[str, Html]) -> list[Html]:
    """The KV cache: reserved, needed, and how far it goes. Nothing where no server has a pool."""
    rows: list[Sequence[Html | str]] = []
    for name, each in found.items():
        pool = each[0].kv.pool
        if pool.tokens is None and pool.size_bytes is None:
            continue
        need = max((a.kv for a in each), key=lambda kv: kv.peak_tokens or 0.0)
        used = [a.kv.used_share for a in each if a.kv.used_share is not None]
        longest = max(
            (a.kv.conversations for a in each if a.kv.conversations), key=lambda c: c.n, default=None
        )
        users = [a.kv.users for a in each if a.kv.users is not None]
        rows.append(
            [
                shown[name],
                _gib(pool.size_bytes, 3),
                number(pool.tokens, 0),
                _of_two(pool.per_token_bytes, pool.reckoned_per_token_bytes, 1 / 1024, 1),
                _of_two(_per_gib(pool.per_token_bytes), _per_gib(pool.reckoned_per_token_bytes), 1.0, 0),
                _with_note(number(need.peak_tokens, 0), need.peak_load),
                _gib(need.needed_bytes, 3),
                number(100 * max(used), 1) if used else NOTHING,
                _with_note(number(longest.tokens, 0), _which(longest.n, longest.is_largest))
                if longest
                else "–",
                f"{min(users):,}" if users else NOTHING,
            ]
        )
    if not rows:
        return []
    columns = [
        "deployment", "reserved GiB", "reserved tokens", "KiB per token", "tokens per GiB",
        "most tokens in flight", "needed GiB", "most in use % (server)", "longest conversation",
        "users that fit",
    ]  # fmt: skip
    note = paragraph(
        "Reserved: the pool as the server says. Per token: of the pool, and in grey of one more token by the "
        "model's shape (no sliding window is full). In flight: prompt and answer so far of all requests at "
        "once, the most in any window; a prefix that requests share counts for each, so this is the most "
        "that can have been needed. Users that fit: reserved tokens / the longest conversation of this "
        "scenario."
    )
    return [tag("h3", "KV cache: reserved and needed"), note, table(columns, rows, "plain anatomy")]


def _per_gib(per_token_bytes: float | None) -> float | None:
    return 2**30 / per_token_bytes if per_token_bytes else None


def _of_two(first: float | None, second: float | None, scale: float, digits: int) -> Html:
    shown = [None if value is None else value * scale for value in (first, second)]
    return _with_note(number(shown[0], digits), None if shown[1] is None else number(shown[1], digits))


def _with_note(main: str, note: str | None) -> Html:
    return join([main, tag("span", note, class_="range") if note else ""])


def _which(n: int, is_largest: bool) -> str:
    return f"the largest of {n:,}" if is_largest else f"p95 of {n:,}"


def _stages_note(found: Mapping[str, _Starts]) -> str:
    each = [a for starts in found.values() for a in starts]
    whose = "machine" if all(a.is_host for a in each) else "device"
    return (
        f"GiB, means over starts. Before: all that was in use of the {whose} before the start; it is in no "
        "other column. First answers: after the first generations. Then after each load, the highest, and "
        f"what the {whose} had in use more than before once the server had stopped. A start's stages are "
        "seen up to 20 ms late, plus the time that reading takes."
    )


def _stages_table(found: Mapping[str, _Starts], shown: Mapping[str, Html]) -> Html:
    stages = [name for name in STAGES if any(name in a.stages for each in found.values() for a in each)]
    loads = list(dict.fromkeys(load for each in found.values() for a in each for load in a.cells))
    columns = [
        "deployment",
        "before",
        *(STAGES[name] for name in stages),
        *(f"after {load}".replace(" u", "\u00a0u") for load in loads),
        "highest",
        "left after the stop",
    ]
    rows: list[Sequence[Html | str]] = [
        [
            shown[name],
            _gib(mean([a.before_bytes for a in each]), 3),
            *(_gib(mean([a.stages.get(stage) for a in each]), 3) for stage in stages),
            *(_gib(mean([a.cells.get(load) for a in each]), 3) for load in loads),
            _gib(_total(each), 3),
            _gib(mean([a.left_bytes for a in each]), 3),
        ]
        for name, each in found.items()
    ]
    return table(columns, rows, "plain anatomy")


def _expected_parts(found: Mapping[str, _Starts], shown: Mapping[str, Html]) -> list[Html]:
    """What `bench fit` reckons beside what was measured; nothing where it reckoned nothing."""
    rows: list[Sequence[Html | str]] = [
        [
            shown[name],
            each.part,
            _gib(each.expected_bytes, 3),
            _gib(each.measured_bytes, 3),
            f"{100 * each.error_share:+.1f} %",
            each.source,
        ]
        for name, starts in found.items()
        for each in expectations(starts)
    ]
    if not rows:
        return []
    note = paragraph(
        "GiB. Expected: what bench fit reckons from the model's shape alone, before anything is started. "
        "Error: expected / measured - 1. The total has what it assumes for all else, the program included."
    )
    columns = ["deployment", "part", "expected", "measured", "error", "measured by"]
    return [tag("h3", "Expected by bench fit"), note, table(columns, rows, "plain")]
