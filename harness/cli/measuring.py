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
from harness.cli.arguments import Json, Overrides, Quiet, Study, out, print_json
from harness.cli.planning import planned
from harness.cli.progress.progress import Show
from harness.cli.session import Task, check_any, measured, recorded
from harness.cli.show.plan_text import length_lines, print_plan, unmatched
from harness.contracts import Precision
from harness.install.startable import check_builds, device_of
from harness.load import limits
from harness.plan import plan
from harness.plan.traffic import context_lines
from harness.settings import config, overrides

# What imports pyarrow, numpy or pandas is imported by the functions that need it: that takes longer than all
# of `bench fit`.
if TYPE_CHECKING:
    from harness.run.site import Site
    from harness.store.store import CellRecord, Kept, RunRecord


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

    if resume is not None:
        record = recorded("run", resume, changes, study, output)
        if record.search is not None:
            searching.go_on(resume, record, quiet=quiet)
        else:
            _run(_resumed(resume, record), quiet=quiet)
        return
    settings = config.settings(overrides.parse(changes or [], study))
    if output is not None:
        session.check_output(output)
    whole = planned(settings)
    task = Task(
        settings, whole, whole.starts, output, None, may_grow=settings.until is not None,
        about=context_lines(whole.starts), lines=length_lines(whole, settings.until),
    )  # fmt: skip
    _run(task, quiet=quiet)


def _resumed(directory: Path, record: RunRecord) -> Task:
    """Return what a recorded run lacks.

    A run that `until` had ended grows only if some of it is measured again.
    """
    from harness.run import resume

    settings = resume.settings_of(record)
    whole = planned(settings, is_new=False, repeats=record.plan.blocks)
    starts = resume.missing_starts(directory, record, whole)
    may_grow = settings.until is not None and (bool(starts) or record.stopped_because is None)
    left = plan.estimated(replace(whole, starts=tuple(starts)))
    about = context_lines(whole.starts)
    if not starts:
        about = [
            *about,
            f"every cell is completed; {'going on with until' if may_grow else 'nothing to measure'}",
        ]
    lines = length_lines(left, settings.until if may_grow else None)
    return Task(settings, whole, starts, directory, record, may_grow=may_grow, about=about, lines=lines)


def _run(task: Task, *, quiet: bool) -> None:
    """Measure a run, and print where its report is."""
    from harness.run import session
    from harness.run.until import growing

    def measure(run: Kept[RunRecord], site: Site) -> Sequence[CellRecord]:
        show.begin(task.starts, may_grow=task.may_grow)
        if not task.may_grow:
            return session.measure(run, task.starts, site)
        starts = growing(run, task.starts, task.whole, task.settings, _precisions, show)
        return session.measure(run, starts, site)

    show = Show(quiet=quiet)
    directory, cells = measured(task, measure, show)
    out.print(escape(str(directory / "report.html")))
    failed = sum(not cell.counts for cell in cells)
    if failed:
        again = f"`bench run --resume {directory}` measures them again"
        show.line(f"{failed} of {len(cells)} cells failed or are invalid; {again}")
        raise typer.Exit(1)


def _precisions(directory: Path, metric: str) -> Sequence[Precision]:
    from reports.comparing.precision import precisions

    return precisions(directory, metric)


def plan_command(changes: Overrides = None, study: Study = None, as_json: Json = False) -> None:
    """Show what a run would do, in order, with what is skipped and why. Starts nothing."""
    settings = config.settings(overrides.parse(changes or [], study))
    whole = planned(settings)
    check_builds(device_of(settings), [start.deployment for start in whole.starts])
    limits.check_files(whole.starts)
    if as_json:
        print_json({**msgspec.to_builtins(whole), "unmatched": unmatched(whole)})
    else:
        print_plan(out, whole, settings.until)
    check_any(whole, "run")
