"""`bench search`: the highest load that keeps the objectives."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from harness.cli.arguments import Json, Overrides, Quiet, Study, out, print_json
from harness.cli.planning import planned
from harness.cli.progress.progress import Show
from harness.cli.session import Task, measured, recorded
from harness.contracts import Objective, Plan, SearchTerms
from harness.errors import UserError
from harness.run import resume as resuming
from harness.run import session
from harness.run.search import Judged, Search, prepared, starts_left
from harness.run.site import Site
from harness.settings import config, overrides
from harness.settings.units import counted, duration_text
from harness.store.store import CellRecord, Kept, RunRecord


def search(
    changes: Overrides = None,
    study: Study = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Directory of this search; new or empty.", show_default="results/<time>"),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Repeat the starts that did not come to their end."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the highest load that keeps every objective (slo.*), on each server start.

    Over users, or with search.over=rate over conversations begun per second: doubled from search.lowest until
    an objective is broken, then bisected to within search.precision. If the lowest breaks one, lower rates
    are tried, down to a sixteenth; without search.lowest it is where a window has four conversations. A load
    that is not clear gets up to search.trials windows, each with fresh prompts.

    Servers are told to serve search.highest users at once where that is given, at most 64, else 8; of rates,
    what search.highest needs at 10 output tokens/s, at most 64. More of them wait.
    engine.concurrent_sequences=N says it otherwise.

    A trial takes load.warmup, load.duration and what is still under way then, load.timeout at most. While
    fewer than load.min_requests have been sent in it and ended it goes on, up to load.steps (4) times
    load.duration. It ends early once half of the last requests failed (load.max_failed).
    """
    if resume is not None:
        go_on(resume, recorded("search", resume, changes, study, output), quiet=quiet, as_json=as_json)
        return
    settings, terms = config.search_settings(overrides.parse(changes or [], study))
    if output is not None:
        session.check_output(output)
    settings = prepared(settings, terms)
    whole = planned(settings)
    task = Task(settings, whole, whole.starts, output, None, terms, about=lines(terms, whole))
    _search(task, quiet=quiet, as_json=as_json)


def go_on(directory: Path, record: RunRecord, *, quiet: bool, as_json: bool = False) -> None:
    """Resume the search in this directory. Raises UserError if it is a run."""
    if record.search is None:
        raise UserError(f"{directory}: is a run, no search; go on with `bench run --resume {directory}`")
    settings, terms = config.search_settings(resuming.choices_of(record))
    settings = prepared(settings, terms)
    whole = planned(settings, is_new=False)
    record, left = starts_left(directory, record, whole)
    about = lines(terms, whole)
    if not left:
        about.append("every start came to its end; nothing to search")
    task = Task(settings, whole, left, directory, record, terms, about=about)
    _search(task, quiet=quiet, as_json=as_json)


def _search(task: Task, *, quiet: bool, as_json: bool) -> None:
    """Measure a search, and print its answers and where its report is."""

    def measure(run: Kept[RunRecord], site: Site) -> Sequence[CellRecord]:
        show.begin(task.starts, is_search=True)
        judge = partial(_judged, slo=task.settings.slo)
        trials = Search(run, task.settings.seed, judge, show)
        return session.measure(run, task.starts, site, trials.next_cell)

    show = Show(quiet=quiet)
    directory, _ = measured(task, measure, show, as_json=as_json)
    failed = _print_answers(directory, as_json=as_json)
    if failed:
        again = f"`bench search --resume {directory}` repeats them"
        show.line(f"{failed} of {len(task.whole.starts)} starts failed; {again}")
        raise typer.Exit(1)


def lines(terms: SearchTerms, planned: Plan) -> list[str]:
    """Say what a search is about to do."""
    unit = "users" if terms.over == "concurrency" else "conversations per second"
    said = [
        f"searching from {terms.lowest:g} to {terms.highest:g} {unit} on each of "
        f"{counted(len(planned.starts), 'start')}; with one trial on each about "
        f"{duration_text(planned.estimate_s)}, and how many there will be depends on what is found"
    ]
    told = {count for start in planned.starts if (count := start.deployment.terms.concurrent_sequences)}
    if told:
        counts = ", ".join(map(str, sorted(told)))
        said.append(
            f"servers are told to serve {counts} requests at once, more of them wait "
            "(engine.concurrent_sequences=N)"
        )
    return said


def _judged(directory: Path, numbers: Sequence[int], slo: Sequence[Objective]) -> Judged:
    from reports.measures.slo import trial

    found = trial(directory, numbers, slo)
    return Judged(found.verdict, found.meets, found.words, found.problem)


def _print_answers(directory: Path, *, as_json: bool) -> int:
    """Print each deployment's answer and the report's path. Return how many starts did not end."""
    from reports import open_run
    from reports.checks.examine import SIGN, marks_of_capacity
    from reports.verdicts.searches import capacities_of
    from reports.words.search_text import as_plain, words

    run = open_run(directory)
    capacities, report = capacities_of(run), str(directory / "report.html")
    has_scenarios = len({each.scenario for each in capacities}) > 1
    if as_json:
        print_json({"answers": [as_plain(run, each) for each in capacities], "report": report})
    else:
        for each in capacities:
            scenario = f", {each.scenario}" if has_scenarios else ""
            out.print(escape(f"{each.deployment}{scenario}: {words(run, each)}"))
        if any(marks_of_capacity(run, each) for each in capacities):
            out.print(f"{SIGN} n: n reasons to distrust it; the report says which")
        out.print(escape(report))
    return sum(not answer.is_whole for each in capacities for answer in each.answers)
