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
from reports.page.charts import Chart
from reports.page.markup import Html, join, macro, packed_json, paragraph, render, tag
from reports.page.opening import opening
from reports.page.sections import SECTIONS, TITLES, sections_of
from reports.words.described import question
from reports.words.digest import digest_of, keep, sources_of


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
    """Return the whole page as text."""
    sections = sections_of(run)
    charts = [chart for parts in sections.values() for made in parts.values() for chart in made.charts]
    names = {"answer": "Answer", **{name: SECTIONS[name][0] for name in sections}}
    titles = {**names, **TITLES}
    made = [macro("section", name, titles[name], parts) for name, parts in sections.items()]
    body = join(
        [
            tag("a", "Skip to the answer", class_="skip", href="#main"),
            bar(run, names),
            tag("main", tag("div", opening(run), id="answer"), *made, id="main", tabindex="-1"),
            tag("footer", paragraph(f"bench, run {run.record.run_id}, {run.record.created_at}")),
        ]
    )
    return document(question(run), body, charts)


def document(title: str, body: Html, charts: Sequence[Chart], own: Assets | None = None) -> str:
    """Return a page with these charts, whose places the body has. `own` is its style and script, those of a
    report if None. No other script runs in it, wherever it came from."""
    own = own or of_report()
    data = packed_json("charts", {chart.id: chart.to_builtins() for chart in charts})
    scripts = [HAS_SCRIPT, own.script, *([plotly_source()] if charts else [])]
    return render(
        "page.html",
        title=title,
        policy=Html(policy(scripts)),
        own={"style": Html(own.style), "script": Html(own.script)},
        has_script=Html(HAS_SCRIPT),
        body=body,
        charts=join([data, plotly()]) if charts else "",
    )
