"""One self-contained HTML page of a run: no network, no files beside it.

Puts sections together and knows nothing of what they show. plotly.js is inline, once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from harness.errors import UserError
from reports.frames import Run, open_run
from reports.page.charts import Chart, Section
from reports.page.markup import Html, join, paragraph, tag
from reports.page.opening import opening, question
from reports.sections import SECTIONS

# Everything is inline; the page may load nothing, whatever text is in it.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


def write_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write the page of a run, results/<run>/report.html unless told otherwise, and return its path.

    Works on a run that is cut short, failed or empty. Raises StoreError where it cannot be read, UserError
    where the page cannot be written.
    """
    path = out or run_dir / "report.html"
    run = open_run(run_dir)
    check_writable(path)
    write_page(path, page(run))
    return path


def check_writable(path: Path) -> None:
    """Raise UserError where no page can be there."""
    if path.is_dir() or not path.parent.is_dir():
        missing = f"{path} is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise UserError(f"the report cannot be written: {missing}; give a file in a directory that exists")


def write_page(path: Path, whole: str) -> None:
    """Write a page, whole or not at all. Raises UserError where it cannot be written."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(whole, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path}: the report cannot be written ({error.strerror})") from error


def page(run: Run) -> str:
    """The whole page as text."""
    sections = {name: made for name, (_, make) in SECTIONS.items() if (made := make(run))}
    charts = [chart for section in sections.values() for chart in section.charts]
    body = join(
        [
            _nav(sections),
            tag(
                "main",
                opening(run),
                *(_section(name, made) for name, made in sections.items()),
                tag("footer", paragraph(f"bench, run {run.record.run_id}, {run.record.created_at}")),
            ),
            Html("<noscript><p>Charts need JavaScript; their tables do not.</p></noscript>"),
        ]
    )
    return document(question(run), body, charts)


def _nav(sections: dict[str, Section]) -> Html:
    links = [tag("a", SECTIONS[name][0], href=f"#{name}") for name in sections]
    return tag("nav", *links, aria_label="sections")


def _section(name: str, made: Section) -> Html:
    return tag("section", tag("h2", made.title), made.body, id=name)


def document(title: str, body: Html, charts: Sequence[Chart]) -> str:
    """A page of its own with these charts, whose places the body has."""
    data = {chart.id: chart.to_builtins() for chart in charts}
    scripts = (
        f"<script>{get_plotlyjs()}</script>"
        f'<script type="application/json" id="charts">{script_json(data)}</script>'
        f"<script>{_own_file('page.js')}</script>"
        if charts
        else ""
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"{tag('title', title).text}<style>{_own_file('style.css')}</style></head>"
        f"<body>{body.text}{scripts}</body></html>\n"
    )


def script_json(data: Any) -> str:
    """JSON that no text in it can end: inside a script element only these characters have a meaning."""
    encoded = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        encoded = encoded.replace(character, f"\\u{ord(character):04x}")
    return encoded


def _own_file(name: str) -> str:
    return resources.files("reports.page").joinpath(name).read_text(encoding="utf-8")
