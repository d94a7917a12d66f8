"""`bench search`: the highest load that keeps the objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from harness.cli.arguments import Json, Overrides, Quiet, Study, out, print_json, signals_interrupt
from harness.cli.finishing import reported
from harness.cli.planning import check_goals, planned
from harness.cli.progress.progress import Show
from harness.cli.show.plan_text import skip_lines
from harness.contracts import Objective, Plan, PlannedStart, SearchTerms
from harness.errors import UserError
from harness.install import install
from harness.settings import config, overrides
from harness.settings.config import Settings

# What imports pyarrow, numpy or pandas is imported by the functions that need it.
if TYPE_CHECKING:
    from harness.store.store import RunRecord
    from reports.deciding.attainment import Judged
    from reports.deciding.searches import Capacity


def search(
    changes: Overrides = None,
    study: Study = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Directory of this search; new or empty.", show_default="results/<time>"),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Begin anew the starts that did not come to their end.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the highest load that keeps every objective (slo.*), on each server start.

    Over users, or with search.over=rate over conversations begun per second: doubled from search.lowest until
    an objective is broken, then bisected to within search.precision. If the lowest breaks one, lower rates
    are tried, down to a sixteenth; without search.lowest it is where a window has four conversations. A load
    that is not clear gets up to search.trials windows, each with fresh prompts.

    Servers are told to serve search.highest users at once where that is given, at most 64, else 8; more of
    them wait. engine.concurrent_sequences=N says it otherwise.

    A trial takes load.warmup, load.duration and what is still under way then, load.timeout at most; it ends
    early once half of the last requests failed (load.max_failed).
    """
    if resume is not None:
        if changes or study or output:
            raise UserError(
                "--resume takes the search's own settings; give no keys, --from or --output with it"
            )
        go_on(resume, quiet=quiet, as_json=as_json)
        return
    settings, terms = config.search_settings(overrides.parse(changes or [], study))
    if output is not None:
        from harness.run import session

        session.check_output(output)
    _search(settings, terms, output, None, quiet=quiet, as_json=as_json)


def go_on(directory: Path, *, quiet: bool, as_json: bool = False) -> None:
    """Resume the search in this directory. Raises UserError where it is a run."""
    from harness.run import session
    from harness.store import store

    record = store.read_run(directory)
    if record.search is None:
        raise UserError(f"{directory}: is a run, no search; go on with `bench run --resume {directory}`")
    settings, terms = config.search_settings(session.choices_of(record))
    _search(settings, terms, directory, record, quiet=quiet, as_json=as_json)


def _search(
    settings: Settings,
    terms: SearchTerms,
    directory: Path | None,
    record: RunRecord | None,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure a new search, or what a recorded one lacks; print its answers and where its report is."""
    from harness.run import search as searching

    settings = searching.prepared(settings, terms)
    whole = planned(settings, is_new=record is None)
    if record is None:
        check_goals(settings, whole)
    left: Sequence[PlannedStart] = whole.starts
    if record is not None and directory is not None:
        record, left = searching.starts_left(directory, record, whole)
    with signals_interrupt(), Show(quiet=quiet) as show:
        for line in (*skip_lines(whole.skips), *searching.lines(terms, whole)):
            show.line(line)
        if not whole.starts:
            raise UserError("nothing to search: every combination was skipped")
        if not left:
            show.line("every start came to its end; nothing to search")
        directory = _searched(settings, terms, directory, record, whole, left, show, as_json=as_json)
    failed = _print_answers(directory, as_json=as_json)
    if failed:
        again = f"`bench search --resume {directory}` begins them anew"
        show.line(f"{failed} of {len(whole.starts)} starts failed; {again}")
        raise typer.Exit(1)


def _searched(
    settings: Settings,
    terms: SearchTerms,
    directory: Path | None,
    record: RunRecord | None,
    whole: Plan,
    left: Sequence[PlannedStart],
    show: Show,
    *,
    as_json: bool,
) -> Path:
    """Search on the starts that are left and write the report, whatever happens; the search's directory."""
    from engines.model import weights
    from harness.run import search as searching
    from harness.run import session

    provisions, site = session.provision(settings, left, weights, install.cache_dir(), show)
    directory = directory or session.new_run_dir(Path("results"), settings)
    judge = partial(_judged, slo=settings.slo)
    with session.sole_writer(directory):
        record = record or _begun(directory, settings, terms, whole)
        again = f"`bench search --resume {directory}` searches on the starts left"
        with reported(directory, show, again, as_json=as_json):
            if left:
                searching.measure(
                    directory, record, left, provisions, site, show, seed=settings.seed, judge=judge
                )
    return directory


def _begun(directory: Path, settings: Settings, terms: SearchTerms, whole: Plan) -> RunRecord:
    from harness.run import session
    from harness.selftest import known_error
    from harness.store import store

    record = session.begin(directory, settings, whole, known_error.find(install.cache_dir()))
    record = replace(record, search=terms)
    store.write_record(directory / "run.json", record)
    return record


def _judged(directory: Path, numbers: Sequence[int], slo: Sequence[Objective]) -> Judged:
    from reports.deciding.attainment import trial

    return trial(directory, numbers, slo)


def _print_answers(directory: Path, *, as_json: bool) -> int:
    """Print each deployment's answer and the report's path; returns how many starts did not end."""
    from reports import open_run
    from reports.deciding.searches import as_plain, capacities_of, words
    from reports.marks import SIGN

    run = open_run(directory)
    capacities = capacities_of(run)
    if as_json:
        print_json(
            {"answers": [as_plain(each) for each in capacities], "report": str(directory / "report.html")}
        )
    else:
        for each in capacities:
            out.print(escape(f"{_named(each, capacities)}: {words(each)}"))
        if any(each.marks for each in capacities):
            out.print(f"{SIGN} n: so many reasons to distrust it; the report says which")
        out.print(escape(str(directory / "report.html")))
    return sum(not answer.is_whole for each in capacities for answer in each.answers)


def _named(each: Capacity, all_of_them: Sequence[Capacity]) -> str:
    scenarios = {other.scenario for other in all_of_them}
    return f"{each.deployment}, {each.scenario}" if len(scenarios) > 1 else each.deployment
