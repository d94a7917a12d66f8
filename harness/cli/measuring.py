"""Commands that measure, or say what would be: `run`, `plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.markup import escape

from harness.cli import searching
from harness.cli.arguments import Json, Overrides, Quiet, Study, out, print_json, signals_interrupt
from harness.cli.finishing import reported
from harness.cli.planning import check_goals, expectation, planned
from harness.cli.progress.progress import Show
from harness.cli.show.plan_text import length_lines, skip_lines, unmatched
from harness.contracts import Plan, PlannedStart, Precision
from harness.errors import UserError
from harness.install import install
from harness.install.provision import check_builds, device_of
from harness.load import limits
from harness.plan import plan
from harness.plan.context_fit import context_lines
from harness.run.growth import Growth
from harness.settings import config, overrides
from harness.settings.config import Settings

# harness.run.session, store, known_error and listing are imported by the commands that need them: with
# pyarrow and numpy, which take longer than all of `bench fit`.
if TYPE_CHECKING:
    from harness.store.store import CellRecord, RunRecord


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
    from harness.run import session
    from harness.store import store

    if resume is not None:
        if changes or study or output:
            raise UserError("--resume takes the run's own settings; give no keys, --from or --output with it")
        record = store.read_run(resume)
        if record.search is not None:
            searching.go_on(resume, quiet=quiet)
        else:
            _measure(resume, record, quiet, session.settings_of(record))
        return
    settings = config.settings(overrides.parse(changes or [], study))
    if output is not None:
        session.check_output(output)
    _measure(output, None, quiet, settings)


def _measure(directory: Path | None, record: RunRecord | None, quiet: bool, settings: Settings) -> None:
    """Measure a new run, or what a recorded one lacks; print where its report is."""
    from harness.run import session

    is_new = record is None
    whole = planned(settings, is_new=is_new, repeats=record.plan.blocks if record else None)
    if is_new:
        check_goals(settings, whole)
    starts = session.missing_starts(directory, record, whole) if record and directory else whole.starts
    # A run that until had ended goes on only where some of it is measured again.
    has_ended = record is not None and record.stopped_because is not None and not starts
    growth = None if has_ended else _growth(settings, whole)
    with signals_interrupt(), Show(quiet=quiet) as show:
        for line in (*skip_lines(whole.skips), *context_lines(whole.starts)):
            show.line(line)
        if not whole.starts:
            raise UserError("nothing to run: every combination was skipped")
        if not starts:
            show.line(
                "every cell is completed; " + ("going on with until" if growth else "nothing to measure")
            )
        directory, cells = _measured(settings, directory, record, whole, starts, growth, show)
    out.print(escape(str(directory / "report.html")))
    failed = sum(not cell.counts for cell in cells)
    if failed:
        show.line(
            f"{failed} of {len(cells)} cells failed or are invalid; "
            f"`bench run --resume {directory}` measures them again"
        )
        raise typer.Exit(1)


def _measured(
    settings: Settings,
    directory: Path | None,
    record: RunRecord | None,
    whole: Plan,
    starts: Sequence[PlannedStart],
    growth: Growth | None,
    show: Show,
) -> tuple[Path, Sequence[CellRecord]]:
    """Measure these starts and what `until` adds, and write the report, whatever happens; the run's directory
    and the cells of this call."""
    from engines.model import weights
    from harness.run import session
    from harness.selftest import known_error
    from harness.store import store

    # What is added starts every deployment again.
    needed = whole.starts if growth else starts
    provisions, site = session.provision(settings, needed, weights, install.cache_dir(), show)
    left = plan.estimated(replace(whole, starts=tuple(starts)), expectation(settings)) if record else whole
    for line in length_lines(left, settings.until if growth else None):
        show.line(line)
    directory = directory or session.new_run_dir(Path("results"), settings)
    with session.sole_writer(directory):
        record = record or session.begin(directory, settings, whole, known_error.find(install.cache_dir()))
        with reported(directory, show, f"`bench run --resume {directory}` measures what is missing"):
            if not (starts or growth):
                if record.status != "completed":  # killed after its last cell
                    store.end_run(directory, record, "completed", session.now())
                return directory, ()
            return directory, session.measure(directory, record, starts, provisions, site, show, growth)


def _growth(settings: Settings, whole: Plan) -> Growth | None:
    """What the run grows by, with `until`."""
    until = settings.until
    if until is None:
        return None

    def precisions(directory: Path) -> Sequence[Precision]:
        from reports.comparing.precision import precisions

        return precisions(directory, until.metric)

    return Growth(settings, until, whole, precisions, expectation(settings))


def plan_command(changes: Overrides = None, study: Study = None, as_json: Json = False) -> None:
    """Show what a run would do, in order, with what is skipped and why. Starts nothing."""
    from harness.cli.show import listing

    settings = config.settings(overrides.parse(changes or [], study))
    whole = planned(settings)
    check_goals(settings, whole)
    check_builds(device_of(settings), [start.deployment for start in whole.starts])
    limits.check_files(whole.starts)
    if as_json:
        print_json({**msgspec.to_builtins(whole), "unmatched": unmatched(whole)})
    else:
        listing.print_plan(out, whole, settings.until)
    if not whole.starts:
        raise UserError("nothing to run: every combination was skipped")
