"""Reads what a page shows: rows of tables, charts, and what a written page carries packed."""

import base64
import gzip
import json
import re
from html import unescape
from typing import Any

from serving_bench.reports.data.run import Run
from serving_bench.reports.page.parts import Chart, Notes, Part, Table, Topic
from serving_bench.reports.page.sections import sections_of


def unpacked(page: str, name: str) -> str:
    """Return the text that the page packed under this id. There must be exactly one."""
    [packed] = re.findall(rf'<script type="text/plain" id="{name}">([^<]*)</script>', page)
    return gzip.decompress(base64.b64decode(packed)).decode()


def charts_of(page: str) -> dict[str, Any]:
    """Return traces and layout of each chart by its id, as the page's script draws them."""
    return dict(json.loads(unpacked(page, "charts")))


def topics_of(run: Run) -> dict[str, Topic]:
    """Return each topic of a run's page by its id."""
    return {topic.id: topic for section in sections_of(run) for topic in section.topics}


def charts_in(run: Run) -> dict[str, Chart]:
    """Return each chart of a run by its id, without a page."""
    return {chart.id: chart for topic in topics_of(run).values() for chart in topic.charts}


def rows_of(part: Part) -> list[dict[str, str]]:
    """Return the rows of a table or chart: by each column's title the text of its cell."""
    assert isinstance(part, Table | Chart)
    return [{head: plain(cell) for head, cell in row.cells.items()} for row in part.rows]


def notes_of(topic: Topic) -> list[str]:
    """Return the sentences below a topic's charts and tables."""
    return [words for part in topic.parts if isinstance(part, Notes) for words in part.words if words]


def plain(markup: str) -> str:
    """Return the text of a part of a page, without scripts, styles and tags."""
    text = re.sub(r"<(script|style)\b.*?</\1>", "", markup, flags=re.S)
    return " ".join(unescape(re.sub("<[^>]*>", " ", text)).split())


def section_of(page: str, name: str) -> str:
    return page.partition(f'<section id="{name}"')[2].partition("</section>")[0].replace("\n", "")
