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
from harness.store.store import is_going_on
from reports.measures.written import NOTHING, plural
from reports.page.document import INDEX, document, write_page
from reports.page.markup import Html, join, paragraph, table, tag
from reports.words.digest import Digest, digest

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


def find_runs(root: Path) -> list[Path]:
    """Return the results directories below a directory, itself included. Raises UserError where there is no
    such directory, and where it has no run."""
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such directory"
        raise UserError(f"{_shown(root)}: {what}; give the directory that has the runs, such as results")
    found = sorted(_runs(root))
    if not found:
        raise UserError(
            f"{_shown(root)}: no run is here or up to {DEPTH} directories below; `bench run` makes one"
        )
    return found


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


def index_row(directory: Path) -> IndexRow:
    """Return a run's row; one that cannot be read has the reason."""
    try:
        return IndexRow(directory, digest(directory))
    except (BenchError, OSError, UnicodeError, pa.ArrowException) as error:
        said = str(error).removeprefix(f"{directory}{os.sep}").removeprefix(f"{directory}: ")
        return IndexRow(directory, problem=" ".join(said.split()) or type(error).__name__)


def newest_first(rows: Sequence[IndexRow]) -> list[IndexRow]:
    """Return rows in their order; those that cannot be read stand last."""
    return sorted(rows, key=lambda row: row.digest.created_at if row.digest else "", reverse=True)


def as_plain(row: IndexRow) -> dict[str, Any]:
    """Return a row for JSON."""
    where = {"directory": _shown(row.directory), "report": _shown(row.report) if row.report else None}
    return {**where, **(asdict(row.digest) if row.digest else {"problem": row.problem})}


def write_index(root: Path, rows: Sequence[IndexRow], out: Path | None = None) -> Path:
    """Write the page, DIR/index.html unless told otherwise, and return its path. Raises UserError where it
    cannot be written, where DIR is a run itself, and where it has an index.html of somebody else's."""
    if out is None and (root / "run.json").is_file():
        above = _shown(Path(os.path.abspath(root)).parent)
        raise UserError(f"{_shown(root)}: that is one run; give the directory above: bench view {above}")
    path = out or root / "index.html"
    if out is None and path.is_file() and _OURS not in path.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{_shown(path)}: was not written by `bench view`; give --output FILE")
    return write_page(path, lambda: index_page(root, rows, path.parent))


def index_page(root: Path, rows: Sequence[IndexRow], beside: Path) -> str:
    """Return the whole page as text, with links that work from the directory `beside`."""
    bad = sum(row.digest is None for row in rows)
    said = f"{plural(len(rows), 'run')} below {_shown(root)}, newest first"
    said += f"; {bad} cannot be read" if bad else ""
    whole = table(_COLUMNS, [_row(root, row, beside) for row in newest_first(rows)], "runs", "Runs")
    title = f"Runs in {_shown(Path(os.path.abspath(root)).name) or _shown(root)}"
    body = tag("main", tag("h1", title), paragraph(said, "sub"), whole, class_="wide")
    return document(title, join([Html(_OURS), body]), (), INDEX)


def _row(root: Path, row: IndexRow, beside: Path) -> list[Html | str]:
    name = tag("span", _shown(os.path.relpath(row.directory, root)), class_="range")
    found = row.digest
    if found is None:
        said = tag("span", row.problem, class_="bad")
        return [NOTHING, join(["cannot be read", name]), said, *[NOTHING] * (len(_COLUMNS) - 3)]
    how = tag("span", "no report: ", tag("code", f"bench report {_shown(row.directory)}"), class_="range")
    link: list[Html | str] = [found.question, how]
    if row.report:
        href = quote(os.fsencode(os.path.relpath(row.report, beside)))
        link = [tag("a", found.question, href=href)]
    names = (found.engines, found.models, found.quantizations, found.scenarios)
    return [
        join([tag("span", found.created_at[:10], class_="unbroken"), f" {found.created_at[11:16]}"]),
        join([*link, name]),
        found.headline,
        *(", ".join(each) or NOTHING for each in names),
        found.loads or NOTHING,
        found.device,
        tag("span", f"{found.starts:,}", data_value=str(found.starts)),
        _cells(row.directory, found),
    ]


def _cells(directory: Path, found: Digest) -> Html:
    """Return how many cells were measured, and what became of a run that has not completed."""
    said = {"completed": "", "running": ", no end on record"}.get(found.status, f", {found.status}")
    if is_going_on(directory, found.status):
        said = ", still running"
    is_whole = not said and found.measured == found.cells
    words = f"{found.measured:,} of {found.cells:,}{said}"
    return tag("span", words, data_value=str(found.measured), class_="" if is_whole else "bad")


def _shown(path: Path | str) -> str:
    """Return a path as text; bytes that are none are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")
