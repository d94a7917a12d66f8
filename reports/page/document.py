"""One self-contained HTML page of a run: no network, no files beside it.

Puts sections together and knows nothing of what they show. plotly.js and the charts are inline, packed.
"""

from collections.abc import Sequence
from pathlib import Path

from harness.errors import UserError
from harness.store.named_files import check_named
from harness.whole_files import write_whole
from reports.data.run import Run, open_run
from reports.page.assets import HAS_SCRIPT, Assets, of_report, plotly, plotly_source, policy
from reports.page.bar import bar
from reports.page.charts import Chart, Section
from reports.page.markup import Html, join, packed_json, paragraph, tag, text
from reports.page.opening import opening
from reports.page.sections import SECTIONS
from reports.words.described import question
from reports.words.digest import digest_of, keep, sources_of

# Said without JavaScript; the script hides it, or says what else is missing.
_NO_CHARTS = Html(
    '<p id="no-charts">Charts need JavaScript and a browser of 2023 or later. '
    "Each chart's numbers are in the table below it.</p>"
)


def write_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write the page of a run, results/<run>/report.html unless told otherwise, and return its path.

    Works on a run that is cut short, failed or empty. Keeps its digest beside it
    (reports/words/digest.py). Raises StoreError where the run cannot be read, UserError where the page
    cannot be written.
    """
    path = out or run_dir / "report.html"
    sources = sources_of(run_dir)
    run = open_run(run_dir)
    check_writable(path)
    write_page(path, page(run))
    keep(run_dir, sources, digest_of(run))
    return path


def check_writable(path: Path) -> None:
    """Raise UserError where no page can be there, or something of a run's is."""
    check_named(path)
    if path.is_dir() or not path.parent.is_dir():
        missing = f"{path} is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise UserError(f"the report cannot be written: {missing}; give a file in a directory that exists")


def write_page(path: Path, whole: str) -> None:
    """Write a page, whole or not at all. Raises UserError where it cannot be written."""
    try:
        write_whole(path, whole.encode())
    except OSError as error:
        raise UserError(f"{path}: the report cannot be written ({error.strerror})") from error


def page(run: Run) -> str:
    """The whole page as text."""
    sections = {name: made for name, (_, make) in SECTIONS.items() if (made := make(run))}
    charts = [chart for section in sections.values() for chart in section.charts]
    body = join(
        [
            tag("a", "Skip to the answer", class_="skip", href="#main"),
            bar(run, {name: SECTIONS[name][0] for name in sections}, charts),
            tag(
                "main",
                opening(run),
                *(_section(name, made) for name, made in sections.items()),
                id="main",
                tabindex="-1",
            ),
            tag("footer", paragraph(f"bench, run {run.record.run_id}, {run.record.created_at}")),
        ]
    )
    return document(question(run), body, charts)


def _section(name: str, made: Section) -> Html:
    return Html(f'<section id="{name}"><h2>{text(made.title).text}</h2>{made.body.text}</section>')


def document(title: str, body: Html, charts: Sequence[Chart], own: Assets | None = None) -> str:
    """A page of its own with these charts, whose places the body has. `own`: those of a report unless told
    otherwise. No other script runs in it, wherever it came from."""
    own = own or of_report()
    data = {chart.id: chart.to_builtins() for chart in charts}
    drawn = packed_json("charts", data).text + plotly().text if charts else ""
    scripts = [HAS_SCRIPT, own.script, *([plotly_source()] if charts else [])]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(scripts)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"{tag('title', title).text}<style>{own.style}</style><script>{HAS_SCRIPT}</script></head>"
        f"<body>{_NO_CHARTS.text if charts else ''}{body.text}"
        f"{drawn}<script>{own.script}</script></body></html>\n"
    )
