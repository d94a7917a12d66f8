"""The parts of a section: charts as plain data for plotly.js, and markup between them.

A colour is the name of a style variable (`--c-blue`), which theme.js resolves. Text from outside is escaped,
because plotly reads labels as HTML. Knows no run.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving_bench.reports.page.looks import ALL, Head, Html, Look, Of, Row, escaped, join, macro, table, tag

HEIGHT_PX = 300
# With fewer ticks, a reader cannot tell how far apart values are.
_FEWEST_TICKS = 3
# The lowest value that a log axis shows, as a share of the highest.
_LEAST = 1e-6
# The style sheet's class of each pattern of a bar.
_PATTERNS = {"": "", "/": "slash", ".": "dots", "|": "bars", "-": "dashes", "x": "crosses"}
# By start, from 1: the y values, and the n of each in words.
ByStart = Mapping[int, tuple[Sequence[float | None], Sequence[str]]]
# Ticks within a decade, sparsest first.
_STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))


@dataclass(frozen=True)
class Chart:
    """One drawing with its title, its note and its table.

    `what` says what is drawn; `finding` says what it shows, if the intervals support that. When the filters
    leave only a part, the title is `what`, since a finding is about the whole. `names_ends`: each line's
    deployment is written where the line ends. The layout may set a height, and its annotations and shapes may
    say for the filters what they are about, as `of`.
    """

    id: str
    what: str
    traces: Sequence[dict[str, Any]]
    layout: dict[str, Any]
    columns: Sequence[Head | Html | str]
    rows: Sequence[Row | Sequence[Html | str]]
    note: str = ""
    finding: str | None = None
    of: Of = ALL
    names_ends: bool = False
    is_wide: bool = False

    @property
    def title(self) -> str:
        return self.finding or self.what

    @property
    def key(self) -> list[tuple[Html, str, str, str]]:
        """Return the swatches of the bars: name, colour, the class of the pattern, and its ink."""
        bars = [(bar["name"], bar["marker"]) for bar in self.traces if bar["type"] == "bar"]
        return [
            (Html(name), drawn["color"], _PATTERNS[drawn["pattern"]["shape"]], drawn["pattern"]["fgcolor"])
            for name, drawn in bars
        ]

    def to_builtins(self) -> dict[str, Any]:
        return {
            "traces": list(self.traces),
            "layout": {"height": HEIGHT_PX, **self.layout},
            "names_ends": self.names_ends,
            **({"title": self.title, "quantity": self.what} if self.finding else {}),
        }


# A chart, or markup.
Part = Chart | Html


@dataclass(frozen=True)
class Section:
    """A topic as data: its heading, what it says first, how to read it (folded), and its parts.

    One without parts is not shown.
    """

    title: str
    claim: str
    how: str
    parts: Sequence[Part]

    @property
    def body(self) -> Html:
        return macro("part", self.claim, self.how, rendered(self.parts))

    @property
    def charts(self) -> list[Chart]:
        return [part for part in self.parts if isinstance(part, Chart)]


def block(title: str, parts: Iterable[Part], of: Of = ALL, *, is_folded: bool = False) -> list[Part]:
    """Return parts below a heading of their own, or folded behind it."""
    return [macro("block", title, of, is_folded), *parts, macro("block_end", is_folded)]


def rendered(parts: Iterable[Part]) -> Html:
    """Return the markup of parts. Adjacent charts stand side by side if there is room."""
    blocks: list[Html] = []
    for is_charts, run_of_parts in itertools.groupby(parts, lambda part: isinstance(part, Chart)):
        figures = [figure(part) if isinstance(part, Chart) else part for part in run_of_parts]
        blocks += [tag("div", *figures, class_="grid")] if is_charts else figures
    return join(blocks)


def figure(chart: Chart) -> Html:
    """Return a chart's place on the page, with its title, note and table."""
    load = chart.of.load
    # Charts at several loads may have the same title.
    name = f"{chart.title}, {load}" if load and load not in chart.title else chart.title
    return macro("figure", chart, table(chart.columns, chart.rows, "plain", name))


# --- traces ----------------------------------------------------------------------------------------


def line(
    look: Look,
    x: Sequence[float],
    y: Sequence[float | None],
    of: Of | None = None,
    *,
    points: Sequence[Of] = (),
    by_start: ByStart | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a deployment's line; the rest as in `about`. `of`: by default, all of the deployment."""
    drawn = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escaped(look.label),
        "x": list(x),
        "y": list(y),
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 8},
        "hovertemplate": "%{fullData.name}<br>%{x}: %{y:.4~g}<extra></extra>",
    }
    return about(drawn | more, of or Of(look.label), points=points, by_start=by_start)


def about(
    trace: dict[str, Any], of: Of = ALL, *, points: Sequence[Of] = (), by_start: ByStart | None = None
) -> dict[str, Any]:
    """Return a trace that the page's filters understand.

    `of` is what the whole trace is about, `points` what each of its points is about. `by_start` has what to
    draw when one start is chosen; without it the trace keeps its y, and the page says that it is over all
    starts.
    """
    meta: dict[str, Any] = {"of": of.to_builtins()}
    if points:
        meta["points"] = [point.to_builtins() for point in points]
    if by_start:
        meta |= {
            "by_start": {str(start): list(y) for start, (y, _) in by_start.items()},
            "n_by_start": {str(start): list(n) for start, (_, n) in by_start.items()},
        }
    return {**trace, "meta": meta}


def downsample(x: np.ndarray, y: np.ndarray, at_most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `at_most` points; each stretch of the line keeps its lowest and highest y."""
    if len(x) <= at_most:
        return x, y
    stretches = np.array_split(np.arange(len(x)), at_most // 2 - 1)
    lows_and_highs = [each[[y[each].argmin(), y[each].argmax()]] for each in stretches]
    kept = np.unique(np.concatenate([[0, len(x) - 1], *lows_and_highs]))
    return x[kept], y[kept]


def significant(value: float, digits: int = 5) -> float:
    """Return a number rounded to `digits` significant digits, which keeps the page small."""
    return float(f"{value:.{digits}g}")


# --- axes ------------------------------------------------------------------------------------------


def axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, **more}


def log_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """Return a log axis a little wider than `low` to `high`, so that no line lies on the frame."""
    high = max(high, _LEAST)
    low = max(low, _LEAST * high)
    edge = max(math.pow(high / low, 0.03), 1.02)
    ends = low / edge, high * edge
    return axis(
        f"{title} (log scale)", type="log", range=[math.log10(end) for end in ends], **log_ticks(*ends)
    )


def log_ticks(low: float, high: float) -> dict[str, Any]:
    """Return at least three round ticks between two different ends, few enough that labels do not touch."""
    decades = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    candidates = (
        [v for v in np.outer(decades, steps).flatten().tolist() if low <= v <= high] for steps in _STEPS
    )
    ticks = next((each for each in candidates if len(each) >= _FEWEST_TICKS), [])
    if not ticks:
        widest = (high - low) / _FEWEST_TICKS
        decade = 10.0 ** math.floor(math.log10(widest))
        step = max(factor * decade for factor in (1, 2, 5) if factor * decade <= widest)
        ticks = [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return {"tickvals": ticks, "ticktext": [f"{tick:,.8g}" for tick in ticks]}
