"""Reads what a page shows: rows of declared tables, charts, and what a written page carries packed."""

import base64
import gzip
import json
import re
from html import unescape
from typing import Any

from serving_bench.reports.data.run import Run
from serving_bench.reports.page.declared import Chart, Notes, Table, Topic
from serving_bench.reports.page.drawing import charts
from serving_bench.reports.page.sections import sections_of


def unpacked(page: str, name: str) -> str:
    """Return the text that the page packed under this id. There must be exactly one."""
    [packed] = re.findall(rf'<script type="text/plain" id="{name}">([^<]*)</script>', page)
    return gzip.decompress(base64.b64decode(packed)).decode()


def charts_of(page: str) -> dict[str, Any]:
    """Return traces and layout of each chart by its id, as the page's script draws them."""
    return dict(json.loads(unpacked(page, "charts")))


def charts_in(run: Run) -> dict[str, charts.Chart]:
    """Return each chart of a run by its id, without a page."""
    topics = [topic for section in sections_of(run).values() for topic in section.values()]
    return {chart.id: chart for topic in topics for chart in topic.charts}


def rows_of(declared: Table[Any] | Chart[Any], run: Run) -> list[dict[str, str]]:
    """Return the rows of a declared table: by each column's title the text of its cell."""
    columns = declared.columns(run)
    return [{head: plain(show(thing)) for head, show in columns.items()} for thing in declared.rows(run)]


def notes_of(topic: Topic, run: Run) -> list[str]:
    """Return the sentences below a topic's charts and tables."""
    words = [each.words for each in topic.shows if isinstance(each, Notes)]
    texts = [each if isinstance(each, str) else each(run) for each in words]
    return [text for each in texts for text in ([each] if isinstance(each, str) else each) if text]


def plain(markup: str) -> str:
    """Return the text of a part of a page, without scripts, styles and tags."""
    text = re.sub(r"<(script|style)\b.*?</\1>", "", markup, flags=re.S)
    return " ".join(unescape(re.sub("<[^>]*>", " ", text)).split())


def section_of(page: str, name: str) -> str:
    return page.partition(f'<section id="{name}"')[2].partition("</section>")[0].replace("\n", "")
