"""Charts of a run as PNG and SVG files that stand alone: title, names of the lines and note inside.

The page draws them as it always does, in a Chromium without a window; picture.js puts a frame around.
"""

import base64
import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from harness.errors import UserError
from reports.data.run import Run
from reports.outputs.asked import ALL, Format, Theme
from reports.outputs.chromium import blank_page
from reports.page.document import document
from reports.page.drawing.charts import Chart, figure
from reports.page.markup import Html
from reports.page.sections import SECTIONS, sections_of
from reports.words.described import question

NO_CHARTS = "no charts: no cell has a value"
# Pixels of a PNG for each of CSS.
SCALE = 2
# Of a busy machine with one core; it takes 3 s and 0.1 s elsewhere.
_BEGIN_S, _EACH_S = 120.0, 5.0


@dataclass(frozen=True)
class Placed:
    """A chart and the name of its section."""

    chart: Chart
    section: str


def charts_of(run: Run) -> dict[str, Placed]:
    """Return all charts of the page by their ids, in its order."""
    return {
        chart.id: Placed(chart, SECTIONS[name][0])
        for name, parts in sections_of(run).items()
        for made in parts.values()
        for chart in made.charts
    }


def chosen(run: Run, name: str) -> list[Placed]:
    """Return the chart of that id, or all of them. Raises UserError where there is none."""
    charts = charts_of(run)
    if not charts:
        raise UserError(f"--chart {name}: {NO_CHARTS}")
    if name == ALL:
        return list(charts.values())
    if name in charts:
        return [charts[name]]
    near = difflib.get_close_matches(name, charts, n=5, cutoff=0.6)
    said = f"nearest: {', '.join(near)} (all of them: --charts)" if near else "--charts lists the ids"
    raise UserError(f"--chart {name}: no such chart; {said}")


def pictures(
    run: Run,
    charts: Sequence[Placed],
    format_: Format,
    theme: Theme = "light",
    width_px: int = 900,
    height_px: int | None = None,
) -> Iterator[tuple[str, bytes]]:
    """Yield each chart's id with its file's contents. `height_px`: None is as the chart's on the page wants.

    Raises MissingError without a Chromium, BenchError where it fails.
    """
    script = resources.files("reports.outputs").joinpath("picture.js").read_text(encoding="utf-8")
    size = {"format": format_, "width": width_px, "height": height_px or 0, "scale": SCALE}
    with blank_page(_BEGIN_S + _EACH_S * len(charts)) as page:
        screen = {"width": width_px, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.ask("Emulation.setDeviceMetricsOverride", **screen)
        page.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        frame = page.ask("Page.getFrameTree")["frameTree"]["frame"]["id"]
        whole = _document(run, [each.chart for each in charts], width_px)
        page.ask("Page.setDocumentContent", frameId=frame, html=whole)
        for each in charts:
            chart = each.chart
            said = {
                "id": chart.id,
                "title": chart.title,
                "quantity": chart.what if chart.finding else "",
                "note": chart.note,
            }
            wanted = {**said, "foot": _foot(run, each), **size}
            drawn: str = page.evaluate(f"({script.strip()})({json.dumps(wanted)})")
            yield chart.id, base64.b64decode(drawn) if format_ == "png" else drawn.encode()


def _document(run: Run, charts: Sequence[Chart], width_px: int) -> str:
    """Return a page of these charts alone, each as wide as its picture."""
    figures = "".join(figure(chart).text for chart in charts)
    return document(question(run), Html(f'<div style="width:{width_px - 32}px">{figures}</div>'), charts)


def _foot(run: Run, placed: Placed) -> str:
    """Say where it is from, since a picture goes its own way."""
    of, title = placed.chart.of, placed.chart.title
    about = [each for each in (of.deployment, of.load) if each and each not in title]
    made = f"run {run.record.run_id}, {run.record.created_at[:10]}"
    return " · ".join([placed.section, *about, question(run), made])
