"""What ends each measurement, whatever became of it: its report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.markup import escape

from harness.cli.arguments import out, signals_ignored
from harness.cli.progress.progress import Show
from harness.errors import BenchError, Interrupted


@contextmanager
def reported(directory: Path, show: Show, again: str, *, as_json: bool = False) -> Iterator[None]:
    """Write the report after the block, whatever happened in it. An interrupt ends the command, with the path
    of the report (not `as_json`: stdout is for JSON alone), and `again`, what goes on with it, in a line."""
    try:
        yield
    except Interrupted as interrupted:
        show.line(f"interrupted; {again}")
        if report_whatever_happened(directory, show) and not as_json:
            out.print(escape(str(directory / "report.html")))
        if show.quiet:
            raise
        raise typer.Exit(interrupted.exit_code) from None
    except BaseException:
        report_whatever_happened(directory, show)
        raise
    else:
        report_whatever_happened(directory, show)


def report_whatever_happened(directory: Path, show: Show) -> bool:
    """Write the report undisturbed by another Ctrl-C, and say what it says in a line; whether it was written.
    A failure here must not hide the first."""
    from reports import write_report
    from reports.answering.digest import digest

    show.close_panel()
    show.line("writing the report")
    with signals_ignored():
        try:
            write_report(directory)
            show.line(digest(directory).headline)
            return True
        except (BenchError, OSError) as error:
            show.line(f"the report could not be written: {error}; try `bench report {directory}`")
            return False
