"""The page's own script and style, and plotly.js packed so that the page stays small."""

from __future__ import annotations

import base64
import gzip
from functools import cache
from importlib import resources

from plotly.offline import get_plotlyjs

STYLES = ("style.css", "opening.css", "bar.css", "figures.css", "timeline.css", "index.css", "print.css")
# One scope for all; each uses what stands before it, page.js begins it.
SCRIPTS = (
    "shared.js", "unpack.js", "theme.js", "follow.js", "ends.js", "draw.js", "filters.js", "links.js",
    "notes.js", "printing.js", "timeline.js", "page.js",
)  # fmt: skip


def style() -> str:
    return "".join(map(own_file, STYLES))


def script() -> str:
    """As one function of its own, so that nothing of it is global but window.bench."""
    return '(() => {\n"use strict";\n' + "".join(map(own_file, SCRIPTS)) + "})();"


@cache
def packed_plotly() -> str:
    """plotly.js, gzip, base64: two fifths of it. unpack.js reads it."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode("ascii")


def own_file(name: str) -> str:
    return resources.files("reports.page").joinpath(name).read_text(encoding="utf-8")
