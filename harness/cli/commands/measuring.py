"""`bench run` and `bench search`: plan, provide, measure, and write the report whatever happens."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from engines.model import weights
from harness.cli import terminal
from harness.cli.commands.fleet import run_on
from harness.cli.commands.planning import budget_lines, length_lines, search_lines, skip_lines, with_tasks
from harness.cli.commands.tasks import Task, left_of, new_run, new_search, only, recorded
from harness.cli.ending import print_answers, print_no_answer, print_why_none, report_whatever_happened, tell
from harness.cli.progress import Show
from harness.cli.trust import tell_changed
from harness.contracts import Objective, PlannedStart, Standing
from harness.errors import Interrupted, UserError
from harness.install import install
from harness.plan import plan
from harness.plan.context import context_lines
from harness.quality.due import asking, earlier_references, keep_references
from harness.run import next_starts, session
from harness.run.budget import Budget
from harness.run.room import check_space
from harness.run.search import Search, Trial
from harness.run.watch import Site
from harness.selftest import known_error
from harness.settings import config, overrides
from harness.store import store
from harness.store.named_files import RUN_FILE


def run(
    changes: terminal.Overrides = None,
    study: terminal.Study = None,
    output: terminal.Output = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Measure what a run lacks; repeats=N: N in all.")
    ] = None,
    only_repeat: Annotated[
        int | None,
        typer.Option(metavar="K", help="Measure only the K-th repeat, for `bench merge`."),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(metavar="ray[:HOST:PORT]", help="Measure each repeat on a node of a Ray cluster."),
    ] = None,
    as_json: terminal.Json = False,
    quiet: terminal.Quiet = False,
) -> None:
    if on is not None:
        if resume or only_repeat is not None:
            raise UserError(f"--on {on}: is for a whole new run; leave --resume and --only-repeat out")
        settings = config.settings(overrides.parse(changes or [], study))
        run_on(on, settings, output, quiet=quiet, as_json=as_json)
        return
    with _held(resume):
        if resume is None:
            task = new_run(overrides.parse(changes or [], study), output)
            task = task if only_repeat is None else only(task, only_repeat)
        elif only_repeat is not None:
            raise UserError("--only-repeat: --resume measures the repeats that a run has; leave one out")
        else:
            task = left_of(resume, *recorded(resume, changes, study, output))
            tell_changed(resume, is_held=True)
        perform(task, Show(quiet=quiet), as_json=as_json)


def search(
    changes: terminal.Overrides = None,
    study: terminal.Study = None,
    output: terminal.Output = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Repeat the starts that were not finished.")
    ] = None,
    as_json: terminal.Json = False,
    quiet: terminal.Quiet = False,
) -> None:
    """Find the highest load that keeps every objective (slo.*), on each server start.

    The load is a number of users, or with search.over=rate of conversations begun per second. It is doubled
    from search.lowest until an objective is broken, then bisected to within search.precision. If the lowest
    load breaks an objective, one user is tried, or lower rates down to a sixteenth. Without search.lowest,
    rates begin where a window has four conversations. A load that is not clear gets up to search.trials
    windows, each with fresh prompts.

    Servers are told to serve search.highest users at once (at most 64), or 8 if it is not given. For rates it
    is what search.highest needs at 10 output tokens/s, at most 64. Further requests wait.
    engine.concurrent_sequences=N sets another number.

    A trial takes load.warmup and load.duration, and then waits for the requests in flight (at most
    load.timeout). While fewer than load.min_requests were sent in its window and have ended, the window is
    extended, up to load.steps (4) times load.duration. A trial ends early once more than half of the last
    requests have failed (load.max_failed).
    """
    with _held(resume):
        if resume is None:
            task = new_search(overrides.parse(changes or [], study), output)
        else:
            record, _ = recorded(resume, changes, study, output)
            if record.search is None:
                raise UserError(f"{resume}: is not a search; resume it with `bench run --resume {resume}`")
            task = left_of(resume, record, None)
            tell_changed(resume, is_held=True)
        perform(task, Show(quiet=quiet), as_json=as_json)


@contextmanager
def _held(resumed: Path | None) -> Iterator[None]:
    """Lock a run that is resumed before it is read, so that no other bench measures what it lacks."""
    is_run = resumed is not None and (resumed / RUN_FILE).is_file()
    with session.sole_writer(resumed) if resumed and is_run else nullcontext():
        yield


def _task_lines(task: Task) -> Iterator[str]:
    """Say what is about to be done, and how long it takes."""
    asked, has_cells = asking(task.quality, task.starts), any(start.cells for start in task.starts)
    if task.search:
        yield from search_lines(task.search, task.whole, asked)
        if not has_cells:
            yield "every start is finished; nothing to search"
    else:
        left = plan.estimated(replace(task.whole, starts=tuple(task.starts)))
        yield from context_lines(task.whole.starts)
        yield from length_lines(left, task.settings.until if task.may_grow else None, asked)
        yield from budget_lines(left, task.settings.budget_s)
        if not has_cells:
            then = "going on with until" if task.may_grow else "nothing to measure"
            yield f"every cell is completed; {then}{f'; {task.more} measures more' if task.more else ''}"


def measured(task: Task, show: Show, *, as_json: bool) -> tuple[Path, dict[str, Any]]:
    """Provide what a task needs, measure it and write its report. Return the directory and what to show."""
    with terminal.signals_interrupt():
        deployments, quality = task.whole.deployments.values(), task.quality
        references = (
            [] if task.record else earlier_references(task.settings.quality, deployments, _reference_folders)
        )
        if references and task.settings.quality.against:
            tell_changed(Path(task.settings.quality.against))
        for line in skip_lines(task.whole.skips):
            show.line(line)
        cache = install.cache_dir()
        # A block that `until` adds starts every deployment again.
        needed = task.whole.starts if task.may_grow else task.starts
        try:
            quality = quality and with_tasks(quality, cache, show.line)
            site = session.provide_site(task.settings, needed, weights, cache, show)
        except Interrupted:
            show.line("nothing was measured yet; what is installed stays: give the same command again")
            raise
        for line in _task_lines(task):
            show.line(line)
        until = task.settings.until if task.may_grow else None
        check_space(task.directory or session.RESULTS, task.starts, until, asks_quality=quality is not None)
        with _directory_of(task) as directory:
            keep_references(references, directory)
            record = task.record or session.begin(
                directory, task.settings, task.whole, known_error.find(cache), task.search, task.only_repeat
            )
            try:
                _measure(task, directory, record, replace(site, quality=quality), show)
            except Interrupted as error:
                _tell_interrupted(task, directory, error, show, as_json=as_json)
                raise
            except BaseException:
                report_whatever_happened(directory, show, task.judge)
                raise
            found = report_whatever_happened(directory, show, task.judge)
            if not found:
                if as_json and not task.search:
                    print_no_answer(directory, 1)
                raise typer.Exit(1)
    return directory, found


def _directory_of(task: Task) -> AbstractContextManager[Path]:
    """Make and lock the directory of a new run. A resumed run is locked already (see _held)."""
    if task.record and task.directory:
        return nullcontext(task.directory)
    return session.new_directory(task.directory, *task.settings.scenario_names)


def _reference_folders(run_dir: Path) -> Mapping[str, Path]:
    from reports.data import reference_folders  # pandas takes a second to import

    return reference_folders(run_dir)


def perform(task: Task, show: Show, *, as_json: bool, after: Callable[[Path], object] = str) -> None:
    """Measure a task, show the result, then call `after` with its directory.

    Raises typer.Exit if a cell failed or is invalid, or if a start of a search failed.
    """
    directory, found = measured(task, show, as_json=as_json)
    again, report = task.again(directory), str(directory / "report.html")
    if task.search:
        failed = print_answers(directory, report, as_json=as_json)
        said = f"{failed} of {len(task.whole.starts)} starts failed; {again} repeats them"
    else:
        cells = store.read_cells(directory)
        failed = sum(not cell.counts for cell in cells)
        said = f"{failed} of {len(cells)} cells failed or are invalid; {again} measures them again"
        tell(found, report, int(failed > 0), show, as_json=as_json)
        if show.console.quiet and failed == len(cells) > 0:
            print_why_none(found)
    if failed:
        show.line(said)
    after(directory)
    if failed:
        raise typer.Exit(1)


def _tell_interrupted(task: Task, directory: Path, error: Interrupted, show: Show, *, as_json: bool) -> None:
    """Report what was measured and how to go on."""
    goes_on = f"{task.again(directory)} goes on with it"
    if task.claim:
        goes_on += f", then `bench claim {task.claim} --from {directory}` judges it"
    if any(cell.counts for cell in store.read_cells(directory)):
        found = report_whatever_happened(directory, show, task.judge)
    else:
        show.close_panel()
        show.line(f"nothing was measured yet; {goes_on}", is_whole=True)
        found = None
    if not found:
        if as_json and not task.search:
            print_no_answer(directory, error.exit_code)
        return
    report = str(directory / "report.html")
    if not task.search:
        tell(found, report, error.exit_code, show, as_json=as_json)
    elif not as_json:
        terminal.print_lines([report])
    left = left_of(directory, store.read_run(directory), None)
    show.line(
        goes_on if left.starts or left.may_grow or task.claim else "all was measured before that",
        is_whole=True,
    )


def _measure(task: Task, directory: Path, record: store.RunRecord, site: Site, show: Show) -> None:
    if not task.starts and not task.may_grow:
        session.end(directory, record)
        return
    run = session.go_on(directory, record, site.provisions)
    # A single repeat is not resumed by itself: a cluster's driver, say, goes on with the whole run.
    again = "" if record.only_repeat else task.again(directory)
    site.guard.before_run(again, show.line, is_attached=task.settings.is_attached)
    until, is_search = task.settings.until, task.search is not None
    budget = Budget(until.budget_s if until else task.settings.budget_s, task.starts)
    limit = None if until or is_search else budget
    show.begin(task.starts, task.whole.blocks, limit, may_grow=task.may_grow, is_search=is_search)
    if task.search:
        trials = Search(run, task.search, task.settings.seed, _trial, show)
        session.measure(run, task.starts, site, trials.next_cell)
        return
    starts: Iterable[PlannedStart]
    if task.may_grow:
        from reports.measures.over_starts import precisions

        starts = next_starts.growing(run, task.starts, task.whole, task.settings, precisions, show)
    else:
        starts = next_starts.fitting(run, task.starts, budget, show)
    starts = next_starts.with_standings(run, starts, _standings, show)
    site = site if until else replace(site, budget=budget)
    session.measure(run, next_starts.and_again(run, starts, budget, show), site)


def _standings(directory: Path, repeats: int) -> Sequence[Standing]:
    from reports.words.told import standings

    return standings(directory, repeats)


def _trial(directory: Path, load: float, numbers: Sequence[int], slo: Sequence[Objective]) -> Trial:
    from reports.measures.slo import trial

    found = trial(directory, numbers, slo)
    return Trial(load, found.verdict, found.meets, len(numbers), found.words, found.problem)
