"""Commands that measure, or say what would be: `run`, `plan`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.markup import escape

from harness import config, install, limits, overrides, plan
from harness.commands.arguments import (
    Json,
    Overrides,
    Quiet,
    Study,
    out,
    print_json,
    signals_ignored,
    signals_interrupt,
)
from harness.config import Settings
from harness.context_fit import context_lines
from harness.errors import BenchError, Interrupted, UserError
from harness.plan_text import skip_lines, unmatched
from harness.progress import Show
from harness.provision import check_builds, device_of, why_not_here

# harness.session, store, known_error and listing are imported by the commands that need them: with pyarrow
# and numpy, which take longer than all of `bench fit`.
if TYPE_CHECKING:
    from harness.store import RunRecord


def run(
    changes: Overrides = None,
    study: Study = None,
    output: Annotated[
        Path | None, typer.Option(help="Directory of this run; new or empty.", show_default="results/<time>")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Measure what a run lacks: failed, invalid or missing.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Start each server in turn, play the same conversations at it, and write one report."""
    from harness import session, store

    if resume is not None:
        if changes or study or output:
            raise UserError("--resume takes the run's own settings; give no keys, --from or --output with it")
        record = store.read_run(resume)
        _measure(resume, record, quiet, session.settings_of(record))
        return
    settings = config.settings(overrides.parse(changes or [], study))
    if output is not None:
        session.check_output(output)
    _measure(output, None, quiet, settings)


def _measure(directory: Path | None, record: RunRecord | None, quiet: bool, settings: Settings) -> None:
    """Measure a new run, or what a recorded one lacks; print where its report is."""
    from engines import weights
    from engines.weights.facts import most_context
    from harness import known_error, session

    can_prepare = partial(weights.can_prepare, cache=install.cache_dir())
    is_new = record is None
    whole = plan.make(settings, can_prepare, why_not_here(device_of(settings)), most_context, is_new=is_new)
    starts = session.missing_starts(directory, record, whole) if record and directory else whole.starts
    with signals_interrupt(), Show(quiet=quiet) as show:
        for line in (*skip_lines(whole.skips), *context_lines(whole.starts)):
            show.line(line)
        if not whole.starts:
            raise UserError("nothing to run: every combination was skipped")
        if not starts:
            show.line("every cell is completed; nothing to measure")
        provisions, site = session.provision(settings, starts, weights, install.cache_dir(), show)
        directory = directory or session.new_run_dir(Path("results"), settings)
        with session.sole_writer(directory):
            record = record or session.begin(
                directory, settings, whole, known_error.find(install.cache_dir())
            )
            try:
                cells = session.measure(directory, record, starts, provisions, site, show) if starts else []
            except Interrupted as interrupted:
                if quiet:
                    raise
                show.line(f"interrupted; `bench run --resume {directory}` measures what is missing")
                raise typer.Exit(interrupted.exit_code) from None
            finally:
                _report_whatever_happened(directory, show)
    out.print(escape(str(directory / "report.html")))
    failed = sum(not cell.counts for cell in cells)
    if failed:
        show.line(
            f"{failed} of {len(cells)} cells failed or are invalid; "
            f"`bench run --resume {directory}` measures them again"
        )
        raise typer.Exit(1)


def _report_whatever_happened(directory: Path, show: Show) -> None:
    """Write the report also after Ctrl-C, undisturbed by another; a failure here must not hide the first."""
    from reports import write_report

    show.line("writing the report")
    with signals_ignored():
        try:
            write_report(directory)
        except (BenchError, OSError) as error:
            show.line(f"the report could not be written: {error}; try `bench report {directory}`")


def plan_command(changes: Overrides = None, study: Study = None, as_json: Json = False) -> None:
    """Show what a run would do, in order, with what is skipped and why. Starts nothing."""
    from engines import weights
    from engines.weights.facts import most_context
    from harness import listing

    settings = config.settings(overrides.parse(changes or [], study))
    can_prepare = partial(weights.can_prepare, cache=install.cache_dir())
    device = device_of(settings)
    whole = plan.make(settings, can_prepare, why_not_here(device), most_context)
    check_builds(device, [start.deployment for start in whole.starts])
    limits.check_files(whole.starts)
    if as_json:
        print_json({**msgspec.to_builtins(whole), "unmatched": unmatched(whole)})
    else:
        listing.print_plan(out, whole)
    if not whole.starts:
        raise UserError("nothing to run: every combination was skipped")
