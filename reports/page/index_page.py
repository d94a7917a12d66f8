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
from reports.page.document import INDEX, check_writable, document, write_page
from reports.page.markup import Html, join, paragraph, table, tag, text
from reports.words.digest import Digest, digest

# How far below the directory runs are looked for.
DEPTH = 4
REPORT = "report.html"
# By which a page that was written here is told from somebody's own index.html.
_OURS = "<!-- bench view -->"
_COLUMNS = (
    "date",
    "run",
    "headline",
    "engines",
    "models",
    "quantizations",
    "scenarios",
    "loads",
    "device",
    "starts",
    "cells",
)


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
    found = sorted(_runs(root, DEPTH, set()))
    if not found:
        raise UserError(
            f"{_shown(root)}: no run is here or up to {DEPTH} directories below; `bench run` makes one"
        )
    return found


def _runs(folder: Path, depth: int, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield no run within a run, in hidden directories, or twice by a link."""
    try:
        stat = folder.stat()
        if (stat.st_dev, stat.st_ino) in seen:
            return
        seen.add((stat.st_dev, stat.st_ino))
        if (folder / "run.json").is_file():
            yield folder
            return
        with os.scandir(folder) as entries:
            below = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError:
        return
    if depth:
        for name in below:
            yield from _runs(folder / name, depth - 1, seen)


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
    if row.digest is None:
        return {**where, "problem": row.problem}
    return {**where, **asdict(row.digest)}


def write_index(root: Path, rows: Sequence[IndexRow], out: Path | None = None) -> Path:
    """Write the page, DIR/index.html unless told otherwise, and return its path. Raises UserError where it
    cannot be written, where DIR is a run itself, and where it has an index.html of somebody else's."""
    if out is None and (root / "run.json").is_file():
        above = _shown(Path(os.path.abspath(root)).parent)
        raise UserError(f"{_shown(root)}: that is one run; give the directory above: bench view {above}")
    path = out or root / "index.html"
    check_writable(path)
    if out is None and path.exists() and not _is_ours(path):
        raise UserError(f"{_shown(path)}: was not written by `bench view`; give --output FILE")
    write_page(path, index_page(root, rows, path.parent))
    return path


def _is_ours(path: Path) -> bool:
    try:
        return _OURS in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def index_page(root: Path, rows: Sequence[IndexRow], beside: Path) -> str:
    """Return the whole page as text, with links that work from the directory `beside`."""
    ordered = newest_first(rows)
    bad = sum(row.digest is None for row in ordered)
    said = f"{plural(len(ordered), 'run')} below {_shown(root)}, newest first"
    said += f"; {bad} cannot be read" if bad else ""
    whole = table(list(_COLUMNS), [_row(root, row, beside) for row in ordered], "runs", "Runs")
    title = f"Runs in {_shown(Path(os.path.abspath(root)).name) or _shown(root)}"
    body = tag("main", tag("h1", title), paragraph(said, "sub"), whole, class_="wide")
    return document(title, join([Html(_OURS), body]), (), INDEX)


def _row(root: Path, row: IndexRow, beside: Path) -> list[Html | str]:
    name = tag("span", _shown(_relative(row.directory, root)), class_="range")
    found = row.digest
    if found is None:
        said = tag("span", row.problem, class_="bad")
        return [NOTHING, join([tag("span", "cannot be read"), name]), said, *[NOTHING] * (len(_COLUMNS) - 3)]
    return [
        join([tag("span", found.created_at[:10], class_="unbroken"), f" {found.created_at[11:16]}"]),
        join([_link(row, found, beside), name if row.report else ""]),
        found.headline,
        *map(_listed, (found.engines, found.models, found.quantizations, found.scenarios)),
        found.loads or NOTHING,
        found.device,
        _number(found.starts, f"{found.starts:,}"),
        _cells(row.directory, found),
    ]


def _link(row: IndexRow, found: Digest, beside: Path) -> Html:
    """Link to the report; say how to make it where there is none."""
    if row.report is None:
        how = tag("code", f"bench report {_shown(row.directory)}")
        return join([text(found.question), tag("span", "no report: ", how, class_="range")])
    return tag("a", found.question, href=quote(os.fsencode(_relative(row.report, beside))))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or NOTHING


def _number(value: float, shown: str) -> Html:
    """Return a number with what it is sorted by."""
    return tag("span", shown, data_value=f"{value:g}")


def _cells(directory: Path, found: Digest) -> Html:
    is_whole = found.status == "completed" and found.measured == found.cells
    words = f"{found.measured:,} of {found.cells:,}"
    said = "still running" if is_going_on(directory, found.status) else _STATUSES.get(found.status)
    status = "" if found.status == "completed" else f", {said or found.status}"
    return tag("span", words + status, data_value=str(found.measured), class_="" if is_whole else "bad")


_STATUSES = {"running": "no end on record"}


def _relative(path: Path, beside: Path) -> Path:
    return Path(os.path.relpath(path, beside))


def _shown(path: Path | str) -> str:
    """Return a path as text; bytes that are none are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")
