"""`bench merge`: one run of the repeats that several machines measured."""

import time
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import terminal
from harness.cli.ending import report_whatever_happened, tell
from harness.cli.progress import Show
from harness.run import session
from harness.store.merge import merge


def merge_command(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Runs, each of other repeats.")],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Directory of the whole run; new or empty.", show_default="results/<time>"
        ),
    ] = None,
    as_json: terminal.Json = False,
    quiet: terminal.Quiet = False,
) -> None:
    """Join runs of single repeats of one plan, measured on several machines, into one run.

    A single repeat is what `bench run --only-repeat K` measures. Each has all deployments on one machine, so
    that what tells machines apart is in no difference between deployments. The folders stay as they are.
    """
    session.check_output(output)
    directory = output or session.RESULTS / time.strftime("%Y%m%d-%H%M%S-merged")
    show = Show(quiet=quiet)
    with session.sole_writer(directory):
        merge(folders, directory)
    found = report_whatever_happened(directory, show)
    if not found:
        raise typer.Exit(1)
    tell(found, str(directory / "report.html"), 0, show, as_json=as_json)
