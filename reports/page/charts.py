"""Charts as plain data for plotly.js: one idea each, drawn by the page in its theme's colours.

A colour is the name of a style variable (`--c-blue`), which theme.js resolves. Text from outside is escaped:
plotly reads labels as HTML. Knows no run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reports.page.looks import Look
from reports.page.markup import ALL, Html, Of, Row, details, escaped, paragraph, table, tag


@dataclass(frozen=True)
class Chart:
    """`title`: its finding, where the intervals support one, with `quantity` below it; else what is drawn.
    While filters leave only a part, or values of one start or turn, `quantity` alone is the title: a finding
    is of all. `columns` and `rows` are its table view; `note` says how to read it. `of`: what all of it is
    about. `names_ends`: each line's deployment stands where it ends, where there is room. `has_baseline`: of
    a deployment that is isolated the others stay, dimmed. An annotation or shape of the layout may say what
    it is about as `of` (Of.to_builtins), for the filters."""

    id: str
    title: str
    traces: Sequence[dict[str, Any]]
    layout: dict[str, Any]
    columns: Sequence[str]
    rows: Sequence[Row | Sequence[Html | str]]
    note: str = ""
    height_px: int = 300
    quantity: str = ""
    of: Of = ALL
    names_ends: bool = False
    has_baseline: bool = False

    def to_builtins(self) -> dict[str, Any]:
        """What the page's script draws."""
        return {
            "traces": list(self.traces),
            "layout": {"height": self.height_px, **self.layout},
            "names_ends": self.names_ends,
            "has_baseline": self.has_baseline,
            **({"title": self.title, "quantity": self.quantity} if self.quantity else {}),
        }


@dataclass(frozen=True)
class Section:
    """A part of the page: its heading, its markup and the charts that the markup places."""

    title: str
    body: Html
    charts: Sequence[Chart] = field(default_factory=tuple)


def figure(chart: Chart) -> Html:
    """The place of a chart, with its title, note and table view."""
    place = tag(
        "div",
        class_="chart",
        data_chart=chart.id,
        role="img",
        aria_label=f"{chart.title}; data in the table below",
        style=f"--tall:{chart.height_px}px",
    )
    note = [paragraph(chart.note)] if chart.note else []
    view = details("Table", table(chart.columns, chart.rows, "plain", _table_name(chart)))
    quantity = [paragraph(chart.quantity, "quantity")] if chart.quantity else []
    title = tag("figcaption", chart.title)
    return tag("figure", title, *quantity, place, *note, view, id=f"chart-{chart.id}", **chart.of.attributes)


def _table_name(chart: Chart) -> str:
    """Its title, with the load, since one may be found at several."""
    load = chart.of.load
    return f"{chart.title}, {load}" if load and load not in chart.title else chart.title


def grid(charts: Sequence[Chart]) -> Html:
    """Charts side by side where there is room."""
    return tag("div", *(figure(chart) for chart in charts), class_="grid")


def label(value: str) -> str:
    """Text for plotly, which reads labels as HTML."""
    return escaped(value)


def axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, **more}


@dataclass(frozen=True)
class Alone:
    """What a trace has where the reader asks for one start or one turn: its y, and the n of each in words for
    the hover (a single one: of all alike)."""

    y: Sequence[float | None]
    n: Sequence[str]


def about(
    trace: dict[str, Any],
    of: Of = ALL,
    *,
    points: Sequence[Of] = (),
    by_start: Mapping[int, Alone] | None = None,
    by_turn: Mapping[int, Alone] | None = None,
) -> dict[str, Any]:
    """A trace for the page's filters. `of`: what all of it is about; `points`: what each of its points is.
    `by_start`, `by_turn`: what is drawn of one start or one turn (from 1), which has no error bars;
    a trace without them keeps its y, and the page says that it is of all starts or turns."""
    meta: dict[str, Any] = {"of": of.to_builtins()}
    if points:
        meta["points"] = [point.to_builtins() for point in points]
    for name, given in (("by_start", by_start), ("by_turn", by_turn)):
        if given:
            meta[name] = {str(key): list(alone.y) for key, alone in given.items()}
            meta[f"n_{name}"] = {str(key): _shortest(alone.n) for key, alone in given.items()}
    return {**trace, "meta": meta}


def _shortest(ns: Sequence[str]) -> list[str]:
    return list(ns[:1] if len(set(ns)) == 1 else ns)


def line(look: Look, x: Sequence[float], y: Sequence[float | None], **more: Any) -> dict[str, Any]:
    """A line with markers in the deployment's look."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label(look.label),
        "x": list(x),
        "y": list(y),
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 8},
        "hovertemplate": "%{fullData.name}<br>%{x}: %{y:.4~g}<extra></extra>",
        **more,
    }


# Plotly takes null for 0 and draws its ends, as if the value were certain; what is no number it leaves out.
NO_BAR = "none"


def spread(means: Sequence[float | None], lows: Sequence[float | None], highs: Sequence[float | None]) -> Any:
    """Error bars from each low to each high end; none where they are None."""

    def gap(a: float | None, b: float | None) -> float | str:
        return abs(a - b) if a is not None and b is not None else NO_BAR

    return {
        "type": "data",
        "symmetric": False,
        "array": [gap(high, mean) for high, mean in zip(highs, means, strict=True)],
        "arrayminus": [gap(low, mean) for low, mean in zip(lows, means, strict=True)],
        "thickness": 1,
        "width": 4,
    }
