"""Commands that read results directories: `report`, `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from harness.commands.arguments import Json, out, print_json


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")],
    output: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="DIR/report.html")
    ] = None,
) -> None:
    """Write a run's report again. Needs the directory alone."""
    from reports import write_report

    out.print(escape(str(write_report(directory, output))))


def compare(
    a: Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")],
    b: Annotated[Path, typer.Argument(metavar="DIR", help="Another.")],
    as_json: Json = False,
) -> None:
    """Put the values of two runs side by side, after what differs in how they were made."""
    from harness.compare_text import print_comparison
    from reports import compare_runs, to_builtins

    comparison = compare_runs(a, b)
    if as_json:
        print_json(to_builtins(comparison))
    else:
        print_comparison(out, comparison)
