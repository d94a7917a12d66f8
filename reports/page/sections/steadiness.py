"""Whether each window was steady: requests in flight and throughput over it, a row per cell."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures.values import measured_of
from reports.measures.written import number, plural
from reports.page.charts import Section
from reports.page.looks import Look, looks, named
from reports.page.markup import Html, Of, Row, join, long_table, note, paragraph, tag
from reports.stats.steadiness import (
    DRIFT_ERRORS,
    DRIFT_SHARE,
    GROWTH,
    PARTS,
    REQUESTS_NEEDED,
    Series,
    Steadiness,
)

_COLUMNS = (
    "deployment", "load", "window", "start", "requests in flight", "first, last third", "output tokens/s",
    "first, last third", "drift", "requests",
)  # fmt: skip
_NOTE = note(
    f"Each window in {PARTS} equal parts, drawn from zero; beside it the means of its first and last third. "
    "It is a check: the window was fixed before the run.",
    f"Drift: of the output, last third against first. Not steady: output or requests in "
    f"flight drift by more than {100 * DRIFT_SHARE:.0f} % and by more than "
    f"{DRIFT_ERRORS:.0f} standard errors (from how the parts vary within their thirds, or from random "
    f"arrivals), from {REQUESTS_NEEDED} requests up. The queue only grew, in open loop: requests in flight "
    f"rise by {100 * (GROWTH - 1):.0f} % or more, part by part, once the first answers are over (until then "
    "an open loop fills up).",
)
_WIDTH, _HEIGHT = 104, 26


def section(run: Run) -> Section | None:
    """None where no cell has a window."""
    windows = [
        (cell, found)
        for group in run.groups
        for cell in group.cells
        if cell.number in measured_of(run) and (found := measured_of(run)[cell.number].steadiness)
    ]
    if not windows:
        return None
    counts = Counter(_verdict(cell, found)[0] for cell, found in windows)
    said = ", ".join(f"{n} {word}" for word, n in counts.most_common())
    rows = [_row(cell, looks(run)[cell.label], found) for cell, found in windows]
    whole = long_table(_COLUMNS, rows, "plain client", "Steadiness")
    body = join([paragraph(f"{plural(len(rows), 'window')}: {said}."), _NOTE, whole])
    return Section("Steadiness of the windows", body)


def _row(cell: Cell, look: Look, found: Steadiness) -> Row:
    verdict, class_ = _verdict(cell, found)
    cells: Sequence[Html | str] = [
        named(look),
        cell.load_label,
        tag("span", verdict, class_=class_),
        str(cell.planned.repeat + 1),
        _sparkline(found.in_flight, look, "requests in flight"),
        _thirds(found.in_flight),
        _sparkline(found.throughput, look, found.unit),
        _thirds(found.throughput) + ("" if found.tokens else f" {found.unit}"),
        f"{round(100 * found.throughput.drift) or 0:+d} %",
        f"{found.requests:,}",
    ]
    return Row(cells, Of(cell.label, cell.load_label, start=cell.planned.repeat + 1))


def _thirds(series: Series) -> str:
    first, _, last = series.thirds
    return f"{number(first)}, {number(last)}"


def _verdict(cell: Cell, found: Steadiness) -> tuple[str, str]:
    """In words, and the class that colours them."""
    if cell.load.kind == "open" and found.is_growing:
        return "queue grew", "bad"
    if cell.load.kind == "trace":
        return "as its trace", ""
    if not found.is_judged:
        return "few requests", ""
    return ("not steady", "warn") if found.drifts else ("steady", "")


def _sparkline(series: Series, look: Look, what: str) -> Html:
    """Steps over the window, from zero to its highest part."""
    top = float(series.parts.max()) or 1.0
    heights = _HEIGHT - 2 - (_HEIGHT - 4) * np.clip(series.parts, 0, None) / top
    xs = np.linspace(0, _WIDTH, PARTS + 1)
    points = " ".join(
        f"{left:.0f},{y:.1f} {right:.0f},{y:.1f}" for left, right, y in zip(xs, xs[1:], heights, strict=False)
    )
    said = f"{what} over the window, {number(float(series.parts.min()))} to {number(top)}"
    return Html(
        f'<svg class="spark" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="{said}"><title>{said}</title><line x1="0" x2="{_WIDTH}" y1="{_HEIGHT - 1}" '
        f'y2="{_HEIGHT - 1}"/><polyline points="{points}" style="stroke:var({look.colour})"/></svg>'
    )
