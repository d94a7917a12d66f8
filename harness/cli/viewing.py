"""The index of all runs: `view`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import track

from harness.cli.arguments import Json, complaints, out, print_json


def view(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The directory that has the runs, also some levels below.")
    ] = Path("results"),
    output: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="DIR/index.html")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write an index of all runs in a directory: one page, a row per run with its headline, newest first.

    Each row leads to the run's report. Open the page in a browser; it needs no server.
    """
    from reports.page.index_page import as_plain, find_runs, index_row, newest_first, write_index

    found = find_runs(directory)
    progress = track(
        found,
        "reading runs",
        console=complaints,
        transient=True,
        disable=not complaints.is_terminal,
    )
    rows = [index_row(each) for each in progress]
    if output is not None or not as_json:
        path = write_index(directory, rows, output)
    if as_json:
        print_json([as_plain(row) for row in newest_first(rows)])
    else:
        out.print(escape(str(path)))
