"""What ends each measurement, whatever became of it: its report."""

from __future__ import annotations

from pathlib import Path

from harness.commands.arguments import signals_ignored
from harness.errors import BenchError
from harness.progress import Show


def report_whatever_happened(directory: Path, show: Show) -> None:
    """Write the report also after Ctrl-C, undisturbed by another, and say what it says in a line; a failure
    here must not hide the first."""
    from reports import write_report
    from reports.digest import digest

    show.close_panel()
    show.line("writing the report")
    with signals_ignored():
        try:
            write_report(directory)
            show.line(digest(directory).headline)
        except (BenchError, OSError) as error:
            show.line(f"the report could not be written: {error}; try `bench report {directory}`")
