"""What `bench run` and `bench search` do alike: provide, measure, and write the report whatever happens."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.markup import escape

from engines.model import weights
from harness.cli.arguments import out, signals_ignored, signals_interrupt
from harness.cli.planning import check_any
from harness.cli.progress.progress import Show
from harness.cli.show.plan_text import skip_lines
from harness.contracts import Plan, PlannedStart, SearchTerms
from harness.errors import BenchError, Interrupted, UserError
from harness.install import install
from harness.run import session
from harness.run.site import Site
from harness.selftest import known_error
from harness.settings.config import Settings
from harness.store import store
from harness.store.store import CellRecord, Kept, RunRecord


@dataclass(frozen=True)
class Task:
    """What a command is to measure: a new run or search, or what a recorded one lacks.

    `starts` are those to measure. Without a `directory` one is made, without a `record` the run is new.
    `search` is None for a run. What it is `about` is said first, `lines` once all is provided.
    """

    settings: Settings
    whole: Plan
    starts: Sequence[PlannedStart]
    directory: Path | None
    record: RunRecord | None
    search: SearchTerms | None = None
    may_grow: bool = False
    about: Sequence[str] = ()
    lines: Sequence[str] = ()

    @property
    def verb(self) -> str:
        return "search" if self.search else "run"


# Measures a task whose run.json is there.
Measure = Callable[[Kept[RunRecord], Site], Sequence[CellRecord]]


def recorded(
    what: str, directory: Path, changes: list[str] | None, study: Path | None, output: Path | None
) -> RunRecord:
    """Read the record that --resume names. Raises UserError for settings beside it."""
    if changes or study or output:
        raise UserError(f"--resume takes the {what}'s own settings; give no keys, --from or --output with it")
    return store.read_run(directory)


def measured(
    task: Task, measure: Measure, show: Show, *, as_json: bool = False
) -> tuple[Path, Sequence[CellRecord]]:
    """Measure a task and write the report, whatever happens.

    Return its directory, and the records of the cells that were measured now. Raises UserError if every
    combination of the plan is skipped.
    """
    with signals_interrupt(), show:
        for line in (*skip_lines(task.whole.skips), *task.about):
            show.line(line)
        check_any(task.whole, task.verb)
        cache = install.cache_dir()
        # A block that is added starts every deployment again.
        needed = task.whole.starts if task.may_grow else task.starts
        site = session.provide_site(task.settings, needed, weights, cache, show)
        for line in task.lines:
            show.line(line)
        directory = task.directory or session.new_run_dir(Path("results"), task.settings)
        goes_on = "searches on the starts left" if task.search else "measures what is missing"
        again = f"`bench {task.verb} --resume {directory}` {goes_on}"
        with session.sole_writer(directory):
            record = task.record or session.begin(
                directory, task.settings, task.whole, known_error.find(cache), task.search
            )
            with _reported(directory, show, again, as_json=as_json):
                if task.starts or task.may_grow:
                    return directory, measure(session.go_on(directory, record, site.provisions), site)
                session.end(directory, record)
                return directory, ()


@contextmanager
def _reported(directory: Path, show: Show, again: str, *, as_json: bool) -> Iterator[None]:
    """Write the report after the block, whatever happened in it.

    An interrupt ends the command with a line on what goes on with it, and the path of the report (not
    `as_json`: stdout is for JSON alone).
    """
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
    report_whatever_happened(directory, show)


def report_whatever_happened(directory: Path, show: Show) -> bool:
    """Write the report undisturbed by another Ctrl-C, and say what it says in a line.

    Return whether it was written: a failure here must not hide the first.
    """
    from reports import write_report
    from reports.words.digest import digest

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
