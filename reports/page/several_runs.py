"""Pages about several runs: the index of all runs below a directory, and the comparison of two.

The index has one row per run, newest first, links to each run's report and needs no server. Runs that cannot
be read are listed with the reason. A comparison shows what differs and both sides' values, with their ratios
drawn.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from serving_bench.harness.errors import BenchError, UserError
from serving_bench.harness.store import store
from serving_bench.reports.checks.examine import LEGEND
from serving_bench.reports.data import grouped
from serving_bench.reports.measures import NOTHING, plural
from serving_bench.reports.page.cells import mark_html
from serving_bench.reports.page.document import INDEX, document, write_page
from serving_bench.reports.page.looks import (
    Html,
    Look,
    Row,
    join,
    macro,
    ratio_frame,
    ratio_picture,
    table,
    tag,
    unbroken,
)
from serving_bench.reports.page.parts import Block, Notes, Part, Shown, Table, filled, rendered
from serving_bench.reports.stats.intervals import Kind
from serving_bench.reports.two_runs.answers import Answers
from serving_bench.reports.two_runs.compare import ComparedCase, Comparison, MetricRow
from serving_bench.reports.words.digest import Digest, digest

# How many levels below the directory are searched for runs.
DEPTH = 4
REPORT = "report.html"
# Tells a page that was written here from somebody's own index.html.
_OURS = "<!-- bench view -->"


@dataclass(frozen=True)
class IndexRow:
    """A run's directory with its digest, or the reason why it cannot be read."""

    directory: Path
    digest: Digest | None = None
    problem: str = ""

    @property
    def report(self) -> Path | None:
        path = self.directory / REPORT
        return path if path.is_file() else None

    def to_builtins(self) -> dict[str, Any]:
        return {
            "directory": _shown(self.directory),
            "report": _shown(self.report) if self.report else None,
            **(asdict(self.digest) if self.digest else {"problem": self.problem}),
        }


def index_rows(root: Path) -> list[IndexRow]:
    """Return the runs in and below a directory, newest first and those that cannot be read last.

    Raises UserError if no run is in it.
    """
    index = [_index_row(each) for each in sorted(_runs(root))]
    if not index:
        raise UserError(
            f"{_shown(root)}: no run is here or up to {DEPTH} directories below; `bench run` makes one"
        )
    return sorted(index, key=lambda row: row.digest.created_at if row.digest else "", reverse=True)


def _runs(root: Path) -> Iterator[Path]:
    # Skip runs within a run, hidden directories, and a directory that was already reached by another link.
    seen: set[str] = set()
    for folder, below, files in os.walk(root, followlinks=True):
        place, is_run = os.path.realpath(folder), "run.json" in files
        if is_run and place not in seen:
            yield Path(folder)
        is_end = is_run or place in seen or len(Path(folder).relative_to(root).parts) == DEPTH
        below[:] = [] if is_end else sorted(name for name in below if not name.startswith("."))
        seen.add(place)


def _index_row(directory: Path) -> IndexRow:
    try:
        return IndexRow(directory, digest(directory))
    except (BenchError, OSError, UnicodeError, pa.ArrowException) as error:
        error_text = str(error).removeprefix(f"{directory}{os.sep}").removeprefix(f"{directory}: ")
        return IndexRow(directory, problem=" ".join(error_text.split()) or type(error).__name__)


def write_index(root: Path, rows: Sequence[IndexRow], out: Path | None = None) -> Path:
    """Write the index, by default to DIR/index.html, and return its path.

    Raises UserError if it cannot be written, if DIR is itself a run, or if its index.html was written by
    somebody else.
    """
    path = out or root / "index.html"
    if out is None and (root / "run.json").is_file():
        above = _shown(Path(os.path.abspath(root)).parent)
        raise UserError(f"{_shown(root)}: that is one run; give the directory above: bench view {above}")
    if out is None and path.is_file() and _OURS not in path.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{_shown(path)}: was not written by `bench view`; give --output FILE")
    return write_page(path, index_page(root, rows, path.parent))


def index_page(root: Path, rows: Sequence[IndexRow], beside: Path) -> str:
    """Return the index as text, with links that work from the directory `beside`."""
    listed = [Row(_cells(root, row, row.digest, beside)) for row in rows if row.digest]
    bad = [f"{_name(root, row)}: {row.problem}" for row in rows if row.digest is None]
    title = f"Runs in {_shown(Path(os.path.abspath(root)).name) or _shown(root)}"
    where = f"{plural(len(rows), 'run')} below {_shown(root)}, newest first"
    body = macro("index", title, where, table(listed, "runs", "Runs") if listed else "", bad)
    return document(title, join([Html(_OURS), body]), (), INDEX)


def _cells(root: Path, row: IndexRow, digest: Digest, beside: Path) -> dict[str, Shown]:
    href = row.report and quote(os.fsencode(os.path.relpath(row.report, beside)))
    measured = f"{digest.measured} of {digest.cells}"
    if digest.status != "completed":
        ended = "cut short" if digest.measured < digest.cells else "interrupted"
        measured += f", {'still running' if store.is_going_on(row.directory, digest.status) else ended}"
    is_whole = measured == f"{digest.cells} of {digest.cells}"
    return {
        "date": unbroken(digest.created_at[:16].replace("T", " ")),
        "run": macro(
            "indexed", digest.question, href, f"bench report {_shown(row.directory)}", _name(root, row)
        ),
        "headline": digest.headline,
        "engines": ", ".join(digest.engines),
        "models": ", ".join(digest.models) or NOTHING,
        "quantizations": ", ".join(digest.quantizations) or NOTHING,
        "scenarios": ", ".join(digest.scenarios) or NOTHING,
        "device": digest.device,
        "cells": measured if is_whole else tag("span", measured, class_="bad"),
    }


def _name(root: Path, row: IndexRow) -> str:
    return _shown(os.path.relpath(row.directory, root))


def _shown(path: Path | str) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


# --- comparison ------------------------------------------------------------------------------------

# The colour of a ratio by its verdict, which its row also has in words.
_COLOURS: Mapping[Kind, str] = {
    "better": "--c-green",
    "worse": "--c-vermilion",
    "same": "--c-blue",
    "unknown": "--c-grey",
    "none": "--c-other",
}


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the page and return its path. Raises UserError if it cannot be written."""
    return write_page(path, comparison_page(comparison))


def comparison_page(comparison: Comparison) -> str:
    values = [
        *(Block(case.name, _case(comparison, case)) for case in comparison.cases),
        *map(_answers, comparison.answers),
    ]
    legend = LEGEND if comparison.is_marked else ""
    body = macro("comparison", comparison, rendered(_differences(comparison)), rendered(values), legend)
    return document(f"{comparison.b} against {comparison.a}", tag("main", body), ())


def _differences(comparison: Comparison) -> Iterator[Block]:
    for kind, of_kind in grouped(comparison.differences, lambda each: each.kind).items():
        rows = [Row(dict(zip(("what", "A", "B"), each.cells(), strict=True))) for each in of_kind]
        yield Block(kind, [table(rows, "words facts", kind)], is_folded=kind == "versions")


def _case(comparison: Comparison, case: ComparedCase) -> list[Part]:
    ratios = {
        row.metric: (verdict.ratio or 0.0, verdict.low or 0.0, verdict.high or 0.0)
        for row in case.rows
        if (verdict := row.verdict) and verdict.is_log and row.change != NOTHING
    }
    frame = ratio_frame(ratios.values())
    drawn = {
        row.metric: ratio_picture(Look("", _COLOURS[row.verdict.kind]), ratios[row.metric], frame)
        for row in case.rows
        if row.verdict and row.metric in ratios
    }
    deciding, others = (
        [_row(comparison, case, row, drawn.get(row.metric)) for row in rows] for rows in case.by_verdict
    )
    why = [f"No verdicts: {case.why_none}."] if case.why_none else []
    more = Table(f"Other values, {case.name}", others, "words", is_bare=True)
    return [
        Notes([case.starts_text, *(f"Note: {note}." for note in case.notes), *why]),
        table(filled(deciding), "words compared", case.name),
        Block("Other values, without verdicts", [more], is_folded=True),
    ]


def _row(comparison: Comparison, case: ComparedCase, row: MetricRow, drawn: Html | None) -> Row:
    reasons = {each.check: each for each in comparison.distrust}
    marks = mark_html([reasons[check] for check in row.marks])
    change = macro("beside", drawn, row.change, marks)
    return Row({**comparison.cells(case, row), "B against A": change})


def _answers(answers: Answers) -> Block:
    title, rows = f"Quality, {answers.deployment}", list(map(Row, answers.rows))
    return Block(title, [Notes([f"{note}." for note in answers.notes]), table(rows, "words", title)])
