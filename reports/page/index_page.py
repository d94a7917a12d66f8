"""The index of all runs below a directory: a page of its own, one row per run, newest first.

Links to each run's report and needs no server. Runs that cannot be read are listed with the reason.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from harness.errors import BenchError, UserError
from harness.store import store
from reports.measures.written import NOTHING, plural
from reports.page.document import INDEX, document, write_page
from reports.page.markup import Html, join, paragraph, table, tag, unbroken
from reports.words.told import Digest, digest

# How far below the directory runs are looked for.
DEPTH = 4
REPORT = "report.html"
# By which a page that was written here is told from somebody's own index.html.
_OURS = "<!-- bench view -->"
_COLUMNS = ("date", "run", "headline", "engines", "models", "quantizations", "scenarios", "loads", "device",
            "starts", "cells")  # fmt: skip


@dataclass(frozen=True)
class IndexRow:
    """A run's directory with its digest, or the reason why it has none."""

    directory: Path
    digest: Digest | None = None
    problem: str = ""

    @property
    def report(self) -> Path | None:
        path = self.directory / REPORT
        return path if path.is_file() else None

    def to_builtins(self) -> dict[str, Any]:
        """Return it for JSON."""
        where = {"directory": _shown(self.directory), "report": _shown(self.report) if self.report else None}
        return {**where, **(asdict(self.digest) if self.digest else {"problem": self.problem})}


def index_rows(root: Path) -> list[IndexRow]:
    """Return the runs below a directory, itself included, newest first; those that cannot be read stand last.
    Raises UserError where there is no such directory, and where it has no run."""
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such directory"
        raise UserError(f"{_shown(root)}: {what}; give the directory that has the runs, such as results")
    found = [_index_row(each) for each in sorted(_runs(root))]
    if not found:
        here = f"no run is here or up to {DEPTH} directories below"
        raise UserError(f"{_shown(root)}: {here}; `bench run` makes one")
    return sorted(found, key=lambda row: row.digest.created_at if row.digest else "", reverse=True)


def _runs(root: Path) -> Iterator[Path]:
    """Yield no run within a run, in hidden directories, or twice by a link."""
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
        said = str(error).removeprefix(f"{directory}{os.sep}").removeprefix(f"{directory}: ")
        return IndexRow(directory, problem=" ".join(said.split()) or type(error).__name__)


def write_index(root: Path, rows: Sequence[IndexRow], out: Path | None = None) -> Path:
    """Write the page, DIR/index.html unless told otherwise, and return its path. Raises UserError where it
    cannot be written, where DIR is a run itself, and where it has an index.html of somebody else's."""
    path = out or root / "index.html"
    if out is None and (root / "run.json").is_file():
        above = _shown(Path(os.path.abspath(root)).parent)
        raise UserError(f"{_shown(root)}: that is one run; give the directory above: bench view {above}")
    if out is None and path.is_file() and _OURS not in path.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{_shown(path)}: was not written by `bench view`; give --output FILE")
    return write_page(path, lambda: index_page(root, rows, path.parent))


def index_page(root: Path, rows: Sequence[IndexRow], beside: Path) -> str:
    """Return the whole page as text, with links that work from the directory `beside`."""
    found = [_cells(root, row, row.digest, beside) for row in rows if row.digest]
    bad = [f"{_name(root, row)}: {row.problem}" for row in rows if row.digest is None]
    title = f"Runs in {_shown(Path(os.path.abspath(root)).name) or _shown(root)}"
    parts = [
        tag("h1", title),
        paragraph(f"{plural(len(rows), 'run')} below {_shown(root)}, newest first", "sub"),
        *([table(_COLUMNS, found, "runs", "Runs")] if found else []),
        *([tag("h2", "Cannot be read"), tag("ul", *(tag("li", each) for each in bad))] if bad else []),
    ]
    return document(title, join([Html(_OURS), tag("main", *parts, class_="wide")]), (), INDEX)


def _cells(root: Path, row: IndexRow, found: Digest, beside: Path) -> list[Html | str]:
    no_report = tag(
        "span", "no report: ", tag("code", f"bench report {_shown(row.directory)}"), class_="range"
    )
    run: list[Html | str] = [found.question, no_report]
    if row.report:
        run = [tag("a", found.question, href=quote(os.fsencode(os.path.relpath(row.report, beside))))]
    measured = f"{found.measured} of {found.cells}"
    if found.status != "completed":
        measured += ", still running" if store.is_going_on(row.directory, found.status) else ", cut short"
    return [
        unbroken(found.created_at[:16].replace("T", " ")),
        join([*run, tag("span", _name(root, row), class_="range")]),
        found.headline,
        ", ".join(found.engines),
        ", ".join(found.models) or NOTHING,
        ", ".join(found.quantizations) or NOTHING,
        ", ".join(found.scenarios) or NOTHING,
        found.loads or NOTHING,
        found.device,
        str(found.starts),
        measured if measured == f"{found.cells} of {found.cells}" else tag("span", measured, class_="bad"),
    ]


def _name(root: Path, row: IndexRow) -> str:
    return _shown(os.path.relpath(row.directory, root))


def _shown(path: Path | str) -> str:
    """Return a path as text; bytes that are none are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")
