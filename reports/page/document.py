"""One self-contained HTML page of a run: no network, no files beside it.

Puts the sections together and does not know what they show. plotly.js and the charts are inline, packed.
"""

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path

from plotly.offline import get_plotlyjs

from serving_bench.harness.errors import UserError
from serving_bench.harness.store import checksums
from serving_bench.harness.store.named_files import PAGE_FILE, check_named
from serving_bench.harness.whole_files import PRIVATE, write_whole
from serving_bench.reports.data import Run, open_run
from serving_bench.reports.page.answer import opening
from serving_bench.reports.page.looks import Html, looks, macro, own_file, packed, packed_json, render
from serving_bench.reports.page.parts import Chart
from serving_bench.reports.page.sections import sections_of
from serving_bench.reports.verdicts import ranked_labels
from serving_bench.reports.words.claims import repeat_word
from serving_bench.reports.words.described import question
from serving_bench.reports.words.digest import digest_of, keep, sources_of

# Runs before anything is laid out, so that nothing moves afterwards.
_HAS_SCRIPT = "'use strict'; document.documentElement.className = 'js'"
# A page's own styles and scripts. A script may use those before it; page.js and index.js start the page.
Files = tuple[Sequence[str], Sequence[str]]
REPORT: Files = (
    ("style.css", "opening.css", "bar.css", "figures.css", "print.css"),
    ("shared.js", "inflate.js", "theme.js", "follow.js", "ends.js", "draw.js", "filters.js", "links.js",
     "tables.js", "printing.js", "page.js"),
)  # fmt: skip
INDEX: Files = (("style.css", "index.css", "print.css"), ("shared.js", "tables.js", "index.js"))


def write_report(run_dir: Path, out: Path | None = None, run: Run | None = None) -> Path:
    """Write a run's page, by default to results/<run>/report.html, and return its path.

    Works on a run that was cut short, failed or is empty. Stores the run's digest beside it
    (reports/words/digest.py). `run`: the run, if it has been read already. Raises StoreError if the run
    cannot be read, UserError if the page cannot be written.
    """
    path, sources = out or run_dir / PAGE_FILE, sources_of(run_dir)
    whole = run or open_run(run_dir)
    check_place(path)
    with nullcontext() if out else checksums.changing(run_dir, PAGE_FILE):
        write_page(path, page(whole))
    keep(run_dir, sources, digest_of(whole))
    return path


def check_place(path: Path) -> None:
    """Raise UserError if a page cannot be at this place, or if a run's own file is there."""
    check_named(path)
    if path.is_dir() or not path.parent.is_dir():
        why = f"{path} is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise UserError(f"the report cannot be written: {why}; give a file in a directory that exists")


def write_page(path: Path, text: str) -> Path:
    """Write a page, whole or not at all, and return its path. Raises UserError if it cannot be written."""
    check_place(path)
    try:
        write_whole(path, text.encode(), mode=PRIVATE)
    except OSError as error:
        raise UserError(f"{path}: the report cannot be written ({error.strerror})") from error
    return path


def page(run: Run) -> str:
    sections = sections_of(run)
    charts = [chart for section in sections for topic in section.topics for chart in topic.charts]
    links = bar(run, {"answer": "Answer", **{section.id: section.name for section in sections}})
    return document(question(run), macro("page", links, opening(run), sections, run.record), charts)


def bar(run: Run, names: Mapping[str, str]) -> Html:
    """Return the bar: links to the sections by id and name, filters that offer a choice, and the legend."""
    word = repeat_word(run)
    loads = {group.load: (group.family, group.level) for group in run.groups}
    starts = sorted({cell.planned.repeat + 1 for cell in run.planned_cells})
    filters = [
        ("deployment", "all deployments", [(label, label) for label in run.deployments]),
        ("load", "all loads", [(load, load) for load in sorted(loads, key=loads.__getitem__)]),
        ("start", f"all {word}s", [(str(start), f"{word} {start}") for start in starts]),
    ]
    legend = [looks(run)[label] for label in ranked_labels(run)]
    return macro("bar", names, [each for each in filters if len(each[2]) > 1], legend)


# --- the document ----------------------------------------------------------------------------------


def document(title: str, body: Html, charts: Sequence[Chart], files: Files = REPORT) -> str:
    """Return a page with these charts, whose places are in the body.

    Only the scripts of its own files run in it, and it loads nothing (Content Security Policy Level 3, by
    hashes).
    """
    styles, scripts = files
    # One function, so that only window.bench is global.
    script = '(() => {\n"use strict";\n' + "".join(map(own_file, scripts)) + "})();"
    plotly, packed_plotly = _plotly() if charts else ("", Html(""))
    digests = (hashlib.sha256(each.encode()).digest() for each in (_HAS_SCRIPT, script, plotly) if each)
    return render(
        "page.html",
        title=title,
        allowed=Html(" ".join(f"'sha256-{b64encode(each).decode()}'" for each in digests)),
        style=Html("".join(map(own_file, styles))),
        has_script=Html(_HAS_SCRIPT),
        script=Html(script),
        body=body,
        charts=packed_json("charts", {chart.id: chart.to_builtins() for chart in charts}) if charts else "",
        plotly=packed_plotly,
    )


@cache
def _plotly() -> tuple[str, Html]:
    """Return plotly.js, and the same packed to two fifths of its size, which the page's script unpacks."""
    source = str(get_plotlyjs())
    return source, packed("plotly", source)
