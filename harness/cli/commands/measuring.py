"""`bench run` and `bench search`: plan, provide, measure, and write the report whatever happens."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving_bench.engines.model import weights
from serving_bench.harness.cli import interim, terminal
from serving_bench.harness.cli.commands.fleet import run_on
from serving_bench.harness.cli.commands.jobs import (
    Job,
    left_of,
    new_job,
    new_plan,
    resumed_job,
    typed_settings,
)
from serving_bench.harness.cli.commands.planning import (
    budget_lines,
    length_lines,
    search_lines,
    skip_lines,
    with_tasks,
)
from serving_bench.harness.cli.ending import (
    print_no_answer,
    print_why_none,
    report_whatever_happened,
    reported,
    tell,
    unfinished,
)
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.cli.trust import tell_changed
from serving_bench.harness.errors import Interrupted, ReportError, UserError
from serving_bench.harness.install import install
from serving_bench.harness.install.provision import Tools
from serving_bench.harness.plan import plan
from serving_bench.harness.plan.context import context_lines
from serving_bench.harness.quality.planned import asking, earlier_references, keep_references
from serving_bench.harness.run import next_starts, racing, session
from serving_bench.harness.run.budget import Budget
from serving_bench.harness.run.room import check_space
from serving_bench.harness.run.search import Search
from serving_bench.harness.run.watch import Site
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.store import store

if TYPE_CHECKING:  # it imports pandas
    from serving_bench.reports.data import Run


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
    if on is not None and (resume or only_repeat is not None):
        raise UserError(f"--on {on}: is for a whole new run; leave --resume and --only-repeat out")
    show = Show(quiet=quiet)
    if resume is not None:
        if only_repeat is not None:
            raise UserError("--only-repeat: --resume measures the repeats that a run has; leave one out")
        jobs = resumed_job(resume, changes, study, output)
    else:
        settings = config.settings(overrides.parse(changes or [], study))
        if on is not None:
            run_on(on, settings, output, show, as_json=as_json)
            return
        jobs = new_job(*new_plan(settings, output, only_repeat), output, only_repeat)
    with jobs as job:
        result = perform(job, show, as_json=as_json)
        conclude(job, result, show, as_json=as_json)


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
    if resume is not None:
        jobs = resumed_job(resume, changes, study, output, is_search=True)
    else:
        settings = typed_settings(overrides.parse(changes or [], study), is_search=True)
        jobs = new_job(*new_plan(settings, output), output)
    show = Show(quiet=quiet)
    with jobs as job:
        result = perform(job, show, as_json=as_json)
        conclude(job, result, show, as_json=as_json)


def perform(job: Job, show: Show, *, as_json: bool, claim: str | None = None) -> "Run":
    """Measure a job to its end, and return what to show.

    Raises ReportError and Interrupted, after what there is was shown.
    """
    try:
        outcome = measured(job, show, claim)
    except ReportError as error:
        if as_json:
            print_no_answer(job.directory, error.exit_code)
        raise
    if not isinstance(outcome, Stopped):
        return outcome
    if outcome.run:
        tell(outcome.run, outcome.by.exit_code, show, as_json=as_json)
    elif as_json:
        print_no_answer(job.directory, outcome.by.exit_code)
    raise outcome.by


@dataclass(frozen=True)
class Stopped:
    """What a job came to that a signal ended. `run` is None if it has no report, since it has no value."""

    by: Interrupted
    run: "Run | None"


def measured(job: Job, show: Show, claim: str | None = None) -> "Run | Stopped":
    """Say what a job is, provide what it needs, measure it, and write its report.

    `claim`: the name of a claim that is judged by the run before the report is written. Raises ReportError,
    and Interrupted while what it needs is provided.
    """
    references = _references(job)
    show.lines(skip_lines(job.whole.skips))
    site = _provided(job, show)
    show.lines(_job_lines(job))
    until = job.settings.until if job.may_grow else None
    race = job.whole.race if job.may_grow else None
    check_space(job.directory, job.starts, until, race, asks_quality=job.quality is not None)
    keep_references(references, job.directory)
    try:
        _measure(job, site, show)
    except Interrupted as stop:
        has_values = any(cell.counts for cell in store.read_cells(job.directory))
        run = report_whatever_happened(job.directory, show, claim) if has_values else None
        show.close_panel()
        stop.remark = _what_goes_on(job, claim, has_values=has_values)
        return Stopped(stop, run)
    except BaseException:
        report_whatever_happened(job.directory, show, claim)
        raise
    return reported(job.directory, show, claim)


def conclude(job: Job, run: "Run", show: Show, *, as_json: bool, then: str = "") -> None:
    """Show the result of a run or search, with the line `then` below it.

    Raises typer.Exit if a cell failed or is invalid, or if a start of a search failed.
    """
    if job.settings.search:
        failed = unfinished(run)
        what = f"{failed} of {len(job.whole.starts)} starts failed; {job.again} repeats them"
    else:
        cells = store.read_cells(job.directory)
        failed = sum(not cell.counts for cell in cells)
        race = run.record.plan.race and racing.raced_on(run.record.plan, run.record.plan.race, None)
        going = race.going * race.may_go_on if race else run.record.plan.deployments
        again = sum(not cell.counts and cell.deployment in going for cell in cells)
        what = f"{failed} of {len(cells)} cells failed or are invalid"
        what += f"; {job.again} measures {'them' if again == failed else again} again" if again else ""
    tell(run, int(failed > 0), show, as_json=as_json)
    if not job.settings.search and show.console.quiet and failed == len(run.planned_cells) > 0:
        print_why_none(run)
    if failed:
        show.line(what)
    if then:
        show.line(then, is_whole=True)
    if failed:
        raise typer.Exit(1)


def _references(job: Job) -> list[Path]:
    """Return the folders of the references that a new run takes from an earlier one."""
    earlier = job.settings.quality.against
    if not job.is_new or earlier is None or not Path(earlier).is_dir():
        return []
    from serving_bench.reports.data import reference_folders  # pandas takes a second to import

    run_dir, deployments = Path(earlier), job.whole.deployments.values()
    references = earlier_references(run_dir, deployments, reference_folders(run_dir))
    if references:
        tell_changed(run_dir)
    return references


def _provided(job: Job, show: Show) -> Site:
    """Find or make what the job needs."""
    cache = install.cache_dir()
    # A block that `until` adds starts every deployment again.
    needed = job.whole.starts if job.may_grow else job.starts
    try:
        quality = job.quality and with_tasks(job.quality, Tools(cache, show))
        return session.provide_site(job.directory, job.settings, needed, quality, weights, cache, show)
    except Interrupted as stop:
        stop.remark = "nothing was measured yet; what is installed stays: give the same command again"
        raise


def _job_lines(job: Job) -> Iterator[str]:
    """Say what is about to be done, and how long it takes."""
    questions, has_cells = asking(job.quality, job.starts), any(start.cells for start in job.starts)
    if job.settings.search:
        yield from search_lines(job.settings.search, job.whole, questions)
        if not has_cells:
            yield "every start is finished; nothing to search"
    else:
        left = plan.estimated(replace(job.whole, starts=tuple(job.starts)))
        yield from context_lines(job.whole.starts)
        yield from length_lines(left, job.settings.until if job.may_grow else None, questions)
        yield from budget_lines(left, job.settings.budget_s)
        if not has_cells and job.whole.race:
            then = "the race goes on" if job.may_grow else "the race is over; nothing to measure"
            yield f"{then}{f'; {job.more} measures more' if job.more else ''}"
        elif not has_cells:
            then = "going on with until" if job.may_grow else "nothing to measure"
            yield f"every cell is completed; {then}{f'; {job.more} measures more' if job.more else ''}"


def _what_goes_on(job: Job, claim: str | None, *, has_values: bool) -> str:
    """Say what goes on with a job that a signal has ended."""
    if has_values and not claim:
        left = left_of(job.directory, store.read_run(job.directory))
        if not left.starts and not left.may_grow:
            return "all was measured before that"
    nothing = "" if has_values else "nothing was measured yet; "
    judges = f", then `bench claim {claim} --from {job.directory}` judges it" if claim else ""
    return f"{nothing}{job.again} goes on with it{judges}"


def _measure(job: Job, site: Site, show: Show) -> None:
    """Measure the starts of a job, and those that follow them."""
    settings = job.settings
    if not job.starts and not job.may_grow:
        session.end(job.directory, job.record)
        return
    run = session.begin(job.directory, job.record, site)
    # A single repeat is not resumed by itself: a cluster's driver, say, goes on with the whole run.
    again = "" if run.record.only_repeat else job.again
    site.guard.before_run(again, is_attached=settings.is_attached)
    until = settings.until
    budget = Budget(until.budget_s if until else settings.budget_s, job.starts)
    limit = None if until or settings.search else budget
    is_search = settings.search is not None
    show.begin(job.starts, job.whole.blocks, limit, may_grow=job.may_grow, is_search=is_search)
    if settings.search:
        trials = Search(run, settings.search, settings.seed, interim, show)
        session.measure(run, job.starts, replace(site, next_cell=trials.next_cell))
        return
    if job.whole.race:
        raced = racing.racing(run, job.starts, job.whole, settings, budget, interim, show)
        session.measure(run, raced, replace(site, budget=budget))
        return
    if job.may_grow:
        starts = next_starts.growing(run, job.starts, job.whole, settings, interim, show)
    else:
        starts = next_starts.fitting(run, job.starts, budget, show)
    starts = next_starts.with_standings(run, starts, interim, show)
    site = site if until else replace(site, budget=budget)
    session.measure(run, next_starts.and_again(run, starts, budget, show), site)
