"""`bench run`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from harness.cli import searching
from harness.cli.arguments import Overrides, Quiet, Study, out
from harness.cli.planning import planned
from harness.cli.progress.progress import Show
from harness.cli.session import Task, measured, recorded
from harness.cli.show.plan_text import length_lines
from harness.contracts import Precision
from harness.plan import plan
from harness.plan.terms import context_lines
from harness.run import resume as resuming
from harness.run import session
from harness.run.site import Site
from harness.run.until import growing
from harness.settings import config, overrides
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
    settings = resuming.settings_of(record)
    whole = planned(settings, is_new=False, repeats=record.plan.blocks)
    starts = resuming.missing_starts(directory, record, whole)
    may_grow = settings.until is not None and (bool(starts) or record.stopped_because is None)
    left = plan.estimated(replace(whole, starts=tuple(starts)))
    about = [*context_lines(whole.starts)]
    if not starts:
        then = "going on with until" if may_grow else "nothing to measure"
        about.append(f"every cell is completed; {then}")
    lines = length_lines(left, settings.until if may_grow else None)
    return Task(settings, whole, starts, directory, record, may_grow=may_grow, about=about, lines=lines)


def _run(task: Task, *, quiet: bool) -> None:
    """Measure a run, and print where its report is."""

    def measure(run: Kept[RunRecord], site: Site) -> Sequence[CellRecord]:
        show.begin(task.starts, may_grow=task.may_grow)
        grown = growing(run, task.starts, task.whole, task.settings, _precisions, show)
        return session.measure(run, grown if task.may_grow else task.starts, site)

    show = Show(quiet=quiet)
    directory, cells = measured(task, measure, show)
    out.print(escape(str(directory / "report.html")))
    failed = sum(not cell.counts for cell in cells)
    if failed:
        again = f"`bench run --resume {directory}` measures them again"
        show.line(f"{failed} of {len(cells)} cells failed or are invalid; {again}")
        raise typer.Exit(1)


def _precisions(directory: Path, metric: str) -> Sequence[Precision]:
    from reports.verdicts.precision import precisions

    return precisions(directory, metric)
